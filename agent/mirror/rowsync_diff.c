/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to be written so that one side's row becomes the other's. Pure: rows in, changes out.
 *
 * The side that is written was read first. So a cell that it shows, and that the truth, read later, does not
 * have, was really deleted; the other way round a write that was mirrored between the two reads would be
 * taken for a leftover and deleted. What is deleted is deleted under its own timestamp: that wins the tie and
 * harms nothing newer.
 *
 * Stamps that cannot be read (row markers; elements of collections before Cassandra 5) are replaced by the
 * horizon: a moment so long ago that no older write can still be on its way.
 */
#include <errno.h>

#include "mirror/rowsync_priv.h"

/* One cell: a column's, or that of an element or field. */
struct cell {
	struct span key; /* set and map: the element's; UDT: two bytes of field index; else empty */
	struct span value;
	struct stamp stamp;
};

struct cells {
	struct cell *cell;
	unsigned count;
};

static const struct stamp unknown = {0};

/* ------------------------------------------------------------- reading cells */

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t load64(const uint8_t *p)
{
	return (int64_t)((uint64_t)load32(p) << 32 | load32(p + 4));
}

/* A sequence of [bytes]. */
struct sequence {
	struct span rest;
	uint32_t count; /* left, as it says itself */
};

static struct sequence sequence_of(struct span list)
{
	if (list.size < 4)
		return (struct sequence){0};
	return (struct sequence){.rest = span_of(list.data + 4, list.size - 4), .count = load32(list.data)};
}

/* The next one, data = NULL when it is null; false at the end or where it is cut off. */
static bool sequence_next(struct sequence *s, struct span *ret)
{
	if (!s->count || s->rest.size < 4)
		return false;
	int32_t n = (int32_t)load32(s->rest.data);
	size_t size = n > 0 ? (size_t)n : 0;

	if (s->rest.size - 4 < size)
		return false;
	*ret = n < 0 ? (struct span){0} : span_of(s->rest.data + 4, size);
	s->rest = span_of(s->rest.data + 4 + size, s->rest.size - 4 - size);
	s->count--;
	return true;
}

static struct stamp stamp_of(struct span written, struct span ttl, int64_t read_s)
{
	struct stamp s = {0};

	if (!written.data || written.size != 8)
		return unknown;
	s.known = true;
	s.written = load64(written.data);
	if (ttl.data && ttl.size == 4)
		s.expires = read_s + (int32_t)load32(ttl.data);
	return s;
}

/* Gives the cells the stamps of WRITETIME and TTL, lists with an entry for each element. Of a UDT they count
 * the fields that are null, too. */
static void put_stamps(const struct schema_column *c, struct cells *cells, struct span written,
		       struct span ttl, int64_t read_s)
{
	struct sequence w = sequence_of(written), t = sequence_of(ttl);
	struct span one, two;
	unsigned at = 0;

	if (w.count != (c->shape == SHAPE_UDT ? c->field_count : cells->count))
		return;
	for (unsigned i = 0; sequence_next(&w, &one); i++) {
		two = (struct span){0};
		sequence_next(&t, &two);
		if (c->shape == SHAPE_UDT &&
		    (at == cells->count || cells->cell[at].key.data[1] != (uint8_t)i ||
		     cells->cell[at].key.data[0] != (uint8_t)(i >> 8)))
			continue;
		if (at < cells->count)
			cells->cell[at++].stamp = stamp_of(one, two, read_s);
	}
}

/* The fields of a UDT that are set. Those behind the end are null: the type was extended. */
static void read_fields(struct diff *d, struct span value, struct cells *ret)
{
	struct sequence s = {.rest = value, .count = UINT16_MAX};
	struct span field;

	for (unsigned i = 0; sequence_next(&s, &field); i++) {
		uint8_t *key = field.data ? arena_take(&d->arena, 2) : NULL;

		if (!field.data)
			continue;
		if (!key) {
			d->error = -E2BIG;
			return;
		}
		key[0] = (uint8_t)(i >> 8);
		key[1] = (uint8_t)i;
		ret->cell[ret->count++] = (struct cell){.key = span_of(key, 2), .value = field};
	}
}

static void read_elements(const struct schema_column *c, struct span value, struct cells *ret)
{
	struct sequence s = sequence_of(value);
	struct span a, b;

	if (c->shape == SHAPE_MAP)
		s.count = s.count > UINT32_MAX / 2 ? UINT32_MAX : 2 * s.count;
	while (sequence_next(&s, &a)) {
		struct cell *cell = &ret->cell[ret->count];

		*cell = (struct cell){0};
		if (c->shape == SHAPE_MAP && !sequence_next(&s, &b))
			break;
		if (c->shape == SHAPE_LIST)
			cell->value = a;
		else
			cell->key = a;
		if (c->shape == SHAPE_MAP)
			cell->value = b;
		ret->count++;
	}
}

