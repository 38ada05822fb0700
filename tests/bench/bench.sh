#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make bench: runs bench.py in namespaces of its own, so that nothing outlives it and nothing else is disturbed.
#
#   bench.sh BUILD-DIRECTORY
#   BENCH=quick (default: full)   BENCH=journal: the journal alone   BENCH=copy: cqlferry copy
#   BENCH_WRITE=1 replaces docs/benchmarks.* by whatever was run
#   ZDM_PROXY=binary              BENCH_BACKENDS="fake cassandra"   BENCH_CONTESTANTS="direct haproxy …"
#
# Mount namespace: a bpf file system of its own, where the intercepted contestants pin. Network namespace: loopback
# only, all ports free. PID namespace with --kill-child: when this script ends, in whatever way, so does every
# program that the run started; a cgroup that a killed run left is removed by the next one.
set -euo pipefail
build=$(readlink -f "${1:?usage: bench.sh BUILD-DIRECTORY}")
here=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] || { echo "make bench wants root: namespaces, eBPF" >&2; exit 1; }
[ -x "$build/tests/bench/cqlload" ] || { echo "$build/tests/bench/cqlload is not built: make tests" >&2; exit 1; }
lab=$here/../lab/cassandra.sh
[ "${BENCH:-}" != journal ] || export BENCH_BACKENDS=fake
case " ${BENCH_BACKENDS:-fake cassandra} " in
*" cassandra "*) "${BENCH_LAB:-$lab}" install >&2 ;; # before the network namespace: may need to fetch the jars
esac
export BENCH_LAB=${BENCH_LAB:-$lab}
ulimit -n "$(ulimit -Hn)"
# A signal ends the run at once: the kernel ends its programs, the sweep removes its directory and cgroup.
stop() {
	trap - TERM INT HUP
	kill -KILL "$run" 2>/dev/null || true
	wait "$run" 2>/dev/null || true
	python3 -B "$here/bench.py" --sweep
	echo "bench: stopped by a signal" >&2
	exit 1
}
unshare --mount --net --pid --fork --kill-child --mount-proc bash -euc '
	ip link set lo up
	mount -t bpf bpf /sys/fs/bpf
	exec python3 -B "$1/bench.py" "$2"' bench "$here" "$build" &
run=$!
trap stop TERM INT HUP
wait "$run"
