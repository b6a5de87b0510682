#!/usr/bin/env python3
"""Every answer of a running cisternd is one that doc/api-v1.json describes, key by key.

    answers-fit-the-api.py CISTERND CISTERN FAKEVMM API.json
"""
import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


class Schema:
    """As much of JSON Schema as the description uses; keys of answers that it does not name are faults."""

    def __init__(self, api):
        self.api = api

    def faults(self, schema, value, where):
        if "$ref" in schema:
            return self.faults(self.api["components"]["schemas"][schema["$ref"].split("/")[-1]], value, where)
        if value is None and schema.get("nullable"):
            return []
        if "oneOf" in schema:
            return [] if any(not self.faults(s, value, where) for s in schema["oneOf"]) else [where + ": fits none"]
        check = {"object": self.object, "array": self.array, "string": self.string, "integer": self.integer,
                 "boolean": lambda s, v, w: [] if isinstance(v, bool) else [w + ": not a boolean"]}
        return check[schema["type"]](schema, value, where)

    def object(self, schema, value, where):
        if not isinstance(value, dict):
            return [where + ": not an object"]
        found = ["%s: lacks %s" % (where, key) for key in schema.get("required", []) if key not in value]
        for key, part in value.items():
            if key in schema["properties"]:
                found += self.faults(schema["properties"][key], part, where + "." + key)
            else:
                found.append("%s.%s: not described" % (where, key))
        return found

    def array(self, schema, value, where):
        if not isinstance(value, list):
            return [where + ": not an array"]
        return [f for i, each in enumerate(value) for f in self.faults(schema["items"], each, "%s[%d]" % (where, i))]

    def string(self, schema, value, where):
        if not isinstance(value, str):
            return [where + ": not a string"]
        if value not in schema.get("enum", [value]) or not re.search(schema.get("pattern", ""), value):
            return ["%s: '%s' is not one of its values" % (where, value)]
        return []

    def integer(self, schema, value, where):
        if isinstance(value, bool) or not isinstance(value, int):
            return [where + ": not an integer"]
        good = value in schema.get("enum", [value]) and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        return [] if good else ["%s: %d is out of range" % (where, value)]


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(25)
        self.sock.connect(self.host)


class Daemon:
    def __init__(self, program, folder, api):
        self.control, self.api, self.schema, self.faults = folder + "/control.sock", api, Schema(api), []
        self.process = subprocess.Popen([program, "--control", self.control, "--set", "images=" + folder, "--set",
                                         "traces=" + folder], stderr=subprocess.PIPE)
        said = b""
        while self.control.encode() not in said:
            if not select.select([self.process.stderr], [], [], 20)[0]:
                raise RuntimeError("cisternd says nothing")
            line = self.process.stderr.readline()
            if not line:
                raise RuntimeError("cisternd ended: " + said.decode())
            said += line

    def described(self, method, path):
        for template, item in self.api["paths"].items():
            if re.fullmatch(template.replace("{id}", "[^/]+"), path.split("?")[0]):
                return item.get(method.lower())
        return None

    def call(self, method, path, body=None, status=200, code=None):
        """One request, its answer checked: the status, the error's code, and the description."""
        connection = Unix(self.control)
        connection.request(method, path, body if isinstance(body, (str, bytes, type(None))) else json.dumps(body))
        answer = connection.getresponse()
        data, what = answer.read(), "%s %s" % (method, path)
        connection.close()
        obj = json.loads(data) if data and "json" in answer.getheader("Content-Type", "json") else None
        got = obj["error"]["code"] if code and obj and "error" in obj else None
        if (answer.status, got) != (status, code):
            self.faults.append("%s: %d %s, wanted %d %s" % (what, answer.status, data.decode(), status, code))
        operation = self.described(method, path)
        responses = operation["responses"] if operation else {"default": {"content": {"application/json": {"schema": {
            "$ref": "#/components/schemas/Error"}}}}}
        response = responses.get(str(answer.status)) or (responses["default"] if answer.status >= 400 else None)
        if not response:
            self.faults.append("%s: status %d is not described" % (what, answer.status))
        elif obj is not None and "application/json" in response.get("content", {}):
            self.faults += self.schema.faults(response["content"]["application/json"]["schema"], obj, what)
        elif data and "content" not in response:
            self.faults.append("%s: a body, though none is described" % what)
        return obj


