#!/usr/bin/env python3
"""The engine is killed at any instant, again and again: guests wait for a moment, get the right bytes, and none is lost.

Usage: engine-is-killed.py BUILD [--kills N] [TEST]...
"""
import os
import subprocess
import sys

import crowd
import rig
from crowd import KINDS, Crowd
from rig import PAGES, Guest, expect, make_image, until

KILLS = 25


def guests_go_on(daemon):
    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None)
    crowd.kill_at_random(daemon, Crowd(daemon, memory, image, KINDS, PAGES), KILLS)


def after(daemon, pid):
    """The engine that follows @pid serves."""
    until(lambda: daemon.insist("GET", "/v1/health")[1]["engine_pid"] != pid)


def kill(daemon):
    pid = daemon.kill_engine()
    after(daemon, pid)


def the_expected_are_expected(daemon):
    memory, image = make_image(daemon, kind=None)
    socks = {name: daemon.put(name, image, fill=fill, policy="stall", record=record)
             for name, fill, record in (("a", "none", False), ("b", "all", False), ("c", "hot", True))}
    before = daemon.must("GET", "/v1/guests")
    kill(daemon)
    assert daemon.must("GET", "/v1/guests") == before
    kill(daemon)
    for name, sock in socks.items():
        expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0, verified=PAGES)
        assert daemon.wait(name, "gone")["policy"] == "stall"
    assert daemon.put("d", image) not in socks.values()


def an_expected_guest_waits_for_its_image(daemon):
    memory, image = make_image(daemon, kind=None)
    sock = daemon.put("a", image)
    os.rename(image, image + ".away")
    kill(daemon)
    assert "image.cis" in daemon.guest("a")["error"], daemon.guest("a")
    os.rename(image + ".away", image)
    until(lambda: "error" not in daemon.guest("a"))
    expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0, verified=PAGES)


def a_guest_without_its_image_waits(daemon):
    """Missing, or another one of the same name: it is stalled until the right one is there."""
    memory, image = make_image(daemon, kind=2)
    os.mkdir(daemon.folder + "/other")
    other = rig.make_image(daemon, "other/image", seed=2)[1]
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    os.rename(image, image + ".away")
    kill(daemon)
    guest.do("&read:10-19")
    guest.do("read:0-9")
    shown = daemon.guest("a")
    assert shown["state"] == "stalled" and "image.cis" in shown["error"], shown
    assert daemon.metrics()['cistern_guests{state="stalled"}'] == 1
    os.rename(other, image)
    kill(daemon)
    shown = daemon.guest("a")
    assert shown["state"] == "stalled" and "not the image" in shown["error"], shown
    os.rename(image + ".away", image)
    until(lambda: daemon.guest("a")["state"] != "stalled")
    guest.do("join")
    guest.do("read")
    assert "error" not in daemon.guest("a")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def whoever_ends_meanwhile_is_gone(daemon):
    memory, image = make_image(daemon)
    for image_away in (False, True):
        guests = [Guest(daemon, daemon.put("g%d" % i, image, fill="none"), "--expect", memory, *KINDS[i], do="-") for i in range(4)]
        for guest in guests:
            guest.do("read:0-9")
        if image_away:
            os.rename(image, image + ".away")
        for guest in guests[:2]:
            guest.kill()
        pid = daemon.kill_engine()
        for guest in guests[2:]:
            guest.kill()
        after(daemon, pid)
        until(lambda: all(guest["state"] == "gone" for guest in daemon.must("GET", "/v1/guests")["guests"]))
        assert daemon.metrics()["cistern_images"] == 0
        if image_away:
            os.rename(image + ".away", image)


