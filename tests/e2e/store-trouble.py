#!/usr/bin/env python3
"""A store that is away, hangs or gives wrong bytes for a time: what is retried, what each failure policy then does, and what is counted.

The store is made to fail by its layers (cistern-store-layers(7)), most often while a file is there.

Usage: store-trouble.py BUILD [TEST]...
"""
import os
import sys

import rig
from rig import PAGES, Events, Guest, expect, make_image


class Away:
    """A file that layers look for."""

    def __init__(self, daemon):
        self.path = daemon.folder + "/away"

    def begin(self):
        open(self.path, "w").close()

    def end(self):
        os.unlink(self.path)

    def layers(self, what="fault:errno=EHOSTUNREACH"):
        return what + ("," if ":" in what else ":") + "trigger=" + self.path


def until(daemon, guest, metric, least):
    """Asks again and again: each question takes its time, and there is a limit to how many are asked."""
    for _ in range(100000):
        value = daemon.metrics(guest).get(metric, 0)
        if value >= least:
            return value
    raise AssertionError("%s of %s stays below %d" % (metric, guest, least))


def outcomes(daemon, guest):
    names = ("poisoned", "killed", "stalled", "recovered")
    metrics = daemon.metrics(guest)
    return {name: metrics['cistern_failures_total{outcome="%s"}' % name] for name in names if metrics['cistern_failures_total{outcome="%s"}' % name]}


READ_ERRORS = 'cistern_store_errors_total{kind="read"}'


def short_troubles_are_not_noticed(daemon):
    """Shorter than the deadline, so no policy comes into play."""
    memory, image = make_image(daemon)
    for policy in ("poison", "kill", "stall"):
        away = Away(daemon)
        sock = daemon.put(policy, image, fill="none", policy=policy, store=away.layers())
        guest = Guest(daemon, sock, "--expect", memory, do="-")
        guest.do("read:0-99")
        away.begin()
        guest.do("&read:100-%d" % (PAGES - 1))
        until(daemon, policy, "cistern_store_retries_total", 2)
        away.end()
        guest.do("join")
        expect(guest.end(), poisoned=0, wrong_pages=0, verified=PAGES)
        daemon.wait(policy, "gone")
        assert daemon.metrics(policy)[READ_ERRORS] >= 2 and not outcomes(daemon, policy), outcomes(daemon, policy)
    with open(daemon.folder + "/cisternd.log") as log:
        assert sum("trying again for up to" in line for line in log) == 3


def poison_after_the_deadline(daemon):
    memory, image = make_image(daemon)
    away = Away(daemon)
    sock = daemon.put("a", image, fill="none", policy="poison", store=away.layers())
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    away.begin()
    guest.do("read:7")
    away.end()
    guest.do("read")
    expect(guest.end(), poisoned=2, wrong_pages=0, verified=PAGES - 1)
    daemon.wait("a", "gone")
    assert outcomes(daemon, "a") == {"poisoned": 1}
    assert daemon.metrics()['cistern_failures_total{outcome="poisoned"}'] == 1


def kill_after_the_deadline(daemon):
    memory, image = make_image(daemon)
    events = Events(daemon)
    away = Away(daemon)
    sock = daemon.put("a", image, fill="none", policy="kill", store=away.layers())
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    guest.do("read:0-6")
    away.begin()
    guest.tell("read:7")
    assert guest.end() is None and guest.process.returncode == -9
    assert "guest killed" in events.wait("guest.failed", "a")["message"]
    daemon.wait("a", "gone")
    assert outcomes(daemon, "a") == {"killed": 1}


def stall_goes_on_when_it_is_back(daemon):
    memory, image = make_image(daemon)
    events = Events(daemon)
    away = Away(daemon)
    sock = daemon.put("a", image, fill="none", policy="stall", store=away.layers())
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    away.begin()
    guest.do("&read:7")
    guest.do("&read:9")
    events.wait("guest.failed", "a", times=2)
    assert "error" in daemon.guest("a")
    errors = daemon.metrics("a")[READ_ERRORS]
    until(daemon, "a", READ_ERRORS, errors + 4) # it goes on trying
    away.end()
    guest.do("join")
    events.wait("guest.recovered", "a")
    assert "error" not in daemon.guest("a")
    guest.do("read")
    expect(guest.end(), poisoned=0, wrong_pages=0, verified=PAGES + 2)
    daemon.wait("a", "gone")
    assert outcomes(daemon, "a") == {"stalled": 2, "recovered": 2}
    assert events.names("a").count("guest.failed") == 2, events.names("a")


def fills_pause_and_go_on(daemon):
    """Whatever the policy: nobody waits for what only the fill wants."""
    memory, image = make_image(daemon)
    for policy in ("poison", "kill", "stall"):
        away = Away(daemon)
        away.begin()
        sock = daemon.put(policy, image, fill="all", policy=policy, store=away.layers())
        guest = Guest(daemon, sock, "--expect", memory, do="-")
        errors = until(daemon, policy, READ_ERRORS, 4)
        assert errors < 100, "%d reads of a store that is away" % errors
        assert daemon.guest(policy)["pages"]["absent"] == PAGES
        away.end()
        daemon.wait(policy, "independent")
        guest.do("read")
        expect(guest.end(), poisoned=0, wrong_pages=0, verified=PAGES)
        daemon.wait(policy, "gone")
        assert not outcomes(daemon, policy), outcomes(daemon, policy)


