#!/bin/sh
# The newest 6.1 kernel of Debian 12 and an initramfs for it that loads the guest's modules and goes on into the disk.
# Usage: kernel.sh [FLAVOUR SERVICES MODULE...]    (default: cloud-amd64, the services beside it, what a virtio disk needs)
# Prints the folder that holds vmlinuz, initrd and version.  Nothing is installed.
set -eu
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"
[ $# -gt 0 ] || set -- cloud-amd64 "$here/services" virtio_pci virtio_blk
flavour=$1
services=$2
shift 2
modules=$*

need apt-get apt-cache dpkg-deb busybox cpio depmod modprobe

# The package's name holds its version, so an unpacked one never grows old; the index is asked once a day.
newest() {
	[ -n "$(find "$cache/apt/fresh" -mtime -1 2>/dev/null)" ] || { apt_debian get update && touch "$cache/apt/fresh"; }
	apt_debian cache depends "linux-image-$flavour" | sed -n 's/^ *Depends: linux-image-//p' | head -n 1
}

unpack() {
	(cd "$work" && apt_debian get download "linux-image-$version")
	dpkg-deb -x "$work"/linux-image-*.deb "$work/tree"
	depmod -b "$work/tree" "$version"
	cp "$work/tree/boot/vmlinuz-$version" "$work/out/vmlinuz"
	echo "$version" >"$work/out/version"
}

initramfs() {
	root=$work/root
	mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/disk"
	cp "$(command -v busybox)" "$root/bin/busybox"
	for module in $modules; do
		modprobe -C /dev/null -d "$work/tree" -S "$version" --show-depends "$module"
	done | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r file; do
		cp "$file" "$root/modules/"
		basename "$file" >>"$root/modules/order"
	done
	install -m 755 "$here/initramfs-init" "$root/init"
	mkdir "$root/cistern"
	cp "$services"/*.* "$root/cistern/"
	(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/out/initrd"
}

mkdir -p "$cache"
version=$(newest) || true
if [ -z "$version" ]; then
	version=$(cat "$cache"/kernel-*[0-9]-"$flavour"-*/version 2>/dev/null | sort -V | tail -n 1)
	[ -n "$version" ] || fail "no 6.1 kernel: Debian's package index cannot be read and $cache holds none"
fi
sum=$(echo "$modules" | cat - "$here/initramfs-init" "$services"/*.* "$here/kernel.sh" | sha256sum | cut -c 1-12)
out=$cache/kernel-$version-$sum
if [ ! -e "$out/vmlinuz" ]; then
	work=$(mktemp -d "$cache/kernel.XXXXXX")
	remove_at_exit "$work"
	mkdir "$work/out"
	unpack >&2
	initramfs
	mv "$work/out" "$out"
fi
echo "$out"
