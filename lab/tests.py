#!/usr/bin/env python3
"""In the guest: runs the tests that depend on the kernel, as Meson would.  Usage: tests.py BUILD"""
import json
import os
import subprocess
import sys
import time

# What only computes gives the same on every kernel, and takes long under emulation.
LEFT_OUT = ("cli-", "codec-", "client-header", "dir-", "elf-", "fakevmm-help", "fuzz-", "golden-", "handshake-of",
            "image-children", "image-every", "image-round", "pager-keeps", "plan-", "trace-")
SLOWER = 15  # than the machine for which Meson's timeouts are meant


def run(test, build):
    command = test["cmd"]
    if os.path.basename(command[0]).startswith("python3"):
        command = ["python3"] + command[1:]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", env={**os.environ, **test["env"]}, cwd=test["workdir"] or build,
                              timeout=test["timeout"] * SLOWER)
    except subprocess.TimeoutExpired as late:
        return "timeout", (late.stdout or b"").decode(errors="replace")
    return {0: "ok", 77: "skipped"}.get(done.returncode, "failed"), done.stdout


def main():
    with open(sys.argv[1] + "/meson-info/intro-tests.json") as file:
        tests = [test for test in json.load(file) if not test["name"].startswith(LEFT_OUT)]
    subprocess.run([sys.argv[1] + "/cistern", "doctor"])
    count = {"ok": 0, "skipped": 0, "failed": 0, "timeout": 0}
    for test in tests:
        started = time.monotonic()
        outcome, said = run(test, sys.argv[1])
        count[outcome] += 1
        print("%-8s %6.1f s  %s" % (outcome, time.monotonic() - started, test["name"]), flush=True)
        lines = said.strip().splitlines()
        for line in {"ok": [], "skipped": lines[-1:]}.get(outcome, lines[-40:]):
            print("    " + line, flush=True)
    failed = count["failed"] + count["timeout"]
    print("%d passed, %d failed, %d skipped" % (count["ok"], failed, count["skipped"]))
    sys.exit(1 if failed or not count["ok"] else 0)


if __name__ == "__main__":
    main()
