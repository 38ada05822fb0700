// SPDX-License-Identifier: Apache-2.0
/*
 * What statements do. Every statement below that is not marked as bad was accepted by the parser of Apache
 * Cassandra 5.0.9, and every bad one was refused by it. Texts lie flush against a guard page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <cmocka.h>

#include "cql/statement.h"
#include "unit/guard.h"

#define LWT STATEMENT_CONDITIONAL
#define COUNTER STATEMENT_COUNTER
#define LIST STATEMENT_LIST
#define FUNCTION STATEMENT_FUNCTION
#define TS STATEMENT_TIMESTAMP
#define TTL STATEMENT_TTL
#define ARITH STATEMENT_ARITHMETIC
#define ELEMENT STATEMENT_ELEMENT
#define MORE STATEMENT_TABLES_MORE
#define JSON STATEMENT_JSON
#define MIXED STATEMENT_TEXT_BATCH_MIXED
#define UNTYPED STATEMENT_UNTYPED
#define WHOLE STATEMENT_LIST_VALUE

#define SELECT STATEMENT_SELECT
#define INSERT STATEMENT_INSERT
#define UPDATE STATEMENT_UPDATE
#define DELETE STATEMENT_DELETE
#define BATCH STATEMENT_BATCH
#define TRUNCATE STATEMENT_TRUNCATE
#define USE STATEMENT_USE
#define SCHEMA STATEMENT_SCHEMA
#define ROLE STATEMENT_ROLE
#define UNKNOWN STATEMENT_UNKNOWN

static const struct {
	const char *text;
	enum statement_kind kind;
	uint32_t flags;
	const char *tables; /* "keyspace.table" or "table", separated by blanks */
} cases[] = {
    /* reads */
    {"SELECT * FROM t", SELECT, 0, "t"},
    {"select a, b as \"from\" from Ks.T where k = 1;", SELECT, 0, "ks.t"},
    {"SELECT \"from\", now() FROM \"Ks\".\"T\" WHERE k = ? ALLOW FILTERING", SELECT, 0, "Ks.T"},
    {"SELECT JSON * FROM t", SELECT, JSON, "t"},
    {"SELECT json FROM t", SELECT, 0, "t"},
    {"SELECT json, a FROM t", SELECT, 0, "t"},
    {"SELECT DISTINCT k, writetime(v), cast(a AS text), m['x'], l[0..2] FROM t", SELECT, 0, "t"},
    {"SELECT * FROM system.local", SELECT, 0, "system.local"},
    {"/* x */ -- INSERT INTO a\n// b\nSELECT 'INSERT INTO x' FROM t", SELECT, 0, "t"},
    {"LIST ROLES", SELECT, 0, ""},
    {"LIST ALL PERMISSIONS OF x", SELECT, 0, ""},
    {"LIST USERS", SELECT, 0, ""},
    {"DESCRIBE TABLE ks.t", SELECT, 0, ""},
    {"DESC KEYSPACES", SELECT, 0, ""},

    /* INSERT */
    {"INSERT INTO t (k) VALUES (1)", INSERT, 0, "t"},
    {"insert into ks.\"T\" (k, \"V\") values (?, :v);;", INSERT, 0, "ks.T"},
    {"INSERT INTO \"a\"\"b\".t (k) VALUES (1)", INSERT, 0, "a\"b.t"},
    {"INSERT INTO t (k, ttl, timestamp, json) VALUES (1, 2, 3, 4)", INSERT, 0, "t"},
    {"INSERT INTO t (k) VALUES (1) IF NOT EXISTS", INSERT, LWT, "t"},
    {"INSERT INTO t (k) VALUES (1) IF NOT EXISTS USING TTL 5 AND TIMESTAMP ?", INSERT, LWT | TTL | TS, "t"},
    {"INSERT INTO t (k) VALUES (1) USING TIMESTAMP 5", INSERT, TS, "t"},
    {"INSERT INTO t (k) VALUES (1) USING TTL :ttl", INSERT, TTL, "t"},
    {"INSERT INTO t (k) VALUES (1) USING TIMESTAMP -5", INSERT, TS, "t"},
    {"INSERT INTO t JSON '{\"k\": 1, \"if\": \"x\"}'", INSERT, JSON, "t"},
    {"INSERT INTO t JSON '{\"k\": 1, \"l\": [1]}'", INSERT, JSON | WHOLE, "t"},
    {"INSERT INTO t JSON ? DEFAULT UNSET IF NOT EXISTS", INSERT, JSON | LWT, "t"},
    {"INSERT INTO t JSON :doc DEFAULT NULL USING TTL 3", INSERT, JSON | TTL, "t"},
    {"INSERT INTO t (k, l) VALUES (1, [1, 2])", INSERT, WHOLE, "t"},
    {"INSERT INTO t (k, m) VALUES (1, {'a': [1, 2]})", INSERT, 0, "t"},
    {"INSERT INTO t (k, s, u, tp) VALUES (1, {'a', 'b'}, {f: 1, g: 'if'}, (1, 'x'))", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, 'it''s ; now() IF EXISTS')", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, $$it's ; now() IF EXISTS$$)", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, 'x') -- IF NOT EXISTS\n", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, /* now() */ 'x')", INSERT, 0, "t"},
    {"INSERT INTO t (k, d, b, id) VALUES (-1, 12h30m, 0xcafe, 6ba7b810-9dad-11d1-80b4-00c04fd430c8)", INSERT,
     0, "t"},
    {"INSERT INTO t (k, f) VALUES (1, NaN)", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, (int) 5)", INSERT, 0, "t"},

    {"INSERT INTO ks.\"Case\" (\"K\", \"from\", \"if\", now, ttl, \"timestamp\", json, key, list) VALUES (1, 'x', 2, 3, 5, 6, "
     "'j', 7, 8)",
     INSERT, 0, "ks.Case"},
    {"INSERT INTO t (k) VALUES (5--3\n)", INSERT, 0, "t"},
    {"INSERT -- a\nINTO // b\nks . t /* c */ (k) VALUES (1)", INSERT, 0, "ks.t"},
    {"INSERT INTO t(k,v)VALUES(1,'a')IF NOT EXISTS", INSERT, LWT, "t"},
    {"INSERT INTO t(k,m)VALUES(1,{'a':1})USING TTL 5", INSERT, TTL, "t"},
    {"INSERT INTO t (k) VALUES (1) USING TIMESTAMP 5 AND TTL -5", INSERT, TS | TTL, "t"},
    {"INSERT INTO t JSON $${\"k\":1}$$ DEFAULT NULL IF NOT EXISTS USING TTL 10", INSERT, JSON | LWT | TTL, "t"},
    {"INSERT INTO t (k, u) VALUES (1, {a: null, b:?, c::x})", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (CAST(1.5 AS bigint), system.abs((bigint)-5))", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (token(1), blob_as_bigint(bigint_as_blob(5)))", INSERT, 0, "t"},
    {"INSERT INTO t (k, v) VALUES (1, [1.0, 2.0])", INSERT, WHOLE, "t"}, /* a vector, too */
    {"INSERT INTO t (k, l) VALUES (1, (list<int>)[1, 2])", INSERT, WHOLE, "t"},
    {"INSERT INTO t (k, l) VALUES (1, mask_replace(null, [1]))", INSERT, WHOLE, "t"},
    {"UPDATE t SET l = (list<int>)[1, 2] WHERE k = 1", UPDATE, WHOLE, "t"},
    {"UPDATE t SET l = mask_default((list<int>)[1]) WHERE k = 1", UPDATE, WHOLE, "t"},
    {"UPDATE t SET ttl = 5, \"timestamp\" = 6, json = 'x', key = 8 WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET l = (list<int>)[1] + l WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = :x + l WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET bi = (bigint)? * 2 - 1, bj = 1 + 2, bk = -? WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET ts = '2020-01-01' + 1d WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET s -= {1}, m += {'a':1}, u.b = 'x' WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET n = n - -1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET v='a'WHERE k=1 IF v='b'AND l[0]=1", UPDATE, LWT, "t"},
    {"UPDATE t SET v = 'a' WHERE k = 1 IF l CONTAINS 1", UPDATE, LWT, "t"},
    {"DELETE \"from\", ttl FROM t WHERE k = 1", DELETE, 0, "t"},
    {"DELETE list FROM list WHERE list = 'x'", DELETE, 0, "list"},
    {"DELETE FROM t WHERE k IN (1, 2) AND (c) > (3)", DELETE, 0, "t"},
    {"DELETE FROM t WHERE k = 1 AND (c) IN ((1),(2))", DELETE, 0, "t"},
    {"BEGIN UNLOGGED BATCH INSERT INTO t (k) VALUES (1) USING TIMESTAMP 3; DELETE FROM t USING TIMESTAMP 4 WHERE k = 2 APPLY BATCH",
     BATCH, TS, "t"},

    /* words behind numbers */
    {"UPDATE t SET v = 2 WHERE k = 1IF EXISTS", UPDATE, LWT, "t"},
    {"DELETE FROM t WHERE k = 1IF v = 1e5", DELETE, LWT, "t"},
    {"UPDATE t SET v = 2 WHERE k = 1dIF EXISTS", UPDATE, LWT, "t"},
    {"UPDATE t SET v = 2 WHERE k = 1.5IF EXISTS", UPDATE, LWT, "t"},
    {"UPDATE t SET ts = '2020-01-01' - 1dWHERE k = 1", UPDATE, 0, "t"},
    {"BEGIN BATCH UPDATE a SET v = 1 WHERE k = 1INSERT INTO b (k, l) VALUES (1, [1]) APPLY BATCH", BATCH, WHOLE | MIXED, "a b"},
    {"UPDATE t SET n = n 3 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET n = n -3 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET a = a 1, b = \"n\" 2 WHERE k = 1", UPDATE, COUNTER, "t"},

    /* functions */
    {"INSERT INTO t (k) VALUES (system.now())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (system.toDate(\"system\".now()))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (system.toDate(?), SYSTEM . abs(1))", INSERT, 0, "t"},
    {"INSERT INTO t (k) VALUES (\"System\".abs(1))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES ({a:system.abs(1)})", INSERT, FUNCTION, "t"}, /* ":system" is read as a marker */
    {"UPDATE t SET m[(timeuuid)?] = 1, m[(date):x] = 2 WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET m[(int)?] = 1 WHERE k = 1", UPDATE, ELEMENT | UNTYPED, "t"},
    {"UPDATE t SET m[(text)?] = 1, m[(a)] = 2 WHERE k = 1", UPDATE, ELEMENT | UNTYPED, "t"},
    {"DELETE m[(uuid)50554d6e-29bb-11e5-b345-feff819cdc9f] FROM t WHERE k = 1", DELETE, 0, "t"},
    {"INSERT INTO t (k) VALUES (now())", INSERT, FUNCTION, "t"},
    /* a timestamp takes the string for the present */
    {"INSERT INTO t (k, ts) VALUES (1, 'now')", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, ts) VALUES ('NoW', 2)", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, ts) VALUES (1, $$now$$)", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, ts) VALUES (1, ' now ')", INSERT, 0, "t"},
    {"INSERT INTO t (k, \"now\", v) VALUES (1, 'now''', '\"now\"')", INSERT, 0, "t"},
    {"INSERT INTO t (k, m) VALUES (1, {'a':'now'})", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, d) VALUES (1, toDate((timestamp)'now'))", INSERT, FUNCTION, "t"},
    {"UPDATE t SET ts = 'now' WHERE k = 1", UPDATE, FUNCTION, "t"},
    {"UPDATE t SET m['now'] = 1 WHERE k = 1", UPDATE, FUNCTION, "t"},
    {"UPDATE t SET s = s + {'now'} WHERE k = 1", UPDATE, FUNCTION, "t"},
    {"DELETE FROM t WHERE k = 1 AND ts < 'now'", DELETE, FUNCTION, "t"},
    {"DELETE m['now'] FROM t WHERE k = 1", DELETE, FUNCTION, "t"},
    {"INSERT INTO t JSON '{\"k\": 1, \"ts\": \"Now\"}'", INSERT, JSON | FUNCTION, "t"},
    {"INSERT INTO t JSON '{\"k\": 1, \"ts\": \"\\u006eow\"}'", INSERT, JSON | FUNCTION, "t"},
    {"INSERT INTO t JSON '{\"k\": 1, \"v\": \"now \\u00e9\"}'", INSERT, JSON, "t"},
    {"INSERT INTO t (k, a) VALUES (1, fromJson('\"now\"'))", INSERT, WHOLE | JSON | FUNCTION, "t"},
    {"INSERT INTO t (k, u) VALUES (1, {a:from_json('\"now\"')})", INSERT, WHOLE | JSON | FUNCTION, "t"},
    {"SELECT * FROM t WHERE ts < 'now' ALLOW FILTERING", SELECT, 0, "t"},
    {"BEGIN BATCH INSERT INTO t (k, ts) VALUES (1, 'now'); INSERT INTO t (k) VALUES (2) APPLY BATCH", BATCH, FUNCTION | MIXED, "t"},
    {"INSERT INTO t (k) VALUES (NOW ( ))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (\"now\"())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (uuid())", INSERT, FUNCTION, "t"},
    /* no cluster has these: they are a user's */
    {"INSERT INTO t (k) VALUES (length('a'))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (octet_length('a'))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (format_bytes(1))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (format_time(1))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (castAsText(1))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (cast_as_text(1))", INSERT, 0, "t"},
    {"INSERT INTO t (k) VALUES (currentTimestamp())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (currentDate())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (currentTime())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (currentTimeUUID())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (current_timestamp())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (current_date())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (current_time())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (current_timeuuid())", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k) VALUES (to_timestamp(now()))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, m) VALUES (1, {'a': toTimestamp(now())})", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, u) VALUES (1, {a:now()})", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, l) VALUES (1, [uuid()])", INSERT, FUNCTION | WHOLE, "t"},
    {"INSERT INTO t (k, v) VALUES (1, myfunction(2))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, v) VALUES (1, ks.toDate(?))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, v) VALUES (1, \"ToDate\"(?))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, v) VALUES (1, averyveryveryveryverylongfunctionname(2))", INSERT, FUNCTION, "t"},
    {"UPDATE t SET v = 1 WHERE k = now()", UPDATE, FUNCTION, "t"},
    {"UPDATE t SET v = 1 WHERE k = 1 AND c > minTimeuuid(now())", UPDATE, FUNCTION, "t"},
    {"UPDATE t SET v = 1 WHERE k = 1 IF v = uuid()", UPDATE, FUNCTION | LWT, "t"},
    {"UPDATE t SET m[now()] = 1 WHERE k = 1", UPDATE, FUNCTION | ELEMENT | UNTYPED, "t"},
    {"DELETE m[now()] FROM t WHERE k = 1", DELETE, FUNCTION | ELEMENT | UNTYPED, "t"},
    {"DELETE FROM t WHERE k = 1 AND c < now()", DELETE, FUNCTION, "t"},
    {"INSERT INTO now (uuid, now) VALUES (1, 2)", INSERT, 0, "now"},
    {"UPDATE uuid SET now = ? WHERE uuid = ?", UPDATE, 0, "uuid"},
    {"UPDATE t SET v = 'now()' WHERE k = 1", UPDATE, 0, "t"},
    {"INSERT INTO t (k, a, b) VALUES (1, toTimestamp(?), textAsBlob('x'))", INSERT, 0, "t"},
    {"INSERT INTO t (k, a, b) VALUES (1, blobAsInt(0x01), blob_as_bigint(?))", INSERT, 0, "t"},
    {"INSERT INTO t (k, a, b) VALUES (1, int_as_blob(1), cast(? AS text))", INSERT, 0, "t"},
    {"INSERT INTO t (k, a) VALUES (1, blobAsNothing(0x01))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, a) VALUES (1, mineAsBlob(1))", INSERT, FUNCTION, "t"},
    {"INSERT INTO t (k, a) VALUES (1, fromJson('[1]'))", INSERT, WHOLE | JSON, "t"},
    {"UPDATE t SET v = ? WHERE (a, b) = (1, 2) AND (c) IN ((1))", UPDATE, 0, "t"},
    {"UPDATE t SET v = ? WHERE k IN (1, 2) IF EXISTS", UPDATE, LWT, "t"},
    {"UPDATE t SET v = 1 + (2 * 3) WHERE k = 1", UPDATE, 0, "t"},

    /* UPDATE */
    {"UPDATE ks.t SET v = 'x' WHERE k = 1", UPDATE, 0, "ks.t"},
    {"UPDATE t USING TTL ? AND TIMESTAMP ? SET v = ? WHERE k = ?", UPDATE, TTL | TS, "t"},
    {"UPDATE t USING TIMESTAMP 5 SET a = 1, b = null, u.f = 2 WHERE k = 1;", UPDATE, TS, "t"},
    {"UPDATE t SET v = 1 WHERE k = 1 IF EXISTS", UPDATE, LWT, "t"},
    {"UPDATE t SET v = 1 WHERE k = 1 IF a = 2 AND b IN (1, 2) AND l[0] = 3 AND u.f != 4", UPDATE, LWT, "t"},
    {"UPDATE t SET exists = 1 WHERE ttl = 2", UPDATE, 0, "t"},
    {"UPDATE t SET c = c + 1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c = c - 1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c = c -1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c=c-1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c = c + -1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c += 1, d -= 2 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET \"C\" = \"C\" + 1 WHERE k = 1", UPDATE, COUNTER, "t"},
    {"UPDATE t SET c = c + ? WHERE k = 1", UPDATE, ARITH, "t"},
    {"UPDATE t SET c = c - :n WHERE k = 1", UPDATE, ARITH, "t"},
    {"UPDATE t SET c += ? WHERE k = 1", UPDATE, ARITH, "t"},
    {"UPDATE t SET c = c + (int) ? WHERE k = 1", UPDATE, ARITH | UNTYPED, "t"},
    {"UPDATE t SET c = c + f(?) WHERE k = 1", UPDATE, ARITH | UNTYPED | FUNCTION, "t"},
    {"UPDATE t SET l = l + [1] WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = [1] + l WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = ? + l, v = 2 WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = (list<int>) ? + \"l\" WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = l - [1] WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l += [1] WHERE k = 1", UPDATE, LIST, "t"},
    {"UPDATE t SET l = [1, 2] WHERE k = 1", UPDATE, WHOLE, "t"},
    {"UPDATE t SET l = [] WHERE k = 1", UPDATE, WHOLE, "t"},
    {"UPDATE t SET s = s + {'a'}, m = m + {'a': 1}, s2 = s2 - {'b'} WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET s = {'a'}, m = {} WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET m['k'] = 1 WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET m[$$k$$] = 1, m2[6ba7b810-9dad-11d1-80b4-00c04fd430c8] = 2, m3[0x01] = 3, m4[1.5] = 4 "
     "WHERE k = 1",
     UPDATE, 0, "t"},
    {"UPDATE t SET m[{1, 2}] = 1 WHERE k = 1", UPDATE, 0, "t"},
    {"UPDATE t SET m[?] = ? WHERE k = 1", UPDATE, ELEMENT, "t"},
    {"UPDATE t SET m[0] = 1 WHERE k = 1", UPDATE, ELEMENT | UNTYPED, "t"},
    {"UPDATE t SET m[:k] = 1 WHERE k = 1", UPDATE, ELEMENT | UNTYPED, "t"},
    {"UPDATE t SET m[-1] = 1 WHERE k = 1", UPDATE, ELEMENT | UNTYPED, "t"},
    {"UPDATE t SET m['k'] = [1] WHERE k = 1", UPDATE, 0, "t"},

    /* DELETE */
    {"DELETE FROM ks.t WHERE k = 1", DELETE, 0, "ks.t"},
    {"DELETE name FROM name WHERE k = 1", DELETE, 0, "name"},
    {"DELETE a, m['k'], u.f FROM t USING TIMESTAMP 5 WHERE k = 1", DELETE, TS, "t"},
    {"DELETE \"from\" FROM t WHERE k = 1", DELETE, 0, "t"},
    {"DELETE l[0] FROM t WHERE k = 1", DELETE, ELEMENT | UNTYPED, "t"},
    {"DELETE m[?] FROM t WHERE k = 1", DELETE, ELEMENT, "t"},
    {"DELETE m['from'] FROM t WHERE k = 1", DELETE, 0, "t"},
    {"DELETE FROM t WHERE k = 1 IF EXISTS", DELETE, LWT, "t"},
    {"DELETE FROM t USING TIMESTAMP ? WHERE k = ? IF v = 'x';", DELETE, LWT | TS, "t"},

    /* batches as text */
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1); INSERT INTO b (k) VALUES (2); APPLY BATCH", BATCH, 0, "a b"},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1) INSERT INTO ks.b (k) VALUES (2) APPLY BATCH;", BATCH, 0,
     "a ks.b"},
    {"BEGIN UNLOGGED BATCH UPDATE a SET v = 1 WHERE k = 1; DELETE FROM a WHERE k = 2; APPLY BATCH", BATCH, 0,
     "a"},
    {"BEGIN COUNTER BATCH UPDATE c SET n = n + ? WHERE k = 1; APPLY BATCH", BATCH, COUNTER | ARITH, "c"},
    {"BEGIN BATCH USING TIMESTAMP 5 INSERT INTO a (k) VALUES (1) APPLY BATCH", BATCH, TS, "a"},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1) IF NOT EXISTS; INSERT INTO a (k) VALUES (2); APPLY BATCH",
     BATCH, LWT | MIXED, "a"},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1) USING TTL 5 UPDATE b SET v = 1 WHERE k = 1 IF EXISTS APPLY "
     "BATCH",
     BATCH, LWT | TTL | MIXED, "a b"},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (now()); INSERT INTO b (k) VALUES (now()) APPLY BATCH", BATCH,
     FUNCTION, "a b"},
    {"BEGIN BATCH DELETE v FROM a WHERE k = 1 DELETE v FROM b WHERE k = 1 APPLY BATCH", BATCH, 0, "a b"},
    {"BEGIN BATCH APPLY BATCH", BATCH, 0, ""},
    {"BEGIN BATCH INSERT INTO t1 (k) VALUES (1); INSERT INTO t2 (k) VALUES (1); INSERT INTO t3 (k) VALUES "
     "(1);"
     "INSERT INTO t4 (k) VALUES (1); INSERT INTO t5 (k) VALUES (1); INSERT INTO t6 (k) VALUES (1);"
     "INSERT INTO t7 (k) VALUES (1); INSERT INTO t8 (k) VALUES (1); INSERT INTO t9 (k) VALUES (1); APPLY "
     "BATCH",
     BATCH, MORE, "t1 t2 t3 t4 t5 t6 t7 t8"},

    /* the rest */
    {"TRUNCATE t", TRUNCATE, 0, "t"},
    {"TRUNCATE TABLE ks.t;", TRUNCATE, 0, "ks.t"},
    {"truncate columnfamily t", TRUNCATE, 0, "t"},
    {"USE ks", USE, 0, "ks."},
    {"use \"Ks\";", USE, 0, "Ks."},
    {"CREATE KEYSPACE IF NOT EXISTS ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': "
     "1}",
     SCHEMA, 0, "ks."},
    {"ALTER KEYSPACE ks WITH durable_writes = false", SCHEMA, 0, "ks."},
    {"DROP KEYSPACE IF EXISTS ks", SCHEMA, 0, "ks."},
    {"CREATE TABLE IF NOT EXISTS ks.t (k int PRIMARY KEY, l list<int>)", SCHEMA, 0, "ks.t"},
    {"CREATE COLUMNFAMILY t (k int PRIMARY KEY)", SCHEMA, 0, "t"},
    {"ALTER TABLE t ADD v int", SCHEMA, 0, "t"},
    {"DROP TABLE IF EXISTS ks.t", SCHEMA, 0, "ks.t"},
    {"CREATE INDEX ON t (v)", SCHEMA, 0, "t"},
    {"CREATE INDEX IF NOT EXISTS i ON ks.t (keys(m))", SCHEMA, 0, "ks.t"},
    {"CREATE CUSTOM INDEX i ON t (v) USING 'StorageAttachedIndex'", SCHEMA, 0, "t"},
    {"DROP INDEX ks.i", SCHEMA, 0, "ks."},
    {"DROP INDEX IF EXISTS i", SCHEMA, 0, ""},
    {"CREATE TYPE ks.u (a int)", SCHEMA, 0, "ks."},
    {"ALTER TYPE u ADD b int", SCHEMA, 0, ""},
    {"DROP TYPE ks.u", SCHEMA, 0, "ks."},
    {"CREATE MATERIALIZED VIEW ks.v AS SELECT a, k FROM ks.t WHERE a IS NOT NULL AND k IS NOT NULL PRIMARY "
     "KEY (a, k)",
     SCHEMA, 0, "ks.v ks.t"},
    {"ALTER MATERIALIZED VIEW v WITH comment = 'as from x'", SCHEMA, 0, "v"},
    {"DROP MATERIALIZED VIEW IF EXISTS v", SCHEMA, 0, "v"},
    {"CREATE OR REPLACE FUNCTION ks.f (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return a; "
     "// ' $$",
     SCHEMA, 0, "ks."},
    {"DROP FUNCTION IF EXISTS f (int)", SCHEMA, 0, ""},
    {"CREATE AGGREGATE ks.a (int) SFUNC f STYPE int INITCOND 0", SCHEMA, 0, "ks."},
    {"DROP AGGREGATE a", SCHEMA, 0, ""},
    {"CREATE TRIGGER IF NOT EXISTS x ON ks.t USING 'x'", SCHEMA, 0, "ks.t"},
    {"DROP TRIGGER x ON t", SCHEMA, 0, "t"},
    {"CREATE ROLE r WITH PASSWORD = 'secret' AND LOGIN = true", ROLE, 0, ""},
    {"ALTER ROLE r WITH SUPERUSER = false", ROLE, 0, ""},
    {"DROP ROLE IF EXISTS r", ROLE, 0, ""},
    {"CREATE USER u WITH PASSWORD 'secret' NOSUPERUSER", ROLE, 0, ""},
    {"ALTER USER u WITH PASSWORD 'secret'", ROLE, 0, ""},
    {"DROP USER u", ROLE, 0, ""},
    {"GRANT SELECT ON ks.t TO r", ROLE, 0, ""},
    {"GRANT r TO q", ROLE, 0, ""},
    {"REVOKE ALL PERMISSIONS ON KEYSPACE ks FROM r", ROLE, 0, ""},
    {"ADD IDENTITY 'x' TO ROLE 'r'", ROLE, 0, ""},
    {"DROP IDENTITY 'x'", ROLE, 0, ""},
    {"INSERT INTO an_identifier_that_is_much_longer_than_forty_eight_c (k) VALUES (1)", INSERT, MORE, ""},
    {"INSERT INTO an_identifier_that_is_not_longer_than_forty_eigh (k) VALUES (1)", INSERT, 0,
     "an_identifier_that_is_not_longer_than_forty_eigh"},

    /* bad */
    {"", UNKNOWN, 0, ""},
    {" ;", UNKNOWN, 0, ""},
    {"-- SELECT * FROM t", UNKNOWN, 0, ""},
    {"\"SELECT\" * FROM t", UNKNOWN, 0, ""},
    {"EXPLAIN SELECT * FROM t", UNKNOWN, 0, ""},
    {"BEGIN TRANSACTION INSERT INTO t (k) VALUES (1); COMMIT TRANSACTION", UNKNOWN, 0, ""},
    {"INSERT t (k) VALUES (1)", UNKNOWN, 0, ""},
    {"INSERT INTO ? (k) VALUES (1)", UNKNOWN, 0, ""},
    {"INSERT INTO ks.? (k) VALUES (1)", UNKNOWN, 0, ""},
    {"INSERT INTO t VALUES (1)", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k VALUES (1)", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1))", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES 1", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES ('x)", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1); DROP TABLE t", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1) INSERT INTO t (k) VALUES (2)", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1) USING x 5", UNKNOWN, 0, "t"},
    {"INSERT INTO t (k) VALUES (1) USING TTL 'x'", UNKNOWN, TTL, "t"},
    {"INSERT INTO t JSON 5", UNKNOWN, JSON, "t"},
    {"UPDATE t SET v = 1", UNKNOWN, 0, "t"},
    {"UPDATE t v = 1 WHERE k = 1", UNKNOWN, 0, "t"},
    {"UPDATE t SET 5 = 1 WHERE k = 1", UNKNOWN, 0, "t"},
    {"UPDATE t SET v 1 WHERE k = 1", UNKNOWN, 0, "t"},
    {"UPDATE t SET m['x' = 1 WHERE k = 1", UNKNOWN, 0, "t"},
    {"UPDATE t SET m['x'] 1 WHERE k = 1", UNKNOWN, 0, "t"},
    {"UPDATE t SET v = 1 WHERE k = (1", UNKNOWN, 0, "t"},
    {"UPDATE t SET v = 1 WHERE k = 1]", UNKNOWN, 0, "t"},
    {"DELETE a WHERE k = 1", UNKNOWN, 0, ""},
    {"DELETE FROM t", UNKNOWN, 0, "t"},
    {"DELETE a;", UNKNOWN, 0, ""},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1);", UNKNOWN, 0, "a"},
    {"BEGIN BATCH TRUNCATE a; APPLY BATCH", UNKNOWN, 0, ""},
    {"BEGIN BATCH INSERT INTO a (k) VALUES (1); APPLY", UNKNOWN, 0, "a"},
    {"TRUNCATE a b", UNKNOWN, 0, "a"},
    {"USE 'ks'", UNKNOWN, 0, ""},
    {"CREATE SOMETHING x", UNKNOWN, 0, ""},
    {"CREATE SCHEMA ks WITH replication = {'class': 'SimpleStrategy'}", UNKNOWN, 0, ""},
    {"CREATE TABLE ?", UNKNOWN, 0, ""},
    {"ADD TABLE x", UNKNOWN, 0, ""},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static void describe_tables(const struct statement *s, char *to, size_t room)
{
	size_t n = 0;

	to[0] = 0;
	for (unsigned i = 0; i < s->table_count; i++)
		n += (size_t)snprintf(to + n, room - n, "%s%s%s%s", i ? " " : "", s->tables[i].keyspace,
				      *s->tables[i].keyspace ? "." : "", s->tables[i].table);
}

