// SPDX-License-Identifier: Apache-2.0
/* What stands against a switch: debts as the ledger has them, over restarts and by side; sessions that the target could not carry; clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "cutover/checks.h"
#include "cutover/fit.h"
#include "cutover/ledger.h"
#include "cutover/review.h"
#include "mirror/skew.h"
#include "unit/directory.h"

static struct {
	unsigned count;
	enum check_grade grade[40];
	char what[40][400];
} seen;

static void found(void *context, enum check_grade grade, const char *what, const char *remedy)
{
	(void)context;
	(void)remedy;
	assert_true(seen.count < 40);
	seen.grade[seen.count] = grade;
	snprintf(seen.what[seen.count++], sizeof(seen.what[0]), "%s", what);
}

static bool says(const char *text)
{
	for (unsigned i = 0; i < seen.count; i++)
		if (strstr(seen.what[i], text))
			return true;
	return false;
}

static unsigned debts_on(enum side missing)
{
	memset(&seen, 0, sizeof(seen));
	check_debts(directory, missing, found, NULL);
	for (unsigned i = 0; i < seen.count; i++)
		assert_int_equal(seen.grade[i], CHECK_OBSTACLE);
	return seen.count;
}

static struct ledger *open_ledger(int64_t now)
{
	struct ledger_options o = {.directory = directory, .boot = "b", .now_us = now};
	struct ledger *l = NULL;
	struct error e = {""};

	assert_int_equal(ledger_open(&o, &l, NULL, &e), 0);
	return l;
}

static void note(struct ledger *l, enum gap_cause cause, enum side missing, uint64_t count)
{
	struct gap_count c = {.cause = cause, .missing = missing, .keyspace = "k", .table = "t", .count = count, .first_us = 1000, .last_us = 2000};

	ledger_unmirrored(l, &c);
}

static void test_debts_outlive_an_agent(void **unused)
{
	static const struct course mirroring = {.mirroring = true, .primary = ORIGIN};
	struct ledger *l = open_ledger(1000);

	(void)unused;
	ledger_course(l, &mirroring, 1000);
	assert_int_equal(debts_on(TARGET), 0);
	note(l, GAP_LWT, TARGET, 3);
	note(l, GAP_UNDELIVERED, TARGET, 2);
	note(l, GAP_POLICY, TARGET, 9); /* what policy keeps from the target is no debt */
	note(l, GAP_COUNTER, ORIGIN, 5);
	ledger_write_windows(l, 3000);
	for (int restart = 0; restart < 2; restart++) {
		assert_int_equal(debts_on(TARGET), 2);
		assert_true(says("missing on the target: 3 conditional writes (LWT) were not mirrored"));
		assert_true(says("2 writes that waited when an agent ended"));
		assert_int_equal(debts_on(ORIGIN), 1);
		assert_true(says("missing on the origin: 5 counter updates"));
		ledger_close(l, 4000);
		l = open_ledger(5000);
	}
	/* A forced move is on the ledger and no debt itself; it settles none either. */
	ledger_forced(l, "uid 0", "mirror -> cutover", "3 conditional writes (LWT)", 6000);
	ledger_write_windows(l, 6000);
	assert_int_equal(ledger_tick(l, 6000), 0);
	assert_int_equal(debts_on(TARGET), 2);
	ledger_close(l, 7000);
}

static void test_an_agent_that_ended_without_notice(void **unused)
{
	static const struct course mirroring = {.mirroring = true, .primary = ORIGIN}, observing = {.primary = ORIGIN};
	struct ledger *l = open_ledger(1000);

	(void)unused;
	ledger_down(l, "nothing was mirrored", 5, 1000, 1500); /* no gap while nothing is expected to be mirrored */
	ledger_course(l, &mirroring, 2000);
	ledger_down(l, "agent before this one ended without notice", 17, 2500, 3000);
	assert_int_equal(ledger_tick(l, 3000), 0);
	assert_int_equal(debts_on(TARGET), 1);
	assert_true(says("1 times an agent ended without notice"));
	ledger_course(l, &observing, 4000);
	assert_int_equal(ledger_tick(l, 4000), 0);
	assert_int_equal(debts_on(TARGET), 2); /* the span is open, and counts already */
	assert_true(says("mirroring was switched off"));
	ledger_close(l, 5000);
}

