#!/usr/bin/env python3
"""Guests whose pages lie in a store: every byte is right, nothing of them stays there, whatever happens to daemon and store.

Usage: far-pages.py BUILD [--kills N] [TEST]...
"""
import contextlib
import os
import socket
import subprocess
import sys

import rig
from rig import PAGE, Guest, expect, make_image, until

PAGES = 8192
BUDGET = 4 << 20
KEEP = 1 << 20
KILLS = 12
COPIED = ("--memory", "memfd")
IN_PLACE = ("--memory", "memfd", "--minor", "--populate")


class File:
    def __init__(self, daemon):
        self.folder = daemon.folder + "/pages"
        os.mkdir(self.folder)
        self.name = "file:" + self.folder

    def holds(self):
        """Bytes that the values take."""
        return sum(os.stat(self.folder + "/" + name).st_blocks * 512 for name in os.listdir(self.folder))

    def go(self):
        os.rename(self.folder, self.folder + ".away")

    def come(self):
        os.rename(self.folder + ".away", self.folder)

    def end(self):
        pass


class Sealed(File):
    def __init__(self, daemon):
        super().__init__(daemon)
        self.name = "sealed:" + self.name


class Server:
    """On a port of its own; it keeps what it has while it is stopped."""
    def __init__(self, daemon):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.name = "%s://127.0.0.1:%d" % (type(self).__name__.lower(), self.port)
        self.server = subprocess.Popen(self.command(daemon.folder), stdout=subprocess.DEVNULL)
        until(self.is_up)

    def ask(self, command):
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(command + b"\r\n")
            return sock.makefile("rb").read1(4096)

    def is_up(self):
        with contextlib.suppress(OSError):
            return self.ask(self.hello).startswith(self.answer)

    def go(self):
        self.server.send_signal(rig.signal.SIGSTOP)

    def come(self):
        self.server.send_signal(rig.signal.SIGCONT)

    def end(self):
        self.server.kill()
        self.server.wait()


class Valkey(Server):
    hello, answer = b"PING", b"+PONG"

    def command(self, folder):
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", folder]

    def holds(self):
        return int(self.ask(b"DBSIZE")[1:])


class Memcached(Server):
    """What an engine that is killed, or followed by another, was putting there stays: nobody can say what there is."""
    hello, answer = b"version", b"VERSION"

    def command(self, folder):
        return ["memcached", "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-M", "-o", "slab_automove=0", "-m", "512", "-u", "root"]

    def holds(self):
        return int(self.ask(b"stats").split(b"STAT curr_items ")[1].split()[0])


class Tier:
    """A little in files, the rest in a redis-server."""
    def __init__(self, daemon):
        self.fast, self.slow = File(daemon), Valkey(daemon)
        self.name = "tier:bytes=2M,%s+%s" % (self.fast.name, self.slow.name)

    def holds(self):
        return self.fast.holds() + self.slow.holds()

    def go(self):
        self.slow.go()

    def come(self):
        self.slow.come()

    def end(self):
        self.slow.end()


def with_store(kind):
    """A test of one store, which has nothing of any guest when all are gone."""
    def wrap(test):
        def run(daemon):
            store = kind(daemon)
            try:
                test(daemon, store)
                until(lambda: not store.holds() or kind == Memcached and test in ENGINES_END)
            finally:
                store.end()

        run.__name__ = test.__name__ + "_" + kind.__name__.lower()
        run.__dict__.update(test.__dict__)
        return run

    return wrap


def budget(store, **more):
    return {"max_bytes": BUDGET, "keep_bytes": KEEP, "pages": store.name, **more}


def serve(daemon, name, image, memory, *options, **keys):
    return Guest(daemon, daemon.put(name, image, **keys), "--expect", memory, "--threads", "4", "--order", "random", *options, do="-")


def far(daemon, name):
    status, shown = daemon.insist("GET", "/v1/guests/" + name)
    return shown["pages"]["far"] if status == 200 and "pages" in shown else 0


def moved(daemon, name):
    """Pages so far that came from the store; asks again where an engine has just died."""
    status, shown = daemon.insist("GET", "/v1/guests/" + name)
    return shown["faults"]["far"] if status == 200 and "faults" in shown else 0


def end(daemon, name, guest):
    expect(guest.end(), wrong_pages=0, poisoned=0)
    daemon.wait(name, "gone")


