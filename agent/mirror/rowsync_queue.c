/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which job comes next:
 *
 *   heap       by due time: what may run then
 *   blocked    a list at a running job: jobs for the same partition. The first becomes its heir, with the
 * rest of the list as its own, so that each end of a job costs one step however many wait. gate       a table
 * that gave trouble: one job probes it after a back-off, the others are in the gate's list until a job of
 * that table has ended without trouble
 */
#include "mirror/rowsync_queue.h"

#include "base/clock.h"
#include "base/log.h"

/* A job that joins a waiting one may put it off by this; else a row that is written all the time would never
 * come to its turn. */
#define MERGE_SLACK_NS 1000000000u

/* ------------------------------------------------------------- heap */

static bool before(const struct job *a, const struct job *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->sequence < b->sequence;
}

/* There is room: it was made when the job was accepted. */
static void heap_push(struct rowsync *rs, struct job *j)
{
	size_t i = rs->heap_count++;

	for (; i && before(j, rs->heap[(i - 1) / 2]); i = (i - 1) / 2)
		rs->heap[i] = rs->heap[(i - 1) / 2];
	rs->heap[i] = j;
}

static struct job *heap_pop(struct rowsync *rs)
{
	struct job *first = rs->heap[0], *last = rs->heap[--rs->heap_count];
	size_t i = 0, child;

	for (; (child = 2 * i + 1) < rs->heap_count; i = child) {
		if (child + 1 < rs->heap_count && before(rs->heap[child + 1], rs->heap[child]))
			child++;
		if (!before(rs->heap[child], last))
			break;
		rs->heap[i] = rs->heap[child];
	}
	if (rs->heap_count)
		rs->heap[i] = last;
	return first;
}

/* ------------------------------------------------------------- who waits where */

/* Joins a job that waits for the same rows. */
static bool merge(struct rowsync *rs, struct job *j)
{
	struct job *other = NULL;

	if (!j->fingerprint.size)
		return false;
	HASH_FIND(hh, rs->waiting, j->fingerprint.data, j->fingerprint.size, other);
	if (!other || j->due_ns > other->first_due_ns + MERGE_SLACK_NS)
		return false;
	/* It may be due later now; where it stands, that is found when it comes up. */
	if (j->due_ns > other->due_ns)
		other->due_ns = j->due_ns;
	other->sync.serial |= j->sync.serial;
	other->sync.lists_only &= j->sync.lists_only;
	other->sync.deletes |= j->sync.deletes;
	struct waiter *last = j->waiters;

	while (last->next)
		last = last->next;
	last->next = other->waiters;
	other->waiters = j->waiters;
	other->waiter_count += j->waiter_count;
	rs->count.merged += j->waiter_count;
	rs->bytes -= j->bytes;
	j->waiters = NULL;
	return true;
}

/* Makes it wait, in the heap or as a part of another, which is then all that is left of it. */
void queue_add(struct rowsync *rs, struct job *j)
{
	if (merge(rs, j)) {
		job_free(j);
		return;
	}
	if (j->fingerprint.size) {
		struct job *other;

		HASH_FIND(hh, rs->waiting, j->fingerprint.data, j->fingerprint.size, other);
		if (other) /* too early for this one */
			HASH_DEL(rs->waiting, other);
		HASH_ADD_KEYPTR(hh, rs->waiting, j->fingerprint.data, j->fingerprint.size, j);
	}
	j->sequence = rs->sequence++;
	heap_push(rs, j);
}

void queue_add_probe(struct rowsync *rs, struct job *j)
{
	j->sequence = rs->sequence++;
	heap_push(rs, j);
}

static void forget(struct rowsync *rs, struct job *j)
{
	struct job *other = NULL;

	if (j->fingerprint.size)
		HASH_FIND(hh, rs->waiting, j->fingerprint.data, j->fingerprint.size, other);
	if (other == j)
		HASH_DEL(rs->waiting, j);
}

static void list_to_heap(struct rowsync *rs, struct job *list)
{
	while (list) {
		struct job *j = list;

		list = j->next;
		j->next = NULL;
		heap_push(rs, j);
	}
}

static bool claims_overlap(const struct sync *a, const struct sync *b)
{
	for (unsigned i = 0; i < a->claim_count; i++)
		for (unsigned k = 0; k < b->claim_count; k++) {
			const struct claim *x = &a->claims[i], *y = &b->claims[k];

			if ((!x->hash || !y->hash || x->hash == y->hash) &&
			    !memcmp(&x->name, &y->name, sizeof(x->name)))
				return true;
		}
	return false;
}

