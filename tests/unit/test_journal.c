// SPDX-License-Identifier: Apache-2.0
/* The journal in memory: its budget, its chunks, and records released in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/journal.h"

#define CHUNK (256u << 10) /* as in journal.c */
#define LIVE 4000

static uint64_t state = 0xC0FFEE;

static uint32_t random_below(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % limit;
}

static void fill(struct record *r, uint8_t with)
{
	memset(r->body, with, r->body_size);
	r->keyspace_size = with;
}

static void check(const struct record *r, uint8_t with)
{
	assert_int_equal(r->keyspace_size, with);
	for (uint32_t i = 0; i < r->body_size; i++)
		if (r->body[i] != with)
			fail_msg("byte %u of a record of %u was overwritten", i, r->body_size);
}

static void records_keep_their_bytes_in_any_order_of_release(void **unused)
{
	static struct record *live[LIVE];
	static uint8_t with[LIVE];
	struct journal *j = journal_new(64u << 20);
	size_t count = 0;

	(void)unused;
	for (unsigned step = 0; step < 60000; step++) {
		unsigned i = random_below(LIVE);

		if (!live[i]) {
			size_t size = random_below(50) == 0 ? random_below(300000) : random_below(2000);

			live[i] = journal_intent(j, size);
			if (!live[i])
				continue;
			assert_int_equal((uintptr_t)live[i] % 16, 0);
			assert_int_equal(live[i]->body_size, size);
			/* Zeroed up to the body, whatever lay there before. */
			assert_null(live[i]->next);
			assert_null(live[i]->slot);
			assert_null(live[i]->barrier);
			assert_int_equal(live[i]->attempts, 0);
			with[i] = (uint8_t)(1 + step % 251);
			fill(live[i], with[i]);
			count++;
		} else {
			check(live[i], with[i]);
			journal_release(j, live[i]);
			live[i] = NULL;
			count--;
		}
		assert_int_equal(journal_records(j), count);
		assert_true(journal_bytes(j) <= 64u << 20);
	}
	for (unsigned i = 0; i < LIVE; i++) {
		if (live[i]) {
			check(live[i], with[i]);
			journal_release(j, live[i]);
			live[i] = NULL;
		}
	}
	assert_int_equal(journal_records(j), 0);
	/* Spare chunks and the current one; not what 4000 records needed. */
	assert_true(journal_bytes(j) <= 6 * CHUNK);
	journal_free(j);
}

static void the_budget_is_a_limit(void **unused)
{
	struct journal *j = journal_new(4 * CHUNK);
	struct record *all[4096];
	unsigned n = 0;

	(void)unused;
	while (n < 4096 && (all[n] = journal_intent(j, 1000)))
		n++;
	assert_true(n > 600 && n < 1100); /* 1 MiB of records of 1000 bytes and their heads */
	assert_int_equal(journal_bytes(j), 4 * CHUNK);
	assert_null(journal_intent(j, 1000));
	/* Room of a whole chunk comes back with its last record. */
	for (unsigned i = 0; i < n; i++)
		journal_release(j, all[i]);
	assert_non_null(all[0] = journal_intent(j, 1000));
	journal_release(j, all[0]);
	journal_free(j);
}

/* What is only kept for reuse must not stand in the way of a large record: nothing would ever make room for it. */
static void spare_chunks_give_way_to_a_large_record(void **unused)
{
	struct journal *j = journal_new(6 * CHUNK);
	struct record *all[4096], *large;
	unsigned n = 0;

	(void)unused;
	while (n < 4096 && (all[n] = journal_intent(j, 1000)))
		n++;
	for (unsigned i = 0; i < n; i++)
		journal_release(j, all[i]);
	assert_true(journal_bytes(j) > CHUNK);
	assert_int_equal(journal_records(j), 0);
	large = journal_intent(j, 6 * CHUNK - sizeof(struct record) - 16);
	assert_non_null(large);
	memset(large->body, 7, large->body_size);
	assert_null(journal_intent(j, 10));
	journal_release(j, large);
	assert_int_equal(journal_bytes(j), 0);
	/* And small ones find room again. */
	assert_non_null(all[0] = journal_intent(j, 10));
	journal_release(j, all[0]);
	/* Larger than the budget: never, and nothing is lost by asking. */
	assert_null(journal_intent(j, 6 * CHUNK));
	assert_int_equal(journal_records(j), 0);
	journal_free(j);
}

static void chunks_are_used_again(void **unused)
{
	struct journal *j = journal_new(64u << 20);
	size_t most = 0;

	(void)unused;
	/* A queue of 100 records that never empties: a million writes later it holds no more than at the start. */
	struct record *ring[100] = {0};

	for (unsigned i = 0; i < 300000; i++) {
		struct record **at = &ring[i % 100];

		if (*at)
			journal_release(j, *at);
		*at = journal_intent(j, 200 + i % 100);
		assert_non_null(*at);
		if (journal_bytes(j) > most)
			most = journal_bytes(j);
	}
	assert_true(most <= 6 * CHUNK);
	for (unsigned i = 0; i < 100; i++)
		journal_release(j, ring[i]);
	journal_free(j);
}

/* A barrier must reach every worker, however full its journal is. */
static void marks_need_no_budget(void **unused)
{
	struct journal *j = journal_new(CHUNK);
	struct record *all[4096], *mark;
	unsigned n = 0;

	(void)unused;
	while (n < 4096 && (all[n] = journal_intent(j, 1000)))
		n++;
	assert_non_null(mark = journal_mark());
	assert_int_equal(journal_records(j), n);
	journal_release(j, mark);
	assert_int_equal(journal_records(j), n);
	for (unsigned i = n; i-- > 0;)
		journal_release(j, all[i]);
	journal_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_keep_their_bytes_in_any_order_of_release),
		cmocka_unit_test(the_budget_is_a_limit),
		cmocka_unit_test(spare_chunks_give_way_to_a_large_record),
		cmocka_unit_test(chunks_are_used_again),
		cmocka_unit_test(marks_need_no_budget),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
