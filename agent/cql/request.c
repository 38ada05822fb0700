/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads requests in place, see request.h: one pass over the body, nothing copied, and the offsets at which a
 * timestamp or another paging state would go. Encoding stands in request_encode.c.
 *
 * What a version does not define is malformed here although servers would overlook it: the agent must not
 * believe that it understood a request of which it saw only a part. The relay passes such a request on
 * untouched.
 */
#include "cql/request.h"

#include "cql/wire.h"

#define BATCH_FLAGS_FORBIDDEN (QUERY_VALUES | QUERY_SKIP_METADATA | QUERY_PAGE_SIZE | QUERY_PAGING_STATE)

/* [value]: −1 is null, −2 "not set" from v4 on. */
static void skip_value(struct wire *w, uint8_t version)
{
	int32_t n = wire_int(w);

	if (n >= 0)
		wire_take(w, (size_t)n);
	else if (n < (version >= 4 ? -2 : -1))
		wire_fail(w, CQL_MALFORMED);
}

/* `count` values, each with its name in front when `names`. */
static struct span read_values(struct wire *w, uint8_t version, unsigned count, bool names)
{
	size_t from = w->at;

	for (; count && !w->error; count--) {
		if (names)
			wire_string(w);
		skip_value(w, version);
	}
	return span_of(w->data + from, w->at - from);
}

static uint32_t read_flags(struct wire *w, uint8_t version)
{
	uint32_t flags = version >= 5 ? (uint32_t)wire_int(w) : wire_byte(w);
	uint32_t known = version >= 5 ? 0x1ff : 0x7f;

	if (flags & ~known)
		wire_fail(w, CQL_MALFORMED);
	return flags;
}

/* What <query_parameters> and the end of a BATCH have in common: everything after the paging state. */
static void read_params_tail(struct wire *w, struct query_params *p)
{
	if (p->flags & QUERY_SERIAL)
		p->serial_consistency = wire_short(w);
	p->timestamp_at = w->at;
	if (p->flags & QUERY_TIMESTAMP)
		p->timestamp = wire_long(w);
	if (p->flags & QUERY_KEYSPACE)
		p->keyspace = wire_string(w);
	if (p->flags & QUERY_NOW_IN_SECONDS)
		p->now_in_seconds = wire_int(w);
}

static void read_params(struct wire *w, uint8_t version, struct query_params *p)
{
	p->consistency_at = w->at;
	p->consistency = wire_short(w);
	p->flags_at = w->at;
	p->flags = read_flags(w, version);
	if (p->flags & QUERY_VALUES) {
		p->values_count = wire_short(w);
		p->values = read_values(w, version, p->values_count, p->flags & QUERY_NAMES);
	}
	if (p->flags & QUERY_PAGE_SIZE)
		p->page_size = wire_int(w);
	p->paging_at = w->at;
	if (p->flags & QUERY_PAGING_STATE)
		p->paging_state = wire_bytes(w);
	read_params_tail(w, p);
}

static void read_child(struct wire *w, uint8_t version, struct batch_child *c)
{
	uint8_t kind = wire_byte(w);

	if (kind > 1)
		wire_fail(w, CQL_MALFORMED);
	c->prepared = kind;
	c->text = kind ? wire_string(w) : wire_long_string(w);
	c->values_count = wire_short(w);
	c->values = read_values(w, version, c->values_count, false);
}

/*
 * The flag for named values stands behind the values that it would describe, so no server can use it:
 * Cassandra reads the children without names and ignores it, and a client that sends names gets an error. We
 * read what the server reads.
 */
static void read_batch(struct wire *w, struct request *r)
{
	struct batch_child child;

	r->batch_type = wire_byte(w);
	if (r->batch_type > 2)
		wire_fail(w, CQL_MALFORMED);
	r->batch_count = wire_short(w);
	size_t from = w->at;
	for (unsigned n = r->batch_count; n && !w->error; n--)
		read_child(w, r->version, &child);
	r->batch_children = span_of(w->data + from, w->at - from);
	r->params.consistency_at = w->at;
	r->params.consistency = wire_short(w);
	r->params.flags_at = w->at;
	r->params.flags = read_flags(w, r->version);
	if (r->params.flags & BATCH_FLAGS_FORBIDDEN)
		wire_fail(w, CQL_MALFORMED);
	r->params.paging_at = w->at;
	read_params_tail(w, &r->params);
}

