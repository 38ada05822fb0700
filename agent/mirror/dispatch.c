/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "mirror/barrier.h"
#include "mirror/missing.h"
#include "mirror/target.h"

#define DISPATCH_MAGIC 0xD15BA7C4u
#define TICK_MS 20
#define TICK_IDLE_MS 250
#define BACKOFF_FIRST_NS (50u * 1000000ull)
#define BACKOFF_MAX_NS (5000u * 1000000ull)
/* A schema that has not reached this node yet looks like a wrong statement; so long it is given time. */
#define PERMANENT_ATTEMPTS 8

static void on_tick(uv_timer_t *timer);

void dispatch_init(struct dispatch *d, struct mirror *m, struct worker *w, struct journal *j, enum side side)
{
	memset(d, 0, sizeof(*d));
	d->magic = DISPATCH_MAGIC;
	d->mirror = m;
	d->worker = w;
	d->journal = j;
	d->side = side;
	uv_timer_init(&w->loop, &d->timer);
	d->timer.data = d;
}

static void wind(struct dispatch *d)
{
	unsigned ms = d->delayed || d->parked || d->queued ? TICK_MS : TICK_IDLE_MS;

	if (!uv_is_closing((uv_handle_t *)&d->timer))
		uv_timer_start(&d->timer, on_tick, ms, 0);
}

void dispatch_switch(struct dispatch *d, bool on)
{
	const struct cluster *c = &d->mirror->relay->options.cluster[d->side];

	d->on = on;
	for (unsigned i = 0; on && d->target_count < c->node_count && d->target_count < DISPATCH_TARGETS; i++) {
		/* Workers begin at different nodes. */
		struct target *t = target_new(d, (d->worker->index + d->target_count) % c->node_count);

		if (!t)
			break;
		d->targets[d->target_count++] = t;
		target_tick(t, UINT64_MAX);
	}
	wind(d);
}

static void settle(struct dispatch *d)
{
	if (d->settled)
		d->settled(d);
}

static void release(struct dispatch *d, struct record *r)
{
	prepared_release(r->slot);
	journal_release(d->journal, r);
	metric_set(d->worker->metrics, METRIC_MIRROR_BACKLOG_BYTES, journal_bytes(d->journal));
}

static void finish(struct dispatch *d, struct record *r)
{
	if (r->kind != RECORD_MARK)
		metric_sub(d->worker->metrics, METRIC_MIRROR_BACKLOG, 1);
	if (r->kind == RECORD_BARRIER) {
		d->fenced = false;
		barrier_lower(r->barrier);
	}
	release(d, r);
	if (d->space)
		d->space(d);
}

/* ---- records that outlive their answer */

static struct record *retained_pop(struct dispatch *d)
{
	struct record *r = d->retained;

	d->retained = r->next;
	if (!d->retained)
		d->retained_tail = NULL;
	return r;
}

static void retained_drop_all(struct dispatch *d)
{
	while (d->retained)
		release(d, retained_pop(d));
}

static void retain(struct dispatch *d, struct record *r)
{
	metric_sub(d->worker->metrics, METRIC_MIRROR_BACKLOG, 1);
	r->retry_ns = d->worker->turn_ns;
	r->next = NULL;
	if (d->retained_tail)
		d->retained_tail->next = r;
	else
		d->retained = r;
	d->retained_tail = r;
}

static void retained_expire(struct dispatch *d, uint64_t now)
{
	bool some = false;

	while (d->retained && now - d->retained->retry_ns > d->mirror->retain_ns) {
		release(d, retained_pop(d));
		some = true;
	}
	if (some && d->space)
		d->space(d);
}

bool dispatch_shrink(struct dispatch *d)
{
	size_t before = journal_bytes(d->journal);

	if (!d->retained)
		return false;
	while (d->retained && journal_bytes(d->journal) == before)
		release(d, retained_pop(d));
	return true;
}

void dispatch_repeat(struct dispatch *d)
{
	unsigned count = 0;

	while (d->retained) {
		dispatch_push(d, retained_pop(d));
		count++;
	}
	if (count)
		log_info("mirror", "%u writes that the %s had confirmed before its node was lost are sent again", count,
			 side_name(d->side));
}

/* In the order of tickets: before the first barrier or mark with a later one. False: there is none, it goes to the end. */
static bool insert_fence(struct dispatch *d, struct record *r)
{
	for (struct record **at = &d->head; *at; at = &(*at)->next) {
		if ((*at)->kind == RECORD_WRITE || (*at)->barrier->ticket < r->barrier->ticket)
			continue;
		r->next = *at;
		*at = r;
		return true;
	}
	return false;
}

