#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh [BUILD]: the whole story on this machine, from an empty clone: two real Cassandra clusters, three pods with
# unmodified clients, one agent. Needs root; takes about a minute and a half, the first time on a machine longer.
# The last line is: demo: N acknowledged, N lost, N duplicated, longest pause N ms
# Exit status 0 only when nothing was lost or duplicated. DEMO_KEEP=1 keeps the logs of a good run too (BUILD/log/demo).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build}
[ "$(id -u)" = 0 ] || { echo "demo: needs root (network namespaces, cgroups, BPF)" >&2; exit 1; }

"$root/tests/lab/deps.sh"
if ! [ -x "$build/cqlferry" ]; then
	echo "demo: building"
	make -C "$root" --no-print-directory -j2 BUILD="$build" all
fi
build=$(realpath "$build")
export CQLFERRY_BUILD=$build PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/tests/e2e PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
rm -rf "$build/log/demo"
mkdir -p "$build/log/demo"
python=$("$root/tests/lab/deps.sh" path)/venv/bin/python
# In the background and waited for, so that a signal to this script is acted on at once; the parent-death signal takes
# the lab along when this script is killed outright.
setpriv --pdeathsig TERM "$root/tests/lab/lab" run demo "$python" "$root/tests/demo/demo.py" &
lab=$!
trap 'kill -TERM $lab 2>/dev/null || true' TERM INT HUP
rc=0
while kill -0 $lab 2>/dev/null; do wait $lab && rc=0 || rc=$?; done
exit $rc
