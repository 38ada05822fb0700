// SPDX-License-Identifier: Apache-2.0
/* Calls of now() and the like in texts, what they become, and where their values go in requests. Texts lie flush against a guard page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/instant.h"
#include "unit/guard.h"

#define TU "(timeuuid)"
#define ID "000102030405060708090a0b0c0d0e0f"
#define NEW "ffeeddccbbaa99887766554433221100"
#define META "52525252525252525252525252525252"

/* 2026-11-21T14:33:20.123456Z */
#define WALL 1795271600123456

static void count_up(void *context, uint8_t to[16])
{
	memset(to, ++*(uint8_t *)context, 16);
}

static struct instant_source source(uint8_t *counter)
{
	static const uint8_t node[8] = {0xff, 1, 0, 3, 4, 5, 6, 7};
	struct instant_source s;

	*counter = 0;
	instant_source_init(&s, node, count_up, counter);
	s.wall_us = WALL;
	return s;
}

/* What each text becomes when it is prepared; "=" stays as it is. Positions are those of the added variables. */
static const struct {
	const char *text, *markers, *positions;
} texts[] = {
    {"INSERT INTO t (k, v) VALUES (now(), 1)", "INSERT INTO t (k, v) VALUES (" TU ":cqlferry_0, 1)", "0"},
    {"INSERT INTO t (k, v) VALUES (?, uuid())", "INSERT INTO t (k, v) VALUES (?, (uuid):cqlferry_0)", "1"},
    {"INSERT INTO t (k, a, b) VALUES (NOW ( ), :x, \"now\"())",
     "INSERT INTO t (k, a, b) VALUES (" TU ":cqlferry_0, :x, " TU ":cqlferry_1)", "0 2"},
    {"UPDATE t SET a = currentTimestamp(), b = ?, c = CURRENT_DATE() WHERE k = ? AND d = current_time()",
     "UPDATE t SET a = (timestamp):cqlferry_0, b = ?, c = (date):cqlferry_1 WHERE k = ? AND d = (time):cqlferry_2",
     "0 2 4"},
    {"UPDATE t SET a = toDate(now()), b = minTimeuuid(toTimestamp(currentTimeUUID())) WHERE k = 1",
     "UPDATE t SET a = toDate(" TU ":cqlferry_0), b = minTimeuuid(toTimestamp(" TU ":cqlferry_1)) WHERE k = 1", "0 1"},
    {"UPDATE t SET a = currentDate() - 1d WHERE k = currentTime()",
     "UPDATE t SET a = (date):cqlferry_0 - 1d WHERE k = (time):cqlferry_1", "0 1"},
    {"DELETE m[current_timeuuid()] FROM t WHERE k = ?", "DELETE m[" TU ":cqlferry_0] FROM t WHERE k = ?", "0"},
    {"UPDATE t SET k = system.now() WHERE k = \"system\" . \"uuid\" (/* x */)",
     "UPDATE t SET k = " TU ":cqlferry_0 WHERE k = (uuid):cqlferry_1", "0 1"},
    {"INSERT INTO t (k, u, m, s) VALUES (?, {a:now(), b: ?, c::x}, {?:now(), 'a':?}, {uuid(), ?})",
     "INSERT INTO t (k, u, m, s) VALUES (?, {a:" TU ":cqlferry_0, b: ?, c::x}, {?:" TU ":cqlferry_1, 'a':?}, "
     "{(uuid):cqlferry_2, ?})",
     "1 5 7"},
    {"INSERT INTO t (u) VALUES ({a:system.now(), b:\"now\"(), c:toDate(now())})",
     "INSERT INTO t (u) VALUES ({a:" TU ":cqlferry_0, b:" TU ":cqlferry_1, c:toDate(" TU ":cqlferry_2)})", "0 1 2"},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (now()); UPDATE b USING TTL ? SET v = ? WHERE k = uuid() APPLY BATCH",
     "BEGIN BATCH INSERT INTO a (k) VALUES (" TU ":cqlferry_0); UPDATE b USING TTL ? SET v = ? WHERE k = "
     "(uuid):cqlferry_1 APPLY BATCH",
     "0 3"},
    {"INSERT INTO t (k, v) VALUES (my.now(), now())", "INSERT INTO t (k, v) VALUES (my.now(), " TU ":cqlferry_0)", "0"},

    {"DELETE FROM t WHERE k=now()AND c=uuid()IF EXISTS", "DELETE FROM t WHERE k=" TU ":cqlferry_0 AND c=(uuid):cqlferry_1 IF EXISTS",
     "0 1"},

    {"INSERT INTO t (k, v) VALUES ('now()', $$uuid()$$) -- now()", "=", ""},
    {"INSERT INTO t (k, v) VALUES (now(1), uuid(?))", "=", ""},
    {"INSERT INTO t (k, v) VALUES (\"NOW\"(), \"Uuid\"())", "=", ""},
    {"INSERT INTO t (k, v) VALUES (ks.now(), \"System\".now())", "=", ""},
    {"INSERT INTO t (now, uuid) VALUES (1, [now, 2])", "=", ""},
    {"INSERT INTO t (k) VALUES (a_function_with_a_name_longer_than_any_known_one())", "=", ""},
    {"INSERT INTO t (k) VALUES (now(", "=", ""},
    {"INSERT INTO t (k) VALUES (now('", "=", ""},
    {"()", "=", ""},
    {")))", "=", ""},
    {"", "=", ""},
};
#define TEXTS (sizeof(texts) / sizeof(texts[0]))

