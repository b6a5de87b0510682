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
