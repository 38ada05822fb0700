/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cql/request.h"
#include "mirror/dispatch_priv.h"
#include "mirror/missing.h"
#include "mirror/rowsync.h"
#include "mirror/scoped.h"

/* Row syncs that nobody waits for any more, node-wide: each holds a copy of its keys for the length of the hint window. */
#define AGAIN_MAX 4096u

struct rows_job {
	struct rows_job *next, **previous; /* in the dispatch's list */
	struct dispatch *dispatch;
	struct record *record; /* NULL: the second time, or taken back */
	struct record *kept;   /* second time: what a next life finds; NULL = this one alone knows of it */
	int result;
	uint16_t cell;
	int64_t made_us; /* second time: when it was written */
};

static void unlink_job(struct rows_job *j)
{
	if (!j->previous)
		return;
	*j->previous = j->next;
	if (j->next)
		j->next->previous = j->previous;
	j->previous = NULL;
	j->dispatch->rows_count--;
}

static void link_job(struct dispatch *d, struct rows_job *j)
{
	j->next = d->rows;
	j->previous = &d->rows;
	if (j->next)
		j->next->previous = &j->next;
	d->rows = j;
	d->rows_count++;
}

static const char *why_not(int error)
{
	switch (error) {
	case -ENOKEY: return "the statement does not tell which rows it changes";
	case -ENOENT: return "the table, or a column, is not on both sides";
	case -ENOTSUP: return "counters cannot be compared";
	case -E2BIG: return "it touches too many rows";
	case -EINVAL: return "a cluster refuses to be asked for its rows";
	case -EPERM: case -EACCES: return "the mirror's role may not read or write them";
	case -ESHUTDOWN: return "it has become the primary since, and may hold what is newer";
	case -ESTALE: return "there is something newer on the other side";
	default: return strerror(-error);
	}
}

void rows_give_up(struct dispatch *d, struct record *r, int error)
{
	enum gap_cause cause = r->unknown || r->sent ? GAP_UNKNOWN_OUTCOME : r->serial ? GAP_LWT : GAP_UNCLASSIFIED;
	char table[2 * CQL_NAME_MAX + 4];
	unsigned n;

	if (r->refused) {
		/* It is wanted as it is, once the other cluster has been mended: a dead letter. */
		dispatch_spend(d, r);
		d->flying++;
		dispatch_failed(d, r, r->last_error);
		return;
	}
	n = sparing_count(&d->rows_lines, d->worker->turn_ns);
	if (n)
		log_error("mirror", "%u writes, the last one to %s, cannot be brought to the %s by comparing rows: %s. See cqlferry gaps",
			  n, missing_table(d->worker, r, table, sizeof(table)), side_name(d->side), why_not(error));
	dispatch_give_up(d, r, cause);
}

/* What cannot be compared because it counts can still be sent, unless a part of it must not be. */
static int counts(const struct dispatch *d, const struct record *r, int result)
{
	return result == -ENOTSUP && scoped_mixed(d->worker, r) ? -ENOKEY : result;
}

/* ---- what a record asks for */

static bool batch_children(struct worker *w, const struct record *r, const struct request *q, const char *keyspace, struct rowsync_child *to)
{
	struct span cursor = q->batch_children;
	struct batch_child child;

	for (unsigned i = 0; batch_next(q->version, &cursor, &child) > 0; i++) {
		struct prepared_slot *slot = child.prepared ? prepared_find(w->prepared, child.text) : NULL;

		if (child.prepared && !slot)
			return false;
		to[i] = (struct rowsync_child){.text = slot ? span_of(slot->prepared->text, slot->prepared->text_size) : child.text,
					       .keyspace = slot ? slot->prepared->keyspace : keyspace, .values = child.values,
					       .values_count = child.values_count, .version = r->version};
	}
	return true;
}

/* The statements of the record. *ret is malloc'ed for a BATCH, else `one`. Their number, or −errno. */
static int children_of(struct dispatch *d, const struct record *r, char own[CQL_NAME_MAX + 1], struct rowsync_child *one,
		       struct rowsync_child **ret)
{
	const char *keyspace;
	struct request q;

	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return -ENOKEY;
	keyspace = request_keyspace(&q, r->keyspace, own);
	if (r->opcode == OP_BATCH) {
		if (q.batch_count == 0)
			return -ENOKEY;
		*ret = calloc(q.batch_count, sizeof(**ret));
		if (!*ret)
			return -EAGAIN;
		if (batch_children(d->worker, r, &q, keyspace, *ret))
			return q.batch_count;
		free(*ret);
		*ret = one;
		return -ENOKEY;
	}
	*one = (struct rowsync_child){.text = r->slot ? span_of(r->slot->prepared->text, r->slot->prepared->text_size) : q.text,
				      .keyspace = r->slot ? r->slot->prepared->keyspace : keyspace, .values = q.params.values,
				      .values_count = q.params.values_count, .names = q.params.flags & QUERY_NAMES,
				      .version = r->version};
	*ret = one;
	return 1;
}

/* ---- and what becomes of it */

static void told(struct worker *w, void *context);

static void on_done(void *context, int result)
{
	struct rows_job *j = context;

	j->result = result;
	if (worker_post(j->dispatch->worker, told, j) < 0)
		abort(); /* a record that nobody hears of again would hold the next switch for ever */
}

