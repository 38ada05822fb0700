/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/route.h"

#include <stdlib.h>
#include <string.h>

#include "cql/response.h"
#include "relay/paging.h"
#include "relay/tap.h"
#include "relay/unpack.h"

/* At `at`, `remove` bytes of the body give way to `insert`. */
struct change {
	size_t at, remove;
	struct span insert;
};
#define CHANGES_MAX (REQUEST_EDITS_MAX + 4)

/* A body in scratch is copied up to this size, so that what was gathered before need not leave early for its sake. */
#define BRIEF_MAX 4096u

bool route_known(const struct analysis *a, enum side side)
{
	return !a->slot || prepared_on(a->slot->prepared, side) != NULL;
}

static struct span remote_id(const struct prepared_remote *r)
{
	return span_of(r->id, r->id_size);
}

/* EXECUTE: the side's own id and metadata id, where they differ from what the client knows. */
static unsigned change_ids(const struct analysis *a, enum side side, struct change *changes, uint8_t room[2 * (2 + PREPARED_ID_MAX)])
{
	const struct prepared_remote *r = prepared_on(a->slot->prepared, side);
	const struct prepared_remote *other = prepared_on(a->slot->prepared, side_other(side));
	const struct request *q = &a->request;
	unsigned n = 0;

	if (!span_equal(remote_id(r), q->id)) {
		room[0] = 0;
		room[1] = r->id_size;
		memcpy(room + 2, r->id, r->id_size);
		changes[n++] = (struct change){q->id_at, 2 + q->id.size, span_of(room, 2u + r->id_size)};
		room += 2 + r->id_size;
	}
	/* The metadata id that the client has from the other side is worth this side's, if both describe the same columns. */
	if (q->version >= 5 && other && r->result_id_size && r->result_hash == other->result_hash &&
	    span_equal(q->result_metadata_id, span_of(other->result_id, other->result_id_size)) &&
	    !span_equal(q->result_metadata_id, span_of(r->result_id, r->result_id_size))) {
		room[0] = 0;
		room[1] = r->result_id_size;
		memcpy(room + 2, r->result_id, r->result_id_size);
		changes[n++] = (struct change){q->id_at + 2 + q->id.size, 2 + q->result_metadata_id.size,
					       span_of(room, 2u + r->result_id_size)};
	}
	return n;
}

/* The client skips metadata that it has from the other side: where the columns differ it must get them (v5 tells by itself). */
static unsigned change_skip(const struct analysis *a, struct change *change, uint8_t room[1])
{
	const struct request *q = &a->request;

	if (q->version >= 5 || !a->slot || !(q->params.flags & QUERY_SKIP_METADATA) ||
	    !atomic_load_explicit(&a->slot->prepared->result_differs, memory_order_relaxed))
		return 0;
	room[0] = (uint8_t)(q->params.flags & ~(uint32_t)QUERY_SKIP_METADATA);
	*change = (struct change){q->params.flags_at, 1, span_of(room, 1)};
	return 1;
}

static unsigned change_paging(const struct analysis *a, struct change *change, uint8_t room[4])
{
	const struct request *q = &a->request;
	uint32_t size;

	if (!(q->params.flags & QUERY_PAGING_STATE) || !paging_is_target(q->params.paging_state))
		return 0;
	size = (uint32_t)(q->params.paging_state.size - PAGING_TAG_SIZE);
	room[0] = (uint8_t)(size >> 24);
	room[1] = (uint8_t)(size >> 16);
	room[2] = (uint8_t)(size >> 8);
	room[3] = (uint8_t)size;
	*change = (struct change){q->params.paging_at, 4 + PAGING_TAG_SIZE, span_of(room, 4)};
	return 1;
}

static bool child_on_side(void *context, struct span id, struct span *ret)
{
	struct session *s = ((void **)context)[0];
	enum side side = *(enum side *)((void **)context)[1];
	struct prepared_slot *slot = prepared_find(s->worker->prepared, id);
	const struct prepared_remote *r = slot ? prepared_on(slot->prepared, side) : NULL;

	if (!r)
		return false;
	*ret = remote_id(r);
	return true;
}

/* Whether some child's id is another one on that side. *ids gets what the client calls those that are not sent under that id. */
static bool batch_differs(struct session *s, const struct analysis *a, enum side side, struct batch_ids **ids)
{
	struct span cursor = a->request.batch_children, asked_cursor = a->asked_children;
	struct batch_child child, asked;
	bool differs = false;

	while (batch_next(a->request.version, &cursor, &child) > 0 && batch_next(a->request.version, &asked_cursor, &asked) > 0) {
		void *context[2] = {s, &side};
		struct span id;

		if (!child.prepared || !child_on_side(context, child.text, &id))
			continue;
		differs |= !span_equal(id, child.text);
		if (!span_equal(id, asked.text))
			batch_ids_add(ids, asked.text, id);
	}
	return differs;
}