static void read_prepare(struct wire *w, struct request *r)
{
	r->text = wire_long_string(w);
	if (r->version < 5)
		return;
	uint32_t flags = (uint32_t)wire_int(w);
	if (flags & ~1u)
		wire_fail(w, CQL_MALFORMED);
	if (flags & 1)
		r->prepare_keyspace = wire_string(w);
}

int request_parse(uint8_t version, uint8_t header_flags, uint8_t opcode, struct span body,
		  struct request *ret)
{
	struct request r = {.version = version, .opcode = opcode, .header_flags = header_flags, .body = body};
	struct wire w = wire_of(body);

	if (version < 3 || version > 5)
		return CQL_MALFORMED;
	if (opcode != OP_QUERY && opcode != OP_PREPARE && opcode != OP_EXECUTE && opcode != OP_BATCH) {
		*ret = r;
		return 0;
	}
	if (header_flags & FRAME_PAYLOAD) {
		if (version < 4)
			return CQL_MALFORMED;
		wire_skip_bytes_map(&w);
		r.payload = span_of(body.data, w.at);
	}
	switch (opcode) {
	case OP_QUERY:
		r.text = wire_long_string(&w);
		read_params(&w, version, &r.params);
		break;
	case OP_PREPARE:
		read_prepare(&w, &r);
		break;
	case OP_EXECUTE:
		r.id_at = w.at;
		r.id = wire_string(&w);
		if (version >= 5)
			r.result_metadata_id = wire_string(&w);
		read_params(&w, version, &r.params);
		break;
	case OP_BATCH:
		read_batch(&w, &r);
		break;
	}
	if (w.error || w.at != w.size)
		return CQL_MALFORMED;
	*ret = r;
	return 0;
}

int request_execute_id(uint8_t header_flags, struct span body_start, struct span *ret_id)
{
	struct wire w = wire_of(body_start);

	if (header_flags & FRAME_PAYLOAD)
		wire_skip_bytes_map(&w);
	struct span id = wire_string(&w);
	if (w.error)
		return w.error;
	*ret_id = id;
	return 0;
}

int batch_next(uint8_t version, struct span *cursor, struct batch_child *ret)
{
	struct wire w = wire_of(*cursor);
	struct batch_child child = {0};

	if (!cursor->size)
		return 0;
	read_child(&w, version, &child);
	if (w.error)
		return CQL_MALFORMED;
	*cursor = wire_rest(&w);
	*ret = child;
	return 1;
}

static bool looks_like_list(struct span value)
{
	struct wire w = wire_of(value);
	uint32_t n = wire_count(&w);

	if (!n || n > value.size / 4)
		return false;
	for (; n && !w.error; n--)
		wire_bytes(&w);
	return !w.error && w.at == w.size;
}

static bool binds_list(struct span values, unsigned count, bool names)
{
	struct wire w = wire_of(values);

	for (; count && !w.error; count--) {
		if (names)
			wire_string(&w);
		if (looks_like_list(wire_bytes(&w)))
			return true;
	}
	return false;
}

bool request_may_bind_list(const struct request *r)
{
	const struct query_params *p = &r->params;
	struct span cursor = r->batch_children;
	struct batch_child c;

	if (r->opcode == OP_QUERY)
		return binds_list(p->values, p->values_count, p->flags & QUERY_NAMES);
	while (r->opcode == OP_BATCH && batch_next(r->version, &cursor, &c) > 0)
		if (!c.prepared && binds_list(c.values, c.values_count, false))
			return true;
	return false;
}

unsigned request_pin_timestamp(const struct request *r, int64_t timestamp,
			       struct edit edits[REQUEST_EDITS_MAX])
{
	const struct query_params *p = &r->params;

