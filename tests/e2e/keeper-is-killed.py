#!/usr/bin/env python3
"""Keeper and engine are killed together, and started again by a service manager that kept their descriptors: guests wait for
a moment, get the right bytes, and none is lost.

Usage: keeper-is-killed.py BUILD [--kills N] [TEST]...
"""
import os
import select
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
QUIET = ["engine.sock", "ledger", "lock"] # what there is without guests


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
    until(lambda: kept(daemon.keep) == QUIET)


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
    until(lambda: kept(daemon.keep) == QUIET)


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
    until(lambda: kept(daemon.keep) == QUIET)


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
    until(lambda: kept(daemon.keep) == QUIET)


def files_of_the_dead_are_removed(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    daemon.put("b", image)
    assert len(kept(daemon.keep)) == 6, kept(daemon.keep) # record and state of a, record of b's socket
    daemon.kill_all()
    guest.kill()
    daemon.revive()
    until(lambda: len(kept(daemon.keep)) == 4)
    assert daemon.insist("GET", "/v1/guests/a")[1]["state"] == "gone"
    assert daemon.insist("GET", "/v1/guests/b")[1]["state"] == "expected"
    assert daemon.ask("DELETE", "/v1/guests/b")[0] < 300
    until(lambda: kept(daemon.keep) == QUIET)


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


def kill_keeper(daemon):
    """It alone.  The engine's number."""
    engine = daemon.insist("GET", "/v1/health")[1]["engine_pid"]
    daemon.process.kill()
    daemon.process.wait()
    return engine


def taken_over(daemon, engine):
    """By a keeper that has just been started; the engine is the same one."""
    def is_it():
        health = daemon.insist("GET", "/v1/health")[1]
        assert health["engine_pid"] == engine and daemon.process.poll() is None, (health, engine)
        return health.get("keeper_pid") == daemon.process.pid

    until(is_it)


def an_engine_that_is_left_is_taken_over(daemon):
    """It serves on, and a daemon that is started takes it as it is: nobody waits, nothing that it knows is lost."""
    memory, image = make_image(daemon)
    guests = [Guest(daemon, daemon.put("g%d" % i, image, fill="none"), "--expect", memory, *kind, do="-") for i, kind in enumerate(KINDS)]
    for guest in guests:
        guest.do("read:0-9")
    late, gone = daemon.put("late", image), daemon.put("gone", image)
    left = Guest(daemon, gone, "--expect", memory, do="-")
    left.do("read")
    sums = crowd.counters(daemon.must("GET", "/v1/metrics"))
    for round in range(3):
        engine = kill_keeper(daemon)
        for guest in guests:
            guest.do("read:%d-%d" % (10 + 20 * round, 19 + 20 * round)) # it serves on
        assert daemon.ask("PUT", "/v1/guests/new%d" % round, {"image": image})[0] == 503
        if round == 1:
            left.kill() # when there is nobody to be told
            daemon.wait("gone", "gone")
        daemon.revive()
        taken_over(daemon, engine)
        for guest in guests:
            guest.do("read:%d-%d" % (20 + 20 * round, 29 + 20 * round))
        assert daemon.guest("late")["state"] == "expected"
        new = Guest(daemon, daemon.put("new%d" % round, image), "--expect", memory)
        expect(new.end(), wrong_pages=0)
        now = crowd.counters(daemon.must("GET", "/v1/metrics"))
        fallen = [name for name in sums if now[name] < sums[name]]
        assert not fallen, fallen
        sums = now
    expect(Guest(daemon, late, "--expect", memory).end(), wrong_pages=0)
    os.kill(daemon.pids()[0], rig.signal.SIGKILL) # its keeper follows it as if it had started it
    for guest in guests:
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)
    until(lambda: all(guest["state"] == "gone" for guest in daemon.insist("GET", "/v1/guests")[1]["guests"]))
    until(lambda: kept(daemon.keep) == QUIET)


def guests_do_not_notice_keepers(daemon):
    """One keeper after another is killed, at whatever it is at: taking over the engine, mostly."""
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    source, pause, kills, served = rig.random.Random(1), rig.threading.Event(), 0, 0
    engine = daemon.pids()[0]
    stays = Guest(daemon, daemon.put("stays", image, fill="none"), "--expect", memory, do="-") # whom the engine stays for
    stays.do("read:0-9")
    while kills < 2 * KILLS:
        guests = start_crowd(daemon, memory, image, served)
        while kills < 2 * KILLS and any(guest.process.poll() is None for guest in guests):
            pause.wait(0.02 * source.random())
            daemon.process.kill()
            daemon.process.wait()
            daemon.revive()
            kills += 1
        for guest in guests:
            expect(guest.end(), wrong_pages=0, poisoned=0)
        served += len(guests)
    taken_over(daemon, engine)
    stays.do("read")
    expect(stays.end(), wrong_pages=0)
    print("%d kills, %d guests, all bytes right, one engine" % (kills, served), flush=True)


