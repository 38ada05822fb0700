// SPDX-License-Identifier: Apache-2.0
/*
 * A worker's dials.
 *
 *   WAIT ── verdict ──▶ REPLICA ── fails, or is in doubt ──▶ CONTROL ──▶ done
 *     └────────────────────┼──────────────────────────────────▲
 *                          └──▶ done
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/magic.h"
#include "relay/reach_priv.h"

#define REACH_DIAL_MAGIC 0x2EAC4D1Au

struct reach_dial {
	uint32_t magic;
	struct reach_seat *seat;
	struct reach_dial *next, **previous; /* in a list of the seat */
	struct reach_want want;
	enum connection_mode mode;
	bool waiting, may_fall_back;
	int cause; /* why the replica could not be reached; 0 = it was not tried */
	struct dial *dial;
	struct eyeballs *eyeballs;
	reach_done done;
	void *context;
};

static void link_to(struct reach_dial **list, struct reach_dial *d)
{
	d->next = *list;
	d->previous = list;
	if (d->next)
		d->next->previous = &d->next;
	*list = d;
}

static void unlink_dial(struct reach_dial *d)
{
	*d->previous = d->next;
	if (d->next)
		d->next->previous = d->previous;
}

static void release(struct reach_dial *d)
{
	unlink_dial(d);
	d->magic = 0;
	free(d);
}

void reach_cancel(struct reach_dial *d)
{
	if (!d)
		return;
	MAGIC_CHECK(d, REACH_DIAL_MAGIC);
	dial_cancel(d->dial);
	eyeballs_cancel(d->eyeballs);
	release(d);
}

/* ---- the end */

static void succeed(struct reach_dial *d, struct dial_result *result, const struct addr *address)
{
	struct reach_dial own = *d;

	if (own.want.replica.sa.sa_family != AF_UNSPEC && addr_equal(address, &own.want.replica)) {
		metric_add(own.seat->metrics, METRIC_WAY_REPLICA, 1);
		reach_learn(own.seat->reach, &own.want);
	} else {
		metric_add(own.seat->metrics, own.mode == MODE_AUTO ? METRIC_WAY_FALLBACK : METRIC_WAY_CONTROL, 1);
	}
	release(d);
	own.done(own.context, result, address);
}

/* `host`: whose failure the result is. */
static void fail(struct reach_dial *d, struct dial_result *result, const struct endpoint *host)
{
	struct reach_dial own = *d;
	char node[ADDR_TEXT_MAX], name[ENDPOINT_NAME];
	struct error text;

	release(d);
	if (own.mode == MODE_DIRECT && own.want.replica.sa.sa_family != AF_UNSPEC && result->error != -EKEYREJECTED &&
	    result->error != -EPROTO) {
		mode_error(&text, addr_format(&own.want.replica, node), result->error);
		result->reason = text.text;
	} else if (own.cause) {
		error_set(&text, own.cause, "%s; nor the control host %s: %.200s", strerror(-own.cause), reach_name(host, name),
			  result->reason);
		result->reason = text.text;
	}
	own.done(own.context, result, own.want.replica.sa.sa_family == AF_UNSPEC ? &host->addr : &own.want.replica);
}

static void fail_short_of_memory(struct reach_dial *d)
{
	struct dial_result result = {.error = -ENOMEM, .reason = "out of memory or descriptors", .stream = stream_plain(-1)};
	struct endpoint nobody = {.addr = d->want.replica};

	fail(d, &result, &nobody);
}

/* ---- the steps. 0, or −errno when nothing was begun */

static void on_control(void *context, struct dial_result *result, const struct endpoint *to)
{
	struct reach_dial *d = context;

	MAGIC_CHECK(d, REACH_DIAL_MAGIC);
	d->eyeballs = NULL;
	if (result->error == 0)
		succeed(d, result, &to->addr);
	else
		fail(d, result, to);
}

static int to_control(struct reach_dial *d, const struct reach_plan *plan)
{
	const struct relay_options *o = d->seat->reach->options;

	d->waiting = d->may_fall_back = false;
	if (!d->cause)
		d->cause = plan->cause;
	d->eyeballs = eyeballs_start(d->seat->loop, plan->control, plan->control_count, o->mark, o->dial_timeout_ms, on_control, d);
	return d->eyeballs ? 0 : -ENOMEM;
}

static void on_replica(void *context, struct dial_result *result);

static int to_replica(struct reach_dial *d, const struct reach_plan *plan)
{
	const struct relay_options *o = d->seat->reach->options;
	unsigned first = reach_first_ms(&o->reach);

	d->waiting = false;
	d->may_fall_back = !plan->alone;
	d->dial = dial_start(d->seat->loop, &plan->replica, o->mark,
			     d->may_fall_back && first < o->dial_timeout_ms ? first : o->dial_timeout_ms, on_replica, d);
	return d->dial ? 0 : -ENOMEM;
}

static int proceed(struct reach_dial *d)
{
	struct reach_plan plan;

	reach_plan(d->seat->reach, &d->want, &plan);
	d->mode = plan.mode;
	switch (plan.way) {
	case WAY_TRY:
		d->waiting = true;
		trial_start(d->seat, &d->want, /* others_wait= */ true);
		return 0;
	case WAY_WAIT:
		d->waiting = true;
		return 0;
	case WAY_REPLICA:
		if (d->cause && !plan.alone)
			break; /* it has had its chance */
		return to_replica(d, &plan);
	case WAY_PROBE:
		trial_start(d->seat, &d->want, /* others_wait= */ false);
		return to_control(d, &plan);
	case WAY_CONTROL:
		break;
	}
	return to_control(d, &plan);
}

