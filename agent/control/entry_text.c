/* SPDX-License-Identifier: Apache-2.0 */
#include "control/entry_text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/render.h"
#include "cql/redact.h"
#include "cql/wire.h"

#define TEXT_SHOWN 4000  /* bytes of one statement */
#define PARTS_SHOWN 20   /* statements of one batch */
#define VALUE_SHOWN 64   /* bytes of one value */

const char *entry_state(const struct journal_entry *e)
{
	return e->state & ENTRY_APPLIED ? "confirmed" : journal_state_name(journal_state(e));
}

const char *entry_time(int64_t us, char to[32])
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(to, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(to + n, 32 - n, ".%03dZ", (int)(us % 1000000 / 1000));
	return to;
}

bool entry_matches(const struct entry_filter *f, const struct journal_view *v, const struct journal_entry *e)
{
	if (f->state && strcmp(f->state, entry_state(e)) != 0)
		return false;
	if (f->kind && strcmp(f->kind, journal_kind_name(journal_kind(e))) != 0)
		return false;
	if (f->since_us && entry_time_us(e) < f->since_us)
		return false;
	return !f->by_table || journal_view_touches(v, f->table.keyspace, f->table.table);
}

const char *entry_tables(const struct journal_view *v, char *to, size_t size)
{
	size_t at = 0;

	snprintf(to, size, "-");
	for (unsigned i = 0; i < v->statement.table_count && at < size; i++) {
		const struct table_name *t = &v->statement.tables[i];

		at += (size_t)snprintf(to + at, size - at, "%s%s.%s", at ? "," : "", t->keyspace[0] ? t->keyspace : "?",
				       t->table[0] ? t->table : "*");
	}
	return to;
}

/* ---- texts */

static void text_of(const struct journal_part *p, bool values, char *to, size_t size)
{
	struct statement s;
	size_t n;

	if (!p->text.data) {
		snprintf(to, size, "(a prepared statement that is not in this file)");
		return;
	}
	if (values) {
		n = p->text.size < size - 1 ? p->text.size : size - 1;
		memcpy(to, p->text.data, n);
		to[n] = 0;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)to[i] < ' ')
				to[i] = ' ';
		return;
	}
	statement_read(p->text, &s);
	if (s.kind == STATEMENT_ROLE || s.kind == STATEMENT_UNKNOWN)
		snprintf(to, size, "(a text that is not understood, or names a role)");
	else
		statement_redact(p->text, to, size);
}

/* The bound values as they are on the wire, in hexadecimal: their types are not known here. */
static json_t *values_of(const struct journal_part *p)
{
	struct wire w = wire_of(p->values);
	json_t *list = json_array();
	char text[2 * VALUE_SHOWN + 16];

	for (unsigned i = 0; i < p->values_count && !w.error; i++) {
		int32_t size;
		const uint8_t *bytes;
		size_t n = 0, at = 2;

		if (p->named)
			wire_string(&w);
		size = wire_int(&w);
		if (w.error)
			break;
		if (size < 0) {
			json_array_append_new(list, json_string(size == -1 ? "null" : "unset"));
			continue;
		}
		bytes = wire_take(&w, (size_t)size);
		if (!bytes && size)
			break;
		snprintf(text, sizeof(text), "0x");
		for (; n < (size_t)size && n < VALUE_SHOWN; n++, at += 2)
			snprintf(text + at, sizeof(text) - at, "%02x", bytes[n]);
		if (n < (size_t)size)
			snprintf(text + at, sizeof(text) - at, "…");
		json_array_append_new(list, json_string(text));
	}
	return list;
}

void entry_print_texts(FILE *out, struct journal_view *v, bool values)
{
	struct journal_part p;
	char *text = malloc(TEXT_SHOWN);
	unsigned n = 0;

	while (text && journal_view_next(v, &p)) {
		if (n++ == PARTS_SHOWN) {
			fputs("; …", out);
			break;
		}
		text_of(&p, values, text, TEXT_SHOWN);
		fputs(n > 1 ? "; " : "", out);
		render_text(out, text);
		if (values && p.values_count) {
			json_t *list = values_of(&p), *value;
			size_t i;

			fputs("  (", out);
			json_array_foreach(list, i, value) fprintf(out, "%s%s", i ? ", " : "", json_string_value(value));
			fputc(')', out);
			json_decref(list);
		}
	}
	if (!v->readable)
		fputs("(its request cannot be read)", out);
	free(text);
}

json_t *entry_json(const char *file, size_t at, const struct journal_entry *e, struct journal_view *v, bool values)
{
	json_t *o = json_object(), *tables = json_array(), *statements = json_array();
	struct journal_part p;
	char *text = malloc(TEXT_SHOWN);
	char name[2 * CQL_NAME_MAX + 4];

	json_object_set_new(o, "file", json_string(file));
	json_object_set_new(o, "offset", json_integer((json_int_t)at));
	json_object_set_new(o, "time", json_integer(e->now));
	json_object_set_new(o, "state", json_string(entry_state(e)));
	json_object_set_new(o, "kind", json_string(journal_kind_name(journal_kind(e))));
	for (unsigned i = 0; i < v->statement.table_count; i++) {
		const struct table_name *t = &v->statement.tables[i];

		snprintf(name, sizeof(name), "%s.%s", t->keyspace, t->table);
		json_array_append_new(tables, json_string(name));
	}
	json_object_set_new(o, "tables", tables);
	if (v->unnamed)
		json_object_set_new(o, "moreTables", json_true());
	json_object_set_new(o, "statement", json_string(statement_kind_name(v->statement.kind)));
	if (e->flags & ENTRY_PINNED)
		json_object_set_new(o, "timestamp", json_integer(e->timestamp));
	json_object_set_new(o, "bytes", json_integer(e->body_size));
	while (text && json_array_size(statements) < PARTS_SHOWN && journal_view_next(v, &p)) {
		json_t *one = json_object();

		text_of(&p, values, text, TEXT_SHOWN);
		/* What is no UTF-8 was cut in the middle of a character, or is no text. */
		if (json_object_set_new(one, "text", json_string(text)) < 0)
			json_object_set_new(one, "text", json_null());
		if (values)
			json_object_set_new(one, "values", values_of(&p));
		json_array_append_new(statements, one);
	}
	json_object_set_new(o, "statements", statements);
	free(text);
	return o;
}
