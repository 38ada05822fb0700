// SPDX-License-Identifier: Apache-2.0
/*
 * Which rows a write touches. Every statement below that yields relations was accepted by Apache
 * Cassandra 5.0.9.
 *
 * Values are written as digits, each a value of one byte: "1,2"; "-" null, "~" not set, "[1 2]" a list of
 * two, "a=1" by name, 'x a text. What is read is rendered again as <kind>[*] keyspace.table name op
 * term<values>|alternative …    (* = DELETE of whole rows; ! = unusable)
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/rowkey.h"
#include "unit/guard.h"

static const struct {
	const char *text, *values, *expected; /* expected NULL: −ENOKEY */
} cases[] = {
    /* INSERT: every column is a relation, the caller knows the key */
    {"INSERT INTO t (k, v) VALUES (1, 'x')", "", "I .t k = 1 v = 'x'"},
    {"INSERT INTO ks.t (k, v) VALUES (?, ?)", "1,2", "I ks.t k = ?<01> v = ?<02>"},
    {"insert into \"Ks\".\"T\"\"x\" (\"K\", V) values (?, ?);", "1,2", "I Ks.T\"x K = ?<01> v = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (?, ?) IF NOT EXISTS", "1,2", "I .t k = ?<01> v = ?<02>"},
    {"INSERT INTO t (k) VALUES (?) USING TTL ? AND TIMESTAMP ?", "1,2,3", "I .t k = ?<01>"},
    {"INSERT INTO t (k, id) VALUES (?, now())", "1", "I .t k = ?<01> id = !"},
    {"INSERT INTO t (k, v) VALUES (?, ?)", "-,~", "I .t k = ! v = !"},
    {"INSERT INTO t (k, v) VALUES (?, ?)", "1", NULL},
    {"INSERT INTO t (k, v) VALUES (?, 5)", "1,2", NULL},
    {"INSERT INTO t (k, v) VALUES (1, ?)", "", NULL},
    /* inside braces a name behind a type is a marker, and behind a term it is not */
    {"UPDATE t SET u = {a: (int):x} WHERE k = :k IF EXISTS", "1,2", "U .t k = ?<02>"},
    {"UPDATE t SET u = {a:(int):x, b:(map<int, frozen<list<text>>>)?, c::y, d: -:z} WHERE k = ?", "1,2,3,4,5", "U .t k = ?<05>"},
    {"UPDATE t SET u = {a: (int)(ks.\"T\"):x, b: (vector<float, 3>):y} WHERE k = :k", "1,2,3", "U .t k = ?<03>"},
    {"UPDATE t SET m = {(1, 2):now(), (true):f(1), f(1):g(2), (true, 2):ks.f(1), (a):null, [1]:true} WHERE k = ?", "1", "U .t k = ?<01>"},
    {"UPDATE t SET m = {(int)5:abs(1), (int)5:true, 'a':x(1)} WHERE k = ?", "1", "U .t k = ?<01>"},
    {"UPDATE t SET u = {a: (int):x} WHERE k = :k", "k=2,x=1", "U .t k = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (null, NULL)", "", "I .t k = ! v = !"},
    {"INSERT INTO t (k, b, d, f) VALUES (-5, 0xCAFE, 12h30m, 1.5e-3)", "",
     "I .t k = -5 b = 0xCAFE d = 12h30m f = 1.5e-3"},
    {"INSERT INTO t (k, v) VALUES (6ba7b810-9dad-11d1-80b4-00c04fd430c8, true)", "",
     "I .t k = 6ba7b810-9dad-11d1-80b4-00c04fd430c8 v = true"},
    {"INSERT INTO t (k, v) VALUES ('it''s; -- /*', $$o'k$$)", "", "I .t k = 'it''s; -- /*' v = $$o'k$$"},
    {"INSERT /* ? */ INTO t -- ?\n (k) // :x\n VALUES (?)", "7", "I .t k = ?<07>"},
    {"INSERT INTO t (k, m, l, s) VALUES (?, {'a': ?, ?: 2}, [?, 4], {?})", "1,2,3,4,5",
     "I .t k = ?<01> m = {'a': ?, ?: 2}<02 03> l = [?, 4]<04> s = {?}<05>"},
    {"INSERT INTO t (k, u, v) VALUES ((?, 'x'), {a:now(), b: ?}, ?)", "1,2,3",
     "I .t k = (?, 'x')<01> u = ! v = ?<03>"},
    {"INSERT INTO t (k, u, v) VALUES (1, {a:true, b::x}, ?)", "1,2",
     "I .t k = 1 u = {a:true, b:?}<01> v = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (textAsBlob('a'), ks.f(1))", "", "I .t k = textAsBlob('a') v = !"},
    {"INSERT INTO t (k, v) VALUES (blobAsInt(?), uuid())", "3", "I .t k = blobAsInt(?)<03> v = !"},
    {"INSERT INTO t (k) VALUES ((int)   ?)", "3", "I .t k = (int) ?<03>"},
    {"INSERT INTO t (k) VALUES (toDate(now()))", "", "I .t k = !"},
    {"INSERT INTO t (k) VALUES (\"now\"())", "", "I .t k = !"},
    {"INSERT INTO t (k, timestamp, ttl, json) VALUES (1, ?, ?, ?)", "1,2,3",
     "I .t k = 1 timestamp = ?<01> ttl = ?<02> json = ?<03>"},
    {"INSERT INTO t (k, v) VALUES (?)", "1", NULL},
    {"INSERT INTO t (k) VALUES (?, ?)", "1,2", NULL},
    /* 'now' is an instant for a timestamp: only what takes it as a text has such a key */
    {"INSERT INTO t (k, v) VALUES ('now', $$NOW$$)", "", "I .t k = ?<now> v = ?<NOW>"},
    {"DELETE FROM t WHERE k = ? AND (a, b) = (1, 'now') AND ts < 'now'", "1", "D* .t k = ?<01> (a b) = (1, ?)<now> ts < ?<now>"},
    {"UPDATE t SET v = 'now', m['now'] = ? WHERE k IN ('now', ?)", "1,2", "U .t k = ?<now>|?<02>"},
    {"INSERT INTO t (k) VALUES (fromJson('\"now\"'))", "", "I .t k = !"},
    {"INSERT INTO t (k) VALUES (fromJson(?))", "'\"now\"", "I .t k = !"},
    {"INSERT INTO t (k, v) VALUES ('''now', '\"now\"')", "", "I .t k = '''now' v = '\"now\"'"},
    {"INSERT INTO t JSON '{\"k\": \"now\", \"c\": [1, \"now\"], \"v\": \"now.\"}'", "",
     "I .t k = ?<now> c = ! v = fromJson(?)<\"now.\">"},
    {"INSERT INTO t VALUES (?)", "1", NULL},
    {"INSERT INTO t (k) VALUES ('open)", "", NULL},

    /* by name */
    {"INSERT INTO t (k, v) VALUES (:a, :B)", "b=2,a=1", "I .t k = ?<01> v = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (:a, :\"B\")", "B=2,a=1", "I .t k = ?<01> v = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (?, ?)", "v=2,k=1", "I .t k = ?<01> v = ?<02>"},
    {"INSERT INTO t (k, v) VALUES (:a, :x)", "a=1", "I .t k = ?<01> v = !"},
    {"INSERT INTO t (k, v) VALUES (:a, :a)", "a=1", "I .t k = ?<01> v = ?<01>"},
    {"UPDATE t SET v = :a WHERE k IN :ks AND c = :a", "ks=[1 2],a=3", "U .t k = ?<01>|?<02> c = ?<03>"},
    {"UPDATE t SET v = ? WHERE k IN ?", "in(k)=[1 2],v=3", "U .t k = ?<01>|?<02>"},
    /* named markers with values by position: each has its own */
    {"INSERT INTO t (k, v) VALUES (:a, :a)", "1,2", "I .t k = ?<01> v = ?<02>"},
    {"UPDATE t USING TTL :t SET v = :v WHERE k = :k", "1,2,3", "U .t k = ?<03>"},

    /* UPDATE */
    {"UPDATE t SET v = ? WHERE k = ?", "1,2", "U .t k = ?<02>"},
    {"UPDATE ks.t USING TIMESTAMP ? AND TTL ? SET v = ? WHERE k = ? AND c = ?", "1,2,3,4,5",
     "U ks.t k = ?<04> c = ?<05>"},
    {"UPDATE t SET l = l + ?, m[?] = ?, u.f = ?, s = s - {?} WHERE k = ?", "1,2,3,4,5,6", "U .t k = ?<06>"},
    {"UPDATE t SET l = [?, ?] + l WHERE k = ?", "1,2,3", "U .t k = ?<03>"},
    {"UPDATE t SET v = ? WHERE k = ? IF v = ? AND w IN (?, ?)", "1,2,3,4,5", "U .t k = ?<02>"},
    {"UPDATE t SET v = ? WHERE k = ? IF EXISTS;;", "1,2", "U .t k = ?<02>"},
    {"UPDATE t SET v = 1 WHERE k = 1IF EXISTS", "", "U .t k = 1"},
    {"UPDATE t SET n = n 3 WHERE k = 1.5e3IF EXISTS", "", "U .t k = 1.5e3"},
    {"BEGIN BATCH UPDATE a SET v = 1 WHERE k = 1INSERT INTO b (k) VALUES (?) APPLY BATCH", "2", "U .a k = 1 I .b k = ?<02>"},
    {"UPDATE t SET v = 'WHERE k = 9' WHERE k = 5", "", "U .t k = 5"},
    {"UPDATE t SET v = 1 WHERE k IN (1, ?, 'x')", "2", "U .t k = 1|?<02>|'x'"},
    {"UPDATE t SET v = 1 WHERE k IN (?) AND c IN (1, 2)", "2", "U .t k = ?<02> c = 1|2"},
    {"UPDATE t SET v = 1 WHERE k IN ?", "[1 2 3]", "U .t k = ?<01>|?<02>|?<03>"},
    {"UPDATE t SET v = 1 WHERE k IN ()", "", "U .t k ="},
    {"UPDATE t SET v = 1 WHERE k IN ?", "[]", "U .t k ="},
    {"UPDATE t SET v = 1 WHERE k IN ?", "-", NULL},
    {"UPDATE t SET v = 1 WHERE k = ?", "-", "U .t k = !"},
    {"UPDATE t SET v = 1 WHERE (k = ?) AND (c = ?)", "1,2", "U .t k = ?<01> c = ?<02>"},
    {"UPDATE t SET v = 1 WHERE k = ? AND (a, b) = (?, 2)", "1,3", "U .t k = ?<01> (a b) = (?, 2)<03>"},
    {"UPDATE t SET v = 1 WHERE k = 1 AND (a, b) IN ((1, ?), (3, 4))", "5",
     "U .t k = 1 (a b) = (1, ?)<05>|(3, 4)"},
    {"UPDATE t SET v = 1 WHERE k = 1 AND (a, b) IN (?, :x)", "5,6", "U .t k = 1 (a b) = ?<05>|?<06>"},
    {"UPDATE t SET v = 1 WHERE k = 1 AND (a, b) IN ?", "[5 6]", "U .t k = 1 (a b) = ?<05>|?<06>"},
    {"UPDATE t SET v = 1 WHERE k = 1 AND (a) = (?)", "5", "U .t k = 1 (a) = (?)<05>"},
    {"UPDATE t SET v = 1 WHERE token(k) = 5", "", NULL},
    {"UPDATE t SET v = 1 WHERE k != 5", "", NULL},
    {"UPDATE t SET v = 1 WHERE k CONTAINS 5", "", NULL},
    {"UPDATE t SET v = 1 WHERE k[1] = 5", "", NULL},
    {"UPDATE t SET v = 1", "", NULL},
    {"UPDATE t SET v = 1 WHERE k = ", "", "U .t k = !"},
    {"UPDATE t SET v = 1 WHERE k = now()", "", "U .t k = !"},

    /* DELETE */
    {"DELETE FROM t WHERE k = ?", "1", "D* .t k = ?<01>"},
    {"DELETE FROM t USING TIMESTAMP ? WHERE k = ? AND c > ? AND c <= ?", "1,2,3,4",
     "D* .t k = ?<02> c > ?<03> c <= ?<04>"},
    {"DELETE FROM t WHERE k = ? AND (a, b) >= (?, ?) AND (a, b) < (9, 9)", "1,2,3",
     "D* .t k = ?<01> (a b) >= (?, ?)<02 03> (a b) < (9, 9)"},
    {"DELETE a, b FROM t WHERE k = ? AND c = ?", "1,2", "D .t k = ?<01> c = ?<02>"},
    {"DELETE m[?], l[?], u.f FROM t USING TIMESTAMP ? WHERE k = ? IF EXISTS", "1,2,3,4", "D .t k = ?<04>"},
    {"DELETE \"from\" FROM \"from\" WHERE \"where\" = ? AND \"AND\" = 'if'", "1",
     "D .from where = ?<01> AND = 'if'"},
    {"DELETE m['from'] FROM t WHERE k = ?", "1", "D .t k = ?<01>"},
    {"DELETE FROM t WHERE k = 1 AND c = 2 IF v = ?", "1", "D* .t k = 1 c = 2"},
    {"DELETE FROM t", "", NULL},
    {"DELETE t WHERE k = 1", "", NULL},

    /* JSON */
    {"INSERT INTO t JSON '{\"k\": 1, \"V\": \"x\"}'", "", "I .t k = fromJson(?)<1> v = fromJson(?)<\"x\">"},
    {"INSERT INTO t JSON '{\"\\\"K\\\"\": \"it''s\"}' DEFAULT UNSET", "", "I .t K = fromJson(?)<\"it's\">"},
    {"INSERT INTO t JSON $${\"k\": [1, {\"a\": \"}]\"}], \"b\": null}$$", "",
     "I .t k = fromJson(?)<[1, {\"a\": \"}]\"}]> b = !"},
    {"INSERT INTO t JSON ?", "'{ \"k\" : 12 , \"k\" : 13 }", "I .t k = fromJson(?)<13>"},
    {"INSERT INTO t JSON :doc", "[json]='{\"k\":1},doc='{\"k\":2}", "I .t k = fromJson(?)<2>"},
    {"INSERT INTO t JSON ?", "[json]='{\"\\u006b\\t\\ud83d\\ude00\":2}",
     "I .t k\t\xf0\x9f\x98\x80 = fromJson(?)<2>"},
    {"INSERT INTO t JSON '{}'", "", "I .t"},
    {"INSERT INTO t JSON '[]'", "", NULL},
    {"INSERT INTO t JSON '{\"k\": 1'", "", NULL},
    {"INSERT INTO t JSON '{\"k\" 1}'", "", NULL},
    {"INSERT INTO t JSON '{\"k\\x\": 1}'", "", NULL},
    {"INSERT INTO t JSON ?", "-", NULL},
    {"INSERT INTO t JSON 5", "", NULL},

    /* text batches: the values are dealt out in order */
    {"BEGIN BATCH INSERT INTO a (k) VALUES (?); UPDATE b SET v = ? WHERE k = ?; DELETE FROM c.d WHERE k = ?; "
     "APPLY BATCH",
     "1,2,3,4", "I .a k = ?<01> U .b k = ?<03> D* c.d k = ?<04>"},
    {"BEGIN UNLOGGED BATCH USING TIMESTAMP ? INSERT INTO a (k) VALUES (?) IF NOT EXISTS UPDATE a SET v = ? "
     "WHERE k = ? IF v = ? DELETE FROM a WHERE k = ? APPLY BATCH;",
     "1,2,3,4,5,6", "I .a k = ?<02> U .a k = ?<04> D* .a k = ?<06>"},
    {"BEGIN COUNTER BATCH UPDATE a SET v = v + ? WHERE k = ? APPLY BATCH", "1,2", "U .a k = ?<02>"},
    {"BEGIN BATCH APPLY BATCH", "", NULL},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1);", "", NULL},
    {"BEGIN BATCH SELECT * FROM a; APPLY BATCH", "", NULL},

    /* nothing with a key */
    {"", "", NULL},
    {"SELECT * FROM t WHERE k = 1", "", NULL},
    {"TRUNCATE t", "", NULL},
    {"DROP TABLE t", "", NULL},
    {"INSERT INTO t (k) VALUES (1); INSERT INTO t (k) VALUES (2)", "", NULL},
    {"UPDATE t SET v = 1 WHERE k = 1 @", "", NULL},
    {"INSERT INTO averyveryveryveryveryveryveryveryveryverylongname (k) VALUES (1)", "", NULL},
};

