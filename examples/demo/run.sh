#!/bin/sh
# Snapshots a real Debian guest, packs it into a Cistern image and restores it three ways; called by `make demo`.
# Usage: examples/demo/run.sh BUILD
#
# Leaves nothing behind but the cache of Debian packages and what is made of them alone, in CISTERN_CACHE (default
# /var/cache/cistern).
set -eu
build=${1:?usage: examples/demo/run.sh BUILD}
[ "$(id -u)" = 0 ] || { echo "demo: run as root: it makes a Debian userland and uses userfaultfd" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/cistern-demo.XXXXXX")
demo=
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
	[ -z "$demo" ] || kill "$demo" 2>/dev/null || true
	[ -z "$demo" ] || wait "$demo" 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# In the background, as the shell would put off a trap until a program in the foreground ends.
TMPDIR=$work python3 -B "$(dirname "$0")/demo.py" "$build" "$work" &
demo=$!
status=0
wait "$demo" || status=$?
demo=
exit $status
