/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a record: confirmed, tried again by class of error, or a dead letter. */
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
#include "mirror/rows.h"
#include "mirror/rowsync.h"
#include "mirror/tables.h"
#include "mirror/tap.h"
#include "mirror/target.h"

#define BACKOFF_FIRST_NS (50u * 1000000ull)
#define BACKOFF_MAX_NS (5000u * 1000000ull)

/* ---- the end */

static void go_on(struct worker *w, void *context)
{
	(void)context;
	tap_go_on(w);
}

static void barrier_ended(struct dispatch *d, struct record *r)
{
	struct relay *relay = d->worker->relay;

	d->fenced = false;
	d->barriers--;
	if (r->barrier)
		barrier_lower(r->barrier);
	else if (atomic_fetch_sub(&d->mirror->recovered_barriers, 1) == 1)
		for (unsigned i = 0; i < relay->worker_count; i++)
			worker_post(relay->workers[i], go_on, NULL);
	r->barrier = NULL;
}

/* The client need not wait any longer for what this record becomes. */
void dispatch_answer(struct dispatch *d, struct record *r, bool applied)
{
	if (r->answer)
		acknowledge_end(&((struct tap *)d->worker->tap)->acknowledge, r, applied);
}

void dispatch_finish(struct dispatch *d, struct record *r, bool applied)
{
	dispatch_answer(d, r, applied);
	metric_sub(d->worker->metrics, METRIC_MIRROR_BACKLOG, 1);
	tables_remove(d->tables, r);
	if (r->kind == RECORD_BARRIER)
		barrier_ended(d, r);
	prepared_release(r->slot);
	if (applied && (r->entry == ENTRY_WRITE || r->entry == ENTRY_ROWS))
		journal_applied(r, d->worker->turn_ns);
	else
		journal_done(r);
	if (d->space)
		d->space(d);
}

void dispatch_give_up(struct dispatch *d, struct record *r, enum gap_cause cause)
{
	static const enum metric metric[] = {[GAP_DEAD] = METRIC_UNMIRRORED_DEAD, [GAP_UNKNOWN_OUTCOME] = METRIC_UNMIRRORED_UNKNOWN_OUTCOME,
					     [GAP_LWT] = METRIC_UNMIRRORED_LWT, [GAP_COUNTER] = METRIC_UNMIRRORED_COUNTER,
					     [GAP_UNCLASSIFIED] = METRIC_UNMIRRORED_UNCLASSIFIED};

	if (cause == GAP_DEAD)
		metric_add(d->worker->metrics, METRIC_MIRROR_DEAD, 1);
	metric_add(d->worker->metrics, metric[cause], 1);
	missing_note(d->worker, r, cause);
	dispatch_finish(d, r, false);
}

/* ---- answers */

/* Refusals before the last one. A schema that has not reached a node yet looks like a wrong statement; so long it is given time. */
static unsigned patience(const struct dispatch *d)
{
	return d->mirror->options.refused_attempts - 1;
}

void dispatch_spend(const struct dispatch *d, struct record *r)
{
	r->attempts = (uint16_t)patience(d);
}

static void dead(struct dispatch *d, struct record *r, int32_t code)
{
	/* A lost table would fill the disk with them. */
	unsigned n = sparing_count(&d->dead_lines, d->worker->turn_ns);
	char table[2 * CQL_NAME_MAX + 4];

	if (n)
		log_error("mirror", "%u writes, the last one to %s, were refused by the %s for good (error 0x%04X after %u attempts); they "
				    "are on the other side only. See cqlferry dead",
			  n, missing_table(d->worker, r, table, sizeof(table)), side_name(d->side), (unsigned)code, r->attempts + 1u);
	if (!dead_keep(d->mirror->dead, d->worker, r, code))
		metric_add(d->worker->metrics, METRIC_MIRROR_DEAD_UNKEPT, 1);
	dispatch_give_up(d, r, GAP_DEAD);
}

void dispatch_delay(struct dispatch *d, struct record *r, int32_t code)
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
	dispatch_wind(d);
}

