/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes requests: one that was parsed, for another cluster, version or connection, and the agent's own.
 *
 * Encoding follows the parsed view field by field, because versions differ in the width of flags and in what
 * may stand behind them; values and texts are copied whole. What the version cannot express is refused, never
 * dropped: a write that means something else on the target is worse than one that is on record as missing.
 */
#include "cql/request.h"

#include "cql/wire.h"

/* What ids and keyspace of the other cluster may add; servers give ids of 16 bytes, names have at most 48. */
#define ID_ROOM 66u
#define FIXED_ROOM 128u

/* Whether a value is "not set", which v3 has no word for. */
static bool values_unset(struct span values, unsigned count, bool names)
{
	struct wire w = wire_of(values);

	for (; count && !w.error; count--) {
		if (names)
			wire_string(&w);
		int32_t n = wire_int(&w);
		if (n == -2)
			return true;
		if (n > 0)
			wire_take(&w, (size_t)n);
	}
	return false;
}

/*
 * The keyspace that goes with the request; data = NULL when none does. `own` is what the client sent along.
 * −ENOTSUP when the request depends on one that the version cannot carry.
 */
static int target_keyspace(struct span own, const struct request_target *t, uint8_t version, struct span *ret)
{
	struct span given = t->keyspace.size ? t->keyspace : (struct span){0};

	*ret = (struct span){0};
	if (version >= 5) {
		*ret = own.data ? own : given;
		return 0;
	}
	/* A keyspace in the target says that the caller's connection is bound to the right one. */
	return own.data && !given.data ? -ENOTSUP : 0;
}

static int encode_params(struct wire_out *o, const struct request *r, const struct request_target *t,
			 uint8_t version)
{
	const struct query_params *p = &r->params;
	bool batch = r->opcode == OP_BATCH;
	uint32_t flags = p->flags & (QUERY_SERIAL | QUERY_TIMESTAMP);
	struct span keyspace;

	if (!batch) {
		flags |= p->flags & (QUERY_VALUES | QUERY_SKIP_METADATA);
		if (t->skip_metadata)
			flags |= QUERY_SKIP_METADATA;
		if (p->flags & QUERY_VALUES)
			flags |= p->flags & QUERY_NAMES;
	}
	if (t->set_timestamp)
		flags |= QUERY_TIMESTAMP;
	if (target_keyspace(p->keyspace, t, version, &keyspace))
		return -ENOTSUP;
	if (keyspace.data)
		flags |= QUERY_KEYSPACE;
	if (version < 5 && p->flags & QUERY_NOW_IN_SECONDS)
		return -ENOTSUP;
	if (version >= 5 && (t->set_now || p->flags & QUERY_NOW_IN_SECONDS))
		flags |= QUERY_NOW_IN_SECONDS;
	if (version < 4 && flags & QUERY_VALUES &&
	    values_unset(p->values, p->values_count, flags & QUERY_NAMES))
		return -ENOTSUP;

	out_short(o, t->consistency < 0 ? p->consistency : (uint16_t)t->consistency);
	if (version >= 5)
		out_int(o, flags);
	else
		out_byte(o, (uint8_t)flags);
	if (flags & QUERY_VALUES) {
		out_short(o, p->values_count);
		out_raw(o, p->values);
	}
	if (flags & QUERY_SERIAL)
		out_short(o, p->serial_consistency);
	if (flags & QUERY_TIMESTAMP)
		out_long(o, t->set_timestamp ? t->timestamp : p->timestamp);
	if (flags & QUERY_KEYSPACE)
		out_string(o, keyspace);
	if (flags & QUERY_NOW_IN_SECONDS)
		out_int(o,
			(uint32_t)(p->flags & QUERY_NOW_IN_SECONDS ? p->now_in_seconds : t->now_in_seconds));
	return 0;
}

static int encode_execute(struct wire_out *o, const struct request *r, const struct request_target *t,
			  uint8_t version)
{
	out_string(o, t->id.size ? t->id : r->id);
	if (version >= 5) {
		struct span metadata_id =
		    t->result_metadata_id.size ? t->result_metadata_id : r->result_metadata_id;
		if (!metadata_id.size && r->version < 5)
			return -ENOTSUP;
		out_string(o, metadata_id);
	}
	return encode_params(o, r, t, version);
}

