#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check.sh BUILD: what `make check` runs once everything is built, in the order in which a fault is cheapest to find.
#   unit, replay   cmocka programs and fuzz corpora             tests/unit/run.sh
#   lab            the lab's own promises                       tests/lab/selftest.sh
#   bpf            the kernel side, on this kernel              in a lab of its own
#   e2e            real clusters, real drivers (marker: quick)  tests/e2e/run.sh
#   clean          afterwards the machine is as it was: BPF programs, links, network namespaces, cgroups, processes
# Every suite runs even if one before it failed; each prints "name: N passed, N failed". Exit status 1 when any failed.
# ONLY="unit e2e" runs a selection.
set -uo pipefail
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/check.sh
cd "$(dirname "$self")/.."
PATH=$PATH:/usr/sbin:/sbin
build=$(realpath "${1:-build}")
only=${ONLY:-unit lab bpf e2e clean}
bad=0 child=
# When make is killed outright, this script has to go too, and with it (see lab) everything below.
if [ -z "${CHECK_HELD:-}" ]; then
	export CHECK_HELD=1
	exec setpriv --pdeathsig TERM bash "$self" "$build"
fi
unset CHECK_HELD

wants() { [[ " $only " == *" $1 "* ]]; }

# In the background and waited for: a signal is then acted on at once and passed on.
run() {
	setpriv --pdeathsig TERM "$@" </dev/null &
	child=$!
	local rc=0
	while kill -0 $child 2>/dev/null; do wait $child && rc=0 || rc=$?; done
	child=
	[ $rc = 0 ] || bad=1
	return $rc
}
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null; echo "check: stopped"; exit 143' TERM INT HUP

programs() { # programs DIRECTORY: those that the sources say must be there
	local source
	for source in tests/"$1"/test_*.c; do
		[ ! -e "$source" ] || echo "$build/tests/$1/$(basename "$source" .c)"
	done
}

cgroup2=$(awk '{for (i = 7; i < NF; i++) if ($i == "-") {if ($(i + 1) == "cgroup2") {print $5; exit} break}}' /proc/self/mountinfo)
BPFTOOL=$(command -v bpftool || echo /usr/sbin/bpftool)
snapshot() { # one line for each thing that a test could leave behind
	if [ "$(id -u)" = 0 ]; then
		"$BPFTOOL" prog list 2>/dev/null | awk '/^[0-9]+:/ {print "BPF program", $1, $4}'
		"$BPFTOOL" link list 2>/dev/null | awk '/^[0-9]+:/ {print "BPF link", $1, $2}'
	fi
	ip netns list 2>/dev/null | awk '{print "network namespace", $1}'
	[ -z "$cgroup2" ] || find "$cgroup2" -maxdepth 1 -name 'cqlferry-*' -printf 'cgroup %f\n'
	find /sys/fs/bpf -maxdepth 1 -name 'cqlferry*' -printf 'pin %p\n' 2>/dev/null
	local p exe
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe" 2>/dev/null) || continue
		case $exe in
		"$build"/*) echo "process ${p#/proc/} $exe" ;;
		*/java) if tr '\0' '\n' <"$p/cmdline" 2>/dev/null | grep -q '^-Dlab\.node=/run/lab/'; then echo "process ${p#/proc/} Cassandra of a lab"; fi ;;
		esac
	done
}

"tests/lab/lab" sweep 2>/dev/null || true
before=$(snapshot | sort)

if wants unit; then
	mapfile -t units < <(programs unit)
	mapfile -t replays < <(for s in tests/fuzz/fuzz_*.c; do [ ! -e "$s" ] || echo "$build/tests/fuzz/$(basename "$s" .c).replay"; done)
	run tests/unit/run.sh "$build" "${units[@]}" -- "${replays[@]}"
fi
if [ "$(id -u)" != 0 ]; then
	echo "check: not root: the suites lab, bpf and e2e need it and did not run" >&2
	exit 1
fi
if wants lab; then
	run tests/lab/selftest.sh
fi
if wants bpf; then
	mapfile -t units < <(programs bpf)
	if [ ${#units[@]} -gt 0 ]; then
		SUITE=bpf LIMIT=180 run tests/lab/lab run bpf tests/unit/run.sh "$build" "${units[@]}"
	fi
fi
if wants e2e; then
	run tests/e2e/run.sh "$build" -m quick
fi

if wants clean; then
	left=
	for ((i = 0; i < 100; i++)); do # programs are freed by the kernel a moment after their last user is gone
		left=$(comm -13 <(echo "$before") <(snapshot | sort))
		[ -n "$left" ] || break
		sleep 0.1
	done
	if [ -n "$left" ]; then
		echo "---- clean: left behind:"
		echo "$left"
		echo "clean: 0 passed, 1 failed"
		bad=1
	else
		echo "clean: 1 passed, 0 failed"
	fi
fi
[ $bad = 0 ] && echo "check: all passed" || echo "check: FAILED (logs in $build/log)"
exit $bad