static void statements_are_understood(void **state)
{
	struct statement s;
	char tables[1024];

	(void)state;
	for (size_t i = 0; i < CASES; i++) {
		statement_read(guard_text(cases[i].text), &s);
		describe_tables(&s, tables, sizeof(tables));
		if (s.kind != cases[i].kind || s.flags != cases[i].flags || strcmp(tables, cases[i].tables))
			fail_msg("%s\n  is %s, flags %x, tables [%s], not %s, %x, [%s]", cases[i].text,
				 statement_kind_name(s.kind), s.flags, tables,
				 statement_kind_name(cases[i].kind), cases[i].flags, cases[i].tables);
	}
}

/* Whether a name is looked for in the connection's keyspace: then the mirror has to send it along. */
static void a_name_without_keyspace_is_noticed(void **state)
{
	static const struct {
		const char *text;
		bool unqualified;
	} of[] = {
	    {"INSERT INTO t (k) VALUES (1)", true},
	    {"INSERT INTO a.t (k) VALUES (1)", false},
	    {"TRUNCATE a.t", false},
	    {"BEGIN BATCH INSERT INTO a.t (k) VALUES (1); DELETE FROM b.t WHERE k = 1; APPLY BATCH", false},
	    {"BEGIN BATCH INSERT INTO a.t (k) VALUES (1); DELETE FROM t WHERE k = 1; APPLY BATCH", true},
	    {"CREATE KEYSPACE a WITH replication = {}", false},
	    {"CREATE TABLE a.t (k int PRIMARY KEY, u udt)", false},
	    {"CREATE TABLE a.t LIKE t", true},
	    {"CREATE TABLE t LIKE a.t", true},
	    {"CREATE TYPE udt (x int)", true},
	    {"CREATE TYPE a.udt (x int)", false},
	    {"CREATE INDEX ON a.t (v)", false},
	    {"CREATE INDEX i ON t (v)", true},
	    {"DROP INDEX i", true},
	    {"DROP INDEX a.i", false},
	    {"CREATE MATERIALIZED VIEW a.v AS SELECT k FROM t WHERE k IS NOT NULL PRIMARY KEY (k)", true},
	    {"CREATE MATERIALIZED VIEW a.v AS SELECT k FROM a.t WHERE k IS NOT NULL PRIMARY KEY (k)", false},
	    {"INSERT INTO a.t (k) VALUES (1", true},
	    {"no statement", true},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		statement_read(guard_text(of[i].text), &s);
		if (s.unqualified != of[i].unqualified)
			fail_msg("%s is %sunqualified", of[i].text, s.unqualified ? "" : "not ");
	}
}

