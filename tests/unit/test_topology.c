// SPDX-License-Identifier: Apache-2.0
/* The frozen topology's answers: told apart by node, version, text and values; bounded in number and bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <arpa/inet.h>

#include "relay/topology.h"

static struct addr node(const char *text, uint16_t port)
{
	struct addr a = {0};

	a.in.sin_family = AF_INET;
	a.in.sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, text, &a.in.sin_addr), 1);
	return a;
}

static struct topology_question *ask(const char *host, uint8_t version, uint32_t flags, const char *text, const char *values)
{
	struct addr a = node(host, 9042);
	struct request r = {.version = version, .opcode = OP_QUERY};
	struct topology_question *q;

	r.params.flags = flags;
	r.params.values = span_of(values, values ? strlen(values) : 0);
	q = topology_question_new(&a, &r, span_text(text));
	assert_non_null(q);
	return q;
}

static void expect(struct topology_store *t, struct topology_question *q, const char *answer)
{
	uint8_t *body;
	size_t size;

	if (!answer) {
		assert_false(topology_store_get(t, q, &body, &size));
	} else {
		assert_true(topology_store_get(t, q, &body, &size));
		assert_int_equal(size, strlen(answer));
		assert_memory_equal(body, answer, size);
		free(body);
	}
	topology_question_free(q);
}

static void keep(struct topology_store *t, struct topology_question *q, const char *answer)
{
	topology_store_put(t, q, span_text(answer));
	topology_question_free(q);
}

static void questions_are_told_apart(void **unused)
{
	struct topology_store *t = topology_store_new();

	(void)unused;
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), NULL);
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one");
	keep(t, ask("10.0.0.2", 4, 0, "SELECT * FROM system.local", NULL), "two");
	keep(t, ask("10.0.0.1", 5, 0, "SELECT * FROM system.local", NULL), "five");
	keep(t, ask("10.0.0.1", 4, QUERY_SKIP_METADATA, "SELECT * FROM system.local", NULL), "short");
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.peers WHERE peer = ?", "a"), "peer a");
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.peers WHERE peer = ?", "b"), "peer b");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one");
	expect(t, ask("10.0.0.2", 4, 0, "SELECT * FROM system.local", NULL), "two");
	expect(t, ask("10.0.0.1", 5, 0, "SELECT * FROM system.local", NULL), "five");
	expect(t, ask("10.0.0.1", 4, QUERY_SKIP_METADATA, "SELECT * FROM system.local", NULL), "short");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.peers WHERE peer = ?", "a"), "peer a");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.peers WHERE peer = ?", "b"), "peer b");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.peers WHERE peer = ?", "c"), NULL);
	expect(t, ask("10.0.0.3", 4, 0, "SELECT * FROM system.local", NULL), NULL);
	/* The newest answer counts. */
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one, but longer than before");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one, but longer than before");
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "");
	topology_store_free(t);
	topology_store_free(NULL);
}

