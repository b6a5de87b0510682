#!/usr/bin/env python3
"""The engine is killed at each named point of its way (src/base/point.h): no guest is lost, no byte is wrong.

Usage: engine-dies-at-points.py BUILD [--times N] [POINT]...

At each point N times (1), at its first passage, its third, and so on; what is printed at the end are points that were not passed.
"""
import concurrent.futures
import os
import subprocess
import sys
import tempfile

import crowd
import rig
from rig import PAGE, Guest, make_image

PAGES = 256
TIMES = 1
# Those of a keeper that dies, and of a standby before it has anything to lose, have tests of their own.
OTHERS = ("keeper_", "standby_opened", "ledger_")
ADOPTING = ("adopt_", "header_")
# Of guests that have a budget, and a store of pages.
RECLAIMING = ("evict_", "stash_", "put_", "far_", "page_dirty", "unprotected", "adopt_inflight", "adopt_punched")
FAR_PAGES, FAR_BUDGET = 1024, 1 << 20
FAR_GUESTS = [("--memory", "memfd"), ("--memory", "memfd", "--minor", "--populate"), ("--memory", "memfd")]
STASHES = [{"keep_bytes": 0}, {"keep_bytes": 0}, {"stash_bytes": 4 << 20}] # the last one has hardly room for what it needs
GUESTS = [(*kind, "--threads", "3", "--order", "random") for kind in crowd.KINDS]


def script(kind):
    half = PAGES // 2
    writes = "&write:%d-%d" % (half, half + 15)
    return ["&read", writes, "&storm:200", "join", "verify", "storm:10", "read"]


def arm(path):
    open(path, "w").close()


def upgrade(daemon, *words):
    """It may fail: what counts is what becomes of the guests."""
    subprocess.run([daemon.build + "/cistern", "upgrade", "--control", daemon.control, *words], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def dies_when_it_has_read(daemon):
    """A standby that dies while the other engine stands still, which resumes then."""
    path = daemon.folder + "/dies"
    with open(path, "w") as file:
        file.write("#!/bin/sh\nCISTERN_POINT=standby_read exec %s/cisternd-points \"$@\"\n" % daemon.build)
    os.chmod(path, 0o755)
    return path


def provoke(daemon, point, token):
    """What happens now and then only."""
    if point.startswith(ADOPTING):
        for _ in range(5): # what it was at is another matter each time
            daemon.kill_engine()
            daemon.insist("GET", "/v1/health")
            if not os.path.exists(token):
                break
    elif point == "resumed":
        upgrade(daemon, "--exec", dies_when_it_has_read(daemon))
    elif point in ("pause_asked", "paused", "handed_over") or point.startswith("standby_"):
        upgrade(daemon)


def serve_all(daemon, image, memory, damaged, point, token):
    guests = []
    for number, kind in enumerate(GUESTS):
        fill = ("none", "hot", "all")[number % 3]
        sock = crowd.put(daemon, "g%d" % number, image, fill=fill, record=number == 0)
        guests.append(Guest(daemon, sock, "--expect", memory, "--seed", str(number + 1), *kind, do="-"))
        if number == (0 if point.startswith("touch_") else 1):
            arm(token)
        guests[-1].process.stdin.write("\n".join(script(kind)) + "\n")
        guests[-1].process.stdin.flush()
        if number == 3:
            provoke(daemon, point, token)
    sock = crowd.put(daemon, "damaged", damaged[1], fill="none", policy="poison")
    rig.overwrite(damaged[1], rig.cold_offset(damaged[1]) + 9 * PAGE, b"DAMAGE")
    guests.append(Guest(daemon, sock, "--expect", damaged[0], do="read"))
    return guests


def serve_far(daemon, point, token):
    """Guests of four times their budget, whose pages go to a store at once."""
    memory, image = make_image(daemon, "far", "--chunk", "16", kind=None, pages=FAR_PAGES)
    guests, store = [], daemon.folder + "/pages"
    os.mkdir(store)
    for number, kind in enumerate(FAR_GUESTS):
        budget = {"max_bytes": FAR_BUDGET, "codec": "raw", **STASHES[number], **({"pages": "file:" + store} if number < 2 else {})}
        sock = crowd.put(daemon, "f%d" % number, image, fill="none", budget=budget)
        guests.append(Guest(daemon, sock, "--expect", memory, "--seed", str(number + 1), "--threads", "3", "--order", "random", *kind, do="-"))
        arm(token)
        guests[-1].process.stdin.write("read\n&churn:3000\n&storm:100\njoin\nverify\n")
        guests[-1].process.stdin.flush()
    if point.startswith(ADOPTING):
        kill_while_pages_go(daemon, guests[0], token)
    return guests


def kill_while_pages_go(daemon, guest, token):
    """Until an engine that takes over has found what the point is about."""
    def came():
        status, shown = daemon.insist("GET", "/v1/guests/f0")
        return shown["faults"]["far"] if status == 200 and "faults" in shown else -1

    while os.path.exists(token) and guest.process.poll() is None:
        before = came()
        rig.until(lambda: came() > before or guest.process.poll() is not None)
        daemon.kill_engine()


def check(point, guests):
    for number, guest in enumerate(guests):
        report = guest.end()
        assert report and not report["wrong_pages"] and not report["poisoned"], (point, number, report, guest.said)


def die_at(build, point, time):
    """Was it passed?"""
    with tempfile.TemporaryDirectory(prefix="cistern-e2e.", dir=os.environ.get("CIS_TEST_DIR", "/var/tmp")) as folder:
        token = folder + "/token"
        armed = type("Armed", (rig.Daemon,), {"program": "cisternd-points", "environ": {
            "CISTERN_POINT": "%s:%d" % (point, 2 * time + 1), "CISTERN_POINT_TOKEN": token}})
        with armed(build, folder, awake_ms=0, shards=2, tries=2) as daemon:
            try:
                if point.startswith(RECLAIMING):
                    check(point, serve_far(daemon, point, token))
                else:
                    memory, image = make_image(daemon, "image", "--chunk", "16", kind=None, pages=PAGES)
                    *guests, damaged = serve_all(daemon, image, memory, make_image(daemon, "damaged", pages=PAGES), point, token)
                    check(point, guests)
                    report = damaged.end()
                    assert report is None or not report["wrong_pages"], (point, report)
                daemon.must("GET", "/v1/health")
            except BaseException:
                sys.stderr.write("%s failed; the daemon said:\n%s" % (point, daemon.said()))
                raise
        status = daemon.process.returncode
        assert status == 0, "%s: the daemon ended with status %s" % (point, status)
        with open(folder + "/cisternd.log", errors="replace") as file:
            bad = [line for line in file if any(word in line for word in rig.BAD_WORDS) and "ended by signal 9" not in line]
        assert not bad, "%s: %s" % (point, "".join(bad))
        return not os.path.exists(token)


def main():
    times, words = TIMES, sys.argv[2:]
    if words[:1] == ["--times"]:
        times, words = int(words[1]), words[2:]
    names = subprocess.run([sys.argv[1] + "/cisternd-points", "--points"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    names = words or [name for name in names if not name.startswith(OTHERS)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [(name, pool.submit(die_at, sys.argv[1], name, time)) for time in range(times) for name in names]
    passed = {name: sum(run.result() for of, run in runs if of == name) for name in names}
    missed = [name for name in names if not passed[name]]
    print("killed %d times at %d points, no guest lost, all bytes right; not passed: %s" %
          (sum(passed.values()), len(names) - len(missed), ", ".join(missed) or "none"))
    assert len(missed) < len(names) / 3, missed


if __name__ == "__main__":
    main()
