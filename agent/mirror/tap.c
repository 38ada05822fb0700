/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/tap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mirror/mirror.h"
#include "mirror/missing.h"
#include "mirror/recovery.h"
#include "mirror/rowsync.h"
#include "mirror/scoped.h"

#define STOP_PATIENCE_NS 2000000000ull

static void settled(struct dispatch *d)
{
	worker_settled(d->worker);
}

static void resume(struct worker *w, void *context)
{
	(void)context;
	relay_resume_stalled(w);
}

/* Records end in the middle of other work, some with a session's bytes half way through the worker's scratch: sessions go on from the loop. */
static void make_room(struct tap *t)
{
	if (t->stalled && worker_post(t->worker, resume, NULL) == 0)
		t->stalled = false;
}

static void space(struct dispatch *d)
{
	struct tap *t = d->worker->tap;

	if (t)
		make_room(t);
}

static void *tap_open(void *mirror, struct worker *w, struct error *error)
{
	struct mirror *m = mirror;
	struct tap *t = calloc(1, sizeof(*t));

	if (!t) {
		error_set(error, -ENOMEM, "out of memory");
		return NULL;
	}
	t->worker = w;
	t->mirror = m;
	if (w->index == 0)
		recovery_statements(m->recovery, w->relay->prepared);
	for (int side = 0; side < SIDES; side++) {
		if (dispatch_init(&t->dispatch[side], m, w, side, error) < 0) {
			free(t);
			return NULL;
		}
		t->dispatch[side].settled = settled;
		t->dispatch[side].space = space;
		t->journals[2 * side] = t->dispatch[side].journal;
		t->journals[2 * side + 1] = t->dispatch[side].again;
	}
	acknowledge_init(&t->acknowledge, w, m->options.acknowledge_ns);
	journal_syncer_init(&t->syncer, w, m->journals.directory < 0 ? JOURNAL_MEMORY : m->options.sync, m->options.sync_ms, t->journals,
			    2 * SIDES, w->index == 0 ? m->recovery : NULL);
	return t;
}

static void tap_close(void *tap)
{
	struct tap *t = tap;

	t->closed = true;
	journal_syncer_close(&t->syncer);
	for (int side = 0; side < SIDES; side++)
		dispatch_close(&t->dispatch[side]);
	acknowledge_close(&t->acknowledge);
}

static void tap_free(void *tap)
{
	struct tap *t = tap;

	for (int side = 0; side < SIDES; side++)
		dispatch_done(&t->dispatch[side]);
	acknowledge_done(&t->acknowledge);
	hold_view_done(&t->holds);
	room_done(&t->room);
	free(t);
}

/* Relayed without being mirrored: counted, and on the ledger. */
static void shed(struct tap *t, const struct tap_write *w)
{
	metric_add(t->worker->metrics, METRIC_UNMIRRORED_SHED, 1);
	gap_note(t->worker->gap, GAP_SHED, side_other(w->primary), gap_cell_write(t->worker->gap, w->statement, w->slot, w->request, w->keyspace), 0);
}

static enum journal_kind kind_of(const struct tap_write *w)
{
	if (w->statement->kind == STATEMENT_SCHEMA || w->statement->kind == STATEMENT_TRUNCATE)
		return ENTRY_BARRIER;
	/* What may be sent only once is kept as ROWS: after a crash nobody knows whether it was. */
	return w->way == MIRRORABLE ? ENTRY_WRITE : w->way == UNMIRRORED_COUNTER ? ENTRY_COUNT : ENTRY_ROWS;
}

static int raise_barrier(struct tap *t, const struct tap_write *w, struct record *r)
{
	struct table_name table = {.table = ""};

	if (w->statement->kind == STATEMENT_TRUNCATE) {
		uint16_t cell = gap_cell_write(t->worker->gap, w->statement, w->slot, w->request, w->keyspace);
		const char *keyspace, *name;

		if (gap_cell_next(t->worker->gap, &cell, &keyspace, &name)) {
			memcpy(table.keyspace, keyspace, strlen(keyspace) + 1);
			memcpy(table.table, name, strlen(name) + 1);
		}
	}
	r->barrier = barrier_raise(t->worker, (uint64_t)r->timestamp, w->statement->kind == STATEMENT_TRUNCATE ? &table : NULL);
	if (!r->barrier)
		return -ENOMEM;
	atomic_fetch_add(&t->mirror->open_barriers, 1);
	journal_roll(t->dispatch[r->to].journal);
	return 0;
}

