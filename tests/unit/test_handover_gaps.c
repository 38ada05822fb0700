// SPDX-License-Identifier: Apache-2.0
/* Gaps on their way from one agent to the next: what goes in comes out, and what is not understood is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "control/handover_gaps.h"

static struct {
	struct gap_count count[8];
	struct gap_session session[8];
	unsigned counts, sessions;
} got;

static void on_count(void *context, const struct gap_count *c)
{
	(void)context;
	got.count[got.counts++] = *c;
}

static void on_session(void *context, const struct gap_session *s)
{
	(void)context;
	got.session[got.sessions++] = *s;
}

static unsigned read_text(const char *text)
{
	json_t *array = json_loads(text, 0, NULL);
	unsigned unknown;

	memset(&got, 0, sizeof(got));
	unknown = handover_gaps_read(array, on_count, on_session, NULL);
	json_decref(array);
	return unknown;
}

static void test_round_trip(void **state)
{
	struct gap_count count = {.missing = TARGET, .keyspace = "k \"s\"", .table = "\xc3\xbc", .count = 7, .first_us = 5, .last_us = 1ll << 50};
	struct gap_session session = {.begin = true, .missing = ORIGIN, .key = UINT64_MAX >> 1, .cookie = 9, .at_us = 11};
	struct error e;

	(void)state;
	assert_int_equal(addr_resolve("10.0.0.1:4000", 0, &session.client, &e), 0);
	assert_int_equal(addr_resolve("[fd00::7]:9042", 0, &session.destination, &e), 0);
	for (int cause = GAP_LWT; cause < GAP_CAUSES; cause++) {
		json_t *array = json_array();
		char *text;

		count.cause = cause;
		session.begin = cause % 2;
		json_array_append_new(array, handover_gap_count(&count));
		json_array_append_new(array, handover_gap_session(&session));
		text = json_dumps(array, JSON_COMPACT);
		json_decref(array);
		assert_non_null(text);
		assert_int_equal(read_text(text), 0);
		free(text);
		assert_int_equal(got.counts, 1);
		assert_int_equal(got.sessions, 1);
		assert_int_equal(got.count[0].cause, cause);
		assert_int_equal(got.count[0].missing, TARGET);
		assert_string_equal(got.count[0].keyspace, count.keyspace);
		assert_string_equal(got.count[0].table, count.table);
		assert_int_equal(got.count[0].count, 7);
		assert_int_equal(got.count[0].first_us, 5);
		assert_int_equal(got.count[0].last_us, 1ll << 50);
		assert_int_equal(got.session[0].begin, cause % 2);
		assert_int_equal(got.session[0].missing, ORIGIN);
		assert_int_equal(got.session[0].key, session.key);
		assert_int_equal(got.session[0].cookie, 9);
		assert_true(addr_equal(&got.session[0].client, &session.client));
		assert_true(addr_equal(&got.session[0].destination, &session.destination));
	}
}

static void test_a_span_of_the_ledger_is_a_session(void **state)
{
	struct ledger_record r = {.kind = LEDGER_OPAQUE, .missing_on_origin = true, .key = 3, .cookie = 4, .from_us = 5,
				  .client = "10.0.0.1:1", .destination = "10.0.3.7:9042"};
	json_t *array = json_array();

	(void)state;
	memset(&got, 0, sizeof(got));
	json_array_append_new(array, handover_gap_span(&r));
	assert_int_equal(handover_gaps_read(array, on_count, on_session, NULL), 0);
	json_decref(array);
	assert_int_equal(got.sessions, 1);
	assert_true(got.session[0].begin);
	assert_int_equal(got.session[0].missing, ORIGIN);
	assert_int_equal(got.session[0].key, 3);
	assert_int_equal(got.session[0].at_us, 5);
}

static void test_what_is_not_understood(void **state)
{
	static const struct {
		const char *text;
		unsigned unknown, counts;
	} rows[] = {
		{"[]", 0, 0},
		{"{}", 0, 0},
		{"[1, null, \"x\", [], {}]", 5, 0},
		{"[{\"cause\":\"lwt\"}]", 1, 0},
		{"[{\"cause\":\"lwt\",\"missing\":\"target\",\"keyspace\":\"k\",\"table\":\"t\",\"count\":0}]", 1, 0},
		{"[{\"cause\":\"lwt\",\"missing\":\"nowhere\",\"keyspace\":\"k\",\"table\":\"t\",\"count\":1}]", 1, 0},
		{"[{\"cause\":5,\"missing\":\"target\",\"keyspace\":\"k\",\"table\":\"t\",\"count\":1}]", 1, 0},
		{"[{\"cause\":\"lwt\",\"missing\":\"target\",\"keyspace\":\"0123456789012345678901234567890123456789012345678\",\"table\":\"t\",\"count\":1}]", 1, 0},
		{"[{\"opaque\":\"begin\"}]", 1, 0},
		/* a cause of a newer agent still counts */
		{"[{\"cause\":\"sunspots\",\"missing\":\"origin\",\"keyspace\":\"\",\"table\":\"\",\"count\":2}]", 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		print_message("%s\n", rows[i].text);
		assert_int_equal(read_text(rows[i].text), rows[i].unknown);
		assert_int_equal(got.counts, rows[i].counts);
		assert_int_equal(got.sessions, 0);
	}
	assert_int_equal(got.count[0].cause, GAP_UNCLASSIFIED);
	/* Addresses that are none are left empty, and never looked up. */
	assert_int_equal(read_text("[{\"opaque\":\"end\",\"missing\":\"target\",\"client\":\"localhost:1\",\"destination\":\"[::1:9\"}]"), 0);
	assert_int_equal(got.sessions, 1);
	assert_int_equal(got.session[0].client.sa.sa_family, AF_UNSPEC);
	assert_int_equal(got.session[0].destination.sa.sa_family, AF_UNSPEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_a_span_of_the_ledger_is_a_session),
		cmocka_unit_test(test_what_is_not_understood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
