# shellcheck shell=sh
# For the scripts beside it: where things are cached, and Debian 12's own packages whatever else the machine's
# package manager knows.
# shellcheck disable=SC2034 # used by those who read this file
cache=${CISTERN_CACHE:-/var/cache/cistern}
release=bookworm

fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# Remove the folder $1 when the script ends, also by a signal; debootstrap may have left mounts in it then.
remove_at_exit() {
	# shellcheck disable=SC2064 # the folder is known now
	trap "umount '$1/root/proc' '$1/root/sys' 2>/dev/null || :; rm -rf --one-file-system '$1'" EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

need() {
	for tool in "$@"; do
		command -v "$tool" >/dev/null || fail "'$tool' is missing: run tools/install-deps.sh demo"
	done
}

# The address from which this machine gets a suite of Debian's, or Debian's own.
mirror() {
	# shellcheck disable=SC2016 # apt's own variable
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $1" |
		head -n 1)
	echo "${uri:-$2}"
}

main_mirror() {
	echo "${CISTERN_MIRROR:-$(mirror $release http://deb.debian.org/debian)}"
}

# apt with a state of its own, which knows Debian 12 and nothing else: apt_debian SUBCOMMAND ...
apt_debian() {
	mkdir -p "$cache/apt/state/lists/partial" "$cache/apt/cache/archives/partial" "$cache/apt/empty"
	security=$(mirror $release-security http://deb.debian.org/debian-security)
	keys=/usr/share/keyrings/debian-archive-keyring.gpg
	cat >"$cache/apt/sources.list" <<-EOF
	deb [signed-by=$keys] $(main_mirror) $release main
	deb [signed-by=$keys] $security $release-security main
	EOF
	command=$1
	shift
	"apt-$command" -qq -o Dir::State="$cache/apt/state" -o Dir::Cache="$cache/apt/cache" \
		-o Dir::Etc::SourceList="$cache/apt/sources.list" -o Dir::Etc::SourceParts="$cache/apt/empty" \
		-o Dir::Etc::PreferencesParts="$cache/apt/empty" -o Dir::Etc::Preferences=/dev/null \
		-o APT::Sandbox::User=root "$@"
}