	if ((r->opcode != OP_QUERY && r->opcode != OP_EXECUTE && r->opcode != OP_BATCH) ||
	    p->flags & QUERY_TIMESTAMP)
		return 0;
	uint32_t flags = p->flags | QUERY_TIMESTAMP;
	if (r->version >= 5) {
		edits[0] = (struct edit){.at = p->flags_at, .remove = 4, .size = 4};
		store_u32(edits[0].insert, flags);
	} else {
		edits[0] =
		    (struct edit){.at = p->flags_at, .remove = 1, .size = 1, .insert = {(uint8_t)flags}};
	}
	edits[1] = (struct edit){.at = p->timestamp_at, .size = 8};
	store_u32(edits[1].insert, (uint32_t)((uint64_t)timestamp >> 32));
	store_u32(edits[1].insert + 4, (uint32_t)timestamp);
	return 2;
}

const char *request_keyspace(const struct request *r, const char *session, char to[CQL_NAME_MAX + 1])
{
	struct span own = r->opcode == OP_PREPARE ? r->prepare_keyspace : r->params.keyspace;

	/* No cluster has one with a longer name. */
	if (own.size == 0 || own.size > CQL_NAME_MAX)
		return session;
	memcpy(to, own.data, own.size);
	to[own.size] = 0;
	return to;
}

ssize_t edits_growth(const struct edit *edits, unsigned count)
{
	ssize_t growth = 0;

	for (unsigned i = 0; i < count; i++)
		growth += edits[i].size - edits[i].remove;
	return growth;
}

bool startup_option(struct span body, const char *key, struct span *ret_value)
{
	struct wire w = wire_of(body);
	struct span wanted = span_text(key), value = {0};
	bool found = false;

	for (unsigned n = wire_short(&w); n && !w.error; n--) {
		struct span k = wire_string(&w), v = wire_string(&w);
		if (!w.error && span_equal(k, wanted)) {
			found = true;
			value = v;
		}
	}
	if (w.error || !found)
		return false;
	*ret_value = value;
	return true;
}

size_t startup_without(struct span body, const char *key, uint8_t *to)
{
	struct wire w = wire_of(body);
	struct span wanted = span_text(key);
	unsigned count = wire_short(&w), kept = 0;
	size_t size = 2;

	for (unsigned n = count; n && !w.error; n--) {
		size_t at = w.at;
		struct span k = wire_string(&w);

		wire_string(&w);
		if (w.error || span_equal(k, wanted))
			continue;
		memcpy(to + size, body.data + at, w.at - at);
		size += w.at - at;
		kept++;
	}
	if (w.error || w.at != body.size) {
		if (body.size)
			memcpy(to, body.data, body.size);
		return body.size;
	}
	to[0] = (uint8_t)(kept >> 8);
	to[1] = (uint8_t)kept;
	return size;
}

bool register_names(struct span body, struct span event)
{
	struct wire w = wire_of(body);

	for (unsigned n = wire_short(&w); n && !w.error; n--) {
		struct span name = wire_string(&w);

		if (!w.error && span_equal(name, event))
			return true;
	}
	return false;
}

size_t register_join(struct span had, struct span more, uint8_t *to, size_t capacity)
{
	struct wire w = wire_of(more);
	size_t before = had.size < 2 ? 2 : had.size, size = before;
	unsigned count = had.size < 2 ? 0 : load_u16(had.data), now = count;

	to[0] = to[1] = 0;
	if (count)
		memcpy(to, had.data, had.size);
	for (unsigned n = wire_short(&w); n && !w.error; n--) {
		struct span name = wire_string(&w);

		if (w.error || register_names(span_of(to, size), name) || 2 + name.size > capacity - size)
			continue;
		to[size] = (uint8_t)(name.size >> 8);
		to[size + 1] = (uint8_t)name.size;
		if (name.size)
			memcpy(to + size + 2, name.data, name.size);
		size += 2 + name.size;
		now++;
		to[0] = (uint8_t)(now >> 8);
		to[1] = (uint8_t)now;
	}
	if (!w.error)
		return size;
	to[0] = (uint8_t)(count >> 8);
	to[1] = (uint8_t)count;
	return before;
}
