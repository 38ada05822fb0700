/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads rows with the stamps of their cells. The statics of a partition are read by a question of their own:
 * a row that is gone shows none, and a partition may have nothing else.
 */
#include <errno.h>
#include <time.h>

#include "mirror/rowsync_priv.h"

void text_add(struct text *t, const void *bytes, size_t size)
{
	if (t->failed || !size)
		return;
	if (size > t->room - t->size) {
		size_t room = t->room ? t->room * 2 : 256;

		while (room - t->size < size)
			room *= 2;
		char *grown = realloc(t->data, room);

		if (!grown) {
			t->failed = true;
			return;
		}
		t->data = grown;
		t->room = room;
	}
	memcpy(t->data + t->size, bytes, size);
	t->size += size;
}

static void add_u32(struct text *t, uint32_t v)
{
	uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

	text_add(t, b, 4);
}

void text_value(struct text *t, struct span bytes)
{
	add_u32(t, (uint32_t)bytes.size);
	text_add(t, bytes.data, bytes.size);
}

void text_value_int(struct text *t, int32_t v)
{
	add_u32(t, 4);
	add_u32(t, (uint32_t)v);
}

void text_value_long(struct text *t, int64_t v)
{
	add_u32(t, 8);
	add_u32(t, (uint32_t)((uint64_t)v >> 32));
	add_u32(t, (uint32_t)v);
}

/* ------------------------------------------------------------- one question */

struct reading {
	struct row_set *set;
	const struct schema_table *table; /* whose columns were asked for */
	const struct schema_table *own;
	bool statics, marker;
	unsigned found;
};

static bool has_stamps(const struct reading *r, const struct schema_column *c)
{
	return c->shape == SHAPE_PLAIN || r->own->element_stamps;
}

static unsigned key_count(const struct reading *r)
{
	return r->table->partition + (r->statics ? 0 : r->table->clustering);
}

/* The columns of the kind that is read: [*ret_from, end). */
static unsigned cell_range(const struct schema_table *t, bool statics, unsigned *ret_from)
{
	unsigned from = t->partition + t->clustering;

	*ret_from = statics ? from : from + t->statics;
	return statics ? from + t->statics : t->count;
}

static struct row *add_row(struct row_set *set)
{
	if (set->count == set->room) {
		size_t room = set->room ? set->room * 2 : 8;
		struct row *grown = realloc(set->rows, room * sizeof(*grown));

		if (!grown)
			return NULL;
		set->rows = grown;
		set->room = room;
	}
	struct row *row = &set->rows[set->count];

	*row = (struct row){.sequence = (uint32_t)set->count};
	return row;
}

static int on_row(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct reading *r = context;
	unsigned keys = key_count(r), from, to = cell_range(r->table, r->statics, &from), at = keys;
	struct text key = {0};

	(void)columns;
	if (++r->found > ROWSYNC_ROWS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < keys && i < count; i++) {
		/* A partition that has only statics shows a row without clustering columns. */
		if (!cells[i].data) {
			free(key.data);
			return 0;
		}
		text_value(&key, cells[i]);
	}
	struct row *row = key.failed ? NULL : add_row(r->set);

	if (!row) {
		free(key.data);
		return -ENOMEM;
	}
	row->statics = r->statics;
	row->marker = r->marker;
	row->read_s = time(NULL);
	row->key = arena_copy(&r->set->arena, span_of(key.data, key.size));
	row->cells = arena_zero(&r->set->arena, (to - from + 1) * 3 * sizeof(*row->cells));
	free(key.data);
	if (!row->key.data || !row->cells)
		return -E2BIG;
	for (unsigned i = from; i < to; i++) {
		bool stamps = has_stamps(r, &r->table->columns[i]);

		for (unsigned k = 0; k < (stamps ? 3u : 1u); k++) {
			if (at == count)
				return -EPROTO;
			struct span cell = cells[at++];
			struct span *place = &row->cells[(i - from) * 3 + k];

			if (cell.data && !(*place = arena_copy(&r->set->arena, cell)).data)
				return -E2BIG;
		}
	}
	r->set->count++;
	return 0;
}

