#!/usr/bin/env python3
"""The host's memory is divided among guests: by weight, by need, and nothing for who does nothing.

Usage: host-budget.py BUILD [TEST]...
"""
import sys

import rig
from rig import PAGE, Guest, expect, make_image, until

PAGES = 4096
MIB = 1 << 20
COPIED = ("--memory", "memfd")
IN_PLACE = ("--memory", "memfd", "--minor", "--populate")
SLACK = 128 * PAGE  # on their way


def serve(daemon, name, image, memory, *options, **keys):
    return Guest(daemon, daemon.put(name, image, **keys), "--expect", memory, "--order", "random", *options, do="-")


def memory_of(daemon, name):
    return daemon.guest(name)["memory"]


def host(daemon, size):
    return daemon.must("PATCH", "/v1/config", {"host_budget_bytes": size})


def keep_to(daemon, names, size):
    """Soon, all together, what was reclaimed included."""
    def small():
        figures = [memory_of(daemon, name) for name in names]
        return sum(m["resident_bytes"] + m["stash_bytes"] for m in figures) <= size + SLACK

    until(small)


def shares_follow_weights(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=PAGES, kind=4)
    guests = [serve(daemon, "a", image, memory, *COPIED, fill="none"),
              serve(daemon, "b", image, memory, *IN_PLACE, fill="all", budget={"weight": 300}),
              serve(daemon, "c", image, memory, *COPIED, fill="none", budget={"max_bytes": 2 * MIB})]
    for guest in guests:
        guest.do("read")
    keep_to(daemon, "abc", 20 * MIB)

    def shares():
        return [memory_of(daemon, name)["budget_bytes"] for name in "abc"]

    def fair():
        a, b, c = shares()
        return c == 2 * MIB and 2.8 * a < b < 3.2 * a

    until(fair)
    figures = daemon.metrics()
    assert figures["cistern_host_budget_bytes"] == 20 * MIB
    assert sum(shares()) <= 1.004 * figures["cistern_host_divided_bytes"] <= 1.004 * 20 * MIB, (shares(), figures)
    assert "refused" not in daemon.said() and daemon.guest("b")["state"] == "filled"
    assert "does not get independent: it has a budget" in daemon.ask("GET", "/v1/guests/b/wait?state=independent")[1]["error"]["message"]
    daemon.run("guest", "set", "a", "--weight", "300")
    daemon.run("guest", "set", "b", "--weight", "100")
    until(lambda: 2.8 * shares()[1] < shares()[0] < 3.2 * shares()[1])
    daemon.run("guest", "park", "a") # that is its own
    until(lambda: shares()[0] == MIB and shares()[1] > 14 * MIB)
    daemon.run("guest", "unpark", "a")
    until(lambda: shares()[0] > 10 * MIB)
    for guest in guests:
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)


shares_follow_weights.config = {"host_budget": "20M", "idle_s": 0}


def it_changes_while_guests_run(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=PAGES, kind=4)
    guests = [serve(daemon, name, image, memory, *kind, fill="all") for name, kind in (("a", COPIED), ("b", IN_PLACE))]
    for guest in guests:
        guest.do("read")
        guest.do("&churn:3000")
    assert host(daemon, None)["host_budget_bytes"] is None
    assert host(daemon, 6 * MIB) == {"log_level": "info", "host_budget_bytes": 6 * MIB}
    for guest in guests:
        guest.do("join")
        guest.do("verify")
    until(lambda: sum(memory_of(daemon, name)["resident_bytes"] for name in "ab") <= 6 * MIB + SLACK)
    daemon.must("PATCH", "/v1/guests/a", {"pinned": True}) # takes no part any more, and has what it has
    until(lambda: "budget_bytes" not in memory_of(daemon, "a") and memory_of(daemon, "a")["stashed_bytes"] == 0)
    until(lambda: memory_of(daemon, "b")["budget_bytes"] == MIB) # nothing is left for it
    daemon.must("PATCH", "/v1/guests/a", {"pinned": False})
    until(lambda: memory_of(daemon, "a").get("budget_bytes", 16 * MIB) < 4 * MIB)
    host(daemon, None)
    for name, guest in zip("ab", guests):
        assert daemon.wait(name, "independent")["memory"]["stashed_bytes"] == 0
        guest.do("verify")
    host(daemon, 6 * MIB) # from those that needed nobody, too
    until(lambda: sum(memory_of(daemon, name)["resident_bytes"] for name in "ab") <= 6 * MIB + SLACK)
    for guest in guests:
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)