/* ------------------------------------------------------------- values */

static size_t put_value(uint8_t *to, const char *v, size_t n)
{
	uint32_t length = (uint32_t)-1;
	size_t at = 4;

	if (*v == '~') {
		length = (uint32_t)-2;
	} else if (*v == '\'') {
		memcpy(to + at, v + 1, n - 1);
		at += n - 1;
	} else if (*v == '[') {
		uint32_t count = 0;

		at += 4;
		for (size_t i = 1; i < n; i++) {
			if (v[i] < '0' || v[i] > '9')
				continue;
			memcpy(to + at, (uint8_t[]){0, 0, 0, 1, (uint8_t)(v[i] - '0')}, 5);
			at += 5;
			count++;
		}
		memcpy(to + 4, (uint8_t[]){0, 0, 0, (uint8_t)count}, 4);
	} else if (*v != '-') {
		to[at++] = (uint8_t)(*v - '0');
	}
	if (*v != '-' && *v != '~')
		length = (uint32_t)(at - 4);
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(length >> (24 - 8 * i));
	return at;
}

static struct rowkey_values make_values(const char *v, uint8_t *to)
{
	struct rowkey_values values = {.names = strchr(v, '=') != NULL};
	size_t at = 0;

	while (*v) {
		/* A document has commas of its own: it ends at ",name=". */
		size_t n = strcspn(v, ",");
		const char *equals = values.names ? strchr(v, '=') : NULL, *value = equals ? equals + 1 : v;

		if (*value == '\'') {
			const char *end = strstr(value, "},");

			n = end ? (size_t)(end + 1 - v) : strlen(v);
		}
		if (equals) {
			size_t name = (size_t)(equals - v);

			to[at++] = 0;
			to[at++] = (uint8_t)name;
			memcpy(to + at, v, name);
			at += name;
			n -= name + 1;
		}
		at += put_value(to + at, value, n);
		values.count++;
		v = value + n;
		v += *v == ',';
	}
	values.values = guard_slot(1, to, at);
	return values;
}