static void calls_become_markers(void **state)
{
	(void)state;
	for (size_t i = 0; i < TEXTS; i++) {
		struct instant_bind binds[INSTANT_BINDS_MAX];
		const char *want = strcmp(texts[i].markers, "=") ? texts[i].markers : texts[i].text;
		struct span text = guard_text(texts[i].text);
		uint8_t *to = guard_room(1, strlen(want));
		char positions[64] = "";
		size_t at = 0;
		int n = instant_binds(text, binds);

		print_message("%s\n", texts[i].text);
		for (int b = 0; b < n; b++)
			at += (size_t)snprintf(positions + at, sizeof(positions) - at, "%s%u", b ? " " : "", binds[b].position);
		assert_string_equal(positions, texts[i].positions);
		assert_int_equal(instant_text(text, to, strlen(want)), strlen(want));
		assert_memory_equal(to, want, strlen(want));
		assert_true(strlen(want) <= text.size + (size_t)n * INSTANT_TEXT_GROWTH);
		for (size_t room = 0; room < strlen(want); room++)
			assert_int_equal(instant_text(text, guard_room(1, room), room), -ENOSPC);
	}
}

static void calls_that_cannot_be_replaced(void **state)
{
	struct instant_bind binds[INSTANT_BINDS_MAX];
	char many[8192] = "INSERT INTO t (s) VALUES ({now()";

	(void)state;
	assert_int_equal(instant_binds(guard_text("INSERT INTO t (k, v) VALUES (now(), :cqlferry_0)"), binds), -EEXIST);
	assert_int_equal(instant_binds(guard_text("INSERT INTO t (k, v) VALUES (now(), :CQLferry_x)"), binds), -EEXIST);
	assert_int_equal(instant_binds(guard_text("INSERT INTO t (k, v) VALUES (now(), :cqlferry)"), binds), 1);
	assert_int_equal(instant_binds(guard_text("INSERT INTO t (k, v) VALUES (1, :cqlferry_0)"), binds), 0);
	for (unsigned i = 1; i < INSTANT_BINDS_MAX; i++)
		strncat(many, ", now()", sizeof(many) - strlen(many) - 1);
	assert_int_equal(instant_binds(guard_text(many), binds), INSTANT_BINDS_MAX);
	assert_int_equal(binds[INSTANT_BINDS_MAX - 1].position, INSTANT_BINDS_MAX - 1);
	strncat(many, ", now()", sizeof(many) - strlen(many) - 1);
	assert_int_equal(instant_binds(guard_text(many), binds), -E2BIG);
}