/* `brief`: the body is valid only until this returns. */
static void emit_changed(struct session *s, enum side side, const struct frame_header *h, struct span body, bool brief,
			 const struct change *changes, unsigned count)
{
	struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);
	struct frame_header own = *h;
	uint8_t header[FRAME_HEADER_SIZE];
	size_t at = 0, size = body.size;
	bool copy = brief && body.size <= BRIEF_MAX;

	for (unsigned i = 0; i < count; i++)
		size = size - changes[i].remove + changes[i].insert.size;
	own.flags &= (uint8_t)~FRAME_COMPRESSED;
	own.length = (uint32_t)size;
	frame_header_write(header, &own);
	emit_envelope_begin(e, size + sizeof(header), true);
	emit_copy(e, header, sizeof(header));
	for (unsigned i = 0; i <= count; i++) {
		size_t to = i < count ? changes[i].at : body.size;

		(copy ? emit_copy : emit_bytes)(e, body.data + at, to - at);
		if (i == count)
			break;
		emit_copy(e, changes[i].insert.data, changes[i].insert.size);
		at = to + changes[i].remove;
	}
	if (!brief || copy) {
		emit_envelope_end(e);
		return;
	}
	if (e->segments)
		emit_segment(e, span_of(NULL, 0), 0, true);
	e->touched = e->segments;
	emit_flush(e);
}

void route_emit_body(struct session *s, enum side side, const struct frame_header *h, struct span body)
{
	emit_changed(s, side, h, body, /* brief= */ true, NULL, 0);
}

/* A BATCH whose children have other ids over there is written anew. Rare: ids differ only between unlike versions. */
static void emit_batch(struct session *s, enum side side, const struct frame_header *h, struct analysis *a,
		       const struct edit *edits, unsigned edit_count)
{
	void *context[2] = {s, &side};
	size_t capacity = request_encode_bound(&a->request);
	uint8_t *envelope = malloc(capacity);
	struct request_target t = {.version = s->version, .stream = h->stream, .consistency = -1, .keep_payload = true,
				   .child_id = child_on_side, .context = context};
	struct frame_header own;
	ssize_t n;

	if (edit_count) {
		/* The pinned timestamp is the last eight bytes that the edits insert. */
		const uint8_t *b = edits[edit_count - 1].insert + edits[edit_count - 1].size - 8;
		uint64_t v = 0;

		for (int i = 0; i < 8; i++)
			v = v << 8 | b[i];
		t.set_timestamp = true;
		t.timestamp = (int64_t)v;
	}
	n = envelope ? request_encode(&a->request, &t, envelope, capacity) : -1;
	if (n < 0 || frame_header_read(envelope, (size_t)n, &own) < 0) {
		free(envelope);
		session_close(s, CLOSE_MEMORY);
		return;
	}
	own.flags |= h->flags & FRAME_TRACING; /* it is the client's request still */
	route_emit_body(s, side, &own, span_of(envelope + FRAME_HEADER_SIZE, (size_t)n - FRAME_HEADER_SIZE));
	free(envelope);
}

void route_emit(struct session *s, enum side side, const struct frame_header *h, struct analysis *a, const uint8_t *envelope,
		size_t size, const struct edit *edits, unsigned edit_count, struct batch_ids **ids)
{
	struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);
	struct change changes[CHANGES_MAX];
	struct change page;
	uint8_t room[2 * (2 + PREPARED_ID_MAX)], paging[4], flags[1];
	unsigned n = 0, pages;

	if (h->opcode == OP_BATCH && (side != ORIGIN || s->worker->course.mirroring) && batch_differs(s, a, side, ids)) {
		emit_batch(s, side, h, a, edits, edit_count);
		return;
	}
	if (a->slot && prepared_on(a->slot->prepared, side))
		n += change_ids(a, side, changes, room);
	/* In the order of the body: ids, flags, paging state, timestamp. A write has no pages, but nothing keeps a client from naming one. */
	if (edit_count == 0)
		n += change_skip(a, &changes[n], flags);
	pages = change_paging(a, &page, paging);
	for (unsigned i = 0; i < edit_count; i++) {
		if (pages && edits[i].at > page.at) {
			changes[n++] = page;
			pages = 0;
		}
		changes[n++] = (struct change){edits[i].at, edits[i].remove, span_of(edits[i].insert, edits[i].size)};
	}
	if (pages)
		changes[n++] = page;
	if (n == 0 && !a->changed && !(a->compressed && unpack_needed(s, side))) {
		emit_envelope_begin(e, size, false);
		emit_bytes(e, envelope, size);
		emit_envelope_end(e);
		return;
	}
	struct frame_header own = *h;
	own.opcode = a->request.opcode; /* an EXECUTE may have become a QUERY */
	emit_changed(s, side, &own, a->request.body, a->compressed || a->changed, changes, n);
}
