/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/gap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cql/request.h"
#include "relay/prepared.h"

/* A cell: one table and the cell of the rest of the list; equal lists have one cell. */
struct cell {
	char keyspace[CQL_NAME_MAX + 1];
	char table[CQL_NAME_MAX + 1];
	uint16_t rest;
};

#define BUCKETS (2 * GAP_CELLS) /* of the cells' index: open addressing, at most half full */
#define SESSIONS_STEP 64

/* Counters of the worker's own side: by cell. */
struct tally {
	uint64_t count;
	int64_t first_us, last_us;
	uint16_t cell; /* the head alone; its rest was noted separately */
	uint8_t cause, missing; /* cause 0 = free */
};

struct sessions {
	struct gap_session *item;
	unsigned count, capacity;
};

struct gap {
	/* The worker's. */
	struct cell cells[GAP_CELLS]; /* [0]: any table */
	uint16_t cell_count;
	uint16_t bucket[BUCKETS]; /* cell, 0 = free */
	struct tally tally[GAP_COUNTS];
	uint16_t used[GAP_COUNTS]; /* which of them */
	unsigned used_count;
	struct sessions sessions;
	/* Handed over; under the lock. */
	pthread_mutex_t lock;
	struct gap_count counts[GAP_COUNTS];
	unsigned counts_used;
	struct sessions ready;
};

const char *gap_cause_name(enum gap_cause cause)
{
	static const char *const names[GAP_CAUSES] = {
		[GAP_LWT] = "lwt", [GAP_COUNTER] = "counter", [GAP_LIST] = "list_operation", [GAP_FUNCTION] = "server_function",
		[GAP_UNCLASSIFIED] = "unclassified", [GAP_POLICY] = "policy", [GAP_UNKNOWN_OUTCOME] = "unknown_outcome",
		[GAP_SHED] = "shed", [GAP_DEAD] = "dead_letter", [GAP_UNDELIVERED] = "undelivered"};

	return (unsigned)cause < GAP_CAUSES && names[cause] ? names[cause] : "unclassified";
}

enum gap_cause gap_cause_of(enum unmirrored why)
{
	static const enum gap_cause causes[] = {
		[MIRRORABLE] = GAP_UNKNOWN_OUTCOME, [MIRRORABLE_ONCE] = GAP_UNKNOWN_OUTCOME, [UNMIRRORED_LWT] = GAP_LWT, [UNMIRRORED_COUNTER] = GAP_COUNTER,
		[UNMIRRORED_LIST] = GAP_LIST, [UNMIRRORED_FUNCTION] = GAP_FUNCTION,
		[UNMIRRORED_UNCLASSIFIED] = GAP_UNCLASSIFIED, [UNMIRRORED_POLICY] = GAP_POLICY};

	return (unsigned)why < sizeof(causes) / sizeof(causes[0]) ? causes[why] : GAP_UNCLASSIFIED;
}

struct gap *gap_new(void)
{
	struct gap *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->cell_count = 1;
	pthread_mutex_init(&g->lock, NULL);
	return g;
}

void gap_free(struct gap *g)
{
	if (!g)
		return;
	pthread_mutex_destroy(&g->lock);
	free(g->sessions.item);
	free(g->ready.item);
	free(g);
}

/* ---- cells */

static uint32_t hash_text(uint32_t h, const char *text)
{
	/* FNV-1a; the NUL counts, so that "ab","c" is not "a","bc". */
	do {
		h = (h ^ (uint8_t)*text) * 16777619u;
	} while (*text++);
	return h;
}

static uint16_t intern(struct gap *g, const char *keyspace, const char *table, uint16_t rest)
{
	uint32_t i = hash_text(hash_text(2166136261u ^ rest, keyspace), table) % BUCKETS;
	struct cell *c;

	for (; g->bucket[i]; i = (i + 1) % BUCKETS) {
		c = &g->cells[g->bucket[i]];
		if (c->rest == rest && !strcmp(c->table, table) && !strcmp(c->keyspace, keyspace))
			return g->bucket[i];
	}
	/* Full: the first tables of the list go unnamed, which makes all of it unnamed. */
	if (g->cell_count == GAP_CELLS || strlen(keyspace) > CQL_NAME_MAX || strlen(table) > CQL_NAME_MAX)
		return GAP_CELL_ANY;
	c = &g->cells[g->cell_count];
	memcpy(c->keyspace, keyspace, strlen(keyspace) + 1);
	memcpy(c->table, table, strlen(table) + 1);
	c->rest = rest;
	g->bucket[i] = g->cell_count;
	return g->cell_count++;
}

uint16_t gap_cell_write(struct gap *g, const struct statement *s, struct prepared_slot *slot, const struct request *q, const char *session_keyspace)
{
	char own[CQL_NAME_MAX + 1];

	if (!slot)
		return gap_cell(g, s, request_keyspace(q, session_keyspace, own));
	if (slot->cell == GAP_CELL_ANY)
		slot->cell = gap_cell(g, s, slot->prepared->keyspace);
	return slot->cell;
}

uint16_t gap_cell_of(struct gap *g, const char *keyspace, const char *table)
{
	return keyspace[0] || table[0] ? intern(g, keyspace, table, GAP_CELL_ANY) : GAP_CELL_ANY;
}

