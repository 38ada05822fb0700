// SPDX-License-Identifier: Apache-2.0
/*
 * What is written so that one row becomes the other: rows as text, statements as text.
 *
 * The table: k (partition), c (clustering), st (static), v and w (plain), se (set), m (map), l (list), u
 * (user type with fields f and g). A row is "v=1@100 w=2@50+900 se=a@1,b@2": value, timestamp, and what
 * remains of its life.
 * "@?" has no timestamp that could be read; a row that is only a marker is ""; none at all is NULL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "mirror/rowsync_priv.h"

#define NOW_S 1000000
#define HORIZON 5000
#define YOUNG 8000

static struct schema_column columns[] = {
    {.name = "k", .quoted = "\"k\"", .kind = COLUMN_PARTITION},
    {.name = "c", .quoted = "\"c\"", .kind = COLUMN_CLUSTERING},
    {.name = "st", .quoted = "\"st\"", .kind = COLUMN_STATIC},
    {.name = "l", .quoted = "\"l\"", .kind = COLUMN_REGULAR, .shape = SHAPE_LIST},
    {.name = "m", .quoted = "\"m\"", .kind = COLUMN_REGULAR, .shape = SHAPE_MAP},
    {.name = "se", .quoted = "\"se\"", .kind = COLUMN_REGULAR, .shape = SHAPE_SET},
    {.name = "u",
     .quoted = "\"u\"",
     .kind = COLUMN_REGULAR,
     .shape = SHAPE_UDT,
     .fields = (const char *[]){"\"f\"", "\"g\""},
     .field_count = 2},
    {.name = "v", .quoted = "\"v\"", .kind = COLUMN_REGULAR},
    {.name = "w", .quoted = "\"w\"", .kind = COLUMN_REGULAR},
};
static const struct schema_table table = {
    .count = 9, .partition = 1, .clustering = 1, .statics = 1, .columns = columns, .quoted = "\"ks\".\"t\""};

enum expect { VERIFY = 1, USED_HORIZON = 2, IS_YOUNG = 4, STATICS = 8, MARKER = 16 };

static const struct {
	const char *from, *to;
	int flags;
	const char *expected;
} cases[] = {
    /* nothing to do */
    {"v=1@100", "v=1@100", 0, ""},
    {"", "", 0, ""},
    {"v=1@100+50", "v=1@100+51", 0, ""},
    {"v=1@100 se=a@1,b@2 l=x@3,y@4", "v=1@100 se=a@1,b@2 l=x@3,y@4", 0, ""},
    {"v=1@100", "v=1@100", MARKER, ""},
    /* under a newer timestamp, which nothing lowers */
    {"v=1@100", "v=1@200", 0, ""},
    {"se=a@?", "se=a@5", 0, ""},

    /* plain cells */
    {"v=1@100", "v=2@50", 0, "UPDATE USING 100 SET v=1"},
    {"v=1@100", "", 0, "UPDATE USING 100 SET v=1"},
    {"v=1@100 w=2@100", "", 0, "UPDATE USING 100 SET v=1 w=2"},
    {"v=1@100 w=2@90", "", 0, "UPDATE USING 90 SET w=2; UPDATE USING 100 SET v=1"},
    {"v=1@100+70 w=2@100", "", 0, "UPDATE USING 100 SET w=2; UPDATE USING 100+70 SET v=1"},
    {"", "v=2@50", 0, "DELETE v USING 50"},
    {"w=1@3", "v=2@50 w=1@3", 0, "DELETE v USING 50"},
    {"", "v=2@50 w=3@50", 0, "DELETE v w USING 50"},
    {"", "v=2@9000", IS_YOUNG, "DELETE v USING 9000"},
    /* the target has something newer */
    {"v=1@100", "v=2@200", VERIFY, "UPDATE USING 201 SET v=1"},
    {"v=1@100", "v=2@9000", VERIFY | IS_YOUNG, "UPDATE USING 9001 SET v=1"},
    /* one timestamp: Cassandra's rule for the tie */
    {"v=2@100", "v=1@100", 0, "UPDATE USING 100 SET v=2"},
    {"v=1@100", "v=2@100", VERIFY, "UPDATE USING 101 SET v=1"},
    {"v=1@100+50", "v=1@100", 0, "UPDATE USING 100+50 SET v=1"},
    {"v=1@100", "v=1@100+50", VERIFY, "UPDATE USING 101 SET v=1"},
    {"v=1@100+90", "v=1@100+50", 0, "UPDATE USING 100+90 SET v=1"},
    {"v=1@100+50", "v=1@100+90", VERIFY, "UPDATE USING 101+50 SET v=1"},

    /* rows: the marker is as old as the oldest cell that is written */
    {"v=1@100 w=2@90", NULL, 0, "INSERT w=2 USING 90; UPDATE USING 100 SET v=1"},
    {"v=1@100+70", NULL, 0, "INSERT v=1 USING 100+70"},
    {"v=1@100 w=2@100 se=a@100", NULL, 0, "INSERT v=1 w=2 USING 100; UPDATE USING 100 SET se+{a}"},
    {"v=1@100+70 w=2@100", NULL, 0, "INSERT w=2 USING 100; UPDATE USING 100+70 SET v=1"},
    {"", NULL, VERIFY | USED_HORIZON, "INSERT USING 5000 default"},
    {"v=1@100", "v=2@50", MARKER, "INSERT v=1 USING 100"},
    {"", "v=2@50", MARKER, "DELETE v USING 50"},
    {NULL, "v=2@50 w=1@70 se=a@60", VERIFY, "DELETE row USING 70"},
    {NULL, "", VERIFY | USED_HORIZON, "DELETE row USING 5000"},
    {NULL, "v=2@50 se=a@?", VERIFY | USED_HORIZON, "DELETE row USING 5000"},
    {NULL, "v=2@9000", VERIFY | IS_YOUNG, "DELETE row USING 9000"},

    /* statics */
    {"st=1@100", NULL, STATICS, "UPDATE USING 100 SET st=1"},
    {NULL, "st=1@100", STATICS, "DELETE st USING 100"},

    /* sets, maps, user types */
    {"se=a@1,b@2,c@2", "se=a@1", 0, "UPDATE USING 2 SET se+{b,c}"},
    {"se=a@1", "se=a@1,b@2,c@2,d@3", 0, "DELETE se[b] se[c] USING 2; DELETE se[d] USING 3"},
    {"se=a@1", "se=b@2", 0, "DELETE se[b] USING 2; UPDATE USING 1 SET se+{a}"},
    {"", "se=b@2,c@7", 0, "DELETE se USING 7"},
    {"", "se=b@2", 0, "DELETE se[b] USING 2"},
    {"se=a@5", "se=a@1", 0, "UPDATE USING 5 SET se+{a}"},
    {"m=x:1@5,y:2@6+80", "m=x:1@5", 0, "UPDATE USING 6+80 SET m+{y:2}"},
    {"m=x:1@5", "m=x:2@4,z:1@3", 0, "DELETE m[z] USING 3; UPDATE USING 5 SET m+{x:1}"},
    {"u=f:1@5,g:2@6", "u=f:1@5", 0, "UPDATE USING 6 SET u.g=2"},
    {"u=g:2@6", "u=f:1@5,g:3@5", 0, "DELETE u.f USING 5; UPDATE USING 6 SET u.g=2"},
    {"", "u=f:1@5,g:3@5", 0, "DELETE u USING 5"},
    /* without stamps */
    {"se=a@?", "", VERIFY | USED_HORIZON, "UPDATE USING 5000 default SET se+{a}"},
    {"se=a@1", "se=a@?,b@?", VERIFY | USED_HORIZON, "DELETE se[b] USING 5000"},
    {"m=x:1@3", "m=x:2@?", VERIFY | USED_HORIZON, "UPDATE USING 5000 SET m+{x:1}"},
    {"m=x:1@7000", "m=x:2@?", VERIFY | USED_HORIZON, "UPDATE USING 7000 SET m+{x:1}"},
    {"m=x:1@?", "m=x:2@6000", VERIFY | USED_HORIZON, "UPDATE USING 6001 default SET m+{x:1}"},
    {"", "se=a@?,b@?", VERIFY | USED_HORIZON, "DELETE se USING 5000"},

    /* lists: added at an end, else anew, all with their own timestamps */
    {"l=x@1,y@2,z@2", "l=x@1", VERIFY, "UPDATE USING 2 SET l+[y,z]"},
    {"l=x@1,y@2,z@3", "l=x@1", VERIFY, "UPDATE USING 2 SET l+[y]; UPDATE USING 3 SET l+[z]"},
    {"l=x@1,y@2+60", "", VERIFY, "UPDATE USING 1 SET l+[x]; UPDATE USING 2+60 SET l+[y]"},
    {"l=x@3,y@3,z@1", "l=z@1", VERIFY, "UPDATE USING 3 SET [x,y]+l"},
    {"l=x@4,y@3,z@1", "l=z@1", VERIFY, "UPDATE USING 3 SET [y]+l; UPDATE USING 4 SET [x]+l"},
    {"l=x@1,y@9", "l=x@1,y@9", 0, ""},
    {"l=x@1,y@9", "l=y@2,x@5", VERIFY,
     "UPDATE USING 5 SET l-[y,x]; UPDATE USING 1 SET l+[x]; UPDATE USING 9 SET l+[y]"},
    {"l=x@1", "l=x@1,x@2", VERIFY, "UPDATE USING 2 SET l-[x,x]; UPDATE USING 1 SET l+[x]"},
    {"l=x@1,y@2", "l=x@1,y@3", VERIFY, "UPDATE USING 3 SET l-[x,y]; UPDATE USING 1 SET l+[x]; UPDATE USING 2 SET l+[y]"},
    {"l=x@1,y@2", "l=x@1+60", VERIFY, "UPDATE USING 1 SET l-[x]; UPDATE USING 1 SET l+[x]; UPDATE USING 2 SET l+[y]"},
    {"l=x@1", "l=y@?", VERIFY | USED_HORIZON, "DELETE l USING 5000; UPDATE USING 5001 SET l+[x]"},
    {"", "l=x@1,x@2", 0, "DELETE l USING 2"},
    {"l=x@?,y@?", "l=x@?", VERIFY | USED_HORIZON, "UPDATE USING 5000 default SET l+[y]"},
};

