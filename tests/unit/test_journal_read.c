// SPDX-License-Identifier: Apache-2.0
/* What a person sees of the journal: texts without values, tables of an entry, dead letters, holds over a restart, sizes by table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/cli_command.h"
#include "control/journal_files.h"
#include "cql/redact.h"
#include "mirror/dead.h"
#include "mirror/dispatch.h"
#include "mirror/hold.h"
#include "mirror/journal.h"
#include "mirror/journal_read.h"
#include "mirror/tables.h"
#include "unit/directory.h"

static void texts_lose_their_values(void **unused)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
		{"INSERT INTO a.b (k, v) VALUES (1, 'secret')", "INSERT INTO a.b (k, v) VALUES (?, ?)"},
		{"INSERT INTO a.\"B\" (k) VALUES ($$secret$$)", "INSERT INTO a.\"B\" (k) VALUES (?)"},
		{"UPDATE t SET a = 0xCAFE, b = -1.5e3 WHERE k = 123e4567-e89b-12d3-a456-426614174000",
		 "UPDATE t SET a = ?, b = -? WHERE k = ?"},
		{"UPDATE t SET m = {'a': true} -- secret\n WHERE k = :key AND x = ?", "UPDATE t SET m = {?: ?} WHERE k = :key AND x = ?"},
		{"DELETE FROM t /* secret */ WHERE k = NaN", "DELETE FROM t WHERE k = ?"},
		{"INSERT INTO t (k) VALUES ('secret", "INSERT INTO t (k) VALUES (…"},
		{"", ""},
	};
	char to[200], small[8];

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(statement_redact(span_text(cases[i].text), to, sizeof(to)), strlen(cases[i].shown));
		assert_string_equal(to, cases[i].shown);
	}
	assert_int_equal(statement_redact(span_text("TRUNCATE shop.cart"), small, sizeof(small)), 7);
	assert_string_equal(small, "TRUNCAT");
}

static void names_are_those_of_cql(void **unused)
{
	static const struct {
		const char *text, *keyspace, *table;
	} cases[] = {
		{"shop.cart", "shop", "cart"}, {"Shop.CART", "shop", "cart"}, {"\"Shop\".cart", "Shop", "cart"}, {"shop.*", "shop", ""},
		{"\"a\"\"b\".\"c.d\"", "a\"b", "c.d"}, {"shop", NULL, NULL}, {"shop.", NULL, NULL}, {".cart", NULL, NULL},
		{"\"shop.cart", NULL, NULL}, {"shop.cart.x", NULL, NULL}, {"sh op.cart", NULL, NULL}, {"\"\".t", NULL, NULL},
		{"a23456789012345678901234567890123456789012345678.t", "a23456789012345678901234567890123456789012345678", "t"},
		{"\"a23456789012345678901234567890123456789012345678\".t", "a23456789012345678901234567890123456789012345678", "t"},
		{"a234567890123456789012345678901234567890123456789.t", NULL, NULL},
	};
	struct table_name n;

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(cli_table(cases[i].text, &n), cases[i].keyspace != NULL);
		if (!cases[i].keyspace)
			continue;
		assert_string_equal(n.keyspace, cases[i].keyspace);
		assert_string_equal(n.table, cases[i].table);
	}
}

/* ---- a journal in memory, and a worker that is only what the mirror looks at */

static _Atomic uint64_t epoch;

struct place {
	char state[DIRECTORY_MAX];
	struct journals all;
	struct journal *journal;
	struct worker worker;
};

static void make_place(struct place *p)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(directory_make(p->state), 0);
	p->all = (struct journals){.directory = -1, .budget = 64u << 20, .file_size = 64u << 10, .epoch = &epoch};
	p->journal = journal_new(&p->all, 0, TARGET);
	assert_non_null(p->journal);
}

static void remove_place(struct place *p)
{
	journal_free(p->journal);
	assert_int_equal(directory_remove(p->state), 0);
}

