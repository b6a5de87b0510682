#!/bin/sh
# Runs one benchmark or all of them: run.sh BUILD [NAME].  See bench.h for the environment (JSON=file among it).
set -eu
build=${1:-build}
name=${2:-}
cd "$(dirname "$0")/.."

run_one() {
	status=0
	"$1" || status=$?
	[ $status -ne 77 ] || status=0
	return $status
}

if [ -n "$name" ]; then
	[ -x "$build/bench/bench-$name" ] || {
		echo "run.sh: no benchmark '$name': there are $(cd "$build/bench" && find . -name 'bench-*' -type f -perm -u+x |
			sed 's,./bench-,,' | sort | tr '\n' ' ')" >&2
		exit 2
	}
	run_one "$build/bench/bench-$name"
	exit
fi
failed=0
for program in "$build"/bench/bench-*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	run_one "$program" || { echo "run.sh: $program failed" >&2; failed=1; }
	echo
done
exit $failed
