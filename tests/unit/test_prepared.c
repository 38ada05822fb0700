// SPDX-License-Identifier: Apache-2.0
/*
 * The node-wide map of prepared statements and the workers' views of it. Threads learn and look up at the same time here:
 * with SAN=thread this is also the proof that it may be done so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay/batch_ids.h"
#include "relay/prepared.h"
#include "unit/directory.h"

/* One bind variable `name` of type int, as it stands in an answer's columns (global table spec). */
struct answer {
	uint8_t id[PREPARED_ID_MAX + 1], bind[64], result[64];
	struct prepared_result r;
};

static struct columns one_column(uint8_t *room, const char *name, uint16_t type)
{
	size_t n = strlen(name);

	room[0] = 0;
	room[1] = (uint8_t)n;
	memcpy(room + 2, name, n);
	room[2 + n] = (uint8_t)(type >> 8);
	room[3 + n] = (uint8_t)type;
	return (struct columns){.count = 1, .global = true, .keyspace = span_text("ks"), .table = span_text("t"), .rest = span_of(room, 4 + n)};
}

static struct prepared_result *answer(struct answer *a, const char *id, const char *bind, uint16_t type, const char *metadata)
{
	memset(a, 0, sizeof(*a));
	memcpy(a->id, id, strlen(id));
	a->r.id = span_of(a->id, strlen(id));
	if (metadata)
		a->r.result_metadata_id = span_text(metadata);
	a->r.binds = one_column(a->bind, bind, type);
	a->r.result = one_column(a->result, "v", type);
	return &a->r;
}

static const char insert[] = "INSERT INTO ks.t (k) VALUES (?)";

static void both_sides_with_the_same_id(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared_slot *s;
	struct answer a;

	(void)unused;
	assert_null(prepared_find(c, span_text("id-1")));
	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "id-1", "k", TYPE_INT, NULL)), 0);
	s = prepared_find(c, span_text("id-1"));
	assert_non_null(s);
	assert_non_null(prepared_on(s->prepared, ORIGIN));
	assert_null(prepared_on(s->prepared, TARGET));
	assert_int_equal(s->prepared->statement.kind, STATEMENT_INSERT);
	assert_string_equal(s->prepared->keyspace, "ks");
	assert_int_equal(prepared_map_learn(m, TARGET, 5, span_text(insert), "ks", answer(&a, "id-1", "k", TYPE_INT, "meta")), 0);
	assert_ptr_equal(prepared_find(c, span_text("id-1")), s);
	assert_non_null(prepared_on(s->prepared, TARGET));
	assert_int_equal(prepared_on(s->prepared, TARGET)->result_id_size, 4);
	assert_false(atomic_load(&s->prepared->bind_differs));
	assert_false(atomic_load(&s->prepared->result_differs));
	assert_int_equal(prepared_map_count(m), 1);
	assert_true(span_equal(prepared_slot_id(s), span_text("id-1")));
	prepared_cache_free(c);
	prepared_map_free(m);
}

static void each_side_its_own_id(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared_slot *by_origin, *by_target;
	struct answer a;

	(void)unused;
	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "origin id", "k", TYPE_INT, NULL)), 0);
	assert_int_equal(prepared_map_learn(m, TARGET, 4, span_text(insert), "ks", answer(&a, "target id", "k", TYPE_BIGINT, NULL)), 0);
	assert_int_equal(prepared_map_count(m), 1);
	by_origin = prepared_find(c, span_text("origin id"));
	by_target = prepared_find(c, span_text("target id"));
	assert_non_null(by_origin);
	assert_non_null(by_target);
	assert_ptr_equal(by_origin->prepared, by_target->prepared);
	/* An error about it must name the id that the client sent. */
	assert_true(span_equal(prepared_slot_id(by_origin), span_text("origin id")));
	assert_true(span_equal(prepared_slot_id(by_target), span_text("target id")));
	assert_memory_equal(prepared_on(by_origin->prepared, TARGET)->id, "target id", 9);
	assert_true(atomic_load(&by_origin->prepared->bind_differs));
	/* The table was altered: they agree again. */
	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "origin id", "k", TYPE_BIGINT, NULL)), 0);
	assert_false(atomic_load(&by_origin->prepared->bind_differs));
	prepared_cache_free(c);
	prepared_map_free(m);
}