/* ------------------------------------------------------------- what was read */

struct rendered {
	char text[1024];
	size_t at;
};

static void put(struct rendered *r, struct span s)
{
	assert_true(r->at + s.size < sizeof(r->text));
	memcpy(r->text + r->at, s.data, s.size);
	r->at += s.size;
}

static void put_text(struct rendered *r, const char *text)
{
	put(r, span_text(text));
}

static void render_values(struct rendered *r, const struct rowkey_term *t)
{
	bool text = span_equal(t->text, span_text("fromJson(?)"));
	size_t at = 0;
	unsigned count = 0;

	if (!t->value_count)
		return;
	put_text(r, "<");
	while (at < t->values.size) {
		size_t n = (size_t)t->values.data[at + 2] << 8 | t->values.data[at + 3];

		if (text || n != 1) {
			put(r, span_of(t->values.data + at + 4, n));
		} else {
			char hex[8];

			assert_int_equal(n, 1);
			snprintf(hex, sizeof(hex), "%s%02x", at ? " " : "", t->values.data[at + 4]);
			put_text(r, hex);
		}
		at += 4 + n;
		count++;
	}
	assert_int_equal(at, t->values.size);
	assert_int_equal(count, t->value_count);
	put_text(r, ">");
}

static void render_relation(struct rendered *r, const struct rowkey_relation *x)
{
	unsigned terms = 0;

	put_text(r, x->tuple ? " (" : " ");
	for (const struct rowkey_name *n = x->names; n; n = n->next) {
		put(r, n->text);
		put_text(r, n->next ? " " : "");
	}
	put_text(r, x->tuple ? ") " : " ");
	put_text(r, rowkey_op_text(x->op));
	for (const struct rowkey_term *t = x->terms; t; t = t->next, terms++) {
		put_text(r, terms ? "|" : " ");
		if (!t->usable) {
			put_text(r, "!");
			continue;
		}
		put(r, t->text);
		render_values(r, t);
	}
	assert_int_equal(terms, x->term_count);
}

