/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/ledger_spans.h"

#include <stdlib.h>

#include "cutover/ledger.h"

static unsigned bucket_of(enum ledger_kind kind, uint64_t key)
{
	return (unsigned)(((key ^ (uint64_t)kind << 56) * 0x9E3779B97F4A7C15ull) >> 54) % LEDGER_SPANS_BUCKETS;
}

struct ledger_span *ledger_spans_find(const struct ledger_spans *s, enum ledger_kind kind, uint64_t key)
{
	struct ledger_span *span = s->bucket[bucket_of(kind, key)];

	while (span && (span->record.kind != kind || span->record.key != key))
		span = span->chain;
	return span;
}

struct ledger_span *ledger_spans_add(struct ledger_spans *s, const struct ledger_record *r)
{
	struct ledger_span **bucket = &s->bucket[bucket_of(r->kind, r->key)], *span;

	if (s->count == LEDGER_SPANS_MAX)
		return NULL;
	span = calloc(1, sizeof(*span));
	if (!span)
		return NULL;
	span->record = *r;
	span->chain = *bucket;
	*bucket = span;
	span->previous = s->last;
	if (s->last)
		s->last->next = span;
	else
		s->first = span;
	s->last = span;
	s->count++;
	return span;
}

void ledger_spans_remove(struct ledger_spans *s, struct ledger_span *span)
{
	struct ledger_span **at = &s->bucket[bucket_of(span->record.kind, span->record.key)];

	while (*at != span)
		at = &(*at)->chain;
	*at = span->chain;
	if (span->previous)
		span->previous->next = span->next;
	else
		s->first = span->next;
	if (span->next)
		span->next->previous = span->previous;
	else
		s->last = span->previous;
	s->count--;
	free(span);
}

void ledger_spans_clear(struct ledger_spans *s)
{
	while (s->first)
		ledger_spans_remove(s, s->first);
}

void ledger_spans_follow(struct ledger_spans *s, const struct ledger_record *r)
{
	struct ledger_span *span;

	if (!r->id || (r->type != LEDGER_BEGIN && r->type != LEDGER_GAP))
		return;
	span = ledger_spans_find(s, r->kind, r->key);
	/* Of two begins the later one counts: a rotation repeats them, and a key comes back after a restart. */
	if (span)
		ledger_spans_remove(s, span);
	if (r->type == LEDGER_BEGIN) {
		span = ledger_spans_add(s, r);
		if (span) {
			span->begun = true;
			span->record.type = LEDGER_GAP;
		}
	}
}
