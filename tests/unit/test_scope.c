// SPDX-License-Identifier: Apache-2.0
/* What is mirrored, and under which names: lists, texts and requests. Texts lie flush against a guard page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "cql/scope_request.h"
#include "unit/guard.h"

static struct table_name include[] = {{"shop", ""}, {"crm", "people"}}, exclude[] = {{"shop", "audit"}};
static struct scope_rename renames[] = {{{"shop", ""}, "store"}, {{"shop", "orders"}, "Sales"}, {{"a", ""}, "b"}, {{"b", ""}, "a"},
					{{"Odd", ""}, "odd"}, {{"name", ""}, "label"}};
static const struct scope filter = {.include = include, .include_count = 2, .exclude = exclude, .exclude_count = 1};
static const struct scope names = {.rename = renames, .rename_count = 6};

static void test_entries(void **state)
{
	static const struct {
		const char *text, *keyspace, *table; /* NULL: refused */
	} patterns[] = {
	    {"shop", "shop", ""}, {"shop.*", "shop", ""}, {"Shop.Orders_2", "Shop", "Orders_2"}, {"", NULL, NULL}, {".x", NULL, NULL},
	    {"shop.", NULL, NULL}, {"shop.a.b", NULL, NULL}, {"shop.*x", NULL, NULL}, {"\"shop\"", NULL, NULL}, {"shop x", NULL, NULL},
	    {"*", NULL, NULL}, {"sh!op", NULL, NULL},
	    {"a23456789012345678901234567890123456789012345678", "a23456789012345678901234567890123456789012345678", ""},
	    {"a234567890123456789012345678901234567890123456789", NULL, NULL},
	};
	static const char *const wrong[] = {"shop", "shop=", "=store", "shop=a.b", "shop.=x", "shop.t=", "shop=a=b", "shop.*=x", ""};
	struct table_name name;
	struct scope_rename r;

	(void)state;
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
		assert_int_equal(scope_read_pattern(patterns[i].text, &name), patterns[i].keyspace ? 0 : -EINVAL);
		if (!patterns[i].keyspace)
			continue;
		assert_string_equal(name.keyspace, patterns[i].keyspace);
		assert_string_equal(name.table, patterns[i].table);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(scope_read_rename(wrong[i], &r), -EINVAL);
	assert_int_equal(scope_read_rename("shop.orders=Sales", &r), 0);
	assert_string_equal(r.from.keyspace, "shop");
	assert_string_equal(r.from.table, "orders");
	assert_string_equal(r.to, "Sales");
	assert_int_equal(scope_read_rename("shop=store", &r), 0);
	assert_string_equal(r.from.table, "");
}