static struct job *conflict(struct rowsync *rs, const struct job *j)
{
	for (unsigned i = 0; i < rs->thread_count; i++)
		if (rs->running[i] && claims_overlap(&j->sync, &rs->running[i]->sync))
			return rs->running[i];
	return NULL;
}

static struct gate *gate_of(struct rowsync *rs, const struct job *j)
{
	struct gate *g = NULL;

	for (unsigned i = 0; rs->gates && i < j->sync.claim_count && !g; i++)
		HASH_FIND(hh, rs->gates, &j->sync.claims[i].name, sizeof(struct table_name), g);
	return g;
}

/* The next job that may run now; NULL: none before *ret_due_ns. */
struct job *queue_pick(struct rowsync *rs, uint64_t *ret_due_ns)
{
	uint64_t now = clock_now_ns();

	*ret_due_ns = UINT64_MAX;
	while (rs->heap_count) {
		struct job *j = rs->heap[0], *other;

		if (j->due_ns > now) {
			*ret_due_ns = j->due_ns;
			return NULL;
		}
		heap_pop(rs);
		if (j->due_ns > now) { /* put off by a merge */
			heap_push(rs, j);
			continue;
		}
		struct gate *g = j->probe ? NULL : gate_of(rs, j);

		if (g) {
			j->next = g->list;
			g->list = j;
		} else if ((other = conflict(rs, j))) {
			if (other->blocked)
				other->blocked_tail->next = j;
			else
				other->blocked = j;
			other->blocked_tail = j;
			j->next = NULL;
		} else {
			forget(rs, j);
			return j;
		}
	}
	return NULL;
}

/* ------------------------------------------------------------- gates */

void gate_close(struct rowsync *rs, struct job *j, const struct table_name *name, const char *why)
{
	if (gate_of(rs, j))
		return;
	struct gate *g = calloc(1, sizeof(*g));

	if (!g)
		return; /* without a gate every job meets the trouble itself */
	snprintf(g->name.keyspace, sizeof(g->name.keyspace), "%s", name->keyspace);
	snprintf(g->name.table, sizeof(g->name.table), "%s", name->table);
	j->probe = true;
	g->since_ns = clock_now_ns();
	HASH_ADD(hh, rs->gates, name, sizeof(g->name), g);
	log_warn("mirror", "row sync of %s.%s waits: %s", name->keyspace, name->table, why);
}

void gate_open(struct rowsync *rs, struct job *j)
{
	struct gate *g;

	while ((g = gate_of(rs, j))) {
		/* It may have another probe, which finds out by itself. */
		HASH_DEL(rs->gates, g);
		log_info("mirror", "row sync of %s.%s goes on after %.1f s", g->name.keyspace, g->name.table,
			 (double)(clock_now_ns() - g->since_ns) / 1e9);
		list_to_heap(rs, g->list);
		free(g);
	}
}

/* ------------------------------------------------------------- the end of a job */

/* The heir of its partition gets those that waited with it. */
void queue_unblock(struct rowsync *rs, struct job *j, bool all)
{
	struct job *heir = j->blocked, *rest = heir ? heir->next : NULL;

	if (!heir)
		return;
	if (all) {
		list_to_heap(rs, heir);
	} else {
		heir->next = NULL;
		if (rest) {
			j->blocked_tail->next = heir->blocked;
			if (!heir->blocked)
				heir->blocked_tail = j->blocked_tail;
			heir->blocked = rest;
		}
		heap_push(rs, heir);
	}
	j->blocked = j->blocked_tail = NULL;
}

/* A job, and those that wait behind it, as one list. */
static void cancel(struct job *j, struct job **list)
{
	while (j) {
		struct job *next = j->next;

		cancel(j->blocked, list);
		j->blocked = NULL;
		j->next = *list;
		*list = j;
		j = next;
	}
}

struct job *queue_empty(struct rowsync *rs)
{
	struct job *list = NULL;
	struct gate *g, *next;

	while (rs->heap_count)
		cancel(heap_pop(rs), &list);
	HASH_ITER(hh, rs->gates, g, next)
	{
		cancel(g->list, &list);
		HASH_DEL(rs->gates, g);
		free(g);
	}
	HASH_CLEAR(hh, rs->waiting);
	return list;
}