def recordings_go_on(daemon):
    memory, image = make_image(daemon)
    order = daemon.folder + "/order"
    with open(order, "w") as file:
        file.writelines("%d\n" % n for n in rig.random.Random(3).sample(range(PAGES), 300))
    guest = Guest(daemon, daemon.put("a", image, record=True), "--expect", memory, do="-")
    for first in range(0, 300, 50):
        guest.do("read:%d-%d" % (first, first + 49))
        kill(daemon)
    shown = daemon.guest("a")
    assert shown["record"] == {"state": "on", "pages": 300} and shown["state"] == "filled", shown
    trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop"})
    assert trace["pages"] == 300, trace
    kill(daemon)
    assert daemon.guest("a")["record"]["state"] == "off"
    daemon.wait("a", "independent")
    guest.do("verify")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def who_waits_waits_on(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-9")
    command = [daemon.build + "/cistern", "guest", "wait", "a", "--state", "gone", "--control", daemon.control]
    waits = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for _ in range(3):
        kill(daemon)
    guest.do("read")
    expect(guest.end(), wrong_pages=0, verified=PAGES + 10)
    for wait in waits:
        assert wait.communicate(timeout=rig.SECONDS)[0] == "gone\n" and not wait.returncode
    kill(daemon)
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0 # that it has gone is known


def clients_hear_once_that_they_are_served(daemon):
    """One byte says so; a second one, of an engine that follows, would be the answer to nothing."""
    memory, image = make_image(daemon)
    for fill in ("none", "all"):
        guest = Guest(daemon, daemon.put("a", image, fill=fill), "--client", "--expect", memory, do="-")
        guest.do("read:0-9") # it waits for the answer before
        kill(daemon)
        guest.do("read")
        expect(guest.end(), wrong_pages=0)
        daemon.wait("a", "gone")


def states_and_figures_stay(daemon):
    memory, image = make_image(daemon, kind=None)
    guest = Guest(daemon, daemon.put("a", image, fill="all"), "--expect", memory, do="-")
    guest.do("read")
    shown = daemon.wait("a", "independent")
    kill(daemon)
    again = daemon.wait("a", "independent")
    for key in ("id", "state", "socket", "image", "image_id", "kind", "policy", "fill", "pid", "regions", "pages", "faults"):
        assert again[key] == shown[key], (key, shown, again)
    guest.do("verify")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def sums_of(daemon):
    return crowd.counters(daemon.must("GET", "/v1/metrics"))


def nothing_falls(daemon, before):
    now = sums_of(daemon)
    fallen = [(name, value, now[name]) for name, value in before.items() if now[name] < value]
    assert not fallen, fallen
    return now


def leave(daemon, name, image, memory, *options, do="read:0-99", **keys):
    """A guest that has come and gone."""
    expect(Guest(daemon, daemon.put(name, image, **{"fill": "none", **keys}), "--expect", memory, *options, do=do).end(), wrong_pages=0)
    daemon.wait(name, "gone")


def the_gone_are_listed_on(daemon):
    """And what they counted is in the sums, whether they are listed or not."""
    memory, image = make_image(daemon, kind=None)
    for number in range(3):
        leave(daemon, "g%d" % number, image, memory, *KINDS[number], do="read,remove:0-9,storm:50")
    damaged = make_image(daemon, "damaged")
    rig.overwrite(damaged[1], rig.cold_offset(damaged[1]) + 9 * rig.PAGE, b"DAMAGE")
    killed = Guest(daemon, daemon.put("killed", damaged[1], fill="none", policy="kill"), "--expect", damaged[0], do="read")
    assert killed.end() is None
    daemon.wait("killed", "gone")
    listed, sums = daemon.must("GET", "/v1/guests"), sums_of(daemon)
    assert len(listed["guests"]) == 4 and sums['cistern_failures_total{outcome="killed"}'] == 1
    for _ in range(2):
        kill(daemon)
        assert daemon.must("GET", "/v1/guests") == listed
        sums = nothing_falls(daemon, sums)
    daemon.must("DELETE", "/v1/guests/g1")
    daemon.must("PUT", "/v1/guests/g2", {"image": image}) # in the place of the one that has gone
    listed["guests"] = [guest for guest in listed["guests"] if guest["id"] not in ("g1", "g2")]
    for _ in range(2):
        kill(daemon)
        now = daemon.must("GET", "/v1/guests")["guests"]
        assert [guest for guest in now if guest["id"] != "g2"] == listed["guests"], now
        sums = nothing_falls(daemon, sums)
    leave(daemon, "g1", image, memory)
    kill(daemon)
    assert [guest["id"] for guest in daemon.must("GET", "/v1/guests")["guests"]] == ["g0", "g1", "g2", "killed"]
    nothing_falls(daemon, sums)


def the_stalled_are_counted(daemon):
    """A guest that cannot be served, and one that ends so."""
    memory, image = make_image(daemon, kind=2)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-99")
    sums = sums_of(daemon)
    os.rename(image, image + ".away")
    for _ in range(2):
        kill(daemon)
        assert daemon.guest("a")["state"] == "stalled"
        sums = nothing_falls(daemon, sums)
    guest.kill()
    until(lambda: daemon.guest("a")["state"] == "gone")
    sums = nothing_falls(daemon, sums)
    kill(daemon)
    nothing_falls(daemon, sums)


def whoever_ends_while_there_is_no_engine_is_listed(daemon):
    memory, image = make_image(daemon, kind=2)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:0-99")
    sums, pid = sums_of(daemon), daemon.engine()
    os.kill(pid, rig.signal.SIGSTOP) # whatever the guest does is news to the next one
    guest.kill()
    daemon.kill_engine()
    after(daemon, pid)
    assert daemon.wait("a", "gone")["id"] == "a"
    nothing_falls(daemon, sums)


def armed(daemon, point):
    """A daemon of its own whose engine dies at the point once a test has made the token."""
    token, folder = daemon.folder + "/token", daemon.folder + "/" + point
    os.mkdir(folder)
    environ = {"CISTERN_POINT": point, "CISTERN_POINT_TOKEN": token}
    return type("Armed", (rig.Daemon,), {"program": "cisternd-points", "environ": environ, "token": token})(daemon.build, folder, awake_ms=0)


def dies_there(daemon, method, path):
    """What is asked for is done all the same, or not at all."""
    try:
        daemon.ask(method, path)
    except (OSError, rig.http.client.HTTPException):
        pass


def at_each_step_of_the_ledger(daemon):
    """It dies when a guest that goes, or one that is forgotten, is half way."""
    memory, image = make_image(daemon, kind=2)
    for point in ("ledger_buried", "ledger_summed", "ledger_cleared"):
        with armed(daemon, point) as other:
            leave(other, "a", image, memory)
            guest, pid = Guest(other, other.put("b", image, fill="none"), "--expect", memory, do="-"), other.engine()
            guest.do("read:0-99")
            sums = sums_of(other)
            if point != "ledger_buried":
                guest.kill()
                other.wait("b", "gone")
            open(other.token, "w").close()
            if point == "ledger_buried":
                guest.kill()
            else:
                dies_there(other, "DELETE", "/v1/guests/b")
            after(other, pid)
            assert not os.path.exists(other.token), point
            for name in ("a", "b") if point == "ledger_buried" else ("a",):
                other.wait(name, "gone")
            for _ in range(2):
                assert nothing_falls(other, sums)['cistern_fault_seconds_count{stage="total"}'] == 200, point
                assert len(other.must("GET", "/v1/guests")["guests"]) == (2 if point == "ledger_buried" else 1), point
                kill(other)


TESTS = [guests_go_on, the_expected_are_expected, an_expected_guest_waits_for_its_image,
         a_guest_without_its_image_waits, whoever_ends_meanwhile_is_gone, recordings_go_on, who_waits_waits_on,
         clients_hear_once_that_they_are_served, states_and_figures_stay, the_gone_are_listed_on, the_stalled_are_counted,
         whoever_ends_while_there_is_no_engine_is_listed, at_each_step_of_the_ledger]
for test in TESTS:
    test.said = ("engine was ended",)

if __name__ == "__main__":
    if "--kills" in sys.argv:
        at = sys.argv.index("--kills")
        KILLS = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    rig.run(TESTS, sys.argv[1], shards=2)