/* What cannot be begun from the loop is told from there. */
static void proceed_or_fail(struct reach_dial *d)
{
	if (proceed(d) < 0)
		fail_short_of_memory(d);
}

static void on_replica(void *context, struct dial_result *result)
{
	struct reach_dial *d = context;
	struct reach_seat *s = d->seat;
	struct endpoint replica = {.addr = d->want.replica};
	struct reach_want want = d->want;

	MAGIC_CHECK(d, REACH_DIAL_MAGIC);
	d->dial = NULL;
	if (result->error == 0) {
		succeed(d, result, &replica.addr);
		return;
	}
	/* Certificates are nothing that another way would cure. */
	if (!d->may_fall_back || result->error == -EKEYREJECTED || result->error == -EPROTO) {
		fail(d, result, &replica);
		return;
	}
	d->cause = result->error;
	reach_doubt(s, want.side, &want.replica);
	proceed_or_fail(d);
}

struct reach_dial *reach_dial(struct reach_seat *s, const struct reach_want *want, reach_done done, void *context)
{
	struct reach_dial *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->magic = REACH_DIAL_MAGIC;
	d->seat = s;
	d->want = *want;
	d->done = done;
	d->context = context;
	link_to(&s->dials, d);
	if (proceed(d) < 0) {
		release(d);
		return NULL;
	}
	return d;
}

/* ---- news of verdicts */

void reach_doubt(struct reach_seat *s, enum side side, const struct addr *address)
{
	struct reach_want want = {.side = side, .replica = *address};
	bool ours;

	pthread_mutex_lock(&s->reach->lock);
	ours = verdicts_doubt(&s->reach->verdicts[side], address);
	pthread_mutex_unlock(&s->reach->lock);
	if (!ours)
		return;
	trial_start(s, &want, /* others_wait= */ false);
	reach_wake_all(s->reach);
}

/* Who dials a replica that has come into doubt does not wait for its own time-out. */
static bool in_doubt(struct reach_dial *d)
{
	struct reach *r = d->seat->reach;
	const struct replica_verdict *v;
	bool doubt;

	pthread_mutex_lock(&r->lock);
	v = verdicts_find(&r->verdicts[d->want.side], &d->want.replica);
	doubt = v && v->state != VERDICT_REACHABLE;
	if (doubt)
		d->cause = v->cause;
	pthread_mutex_unlock(&r->lock);
	return doubt;
}

static void on_wake(uv_async_t *wake)
{
	struct reach_seat *s = wake->data;
	struct reach_dial *d;

	/* Moved aside first: what is told may begin others, or call some off. */
	while ((d = s->dials)) {
		unlink_dial(d);
		link_to(&s->waking, d);
	}
	while ((d = s->waking)) {
		unlink_dial(d);
		link_to(&s->dials, d);
		if (d->waiting) {
			proceed_or_fail(d);
		} else if (d->may_fall_back && d->dial && in_doubt(d)) {
			dial_cancel(d->dial);
			d->dial = NULL;
			proceed_or_fail(d);
		}
	}
}

/* ---- seats */

struct reach_seat *reach_seat_new(struct reach *r, uv_loop_t *loop, struct metrics *metrics)
{
	struct reach_seat *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->reach = r;
	s->loop = loop;
	s->metrics = metrics;
	uv_async_init(loop, &s->wake, on_wake);
	s->wake.data = s;
	r->seats[r->seat_count++] = s;
	return s;
}

/* From here on nobody wakes it. */
static void leave(struct reach_seat *s)
{
	struct reach *r = s->reach;

	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->seat_count; i++)
		if (r->seats[i] == s)
			r->seats[i] = NULL;
	pthread_mutex_unlock(&r->lock);
}

void reach_seat_close(struct reach_seat *s)
{
	leave(s);
	s->closed = true;
	trials_stop(s);
	uv_close((uv_handle_t *)&s->wake, NULL);
}

void reach_seat_free(struct reach_seat *s)
{
	if (s && !s->closed)
		leave(s);
	free(s);
}

void reach_seat_tick(struct reach_seat *s, uint64_t now_ns)
{
	struct reach *r = s->reach;
	unsigned count[4] = {0};

	for (int side = 0; side < SIDES; side++) {
		struct reach_want want = {.side = (enum side)side};
		bool due = true;

		while (due && !s->closed) {
			pthread_mutex_lock(&r->lock);
			due = verdicts_due(&r->verdicts[side], now_ns, &want.replica);
			pthread_mutex_unlock(&r->lock);
			if (due)
				trial_start(s, &want, /* others_wait= */ false);
		}
		pthread_mutex_lock(&r->lock);
		for (unsigned i = 0; i < r->verdicts[side].count; i++)
			count[r->verdicts[side].list[i].state]++;
		pthread_mutex_unlock(&r->lock);
	}
	metric_set(s->metrics, METRIC_REPLICAS_TRYING, count[VERDICT_TRYING]);
	metric_set(s->metrics, METRIC_REPLICAS_REACHABLE, count[VERDICT_REACHABLE]);
	metric_set(s->metrics, METRIC_REPLICAS_UNREACHABLE, count[VERDICT_UNREACHABLE]);
	metric_set(s->metrics, METRIC_REPLICAS_PROBING, count[VERDICT_PROBING]);
}