/* ------------------------------------------------------------- rows */

static struct span value_of(struct arena *a, struct text *t)
{
	struct span copy = arena_copy(a, span_of(t->data, t->size));

	assert_non_null(copy.data);
	free(t->data);
	*t = (struct text){0};
	return copy;
}

static void put_count(struct text *t, unsigned n)
{
	text_add(t, (uint8_t[]){0, 0, 0, (uint8_t)n}, 4);
}

/* "a@1,b@2+60": a cell, or those of a collection or user type. */
static void make_cells(struct arena *a, const struct schema_column *c, char *text, struct span *cells)
{
	struct text value = {0}, written = {0}, ttl = {0};
	unsigned n = 1, field = 0;
	bool many = c->shape != SHAPE_PLAIN, stamps = !strchr(text, '?');

	for (const char *p = text; *p; p++)
		n += *p == ',';
	if (many && c->shape != SHAPE_UDT)
		put_count(&value, n);
	if (many) {
		put_count(&written, c->shape == SHAPE_UDT ? 2 : n);
		put_count(&ttl, c->shape == SHAPE_UDT ? 2 : n);
	}
	for (char *save = NULL, *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		char *at = strchr(p, '@'), *plus = strchr(at, '+'), *colon = strchr(p, ':');

		*at = 0;
		if (c->shape == SHAPE_UDT && field++ == 0 && *p == 'g') {
			text_add(&value, "\xff\xff\xff\xff", 4);
			text_add(&written, "\xff\xff\xff\xff", 4);
			text_add(&ttl, "\xff\xff\xff\xff", 4);
			field++;
		}
		if (c->shape == SHAPE_MAP)
			text_value(&value, span_of(p, (size_t)(colon - p)));
		p = colon ? colon + 1 : p;
		if (many)
			text_value(&value, span_text(p));
		else
			text_add(&value, p, strlen(p));
		if (many)
			text_value_long(&written, strtol(at + 1, NULL, 10));
		else
			text_add(&written,
				 (uint8_t[]){0, 0, 0, 0, 0, 0, (uint8_t)(strtol(at + 1, NULL, 10) >> 8),
					     (uint8_t)strtol(at + 1, NULL, 10)},
				 8);
		long left = plus ? strtol(plus + 1, NULL, 10) : 0;

		if (many && !plus)
			text_add(&ttl, "\xff\xff\xff\xff", 4);
		else if (many)
			text_value_int(&ttl, (int32_t)left);
		else if (plus)
			text_add(&ttl, (uint8_t[]){0, 0, (uint8_t)(left >> 8), (uint8_t)left}, 4);
	}
	if (c->shape == SHAPE_UDT && field < 2) {
		text_add(&written, "\xff\xff\xff\xff", 4);
		text_add(&ttl, "\xff\xff\xff\xff", 4);
	}
	bool expires = ttl.size;

	cells[0] = value_of(a, &value);
	cells[1] = value_of(a, &written);
	cells[2] = value_of(a, &ttl);
	if (!expires)
		cells[2] = (struct span){0};
	if (!stamps)
		cells[1] = cells[2] = (struct span){0};
}

