#!/usr/bin/env python3
"""Guests from their first page to their last.

Usage: guest-life.py BUILD [TEST]...
"""
import collections
import sys

import rig
from rig import PAGE, PAGES, Events, Guest, expect, make_image


def children_inherit(daemon):
    parent_memory, parent = make_image(daemon, "parent", kind=None)
    memory = daemon.folder + "/child.raw"
    with open(parent_memory, "rb") as old, open(memory, "wb") as new:
        content, source = bytearray(old.read()), rig.random.Random(9)
        for number in range(0, PAGES, 3):
            content[number * PAGE:(number + 1) * PAGE] = rig.page(source, number)
        new.write(content)
    child = daemon.folder + "/child.cis"
    daemon.run("image", "create", memory, child, "--parent", parent, "--full")
    for kind in ("anonymous", "memfd"):
        for fill in ("none", "hot", "all"):
            sock = daemon.put("a", child, fill=fill)
            guest = Guest(daemon, sock, "--expect", memory, "--memory", kind, "--threads", "4", do="-")
            if fill == "all":
                daemon.wait("a", "independent")
            guest.do("read")
            expect(guest.end(), poisoned=0, wrong_pages=0, verified=PAGES)
            daemon.wait("a", "gone")


def recorded_guests_fault_less(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)
    order = daemon.folder + "/order"
    with open(order, "w") as file:
        file.writelines("%d\n" % n for n in rig.random.Random(3).sample(range(PAGES), 300))
    options = ("--expect", memory, "--order", order)
    sock = daemon.put("a", image, fill="none", record=True)
    expect(Guest(daemon, sock, *options).end(), wrong_pages=0, verified=300)
    daemon.wait("a", "gone")
    assert daemon.guest("a")["record"] == {"state": "off", "pages": 300}, daemon.guest("a")
    status, _ = daemon.ask("PUT", "/v1/guests/a/record", {"state": "stop", "path": "/nowhere/at/all.trace"})
    assert status == 404, status
    trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop"})
    assert trace["pages"] == 300, trace
    with open(trace["trace"], "rb") as file:
        assert file.read()
    better = daemon.folder + "/better.cis"
    daemon.run("image", "optimize", image, better, "--trace", trace["trace"])
    before = daemon.guest("a")["faults"]["count"]
    sock = daemon.put("b", better, fill="hot")
    guest = Guest(daemon, sock, *options, do="-")
    daemon.wait("b", "filled")
    guest.do("read")
    expect(guest.end(), wrong_pages=0, verified=300)
    after = daemon.wait("b", "gone")["faults"]
    assert before == 300 and after["neighbour"] == after["zero"] == 0, (before, after)
    assert after["count"] < before / 4, (before, after) # pages of one repeated word are in no section that a fill reads first


def a_recording_holds_the_fill(daemon):
    """Else a guest that is filled, as by default, would touch little for the first time."""
    memory, image = make_image(daemon, "image", "--chunk", "64")
    order = daemon.folder + "/order"
    with open(order, "w") as file:
        file.writelines("%d\n" % n for n in rig.random.Random(3).sample(range(PAGES), 300))
    for client in ((), ("--client", "--memory", "memfd", "--minor")):
        guest = Guest(daemon, daemon.put("a", image, record=True), "--expect", memory, "--order", order, *client, do="-")
        guest.do("read")
        assert daemon.guest("a")["state"] == "filled"
        trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop"})
        assert trace["pages"] == 300, trace
        daemon.wait("a", "independent")
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)
        daemon.wait("a", "gone")


def records_start_and_stop_by_request(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "64")
    sock = daemon.put("a", image, fill="none")
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    guest.do("read:0")
    daemon.wait("a", "filled")
    daemon.must("PUT", "/v1/guests/a/record", {"state": "start"})
    assert daemon.ask("PUT", "/v1/guests/a/record", {"state": "start"})[0] == 409
    for number in (500, 501, 40, 500):
        guest.do("read:%d" % number)
    trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop", "path": daemon.folder + "/t"})
    assert trace["pages"] == 3, trace
    assert daemon.ask("PUT", "/v1/guests/a/record", {"state": "stop"})[0] == 409
    guest.kill()


def figures_and_events_agree(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)
    events = Events(daemon, "?guest=a")
    total = daemon.metrics()
    sock = daemon.put("a", image, fill="none")
    guest = Guest(daemon, sock, "--expect", memory, "--threads", "4", do="-")
    guest.do("read")
    guest.do("remove:10-19")
    guest.do("read:15-16")
    shown, figures = daemon.guest("a"), daemon.metrics("a")
    faults = {c: figures['cistern_faults_total{class="%s"}' % c] for c in ("zero", "demand", "same", "removed", "resident")}
    installed = sum(figures['cistern_pages_installed_total{by="%s"}' % b] for b in ("demand", "neighbour", "fill", "zero"))
    assert shown["pages"]["resident"] == PAGES - 8 and shown["pages"]["removed"] == 8, shown
    assert installed == PAGES + 2, figures
    assert shown["bytes"]["installed"] == (PAGES + 2) * PAGE, shown
    assert sum(faults.values()) == shown["faults"]["count"] == figures['cistern_fault_seconds_count{stage="total"}'], (faults, shown)
    assert faults["removed"] == 2 and figures["cistern_pages_removed_total"] == 10, figures
    assert figures["cistern_remove_events_total"] == 1 and figures["cistern_resident_bytes"] == (PAGES - 8) * PAGE, figures
    assert figures["cistern_faults_failed_total"] == 0
    expect(guest.end(), wrong_pages=0)
    gone = daemon.wait("a", "gone")
    assert gone["pages"]["resident"] == PAGES - 8, gone
    assert daemon.metrics("a")["cistern_resident_bytes"] == 0
    summed = daemon.metrics()
    assert summed["cistern_pages_removed_total"] - total["cistern_pages_removed_total"] == 10
    assert summed['cistern_guests{state="gone"}'] == 1
    daemon.must("DELETE", "/v1/guests/a")
    assert daemon.metrics()["cistern_pages_removed_total"] == summed["cistern_pages_removed_total"], "a counter fell"
    events.wait("guest.deleted", "a")
    assert events.names("a") == ["guest.expected", "guest.connected", "guest.filled", "guest.gone", "guest.deleted"], events.names("a")


