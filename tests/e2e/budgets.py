#!/usr/bin/env python3
"""Guests whose memory is larger than their budget: every byte is right, and they keep to it, whatever happens to the daemon.

Usage: budgets.py BUILD [--kills N] [TEST]...
"""
import os
import subprocess
import sys

import rig
from rig import PAGE, Guest, expect, make_image, until

PAGES = 4096
BUDGET = 2 << 20
LOOK_S = 0.002 # between two looks at a guest that is busy: the machine is for it
# On their way at one moment: what the pages of four threads push out, and what workers have claimed.
SLACK = 128 * PAGE
KILLS = 20
COPIED = ("--memory", "memfd")
IN_PLACE = ("--memory", "memfd", "--minor", "--populate")


def serve(daemon, name, image, memory, *options, **keys):
    return Guest(daemon, daemon.put(name, image, **keys), "--expect", memory, "--threads", "4", "--order", "random", *options, do="-")


def limit(daemon, name, **budget):
    return daemon.must("PATCH", "/v1/guests/" + name, {"budget": budget})


def file_bytes(guest):
    """What the memory of the guest takes on the host, whoever put it there."""
    folder = "/proc/%d/fd" % guest.process.pid
    for fd in os.listdir(folder):
        if "guest-memory" in os.readlink(folder + "/" + fd):
            return os.stat(folder + "/" + fd).st_blocks * 512
    raise AssertionError("the guest has no memfd")


def resident(daemon, name):
    return daemon.guest(name)["memory"]["resident_bytes"]


def state_bytes(daemon, guests):
    """Memory of the state memfds of so many guests, which have room for what is reclaimed."""
    folder, found = "/proc/%d/fd" % daemon.engine(), {}
    for fd in os.listdir(folder):
        if "cistern-state" in rig.link(daemon.engine(), fd):
            found[os.stat(folder + "/" + fd).st_ino] = os.stat(folder + "/" + fd).st_blocks * 512
    assert len(found) == guests, found
    return sum(found.values())


def keeps_to(daemon, name, guest, budget, slack=SLACK):
    shown, there = resident(daemon, name), file_bytes(guest)
    assert shown <= budget + slack and there <= budget + slack, (shown, there, budget)


def shrinks_to(daemon, name, guest, budget):
    def is_small():
        assert guest.process.poll() is None, guest.end()
        return resident(daemon, name) <= budget and file_bytes(guest) <= budget

    until(is_small)


def watched(daemon, name, guest, action, budget):
    """The action is done while the budget is kept to at each look."""
    guest.tell("&" + action)
    said, looks = guest.done(), 0
    assert said, guest.process.stderr.read()
    guest.tell("join")
    reader = rig.threading.Thread(target=lambda: done.append(guest.done()))
    done = []
    reader.start()
    while reader.is_alive():
        keeps_to(daemon, name, guest, budget)
        looks += 1
        reader.join(LOOK_S)
    assert done == ["done join"], guest.process.stderr.read()
    return looks