static struct row *make_row(struct arena *a, const char *text, int flags)
{
	static const uint8_t key[] = {0, 0, 0, 1, 'K', 0, 0, 0, 1, 'C'};
	struct row *row = arena_zero(a, sizeof(*row));
	char copy[256];

	if (!text)
		return NULL;
	row->statics = flags & STATICS;
	row->marker = flags & MARKER;
	row->read_s = NOW_S;
	row->key = span_of(key, row->statics ? 5 : 10);
	row->cells = arena_zero(a, 7 * 3 * sizeof(*row->cells));
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *save = NULL, *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
		unsigned begin = row->statics ? 2 : 3, i = begin;
		char *equals = strchr(p, '=');

		*equals = 0;
		while (strcmp(columns[i].name, p) != 0)
			i++;
		make_cells(a, &columns[i], equals + 1, &row->cells[(i - begin) * 3]);
	}
	return row;
}

/* ------------------------------------------------------------- statements */

/* The next bound value as text: bigints and ints by the marker's place, collections by their column's shape.
 */
struct values {
	const uint8_t *at, *end;
};

static struct span next_value(struct values *v)
{
	assert_true(v->end - v->at >= 4);
	size_t n = (size_t)v->at[2] << 8 | v->at[3];
	struct span s = span_of(v->at + 4, n);

