"""What the end-to-end tests share: memory files, guests played by cistern-fakevmm, the daemon's HTTP, events and metrics.

Nothing here sleeps: a test waits for a line of its guest, an event, or a state that the daemon reports.
"""
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/guest"))
import cistern

PAGE, PAGES = 4096, 1024
SECONDS = 60  # after which a test gives up on what it waits for


def page(source, number, kind=None):
    """Pages of every class and of every kind of content that a codec treats on its own."""
    kind = source.randrange(5) if kind is None else kind
    if kind == 0:
        return bytes(PAGE)
    if kind == 1:
        return source.randbytes(8) * (PAGE // 8)
    if kind == 2:
        return source.randbytes(PAGE)
    if kind == 3:
        return b"".join((number << 20 | i).to_bytes(8, "little") for i in range(PAGE // 8))
    return (b"page %d of a guest, " % number * 400)[:PAGE]


def make_memory(path, pages, kind=None, seed=1):
    source = random.Random(seed)
    with open(path, "wb") as file:
        for number in range(pages):
            content = page(source, number, kind)
            file.seek(PAGE, os.SEEK_CUR) if content == bytes(PAGE) else file.write(content)
        file.truncate(pages * PAGE)
    return path


def program(daemon, name, *lines):
    """A binary of our own that a keeper starts instead of cisternd; cisternd is $DAEMON."""
    path = daemon.folder + "/" + name
    with open(path, "w") as file:
        file.write("#!/bin/sh\nDAEMON=%s/cisternd\n%s\n" % (daemon.build, "\n".join(lines)))
    os.chmod(path, 0o755)
    return path


def make_image(daemon, name="image", *options, pages=PAGES, kind=2, seed=1):
    """Random pages, each a chunk of its own, stored as they are: page N lies at cold_offset + N * PAGE."""
    memory = make_memory(daemon.folder + "/" + name + ".raw", pages, kind, seed)
    image = daemon.folder + "/" + name + ".cis"
    daemon.run("image", "create", memory, image, *(options or ("--codec", "raw", "--chunk", "4")))
    return memory, image


def cold_offset(image):
    """Where its cold section begins (doc/format.md 3)."""
    with open(image, "rb") as file:
        return struct.unpack_from("<Q", file.read(4096), 144)[0]


def overwrite(path, offset, data):
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, offset)
    os.close(fd)


def uncache(path):
    """So that the next reader waits for the disk (where the file system has one)."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("cistern", timeout=SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path) # waits while the daemon has too many, which it does not with a time-out
        self.sock.settimeout(SECONDS)


class Guest:
    """A cistern-fakevmm; with do="-" it is told what to do, action by action."""

    def __init__(self, daemon, sock, *options, do="read"):
        words = [daemon.build + "/cistern-fakevmm", "--json", "--timeout", str(SECONDS), "--do", do, *options, sock]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def tell(self, action):
        self.process.stdin.write(action + "\n")
        self.process.stdin.flush()

    def done(self):
        """The next line that it says; None at its end."""
        line = self.process.stdout.readline()
        return line.strip() if line.startswith("done ") else None

    def do(self, action):
        self.tell(action)
        said = self.done()
        assert said == "done " + action, "guest: %r, not done %s: %s" % (said, action, self.process.stderr.read())

    def start(self, action):
        """Does it beside the test.  A thread, which lives until it is done."""
        self.tell("&" + action)
        self.tell("join")
        waits = threading.Thread(target=lambda: [self.done(), self.done()])
        waits.start()
        return waits

    def end(self):
        """It ends by itself, with the report that is returned; None when it was killed."""
        out, err = self.process.communicate(timeout=SECONDS)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        self.said = err
        return json.loads(lines[-1]) if lines else None

    def kill(self):
        self.process.kill()
        self.process.communicate()


class Events:
    """The daemon's event stream, from the moment that this exists."""

    def __init__(self, daemon, query=""):
        self.connection = Unix(daemon.control)
        self.connection.request("GET", "/v1/events" + query)
        self.response = self.connection.getresponse()
        self.seen, self.cond, self.over = [], threading.Condition(), False
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        try:
            for line in self.response:
                with self.cond:
                    self.seen.append(json.loads(line))
                    self.cond.notify_all()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass
        with self.cond:
            self.over = True
            self.cond.notify_all()

    def wait(self, event, guest=None, times=1):
        """The event; it may have come before."""
        def found():
            return [e for e in self.seen if e["event"] == event and guest in (None, e["guest"])]

        with self.cond:
            assert self.cond.wait_for(lambda: len(found()) >= times or self.over, SECONDS) and len(found()) >= times, \
                "no event %s of %s in %s" % (event, guest, self.seen)
            return found()[times - 1]

    def names(self, guest):
        with self.cond:
            return [e["event"] for e in self.seen if e["guest"] == guest]


class Daemon(cistern.Daemon):
    def ask(self, method, path, body=None):
        """(status, answer) of the control interface."""
        connection = Unix(self.control)
        connection.request(method, path, json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def must(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        assert status < 300, "%s %s: %d %s" % (method, path, status, answer)
        return answer

    def put(self, guest, image, **keys):
        return self.must("PUT", "/v1/guests/" + guest, {"image": image, **keys})["socket"]

    def guest(self, guest):
        return self.must("GET", "/v1/guests/" + guest)

    def wait(self, guest, state):
        return self.must("GET", "/v1/guests/%s/wait?state=%s&timeout_ms=%d" % (guest, state, SECONDS * 1000))

    def metrics(self, guest=None):
        """{name{labels but guest}: value} of one guest, or of all together."""
        label, values = 'guest="%s"' % guest, {}
        for line in self.must("GET", "/v1/metrics").splitlines():
            if line.startswith("#"):
                continue
            name, value = line.rsplit(" ", 1)
            if guest is None and 'guest="' not in name:
                values[name] = float(value)
            elif guest is not None and label in name:
                values[name.replace(label + ",", "").replace("{" + label + "}", "")] = float(value)
        return values

    def pids(self):
        health = self.must("GET", "/v1/health")
        return health["engine_pid"], health["keeper_pid"]

    def engine(self):
        """The engine's process, however it is; None while there is none."""
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as file:
            pids = [int(pid) for pid in file.read().split()]
        return pids[-1] if pids else None

    def kill_engine(self):
        """With SIGKILL, whatever it is at.  Its number, or None when there was none."""
        pid = self.engine()
        try:
            if pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return pid

    def insist(self, method, path, body=None):
        """As ask(), again when the engine that was asked is gone: it may have done it all the same."""
        while True:
            try:
                return self.ask(method, path, body)
            except (ConnectionError, http.client.HTTPException, FileNotFoundError):
                assert self.process.poll() is None, "the daemon has ended"

    def descriptors(self):
        """Open descriptors of engine and keeper, without the connection that asks."""
        return [sorted(link(pid, fd) for fd in os.listdir("/proc/%d/fd" % pid)) for pid in self.pids()]


def link(pid, fd):
    try:
        name = os.readlink("/proc/%d/fd/%s" % (pid, fd))
    except OSError:
        return "gone"
    return "socket" if name.startswith("socket:") else "eventfd" if "eventfd" in name else name.split(" (deleted)")[0]


def until(seen):
    """Looks again until a program beside the test has done its part."""
    ends = time.monotonic() + SECONDS
    while not seen():
        assert time.monotonic() < ends, "it never came"


def expect(report, **values):
    assert report is not None, "the guest did not report"
    for key, value in values.items():
        assert report[key] == value, "%s is %s, not %s: %s" % (key, report[key], value, report)


def lacking(build):
    """What cistern doctor misses on this host."""
    said = subprocess.run([build + "/cistern", "doctor", "--json"], stdout=subprocess.PIPE).stdout
    return {probe["name"] for probe in json.loads(said)["probes"] if not probe["good"]}


def run(tests, build, make=Daemon, **config):
    """Each test with a daemon of its own, in a folder of its own.

    A test's attribute needs names what doctor must find for it; without, what it must not find.
    """
    only, missing = sys.argv[2:], lacking(build)
    for test in tests:
        if only and test.__name__ not in only:
            continue
        if getattr(test, "needs", None) in missing or hasattr(test, "without") and test.without not in missing:
            print("not here:", test.__name__, flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="cistern-e2e.", dir=os.environ.get("CIS_TEST_DIR", "/var/tmp")) as folder:
            with make(build, folder, **{"awake_ms": 0, **config, **getattr(test, "config", {})}) as daemon:
                try:
                    test(daemon)
                    if not hasattr(test, "status") and not hasattr(test, "ends"):
                        daemon.must("GET", "/v1/health")
                except BaseException:
                    sys.stderr.write("%s failed; the daemon said:\n%s" % (test.__name__, daemon.said()))
                    raise
            status = daemon.process.returncode
            assert status == getattr(test, "status", 0), "%s: the daemon ended with status %s:\n%s" % (test.__name__, status, daemon.said())
            check_log(test, folder)
        print("ok", test.__name__, flush=True)


BAD_WORDS = ("Sanitizer", "runtime error", "Assertion", "engine was ended")


def check_log(test, folder):
    """Sanitizers and asserts speak there."""
    with open(folder + "/cisternd.log", errors="replace") as file:
        bad = [line for line in file if any(word in line for word in BAD_WORDS) and not any(word in line for word in getattr(test, "said", ()))]
    assert not bad, "%s: %s" % (test.__name__, "".join(bad))
