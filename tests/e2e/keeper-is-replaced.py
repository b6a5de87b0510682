#!/usr/bin/env python3
"""The keeper becomes another program in place, under its guests and with its engine; what is no keeper is refused.

Usage: keeper-is-replaced.py BUILD [--times N] [TEST]...
"""
import collections
import os
import subprocess
import sys

import rig
from crowd import KINDS, Crowd
from rig import PAGES, Guest, expect, make_image, until

TIMES = 10


def program(daemon, name, *lines):
    path = daemon.folder + "/" + name
    with open(path, "w") as file:
        file.write("#!/bin/sh\n%s\n" % "\n".join(lines))
    os.chmod(path, 0o755)
    return path


def cmdline(pid):
    with open("/proc/%d/cmdline" % pid) as file:
        return file.read().split("\0")


def same_descriptors(daemon, before):
    """As soon as the connections of the command line are closed."""
    for _ in range(200):
        after = daemon.descriptors()
        if after == before:
            return
    more = [sorted((collections.Counter(b) - collections.Counter(a)).items()) for a, b in zip(before, after)]
    less = [sorted((collections.Counter(a) - collections.Counter(b)).items()) for a, b in zip(before, after)]
    raise AssertionError("more descriptors are %s, and less %s" % (more, less))


def guests_go_on(daemon):
    """Keeper and engine in turns: the same process with the same engine, which notices nothing."""
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    guests, keeper = Crowd(daemon, memory, image, KINDS, PAGES), daemon.process.pid
    for number in range(TIMES):
        before = daemon.must("GET", "/v1/health")
        path = daemon.folder + "/cisternd-%d" % number
        os.symlink(daemon.build + "/cisternd", path)
        said = daemon.run("upgrade", "--keeper", "--exec", path)
        assert said == "keeper: replaced, pid %d" % keeper, said
        assert cmdline(keeper)[0] == path, cmdline(keeper)
        after = daemon.must("GET", "/v1/health")
        assert (after["engine_pid"], after["engine"]) == (before["engine_pid"], before["engine"]), (before, after)
        daemon.run("upgrade")
    engine = daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != engine)
    guests.end()
    print("%d times, %d guests, all bytes right" % (TIMES, guests.served), flush=True)


guests_go_on.said = ("the engine was ended by signal 9",)


def filters(daemon):
    """Of system calls, that its keeper has."""
    with open("/proc/%d/status" % daemon.process.pid) as file:
        return [line for line in file if line.startswith("Seccomp_filters")]


def what_it_holds_stays(daemon):
    """Not one descriptor more or less, and a guest's are the same; nor a filter."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    daemon.put("expected", image)
    guest.do("read:0-99")
    before, shown, calls = daemon.descriptors(), daemon.must("GET", "/v1/guests"), filters(daemon)
    for _ in range(5):
        daemon.run("upgrade", "--keeper")
    same_descriptors(daemon, before)
    assert filters(daemon) == calls, (calls, filters(daemon))
    assert daemon.must("GET", "/v1/guests") == shown
    guest.do("read")
    expect(guest.end(), wrong_pages=0)
    daemon.wait("a", "gone")


def refused(daemon, exe, why):
    done = subprocess.run([daemon.build + "/cistern", "upgrade", "--control", daemon.control, "--keeper", "--exec", exe],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and why in done.stderr, (exe, done.returncode, done.stderr)


def what_is_no_keeper_is_refused(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    before = daemon.descriptors()
    for exe, why in ((image, "cannot be executed"), ("/bin/true", "not say that it is a keeper"), (daemon.build + "/cistern", "not say that it is a keeper"),
                     (program(daemon, "newer", "echo cisternd keeper wire 77 table 1-1"), "version 77"),
                     (program(daemon, "hangs", "exec sleep 600"), "within 1000 ms")):
        refused(daemon, exe, why)
    with open(daemon.folder + "/cisternd.conf", "a") as file:
        file.write("of a version to come = yes\n")
    refused(daemon, daemon.build + "/cisternd", "keeper that can start here")
    same_descriptors(daemon, before)
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


def goes_back(daemon, name, *environ):
    """It becomes a program that does not come up, and is what it was again.  Return: what was said, or None if it did come up."""
    exe = program(daemon, name, " ".join((*environ, "exec", daemon.build + "/cisternd-points", '"$@"')))
    before = daemon.must("GET", "/v1/health")
    done = subprocess.run([daemon.build + "/cistern", "upgrade", "--control", daemon.control, "--keeper", "--exec", exe],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    after = daemon.must("GET", "/v1/health")
    assert {**after, "uptime_s": 0} == {**before, "uptime_s": 0}, (before, after)
    assert os.readlink("/proc/%d/exe" % daemon.process.pid).endswith("/cisternd" if done.returncode else "/cisternd-points")
    return done.stderr if done.returncode else None


def what_does_not_come_up_was_never_there(daemon):
    """It passes the examination, and fails when it has replaced the keeper: by a bug, or as one call after the other fails."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    point, token = daemon.folder + "/point", daemon.folder + "/token"
    before, backs = daemon.descriptors(), 0
    open(point, "w").close()
    said = goes_back(daemon, "bug", "CISTERN_POINT=keeper_became:1:abort", "CISTERN_POINT_TOKEN=" + point)
    assert "ended by a signal" in said and not os.path.exists(point), said
    for number in range(1, 1000):
        open(token, "w").close()
        said = goes_back(daemon, "fail-%d" % number, "CISTERN_FAIL=keeper:%d" % number, "CISTERN_FAIL_TOKEN=" + token)
        backs += said is not None
        failed = not os.path.exists(token)
        if not failed:
            os.unlink(token)
        if said is None:
            daemon.run("upgrade", "--keeper", "--exec", daemon.build + "/cisternd")
        if not failed: # so many calls are not made
            break
    same_descriptors(daemon, before)
    engine = daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != engine)
    assert daemon.guest("a")["state"] == "filled", daemon.guest("a") # nothing of it was lost on the way
    assert backs > 20, backs
    print("went back %d times of %d" % (backs, number), flush=True)
    daemon.put("b", image)
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


def a_program_that_was_replaced_is_there(daemon):
    """Its file is another by then; it is gone back to, and starts engines, all the same."""
    memory, image = make_image(daemon)
    mine, token = daemon.folder + "/mine", daemon.folder + "/token"
    subprocess.run(["cp", daemon.build + "/cisternd", mine], check=True)
    daemon.run("upgrade", "--keeper", "--exec", mine)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    os.unlink(mine)
    open(token, "w").close()
    bug = program(daemon, "bug", "CISTERN_POINT=keeper_became:1:abort CISTERN_POINT_TOKEN=%s exec %s/cisternd-points \"$@\"" % (token, daemon.build))
    refused(daemon, bug, "ended by a signal")
    engine = daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != engine)
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


what_does_not_come_up_was_never_there.said = ("the engine was ended by signal 9",)
a_program_that_was_replaced_is_there.said = ("the engine was ended by signal 9",)
what_is_no_keeper_is_refused.config = {"upgrade_ms": 1000}


if __name__ == "__main__":
    if "--times" in sys.argv:
        at = sys.argv.index("--times")
        TIMES = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    rig.run([guests_go_on, what_it_holds_stays, what_is_no_keeper_is_refused, what_does_not_come_up_was_never_there,
             a_program_that_was_replaced_is_there], sys.argv[1], shards=2)
