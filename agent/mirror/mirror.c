/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/mirror.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "cql/scope.h"
#include "mirror/dead.h"
#include "mirror/recovery.h"
#include "mirror/replicas.h"
#include "mirror/rowsync.h"
#include "mirror/tables.h"
#include "mirror/tap.h"
#include "relay/worker.h"

#define DEAD_SHARE 16u /* of the budget, dead letters get one part in */

static void say_found(const struct recovery_found *found)
{
	if (found->files)
		log_info("mirror", "journal of %u earlier run%s: %llu writes to deliver, %llu in doubt, %llu MiB read in %llu ms", found->lives,
			 found->lives == 1 ? "" : "s", (unsigned long long)found->queued, (unsigned long long)found->in_doubt,
			 (unsigned long long)found->bytes >> 20, (unsigned long long)found->nanoseconds / 1000000);
}

/* Row sync calls these from threads of its own; a scope does not change. */
static bool target_name(void *context, enum side to, struct table_name *name)
{
	if (to == TARGET)
		scope_translate(context, name);
	return true;
}

static bool left_out(void *context, const struct table_name *name)
{
	return !scope_has(context, name);
}

int mirror_open(struct mirror *m, struct relay *relay, const struct mirror_options *options, struct recovery_found *found,
		struct error *error)
{
	int r;

	*m = (struct mirror){.relay = relay, .options = *options};
	pthread_mutex_init(&m->replicas_lock, NULL);
	m->journals.budget = options->budget;
	/* Both directions of each worker need some files at least. */
	m->journals.file_size = options->budget / (relay->options.workers * 16u) & ~(size_t)4095;
	if (m->journals.file_size > JOURNAL_FILE_MAX)
		m->journals.file_size = JOURNAL_FILE_MAX;
	if (m->journals.file_size < JOURNAL_FILE_MIN)
		m->journals.file_size = JOURNAL_FILE_MIN;
	m->journals.retain_ns = (uint64_t)options->retain_ms * 1000000u;
	m->journals.epoch = &m->barriers;
	holds_init(&m->holds, options->strict_holds);
	r = holds_load(&m->holds, options->state_directory, error);
	if (r == 0)
		r = dead_open(options->state_directory, options->budget / DEAD_SHARE, &m->dead, error);
	if (r == 0)
		r = recovery_open(options->state_directory, options->sync, &m->journals, &m->recovery, found, error);
	if (r < 0)
		return r;
	if (relay->options.cluster[TARGET].node_count) {
		struct rowsync_options rows = {.relay = &relay->options, .threads = options->rows_threads, .context = (void *)relay->options.scope,
					       .translate = scope_renames(relay->options.scope) ? target_name : NULL,
					       .passes_over = scope_filters(relay->options.scope) ? left_out : NULL};

		m->rowsync = rowsync_new(&rows, error);
		if (!m->rowsync)
			return -ENOMEM;
	}
	atomic_store(&m->recovered_barriers, (uint32_t)found->barriers);
	say_found(found);
	return 0;
}

static void adopt_target(struct worker *w, void *journal)
{
	tap_adopt(w, TARGET, journal);
}

static void adopt_origin(struct worker *w, void *journal)
{
	tap_adopt(w, ORIGIN, journal);
}

int mirror_look(struct mirror *m, struct error *error)
{
	struct recovery_found found = {0};
	int r = recovery_look(m->recovery, &found, error);

	recovery_statements(m->recovery, m->relay->prepared);
	atomic_fetch_add(&m->recovered_barriers, (uint32_t)found.barriers);
	for (int side = 0; side < SIDES; side++) {
		struct journal *j = recovery_take(m->recovery, side);

		if (j && worker_post(m->relay->workers[0], side == TARGET ? adopt_target : adopt_origin, j) < 0)
			journal_free(j); /* it stays on disk for the next life */
	}
	say_found(&found);
	return r;
}

uint32_t mirror_barriers_waiting(const struct mirror *m)
{
	return atomic_load(&m->open_barriers) + atomic_load(&m->recovered_barriers);
}

