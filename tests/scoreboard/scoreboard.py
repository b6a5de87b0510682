#!/usr/bin/env python3
"""The scoreboard: what was tried against the daemon, how often, and how often it did not hold.

Usage: scoreboard.py BUILD [LINE]...     Environment: TRIALS=n (of each line), JSON=file (one object a line appended, as in bench)

A trial fails when a guest is lost (hangs, is ended, is refused without a reason), reads one wrong byte, or when the daemon is not
there for the next one.
"""
import json
import os
import sys
import time

import hostile
import kills
import nth
import stores
import upgrades

LINES = [kills, upgrades, stores, nth, hostile]


class Board:
    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.trials_asked = int(os.environ["TRIALS"]) if os.environ.get("TRIALS") else None
        self.failed = 0

    def trials(self, usual):
        return self.trials_asked or usual

    def score(self, name, trials, failures, what):
        """One line; @failures: a text for each trial that failed."""
        self.failed += len(failures)
        print("%-28s %9d trials  %5d failed  %s" % (name, trials, len(failures), what), flush=True)
        for text in failures[:3]:
            print("    " + text.strip().replace("\n", "\n    "), flush=True)
        if os.environ.get("JSON"):
            with open(os.environ["JSON"], "a") as file:
                file.write(json.dumps({"bench": "scoreboard", "case": name, "value": len(failures), "unit": "failed",
                                       "baseline": trials, "ratio": len(failures) / max(1, trials), "what": what}) + "\n")


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: scoreboard.py BUILD [LINE]...")
    board, only = Board(sys.argv[1]), sys.argv[2:]
    lines = {name: line for module in LINES for name, line in module.LINES.items()}
    for name in only:
        if name not in lines:
            sys.exit("scoreboard.py: no line '%s'; there are: %s" % (name, ", ".join(lines)))
    for name, line in lines.items():
        if not only or name in only:
            began = time.monotonic()
            line(board)
            print("    (%s took %.0f s)" % (name, time.monotonic() - began), flush=True)
    sys.exit(1 if board.failed else 0)


if __name__ == "__main__":
    main()
