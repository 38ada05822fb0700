/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of row sync: where they wait, which comes next, and what becomes of trouble.
 *
 *   heap       by due time: what may run then
 *   blocked    a list at a running job: jobs for the same partition. The first becomes its heir, with the rest of
 *              the list as its own, so that each end of a job costs one step however many wait.
 *   gate       a table that gave trouble: one job probes it after a back-off, the others are in the gate's list
 *              until a job of that table has ended without trouble
 *
 * All of it under one lock, which is never held while a cluster is asked or a job's owner is told.
 */
#include "mirror/rowsync.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "mirror/rowsync_priv.h"
#include "uthash.h"

#define ROWSYNC_MAGIC 0x5053594Eu
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 10000u
/* After a write whose fate is not known: longer than any server waits for its replicas. */
#define BACKOFF_UNKNOWN_MS 2500u
#define REFUSALS_MAX 12u /* of trouble that may be permanent */
/* A job that joins a waiting one may put it off by this; else a row that is written all the time would never come
 * to its turn. */
#define MERGE_SLACK_NS 1000000000u

struct job {
	struct sync sync;
	struct waiter *waiters;
	unsigned waiter_count;
	struct text fingerprint; /* the same for the same rows; empty: not known yet */
	size_t bytes;
	uint64_t due_ns, first_due_ns, sequence;
	unsigned failures, refusals;
	bool probe; /* of a gate: no gate stops it, or two of them could wait for each other */
	struct job *next;		       /* in a list */
	struct job *blocked, *blocked_tail; /* jobs for the same rows */
	UT_hash_handle hh;
};

struct gate {
	struct table_name name; /* the hash's key, filled up with 0 */
	struct job *list;
	uint64_t since_ns;
	UT_hash_handle hh;
};

struct rowsync {
	uint32_t magic;
	struct rowsync_options options;
	struct sync_shared shared;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct worker_thread threads[ROWSYNC_THREADS_MAX];
	struct job *running[ROWSYNC_THREADS_MAX];
	unsigned thread_count, started;
	struct job **heap;
	size_t heap_count, heap_room;
	struct job *waiting; /* hash by fingerprint of what is not running */
	struct gate *gates;
	uint64_t sequence;
	size_t bytes;
	struct rowsync_counters count;
};

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

/* ------------------------------------------------------------- jobs */

static void job_free(struct job *j)
{
	for (unsigned i = 0; i < j->sync.key_count; i++)
		rowkey_done(&j->sync.keys[i]);
	while (j->waiters) {
		struct waiter *w = j->waiters;

		j->waiters = w->next;
		free(w);
	}
	free(j->fingerprint.data);
	arena_done(&j->sync.arena);
	free(j);
}

static void fingerprint_clause(struct text *t, const struct clause *c)
{
	text_value(t, c->text);
	text_value(t, c->values);
}

/* What two jobs have in common that do the same. Whether the read is SERIAL is no part of it. */
static void make_fingerprint(struct job *j)
{
	if (!j->sync.planned || j->fingerprint.size)
		return;
	text_value_int(&j->fingerprint, j->sync.from);
	for (const struct selection *s = j->sync.selections; s; s = s->next) {
		text_value(&j->fingerprint, span_text(s->name.keyspace));
		text_value(&j->fingerprint, span_text(s->name.table));
		fingerprint_clause(&j->fingerprint, &s->partition);
		fingerprint_clause(&j->fingerprint, &s->range);
		text_value_int(&j->fingerprint, s->rows | s->marker << 1);
	}
	if (j->fingerprint.failed)
		j->fingerprint.size = 0;
}

static void claim(struct sync *y, const struct table_name *name, uint64_t hash)
{
	y->claims[y->claim_count] = (struct claim){.hash = hash};
	strcpy(y->claims[y->claim_count].name.keyspace, name->keyspace); /* the same size */
	strcpy(y->claims[y->claim_count].name.table, name->table);
	y->claim_count++;
}

/* Before the selections are known: whole tables. */
static int make_claims(struct sync *y)
{
	unsigned n = 0;

	for (const struct selection *s = y->selections; s; s = s->next)
		n++;
	for (unsigned i = 0; i < y->key_count; i++)
		n += y->keys[i].count;
	y->claims = arena_zero(&y->arena, (n + 1) * sizeof(*y->claims));
	if (!y->claims)
		return -ENOMEM;
	for (const struct selection *s = y->selections; s; s = s->next)
		claim(y, &s->name, s->hash);
	for (unsigned i = 0; i < y->key_count; i++) {
		for (struct rowkey_statement *k = y->keys[i].statements; k; k = k->next) {
			struct table_name name = k->name;

			if (!name.keyspace[0])
				strcpy(name.keyspace, y->keyspaces[i]);
			claim(y, &name, 0);
		}
	}
	return 0;
}

