#!/bin/sh
# Real guests for the benchmarks, with their working sets: made once, kept in the cache.
# Usage: bench-guests.sh BUILD    Prints the folder that holds NAME.raw and NAME.trace.  Run as root.
set -eu
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"

build=$(readlink -f "${1:?usage: bench-guests.sh BUILD}")
out=$cache/guests
if [ ! -e "$out" ]; then
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/guests.XXXXXX")
	remove_at_exit "$work"
	mkdir "$work/out"
	"$here/make-guests.py" "$work/out" >&2
	"$here/record-guests.py" "$build" "$work/out" >&2
	mv "$work/out" "$out"
fi
echo "$out"
