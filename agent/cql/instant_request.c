/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests with one value in place of now() and the like, see instant.h.
 *
 * The body is written anew from left to right: what was there is copied in as large pieces as possible, with other texts, ids and
 * values between them. What follows the changes (consistency, flags, timestamp …) is not looked at.
 */
#include "cql/instant_text.h"

static struct span piece(const struct request *r, size_t from, size_t to)
{
	return span_of(r->body.data + from, to - from);
}

static size_t offset(const struct request *r, const uint8_t *at)
{
	return (size_t)(at - r->body.data);
}

static void put_long_text(struct wire_out *o, struct span text, struct instant_source *source)
{
	uint8_t *size = out_take(o, 4);
	size_t from = o->at;

	instant_put_text(o, text, source);
	if (!o->full && o->at - from > FRAME_BODY_MAX)
		o->full = true;
	if (!o->full)
		store_u32(size, (uint32_t)(o->at - from));
}

static void put_instant(struct wire_out *o, struct instant_source *source, uint8_t kind)
{
	struct instant value;

	instant_take(source, (enum instant_kind)kind, &value);
	out_long_string(o, span_of(value.value, value.size));
}

static void copy_value(struct wire_out *o, struct wire *w)
{
	size_t from = w->at;
	int32_t n = wire_int(w);

	if (n > 0)
		wire_take(w, (size_t)n);
	out_raw(o, span_of(w->data + from, w->at - from));
}

/* The client's values and ours, each at its position. Where the client sends too few ours follow, and the server counts. */
static void put_values(struct wire_out *o, struct span values, unsigned count, const struct instant_place *place,
		       struct instant_source *source)
{
	struct wire w = wire_of(values);
	unsigned next = 0;

	out_short(o, count + place->count);
	for (unsigned i = 0; i < count + place->count && !o->full; i++) {
		if (next < place->count && (place->binds[next].position == i || i - next == count))
			put_instant(o, source, place->binds[next++].kind);
		else
			copy_value(o, &w);
	}
}

/* Names find their variables: ours may stand behind the others. */
static void put_named_values(struct wire_out *o, struct span values, unsigned count, const struct instant_place *place,
			     struct instant_source *source)
{
	char name[INSTANT_NAME_SIZE];

	out_short(o, count + place->count);
	out_raw(o, values);
	for (unsigned i = 0; i < place->count; i++) {
		instant_name(i, name);
		out_string(o, span_text(name));
		put_instant(o, source, place->binds[i].kind);
	}
}

static int change_text(struct wire_out *o, const struct request *r, struct instant_source *source)
{
	size_t at = offset(r, r->text.data) - 4;

	out_raw(o, piece(r, 0, at));
	put_long_text(o, r->text, source);
	out_raw(o, piece(r, at + 4 + r->text.size, r->body.size));
	return 0;
}

static int change_execute(struct wire_out *o, const struct request *r, const struct instant_change *how)
{
	const struct query_params *p = &r->params;
	struct instant_place place = {.id = r->id};
	size_t values_at = p->flags_at + (r->version >= 5 ? 4 : 1), rest = values_at;
	uint32_t flags = p->flags;

	how->place(how->context, r->id, &place);
	if (place.text.size) { /* from there on the two are the same */
		out_raw(o, piece(r, 0, r->id_at));
		put_long_text(o, place.text, how->source);
		out_raw(o, piece(r, p->consistency_at, r->body.size));
		return 0;
	}
	if (!(flags & QUERY_VALUES))
		flags &= ~(uint32_t)QUERY_NAMES; /* of none; ours have positions */
	if (place.count)
		flags |= QUERY_VALUES;
	if (p->values_count + place.count > UINT16_MAX)
		return -E2BIG;
	if (p->flags & QUERY_VALUES)
		rest = offset(r, p->values.data) + p->values.size;
	out_raw(o, piece(r, 0, r->id_at));
	out_string(o, place.id);
	out_raw(o, piece(r, r->id_at + 2 + r->id.size, p->flags_at));
	if (r->version >= 5)
		out_int(o, flags);
	else
		out_byte(o, (uint8_t)flags);
	if (flags & QUERY_NAMES)
		put_named_values(o, p->values, p->values_count, &place, how->source);
	else if (flags & QUERY_VALUES)
		put_values(o, p->values, p->values_count, &place, how->source);
	out_raw(o, piece(r, rest, r->body.size));
	return 0;
}

static int change_child(struct wire_out *o, const struct batch_child *c, const struct instant_change *how)
{
	struct instant_place place = {.id = c->text};

	if (c->prepared)
		how->place(how->context, c->text, &place);
	else
		place.text = c->text;
	out_byte(o, c->prepared && !place.text.size);
	if (c->prepared && !place.text.size)
		out_string(o, place.id);
	else
		put_long_text(o, place.text, how->source);
	if (c->values_count + place.count > UINT16_MAX)
		return -E2BIG;
	put_values(o, c->values, c->values_count, &place, how->source);
	return 0;
}

static int change_batch(struct wire_out *o, const struct request *r, const struct instant_change *how)
{
	struct span cursor = r->batch_children;
	size_t from = offset(r, cursor.data), to = from + cursor.size;
	struct batch_child child;
	int rc = 0;

	out_raw(o, piece(r, 0, from));
	while (!rc && batch_next(r->version, &cursor, &child) > 0)
		rc = change_child(o, &child, how);
	out_raw(o, piece(r, to, r->body.size));
	return rc;
}

ssize_t instant_request(const struct request *r, const struct instant_change *how, uint8_t *to, size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};
	int rc;

	switch (r->opcode) {
	case OP_QUERY:
		rc = change_text(&o, r, how->source);
		break;
	case OP_PREPARE:
		rc = change_text(&o, r, NULL);
		break;
	case OP_EXECUTE:
		rc = change_execute(&o, r, how);
		break;
	case OP_BATCH:
		rc = change_batch(&o, r, how);
		break;
	default:
		return -EINVAL;
	}
	if (rc < 0)
		return rc;
	return o.full ? -ENOSPC : (ssize_t)o.at;
}