static void render(struct rendered *r, const struct rowkey *k)
{
	unsigned count = 0;

	for (const struct rowkey_statement *s = k->statements; s; s = s->next, count++) {
		put_text(r, count ? " " : "");
		put_text(r, s->kind == STATEMENT_INSERT ? "I" : s->kind == STATEMENT_UPDATE ? "U" : "D");
		put_text(r, s->whole ? "* " : " ");
		put_text(r, s->name.keyspace);
		put_text(r, ".");
		put_text(r, s->name.table);
		for (const struct rowkey_relation *x = s->relations; x; x = x->next)
			render_relation(r, x);
	}
	assert_int_equal(count, k->count);
	r->text[r->at] = 0;
}

static void statements(void **state)
{
	static uint8_t room[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct rendered r = {0};
		struct rowkey k;
		struct rowkey_values values = make_values(cases[i].values, room);
		int rc = rowkey_read(guard_text(cases[i].text), values, &k);

		if (rc) {
			if (cases[i].expected || rc != -ENOKEY)
				fail_msg("%s: %d", cases[i].text, rc);
			continue;
		}
		render(&r, &k);
		rowkey_done(&k);
		if (!cases[i].expected || strcmp(r.text, cases[i].expected) != 0)
			fail_msg("%s\n  gives    %s\n  expected %s", cases[i].text, r.text,
				 cases[i].expected ? cases[i].expected : "no key");
	}
}