/* What of a write is mirrored, where tables are left out. */
struct portion {
	struct tap_write write;
	struct request request; /* a BATCH without some of its statements */
	unsigned left_out;
	bool unqualified;
};

/* 0 or as intent() does. A BATCH loses statements, a batch in one text goes through row sync. */
static int leave_out(struct tap *t, const struct tap_write *w, struct portion *ret)
{
	const struct request *q = w->request;
	enum scope_part part = scoped_part(t->worker, w);
	int n;

	ret->write = *w;
	ret->left_out = 0;
	ret->unqualified = w->statement->unqualified;
	if (part == SCOPE_ALL)
		return 0;
	if (part == SCOPE_NONE) {
		metric_add(t->worker->metrics, METRIC_MIRROR_LEFT_OUT, q->opcode == OP_BATCH ? q->batch_count : 1);
		return -ENOENT;
	}
	ret->left_out = 1;
	if (q->opcode != OP_BATCH) {
		if (w->way == UNMIRRORED_COUNTER)
			return -ENOTSUP; /* it can be sent once, but only whole */
		if (w->way == MIRRORABLE || w->way == MIRRORABLE_ONCE || w->way == UNMIRRORED_LIST)
			ret->write.way = UNMIRRORED_UNCLASSIFIED;
		return 0;
	}
	n = scoped_batch(t->worker, w, &t->room, &ret->request, &ret->unqualified);
	if (n < 0) {
		shed(t, w);
		return -ENOSPC;
	}
	ret->left_out = (unsigned)n;
	ret->write.request = &ret->request;
	return 0;
}

static int tap_intent(void *tap, const struct tap_write *whole, struct record **ret)
{
	struct tap *t = tap;
	struct portion portion;
	int left = leave_out(t, whole, &portion);

	if (left < 0)
		return left;

	const struct tap_write *w = &portion.write;
	const struct request *q = w->request;
	struct prepared_slot *slots[PREPARED_BATCH_MAX];
	int slot_count = q->opcode == OP_BATCH ? prepared_of_batch(t->worker->prepared, q, slots) : w->slot != NULL, error = slot_count;
	struct dispatch *d = &t->dispatch[side_other(w->primary)];
	struct journal_write j = {.kind = kind_of(w), .statement = (uint8_t)w->statement->kind, .version = q->version, .opcode = q->opcode,
				  .header_flags = q->header_flags, .pinned = w->pinned, .timestamp = w->timestamp,
				  .needs_keyspace = q->opcode != OP_EXECUTE && portion.unqualified,
				  .serial = w->statement->flags & STATEMENT_CONDITIONAL, .now = (uint32_t)(clock_wall_us() / 1000000),
				  .keyspace = q->opcode == OP_EXECUTE ? "" : w->keyspace, .body = q->body, .slots = slots,
				  .slot_count = slot_count > 0 ? (unsigned)slot_count : 0};
	struct record *r = NULL;

	if (q->opcode != OP_BATCH)
		slots[0] = w->slot;
	if (j.kind == ENTRY_BARRIER)
		j.timestamp = (int64_t)atomic_fetch_add(&t->mirror->barriers, 1);
	if (slot_count >= 0)
		r = journal_intent(d->journal, &j, &error);
	/* What is kept only as a precaution makes room first. */
	while (!r && slot_count >= 0 && (dispatch_shrink(&t->dispatch[TARGET]) || dispatch_shrink(&t->dispatch[ORIGIN])))
		r = journal_intent(d->journal, &j, &error);
	if (!r) {
		/* What is larger than all the room there is would wait for ever. */
		if (t->mirror->options.policy == MIRROR_BLOCK && error == -ENOSPC && q->body.size < t->mirror->journals.budget / 2) {
			t->stalled = true;
			return -EAGAIN;
		}
		shed(t, w);
		return -ENOSPC;
	}
	if (j.kind == ENTRY_BARRIER && raise_barrier(t, w, r) < 0) {
		journal_done(r);
		shed(t, w);
		return -ENOSPC;
	}
	r->once = w->way == MIRRORABLE_ONCE || w->way == UNMIRRORED_LIST;
	r->compared = w->way == UNMIRRORED_LIST;
	if (r->once)
		r->moment = rowsync_moment(t->mirror->rowsync);
	metric_add(t->worker->metrics, METRIC_MIRROR_LEFT_OUT, portion.left_out);
	r->cell = portion.left_out ? missing_cell(t->worker, r) : gap_cell_write(t->worker->gap, w->statement, w->slot, w->request, w->keyspace);
	if (w->slot)
		r->slot = prepared_use(w->slot);
	t->in_doubt++;
	metric_add(t->worker->metrics, METRIC_MIRROR_INDOUBT, 1);
	*ret = r;
	return 0;
}

