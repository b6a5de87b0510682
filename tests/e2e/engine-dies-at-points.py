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


def check(point, guests):
    reports = [guest.end() for guest in guests]
    for number, report in enumerate(reports[:-1]):
        assert report and not report["wrong_pages"] and not report["poisoned"], (point, GUESTS[number], report, guests[number].said)
    assert reports[-1] is None or not reports[-1]["wrong_pages"], (point, reports[-1])


def die_at(build, point, time):
    """Was it passed?"""
    with tempfile.TemporaryDirectory(prefix="cistern-e2e.", dir=os.environ.get("CIS_TEST_DIR", "/var/tmp")) as folder:
        token = folder + "/token"
        armed = type("Armed", (rig.Daemon,), {"program": "cisternd-points", "environ": {
            "CISTERN_POINT": "%s:%d" % (point, 2 * time + 1), "CISTERN_POINT_TOKEN": token}})
        with armed(build, folder, awake_ms=0, shards=2, tries=2) as daemon:
            try:
                memory, image = make_image(daemon, "image", "--chunk", "16", kind=None, pages=PAGES)
                check(point, serve_all(daemon, image, memory, make_image(daemon, "damaged", pages=PAGES), point, token))
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