def every_byte_is_right(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    for number, (kind, codec) in enumerate(((COPIED, "lz4"), (IN_PLACE, "mask"), (COPIED, "raw"), (IN_PLACE, "zstd"))):
        name = "g%d" % number
        guest = serve(daemon, name, image, memory, *kind, fill=("all", "none")[number % 2], budget={"max_bytes": BUDGET, "codec": codec})
        guest.do("read:0-63")
        shrinks_to(daemon, name, guest, BUDGET) # what its monitor had allocated goes too
        assert watched(daemon, name, guest, "churn:2500", BUDGET)
        guest.do("verify")
        keeps_to(daemon, name, guest, BUDGET)
        shown, figures = daemon.guest(name), daemon.metrics(name)
        assert shown["state"] == "filled" and shown["faults"]["stashed"] and shown["memory"]["stashed_bytes"], shown
        assert shown["memory"]["stash_bytes"] < 1.3 * shown["memory"]["stashed_bytes"] + (1 << 20), shown
        assert figures["cistern_budget_bytes"] == BUDGET, figures
        assert figures['cistern_evictions_total{kind="stashed"}'] > PAGES and figures['cistern_evictions_total{kind="zero"}'], figures
        expect(guest.end(), wrong_pages=0, poisoned=0)
        daemon.wait(name, "gone")
        assert daemon.metrics(name)["cistern_stashed_bytes"] == daemon.metrics(name)["cistern_stash_bytes"] == 0


def budgets_change_while_it_runs(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    for number, kind in enumerate((COPIED, IN_PLACE)):
        name = "g%d" % number
        guest = serve(daemon, name, image, memory, *kind, fill="all")
        daemon.wait(name, "filled")
        guest.do("&churn:3000")
        for budget in (BUDGET, 1 << 20, 2 * BUDGET, 3 << 19, None, 3 << 20, None, BUDGET):
            shown = limit(daemon, name, max_bytes=budget)
            assert shown["budget"]["max_bytes"] == budget and shown["state"] == "filled", shown
            if budget:
                shrinks_to(daemon, name, guest, budget)
        guest.do("join")
        guest.do("verify")
        keeps_to(daemon, name, guest, BUDGET)
        limit(daemon, name, max_bytes=None)
        assert daemon.wait(name, "independent")["memory"]["stashed_bytes"] == 0
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)
        daemon.wait(name, "gone")


def what_is_not_needed_is_given_back(daemon):
    """Memory that held what was reclaimed, in whatever order that came back."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    for order in ("sequential", "reverse", "random"):
        guest = Guest(daemon, daemon.put(order, image, fill="none", budget={"max_bytes": 1 << 20, "codec": "raw"}), "--expect", memory, *COPIED,
                      "--order", order, do="-")
        guest.do("read")
        shrinks_to(daemon, order, guest, 1 << 20)
        out = daemon.guest(order)["memory"]["stashed_bytes"]
        assert state_bytes(daemon, 1) > out > 14 << 20, (out, state_bytes(daemon, 1))
        limit(daemon, order, max_bytes=None)
        until(lambda: guest.do("read") or daemon.guest(order)["memory"]["stashed_bytes"] == 0)
        assert state_bytes(daemon, 1) < 6 << 20, state_bytes(daemon, 1)
        expect(guest.end(), wrong_pages=0, poisoned=0)
        daemon.wait(order, "gone")


def who_was_independent_is_not_any_more(daemon):
    """And again, and again; what it does in between nobody sees."""
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    events = rig.Events(daemon)
    for number, kind in enumerate((COPIED, IN_PLACE)):
        name = "g%d" % number
        guest = serve(daemon, name, image, memory, *kind, fill="all")
        for round in range(1, 4):
            daemon.wait(name, "independent")
            guest.do("churn:750")
            guest.do("storm:100")
            guest.do("churn:250")
            assert limit(daemon, name, max_bytes=BUDGET)["state"] == "filled"
            assert daemon.ask("GET", "/v1/guests/%s/wait?state=independent" % name)[0] == 409
            events.wait("guest.filled", name, round + 1)
            guest.do("churn:500")
            shrinks_to(daemon, name, guest, BUDGET)
            guest.do("verify")
            limit(daemon, name, max_bytes=None)
        daemon.wait(name, "independent")
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)


def memory_file(guest):
    folder = "/proc/%d/fd" % guest.process.pid
    return [os.open(folder + "/" + fd, os.O_RDWR) for fd in os.listdir(folder) if "guest-memory" in os.readlink(folder + "/" + fd)][0]


def waits_in_the_kernel(guest):
    folder = "/proc/%d/task/" % guest.process.pid
    for task in os.listdir(folder):
        try:
            with open(folder + task + "/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "D":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            pass # it has ended meanwhile
    return False


def taken_back_while_it_gives_back(daemon, name, guest):
    """A write into the memory's other half keeps the guest's thread between telling nobody and the hole.  Return: was it so?"""
    file = memory_file(guest)
    data = os.pread(file, PAGES * PAGE, PAGES * PAGE)
    writer = rig.threading.Thread(target=os.pwrite, args=(file, data, PAGES * PAGE))
    guest.do("write:5")
    daemon.wait(name, "independent")
    writer.start()
    guest.do("&remove:5")
    until(lambda: waits_in_the_kernel(guest) or not writer.is_alive())
    limit(daemon, name, max_bytes=1 << 20)
    between, asked = writer.is_alive(), rig.time.monotonic()
    writer.join()
    in_time = rig.time.monotonic() - asked < 0.4
    os.close(file)
    guest.do("join")
    shrinks_to(daemon, name, guest, 1 << 20)
    if in_time: # else it was kept for longer than anybody waits for it
        guest.do("verify:5")
    limit(daemon, name, max_bytes=None)
    return between and in_time


def who_is_giving_back_when_taken_back_has_given_it(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", pages=2 * PAGES, kind=3)
    for number, kind in enumerate((COPIED, IN_PLACE)):
        name = "g%d" % number
        guest = serve(daemon, name, image, memory, *kind, fill="all")
        guest.do("read:0-100")
        until(lambda: taken_back_while_it_gives_back(daemon, name, guest))
        report = guest.end()
        expect(report, wrong_pages=0, poisoned=0)
        daemon.wait(name, "gone")


def balloons_storm_beside_it(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, *kind, "--seed", str(i + 1), fill="all", budget={"max_bytes": BUDGET})
              for i, kind in enumerate((COPIED, IN_PLACE))]
    for guest in guests:
        for action in ("&churn:1250", "&storm:500", "&write", "join", "churn:500", "verify"):
            guest.tell(action)
    for i, guest in enumerate(guests):
        until(lambda: guest.done() == "done verify")
        keeps_to(daemon, "g%d" % i, guest, BUDGET)
        expect(guest.end(), wrong_pages=0, poisoned=0)


def reclaimed(daemon, name):
    """Pages so far; asks again where an engine has just died."""
    status, answer = 0, ""
    while status != 200:
        status, answer = daemon.insist("GET", "/v1/guests/" + name)
    return answer["memory"]["stashed_bytes"] + answer["faults"]["stashed"] if "memory" in answer else 0


def kill_while_reclaiming(daemon, image, memory, kind, kills, seed=1):
    """The engine dies that often while pages go and come; each time only when some did."""
    source, name = rig.random.Random(seed), "k%d" % seed
    guest = serve(daemon, name, image, memory, *kind, "--seed", str(seed), fill="all", budget={"max_bytes": BUDGET})
    guest.do("read")
    killed = 0
    while killed < kills:
        guest.tell("&churn:1500")
        guest.tell("join")
        reader = rig.threading.Thread(target=lambda: [guest.done(), guest.done()])
        reader.start()
        while reader.is_alive() and killed < kills:
            before, more = reclaimed(daemon, name), source.randrange(500)
            while reader.is_alive() and abs(reclaimed(daemon, name) - before) < more:
                reader.join(LOOK_S)
            killed += daemon.kill_engine() is not None
        reader.join()
    guest.do("verify")
    status, shown = daemon.insist("GET", "/v1/guests/" + name)
    assert status == 200 and shown["budget"]["max_bytes"] == BUDGET and shown["memory"]["stashed_bytes"], shown
    keeps_to(daemon, name, guest, BUDGET)
    report = guest.end()
    expect(report, wrong_pages=0, poisoned=0)
    daemon.wait(name, "gone")
    return killed


def engines_die_while_reclaiming(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    for seed, kind in enumerate((COPIED, IN_PLACE), 1):
        kill_while_reclaiming(daemon, image, memory, kind, KILLS // 2, seed)


def upgrades_do_not_disturb(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, *kind, fill="all", budget={"max_bytes": BUDGET, "stash_bytes": 64 << 20, "codec": "mask"})
              for i, kind in enumerate((COPIED, IN_PLACE))]
    for guest in guests:
        guest.do("read")
        guest.do("&churn:2000")
    for _ in range(5):
        daemon.must("POST", "/v1/upgrade", {})
    for i, guest in enumerate(guests):
        guest.do("join")
        guest.do("verify")
        shown = daemon.guest("g%d" % i)
        assert shown["budget"] == {"max_bytes": BUDGET, "target_bytes": None, "min_bytes": 1 << 20, "stash_bytes": 64 << 20, "keep_bytes": None,
                                   "pages": None, "prefetch": True, "codec": "mask", "reclaim": "async", "parked": False, "weight": 100}, shown
        keeps_to(daemon, "g%d" % i, guest, BUDGET)
        expect(guest.end(), wrong_pages=0, poisoned=0)


def to_an_engine_that_has_no_stash(daemon):
    """It refuses, and the one before goes on; when nothing is outside any more, it follows."""
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    older = rig.program(daemon, "older", 'exec $DAEMON "$@" --set state_layout=2')
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none", budget={"max_bytes": BUDGET})
    guest.do("read")
    status, answer = daemon.ask("POST", "/v1/upgrade", {"exec": older})
    assert status >= 500 and "pages are out of the guest" in answer["error"]["message"], answer
    guest.do("churn:500")
    limit(daemon, "a", max_bytes=None) # what a worker has begun with goes on
    until(lambda: guest.do("verify") or daemon.guest("a")["memory"]["stashed_bytes"] == 0)
    daemon.must("POST", "/v1/upgrade", {"exec": older})
    status, answer = daemon.ask("PATCH", "/v1/guests/a", {"budget": {"max_bytes": BUDGET}})
    assert status == 501 and "layout 2" in answer["error"]["message"], answer
    guest.do("churn:250")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def what_was_said_is_known_to_all_engines(daemon):
    """Of a guest that nobody has connected to yet, too."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    sock = daemon.put("early", image, budget={"max_bytes": 2 * BUDGET, "min_bytes": BUDGET, "reclaim": "sync"}, fill="none")
    daemon.put("pinned", image, pinned=True)
    before = daemon.must("GET", "/v1/guests")
    pid = daemon.kill_engine()
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid)
    assert daemon.must("GET", "/v1/guests") == before
    guest = Guest(daemon, sock, "--expect", memory, *COPIED, do="-")
    guest.do("read")
    keeps_to(daemon, "early", guest, 2 * BUDGET, 4 * PAGE)
    limit(daemon, "early", target_bytes=BUDGET)
    shrinks_to(daemon, "early", guest, BUDGET)
    pid = daemon.kill_engine()
    guest.do("churn:750")
    shown = daemon.guest("early")["budget"]
    assert (shown["max_bytes"], shown["target_bytes"], shown["reclaim"]) == (2 * BUDGET, BUDGET, "sync"), shown
    keeps_to(daemon, "early", guest, BUDGET, 4 * PAGE)
    expect(guest.end(), wrong_pages=0, poisoned=0)


