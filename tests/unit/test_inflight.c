// SPDX-License-Identifier: Apache-2.0
/* The table of requests in flight against a plain array, over all 65536 stream ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "relay/inflight.h"

#define IDS 65536u

static uint64_t state;

static uint32_t random_below(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % limit;
}

/* model[id]: 0 = not in flight, else what sent_ns was set to. */
static uint64_t model[IDS];

static void compare(struct inflight_table *t, uint32_t expected)
{
	uint32_t at = 0, seen = 0;
	struct inflight *e;

	assert_int_equal(t->count, expected);
	while ((e = inflight_each(t, &at))) {
		assert_int_equal(e->sent_ns, model[(uint16_t)e->stream]);
		assert_true(e->sent_ns != 0);
		seen++;
	}
	assert_int_equal(seen, expected);
	for (uint32_t id = 0; id < IDS; id++) {
		e = inflight_find(t, (int16_t)id);
		assert_true((e != NULL) == (model[id] != 0));
		if (e)
			assert_int_equal((uint16_t)e->stream, id);
	}
}

static void random_steps_agree_with_a_plain_array(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 6; round++) {
		/* Few ids collide much, many make it grow; neighbours are what drivers use. */
		uint32_t spread = (uint32_t[]){8, 64, 1024, 4096, 32768, IDS}[round], count = 0;
		struct inflight_table t = {0};

		state = 0x9E3779B97F4A7C15u + round;
		memset(model, 0, sizeof(model));
		for (uint64_t step = 1; step <= 60000; step++) {
			uint16_t id = (uint16_t)(random_below(spread) * (round & 1 ? 257u : 1u));

			if (random_below(100) < (step < 30000 ? 60 : 40)) {
				bool duplicate;
				struct inflight *e = inflight_add(&t, (int16_t)id, &duplicate);

				assert_int_equal(duplicate, model[id] != 0);
				assert_true((e == NULL) == duplicate);
				if (e) {
					assert_true(e->used && !e->record && !e->slot && e->sent_ns == 0);
					e->sent_ns = model[id] = step;
					count++;
				}
			} else {
				inflight_remove(&t, (int16_t)id);
				count -= model[id] != 0;
				model[id] = 0;
			}
			if (step % 10000 == 0)
				compare(&t, count);
		}
		inflight_done(&t);
		assert_null(t.entries);
	}
}

static void all_ids_fit_and_go_again(void **unused)
{
	struct inflight_table t = {0};
	bool duplicate;

	(void)unused;
	memset(model, 0, sizeof(model));
	for (uint32_t id = 0; id < IDS; id++) {
		struct inflight *e = inflight_add(&t, (int16_t)id, &duplicate);

		assert_non_null(e);
		e->sent_ns = model[id] = id + 1;
	}
	compare(&t, IDS);
	for (uint32_t id = 0; id < IDS; id++) {
		assert_null(inflight_add(&t, (int16_t)id, &duplicate));
		assert_true(duplicate);
	}
	/* In an order that has nothing to do with that of adding. */
	for (uint32_t i = 0; i < IDS; i++) {
		uint32_t id = i * 40503u % IDS;

		inflight_remove(&t, (int16_t)id);
		model[id] = 0;
		if (i % 8192 == 0)
			compare(&t, IDS - i - 1);
	}
	compare(&t, 0);
	inflight_done(&t);
}

static void an_empty_table_answers(void **unused)
{
	struct inflight_table t = {0};
	uint32_t at = 0;

	(void)unused;
	assert_null(inflight_find(&t, 0));
	assert_null(inflight_each(&t, &at));
	inflight_remove(&t, -1);
	inflight_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_steps_agree_with_a_plain_array),
		cmocka_unit_test(all_ids_fit_and_go_again),
		cmocka_unit_test(an_empty_table_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
