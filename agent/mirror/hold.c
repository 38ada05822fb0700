/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/hold.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "mirror/mirror.h"
#include "mirror/tap.h"
#include "relay/gap.h"
#include "relay/keep.h"

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

	while (i < h->count && (strcmp(h->tables[i].name.keyspace, keyspace) != 0 || strcmp(h->tables[i].name.table, table) != 0))
		i++;
	return i;
}

/* The place of a name that is new. NULL: out of memory. */
static struct hold *append(struct holds *h, const char *keyspace, const char *table)
{
	struct hold *t;

	if (h->count == h->capacity) {
		unsigned capacity = h->capacity ? h->capacity * 2 : 16;

		t = realloc(h->tables, capacity * sizeof(*t));
		if (!t)
			return NULL;
		h->tables = t;
		h->capacity = capacity;
	}
	t = &h->tables[h->count++];
	*t = (struct hold){0};
	snprintf(t->name.keyspace, sizeof(t->name.keyspace), "%s", keyspace);
	snprintf(t->name.table, sizeof(t->name.table), "%s", table);
	return t;
}

int holds_add(struct holds *h, const char *keyspace, const char *table, enum hold_by by)
{
	struct hold *t = NULL;
	unsigned i;
	int r = 0;

	pthread_mutex_lock(&h->lock);
	i = find(h, keyspace, table);
	if (i < h->count)
		t = &h->tables[i];
	else if (h->count == HOLDS_MAX)
		r = -E2BIG;
	else if (!(t = append(h, keyspace, table)))
		r = -ENOMEM;
	if (t && !(t->by & by)) {
		t->by |= (uint8_t)by;
		atomic_fetch_add(&h->generation, 1);
		r = 1;
	}
	pthread_mutex_unlock(&h->lock);
	return r;
}

int holds_remove(struct holds *h, const char *keyspace, const char *table, enum hold_by by)
{
	unsigned i;
	bool held;

	pthread_mutex_lock(&h->lock);
	i = find(h, keyspace, table);
	held = i < h->count && (h->tables[i].by & by);
	if (held) {
		h->tables[i].by &= (uint8_t)~by;
		if (!h->tables[i].by)
			h->tables[i] = h->tables[--h->count];
		atomic_fetch_add(&h->generation, 1);
	}
	pthread_mutex_unlock(&h->lock);
	return held;
}

void holds_each(struct holds *h, void (*callback)(void *context, const struct hold *t), void *context)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->count; i++)
		callback(context, &h->tables[i]);
	pthread_mutex_unlock(&h->lock);
}

/* ---- over a restart: by u8 | keyspace NUL | table NUL */

#define FILE_NAME "holds.keep"

int holds_save(struct holds *h, const char *directory, struct error *error)
{
	struct keep_writer w;
	int r;

	if (!directory[0])
		return 0;
	r = keep_begin(&w, directory, FILE_NAME, KEEP_HOLDS, error);
	if (r < 0)
		return r;
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->count; i++) {
		const struct hold *t = &h->tables[i];
		struct span pieces[] = {span_of(&t->by, 1), span_of(t->name.keyspace, strlen(t->name.keyspace) + 1),
					span_of(t->name.table, strlen(t->name.table) + 1)};

		keep_record(&w, pieces, 3);
	}
	pthread_mutex_unlock(&h->lock);
	return keep_end(&w, error);
}

static void load_one(void *context, struct span payload)
{
	const char *keyspace = (const char *)payload.data + 1, *table;
	size_t left = payload.size ? payload.size - 1 : 0, n = strnlen(keyspace, left), m;

	if (n == left || n > CQL_NAME_MAX)
		return;
	table = keyspace + n + 1;
	m = strnlen(table, left - n - 1);
	if (m != left - n - 2 || m > CQL_NAME_MAX)
		return;
	for (int by = HOLD_PERSON; by <= HOLD_SERVICE; by <<= 1)
		if (payload.data[0] & by)
			holds_add(context, keyspace, table, (enum hold_by)by);
}

int holds_load(struct holds *h, const char *directory, struct error *error)
{
	bool damaged = false;
	int r = directory[0] ? keep_read(directory, FILE_NAME, KEEP_HOLDS, load_one, h, &damaged) : 0;

	/* To let go of a table in the middle of its load would undo the load. */
	if (r < 0 || damaged)
		return error_set(error, r < 0 ? r : -EINVAL,
				 "%s/" FILE_NAME " is damaged: which tables are on hold is not known. Remove it, hold them again, and only "
				 "then go on with their load", directory);
	return 0;
}

/* ---- a worker's view */

void hold_view_done(struct hold_view *v)
{
	free(v->held);
	v->held = NULL;
}

static bool must_wait(const struct holds *h, const struct record *r)
{
	if (r->entry != ENTRY_WRITE)
		return r->statement != STATEMENT_SCHEMA;
	/* A batch is seen as a whole: not before the last of its tables is there. */
	return r->statement == STATEMENT_BATCH || (h->strict && r->statement != STATEMENT_INSERT);
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