/* What a v3 or v4 client is told of a type that its version has no number for. */
static void clients_of_different_versions_prepare_the_same(void **unused)
{
#define CUSTOM(length, class) "\0\0\0" length "org.apache.cassandra.db.marshal." class
	static const struct {
		const char *name;
		struct span older, newer;
		bool same;
	} cases[] = {
#define CASE(name, older, newer, same) {name, {(const uint8_t *)older, sizeof(older) - 1}, {(const uint8_t *)newer, sizeof(newer) - 1}, same}
		CASE("date", CUSTOM("\x2e", "SimpleDateType"), "\0\x11", true),
		CASE("time", CUSTOM("\x28", "TimeType"), "\0\x12", true),
		CASE("smallint", CUSTOM("\x29", "ShortType"), "\0\x13", true),
		CASE("tinyint", CUSTOM("\x28", "ByteType"), "\0\x14", true),
		CASE("duration", CUSTOM("\x2c", "DurationType"), "\0\x15", true),
		CASE("map<tinyint, list<date>>", "\0\x21" CUSTOM("\x28", "ByteType") "\0\x20" CUSTOM("\x2e", "SimpleDateType"),
		     "\0\x21\0\x14\0\x20\0\x11", true),
		CASE("u(a duration, b int)", "\0\x30\0\2ks\0\1u\0\2\0\1a" CUSTOM("\x2c", "DurationType") "\0\1b\0\x09",
		     "\0\x30\0\2ks\0\1u\0\2\0\1a\0\x15\0\1b\0\x09", true),
		CASE("tuple<int, time, int>", "\0\x31\0\3\0\x09" CUSTOM("\x28", "TimeType") "\0\x09", "\0\x31\0\3\0\x09\0\x12\0\x09", true),
		CASE("time is no date", CUSTOM("\x28", "TimeType"), "\0\x11", false),
		CASE("another class", CUSTOM("\x2c", "DateishType_"), "\0\x15", false),
		CASE("list of another", "\0\x20" CUSTOM("\x29", "ShortType"), "\0\x20\0\x09", false),
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct prepared_map *m = prepared_map_new();
		struct prepared_cache *c = prepared_cache_new(m);
		uint8_t one[128] = "\0\1v", two[128] = "\0\1v";
		struct answer a;

		memcpy(one + 3, cases[i].older.data, cases[i].older.size);
		memcpy(two + 3, cases[i].newer.data, cases[i].newer.size);
		answer(&a, "id", "v", TYPE_INT, NULL)->binds.rest = span_of(one, 3 + cases[i].older.size);
		a.r.result.rest = a.r.binds.rest;
		assert_int_equal(prepared_map_learn(m, ORIGIN, 3, span_text(insert), "ks", &a.r), 0);
		a.r.binds.rest = a.r.result.rest = span_of(two, 3 + cases[i].newer.size);
		assert_int_equal(prepared_map_learn(m, TARGET, 5, span_text(insert), "ks", &a.r), 0);
		struct prepared *p = prepared_find(c, span_text("id"))->prepared;
		if (atomic_load(&p->bind_differs) == cases[i].same || atomic_load(&p->result_differs) == cases[i].same)
			fail_msg("%s", cases[i].name);
		prepared_cache_free(c);
		prepared_map_free(m);
	}
}

static void the_same_text_in_two_keyspaces_is_two_statements(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct answer a;

	(void)unused;
	prepared_map_learn(m, ORIGIN, 4, span_text("SELECT v FROM t"), "one", answer(&a, "id-one", "k", TYPE_INT, NULL));
	prepared_map_learn(m, ORIGIN, 4, span_text("SELECT v FROM t"), "two", answer(&a, "id-two", "k", TYPE_INT, NULL));
	assert_int_equal(prepared_map_count(m), 2);
	assert_string_equal(prepared_find(c, span_text("id-one"))->prepared->keyspace, "one");
	assert_string_equal(prepared_find(c, span_text("id-two"))->prepared->keyspace, "two");
	prepared_cache_free(c);
	prepared_map_free(m);
}