/* What a coordinator may write in part before it says UNAVAILABLE. */
static void a_write_of_several_partitions_is_piecemeal(void **state)
{
	static const struct {
		const char *text;
		bool piecemeal;
	} of[] = {
	    {"INSERT INTO t (k) VALUES (1)", false},
	    {"UPDATE t SET v = 1 WHERE k = 1", false},
	    {"UPDATE t SET v = 1 WHERE k IN (1, 2)", true},
	    {"UPDATE t SET \"in\" = 1 WHERE k = 1", false},
	    {"DELETE FROM t WHERE k in ?", true},
	    {"DELETE FROM t WHERE k = 'in'", false},
	    {"BEGIN BATCH DELETE FROM t WHERE k IN (1, 2); APPLY BATCH", false}, /* the log has it whole */
	    {"BEGIN UNLOGGED BATCH DELETE FROM t WHERE k = 1; APPLY BATCH", true},
	    {"BEGIN COUNTER BATCH UPDATE t SET n = n + 1 WHERE k = 1; APPLY BATCH", true},
	    {"TRUNCATE t", false},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		statement_read(guard_text(of[i].text), &s);
		if (s.piecemeal != of[i].piecemeal || s.kind == STATEMENT_UNKNOWN)
			fail_msg("%s is %spiecemeal", of[i].text, s.piecemeal ? "" : "not ");
	}
}