/* The cells of one column of a row; none where it is null or the row is not there. */
static void read_cells(struct diff *d, const struct schema_column *c, const struct row *row, unsigned at,
		       struct cells *ret)
{
	*ret = (struct cells){0};
	if (!row || !row->cells[3 * at].data)
		return;
	struct span value = row->cells[3 * at], written = row->cells[3 * at + 1],
		    ttl = row->cells[3 * at + 2];

	/* Each element takes at least its length of 4 bytes. */
	ret->cell = arena_take(&d->arena, (value.size / 4 + 1) * sizeof(*ret->cell));
	if (!ret->cell) {
		d->error = -E2BIG;
		return;
	}
	if (c->shape == SHAPE_PLAIN) {
		ret->cell[0] = (struct cell){.value = value, .stamp = stamp_of(written, ttl, row->read_s)};
		ret->count = 1;
		return;
	}
	if (c->shape == SHAPE_UDT)
		read_fields(d, value, ret);
	else
		read_elements(c, value, ret);
	put_stamps(c, ret, written, ttl, row->read_s);
}

/* ------------------------------------------------------------- changes */

static struct change *add(struct diff *d, enum change_kind kind, const struct schema_column *c)
{
	if (d->count == d->room) {
		size_t room = d->room ? d->room * 2 : 32;
		struct change *grown = realloc(d->changes, room * sizeof(*grown));

		if (!grown) {
			d->error = -ENOMEM;
			return NULL;
		}
		d->changes = grown;
		d->room = room;
	}
	struct change *x = &d->changes[d->count];

	*x = (struct change){.kind = kind, .column = c, .sequence = (uint32_t)d->count};
	d->count++;
	return x;
}

static int64_t horizon(struct diff *d)
{
	d->used_horizon = d->verify = true;
	return d->horizon;
}

/* Something of that age is to be deleted or overruled. */
static int64_t overrule(struct diff *d, struct stamp s)
{
	if (!s.known)
		return horizon(d);
	if (s.written > d->young)
		d->is_young = true;
	return s.written;
}

static int64_t expires_of(struct stamp s)
{
	return s.known ? s.expires : EXPIRES_DEFAULT;
}

static void set_field(struct change *x, const struct cell *cell)
{
	x->key = cell->key;
	x->value = cell->value;
	if (x->column->shape == SHAPE_UDT)
		x->field = (unsigned)(cell->key.data[0] << 8 | cell->key.data[1]);
}

static void put_cell(struct diff *d, const struct schema_column *c, const struct cell *cell, int64_t written)
{
	static const enum change_kind kinds[] = {[SHAPE_PLAIN] = CHANGE_SET,
						 [SHAPE_SET] = CHANGE_PUT,
						 [SHAPE_MAP] = CHANGE_PUT,
						 [SHAPE_LIST] = CHANGE_APPEND,
						 [SHAPE_UDT] = CHANGE_FIELD};
	struct change *x = add(d, kinds[c->shape], c);

	if (!x)
		return;
	set_field(x, cell);
	x->written = written;
	x->expires = expires_of(cell->stamp);
}

static void drop_cell(struct diff *d, const struct schema_column *c, const struct cell *cell)
{
	static const enum change_kind kinds[] = {[SHAPE_PLAIN] = CHANGE_DROP,
						 [SHAPE_SET] = CHANGE_DROP_KEY,
						 [SHAPE_MAP] = CHANGE_DROP_KEY,
						 [SHAPE_LIST] = CHANGE_DROP,
						 [SHAPE_UDT] = CHANGE_DROP_FIELD};
	struct change *x = add(d, kinds[c->shape], c);

	if (!x)
		return;
	set_field(x, cell);
	x->written = overrule(d, cell->stamp);
}

/* TTLs are counted from two clocks in whole seconds: two apart is equal. */
static bool expires_alike(struct stamp a, struct stamp b)
{
	if (!a.expires || !b.expires)
		return a.expires == b.expires;
	return a.expires - b.expires <= 2 && b.expires - a.expires <= 2;
}

static int compare_bytes(struct span a, struct span b)
{
	size_t n = a.size < b.size ? a.size : b.size;
	int d = n ? memcmp(a.data, b.data, n) : 0;

	return d ? d : (a.size > b.size) - (a.size < b.size);
}