/* QUERY, version 4, consistency ONE, no values. */
static struct span query_body(const char *text, uint8_t *to)
{
	size_t n = strlen(text);

	to[0] = to[1] = 0;
	to[2] = (uint8_t)(n >> 8);
	to[3] = (uint8_t)n;
	memcpy(to + 4, text, n);
	memcpy(to + 4 + n, "\0\1\0", 3);
	return span_of(to, n + 7);
}

static struct record *write_text(struct place *p, const char *text, const char *keyspace, enum journal_kind kind)
{
	uint8_t body[2000];
	struct journal_write w = {.kind = kind, .statement = STATEMENT_INSERT, .version = 4, .opcode = OP_QUERY, .pinned = true,
				  .timestamp = 1234567, .now = 99, .keyspace = keyspace, .body = query_body(text, body)};
	int error;
	struct record *r = journal_intent(p->journal, &w, &error);

	assert_non_null(r);
	journal_queued(r);
	return r;
}

static void an_entry_tells_its_tables(void **unused)
{
	struct journal_file *f;
	struct journal_reader r;
	const struct journal_entry *e;
	struct journal_view v;
	struct journal_part part;
	const char *why;
	struct place p;
	size_t at, first;

	(void)unused;
	make_place(&p);
	write_text(&p, "INSERT INTO cart (k) VALUES (1)", "shop", ENTRY_WRITE);
	write_text(&p, "BEGIN BATCH INSERT INTO a.b (k) VALUES (1); UPDATE \"C\" SET v = 1 WHERE k = 2; APPLY BATCH", "shop", ENTRY_WRITE);
	write_text(&p, "some nonsense", "shop", ENTRY_WRITE);
	f = journal_files(p.journal);
	assert_int_equal(journal_reader_open(&r, span_of(f->base, f->size), &why), 0);
	e = journal_reader_next(&r, &first);
	assert_non_null(e);
	assert_int_equal(first, sizeof(struct journal_head));
	journal_view_of(&r, e, &v);
	assert_true(v.readable && !v.unnamed);
	assert_int_equal(v.statement.table_count, 1);
	assert_true(journal_view_touches(&v, "shop", "cart"));
	assert_true(journal_view_touches(&v, "shop", ""));
	assert_false(journal_view_touches(&v, "shop", "Cart"));
	assert_false(journal_view_touches(&v, "other", ""));
	assert_true(journal_view_next(&v, &part));
	assert_int_equal(part.text.size, strlen("INSERT INTO cart (k) VALUES (1)"));
	assert_false(journal_view_next(&v, &part));
	e = journal_reader_next(&r, &at);
	journal_view_of(&r, e, &v);
	assert_true(journal_view_touches(&v, "a", "b") && journal_view_touches(&v, "shop", "C"));
	assert_false(journal_view_touches(&v, "shop", "b"));
	e = journal_reader_next(&r, &at);
	journal_view_of(&r, e, &v);
	assert_true(v.unnamed && journal_view_touches(&v, "any", "thing"));
	assert_null(journal_reader_next(&r, &at));
	assert_false(r.torn);
	journal_reader_done(&r);
	remove_place(&p);
}

/* ---- dead letters */

static struct dead *open_dead(struct place *p, size_t share)
{
	struct dead *d;
	struct error error;

	if (dead_open(p->state, share, &d, &error) < 0)
		fail_msg("%s", error.text);
	return d;
}

struct found {
	unsigned letters;
	int32_t code;
	uint32_t retries;
	unsigned rows; /* to be compared, not to be sent */
	char tables[100];
	mode_t mode;
};