/* A write that was cut off, or that carries a stray byte, is never taken for a read. */
static void damaged_writes_stay_writes(void **state)
{
	struct statement s;

	(void)state;
	for (size_t i = 0; i < CASES; i++) {
		if (cases[i].kind == SELECT || cases[i].kind == USE)
			continue;
		size_t size = strlen(cases[i].text);
		for (size_t n = 0; n < size; n++) {
			uint8_t bytes[1024];
			statement_read(guard_bytes(cases[i].text, n), &s);
			assert_true(statement_writes(&s));
			memcpy(bytes, cases[i].text, size);
			bytes[n] = 1;
			statement_read(guard_bytes(bytes, size), &s);
			assert_true(statement_writes(&s));
		}
	}
}

static void why_a_statement_is_not_mirrored(void **state)
{
	static const struct {
		const char *text;
		enum unmirrored why;
	} whys[] = {
	    {"SELECT now() FROM t", MIRRORABLE},
	    {"USE ks", MIRRORABLE},
	    {"INSERT INTO t (k) VALUES (1)", MIRRORABLE},
	    {"UPDATE t SET m['a'] = 1, s = s + {1} WHERE k = 1", MIRRORABLE},
	    {"TRUNCATE t", MIRRORABLE},
	    {"CREATE TABLE IF NOT EXISTS t (k uuid PRIMARY KEY)", MIRRORABLE},
	    {"UPDATE t SET v = now() WHERE k = 1 IF EXISTS", UNMIRRORED_LWT},
	    {"UPDATE t SET c = c + 1 WHERE k = 1", UNMIRRORED_COUNTER},
	    {"BEGIN COUNTER BATCH UPDATE t SET c = c + ? WHERE k = 1 APPLY BATCH", UNMIRRORED_COUNTER},
	    {"UPDATE t SET l = l + [1], v = now() WHERE k = 1", UNMIRRORED_FUNCTION},
	    {"UPDATE t SET l = [1], x = x + ? WHERE k = 1", UNMIRRORED_LIST},
	    {"INSERT INTO t (k, l) VALUES (1, [1])", MIRRORABLE_ONCE},
	    {"UPDATE t SET l = [], v = 1 WHERE k = 1", MIRRORABLE_ONCE},
	    {"UPDATE t SET l = [1], v = now() WHERE k = 1", UNMIRRORED_FUNCTION},
	    {"UPDATE t SET l = [1] WHERE k = 1 IF EXISTS", UNMIRRORED_LWT},
	    {"BEGIN BATCH UPDATE t SET l = [1] WHERE k = 1; UPDATE t SET l = l + [2] WHERE k = 2; APPLY BATCH", UNMIRRORED_LIST},
	    {"UPDATE t SET v = now() WHERE k = 1", UNMIRRORED_FUNCTION},
	    {"UPDATE t SET c = c + ?, v = now() WHERE k = 1", UNMIRRORED_UNCLASSIFIED},
	    {"UPDATE t SET m[1] = 1 WHERE k = 1", UNMIRRORED_UNCLASSIFIED},
	    {"nonsense", UNMIRRORED_UNCLASSIFIED},
	    {"CREATE ROLE r", UNMIRRORED_POLICY},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(whys) / sizeof(whys[0]); i++) {
		statement_read(guard_text(whys[i].text), &s);
		print_message("%s\n", whys[i].text);
		assert_int_equal(statement_unmirrored(&s), whys[i].why);
	}
}

