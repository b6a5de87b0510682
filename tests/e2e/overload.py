#!/usr/bin/env python3
"""More than there is room for: the guest that comes too many is refused, and one that storms is held back; the others do not notice.

Usage: overload.py BUILD [TEST]...
"""
import os
import resource
import sys

import rig
from rig import PAGES, Events, Guest, expect, make_image, until


def limit(pid, soft):
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def highest(pid):
    return max(int(fd) for fd in os.listdir("/proc/%d/fd" % pid))


def guests_beyond_the_limit_are_refused(daemon):
    """By the engine, of which descriptors are taken away until one guest more is one too many."""
    memory, image = make_image(daemon)
    engine = daemon.pids()[0]
    before = resource.prlimit(engine, resource.RLIMIT_NOFILE)[0]
    socks = [daemon.put("early-%d" % i, image, fill="none") for i in range(3)]
    served = Guest(daemon, socks[0], "--expect", memory, do="-")
    served.do("read:0-99")
    daemon.wait("early-0", "filled")
    limit(engine, highest(engine) + 8)
    status, answer = daemon.ask("PUT", "/v1/guests/late", {"image": image})
    assert (status, answer["error"]["code"]) == (503, "busy"), (status, answer)
    events = Events(daemon)
    refused = Guest(daemon, socks[1], "--expect", memory)
    assert "no descriptors left" in events.wait("guest.failed", "early-1")["message"]
    refused.process.kill()
    refused.process.communicate()
    served.do("read:100-%d" % (PAGES - 1))
    expect(served.end(), poisoned=0, wrong_pages=0, verified=PAGES)
    limit(engine, before)
    expect(Guest(daemon, socks[1], "--expect", memory).end(), wrong_pages=0, verified=PAGES)
    daemon.wait("early-1", "gone")
    daemon.put("late", image)


def descriptors_that_do_not_fit_cost_their_guest_alone(daemon):
    """Not one is left: what the keeper sends arrives without its descriptors."""
    memory, image = make_image(daemon)
    events = Events(daemon)
    engine = daemon.pids()[0]
    before = resource.prlimit(engine, resource.RLIMIT_NOFILE)[0]
    socks = [daemon.put("a", image, fill="none"), daemon.put("b", image, fill="none")]
    served = Guest(daemon, socks[0], "--expect", memory, do="-")
    served.do("read:0-99")
    daemon.wait("a", "filled")
    limit(engine, 3)
    refused = Guest(daemon, socks[1], "--expect", memory)
    assert "no descriptors left" in events.wait("guest.failed", "b")["message"]
    refused.process.kill()
    refused.process.communicate()
    served.do("read:100-%d" % (PAGES - 1))
    limit(engine, before)
    expect(served.end(), poisoned=0, wrong_pages=0, verified=PAGES)
    expect(Guest(daemon, socks[1], "--expect", memory).end(), wrong_pages=0, verified=PAGES)


def the_keeper_refuses_too(daemon):
    memory, image = make_image(daemon)
    keeper = daemon.pids()[1]
    before = resource.prlimit(keeper, resource.RLIMIT_NOFILE)[0]
    socks = [daemon.put("a", image, fill="none"), daemon.put("b", image, fill="none")]
    served = Guest(daemon, socks[0], "--expect", memory, do="-")
    served.do("read:0-99")
    limit(keeper, highest(keeper) + 2)
    refused = Guest(daemon, socks[1], "--expect", memory)
    refused.process.kill()
    refused.process.communicate()
    served.do("read:100-%d" % (PAGES - 1))
    expect(served.end(), poisoned=0, wrong_pages=0, verified=PAGES)
    limit(keeper, before)
    expect(Guest(daemon, socks[1], "--expect", memory).end(), wrong_pages=0, verified=PAGES)


def rates_hold_back_and_lose_nothing(daemon):
    memory, image = make_image(daemon)
    guests = {name: Guest(daemon, daemon.put(name, image, fill=fill), "--expect", memory, "--threads", "4", do="-")
              for name, fill in (("none", "none"), ("all", "all"))}
    guests["none"].do("read")
    guests["none"].do("remove:0-200")
    guests["none"].do("read")
    guests["all"].do("read")
    assert daemon.metrics("none")["cistern_guest_held_back_total"] > 0
    for guest in guests.values():
        expect(guest.end(), poisoned=0, wrong_pages=0)
    for name in guests:
        daemon.wait(name, "gone")


def held_back_guests_can_leave(daemon):
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="none")
    guest = Guest(daemon, sock, "--expect", memory, "--threads", "4", do="-")
    guest.do("&read")
    until(lambda: daemon.metrics("a").get("cistern_guest_held_back_total"))
    daemon.must("DELETE", "/v1/guests/a?force=true")
    assert guest.end() is None and guest.process.returncode == -9


def a_slow_store_does_not_stop_others_fills(daemon):
    """Others get independent before the first of its reads has ended."""
    memory, image = make_image(daemon)
    slow = Guest(daemon, daemon.put("slow", image, fill="all", store="delay:time=8s"), "--expect", memory, do="-")
    daemon.wait("slow", "filled")
    for name in ("b", "c"):
        other = Guest(daemon, daemon.put(name, image, fill="all"), "--expect", memory, do="-")
        daemon.wait(name, "independent")
        other.do("read")
        expect(other.end(), poisoned=0, wrong_pages=0, verified=PAGES)
        daemon.wait(name, "gone")
    assert daemon.guest("slow")["pages"]["resident"] == 0
    slow.process.kill()
    slow.process.communicate()
    daemon.wait("slow", "gone")


a_slow_store_does_not_stop_others_fills.config = {"store_deadline_ms": 0}
rates_hold_back_and_lose_nothing.config = {"fault_rate": 2000, "fault_burst": 20}
held_back_guests_can_leave.config = {"fault_rate": 100, "fault_burst": 20}

TESTS = [guests_beyond_the_limit_are_refused, descriptors_that_do_not_fit_cost_their_guest_alone, the_keeper_refuses_too,
         rates_hold_back_and_lose_nothing, held_back_guests_can_leave, a_slow_store_does_not_stop_others_fills]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1])
