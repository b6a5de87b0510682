#!/usr/bin/env python3
"""Images that are damaged, cut short or deleted under the guests that they serve: each failure policy does what it says.

Usage: guest-damage.py BUILD [TEST]...
"""
import os
import sys

import rig
from rig import PAGE, PAGES, Events, Guest, expect, make_image

BAD = 77


def damage(image, first=BAD, pages=1):
    for number in range(first, first + pages):
        rig.overwrite(image, rig.cold_offset(image) + number * PAGE + 100, b"DAMAGE")


def poison_is_one_page(daemon):
    memory, image = make_image(daemon)
    events = Events(daemon)
    sock = daemon.put("a", image, fill="none", policy="poison")
    damage(image)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    guest.do("read:0-%d" % (BAD - 1))
    guest.do("read:%d-%d" % (BAD + 1, PAGES - 1))
    assert daemon.guest("a")["pages"]["poisoned"] == 0
    guest.do("read:%d" % BAD)
    guest.do("read:%d" % BAD)
    assert daemon.guest("a")["pages"]["poisoned"] == 1
    expect(guest.end(), poisoned=2, wrong_pages=0, verified=PAGES - 1)
    failed = events.wait("guest.failed", "a")
    assert "chunk %d" % BAD in failed["message"], failed
    daemon.wait("a", "gone")
    assert events.names("a").count("guest.failed") == 1, events.names("a")
    assert daemon.metrics("a")["cistern_faults_failed_total"] == 1


def poison_outlives_the_daemons_part(daemon):
    """A guest that is filled and given back to the kernel still may not read the page that could not be produced."""
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="all", policy="poison")
    damage(image)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    daemon.wait("a", "independent")
    guest.do("read")
    expect(guest.end(), poisoned=1, wrong_pages=0, verified=PAGES - 1)


def many_pages_are_few_lines(daemon):
    """All are counted, each is an event, and the log names the first of each second; so other guests are heard there too."""
    pages = 20000
    memory, image = make_image(daemon, pages=pages)
    damage(image, 0, pages)
    events = Events(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none", policy="poison"), "--expect", memory, "--threads", "4")
    expect(guest.end(), poisoned=pages, wrong_pages=0)
    daemon.wait("a", "gone")
    with open(daemon.folder + "/cisternd.log") as file:
        lines = [line for line in file if "guest=a" in line or '"guest":"a"' in line]
    named = sum("guest=a page=" in line for line in lines)
    counted = sum(int(line.split("guest=a ")[1].split()[0]) for line in lines if " more pages, the last one: " in line)
    assert named + counted == pages, (named, counted)
    assert sum("guest.failed" in line for line in lines) == named
    assert named * 10 < pages, named
    assert len(lines) < 2 * named + 30, len(lines)
    assert daemon.metrics()['cistern_failures_total{outcome="poisoned"}'] == pages
    events.wait("guest.failed", "a", 100)


def kill_takes_who_touches(daemon, policy="kill"):
    memory, image = make_image(daemon)
    events = Events(daemon)
    sock = daemon.put("a", image, fill="none", policy=policy)
    damage(image)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    guest.do("read:0-%d" % (BAD - 1))
    guest.tell("read:%d" % BAD)
    assert guest.end() is None and guest.process.returncode == -9
    events.wait("guest.failed", "a")
    events.wait("guest.gone", "a")
    assert "error" in daemon.guest("a")


def kill_spares_who_does_not_touch(daemon):
    """A fill that meets damage says so; the guest dies when it needs the page, not before."""
    memory, image = make_image(daemon)
    events = Events(daemon)
    sock = daemon.put("a", image, fill="all", policy="kill")
    damage(image)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    events.wait("guest.failed", "a")
    guest.do("read:0-%d" % (BAD - 1))
    guest.do("read:%d-%d" % (BAD + 1, PAGES - 1))
    assert daemon.guest("a")["state"] == "filled"
    guest.tell("read:%d" % BAD)
    assert guest.end() is None and guest.process.returncode == -9
    events.wait("guest.gone", "a")


def stall_waits_and_others_go_on(daemon):
    memory, image = make_image(daemon)
    right = open(memory, "rb").read()[BAD * PAGE:(BAD + 1) * PAGE]
    events = Events(daemon)
    sock, sock_b = daemon.put("a", image, fill="none", policy="stall"), daemon.put("b", image, fill="none", policy="stall")
    damage(image)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    guest.do("&read:%d" % BAD)
    events.wait("guest.failed", "a")
    guest.do("read:0-%d" % (BAD - 1))
    other = Guest(daemon, sock_b, "--expect", memory, do="read:%d-%d" % (BAD + 1, PAGES - 1))
    expect(other.end(), poisoned=0, wrong_pages=0, verified=PAGES - 1 - BAD)
    rig.overwrite(image, rig.cold_offset(image) + BAD * PAGE, right)
    guest.do("join")
    expect(guest.end(), poisoned=0, wrong_pages=0, verified=BAD + 1)
    assert events.names("a").count("guest.failed") == 1, events.names("a")


def stalled_guests_can_be_deleted(daemon):
    memory, image = make_image(daemon)
    for cut in (False, True):
        sock = daemon.put("a", image, fill="all", policy="stall")
        if cut:
            os.truncate(image, rig.cold_offset(image) + BAD * PAGE)
            rig.uncache(image)
        else:
            damage(image)
        events = Events(daemon)
        guest = Guest(daemon, sock, "--expect", memory, do="-")
        guest.do("&read:%d" % BAD)
        events.wait("guest.failed", "a")
        assert daemon.ask("DELETE", "/v1/guests/a")[0] == 409
        daemon.must("DELETE", "/v1/guests/a?force=true")
        assert guest.end() is None and guest.process.returncode == -9
        assert daemon.ask("GET", "/v1/guests/a")[0] == 404


def damaged_neighbours_cost_their_chunk(daemon):
    memory, image = make_image(daemon, "image", "--codec", "raw", "--chunk", "64")
    for fill in ("none", "all"):
        sock = daemon.put("a", image, fill=fill, policy="poison")
        damage(image)
        expect(Guest(daemon, sock, "--expect", memory, "--threads", "4").end(), poisoned=16, wrong_pages=0,
               verified=PAGES - 16)
        daemon.wait("a", "gone")


def a_removed_file_is_read_on(daemon):
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="none")
    rig.uncache(image)
    os.unlink(image)
    expect(Guest(daemon, sock, "--expect", memory).end(), poisoned=0, wrong_pages=0, verified=PAGES)