static void bound_documents_may_hold_lists(void **state)
{
	static const struct {
		const char *text, *values;
		enum unmirrored why;
	} bound[] = {
	    {"INSERT INTO t JSON ?", "{\"k\": 1}", MIRRORABLE},
	    {"INSERT INTO t JSON ?", "{\"k\": 1, \"l\": [1]}", MIRRORABLE_ONCE},
	    {"INSERT INTO t JSON ?", "", MIRRORABLE},
	    {"INSERT INTO t JSON ? IF NOT EXISTS", "[", UNMIRRORED_LWT},
	    {"INSERT INTO t JSON ?", "{\"k\": 1, \"ts\": \"now\"}", UNMIRRORED_FUNCTION},
	    {"INSERT INTO t JSON ?", "{\"k\": 1, \"l\": [\"now\"]}", UNMIRRORED_FUNCTION},
	    {"INSERT INTO t JSON ? IF NOT EXISTS", "{\"ts\": \"now\"}", UNMIRRORED_LWT},
	    {"INSERT INTO t (k, v) VALUES (?, fromJson(?))", "\"NOW\"", UNMIRRORED_FUNCTION},
	    {"INSERT INTO t (k, v) VALUES (?, ?)", "\"now\"", MIRRORABLE},
	    {"INSERT INTO t (k, v) VALUES (?, ?)", "[", MIRRORABLE},
	    {"SELECT JSON * FROM t WHERE v = ?", "[", MIRRORABLE},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(bound) / sizeof(bound[0]); i++) {
		struct span values = guard_slot(1, bound[i].values, strlen(bound[i].values));
		statement_read(guard_text(bound[i].text), &s);
		print_message("%s %s\n", bound[i].text, bound[i].values);
		assert_int_equal(statement_unmirrored_bound(&s, values), bound[i].why);
	}
}

