#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh BUILD [PYTEST ARGUMENTS]: the end-to-end tests with real clusters and real drivers, inside a lab of their own.
# Logs of agents and nodes: BUILD/log/e2e. LAB_ORIGINS=2 for an origin of two nodes, LAB_ORIGIN_VERSION=4.1.10 and
# LAB_TARGET_VERSION for other versions, LAB_LOG_LEVEL=debug for the agents.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CQLFERRY_BUILD=$(realpath "${1:-$here/../../build}")
[ $# = 0 ] || shift
export CQLFERRY_BUILD PYTHONDONTWRITEBYTECODE=1
python=$("$here/../lab/deps.sh" path)/venv/bin/python
rm -rf "$CQLFERRY_BUILD/log/e2e"
mkdir -p "$CQLFERRY_BUILD/log/e2e"
cd "$here"
exec "$here/../lab/lab" run e2e "$python" -m pytest -q -p no:cacheprovider --tb=short --durations=8 "$@"