uint16_t gap_cell(struct gap *g, const struct statement *s, const char *keyspace)
{
	uint16_t cell = GAP_CELL_ANY;

	/* A role's text may hold a password where a name should be; and a list that is cut off names too little. */
	if (s->kind == STATEMENT_ROLE || (s->flags & STATEMENT_TABLES_MORE))
		return GAP_CELL_ANY;
	for (unsigned i = s->table_count; i > 0; i--) {
		const struct table_name *t = &s->tables[i - 1];

		cell = intern(g, t->keyspace[0] ? t->keyspace : keyspace, t->table, cell);
		if (cell == GAP_CELL_ANY)
			break;
	}
	return cell;
}

bool gap_cell_next(const struct gap *g, uint16_t *cell, const char **keyspace, const char **table)
{
	const struct cell *c = &g->cells[*cell];

	if (*cell == GAP_CELL_ANY)
		return false;
	*keyspace = c->keyspace;
	*table = c->table;
	*cell = c->rest;
	return true;
}

/* ---- the worker's counters */

static void tally_one(struct gap *g, enum gap_cause cause, enum side missing, uint16_t cell, int64_t at_us)
{
	uint32_t i = (cell * 2654435769u + (uint32_t)cause * 40503u + (uint32_t)missing) % GAP_COUNTS;
	struct tally *t = &g->tally[i];

	for (; t->cause && (t->cause != cause || t->missing != missing || t->cell != cell); t = &g->tally[i])
		i = (i + 1) % GAP_COUNTS;
	if (!t->cause) {
		*t = (struct tally){.cell = cell, .cause = (uint8_t)cause, .missing = (uint8_t)missing, .first_us = at_us};
		g->used[g->used_count++] = (uint16_t)i;
	}
	t->count++;
	if (at_us < t->first_us)
		t->first_us = at_us;
	if (at_us > t->last_us)
		t->last_us = at_us;
}

void gap_note(struct gap *g, enum gap_cause cause, enum side missing, uint16_t cell, int64_t age_us)
{
	int64_t at_us = clock_wall_us() - age_us;

	do {
		tally_one(g, cause, missing, cell, at_us);
		/* Never full: there is no waiting for the next tick. */
		if (g->used_count == GAP_COUNTS / 2)
			gap_hand_over(g);
		cell = g->cells[cell].rest;
	} while (cell != GAP_CELL_ANY);
}

static bool sessions_add(struct sessions *s, const struct gap_session *item)
{
	if (s->count == GAP_SESSIONS_MAX)
		return false;
	if (s->count == s->capacity) {
		struct gap_session *more = realloc(s->item, (s->capacity + SESSIONS_STEP) * sizeof(*more));

		if (!more)
			return false;
		s->item = more;
		s->capacity += SESSIONS_STEP;
	}
	s->item[s->count++] = *item;
	return true;
}

void gap_opaque(struct gap *g, const struct gap_session *session)
{
	/* Not even listed: its writes are at least counted as unreadable. An end that is lost leaves the span open, which says too much. */
	if (!sessions_add(&g->sessions, session) && session->begin)
		gap_note(g, GAP_UNCLASSIFIED, session->missing, GAP_CELL_ANY, 0);
}

/* ---- handing over */

/* The counter for this key among those handed over; when all are taken, the one without a name. */
static struct gap_count *handed(struct gap *g, enum gap_cause cause, enum side missing, const char *keyspace, const char *table)
{
	struct gap_count *c;

	for (unsigned i = 0; i < g->counts_used; i++) {
		c = &g->counts[i];
		if (c->cause == cause && c->missing == missing && !strcmp(c->table, table) && !strcmp(c->keyspace, keyspace))
			return c;
	}
	/* The last places are for those without a name: one for each cause and side. */
	if (g->counts_used >= GAP_COUNTS - GAP_CAUSES * SIDES && (keyspace[0] || table[0]))
		return handed(g, cause, missing, "", "");
	c = &g->counts[g->counts_used++];
	*c = (struct gap_count){.cause = cause, .missing = missing};
	memcpy(c->keyspace, keyspace, strlen(keyspace) + 1);
	memcpy(c->table, table, strlen(table) + 1);
	return c;
}

void gap_hand_over(struct gap *g)
{
	if (g->used_count == 0 && g->sessions.count == 0)
		return;
	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < g->used_count; i++) {
		struct tally *t = &g->tally[g->used[i]];
		const struct cell *cell = &g->cells[t->cell];
		struct gap_count *c = handed(g, t->cause, t->missing, cell->keyspace, cell->table);

		if (!c->count || t->first_us < c->first_us)
			c->first_us = t->first_us;
		if (t->last_us > c->last_us)
			c->last_us = t->last_us;
		c->count += t->count;
		t->cause = 0;
	}
	g->used_count = 0;
	for (unsigned i = 0; i < g->sessions.count; i++) {
		const struct gap_session *s = &g->sessions.item[i];

		if (!sessions_add(&g->ready, s) && s->begin) {
			struct gap_count *c = handed(g, GAP_UNCLASSIFIED, s->missing, "", "");

			if (!c->count++)
				c->first_us = s->at_us;
			c->last_us = s->at_us;
		}
	}
	g->sessions.count = 0;
	pthread_mutex_unlock(&g->lock);
}

void gap_take(struct gap *g, void (*count)(void *context, const struct gap_count *c),
	      void (*session)(void *context, const struct gap_session *s), void *context)
{
	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < g->counts_used; i++)
		count(context, &g->counts[i]);
	for (unsigned i = 0; i < g->ready.count; i++)
		session(context, &g->ready.item[i]);
	g->counts_used = g->ready.count = 0;
	pthread_mutex_unlock(&g->lock);
}
