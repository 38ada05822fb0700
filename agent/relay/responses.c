/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cluster's bytes → answers → the client.
 *
 *   header ─▶ whose answer is it? ─▶ how much of the body must be seen? ─▶ answer_judge (answer.c) ─▶ emit, changed where it must be
 *                                    nothing: it streams
 *
 * Most answers are never looked into: their bytes go on as they come, however large they are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cql/compress.h"
#include "cql/segment.h"
#include "relay/answer.h"
#include "relay/session.h"
#include "relay/unpack.h"

/* The client is gone: nothing more is emitted, since nobody would end and flush what is gathered before its bytes are freed. */
static bool unheard(const struct session *s)
{
	return !s->client_live || s->state == SESSION_ORPHAN;
}

/* The body's last byte has gone on: the request is over. */
static void body_over(struct upstream *u)
{
	struct session *s = u->session;

	s->streaming = -1;
	u->discard = false;
	if (u->ends_request) {
		u->ends_request = false;
		session_request_done(s, u->passing_stream);
	}
	if (s->deferred && !s->segments) { /* segments: at the segment's end */
		emit_flush(session_emit(s, EMIT_CLIENT));
		session_say_deferred(s);
	}
	upstream_update_reading(&s->up[side_other(u->side)]);
}

static void emit_answer_start(struct answer *a, const uint8_t *received, size_t there, size_t *ret_used)
{
	struct upstream *u = a->u;
	struct session *s = u->session;
	struct emit *e = session_emit(s, EMIT_CLIENT);
	struct frame_header h = a->h;
	uint8_t header[FRAME_HEADER_SIZE];

	emit_envelope_begin(e, FRAME_HEADER_SIZE + (a->h.length < SEGMENT_PAYLOAD_MAX ? a->h.length : SEGMENT_PAYLOAD_MAX) + a->insert_size,
			    a->changed);
	if (!a->changed) {
		emit_bytes(e, received, FRAME_HEADER_SIZE + there);
		*ret_used = FRAME_HEADER_SIZE + there;
		return;
	}
	if (a->compressed) {
		h.flags &= (uint8_t)~FRAME_COMPRESSED;
		h.length = (uint32_t)a->body.size;
	}
	h.length = (uint32_t)(h.length - a->change_remove + a->insert_size);
	frame_header_write(header, &h);
	emit_copy(e, header, sizeof(header));
	emit_bytes(e, a->body.data, a->change_at);
	emit_copy(e, a->insert, a->insert_size);
	if (a->compressed) {
		size_t rest = a->change_at + a->change_remove;

		emit_bytes(e, a->body.data + rest, a->body.size - rest);
		emit_flush(e);
		*ret_used = FRAME_HEADER_SIZE + a->h.length;
		return;
	}
	*ret_used = FRAME_HEADER_SIZE + a->change_at + a->change_remove;
}

/* v3/v4: a compressed body that must be seen. */
static int decompress(struct answer *a)
{
	struct session *s = a->u->session;
	int64_t plain = body_plain_size(a->u->compression, a->body, FRAME_BODY_MAX);
	uint8_t *to = plain >= 0 ? worker_plain(s->worker, (size_t)plain) : NULL;

	if (!to || body_decompress(a->u->compression, a->body, to, (size_t)plain) < 0)
		return CQL_MALFORMED;
	a->body = span_of(to, (size_t)plain);
	a->compressed = true;
	return 0;
}

static void switch_framing(struct session *s, struct upstream *u)
{
	if (s->version < 5)
		return;
	emit_flush(session_emit(s, EMIT_CLIENT));
	s->segments = true;
	u->segments = true;
	emit_begin(session_emit(s, EMIT_CLIENT), s->client_live ? &s->client : NULL, true, s->compression == COMPRESSION_LZ4);
}

/*
 * One answer's beginning at data[0 … size−1]. Returns bytes used; 0 = not enough yet (*ret_want says how much is);
 * negative = malformed.
 */