static void test_without_a_ledger_the_counters_count(void **unused)
{
	struct metrics *m = aligned_alloc(64, sizeof(*m));

	(void)unused;
	memset(m, 0, sizeof(*m));
	metrics_register(m);
	metric_add(m, METRIC_UNMIRRORED_SHED, 4);
	memset(&seen, 0, sizeof(seen));
	check_debts("", TARGET, found, NULL);
	assert_int_equal(seen.count, 1);
	assert_true(says("4 writes shed"));
	metric_set(m, METRIC_UNMIRRORED_SHED, 0);
	metrics_unregister(m);
	free(m);
}

/* ---- sessions and the target */

static void say(void *context, const char *what, const char *remedy)
{
	found(context, CHECK_NOTE, what, remedy);
}

static void test_sessions_that_do_not_fit(void **unused)
{
	struct fit v4 = {.highest = 4, .compression = {true, true, false}}, v5 = {.highest = 5, .compression = {true, true, true}};
	struct fit_census c;
	struct error e;

	(void)unused;
	assert_int_equal(fit_census_init(&c), 0);
	for (unsigned i = 0; i < 25; i++) {
		struct fit_session s = {.version = i < 12 ? 5 : 4, .compression = i == 20 ? COMPRESSION_SNAPPY : COMPRESSION_LZ4};
		char text[40];

		snprintf(text, sizeof(text), "10.0.0.1:%u", 1000 + i);
		assert_int_equal(addr_resolve(text, 0, &s.client, &e), 0);
		c.session[c.kept++] = s;
		c.of[s.version][s.compression]++;
		c.total++;
	}
	memset(&seen, 0, sizeof(seen));
	fit_report(&v5, &c, say, NULL);
	assert_int_equal(seen.count, 0);
	fit_report(&v4, &c, say, NULL);
	assert_true(says("12 of 25 sessions speak a protocol version above the target's (4)"));
	assert_true(says("client 10.0.0.1:1000: protocol version 5"));
	assert_false(says("10.0.0.1:1011")); /* the first ten make the point */
	assert_true(says("1 of 25 sessions use a compression"));
	assert_true(says("client 10.0.0.1:1020: protocol version 4, compression snappy"));
	assert_int_equal(seen.count, 1 + FIT_NAMED + 1 + 1);
	fit_census_done(&c);
}

/* ---- clocks */

static void test_clocks(void **unused)
{
	static const struct {
		int64_t offset_us, unsure_us;
		enum skew_grade grade;
	} rows[] = {
		{0, 500, SKEW_FINE},		{99000, 500, SKEW_FINE},     {-99000, 500, SKEW_FINE},
		{99800, 500, SKEW_UNSURE},	{-100400, 500, SKEW_UNSURE}, {100501, 500, SKEW_BEYOND},
		{-100501, 500, SKEW_BEYOND},	{3600000000, 500, SKEW_BEYOND}, {90000, 20000, SKEW_UNSURE},
		{130000, 40000, SKEW_UNSURE},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct skew s = {rows[i].offset_us, rows[i].unsure_us};

		assert_int_equal(skew_judge(&s, 100), rows[i].grade);
	}
}

/* Grades in their order, and which of them is named when the move is refused; −1 = none. */
static void test_a_blocker_is_named_before_what_force_overrides(void **unused)
{
	static const struct {
		enum check_grade grades[4];
		unsigned count;
		int reason;
	} rows[] = {
		{{CHECK_FINE}, 0, -1},
		{{CHECK_FINE, CHECK_NOTE}, 2, -1},
		{{CHECK_NOTE, CHECK_OBSTACLE, CHECK_OBSTACLE}, 3, 1},
		{{CHECK_OBSTACLE, CHECK_NOTE, CHECK_BLOCKER, CHECK_BLOCKER}, 4, 2},
		{{CHECK_BLOCKER, CHECK_OBSTACLE}, 2, 0},
	};
	struct review_finding findings[4] = {0};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct review_finding *reason;

		for (unsigned k = 0; k < rows[i].count; k++)
			findings[k].grade = rows[i].grades[k];
		reason = review_reason(findings, rows[i].count);
		assert_int_equal(reason ? reason - findings : -1, rows[i].reason);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_debts_outlive_an_agent, directory_setup, directory_teardown),
		cmocka_unit_test_setup_teardown(test_an_agent_that_ended_without_notice, directory_setup, directory_teardown),
		cmocka_unit_test(test_without_a_ledger_the_counters_count),
		cmocka_unit_test(test_sessions_that_do_not_fit),
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_a_blocker_is_named_before_what_force_overrides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