/* Brackets nested deeper than are remembered lead to no fault, and the innermost is still known. */
static void deep_nesting(void **state)
{
	struct instant_bind binds[INSTANT_BINDS_MAX];
	char text[512] = "";

	(void)state;
	for (int i = 0; i < 100; i++)
		strncat(text, "{", sizeof(text) - strlen(text) - 1);
	strncat(text, "a:now()", sizeof(text) - strlen(text) - 1);
	for (int i = 0; i < 120; i++)
		strncat(text, "}", sizeof(text) - strlen(text) - 1);
	strncat(text, " :x uuid()", sizeof(text) - strlen(text) - 1);
	assert_int_equal(instant_binds(guard_text(text), binds), 2);
	assert_int_equal(binds[0].position, 0);
	assert_int_equal(binds[1].position, 2);
}

static void values_are_what_a_coordinator_gives(void **state)
{
	uint8_t counter;
	struct instant_source s = source(&counter);
	struct instant v, w;

	(void)state;
	instant_take(&s, INSTANT_TIMEUUID, &v);
	assert_int_equal(v.size, 16);
	/* Version 1; the variant, and a node id that no network card has. */
	assert_int_equal(v.value[6] >> 4, 1);
	assert_int_equal(v.value[8] >> 6, 2);
	assert_int_equal(v.value[10] & 1, 1);
	uint64_t ticks = (uint64_t)(v.value[6] & 0x0f) << 56 | (uint64_t)v.value[7] << 48 | (uint64_t)v.value[4] << 40 |
			 (uint64_t)v.value[5] << 32 | (uint64_t)v.value[0] << 24 | (uint64_t)v.value[1] << 16 |
			 (uint64_t)v.value[2] << 8 | v.value[3];
	assert_true(ticks == (uint64_t)WALL * 10 + 122192928000000000u); /* RFC 4122, 4.1.4 */
	/* The next one of the same moment is later, and a clock that goes back changes nothing. */
	s.wall_us -= 1000000;
	instant_take(&s, INSTANT_TIMEUUID, &w);
	assert_int_equal(w.value[3], (uint8_t)(v.value[3] + 1));
	assert_memory_equal(v.value + 8, w.value + 8, 8);
	s.wall_us = WALL;

	instant_take(&s, INSTANT_UUID, &v);
	assert_memory_equal(v.value, guard_hex(0, "01010101 0101 4101 8101 010101010101").data, 16);
	instant_take(&s, INSTANT_UUID, &w);
	assert_memory_equal(w.value, guard_hex(0, "02020202 0202 4202 8202 020202020202").data, 16);
	instant_take(&s, INSTANT_TIMESTAMP, &v);
	assert_int_equal(v.size, 8);
	assert_memory_equal(v.value, guard_hex(0, "000001a1 fe86a7fb").data, 8);
	instant_take(&s, INSTANT_DATE, &v); /* 20778 days */
	assert_int_equal(v.size, 4);
	assert_memory_equal(v.value, guard_hex(0, "8000512a").data, 4);
	instant_take(&s, INSTANT_TIME, &v); /* 14:33:20.123456 */
	assert_int_equal(v.size, 8);
	uint64_t ns = 0;
	for (int i = 0; i < 8; i++)
		ns = ns << 8 | v.value[i];
	assert_true(ns == ((14 * 60 + 33) * 60 + 20) * 1000000000ull + 123456000);
	s.wall_us = -1;
	instant_take(&s, INSTANT_DATE, &v);
	assert_memory_equal(v.value, guard_hex(0, "80000000").data, 4);
	instant_take(&s, INSTANT_NONE, &v);
	assert_int_equal(v.size, 0);
}

/* ------------------------------------------------------------------------------------------------- requests */

static struct request parse(unsigned slot, uint8_t version, uint8_t flags, uint8_t opcode, const char *hex)
{
	struct span body = guard_hex(slot, hex);
	struct request r;

	assert_int_equal(request_parse(version, flags, opcode, body, &r), 0);
	return r;
}

static const struct instant_bind two_binds[] = {{.position = 0, .kind = INSTANT_UUID}, {.position = 2, .kind = INSTANT_DATE}};

#define BY_TEXT "ab"

/* The id that is known becomes another one with two values more; a short one stands for a text. */
static bool place(void *context, struct span id, struct instant_place *ret)
{
	static uint8_t other[16];

	if (span_equal(id, guard_hex(3, BY_TEXT))) {
		ret->text = span_text("x {uuid()}");
		return true;
	}
	if (!span_equal(id, guard_hex(3, context)))
		return false;
	memcpy(other, guard_hex(3, NEW).data, 16);
	*ret = (struct instant_place){.id = span_of(other, 16), .binds = two_binds, .count = 2};
	return true;
}