def pages_come_ahead_where_there_is_a_trend(daemon):
    """In a row nearly all probes are hit; at random hardly anything is brought ahead."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    figures = {}
    for order in ("sequential", "random"):
        guest = Guest(daemon, daemon.put(order, image, fill="none", budget={"max_bytes": BUDGET}), "--expect", memory, *COPIED, "--order",
                      order, do="-")
        for _ in range(3):
            guest.do("read")
        expect(guest.end(), wrong_pages=0, poisoned=0)
        figures[order] = daemon.wait(order, "gone")["prefetch"]
        assert daemon.metrics(order)["cistern_prefetch_probes_total"] == figures[order]["probes"]
        assert daemon.metrics(order)["cistern_prefetch_probe_hits_total"] == figures[order]["hits"]
        assert daemon.metrics(order)['cistern_pages_installed_total{by="prefetch"}'] == figures[order]["pages"]
    row, chance = figures["sequential"], figures["random"]
    assert row["pages"] > PAGES and row["hits"] > 0.9 * row["probes"], row
    assert chance["pages"] < 0.01 * row["pages"], chance


def parked_guests_run_and_come_back(daemon):
    """They are parked for the engines that follow, too, and come back with what they had before."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    guests = [serve(daemon, "g%d" % i, image, memory, *kind, fill="all") for i, kind in enumerate((COPIED, IN_PLACE))]
    for guest in guests:
        guest.do("churn:500")
    daemon.run("guest", "set", "g0", "--max", "4M", "--budget", "2M")
    for i, guest in enumerate(guests):
        name = "g%d" % i
        said = daemon.run("guest", "park", name)
        assert "%s: budget 1.0 MiB, parked, resident " % name in said, said
        assert resident(daemon, name) <= 1 << 20 and file_bytes(guest) <= 1 << 20
        limit(daemon, name, codec="mask") # it stays parked
        pid = daemon.kill_engine()
        guest.do("churn:500")
        assert daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid
        keeps_to(daemon, name, guest, 1 << 20)
        said = daemon.run("guest", "unpark", name)
        assert said.startswith("%s: budget %s, resident" % (name, ("2.0 MiB", "none")[i])), said
        guest.do("churn:500")
        guest.do("verify")
    keeps_to(daemon, "g0", guests[0], BUDGET)
    assert daemon.guest("g0")["budget"]["max_bytes"] == 2 * BUDGET
    assert daemon.wait("g1", "independent")["memory"]["stashed_bytes"] == 0
    for guest in guests:
        expect(guest.end(), wrong_pages=0, poisoned=0)


