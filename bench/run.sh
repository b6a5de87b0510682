#!/bin/sh
# Runs one benchmark or all of them: run.sh BUILD [NAME].  See bench.h for the environment (JSON=file among it).
set -eu
build=${1:-build}
name=${2:-}
cd "$(dirname "$0")/.."

# Benchmarks on real guests leave them out, and say so, where they cannot be made.
if [ -z "${CISTERN_BENCH_GUESTS:-}" ]; then
	if guests=$(tools/guest/bench-guests.sh "$build"); then
		export CISTERN_BENCH_GUESTS="$guests"
	else
		echo "run.sh: no real guests: say CISTERN_BENCH_GUESTS=folder, or run as root on Debian" >&2
	fi
fi

run_one() {
	status=0
	"$1" || status=$?
	[ $status -ne 77 ] || status=0
	return $status
}

if [ -n "$name" ]; then
	[ -x "$build/bench/bench-$name" ] || {
		echo "run.sh: no benchmark '$name'; there are:" >&2
		find "$build/bench" -name 'bench-*' -type f -perm -u+x -printf '%f\n' | sed 's,^bench-,  ,' | sort >&2
		exit 2
	}
	run_one "$build/bench/bench-$name"
	exit
fi
failed=0
for program in "$build"/bench/bench-*; do
	case $program in
	*.p | *'*') continue ;; # what the build leaves beside the programs
	esac
	run_one "$program" || { echo "run.sh: $program failed" >&2; failed=1; }
	echo
done
exit $failed