static int submit(struct dispatch *d, const struct record *r, uint64_t not_before_ns, struct rows_job *j)
{
	struct rowsync_child one, *children = &one;
	char keyspace[CQL_NAME_MAX + 1];
	int n = children_of(d, r, keyspace, &one, &children);

	if (n < 0)
		return n;
	struct rowsync_job job = {.from = side_other(d->side), .serial = r->serial, .lists_only = r->lists_only, .not_before_ns = not_before_ns,
				  .child_count = (unsigned)n, .children = children, .done = on_done, .context = j};
	n = rowsync_submit(d->mirror->rowsync, &job);
	if (children != &one)
		free(children);
	return n == -ENOMEM ? -EAGAIN : n;
}

static void told_again(struct rows_job *j)
{
	struct dispatch *d = j->dispatch;

	atomic_fetch_sub(&d->mirror->rows_again, 1);
	/* The agent ends: its next life has it in doubt. */
	if (j->result != -ECANCELED && d->worker->tap) {
		if (j->result != 0) {
			int64_t age = clock_wall_us() - j->made_us;

			metric_add(d->worker->metrics, METRIC_UNMIRRORED_UNKNOWN_OUTCOME, 1);
			gap_note(d->worker->gap, GAP_UNKNOWN_OUTCOME, d->side, j->cell, age > 0 ? age : 0);
		}
		if (j->kept)
			journal_done(j->kept);
	}
	free(j);
}

/* In doubt, in a journal of its own: the write's has confirmed it, and need not keep its file for so long. NULL: there is no room. */
static struct record *keep(struct dispatch *d, const struct record *r)
{
	struct prepared_slot *slots[PREPARED_BATCH_MAX];
	struct request q;
	int error, n = r->slot != NULL;

	slots[0] = r->slot;
	if (r->opcode == OP_BATCH) {
		if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
			return NULL;
		n = prepared_of_batch(d->worker->prepared, &q, slots);
	}
	if (n < 0 || d->mirror->journals.directory < 0)
		return NULL;
	struct journal_write w = {.kind = ENTRY_ROWS, .statement = r->statement, .version = r->version, .opcode = r->opcode,
				  .header_flags = r->header_flags, .pinned = r->pinned, .needs_keyspace = r->needs_keyspace,
				  .serial = r->serial, .timestamp = r->timestamp, .now = r->now, .keyspace = r->keyspace,
				  .body = record_body(r), .slots = slots, .slot_count = (unsigned)n};

	return journal_intent(d->again, &w, &error);
}

/* Hints may bring an unknown write for as long as the hint window lasts. */
static void look_again(struct dispatch *d, const struct record *r)
{
	struct rows_job *j;

	if (!d->mirror->options.again_ns)
		return;
	j = atomic_load(&d->mirror->rows_again) < AGAIN_MAX ? calloc(1, sizeof(*j)) : NULL;
	if (j) {
		*j = (struct rows_job){.dispatch = d, .cell = r->cell, .made_us = (int64_t)r->now * 1000000};
		j->kept = keep(d, r);
		if (submit(d, r, clock_now_ns() + d->mirror->options.again_ns, j) == 0) {
			atomic_fetch_add(&d->mirror->rows_again, 1);
			return;
		}
		if (j->kept)
			journal_done(j->kept);
		free(j);
	}
	gap_note(d->worker->gap, GAP_UNKNOWN_OUTCOME, d->side, r->cell, 0);
}

static void told(struct worker *w, void *context)
{
	struct rows_job *j = context;
	struct dispatch *d = j->dispatch;
	struct record *r = j->record;
	int result = j->result;

	if (j->made_us) {
		told_again(j);
		return;
	}
	unlink_job(j);
	free(j);
	if (!r)
		return;
	w->turn_ns = clock_now_ns();
	result = counts(d, r, result);
	if (result == 0) {
		if (r->unknown)
			look_again(d, r);
		dispatch_applied(d, r);
	} else if (result == -ECANCELED) {
		dispatch_postpone(d, r);
	} else if (result == -ENOTSUP && !r->unknown && !r->sent) {
		/* Its text did not tell that it counts. */
		d->flying--;
		r->entry = ENTRY_COUNT;
		dispatch_push_front(d, r); /* a fence may stand behind it */
	} else if (result == -ENOENT) {
		dispatch_failed(d, r, CQL_INVALID); /* the table may still be on its way */
	} else {
		d->flying--;
		rows_give_up(d, r, result);
	}
	dispatch_pump(d);
	dispatch_flush(d);
}

int rows_submit(struct dispatch *d, struct record *r)
{
	struct rows_job *j = calloc(1, sizeof(*j));
	int e;

	if (!j)
		return -EAGAIN;
	*j = (struct rows_job){.dispatch = d, .record = r};
	link_job(d, j);
	e = submit(d, r, r->unknown ? d->worker->turn_ns + d->mirror->options.settle_ns : r->retry_ns, j);
	if (e < 0) {
		unlink_job(j);
		free(j);
	}
	return counts(d, r, e);
}

struct record *rows_take_back(struct dispatch *d)
{
	struct rows_job *j = d->rows;
	struct record *r;

	if (!j)
		return NULL;
	r = j->record;
	j->record = NULL;
	unlink_job(j);
	return r;
}