void dispatch_push(struct dispatch *d, struct record *r)
{
	r->next = NULL;
	if (r->kind == RECORD_WRITE || !insert_fence(d, r)) {
		if (d->tail)
			d->tail->next = r;
		else
			d->head = r;
		d->tail = r;
	}
	d->queued++;
	if (r->kind != RECORD_MARK)
		metric_add(d->worker->metrics, METRIC_MIRROR_BACKLOG, 1);
}

static void push_front(struct dispatch *d, struct record *r)
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

static void dead(struct dispatch *d, struct record *r, int32_t code)
{
	/* One line a second: a lost table would fill the disk with them. */
	d->dead_untold++;
	if (d->worker->turn_ns - d->dead_told_ns > 1000000000u) {
		log_error("mirror", "%u writes, the last one to %s.%s, were refused by the %s for good (error 0x%04X after %u attempts); they "
				    "are on the other side only. See cqlferry_unmirrored_total{cause=\"dead_letter\"}",
			  d->dead_untold, r->keyspace[0] ? r->keyspace : "?", r->table[0] ? r->table : "?", side_name(d->side),
			  (unsigned)code, r->attempts);
		d->dead_told_ns = d->worker->turn_ns;
		d->dead_untold = 0;
	}
	metric_add(d->worker->metrics, METRIC_MIRROR_DEAD, 1);
	metric_add(d->worker->metrics, METRIC_UNMIRRORED_DEAD, 1);
	missing_note(d->worker, r, GAP_DEAD);
	finish(d, r);
}

static void delay(struct dispatch *d, struct record *r, int32_t code)
{
	uint64_t wait = BACKOFF_FIRST_NS << (r->attempts < 7 ? r->attempts : 7);

	if (wait > BACKOFF_MAX_NS)
		wait = BACKOFF_MAX_NS;
	/* Jitter of a quarter, from the record's own address and time: many records must not come back at once. */
	wait -= (wait / 4) * ((((uintptr_t)r >> 4) ^ (r->acknowledged_ns >> 10)) & 15) / 16;
	r->attempts++;
	r->last_error = code;
	r->retry_ns = clock_now_ns() + wait;
	r->next = d->delayed;
	d->delayed = r;
	d->waiting++;
	/* What waits for a table to appear must not keep the statement waiting that makes it. */
	if (code != CQL_INVALID)
		d->delayed_blocking++;
	metric_add(d->worker->metrics, METRIC_MIRROR_RETRIED, 1);
	wind(d);
}

static bool permanent(int32_t code)
{
	return code == CQL_SYNTAX_ERROR || code == CQL_UNAUTHORIZED || code == CQL_INVALID || code == CQL_CONFIG_ERROR ||
	       code == -EBADMSG || code == -ENOTSUP || code == -ENOENT;
}

void dispatch_applied(struct dispatch *d, struct record *r)
{
	d->flying--;
	metric_add(d->worker->metrics, METRIC_MIRROR_APPLIED, 1);
	histogram_record(d->worker->metrics, HISTOGRAM_MIRROR_LAG, (d->worker->turn_ns - r->acknowledged_ns) / 1000);
	if (r->kind == RECORD_WRITE && d->mirror->retain_ns) {
		retain(d, r);
		/* It makes room as soon as room is wanted: whoever waits may try. */
		if (d->space)
			d->space(d);
	} else {
		finish(d, r);
	}
	if (dispatch_idle(d))
		settle(d);
}

void dispatch_failed(struct dispatch *d, struct record *r, int32_t code)
{
	d->flying--;
	/* The connection is gone: the record goes first when there is one again. Replaying it is harmless. */
	if (code < 0 && !permanent(code)) {
		if (r->kind == RECORD_BARRIER)
			d->fenced = false;
		push_front(d, r);
		wind(d);
		return;
	}
	/* What is there already is what was wanted: a barrier that was sent twice, or a schema made by hand. */
	if (code == CQL_ALREADY_EXISTS) {
		d->flying++;
		dispatch_applied(d, r);
		return;
	}
	if (permanent(code) && r->attempts >= PERMANENT_ATTEMPTS) {
		dead(d, r, code);
		if (dispatch_idle(d))
			settle(d);
		return;
	}
	delay(d, r, code);
}

void dispatch_park(struct dispatch *d, struct record *r)
{
	d->flying--;
	r->next = d->parked;
	d->parked = r;
	d->waiting++;
}

