#!/usr/bin/env python3
"""Guests of 2 MiB pages: filled, touched, given back and poisoned page by page, copied to and mapped in place.

Usage: huge-pages.py BUILD [TEST]...
"""
import sys

import crowd
import rig
from rig import Guest, expect

HUGE, GUESTS = 16, 2
NEEDED = HUGE * GUESTS + 4
KINDS = (("--memory", "hugetlb"), ("--memory", "hugetlb-memfd", "--minor"),
         ("--client", "--memory", "hugetlb-memfd", "--minor", "--populate"))


def make_image(daemon):
    """A quarter of the pages is zeros, the others are random."""
    memory, source = daemon.folder + "/image.raw", rig.random.Random(5)
    with open(memory, "wb") as file:
        for number in range(HUGE):
            file.write(bytes(2 << 20) if number % 4 == 1 else source.randbytes(2 << 20))
    image = daemon.folder + "/image.cis"
    daemon.run("image", "create", memory, image, "--page", "2M", "--codec", "raw", "--chunk", "64")
    return memory, image


def every_byte_is_right(daemon):
    memory, image = make_image(daemon)
    for options in KINDS:
        for fill in ("none", "all"):
            sock = daemon.put("a", image, fill=fill)
            guest = Guest(daemon, sock, "--expect", memory, "--threads", "4", *options,
                          do="&remove:2-3,&read,write:8-9,join,verify,remove:8,verify")
            expect(guest.end(), wrong_pages=0, poisoned=0)
            gone = daemon.wait("a", "gone")
            assert gone["pages"]["total"] == HUGE, gone


def removed_pages_stay_removed_beside_a_fill(daemon):
    memory, image = make_image(daemon)
    for options in KINDS:
        for seed in range(4):
            guests = []
            for i in range(GUESTS):
                sock = daemon.put("g%d" % i, image, fill="all")
                guests.append(Guest(daemon, sock, "--expect", memory, *options, do="-"))
                lines = ["remove:%d" % n for n in range((seed + i) % 3, HUGE, 3)]
                guests[-1].process.stdin.write("\n".join(["&read"] + lines + ["join", "verify", ""]))
                guests[-1].process.stdin.flush()
            for i, guest in enumerate(guests):
                expect(guest.end(), wrong_pages=0, poisoned=0)
                daemon.wait("g%d" % i, "gone")


def damage_costs_one_huge_page(daemon):
    memory, image = make_image(daemon)
    for options in KINDS:
        for fill in ("none", "all"):
            sock = daemon.put("a", image, fill=fill, policy="poison")
            rig.overwrite(image, rig.cold_offset(image) + (2 << 20) + 70000, b"DAMAGE") # the second that is stored: page 2
            guest = Guest(daemon, sock, "--expect", memory, *options, do="-")
            guest.do("read:0-1")
            guest.do("read:3-%d" % (HUGE - 1))
            guest.do("read:2")
            expect(guest.end(), wrong_pages=0, poisoned=1, verified=HUGE - 1)
            daemon.wait("a", "gone")


def guests_go_on_when_the_engine_is_killed(daemon):
    memory, image = make_image(daemon)
    crowd.kill_at_random(daemon, crowd.Crowd(daemon, memory, image, KINDS, HUGE, width=GUESTS), 12)


guests_go_on_when_the_engine_is_killed.said = ("engine was ended",)
damage_costs_one_huge_page.needs = "uffd: poison"

TESTS = [every_byte_is_right, removed_pages_stay_removed_beside_a_fill, damage_costs_one_huge_page, guests_go_on_when_the_engine_is_killed]


def pool(number=None):
    """The pool of huge pages; how many are free."""
    if number is not None:
        with open("/proc/sys/vm/nr_hugepages", "w") as file:
            file.write("%d\n" % number)
    with open("/proc/meminfo") as file:
        return int([line.split()[1] for line in file if line.startswith("HugePages_Free")][0])


def main():
    with open("/proc/sys/vm/nr_hugepages") as file:
        before = int(file.read())
    try:
        if pool() < NEEDED and pool(before + NEEDED) < NEEDED:
            print("this machine has no %d pages of 2 MiB to give" % NEEDED)
            sys.exit(77)
        rig.run(TESTS, sys.argv[1], tries=2, shards=2, workers=4)
    finally:
        pool(before)


if __name__ == "__main__":
    main()
