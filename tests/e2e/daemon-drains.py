#!/usr/bin/env python3
"""Guests are made independent of the daemon, on request or when it is told to stop; or they are named and nothing is closed.

Usage: daemon-drains.py BUILD [TEST]...
"""
import os
import subprocess
import sys

import rig
from crowd import KINDS
from rig import PAGES, Events, Guest, expect, make_image

INDEPENDENT = [kind for kind in KINDS if "private" not in kind]


def serve(daemon, name, image, memory, kind=(), fill="none"):
    guest = Guest(daemon, daemon.put(name, image, fill=fill), "--expect", memory, *kind, do="-")
    guest.do("read:0-9")
    return guest


def cistern(daemon, *words):
    return subprocess.run([daemon.build + "/cistern", *words, "--control", daemon.control], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)


def run_on(guests):
    """Whatever became of the daemon."""
    for guest in guests:
        guest.do("read")
        expect(guest.end(), wrong_pages=0, poisoned=0, verified=PAGES + 10)


def all_are_let_go(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, kind, ("none", "hot", "all")[i % 3]) for i, kind in enumerate(INDEPENDENT)]
    daemon.put("expected", image)
    done = cistern(daemon, "drain")
    assert done.returncode == 0 and done.stdout.split() == ["g%d" % i for i in range(len(guests))], (done.stdout, done.stderr)
    for i in range(len(guests)):
        daemon.wait("g%d" % i, "gone")
    assert daemon.guest("expected")["state"] == "expected" and daemon.metrics()["cistern_images"] == 1
    for pid in daemon.pids():
        assert not any("userfaultfd" in rig.link(pid, fd) for fd in os.listdir("/proc/%d/fd" % pid)), "one is open still"
    run_on(guests)
    assert cistern(daemon, "drain").stdout == ""


def who_cannot_be_is_named(daemon):
    """And nobody is let go."""
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests = [serve(daemon, "easy", image, memory, fill="all"), serve(daemon, "private", image, memory, ("--client", "--memory", "private", "--minor")),
              serve(daemon, "recorded", image, memory)]
    daemon.wait("easy", "independent")
    daemon.must("PUT", "/v1/guests/recorded/record", {"state": "start"})
    done = cistern(daemon, "drain")
    assert done.returncode == 1 and "guest private: its memory" in done.stderr and "guest recorded" in done.stderr, done.stderr
    assert "easy" not in done.stderr, done.stderr
    assert [guest["state"] for guest in daemon.must("GET", "/v1/guests")["guests"]] == ["independent", "filled", "filled"]
    run_on(guests)


def a_store_that_fails_times_out(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none", store="fault:errno=EIO,trigger=%s/broken" % daemon.folder), "--expect", memory, do="-")
    guest.do("read:0-9")
    open(daemon.folder + "/broken", "w").close()
    done = cistern(daemon, "drain", "--timeout", "1")
    assert done.returncode == 1 and "guest a: %d of %d pages" % (PAGES - 10, PAGES) in done.stderr, done.stderr
    os.unlink(daemon.folder + "/broken")
    assert cistern(daemon, "drain").stdout == "a\n"
    run_on([guest])


def a_stopped_daemon_drains(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, kind) for i, kind in enumerate(INDEPENDENT)]
    daemon.put("expected", image)
    daemon.process.terminate()
    assert daemon.process.wait(rig.SECONDS) == 0, daemon.said()
    run_on(guests)


def a_stopped_daemon_stays_for_whom_it_must(daemon):
    memory, image = make_image(daemon, kind=None)
    events = Events(daemon)
    guests = [serve(daemon, "easy", image, memory), serve(daemon, "private", image, memory, ("--client", "--memory", "private", "--minor"))]
    daemon.process.terminate()
    events.wait("guest.gone", "easy")
    said = daemon.said()
    assert "guest=private keeps the daemon from ending: its memory is private" in said, said
    assert daemon.process.poll() is None
    run_on(guests)
    assert daemon.process.wait(rig.SECONDS) == 0, daemon.said()


def a_stopped_daemon_may_wait_instead(daemon):
    memory, image = make_image(daemon, kind=None)
    guest = serve(daemon, "a", image, memory)
    events = Events(daemon)
    daemon.put("b", image)
    daemon.process.terminate()
    events.wait("guest.gone", "b")
    assert daemon.guest("a")["fill"] == "none"
    run_on([guest])
    assert daemon.process.wait(rig.SECONDS) == 0, daemon.said()


a_stopped_daemon_may_wait_instead.config = {"stop": "wait"}

TESTS = [all_are_let_go, who_cannot_be_is_named, a_store_that_fails_times_out, a_stopped_daemon_drains,
         a_stopped_daemon_stays_for_whom_it_must, a_stopped_daemon_may_wait_instead]
for test in (a_stopped_daemon_drains, a_stopped_daemon_stays_for_whom_it_must, a_stopped_daemon_may_wait_instead):
    test.ends = True

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], shards=2)