def every_byte_is_right(daemon, store):
    """Of two guests side by side, which have different ones."""
    guests = []
    for number, kind in enumerate((COPIED, IN_PLACE)):
        memory, image = make_image(daemon, "image%d" % number, "--chunk", "16", pages=PAGES, kind=None, seed=number + 1)
        guests.append(serve(daemon, "g%d" % number, image, memory, *kind, "--seed", str(number), fill="all",
                            budget=budget(store, codec=("lz4", "raw")[number])))
    for guest in guests:
        guest.do("&churn:8000")
    for number, guest in enumerate(guests):
        name = "g%d" % number
        until(lambda: far(daemon, name) > PAGES // 2)
        guest.do("join")
        guest.do("verify")
        shown = daemon.guest(name)
        assert shown["faults"]["far"] and shown["pages"]["far"] and shown["budget"]["pages"] == store.name, shown
        figures = daemon.metrics(name)
        assert figures["cistern_page_puts_total"] > PAGES // 2 and figures["cistern_page_gets_total"], figures
    assert store.holds()
    for number, guest in enumerate(guests):
        end(daemon, "g%d" % number, guest)


def engines_die(daemon, store):
    """While pages are on their way there and back."""
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    for seed, kind in enumerate((COPIED, IN_PLACE), 1):
        source, name, killed = rig.random.Random(seed), "k%d" % seed, 0
        guest = serve(daemon, name, image, memory, *kind, "--seed", str(seed), fill="none", budget=budget(store))
        guest.do("read")
        while killed < KILLS // 2:
            churns = guest.start("churn:3000")
            before, more = moved(daemon, name), source.randrange(1500)
            until(lambda: not churns.is_alive() or moved(daemon, name) - before >= more)
            killed += churns.is_alive() and daemon.kill_engine() is not None
            churns.join()
        guest.do("verify")
        assert far(daemon, name)
        end(daemon, name, guest)


def upgrades_do_not_disturb(daemon, store):
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, *kind, fill="all", budget=budget(store)) for i, kind in enumerate((COPIED, IN_PLACE))]
    for guest in guests:
        guest.do("read")
        guest.do("&churn:4000")
    for _ in range(4):
        daemon.must("POST", "/v1/upgrade", {})
    failing = rig.program(daemon, "failing", "exit 7")
    assert daemon.ask("POST", "/v1/upgrade", {"exec": failing})[0] >= 500
    for i, guest in enumerate(guests):
        guest.do("join")
        guest.do("verify")
        assert far(daemon, "g%d" % i)
        end(daemon, "g%d" % i, guest)


def all_of_it_comes_back(daemon, store):
    """When there is no budget any more, for a drain too: then the guest needs neither daemon nor store."""
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    for number, kind in enumerate((COPIED, IN_PLACE)):
        name = "g%d" % number
        guest = serve(daemon, name, image, memory, *kind, fill="all", budget=budget(store))
        for round in range(2):
            guest.do("churn:2000")
            guest.do("read")
            until(lambda: far(daemon, name))
            daemon.must("PATCH", "/v1/guests/" + name, {"budget": {"max_bytes": None}})
            assert daemon.wait(name, "independent")["pages"]["far"] == 0
            until(lambda: not store.holds() or isinstance(store, File))
            guest.do("churn:2000")
            guest.do("verify")
            daemon.must("PATCH", "/v1/guests/" + name, {"budget": {"max_bytes": BUDGET}})
        guest.do("churn:1000")
        end(daemon, name, guest)


def who_ends_while_there_is_no_engine_leaves_nothing(daemon, store):
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none", budget=budget(store))
    guest.do("churn:1000")
    guest.do("read")
    until(lambda: far(daemon, "a"))
    pid = daemon.engine()
    os.kill(pid, rig.signal.SIGSTOP)
    guest.kill()
    daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid)
    assert daemon.wait("a", "gone")["id"] == "a"


def a_store_that_is_away_is_waited_for(daemon, store):
    """By whoever touches what is there; what is reclaimed meanwhile waits in the stash."""
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none", budget=budget(store))
    guest.do("churn:2000")
    guest.do("read")
    until(lambda: far(daemon, "a"))
    store.go()
    pid = daemon.kill_engine()
    guest.do("&verify")
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid)
    until(lambda: daemon.metrics("a")['cistern_store_errors_total{kind="get"}'])
    store.come()
    guest.do("join")
    guest.do("churn:1000")
    guest.do("verify")
    end(daemon, "a", guest)