static void ids_that_are_too_long_are_refused(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	char id[PREPARED_ID_MAX + 2];
	struct answer a;

	(void)unused;
	memset(id, 'i', sizeof(id));
	id[PREPARED_ID_MAX + 1] = 0;
	assert_true(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, id, "k", TYPE_INT, NULL)) < 0);
	assert_true(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "", "k", TYPE_INT, NULL)) < 0);
	id[PREPARED_ID_MAX] = 0;
	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, id, "k", TYPE_INT, NULL)), 0);
	assert_non_null(prepared_find(c, span_text(id)));
	assert_null(prepared_find(c, span_of("", 0)));
	prepared_cache_free(c);
	prepared_map_free(m);
}

static void fill(struct prepared_map *m, unsigned from, unsigned to)
{
	struct answer a;
	char id[32], text[80];

	for (unsigned i = from; i < to; i++) {
		snprintf(id, sizeof(id), "id-%u", i);
		/* Lengths differ, so that texts are told apart without being compared. */
		snprintf(text, sizeof(text), "SELECT v FROM ks.t WHERE k = %u", i);
		assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_text(text), "ks", answer(&a, id, "k", TYPE_INT, NULL)), 0);
	}
}

/* When the map is emptied, what is in use lives on, and everybody sees the new generation. */
static void a_new_generation_leaves_what_is_in_use(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared_slot *used, *again;
	struct prepared *held;
	struct answer a;
	char *large = malloc(PREPARED_TEXT_MAX + 1);

	(void)unused;
	fill(m, 0, 2000);
	assert_int_equal(prepared_map_count(m), 2000);
	used = prepared_use(prepared_find(c, span_text("id-7")));
	held = prepared_get(used->prepared);
	assert_non_null(prepared_find(c, span_text("id-8")));
	/* The texts' budget is spent: all go. */
	memset(large, ' ', PREPARED_TEXT_MAX);
	memcpy(large, insert, strlen(insert));
	large[PREPARED_TEXT_MAX] = 0;
	assert_int_equal(prepared_map_learn(m, ORIGIN, 4, span_of(large, PREPARED_TEXT_MAX), "ks", answer(&a, "large", "k", TYPE_INT, NULL)), 0);
	assert_int_equal(prepared_map_count(m), 1);
	assert_null(prepared_find(c, span_text("id-8")));
	assert_null(prepared_find(c, span_text("id-7")));
	assert_string_equal(used->prepared->text, "SELECT v FROM ks.t WHERE k = 7");
	/* A record that was written before is prepared on the other side only now: its own entry must hear of it. */
	assert_int_equal(prepared_map_learn_for(m, TARGET, 4, held, answer(&a, "id-7", "k", TYPE_INT, NULL)), 0);
	assert_non_null(prepared_on(held, TARGET));
	again = prepared_find(c, span_text("id-7"));
	assert_non_null(again);
	assert_ptr_not_equal(again, used);
	assert_non_null(prepared_on(again->prepared, TARGET));
	prepared_release(used);
	prepared_put(held);
	prepared_cache_free(c);
	prepared_map_free(m);
	free(large);
}

/* Drivers give a statement up that gets another id when it is prepared again: clients are told one for ever. */
static void clients_are_told_one_id(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared *p;
	struct answer a;
	static const char born_later[] = "INSERT INTO ks.t (k) VALUES (2)";

	(void)unused;
	prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "origin id", "k", TYPE_INT, NULL));
	p = prepared_find(c, span_text("origin id"))->prepared;
	assert_true(span_equal(prepared_told(p, ORIGIN), span_text("origin id")));
	prepared_map_learn(m, TARGET, 4, span_text(insert), "ks", answer(&a, "target id", "k", TYPE_INT, NULL));
	assert_true(span_equal(prepared_told(p, TARGET), span_text("origin id")));
	/* The mirror prepared it on the other side before any client did: that counts for nothing. */
	prepared_map_learn(m, ORIGIN, 4, span_text(born_later), "ks", answer(&a, "late origin", "k", TYPE_INT, NULL));
	prepared_map_learn(m, TARGET, 4, span_text(born_later), "ks", answer(&a, "late target", "k", TYPE_INT, NULL));
	p = prepared_find(c, span_text("late origin"))->prepared;
	assert_true(span_equal(prepared_told(p, TARGET), span_text("late target")));
	assert_true(span_equal(prepared_told(p, ORIGIN), span_text("late target")));
	prepared_cache_free(c);
	prepared_map_free(m);
}

