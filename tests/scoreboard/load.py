"""Guests that come, fault and go, one after another in several seats, while something is done to the daemon."""
import http.client
import itertools
import os
import random
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
import rig

PAGES = 4096

# Options of cistern-fakevmm and the fill; every kind of memory, every kind of fill.
KINDS = [
    (("--threads", "3"), "none"),
    (("--threads", "3"), "all"),
    (("--memory", "memfd", "--client", "--threads", "2"), "hot"),
    (("--memory", "memfd", "--client", "--minor", "--populate", "--threads", "3"), "all"),
    (("--memory", "memfd", "--client", "--minor", "--populate", "--threads", "2"), "none"),
    (("--memory", "private", "--client", "--threads", "2"), "none"),
    (("--threads", "4", "--handshake", "v1.5"), "hot"),
    (("--memory", "memfd", "--threads", "2"), "none"),
]
DO = "&storm:40,read,verify,&write:0-900,join,verify,storm:10,read,verify"
DO_PRIVATE = "read,verify,write:0-900,verify" # what a private guest gives back reads as its base again: nothing to storm


def insist(daemon, ask):
    """A request whose answer may be lost with the engine is made again, as long as there is a keeper."""
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException):
            assert daemon.process.poll() is None, "the daemon has ended: " + daemon.said()


class Load:
    """Use it in a with statement; failures holds a text for each guest that was lost or saw a wrong byte."""

    def __init__(self, daemon, seats=len(KINDS), fresh=True):
        self.daemon, self.seats = daemon, seats
        self.memory, self.image = rig.make_image(daemon, "load", "--chunk", "64", pages=PAGES, kind=None)
        self.failures, self.guests, self.stop = [], 0, threading.Event()
        self.lock, self.numbers = threading.Lock(), itertools.count()
        self.threads = [threading.Thread(target=self.seat, args=(n,)) for n in range(seats)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def put(self, name, fill):
        def ask():
            status, answer = self.daemon.ask("PUT", "/v1/guests/" + name, {"image": self.image, "fill": fill})
            if status == 409: # the request before was heard, its answer was not
                status, answer = self.daemon.ask("GET", "/v1/guests/" + name)
            if status == 503:
                raise OSError("not now") # a hand-over is under way
            assert status < 300, "%s: %s %s" % (name, status, answer)
            return answer["socket"]
        return insist(self.daemon, ask)

    def one(self, seat):
        options, fill = KINDS[seat % len(KINDS)]
        do = DO_PRIVATE if "private" in options else DO
        with self.lock:
            number = next(self.numbers)
        sock = self.put("load%d" % number, fill)
        guest = rig.Guest(self.daemon, sock, "--expect", self.memory, "--order", "random", "--seed", str(number), *options, do=do)
        report = guest.end()
        with self.lock:
            self.guests += 1
            if guest.process.returncode or report is None or report["wrong_pages"]:
                self.failures.append("guest load%d %s fill %s: status %s, %s %s" %
                                     (number, " ".join(options), fill, guest.process.returncode, report, guest.said))

    def seat(self, seat):
        try:
            while not self.stop.is_set():
                self.one(seat)
        except BaseException as error:
            with self.lock:
                self.failures.append("seat %d: %r\n%s" % (seat, error, self.daemon.said()))


def engine_of(daemon):
    """Pid of the engine, or None between two of them."""
    keeper = daemon.process.pid
    with open("/proc/%d/task/%d/children" % (keeper, keeper)) as file:
        pids = file.read().split()
    return int(pids[0]) if pids else None


def with_daemon(build, run, **config):
    with tempfile.TemporaryDirectory(prefix="cistern-score.", dir=os.environ.get("CIS_TEST_DIR", "/var/tmp")) as folder:
        with rig.Daemon(build, folder, **{"awake_ms": 0, "log_level": "warn", **config}) as daemon:
            return run(daemon)


def seeded(text):
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))
    return random.Random(text + seed), "seed " + seed