def memfds_that_hold_pages_are_filled_or_refused(daemon):
    """Never read as they are: a monitor may have allocated its memfd without saying so."""
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)
    events = Events(daemon)
    for fill in ("none", "all"):
        sock = daemon.put("a", image, fill=fill)
        guest = Guest(daemon, sock, "--expect", memory, "--memory", "memfd", "--populate", "--minor")
        expect(guest.end(), wrong_pages=0, verified=PAGES)
        daemon.wait("a", "gone")
    sock = daemon.put("b", image)
    guest = Guest(daemon, sock, "--expect", memory, "--memory", "memfd", "--populate", do="-")
    assert "minor" in events.wait("guest.failed", "b")["message"]
    guest.kill()


def sixty_four_at_once(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)
    guests = []
    for i in range(64):
        fill, policy, kind = ("none", "hot", "all")[i % 3], ("poison", "kill", "stall")[i % 3], ("anonymous", "memfd")[i % 2]
        sock = daemon.put("g%d" % i, image, fill=fill, policy=policy)
        guests.append(Guest(daemon, sock, "--expect", memory, "--memory", kind, "--order", "random", "--seed", str(i),
                            "--threads", "2", do="read,remove:5-9,write:0-99,verify"))
    for guest in guests:
        expect(guest.end(), poisoned=0, wrong_pages=0)
    for i in range(64):
        daemon.wait("g%d" % i, "gone")
    assert len(daemon.must("GET", "/v1/guests")["guests"]) == 64


def ends_at_every_point(daemon):
    """A monitor that ends anywhere is gone soon, or its guest is expected still; a later one is served."""
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)
    for fill in ("none", "all"):
        for point in ("memory", "connect", "half", "handshake", "1", "2", "50", "500"):
            sock = daemon.put("a", image, fill=fill)
            rig.uncache(image)
            Guest(daemon, sock, "--expect", memory, "--threads", "16", "--order", "random", "--exit-after", point).end()
            if point in ("memory", "connect", "half", "handshake"):
                # whether the handshake was there before the end is the monitor's luck; a deleted guest is none at all
                daemon.ask("DELETE", "/v1/guests/a?force=true")
            else:
                daemon.wait("a", "gone")
    sock = daemon.put("b", image)
    expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0, verified=PAGES)


def nothing_leaks(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "64", kind=None)

    def round_of_all():
        for fill in ("none", "all"):
            for kind in ("anonymous", "memfd"):
                sock = daemon.put("a", image, fill=fill)
                Guest(daemon, sock, "--expect", memory, "--memory", kind).end()
                daemon.wait("a", "gone")
                daemon.must("DELETE", "/v1/guests/a")
        for bad in ("empty", "cut", "wrong-descriptor"):
            sock = daemon.put("a", image)
            Guest(daemon, sock, "--bad", bad, "--expect", memory).end()
            daemon.must("DELETE", "/v1/guests/a")
        sock = daemon.put("a", image, fill="none")
        guest = Guest(daemon, sock, "--expect", memory, do="-")
        guest.do("read:0-9")
        daemon.must("DELETE", "/v1/guests/a?force=true")
        guest.end()
        daemon.must("PUT", "/v1/guests/a", {"image": image})
        daemon.must("DELETE", "/v1/guests/a")

    round_of_all()
    before = settled(daemon)
    for _ in range(3):
        round_of_all()
    after = settled(daemon, before)
    assert not more(after, before), "descriptors before: %s\nafter: %s" % (before, after)
    maps = open("/proc/%d/maps" % daemon.pids()[0]).read()
    assert "cistern-state" not in maps and "userfaultfd" not in maps, maps


def more(now, then):
    return any(collections.Counter(a) - collections.Counter(b) for a, b in zip(now, then))


def settled(daemon, then=None):
    """Descriptors once nothing closes any more: workers close the stores of an image that nobody uses when they come to it,
    the HTTP server closes the connections of questions that were answered."""
    for _ in range(1000):
        found = daemon.descriptors()
        if not any(".cis" in name for names in found for name in names) and not (then and more(found, then)):
            break
    return found


TESTS = [children_inherit, recorded_guests_fault_less, a_recording_holds_the_fill, records_start_and_stop_by_request,
         figures_and_events_agree, memfds_that_hold_pages_are_filled_or_refused, sixty_four_at_once, ends_at_every_point, nothing_leaks]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], tries=2, shards=2)