static int encode_batch(struct wire_out *o, const struct request *r, const struct request_target *t,
			uint8_t version)
{
	struct span cursor = r->batch_children, id;
	struct batch_child child;
	int rc;

	out_byte(o, r->batch_type);
	out_short(o, r->batch_count);
	while ((rc = batch_next(r->version, &cursor, &child)) > 0) {
		out_byte(o, child.prepared);
		if (!child.prepared) {
			out_long_string(o, child.text);
		} else {
			id = child.text;
			if (t->child_id && !t->child_id(t->context, child.text, &id))
				return -ENOENT;
			out_string(o, id);
		}
		if (version < 4 && values_unset(child.values, child.values_count, false))
			return -ENOTSUP;
		out_short(o, child.values_count);
		out_raw(o, child.values);
	}
	return rc < 0 ? -EINVAL : encode_params(o, r, t, version);
}

static int encode_prepare(struct wire_out *o, const struct request *r, const struct request_target *t,
			  uint8_t version)
{
	struct span keyspace;

	if (target_keyspace(r->prepare_keyspace, t, version, &keyspace))
		return -ENOTSUP;
	out_long_string(o, r->text);
	if (version < 5)
		return 0;
	out_int(o, keyspace.data != NULL);
	if (keyspace.data)
		out_string(o, keyspace);
	return 0;
}

ssize_t request_encode(const struct request *r, const struct request_target *t, uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);
	uint8_t version = t->version ? t->version : r->version;
	/* A client that opted in to a beta version did so for that version only. */
	uint8_t flags = version == r->version ? r->header_flags & FRAME_BETA : 0;
	bool payload = t->keep_payload && r->payload.size;
	int rc = 0;

	if (version < 3 || version > 5 || (payload && version < 4))
		return -ENOTSUP;
	if (payload) {
		flags = (uint8_t)(flags | FRAME_PAYLOAD);
		out_raw(&o, r->payload);
	}
	switch (r->opcode) {
	case OP_QUERY:
		out_long_string(&o, r->text);
		rc = encode_params(&o, r, t, version);
		break;
	case OP_PREPARE:
		rc = encode_prepare(&o, r, t, version);
		break;
	case OP_EXECUTE:
		rc = encode_execute(&o, r, t, version);
		break;
	case OP_BATCH:
		rc = encode_batch(&o, r, t, version);
		break;
	case OP_STARTUP:
	case OP_OPTIONS:
	case OP_REGISTER:
	case OP_AUTH_RESPONSE:
		/* These bodies are the same in every version. */
		out_raw(&o, r->body);
		break;
	default:
		return -ENOTSUP;
	}
	if (rc)
		return rc;
	return out_end(&o, (struct frame_header){
			       .version = version, .flags = flags, .stream = t->stream, .opcode = r->opcode});
}

size_t request_encode_bound(const struct request *r)
{
	return FRAME_HEADER_SIZE + r->body.size + FIXED_ROOM + 3 * ID_ROOM + (size_t)r->batch_count * ID_ROOM;
}

static ssize_t finish(struct wire_out *o, uint8_t version, int16_t stream, uint8_t opcode)
{
	return out_end(o, (struct frame_header){.version = version, .stream = stream, .opcode = opcode});
}

static size_t list_length(const char *const *list)
{
	size_t n = 0;

	while (list[n])
		n++;
	return n;
}

ssize_t request_write_options(uint8_t version, int16_t stream, uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	return finish(&o, version, stream, OP_OPTIONS);
}

ssize_t request_write_startup(uint8_t version, int16_t stream, const char *const *pairs, uint8_t *to,
			      size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);
	size_t count = list_length(pairs) / 2;

	out_short(&o, count);
	for (size_t i = 0; i < 2 * count; i++)
		out_string(&o, span_text(pairs[i]));
	return finish(&o, version, stream, OP_STARTUP);
}

ssize_t request_write_auth(uint8_t version, int16_t stream, struct span token, uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	out_long_string(&o, token);
	return finish(&o, version, stream, OP_AUTH_RESPONSE);
}

ssize_t request_write_query(uint8_t version, int16_t stream, struct span text, uint16_t consistency,
			    uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	out_long_string(&o, text);
	out_short(&o, consistency);
	if (version >= 5)
		out_int(&o, 0);
	else
		out_byte(&o, 0);
	return finish(&o, version, stream, OP_QUERY);
}

ssize_t request_write_prepare(uint8_t version, int16_t stream, struct span text, struct span keyspace,
			      uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	out_long_string(&o, text);
	if (version >= 5) {
		out_int(&o, keyspace.size != 0);
		if (keyspace.size)
			out_string(&o, keyspace);
	}
	return finish(&o, version, stream, OP_PREPARE);
}

ssize_t request_write_register(uint8_t version, int16_t stream, const char *const *events, uint8_t *to,
			       size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);
	size_t count = list_length(events);

	out_short(&o, count);
	for (size_t i = 0; i < count; i++)
		out_string(&o, span_text(events[i]));
	return finish(&o, version, stream, OP_REGISTER);
}