def drained_guests_have_all_of_it(daemon):
    memory, image = make_image(daemon, "image", "--codec", "lz4", "--chunk", "16", pages=PAGES, kind=None)
    guests = [serve(daemon, "g%d" % i, image, memory, *kind, fill=("none", "all")[i], budget={"max_bytes": BUDGET})
              for i, kind in enumerate((COPIED, IN_PLACE))]
    other = serve(daemon, "other", image, memory, "--client", "--memory", "private", "--minor")
    for guest in [*guests, other]:
        guest.do("churn:250" if guest != other else "read:0-9")
    status, answer = daemon.ask("POST", "/v1/drain")
    assert status == 409 and "guest other" in answer["error"]["message"], answer
    for i, guest in enumerate(guests):
        guest.do("churn:250")
        shrinks_to(daemon, "g%d" % i, guest, BUDGET)
    other.kill()
    daemon.wait("other", "gone")
    assert daemon.must("POST", "/v1/drain")["drained"] == ["g0", "g1"]
    for i, guest in enumerate(guests):
        assert daemon.wait("g%d" % i, "gone")["pages"]["stashed"] == 0
        guest.do("verify")
        guest.do("churn:500")
        expect(guest.end(), wrong_pages=0, poisoned=0)


def a_drain_in_vain_gives_budgets_back(daemon):
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    trigger = daemon.folder + "/away"
    good = serve(daemon, "good", image, memory, *COPIED, fill="all", budget={"max_bytes": BUDGET})
    bad = serve(daemon, "bad", image, memory, *COPIED, fill="none", store="fault:errno=EIO,trigger=" + trigger)
    good.do("churn:250")
    bad.do("read:0-9")
    open(trigger, "w").close()
    status, answer = daemon.ask("POST", "/v1/drain?timeout_ms=2000")
    assert status == 504 and "guest bad" in answer["error"]["message"], answer
    shrinks_to(daemon, "good", good, BUDGET)
    assert daemon.guest("good")["state"] == "filled"
    good.do("verify")
    expect(good.end(), wrong_pages=0, poisoned=0)
    bad.kill()