def nothing_is_left_open(daemon):
    """After many keepers neither the last one nor the engine has more open than at first, but for what is on its way."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    daemon.put("b", image)
    opened = []
    for number in range(12):
        daemon.must("PUT", "/v1/guests/c%d" % number, {"image": image}) # the keeper does it, so it has done all else
        daemon.must("DELETE", "/v1/guests/c%d" % number)
        opened.append([len(of) for of in daemon.descriptors()])
        engine = kill_keeper(daemon)
        daemon.revive()
        taken_over(daemon, engine)
    assert all(last < first + 6 for first, last in zip(opened[0], opened[-1])), opened
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


def engines(daemon):
    """Those that the folder's lock names."""
    with open(daemon.keep + "/lock") as file:
        words = file.read().split()
    return [int(number.split(":")[0]) for what, number in zip(words[::2], words[1::2]) if what == "engine"]


def both_die_in_any_order(daemon):
    """An engine too, before its next keeper has asked for it, while it is handing over, and after."""
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    source, pause, kills, served = rig.random.Random(2), rig.threading.Event(), 0, 0
    while kills < 2 * KILLS:
        guests = start_crowd(daemon, memory, image, served)
        while kills < 2 * KILLS and any(guest.process.poll() is None for guest in guests):
            pause.wait(0.02 * source.random())
            first = source.randrange(3) # the engine, or the keeper, or it before its next one
            if first:
                daemon.process.kill()
                daemon.process.wait()
            if first == 1:
                daemon.revive()
                pause.wait(0.02 * source.random())
            if first < 2 or source.randrange(2):
                for engine in engines(daemon):
                    try:
                        os.kill(engine, rig.signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            if first == 2:
                daemon.revive()
            kills += 1
        for guest in guests:
            expect(guest.end(), wrong_pages=0, poisoned=0)
        served += len(guests)
    daemon.insist("GET", "/v1/health")
    print("%d kills, %d guests, all bytes right" % (kills, served), flush=True)


def whoever_cannot_be_taken_over_is_named(daemon):
    """An engine that does not answer, and a daemon that lives: with the number of the process, and what to do."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    second = daemon.spawn(daemon.words)
    assert second.wait(rig.SECONDS) == 1
    assert "its keeper is process %d" % daemon.process.pid in daemon.said(), daemon.said()
    engine = kill_keeper(daemon)
    os.kill(engine, rig.signal.SIGSTOP)
    daemon.revive()
    assert daemon.process.wait(rig.SECONDS) == 1
    assert "'kill -9 %d'" % engine in daemon.said(), daemon.said()
    os.kill(engine, rig.signal.SIGKILL)
    daemon.revive()
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0)
    daemon.insist("GET", "/v1/health")


def an_engine_that_nobody_needs_ends(daemon):
    """Whoever is expected is so by the daemon that comes."""
    memory, image = make_image(daemon)
    sock = daemon.put("a", image)
    engine = os.pidfd_open(daemon.insist("GET", "/v1/health")[1]["engine_pid"])
    kill_keeper(daemon)
    assert select.select([engine], [], [], rig.SECONDS)[0]
    os.close(engine)
    daemon.revive()
    assert daemon.insist("GET", "/v1/guests/a")[1]["state"] == "expected"
    expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0)


def its_manager_hears_of_it(daemon):
    assert daemon.manager.ready.wait(rig.SECONDS)
    daemon.must("GET", "/v1/health")
    assert daemon.manager.names() == ["ctl", "ledger"]
    daemon.restart()
    assert daemon.manager.ready.wait(rig.SECONDS)
    assert daemon.manager.names() == ["ctl", "ledger"]


class Nowhere(manager.Service):
    """It keeps nothing for a keeper to come."""

    def __init__(self, build, folder, **config):
        super().__init__(build, folder, store=False, keep="off", **config)


def an_engine_without_a_folder_is_named(daemon):
    """Nothing is known of its guests but by itself; they can be let go."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    engine = kill_keeper(daemon)
    ends = os.pidfd_open(engine)
    until(lambda: daemon.ask("PUT", "/v1/guests/b", {"image": image})[0] == 503) # it may not have noticed
    daemon.revive()
    assert daemon.process.wait(rig.SECONDS) == 1
    assert "process %d listens there" % engine in daemon.said(), daemon.said()
    daemon.must("POST", "/v1/drain")
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0)
    assert select.select([ends], [], [], rig.SECONDS)[0]
    os.close(ends)
    daemon.revive()
    daemon.insist("GET", "/v1/health")


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
FILED = [guests_go_on_from_files, what_was_counted_stays, files_of_the_dead_are_removed, an_engine_that_is_left_is_taken_over,
         nothing_is_left_open, guests_do_not_notice_keepers, both_die_in_any_order, whoever_cannot_be_taken_over_is_named, an_engine_that_nobody_needs_ends]
NOWHERE = [an_engine_without_a_folder_is_named]
BOUND = [an_engine_that_is_left_is_taken_over, clients_come_again, who_is_served_is_not_expected,
         who_cannot_come_again_waits, an_orphan_that_ends_is_gone]

both_die_in_any_order.said = ("engine was ended",)

if __name__ == "__main__":
    if "--kills" in sys.argv:
        index = sys.argv.index("--kills")
        KILLS = int(sys.argv[index + 1])
        del sys.argv[index:index + 2]
    rig.run(STORED, sys.argv[1], manager.Service, shards=2)
    rig.run(FILED, sys.argv[1], Filed, shards=2)
    rig.run(NOWHERE, sys.argv[1], Nowhere, shards=2)
    rig.run(BOUND, sys.argv[1], Bound, shards=2)