	assert_true((size_t)(v->end - v->at) >= 4 + n);
	v->at += 4 + n;
	return s;
}

static long number(struct span s)
{
	long n = 0;

	for (size_t i = 0; i < s.size; i++)
		n = n << 8 | s.data[i];
	return n;
}

static size_t put_collection(char *to, size_t room, struct span s, bool map, const char *brackets)
{
	struct values v = {s.data + 4, s.data + s.size};
	size_t at = (size_t)snprintf(to, room, "%c", brackets[0]);

	for (long n = number(span_of(s.data, 4)); n; n--) {
		struct span e = next_value(&v);

		at += (size_t)snprintf(to + at, room - at, "%.*s", (int)e.size, (const char *)e.data);
		if (map) {
			e = next_value(&v);
			at +=
			    (size_t)snprintf(to + at, room - at, ":%.*s", (int)e.size, (const char *)e.data);
		}
		at += (size_t)snprintf(to + at, room - at, "%s", n > 1 ? "," : "");
	}
	assert_ptr_equal(v.at, v.end);
	return at + (size_t)snprintf(to + at, room - at, "%c", brackets[1]);
}

/* One statement in the words of the cases. It has to be put together exactly as it is taken apart here. */
static void render(const struct write *w, char *to, size_t room)
{
	struct values v = {(const uint8_t *)w->values.data, (const uint8_t *)w->values.data + w->values.size};
	char text[1024], using_text[64] = "", what[512] = "", *p = text;
	size_t n = 0;

	snprintf(text, sizeof(text), "%.*s", (int)w->text.size, w->text.data);
	bool insert = !strncmp(p, "INSERT", 6), update = !strncmp(p, "UPDATE", 6);
	char *set = strstr(text, " SET "), *where = strstr(text, " WHERE "), *from = strstr(text, "FROM ");
	bool ttl = strstr(text, "AND TTL ?"), row = strstr(text, "DELETE FROM");

	assert_non_null(strstr(text, "\"ks\".\"t\""));
	assert_non_null(strstr(text, " USING TIMESTAMP ?"));
	if (insert) {
		p = strstr(text, "INSERT INTO \"ks\".\"t\" (\"k\", \"c\"");
		assert_non_null(p);
		assert_int_equal(*next_value(&v).data, 'K');
		assert_int_equal(*next_value(&v).data, 'C');
		for (p += 30; *p == ','; p += 2 + strcspn(p + 2, ",)")) {
			struct span s = next_value(&v);

			n += (size_t)snprintf(what + n, sizeof(what) - n, " %.*s=%.*s",
					      (int)strcspn(p + 3, "\""), p + 3, (int)s.size,
					      (const char *)s.data);
		}
		assert_int_equal(*p, ')');
	} else if (!update) { /* DELETE "v", "se"[?] FROM … */
		for (p = text + 7; p < from && !row; p += strcspn(p, " ") + 1) {
			char *quote = strchr(p + 1, '"');

			n += (size_t)snprintf(what + n, sizeof(what) - n, " %.*s", (int)(quote - p - 1),
					      p + 1);
			if (quote[1] == '[') {
				struct span key = next_value(&v);

				n += (size_t)snprintf(what + n, sizeof(what) - n, "[%.*s]", (int)key.size,
						      (const char *)key.data);
			} else if (quote[1] == '.') {
				n += (size_t)snprintf(what + n, sizeof(what) - n, ".%c", quote[3]);
			}
		}
	}
	size_t u = (size_t)snprintf(using_text, sizeof(using_text), "%ld", number(next_value(&v)));

	if (update || insert) {
		long left = ttl ? number(next_value(&v)) : 0;

		if (!ttl)
			snprintf(using_text + u, sizeof(using_text) - u, " default");
		else if (left)
			snprintf(using_text + u, sizeof(using_text) - u, "+%ld", left);
	}
	for (p = set ? set + 5 : NULL; p && p < where;) {
		char *end = strstr(p, ", \"") && strstr(p, ", \"") < where ? strstr(p, ", \"") : where;
		char *quote = strchr(p + 1, '"');
		char name[8];

		snprintf(name, sizeof(name), "%.*s", (int)(quote - p - 1), p + 1);
		struct span s = next_value(&v);

		n += (size_t)snprintf(what + n, sizeof(what) - n, " ");
		if (memmem(p, (size_t)(end - p), "? + ", 4)) {
			n += put_collection(what + n, sizeof(what) - n, s, false, "[]");
			n += (size_t)snprintf(what + n, sizeof(what) - n, "+%s", name);
		} else if (memmem(p, (size_t)(end - p), " + ?", 4) || memmem(p, (size_t)(end - p), " - ?", 4)) {
			bool more = memmem(p, (size_t)(end - p), " + ?", 4);

			n += (size_t)snprintf(what + n, sizeof(what) - n, "%s%c", name, more ? '+' : '-');
			n += put_collection(what + n, sizeof(what) - n, s, *name == 'm',
					    *name == 'l' ? "[]" : "{}");
		} else {
			n += (size_t)snprintf(
			    what + n, sizeof(what) - n, quote[1] == '.' ? "%s.%c=%.*s" : "%s%c=%.*s", name,
			    quote[1] == '.' ? quote[3] : '!', (int)s.size, (const char *)s.data);
		}
		p = end + (end < where ? 2 : 0);
	}
	for (char *mark = strchr(what, '!'); mark; mark = strchr(what, '!'))
		memmove(mark, mark + 1, strlen(mark));
	if (!insert) {
		assert_int_equal(*next_value(&v).data, 'K');
		assert_non_null(strstr(where, " WHERE \"k\" = ?"));
		if (strstr(where, "\"c\" = ?"))
			assert_int_equal(*next_value(&v).data, 'C');
	}
	assert_ptr_equal(v.at, v.end);
	if (update)
		snprintf(to, room, "UPDATE USING %s SET%s", using_text, what);
	else if (insert)
		snprintf(to, room, "INSERT%s USING %s", what, using_text);
	else
		snprintf(to, room, "DELETE%s USING %s", row ? " row" : what, using_text);
}

