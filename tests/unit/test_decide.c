/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel side's decisions (bpf/decide.h), compiled for user space: every phase with every state of the
 * agent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../bpf/decide.h"

#define S 1000000000ull
#define NOW (1000 * S)
#define GRACE (10 * S)

/* An agent in good health, in the given phase, that relays while observing. */
static struct decision_input healthy(enum steer_phase phase)
{
	return (struct decision_input){
	    .phase = phase,
	    .observe_relays = 1,
	    .has_address = 1,
	    .now_ns = NOW,
	    .boot = 7,
	    .deadline_ns = NOW + S,
	    .grace_ns = GRACE,
	    .listener_known = 1,
	    .listener_open = 1,
	};
}

static void expect(const struct decision_input *in, enum verdict verdict, enum cause cause, const char *what)
{
	struct decision d = decide(in);

	if (d.verdict != verdict || d.cause != cause)
		fail_msg("%s, phase %d: verdict %d cause %d, expected %d and %d", what, in->phase, d.verdict,
			 d.cause, verdict, cause);
}

static const struct {
	enum steer_phase phase;
	enum verdict early, late; /* agent down: within the grace, after it */
} rows[] = {
    {PHASE_IS_OBSERVE, VERDICT_BYPASSED, VERDICT_BYPASSED},
    {PHASE_IS_MIRROR, VERDICT_REFUSED, VERDICT_BYPASSED},
    {PHASE_IS_DRAIN, VERDICT_REFUSED, VERDICT_REFUSED},
    {PHASE_IS_CUTOVER, VERDICT_REFUSED, VERDICT_REFUSED},
    {PHASE_IS_ROLLBACK, VERDICT_REFUSED, VERDICT_REFUSED},
    {PHASE_IS_FINISH, VERDICT_REFUSED, VERDICT_REFUSED},
};
#define ROWS (sizeof(rows) / sizeof(*rows))

static void test_serving_agent_gets_all(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		struct decision_input in = healthy(rows[i].phase);

		expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "healthy");
		in.listener_known = 0; /* an agent in the root cgroup: only the heartbeat speaks */
		expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "healthy, listener not seen");
	}
}

static void test_down_by_every_cause(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		for (int late = 0; late < 2; late++) {
			enum verdict verdict = late ? rows[i].late : rows[i].early;
			uint64_t since = late ? NOW - GRACE : NOW - GRACE + 1;
			struct decision_input in = healthy(rows[i].phase);

			in.deadline_ns = since;
			expect(&in, verdict, CAUSE_AGENT_STALE, "stale");

			in = healthy(rows[i].phase);
			in.listener_open = 0;
			in.listener_closed_ns = since;
			expect(&in, verdict, CAUSE_AGENT_GONE, "gone");
			in.listener_open = -1; /* counted wrongly once: not a reason to send anybody there */
			expect(&in, verdict, CAUSE_AGENT_GONE, "gone, negative");

			in = healthy(rows[i].phase);
			in.trip_since_ns = since;
			in.trip_until_ns = NOW + 1;
			expect(&in, verdict, CAUSE_NAMESPACE_TRIPPED, "tripped");
		}
	}
}

static void test_the_earlier_sign_of_death_counts(void **state)
{
	struct decision_input in = healthy(PHASE_IS_MIRROR);

	(void)state;
	/* listener closed long ago, heartbeat ran out a moment ago: the grace began with the listener */
	in.listener_open = 0;
	in.listener_closed_ns = NOW - GRACE;
	in.deadline_ns = NOW - 1;
	expect(&in, VERDICT_BYPASSED, CAUSE_AGENT_GONE, "listener first");
	/* and the other way round */
	in.listener_closed_ns = NOW - 1;
	in.deadline_ns = NOW - GRACE;
	expect(&in, VERDICT_BYPASSED, CAUSE_AGENT_GONE, "heartbeat first");
}

static void test_edges(void **state)
{
	struct decision_input in = healthy(PHASE_IS_OBSERVE);

	(void)state;
	in.deadline_ns = NOW;
	expect(&in, VERDICT_BYPASSED, CAUSE_AGENT_STALE, "deadline is now");
	in.deadline_ns = NOW + 1;
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "deadline in 1 ns");
	in.trip_since_ns = 1;
	in.trip_until_ns = NOW;
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "trip is over now");
	in.trip_until_ns = NOW + 1;
	expect(&in, VERDICT_BYPASSED, CAUSE_NAMESPACE_TRIPPED, "trip ends in 1 ns");
	/* an agent that is down explains more than a trip does */
	in.deadline_ns = NOW;
	expect(&in, VERDICT_BYPASSED, CAUSE_AGENT_STALE, "stale and tripped");
	in = healthy(PHASE_IS_OBSERVE);
	in.boot = 0;
	expect(&in, VERDICT_LEFT_ALONE, CAUSE_AGENT_SERVES, "no agent ever");
	in = healthy((enum steer_phase)77);
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "unknown phase, agent serves");
	in.deadline_ns = 0;
	expect(&in, VERDICT_BYPASSED, CAUSE_AGENT_STALE, "unknown phase, agent down");
}

