/* SPDX-License-Identifier: Apache-2.0 */
/* The spans that are open: found by (kind, key), listed in the order in which they came. Bounded by LEDGER_SPANS_MAX. */
#pragma once
#include "cutover/ledger_format.h"

#define LEDGER_SPANS_BUCKETS 1024

struct ledger_span {
	struct ledger_span *next, *previous, *chain;
	struct ledger_record record; /* as it will be written when it ends */
	bool begun;                  /* its line of type begin is in the ledger; false: it waits for mirroring to be switched on */
	uint8_t missed;              /* how often the kernel's table did not have it */
};

struct ledger_spans {
	struct ledger_span *first, *last;
	struct ledger_span *bucket[LEDGER_SPANS_BUCKETS];
	unsigned count;
};

struct ledger_span *ledger_spans_find(const struct ledger_spans *s, enum ledger_kind kind, uint64_t key);
/* Copies `r`. NULL: full, or no memory. There must be none with that kind and key. */
struct ledger_span *ledger_spans_add(struct ledger_spans *s, const struct ledger_record *r);
void ledger_spans_remove(struct ledger_spans *s, struct ledger_span *span);
void ledger_spans_clear(struct ledger_spans *s);

/* One line of a file in its order: begins are added, ended ones removed. */
void ledger_spans_follow(struct ledger_spans *s, const struct ledger_record *r);
