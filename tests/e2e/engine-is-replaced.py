#!/usr/bin/env python3
"""The engine is replaced under its guests, up and down between layouts of their state; and whatever can go wrong leaves it as it was.

Usage: engine-is-replaced.py BUILD [--upgrades N] [TEST]...
"""
import json
import os
import signal
import subprocess
import sys

import crowd
import rig
from crowd import KINDS, Crowd
from rig import PAGES, Guest, cistern, expect, make_image

UPGRADES = 20


def versions(daemon):
    """One that knows layout 1 alone, and this one."""
    return rig.program(daemon, "older", 'exec $DAEMON "$@" --set state_layout=1'), daemon.build + "/cisternd"


def upgrade(daemon, exe=None):
    while True:
        try:
            return json.loads(daemon.run("upgrade", "--json", *(("--exec", exe) if exe else ())))
        except cistern.CisternError as error: # only so many may be on their way out
            assert "have not ended yet" in str(error), error


def refused(daemon, exe, *words):
    """An upgrade that fails, for a reason in which the words are; the engine stays."""
    before = daemon.must("GET", "/v1/health")
    done = subprocess.run([daemon.build + "/cistern", "upgrade", "--control", daemon.control, "--exec", exe],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and all(word in done.stderr for word in words), (done.returncode, done.stderr)
    after = daemon.must("GET", "/v1/health")
    assert after["engine_pid"] == before["engine_pid"] and after["engine"] == before["engine"], (before, after)


def guests_go_on(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests, exes, waits = Crowd(daemon, memory, image, KINDS, PAGES), versions(daemon), []
    for number in range(UPGRADES):
        answer = upgrade(daemon, exes[number % 2])
        waits.append(answer["blackout_ms"])
        assert answer["to"]["engine"] > answer["from"]["engine"] == number + 1, answer
    guests.end()
    waits.sort()
    print("%d upgrades, %d guests, all bytes right; pauses of %.1f to %.1f ms, half of them %.1f at most" %
          (UPGRADES, guests.served, waits[0], waits[-1], waits[len(waits) // 2]), flush=True)


def everything_is_told(daemon):
    """Guests that are expected, served, recorded and gone, with what is known of them."""
    memory, image = make_image(daemon, kind=2)
    order = daemon.folder + "/order"
    with open(order, "w") as file:
        file.writelines("%d\n" % n for n in rig.random.Random(3).sample(range(PAGES), 300))
    gone = Guest(daemon, daemon.put("gone", image, record=True), "--expect", memory, "--order", order)
    expect(gone.end(), wrong_pages=0, verified=300)
    daemon.wait("gone", "gone")
    daemon.put("expected", image, policy="kill")
    served = Guest(daemon, daemon.put("served", image, fill="none"), "--expect", memory, "--threads", "2", do="-")
    served.do("read:0-99")
    recorded = Guest(daemon, daemon.put("recorded", image, record=True), "--client", "--expect", memory, do="-")
    recorded.do("read:0-99")
    before, sums = daemon.must("GET", "/v1/guests"), daemon.metrics()
    counters = crowd.counters(daemon.must("GET", "/v1/metrics"))
    names = [name for name in sums if name.startswith("cistern_faults") or name.startswith("cistern_pages")]
    for _ in range(3):
        upgrade(daemon)
        assert daemon.must("GET", "/v1/guests") == before
        after = daemon.metrics()
        assert [after[name] for name in names] == [sums[name] for name in names]
        fallen = [name for name in counters if after[name] < counters[name]]
        assert not fallen, fallen
    served.do("read")
    recorded.do("read:100-199")
    assert daemon.must("PUT", "/v1/guests/recorded/record", {"state": "stop"})["pages"] == 200
    assert daemon.must("PUT", "/v1/guests/gone/record", {"state": "stop"})["pages"] == 300
    expect(served.end(), wrong_pages=0)
    expect(recorded.end(), wrong_pages=0)


def who_waits_waits_on(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    command = [daemon.build + "/cistern", "guest", "wait", "a", "--state", "gone", "--control", daemon.control]
    waits = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for _ in range(3):
        upgrade(daemon)
    expect_gone(guest, waits)


def expect_gone(guest, waits):
    guest.do("read")
    expect(guest.end(), wrong_pages=0, verified=PAGES + 10)
    for wait in waits:
        assert wait.communicate(timeout=rig.SECONDS)[0] == "gone\n" and not wait.returncode


def what_fails_changes_nothing(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests = Crowd(daemon, memory, image, KINDS, PAGES, width=4)
    refused(daemon, "/bin/false", "new engine")
    refused(daemon, "/nowhere/at/all", "No such file")
    refused(daemon, daemon.folder, "not a file")
    refused(daemon, image, "cannot be executed")
    refused(daemon, rig.program(daemon, "hangs", "exec sleep 600"), "within")
    refused(daemon, rig.program(daemon, "speaks", "printf 'a version to come' >&3", "exec sleep 600"), "new engine")
    refused(daemon, rig.program(daemon, "usage", 'exec $DAEMON "$@" --set no_such_key=1'), "new engine")
    for point in ("standby_opened", "standby_read", "adopt_words", "adopt_header", "standby_seated"):
        refused(daemon, rig.program(daemon, point, "CISTERN_POINT=%s exec $DAEMON-points \"$@\"" % point), "new engine", "signal 9")
    for point in ("standby_opened", "standby_seated"):
        refused(daemon, rig.program(daemon, point, "CISTERN_POINT=%s:1:stop exec $DAEMON-points \"$@\"" % point), "within")
    upgrade(daemon, versions(daemon)[0])
    guests.end()


what_fails_changes_nothing.config = {"upgrade_ms": 3000}
what_fails_changes_nothing.said = ("the new engine was ended",)


def guests_that_come_and_go_meanwhile(daemon):
    """Put, connected, deleted and ended in any step of it."""
    memory, image = make_image(daemon, kind=None)
    slow = rig.program(daemon, "slow", "read line < $(dirname $0)/gate", 'exec $DAEMON "$@"')
    os.mkfifo(daemon.folder + "/gate")
    for number in range(4):
        ends = Guest(daemon, daemon.put("ends%d" % number, image, fill="none"), "--expect", memory, do="-")
        stays = Guest(daemon, daemon.put("stays%d" % number, image, fill="none"), "--expect", memory, do="-")
        ends.do("read:0-9")
        daemon.put("deleted%d" % number, image)
        comes_late = daemon.put("late%d" % number, image)
        asked = subprocess.Popen([daemon.build + "/cistern", "upgrade", "--control", daemon.control, "--exec", slow])
        gate = open(daemon.folder + "/gate", "w") # it has been started
        ends.kill()
        daemon.wait("ends%d" % number, "gone")
        daemon.must("DELETE", "/v1/guests/deleted%d" % number)
        put = daemon.put("put%d" % number, image)
        stays.do("read:0-99")
        late = Guest(daemon, comes_late, "--expect", memory, do="-")
        late.do("read:5-9")
        gate.write("go\n")
        gate.close()
        assert not asked.wait(rig.SECONDS)
        shown = {guest["id"]: guest["state"] for guest in daemon.must("GET", "/v1/guests")["guests"]}
        assert shown["ends%d" % number] == "gone" and "deleted%d" % number not in shown and shown["put%d" % number] == "expected", shown
        expect(Guest(daemon, put, "--expect", memory).end(), wrong_pages=0, verified=PAGES)
        for guest in (stays, late):
            guest.do("read")
            expect(guest.end(), wrong_pages=0, poisoned=0)


TESTS = [guests_go_on, everything_is_told, who_waits_waits_on, what_fails_changes_nothing, guests_that_come_and_go_meanwhile]

if __name__ == "__main__":
    if "--upgrades" in sys.argv:
        at = sys.argv.index("--upgrades")
        UPGRADES = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    rig.run(TESTS, sys.argv[1], shards=2)