/* Once finished who comes anew goes straight; who was here before knows names and pages that only the agent can keep up. */
static void test_finish_keeps_whom_it_carried(void **state)
{
	struct decision_input in = healthy(PHASE_IS_FINISH);

	(void)state;
	in.has_direct = 1;
	expect(&in, VERDICT_DIRECT, CAUSE_FINISHED, "a new process");
	in.carried = 1;
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "carried");
	in.deadline_ns = NOW - GRACE + 1;
	expect(&in, VERDICT_REFUSED, CAUSE_AGENT_STALE, "carried, the agent is away for a moment");
	in.deadline_ns = NOW - GRACE;
	expect(&in, VERDICT_DIRECT, CAUSE_FINISHED, "carried, the agent does not come back");
	in.has_direct = 0;
	expect(&in, VERDICT_REFUSED, CAUSE_AGENT_STALE, "carried, no target of its family");
	in.deadline_ns = 0;
	in.carried = 0;
	in.has_direct = 1;
	expect(&in, VERDICT_DIRECT, CAUSE_FINISHED, "a new process, the agent is away");
	in = healthy(PHASE_IS_CUTOVER);
	in.has_direct = in.carried = 1;
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "cutover");
}

static void test_no_address_waits_for_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		struct decision_input in = healthy(rows[i].phase);

		in.has_address = 0;
		expect(&in, rows[i].late, CAUSE_NO_AGENT_ADDRESS, "no address of this family");
	}
}

static void test_observing_without_relay_asks_nobody(void **state)
{
	struct decision_input in = healthy(PHASE_IS_OBSERVE);

	(void)state;
	in.observe_relays = 0;
	expect(&in, VERDICT_OBSERVED, CAUSE_OBSERVING, "healthy");
	in.deadline_ns = 0;
	expect(&in, VERDICT_OBSERVED, CAUSE_OBSERVING, "stale");
	in.phase = PHASE_IS_MIRROR;
	in.deadline_ns = NOW + 1;
	expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "only observe may leave connections alone");
}

static void test_direct_only_in_finish(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		struct decision_input in = healthy(rows[i].phase);

		in.has_direct = 1;
		if (rows[i].phase == PHASE_IS_FINISH) {
			expect(&in, VERDICT_DIRECT, CAUSE_FINISHED, "healthy");
			in.deadline_ns = 0;
			expect(&in, VERDICT_DIRECT, CAUSE_FINISHED, "stale");
		} else {
			expect(&in, VERDICT_REDIRECTED, CAUSE_AGENT_SERVES, "targets known before finish");
		}
	}
}

static void test_kill_switch(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		struct decision_input in = healthy(rows[i].phase);

		in.switched_off = 1;
		in.has_direct = 1;
		expect(&in, VERDICT_BYPASSED, CAUSE_SWITCHED_OFF, "switched off");
		in.deadline_ns = 0;
		expect(&in, VERDICT_BYPASSED, CAUSE_SWITCHED_OFF, "switched off, stale");
	}
}

static void test_strikes(void **state)
{
	struct trip t = {0};

	(void)state;
	assert_int_equal(decide_strike(&t, CAUSE_CONNECT_FAILED, NOW, 7, 180 * S), 0);
	assert_int_equal(t.since_ns, 0);
	/* too long ago: counted anew */
	assert_int_equal(decide_strike(&t, CAUSE_CONNECT_FAILED, NOW + ABI_STRIKE_WINDOW_NS + 1, 7, 180 * S),
			 0);
	assert_int_equal(decide_strike(&t, CAUSE_UNATTRIBUTED, NOW + ABI_STRIKE_WINDOW_NS + 2, 7, 180 * S),
			 1);
	assert_int_equal(t.since_ns, NOW + ABI_STRIKE_WINDOW_NS + 2);
	assert_int_equal(t.until_ns, t.since_ns + 180 * S);
	assert_int_equal(t.last_cause, CAUSE_UNATTRIBUTED);
	/* a new agent gets a new chance */
	assert_int_equal(decide_strike(&t, CAUSE_CONNECT_FAILED, NOW + ABI_STRIKE_WINDOW_NS + 3, 8, 180 * S),
			 0);
	assert_int_equal(t.since_ns, 0);
}

static void test_credit(void **state)
{
	(void)state;
	assert_true(decide_credit(0, 0, 100, 100));
	assert_false(decide_credit(0, 0, 101, 100));
	assert_true(decide_credit(100, 50, 50, 100));
	assert_false(decide_credit(100, 50, 51, 100));
	/* the agent counted TCP bytes as well: nothing outstanding, but no more than the limit either */
	assert_true(decide_credit(100, 5000, 100, 100));
	assert_false(decide_credit(100, 5000, 101, 100));
	/* over the wrap */
	assert_true(decide_credit(20, UINT64_MAX - 29, 50, 100));
	assert_false(decide_credit(20, UINT64_MAX - 29, 51, 100));
	assert_false(decide_credit(0, 0, 1, 0));
}

int main(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_serving_agent_gets_all),
	    cmocka_unit_test(test_down_by_every_cause),
	    cmocka_unit_test(test_the_earlier_sign_of_death_counts),
	    cmocka_unit_test(test_edges),
	    cmocka_unit_test(test_finish_keeps_whom_it_carried),
	    cmocka_unit_test(test_no_address_waits_for_nothing),
	    cmocka_unit_test(test_observing_without_relay_asks_nobody),
	    cmocka_unit_test(test_direct_only_in_finish),
	    cmocka_unit_test(test_kill_switch),
	    cmocka_unit_test(test_strikes),
	    cmocka_unit_test(test_credit),
	};

	return cmocka_run_group_tests(list, NULL, NULL);
}
