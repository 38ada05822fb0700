/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in the journal, without a record in memory, and how it comes back into the queue.
 *
 *   journal of an earlier life ─ epoch by epoch, each behind the barrier that ended the one before ─┐
 *   own journal ─ file by file, up to the first fence (mark or barrier) ─────────────────────────────┴─▶ queue
 *
 * A fence ended its file when it came (journal_roll), so "everything before it" is a number of files.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mirror/ailing.h"
#include "mirror/barrier.h"
#include "mirror/dispatch.h"
#include "mirror/hold.h"
#include "mirror/missing.h"
#include "mirror/tables.h"

bool backlog_held(const struct dispatch *d, const struct record *r)
{
	return ailing_now(d->ailing, r->cell, d->worker->turn_ns) || mirror_holds(d->mirror, d->worker, r);
}

bool backlog_flows(const struct dispatch *d, const struct record *r)
{
	return d->queued + d->waiting < DISPATCH_LIVE && !d->fences && journal_waiting(d->journal) == 0 &&
	       atomic_load_explicit(&d->mirror->recovered_barriers, memory_order_relaxed) == 0 &&
	       (r->kind == RECORD_MARK || !backlog_held(d, r));
}

/* The files before the one with this sequence come before the fence. */
static uint64_t fence_end(const struct record *r)
{
	return r->kind == RECORD_MARK ? r->at : r->file->sequence + 1;
}

void backlog_fence(struct dispatch *d, struct record *r)
{
	struct record **at = &d->fences;

	while (*at && fence_end(*at) <= fence_end(r))
		at = &(*at)->next;
	r->next = *at;
	*at = r;
}

static bool resolve(struct dispatch *d, struct record *r)
{
	struct span id;

	if (r->opcode != OP_EXECUTE)
		return true;
	if (request_execute_id(r->header_flags, record_body(r), &id) < 0)
		return false;
	r->slot = prepared_find(d->worker->prepared, id);
	if (r->slot)
		prepared_use(r->slot);
	return r->slot != NULL;
}

/* It ends before it was in the queue. */
static enum journal_take lost(struct dispatch *d, struct record *r, enum gap_cause cause)
{
	if (r->kind == RECORD_BARRIER)
		d->barriers++; /* its end counts it out */
	dispatch_give_up(d, r, cause);
	return JOURNAL_TAKE;
}

static enum journal_take take(void *context, struct record *r)
{
	struct dispatch *d = context;
	int64_t age;

	if (d->queued + d->waiting >= DISPATCH_LIVE)
		return JOURNAL_STOP;
	if (!resolve(d, r))
		return lost(d, r, GAP_DEAD);
	r->cell = missing_cell(d->worker, r);
	tables_add(d->tables, r);
	if (backlog_held(d, r)) {
		prepared_release(r->slot);
		return JOURNAL_LEAVE;
	}
	/* What was in doubt when the agent died, or is since its answer: the rows tell, or nobody can. */
	if (r->sent || (r->unknown && (r->entry == ENTRY_COUNT || r->entry == ENTRY_BARRIER)))
		return lost(d, r, GAP_UNKNOWN_OUTCOME);
	if (r->unknown)
		r->entry = ENTRY_ROWS;
	age = clock_wall_us() / 1000000 - (int64_t)r->now;
	r->acknowledged_ns = d->worker->turn_ns - (age > 0 ? (uint64_t)age * 1000000000u : 0);
	dispatch_enqueue(d, r);
	return JOURNAL_TAKE;
}

/* ---- of an earlier life */

static uint32_t writes_waiting(const struct journal_file *f)
{
	return f->spilled - f->left - (f->barrier_ticket != UINT64_MAX);
}

static enum journal_take take_writes(void *context, struct record *r)
{
	return r->kind == RECORD_BARRIER ? JOURNAL_STOP : take(context, r);
}

/* Records of it that are in memory. */
static bool recovered_busy(const struct dispatch *d)
{
	return journal_open_entries(d->recovered) > journal_waiting(d->recovered) + journal_left(d->recovered);
}

static void refill_recovered(struct dispatch *d)
{
	struct journal_file *f, *barrier;
	uint64_t epoch, ticket;

	while (journal_waiting(d->recovered) && d->barriers == 0) {
		uint32_t before = journal_waiting(d->recovered);

		epoch = ticket = UINT64_MAX;
		barrier = NULL;
		for (f = journal_files(d->recovered); f; f = f->next) {
			if (writes_waiting(f) && f->epoch < epoch)
				epoch = f->epoch;
			if (f->barrier_ticket < ticket) {
				ticket = f->barrier_ticket;
				barrier = f;
			}
		}
		if (barrier && ticket < epoch) {
			/* Of a table on hold it stays, and with it what comes behind. */
			if (recovered_busy(d) || !journal_refill_file(barrier, take, d) || journal_waiting(d->recovered) == before)
				return;
			continue;
		}
		for (f = journal_files(d->recovered); f; f = f->next)
			if (f->epoch == epoch && !journal_refill_file(f, take_writes, d) && d->queued + d->waiting >= DISPATCH_LIVE)
				return;
		if (journal_waiting(d->recovered) == before)
			return;
	}
}

/* ---- of this one */

/* A mark whose barrier is older than the one that stands in the queue must come before that. */
static struct record *overdue(struct dispatch *d)
{
	const struct record *barrier = d->head;

	while (barrier && barrier->kind != RECORD_BARRIER)
		barrier = barrier->next;
	for (struct record **at = &d->fences; barrier && barrier->barrier && *at; at = &(*at)->next) {
		struct record *r = *at;

		if (r->kind == RECORD_MARK && r->barrier->ticket < barrier->barrier->ticket) {
			*at = r->next;
			return r;
		}
	}
	return NULL;
}

static void refill_own(struct dispatch *d)
{
	struct record *r;

	for (;;) {
		while ((r = overdue(d)))
			dispatch_enqueue(d, r);
		if (d->barriers)
			return;
		if (!journal_refill(d->journal, d->fences ? fence_end(d->fences) : UINT64_MAX, take, d))
			return;
		r = d->fences;
		if (!r || (r->kind == RECORD_BARRIER && backlog_held(d, r)))
			return;
		d->fences = r->next;
		dispatch_enqueue(d, r);
	}
}

void backlog_refill(struct dispatch *d)
{
	if (d->queued + d->waiting > DISPATCH_LIVE / 2)
		return;
	if (d->recovered)
		refill_recovered(d);
	if (atomic_load_explicit(&d->mirror->recovered_barriers, memory_order_relaxed) == 0 &&
	    (journal_waiting(d->journal) || d->fences))
		refill_own(d);
}

void backlog_rescan(struct dispatch *d)
{
	journal_rescan(d->journal);
	if (d->recovered)
		journal_rescan(d->recovered);
}
