#!/bin/sh
# Clones the last commit into a fresh Debian 12 tree and makes a target there as root, with nothing installed but make:
# what the build or a test needs and tools/install-deps.sh does not install is missing here.
# Usage: tools/try-fresh.sh [TARGET...]    (default: check)
#
# The mounts and the processes are in namespaces of their own, so nothing of them is left behind.
set -eu
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tools/guest/lib.sh
. "$here/guest/lib.sh"
[ $# -gt 0 ] || set -- check

need git debootstrap unshare
[ "$(id -u)" = 0 ] || fail "run as root: it makes a Debian tree and changes into it"
mkdir -p "$cache/debs"
work=$(mktemp -d "$cache/fresh.XXXXXX")
remove_at_exit "$work"

log=$cache/fresh.log
debootstrap --variant=minbase --cache-dir="$cache/debs" --include=make "$release" "$work/root" "$(main_mirror)" \
	>"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "debootstrap failed, see $log"; }
echo "deb $(mirror $release-security http://deb.debian.org/debian-security) $release-security main" \
	>>"$work/root/etc/apt/sources.list"
for file in resolv.conf hosts; do
	[ ! -e "/etc/$file" ] || cp -L "/etc/$file" "$work/root/etc/$file"
done
printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d" # no services: they would be the host's
chmod +x "$work/root/usr/sbin/policy-rc.d"
git -c advice.detachedHead=false clone -q --no-hardlinks "$here/.." "$work/root/cistern"

# In the background, as the shell would put off its traps until a program in the foreground ends.
# shellcheck disable=SC2016 # the inner shell expands them
unshare --mount --pid --fork --kill-child sh -eu -c '
	tree=$1 debs=$2
	shift 2
	mount --bind "$tree" "$tree" # so that / is a mount in there, as it is everywhere
	mount -t proc proc "$tree/proc"
	mount --rbind /sys "$tree/sys"
	mount --rbind /dev "$tree/dev"
	mount -t tmpfs tmp "$tree/tmp"
	mount --bind "$debs" "$tree/var/cache/apt/archives"
	exec chroot "$tree" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		${http_proxy:+http_proxy="$http_proxy"} make -C /cistern "$@"
' sh "$work/root" "$cache/debs" "$@" &
inside=$!
# unshare puts off softer signals until its child has ended; with it, all processes in there are killed.
trap 'kill -KILL $inside 2>/dev/null || :; wait $inside || :; rm -rf --one-file-system "$work"' EXIT
wait $inside