static bool find_letters(void *context, struct journal_found *f)
{
	struct found *all = context;
	struct journal_reader r;
	struct journal_view v;
	struct dead_reason reason;
	const struct journal_entry *e;
	struct stat st;
	const char *why;
	int64_t at_us;
	size_t at;

	assert_non_null(f->bytes.data);
	assert_int_equal(stat(f->path, &st), 0);
	all->mode |= st.st_mode & 0777;
	assert_int_equal(journal_reader_open(&r, f->bytes, &why), 0);
	while ((e = dead_letter_next(&r, &at, &reason, &at_us))) {
		assert_int_equal(e->now, 99); /* how long it may live is counted from then */
		assert_int_equal(e->timestamp, 1234567);
		assert_true(at_us > 1600000000000000);
		journal_view_of(&r, e, &v);
		all->letters++;
		all->code = reason.code;
		all->rows += journal_kind(e) == ENTRY_ROWS;
		all->retries = reason.retries;
		snprintf(all->tables, sizeof(all->tables), "%s.%s", v.statement.tables[0].keyspace, v.statement.tables[0].table);
	}
	journal_reader_done(&r);
	return true;
}

static struct found letters_on_disk(struct place *p)
{
	struct found all = {0};
	struct error error;

	assert_int_equal(dead_files_each(p->state, find_letters, &all, &error), 0);
	return all;
}

static void dead_letters_are_kept_listed_and_dropped(void **unused)
{
	struct dead_filter cart = {.by_table = true, .table = {"shop", "cart"}};
	struct place p;
	struct dead *d;
	struct found found;

	(void)unused;
	make_place(&p);
	d = open_dead(&p, 4u << 20);
	for (unsigned i = 0; i < 300; i++) {
		struct record *r = write_text(&p, i % 3 ? "INSERT INTO cart (k) VALUES (1)" : "INSERT INTO orders (k) VALUES (1)", "shop", ENTRY_WRITE);

		r->attempts = 8;
		assert_true(dead_keep(d, &p.worker, r, CQL_INVALID));
		journal_done(r);
	}
	assert_int_equal(dead_count(d).letters, 300);
	found = letters_on_disk(&p); /* while it is being written */
	assert_int_equal(found.letters, 300);
	assert_int_equal(found.code, CQL_INVALID);
	assert_int_equal(found.retries, 8);
	assert_int_equal(found.mode, 0600);
	dead_close(d);
	/* The next start finds them. */
	d = open_dead(&p, 4u << 20);
	assert_int_equal(dead_count(d).letters, 300);
	assert_int_equal(dead_drop(d, &cart), 200);
	found = letters_on_disk(&p);
	assert_int_equal(found.letters, 100);
	assert_string_equal(found.tables, "shop.orders");
	assert_int_equal(dead_drop(d, &(struct dead_filter){0}), 100);
	assert_int_equal(dead_count(d).letters + dead_count(d).bytes, 0);
	dead_close(d);
	remove_place(&p);
}

/* The statement that the target did not understand is what it is to get once it does: its rows may be too many to compare. */
static void a_dead_letter_keeps_what_was_refused(void **unused)
{
	struct place p;
	struct dead *d;

	(void)unused;
	make_place(&p);
	d = open_dead(&p, 4u << 20);
	for (unsigned i = 0; i < 2; i++) {
		struct record *r = write_text(&p, "DELETE FROM cart WHERE k = 1", "shop", ENTRY_WRITE);

		r->entry = ENTRY_ROWS;
		r->refused = i == 0;
		r->unknown = i == 1; /* of what was in doubt the rows are all that can tell */
		assert_true(dead_keep(d, &p.worker, r, CQL_INVALID));
		journal_done(r);
	}
	assert_int_equal(letters_on_disk(&p).letters, 2);
	assert_int_equal(letters_on_disk(&p).rows, 1);
	dead_close(d);
	remove_place(&p);
}