static void assert_changes(uint8_t version, uint8_t flags, uint8_t opcode, const char *hex, const char *want_hex)
{
	uint8_t counter;
	struct instant_source s = source(&counter);
	struct instant_change how = {.source = &s, .place = place, .context = ID};
	struct request r = parse(0, version, flags, opcode, hex), again;
	struct span want = guard_hex(1, want_hex);
	uint8_t *to = guard_room(2, want.size);

	assert_int_equal(instant_request(&r, &how, to, want.size), want.size);
	assert_memory_equal(to, want.data, want.size);
	assert_int_equal(request_parse(version, flags, opcode, span_of(to, want.size), &again), 0);
	for (size_t room = 0; room < want.size; room++) {
		s = source(&counter);
		assert_int_equal(instant_request(&r, &how, guard_room(2, room), room), -ENOSPC);
	}
}

#define U1 "00000010 01010101 0101 4101 8101 010101010101"
#define D1 "00000004 8000512a"

static void executes_get_values(void **state)
{
	(void)state;
	assert_changes(4, 0, OP_EXECUTE, "0010" ID "0001 21 0002 00000001aa fffffffe 0000000000000007",
		       "0010" NEW "0001 21 0004" U1 "00000001aa" D1 "fffffffe 0000000000000007");
	assert_changes(3, 0, OP_EXECUTE, "0010" ID "0001 00", "0010" NEW "0001 01 0002" U1 D1);
	assert_changes(3, 0, OP_EXECUTE, "0010" ID "0001 01 0000", "0010" NEW "0001 01 0002" U1 D1);
	/* Fewer than the statement has: ours follow, and the server counts. */
	assert_changes(4, 0, OP_EXECUTE, "0010" ID "0001 01 0001 ffffffff", "0010" NEW "0001 01 0003" U1 "ffffffff" D1);
	assert_changes(5, 0, OP_EXECUTE, "0010" ID "0010" META "0004 00000021 0001 00000001aa 000000000000002a",
		       "0010" NEW "0010" META "0004 00000021 0003" U1 "00000001aa" D1 "000000000000002a");
	assert_changes(5, 0, OP_EXECUTE, "0010" ID "0010" META "0004 00000000", "0010" NEW "0010" META "0004 00000001 0002" U1 D1);
	/* By name; without values the flag says nothing. */
	assert_changes(4, 0, OP_EXECUTE, "0010" ID "0001 41 0001 000161 00000001aa",
		       "0010" NEW "0001 41 0003 000161 00000001aa 000a63716c66657272795f30" U1 "000a63716c66657272795f31" D1);
	assert_changes(4, FRAME_PAYLOAD, OP_EXECUTE, "0001 000170 000000020102 0010" ID "0001 00",
		       "0001 000170 000000020102 0010" NEW "0001 01 0002" U1 D1);
	/* Another statement stays as it is. */
	assert_changes(4, 0, OP_EXECUTE, "0010" NEW "0001 01 0001 00000001aa", "0010" NEW "0001 01 0001 00000001aa");
	assert_changes(4, 0, OP_EXECUTE, "0010" NEW "0001 00", "0010" NEW "0001 00");
}

#define LITERAL "0000002e 78207b 2875756964293031303130313031 2d303130312d343130312d383130312d303130313031303130313031 7d"