def what_cannot_be_reclaimed_is_refused(daemon):
    memory, image = make_image(daemon, kind=None)
    events = rig.Events(daemon)
    kinds = {"anonymous": ((), "shared memory"), "private": (("--client", "--memory", "private", "--minor"), "shared memory")}
    for name, (kind, reason) in kinds.items():
        guest = Guest(daemon, daemon.put(name, image, budget={"max_bytes": BUDGET}), "--expect", memory, *kind, do="-")
        assert reason in events.wait("guest.failed", name)["message"]
        guest.kill()
        daemon.must("DELETE", "/v1/guests/" + name)
        guest = Guest(daemon, daemon.put(name, image, fill="none"), "--expect", memory, *kind, do="-")
        guest.do("read:0-9")
        status, answer = daemon.ask("PATCH", "/v1/guests/" + name, {"budget": {"max_bytes": BUDGET}})
        assert status == 409 and reason in answer["error"]["message"], answer
        assert daemon.guest(name)["budget"]["max_bytes"] is None
        limit(daemon, name, min_bytes=2 << 20) # that is no limit yet
        guest.do("read")
        expect(guest.end(), wrong_pages=0)
    guest = Guest(daemon, daemon.put("pinned", image, fill="none", pinned=True), "--expect", memory, *COPIED, do="-")
    guest.do("read:0-9")
    status, answer = daemon.ask("PATCH", "/v1/guests/pinned", {"budget": {"max_bytes": BUDGET}})
    assert status == 409 and "pinned" in answer["error"]["message"], answer
    daemon.must("PATCH", "/v1/guests/pinned", {"pinned": False, "budget": {"max_bytes": 1 << 20}})
    guest.do("read")
    shrinks_to(daemon, "pinned", guest, 1 << 20)
    status, answer = daemon.ask("PATCH", "/v1/guests/pinned", {"pinned": True})
    assert status == 409 and "pinned" in answer["error"]["message"], answer
    daemon.must("PATCH", "/v1/guests/pinned", {"pinned": True, "budget": {"max_bytes": None}})
    guest.do("read")
    expect(guest.end(), wrong_pages=0)