/* Where the partition key is bound: v4 and later say it, v3 takes nothing back, and a restart forgets it until somebody prepares again. */
static void where_the_key_is_bound(void **unused)
{
	static const uint8_t second_first[] = {0, 1, 0, 0}, first[] = {0, 0}, many[2 * (TOKEN_PARTS_MAX + 1)];
	struct prepared_map *m = prepared_map_new(), *later = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m), *l = prepared_cache_new(later);
	const struct prepared_remote *r;
	uint8_t saved[1024];
	struct prepared *p;
	struct answer a;
	size_t size;

	(void)unused;
	answer(&a, "id", "k", TYPE_INT, NULL);
	prepared_map_learn(m, TARGET, 3, span_text(insert), "ks", &a.r);
	p = prepared_find(c, span_text("id"))->prepared;
	assert_int_equal(prepared_on(p, TARGET)->key_count, 0);
	a.r.pk_count = 2;
	a.r.pk_indexes = span_of(second_first, sizeof(second_first));
	prepared_map_learn(m, TARGET, 4, span_text(insert), "ks", &a.r);
	r = prepared_on(p, TARGET);
	assert_int_equal(r->key_count, 2);
	assert_int_equal(r->key[0], 1);
	assert_int_equal(r->key[1], 0);
	a.r.pk_count = 0;
	prepared_map_learn(m, TARGET, 3, span_text(insert), "ks", &a.r);
	assert_ptr_equal(prepared_on(p, TARGET), r);
	a.r.result_metadata_id = span_text("v5");
	prepared_map_learn(m, TARGET, 5, span_text(insert), "ks", &a.r);
	assert_int_equal(prepared_on(p, TARGET)->key_count, 2);
	/* The table was made anew, with another key. */
	a.r.pk_count = 1;
	a.r.pk_indexes = span_of(first, sizeof(first));
	prepared_map_learn(m, TARGET, 5, span_text(insert), "ks", &a.r);
	assert_int_equal(prepared_on(p, TARGET)->key_count, 1);
	size = prepared_record(p, saved, sizeof(saved));
	assert_true(size <= sizeof(saved));
	prepared_map_restore(later, span_of(saved, size));
	p = prepared_find(l, span_text("id"))->prepared;
	assert_int_equal(prepared_on(p, TARGET)->key_count, 0);
	prepared_map_learn(later, TARGET, 5, span_text(insert), "ks", &a.r);
	assert_int_equal(prepared_on(p, TARGET)->key_count, 1);
	/* More columns than are kept: as if nothing had been said. */
	a.r.pk_count = TOKEN_PARTS_MAX + 1;
	a.r.pk_indexes = span_of(many, sizeof(many));
	a.r.id = span_text("wide");
	prepared_map_learn(later, TARGET, 5, span_text("INSERT INTO ks.wide (k) VALUES (?)"), "ks", &a.r);
	assert_int_equal(prepared_on(prepared_find(l, span_text("wide"))->prepared, TARGET)->key_count, 0);
	prepared_cache_free(c);
	prepared_cache_free(l);
	prepared_map_free(m);
	prepared_map_free(later);
}

static const char now[] = "INSERT INTO t (k, v) VALUES (now(), ?)", changed[] = "INSERT INTO t (k, v) VALUES ((timeuuid):cqlferry_0, ?)";