static void the_oldest_dead_letters_stay_when_the_room_is_spent(void **unused)
{
	char text[1200];
	unsigned kept = 0;
	struct place p;
	struct dead *d;

	(void)unused;
	make_place(&p);
	snprintf(text, sizeof(text), "INSERT INTO cart (k, v) VALUES (1, '%01000d')", 7);
	d = open_dead(&p, 256u << 10);
	for (unsigned i = 0; i < 400; i++) {
		struct record *r = write_text(&p, text, "shop", ENTRY_WRITE);

		kept += dead_keep(d, &p.worker, r, CQL_SYNTAX_ERROR);
		journal_done(r);
	}
	assert_true(kept > 200 && kept < 256);
	assert_int_equal(dead_count(d).letters, kept);
	assert_int_equal(dead_count(d).unkept, 400 - kept);
	assert_true(dead_count(d).bytes <= 256u << 10);
	assert_int_equal(letters_on_disk(&p).letters, kept);
	/* What is dropped makes room. */
	assert_int_equal(dead_drop(d, &(struct dead_filter){0}), kept);
	struct record *r = write_text(&p, text, "shop", ENTRY_WRITE);
	assert_true(dead_keep(d, &p.worker, r, CQL_SYNTAX_ERROR));
	dead_close(d);
	remove_place(&p);
}

static bool no_file(void *context, struct journal_found *f)
{
	(void)context;
	fail_msg("%s", f->path);
	return true;
}

static void dead_letters_that_cannot_be_read_are_not_none(void **unused)
{
	char name[100], file[120];
	struct cli cli = {0};
	struct error error = {""};
	struct place p;
	FILE *made;

	(void)unused;
	make_place(&p);
	char *argv[] = {(char *)"dead", (char *)"ls", (char *)"--state", p.state, NULL};

	assert_int_equal(dead_files_each(p.state, no_file, NULL, &error), 0); /* nobody made it */
	snprintf(name, sizeof(name), "%s/dead", p.state);
	made = fopen(name, "w");
	assert_non_null(made);
	fclose(made);
	assert_int_equal(dead_files_each(p.state, no_file, NULL, &error), -ENOTDIR);
	assert_non_null(strstr(error.text, name));
	assert_int_equal(cli_dead(&cli, 4, argv), CLI_FAILED);
	assert_int_equal(unlink(name), 0);
	/* One file that cannot be read, and one that is no journal. */
	for (int i = 0; i < 2; i++) {
		dead_close(open_dead(&p, 1u << 20));
		assert_int_equal(cli_dead(&cli, 4, argv), CLI_OK);
		snprintf(file, sizeof(file), "%s/dead-%d.journal", name, i);
		if (i) {
			made = fopen(file, "w");
			assert_non_null(made);
			fputs("notes", made);
			fclose(made);
		} else {
			assert_int_equal(mkdir(file, 0700), 0);
		}
		assert_int_equal(cli_dead(&cli, 4, argv), CLI_FAILED);
		assert_int_equal(remove(file), 0);
	}
	remove_place(&p);
}

/* ---- holds */

static void count_hold(void *context, const struct hold *t)
{
	unsigned *by = context;

	by[t->by]++;
}

