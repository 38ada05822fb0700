#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh: installs what the build and the tests use. Every make target that needs it calls it first,
# so it is quick (under 0.3 s) when all is there, and safe to run twice at once.
#
#   deps.sh              everything
#   deps.sh build        only what compiling needs
#   deps.sh path         print the cache directory, install nothing
#
# Three layers, each found by looking, never by a "was run once" mark:
#   Debian packages     asked of dpkg; installed with apt-get when we are root, else named and we stop
#   Python environment  CACHE/venv-<hash of requirements.txt>, so a changed pin makes a new one
#   Cassandra           CACHE/cassandra/<version>, by Maven (cassandra.sh install, warm)
#
# Environment: XDG_CACHE_HOME; LAB_VERSIONS (default "5.0.9 4.1.10": Cassandra versions to have ready).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cqlferry-lab
what=${1:-all}

BUILD_PKGS=(gcc make clang llvm bpftool libc6-dev libbpf-dev libelf-dev libssl-dev libcmocka-dev libuv1-dev liblz4-dev
	libsnappy-dev libxxhash-dev libjansson-dev libcyaml-dev libyaml-dev libdeflate-dev libmicrohttpd-dev libcurl4-openssl-dev libzip-dev
	uthash-dev pkg-config)
TEST_PKGS=(libclang-rt-14-dev haproxy nftables openssh-client openssh-server iproute2 util-linux procps bc openssl gnuplot-nox python3-venv)

say() { echo "deps: $*"; }
die() { echo "deps: $*" >&2; exit 1; }

case $what in
path) echo "$cache"; exit 0 ;;
all | build) ;;
*) sed -n '3,/^set -e/s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 2 ;;
esac

mkdir -p "$cache"
exec 9>"$cache/deps.lock"
flock 9

missing_packages() {
	local want=("${BUILD_PKGS[@]}") p
	if [ "$what" = all ]; then
		want+=("${TEST_PKGS[@]}")
		# A Java and a Maven from elsewhere do as well.
		command -v java >/dev/null && command -v keytool >/dev/null || want+=(openjdk-17-jdk-headless)
		command -v mvn >/dev/null || want+=(maven)
	fi
	dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${want[@]}" 2>/dev/null | awk '$2 == "installed" {print $1}' |
		sort -u >"$cache/have.$$" || true
	for p in "${want[@]}"; do grep -qxF "$p" "$cache/have.$$" || echo "$p"; done
	rm -f "$cache/have.$$"
}

apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	local log=$cache/apt.log
	say "installing $*"
	apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1 </dev/null && return
	apt-get update -qq >>"$log" 2>&1 </dev/null || true
	apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1 </dev/null ||
		{ tail -n 15 "$log" >&2; die "apt-get could not install: $* (log: $log)"; }
}

if command -v dpkg-query >/dev/null; then
	mapfile -t missing < <(missing_packages)
	if [ ${#missing[@]} -gt 0 ]; then
		[ "$(id -u)" = 0 ] || die "not root, and these packages are missing: ${missing[*]}
deps: as root: apt-get install ${missing[*]}"
		apt_install "${missing[@]}"
	fi
else
	for t in gcc clang bpftool pkg-config java mvn openssl ip nsenter; do
		command -v $t >/dev/null || [ -x /usr/sbin/$t ] || die "no dpkg here, and '$t' is missing: install the" \
			"equivalents of: ${BUILD_PKGS[*]} ${TEST_PKGS[*]} openjdk-17-jdk-headless maven"
	done
fi
[ "$what" = all ] || exit 0

# ---------------------------------------------------------------- the Python environment
venv=$cache/venv-$(sha256sum <"$here/requirements.txt" | cut -c1-12)
if ! [ -e "$venv/.done" ]; then
	# The system's Python first: one that a version manager serves may vanish under the environment.
	py=
	for c in /usr/bin/python3 python3; do
		if "$c" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then py=$c; break; fi
	done
	[ -n "$py" ] || die "no Python 3.9 or later with the venv module (Debian: python3-venv)"
	say "making the Python environment $venv"
	rm -rf "$venv"
	"$py" -m venv "$venv"
	"$venv/bin/pip" install -q --disable-pip-version-check --prefer-binary -r "$here/requirements.txt" </dev/null ||
		die "pip could not install $here/requirements.txt"
	touch "$venv/.done"
fi
[ "$(readlink "$cache/venv" 2>/dev/null)" = "$venv" ] || ln -sfn "$venv" "$cache/venv"

# ---------------------------------------------------------------- Cassandra
for v in ${LAB_VERSIONS:-5.0.9 4.1.10}; do
	LAB_VERSION=$v "$here/cassandra.sh" install 9>&-
	# The archive halves a node's start; it is made by starting one, so only once for each version.
	LAB_VERSION=$v "$here/cassandra.sh" warm 9>&-
done
