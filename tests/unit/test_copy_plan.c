// SPDX-License-Identifier: Apache-2.0
/* What is copied, with which options, and where rows lie: statements, options, cqlshrc, the ring. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "copy/command.h"
#include "copy/pace.h"
#include "copy/progress.h"
#include "copy/rc.h"
#include "net/ring.h"
#include "unit/guard.h"

/* Parsed and written down again: direction, table, columns, file, options. */
static const struct {
	const char *statement, *parsed;
} statements[] = {
    {"COPY ks.t TO 'f.csv'", "to ks.t f.csv"},
    {"copy t from stdin;", "from .t -"},
    {"COPY \"Ks\".\"T\"\"x\" (A, \"B c\") FROM 'a, b.csv'", "from Ks.T\"x(a,B c) a, b.csv"},
    {"COPY ks.t TO STDOUT WITH HEADER = TRUE AND DELIMITER='|' AND PAGESIZE=5 AND begintoken = -7 AND "
     "null='it''s';",
     "to ks.t - HEADER=TRUE DELIMITER=| PAGESIZE=5 begintoken=-7 null=it's"},
    {"COPY ks.t (a) TO 'f' WITH CONNECTIONMODE='proxy'", "to ks.t(a) f CONNECTIONMODE=proxy"},
    {"", "COPY expected at the end"},
    {"SELECT 1", "COPY expected at \"SELECT 1\""},
    {"COPY ks.t", "TO or FROM expected at the end"},
    {"COPY ks.t TO f", "'file' or STDOUT expected at \"f\""},
    {"COPY ks.t TO STDIN", "'file' or STDOUT expected at \"STDIN\""},
    {"COPY ks.t () TO 'f'", "the name of a column expected at \") TO 'f'\""},
    {"COPY ks.t (a TO 'f'", "\")\" behind the columns expected at \"TO 'f'\""},
    {"COPY ks.t TO 'f' WITH HEADER", "\"=\" expected at the end"},
    {"COPY ks.t TO 'f' WITH HEADER=", "the value of an option expected at the end"},
    {"COPY ks.t TO 'f' WITH HEADER=TRUE, NULL=''", "WITH, AND or the end expected at \", NULL=''\""},
    {"COPY ks.t TO 'f", "'file' or STDOUT expected at \"'f\""},
};

static void test_statements(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(statements) / sizeof(*statements); i++) {
		struct copy_command c = {0};
		struct error error = {""};
		struct bytes b = {0};

		if (command_parse(statements[i].statement, &c, &error) == 0) {
			bytes_text(&b, c.to ? "to " : "from ");
			bytes_text(&b, c.keyspace);
			bytes_u8(&b, '.');
			bytes_text(&b, c.table);
			for (unsigned k = 0; k < c.column_count; k++) {
				bytes_u8(&b, k ? ',' : '(');
				bytes_text(&b, c.columns[k]);
			}
			bytes_text(&b, c.column_count ? ") " : " ");
			bytes_text(&b, c.file ? c.file : "-");
			for (size_t k = 0; k < c.options.count; k++) {
				bytes_u8(&b, ' ');
				bytes_text(&b, c.options.list[k].name);
				bytes_u8(&b, '=');
				bytes_text(&b, c.options.list[k].value);
			}
		} else {
			bytes_text(&b, error.text);
		}
		bytes_u8(&b, 0);
		assert_string_equal((char *)b.data, statements[i].parsed);
		bytes_done(&b);
		command_done(&c);
	}
}

static const struct {
	const char *name, *value, *error; /* "" = taken */
} options[] = {
    {"header", "true", ""},
    {"HEADER", "yes", "Invalid HEADER: yes. Must be TRUE or FALSE"},
    {"PAGESIZE", "0", "Invalid PAGESIZE: 0. Must be a whole number from 1 to 2147483647"},
    {"MAXROWS", "-1", ""},
    {"MAXROWS", "-2", "Invalid MAXROWS: -2. Must be a whole number from -1"},
    {"REPORTFREQUENCY", "0.5", ""},
    {"REPORTFREQUENCY", "often", "Invalid REPORTFREQUENCY: often. Must be a number from 0 to 86400"},
    {"connectionmode", "DIRECT", ""},
    {"CONNECTIONMODE", "fallback", "Invalid CONNECTIONMODE: fallback. Must be 'auto', 'direct', or 'proxy'"},
    {"COLOUR", "red", "Unrecognized COPY option: COLOUR; `cqlferry copy --help` lists them"},
    {"DELIMITER", "\\t", ""},
    {"DELIMITER", "ab",
     "Invalid DELIMITER: \"ab\". Must be one ASCII character, not a line end; \\t for a tab"},
    {"DELIMITER", "\"", "Invalid DELIMITER: \"\"\". Must differ from QUOTE and ESCAPE"},
    {"BOOLSTYLE", " yes , no ", ""},
    {"BOOLSTYLE", "yes",
     "Invalid boolean styles yes. Must be two different words, true first: BOOLSTYLE='yes,no'"},
    {"BOOLSTYLE", "a,A",
     "Invalid boolean styles a,A. Must be two different words, true first: BOOLSTYLE='yes,no'"},
    {"ENCODING", "UTF-8", ""},
    {"ENCODING", "latin1", "Invalid ENCODING: latin1. Must be utf8; iconv(1) converts other files"},
    {"BEGINTOKEN", "x", "Invalid BEGINTOKEN: x. Must be a whole number of 64 bits"},
    {"ENDTOKEN", "-9223372036854775808", ""},
};