def touch_decides_what_a_fill_left_out(daemon):
    memory, image = make_image(daemon)
    away = Away(daemon)
    away.begin()
    sock = daemon.put("a", image, fill="all", policy="poison", store=away.layers())
    guest = Guest(daemon, sock, "--expect", memory, do="-")
    until(daemon, "a", READ_ERRORS, 1)
    guest.do("read:7")
    assert daemon.guest("a")["pages"]["poisoned"] == 1
    away.end()
    daemon.wait("a", "independent")
    guest.do("read")
    expect(guest.end(), poisoned=2, wrong_pages=0, verified=PAGES - 1)


def reads_that_hang_are_given_up(daemon):
    memory, image = make_image(daemon, "image", pages=64)
    sock = daemon.put("a", image, fill="none", policy="poison", store="fault:how=hang,every=20")
    expect(Guest(daemon, sock, "--expect", memory, "--threads", "4").end(), poisoned=0, wrong_pages=0, verified=64)
    daemon.wait("a", "gone")
    assert daemon.metrics("a")['cistern_store_errors_total{kind="timeout"}'] >= 3


def fills_that_hang_are_given_up(daemon):
    """Their pages are asked for again, and so by a touch, which does not wait for the fill's read for ever."""
    memory, image = make_image(daemon)
    sock = daemon.put("a", image, fill="all", policy="poison", store="fault:how=hang,every=4")
    guest = Guest(daemon, sock, "--expect", memory)
    expect(guest.end(), poisoned=0, wrong_pages=0, verified=PAGES)


def a_guest_whose_store_hangs_can_be_deleted(daemon):
    memory, image = make_image(daemon)
    events = Events(daemon)
    for fill in ("none", "all"):
        sock = daemon.put(fill, image, fill=fill, policy="stall", store="fault:how=hang")
        guest = Guest(daemon, sock, "--expect", memory, do="-")
        guest.do("&read:7")
        events.wait("guest.failed", fill)
        daemon.must("DELETE", "/v1/guests/%s?force=true" % fill)
        assert guest.end() is None and guest.process.returncode == -9


def wrong_bytes_are_never_seen(daemon):
    memory, image = make_image(daemon, pages=256)
    for how in ("flip", "stale", "zeros", "torn"):
        for fill in ("none", "all"):
            name = how + "-" + fill
            sock = daemon.put(name, image, fill=fill, policy="poison", store="corrupt:how=%s,every=3" % how)
            expect(Guest(daemon, sock, "--expect", memory, "--threads", "4").end(), poisoned=0, wrong_pages=0, verified=256)
            daemon.wait(name, "gone")
            assert daemon.metrics(name)['cistern_store_errors_total{kind="damaged"}'] >= 1


def short_and_late_reads_are_right_in_the_end(daemon):
    memory, image = make_image(daemon, pages=256)
    for layers in ("fault:how=short,every=5", "delay:p50=200us,p99=3ms", "delay:time=1ms,every=3+fault:chance=5%+corrupt:chance=5%"):
        for fill in ("none", "all"):
            sock = daemon.put("a", image, fill=fill, policy="poison", store=layers)
            expect(Guest(daemon, sock, "--expect", memory, "--threads", "4").end(), poisoned=0, wrong_pages=0, verified=256)
            daemon.wait("a", "gone")


def one_guest_has_layers_and_another_has_none(daemon):
    memory, image = make_image(daemon)
    assert daemon.put("a", image, fill="all", policy="stall")
    assert daemon.guest("a")["store"] == "fault"
    sock = daemon.put("b", image, fill="all", store="")
    expect(Guest(daemon, sock, "--expect", memory).end(), poisoned=0, wrong_pages=0, verified=PAGES)
    daemon.wait("b", "gone")
    assert daemon.metrics("b")[READ_ERRORS] == 0


def handles_of_layers_are_closed(daemon):
    """By the shards, when they have heard that the guest is gone."""
    def timers():
        return [name for name in daemon.descriptors()[0] if "timerfd" in name]

    memory, image = make_image(daemon)
    keep, before = daemon.put("keep", image), timers()
    for i in range(4):
        sock = daemon.put("a", image, fill="all", store="delay:time=%dus" % (i + 1))
        expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0, verified=PAGES)
        daemon.wait("a", "gone")
        rig.until(lambda: timers() == before)
    assert keep


LONG = (short_troubles_are_not_noticed, fills_pause_and_go_on, stall_goes_on_when_it_is_back, short_and_late_reads_are_right_in_the_end,
        wrong_bytes_are_never_seen, fills_that_hang_are_given_up)
for test in LONG:
    test.config = {"store_deadline_ms": 60000}
stall_goes_on_when_it_is_back.config = {"store_deadline_ms": 200}
fills_that_hang_are_given_up.config = {"store_deadline_ms": 2000}
reads_that_hang_are_given_up.config = {"store_deadline_ms": 2000}
wrong_bytes_are_never_seen.config = {"store_deadline_ms": 60000, "tries": 10}
short_and_late_reads_are_right_in_the_end.config = {"store_deadline_ms": 60000, "tries": 10}
one_guest_has_layers_and_another_has_none.config = {"store_layers": "fault"}
for test in (poison_after_the_deadline, touch_decides_what_a_fill_left_out):
    test.needs = "uffd: poison"

TESTS = [short_troubles_are_not_noticed, poison_after_the_deadline, kill_after_the_deadline, stall_goes_on_when_it_is_back,
         fills_pause_and_go_on, touch_decides_what_a_fill_left_out, reads_that_hang_are_given_up, fills_that_hang_are_given_up,
         a_guest_whose_store_hangs_can_be_deleted, wrong_bytes_are_never_seen, short_and_late_reads_are_right_in_the_end,
         one_guest_has_layers_and_another_has_none, handles_of_layers_are_closed]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], store_deadline_ms=300, shards=2)