/* Whether the answer waits for the other cluster: where nothing is connected it would wait for nothing. */
static bool hold_answer(struct tap *t, struct record *r, struct held_answer *answer)
{
	if (!answer)
		return false;
	if (atomic_load_explicit(&t->mirror->connected[r->to], memory_order_relaxed) == 0) {
		metric_add(t->worker->metrics, METRIC_ACKNOWLEDGED_JOURNAL, 1);
		return false;
	}
	acknowledge_wait(&t->acknowledge, r, answer);
	return true;
}

static bool tap_outcome(void *tap, struct record *r, enum write_outcome outcome, struct held_answer *answer)
{
	struct tap *t = tap;
	struct metrics *m = t->worker->metrics;
	enum side to = (enum side)r->to;

	t->in_doubt--;
	metric_sub(m, METRIC_MIRROR_INDOUBT, 1);
	if (outcome == WRITE_APPLIED) {
		r->acknowledged_ns = t->worker->turn_ns;
		metric_add(m, METRIC_MIRROR_QUEUED, 1);
		journal_queued(r);

		bool held = hold_answer(t, r, answer);

		dispatch_push(&t->dispatch[to], r);
		return held;
	}
	if (outcome == WRITE_UNKNOWN && (r->entry == ENTRY_WRITE || r->entry == ENTRY_ROWS)) {
		/* It stays in doubt on disk, and its rows are compared. */
		r->unknown = true;
		r->once = false;
		r->entry = ENTRY_ROWS;
		r->acknowledged_ns = t->worker->turn_ns;
		dispatch_push(&t->dispatch[to], r);
		return false;
	}
	metric_add(m, outcome == WRITE_UNKNOWN ? METRIC_UNMIRRORED_UNKNOWN_OUTCOME : METRIC_MIRROR_REFUSED_BY_PRIMARY, 1);
	if (outcome == WRITE_UNKNOWN)
		missing_note(t->worker, r, GAP_UNKNOWN_OUTCOME);
	if (r->barrier)
		barrier_lower(r->barrier);
	prepared_release(r->slot);
	journal_done(r);
	make_room(t);
	return false;
}

/* A record in memory survives the process as it is stored; against a crash of the node see journal_sync.h. */
static uint64_t tap_pending(void *tap)
{
	return journal_syncer_group(&((struct tap *)tap)->syncer);
}

static void tap_flush(void *tap)
{
	struct tap *t = tap;

	for (int side = 0; side < SIDES; side++)
		dispatch_flush(&t->dispatch[side]);
}

static void tap_course(void *tap, const struct course *course)
{
	struct tap *t = tap;

	if (t->mirror->rowsync)
		rowsync_primary(t->mirror->rowsync, course->primary);
	for (int side = 0; side < SIDES; side++)
		dispatch_switch(&t->dispatch[side], course->mirroring && side == (int)side_other(course->primary));
}