static void test_part_of_a_write(void **state)
{
	static const struct {
		const char *text;
		enum scope_part part;
	} all[] = {
	    {"INSERT INTO orders (k) VALUES (1)", SCOPE_ALL},
	    {"INSERT INTO audit (k) VALUES (1)", SCOPE_NONE},
	    {"INSERT INTO other.audit (k) VALUES (1)", SCOPE_NONE},
	    {"INSERT INTO crm.people (k) VALUES (1)", SCOPE_ALL},
	    {"INSERT INTO crm.pets (k) VALUES (1)", SCOPE_NONE},
	    {"UPDATE \"Audit\" SET v = 1 WHERE k = 1", SCOPE_ALL}, /* another table */
	    {"BEGIN BATCH INSERT INTO orders (k) VALUES (1) DELETE FROM audit WHERE k = 1 APPLY BATCH", SCOPE_SOME},
	    {"BEGIN BATCH INSERT INTO crm.pets (k) VALUES (1) DELETE FROM audit WHERE k = 1 APPLY BATCH", SCOPE_NONE},
	    {"TRUNCATE audit", SCOPE_NONE},
	    {"CREATE TABLE audit (k int PRIMARY KEY)", SCOPE_NONE},
	    {"CREATE INDEX ON orders (v)", SCOPE_ALL},
	    {"CREATE MATERIALIZED VIEW v AS SELECT * FROM audit WHERE k IS NOT NULL PRIMARY KEY (k)", SCOPE_NONE},
	    {"CREATE TYPE address (street text)", SCOPE_ALL},
	    {"CREATE TYPE crm.address (street text)", SCOPE_ALL}, /* a part of it is mirrored */
	    {"CREATE TYPE other.address (street text)", SCOPE_NONE},
	    {"DROP KEYSPACE other", SCOPE_NONE},
	    {"DROP INDEX by_v", SCOPE_ALL},
	    {"what is this", SCOPE_ALL}, /* not understood: on record where it is not mirrored */
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		statement_read(guard_text(all[i].text), &s);
		if (scope_of(&filter, &s, "shop") != all[i].part)
			fail_msg("%s: %d", all[i].text, scope_of(&filter, &s, "shop"));
		assert_int_equal(scope_of(NULL, &s, "shop"), SCOPE_ALL);
		assert_int_equal(scope_of(&names, &s, "shop"), SCOPE_ALL);
	}
	statement_read(guard_text("BEGIN BATCH INSERT INTO t1 (k) VALUES (1) INSERT INTO t2 (k) VALUES (1) INSERT INTO t3 (k) VALUES (1) "
				  "INSERT INTO t4 (k) VALUES (1) INSERT INTO t5 (k) VALUES (1) INSERT INTO t6 (k) VALUES (1) "
				  "INSERT INTO t7 (k) VALUES (1) INSERT INTO t8 (k) VALUES (1) INSERT INTO t9 (k) VALUES (1) APPLY BATCH"), &s);
	assert_int_equal(scope_of(&filter, &s, "other"), SCOPE_SOME); /* who knows what the ninth is */
}

/* What each text becomes in a session of keyspace shop; NULL: it stays. */
static const struct {
	const char *text, *becomes;
} texts[] = {
    {"INSERT INTO shop.t (k, v) VALUES (1, 'shop.t')", "INSERT INTO \"store\".t (k, v) VALUES (1, 'shop.t')"},
    {"INSERT INTO t (k) VALUES (1)", NULL}, /* its keyspace travels beside it */
    {"INSERT INTO orders (k) VALUES (1)", "INSERT INTO \"Sales\" (k) VALUES (1)"},
    {"UPDATE Shop . /* x */ ORDERS SET shop.orders = 1 WHERE shop = ?", "UPDATE \"store\".\"Sales\" SET shop.orders = 1 WHERE shop = ?"},
    {"DELETE name FROM name WHERE name = 1", NULL},
    {"DELETE name, name.x, y FROM name.name WHERE name = 1", "DELETE name, name.x, y FROM \"label\".name WHERE name = 1"},
    {"DELETE shop FROM shop.shop WHERE shop = 1", "DELETE shop FROM \"store\".shop WHERE shop = 1"},
    {"INSERT INTO \"Odd\".t (k) VALUES ((shop.money){a: 1})", "INSERT INTO \"odd\".t (k) VALUES ((\"store\".money){a: 1})"},
    {"INSERT INTO \"Shop\".t (k) VALUES (1)", NULL},
    {"INSERT INTO odd.t (k) VALUES (1)", NULL},
    {"INSERT INTO t (k) VALUES ((list<frozen<shop . \"Money\">>)[?])", "INSERT INTO t (k) VALUES ((list<frozen<\"store\" . \"Money\">>)[?])"},
    {"UPDATE t SET v = shop.f(shop.g(1), 'shop.g(1)') WHERE k = 1", "UPDATE t SET v = \"store\".f(\"store\".g(1), 'shop.g(1)') WHERE k = 1"},
    {"UPDATE t SET v = 1 WHERE k = 1 IF shop.x > 5 AND shop.y = 1", NULL},
    {"BEGIN BATCH INSERT INTO a.t (k) VALUES (1); DELETE shop.x FROM b.t WHERE k = 1; UPDATE orders SET v = 1 WHERE k = 1 APPLY BATCH",
     "BEGIN BATCH INSERT INTO \"b\".t (k) VALUES (1); DELETE shop.x FROM \"a\".t WHERE k = 1; UPDATE \"Sales\" SET v = 1 WHERE k = 1 APPLY BATCH"},
    {"TRUNCATE TABLE shop.orders;", "TRUNCATE TABLE \"store\".\"Sales\";"},
    {"DELETE\"x\"FROM\"shop\".\"orders\"WHERE\"k\"=1", "DELETE\"x\"FROM\"store\".\"Sales\"WHERE\"k\"=1"},
    {"USE shop", "USE \"store\""},
    {"CREATE KEYSPACE IF NOT EXISTS shop WITH replication = {'class': 'SimpleStrategy', 'shop': 1}",
     "CREATE KEYSPACE IF NOT EXISTS \"store\" WITH replication = {'class': 'SimpleStrategy', 'shop': 1}"},
    {"CREATE TABLE shop.t (k int PRIMARY KEY, shop frozen<shop.money>, m map<text, frozen<shop.orders>>) -- shop.t\n WITH comment = 'shop.t'",
     "CREATE TABLE \"store\".t (k int PRIMARY KEY, shop frozen<\"store\".money>, m map<text, frozen<\"store\".orders>>) -- shop.t\n WITH comment = 'shop.t'"},
    {"CREATE TYPE shop.money (a int)", "CREATE TYPE \"store\".money (a int)"},
    {"CREATE TYPE money (a int)", NULL},
    {"CREATE INDEX shop ON shop.orders (shop)", "CREATE INDEX shop ON \"store\".\"Sales\" (shop)"},
    {"DROP INDEX shop.orders", "DROP INDEX \"store\".orders"},
    {"CREATE MATERIALIZED VIEW shop.v AS SELECT k FROM shop.orders WHERE k IS NOT NULL PRIMARY KEY (k)",
     "CREATE MATERIALIZED VIEW \"store\".v AS SELECT k FROM \"store\".\"Sales\" WHERE k IS NOT NULL PRIMARY KEY (k)"},
    {"CREATE FUNCTION shop.f (x frozen<shop.money>) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return shop.f(x); $$",
     "CREATE FUNCTION \"store\".f (x frozen<\"store\".money>) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return shop.f(x); $$"},
    {"DROP FUNCTION IF EXISTS shop.f(int)", "DROP FUNCTION IF EXISTS \"store\".f(int)"},
};