void mirror_tick(struct mirror *m, struct metrics *metrics)
{
	struct rowsync_counters c = {0};

	if (m->rowsync)
		rowsync_count(m->rowsync, &c);
	metric_set(metrics, METRIC_ROWSYNC_WAITING, c.queued + c.running);
	metric_set(metrics, METRIC_ROWSYNC_DONE, c.done);
	metric_set(metrics, METRIC_ROWSYNC_FAILED, c.failed);
	metric_set(metrics, METRIC_ROWSYNC_MERGED, c.merged);
	metric_set(metrics, METRIC_ROWSYNC_ROWS, c.rows);
	metric_set(metrics, METRIC_ROWSYNC_REPAIRED, c.repaired);
	metric_set(metrics, METRIC_ROWSYNC_DELETED, c.deleted);
	metric_set(metrics, METRIC_JOURNAL_WRITTEN, atomic_load(&m->journals.written));
	metric_set(metrics, METRIC_JOURNAL_HELD, atomic_load(&m->journals.held));
}

void mirror_stop(struct mirror *m)
{
	if (m->rowsync)
		rowsync_stop(m->rowsync);
}

void mirror_close(struct mirror *m)
{
	if (!m->relay)
		return;
	rowsync_free(m->rowsync);
	recovery_close(m->recovery);
	dead_close(m->dead);
	holds_done(&m->holds);
	replicas_put(m->replicas);
	pthread_mutex_destroy(&m->replicas_lock);
}

static void take_replicas(struct worker *w, void *context)
{
	struct mirror *m = context;
	struct tap *t = w->tap;

	if (!t)
		return;
	replicas_put(t->dispatch[TARGET].replicas);
	pthread_mutex_lock(&m->replicas_lock);
	t->dispatch[TARGET].replicas = m->replicas ? replicas_get(m->replicas) : NULL;
	pthread_mutex_unlock(&m->replicas_lock);
}

void mirror_route(struct mirror *m, struct replicas *replicas)
{
	struct replicas *before;

	pthread_mutex_lock(&m->replicas_lock);
	before = m->replicas;
	m->replicas = replicas;
	pthread_mutex_unlock(&m->replicas_lock);
	replicas_put(before);
	/* No reference travels in the message: one that comes after a worker's end is dropped. */
	for (unsigned i = 0; i < m->relay->worker_count; i++)
		worker_post(m->relay->workers[i], take_replicas, m);
}

uint32_t mirror_tables(struct mirror *m, void (*each)(void *context, const struct table_size *s), void *context)
{
	uint32_t oldest = 0;

	for (unsigned i = 0; i < m->relay->worker_count; i++) {
		struct tap *t = m->relay->workers[i]->tap;

		for (int side = 0; t && side < SIDES; side++) {
			uint32_t one = tables_read(t->dispatch[side].tables, each, context);

			oldest = one && (!oldest || one < oldest) ? one : oldest;
		}
	}
	return oldest;
}

static void rescan(struct worker *w, void *context)
{
	(void)context;
	tap_rescan(w);
}

int mirror_hold(struct mirror *m, const char *keyspace, const char *table, enum hold_by by, bool hold, struct error *error)
{
	int (*const change)(struct holds *, const char *, const char *, enum hold_by) = hold ? holds_add : holds_remove;
	int r;

	if (strlen(keyspace) > CQL_NAME_MAX || strlen(table) > CQL_NAME_MAX)
		return error_set(error, -EINVAL, "%.60s.%.60s: names longer than %d characters cannot be held", keyspace, table, CQL_NAME_MAX);
	r = change(&m->holds, keyspace, table, by);
	if (r == -E2BIG)
		return error_set(error, r, "%d tables are on hold already", HOLDS_MAX);
	if (r < 0)
		return error_set(error, r, "out of memory");
	return r;
}

int mirror_holds_kept(struct mirror *m, struct error *error)
{
	return holds_save(&m->holds, m->options.state_directory, error);
}

void mirror_rescan(struct mirror *m)
{
	for (unsigned i = 0; i < m->relay->worker_count; i++)
		worker_post(m->relay->workers[i], rescan, NULL);
}