static void differences(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct arena arena = {0};
		struct diff d = {.table = &table, .horizon = HORIZON, .young = YOUNG};
		struct write_list list = {0};
		struct row *from = make_row(&arena, cases[i].from, cases[i].flags & ~MARKER);
		struct row *to = make_row(&arena, cases[i].to, cases[i].flags);
		char text[1024] = "";

		diff_row(&d, from, to);
		write_changes(&list, &table, table.quoted, from ? from : to, d.changes, d.count, NOW_S);
		for (const struct write *w = list.first; w; w = w->next) {
			size_t at = strlen(text);

			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", at ? "; " : "");
			render(w, text + at, sizeof(text) - at);
		}
		int flags = (d.verify ? VERIFY : 0) | (d.used_horizon ? USED_HORIZON : 0) |
			    (d.is_young ? IS_YOUNG : 0);

		if (strcmp(text, cases[i].expected) != 0 || flags != (cases[i].flags & 7) || d.error)
			fail_msg("\"%s\" to \"%s\"\n  gives    %s (%d)\n  expected %s (%d)",
				 cases[i].to ? cases[i].to : "none", cases[i].from ? cases[i].from : "none",
				 text, flags, cases[i].expected, cases[i].flags & 7);
		write_clear(&list);
		diff_done(&d);
		arena_done(&arena);
	}
}

/* Collections as a broken cluster might send them: whatever is read, nothing is read behind the end. */
static void cells_cut_off(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct arena arena = {0};
		struct row *from = make_row(&arena, cases[i].from, cases[i].flags);
		struct row *to = make_row(&arena, cases[i].to, cases[i].flags);

		for (unsigned cell = 0; from && to && cell < 18; cell++) {
			struct span whole = from->cells[cell];

			for (size_t n = 0; n < whole.size; n++) {
				struct diff d = {.table = &table, .horizon = HORIZON, .young = YOUNG};
				uint8_t *cut = malloc(n ? n : 1);

				memcpy(cut, whole.data, n);
				from->cells[cell] = span_of(cut, n);
				diff_row(&d, from, to);
				assert_int_equal(d.error, 0);
				diff_done(&d);
				free(cut);
			}
			from->cells[cell] = whole;
		}
		arena_done(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(differences),
	    cmocka_unit_test(cells_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
