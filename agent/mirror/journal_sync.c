/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/journal_sync.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "mirror/recovery.h"
#include "relay/tap.h"
#include "relay/worker.h"

static void start(struct journal_syncer *s);

static void run(uv_work_t *work)
{
	struct journal_syncer *s = work->data;

	s->result = 0;
	for (unsigned i = 0; i < s->count; i++)
		if (fdatasync(s->files[i]->fd) < 0)
			s->result = -errno;
	if (s->result == 0 && s->mark)
		s->result = recovery_mark(s->mark, s->began_us);
}

static void done(uv_work_t *work, int status)
{
	struct journal_syncer *s = work->data;
	bool ok = status == 0 && s->result == 0;

	s->running = false;
	for (unsigned i = 0; i < s->count; i++)
		journal_synced(s->files[i], ok);
	if (ok) {
		metric_add(s->worker->metrics, METRIC_JOURNAL_SYNCS, 1);
	} else if (status == 0) {
		metric_add(s->worker->metrics, METRIC_JOURNAL_SYNC_ERRORS, 1);
		log_error("mirror", "the journal cannot be synced: %s. Until it can, a crash of the node may lose what was mirrored since",
			  strerror(-s->result));
	}
	if (s->how == JOURNAL_SYNC_COMMIT) {
		relay_durable(s->worker, s->flying);
		if (ok)
			start(s); /* what came meanwhile */
	}
}

static void start(struct journal_syncer *s)
{
	if (s->running || s->closing)
		return;
	s->count = 0;
	for (unsigned i = 0; i < s->journal_count; i++)
		s->count += journal_dirty(s->journals[i], s->files + s->count, JOURNAL_SYNC_FILES - s->count);
	if (s->count == 0 && !(s->mark && s->how == JOURNAL_SYNC_INTERVAL))
		return;
	s->began_us = clock_wall_us();
	s->flying = s->group++;
	s->running = uv_queue_work(&s->worker->loop, &s->work, run, done) == 0;
	if (!s->running)
		for (unsigned i = 0; i < s->count; i++)
			journal_synced(s->files[i], false);
}

static void on_timer(uv_timer_t *timer)
{
	start(timer->data);
}

static void on_turn(uv_check_t *check)
{
	start(check->data);
}

void journal_syncer_init(struct journal_syncer *s, struct worker *w, enum journal_sync how, unsigned interval_ms,
			 struct journal *const *journals, unsigned count, struct recovery *mark)
{
	*s = (struct journal_syncer){.worker = w, .mark = mark, .journals = journals, .journal_count = count, .how = how,
				     .interval_ms = interval_ms, .group = 1};
	s->work.data = s->timer.data = s->turn.data = s;
	uv_timer_init(&w->loop, &s->timer);
	uv_check_init(&w->loop, &s->turn);
	if (how == JOURNAL_SYNC_INTERVAL || how == JOURNAL_SYNC_COMMIT)
		uv_timer_start(&s->timer, on_timer, interval_ms, interval_ms);
	if (how == JOURNAL_SYNC_COMMIT)
		uv_check_start(&s->turn, on_turn);
}

void journal_syncer_close(struct journal_syncer *s)
{
	s->closing = true;
	uv_close((uv_handle_t *)&s->timer, NULL);
	uv_close((uv_handle_t *)&s->turn, NULL);
}
