#!/usr/bin/env python3
"""Line coverage of a parser, from `llvm-cov export` on standard input.

Usage: coverage.py FILE...      Prints a line for each file; fails when one is below 90 %.

Functions that no input reaches are left out: those that write, hand out what was parsed, start or end.
"""
import json
import re
import sys

NOT_PARSING = re.compile("encode|put_|_save|_seal|write_all|^grow|_add$|_finish|put_head|put_part|_pread|_fd$|_params|class_name|_let_go|"
                         "_is_idle|mhd_log|timeout_ms|first_deadline|_create$|_destroy$|turn_away|header_parts|state_init|state_lock|"
                         "state_name|ring_|convert|_ref$|sections_load")


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
        entry = next(f for f in data["files"] if f["filename"].endswith("/" + file))
        run, parsing = lines_of(entry["segments"]), set()
        for function in data["functions"]:
            name = function["name"].split(":")[-1]
            if function["filenames"][0] == entry["filename"] and not NOT_PARSING.search(name):
                first = function["regions"][0]
                parsing.update(range(first[0], first[2] + 1))
        counted = [line for line in parsing if line in run]
        missed = sorted(line for line in counted if not run[line])
        percent = 100 * (1 - len(missed) / len(counted))
        low |= percent < 90
        print("%-26s %5.1f %%  of %d lines; not reached: %s" % (file, percent, len(counted), " ".join(map(str, missed[:14]))))
    sys.exit(low)


main()