/* What is executed in place of a statement follows from its text, also after a restart; whose id was told is kept. */
static void a_restart_forgets_nothing(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared *p;
	struct error error;
	struct answer a;
	bool damaged;

	assert_int_equal(directory_setup(unused), 0);
	prepared_map_learn(m, ORIGIN, 4, span_text(now), "ks", answer(&a, "now", "v", TYPE_INT, NULL));
	p = prepared_find(c, span_text("now"))->prepared;
	assert_true(p->calls);
	assert_int_equal(p->bind_count, 1);
	assert_int_equal(p->binds[0].position, 0);
	assert_int_equal(p->binds[0].kind, INSTANT_TIMEUUID);
	assert_null(prepared_changed(m, p));
	prepared_map_learn(m, ORIGIN, 4, span_text(changed), "other", answer(&a, "elsewhere", "v", TYPE_INT, NULL));
	assert_null(prepared_changed(m, p));
	prepared_map_learn(m, ORIGIN, 4, span_text(changed), "ks", answer(&a, "changed", "v", TYPE_INT, NULL));
	assert_non_null(prepared_changed(m, p));
	assert_string_equal(prepared_changed(m, p)->text, changed);
	assert_false(prepared_changed(m, p)->calls);
	prepared_told(p, ORIGIN);
	prepared_map_learn(m, TARGET, 4, span_text(insert), "ks", answer(&a, "target", "k", TYPE_INT, NULL));
	prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "origin", "k", TYPE_INT, NULL));
	prepared_told(prepared_find(c, span_text("target"))->prepared, TARGET);
	assert_int_equal(prepared_map_save(m, directory, &error), 0);
	prepared_cache_free(c);
	prepared_map_free(m);

	m = prepared_map_new();
	c = prepared_cache_new(m);
	assert_int_equal(prepared_map_load(m, directory, &damaged), 4);
	assert_false(damaged);
	assert_int_equal(prepared_map_load(m, directory, &damaged), 4); /* twice changes nothing */
	assert_int_equal(prepared_map_count(m), 4);
	p = prepared_find(c, span_text("now"))->prepared;
	assert_string_equal(prepared_changed(m, p)->text, changed);
	assert_true(span_equal(prepared_told(p, TARGET), span_text("now")));
	p = prepared_find(c, span_text("target"))->prepared;
	assert_true(span_equal(prepared_told(p, ORIGIN), span_text("target")));
	assert_int_equal(p->statement.flags, 0);
	prepared_cache_free(c);
	prepared_map_free(m);
	assert_int_equal(directory_teardown(unused), 0);
}

/* Two nodes of a cluster that do not agree on a table take turns: what they say is not kept again each time. */
static void answers_that_alternate_are_kept_once(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	unsigned kept = 0;
	struct answer a;

	(void)unused;
	for (int i = 0; i < 100; i++)
		prepared_map_learn(m, i & 1, 4, span_text(insert), "ks", answer(&a, "id", "k", i & 2 ? TYPE_INT : TYPE_BIGINT, NULL));
	struct prepared *p = prepared_find(c, span_text("id"))->prepared;
	for (struct prepared_remote *r = p->answers; r; r = r->older)
		kept++;
	assert_int_equal(kept, 4);
	assert_false(atomic_load(&p->bind_differs));
	prepared_cache_free(c);
	prepared_map_free(m);
}

