/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/barrier.h"

#include <stdlib.h>

#include "mirror/tap.h"
#include "relay/worker.h"

void barrier_put(struct barrier *b)
{
	if (b && atomic_fetch_sub(&b->references, 1) == 1)
		free(b);
}

static void set_mark(struct worker *w, void *context)
{
	tap_mark(w, context); /* takes the reference */
}

static void go_on(struct worker *w, void *context)
{
	(void)context;
	tap_go_on(w);
}

struct barrier *barrier_raise(struct worker *w, uint64_t ticket, const struct table_name *table)
{
	struct relay *r = w->relay;
	struct barrier *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	atomic_store(&b->references, r->worker_count);
	atomic_store(&b->unreached, r->worker_count - 1);
	b->owner = w;
	b->ticket = ticket;
	if (table) {
		b->truncates = true;
		b->table = *table;
	}
	for (unsigned i = 0; i < r->worker_count; i++)
		if (r->workers[i] != w && worker_post(r->workers[i], set_mark, b) < 0)
			abort(); /* a worker without its mark would let later writes overtake the statement */
	return b;
}

void barrier_lower(struct barrier *b)
{
	struct relay *r = b->owner->relay;

	atomic_fetch_sub(&((struct tap *)b->owner->tap)->mirror->open_barriers, 1);
	atomic_store(&b->over, true);
	for (unsigned i = 0; i < r->worker_count; i++)
		if (r->workers[i] != b->owner)
			worker_post(r->workers[i], go_on, NULL);
	barrier_put(b);
}

void barrier_reached(struct barrier *b)
{
	if (atomic_fetch_sub(&b->unreached, 1) == 1)
		worker_post(b->owner, go_on, NULL);
}
