/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/dispatch_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "cql/request.h"
#include "mirror/ailing.h"
#include "mirror/barrier.h"
#include "mirror/dead.h"
#include "mirror/late.h"
#include "mirror/missing.h"
#include "mirror/recovery.h"
#include "mirror/replicas.h"
#include "mirror/rows.h"
#include "mirror/rowsync.h"
#include "mirror/tables.h"
#include "mirror/tap.h"
#include "mirror/target.h"

#define DISPATCH_MAGIC 0xD15BA7C4u
#define TICK_MS 20
#define TICK_IDLE_MS 250
#define RECLAIM_NS (100u * 1000000ull)
#define RESCAN_NS (1000u * 1000000ull)

static void on_tick(uv_timer_t *timer);

int dispatch_init(struct dispatch *d, struct mirror *m, struct worker *w, enum side side, struct error *error)
{
	memset(d, 0, sizeof(*d));
	d->magic = DISPATCH_MAGIC;
	d->mirror = m;
	d->worker = w;
	d->side = side;
	d->ailing = ailing_new();
	d->tables = tables_new();
	if (!d->ailing || !d->tables)
		return error_set(error, -ENOMEM, "out of memory");
	if (w->index == 0) {
		d->recovered = recovery_take(m->recovery, side);
		metric_add(w->metrics, METRIC_MIRROR_BACKLOG, d->recovered ? journal_open_entries(d->recovered) : 0);
	}
	uv_timer_init(&w->loop, &d->timer);
	d->timer.data = d;
	d->journal = journal_new(&m->journals, w->index, side);
	d->again = journal_new(&m->journals, w->index, side);
	return d->journal && d->again ? 0 : error_set(error, -ENOMEM, "out of memory");
}

void dispatch_done(struct dispatch *d)
{
	journal_free(d->journal);
	journal_free(d->again);
	journal_free(d->recovered);
	ailing_free(d->ailing);
	tables_free(d->tables);
	replicas_put(d->replicas);
	room_done(&d->room);
}

bool dispatch_idle(const struct dispatch *d)
{
	return d->queued == 0 && d->waiting == 0 && d->flying == 0 && !d->fences && journal_waiting(d->journal) == 0 &&
	       journal_left(d->journal) == 0 && (!d->recovered || journal_open_entries(d->recovered) == 0);
}

void dispatch_wind(struct dispatch *d)
{
	unsigned ms = dispatch_idle(d) ? TICK_IDLE_MS : TICK_MS;

	if (!uv_is_closing((uv_handle_t *)&d->timer))
		uv_timer_start(&d->timer, on_tick, ms, 0);
}

void dispatch_switch(struct dispatch *d, bool on)
{
	const struct cluster *c = &d->mirror->relay->options.cluster[d->side];

	d->on = on;
	/* What an earlier life left for a side that nothing is mirrored to any more has to get there all the same. */
	on |= d->recovered != NULL;
	for (unsigned i = 0; on && d->target_count < c->node_count && d->target_count < DISPATCH_TARGETS; i++) {
		/* Workers begin at different nodes. */
		struct target *t = target_new(d, (d->worker->index + d->target_count) % c->node_count);

		if (!t)
			break;
		d->targets[d->target_count++] = t;
		target_tick(t, UINT64_MAX);
	}
	dispatch_wind(d);
}

void dispatch_adopt(struct dispatch *d, struct journal *journal)
{
	metric_add(d->worker->metrics, METRIC_MIRROR_BACKLOG, journal_open_entries(journal));
	if (d->recovered)
		journal_merge(d->recovered, journal);
	else
		d->recovered = journal;
	backlog_withdraw(d); /* it is older than every fence */
	dispatch_switch(d, d->on);
	dispatch_pump(d);
}

static void mark_over(struct dispatch *d, struct record *r)
{
	barrier_put(r->barrier);
	journal_mark_free(d->journal, r);
}

/* ---- what was confirmed and may be forgotten */

bool dispatch_shrink(struct dispatch *d)
{
	return (d->recovered && journal_shrink(d->recovered)) || journal_shrink(d->journal);
}

void dispatch_repeat(struct dispatch *d)
{
	uint32_t count;

	/* A fence that has not been reached stands behind what is sent again: it is put in its place anew. */
	if (journal_keeps(d->journal) || (d->recovered && journal_keeps(d->recovered)))
		backlog_withdraw(d);
	count = journal_repeat(d->journal) + (d->recovered ? journal_repeat(d->recovered) : 0);
	if (!count)
		return;
	metric_add(d->worker->metrics, METRIC_MIRROR_BACKLOG, count);
	tables_repeated(d->tables);
	log_info("mirror", "%u writes that the %s had confirmed before its node was lost are sent again", count, side_name(d->side));
	dispatch_wind(d);
}