static ssize_t answer_start(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	struct answer a = {.u = u};
	size_t need, used, there;
	bool startup;
	int r;

	*ret_want = FRAME_HEADER_SIZE;
	r = frame_header_read(data, size, &a.h);
	if (r == CQL_INCOMPLETE)
		return 0;
	if (r < 0 || !a.h.response)
		return CQL_MALFORMED;
	a.e = a.h.opcode == OP_EVENT ? NULL : inflight_find(&s->inflight, a.h.stream);
	if (a.e && a.e->side != (uint8_t)u->side)
		a.e = NULL;
	if (s->streaming < 0 || s->streaming == (int)u->side) {
		/* ours */
	} else {
		*ret_want = 0; /* wait until the other side's answer is through */
		u->blocked = true;
		return 0;
	}
	need = answer_interesting(u, &a.h, a.e) ? answer_needed(&a.h, a.e) : 0;
	*ret_want = FRAME_HEADER_SIZE + need;
	if (size < *ret_want)
		return 0;
	there = size - FRAME_HEADER_SIZE < a.h.length ? size - FRAME_HEADER_SIZE : a.h.length;
	a.received = data;
	a.there = there;
	a.body = span_of(data + FRAME_HEADER_SIZE, there);
	if (need && (a.h.flags & FRAME_COMPRESSED) && s->version < 5 && a.h.length && decompress(&a) < 0)
		return CQL_MALFORMED;
	startup = a.e && a.e->kind == REQUEST_STARTUP && (a.h.opcode == OP_READY || a.h.opcode == OP_AUTHENTICATE);
	r = answer_judge(&a);
	if (r == 1) {
		*ret_want = FRAME_HEADER_SIZE + a.h.length;
		return 0;
	}
	if (r == -EACCES) {
		/* The other side does not take this client: it goes, or, if it is the primary already, the session does. */
		if (u->side == s->primary) {
			session_close(s, CLOSE_SWITCH);
		} else {
			u->failed = true;
			upstream_close(u); /* whoever waits for it goes on when it is closed */
		}
		return (ssize_t)size;
	}
	if (r < 0)
		return CQL_MALFORMED;
	if (s->state == SESSION_CLOSING)
		return (ssize_t)size;
	u->passing_stream = a.h.stream;
	u->ends_request = a.e != NULL && !a.continues;
	u->discard = a.drop || unheard(s);
	if (u->discard) {
		session_emit(s, EMIT_CLIENT)->touched = true;
		used = FRAME_HEADER_SIZE + there;
	} else {
		emit_answer_start(&a, data, there, &used);
	}
	u->passing = a.h.length - (used - FRAME_HEADER_SIZE);
	if (u->passing == 0) {
		emit_envelope_end(session_emit(s, EMIT_CLIENT));
		body_over(u);
	} else if (!u->discard) {
		s->streaming = (int)u->side;
	}
	if (startup)
		switch_framing(s, u);
	return (ssize_t)used;
}

/* Envelopes, whole or in parts. Returns bytes used; negative = malformed. */
static ssize_t answers(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	size_t at = 0;
	bool segments = u->segments;

	*ret_want = 0;
	while (at < size && s->state != SESSION_CLOSING && u->conn_live && !u->conn.closing) {
		if (u->passing) {
			size_t part = size - at < u->passing ? size - at : (size_t)u->passing;

			if (unheard(s)) /* since in the middle of this body */
				u->discard = true;
			if (!u->discard)
				emit_bytes(session_emit(s, EMIT_CLIENT), data + at, part);
			at += part;
			u->passing -= part;
			if (u->passing == 0) {
				/* With segments one_segment() ends it: this is the tail of an envelope, and no segment's whole content. */
				if (!u->discard && !s->segments)
					emit_envelope_end(session_emit(s, EMIT_CLIENT));
				body_over(u);
			}
			continue;
		}
		ssize_t used = answer_start(u, data + at, size - at, ret_want);

		if (used < 0)
			return used;
		if (used == 0)
			break;
		at += (size_t)used;
		*ret_want = 0;
		if (u->segments != segments)
			break; /* the handshake's end: what follows is framed */
	}
	return (ssize_t)at;
}