static void there_is_a_limit_to_the_number_of_answers(void **unused)
{
	struct topology_store *t = topology_store_new();
	char text[80];

	(void)unused;
	for (unsigned i = 0; i < TOPOLOGY_ENTRIES_MAX + 100; i++) {
		snprintf(text, sizeof(text), "SELECT * FROM system.local -- %u", i);
		keep(t, ask("10.0.0.1", 4, 0, text, NULL), text);
	}
	for (unsigned i = 0; i < TOPOLOGY_ENTRIES_MAX + 100; i++) {
		snprintf(text, sizeof(text), "SELECT * FROM system.local -- %u", i);
		expect(t, ask("10.0.0.1", 4, 0, text, NULL), i < TOPOLOGY_ENTRIES_MAX ? text : NULL);
	}
	/* Those that are there are still renewed. */
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local -- 7", NULL), "renewed");
	expect(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local -- 7", NULL), "renewed");
	topology_store_free(t);
}

static void there_is_a_limit_to_their_bytes(void **unused)
{
	struct topology_store *t = topology_store_new();
	size_t size = TOPOLOGY_ANSWER_MAX + 1, kept = 0;
	char *large = malloc(size + 1), text[80];

	(void)unused;
	memset(large, 'x', size);
	large[size] = 0;
	keep(t, ask("10.0.0.1", 4, 0, "too large", NULL), large);
	expect(t, ask("10.0.0.1", 4, 0, "too large", NULL), NULL);
	large[TOPOLOGY_ANSWER_MAX] = 0;
	for (unsigned i = 0; i < 2 * TOPOLOGY_BYTES_MAX / TOPOLOGY_ANSWER_MAX; i++) {
		uint8_t *body;
		struct topology_question *q;

		snprintf(text, sizeof(text), "q %u", i);
		keep(t, ask("10.0.0.1", 4, 0, text, NULL), large);
		q = ask("10.0.0.1", 4, 0, text, NULL);
		if (topology_store_get(t, q, &body, &size)) {
			kept++;
			assert_int_equal(size, TOPOLOGY_ANSWER_MAX);
			free(body);
		}
		topology_question_free(q);
	}
	assert_true(kept > 0 && kept <= TOPOLOGY_BYTES_MAX / TOPOLOGY_ANSWER_MAX);
	/* A smaller answer in the place of a large one gives room back. */
	keep(t, ask("10.0.0.1", 4, 0, "q 0", NULL), "small");
	keep(t, ask("10.0.0.1", 4, 0, "one more", NULL), "fits");
	expect(t, ask("10.0.0.1", 4, 0, "one more", NULL), "fits");
	free(large);
	topology_store_free(t);
}

/* Rows that were asked for in the middle of a schema change would differ for ever. */
static void frozen_rows_agree_on_the_schema(void **unused)
{
#define HEAD "\0\0\0\2\0\0\0\1\0\0\0\2\0\1s\0\1p\0\4peer\0\x0d\0\16schema_version\0\x0c"
	static const char two[] = HEAD "\0\0\0\2\0\0\0\1a\0\0\0\x10" "0123456789abcdef" "\0\0\0\1b\0\0\0\x10" "fedcba9876543210",
			  one[] = HEAD "\0\0\0\1\0\0\0\1c\0\0\0\x10" "another version!";
	struct topology_store *t = topology_store_new();
	struct topology_question *q = ask("10.0.0.1", 4, 0, "peers", NULL), *r = ask("10.0.0.1", 4, 0, "local", NULL);
	uint8_t *a, *b;
	size_t size;

	(void)unused;
	topology_store_put(t, q, span_of(two, sizeof(two) - 1));
	topology_store_put(t, r, span_of(one, sizeof(one) - 1));
	assert_true(topology_store_get(t, q, &a, &size));
	assert_int_equal(size, sizeof(two) - 1);
	assert_true(topology_store_get(t, r, &b, &size));
	assert_int_equal(size, sizeof(one) - 1);
	assert_memory_equal(a + sizeof(two) - 1 - 16, b + sizeof(one) - 1 - 16, 16);
	assert_memory_equal(a + sizeof(two) - 1 - 16, a + sizeof(two) - 1 - 41, 16);
	assert_memory_not_equal(a + sizeof(two) - 1 - 16, "fedcba9876543210", 16);
	assert_memory_equal(a, two, sizeof(HEAD) - 1 + 9); /* and nothing else is touched */
	free(a);
	free(b);
	topology_question_free(q);
	topology_question_free(r);
	topology_store_free(t);
}

/* The first of several pages, after the whole answer, and before it. */
static void a_page_is_no_answer(void **unused)
{
	static const char paged[] = "\0\0\0\2\0\0\0\6\0\0\0\1\0\0\0\4next\0\0\0\1\0\0\0\1a", last[] = "\0\0\0\2\0\0\0\4\0\0\0\1\0\0\0\1\0\0\0\1b";
	struct topology_store *t = topology_store_new();
	struct topology_question *q = ask("10.0.0.1", 4, 0, "peers", NULL);
	uint8_t *body;
	size_t size;

	(void)unused;
	topology_store_put(t, q, span_of(paged, sizeof(paged) - 1));
	assert_false(topology_store_get(t, q, &body, &size));
	topology_store_put(t, q, span_of(last, sizeof(last) - 1));
	topology_store_put(t, q, span_of(paged, sizeof(paged) - 1));
	assert_true(topology_store_get(t, q, &body, &size));
	assert_int_equal(size, sizeof(last) - 1);
	assert_memory_equal(body, last, size);
	free(body);
	topology_question_free(q);
	topology_store_free(t);
}

/* A disk that is full for a while; here something stands where the file is to be. */
static void a_failed_save_is_never_tried_again(void **unused)
{
	char directory[] = "/tmp/cqlferry-topology-XXXXXX", path[64];
	struct topology_store *t = topology_store_new(), *later = topology_store_new();
	struct error error;
	bool damaged;

	(void)unused;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/topology.keep", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	keep(t, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one");
	assert_true(topology_store_changed(t));
	assert_true(topology_store_save(t, directory, &error) < 0);
	assert_true(topology_store_changed(t));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(topology_store_save(t, directory, &error), 0);
	assert_false(topology_store_changed(t));
	assert_int_equal(topology_store_load(later, directory, &damaged), 1);
	expect(later, ask("10.0.0.1", 4, 0, "SELECT * FROM system.local", NULL), "one");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0);
	topology_store_free(t);
	topology_store_free(later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(questions_are_told_apart),
		cmocka_unit_test(frozen_rows_agree_on_the_schema),
		cmocka_unit_test(a_page_is_no_answer),
		cmocka_unit_test(there_is_a_limit_to_the_number_of_answers),
		cmocka_unit_test(there_is_a_limit_to_their_bytes),
		cmocka_unit_test(a_failed_save_is_never_tried_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
