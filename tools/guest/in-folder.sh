#!/bin/sh
# Runs PROGRAM ARG... FOLDER with a temporary folder, which is gone when it ends, also by a signal.
# Usage: in-folder.sh PROGRAM ARG...
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/cistern.XXXXXX")
child=
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
	[ -z "$child" ] || kill "$child" 2>/dev/null || true
	[ -z "$child" ] || wait "$child" 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# In the background, as the shell would put off a trap until a program in the foreground ends.
TMPDIR=$work PYTHONDONTWRITEBYTECODE=1 "$@" "$work" &
child=$!
status=0
wait "$child" || status=$?
child=
exit $status