/* Whether `a` prevails over `b` under one timestamp: Cassandra's rule (Cells.resolveRegular). */
static bool wins_tie(const struct cell *a, const struct cell *b)
{
	if (!a->stamp.expires != !b->stamp.expires)
		return a->stamp.expires != 0;
	if (!expires_alike(a->stamp, b->stamp))
		return a->stamp.expires > b->stamp.expires;
	return compare_bytes(a->value, b->value) > 0;
}

/* Both sides have it. */
static void diff_both(struct diff *d, const struct schema_column *c, const struct cell *from,
		      const struct cell *to)
{
	bool equal = span_equal(from->value, to->value);
	int64_t written;

	if (!from->stamp.known || !to->stamp.known) {
		if (equal)
			return;
		written = from->stamp.known ? from->stamp.written : horizon(d);
		int64_t other = overrule(d, to->stamp);

		put_cell(d, c, from, written > other ? written : other + to->stamp.known);
		return;
	}
	bool alike = equal && expires_alike(from->stamp, to->stamp);

	if (from->stamp.written > to->stamp.written) {
		put_cell(d, c, from, from->stamp.written);
	} else if (alike) {
		/* Equal, or the same under a newer timestamp, which nothing can lower. */
	} else if (from->stamp.written == to->stamp.written && wins_tie(from, to)) {
		put_cell(d, c, from, from->stamp.written);
	} else {
		/* The written side has something newer that the truth does not know. */
		put_cell(d, c, from, overrule(d, to->stamp) + 1);
		d->verify = true;
	}
}

static int cell_compare(const void *left, const void *right)
{
	const struct cell *a = left, *b = right;

	return compare_bytes(a->key, b->key);
}

static struct stamp newest(const struct cells *cells)
{
	struct stamp s = {.known = true, .written = INT64_MIN};

	for (unsigned i = 0; i < cells->count; i++) {
		if (!cells->cell[i].stamp.known)
			return unknown;
		if (cells->cell[i].stamp.written > s.written)
			s = cells->cell[i].stamp;
	}
	return s;
}

/* The whole column goes. Returns the timestamp of that. */
static int64_t drop_column(struct diff *d, const struct schema_column *c, const struct cells *to)
{
	struct change *x = add(d, CHANGE_DROP, c);
	int64_t written = overrule(d, newest(to));

	if (x)
		x->written = written;
	return written;
}

static void diff_elements(struct diff *d, const struct schema_column *c, struct cells *from, struct cells *to)
{
	unsigned i = 0, k = 0;

	if (!from->count && to->count > 1) {
		drop_column(d, c, to);
		return;
	}
	if (from->count > 1)
		qsort(from->cell, from->count, sizeof(*from->cell), cell_compare);
	if (to->count > 1)
		qsort(to->cell, to->count, sizeof(*to->cell), cell_compare);
	while (i < from->count || k < to->count) {
		int order = i == from->count ? 1
			    : k == to->count ? -1
					     : compare_bytes(from->cell[i].key, to->cell[k].key);

		if (order < 0) {
			const struct cell *cell = &from->cell[i++];

			put_cell(d, c, cell, cell->stamp.known ? cell->stamp.written : horizon(d));
		} else if (order > 0) {
			drop_cell(d, c, &to->cell[k++]);
		} else {
			diff_both(d, c, &from->cell[i++], &to->cell[k++]);
		}
	}
}

static bool all_known(const struct cells *cells)
{
	unsigned i = 0;

	while (i < cells->count && cells->cell[i].stamp.known)
		i++;
	return i == cells->count;
}

/* `stamps`: they are compared, too. */
static bool elements_equal(const struct cell *a, const struct cell *b, unsigned count, bool stamps)
{
	for (unsigned i = 0; i < count; i++)
		if (!span_equal(a[i].value, b[i].value) ||
		    (stamps && (a[i].stamp.written != b[i].stamp.written || !expires_alike(a[i].stamp, b[i].stamp))))
			return false;
	return true;
}

/* Adds [begin, end) at the list's end or, from the last to the first, at its beginning; nothing under an
 * older timestamp than `least`. */
static void put_list(struct diff *d, const struct schema_column *c, const struct cells *from, unsigned begin,
		     unsigned end, bool prepend, int64_t least)
{
	for (unsigned n = begin; n < end; n++) {
		const struct cell *cell = &from->cell[prepend ? end - 1 - (n - begin) : n];
		int64_t written = cell->stamp.known ? cell->stamp.written : horizon(d);
		size_t count = d->count;

		put_cell(d, c, cell, written > least ? written : least);
		if (prepend && d->count > count)
			d->changes[count].kind = CHANGE_PREPEND;
	}
}

