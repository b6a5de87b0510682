#!/bin/sh
# Runs the tests that depend on the kernel on Debian 12's own one, in a guest; called by `make lab`.
# Usage: lab/run.sh BUILD
#
# Ends with "N passed, N failed, N skipped".  Leaves nothing behind but the cache, as the demo does.
set -eu
build=${1:?usage: lab/run.sh BUILD}
here=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] || { echo "lab: run as root: it makes a Debian userland" >&2; exit 1; }
exec "$here/../tools/guest/in-folder.sh" "$here/lab.py" "$build"
