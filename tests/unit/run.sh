#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh BUILD UNIT_BIN... -- REPLAY_BIN...
# Runs cmocka programs and fuzz corpora, each with a time limit, and prints one line for each suite in the form
# "unit: N passed, N failed[, N skipped]". A log for each program in BUILD/log/unit; of one that fails its end is
# printed. A program that dies or reports no test counts as a failure.
# SUITE=name replaces the word "unit"; LIMIT=seconds the time limit of 120 s.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:?usage: run.sh BUILD UNIT_BIN... -- REPLAY_BIN...}
shift
suite=${SUITE:-unit} limit=${LIMIT:-120} logs=$build/log/${SUITE:-unit}
mkdir -p "$logs"
# A failed check must not leave 100 MB of core file behind; sanitizers stop at the first finding.
ulimit -c 0
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:detect_leaks=1} UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

units=() replays=() part=units
for a in "$@"; do
	if [ "$a" = -- ]; then part=replays; elif [ $part = units ]; then units+=("$a"); else replays+=("$a"); fi
done

bad=0 passed=0 failed=0 skipped=0
for bin in "${units[@]}"; do
	name=$(basename "$bin") log=$logs/$(basename "$bin").log rc=0
	# TAP is the one of cmocka's forms in which every test has a line of its own.
	CMOCKA_MESSAGE_OUTPUT=TAP timeout -k 5 "$limit" "$bin" >"$log" 2>&1 </dev/null || rc=$?
	skip=$(grep -cE '^(not )?ok .*# *SKIP' "$log" || true) # cmocka writes "not ok" for a skipped one
	good=$(grep '^ok ' "$log" | grep -cv '# *SKIP' || true)
	notgood=$(grep '^not ok ' "$log" | grep -cv '# *SKIP' || true)
	[ "$rc" = 0 ] || [ "$notgood" -gt 0 ] || notgood=1
	if [ $((good + skip + notgood)) = 0 ]; then notgood=1; echo "$name reported no test at all"; fi
	passed=$((passed + good)) failed=$((failed + notgood)) skipped=$((skipped + skip))
	if [ "$notgood" -gt 0 ]; then
		bad=1
		case $rc in 124 | 137) why="stopped after $limit s" ;; *) why="exit status $rc" ;; esac
		echo "---- $name: $notgood failed ($why), end of $log:"
		grep -A3 '^not ok' "$log" | head -n 40 || true
		tail -n 25 "$log"
	elif [ "$skip" -gt 0 ]; then
		echo "$name skipped: $(sed -nE 's/^(not )?ok .*# *SKIP *//p' "$log" | head -n 5 | tr '\n' ' ')"
	fi
done
if [ ${#units[@]} -gt 0 ]; then
	line="$suite: $passed passed, $failed failed"
	[ $skipped = 0 ] || line+=", $skipped skipped"
	echo "$line"
fi

passed=0 failed=0
for bin in "${replays[@]}"; do
	name=$(basename "$bin") log=$logs/$(basename "$bin").log
	if timeout -k 5 "$limit" "$bin" >"$log" 2>&1 </dev/null; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1)) bad=1
		echo "---- $name failed, end of $log (the last file named is the input):"
		tail -n 25 "$log"
	fi
done
[ ${#replays[@]} = 0 ] || echo "replay: $passed passed, $failed failed"
exit $bad
