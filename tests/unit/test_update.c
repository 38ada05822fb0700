// SPDX-License-Identifier: Apache-2.0
/*
 * Messages of the migration service. The bytes in `from_go` were written by Go's encoding/json from the
 * document's structs, and so were most seeds of fuzz_update.in.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/update.h"
#include "unit/guard.h"

#define ID "0e37df36-f698-11e6-8dd4-cb9ced3df976"

static void frames(void **state)
{
	uint8_t bytes[] = {0, 0, 0, 2, '{', '}', 0, 0, 0, 1, 'x'};
	static const struct {
		uint8_t bytes[4];
		int expected;
	} lengths[] = {
	    {{0, 0, 0, 0}, UPDATE_MALFORMED},
	    {{1, 0, 0, 1}, UPDATE_MALFORMED},
	    {{0xff, 0xff, 0xff, 0xff}, UPDATE_MALFORMED},
	    {{1, 0, 0, 0}, UPDATE_INCOMPLETE},
	    {{0, 0, 0, 1}, UPDATE_INCOMPLETE},
	};
	struct span all = guard_bytes(bytes, sizeof(bytes)), body;

	(void)state;
	assert_int_equal(update_frame(all.data, all.size, &body), 6);
	assert_true(span_equal(body, span_text("{}")));
	assert_int_equal(update_frame(all.data + 6, all.size - 6, &body), 5);
	for (size_t n = 0; n < 6; n++) {
		struct span prefix = guard_bytes(bytes, n);

		assert_int_equal(update_frame(prefix.data, prefix.size, &body), UPDATE_INCOMPLETE);
	}
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct span header = guard_bytes(lengths[i].bytes, 4);

		assert_int_equal(update_frame(header.data, header.size, &body), lengths[i].expected);
	}
}

/* data NULL: there is none. */
static const struct {
	const char *json;
	enum update_type type;
	const char *data, *error;
} from_go[] = {
    {"{\"ID\":\"" ID "\",\"Type\":0,\"Data\":\"Zg==\",\"Error\":\"\"}", UPDATE_TABLE, "f", ""},
    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"Zm8=\",\"Error\":\"\"}", UPDATE_START, "fo", ""},
    {"{\"ID\":\"" ID "\",\"Type\":2,\"Data\":\"Zm9v\",\"Error\":\"\"}", UPDATE_COMPLETE, "foo", ""},
    {"{\"ID\":\"" ID "\",\"Type\":3,\"Data\":\"Pj8/fn5+\",\"Error\":\"\"}", UPDATE_SHUTDOWN, ">?\?~~~", ""},
    {"{\"ID\":\"" ID "\",\"Type\":4,\"Data\":null,\"Error\":\"\"}", UPDATE_SUCCESS, NULL, ""},
    {"{\"ID\":\"" ID "\",\"Type\":5,\"Data\":null,\"Error\":\"no such table\"}", UPDATE_FAILURE, NULL,
     "no such table"},
};

static void as_go_writes_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(from_go) / sizeof(from_go[0]); i++) {
		char id[UPDATE_ID_SIZE];
		struct error error;
		struct update u;
		uint8_t *bytes;
		struct span body;
		size_t size;

		assert_int_equal(update_parse(guard_text(from_go[i].json), &u, id, &error), 0);
		assert_string_equal(u.id, ID);
		assert_string_equal(id, ID);
		assert_int_equal(u.type, from_go[i].type);
		assert_string_equal(u.error, from_go[i].error);
		if (from_go[i].data)
			assert_true(span_equal(span_of(u.data, u.data_size), span_text(from_go[i].data)));
		else
			assert_null(u.data);
		assert_int_equal(update_write(&u, &bytes, &size), 0);
		assert_int_equal(update_frame(bytes, size, &body), size);
		assert_true(span_equal(body, span_text(from_go[i].json)));
		free(bytes);
		update_done(&u);
	}
}