static ssize_t one_segment(struct upstream *u, const uint8_t *data, const struct segment *seg)
{
	struct session *s = u->session;
	struct emit *e = session_emit(s, EMIT_CLIENT);
	struct span payload = span_of(data + seg->header_size, seg->payload_size);
	size_t want;
	ssize_t used;
	uint8_t *plain = NULL;
	bool raw = true;

	if (segment_payload_check(data, seg) < 0)
		return CQL_MALFORMED;
	if (seg->plain_size) {
		plain = malloc(seg->plain_size);
		if (!plain || segment_decompress(payload.data, seg, plain) < 0) {
			free(plain);
			return CQL_MALFORMED;
		}
		payload = span_of(plain, seg->plain_size);
	}
	/* A large envelope whose head must be seen and does not fit: gathered whole first. */
	if (u->in_large.data) {
		if (payload.size > u->in_large.need - u->in_large.have) {
			/* Only a head was wanted, and more than that has come. */
			uint8_t *bigger = realloc(u->in_large.data, u->in_large.have + payload.size);

			if (!bigger) {
				free(plain);
				session_close(s, CLOSE_MEMORY);
				return seg->wire_size;
			}
			u->in_large.data = bigger;
			u->in_large.need = u->in_large.have + payload.size;
		}
		memcpy(u->in_large.data + u->in_large.have, payload.data, payload.size);
		u->in_large.have += payload.size;
		free(plain);
		if (u->in_large.have < u->in_large.need)
			return seg->wire_size;
		plain = u->in_large.data;
		payload = span_of(plain, u->in_large.need);
		u->in_large = (struct assembly){0};
		raw = false;
	}
	used = answers(u, payload.data, payload.size, &want);
	if (used >= 0 && s->state != SESSION_CLOSING && (size_t)used < payload.size) {
		if (seg->self_contained || used != 0 || want <= payload.size) {
			used = CQL_MALFORMED;
		} else {
			u->in_large.data = malloc(want);
			u->in_large.need = want;
			u->in_large.have = payload.size;
			if (u->in_large.data)
				memcpy(u->in_large.data, payload.data, payload.size);
			else
				session_close(s, CLOSE_MEMORY);
		}
	}
	if (used >= 0 && s->segments && e->conn)
		emit_segment(e, raw && !unpack_needed(s, u->side) ? span_of(data, seg->wire_size) : span_of(NULL, 0), payload.size,
			     raw ? seg->self_contained : u->passing == 0 && payload.size <= SEGMENT_PAYLOAD_MAX);
	if (plain) {
		emit_flush(e);
		free(plain);
	}
	if (used >= 0 && s->deferred && s->streaming < 0 && s->state != SESSION_CLOSING) {
		emit_flush(e);
		session_say_deferred(s);
	}
	return used < 0 ? used : (ssize_t)seg->wire_size;
}

ssize_t responses_consume(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	size_t at = 0;

	if (s->state == SESSION_OPAQUE) {
		emit_bytes(session_emit(s, EMIT_CLIENT), data, size);
		return (ssize_t)size;
	}
	if (!u->segments) {
		ssize_t used = answers(u, data, size, ret_want);

		if (used < 0 || !u->segments || s->state == SESSION_CLOSING)
			return used;
		at = (size_t)used;
	}
	bool lz4 = u->compression == COMPRESSION_LZ4;
	while (at < size && s->state != SESSION_CLOSING && u->conn_live && !u->conn.closing) {
		struct segment seg;
		int r;
		ssize_t used;

		if (s->streaming >= 0 && s->streaming != (int)u->side) {
			*ret_want = 0;
			u->blocked = true;
			break;
		}
		r = segment_header_read(data + at, size - at, lz4, &seg);
		if (r == CQL_MALFORMED)
			return r;
		if (r == CQL_INCOMPLETE) {
			*ret_want = lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
			break;
		}
		*ret_want = seg.wire_size;
		if (size - at < seg.wire_size)
			break;
		used = one_segment(u, data + at, &seg);
		if (used < 0)
			return used;
		at += seg.wire_size;
		*ret_want = 0;
	}
	return (ssize_t)at;
}
