#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# selftest.sh: what the lab promises of itself: a run is closed off, and leaves nothing, however it ends.
# Prints "lab: N passed, N failed". Takes about 6 s.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=$here/lab
passed=0 failed=0
PATH=$PATH:/usr/sbin:/sbin

test_that() { # test_that NAME COMMAND...
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "---- lab: $name"
		echo "$out" | tail -n 15
	fi
}

root=$(awk '{for (i = 7; i < NF; i++) if ($i == "-") {if ($(i + 1) == "cgroup2") {print $5; exit} break}}' /proc/self/mountinfo)
own() { find "$root" -maxdepth 1 -name 'cqlferry-selftest-*' | wc -l; }

inside='
set -e
test "$(ip -o link | wc -l)" -eq 2                     # lo and the bridge: nothing of the machine
! ip route get 192.0.2.1 2>/dev/null                   # no way out
test $$ -lt 100                                        # a pid namespace of its own
test -z "$(ls /sys/fs/bpf | grep -v debug)"           # a bpffs of its own
'"$lab"' pod pod1 10.77.0.11
'"$lab"' pod pod2 10.77.0.12
'"$lab"' in pod1 grep -q "/cqlferry-selftest-.*/pod1$" /proc/self/cgroup
test "$('"$lab"' in pod2 ip -4 -o addr show eth0 | grep -c 10.77.0.12/16)" = 1
'"$lab"' in pod1 timeout 3 bash -c ": <>/dev/tcp/10.77.0.12/9" 2>&1 | grep -q refused  # reachable, nobody listens
'"$lab"' unpod pod2
test ! -e /run/netns/pod2
'

killed() { # killed SIGNAL: everything of a run that gets that signal is gone within 5 s
	local mark=cqlferrylab$RANDOM$RANDOM p i
	"$lab" run selftest bash -c "$lab pod pod1 10.77.0.11; exec -a $mark sleep 300" >/dev/null 2>&1 &
	p=$!
	for ((i = 0; i < 50; i++)); do
		pgrep -f "^$mark" >/dev/null && break
		sleep 0.1
	done
	pgrep -f "^$mark" >/dev/null || { echo "the run did not start"; kill -KILL $p; return 1; }
	kill -"$1" $p
	wait $p 2>/dev/null
	for ((i = 0; i < 50; i++)); do
		pgrep -f "^$mark" >/dev/null || break
		sleep 0.1
	done
	! pgrep -f "^$mark" || { echo "a process of the run is still there"; return 1; }
	! ip netns list 2>/dev/null | grep -q '^pod1' || { echo "its namespace is visible outside"; return 1; }
	# What SIGKILL of the lab itself leaves is an empty directory, which the next start sweeps.
	[ "$1" = KILL ] || [ "$(own)" = "$2" ] || { echo "its cgroup directory is still there"; return 1; }
	for i in "$root"/cqlferry-selftest-$p; do
		[ ! -d "$i" ] || grep -q '^populated 0' "$i/cgroup.events" || { echo "$i is not empty"; return 1; }
		[ ! -d "$i" ] || find "$i" -depth -type d -exec rmdir {} +
	done
}

status() { "$lab" run selftest bash -c "exit $1"; [ $? = "$1" ]; }

before=$(own)
test_that "a run is closed off" "$lab" run selftest bash -c "$inside"
test_that "exit status 0 comes through" status 0
test_that "exit status 7 comes through" status 7
test_that "no cgroup directory stays" test "$(own)" = "$before"
test_that "SIGTERM leaves nothing" killed TERM "$before"
test_that "SIGKILL leaves nothing" killed KILL "$before"
echo "lab: $passed passed, $failed failed"
[ $failed = 0 ]
