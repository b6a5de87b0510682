#!/bin/sh
# A Debian 12 userland with PACKAGES in an ext4 image that guests mount read-only, so that all of them can share it.
# Usage: userland.sh PACKAGE...    Prints the path of the image.  Run as root.
set -eu
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"

need debootstrap mke2fs
[ "$(id -u)" = 0 ] || fail "debootstrap needs root"
[ $# -gt 0 ] || fail "usage: userland.sh PACKAGE..."

packages=$(printf '%s\n' "$@" | sort -u | paste -sd ,)
name=userland-$release-$(printf '%s' "$packages" | sha256sum | cut -c 1-12).ext4
out=$cache/$name
mkdir -p "$cache/debs"
if [ ! -e "$out" ]; then
	work=$(mktemp -d "$cache/userland.XXXXXX")
	remove_at_exit "$work"
	log=$cache/debootstrap.log
	debootstrap --variant=minbase --cache-dir="$cache/debs" --include="$packages" "$release" "$work/root" \
		"$(main_mirror)" >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "debootstrap failed, see $log"; }
	rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
	kib=$(du -sk "$work/root" | cut -f 1)
	truncate -s "$((kib * 5 / 4 + 65536))K" "$work/image"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$work/root" "$work/image"
	mv "$work/image" "$out"
fi
echo "$out"
