"""A stand-in for cisternd that speaks doc/api.md, for tests of the command line.  Notes each request in FOLDER/requests."""
import http.server
import json
import socketserver
import threading

# What a daemon never says, as the whole answer to any request for a guest of that name.
NONSENSE = {
    "text": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no-guest": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no-reason": b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
    "teapot": b"HTTP/1.1 418 No\r\nContent-Length: 59\r\n\r\n" + b'{"error": {"code": "teapot", "message": "short and stout"}}',
    "part": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "ssh": b"SSH-2.0-x\r\n",
    "hangs-up": b"",
}
CODES = {"bad_request": 400, "not_found": 404, "bad_method": 405, "exists": 409, "wrong_state": 409,
         "upgrade_failed": 500, "timeout": 504}


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Guests:
    def __init__(self):
        self.all = {}

    def find(self, name):
        if name not in self.all:
            raise Refused("not_found", "%s: no such guest" % name)
        return self.all[name]

    def put(self, name, spec):
        if name in self.all:
            raise Refused("exists", "%s: is there already" % name)
        unknown = set(spec) - {"budget", "pinned", "image", "socket", "kind", "policy", "fill", "record", "store", "uid", "gid"}
        if unknown:
            raise Refused("bad_request", "unknown key %s" % sorted(unknown)[0])
        self.all[name] = {
            "id": name, "state": "filled", "image": spec["image"], "image_id": image_id(spec["image"]),
            "socket": spec.get("socket", "/run/cistern/guests/%s.sock" % name),
            "kind": spec.get("kind", "firecracker"), "policy": spec.get("policy", "poison"),
            "fill": spec.get("fill", "all"), "store": spec.get("store", ""), "pid": 4711,
            "pages": {"total": 2048, "absent": 1000, "resident": 1048, "removed": 0, "poisoned": 0},
            "faults": {"count": 8, "zero": 3, "demand": 4, "neighbour": 5, "removed": 0},
            "bytes": {"read": 1048576, "installed": 4292608},
            "prefetch": {"pages": 90 if spec.get("record") else 0, "probes": 16 if spec.get("record") else 0, "hits": 12},
            "memory": {"resident_bytes": 4292608, "stashed_bytes": 0, "stash_bytes": 0, "far_bytes": 0},
            "budget": {"max_bytes": None, "target_bytes": None, "min_bytes": 1 << 20, "parked": False}, "pinned": False,
            "record": {"state": "on" if spec.get("record") else "off", "pages": 0}}
        return 201, self.all[name]

    def change(self, name, spec):
        """It shrinks by 2 MiB each time that somebody looks, down to 1 MiB, or not at all when its stash has no room."""
        guest = self.find(name)
        guest["budget"].update(spec.get("budget", {}))
        guest["pinned"] = spec.get("pinned", guest["pinned"])
        budget, memory = guest["budget"], guest["memory"]
        limits = [budget[key] for key in ("target_bytes", "max_bytes") if budget[key] is not None]
        if budget["parked"]:
            limits.append(budget["min_bytes"])
        memory.pop("budget_bytes", None)
        if limits:
            memory["budget_bytes"] = min(limits)
        return 200, guest

    def look(self, name):
        guest = self.find(name)
        memory, budget = guest["memory"], guest["budget"]
        out = max(0, memory["resident_bytes"] - memory.get("budget_bytes", 1 << 62))
        out = min(out, 2 << 20, (budget.get("stash_bytes") or 1 << 62) - memory["stash_bytes"])
        memory["resident_bytes"] -= out
        memory["stashed_bytes"] += out
        memory["stash_bytes"] += out
        return 200, guest

    def wait(self, name, query):
        guest = self.find(name)
        if "state=gone" in query:
            raise Refused("timeout", "%s: is filled" % name)
        return 200, guest

    def record(self, name, spec):
        guest = self.find(name)
        if spec["state"] == "start":
            guest["record"]["state"] = "on"
            return 200, guest
        if guest["record"]["state"] == "off":
            raise Refused("wrong_state", "%s: is not being recorded" % name)
        guest["record"]["state"] = "off"
        return 200, {"trace": spec.get("path", "/var/lib/cistern/traces/%s.trace" % name), "pages": 2304}

    def delete(self, name, query):
        self.find(name)
        if "force=true" not in query:
            raise Refused("wrong_state", "%s: its monitor runs and needs pages" % name)
        del self.all[name]
        return 204, None


def image_id(path):
    try:
        return open(path, "rb").read(64)[32:].hex()
    except OSError:
        return "0" * 64


class Handler(http.server.BaseHTTPRequestHandler):
    guests = Guests()
    folder = None

    def answer(self, method, path, body):
        path, _, query = path.partition("?")
        parts = path.strip("/").split("/")
        if parts == ["v1", "health"]:
            return 200, {"status": "ok", "version": "0.1.0", "engine_pid": 815, "engine": 2}
        if parts == ["v1", "guests"]:
            return 200, {"guests": [self.guests.all[name] for name in sorted(self.guests.all)]}
        if parts == ["v1", "drain"] and query:
            raise Refused("timeout", "guest web-1: 3 of 2048 pages are not there yet")
        if parts == ["v1", "drain"]:
            return 200, {"drained": ["web-1", "web-2"]}
        if parts == ["v1", "upgrade"]:
            return self.upgrade(body)
        if parts[:2] != ["v1", "guests"]:
            raise Refused("not_found", "%s: no such path" % path)
        routes = {("PUT", 3): lambda: self.guests.put(parts[2], body),
                  ("GET", 3): lambda: self.guests.look(parts[2]),
                  ("PATCH", 3): lambda: self.guests.change(parts[2], body),
                  ("DELETE", 3): lambda: self.guests.delete(parts[2], query),
                  ("GET", 4): lambda: self.guests.wait(parts[2], query),
                  ("PUT", 4): lambda: self.guests.record(parts[2], body)}
        return routes[(method, len(parts))]()

    def upgrade(self, spec):
        if spec.get("exec") == "/bin/false":
            raise Refused("upgrade_failed", "the new engine ended with status 1 before it was ready")
        if spec.get("keeper"):
            return 200, {"keeper_pid": 811}
        return 200, {"from": {"version": "0.1.0", "pid": 812, "engine": 1}, "to": {"version": "0.2.0"}, "blackout_ms": 4.125}

    def handle_any(self):
        nonsense = NONSENSE.get(self.path.split("?")[0].split("/")[-1])
        if nonsense is not None:
            self.wfile.write(nonsense)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open(self.folder + "/requests", "a") as log:
            log.write(("%s %s %s" % (self.command, self.path, body.decode())).strip() + "\n")
        try:
            status, obj = self.answer(self.command, self.path, json.loads(body) if body else None)
        except Refused as refused:
            status, obj = CODES[refused.code], {"error": {"code": refused.code, "message": str(refused)}}
        self.send_response(status)
        data = json.dumps(obj).encode() if obj is not None else b""
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def start(folder):
    Handler.folder = folder
    server = Server(folder + "/control.sock", Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