def refusals(d, folder):
    guest = "/v1/guests/g"
    d.call("PUT", guest, "{", 400, "bad_request")
    d.call("PUT", guest, "[]", 400, "bad_request")
    d.call("PUT", guest, {}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "colour": "red"}, 400, "bad_request")
    d.call("PUT", guest, {"image": "a.cis"}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "policy": "pray"}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "uid": -1}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "store": "falt"}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "record": 1}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": 1}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"colour": 1}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"max_bytes": 1048575}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"min_bytes": None}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"max_bytes": 2 << 20, "min_bytes": 3 << 20}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"max_bytes": 2 << 20, "target_bytes": 3 << 20}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"codec": "deflate"}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"reclaim": True}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"parked": 1}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"weight": 0}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"weight": 10001}}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"parked": True}, "pinned": True}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/a.cis", "budget": {"max_bytes": 2 << 20}, "pinned": True}, 400, "bad_request")
    d.call("PUT", "/v1/guests/-g", {"image": folder + "/a.cis"}, 400, "bad_request")
    d.call("PUT", guest, {"image": folder + "/nothing"}, 404, "not_found")
    d.call("PUT", guest, {"image": folder + "/mem"}, 422, "image_refused")
    d.call("PUT", guest, " " * 65537, 413, "too_large")
    d.call("GET", guest, None, 404, "not_found")
    d.call("DELETE", guest, None, 404, "not_found")
    d.call("PATCH", guest, {"pinned": True}, 404, "not_found")
    d.call("GET", guest + "/wait?state=gone", None, 404, "not_found")
    d.call("PUT", guest + "/record", {"state": "start"}, 404, "not_found")
    d.call("GET", "/v1/nothing", None, 404, "not_found")
    d.call("GET", "/v1/%FFnothing", None, 404, "not_found")
    d.call("PUT", guest, {"image": "/" + 300 * "\u20ac"}, 400, "bad_request")  # longer than a message, which ends within a character
    d.call("DELETE", "/v1/health", None, 405, "bad_method")
    d.call("PATCH", "/v1/config", {"log_level": "loud"}, 400, "bad_request")
    d.call("PATCH", "/v1/config", {}, 400, "bad_request")
    d.call("PATCH", "/v1/config", {"host_budget_bytes": 1048575}, 400, "bad_request")
    d.call("PATCH", "/v1/config", {"host_budget_bytes": "12G"}, 400, "bad_request")


def expected_guest(d, folder):
    guest = "/v1/guests/early"
    d.call("PUT", guest, {"image": folder + "/a.cis", "socket": folder + "/early.sock", "policy": "kill", "fill": "hot"}, 201)
    d.call("PUT", guest, {"image": folder + "/a.cis"}, 409, "exists")
    d.call("GET", guest)
    d.call("GET", guest + "/wait?state=filled&timeout_ms=1", None, 504, "timeout")
    d.call("GET", guest + "/wait?state=asleep", None, 400, "bad_request")
    d.call("PUT", guest + "/record", {"state": "stop"}, 409, "wrong_state")
    d.call("PATCH", guest, {"pinned": True}, 409, "wrong_state")
    d.call("GET", "/v1/guests")
    d.call("DELETE", guest, None, 204)
    d.call("GET", guest, None, 404, "not_found")


