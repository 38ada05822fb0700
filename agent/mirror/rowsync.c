/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of row sync, and what becomes of trouble. One lock for all that waits; it is never held while a
 * cluster is asked or a job's owner is told.
 */
#include "mirror/rowsync.h"

#include <errno.h>

#include "base/clock.h"
#include "base/magic.h"
#include "mirror/rowsync_queue.h"

#define ROWSYNC_MAGIC 0x5053594Eu
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 10000u
/* After a write whose fate is not known: longer than any server waits for its replicas. */
#define BACKOFF_UNKNOWN_MS 2500u
#define REFUSALS_MAX 12u /* of trouble that may be permanent */
#define TTL_AGE_NS 60000000000ull /* so long a default TTL is believed: who alters one past the agent finds it heeded a minute later */

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
	case -ESHUTDOWN:
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

/* ------------------------------------------------------------- running */

static void tell(struct waiter *w, int rc)
{
	for (; w; w = w->next)
		w->done(w->context, rc);
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
	job_fingerprint(j);
	if (j->probe)
		queue_add_probe(rs, j);
	else
		queue_add(rs, j);
}

static void finish(struct rowsync *rs, struct worker_thread *w, struct job *j, int rc, uint64_t wait_ns,
		   const struct table_name *table, const struct error *error)
{
	rs->count.running--;
	if (doubtful(rc) && ++j->refusals < REFUSALS_MAX && !rs->shared.stopping)
		rc = rc == -EREMOTEIO ? -ETIME : -EAGAIN;
	else if (rc == -EBUSY)
		rc = -ESTALE;
	queue_unblock(rs, j, !permanent(rc));
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
		struct job *j = queue_pick(rs, &due);

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
			atomic_fetch_add(&rs->attempts_begun, 1);
			int rc = sync_attempt(&rs->shared, w, &j->sync, &wait_ns, &table, &error);

			atomic_fetch_add(&rs->attempts_ended, 1);
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
	struct job *j;
	int rc;

	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	rc = job_new(rs, job, &j);
	if (rc)
		return rc;
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
	queue_add(rs, j);
	pthread_cond_signal(&rs->wake);
	pthread_mutex_unlock(&rs->lock);
	return 0;
}

uint32_t rowsync_moment(struct rowsync *rs)
{
	return atomic_load(&rs->attempts_ended);
}

bool rowsync_rested(struct rowsync *rs, uint32_t since)
{
	return atomic_load(&rs->attempts_begun) == since;
}

void rowsync_primary(struct rowsync *rs, enum side primary)
{
	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	atomic_store(&rs->shared.primary, (int)primary);
}

void rowsync_schema_changed(struct rowsync *rs, const char *keyspace)
{
	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	/* The other side may know the keyspace by another name. */
	for (enum side side = ORIGIN; side < SIDES; side++)
		schema_cache_forget(rs->shared.schema[side], rs->options.translate ? NULL : keyspace);
}

int rowsync_default_ttl(struct rowsync *rs, enum side side, const struct table_name *name)
{
	struct table_name there = *name;
	struct schema_table *t;
	int ttl;

	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	if (rs->options.translate && !rs->options.translate(rs->options.context, side, &there))
		return -EAGAIN;
	t = schema_cache_peek(rs->shared.schema[side], &there);
	ttl = t && clock_now_ns() - t->read_ns < TTL_AGE_NS ? t->default_ttl : -EAGAIN;
	schema_table_put(t);
	return ttl;
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
	rs->thread_count = !o->threads			      ? 2
			   : o->threads > ROWSYNC_THREADS_MAX ? ROWSYNC_THREADS_MAX
							      : o->threads;
	rs->shared.options = &rs->options;
	rs->shared.primary = -1;
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

void rowsync_stop(struct rowsync *rs)
{
	struct job *list;

	MAGIC_CHECK(rs, ROWSYNC_MAGIC);
	pthread_mutex_lock(&rs->lock);
	rs->shared.stopping = true;
	pthread_cond_broadcast(&rs->wake);
	pthread_mutex_unlock(&rs->lock);
	for (; rs->started; rs->started--)
		pthread_join(rs->threads[rs->started - 1].thread, NULL);
	list = queue_empty(rs);
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