/* What came before a TRUNCATE must never be sent behind it. */
static void forget(struct dispatch *d)
{
	journal_forget(d->journal);
	if (d->recovered)
		journal_forget(d->recovered);
}

/* ---- the queue */

/* In the order of tickets: before the first barrier or mark with a later one. False: there is none, it goes to the end. */
static bool insert_fence(struct dispatch *d, struct record *r)
{
	for (struct record **at = &d->head; *at; at = &(*at)->next) {
		if (!(*at)->barrier || (*at)->barrier->ticket < r->barrier->ticket)
			continue;
		r->next = *at;
		*at = r;
		return true;
	}
	return false;
}

void dispatch_enqueue(struct dispatch *d, struct record *r)
{
	r->next = NULL;
	/* A barrier of an earlier life has no ticket of this one; nothing else is in the queue with it. */
	if (!r->barrier || !insert_fence(d, r)) {
		if (d->tail)
			d->tail->next = r;
		else
			d->head = r;
		d->tail = r;
	}
	d->queued++;
	if (r->kind == RECORD_BARRIER)
		d->barriers++;
}

void dispatch_push(struct dispatch *d, struct record *r)
{
	if (r->kind == RECORD_MARK) {
		r->at = journal_roll(d->journal);
	} else {
		metric_add(d->worker->metrics, METRIC_MIRROR_BACKLOG, 1);
		tables_add(d->tables, r);
	}
	if (backlog_flows(d, r)) {
		dispatch_enqueue(d, r);
	} else if (r->kind != RECORD_WRITE) {
		backlog_fence(d, r);
	} else {
		dispatch_answer(d, r, false);
		prepared_release(r->slot);
		journal_spill(r);
	}
}

void dispatch_push_front(struct dispatch *d, struct record *r)
{
	r->next = d->head;
	d->head = r;
	if (!d->tail)
		d->tail = r;
	d->queued++;
}

static struct record *pop(struct dispatch *d)
{
	struct record *r = d->head;

	d->head = r->next;
	if (!d->head)
		d->tail = NULL;
	d->queued--;
	r->next = NULL;
	return r;
}

void dispatch_park(struct dispatch *d, struct record *r)
{
	d->flying--;
	r->next = d->parked;
	d->parked = r;
	d->waiting++;
}

/* Refused before it was sent: nothing of it can have arrived, whatever the code says. */
static void refuse_unsent(struct dispatch *d, struct record *r, int32_t code)
{
	if (error_write_outcome(code, true) == WRITE_UNKNOWN) {
		dispatch_delay(d, r, code);
		return;
	}
	d->flying++;
	dispatch_failed(d, r, code);
}

static bool executes(const struct dispatch *d, const struct record *r, const struct prepared *p)
{
	struct request q;
	struct batch_child child;

	if (r->slot)
		return r->slot->prepared == p;
	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return false;
	while (batch_next(q.version, &q.batch_children, &child) > 0) {
		const struct prepared_slot *slot = child.prepared ? prepared_find(d->worker->prepared, child.text) : NULL;

		if (slot && slot->prepared == p)
			return true;
	}
	return false;
}

void dispatch_prepared(struct dispatch *d, struct prepared *p, int32_t code)
{
	struct record *all = d->parked, *r;

	/* All parked records are tried again; those whose statement is still missing park again. Others' failure is none of theirs. */
	d->parked = NULL;
	for (; all; all = r) {
		r = all->next;
		if (code > 0 && !executes(d, all, p)) {
			all->next = d->parked;
			d->parked = all;
			continue;
		}
		d->waiting--;
		if (code > 0) {
			refuse_unsent(d, all, code);
		} else {
			if (all->kind == RECORD_BARRIER)
				d->fenced = false;
			dispatch_push_front(d, all);
		}
	}
}

bool dispatch_up(struct dispatch *d)
{
	return dispatch_choose(d) != NULL;
}

bool dispatch_resting(struct dispatch *d)
{
	return d->flying == 0 && (d->queued == 0 || !dispatch_up(d));
}

bool dispatch_rest(struct dispatch *d)
{
	d->resting = true;
	return d->flying == d->rows_count;
}

void dispatch_prepare(struct dispatch *d, struct prepared *p)
{
	struct target *t = dispatch_choose(d);

	if (t)
		target_prepare(t, p);
}

