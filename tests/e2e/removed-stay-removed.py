#!/usr/bin/env python3
"""Balloons that storm beside a background fill: what a guest has given back never comes back, on any kind of memory.

A guest gives pages back in random runs while several workers fill it and several of its threads verify every byte.
A worker that installs a page after its removal brings the image's bytes back into a page that must read as zeros; what
prevents it is the gate of src/pager/internal.h (doc/design/002).

Usage: removed-stay-removed.py BUILD [TEST]...
"""
import os
import sys

import rig
from rig import Guest, expect

STORM_PAGES, GUESTS = 16384, 4
ROUNDS = int(os.environ.get("CIS_STORM_ROUNDS", "2"))


def removals(seed):
    """Each page at most once: what came back stays to be seen.  In the order of the fill, which is beside them then."""
    source, lines, at = rig.random.Random(seed), [], 0
    while at < STORM_PAGES - 32:
        nr = source.randrange(1, 17)
        lines.append("remove:%d-%d" % (at, at + nr - 1))
        at += nr + source.randrange(1, 17)
    return lines


def storm(daemon, *options):
    memory, image = rig.make_image(daemon, "image", "--codec", "raw", "--chunk", "64", pages=STORM_PAGES)
    for number in range(ROUNDS):
        guests = []
        for i in range(GUESTS):
            sock = daemon.put("g%d" % i, image, fill="all")
            guests.append(Guest(daemon, sock, "--expect", memory, "--threads", "2", *options, do="-"))
            guests[-1].process.stdin.write("\n".join(["&read"] + removals(number * GUESTS + i) + ["join", "verify", ""]))
            guests[-1].process.stdin.flush()
        for i, guest in enumerate(guests):
            expect(guest.end(), wrong_pages=0, poisoned=0)
            daemon.wait("g%d" % i, "gone")


def anonymous(daemon):
    storm(daemon)


def shared_copied(daemon):
    storm(daemon, "--memory", "memfd")


def shared_mapped(daemon):
    storm(daemon, "--memory", "memfd", "--minor", "--populate")


def private(daemon):
    storm(daemon, "--client", "--memory", "private", "--minor")


def beside_pages_that_are_not_registered(daemon):
    """A Firecracker of that age unregisters what its balloon takes; zero pages come with their neighbours, of which one is gone."""
    memory, image = rig.make_image(daemon, kind=0)
    guest = rig.Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, "--handshake", "v1.5", do="-")
    guest.do("remove:0-3")
    guest.do("read:4-15")
    guest.do("read")
    rig.expect(guest.end(), wrong_pages=0)


def until_the_kernel_serves_alone(daemon):
    """Holes are punched while pages are zeroed in place and mapped, and while the filled guest's memory is given back to the kernel: an
    answer that came late then zeroed what had been written, or poisoned a page (one guest in 130)."""
    memory, image = rig.make_image(daemon, "image", "--chunk", "16", kind=None)
    for turn in range(25):
        guests = []
        for seat in range(4):
            sock = daemon.put("g%d.%d" % (turn, seat), image, fill="all")
            guests.append(rig.Guest(daemon, sock, "--expect", memory, "--order", "random", "--seed", str(4 * turn + seat), "--threads", "3",
                                    "--client", "--memory", "memfd", "--minor", "--populate",
                                    do="&read,&storm:200,&write:512-575,join,verify,storm:10,read"))
        for guest in guests:
            rig.expect(guest.end(), wrong_pages=0, poisoned=0)


TESTS = [until_the_kernel_serves_alone, beside_pages_that_are_not_registered, anonymous, shared_copied, shared_mapped, private]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], shards=1, workers=8)