/* All elements that the list has go, one by one: a tombstone for the whole would hide what is written anew with older timestamps. */
static void discard_list(struct diff *d, const struct schema_column *c, const struct cells *to)
{
	struct change *x = add(d, CHANGE_DISCARD, c);
	uint8_t n[4] = {(uint8_t)(to->count >> 24), (uint8_t)(to->count >> 16), (uint8_t)(to->count >> 8), (uint8_t)to->count};
	struct text value = {0};

	if (!x)
		return;
	text_add(&value, n, 4);
	for (unsigned i = 0; i < to->count; i++)
		text_value(&value, to->cell[i].value);
	x->value = value.failed ? (struct span){0} : arena_copy(&d->arena, span_of(value.data, value.size));
	x->written = overrule(d, newest(to));
	free(value.data);
	if (!x->value.data)
		d->error = -E2BIG;
}

/*
 * A list's elements have keys that each coordinator invents, so nothing tells which is which. What is missing at either end is added,
 * everything else is written anew. Two that add the same at the same time double it: whoever changed something looks again.
 */
static void diff_list(struct diff *d, const struct schema_column *c, const struct cells *from,
		      const struct cells *to)
{
	bool stamps = all_known(from) && all_known(to);
	unsigned more = from->count - to->count;
	size_t before = d->count;

	if (from->count >= to->count && elements_equal(from->cell, to->cell, to->count, stamps)) {
		put_list(d, c, from, to->count, from->count, false, INT64_MIN);
	} else if (from->count > to->count && elements_equal(from->cell + more, to->cell, to->count, stamps)) {
		put_list(d, c, from, 0, more, true, INT64_MIN);
	} else if (from->count && stamps) {
		discard_list(d, c, to);
		put_list(d, c, from, 0, from->count, false, INT64_MIN);
	} else {
		int64_t dropped = drop_column(d, c, to);

		put_list(d, c, from, 0, from->count, false, dropped + 1);
	}
	d->verify |= from->count != 0 && d->count != before;
}

/* ------------------------------------------------------------- rows */

static void drop_row(struct diff *d, const struct row *row, unsigned begin, unsigned end)
{
	struct stamp s = {.known = true, .written = INT64_MIN};
	struct change *x = add(d, CHANGE_ROW_DROP, NULL);

	for (unsigned i = begin; i < end && s.known; i++) {
		struct cells cells;

		read_cells(d, &d->table->columns[i], row, i - begin, &cells);
		struct stamp own = newest(&cells);

		if (!own.known || own.written > s.written)
			s = own;
	}
	/* Nothing but a marker, whose age nobody tells. */
	if (s.written == INT64_MIN)
		s = unknown;
	d->guesses_row |= !s.known;
	if (x)
		x->written = overrule(d, s);
	d->verify = true; /* a marker may be newer than all cells */
}

/* Older, or of one age and living longer. */
static bool marks_better(const struct change *a, const struct change *b)
{
	if (a->written != b->written)
		return a->written < b->written;
	return b->expires > 0 && (a->expires == 0 || a->expires > b->expires);
}

/*
 * The row's existence, of which only INSERT says something: as old as the oldest cell that is written, so
 * that whatever deletes that deletes the marker as well.
 */
static void mark_row(struct diff *d, bool exists)
{
	const struct change *oldest = NULL;

	for (size_t i = 0; i < d->count; i++)
		if (d->changes[i].kind > CHANGE_MARK && (!oldest || marks_better(&d->changes[i], oldest)))
			oldest = &d->changes[i];
	if (exists && !oldest)
		return;
	int64_t written = oldest ? oldest->written : horizon(d);
	int64_t expires = oldest ? oldest->expires : EXPIRES_DEFAULT;
	struct change *x = add(d, CHANGE_MARK, NULL);

	if (x) {
		x->written = written;
		x->expires = expires;
	}
}

void diff_row(struct diff *d, const struct row *from, const struct row *to)
{
	bool statics = from ? from->statics : to->statics;
	unsigned begin = d->table->partition + d->table->clustering, end = d->table->count;

	d->count = 0;
	arena_done(&d->arena);
	if (statics)
		end = begin + d->table->statics;
	else
		begin += d->table->statics;
	if (!from && !statics) {
		drop_row(d, to, begin, end);
		return;
	}
	for (unsigned i = begin; i < end && !d->error; i++) {
		const struct schema_column *c = &d->table->columns[i];
		struct cells a, b;

		read_cells(d, c, from, i - begin, &a);
		read_cells(d, c, to, i - begin, &b);
		if (c->shape == SHAPE_LIST)
			diff_list(d, c, &a, &b);
		else
			diff_elements(d, c, &a, &b);
	}
	if (!statics && (!to || from->marker || to->marker))
		mark_row(d, to != NULL);
}

void diff_done(struct diff *d)
{
	free(d->changes);
	arena_done(&d->arena);
	*d = (struct diff){0};
}