def a_truncated_file_costs_what_is_cut(daemon):
    memory, image = make_image(daemon)
    lost = 8
    sock = daemon.put("a", image, fill="none", policy="poison")
    os.truncate(image, rig.cold_offset(image) + (PAGES - lost) * PAGE)
    rig.uncache(image)
    expect(Guest(daemon, sock, "--expect", memory, "--threads", "8").end(), poisoned=lost, wrong_pages=0,
           verified=PAGES - lost)
    daemon.wait("a", "gone")


def a_truncated_file_kills(daemon):
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="none", policy="kill")
    os.truncate(image, rig.cold_offset(image) + (PAGES - 1) * PAGE)
    rig.uncache(image)
    guest = Guest(daemon, sock, "--expect", memory)
    assert guest.end() is None and guest.process.returncode == -9
    daemon.wait("a", "gone")


def fills_read_on_past_trouble(daemon):
    """Every eighth chunk is damaged: the rest is filled all the same, in the background and with no touch."""
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="all", policy="poison")
    for number in range(0, PAGES, 8):
        damage(image, number)
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    shown = daemon.wait("a", "independent")
    assert shown["pages"]["poisoned"] == PAGES // 8 and shown["pages"]["resident"] == PAGES - PAGES // 8, shown
    guest.do("read")
    expect(guest.end(), poisoned=PAGES // 8, wrong_pages=0, verified=PAGES - PAGES // 8)


def poison_is_kill_where_the_kernel_cannot(daemon):
    kill_takes_who_touches(daemon, policy="poison")


for test in (poison_is_one_page, many_pages_are_few_lines, poison_outlives_the_daemons_part, damaged_neighbours_cost_their_chunk,
             a_truncated_file_costs_what_is_cut, fills_read_on_past_trouble):
    test.needs = "uffd: poison"
poison_is_kill_where_the_kernel_cannot.without = "uffd: poison"

TESTS = [poison_is_one_page, many_pages_are_few_lines, poison_outlives_the_daemons_part, kill_takes_who_touches,
         kill_spares_who_does_not_touch, stall_waits_and_others_go_on, stalled_guests_can_be_deleted,
         damaged_neighbours_cost_their_chunk, a_removed_file_is_read_on, a_truncated_file_costs_what_is_cut,
         a_truncated_file_kills, fills_read_on_past_trouble, poison_is_kill_where_the_kernel_cannot]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], tries=2, store_deadline_ms=300, shards=2)