/* Bind descriptions as Cassandra 5.0.9 gave them for ks.t (l list<int>, s set<text>, m map<text,int>) and a
 * counter n. */
#define BIND_K "00016b 0009"
static void binds_decide(void **state)
{
	static const struct {
		const char *text;
		unsigned count;
		const char *binds;
		uint32_t flags;
	} refinements[] = {
	    {"UPDATE c SET n = n + ? WHERE k = ?", 2, "00016e 0005" BIND_K, COUNTER},
	    {"UPDATE c SET n = n + (counter) ? WHERE k = ?", 2, "00016e 0005" BIND_K, COUNTER},
	    {"UPDATE t SET l = l + ? WHERE k = ?", 2, "00016c 0020 0009" BIND_K, LIST | WHOLE},
	    {"UPDATE t SET s = s + ? WHERE k = ?", 2, "000173 0022 000d" BIND_K, 0},
	    {"UPDATE t SET m = m + ? WHERE k = ?", 2, "00016d 0021 000d 0009" BIND_K, 0},
	    {"UPDATE t SET m = m - ? WHERE k IN ?", 2, "00016d 0022 000d 0005696e286b29 0020 0009", 0},
	    {"UPDATE t SET l = l - ?, m = m - ? WHERE k IN ?", 3,
	     "00016c 0020 0009 00016d 0022 000d 0005696e286b29 0020 0009", LIST | WHOLE},
	    {"UPDATE t SET x = x + ? WHERE k = ?", 2, "000178 0009" BIND_K, ARITH},
	    {"UPDATE t SET x = x + f(?) WHERE k = ?", 2, "000178 0022 000d" BIND_K,
	     ARITH | UNTYPED | FUNCTION},
	    {"UPDATE t SET m[?] = ? WHERE k = ?", 3, "00066b6579286d29 000d 000876616c7565286d29 0009" BIND_K,
	     0},
	    {"UPDATE t SET l[?] = ? WHERE k = ?", 3,
	     "00066964 78286c29 0009 000876616c7565286c29 0009" BIND_K, LIST},
	    {"UPDATE t SET l[0] = ? WHERE k = ?", 2, "000876616c7565286c29 0009" BIND_K, ELEMENT | UNTYPED},
	    {"UPDATE t SET m[?] = ?, l[0] = ? WHERE k = ?", 4,
	     "00066b6579286d29 000d 000876616c7565286d29 0009 000876616c7565286c29 0009" BIND_K,
	     ELEMENT | UNTYPED},
	    {"UPDATE t SET m[:a] = :b WHERE k = :c", 3, "000161 000d 000162 0009 000163 0009",
	     ELEMENT | UNTYPED},
	    {"DELETE m[?], l[?] FROM t WHERE k = ?", 3, "00066b6579286d29 000d 0006696478286c29 0009" BIND_K,
	     LIST},
	    {"DELETE m[?] FROM t WHERE k = ?", 2, "00066b6579286d29 000d" BIND_K, 0},
	    {"INSERT INTO t (k, l) VALUES (?, ?)", 2, BIND_K "00016c 0020 0009", WHOLE},
	    {"INSERT INTO t (k, m) VALUES (?, ?)", 2, BIND_K "00016d 0021 000d 0009", 0},
	    {"UPDATE t SET v = ? WHERE k IN ?", 2, "000176 000d 0005696e286b29 0020 0009", 0},
	    /* Fewer bytes than columns: nothing is decided. */
	    {"UPDATE c SET n = n + ? WHERE k = ?", 2, "00016e 0005 0001", ARITH},
	    {"UPDATE c SET n = n + ? WHERE k = ?", 0, "", ARITH},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(refinements) / sizeof(refinements[0]); i++) {
		statement_read(guard_text(refinements[i].text), &s);
		struct columns binds = {.count = refinements[i].count,
					.global = true,
					.rest = guard_hex(1, refinements[i].binds)};
		statement_refine(&s, binds);
		print_message("%s\n", refinements[i].text);
		assert_int_equal(s.flags, refinements[i].flags);
	}
}

