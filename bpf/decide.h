/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What becomes of a connect to a watched destination: pure logic, compiled into the connect hooks and into
 * tests/unit/test_decide.c.
 *
 *                 agent serves   agent is down
 *   observe       observed (or redirected, where observe_relays)   observed (bypassed)
 *   mirror        redirected     refused for the grace, then bypassed
 *   drain         redirected     refused
 *   cutover       redirected     refused: a client that writes past us would write to the wrong side
 *   rollback      redirected     refused
 *   finish        direct where targets are known; else redirected   direct; else refused
 *   finish, for a process that was redirected before
 *                 redirected                                        refused for the grace, then direct; else refused
 *   any, with the kill switch off: bypassed
 *
 * Down is: its heartbeat ran out, its listener closed, redirecting failed twice in the caller's namespace, or
 * it has no address of the caller's family.
 *
 * A process that was redirected has been shown the origin's nodes and the agent's paging states: a driver that finds
 * another cluster's name behind a node that it knows gives that node up for good (Java's does). So it stays with the
 * agent until it ends; only who comes later goes straight to the target. No I/O, no maps, no clock: the caller brings all of that.
 */
#pragma once
#include "abi.h"

struct decision_input {
	__u32 switched_off; /* kill switch */
	enum steer_phase phase;
	__u32 observe_relays;
	__u32 has_direct;  /* a target node of this family is known */
	__u32 carried;	   /* a connection of this process was redirected before */
	__u32 has_address; /* the agent can be reached in this family */
	__u64 now_ns;
	__u64 boot; /* heartbeat.boot: 0 = no agent ever started */
	__u64 deadline_ns;
	__u64 grace_ns; /* of this phase */
	__u32 listener_known;
	__s32 listener_open;
	__u64 listener_closed_ns;
	__u64 trip_since_ns; /* 0: not tripped, or tripped under an earlier agent */
	__u64 trip_until_ns;
};

struct decision {
	enum verdict verdict;
	enum cause cause;
};

/* Is the agent there at all (the namespace's own trouble left aside)? *ret_since: since when it is not. */
static inline enum cause decide_agent(const struct decision_input *in, __u64 *ret_since)
{
	__u64 since = 0;
	enum cause cause = CAUSE_AGENT_SERVES;

	if (in->listener_known && in->listener_open <= 0) {
		since = in->listener_closed_ns;
		cause = CAUSE_AGENT_GONE;
	}
	if (in->now_ns >= in->deadline_ns) {
		if (cause == CAUSE_AGENT_SERVES || in->deadline_ns < since)
			since = in->deadline_ns;
		if (cause == CAUSE_AGENT_SERVES)
			cause = CAUSE_AGENT_STALE;
	}
	*ret_since = since;
	return cause;
}

static inline struct decision decide(const struct decision_input *in)
{
	struct decision d = {VERDICT_BYPASSED, CAUSE_AGENT_SERVES};
	__u64 since = 0;

	/* Programs are attached before the first agent says what it wants: nothing is steered until then. */
	if (!in->boot) {
		d.verdict = VERDICT_LEFT_ALONE;
		return d;
	}
	if (in->switched_off) {
		d.cause =
		    CAUSE_SWITCHED_OFF; /* somebody wants it so; it is a gap all the same, and recorded */
		return d;
	}
	if (in->phase == PHASE_IS_FINISH && in->has_direct && !in->carried) {
		d.verdict = VERDICT_DIRECT;
		d.cause = CAUSE_FINISHED;
		return d;
	}
	if (in->phase == PHASE_IS_OBSERVE && !in->observe_relays) {
		d.verdict = VERDICT_OBSERVED;
		d.cause = CAUSE_OBSERVING;
		return d;
	}

	d.cause = decide_agent(in, &since);
	if (d.cause == CAUSE_AGENT_SERVES && !in->has_address) {
		d.cause = CAUSE_NO_AGENT_ADDRESS; /* it will not get one by waiting: no grace */
		since = 0;
	} else if (d.cause == CAUSE_AGENT_SERVES && in->trip_since_ns && in->now_ns < in->trip_until_ns) {
		d.cause = CAUSE_NAMESPACE_TRIPPED;
		since = in->trip_since_ns;
	}
	if (d.cause == CAUSE_AGENT_SERVES) {
		d.verdict = VERDICT_REDIRECTED;
		return d;
	}

	switch (in->phase) {
	case PHASE_IS_OBSERVE:
		d.verdict = VERDICT_BYPASSED;
		break;
	case PHASE_IS_MIRROR:
		d.verdict = in->now_ns - since < in->grace_ns ? VERDICT_REFUSED : VERDICT_BYPASSED;
		break;
	case PHASE_IS_FINISH:
		d.verdict = VERDICT_REFUSED;
		if (in->has_direct && in->now_ns - since >= in->grace_ns) {
			d.verdict = VERDICT_DIRECT;
			d.cause = CAUSE_FINISHED;
		}
		break;
	case PHASE_IS_DRAIN:
	case PHASE_IS_CUTOVER:
	case PHASE_IS_ROLLBACK:
		d.verdict = VERDICT_REFUSED;
		break;
	default:
		d.verdict =
		    VERDICT_BYPASSED; /* a number that we do not know: the client's path never gets worse */
		break;
	}
	return d;
}

/* Strikes against a namespace. Returns 1 when this one trips it. */
static inline int decide_strike(struct trip *t, enum cause cause, __u64 now_ns, __u64 boot, __u64 trip_ns)
{
	if (t->boot != boot || now_ns - t->last_strike_ns > ABI_STRIKE_WINDOW_NS) {
		t->strikes = 0;
		t->since_ns = 0;
		t->until_ns = 0;
	}
	t->boot = boot;
	t->last_cause = cause;
	t->last_strike_ns = now_ns;
	t->strikes++;
	if (t->strikes < ABI_STRIKES)
		return 0;
	t->strikes = 0;
	/* Tripped again as soon as it was over: the downtime goes on, so that mirror's grace is not granted
	 * anew. */
	if (!t->since_ns)
		t->since_ns = now_ns;
	t->until_ns = now_ns + trip_ns;
	return 1;
}

/* May `bytes` more be redirected? The agent may lag by `limit`; counters only grow, their difference is right
 * even at a wrap. */
static inline int decide_credit(__u64 sent, __u64 consumed, __u64 bytes, __u64 limit)
{
	__u64 ahead = sent - consumed;

	/* The agent counts TCP bytes as well, so it may be ahead of `sent`: nothing is outstanding then. */
	if ((__s64)ahead < 0)
		ahead = 0;
	return ahead + bytes <= limit;
}
