/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes become statements: those with one timestamp and one TTL share one. Every value is bound; names come
 * from the schema, in quotes.
 *
 * USING TTL 0 says "no TTL" where the table has a default one.
 */
#include <errno.h>

#include "mirror/rowsync_priv.h"

#define VALUES_MAX 65535u      /* a [short] counts them */
#define PART_STATEMENTS 100u   /* of a batch that need not be whole */
#define PART_BYTES (32u << 10) /* below batch_size_fail_threshold's 50 KiB */
#define DROPS_MAX 1000u	       /* in one DELETE */
#define TTL_MAX 630720000      /* seconds, 20 years: Cassandra's limit */

static struct write *add_write(struct write_list *l)
{
	struct write *w = calloc(1, sizeof(*w));

	if (!w) {
		l->failed = true;
		return NULL;
	}
	if (l->last)
		l->last->next = w;
	else
		l->first = w;
	l->last = w;
	l->count++;
	return w;
}

static void put_long(struct write *w, int64_t v)
{
	text_value_long(&w->values, v);
	w->value_count++;
}

static void put_value(struct write *w, struct span v)
{
	text_value(&w->values, v);
	w->value_count++;
}

/* " USING TIMESTAMP ? AND TTL ?" */
static void put_using(struct write *w, const struct change *x, int64_t now_s)
{
	int64_t ttl = x->expires > 0 ? x->expires - now_s : 0;

	text_put(&w->text,
		 x->expires == EXPIRES_DEFAULT ? " USING TIMESTAMP ?" : " USING TIMESTAMP ? AND TTL ?");
	put_long(w, x->written);
	if (x->expires == EXPIRES_DEFAULT)
		return;
	/* What expires just now lives a second longer; 0 would be for ever. */
	if (x->expires > 0 && ttl < 1)
		ttl = 1;
	text_value_int(&w->values, (int32_t)(ttl > TTL_MAX ? TTL_MAX : ttl));
	w->value_count++;
}

static void put_where(struct write *w, const struct schema_table *t, const struct row *row)
{
	unsigned keys = t->partition + (row->statics ? 0 : t->clustering);

	for (unsigned i = 0; i < keys; i++) {
		text_put(&w->text, i ? " AND " : " WHERE ");
		text_put(&w->text, t->columns[i].quoted);
		text_put(&w->text, " = ?");
	}
	text_add(&w->values, row->key.data, row->key.size);
	w->value_count += keys;
}

/* INSERT, which marks the row, with the cells that share the marker's stamp. */
static void mark(struct write_list *l, const struct schema_table *t, const char *quoted,
		 const struct row *row, const struct change *x, size_t count, int64_t now_s)
{
	struct write *w = add_write(l);
	unsigned keys = t->partition + t->clustering;

	if (!w)
		return;
	text_put(&w->text, "INSERT INTO ");
	text_put(&w->text, quoted);
	for (unsigned i = 0; i < keys; i++) {
		text_put(&w->text, i ? ", " : " (");
		text_put(&w->text, t->columns[i].quoted);
	}
	text_add(&w->values, row->key.data, row->key.size);
	w->value_count += keys;
	for (size_t i = 1; i < count; i++) {
		text_put(&w->text, ", ");
		text_put(&w->text, x[i].column->quoted);
		put_value(w, x[i].value);
	}
	for (size_t i = 0; i < keys + count - 1; i++)
		text_put(&w->text, i ? ", ?" : ") VALUES (?");
	text_put(&w->text, ")");
	put_using(w, x, now_s);
	l->repaired += count;
}

/* DELETE of columns, elements and fields with one timestamp, or of the row. */
static void drop(struct write_list *l, const struct schema_table *t, const char *quoted,
		 const struct row *row, const struct change *x, size_t count)
{
	struct write *w = add_write(l);

	if (!w)
		return;
	text_put(&w->text, "DELETE ");
	for (size_t i = 0; i < count && x[i].kind != CHANGE_ROW_DROP; i++) {
		text_put(&w->text, i ? ", " : "");
		text_put(&w->text, x[i].column->quoted);
		if (x[i].kind == CHANGE_DROP_KEY) {
			text_put(&w->text, "[?]");
			put_value(w, x[i].key);
		} else if (x[i].kind == CHANGE_DROP_FIELD) {
			text_put(&w->text, ".");
			text_put(&w->text, x[i].column->fields[x[i].field]);
		}
	}
	text_put(&w->text, x->kind == CHANGE_ROW_DROP ? "FROM " : " FROM ");
	text_put(&w->text, quoted);
	text_put(&w->text, " USING TIMESTAMP ?");
	put_long(w, x->written);
	put_where(w, t, row);
	l->deleted += count;
}