static bool tap_idle(void *tap)
{
	struct tap *t = tap;

	/* At the end only what can go out now is waited for, and not for long: the rest is safe on disk for the next start. */
	if (t->worker->stopping && t->mirror->journals.directory >= 0) {
		bool (*rests)(struct dispatch *d);

		if (!t->stopping_ns)
			t->stopping_ns = t->worker->turn_ns;
		rests = t->worker->turn_ns - t->stopping_ns > STOP_PATIENCE_NS ? dispatch_rest : dispatch_resting;
		return t->in_doubt == 0 && rests(&t->dispatch[ORIGIN]) && rests(&t->dispatch[TARGET]);
	}
	return t->in_doubt == 0 && dispatch_idle(&t->dispatch[ORIGIN]) && dispatch_idle(&t->dispatch[TARGET]);
}

const struct tap_ops mirror_tap = {
	.open = tap_open,
	.close = tap_close,
	.free = tap_free,
	.intent = tap_intent,
	.outcome = tap_outcome,
	.pending = tap_pending,
	.flush = tap_flush,
	.course = tap_course,
	.idle = tap_idle,
};

void tap_mark(struct worker *w, struct barrier *b)
{
	struct tap *t = w->tap;
	enum side to = side_other(w->course.primary);
	struct record *r = t && !t->closed ? journal_mark(t->dispatch[to].journal) : NULL;

	if (!r) {
		/* Nothing of this worker is sent any more; or memory is short, and order is worth less than progress. What waits on disk comes
		 * before the barrier in the next life. */
		if (!t || !t->dispatch[to].left_behind)
			barrier_reached(b);
		barrier_put(b);
		return;
	}
	r->kind = RECORD_MARK;
	r->barrier = b;
	if (b->truncates) {
		r->statement = STATEMENT_TRUNCATE;
		r->cell = b->table.table[0] ? gap_cell_of(w->gap, b->table.keyspace, b->table.table) : GAP_CELL_ANY;
	}
	r->to = (uint8_t)to;
	dispatch_push(&t->dispatch[to], r);
	dispatch_flush(&t->dispatch[to]);
}

void tap_adopt(struct worker *w, enum side side, struct journal *journal)
{
	struct tap *t = w->tap;

	if (t && !t->closed)
		dispatch_adopt(&t->dispatch[side], journal);
	else
		journal_free(journal);
}

void tap_go_on(struct worker *w)
{
	struct tap *t = w->tap;

	for (int side = 0; t && side < SIDES; side++) {
		dispatch_pump(&t->dispatch[side]);
		dispatch_flush(&t->dispatch[side]);
	}
}

void tap_rescan(struct worker *w)
{
	struct tap *t = w->tap;

	for (int side = 0; t && side < SIDES; side++)
		backlog_rescan(&t->dispatch[side]);
	tap_go_on(w);
}

#define PREPARE_AT_ONCE 256

struct missing {
	enum side side;
	unsigned count;
	struct prepared *some[PREPARE_AT_ONCE];
};

static bool gather_missing(void *context, struct prepared *p)
{
	struct missing *m = context;

	if (prepared_on(p, m->side))
		return true;
	if (m->count < PREPARE_AT_ONCE)
		m->some[m->count] = prepared_get(p);
	m->count++;
	return true;
}

int tap_prepare_missing(struct worker *w, enum side side)
{
	struct tap *t = w->tap;
	struct missing m = {.side = side};
	unsigned held;

	if (!t || !dispatch_up(&t->dispatch[side]))
		return -ENOTCONN;
	prepared_map_each(w->relay->prepared, gather_missing, &m);
	held = m.count < PREPARE_AT_ONCE ? m.count : PREPARE_AT_ONCE;
	for (unsigned i = 0; i < held; i++) {
		dispatch_prepare(&t->dispatch[side], m.some[i]);
		prepared_put(m.some[i]);
	}
	dispatch_flush(&t->dispatch[side]);
	return (int)m.count;
}
