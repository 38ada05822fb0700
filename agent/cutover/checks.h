/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands against a move. Gathered on the thread pool (clusters are asked), told on the main loop.
 */
#pragma once
#include "cutover/phase.h"

enum check_grade { CHECK_FINE, CHECK_NOTE, CHECK_OBSTACLE, CHECK_BLOCKER };

/* OBSTACLE: --force goes on and puts it on record. BLOCKER: nothing goes on. `remedy` may be NULL. */
typedef void (*check_found)(void *context, enum check_grade grade, const char *what, const char *remedy);

/* Before MIRROR: schema, privileges, clocks. Blocks. */
void check_mirror(const struct relay *r, unsigned max_clock_skew_ms, check_found found, void *context);
/* Before a switch away from `primary`: other writers. Blocks. */
void check_writers(const struct relay *r, enum side primary, check_found found, void *context);
/*
 * Writes that are missing on the side `missing`, as the gap ledger in `directory` has them ("" = none is kept: as they were counted since the
 * start), and sessions that we cannot read. Reads up to two files of LEDGER_LIMIT.
 */
void check_debts(const char *directory, enum side missing, check_found found, void *context);
/* Tables that are not mirrored, and those that the target calls otherwise; `through`: clients are on the target already. Does not block. */
void check_scope(const struct relay *r, bool through, check_found found, void *context);
/* Once both sides know all statements: those whose variables differ cannot be carried over. Does not block. */
void check_statements(const struct relay *r, check_found found, void *context);
