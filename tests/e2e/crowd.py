"""Guests of every kind that come, touch, give back and go, whatever happens to the daemon; and engines that are killed meanwhile."""
import itertools
import threading

import rig
from rig import Guest

GUESTS = 8
KINDS = ((), ("--memory", "memfd"), ("--memory", "memfd", "--minor", "--populate"), ("--client", "--memory", "private", "--minor"),
         ("--client",), ("--client", "--memory", "memfd", "--minor"))


def put(daemon, guest, image, **keys):
    """Expected, whether an engine that was killed heard of it or not."""
    status = 503
    while status == 503: # one engine follows another
        status, answer = daemon.insist("PUT", "/v1/guests/" + guest, {"image": image, **keys})
    if status == 409:
        status, answer = daemon.insist("GET", "/v1/guests/" + guest)
    assert status in (200, 201), (status, answer)
    return answer["socket"]


class Crowd:
    """Guests that come and go, until told to end."""

    def __init__(self, daemon, memory, image, kinds, pages, width=GUESTS):
        self.daemon, self.memory, self.image, self.kinds, self.pages = daemon, memory, image, kinds, pages
        self.over, self.served, self.wrong, self.number = threading.Event(), 0, [], itertools.count()
        self.threads = [threading.Thread(target=self.follow, args=(i,)) for i in range(width)]
        for thread in self.threads:
            thread.start()

    def follow(self, slot):
        try:
            while not self.over.is_set():
                self.serve(slot)
        except BaseException as error:
            self.wrong.append(repr(error))

    def serve(self, slot):
        number = next(self.number)
        name, source = "g%d.%d" % (slot, number), rig.random.Random(number)
        kind = self.kinds[number % len(self.kinds)]
        sock = put(self.daemon, name, self.image, fill=source.choice(("none", "none", "hot", "all")))
        half = self.pages // 2
        writes = "&write:%d-%d" % (half, half + half // 8)
        storms = "&storm:%d," % (self.pages // 8), ",storm:10,read"
        guest = Guest(self.daemon, sock, "--expect", self.memory, "--threads", "3", "--order", "random", "--seed", str(number + 1), *kind,
                      do="&read," + storms[0] + writes + ",join,verify" + storms[1])
        report = guest.end()
        if report is None or report["wrong_pages"] or report["poisoned"]:
            self.wrong.append((name, kind, report, guest.said))
        self.served += 1

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong[:3]


def counters(text):
    """{name{labels}: value} of all guests together, of what only ever rises."""
    values = {}
    for line in text.splitlines():
        name, value = line.rsplit(" ", 1)
        if not line.startswith("#") and 'guest="' not in name and ("_total" in name or name.startswith("cistern_fault_seconds_")):
            values[name] = float(value)
    return values


class Sums:
    """Whatever happens, what all guests together have counted never falls."""

    def __init__(self, daemon):
        self.daemon, self.last, self.wrong, self.looks, self.over = daemon, {}, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()

    def look(self):
        status, text = self.daemon.insist("GET", "/v1/metrics")
        assert status == 200, (status, text)
        now = counters(text)
        self.wrong += [(name, value, now.get(name)) for name, value in self.last.items() if now.get(name, -1) < value]
        self.last, self.looks = now, self.looks + 1

    def follow(self):
        try:
            while not self.over.is_set() and not self.wrong:
                self.look()
        except BaseException as error:
            self.wrong.append(repr(error))

    def end(self):
        self.over.set()
        self.thread.join()
        self.look()
        assert not self.wrong, self.wrong[:3]


def kill_at_random(daemon, crowd, kills, seed=1):
    source, pause, killed, sums = rig.random.Random(seed), threading.Event(), 0, Sums(daemon)
    while killed < kills and not crowd.wrong:
        pause.wait(source.choice((0.002, 0.02, 0.1, 0.3)) * source.random())
        killed += daemon.kill_engine() is not None
    crowd.end()
    sums.end()
    status, health = daemon.insist("GET", "/v1/health")
    assert status == 200 and health["engine"] > kills / 2, health
    print("%d kills, %d guests, all bytes right" % (killed, crowd.served), flush=True)
    return killed
