// SPDX-License-Identifier: Apache-2.0
/* Who may stand in for a replica, and in which order: decisions alone, nothing is dialled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "relay/reach_priv.h"

static struct relay_options options;
static struct reach *reach;

static struct addr at(const char *text)
{
	struct addr a;

	assert_int_equal(addr_resolve(text, 9042, &a, NULL), 0);
	return a;
}

static void begin(enum connection_mode mode, const char *const *contacts, const char *const *controls)
{
	struct cluster *c = &options.cluster[ORIGIN];

	memset(&options, 0, sizeof(options));
	options.reach.mode = mode;
	for (; *contacts; contacts++)
		c->nodes[c->node_count++] = at(*contacts);
	for (; controls && *controls; controls++, c->control_count++)
		c->nodes[c->node_count++] = at(*controls);
	reach = reach_new(&options);
	assert_non_null(reach);
}

static int end(void **unused)
{
	(void)unused;
	reach_free(reach);
	reach = NULL;
	return 0;
}

static struct reach_plan plan_of(const char *replica, uint64_t client)
{
	struct reach_want want = {.side = ORIGIN, .replica = at(replica), .client = client};
	struct reach_plan plan;

	reach_plan(reach, &want, &plan);
	return plan;
}

/* "a b c": in this order, and no others. */
static void expect(const struct reach_plan *plan, const char *wanted)
{
	char got[EYEBALLS_MAX * ADDR_TEXT_MAX] = "", one[ADDR_TEXT_MAX];

	for (unsigned i = 0; i < plan->control_count; i++) {
		size_t n = strlen(got);

		addr_format(&plan->control[i].addr, one);
		snprintf(got + n, sizeof(got) - n, "%s%.*s", n ? " " : "", (int)strcspn(one, ":"), one);
	}
	assert_string_equal(got, wanted);
}

static const char *const two[] = {"10.0.0.1", "10.0.0.2", NULL}, *const one[] = {"10.0.0.1", NULL}, *const front[] = {"10.9.0.1", "10.9.0.2", NULL};

static void the_order_of_control_hosts(void **unused)
{
	struct reach_want want = {.side = ORIGIN, .replica = at("10.0.0.7"), .client = 77};
	struct reach_plan plan;

	(void)unused;
	begin(MODE_AUTO, two, front);
	plan = plan_of("10.0.0.9", 77);
	assert_int_equal(plan.way, WAY_TRY);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.1 10.0.0.2");
	/* What the client reached itself comes before what the agent was told for all. */
	reach_learn(reach, &want);
	plan = plan_of("10.0.0.9", 77);
	assert_int_equal(plan.way, WAY_WAIT);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.7 10.0.0.1 10.0.0.2");
	plan = plan_of("10.0.0.9", 78);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.1 10.0.0.2");
	/* A replica does not stand in for itself, contact points take turns. */
	plan = plan_of("10.0.0.1", 0);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.2");
	want = (struct reach_want){.side = ORIGIN, .replica = at("10.0.0.9"), .turn = 1};
	reach_plan(reach, &want, &plan);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.2 10.0.0.1");
}

static void who_is_known_not_to_answer_comes_last(void **unused)
{
	struct addr dead = at("10.9.0.1");
	struct reach_plan plan;

	(void)unused;
	begin(MODE_AUTO, two, front);
	verdicts_failed(&reach->verdicts[ORIGIN], &dead, -ETIMEDOUT, 0);
	plan = plan_of("10.0.0.9", 0);
	expect(&plan, "10.9.0.2 10.0.0.1 10.0.0.2 10.9.0.1");
}

/* A balancer in a pod of this node whose connections are intercepted, too. */
static void the_client_itself_does_not_stand_in(void **unused)
{
	struct reach_want want = {.side = ORIGIN, .replica = at("10.0.0.9"), .from = at("10.9.0.1:40000")};
	struct reach_plan plan;

	(void)unused;
	begin(MODE_AUTO, two, front);
	reach_plan(reach, &want, &plan);
	expect(&plan, "10.9.0.2 10.0.0.1 10.0.0.2");
	want.from = at("127.0.0.1:40000");
	reach_plan(reach, &want, &plan);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.1 10.0.0.2");
}

