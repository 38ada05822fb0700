// SPDX-License-Identifier: Apache-2.0
/* A request's statements when another worker empties the map in the middle of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "relay/prepared.h"

static void learn(struct prepared_map *m, const char *id, struct span text)
{
	struct prepared_result answer = {.id = span_text(id)};

	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, text, "ks", &answer), 0);
}

static unsigned references(struct prepared *p)
{
	return atomic_load(&p->references);
}

static void a_request_goes_on_with_what_it_found(void **unused)
{
	static const char text[] = "INSERT INTO ks.t (k) VALUES (1)";
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared_slot *found, *used;
	struct prepared *one, *two;
	char *large = malloc(PREPARED_TEXT_MAX);
	unsigned before;

	(void)unused;
	learn(m, "id-1", span_text("UPDATE ks.t SET v = 1 WHERE k = 1"));
	learn(m, "id-2", span_text("UPDATE ks.t SET v = 2 WHERE k = 2"));
	found = prepared_find(c, span_text("id-1"));
	used = prepared_use(prepared_find(c, span_text("id-2")));
	one = prepared_get(found->prepared);
	two = prepared_get(used->prepared);
	/* Elsewhere the budget for texts is spent: the map is emptied. */
	memset(large, ' ', PREPARED_TEXT_MAX);
	memcpy(large, text, sizeof(text) - 1);
	learn(m, "id-3", span_of(large, PREPARED_TEXT_MAX));
	before = references(one);
	assert_null(prepared_find(c, span_text("id-1")));
	assert_non_null(prepared_find(c, span_text("id-3")));
	/* It is the request's still. */
	assert_int_equal(references(one), before);
	assert_ptr_equal(found->prepared, one);
	assert_true(span_equal(prepared_slot_id(found), span_text("id-1")));
	prepared_use(found);
	prepared_release(found);
	/* From the tick: all that nobody uses. */
	before = references(two);
	prepared_cache_sweep(c);
	assert_int_equal(references(one), 1);
	assert_int_equal(references(two), before);
	assert_ptr_equal(used->prepared, two);
	prepared_release(used);
	prepared_cache_sweep(c);
	assert_int_equal(references(two), 1);
	prepared_put(one);
	prepared_put(two);
	prepared_cache_free(c);
	prepared_map_free(m);
	free(large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_goes_on_with_what_it_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
