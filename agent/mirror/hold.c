/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/hold.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "mirror/mirror.h"
#include "mirror/tap.h"
#include "relay/gap.h"

void holds_init(struct holds *h, bool strict)
{
	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->lock, NULL);
	h->strict = strict;
}

void holds_done(struct holds *h)
{
	free(h->tables);
	pthread_mutex_destroy(&h->lock);
}

static unsigned find(const struct holds *h, const char *keyspace, const char *table)
{
	unsigned i = 0;

	while (i < h->count && (strcmp(h->tables[i].keyspace, keyspace) != 0 || strcmp(h->tables[i].table, table) != 0))
		i++;
	return i;
}

int holds_add(struct holds *h, const char *keyspace, const char *table)
{
	struct table_name *grown;
	int r = 0;

	pthread_mutex_lock(&h->lock);
	if (find(h, keyspace, table) == h->count) {
		grown = realloc(h->tables, (h->count + 1) * sizeof(*grown));
		if (grown) {
			h->tables = grown;
			h->tables[h->count] = (struct table_name){0};
			snprintf(h->tables[h->count].keyspace, sizeof(grown->keyspace), "%s", keyspace);
			snprintf(h->tables[h->count].table, sizeof(grown->table), "%s", table);
			h->count++;
			atomic_fetch_add(&h->generation, 1);
		}
		r = grown ? 1 : -ENOMEM;
	}
	pthread_mutex_unlock(&h->lock);
	return r;
}

int holds_remove(struct holds *h, const char *keyspace, const char *table)
{
	unsigned i;
	bool found;

	pthread_mutex_lock(&h->lock);
	i = find(h, keyspace, table);
	found = i < h->count;
	if (found) {
		h->tables[i] = h->tables[--h->count];
		atomic_fetch_add(&h->generation, 1);
	}
	pthread_mutex_unlock(&h->lock);
	return found;
}

void holds_each(struct holds *h, void (*callback)(void *context, const struct table_name *t), void *context)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->count; i++)
		callback(context, &h->tables[i]);
	pthread_mutex_unlock(&h->lock);
}

void hold_view_done(struct hold_view *v)
{
	free(v->held);
	v->held = NULL;
}

static bool must_wait(const struct holds *h, const struct record *r)
{
	if (r->entry != ENTRY_WRITE)
		return r->statement != STATEMENT_SCHEMA;
	return h->strict && r->statement != STATEMENT_INSERT;
}

static bool touches(struct holds *h, const struct gap *g, uint16_t cell)
{
	const char *keyspace, *table;
	bool yes = false;

	pthread_mutex_lock(&h->lock);
	while (!yes && gap_cell_next(g, &cell, &keyspace, &table))
		yes = find(h, keyspace, table) < h->count || find(h, keyspace, "") < h->count;
	pthread_mutex_unlock(&h->lock);
	return yes;
}

bool mirror_holds(const struct mirror *m, const struct worker *w, const struct record *r)
{
	struct holds *h = (struct holds *)&m->holds;
	struct hold_view *v = &((struct tap *)w->tap)->holds;
	uint32_t generation = atomic_load_explicit(&h->generation, memory_order_relaxed);

	if (generation == 0 || !must_wait(h, r))
		return false;
	if (!v->held)
		v->held = calloc(GAP_CELLS, 1);
	if (!v->held)
		return touches(h, w->gap, r->cell);
	if (generation != v->generation) {
		memset(v->held, 0, GAP_CELLS);
		v->generation = generation;
	}
	if (v->held[r->cell] == 0)
		v->held[r->cell] = touches(h, w->gap, r->cell) ? 2 : 1;
	return v->held[r->cell] == 2;
}
