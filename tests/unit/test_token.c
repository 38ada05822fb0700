// SPDX-License-Identifier: Apache-2.0
/* Where partition keys lie on the ring, and finding them among bound values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/token.h"
#include "unit/guard.h"

/* Tokens that Cassandra gave (SELECT token(k)). */
static void tokens_of_keys(void **state)
{
	static const struct {
		const char *key; /* hex */
		int64_t token;
	} cases[] = {
	    {"00000001", -4069959284402364209},
	    {"00000002", -3248873570005575792},
	    {"6b6579", -6847573755651342660},
	    {"61626364656667686970717273747576777879", -415589234669787351},
	    {"ff80ff80ff80ff80ff80ff80ff80ff80ff", 4059330640258649891},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(token_of(guard_hex(0, cases[i].key)), cases[i].token);
}

#define KEY_TOKEN -6847573755651342660 /* 'key' */
#define PAIR_TOKEN 65442132934865240   /* 'key' and 1, by the Python driver */
#define TURNED_TOKEN 8064425790465501062

static void tokens_among_values(void **state)
{
	static const struct {
		const char *name, *values; /* hex */
		unsigned count;
		uint16_t places[3];
		int64_t token; /* 0: none */
	} cases[] = {
	    {"the first", "00000003 6b6579 ffffffff", 1, {0}, KEY_TOKEN},
	    {"behind null and unset", "ffffffff fffffffe 00000003 6b6579", 1, {2}, KEY_TOKEN},
	    {"two", "00000003 6b6579 00000004 00000001", 2, {0, 1}, PAIR_TOKEN},
	    {"two in the other order", "00000004 00000001 ffffffff 00000003 6b6579", 2, {2, 0}, PAIR_TOKEN},
	    {"the order of the key counts", "00000003 6b6579 00000004 00000001", 2, {1, 0}, TURNED_TOKEN},
	    {"null", "ffffffff", 1, {0}, 0},
	    {"half of it null", "00000003 6b6579 ffffffff", 2, {0, 1}, 0},
	    {"not set", "fffffffe", 1, {0}, 0},
	    {"not there", "00000003 6b6579", 1, {1}, 0},
	    {"no values", "", 1, {0}, 0},
	    {"no key", "00000003 6b6579", 0, {0}, 0},
	    {"longer than what there is", "00000004 6b6579", 1, {0}, 0},
	    {"longer than anything", "7fffffff 6b6579", 1, {0}, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct span values = guard_hex(0, cases[i].values);
		int64_t token = 0;

		if (token_of_values(values, cases[i].places, cases[i].count, &token) != (cases[i].token != 0) || token != cases[i].token)
			fail_msg("%s: %lld", cases[i].name, (long long)token);
		/* Every strict prefix either lacks the key or has it whole. */
		for (size_t n = 0; n < values.size; n++)
			if (token_of_values(guard_slot(1, values.data, n), cases[i].places, cases[i].count, &token))
				assert_int_equal(token, cases[i].token);
	}
}

static void limits(void **state)
{
	static uint8_t values[2 * (4 + TOKEN_KEY_MAX)];
	uint16_t places[TOKEN_PARTS_MAX + 1] = {0, 1};
	uint32_t room = TOKEN_KEY_MAX - 6; /* of two parts: two lengths and two zeros; the second is empty */
	int64_t token;

	(void)state;
	for (unsigned more = 0; more < 2; more++) {
		memset(values, 0, sizeof(values));
		values[2] = (uint8_t)((room + more) >> 8);
		values[3] = (uint8_t)(room + more);
		assert_int_equal(token_of_values(guard_bytes(values, 8 + room + more), places, 2, &token), more == 0);
		/* A key of one column is taken as it is, whatever its size. */
		assert_true(token_of_values(guard_bytes(values, 8 + room + more), places, 1, &token));
	}
	memset(places, 0, sizeof(places));
	memset(values, 0, sizeof(values));
	assert_true(token_of_values(guard_bytes(values, 64), places, TOKEN_PARTS_MAX, &token));
	assert_false(token_of_values(guard_bytes(values, 64), places, TOKEN_PARTS_MAX + 1, &token));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tokens_of_keys),
	    cmocka_unit_test(tokens_among_values),
	    cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