/* Elements of one column as the collection that is added; backwards where each was to come before the last.
 */
static void put_collection(struct write *w, const struct change *x, size_t count)
{
	bool map = x->column->shape == SHAPE_MAP;
	struct text value = {0};
	uint8_t n[4] = {(uint8_t)(count >> 24), (uint8_t)(count >> 16), (uint8_t)(count >> 8),
			(uint8_t)count};

	text_add(&value, n, 4);
	for (size_t i = 0; i < count; i++) {
		const struct change *one = &x[x->kind == CHANGE_PREPEND ? count - 1 - i : i];

		if (x->column->shape != SHAPE_LIST)
			text_value(&value, one->key);
		if (map || x->column->shape == SHAPE_LIST)
			text_value(&value, one->value);
	}
	put_value(w, span_of(value.data, value.size));
	w->values.failed |= value.failed;
	free(value.data);
}

/* How many of the changes from `x` on are elements of one collection and go into one value. */
static size_t run_of(const struct change *x, size_t count)
{
	size_t n = 1;

	if (x->kind != CHANGE_PUT && x->kind != CHANGE_APPEND && x->kind != CHANGE_PREPEND)
		return 1;
	while (n < count && x[n].kind == x->kind && x[n].column == x->column && x[n].written == x->written &&
	       x[n].expires == x->expires)
		n++;
	return n;
}

static void put_assignment(struct write *w, const struct change *x, size_t count)
{
	text_put(&w->text, x->column->quoted);
	switch (x->kind) {
	case CHANGE_SET:
		text_put(&w->text, " = ?");
		put_value(w, x->value);
		return;
	case CHANGE_FIELD:
		text_put(&w->text, ".");
		text_put(&w->text, x->column->fields[x->field]);
		text_put(&w->text, " = ?");
		put_value(w, x->value);
		return;
	case CHANGE_DISCARD:
		text_put(&w->text, " = ");
		text_put(&w->text, x->column->quoted);
		text_put(&w->text, " - ?");
		put_value(w, x->value);
		return;
	case CHANGE_PREPEND:
		text_put(&w->text, " = ? + ");
		text_put(&w->text, x->column->quoted);
		break;
	default:
		text_put(&w->text, " = ");
		text_put(&w->text, x->column->quoted);
		text_put(&w->text, " + ?");
	}
	put_collection(w, x, count);
}

/* UPDATE with one timestamp and TTL. */
static void update(struct write_list *l, const struct schema_table *t, const char *quoted,
		   const struct row *row, const struct change *x, size_t count, int64_t now_s)
{
	struct write *w = add_write(l);

	if (!w)
		return;
	text_put(&w->text, "UPDATE ");
	text_put(&w->text, quoted);
	put_using(w, x, now_s);
	text_put(&w->text, " SET ");
	for (size_t i = 0, run; i < count; i += run) {
		run = run_of(x + i, count - i);
		text_put(&w->text, i ? ", " : "");
		put_assignment(w, x + i, run);
	}
	put_where(w, t, row);
	*(x->kind == CHANGE_DISCARD ? &l->deleted : &l->repaired) += count;
}

/* By what shares a statement. Those of lists keep their order, which is that of the list. */
static int change_compare(const void *left, const void *right)
{
	const struct change *a = left, *b = right;
	int class_a = a->kind < CHANGE_MARK	? 0
		      : a->kind == CHANGE_MARK	? 1
		      : a->kind < CHANGE_DISCARD ? 2
						: 3;
	int class_b = b->kind < CHANGE_MARK	? 0
		      : b->kind == CHANGE_MARK	? 1
		      : b->kind < CHANGE_DISCARD ? 2
						: 3;

	if (class_a != class_b)
		return class_a - class_b;
	if (class_a == 3)
		return (a->sequence > b->sequence) - (a->sequence < b->sequence);
	if (a->written != b->written)
		return a->written < b->written ? -1 : 1;
	if (a->expires != b->expires)
		return a->expires < b->expires ? -1 : 1;
	if (class_a == 2 && a->kind != b->kind)
		return (int)a->kind - (int)b->kind;
	return (a->sequence > b->sequence) - (a->sequence < b->sequence);
}

