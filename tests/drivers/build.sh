#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh: builds the programs of this directory, each with its real driver, and keeps them in the cache.
#
#   build.sh [NAME...]      build these, or all: python java node gocql1 gocql2 rust cpp. What cannot be had here (a registry that
#                           does not answer, a compiler that is too old) is said and left out, and its tests are skipped;
#                           it is an error if that is so of all
#   build.sh command NAME   print the words that start it, one a line
#
# A program is built anew when a file of its directory has changed: its place is CACHE/drivers/NAME-<hash of its sources>.
# Language tools that Debian has are installed where they are missing and we are root. Packages come through the languages' own clients.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$("$here/../lab/deps.sh" path)/drivers
ALL=(python java node gocql1 gocql2 rust cpp)
log=

die() { echo "drivers: $*" >&2; exit 1; }

sources() { # sources NAME: sets FROM, the files that it is made of
	case $1 in
	gocql1 | gocql2) FROM=("$here/go/$1" "$here/go/client.go") ;;
	python | java | node | rust | cpp) FROM=("$here/$1") ;;
	*) die "no program '$1'; there are: ${ALL[*]}" ;;
	esac
	PLACE=$cache/$1-$(find "${FROM[@]}" "$here/build.sh" -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-12)
}

tool() { # tool COMMAND PACKAGE...: Debian's, where there is none
	local command=$1
	shift
	! command -v "$command" >/dev/null || return 0
	[ "$(id -u)" = 0 ] || die "no '$command': as root, apt-get install $*"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null
}

environment() { # environment DIRECTORY: a Python environment of its requirements
	/usr/bin/python3 -m venv "$PLACE/venv"
	"$PLACE/venv/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$1/requirements.txt"
}

make_python() { environment "$here/python"; }
make_cpp() { environment "$here/cpp"; }

make_java() {
	tool javac openjdk-17-jdk-headless
	tool mvn maven
	mvn -q -B -Dstyle.color=never -f "$here/java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PLACE/lib"
	javac -encoding UTF-8 -d "$PLACE/classes" -cp "$PLACE/lib/*" "$here"/java/*.java
}

make_node() {
	tool npm nodejs npm
	cp "$here"/node/* "$PLACE/"
	npm install --prefix "$PLACE" --no-audit --no-fund --no-package-lock --ignore-scripts
}

make_go() {
	tool go golang-go
	cp "$here/go/$1"/* "$PLACE/"
	# Both versions have the same interface under two names.
	sed "s|\"github.com/gocql/gocql\"|gocql \"$(sed -n 's/^.*gocql driver: //p' "$here/go/$1/version.go")\"|" "$here/go/client.go" >"$PLACE/client.go"
	(cd "$PLACE" && CGO_ENABLED=0 go build -o client .)
}
make_gocql1() { make_go gocql1; }
make_gocql2() { make_go gocql2; }

make_rust() {
	tool cargo cargo
	cp -r "$here"/rust/* "$PLACE/"
	cargo build --quiet --manifest-path "$PLACE/Cargo.toml" --target-dir "$PLACE/target"
	cp "$PLACE/target/debug/client" "$PLACE/client"
	rm -rf "$PLACE/target"
}

build() { # in a shell of its own, so that a failure ends just this one
	local began=$SECONDS
	sources "$1"
	[ ! -e "$PLACE/.done" ] || return 0
	rm -rf "${cache:?}/$1"-*
	mkdir -p "$PLACE"
	log=$PLACE/build.log
	"make_$1" >"$log" 2>&1 </dev/null
	log=
	touch "$PLACE/.done"
	echo "drivers: $1 built in $((SECONDS - began)) s"
}

if [ "${1:-}" = command ]; then
	sources "${2:-}"
	[ -e "$PLACE/.done" ] || die "$2 is not built: run tests/drivers/build.sh $2"
	case $2 in
	python | cpp) printf '%s\n' "$PLACE/venv/bin/python" "$here/$2/client.py" ;;
	java) printf '%s\n' java -Xmx96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$PLACE/classes:$here/java:$PLACE/lib/*" Client ;;
	node) printf '%s\n' node "$PLACE/client.js" ;;
	*) printf '%s\n' "$PLACE/client" ;;
	esac
	exit
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ $# != 0 ] || set -- "${ALL[@]}"
built=0
for name in "$@"; do
	set +e
	(
		trap '[ $? = 0 ] || [ -z "$log" ] || { echo "drivers: end of $log:" >&2; tail -n 30 "$log" >&2; }' EXIT
		set -e
		build "$name"
	)
	rc=$?
	set -e
	if [ $rc = 0 ]; then
		built=$((built + 1))
	else
		echo "drivers: $name is left out: it could not be built" >&2
	fi
done
[ $built -gt 0 ]
