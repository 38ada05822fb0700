/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/tap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "mirror/mirror.h"
#include "mirror/missing.h"

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

static void *tap_open(void *mirror, struct worker *w)
{
	struct mirror *m = mirror;
	struct tap *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->worker = w;
	t->mirror = m;
	t->journal = journal_new(m->budget / w->relay->options.workers);
	if (!t->journal) {
		free(t);
		return NULL;
	}
	for (int side = 0; side < SIDES; side++) {
		dispatch_init(&t->dispatch[side], m, w, t->journal, side);
		t->dispatch[side].settled = settled;
		t->dispatch[side].space = space;
	}
	return t;
}

static void tap_close(void *tap)
{
	struct tap *t = tap;

	t->closed = true;
	for (int side = 0; side < SIDES; side++)
		dispatch_close(&t->dispatch[side]);
}

static void tap_free(void *tap)
{
	struct tap *t = tap;

	journal_free(t->journal);
	free(t);
}

static bool names_no_keyspace(const struct statement *s)
{
	for (unsigned i = 0; i < s->table_count; i++)
		if (!s->tables[i].keyspace[0])
			return true;
	/* Schema statements name types, functions, indexes … that are not in the table list. */
	return s->table_count == 0 || s->kind == STATEMENT_SCHEMA || (s->flags & STATEMENT_TABLES_MORE);
}

/* Relayed without being mirrored: counted, and on the ledger. */
static void shed(struct tap *t, const struct tap_write *w)
{
	struct gap *g = t->worker->gap;

	metric_add(t->worker->metrics, METRIC_UNMIRRORED_SHED, 1);
	gap_note(g, GAP_SHED, side_other(w->primary),
		 gap_cell(g, w->statement, w->slot ? w->slot->prepared->keyspace : w->keyspace), 0);
}

static int tap_intent(void *tap, const struct tap_write *w, struct record **ret)
{
	struct tap *t = tap;
	const struct request *q = w->request;
	struct record *r;

	if (w->way != MIRRORABLE)
		return -ENOTSUP;
	r = journal_intent(t->journal, q->body.size);
	/* Retained records are only a precaution: they make room first. */
	while (!r && (dispatch_shrink(&t->dispatch[TARGET]) || dispatch_shrink(&t->dispatch[ORIGIN])))
		r = journal_intent(t->journal, q->body.size);
	if (!r) {
		/* Something must be there that will end and make room. */
		if (t->mirror->policy == MIRROR_BLOCK && journal_records(t->journal) > 0) {
			t->stalled = true;
			return -EAGAIN;
		}
		shed(t, w);
		return -ENOSPC;
	}
	r->to = (uint8_t)side_other(w->primary);
	r->version = q->version;
	r->opcode = q->opcode;
	r->header_flags = q->header_flags & FRAME_PAYLOAD;
	r->statement = (uint8_t)w->statement->kind;
	r->pinned = w->pinned;
	r->timestamp = w->timestamp;
	r->now_in_seconds = (int32_t)time(NULL);
	r->needs_keyspace = q->opcode != OP_EXECUTE && names_no_keyspace(w->statement);
	r->keyspace_size = (uint8_t)strlen(w->keyspace);
	memcpy(r->keyspace, w->keyspace, (size_t)r->keyspace_size + 1);
	if (w->statement->table_count)
		memcpy(r->table, w->statement->tables[0].table, sizeof(r->table));
	if (w->slot)
		r->slot = prepared_use(w->slot);
	memcpy(r->body, q->body.data, q->body.size);
	if (r->statement == STATEMENT_SCHEMA || r->statement == STATEMENT_TRUNCATE) {
		r->kind = RECORD_BARRIER;
		r->barrier = barrier_raise(t->worker);
		if (!r->barrier) {
			prepared_release(r->slot);
			journal_release(t->journal, r);
			shed(t, w);
			return -ENOSPC;
		}
	}
	t->in_doubt++;
	metric_add(t->worker->metrics, METRIC_MIRROR_INDOUBT, 1);
	*ret = r;
	return 0;
}

static void tap_outcome(void *tap, struct record *r, enum write_outcome outcome)
{
	struct tap *t = tap;
	struct metrics *m = t->worker->metrics;

	t->in_doubt--;
	metric_sub(m, METRIC_MIRROR_INDOUBT, 1);
	if (outcome == WRITE_APPLIED) {
		r->acknowledged_ns = t->worker->turn_ns;
		metric_add(m, METRIC_MIRROR_QUEUED, 1);
		dispatch_push(&t->dispatch[r->to], r);
		return;
	}
	metric_add(m, outcome == WRITE_UNKNOWN ? METRIC_UNMIRRORED_UNKNOWN_OUTCOME : METRIC_MIRROR_REFUSED_BY_PRIMARY, 1);
	if (outcome == WRITE_UNKNOWN)
		missing_note(t->worker, r, GAP_UNKNOWN_OUTCOME);
	if (r->barrier)
		barrier_lower(r->barrier);
	prepared_release(r->slot);
	journal_release(t->journal, r);
	make_room(t);
}

static void tap_flush(void *tap, enum tap_flush what)
{
	struct tap *t = tap;

	if (what == TAP_OUTCOMES)
		for (int side = 0; side < SIDES; side++)
			dispatch_flush(&t->dispatch[side]);
}

static void tap_course(void *tap, const struct course *course)
{
	struct tap *t = tap;

	for (int side = 0; side < SIDES; side++)
		dispatch_switch(&t->dispatch[side], course->mirroring && side == (int)side_other(course->primary));
}

static bool tap_idle(void *tap)
{
	const struct tap *t = tap;

	return t->in_doubt == 0 && dispatch_idle(&t->dispatch[ORIGIN]) && dispatch_idle(&t->dispatch[TARGET]);
}

const struct tap_ops mirror_tap = {
	.open = tap_open,
	.close = tap_close,
	.free = tap_free,
	.intent = tap_intent,
	.outcome = tap_outcome,
	.flush = tap_flush,
	.course = tap_course,
	.idle = tap_idle,
};

void tap_mark(struct worker *w, struct barrier *b)
{
	struct tap *t = w->tap;
	struct record *r = t && !t->closed ? journal_mark() : NULL;
	enum side to = side_other(w->course.primary);

	if (!r) {
		/* Nothing of this worker is sent any more; or memory is short, and order is worth less than progress. */
		barrier_reached(b);
		barrier_put(b);
		return;
	}
	r->kind = RECORD_MARK;
	r->barrier = b;
	r->to = (uint8_t)to;
	dispatch_push(&t->dispatch[to], r);
	dispatch_flush(&t->dispatch[to]);
}

void tap_go_on(struct worker *w)
{
	struct tap *t = w->tap;

	for (int side = 0; t && side < SIDES; side++) {
		dispatch_pump(&t->dispatch[side]);
		dispatch_flush(&t->dispatch[side]);
	}
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