static void test_options(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		struct copy_options o;
		struct error error = {""};

		options_init(&o);
		if (options_set(&o, options[i].name, options[i].value, &error) == 0)
			options_finish(&o, &error);
		assert_string_equal(error.text, options[i].error);
		options_done(&o);
	}
}

static void test_defaults(void **state)
{
	struct copy_options o;
	struct error error = {""};

	(void)state;
	options_init(&o);
	assert_int_equal(options_finish(&o, &error), 0);
	assert_int_equal(o.mode, MODE_AUTO);
	assert_false(o.mode_named || o.header || o.has_begin);
	assert_int_equal(o.pagetimeout, 10);
	assert_int_equal(o.maxbatchsize, 20);
	assert_int_equal(o.maxinserterrors, 1000);
	assert_true(o.numprocesses >= 1 && o.numprocesses <= 16 && o.preparedstatements);
	assert_string_equal(o.style.yes, "True");
	options_set(&o, "PAGESIZE", "5000", &error);
	o.pagetimeout = 0;
	options_finish(&o, &error);
	assert_int_equal(o.pagetimeout, 50);
	options_done(&o);
}

static void test_rc(void **state)
{
	static const char text[] =
	    "; a comment\n[connection]\nhostname = db.example\nPort: 9043\n\n[copy]\nnull=\n"
	    "delimiter = =\n# another\n[copy-to]\npagesize = 1\npagesize = 2\n[copy:ks.T]\nlong = a\n  b\n";
	struct error error = {""};
	struct rc rc;

	(void)state;
	assert_int_equal(rc_parse(&rc, "rc", text, sizeof(text) - 1, &error), 0);
	assert_string_equal(rc_get(&rc, "connection", "hostname"), "db.example");
	assert_string_equal(rc_get(&rc, "connection", "port"), "9043");
	assert_string_equal(rc_get(&rc, "copy", "null"), "");
	assert_string_equal(rc_get(&rc, "copy", "DELIMITER"), "=");
	assert_string_equal(rc_get(&rc, "copy-to", "pagesize"), "2");
	assert_string_equal(rc_get(&rc, "copy:ks.T", "long"), "a\nb");
	assert_null(rc_get(&rc, "copy", "hostname"));
	rc_done(&rc);
	assert_true(rc_parse(&rc, "rc", "a = b\n", 6, &error) < 0);
	assert_string_equal(error.text, "rc:1: neither [section] nor \"key = value\" in a section");
	assert_true(rc_parse(&rc, "rc", "[a]\nb\n", 6, &error) < 0);
	assert_true(rc_parse(&rc, "rc", "[a\n", 3, &error) < 0);
}

static struct ring ring_of(unsigned nodes, unsigned tokens)
{
	struct ring r = {.hashed = true};

	for (unsigned i = 0; i < nodes; i++) {
		struct addr a = {.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001u + i)}};
		char rack[8];

		snprintf(rack, sizeof(rack), "r%u", i % 2);
		assert_int_equal(ring_add_node(&r, &a, i == 5 ? "other" : "dc", rack), i);
		for (unsigned t = 0; t < tokens; t++)
			assert_int_equal(ring_add_token(&r, i, (int64_t)(t * nodes + i) * 1000 - 5000), 0);
	}
	return r;
}

static void test_replicas(void **state)
{
	struct ring r = ring_of(4, 2);

	(void)state;
	assert_int_equal(ring_finish(&r, RING_SIMPLE, 2), 0);
	assert_int_equal(ring_find(&r, INT64_MIN), 0);
	assert_int_equal(ring_find(&r, -5000), 0);
	assert_int_equal(ring_find(&r, -4999), 1);
	assert_int_equal(ring_find(&r, 2000), 7);
	assert_int_equal(ring_find(&r, 2001), 0); /* around */
	assert_int_equal(r.replicas[3].count, 2);
	assert_int_equal(r.replicas[3].nodes[0], 3);
	assert_int_equal(r.replicas[3].nodes[1], 0);
	ring_done(&r);

	/* Racks r0 and r1 take turns: the second replica lies in the other rack. */
	r = ring_of(4, 1);
	assert_int_equal(ring_finish(&r, RING_TOPOLOGY, 3), 0);
	assert_int_equal(r.replicas[0].count, 3);
	assert_int_equal(r.replicas[0].nodes[0] % 2, 0);
	assert_int_equal(r.replicas[0].nodes[1] % 2, 1);
	ring_done(&r);

	/* Nodes of other data centers are no replicas for us. */
	r = ring_of(6, 1);
	assert_int_equal(ring_finish(&r, RING_SIMPLE, 6), 0);
	assert_int_equal(r.replicas[0].count, 5);
	ring_done(&r);
	r = ring_of(6, 1);
	assert_int_equal(ring_finish(&r, RING_TOPOLOGY, 8), 0);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(r.replicas[i].count, 5);
	ring_done(&r);
}

