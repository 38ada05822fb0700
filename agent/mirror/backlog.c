/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in the journal, without a record in memory, and how it comes back into the queue.
 *
 *   journal of an earlier life ─ epoch by epoch, each behind the barrier that ended the one before ─┐
 *   own journal ─ file by file, up to the first fence (mark or barrier) ─────────────────────────────┴─▶ queue
 *
 * A fence ended its file when it came (journal_roll), so "everything before it" is a number of files, and all of an earlier life.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mirror/ailing.h"
#include "mirror/barrier.h"
#include "mirror/dispatch_priv.h"
#include "mirror/hold.h"
#include "mirror/missing.h"
#include "mirror/tables.h"

bool backlog_held(const struct dispatch *d, const struct record *r)
{
	return ailing_now(d->ailing, r->cell, d->worker->turn_ns) || mirror_holds(d->mirror, d->worker, r);
}

static bool share_a_table(const struct gap *g, uint16_t a, uint16_t b)
{
	const char *ks[2], *table[2];

	if (a == GAP_CELL_ANY || b == GAP_CELL_ANY)
		return true;
	while (gap_cell_next(g, &a, &ks[0], &table[0]))
		for (uint16_t c = b; gap_cell_next(g, &c, &ks[1], &table[1]);)
			if (strcmp(table[0], table[1]) == 0 && strcmp(ks[0], ks[1]) == 0)
				return true;
	return false;
}

/* What the search has passed over, a table on hold most likely, and writes to the table of this TRUNCATE: it would come back to life. */
static bool left_before(const struct dispatch *d, const struct record *fence)
{
	if (!d->left_any || fence->statement != STATEMENT_TRUNCATE)
		return false;
	for (unsigned cell = 0; cell < GAP_CELLS; cell++)
		if (d->left[cell] && share_a_table(d->worker->gap, (uint16_t)cell, fence->cell))
			return true;
	return false;
}

/* Whether something waits on disk that is older than this fence of ours, the files before it not counted. */
static bool older_waits(const struct dispatch *d, const struct record *fence)
{
	return (d->recovered && journal_waiting(d->recovered)) || left_before(d, fence);
}

bool backlog_flows(const struct dispatch *d, const struct record *r)
{
	if (r->kind != RECORD_WRITE && older_waits(d, r))
		return false;
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

	if (d->queued + d->waiting >= DISPATCH_LIVE)
		return JOURNAL_STOP;
	if (!resolve(d, r))
		return lost(d, r, GAP_DEAD);
	r->cell = missing_cell(d->worker, r);
	tables_add(d->tables, r);
	if (backlog_held(d, r)) {
		prepared_release(r->slot);
		if (r->kind == RECORD_WRITE)
			d->left_any = d->left[r->cell] = true;
		return JOURNAL_LEAVE;
	}
	if (r->kind == RECORD_BARRIER && left_before(d, r)) {
		prepared_release(r->slot);
		return JOURNAL_STOP;
	}
	/* What was in doubt when the agent died, or is since its answer: the rows tell, or nobody can. */
	if ((r->sent && r->entry != ENTRY_ROWS) || (r->unknown && (r->entry == ENTRY_COUNT || r->entry == ENTRY_BARRIER)))
		return lost(d, r, GAP_UNKNOWN_OUTCOME);
	if (r->unknown)
		r->entry = ENTRY_ROWS;
	r->acknowledged_ns = record_since(r, d->worker->turn_ns);
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
		if (!r || older_waits(d, r) || (r->kind == RECORD_BARRIER && backlog_held(d, r)))
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

/* Back to where it came from; it is in no list. */
static void withdraw(struct dispatch *d, struct record *r)
{
	if (r->kind == RECORD_BARRIER)
		d->barriers--;
	if (r->kind != RECORD_WRITE && r->barrier) {
		backlog_fence(d, r);
		return;
	}
	dispatch_answer(d, r, false);
	prepared_release(r->slot);
	journal_spill(r);
}

void backlog_withdraw(struct dispatch *d)
{
	struct record **at = &d->head, **parked = &d->parked, *last = NULL, *r;

	while ((r = *at) && (r->kind == RECORD_WRITE || r->attempts)) {
		last = r;
		at = &r->next;
	}
	*at = NULL;
	d->tail = last;
	while (r) {
		struct record *next = r->next;

		d->queued--;
		withdraw(d, r);
		r = next;
	}
	while ((r = *parked)) {
		if (r->kind != RECORD_BARRIER) {
			parked = &r->next;
			continue;
		}
		*parked = r->next;
		d->waiting--;
		d->fenced = false;
		withdraw(d, r);
	}
}

void backlog_rescan(struct dispatch *d)
{
	if (d->left_any)
		memset(d->left, 0, sizeof(d->left));
	d->left_any = false; /* it is looked at again */
	journal_rescan(d->journal);
	if (d->recovered)
		journal_rescan(d->recovered);
}
