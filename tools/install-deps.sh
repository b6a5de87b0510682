#!/bin/sh
# Installs what Cistern needs to build, to pass its tests and to run its demo, from Debian's own packages.
# Usage: tools/install-deps.sh [--print] [build|check|demo|bench|arm64]...   (default: build check)
# With --print it prints their names instead, one a line.
# Asks the package manager for nothing when all is there already, so that it also works without a network then.
set -eu

build="build-essential meson ninja-build pkg-config liblz4-dev libzstd-dev libisal-dev libxxhash-dev libssl-dev
liburing-dev libhiredis-dev libjansson-dev libmicrohttpd-dev libcurl4-openssl-dev libseccomp-dev libcap-dev scdoc"
check="libcmocka-dev qemu-system-x86 python3 python3-zstandard python3-lz4 codespell shellcheck clang libclang-rt-14-dev
zstd linux-libc-dev systemd llvm redis-server memcached libjemalloc2"
demo="qemu-system-x86 debootstrap busybox-static cpio e2fsprogs python3 kmod xz-utils ca-certificates"
bench="python3 python3-matplotlib zstd lz4"
arm64="gcc-aarch64-linux-gnu qemu-user-static"

print=
if [ "${1:-}" = --print ]; then
	print=yes
	shift
fi
[ $# -gt 0 ] || set -- build check
want=""
for set_name in "$@"; do
	case $set_name in
	build) want="$want $build" ;;
	check) want="$want $check" ;;
	demo) want="$want $demo" ;;
	bench) want="$want $bench" ;;
	arm64) want="$want $arm64" ;;
	*) echo "install-deps.sh: unknown set '$set_name': use build, check, demo, bench or arm64" >&2; exit 2 ;;
	esac
done
if [ -n "$print" ]; then
	# shellcheck disable=SC2086 # a list of names is meant
	printf '%s\n' $want
	exit 0
fi

missing=""
for package in $want; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
		missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "install-deps.sh: run as root to install:$missing" >&2
	exit 1
fi
# Tests start servers of their own: those that packages bring are not started now, nor when the machine starts.
servers=""
for package in $missing; do
	case $package in
	redis-server | memcached) servers="$servers $package" ;;
	esac
done
policy=/usr/sbin/policy-rc.d
if [ -n "$servers" ] && [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names is meant
apt-get install -y -qq --no-install-recommends $missing >/dev/null
for server in $servers; do
	update-rc.d "$server" disable
done