/* Whether everything before the head of the queue is through. */
static bool clear_before_head(const struct dispatch *d)
{
	return d->flying == 0 && !d->parked && d->delayed_blocking == 0;
}

/* The head is a mark or a barrier. True: it has been dealt with or may be sent; false: wait. */
static bool fence(struct dispatch *d, struct record *r)
{
	struct barrier *b = r->barrier;

	if (r->kind == RECORD_MARK) {
		if (!atomic_load(&b->over)) {
			if (!r->attempts && clear_before_head(d)) {
				r->attempts = 1;
				forget(d);
				barrier_reached(b);
			}
			return false;
		}
		/* Over before it was reached here: the statement failed on the primary. */
		if (!r->attempts)
			barrier_reached(b);
		mark_over(d, pop(d));
		if (dispatch_idle(d) && d->settled)
			d->settled(d);
		return true;
	}
	return clear_before_head(d) && (!b || atomic_load(&b->unreached) == 0);
}

void dispatch_postpone(struct dispatch *d, struct record *r)
{
	d->flying--;
	dispatch_answer(d, r, false);
	prepared_release(r->slot);
	journal_spill(r);
}

static void sync_rows(struct dispatch *d, struct record *r)
{
	int e = rows_submit(d, r);

	d->flying++;
	if (e == 0)
		return;
	d->flying--;
	if (e == -EAGAIN || e == -ECANCELED) {
		dispatch_delay(d, r, CQL_OVERLOADED);
	} else if (e == -ENOTSUP && !r->unknown && !r->sent) {
		r->entry = ENTRY_COUNT;
		dispatch_push_front(d, r); /* a fence may stand behind it */
	} else {
		rows_give_up(d, r, e);
	}
}

/* Sends the head, or hands it to the row sync. False: not now. */
static bool send_head(struct dispatch *d, struct record *r)
{
	struct prepared *missing;
	struct target *t;
	bool holds;
	int e;

	late_turn(d, r);
	if (r->entry == ENTRY_ROWS && !r->once) {
		sync_rows(d, pop(d));
		return true;
	}
	t = dispatch_choose_for(d, r, &holds);
	if (!t)
		return false;
	e = target_send(t, r, &missing);
	if (e == -EINPROGRESS && missing) {
		e = target_prepare(t, missing);
		if (e == 0) {
			d->fenced |= r->kind == RECORD_BARRIER;
			d->flying++;
			dispatch_park(d, pop(d));
			return true;
		}
	}
	if (e == -EAGAIN)
		return false;
	pop(d);
	if (e > 0) {
		d->fenced |= r->kind == RECORD_BARRIER; /* what comes behind it waits for its next attempt */
		refuse_unsent(d, r, e);
		return true;
	}
	d->flying++;
	if (e < 0) {
		dispatch_spend(d, r);
		dispatch_failed(d, r, e == -EINPROGRESS ? -ENOENT : e);
		return true;
	}
	if (d->replicas && r->opcode == OP_EXECUTE)
		metric_add(d->worker->metrics, holds ? METRIC_MIRROR_TO_REPLICA : METRIC_MIRROR_TO_OTHER, 1);
	if (r->entry == ENTRY_COUNT)
		journal_sent(r);
	if (r->kind == RECORD_BARRIER) {
		d->fenced = true;
		forget(d);
	}
	d->next_target++;
	return true;
}

void dispatch_pump(struct dispatch *d)
{
	if (d->resting)
		return;
	backlog_refill(d);
	while (d->head) {
		struct record *r = d->head;

		if (d->fenced && r->kind == RECORD_WRITE)
			return;
		if (r->kind == RECORD_MARK) {
			if (!fence(d, r))
				return;
		} else if (r->kind == RECORD_BARRIER && (d->fenced || !fence(d, r))) {
			return;
		} else if (!send_head(d, r)) {
			return;
		}
		if (!d->head)
			backlog_refill(d);
	}
}

void dispatch_flush(struct dispatch *d)
{
	if (d->head || journal_waiting(d->journal))
		dispatch_pump(d);
	for (unsigned i = 0; i < d->target_count; i++)
		target_flush(d->targets[i]);
}

static void retry_due(struct dispatch *d, uint64_t now)
{
	struct record **at = &d->delayed, *r;

	while ((r = *at)) {
		if (r->retry_ns > now) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		d->waiting--;
		if (r->last_error != CQL_INVALID)
			d->delayed_blocking--;
		if (r->kind == RECORD_BARRIER)
			d->fenced = false;
		dispatch_push_front(d, r);
	}
}

