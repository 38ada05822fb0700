/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Column specifications and what is built on them: PREPARED results, comparison, and rows of the agent's own
 * queries.
 *
 * A type ("option") nests: list<frozen<map<text, frozen<udt>>>>. Depth is bounded, because the peer decides
 * it and the reading recurses; width is bounded by the bytes that are there, since every element takes at
 * least two.
 */
#define XXH_STATIC_LINKING_ONLY /* a hash's state on the stack */
#include <xxhash.h>

#include "cql/response.h"
#include "cql/wire.h"

/* Nobody declares types deeper than a handful; the limit is for hostile bytes. */
#define OPTION_DEPTH_MAX 32

#define MARSHAL "org.apache.cassandra.db.marshal."

/* What has a number of its own since v4 or v5 is told to older clients by its class. */
static uint16_t custom_type(struct span class)
{
	static const struct {
		const char *class;
		uint16_t type;
	} known[] = {
		{MARSHAL "SimpleDateType", TYPE_DATE}, {MARSHAL "TimeType", TYPE_TIME},		{MARSHAL "ShortType", TYPE_SMALLINT},
		{MARSHAL "ByteType", TYPE_TINYINT},    {MARSHAL "DurationType", TYPE_DURATION},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (span_equal(class, span_text(known[i].class)))
			return known[i].type;
	return TYPE_CUSTOM;
}

/* A hash over bytes, of which those before `from` are in `state`. */
struct option_hash {
	XXH3_state_t state;
	const uint8_t *from;
};

static void hash_until(struct option_hash *h, const uint8_t *end)
{
	XXH3_64bits_update(&h->state, h->from, (size_t)(end - h->from));
	h->from = end;
}

/* A custom type that has a number goes into the hash as that number. */
static void hash_custom(struct option_hash *h, const struct wire *w, size_t start, struct span class)
{
	uint16_t type = custom_type(class);
	uint8_t number[2] = {(uint8_t)(type >> 8), (uint8_t)type};

	if (w->error || type == TYPE_CUSTOM)
		return;
	hash_until(h, w->data + start);
	XXH3_64bits_update(&h->state, number, sizeof(number));
	h->from = w->data + w->at;
}

/* hash: NULL, or what the option's bytes are going into. */
static void skip_option(struct wire *w, unsigned depth, struct option_hash *hash)
{
	size_t start = w->at;
	uint16_t type = wire_short(w);
	struct span class;
	unsigned n = 0;

	if (depth > OPTION_DEPTH_MAX) {
		wire_fail(w, CQL_MALFORMED);
		return;
	}
	switch (type) {
	case TYPE_CUSTOM:
		class = wire_string(w);
		if (hash)
			hash_custom(hash, w, start, class);
		return;
	case TYPE_LIST:
	case TYPE_SET:
		n = 1;
		break;
	case TYPE_MAP:
		n = 2;
		break;
	case TYPE_UDT:
		wire_string(w);
		wire_string(w);
		for (n = wire_short(w); n && !w->error; n--) {
			wire_string(w);
			skip_option(w, depth + 1, hash);
		}
		return;
	case TYPE_TUPLE:
		n = wire_short(w);
		break;
	default:
		if (type > TYPE_DURATION)
			wire_fail(w, CQL_MALFORMED);
		return;
	}
	for (; n && !w->error; n--)
		skip_option(w, depth + 1, hash);
}

/* Reads the same type from both, apart from the keyspace that a user type belongs to (it may have been
 * renamed). */
static bool option_equal(struct wire *a, struct wire *b, unsigned depth)
{
	uint16_t type = wire_short(a);
	unsigned n = 0;

	if (wire_short(b) != type || depth > OPTION_DEPTH_MAX)
		return false;
	switch (type) {
	case TYPE_CUSTOM:
		return span_equal(wire_string(a), wire_string(b));
	case TYPE_LIST:
	case TYPE_SET:
		n = 1;
		break;
	case TYPE_MAP:
		n = 2;
		break;
	case TYPE_UDT:
		wire_string(a);
		wire_string(b);
		if (!span_equal(wire_string(a), wire_string(b)))
			return false;
		n = wire_short(a);
		if (wire_short(b) != n)
			return false;
		for (; n && !a->error; n--)
			if (!span_equal(wire_string(a), wire_string(b)) || !option_equal(a, b, depth + 1))
				return false;
		return true;
	case TYPE_TUPLE:
		n = wire_short(a);
		if (wire_short(b) != n)
			return false;
		break;
	}
	for (; n && !a->error; n--)
		if (!option_equal(a, b, depth + 1))
			return false;
	return true;
}

static void read_column(struct wire *w, const struct columns *c, struct column *ret)
{
	ret->keyspace = c->keyspace;
	ret->table = c->table;
	if (!c->global) {
		ret->keyspace = wire_string(w);
		ret->table = wire_string(w);
	}
	ret->name = wire_string(w);
	size_t from = w->at;
	skip_option(w, 0, NULL);
	if (w->error)
		return;
	ret->option = span_of(w->data + from, w->at - from);
	ret->type = load_u16(ret->option.data);
}

int column_next(struct columns *c, struct column *ret)
{
	struct wire w = wire_of(c->rest);
	struct column column = {0};

	if (!c->count)
		return 0;
	read_column(&w, c, &column);
	if (w.error)
		return CQL_MALFORMED;
	c->rest = wire_rest(&w);
	c->count--;
	*ret = column;
	return 1;
}

/* [<global_table_spec>] and `count` specifications, which are checked here once, so that column_next() cannot
 * fail. */
static void read_columns(struct wire *w, uint32_t flags, uint32_t count, struct columns *ret)
{
	struct column column;

	*ret = (struct columns){0};
	if (flags & ROWS_NO_METADATA)
		return;
	ret->count = count;
	ret->global = flags & ROWS_GLOBAL_SPEC;
	if (ret->global) {
		ret->keyspace = wire_string(w);
		ret->table = wire_string(w);
	}
	size_t from = w->at;
	for (; count && !w->error; count--)
		read_column(w, ret, &column);
	ret->rest = span_of(w->data + from, w->at - from);
}

/* <metadata> of a PREPARED: of the binds (with partition key indexes from v4 on) or of the result. */
static void read_metadata(struct wire *w, uint8_t version, bool binds, struct prepared_result *p)
{
	size_t from = w->at;
	uint32_t flags = (uint32_t)wire_int(w);
	uint32_t count = wire_count(w);
	struct columns *columns = binds ? &p->binds : &p->result;

	/* Pages and changed metadata belong to rows; anything beyond is unknown. */
	if (flags & ~(uint32_t)(ROWS_GLOBAL_SPEC | ROWS_NO_METADATA))
		wire_fail(w, CQL_MALFORMED);
	if (binds && version >= 4) {
		uint32_t n = wire_count(w);
		if (n > UINT16_MAX)
			wire_fail(w, CQL_MALFORMED);
		p->pk_count = (uint16_t)n;
		p->pk_indexes = wire_span(w, (size_t)n * 2);
	}
	read_columns(w, flags, count, columns);
	*(binds ? &p->bind_metadata : &p->result_metadata) = span_of(w->data + from, w->at - from);
}

int result_prepared_parse(uint8_t version, struct span body, struct prepared_result *ret)
{
	struct wire w = wire_of(body);
	struct prepared_result p = {0};

	if (wire_int(&w) != RESULT_PREPARED)
		return CQL_MALFORMED;
	p.id = wire_string(&w);
	if (version >= 5)
		p.result_metadata_id = wire_string(&w);
	read_metadata(&w, version, true, &p);
	read_metadata(&w, version, false, &p);
	if (w.error)
		return CQL_MALFORMED;
	*ret = p;
	return 0;
}

bool columns_equal(struct columns a, struct columns b)
{
	struct column x, y;
	int more;

	if (a.count != b.count)
		return false;
	while ((more = column_next(&a, &x)) > 0) {
		if (column_next(&b, &y) <= 0 || !span_equal(x.name, y.name))
			return false;
		struct wire s = wire_of(x.option), t = wire_of(y.option);
		if (!option_equal(&s, &t, 0))
			return false;
	}
	return more == 0;
}

uint64_t columns_hash(struct columns c)
{
	uint64_t hash = c.count;
	struct option_hash h;
	struct column column;
	struct wire w;

	while (column_next(&c, &column) > 0) {
		hash = XXH3_64bits_withSeed(column.name.data, column.name.size, hash);
		XXH3_64bits_reset_withSeed(&h.state, hash);
		h.from = column.option.data;
		w = wire_of(column.option);
		skip_option(&w, 0, &h);
		hash_until(&h, column.option.data + column.option.size);
		hash = XXH3_64bits_digest(&h.state);
	}
	return hash;
}

int rows_parse(uint8_t version, struct span body, struct rows *ret)
{
	struct rows rows = {0};
	struct wire w = wire_of(body);

	if (rows_head_parse(version, body, &rows.head) || rows.head.flags & ROWS_NO_METADATA)
		return CQL_MALFORMED;
	wire_take(&w, rows.head.size);
	read_columns(&w, rows.head.flags, rows.head.columns, &rows.columns);
	rows.count = wire_count(&w);
	rows.rest = wire_rest(&w);
	/* Every cell has a length of 4 bytes. Without this a row of no columns could be counted two billion
	 * times. */
	if (w.error ||
	    (rows.count && (!rows.columns.count || rows.rest.size / 4 / rows.columns.count < rows.count)))
		return CQL_MALFORMED;
	*ret = rows;
	return 0;
}

int rows_next(struct rows *r, struct span *cells)
{
	struct wire w = wire_of(r->rest);

	if (!r->count)
		return 0;
	/* The head's number: the caller may have walked `columns` meanwhile. */
	for (uint32_t i = 0; i < r->head.columns; i++)
		cells[i] = wire_bytes(&w);
	if (w.error)
		return CQL_MALFORMED;
	r->rest = wire_rest(&w);
	r->count--;
	return 1;
}

/* The place of [applied] among the columns, or CQL_MALFORMED. */
static int applied_column(struct columns c)
{
	struct column column;

	for (int i = 0; column_next(&c, &column) > 0; i++)
		if (column.type == TYPE_BOOLEAN && span_equal(column.name, span_text("[applied]")))
			return i;
	return CQL_MALFORMED;
}

int result_applied(uint8_t version, struct span body_start)
{
	struct wire w = wire_of(body_start);
	struct rows_head head;
	struct columns columns;
	struct span cell = {0};
	int place = 0, rc = rows_head_parse(version, body_start, &head);

	if (rc)
		return rc;
	wire_take(&w, head.size);
	read_columns(&w, head.flags, head.columns, &columns);
	if (!w.error && !(head.flags & ROWS_NO_METADATA))
		place = applied_column(columns);
	if (place < 0 || !head.columns || (!wire_count(&w) && !w.error))
		return CQL_MALFORMED;
	for (int i = 0; i <= place; i++)
		cell = wire_bytes(&w);
	if (w.error)
		return w.error;
	return cell.size == 1 ? cell.data[0] != 0 : CQL_MALFORMED;
}