static void topology_tables(void **state)
{
	static const struct {
		const char *text;
		enum topology topology;
	} reads[] = {
	    {"SELECT * FROM system.local WHERE key='local'", TOPOLOGY_LOCAL},
	    {"select peer from SYSTEM.PEERS", TOPOLOGY_PEERS},
	    {"SELECT * FROM \"system\".peers_v2", TOPOLOGY_PEERS_V2},
	    {"SELECT * FROM system.batches", TOPOLOGY_NONE},
	    {"SELECT * FROM local", TOPOLOGY_NONE},
	    {"SELECT * FROM \"SYSTEM\".local", TOPOLOGY_NONE},
	    {"DELETE FROM system.local WHERE key='local'", TOPOLOGY_NONE},
	    {"LIST ROLES", TOPOLOGY_NONE},
	};
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
		statement_read(guard_text(reads[i].text), &s);
		print_message("%s\n", reads[i].text);
		assert_int_equal(statement_topology(&s), reads[i].topology);
	}
}

static void kinds_have_names(void **state)
{
	(void)state;
	assert_string_equal(statement_kind_name(STATEMENT_UNKNOWN), "unknown");
	assert_string_equal(statement_kind_name(STATEMENT_ROLE), "role");
	assert_string_equal(statement_kind_name((enum statement_kind)99), "unknown");
}