/* An EXECUTE of a text is a QUERY. */
static void executes_become_texts(void **state)
{
	static const struct {
		uint8_t version;
		const char *execute, *query;
	} cases[] = {
	    {4, "0001" BY_TEXT "0001 21 0001 00000001aa 0000000000000007", LITERAL "0001 21 0001 00000001aa 0000000000000007"},
	    {3, "0001" BY_TEXT "0001 00", LITERAL "0001 00"},
	    {5, "0001" BY_TEXT "0010" META "0004 00000020 0000000000000007", LITERAL "0004 00000020 0000000000000007"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t counter, *to;
		struct instant_source s = source(&counter);
		struct instant_change how = {.source = &s, .place = place, .context = ID};
		struct request r = parse(0, cases[i].version, 0, OP_EXECUTE, cases[i].execute), again;
		struct span want = guard_hex(1, cases[i].query);

		to = guard_room(2, want.size);
		assert_int_equal(instant_request(&r, &how, to, want.size), want.size);
		assert_memory_equal(to, want.data, want.size);
		assert_int_equal(request_parse(cases[i].version, 0, OP_QUERY, span_of(to, want.size), &again), 0);
	}
	/* In a batch it becomes a text child. */
	assert_changes(4, 0, OP_BATCH, "01 0001 01 0001" BY_TEXT "0001 00000001aa 0001 00",
		       "01 0001 00" LITERAL "0001 00000001aa 0001 00");
}

#define INSERT_NOW "494e5345525420494e544f207420286b292056414c55455320286e6f77282929" /* INSERT INTO t (k) VALUES (now()) */
#define INSERT_HEAD "494e5345525420494e544f207420286b292056414c5545532028"

static void texts_get_literals(void **state)
{
	static const char text[] = "INSERT INTO t (a, b, c, d, e) VALUES (now(), uuid(), currentTimestamp(), currentDate(), currentTime())";
	uint8_t counter, to[512], body[256] = {0, 0, 0, sizeof(text) - 1};
	struct instant_source s = source(&counter), same = s;
	struct instant_change how = {.source = &s, .place = place, .context = ID};
	struct request r, again;
	struct instant first;
	char want[512];

	(void)state;
	memcpy(body + 4, text, sizeof(text) - 1);
	memcpy(body + 4 + sizeof(text) - 1, "\0\4\0", 3);
	assert_int_equal(request_parse(4, 0, OP_QUERY, guard_bytes(body, 4 + sizeof(text) - 1 + 3), &r), 0);
	ssize_t n = instant_request(&r, &how, to, sizeof(to));
	assert_true(n > 0);
	assert_int_equal(request_parse(4, 0, OP_QUERY, span_of(to, (size_t)n), &again), 0);
	instant_take(&same, INSTANT_TIMEUUID, &first);
	const uint8_t *v = first.value;
	snprintf(want, sizeof(want),
		 "INSERT INTO t (a, b, c, d, e) VALUES ((timeuuid)%02x%02x%02x%02x-%02x%02x-%02x%02x-bf01-010304050607, "
		 "(uuid)01010101-0101-4101-8101-010101010101, (timestamp)1795271600123, (date)2147504426, (time)52400123456000)",
		 v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
	assert_int_equal(again.text.size, strlen(want));
	assert_memory_equal(again.text.data, want, strlen(want));
	assert_int_equal(again.params.consistency, CL_QUORUM);
}

static void prepares_get_markers(void **state)
{
	(void)state;
	assert_changes(4, 0, OP_PREPARE, "00000020" INSERT_NOW, "00000030" INSERT_HEAD "2874696d6575756964293a63716c66657272795f3029");
	assert_changes(5, 0, OP_PREPARE, "00000020" INSERT_NOW "00000001 00026b73",
		       "00000030" INSERT_HEAD "2874696d6575756964293a63716c66657272795f3029 00000001 00026b73");
}

static void children_of_batches(void **state)
{
	uint8_t counter, to[512];
	struct instant_source s = source(&counter);
	struct instant_change how = {.source = &s, .place = place, .context = ID};
	struct request r = parse(0, 4, 0, OP_BATCH,
				 "00 0003 00 00000020" INSERT_NOW "0001 00000001bb 01 0010" ID "0001 00000001aa 01 0010" NEW
				 "0000 0004 20 0000000000000007"),
		       again;
	ssize_t n = instant_request(&r, &how, to, sizeof(to));
	struct span cursor;
	struct batch_child c;

	(void)state;
	assert_true(n > 0);
	assert_int_equal(request_parse(4, 0, OP_BATCH, span_of(to, (size_t)n), &again), 0);
	assert_int_equal(again.batch_count, 3);
	assert_true(again.params.timestamp == 7);
	cursor = again.batch_children;
	assert_int_equal(batch_next(4, &cursor, &c), 1);
	assert_int_equal(c.text.size, 26 + 46 + 1);
	assert_int_equal(c.values_count, 1);
	assert_int_equal(batch_next(4, &cursor, &c), 1);
	assert_true(span_equal(c.text, guard_hex(3, NEW)));
	assert_int_equal(c.values_count, 3);
	assert_true(span_equal(c.values, guard_hex(3, U1 "00000001aa" D1)));
	assert_int_equal(batch_next(4, &cursor, &c), 1);
	assert_int_equal(c.values_count, 0);
	for (ssize_t room = 0; room < n; room++)
		assert_int_equal(instant_request(&r, &how, guard_room(2, (size_t)room), (size_t)room), -ENOSPC);
}

static void too_many_values(void **state)
{
	uint8_t counter, *body = calloc(1, 5 + 18 + 4 * 65535), *to = malloc(400000);
	struct instant_source s = source(&counter);
	struct instant_change how = {.source = &s, .place = place, .context = ID};
	struct request r;

	(void)state;
	body[1] = 16;
	memcpy(body + 2, guard_hex(0, ID).data, 16);
	memcpy(body + 18, "\0\1\1\xff\xff", 5);
	assert_int_equal(request_parse(4, 0, OP_EXECUTE, span_of(body, 23 + 4 * 65535), &r), 0);
	assert_int_equal(instant_request(&r, &how, to, 400000), -E2BIG);
	r = (struct request){.version = 4, .opcode = OP_OPTIONS};
	assert_int_equal(instant_request(&r, &how, to, 400000), -EINVAL);
	/* The same in a batch: kind 1, id, 65535 values of 0 bytes. */
	uint8_t *batch = calloc(1, 3 + 1 + 18 + 2 + 4 * 65535 + 3);
	batch[2] = 1;
	batch[3] = 1;
	memcpy(batch + 4, body, 18);
	memset(batch + 22, 0xff, 2);
	assert_int_equal(request_parse(4, 0, OP_BATCH, span_of(batch, 3 + 1 + 18 + 2 + 4 * 65535 + 3), &r), 0);
	assert_int_equal(instant_request(&r, &how, to, 400000), -E2BIG);
	free(batch);
	free(body);
	free(to);
}

/* Columns by name, all of type int and of one table. */
static struct columns columns(uint8_t *room, const char *const *names)
{
	size_t at = 0;
	unsigned count = 0;

	for (; *names; names++, count++) {
		size_t n = strlen(*names);

		room[at++] = 0;
		room[at++] = (uint8_t)n;
		memcpy(room + at, *names, n);
		at += n;
		room[at++] = 0;
		room[at++] = TYPE_INT;
	}
	return (struct columns){.count = count, .global = true, .rest = guard_bytes(room, at)};
}

static void what_the_cluster_understood(void **state)
{
	uint8_t room[256];
	static const char *const good[] = {"cqlferry_0", "x", "cqlferry_1", "y", NULL}, *const late[] = {"x", "cqlferry_0", "cqlferry_1", NULL},
			  *const early[] = {"cqlferry_0", "cqlferry_1", "x", NULL}, *const few[] = {"cqlferry_0", "x", NULL},
			  *const other[] = {"cqlferry_1", "x", "cqlferry_0", NULL}, *const none[] = {NULL};

	(void)state;
	assert_true(instant_binds_match(columns(room, good), two_binds, 2));
	assert_false(instant_binds_match(columns(room, late), two_binds, 2));
	assert_false(instant_binds_match(columns(room, early), two_binds, 2));
	assert_false(instant_binds_match(columns(room, few), two_binds, 2));
	assert_false(instant_binds_match(columns(room, other), two_binds, 2));
	assert_false(instant_binds_match(columns(room, none), two_binds, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(calls_become_markers),	cmocka_unit_test(calls_that_cannot_be_replaced),
	    cmocka_unit_test(deep_nesting),		cmocka_unit_test(values_are_what_a_coordinator_gives),
	    cmocka_unit_test(executes_get_values),	cmocka_unit_test(executes_become_texts),	cmocka_unit_test(texts_get_literals),
	    cmocka_unit_test(prepares_get_markers),	cmocka_unit_test(children_of_batches),
	    cmocka_unit_test(too_many_values),		cmocka_unit_test(what_the_cluster_understood),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