void write_changes(struct write_list *l, const struct schema_table *table, const char *quoted,
		   const struct row *row, struct change *changes, size_t count, int64_t now_s)
{
	if (count)
		qsort(changes, count, sizeof(*changes), change_compare);
	for (size_t i = 0, n; i < count; i += n) {
		const struct change *x = &changes[i];

		n = 1;
		if (x->kind < CHANGE_MARK) {
			while (i + n < count && n < DROPS_MAX && x[n].kind < CHANGE_MARK &&
			       x[n].written == x->written)
				n++;
			drop(l, table, quoted, row, x, n);
		} else if (x->kind == CHANGE_MARK) {
			while (i + n < count && x[n].kind == CHANGE_SET && x[n].written == x->written &&
			       x[n].expires == x->expires)
				n++;
			mark(l, table, quoted, row, x, n, now_s);
		} else if (x->kind >= CHANGE_DISCARD) {
			n = run_of(x, count - i);
			update(l, table, quoted, row, x, n, now_s);
		} else {
			while (i + n < count && x[n].kind < CHANGE_DISCARD && x[n].written == x->written &&
			       x[n].expires == x->expires)
				n++;
			update(l, table, quoted, row, x, n, now_s);
		}
		if (l->last && (l->last->text.failed || l->last->values.failed))
			l->failed = true;
	}
}

/* ------------------------------------------------------------- sending */

/* The statements [first, end) as one question. */
static int send_part(const struct write *first, const struct write *end, struct client *client,
		     struct error *error)
{
	bool batch = first->next != end;
	struct text text = {0}, values = {0};
	unsigned count = 0;
	int rc = -ENOMEM;

	text_put(&text, batch ? "BEGIN BATCH " : "");
	for (const struct write *w = first; w != end; w = w->next) {
		text_add(&text, w->text.data, w->text.size);
		text_put(&text, batch ? "; " : "");
		text_add(&values, w->values.data, w->values.size);
		count += w->value_count;
	}
	text_put(&text, batch ? "APPLY BATCH" : "");
	if (!text.failed && !values.failed) {
		struct client_question q = {.text = span_of(text.data, text.size),
					    .consistency = CL_LOCAL_QUORUM,
					    .value_count = (uint16_t)count,
					    .values = span_of(values.data, values.size),
					    .prepare = !batch};

		rc = client_ask(client, &q, NULL, NULL, error);
	}
	free(text.data);
	free(values.data);
	return rc;
}

/* Where a part that begins with `first` ends. */
static const struct write *part_end(const struct write *first, unsigned statements)
{
	size_t bytes = 0, values = 0;
	unsigned n = 0;

	for (; first && n < statements; first = first->next, n++) {
		bytes += first->text.size + first->values.size;
		values += first->value_count;
		if (n && (bytes > PART_BYTES || values > VALUES_MAX))
			break;
	}
	return first;
}

int write_send(const struct write_list *l, struct client *client, bool atomic, bool *ret_split,
	       struct error *error)
{
	const struct write *first = l->first;
	size_t values = 0;
	int rc = 0;

	*ret_split = false;
	if (l->failed)
		return -ENOMEM;
	for (const struct write *w = first; w; w = w->next)
		values += w->value_count;
	if (atomic && first) {
		rc = values > VALUES_MAX ? -E2BIG : send_part(first, NULL, client, error);
		if (rc != -E2BIG)
			return rc;
		*ret_split = true;
		rc = 0;
	}
	while (first && !rc) {
		const struct write *end = part_end(first, *ret_split ? 1 : PART_STATEMENTS);

		rc = send_part(first, end, client, error);
		/* Rows of several partitions: one by one then. */
		if (rc == -E2BIG && first->next != end) {
			*ret_split = true;
			rc = 0;
			continue;
		}
		first = end;
	}
	return rc;
}

void write_clear(struct write_list *l)
{
	while (l->first) {
		struct write *w = l->first;

		l->first = w->next;
		free(w->text.data);
		free(w->values.data);
		free(w);
	}
	*l = (struct write_list){0};
}
