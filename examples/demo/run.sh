#!/bin/sh
# Snapshots a real Debian guest, packs it into a Cistern image and restores it three ways; called by `make demo`.
# Usage: examples/demo/run.sh BUILD
#
# Leaves nothing behind but the cache of Debian packages and what is made of them alone, in CISTERN_CACHE (default
# /var/cache/cistern).
set -eu
build=${1:?usage: examples/demo/run.sh BUILD}
here=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] || { echo "demo: run as root: it makes a Debian userland and uses userfaultfd" >&2; exit 1; }
exec "$here/../../tools/guest/in-folder.sh" "$here/demo.py" "$build"
