/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/ledger_sums.h"

#include <string.h>

#define BUCKETS (2 * LEDGER_SUMS_MAX)
/* Kept free for sums without a name: there are few causes, and fewer than these. */
#define UNNAMED 128

static uint32_t hash_text(uint32_t h, const char *text)
{
	do {
		h = (h ^ (uint8_t)*text) * 16777619u;
	} while (*text++);
	return h;
}

static bool same(const struct ledger_record *a, const struct ledger_record *b)
{
	return a->kind == b->kind && a->missing_on_origin == b->missing_on_origin && !strcmp(a->table, b->table) &&
	       !strcmp(a->keyspace, b->keyspace) && !strcmp(a->cause, b->cause);
}

static void widen(struct ledger_record *to, const struct ledger_record *r)
{
	to->count += r->count;
	if (r->from_us && (!to->from_us || r->from_us < to->from_us))
		to->from_us = r->from_us;
	if (r->to_us > to->to_us)
		to->to_us = r->to_us;
	to->approximate |= r->approximate;
}

void ledger_sums_add(struct ledger_sums *s, const struct ledger_record *r)
{
	uint32_t h = hash_text(hash_text(hash_text(2166136261u ^ (uint32_t)r->kind, r->cause), r->keyspace), r->table);
	uint32_t i = h % BUCKETS;
	struct ledger_record *to;

	for (; s->bucket[i]; i = (i + 1) % BUCKETS) {
		to = &s->item[s->bucket[i] - 1];
		if (same(to, r)) {
			widen(to, r);
			return;
		}
	}
	if (s->count >= LEDGER_SUMS_MAX - UNNAMED) {
		struct ledger_record unnamed = *r;

		if (r->keyspace[0] || r->table[0]) {
			unnamed.keyspace[0] = unnamed.table[0] = 0;
			ledger_sums_add(s, &unnamed);
			return;
		}
		/* More causes than there are: lines that somebody made. One sum takes them all. */
		if (s->count == LEDGER_SUMS_MAX) {
			widen(&s->item[LEDGER_SUMS_MAX - 1], r);
			return;
		}
	}
	to = &s->item[s->count++];
	s->bucket[i] = (uint16_t)s->count;
	memset(to, 0, sizeof(*to));
	to->type = LEDGER_SUMMARY;
	to->kind = r->kind;
	to->missing_on_origin = r->missing_on_origin;
	memcpy(to->cause, r->cause, sizeof(to->cause));
	memcpy(to->keyspace, r->keyspace, sizeof(to->keyspace));
	memcpy(to->table, r->table, sizeof(to->table));
	widen(to, r);
}

void ledger_sums_merge(struct ledger_sums *into, const struct ledger_sums *from)
{
	for (unsigned i = 0; i < from->count; i++)
		ledger_sums_add(into, &from->item[i]);
}

void ledger_sums_clear(struct ledger_sums *s)
{
	s->count = 0;
	memset(s->bucket, 0, sizeof(s->bucket));
}
