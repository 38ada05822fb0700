/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/dispatch.h"
#include "relay/gap.h"

#define PUBLISH_NS (250u * 1000000ull)
#define LOOK_MAX 65536u /* entries that one search for the oldest passes over */

/* Up to which entry of the oldest file everything is through. */
struct front {
	uint64_t salt;
	size_t at;
};

struct tables {
	/* The worker's. */
	uint32_t records[GAP_CELLS];
	uint64_t bytes[GAP_CELLS];
	uint16_t line[GAP_CELLS]; /* while publishing: place in the list + 1 */
	uint16_t cells; /* used so far, [0 … cells) */
	bool changed;
	uint64_t published_ns;
	struct front own, recovered;
	/* Under the lock. */
	pthread_mutex_t lock;
	struct table_size *list;
	unsigned count, capacity;
	uint32_t oldest;
};

struct tables *tables_new(void)
{
	struct tables *t = calloc(1, sizeof(*t));

	if (t)
		pthread_mutex_init(&t->lock, NULL);
	return t;
}

void tables_free(struct tables *t)
{
	if (!t)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->list);
	free(t);
}

void tables_add(struct tables *t, struct record *r)
{
	if (r->counted)
		return;
	r->counted = true;
	t->records[r->cell]++;
	t->bytes[r->cell] += r->body_size;
	if (r->cell >= t->cells)
		t->cells = (uint16_t)(r->cell + 1);
	t->changed = true;
}

void tables_remove(struct tables *t, struct record *r)
{
	if (!r->counted)
		return;
	r->counted = false;
	t->changed = true;
	/* A table whose name did not fit when the write was counted may have one now, or the other way round: idle() puts that right. */
	if (t->records[r->cell] == 0 || t->bytes[r->cell] < r->body_size)
		return;
	t->records[r->cell]--;
	t->bytes[r->cell] -= r->body_size;
}

/* ---- the oldest */

static bool through(const struct journal_entry *e)
{
	return journal_kind(e) == ENTRY_PREPARED || journal_state(e) == ENTRY_DONE || (e->state & ENTRY_APPLIED);
}

/* On its way to the primary: nobody was told yet that it is done. */
static bool in_flight(const struct journal_entry *e)
{
	return journal_state(e) == ENTRY_INTENT && (e->state & ENTRY_HELD);
}

/* The first entry of the oldest open file that waits; each entry is passed over once. */
static uint32_t oldest_of(const struct journal *j, struct front *front)
{
	struct journal_file *f = j ? journal_files(j) : NULL;
	bool mapped, moving = true;
	uint32_t oldest = 0;
	size_t at;

	while (f && f->open == 0)
		f = f->next;
	if (!f)
		return 0;
	mapped = f->base != NULL;
	if (journal_file_map(f) < 0)
		return 0;
	if (front->salt != f->salt || front->at > f->used)
		*front = (struct front){f->salt, sizeof(struct journal_head)};
	at = front->at;
	for (unsigned i = 0; i < LOOK_MAX && at < f->used && !oldest; i++) {
		const struct journal_entry *e = journal_file_entry(f, at);

		moving &= through(e);
		if (!through(e) && !in_flight(e))
			oldest = e->now;
		else
			at += journal_entry_size(e->keyspace_size, e->body_size);
		if (moving)
			front->at = at;
	}
	if (!mapped)
		journal_file_unmap(f);
	return oldest;
}

void tables_repeated(struct tables *t)
{
	t->own = t->recovered = (struct front){0};
}

/* ---- publishing */

/* The line of one table, by its own cell. NULL: out of memory. */
static struct table_size *line_of(struct tables *t, uint16_t cell, const char *keyspace, const char *table)
{
	struct table_size *s;

	if (t->line[cell])
		return &t->list[t->line[cell] - 1];
	if (t->count == t->capacity) {
		unsigned capacity = t->capacity ? t->capacity * 2 : 16;

		s = realloc(t->list, capacity * sizeof(*s));
		if (!s)
			return NULL;
		t->list = s;
		t->capacity = capacity;
	}
	s = &t->list[t->count++];
	t->line[cell] = (uint16_t)t->count;
	*s = (struct table_size){0};
	memcpy(s->name.keyspace, keyspace, strlen(keyspace) + 1);
	memcpy(s->name.table, table, strlen(table) + 1);
	return s;
}

static void publish_cell(struct tables *t, struct gap *g, uint16_t cell)
{
	uint16_t rest = cell, own;
	const char *keyspace, *table;

	do {
		struct table_size *s;

		keyspace = table = "";
		gap_cell_next(g, &rest, &keyspace, &table);
		own = gap_cell_of(g, keyspace, table);
		s = line_of(t, own, own == GAP_CELL_ANY ? "" : keyspace, own == GAP_CELL_ANY ? "" : table);
		if (s) {
			s->records += t->records[cell];
			s->bytes += t->bytes[cell];
		}
	} while (rest != GAP_CELL_ANY);
}

/* Nothing waits and nothing is on its way: whatever the counts say. */
static void idle(struct tables *t)
{
	for (unsigned cell = 0; cell < t->cells; cell++) {
		t->changed |= t->records[cell] != 0;
		t->records[cell] = 0;
		t->bytes[cell] = 0;
	}
}

void tables_publish(struct dispatch *d, uint64_t now_ns)
{
	struct tables *t = d->tables;
	uint32_t oldest;

	if (now_ns - t->published_ns < PUBLISH_NS)
		return;
	t->published_ns = now_ns;
	if (dispatch_idle(d))
		idle(t);
	oldest = oldest_of(d->journal, &t->own);
	if (d->recovered) {
		uint32_t earlier = oldest_of(d->recovered, &t->recovered);

		oldest = earlier && (!oldest || earlier < oldest) ? earlier : oldest;
	}
	pthread_mutex_lock(&t->lock);
	t->oldest = oldest;
	if (t->changed) {
		t->count = 0;
		memset(t->line, 0, sizeof(t->line));
		for (unsigned cell = 0; cell < t->cells; cell++)
			if (t->records[cell])
				publish_cell(t, d->worker->gap, (uint16_t)cell);
		t->changed = false;
	}
	pthread_mutex_unlock(&t->lock);
}

uint32_t tables_read(struct tables *t, void (*each)(void *context, const struct table_size *s), void *context)
{
	uint32_t oldest;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < t->count; i++)
		each(context, &t->list[i]);
	oldest = t->oldest;
	pthread_mutex_unlock(&t->lock);
	return oldest;
}