static void test_names_in_texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct span text = guard_text(texts[i].text);
		const char *want = texts[i].becomes;
		uint8_t to[1024];
		ssize_t n;

		n = scope_text(&names, text, "shop", to, sizeof(to));
		if (!want)
			want = texts[i].text;
		if (n != (ssize_t)strlen(want) || memcmp(to, want, strlen(want)) != 0)
			fail_msg("%s\nbecame %.*s\nnot    %s", texts[i].text, n < 0 ? 0 : (int)n, to, want);
		for (size_t room = 0; room < (size_t)n; room++)
			assert_int_equal(scope_text(&names, text, "shop", guard_end(1) - room, room), -ENOSPC);
	}
	uint8_t to[64];

	assert_int_equal(scope_text(&names, guard_text("DELETE name FROM name"), "shop", to, sizeof(to)), -EINVAL);
	assert_int_equal(scope_text(&names, guard_text("INSERT INTO shop.t (k) VALUES ('"), "shop", to, sizeof(to)), -EINVAL);
}

/* A BATCH, v4: kind 0 texts without values, and one prepared child with a value. */
static struct span batch(uint8_t to[512], const char *const *children, unsigned count)
{
	size_t n = 0;

	to[n++] = 0;
	to[n++] = 0;
	to[n++] = (uint8_t)count;
	for (unsigned i = 0; i < count; i++) {
		size_t size = children[i] ? strlen(children[i]) : 2;

		to[n++] = children[i] == NULL;
		if (children[i])
			memcpy(to + n, (uint8_t[]){0, 0, 0, (uint8_t)size}, 4);
		else
			memcpy(to + n, (uint8_t[]){0, 2}, 2);
		n += children[i] ? 4 : 2;
		memcpy(to + n, children[i] ? children[i] : "id", size);
		n += size;
		memcpy(to + n, children[i] ? (uint8_t[]){0, 0, 0, 0, 0, 0, 0} : (uint8_t[]){0, 1, 0, 0, 0, 1, 7}, 7);
		n += children[i] ? 2 : 7;
	}
	to[n++] = 0;
	to[n++] = CL_QUORUM;
	to[n++] = QUERY_TIMESTAMP;
	for (unsigned i = 0; i < 8; i++)
		to[n++] = (uint8_t)i;
	return guard_slot(2, to, n);
}

