// SPDX-License-Identifier: Apache-2.0
/*
 * Input: a journal's file; and, since hardly any input has the right checksums, the same with a head and checksums that are right.
 * Whatever is in it, only bytes of the file are read, the walk ends, and what is shown of an entry has no control characters.
 */
#include <string.h>

#include "control/entry_text.h"
#include "cql/redact.h"
#include "fuzz/holds.h"

#define SHOWN_MAX 8u /* entries of one input that are printed: printing is slow */

static void check_inside(struct span file, struct span part)
{
	HOLDS(part.size == 0 || (part.data >= file.data && part.data + part.size <= file.data + file.size));
}

static void check_shown(const struct journal_entry *e, struct journal_view *v)
{
	static FILE *out;
	static const struct entry_filter filter = {.by_table = true, .table = {"shop", "cart"}, .state = "queued", .kind = "write", .since_us = 1};
	struct journal_view again = *v;
	char tables[400], when[32];
	json_t *o;

	if (!out)
		out = fopen("/dev/null", "w");
	HOLDS(out);
	entry_matches(&filter, v, e);
	HOLDS(strlen(entry_tables(v, tables, sizeof(tables))) < sizeof(tables));
	HOLDS(strlen(entry_time(entry_time_us(e), when)) < sizeof(when));
	entry_print_texts(out, &again, true);
	again = *v;
	entry_print_texts(out, &again, false);
	again = *v;
	o = entry_json("file", 0, e, &again, true);
	HOLDS(o && json_object_get(o, "statements"));
	json_decref(o);
}

static void check_view(struct span file, const struct journal_reader *r, const struct journal_entry *e, bool shown)
{
	struct journal_view v, walk;
	struct journal_part p;
	char text[300];

	journal_view_of(r, e, &v);
	HOLDS(v.statement.table_count <= STATEMENT_TABLES_MAX);
	for (unsigned i = 0; i < v.statement.table_count; i++) {
		HOLDS(memchr(v.statement.tables[i].keyspace, 0, CQL_NAME_MAX + 1) && memchr(v.statement.tables[i].table, 0, CQL_NAME_MAX + 1));
		HOLDS(journal_view_touches(&v, v.statement.tables[i].keyspace, v.statement.tables[i].table));
	}
	walk = v;
	for (unsigned parts = 0; journal_view_next(&walk, &p); parts++) {
		size_t n;

		HOLDS(parts < 65536);
		check_inside(file, p.id);
		check_inside(file, p.text);
		check_inside(file, p.values);
		if (!p.text.data)
			continue;
		n = statement_redact(p.text, text, sizeof(text));
		HOLDS(n < sizeof(text) && text[n] == 0);
		for (size_t i = 0; i < n; i++)
			HOLDS((unsigned char)text[i] >= ' ');
	}
	if (shown)
		check_shown(e, &v);
}

static void check(struct span file)
{
	struct journal_reader r;
	const struct journal_entry *e;
	const char *why = NULL;
	size_t at, last = 0;
	unsigned n = 0;

	if (journal_reader_open(&r, file, &why) < 0) {
		HOLDS(why);
		return;
	}
	while ((e = journal_reader_next(&r, &at))) {
		HOLDS(at > last && at % 8 == 0 && at + journal_entry_size(e->keyspace_size, e->body_size) <= file.size);
		last = at;
		check_inside(file, journal_body(e));
		HOLDS(journal_kind_name(journal_kind(e)) && journal_state_name(journal_state(e)));
		check_view(file, &r, e, n++ < SHOWN_MAX);
	}
	journal_reader_done(&r);
}

/* A head and checksums that are right, whatever they stand over. */
static void put_right(uint8_t *file, size_t size)
{
	struct journal_head *h = (struct journal_head *)file;
	size_t at = sizeof(*h);

	h->size = (uint32_t)size;
	journal_head_seal(h);
	while (size - at >= sizeof(struct journal_entry)) {
		struct journal_entry *e = (struct journal_entry *)(file + at);

		if (e->body_size > size || journal_entry_size(e->keyspace_size, e->body_size) > size - at)
			return;
		e->check = journal_check(e, h->salt);
		at += journal_entry_size(e->keyspace_size, e->body_size);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1); /* as aligned as a mapping, and as long as the file */

	HOLDS(copy);
	memcpy(copy, data, size);
	check(span_of(copy, size));
	if (size >= sizeof(struct journal_head)) {
		put_right(copy, size);
		check(span_of(copy, size));
	}
	free(copy);
	return 0;
}