/* One id for two texts (a cluster that qualifies, or lies): the last one counts, and there is one key. */
/* DROP TABLE, CREATE TABLE: the id follows from keyspace and text, and what was a set is a list or a counter. */
static void a_table_made_anew_makes_another_statement(void **unused)
{
	static const char add[] = "UPDATE t SET x = x + ? WHERE k = 1";
	static const struct {
		const char *name;
		uint16_t type; /* of x, over and over */
		uint32_t flags;
	} turns[] = {
		{"an int, which nobody understands", TYPE_INT, STATEMENT_ARITHMETIC},
		{"a counter", TYPE_COUNTER, STATEMENT_COUNTER},
		{"an int again", TYPE_INT, STATEMENT_ARITHMETIC},
		{"a bigint, which changes nothing", TYPE_BIGINT, STATEMENT_ARITHMETIC},
		{"a counter again", TYPE_COUNTER, STATEMENT_COUNTER},
	};
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c = prepared_cache_new(m);
	struct prepared_slot *slot, *first;
	struct answer a;
	struct error error;
	bool damaged;

	(void)unused;
	prepared_map_learn(m, ORIGIN, 4, span_text(insert), "ks", answer(&a, "other", "k", TYPE_INT, NULL));
	prepared_map_learn(m, ORIGIN, 4, span_text(add), "ks", answer(&a, "origin", "x", TYPE_INT, NULL));
	prepared_map_learn(m, TARGET, 4, span_text(add), "ks", answer(&a, "target", "x", TYPE_INT, NULL));
	first = prepared_use(prepared_find(c, span_text("origin")));
	assert_true(span_equal(prepared_told(first->prepared, ORIGIN), span_text("origin")));
	for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
		print_message("%s\n", turns[i].name);
		for (int side = 0; side < SIDES; side++) {
			assert_int_equal(prepared_map_learn(m, (enum side)side, 4, span_text(add), "ks",
							    answer(&a, side == ORIGIN ? "origin" : "target", "x", turns[i].type, NULL)), 0);
			slot = prepared_find(c, span_text("origin"));
			assert_int_equal(slot->prepared->statement.flags, turns[i].flags);
			assert_ptr_equal(prepared_find(c, span_text("target"))->prepared, slot->prepared);
			assert_non_null(prepared_on(slot->prepared, TARGET)); /* at first what it said before */
			assert_true(span_equal(prepared_told(slot->prepared, TARGET), span_text("origin")));
		}
		assert_false(atomic_load(&slot->prepared->bind_differs));
		assert_int_equal(prepared_map_count(m), 2);
	}
	/* Who holds it keeps it as it was. */
	assert_int_equal(first->prepared->statement.flags, STATEMENT_ARITHMETIC);
	prepared_release(first);
	assert_int_equal(prepared_find(c, span_text("other"))->prepared->statement.kind, STATEMENT_INSERT);

	/* The table is made anew while nobody looks. */
	assert_int_equal(directory_setup(unused), 0);
	assert_int_equal(prepared_map_save(m, directory, &error), 0);
	prepared_cache_free(c);
	prepared_map_free(m);
	m = prepared_map_new();
	c = prepared_cache_new(m);
	assert_int_equal(prepared_map_load(m, directory, &damaged), 2);
	assert_int_equal(prepared_find(c, span_text("origin"))->prepared->statement.flags, STATEMENT_COUNTER);
	prepared_map_learn(m, ORIGIN, 4, span_text(add), "ks", answer(&a, "origin", "x", TYPE_INT, NULL));
	assert_int_equal(prepared_find(c, span_text("origin"))->prepared->statement.flags, STATEMENT_ARITHMETIC);
	assert_int_equal(directory_teardown(unused), 0);
	prepared_cache_free(c);
	prepared_map_free(m);
}

static void an_id_leads_to_what_was_prepared_last(void **unused)
{
	struct prepared_map *m = prepared_map_new();
	struct prepared_cache *c;
	struct answer a;

	(void)unused;
	for (int i = 0; i < 5; i++) {
		prepared_map_learn(m, ORIGIN, 4, span_text("SELECT a FROM ks.t"), "ks", answer(&a, "id", "k", TYPE_INT, NULL));
		prepared_map_learn(m, ORIGIN, 4, span_text("SELECT b FROM ks.t"), "ks", answer(&a, "id", "k", TYPE_INT, NULL));
		prepared_map_learn(m, ORIGIN, 4, span_text("SELECT b FROM ks.t"), "other", answer(&a, "id", "k", TYPE_INT, NULL));
	}
	assert_int_equal(prepared_map_count(m), 2);
	c = prepared_cache_new(m);
	assert_string_equal(prepared_find(c, span_text("id"))->prepared->text, "SELECT b FROM ks.t");
	prepared_cache_free(c);
	prepared_map_free(m);
}

/* ---- batches whose ids were changed */

