/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/batch_ids.h"

#include <stdlib.h>

#include "relay/prepared.h"

struct pair {
	uint8_t asked_size, sent_size;
	uint8_t asked[PREPARED_ID_MAX], sent[PREPARED_ID_MAX];
};

struct batch_ids {
	unsigned count, capacity;
	struct pair pair[];
};

struct span batch_ids_asked(const struct batch_ids *ids, struct span sent)
{
	for (unsigned i = 0; ids && i < ids->count; i++)
		if (span_equal(span_of(ids->pair[i].sent, ids->pair[i].sent_size), sent))
			return span_of(ids->pair[i].asked, ids->pair[i].asked_size);
	return span_of(NULL, 0);
}

void batch_ids_add(struct batch_ids **ids, struct span asked, struct span sent)
{
	struct batch_ids *b = *ids;
	struct pair *p;

	/* Batches execute few statements, and those many times. */
	if (asked.size > PREPARED_ID_MAX || sent.size > PREPARED_ID_MAX || batch_ids_asked(b, sent).size ||
	    (b && b->count == BATCH_IDS_MAX))
		return;
	if (!b || b->count == b->capacity) {
		unsigned capacity = b ? b->capacity * 4 : 4;

		b = realloc(b, sizeof(*b) + capacity * sizeof(*p));
		if (!b)
			return;
		b->count = *ids ? b->count : 0;
		b->capacity = capacity;
		*ids = b;
	}
	p = &b->pair[b->count++];
	p->asked_size = (uint8_t)asked.size;
	memcpy(p->asked, asked.data, asked.size);
	p->sent_size = (uint8_t)sent.size;
	memcpy(p->sent, sent.data, sent.size);
}

void batch_ids_free(struct batch_ids *ids)
{
	free(ids);
}