static bool permanent(int32_t code)
{
	return code == CQL_SYNTAX_ERROR || code == CQL_UNAUTHORIZED || code == CQL_INVALID || code == CQL_CONFIG_ERROR ||
	       code == -EBADMSG || code == -ENOTSUP || code == -ENOENT;
}

/* What was to be sent once: it may be there twice, or not at all. Its rows tell, when it cannot arrive any more. */
static void compare(struct dispatch *d, struct record *r, uint64_t not_before_ns)
{
	r->once = false;
	r->retry_ns = not_before_ns;
	dispatch_push_front(d, r);
	dispatch_wind(d);
}

void dispatch_applied(struct dispatch *d, struct record *r)
{
	d->flying--;
	/* Its cells are there, and live too long. */
	if (late_turn(d, r)) {
		compare(d, r, 0);
		return;
	}
	if (r->once && (r->compared || !rowsync_rested(d->mirror->rowsync, r->moment))) {
		r->lists_only = true;
		compare(d, r, 0);
		return;
	}
	metric_add(d->worker->metrics, METRIC_MIRROR_APPLIED, 1);
	histogram_record(d->worker->metrics, HISTOGRAM_MIRROR_LAG, (d->worker->turn_ns - r->acknowledged_ns) / 1000);
	ailing_well(d->ailing, r->cell);
	if (r->statement == STATEMENT_SCHEMA && d->mirror->rowsync)
		rowsync_schema_changed(d->mirror->rowsync, NULL);
	dispatch_finish(d, r, true);
	if (dispatch_idle(d) && d->settled)
		d->settled(d);
}

static bool piecemeal(const struct record *r)
{
	struct statement s;
	struct request q;

	if (r->slot)
		return r->slot->prepared->statement.piecemeal;
	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return true;
	if (r->opcode == OP_BATCH)
		return q.batch_type != 0;
	statement_read(q.text, &s);
	return s.piecemeal;
}

static bool may_be_applied(const struct record *r, int32_t code)
{
	return code < 0 || error_write_outcome(code, code == CQL_UNAVAILABLE && piecemeal(r)) == WRITE_UNKNOWN;
}

/* A counter's update that may have been applied must not be sent again. */
static bool spent(const struct record *r, int32_t code)
{
	return r->entry == ENTRY_COUNT && may_be_applied(r, code);
}

/* A function that only one version has, a column of another type: what the statement has done may be possible all the same. */
static bool not_understood(const struct record *r, int32_t code)
{
	return r->entry == ENTRY_WRITE && (code == CQL_INVALID || code == CQL_SYNTAX_ERROR);
}

void dispatch_failed(struct dispatch *d, struct record *r, int32_t code)
{
	d->flying--;
	if (r->once) {
		compare(d, r, may_be_applied(r, code) ? d->worker->turn_ns + d->mirror->options.settle_ns : 0);
		return;
	}
	if (not_understood(r, code)) {
		r->refused = true;
		r->last_error = code;
		r->entry = ENTRY_ROWS;
		compare(d, r, 0);
		return;
	}
	if (spent(r, code)) {
		dispatch_give_up(d, r, GAP_UNKNOWN_OUTCOME);
	} else if (code < 0 && !permanent(code)) {
		/* The connection is gone: the record goes first when there is one again. Replaying it is harmless. */
		if (r->kind == RECORD_BARRIER)
			d->fenced = false;
		dispatch_push_front(d, r);
		dispatch_wind(d);
		return;
	} else if (code == CQL_ALREADY_EXISTS) {
		/* What is there already is what was wanted: a barrier that was sent twice, or a schema made by hand. */
		d->flying++;
		dispatch_applied(d, r);
		return;
	} else if (permanent(code) && (r->attempts >= patience(d) || ailing_hopeless(d->ailing, r->cell))) {
		ailing_refused(d->ailing, r->cell, r->attempts >= patience(d), d->worker->turn_ns);
		dead(d, r, code);
	} else {
		if (permanent(code))
			ailing_refused(d->ailing, r->cell, false, d->worker->turn_ns);
		dispatch_delay(d, r, code);
		return;
	}
	if (dispatch_idle(d) && d->settled)
		d->settled(d);
}