/* Whatever the tokens: ranges follow each other without gap or overlap from the first to the last token. */
static void check_ranges(const struct ring *r, unsigned least, const int64_t *begin, const int64_t *end)
{
	unsigned count;
	struct token_range *ranges = ring_ranges(r, least, begin, end, &count);

	assert_non_null(ranges);
	assert_true(count > 0 && (begin || end || count >= least));
	assert_int_equal(ranges[0].begin, begin ? *begin : INT64_MIN);
	assert_int_equal(ranges[count - 1].end, end ? *end : INT64_MAX);
	for (unsigned i = 0; i < count; i++) {
		assert_true(ranges[i].begin < ranges[i].end);
		if (i)
			assert_int_equal(ranges[i].begin, ranges[i - 1].end);
		if (r->token_count)
			assert_int_equal(ranges[i].place, ring_find(r, ranges[i].end));
	}
	free(ranges);
}

static void test_ranges(void **state)
{
	const int64_t low = -4500, high = 1500;

	(void)state;
	for (unsigned tokens = 0; tokens < 4; tokens++) {
		struct ring r = ring_of(3, tokens);

		assert_int_equal(ring_finish(&r, RING_LOCAL, 0), 0);
		check_ranges(&r, 1, NULL, NULL);
		check_ranges(&r, 64, NULL, NULL);
		check_ranges(&r, 64, &low, NULL);
		check_ranges(&r, 64, NULL, &high);
		check_ranges(&r, 7, &low, &high);
		ring_done(&r);
	}
}

static void test_spans(void **state)
{
	char text[64];

	(void)state;
	assert_string_equal(progress_span(1.2344, text, sizeof(text)), "1.234 seconds");
	assert_string_equal(progress_span(61.5, text, sizeof(text)), "1 minute and 1.500 seconds");
	assert_string_equal(progress_span(2 * 86400 + 3600 + 120, text, sizeof(text)),
			    "2 days, 1 hour, 2 minutes and 0.000 seconds");
}

#define MS 1000000ull

/* Rows that go within `seconds`, asked for in portions of `most` every 20 ms, from `now` on. */
static uint64_t rows_within(struct pace *p, unsigned most, unsigned seconds, uint64_t *now)
{
	uint64_t rows = 0, end = *now + seconds * 1000 * MS;

	for (; *now < end; *now += 20 * MS)
		while (pace_due(p, *now)) {
			unsigned n = pace_rows(p, most);

			pace_count(p, n, *now);
			rows += n;
		}
	return rows;
}

static void test_no_second_has_more_rows_than_ingestrate(void **state)
{
	static const int64_t rates[] = {1, 7, 100, 2500, 100000, 10000000};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		uint64_t now = 5000 * MS, rate = (uint64_t)rates[i], n;
		struct pace p;

		pace_init(&p, rates[i], now);
		/* At the beginning too: not a chunk of 5000 at once. A portion may be under way. */
		assert_in_range(rows_within(&p, 5000, 1, &now), rate - rate / 10, rate + rate / 10 + 1);
		n = rows_within(&p, 5000, 20, &now);
		assert_in_range(n, 20 * rate - rate / 10, 20 * rate + rate / 10 + 1);
		/* Nothing could go for a minute. */
		now += 60000 * MS;
		assert_in_range(rows_within(&p, 5000, 1, &now), rate, 2 * rate + rate / 10 + 1);
		assert_in_range(rows_within(&p, 5000, 10, &now), 10 * rate - rate / 10, 10 * rate + rate / 10 + 1);
	}
}

static void test_without_ingestrate_chunks_are_whole(void **state)
{
	struct pace p;

	(void)state;
	pace_init(&p, 0, 1);
	pace_count(&p, 5000, 1);
	assert_true(pace_due(&p, 1));
	assert_int_equal(pace_rows(&p, 5000), 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_statements), cmocka_unit_test(test_options),
	    cmocka_unit_test(test_defaults),   cmocka_unit_test(test_rc),
	    cmocka_unit_test(test_replicas),   cmocka_unit_test(test_ranges),
	    cmocka_unit_test(test_spans),      cmocka_unit_test(test_no_second_has_more_rows_than_ingestrate),
	    cmocka_unit_test(test_without_ingestrate_chunks_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