static void ids_of_batches(void **unused)
{
	struct batch_ids *ids = NULL;
	char sent[16], long_id[PREPARED_ID_MAX + 1] = {0};

	(void)unused;
	assert_int_equal(batch_ids_asked(ids, span_text("x")).size, 0);
	batch_ids_free(ids);
	for (unsigned i = 0; i < BATCH_IDS_MAX + 10; i++) {
		snprintf(sent, sizeof(sent), "sent %u", i);
		batch_ids_add(&ids, span_text(sent + 5), span_text(sent));
		batch_ids_add(&ids, span_text("again"), span_text(sent));
	}
	assert_true(span_equal(batch_ids_asked(ids, span_text("sent 0")), span_text("0")));
	assert_true(span_equal(batch_ids_asked(ids, span_text("sent 255")), span_text("255")));
	assert_int_equal(batch_ids_asked(ids, span_text("sent 256")).size, 0);
	batch_ids_free(ids);
	ids = NULL;
	batch_ids_add(&ids, span_of(long_id, sizeof(long_id)), span_text("x"));
	assert_null(ids);
}

/* ---- threads */

#define THREADS 4
#define STATEMENTS 600

static struct prepared_map *shared;

static void *learn_and_look(void *argument)
{
	unsigned self = (unsigned)(uintptr_t)argument, found = 0;
	struct prepared_cache *c = prepared_cache_new(shared);
	struct answer a;
	char id[32], text[80];

	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < STATEMENTS; i++) {
			unsigned n = (i * 7 + self * 151) % STATEMENTS;
			enum side side = (round + self) & 1 ? TARGET : ORIGIN;
			struct prepared_slot *s;

			snprintf(id, sizeof(id), "id-%u", n);
			snprintf(text, sizeof(text), "SELECT v FROM ks.t WHERE k = %u", n);
			/* Types change now and then, as after ALTER TABLE: answers are replaced under readers. */
			if ((i + self + round) % 3 == 0)
				prepared_map_learn(shared, side, 4, span_text(text), "ks",
						   answer(&a, id, "k", round % 4 ? TYPE_INT : TYPE_BIGINT, NULL));
			s = prepared_find(c, span_text(id));
			if (s) {
				prepared_use(s);
				for (int k = 0; k < SIDES; k++) {
					const struct prepared_remote *r = prepared_on(s->prepared, k);

					if (r && (r->id_size != strlen(id) || memcmp(r->id, id, r->id_size) != 0))
						abort();
				}
				if (strcmp(s->prepared->text, text) != 0)
					abort();
				found += atomic_load_explicit(&s->prepared->result_differs, memory_order_relaxed) ? 1 : 2;
				prepared_release(s);
			}
		}
	}
	prepared_cache_free(c);
	return (void *)(uintptr_t)found;
}

static void threads_share_the_map(void **unused)
{
	pthread_t thread[THREADS];

	(void)unused;
	shared = prepared_map_new();
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, learn_and_look, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		void *found;

		pthread_join(thread[i], &found);
		assert_true((uintptr_t)found > STATEMENTS);
	}
	assert_int_equal(prepared_map_count(shared), STATEMENTS);
	prepared_map_free(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_sides_with_the_same_id),
		cmocka_unit_test(each_side_its_own_id),
		cmocka_unit_test(clients_of_different_versions_prepare_the_same),
		cmocka_unit_test(the_same_text_in_two_keyspaces_is_two_statements),
		cmocka_unit_test(ids_that_are_too_long_are_refused),
		cmocka_unit_test(a_new_generation_leaves_what_is_in_use),
		cmocka_unit_test(clients_are_told_one_id),
		cmocka_unit_test(where_the_key_is_bound),
		cmocka_unit_test(a_restart_forgets_nothing),
		cmocka_unit_test(answers_that_alternate_are_kept_once),
		cmocka_unit_test(a_table_made_anew_makes_another_statement),
		cmocka_unit_test(an_id_leads_to_what_was_prepared_last),
		cmocka_unit_test(ids_of_batches),
		cmocka_unit_test(threads_share_the_map),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