static void lenient(void **state)
{
	static const char *const table[] = {
	    "{\"ID\":\"" ID "\",\"Type\":1}",
	    "{\"Error\":null,\"Data\":\"\",\"Type\":1,\"ID\":\"0E37DF36-F698-11E6-8DD4-CB9CED3DF976\","
	    "\"More\":[1,{}]}",
	    " {\"ID\":\"x\",\"ID\":\"" ID "\",\"Type\":1,\"Error\":{}} \n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char id[UPDATE_ID_SIZE];
		struct error error;
		struct update u;

		assert_int_equal(update_parse(guard_text(table[i]), &u, id, &error), 0);
		assert_null(u.data);
		assert_int_equal(u.type, UPDATE_START);
		assert_string_equal(u.error, "");
		update_done(&u);
	}
}

static void malformed(void **state)
{
	static const struct {
		const char *json, *id, *why;
	} table[] = {
	    {"x", UPDATE_ID_NONE, "not JSON"},
	    {"{\"ID\":\"\xff\"}", UPDATE_ID_NONE, "not JSON"},
	    {"[]", UPDATE_ID_NONE, "not a JSON object"},
	    {"{} {}", UPDATE_ID_NONE, "not JSON"},
	    {"{}", UPDATE_ID_NONE, "ID is not a UUID"},
	    {"{\"ID\":7,\"Type\":1}", UPDATE_ID_NONE, "ID is not a UUID"},
	    {"{\"ID\":\"0e37df36f69811e68dd4cb9ced3df976\",\"Type\":1}", UPDATE_ID_NONE, "ID is not a UUID"},
	    {"{\"ID\":\"0e37df36-f698-11e6-8dd4-cb9ced3df97g\",\"Type\":1}", UPDATE_ID_NONE,
	     "ID is not a UUID"},
	    {"{\"ID\":\"" ID "\"}", ID, "Type is not a number"},
	    {"{\"ID\":\"" ID "\",\"Type\":\"1\"}", ID, "Type is not a number"},
	    {"{\"ID\":\"" ID "\",\"Type\":6}", ID, "Type 6 is unknown"},
	    {"{\"ID\":\"" ID "\",\"Type\":-1}", ID, "Type -1 is unknown"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":{}}", ID, "Data is neither"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"abc\"}", ID, "not base64"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"ab=c\"}", ID, "not base64"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"a===\"}", ID, "not base64"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"====\"}", ID, "not base64"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"ab==abcd\"}", ID, "not base64"},
	    {"{\"ID\":\"" ID "\",\"Type\":1,\"Data\":\"ab-_\"}", ID, "not base64"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char id[UPDATE_ID_SIZE] = "";
		struct error error = {0};
		struct update u = {.data_size = 77};

		assert_int_equal(update_parse(guard_text(table[i].json), &u, id, &error), -EINVAL);
		assert_string_equal(id, table[i].id);
		if (!strstr(error.text, table[i].why))
			fail_msg("%s: '%s' instead of '%s'", table[i].json, error.text, table[i].why);
		assert_int_equal(u.data_size, 77);
	}
}

/* What a peer wrote comes back as printable text, within its bound. */
static void errors_are_printable(void **state)
{
	struct update u = {.id = ID, .type = UPDATE_FAILURE};
	static const char expected[] =
	    "{\"ID\":\"" ID "\",\"Type\":5,\"Data\":null,\"Error\":\"a?\\\"?[31m??\"}";
	struct error error;
	char json[3000], id[UPDATE_ID_SIZE];
	struct span body;
	uint8_t *bytes;
	size_t size;

	(void)state;
	snprintf(u.error, sizeof(u.error), "a\n\"\x1b[31m\xc3\xa9");
	assert_int_equal(update_write(&u, &bytes, &size), 0);
	assert_int_equal(update_frame(bytes, size, &body), size);
	assert_true(span_equal(body, span_text(expected)));
	free(bytes);
	snprintf(json, sizeof(json), "{\"ID\":\"" ID "\",\"Type\":5,\"Error\":\"%02000d\"}", 7);
	assert_int_equal(update_parse(guard_text(json), &u, id, &error), 0);
	assert_int_equal(strlen(u.error), UPDATE_ERROR_SIZE - 1);
	assert_int_equal(update_parse(guard_text("{\"\\u001b\\u001b\xff"), &u, id, &error), -EINVAL);
	for (const char *c = error.text; *c; c++)
		assert_true(*c >= ' ' && *c <= '~');
}

static struct span repeated(const char *head, const char *text, size_t count, const char *tail)
{
	static char *all;
	size_t n = strlen(text), before = strlen(head), after = strlen(tail);

	free(all);
	all = malloc(before + n * count + after + 1);
	assert_non_null(all);
	memcpy(all, head, before);
	for (size_t i = 0; i < count; i++)
		memcpy(all + before + i * n, text, n);
	memcpy(all + before + count * n, tail, after + 1);
	return span_text(all);
}

/* 3 bytes of JSON cost 130 bytes of memory: they are counted before. */
static void many_values_are_refused(void **state)
{
	struct error error;
	char id[UPDATE_ID_SIZE];
	struct update u;

	(void)state;
	assert_int_equal(update_parse(repeated("{\"a\":[0", ",[]", UPDATE_VALUES_MAX, "]}"), &u, id, &error),
			 -EINVAL);
	assert_non_null(strstr(error.text, "JSON values"));
	assert_int_equal(update_parse(repeated("{\"ID\":\"" ID "\",\"Type\":1,\"a\":[0", ",[]",
					       UPDATE_VALUES_MAX / 4, "]}"),
				      &u, id, &error),
			 0);
	/* In a text they are no values; not even behind a quoted quote. */
	assert_int_equal(update_parse(repeated("{\"ID\":\"" ID "\",\"Type\":1,\"a\":\"\\\"", ",[]",
					       UPDATE_VALUES_MAX, "\"}"),
				      &u, id, &error),
			 0);
	/* Nesting ends as well. */
	assert_int_equal(update_parse(repeated("{\"a\":", "[", 100000, "]}"), &u, id, &error), -EINVAL);
	repeated("", "", 0, "");
}

/* ---- what Data holds */

static void tables(void **state)
{
	static const struct {
		const char *json, *why; /* why NULL: good */
	} table[] = {
	    {"{\"Keyspace\":\"Shop\",\"Name\":\"orders_1\",\"Step\":4,\"Error\":null,\"Priority\":3,\"Lock\":"
	     "{}}",
	     NULL},
	    {"{\"Keyspace\":\"Shop\",\"Name\":\"orders_1\",\"Step\":4,\"Error\":{},\"Priority\":3}", NULL},
	    {"", "without a migration.Table"},
	    {"[]", "not a JSON object"},
	    {"7", "not JSON"},
	    {"{", "not JSON"},
	    {"{\"Name\":\"t\",\"Step\":4}", "Keyspace"},
	    {"{\"Keyspace\":\"k\",\"Name\":null,\"Step\":4}", "Name"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"a b\",\"Step\":4}", "Name"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"\",\"Step\":4}", "Name"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"t\"}", "Step of k.t"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"t\",\"Step\":9}", "Step of k.t"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"t\",\"Step\":-1}", "Step of k.t"},
	    {"{\"Keyspace\":\"k\",\"Name\":\"t\",\"Step\":\"4\"}", "Step of k.t"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct migration_table t;
		struct error error;
		int r = table_parse(guard_text(table[i].json), &t, &error);

		assert_int_equal(r, table[i].why ? -EINVAL : 0);
		if (table[i].why) {
			assert_non_null(strstr(error.text, table[i].why));
			continue;
		}
		assert_string_equal(t.keyspace, "Shop");
		assert_string_equal(t.name, "orders_1");
		assert_int_equal(t.step, TABLE_WAITING_TO_UNLOAD);
		assert_string_equal(table_step_name(t.step), "WaitingToUnload");
		assert_int_equal(t.priority, 3);
	}
}

static void long_names(void **state)
{
	char json[700], name[UPDATE_NAME_SIZE + 1];
	struct migration_table t;
	struct error error;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[UPDATE_NAME_SIZE - 1] = 0;
	snprintf(json, sizeof(json), "{\"Keyspace\":\"k\",\"Name\":\"%s\",\"Step\":0}", name);
	assert_int_equal(table_parse(guard_text(json), &t, &error), 0);
	name[UPDATE_NAME_SIZE - 1] = 'n';
	name[UPDATE_NAME_SIZE] = 0;
	snprintf(json, sizeof(json), "{\"Keyspace\":\"k\",\"Name\":\"%s\",\"Step\":0}", name);
	assert_int_equal(table_parse(guard_text(json), &t, &error), -EINVAL);
}

static void status(void **state)
{
	static const char json[] =
	    "{\"Timestamp\":\"2026-01-02T03:04:05Z\",\"Tables\":{"
	    "\"shop\":{\"orders\":{\"Keyspace\":\"shop\",\"Name\":\"orders\",\"Step\":3,\"Error\":null,"
	    "\"Priority\":2,\"Lock\":{}},"
	    "\"items\":{\"Step\":8},\"odd\":{\"Step\":9},\"none\":null,\"a b\":{\"Step\":1}},"
	    "\"Blog\":{\"posts\":{\"Step\":0}},\"empty\":{},\"null\":null,\"seven\":7},"
	    "\"Steps\":5,\"TotalSteps\":9,\"Speed\":1.5,\"Lock\":{}}";
	struct migration_status s;
	struct error error;

	(void)state;
	assert_int_equal(status_parse(guard_text(json), &s, &error), 0);
	assert_int_equal(s.count, 3);
	assert_int_equal(s.skipped, 4);
	assert_string_equal(s.tables[0].keyspace, "Blog");
	assert_int_equal(status_find(&s, "shop", "orders")->step, TABLE_MIGRATING_SCHEMA_COMPLETE);
	assert_int_equal(status_find(&s, "shop", "orders")->priority, 2);
	assert_int_equal(status_find(&s, "shop", "items")->step, TABLE_LOADING_DATA_COMPLETE);
	assert_null(status_find(&s, "shop", "posts"));
	assert_null(status_find(&s, "Shop", "items"));
	assert_null(status_find(&s, "shop", ""));
	status_done(&s);
	assert_null(status_find(&s, "shop", "orders"));
}

static void status_without_tables(void **state)
{
	static const char *const table[] = {"", "{}", "{\"Tables\":null}", "{\"Tables\":{}}"};
	static const char *const bad[] = {"[]", "null", "{\"Tables\":[]}", "{\"Tables\":\"x\"}",
					  "{\"Tables\""};
	struct migration_status s;
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_int_equal(status_parse(guard_text(table[i]), &s, &error), 0);
		assert_int_equal(s.count, 0);
		assert_null(status_find(&s, "k", "t"));
		status_done(&s);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(status_parse(guard_text(bad[i]), &s, &error), -EINVAL);
}

static void status_is_bounded(void **state)
{
	const size_t room = UPDATE_TABLES_MAX * 40u;
	char *json = malloc(room);
	struct migration_status s;
	struct error error;

	size_t n = 0;

	(void)state;
	n += (size_t)snprintf(json, room, "{\"Tables\":{\"k\":{");
	for (unsigned i = 0; i < UPDATE_TABLES_MAX; i++)
		n += (size_t)snprintf(json + n, room - n, "%s\"t%05u\":{\"Step\":1}", i ? "," : "", i);
	snprintf(json + n, room - n, "}}}");
	assert_int_equal(status_parse(span_text(json), &s, &error), 0);
	assert_int_equal(s.count, UPDATE_TABLES_MAX);
	assert_non_null(status_find(&s, "k", "t16383"));
	status_done(&s);
	snprintf(json + n, room - n, ",\"more\":{\"Step\":1}}}}");
	assert_int_equal(status_parse(span_text(json), &s, &error), -EINVAL);
	assert_non_null(strstr(error.text, "16385 tables"));
	free(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(frames),
	    cmocka_unit_test(as_go_writes_it),
	    cmocka_unit_test(lenient),
	    cmocka_unit_test(malformed),
	    cmocka_unit_test(errors_are_printable),
	    cmocka_unit_test(many_values_are_refused),
	    cmocka_unit_test(tables),
	    cmocka_unit_test(long_names),
	    cmocka_unit_test(status),
	    cmocka_unit_test(status_without_tables),
	    cmocka_unit_test(status_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
