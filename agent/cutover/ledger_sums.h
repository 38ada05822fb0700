/* SPDX-License-Identifier: Apache-2.0 */
/* Counts by (kind, cause, missing side, keyspace, table), bounded: what does not fit is counted without a table's name. */
#pragma once
#include "cutover/ledger_format.h"

#define LEDGER_SUMS_MAX 1024


struct ledger_sums {
	unsigned count;
	uint16_t bucket[2 * LEDGER_SUMS_MAX]; /* index + 1, 0 = free */
	struct ledger_record item[LEDGER_SUMS_MAX];
};

/* Adds r->count and widens the times. `r` is borrowed. */
void ledger_sums_add(struct ledger_sums *s, const struct ledger_record *r);
void ledger_sums_merge(struct ledger_sums *into, const struct ledger_sums *from);
void ledger_sums_clear(struct ledger_sums *s);