static void put_columns(struct text *text, const struct reading *r)
{
	unsigned from, to = cell_range(r->table, r->statics, &from);

	text_put(text, "SELECT ");
	for (unsigned i = 0; i < key_count(r); i++) {
		text_put(text, i ? ", " : "");
		text_put(text, r->table->columns[i].quoted);
	}
	for (unsigned i = from; i < to; i++) {
		const struct schema_column *c = &r->table->columns[i];

		text_put(text, ", ");
		text_put(text, c->quoted);
		if (!has_stamps(r, c))
			continue;
		text_put(text, ", WRITETIME(");
		text_put(text, c->quoted);
		text_put(text, "), TTL(");
		text_put(text, c->quoted);
		text_put(text, ")");
	}
	text_put(text, " FROM ");
	text_put(text, r->own->quoted);
	text_put(text, " WHERE ");
}

static int ask(struct reading *r, struct client *client, const struct selection *s, uint16_t consistency,
	       struct error *error)
{
	bool range = !r->statics && s->range.text.size;
	struct text text = {0}, values = {0};
	char limit[32];
	int rc = -ENOMEM;

	put_columns(&text, r);
	text_add(&text, s->partition.text.data, s->partition.text.size);
	text_add(&values, s->partition.values.data, s->partition.values.size);
	if (range) {
		text_add(&text, s->range.text.data, s->range.text.size);
		text_add(&values, s->range.values.data, s->range.values.size);
	}
	snprintf(limit, sizeof(limit), " LIMIT %u", r->statics ? 1 : ROWSYNC_ROWS_MAX + 1);
	text_put(&text, limit);
	if (!text.failed && !values.failed) {
		struct client_question q = {
		    .text = span_of(text.data, text.size),
		    .consistency = consistency,
		    .value_count = (uint16_t)(s->partition.value_count + (range ? s->range.value_count : 0)),
		    .values = span_of(values.data, values.size),
		    .prepare = !s->partition.literals && !(range && s->range.literals),
		};

		rc = client_ask(client, &q, on_row, r, error);
		if (rc == -EMSGSIZE)
			rc = -E2BIG;
	}
	free(text.data);
	free(values.data);
	return rc;
}

int rows_read(struct row_set *set, struct client *client, const struct selection *selection,
	      const struct schema_table *columns, const struct schema_table *own, uint16_t consistency,
	      struct error *error)
{
	struct reading r = {.set = set, .table = columns, .own = own, .marker = selection->marker};
	int rc = 0;

	set->arena.max = ROWSYNC_BYTES_MAX;
	if (selection->rows)
		rc = ask(&r, client, selection, consistency, error);
	if (!rc && columns->statics) {
		r.statics = true;
		rc = ask(&r, client, selection, consistency, error);
	}
	return rc;
}

/* ------------------------------------------------------------- order */

int rows_order(const struct row *a, const struct row *b)
{
	size_t n = a->key.size < b->key.size ? a->key.size : b->key.size;
	int d = (int)a->statics - (int)b->statics;

	if (!d)
		d = memcmp(a->key.data, b->key.data, n);
	return d ? d : (a->key.size > b->key.size) - (a->key.size < b->key.size);
}

static int row_compare(const void *left, const void *right)
{
	const struct row *a = left, *b = right;
	int d = rows_order(a, b);

	return d ? d : (a->sequence > b->sequence) - (a->sequence < b->sequence);
}

void rows_sort(struct row_set *set, bool keep_last)
{
	size_t n = 0;

	if (set->count)
		qsort(set->rows, set->count, sizeof(*set->rows), row_compare);
	for (size_t i = 0; i < set->count; i++) {
		struct row *last = n ? &set->rows[n - 1] : NULL, *row = &set->rows[i];

		if (!last || last->statics != row->statics || !span_equal(last->key, row->key)) {
			set->rows[n++] = *row;
			continue;
		}
		bool marker = last->marker | row->marker;

		if (keep_last)
			*last = *row;
		last->marker = marker;
	}
	set->count = n;
}

void rows_clear(struct row_set *set)
{
	free(set->rows);
	arena_done(&set->arena);
	*set = (struct row_set){0};
}
