#!/bin/sh
# The tests on Debian 12's own kernel (6.1), in a guest, and the daemon as a service of its systemd; called by `make lab`.
# Usage: lab/run.sh [systemd | SUITE...]    (default: all suites, and systemd)
# That kernel has no UFFD_FEATURE_POISON and _MOVE, no PAGEMAP_SCAN and no SO_PEERPIDFD.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$here/.."
[ "$(id -u)" = 0 ] || { echo "lab: run as root: it makes a Debian userland" >&2; exit 1; }
# A build of its own, which knows only programs that Debian's packages have: the guest has no others.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e build-lab/build.ninja ] || meson setup build-lab >/dev/null
ninja -C build-lab
[ "${1-}" = systemd ] || tools/guest/in-folder.sh "$here/tests.py" build-lab "$@"
[ "${1-systemd}" != systemd ] || tools/guest/in-folder.sh "$here/systemd.py" build-lab
