#!/bin/bash
# Runs Meson's tests of a build folder and closes with the line "N passed, N failed, N skipped".
# A skip prints its reason, and the reason must be true of the machine.
set -u
build=${1:-build}
log=$build/meson-logs/testlog.json
rm -f "$log"
meson test -C "$build" --no-rebuild --print-errorlogs "${@:2}"
status=$?
[ -f "$log" ] || { echo "run-tests.sh: no test ran: $log is missing" >&2; exit 1; }
python3 - "$log" "$status" <<'PY'
import json, sys
passed = failed = skipped = 0
for line in open(sys.argv[1]):
    test = json.loads(line)
    if test["result"] in ("OK", "EXPECTEDFAIL"):
        passed += 1
    elif test["result"] == "SKIP":
        skipped += 1
        print("skipped %s: %s" % (test["name"], (test.get("stdout") or "no reason").strip().splitlines()[-1]))
    else:
        failed += 1
        print("failed %s: %s" % (test["name"], test["result"]))
print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
sys.exit(1 if failed or int(sys.argv[2]) or not passed else 0)
PY
