// SPDX-License-Identifier: Apache-2.0
/* From the rows of a chunk to values: fields are split, parsed and checked, and the partition key tells where
 * the row belongs. */
#include <errno.h>
#include <stdlib.h>

#include "copy/import_priv.h"
#include "cql/token.h"

static void reject(struct import_worker *w, struct chunk *c, struct chunk_row *row, const char *reason,
		   int size)
{
	struct import *im = w->import;
	struct input_row r = {.data = span_of(c->data.data + row->at, row->size),
			      .row = row->row,
			      .line = row->line,
			      .file = row->file};

	rejects_add(&im->rejects, &r, false, 1, reason, size);
}

/* Values of one row, a [value] for each bind. The reason when it cannot be had, in `text`. */
static bool parse_values(struct import_worker *w, struct bytes *out, char *text, size_t size)
{
	const struct import *im = w->import;
	const struct plan *p = im->plan;
	const struct value_style *style = &p->options->style;

	for (unsigned i = 0; i < im->bind_count; i++) {
		struct span field = w->fields[im->bind_field[i]];
		unsigned column = im->bind_column[i];
		size_t from = out->size;
		const char *wrong;

		if (im->bind_key[i] && value_is_null(style, field)) {
			snprintf(text, size, "Cannot insert null value for primary key column '%s'.%s",
				 p->columns[column],
				 style->null.size ? ""
						  : " If you want to insert empty strings, consider using "
						    "the WITH NULL=<marker> option for COPY.");
			return false;
		}
		wrong = value_parse(style, &p->types[column], field, out);
		if (wrong) {
			snprintf(text, size, "column %s: %s", p->columns[column], wrong);
			return false;
		}
		/* A counter is not set but added to. */
		if (p->counters && !im->bind_key[i] && (int32_t)load_be32(out->data + from) < 0) {
			out->size = from;
			bytes_u32(out, 8);
			bytes_u64(out, 0);
		}
	}
	return true;
}

/* The cell of a bind, in the values of a row. */
static struct span cell_at(struct span values, unsigned bind)
{
	struct span cell = {0};

	for (unsigned i = 0; i <= bind && span_take_bytes(&values, &cell); i++)
		;
	return cell;
}

static int64_t token_of_row(struct import_worker *w, struct span values)
{
	const struct import *im = w->import;
	struct bytes *key = &w->scratch;

	if (im->pk_count == 1)
		return token_of(cell_at(values, im->pk_bind[0]));
	key->size = 0;
	for (unsigned i = 0; i < im->pk_count; i++) {
		struct span cell = cell_at(values, im->pk_bind[i]);

		bytes_u16(key, (uint16_t)cell.size);
		bytes_put(key, cell.data, cell.size);
		bytes_u8(key, 0);
	}
	return key->failed ? 0 : token_of(bytes_span(key));
}

/* PREPAREDSTATEMENTS=FALSE: the statement as text, in place of the values. */
static bool put_text(struct import_worker *w, struct chunk *c, struct chunk_row *row)
{
	const struct plan *p = w->import->plan;
	struct bytes text = {0};
	bool ok = true;

	bytes_text(&text, "INSERT INTO ");
	plan_put_name(&text, p->keyspace);
	bytes_u8(&text, '.');
	plan_put_name(&text, p->table);
	for (unsigned i = 0; i < p->column_count; i++) {
		bytes_text(&text, i ? ", " : " (");
		plan_put_name(&text, p->columns[i]);
	}
	bytes_text(&text, ") VALUES (");
	for (unsigned i = 0; i < p->column_count && ok; i++) {
		if (i)
			bytes_text(&text, ", ");
		ok = value_format_literal(
		    &p->types[i], cell_at(span_of(c->values.data + row->values_at, row->values_size), i),
		    &text);
	}
	bytes_u8(&text, ')');
	if (p->options->ttl >= 0) {
		char ttl[48];

		snprintf(ttl, sizeof(ttl), " USING TTL %lld", (long long)p->options->ttl);
		bytes_text(&text, ttl);
	}
	c->values.size = row->values_at;
	bytes_put(&c->values, text.data, text.size);
	row->values_size = text.size;
	ok = ok && !text.failed;
	bytes_done(&text);
	return ok;
}

static bool parse_row(struct import_worker *w, struct chunk *c, struct chunk_row *row)
{
	struct import *im = w->import;
	struct plan *p = im->plan;
	char reason[512];
	unsigned fields;

	w->scratch.size = 0;
	bytes_put(&w->scratch, c->data.data + row->at, row->size);
	if (w->scratch.failed)
		return false;
	fields = csv_split(&p->options->dialect, w->scratch.data, row->size, w->fields, im->field_count);
	if (fields != im->field_count) {
		reject(w, c, row, reason,
		       snprintf(reason, sizeof(reason), "Invalid row length %u should be %u", fields,
				im->field_count));
		return false;
	}
	row->values_at = c->values.size;
	if (!parse_values(w, &c->values, reason, sizeof(reason))) {
		c->values.size = row->values_at;
		reject(w, c, row, reason, (int)strlen(reason));
		return false;
	}
	row->values_size = c->values.size - row->values_at;
	row->place =
	    p->cluster.ring.token_count
		? ring_find(&p->cluster.ring,
			    token_of_row(w, span_of(c->values.data + row->values_at, row->values_size)))
		: 0;
	if (!p->options->preparedstatements && !p->counters && !put_text(w, c, row)) {
		reject(w, c, row, "a value that cannot be written as text", 38);
		return false;
	}
	return true;
}

static int by_place(const void *a, const void *b, void *rows)
{
	const struct chunk_row *x = (const struct chunk_row *)rows + *(const uint32_t *)a,
			       *y = (const struct chunk_row *)rows + *(const uint32_t *)b;

	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return (x->row > y->row) -
	       (x->row < y->row); /* the file's order: of two rows with one key the later wins */
}

unsigned rows_parse_chunk(struct import_worker *w, struct chunk *c)
{
	unsigned good = 0;

	for (unsigned i = 0; i < c->count; i++)
		if (parse_row(w, c, &c->rows[i]))
			c->order[good++] = i;
	if (c->values.failed)
		plan_fail(w->import->plan, -ENOMEM, "out of memory");
	if (w->import->plan->cluster.ring.token_count > 1)
		qsort_r(c->order, good, sizeof(*c->order), by_place, c->rows);
	return good;
}
