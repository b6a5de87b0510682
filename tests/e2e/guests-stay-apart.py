#!/usr/bin/env python3
"""Keeper and engine have given up what they do not need, and no guest ever sees what is another's.

Usage: guests-stay-apart.py BUILD [TEST]...
"""
import ctypes
import fcntl
import os
import pwd
import sys

import rig
from rig import Guest, expect, make_image, until


PIDFD_GETFD = 438


def status_of(pid):
    with open("/proc/%d/status" % pid) as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


CAPS = {"KILL": 5, "DAC_READ_SEARCH": 2, "IPC_LOCK": 14}


def bits(*names):
    return sum(1 << CAPS[name] for name in names)


def the_engine_has_given_up_what_it_does_not_need(daemon):
    engine, keeper = (status_of(pid) for pid in daemon.pids())
    for process in (engine, keeper):
        assert process["NoNewPrivs"] == "1" and int(process["CapEff"], 16) & (1 << 21) == 0, process # CAP_SYS_ADMIN
    assert int(engine["CapEff"], 16) & ~bits("KILL", "IPC_LOCK", "DAC_READ_SEARCH") == 0, engine
    assert int(engine["CapBnd"], 16) & ~bits("KILL", "IPC_LOCK", "DAC_READ_SEARCH") == 0, engine
    if not sanitized(daemon):
        assert engine["Seccomp"] == keeper["Seccomp"] == "2", (engine, keeper)


def sanitized(daemon):
    with open(daemon.build + "/cisternd", "rb") as file:
        return b"__asan_init" in (content := file.read()) or b"__tsan_init" in content


def whole_life(daemon):
    memory, image = make_image(daemon, "image", kind=None)
    os.chmod(image, 0o644)
    guest = Guest(daemon, daemon.put("a", image, fill="none", record=True), "--expect", memory, "--threads", "3", do="-")
    guest.do("read")
    trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop"})
    assert trace["pages"] > 0 and os.path.exists(trace["trace"]), trace
    expect(guest.end(), wrong_pages=0)
    daemon.wait("a", "gone")


def it_serves_as_somebody_else(daemon):
    nobody = pwd.getpwnam("nobody")
    engine = status_of(daemon.pids()[0])
    assert engine["Uid"].split() == [str(nobody.pw_uid)] * 4, engine
    assert int(engine["CapEff"], 16) & ~bits("KILL", "IPC_LOCK") == 0, engine
    os.chmod(daemon.folder, 0o777) # where it writes the trace, and reads the image
    whole_life(daemon)
    _, secret = make_image(daemon, "secret")
    os.chmod(secret, 0o600)
    status, answer = daemon.ask("PUT", "/v1/guests/b", {"image": secret})
    assert status == 403, (status, answer)


it_serves_as_somebody_else.config = {"user": "nobody"}


def hardening_can_be_left_out(daemon):
    engine = status_of(daemon.pids()[0])
    assert engine["Seccomp"] == "0" and engine["NoNewPrivs"] == "0", engine
    whole_life(daemon)


hardening_can_be_left_out.config = {"harden": "no"}


def only_root_and_the_daemon_may_ask(daemon):
    """Even where the mode of the socket lets others connect."""
    os.chmod(daemon.control, 0o666)
    os.chmod(daemon.folder, 0o755)
    os.seteuid(pwd.getpwnam("nobody").pw_uid) # whom the kernel notes when it connects
    try:
        status, answer = daemon.ask("GET", "/v1/guests")
    finally:
        os.seteuid(0)
    assert status == 403 and answer["error"]["code"] == "no_permission", (status, answer)
    daemon.must("GET", "/v1/guests")


def canaries_stay_in_their_guests(daemon):
    """Two tenants with the same layout; reads of one fail and are torn all the time.  Every page of a guest is its own, zeros that it
    asked for, or poisoned: fakevmm compares every byte, so another's would be a wrong page."""
    tenants = [make_image(daemon, "tenant%d" % n, "--chunk", "64", kind=None, seed=100 + n) for n in range(2)]
    guests = []
    for n in range(8):
        memory, image = tenants[n % 2]
        kind = (("--threads", "3"), ("--client", "--memory", "memfd", "--minor", "--populate", "--threads", "2"))[n // 2 % 2]
        sock = daemon.put("g%d" % n, image, fill=("none", "all")[n // 4])
        guests.append(Guest(daemon, sock, "--expect", memory, "--order", "random", "--seed", str(n), *kind,
                            do="&storm:60,read,verify,join,verify"))
    for guest in guests:
        expect(guest.end(), wrong_pages=0, poisoned=0)


def userfaultfd_of(guest):
    """Its own, here too."""
    pid = guest.process.pid
    number, = [int(fd) for fd in os.listdir("/proc/%d/fd" % pid) if "userfaultfd" in rig.link(pid, fd)]
    fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(pid), number, 0)
    assert fd >= 0
    return fd


def a_userfaultfd_that_blocks_holds_up_nobody(daemon):
    """O_NONBLOCK is shared with the monitor, which clears it: read, it would wait for that guest alone, and its shard with it."""
    memory, image = make_image(daemon)
    guests = [Guest(daemon, daemon.put(name, image, fill="none"), "--expect", memory, do="-") for name in ("a", "b")]
    for guest in guests:
        guest.do("read:0-9")
    fd = userfaultfd_of(guests[0])
    for first in range(10, 60, 10):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
        for guest in guests:
            guest.do("read:%d-%d" % (first, first + 9))
        until(lambda: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK) # else it wakes the shard for ever
    os.close(fd)
    for guest in guests:
        guest.do("read")
        expect(guest.end(), wrong_pages=0, poisoned=0)


a_userfaultfd_that_blocks_holds_up_nobody.config = {"shards": 1}


def flags_of(pid, size):
    """VmFlags of the mappings of that size (kB) of a process."""
    found, kb = [], 0
    with open("/proc/%d/smaps" % pid) as file:
        for line in file:
            if line.startswith("Size:"):
                kb = int(line.split()[1])
            elif line.startswith("VmFlags:") and kb == size:
                found.append(line.split()[1:])
    return found


def what_is_filled_in_place_is_watched_for_minor_faults(daemon):
    """Else a guest would see pages of its base before they are whole, or those that a dead engine was at; this monitor asks for missing
    pages only."""
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--client", "--memory", "private", "--expect", memory, do="-")
    guest.do("read:0-9")
    watched = [flags for flags in flags_of(guest.process.pid, rig.PAGES * rig.PAGE // 1024) if "um" in flags]
    assert watched and all("ui" in flags for flags in watched), watched
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


if __name__ == "__main__":
    rig.run([the_engine_has_given_up_what_it_does_not_need, it_serves_as_somebody_else, hardening_can_be_left_out,
             only_root_and_the_daemon_may_ask, canaries_stay_in_their_guests, a_userfaultfd_that_blocks_holds_up_nobody,
             what_is_filled_in_place_is_watched_for_minor_faults], sys.argv[1])