/* Every beginning of a statement is read without a fault and, ended within a term, names no key wrongly. */
static void beginnings(void **state)
{
	static uint8_t room[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct rowkey_values values = make_values(cases[i].values, room);

		for (size_t n = 0; n < strlen(cases[i].text); n++) {
			struct rowkey k;

			if (!rowkey_read(guard_bytes(cases[i].text, n), values, &k))
				rowkey_done(&k);
		}
	}
}

/* Values that are cut off anywhere: nothing is read behind them. */
static void values_cut_off(void **state)
{
	static uint8_t room[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct rowkey_values values = make_values(cases[i].values, room);
		struct span whole = values.values;

		for (size_t n = 0; n < whole.size; n++) {
			struct rowkey k;

			values.values = guard_slot(2, whole.data, n);
			if (!rowkey_read(span_text(cases[i].text), values, &k))
				rowkey_done(&k);
		}
	}
}

static void keys_that_are_too_long(void **state)
{
	static uint8_t values[2 * (ROWKEY_VALUES_MAX + 8)];
	struct rowkey k;

	(void)state;
	for (size_t size = ROWKEY_VALUES_MAX - 4; size < ROWKEY_VALUES_MAX - 2; size++) {
		memcpy(values, (uint8_t[]){0, 0, (uint8_t)(size >> 8), (uint8_t)size}, 4);
		struct rowkey_values v = {.values = span_of(values, size + 4), .count = 1};

		assert_int_equal(rowkey_read(span_text("DELETE FROM t WHERE k = ?"), v, &k), 0);
		assert_int_equal(k.statements->relations->terms->usable, size + 4 <= ROWKEY_VALUES_MAX);
		rowkey_done(&k);
	}
}

/* A named marker may repeat a long value any number of times: memory is bounded. */
static void memory_is_bounded(void **state)
{
	static uint8_t values[3 + 4 + 60000] = {0, 1, 'a', 0, 0, 60000 >> 8, 60000 & 0xff};
	struct rowkey_values v = {.values = span_of(values, sizeof(values)), .count = 1, .names = true};
	size_t room = 1u << 20, at;
	char *text = malloc(room);
	struct rowkey k;

	(void)state;
	at = (size_t)snprintf(text, room, "UPDATE t SET v = 1 WHERE k IN (:a");
	while (at + 8 < room)
		at += (size_t)snprintf(text + at, room - at, ",:a");
	at += (size_t)snprintf(text + at, room - at, ")");
	assert_int_equal(rowkey_read(span_of(text, at), v, &k), -E2BIG);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(statements),	 cmocka_unit_test(beginnings),
	    cmocka_unit_test(values_cut_off),	 cmocka_unit_test(keys_that_are_too_long),
	    cmocka_unit_test(memory_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
