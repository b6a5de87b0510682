#!/usr/bin/env python3
"""Line coverage of files, from `llvm-cov export` on standard input.

Usage: coverage.py FILE...      Prints a line for each file; fails when one is below 90 %.
"""
import json
import sys


def lines_of(segments):
    """{line: was it run}; as llvm does: a line counts by what begins on it, or else by what it lies in."""
    found, open_segment = {}, None
    by_line = {}
    for segment in segments:
        by_line.setdefault(segment[0], []).append(segment)
    for line in range(min(by_line), max(by_line) + 1):
        here = by_line.get(line, [])
        counts = [s[2] for s in here if s[3] and s[4] and not s[5]]
        if open_segment and open_segment[3]:
            counts.append(open_segment[2])
        if counts:
            found[line] = max(counts) > 0
        if here:
            open_segment = here[-1]
    return found


def main():
    data, low = json.load(sys.stdin)["data"][0], False
    for file in sys.argv[1:]:
        run = lines_of(next(f for f in data["files"] if f["filename"].endswith("/" + file))["segments"])
        missed = [line for line in sorted(run) if not run[line]]
        percent = 100 * (1 - len(missed) / len(run))
        low |= percent < 90
        print("  %-34s %5.1f %%  of %d lines; not reached: %s" % (file, percent, len(run), " ".join(map(str, missed[:14]))))
    sys.exit(low)


main()
