#!/usr/bin/env python3
"""Keeper and engine are killed together, and started again by a service manager that kept their descriptors: guests wait for
a moment, get the right bytes, and none is lost.

Usage: keeper-is-killed.py BUILD [--kills N] [TEST]...
"""
import os
import socket
import subprocess
import sys
import tempfile

import crowd
import manager
import rig
from crowd import KINDS, Crowd
from rig import PAGES, Guest, expect, make_image, until

KILLS = 12


def kill_at_random(daemon, guests, kills, seed=1):
    source, pause = rig.random.Random(seed), rig.threading.Event()
    for _ in range(kills):
        pause.wait(source.choice((0.02, 0.1, 0.5)) * source.random())
        daemon.restart()
        if guests.wrong:
            break
    guests.end()
    print("%d kills, %d guests, all bytes right" % (kills, guests.served), flush=True)


def guests_go_on(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    kill_at_random(daemon, Crowd(daemon, memory, image, KINDS, PAGES), KILLS)
    daemon.insist("GET", "/v1/health")


def all_is_let_go(daemon, guest):
    """Of a guest that has gone nothing stays behind."""
    until(lambda: daemon.insist("GET", "/v1/guests/" + guest)[1].get("state", "gone") == "gone")
    until(lambda: daemon.manager.names() == ["ctl", "ledger"])


def after_each_message(daemon):
    """Killed when the manager has heard one thing of a guest, two, and so on up to all."""
    memory, image = make_image(daemon, kind=None)
    for at in range(1, 100):
        killed, name = [], "g%d" % at

        def kill():
            killed.append(at)
            daemon.restart()

        daemon.manager.kill = kill
        daemon.manager.kill_at = daemon.manager.messages + at
        sock = crowd.put(daemon, name, image, fill="none")
        guest = Guest(daemon, sock, "--expect", memory, *KINDS[at % len(KINDS)], do="read,storm:20,verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)
        all_is_let_go(daemon, name)
        if not killed:
            break
    daemon.manager.kill_at = None
    print("killed after each of %d messages" % (at - 1), flush=True)
    assert at > 6


def kept(folder):
    return sorted(os.listdir(folder))


def start_crowd(daemon, memory, image, first, nr=8):
    """Guests that the daemon serves."""
    guests = []
    for number in range(first, first + nr):
        kind, source = KINDS[number % len(KINDS)], rig.random.Random(number)
        sock = crowd.put(daemon, "g%d" % number, image, fill=source.choice(("none", "hot", "all")))
        guests.append(Guest(daemon, sock, "--expect", memory, "--threads", "3", "--order", "random", "--seed", str(number + 1),
                            *kind, do="&read,&storm:%d,join,verify,storm:100,read,storm:100,verify" % PAGES))
    for number in range(first, first + nr):
        until(lambda: daemon.insist("GET", "/v1/guests/g%d" % number)[1]["state"] != "expected")
    return guests


def guests_go_on_from_files(daemon):
    """
    Nobody holds anything: what a guest has is taken out of its monitor again.  Only who had not finished its handshake is
    lost that way, if it does not connect again by itself.
    """
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    source, pause, kills, served = rig.random.Random(1), rig.threading.Event(), 0, 0
    while kills < KILLS:
        guests = start_crowd(daemon, memory, image, served)
        while kills < KILLS and any(guest.process.poll() is None for guest in guests):
            pause.wait(0.05 * source.random())
            daemon.restart()
            kills += 1
        for guest in guests:
            expect(guest.end(), wrong_pages=0, poisoned=0)
        served += len(guests)
    print("%d kills, %d guests, all bytes right" % (kills, served), flush=True)
    until(lambda: all(guest["state"] == "gone" for guest in daemon.insist("GET", "/v1/guests")[1]["guests"]))
    until(lambda: kept(daemon.keep) == ["ledger", "lock"])


class Reader:
    """A program with libcistern."""

    def __init__(self, daemon, kind, sock, memory):
        self.process = subprocess.Popen([daemon.build + "/tests/e2e/client-reader", kind, sock, memory], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.said() == "attached"

    def said(self):
        return self.process.stdout.readline().strip()

    def ask(self, first, last):
        self.process.stdin.write("%d %d\n" % (first, last))
        self.process.stdin.flush()

    def read(self, first, last):
        self.ask(first, last)
        said = self.said()
        assert said == "ok", said

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(rig.SECONDS) == 0


def clients_come_again(daemon):
    """The daemon may not take anything out of another process: clients of libcistern hand it over anew."""
    memory, image = make_image(daemon, kind=None)
    readers = {}
    for name, kind in (("a", "anonymous"), ("b", "shared")):
        readers[name] = Reader(daemon, kind, daemon.put(name, image, fill="none"), memory)
        readers[name].read(0, 9)
    for first in range(10, 50, 10):
        for reader in readers.values():
            reader.process.send_signal(rig.signal.SIGSTOP)
        daemon.restart()
        for name in readers:
            shown = daemon.insist("GET", "/v1/guests/" + name)[1]
            assert shown["state"] == "stalled" and "until its monitor connects again" in shown["error"], shown
        for reader in readers.values():
            reader.ask(first, first + 9)
            reader.process.send_signal(rig.signal.SIGCONT)
        for name, reader in readers.items():
            said = reader.said()
            assert said == "ok", said
            shown = daemon.insist("GET", "/v1/guests/" + name)[1]
            assert shown["state"] != "stalled" and "error" not in shown, shown
    for reader in readers.values():
        reader.read(0, PAGES - 1)
        reader.end()
    until(lambda: kept(daemon.keep) == ["ledger", "lock"])


def who_is_served_is_not_expected(daemon):
    """Killed when the engine had begun to serve, and the keeper not read yet that nobody is expected there any more."""
    memory, image = make_image(daemon, kind=None)
    sock = daemon.put("a", image, fill="none")
    expected, = [daemon.keep + "/" + name for name in kept(daemon.keep) if name.startswith("l") and name.endswith(".r")]
    with open(expected, "rb") as file:
        record = file.read()
    reader = Reader(daemon, "anonymous", sock, memory)
    reader.read(0, 9)
    until(lambda: not os.path.exists(expected))
    reader.process.send_signal(rig.signal.SIGSTOP)
    daemon.kill_all()
    with open(expected, "wb") as file:
        file.write(record)
    daemon.revive()
    until(lambda: daemon.insist("GET", "/v1/guests/a")[1]["state"] == "stalled")
    assert not os.path.exists(expected), kept(daemon.keep)
    reader.ask(10, 19)
    reader.process.send_signal(rig.signal.SIGCONT)
    said = reader.said()
    assert said == "ok", said
    reader.end()
    until(lambda: kept(daemon.keep) == ["ledger", "lock"])


def who_cannot_come_again_waits(daemon):
    """Another monitor waits, and is served by a daemon that may take its descriptors out of it; nothing reads zeros meanwhile."""
    memory, image = make_image(daemon, kind=2)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    daemon.restart()
    assert daemon.insist("GET", "/v1/guests/a")[1]["state"] == "stalled"
    guest.do("&read:10-19")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(daemon.insist("GET", "/v1/guests/a")[1]["socket"])
    sock.send(b"[{}]")
    assert b"another process" in sock.recv(200)
    daemon.prefix = []
    daemon.restart()
    guest.do("join")
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def an_orphan_that_ends_is_gone(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    daemon.restart()
    assert daemon.insist("GET", "/v1/guests/a")[1]["state"] == "stalled"
    guest.kill()
    daemon.wait("a", "gone")
    until(lambda: kept(daemon.keep) == ["ledger", "lock"])


def files_of_the_dead_are_removed(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    daemon.put("b", image)
    assert len(kept(daemon.keep)) == 5, kept(daemon.keep) # record and state of a, record of b's socket
    daemon.kill_all()
    guest.kill()
    daemon.revive()
    until(lambda: len(kept(daemon.keep)) == 3)
    assert daemon.insist("GET", "/v1/guests/a")[1]["state"] == "gone"
    assert daemon.insist("GET", "/v1/guests/b")[1]["state"] == "expected"
    assert daemon.ask("DELETE", "/v1/guests/b")[0] < 300
    until(lambda: kept(daemon.keep) == ["ledger", "lock"])


def what_was_counted_stays(daemon):
    """And who has gone is listed, until the daemon ends as it was asked to."""
    memory, image = make_image(daemon)
    for name in ("a", "b"):
        expect(Guest(daemon, daemon.put(name, image), "--expect", memory).end(), wrong_pages=0)
        daemon.wait(name, "gone")
    daemon.must("DELETE", "/v1/guests/b")
    listed, sums = daemon.must("GET", "/v1/guests"), crowd.counters(daemon.must("GET", "/v1/metrics"))
    for _ in range(2):
        daemon.restart()
        assert daemon.insist("GET", "/v1/guests")[1] == listed
        now = crowd.counters(daemon.must("GET", "/v1/metrics"))
        fallen = [name for name in sums if now[name] < sums[name]]
        assert not fallen, fallen
    daemon.process.send_signal(rig.signal.SIGTERM)
    daemon.process.wait(rig.SECONDS)
    daemon.revive()
    assert daemon.insist("GET", "/v1/guests")[1] == {"guests": []}


def an_engine_that_is_left_is_not_doubled(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    engine = daemon.engine()
    daemon.process.kill()
    daemon.process.wait()
    daemon.revive()
    assert daemon.process.wait(rig.SECONDS) == 1
    assert "engine %d" % engine in daemon.said(), daemon.said()
    guest.do("read:10-19") # it serves on
    os.kill(engine, rig.signal.SIGKILL)
    daemon.revive()
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0)
    daemon.insist("GET", "/v1/health")


def its_manager_hears_of_it(daemon):
    assert daemon.manager.ready.wait(rig.SECONDS)
    daemon.must("GET", "/v1/health")
    assert daemon.manager.names() == ["ctl", "ledger"]
    daemon.restart()
    assert daemon.manager.ready.wait(rig.SECONDS)
    assert daemon.manager.names() == ["ctl", "ledger"]


class Filed(manager.Service):
    """Without a manager; in memory it keeps files."""

    def __init__(self, build, folder, **config):
        self.memory = tempfile.TemporaryDirectory(prefix="cistern-e2e.", dir="/dev/shm")
        self.keep = self.memory.name + "/keep"
        super().__init__(build, folder, store=False, keep=self.keep, **config)

    def close(self, *words):
        super().close(*words)
        self.memory.cleanup()


class Bound(Filed):
    """That one without the right to look into other processes."""

    def __init__(self, build, folder, **config):
        super().__init__(build, folder, prefix=["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"], **config)


STORED = [its_manager_hears_of_it, after_each_message, what_was_counted_stays, guests_go_on]
FILED = [guests_go_on_from_files, what_was_counted_stays, files_of_the_dead_are_removed, an_engine_that_is_left_is_not_doubled]
BOUND = [clients_come_again, who_is_served_is_not_expected, who_cannot_come_again_waits, an_orphan_that_ends_is_gone]

if __name__ == "__main__":
    if "--kills" in sys.argv:
        index = sys.argv.index("--kills")
        KILLS = int(sys.argv[index + 1])
        del sys.argv[index:index + 2]
    rig.run(STORED, sys.argv[1], manager.Service, shards=2)
    rig.run(FILED, sys.argv[1], Filed, shards=2)
    rig.run(BOUND, sys.argv[1], Bound, shards=2)