static bool keep_prepared(void *context, const struct batch_child *child)
{
	++*(unsigned *)context;
	return child->prepared;
}

static void test_batches(void **state)
{
	static const char *const children[] = {"INSERT INTO shop.orders (k) VALUES (1)", NULL, "DELETE FROM orders WHERE k = 1"};
	uint8_t bytes[512], room[512];
	struct span body = batch(bytes, children, 3);
	struct request q;
	struct batch_child child;
	unsigned asked = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(request_parse(4, 0, OP_BATCH, body, &q), 0);
	assert_true(scope_request(&names, &q, "shop", room, sizeof(room)) > 0);
	struct span cursor = q.batch_children;

	assert_int_equal(batch_next(4, &cursor, &child), 1);
	assert_true(span_equal(child.text, span_text("INSERT INTO \"store\".\"Sales\" (k) VALUES (1)")));
	assert_int_equal(batch_next(4, &cursor, &child), 1);
	assert_true(child.prepared && child.values_count == 1 && span_equal(child.text, span_text("id")));
	assert_int_equal(batch_next(4, &cursor, &child), 1);
	assert_true(span_equal(child.text, span_text("DELETE FROM \"Sales\" WHERE k = 1")));
	assert_int_equal(batch_next(4, &cursor, &child), 0);
	for (size_t small = 0; small < 40; small++) {
		assert_int_equal(request_parse(4, 0, OP_BATCH, body, &q), 0);
		assert_int_equal(scope_request(&names, &q, "shop", guard_end(1) - small, small), -ENOSPC);
	}

	assert_int_equal(request_parse(4, 0, OP_BATCH, body, &q), 0);
	n = scope_batch(&q, keep_prepared, &asked, room, body.size);
	assert_int_equal(asked, 3);
	assert_int_equal(request_parse(4, 0, OP_BATCH, guard_bytes(room, (size_t)n), &q), 0);
	assert_int_equal(q.batch_count, 1);
	assert_int_equal(q.params.consistency, CL_QUORUM);
	assert_int_equal(q.params.timestamp, 0x0001020304050607);
	cursor = q.batch_children;
	assert_int_equal(batch_next(4, &cursor, &child), 1);
	assert_true(child.prepared && child.values_count == 1 && child.values.data[4] == 7);
	assert_int_equal(batch_next(4, &cursor, &child), 0);
}

static void test_keyspaces_there_and_back(void **state)
{
	struct table_name name = {"shop", "orders"}, keyspace = {"a", ""}, other = {"c", "orders"};

	(void)state;
	assert_true(scope_translate(&names, &name));
	assert_string_equal(name.keyspace, "store");
	assert_string_equal(name.table, "Sales");
	assert_true(scope_translate(&names, &keyspace));
	assert_string_equal(keyspace.keyspace, "b");
	assert_false(scope_translate(&names, &other));
	assert_false(scope_translate(NULL, &other));
	assert_string_equal(scope_origin_keyspace(&names, "store"), "shop");
	assert_string_equal(scope_origin_keyspace(&names, "b"), "a");
	assert_string_equal(scope_origin_keyspace(&names, "c"), "c");
	assert_string_equal(scope_origin_keyspace(NULL, "c"), "c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_entries),	    cmocka_unit_test(test_part_of_a_write),	     cmocka_unit_test(test_names_in_texts),
	    cmocka_unit_test(test_batches),	    cmocka_unit_test(test_keyspaces_there_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