static void holds_outlive_a_restart(void **unused)
{
	unsigned by[4] = {0};
	struct holds h, again;
	struct error error;
	struct place p;
	char path[100];
	FILE *f;

	(void)unused;
	make_place(&p);
	holds_init(&h, false);
	assert_int_equal(holds_load(&h, p.state, &error), 0);
	assert_int_equal(holds_add(&h, "shop", "Cart", HOLD_PERSON), 1);
	assert_int_equal(holds_add(&h, "shop", "Cart", HOLD_PERSON), 0);
	assert_int_equal(holds_add(&h, "shop", "Cart", HOLD_SERVICE), 1);
	assert_int_equal(holds_add(&h, "shop", "", HOLD_PERSON), 1);
	assert_int_equal(holds_save(&h, p.state, &error), 0);
	holds_init(&again, false);
	assert_int_equal(holds_load(&again, p.state, &error), 0);
	holds_each(&again, count_hold, by);
	assert_int_equal(by[HOLD_PERSON], 1);
	assert_int_equal(by[HOLD_PERSON | HOLD_SERVICE], 1);
	/* One of two lets go. */
	assert_int_equal(holds_remove(&again, "shop", "Cart", HOLD_PERSON), 1);
	assert_int_equal(holds_remove(&again, "shop", "Cart", HOLD_PERSON), 0);
	assert_int_equal(holds_remove(&again, "shop", "cart", HOLD_SERVICE), 0);
	assert_int_equal(again.count, 2);
	assert_int_equal(holds_remove(&again, "shop", "Cart", HOLD_SERVICE), 1);
	assert_int_equal(again.count, 1);
	holds_done(&again);
	/* A damaged record is no record: to begin without it would let go of a table in the middle of its load. */
	snprintf(path, sizeof(path), "%s/holds.keep", p.state);
	f = fopen(path, "r+");
	assert_non_null(f);
	assert_int_equal(fseek(f, 22, SEEK_SET), 0);
	fputc('X', f);
	fclose(f);
	holds_init(&again, false);
	assert_true(holds_load(&again, p.state, &error) < 0);
	assert_non_null(strstr(error.text, "holds.keep"));
	holds_done(&again);
	holds_done(&h);
	remove_place(&p);
}

/* ---- sizes by table */

struct size_seen {
	unsigned count;
	struct table_size last;
};

static void see_size(void *context, const struct table_size *s)
{
	struct size_seen *seen = context;

	seen->count++;
	seen->last = *s;
}

static void sizes_follow_what_waits(void **unused)
{
	struct size_seen seen = {0};
	struct dispatch d = {0};
	struct record *one, *two;
	struct place p;

	(void)unused;
	make_place(&p);
	p.worker.gap = gap_new();
	d.worker = &p.worker;
	d.journal = p.journal;
	d.tables = tables_new();
	one = write_text(&p, "INSERT INTO cart (k) VALUES (1)", "shop", ENTRY_WRITE);
	two = write_text(&p, "INSERT INTO cart (k) VALUES (2)", "shop", ENTRY_WRITE);
	one->cell = two->cell = gap_cell_of(p.worker.gap, "shop", "cart");
	d.flying = 2;
	tables_add(d.tables, one);
	tables_add(d.tables, one); /* once is once */
	tables_add(d.tables, two);
	tables_publish(&d, 1000000000);
	assert_int_equal(tables_read(d.tables, see_size, &seen), 99);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.last.name.table, "cart");
	assert_int_equal(seen.last.records, 2);
	assert_int_equal(seen.last.bytes, one->body_size + two->body_size);
	/* On disk it still waits, and is not counted again when it comes back. */
	journal_spill(two);
	tables_remove(d.tables, one);
	journal_done(one);
	d.flying = 0;
	tables_publish(&d, 2000000000);
	assert_int_equal(tables_read(d.tables, see_size, &seen), 99);
	assert_int_equal(seen.last.records, 1);
	struct journal_entry *e = journal_file_entry(journal_files(p.journal), journal_files(p.journal)->used - journal_entry_size(4, two->body_size));
	assert_true(e->state & ENTRY_COUNTED);
	assert_int_equal(journal_state(e), ENTRY_QUEUED);
	tables_free(d.tables);
	gap_free(p.worker.gap);
	remove_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_lose_their_values),
		cmocka_unit_test(names_are_those_of_cql),
		cmocka_unit_test(an_entry_tells_its_tables),
		cmocka_unit_test(dead_letters_are_kept_listed_and_dropped),
		cmocka_unit_test(a_dead_letter_keeps_what_was_refused),
		cmocka_unit_test(the_oldest_dead_letters_stay_when_the_room_is_spent),
		cmocka_unit_test(dead_letters_that_cannot_be_read_are_not_none),
		cmocka_unit_test(holds_outlive_a_restart),
		cmocka_unit_test(sizes_follow_what_waits),
	};

	log_threshold = LOG_ERROR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