static int read_children(struct sync *y, const struct rowsync_job *job)
{
	unsigned n = job->child_count, statements = 0;

	y->keys = arena_zero(&y->arena, (n + 1) * sizeof(*y->keys));
	y->keyspaces = arena_zero(&y->arena, (n + 1) * sizeof(*y->keyspaces));
	if (!y->keys || !y->keyspaces)
		return -ENOMEM;
	for (; y->key_count < n; y->key_count++) {
		const struct rowsync_child *c = &job->children[y->key_count];
		struct rowkey_values values = {
		    .values = c->values, .count = c->values_count, .names = c->names};
		int rc = rowkey_read(c->text, values, &y->keys[y->key_count]);

		if (rc)
			return rc;
		snprintf((char *)y->keyspaces[y->key_count], sizeof(*y->keyspaces), "%s",
			 c->keyspace ? c->keyspace : "");
		statements += y->keys[y->key_count].count;
		for (struct rowkey_statement *s = y->keys[y->key_count].statements; s; s = s->next) {
			if (!s->name.keyspace[0] && (!c->keyspace || !*c->keyspace)) {
				y->key_count++;
				return -ENOKEY;
			}
		}
	}
	y->atomic = statements > 1;
	return statements ? 0 : -ENOKEY;
}

static size_t size_of(const struct job *j)
{
	size_t size = sizeof(*j) + j->sync.arena.used + j->fingerprint.room;

	for (unsigned i = 0; i < j->sync.key_count; i++)
		size += j->sync.keys[i].arena.used;
	return size;
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
static void enqueue(struct rowsync *rs, struct job *j)
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
static struct job *pick(struct rowsync *rs, uint64_t *ret_due_ns)
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

/* ------------------------------------------------------------- trouble */

static bool permanent(int rc)
{
	switch (rc) {
	case 0:
	case -ENOKEY:
	case -ENOENT:
	case -ENOTSUP:
	case -E2BIG:
	case -EINVAL:
	case -ESTALE:
		return true;
	default:
		return false;
	}
}

static bool doubtful(int rc)
{
	return rc == -EPERM || rc == -EACCES || rc == -EREMOTEIO || rc == -EBUSY;
}

/* Exponential, and a quarter to either side, so that what failed together does not come back together. */
static uint64_t backoff_ns(struct worker_thread *w, unsigned failures, int rc)
{
	uint64_t ms = (uint64_t)BACKOFF_FIRST_MS << (failures < 8 ? failures : 8);

	if (ms < BACKOFF_UNKNOWN_MS && (rc == -ETIME || rc == -ETIMEDOUT || rc == -EREMOTEIO))
		ms = BACKOFF_UNKNOWN_MS;
	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	/* xorshift64 (Marsaglia 2003) */
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (ms * 750 + w->random % (ms * 500)) * 1000;
}

static void gate_close(struct rowsync *rs, struct job *j, const struct table_name *name, const char *why)
{
	if (gate_of(rs, j))
		return;
	struct gate *g = calloc(1, sizeof(*g));

	if (!g)
		return; /* without a gate every job meets the trouble itself */
	strcpy(g->name.keyspace, name->keyspace);
	strcpy(g->name.table, name->table);
	j->probe = true;
	g->since_ns = clock_now_ns();
	HASH_ADD(hh, rs->gates, name, sizeof(g->name), g);
	log_warn("mirror", "row sync of %s.%s waits: %s", name->keyspace, name->table, why);
}

static void gate_open(struct rowsync *rs, struct job *j)
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

/* ------------------------------------------------------------- running */

static void tell(struct waiter *w, int rc)
{
	for (; w; w = w->next)
		w->done(w->context, rc);
}

/* The heir of its partition gets those that waited with it. */
static void unblock(struct rowsync *rs, struct job *j, bool all)
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

static void requeue(struct rowsync *rs, struct worker_thread *w, struct job *j, int rc, uint64_t wait_ns,
		    const struct table_name *table, const struct error *error)
{
	if (wait_ns) {
		/* Nothing failed; it only has to come again later. */
		gate_open(rs, j);
		j->probe = false;
		j->due_ns = clock_now_ns() + wait_ns;
	} else {
		j->due_ns = clock_now_ns() + backoff_ns(w, j->failures++, rc);
		rs->count.retries++;
		gate_close(rs, j, table, error->text[0] ? error->text : strerror(-rc));
	}
	j->first_due_ns = j->due_ns;
	make_fingerprint(j);
	/* A probe must not become a part of a job that its gate holds back. */
	if (j->probe) {
		j->sequence = rs->sequence++;
		heap_push(rs, j);
	} else {
		enqueue(rs, j);
	}
}

static void finish(struct rowsync *rs, struct worker_thread *w, struct job *j, int rc, uint64_t wait_ns,
		   const struct table_name *table, const struct error *error)
{
	rs->count.running--;
	if (doubtful(rc) && ++j->refusals < REFUSALS_MAX && !rs->shared.stopping)
		rc = rc == -EREMOTEIO ? -ETIME : -EAGAIN;
	else if (rc == -EBUSY)
		rc = -ESTALE;
	unblock(rs, j, !permanent(rc));
	if (!permanent(rc) && !doubtful(rc) && !rs->shared.stopping) {
		requeue(rs, w, j, rc, wait_ns, table, error);
		pthread_cond_broadcast(&rs->wake);
		return;
	}
	if (!permanent(rc) && !doubtful(rc))
		rc = -ECANCELED;
	gate_open(rs, j);
	rs->bytes -= j->bytes;
	rs->count.queued -= j->waiter_count;
	*(rc ? &rs->count.failed : &rs->count.done) += j->waiter_count;
	pthread_cond_broadcast(&rs->wake);
	pthread_mutex_unlock(&rs->lock);
	tell(j->waiters, rc);
	job_free(j);
	pthread_mutex_lock(&rs->lock);
}

static void *thread_main(void *context)
{
	struct worker_thread *w = context;
	struct rowsync *rs = w->rs;
	unsigned number = (unsigned)(w - rs->threads);

	pthread_mutex_lock(&rs->lock);
	while (!rs->shared.stopping) {
		uint64_t due, wait_ns;
		struct job *j = pick(rs, &due);

		if (!j && due == UINT64_MAX) {
			pthread_cond_wait(&rs->wake, &rs->lock);
		} else if (!j) {
			struct timespec at = {.tv_sec = (time_t)(due / 1000000000u),
					      .tv_nsec = (long)(due % 1000000000u)};

			pthread_cond_timedwait(&rs->wake, &rs->lock, &at);
		} else {
			struct error error = {0};
			struct table_name table = j->sync.claims[0].name;

			rs->running[number] = j;
			rs->count.running++;
			pthread_mutex_unlock(&rs->lock);
			int rc = sync_attempt(&rs->shared, w, &j->sync, &wait_ns, &table, &error);

			pthread_mutex_lock(&rs->lock);
			rs->running[number] = NULL;
			finish(rs, w, j, rc, wait_ns, &table, &error);
		}
	}
	pthread_mutex_unlock(&rs->lock);
	for (enum side side = ORIGIN; side < SIDES; side++)
		client_close(w->client[side]);
	return NULL;
}

/* ------------------------------------------------------------- interface */

int rowsync_submit(struct rowsync *rs, const struct rowsync_job *job)
{
	struct job *j = calloc(1, sizeof(*j));
	struct waiter *waiter = calloc(1, sizeof(*waiter));
	int rc = -ENOMEM;

	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	if (!j || !waiter) {
		free(waiter);
		free(j);
		return -ENOMEM;
	}
	*waiter = (struct waiter){.done = job->done, .context = job->context};
	j->waiters = waiter;
	j->waiter_count = 1;
	j->sync.from = job->from;
	j->sync.serial = job->serial;
	j->due_ns = j->first_due_ns = job->not_before_ns;
	rc = read_children(&j->sync, job);
	if (!rc) {
		rc = sync_plan_cached(&rs->shared, &j->sync);
		if (rc == -EAGAIN || rc == -ENOTSUP)
			rc = 0; /* told by the attempt, which looks at the schema once more */
	}
	if (!rc)
		rc = make_claims(&j->sync);
	if (rc) {
		job_free(j);
		return rc;
	}
	make_fingerprint(j);
	j->bytes = size_of(j);
	pthread_mutex_lock(&rs->lock);
	if (rs->shared.stopping || rs->count.queued >= rs->options.queue_max ||
	    (rs->count.queued && rs->bytes + j->bytes > ROWSYNC_QUEUE_BYTES)) {
		rs->count.refused++;
		pthread_mutex_unlock(&rs->lock);
		job_free(j);
		return -EAGAIN;
	}
	rs->count.queued++;
	rs->bytes += j->bytes;
	enqueue(rs, j);
	pthread_cond_signal(&rs->wake);
	pthread_mutex_unlock(&rs->lock);
	return 0;
}

void rowsync_schema_changed(struct rowsync *rs, const char *keyspace)
{
	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	/* The other side may know the keyspace by another name. */
	for (enum side side = ORIGIN; side < SIDES; side++)
		schema_cache_forget(rs->shared.schema[side], rs->options.translate ? NULL : keyspace);
}

void rowsync_count(struct rowsync *rs, struct rowsync_counters *ret)
{
	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	pthread_mutex_lock(&rs->lock);
	*ret = rs->count;
	pthread_mutex_unlock(&rs->lock);
	ret->rows = atomic_load(&rs->shared.rows);
	ret->repaired = atomic_load(&rs->shared.repaired);
	ret->deleted = atomic_load(&rs->shared.deleted);
	ret->splits = atomic_load(&rs->shared.splits);
}

struct rowsync *rowsync_new(const struct rowsync_options *o, struct error *e)
{
	struct rowsync *rs = calloc(1, sizeof(*rs));
	pthread_condattr_t attributes;

	if (!rs)
		goto no_memory;
	rs->magic = ROWSYNC_MAGIC;
	rs->options = *o;
	if (!o->queue_max)
		rs->options.queue_max = 16384;
	rs->thread_count = !o->threads				   ? 2
			   : o->threads > ROWSYNC_THREADS_MAX ? ROWSYNC_THREADS_MAX
							      : o->threads;
	rs->shared.options = &rs->options;
	pthread_mutex_init(&rs->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&rs->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	rs->heap_room = rs->options.queue_max;
	rs->heap = calloc(rs->heap_room, sizeof(struct job *));
	for (enum side side = ORIGIN; side < SIDES; side++)
		rs->shared.schema[side] = schema_cache_new();
	if (!rs->heap || !rs->shared.schema[ORIGIN] || !rs->shared.schema[TARGET])
		goto no_memory;
	for (; rs->started < rs->thread_count; rs->started++) {
		struct worker_thread *w = &rs->threads[rs->started];

		w->rs = rs;
		w->node[ORIGIN] = w->node[TARGET] = rs->started;
		w->random = clock_now_ns() | 1;
		int rc = pthread_create(&w->thread, NULL, thread_main, w);

		if (rc) {
			error_set(e, -rc, "a thread for row sync cannot be started: %s", strerror(rc));
			rowsync_stop(rs);
			rowsync_free(rs);
			return NULL;
		}
	}
	return rs;
no_memory:
	error_set(e, -ENOMEM, "out of memory");
	rowsync_free(rs);
	return NULL;
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

void rowsync_stop(struct rowsync *rs)
{
	struct job *list = NULL;
	struct gate *g, *next;

	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	pthread_mutex_lock(&rs->lock);
	rs->shared.stopping = true;
	pthread_cond_broadcast(&rs->wake);
	pthread_mutex_unlock(&rs->lock);
	for (; rs->started; rs->started--)
		pthread_join(rs->threads[rs->started - 1].thread, NULL);
	while (rs->heap_count)
		cancel(heap_pop(rs), &list);
	HASH_ITER (hh, rs->gates, g, next) {
		cancel(g->list, &list);
		HASH_DEL(rs->gates, g);
		free(g);
	}
	HASH_CLEAR(hh, rs->waiting);
	while (list) {
		struct job *j = list;

		list = j->next;
		rs->count.queued -= j->waiter_count;
		rs->count.failed += j->waiter_count;
		tell(j->waiters, -ECANCELED);
		job_free(j);
	}
}

void rowsync_free(struct rowsync *rs)
{
	if (!rs)
		return;
	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	for (enum side side = ORIGIN; side < SIDES; side++)
		schema_cache_free(rs->shared.schema[side]);
	pthread_cond_destroy(&rs->wake);
	pthread_mutex_destroy(&rs->lock);
	rs->magic = 0;
	free(rs->heap);
	free(rs);
}