/* Nothing is tried, and no verdict kept, where there is no other way anyhow. */
static void a_single_contact_point_is_just_dialled(void **unused)
{
	struct reach_plan plan;

	(void)unused;
	begin(MODE_AUTO, one, NULL);
	plan = plan_of("10.0.0.1", 0);
	assert_true(plan.alone && plan.way == WAY_REPLICA && plan.control_count == 0);
	assert_int_equal(reach->verdicts[ORIGIN].count, 0);
}

static void direct_and_proxy(void **unused)
{
	struct reach_plan plan;

	(void)unused;
	begin(MODE_DIRECT, two, front);
	plan = plan_of("10.0.0.9", 0);
	expect(&plan, "10.0.0.9");
	end(NULL);
	begin(MODE_PROXY, two, front);
	plan = plan_of("10.0.0.9", 0);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.1 10.0.0.2");
	plan = plan_of("10.0.0.1", 0);
	expect(&plan, "10.9.0.1 10.9.0.2 10.0.0.2");
	plan = plan_of("10.9.0.2", 0); /* one itself */
	expect(&plan, "10.9.0.2 10.9.0.1 10.0.0.1 10.0.0.2");
	end(NULL);
	begin(MODE_PROXY, two, NULL); /* the contact points are the control hosts */
	plan = plan_of("10.0.0.2", 0);
	expect(&plan, "10.0.0.2 10.0.0.1");
	end(NULL);
	begin(MODE_PROXY, &one[1], NULL); /* nobody is known: interception by a watch list alone */
	plan = plan_of("10.0.0.9", 0);
	expect(&plan, "10.0.0.9");
}

/* Addresses of one name are one host, also for who insists on it. */
static void a_name_with_several_addresses(void **unused)
{
	struct cluster *c = &options.cluster[ORIGIN];
	struct reach_plan plan;

	(void)unused;
	begin(MODE_DIRECT, two, front);
	snprintf(c->names[0], ENDPOINT_NAME, "db.example");
	snprintf(c->names[3], ENDPOINT_NAME, "db.example");
	plan = plan_of("10.0.0.1", 0);
	expect(&plan, "10.0.0.1 10.9.0.2");
	assert_string_equal(plan.control[1].names[0], "db.example");
	plan = plan_of("10.0.0.2", 0);
	expect(&plan, "10.0.0.2");
}

static void tls_of_the_client_is_not_wrapped(void **unused)
{
	struct reach_want want = {.side = ORIGIN, .replica = at("10.0.0.9"), .passes_tls = true};
	struct reach_plan plan;

	(void)unused;
	begin(MODE_AUTO, two, NULL);
	options.cluster[ORIGIN].tls = (void *)&options;
	reach_plan(reach, &want, &plan);
	assert_true(!plan.replica.tls && !plan.control[0].tls && !plan.control[1].tls);
	want.passes_tls = false;
	reach_plan(reach, &want, &plan);
	assert_true(plan.replica.tls && plan.control[0].tls);
}

/* More clients than are remembered: who comes later takes the place. */
static void contact_points_are_bounded(void **unused)
{
	struct reach_want want = {.side = ORIGIN, .replica = at("10.0.0.7")};
	unsigned known = 0;

	(void)unused;
	begin(MODE_AUTO, one, NULL);
	for (want.client = 1; want.client <= 10 * REACH_CONTACTS; want.client++)
		reach_learn(reach, &want);
	for (uint64_t client = 1; client <= 10 * REACH_CONTACTS; client++)
		known += plan_of("10.0.0.9", client).control_count == 2;
	assert_true(known > REACH_CONTACTS / 2 && known <= REACH_CONTACTS);
	want.client = 10 * REACH_CONTACTS;
	assert_int_equal(plan_of("10.0.0.9", want.client).control_count, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_order_of_control_hosts, end),
		cmocka_unit_test_teardown(who_is_known_not_to_answer_comes_last, end),
		cmocka_unit_test_teardown(the_client_itself_does_not_stand_in, end),
		cmocka_unit_test_teardown(a_single_contact_point_is_just_dialled, end),
		cmocka_unit_test_teardown(direct_and_proxy, end),
		cmocka_unit_test_teardown(a_name_with_several_addresses, end),
		cmocka_unit_test_teardown(tls_of_the_client_is_not_wrapped, end),
		cmocka_unit_test_teardown(contact_points_are_bounded, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
