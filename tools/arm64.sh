#!/bin/sh
# Builds for arm64 with Debian's cross compiler, runs the unit tests and replays the fuzz corpora under qemu-user.
# Usage: tools/arm64.sh BUILD
#
# Libraries and headers are Debian 12's own arm64 packages, unpacked in the cache: none is installed on this machine.
# qemu-user has neither userfaultfd nor io_uring, so what needs them is skipped.
set -eu
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tools/guest/lib.sh
. "$here/guest/lib.sh"
build=${1:?usage: tools/arm64.sh BUILD}

need apt-get dpkg-deb
apt_arm64() {
	apt_debian "$@" -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$cache/apt-arm64" \
		-o Dir::State::status="$cache/apt-arm64/status" -o Dir::Cache="$work"
}

# All packages that these depend on are fetched too, as none counts as installed.
unpack() {
	mkdir -p "$cache/apt-arm64/lists/partial" "$work/archives/partial"
	: >"$cache/apt-arm64/status"
	apt_arm64 get update
	# shellcheck disable=SC2086 # a list of names is meant
	apt_arm64 get install -y --no-install-recommends --download-only $libraries
	for deb in "$work"/archives/*.deb; do
		dpkg-deb -x "$deb" "$work/tree"
	done
	# The linker follows links by this machine's root.
	find "$work/tree" -type l -lname '/*' | while read -r link; do
		ln -sfr "$work/tree$(readlink "$link")" "$link"
	done
}

cross_file() {
	cat <<-END
	[binaries]
	c = ['aarch64-linux-gnu-gcc', '--sysroot=$tree']
	ar = 'aarch64-linux-gnu-gcc-ar'
	strip = 'aarch64-linux-gnu-strip'
	pkgconfig = 'pkg-config'
	exe_wrapper = ['qemu-aarch64-static', '-L', '$tree']
	[properties]
	sys_root = '$tree'
	pkg_config_libdir = ['$tree/usr/lib/aarch64-linux-gnu/pkgconfig', '$tree/usr/share/pkgconfig']
	[host_machine]
	system = 'linux'
	cpu_family = 'aarch64'
	cpu = 'aarch64'
	endian = 'little'
	END
}

libraries="libc6-dev linux-libc-dev $("$here/install-deps.sh" --print build check | grep -x 'lib.*-dev' | grep -v clang)"
tree=$cache/arm64-$release-$(printf '%s' "$libraries" | sha256sum | cut -c 1-12)
if [ ! -e "$tree" ]; then
	work=$(mktemp -d "$cache/arm64.XXXXXX")
	remove_at_exit "$work"
	unpack >&2
	mv "$work/tree" "$tree"
fi
if [ ! -e "$build/build.ninja" ]; then
	mkdir -p "$build"
	cross_file >"$build/cross.ini"
	meson setup --cross-file "$build/cross.ini" "$build"
fi
ninja -C "$build"
"$here/run-tests.sh" "$build" --suite unit --suite fuzz --timeout-multiplier 10
