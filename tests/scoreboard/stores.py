"""The store is away: for a second, for a minute, for ever; under each failure policy."""
import os
import time

import load
import rig

DEADLINE_MS = 5000


def away(daemon, policy, seconds, number):
    """One guest whose store is away for that long (None: for ever).  What went wrong, or None."""
    trigger = daemon.folder + "/away-%d" % number
    memory, image = daemon.folder + "/store.raw", daemon.folder + "/store.cis"
    name = "store%d" % number
    sock = daemon.put(name, image, fill="none", policy=policy, store="fault:errno=EHOSTUNREACH,trigger=" + trigger)
    guest = rig.Guest(daemon, sock, "--expect", memory, "--timeout", "300", do="-")
    guest.do("read:0-9")
    open(trigger, "w").close()
    survives = seconds is not None and (seconds * 1000 < DEADLINE_MS or policy == "stall")
    pages = "10-900" if survives else "10-12" # each of those that cannot be had takes the whole deadline
    guest.tell("read:" + pages)
    if seconds is not None:
        time.sleep(seconds) # what is tried is that time itself
        os.unlink(trigger)
    if survives:
        said = guest.done()
        if said != "done read:" + pages:
            return "%s, away for %s s: %r %s" % (policy, seconds, said, guest.process.stderr.read())
        guest.do("read")
        report = guest.end()
        return None if not guest.process.returncode and not report["wrong_pages"] and not report["poisoned"] else repr(report)
    if policy == "kill":
        guest.process.wait(60)
        return None if guest.process.returncode == -9 else "kill: status %s" % guest.process.returncode
    if policy == "poison":
        said = guest.done() # poisoned pages are counted by it, and it goes on
        report = guest.end()
        good = said and report["poisoned"] and not report["wrong_pages"]
        return None if good else "poison: %r %s %s" % (said, report, guest.said)
    problem = stalls(daemon, name)
    guest.kill()
    return problem


def stalls(daemon, name):
    """Still waiting, long after the deadline, and said so."""
    time.sleep(2 * DEADLINE_MS / 1000)
    state = daemon.guest(name)
    return None if state["state"] in ("filling", "filled") and state.get("error") else "stall: %s" % state


def line(board, name, seconds):
    trials, failures = board.trials(9), []

    def run(daemon):
        rig.make_image(daemon, "store")
        for number in range(trials):
            problem = away(daemon, ("poison", "kill", "stall")[number % 3], seconds, number)
            if problem:
                failures.append(problem)
    load.with_daemon(board.build, run, store_deadline_ms=DEADLINE_MS, neighbours="no")
    board.score(name, trials, failures, "under poison, kill and stall by turns, deadline %d ms" % DEADLINE_MS)


LINES = {
    "store-away-1s": lambda board: line(board, "store-away-1s", 1),
    "store-away-60s": lambda board: line(board, "store-away-60s", 60),
    "store-away-for-ever": lambda board: line(board, "store-away-for-ever", None),
}