/* Space comes back, and what was held is looked at again. */
static void housekeep(struct dispatch *d, uint64_t now)
{
	const struct journals *all = &d->mirror->journals;

	if (now - d->reclaimed_ns > RECLAIM_NS) {
		d->reclaimed_ns = now;
		journal_reclaim(d->journal, now);
		journal_reclaim(d->again, now);
		/* Another worker's writes must not wait for what is kept here only as a precaution. */
		if (atomic_load(&all->held) > all->budget / 8 * 7)
			dispatch_shrink(d);
		if (d->recovered) {
			journal_reclaim(d->recovered, now);
			if (!journal_files(d->recovered)) {
				journal_free(d->recovered);
				d->recovered = NULL;
			}
		}
		if (d->space)
			d->space(d);
		metric_set(d->worker->metrics, d->side == TARGET ? METRIC_MIRROR_BACKLOG_BYTES : METRIC_MIRROR_REVERSE_BYTES,
			   journal_bytes(d->journal) + (d->recovered ? journal_bytes(d->recovered) : 0));
	}
	if (now - d->rescanned_ns > RESCAN_NS) {
		d->rescanned_ns = now;
		backlog_rescan(d);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct dispatch *d = timer->data;
	uint64_t now = clock_now_ns();

	MAGIC_CHECK(d, DISPATCH_MAGIC);
	d->worker->turn_ns = now;
	housekeep(d, now);
	tables_publish(d, now);
	/* While something is kept, the connections stay: by them we learn that a node has forgotten it. */
	if (!d->on && dispatch_idle(d) && !journal_keeps(d->journal)) {
		while (d->target_count)
			target_free(d->targets[--d->target_count]);
		dispatch_wind(d);
		return;
	}
	for (unsigned i = 0; i < d->target_count; i++)
		target_tick(d->targets[i], now);
	retry_due(d, now);
	dispatch_pump(d);
	dispatch_flush(d);
	dispatch_wind(d);
}

/* The handles end; the entries stay, where there is a disk. */
static void drop_list(struct dispatch *d, struct record *list, bool keep)
{
	struct record *next;

	for (; list; list = next) {
		next = list->next;
		if (list->kind == RECORD_MARK) {
			/* What waits on disk comes before the barrier in the next life, too. */
			if (!list->attempts && !d->left_behind)
				barrier_reached(list->barrier);
			mark_over(d, list);
			continue;
		}
		if (list->barrier)
			barrier_lower(list->barrier);
		list->barrier = NULL;
		if (!keep) {
			metric_add(d->worker->metrics, METRIC_UNMIRRORED_DEAD, 1);
			missing_note(d->worker, list, GAP_UNDELIVERED);
		}
		dispatch_answer(d, list, false);
		prepared_release(list->slot);
		if (keep)
			journal_spill(list);
		else
			journal_done(list);
	}
}

static enum journal_take lose(void *context, struct record *r)
{
	struct dispatch *d = context;

	metric_add(d->worker->metrics, METRIC_UNMIRRORED_DEAD, 1);
	missing_note(d->worker, r, GAP_UNDELIVERED);
	journal_done(r);
	return JOURNAL_TAKE;
}

void dispatch_close(struct dispatch *d)
{
	bool keep = d->mirror->journals.directory >= 0;
	struct record *r;
	uint32_t left;

	d->space = NULL;
	d->settled = NULL;
	d->left_behind = keep && (journal_open_entries(d->journal) || (d->recovered && journal_open_entries(d->recovered)));
	while (d->target_count)
		target_free(d->targets[--d->target_count]);
	while ((r = rows_take_back(d))) {
		r->next = NULL;
		drop_list(d, r, keep);
	}
	drop_list(d, d->head, keep);
	drop_list(d, d->delayed, keep);
	drop_list(d, d->parked, keep);
	drop_list(d, d->fences, keep);
	d->head = d->tail = d->delayed = d->parked = d->fences = NULL;
	d->queued = d->waiting = 0;
	journal_rescan(d->journal);
	left = journal_waiting(d->journal);
	if (left && keep)
		log_info("mirror", "%u acknowledged writes for the %s wait in the journal for the next start", left, side_name(d->side));
	else if (left)
		log_error("mirror", "%u acknowledged writes were not delivered to the %s before the agent ended", left, side_name(d->side));
	if (!keep)
		journal_refill(d->journal, UINT64_MAX, lose, d);
	uv_close((uv_handle_t *)&d->timer, NULL);
}