def engines_that_follow_divide_it_too(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=PAGES, kind=4)
    guests = [serve(daemon, name, image, memory, *kind, fill="all") for name, kind in (("a", COPIED), ("b", IN_PLACE))]
    for guest in guests:
        guest.do("read")
    keep_to(daemon, "ab", 8 * MIB)
    for guest in guests:
        guest.do("&churn:2000")
    pid = daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid)
    for guest in guests:
        guest.do("join")
    until(lambda: sum(memory_of(daemon, name)["resident_bytes"] for name in "ab") <= 8 * MIB + SLACK)
    daemon.must("POST", "/v1/upgrade", {})
    for guest in guests:
        guest.do("verify")
    until(lambda: sum(memory_of(daemon, name)["resident_bytes"] for name in "ab") <= 8 * MIB + SLACK)
    daemon.must("POST", "/v1/drain") # that comes first
    for guest in guests:
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)


engines_that_follow_divide_it_too.config = {"host_budget": "8M"}
engines_that_follow_divide_it_too.said = ("engine was ended",)


def who_does_nothing_gets_its_least(daemon):
    """And who comes back has it again."""
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=PAGES, kind=4)
    events = rig.Events(daemon)
    lazy = serve(daemon, "lazy", image, memory, *COPIED, fill="none")
    lazy.do("read")
    events.wait("guest.idle", "lazy")
    until(lambda: memory_of(daemon, "lazy")["resident_bytes"] <= MIB)
    assert daemon.metrics()["cistern_idle_guests"] == 1
    lazy.do("&churn:1000000")
    events.wait("guest.active", "lazy")
    until(lambda: memory_of(daemon, "lazy")["budget_bytes"] == 16 * MIB and memory_of(daemon, "lazy")["resident_bytes"] > 8 * MIB)
    assert daemon.metrics()["cistern_idle_guests"] == 0
    lazy.kill()


who_does_nothing_gets_its_least.config = {"host_budget": "64M", "idle_s": 1}


def who_cannot_be_reclaimed_has_what_it_has(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=PAGES, kind=4)
    other = serve(daemon, "other", image, memory, fill="none")
    other.do("read:0-1023")
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none")
    guest.do("read")
    there = memory_of(daemon, "other")["resident_bytes"]
    assert there >= 4 * MIB and "budget_bytes" not in memory_of(daemon, "other")
    until(lambda: daemon.metrics()["cistern_host_divided_bytes"] == 12 * MIB - there - daemon.metrics()["cistern_stash_bytes"])
    until(lambda: memory_of(daemon, "a")["budget_bytes"] <= 12 * MIB - there)
    until(lambda: memory_of(daemon, "a")["resident_bytes"] <= 12 * MIB - there)
    guest.do("verify")
    other.do("verify:0-1023")
    expect(guest.end(), wrong_pages=0, poisoned=0)
    expect(other.end(), wrong_pages=0, poisoned=0)


who_cannot_be_reclaimed_has_what_it_has.config = {"host_budget": "12M"}


def what_does_not_compress_is_not_squeezed_for_nothing(daemon):
    """What was reclaimed takes as much as it did in the guest; half of the budget is the guest's all the same."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none")
    guest.do("read")
    until(lambda: memory_of(daemon, "a")["budget_bytes"] == 4 * MIB and memory_of(daemon, "a")["resident_bytes"] <= 4 * MIB)
    guest.do("verify")
    expect(guest.end(), wrong_pages=0, poisoned=0)


what_does_not_compress_is_not_squeezed_for_nothing.config = {"host_budget": "8M"}

TESTS = [shares_follow_weights, it_changes_while_guests_run, engines_that_follow_divide_it_too, who_does_nothing_gets_its_least,
         who_cannot_be_reclaimed_has_what_it_has, what_does_not_compress_is_not_squeezed_for_nothing]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], shards=2)