def running_guest(d, folder, fakevmm):
    guest = "/v1/guests/late"
    made = d.call("PUT", guest, {"image": folder + "/a.cis", "socket": folder + "/late.sock", "fill": "none"}, 201)
    vmm = subprocess.Popen([fakevmm, made["socket"], "--size", "8M", "--memory", "memfd", "--expect", folder + "/mem", "--do", "-"],
                           stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        d.call("GET", guest + "/wait?state=filled")
        d.call("GET", guest + "/wait?state=independent", None, 409, "wrong_state")
        d.call("PUT", guest + "/record", {"state": "start"})
        d.call("PUT", guest + "/record", {"state": "start"}, 409, "wrong_state")
        d.call("PUT", guest + "/record", {"state": "sleep"}, 400, "bad_request")
        d.call("DELETE", guest, None, 409, "wrong_state")
        d.call("PATCH", guest, {"budget": {"max_bytes": 2 << 20, "stash_bytes": 4 << 20, "codec": "zstd", "reclaim": "sync"}})
        d.call("GET", guest)
        d.call("PATCH", guest, {"pinned": True}, 409, "wrong_state")
        d.call("PATCH", guest, {"budget": {"max_bytes": 1}}, 400, "bad_request")
        d.call("PATCH", guest, {"budget": {"parked": True}})
        d.call("PATCH", guest, {"budget": {"parked": False}})
        d.call("PATCH", guest, {"budget": {"max_bytes": None}, "pinned": True})
        d.call("PATCH", guest, {"budget": {"max_bytes": 2 << 20}}, 409, "wrong_state")
        d.call("PATCH", guest, {"budget": {"max_bytes": 2 << 20}, "pinned": False})
        vmm.stdin.write(b"read\n")
        vmm.stdin.close()
        if vmm.wait(25):
            d.faults.append("fakevmm: status %d" % vmm.returncode)
        d.call("GET", guest + "/wait?state=gone")
        d.call("GET", guest + "/wait?state=filled", None, 409, "wrong_state")
        d.call("PUT", guest + "/record", {"state": "stop", "path": folder + "/t"})
        d.call("PUT", guest, {"image": folder + "/a.cis"}, 201)
        d.call("DELETE", guest, None, 204)
    finally:
        vmm.kill()
        vmm.wait()


def check_events(d, stream):
    """All that happened to the guest 'late', in order, up to its being deleted."""
    seen = []
    while "guest.deleted" not in seen:
        event = json.loads(stream.readline())
        d.faults += d.schema.faults({"$ref": "#/components/schemas/Event"}, event, "event")
        seen.append(event["event"])
    wanted = ["guest.expected", "guest.connected", "guest.filled", "record.started", "guest.gone", "record.stopped"]
    if [event for event in seen if event in wanted][:len(wanted)] != wanted:
        d.faults.append("events: %s" % " ".join(seen))


def main():
    cisternd, cistern, fakevmm, api = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="cistern-api-") as folder:
        subprocess.run([HERE + "/make-input", "mem", folder + "/mem", "8"], check=True)
        subprocess.run([cistern, "image", "create", "--codec", "lz4", folder + "/mem", folder + "/a.cis"], check=True,
                       stdout=subprocess.DEVNULL)
        d = Daemon(cisternd, folder, json.load(open(api)))
        try:
            events = Unix(d.control)
            events.request("GET", "/v1/events?guest=late")
            stream = events.getresponse()
            d.call("GET", "/v1/health")
            d.call("GET", "/v1/metrics")
            d.call("GET", "/v1/guests")
            d.call("PATCH", "/v1/config", {"log_level": "warn"})
            d.call("PATCH", "/v1/config", {"host_budget_bytes": 12 << 30})
            d.call("GET", "/v1/metrics")
            d.call("PATCH", "/v1/config", {"host_budget_bytes": None, "log_level": "info"})
            d.call("POST", "/v1/upgrade", {"exec": "relative"}, 400, "bad_request")
            d.call("POST", "/v1/upgrade", {"exec": "/bin/false"}, 500, "upgrade_failed")
            d.call("POST", "/v1/upgrade", {"speed": 1}, 400, "bad_request")
            d.call("POST", "/v1/drain?timeout_ms=x", None, 400, "bad_request")
            d.call("POST", "/v1/drain", None, 200)
            refusals(d, folder)
            expected_guest(d, folder)
            running_guest(d, folder, fakevmm)
            check_events(d, stream)
        finally:
            d.process.terminate()
            d.process.communicate()
    print("\n".join(d.faults) or "all answers fit")
    return 1 if d.faults else 0


sys.exit(main())