def what_store_it_is_stays(daemon):
    """As long as it has pages; and one that cannot be opened is refused."""
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=None)
    store, other = File(daemon), daemon.folder + "/other"
    os.mkdir(other)

    def patch(**keys):
        return daemon.ask("PATCH", "/v1/guests/a", {"budget": keys})

    guest = serve(daemon, "a", image, memory, *COPIED, fill="all")
    daemon.wait("a", "independent")
    for name, status, reason in (("file:/nowhere/at-all", 404, "/nowhere/at-all"), ("floppy:a", 400, "not a kind of store"), (7, 400, "must be")):
        got, answer = patch(max_bytes=BUDGET, pages=name)
        assert got == status and reason in answer["error"]["message"], answer
        assert daemon.guest("a")["budget"]["max_bytes"] is None and daemon.guest("a")["budget"]["pages"] is None
    assert patch(max_bytes=BUDGET, keep_bytes=KEEP, pages="file:" + other)[0] == 200
    until(lambda: far(daemon, "a"))
    got, answer = patch(pages=store.name)
    assert got == 503 and "of its pages are in another store" in answer["error"]["message"], answer
    assert daemon.guest("a")["budget"]["pages"] == "file:" + other
    guest.do("verify")
    assert patch(max_bytes=None)[0] == 200
    daemon.wait("a", "independent")
    until(lambda: patch(pages=store.name, max_bytes=BUDGET)[0] == 200)
    until(lambda: far(daemon, "a") and not os.listdir(other) or store.holds())
    guest.do("churn:1000")
    guest.do("verify")
    assert patch(pages=None)[0] == 503
    end(daemon, "a", guest)
    until(lambda: not store.holds())


for test in (engines_die, who_ends_while_there_is_no_engine_leaves_nothing, a_store_that_is_away_is_waited_for):
    test.said = ("engine was ended",)

ENGINES_END = (engines_die, upgrades_do_not_disturb, who_ends_while_there_is_no_engine_leaves_nothing,
               a_store_that_is_away_is_waited_for)
def data_of(path):
    """Without the holes, of which there are many."""
    fd, data, at = os.open(path, os.O_RDONLY), b"", 0
    with contextlib.suppress(OSError):
        while True:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
            data += os.pread(fd, end - at, at)
            at = end
    os.close(fd)
    return data


def what_is_sealed_cannot_be_read(daemon):
    """And what is not, can: so it was looked for in the right place."""
    memory, image = make_image(daemon, "image", "--chunk", "16", pages=PAGES, kind=4)
    for kind, found in ((File, True), (Sealed, False)):
        store = kind(daemon)
        guest = serve(daemon, kind.__name__, image, memory, *COPIED, fill="none", budget=budget(store, codec="raw"))
        guest.do("read")
        until(lambda: far(daemon, kind.__name__) > PAGES // 2)
        stored = b"".join(data_of(store.folder + "/" + name) for name in os.listdir(store.folder))
        assert (b" of a guest, page" in stored) == found and len(stored) > PAGES // 2 * PAGE, kind
        guest.do("verify")
        end(daemon, kind.__name__, guest)
        until(lambda: not store.holds())
        rig.subprocess.run(["rm", "-rf", store.folder], check=True)


TESTS = [with_store(kind)(test) for test in (every_byte_is_right, engines_die, upgrades_do_not_disturb, all_of_it_comes_back,
                                             who_ends_while_there_is_no_engine_leaves_nothing, a_store_that_is_away_is_waited_for)
         for kind in (File, Valkey, Memcached)]
TESTS += [with_store(Sealed)(test) for test in (every_byte_is_right, engines_die, upgrades_do_not_disturb)] + [what_is_sealed_cannot_be_read]
TESTS += [with_store(Tier)(test) for test in (every_byte_is_right, engines_die, upgrades_do_not_disturb)] + [what_store_it_is_stays]

if __name__ == "__main__":
    if "--kills" in sys.argv:
        at = sys.argv.index("--kills")
        KILLS = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    rig.run(TESTS, sys.argv[1], shards=2)
