#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh BUILD SECONDS: each BUILD/fuzz/fuzz_* for that long, from its corpus tests/fuzz/fuzz_X.in and what earlier
# runs found in BUILD/fuzz/corpus. A crash is written to tests/fuzz/fuzz_X.repro/, where `make check` replays it for
# ever after; commit it with the fix. Exit status 1 when any target crashed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:?usage: fuzz.sh BUILD SECONDS}
seconds=${2:-60}
[[ $seconds =~ ^[0-9]+$ ]] && [ "$seconds" -gt 0 ] || { echo "fuzz.sh: seconds is a number above 0, not '$seconds'" >&2; exit 2; }

passed=0 failed=0
for bin in "$build"/fuzz/fuzz_*; do
	[ -x "$bin" ] && [ -f "$bin" ] || continue
	name=$(basename "$bin")
	found=$build/fuzz/corpus/$name log=$build/fuzz/$name.log repro=tests/fuzz/$name.repro
	mkdir -p "$found"
	dirs=("$found")
	for d in "tests/fuzz/$name.in" "$repro"; do [ ! -d "$d" ] || dirs+=("$d"); done
	new=$(mktemp -d)
	if "$bin" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$new/" "${dirs[@]}" >"$log" 2>&1 </dev/null; then
		passed=$((passed + 1))
		echo "$name: $(awk '/^stat::number_of_executed_units/ {n = $2} /cov:/ {for (i = 1; i < NF; i++) if ($i == "cov:") c = $(i + 1)} END {print n " runs, coverage " c}' "$log")"
	else
		failed=$((failed + 1))
		mkdir -p "$repro"
		for f in "$new"/*; do [ ! -e "$f" ] || { cp "$f" "$repro/"; echo "$name: CRASH, input kept as $repro/$(basename "$f")"; }; done
		tail -n 30 "$log"
	fi
	rm -rf "$new"
done
[ $((passed + failed)) -gt 0 ] || { echo "fuzz.sh: no target in $build/fuzz" >&2; exit 1; }
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