def a_full_stash_stops_it(daemon):
    """Rather above the budget than without a page."""
    memory, image = make_image(daemon, pages=PAGES, kind=2)
    guest = serve(daemon, "a", image, memory, *COPIED, fill="none", budget={"max_bytes": BUDGET, "stash_bytes": 1 << 20, "codec": "raw"})
    guest.do("read")
    shown = daemon.guest("a")["memory"]
    assert shown["stash_bytes"] <= 1 << 20 and shown["resident_bytes"] >= (PAGES * PAGE) - (1 << 20), shown
    assert daemon.metrics("a")["cistern_stash_full_total"]
    guest.do("churn:500")
    limit(daemon, "a", stash_bytes=None)
    shrinks_to(daemon, "a", guest, BUDGET)
    guest.do("verify")
    expect(guest.end(), wrong_pages=0, poisoned=0)


TESTS = [every_byte_is_right, budgets_change_while_it_runs, what_is_not_needed_is_given_back, who_was_independent_is_not_any_more,
         who_is_giving_back_when_taken_back_has_given_it, balloons_storm_beside_it,
         engines_die_while_reclaiming, upgrades_do_not_disturb, to_an_engine_that_has_no_stash, what_was_said_is_known_to_all_engines,
         pages_come_ahead_where_there_is_a_trend, parked_guests_run_and_come_back, drained_guests_have_all_of_it, a_drain_in_vain_gives_budgets_back, what_cannot_be_reclaimed_is_refused, a_full_stash_stops_it]
for test in (engines_die_while_reclaiming, what_was_said_is_known_to_all_engines, parked_guests_run_and_come_back):
    test.said = ("engine was ended",)

if __name__ == "__main__":
    if "--kills" in sys.argv:
        at = sys.argv.index("--kills")
        KILLS = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    rig.run(TESTS, sys.argv[1], shards=2)