void dispatch_prepared(struct dispatch *d, struct prepared *p, int32_t code)
{
	struct record *all = d->parked, *r;

	/* All parked records are tried again; those whose statement is still missing park again. Others' failure is none of theirs. */
	d->parked = NULL;
	for (; all; all = r) {
		r = all->next;
		if (code > 0 && all->slot && all->slot->prepared != p) {
			all->next = d->parked;
			d->parked = all;
			continue;
		}
		d->waiting--;
		if (code > 0) {
			d->flying++;
			dispatch_failed(d, all, code);
		} else {
			push_front(d, all);
		}
	}
}

/* The target for the next record: the one with the fewest in flight, beginning where the last one ended. */
static struct target *choose(struct dispatch *d)
{
	struct target *best = NULL;

	for (unsigned i = 0; i < d->target_count; i++) {
		struct target *t = d->targets[(d->next_target + i) % d->target_count];

		if (target_ready(t) && (!best || target_inflight(t) < target_inflight(best)))
			best = t;
	}
	return best;
}

bool dispatch_up(struct dispatch *d)
{
	return choose(d) != NULL;
}

void dispatch_prepare(struct dispatch *d, struct prepared *p)
{
	struct target *t = choose(d);

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
				/* What came before a TRUNCATE must never be sent behind it. */
				retained_drop_all(d);
				barrier_reached(b);
			}
			return false;
		}
		/* Over before it was reached here: the statement failed on the primary. */
		if (!r->attempts)
			barrier_reached(b);
		barrier_put(b);
		r->barrier = NULL;
		finish(d, pop(d));
		if (dispatch_idle(d))
			settle(d);
		return true;
	}
	return clear_before_head(d) && atomic_load(&b->unreached) == 0;
}

void dispatch_pump(struct dispatch *d)
{
	while (d->head) {
		struct record *r = d->head;
		struct prepared *missing;
		struct target *t;
		int e;

		if (d->fenced && r->kind == RECORD_WRITE)
			return;
		if (r->kind == RECORD_MARK) {
			if (!fence(d, r))
				return;
			continue;
		}
		if (r->kind == RECORD_BARRIER && (d->fenced || !fence(d, r)))
			return;
		t = choose(d);
		if (!t)
			return;
		e = target_send(t, r, &missing);
		if (e == -EINPROGRESS && missing) {
			if (target_prepare(t, missing) < 0)
				return;
			d->flying++;
			dispatch_park(d, pop(d));
			continue;
		}
		if (e == -EAGAIN)
			return;
		pop(d);
		d->flying++;
		if (e < 0) {
			r->attempts = PERMANENT_ATTEMPTS;
			dispatch_failed(d, r, e == -EINPROGRESS ? -ENOENT : e);
			continue;
		}
		if (r->kind == RECORD_BARRIER) {
			d->fenced = true;
			retained_drop_all(d);
		}
		d->next_target++;
	}
}

void dispatch_flush(struct dispatch *d)
{
	if (d->head)
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
		push_front(d, r);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct dispatch *d = timer->data;
	uint64_t now = clock_now_ns();

	MAGIC_CHECK(d, DISPATCH_MAGIC);
	d->worker->turn_ns = now;
	retained_expire(d, now);
	if (!d->on && dispatch_idle(d) && !d->retained) {
		while (d->target_count)
			target_free(d->targets[--d->target_count]);
		return;
	}
	for (unsigned i = 0; i < d->target_count; i++)
		target_tick(d->targets[i], now);
	retry_due(d, now);
	dispatch_pump(d);
	dispatch_flush(d);
	wind(d);
}

static void drop_list(struct dispatch *d, struct record *list)
{
	struct record *next;

	for (; list; list = next) {
		next = list->next;
		if (list->kind == RECORD_MARK) {
			if (!list->attempts)
				barrier_reached(list->barrier);
			barrier_put(list->barrier);
			list->barrier = NULL;
		} else {
			metric_add(d->worker->metrics, METRIC_UNMIRRORED_DEAD, 1);
			missing_note(d->worker, list, GAP_UNDELIVERED);
		}
		finish(d, list);
	}
}

void dispatch_close(struct dispatch *d)
{
	uint32_t left;

	d->space = NULL;
	d->settled = NULL;
	while (d->target_count)
		target_free(d->targets[--d->target_count]);
	left = d->queued + d->waiting;
	if (left)
		log_error("mirror", "%u acknowledged writes were not delivered to the %s before the agent ended", left,
			  side_name(d->side));
	drop_list(d, d->head);
	drop_list(d, d->delayed);
	drop_list(d, d->parked);
	retained_drop_all(d);
	d->head = d->tail = d->delayed = d->parked = NULL;
	d->queued = d->waiting = 0;
	uv_close((uv_handle_t *)&d->timer, NULL);
}