/* What is read grows with the text and not faster: brackets, quotes and comments without end. */
static void hostile_texts_take_linear_time(void **state)
{
	static const char *const pieces[] = {"(",
					     "[",
					     "{",
					     "BEGIN BATCH ",
					     "/* ",
					     "'",
					     "\"",
					     "$$",
					     "f(",
					     "a.",
					     "DELETE m[",
					     "UPDATE t SET a=",
					     "INSERT INTO t JSON '' IF "};
	static char text[400001];
	struct statement s;

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t n = strlen(pieces[i]), size = 0;
		while (size + n < sizeof(text)) {
			memcpy(text + size, pieces[i], n);
			size += n;
		}
		clock_t from = clock();
		statement_read(guard_bytes(text, size), &s);
		assert_true(statement_writes(&s));
		/* It takes milliseconds, and minutes if it were quadratic. */
		assert_true(clock() - from < 5 * CLOCKS_PER_SEC);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(statements_are_understood),
	    cmocka_unit_test(a_name_without_keyspace_is_noticed),
	    cmocka_unit_test(a_write_of_several_partitions_is_piecemeal),
	    cmocka_unit_test(damaged_writes_stay_writes),
	    cmocka_unit_test(why_a_statement_is_not_mirrored),
	    cmocka_unit_test(bound_documents_may_hold_lists),
	    cmocka_unit_test(binds_decide),
	    cmocka_unit_test(topology_tables),
	    cmocka_unit_test(kinds_have_names),
	    cmocka_unit_test(hostile_texts_take_linear_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
