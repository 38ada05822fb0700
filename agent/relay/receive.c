/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client bytes → whole envelopes.
 *
 *   bytes ─▶ [v5: segment, CRC, lz4] ─▶ header: version, direction, size ─▶ whole envelope ─▶ request_handle (requests.c)
 *
 * An incomplete unit stays where it is until the rest has come. When parsing stops inside a segment, what is left of its
 * envelopes is kept in the session's `tail`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cql/response.h"
#include "cql/segment.h"
#include "relay/requests_priv.h"
#include "relay/tap.h"
#include "relay/unpack.h"

#define PROTOCOL_HIGHEST 5
#define PROTOCOL_LOWEST 3

/* ---- the first bytes of a connection */

static enum verdict first_frame(struct session *s, const struct frame_header *h)
{
	uint8_t cap = atomic_load_explicit(&s->worker->relay->version_cap, memory_order_relaxed);
	uint8_t highest = cap && cap < PROTOCOL_HIGHEST ? cap : PROTOCOL_HIGHEST;

	if (h->response || (h->opcode != OP_OPTIONS && h->opcode != OP_STARTUP))
		return request_malformed(s, h->stream, "A connection begins with OPTIONS or STARTUP");
	if (h->version < PROTOCOL_LOWEST || h->version > highest || (h->flags & FRAME_BETA)) {
		uint8_t envelope[256];
		ssize_t n = response_write_version_error(h->version, highest, envelope, sizeof(envelope));

		if (n > 0)
			session_answer(s, envelope, (size_t)n);
		/* As a cluster does: the driver opens a new connection with a lower version. */
		session_close(s, CLOSE_PROTOCOL);
		return ENDED;
	}
	s->version = h->version;
	return GONE_ON;
}

static enum verdict dial_failed(struct session *s, const struct frame_header *h)
{
	char text[600], node[ADDR_TEXT_MAX];

	s->version = h->version >= PROTOCOL_LOWEST && h->version <= PROTOCOL_HIGHEST ? h->version : 4;
	snprintf(text, sizeof(text), "cqlferry cannot reach %s: %s", addr_format(&s->up[s->primary].address, node),
		 s->dial_error);
	request_refuse(s, h->stream, CQL_SERVER_ERROR, text);
	session_close(s, CLOSE_DIAL);
	return ENDED;
}

/* Checks a header before its body is there. */
static enum verdict check_header(struct session *s, const struct frame_header *h, int parsed)
{
	char text[160];

	if (s->dial_error)
		return dial_failed(s, h);
	if (s->version == 0) {
		enum verdict v = first_frame(s, h);

		if (v != GONE_ON)
			return v;
	}
	if (h->response || h->version != s->version)
		return request_malformed(s, h->stream, "Frame of another protocol version or direction on this connection");
	if (parsed == CQL_MALFORMED || h->length > s->worker->relay->options.frame_max) {
		metric_add(s->worker->metrics, METRIC_REFUSED_TOO_LARGE, 1);
		snprintf(text, sizeof(text), "cqlferry: a request of %u bytes is over the limit of %u (setting limits.frameBytes)",
			 h->length, s->worker->relay->options.frame_max);
		request_refuse(s, h->stream, CQL_INVALID, text);
		session_close(s, CLOSE_PROTOCOL);
		return ENDED;
	}
	return GONE_ON;
}

/*
 * Whole envelopes out of plain bytes. Stops at an incomplete one, or when the session stalls, is full or ends.
 * `wrapped`: they come from a v5 segment, where an incomplete envelope is an error.
 */
static enum verdict envelopes(struct session *s, const uint8_t *data, size_t size, bool wrapped, size_t *ret_used,
			      size_t *ret_want)
{
	size_t at = 0;

	*ret_used = 0;
	while (at < size) {
		struct frame_header h;
		int parsed = frame_header_read(data + at, size - at, &h);
		enum verdict v;

		*ret_want = FRAME_HEADER_SIZE;
		if (parsed == CQL_INCOMPLETE)
			return wrapped ? request_malformed(s, 0, "A segment ends inside an envelope") : GONE_ON;
		v = check_header(s, &h, parsed);
		if (v != GONE_ON)
			return v;
		*ret_want = FRAME_HEADER_SIZE + (size_t)h.length;
		if (size - at < *ret_want)
			return wrapped ? request_malformed(s, h.stream, "A segment ends inside an envelope") : GONE_ON;
		v = request_handle(s, &h, data + at, FRAME_HEADER_SIZE + h.length);
		if (v != GONE_ON || s->state == SESSION_CLOSING)
			return v == GONE_ON ? ENDED : v;
		at += FRAME_HEADER_SIZE + h.length;
		*ret_used = at;
		*ret_want = 0;
		if (s->stalled || session_full(s))
			return STALLED;
	}
	return GONE_ON;
}

static void end_segment(struct session *s, struct span received, size_t payload)
{
	for (int side = 0; side < SIDES; side++) {
		struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);

		if (e->conn)
			emit_segment(e, unpack_needed(s, (enum side)side) ? span_of(NULL, 0) : received, payload, true);
	}
}

static void flush_upstreams(struct session *s)
{
	for (int side = 0; side < SIDES; side++)
		emit_flush(session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET));
}

/* A part of an envelope that is larger than one segment. */
static enum verdict assemble(struct session *s, const uint8_t *payload, size_t size)
{
	struct assembly *a = &s->assembly;
	size_t used, want;
	enum verdict v;

	if (!a->data) {
		struct frame_header h;
		int parsed = frame_header_read(payload, size, &h);

		if (parsed == CQL_INCOMPLETE)
			return request_malformed(s, 0, "The first segment of a large envelope is shorter than a header");
		v = check_header(s, &h, parsed);
		if (v != GONE_ON)
			return v;
		a->need = FRAME_HEADER_SIZE + (size_t)h.length;
		a->have = 0;
		a->data = malloc(a->need);
		if (!a->data) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
	}
	if (size > a->need - a->have)
		return request_malformed(s, 0, "A large envelope's segments are longer than the envelope");
	memcpy(a->data + a->have, payload, size);
	a->have += size;
	if (a->have < a->need)
		return GONE_ON;
	v = envelopes(s, a->data, a->need, /* wrapped= */ true, &used, &want);
	if (v == ENDED)
		return v;
	if (used == 0) { /* stalled: it is parsed again from the tail */
		if (input_keep(&s->tail, a->data, a->need, a->need) < 0) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
	} else {
		end_segment(s, span_of(NULL, 0), 0);
		flush_upstreams(s);
	}
	free(a->data);
	*a = (struct assembly){0};
	return v;
}

static enum verdict one_segment(struct session *s, const uint8_t *data, const struct segment *seg)
{
	const uint8_t *payload = data + seg->header_size;
	size_t size = seg->payload_size, used, want;
	uint8_t *plain = NULL;
	enum verdict v;

	if (segment_payload_check(data, seg) < 0)
		return request_malformed(s, 0, "A segment's checksum (CRC32) does not match");
	if (seg->plain_size) {
		/* Not the worker's scratch: an envelope inside may need that for itself. */
		plain = malloc(seg->plain_size);
		if (!plain) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
		if (segment_decompress(payload, seg, plain) < 0) {
			free(plain);
			return request_malformed(s, 0, "A segment cannot be decompressed");
		}
		payload = plain;
		size = seg->plain_size;
	}
	if (!seg->self_contained) {
		v = assemble(s, payload, size);
	} else {
		v = envelopes(s, payload, size, /* wrapped= */ true, &used, &want);
		if (v == STALLED && used < size && input_keep(&s->tail, payload + used, size - used, 0) < 0) {
			session_close(s, CLOSE_MEMORY);
			v = ENDED;
		}
		end_segment(s, used == size ? span_of(data, seg->wire_size) : span_of(NULL, 0), size);
	}
	if (plain) {
		flush_upstreams(s);
		free(plain);
	}
	return v;
}

/* Envelopes that were left over when parsing stopped inside a segment. False: it stopped again. */
static bool consume_tail(struct session *s)
{
	struct input tail = s->tail;
	size_t used = 0, want;
	enum verdict v;

	s->tail = (struct input){0};
	v = envelopes(s, tail.data, tail.have, /* wrapped= */ true, &used, &want);
	end_segment(s, span_of(NULL, 0), 0);
	flush_upstreams(s);
	if (v == STALLED && used < tail.have && input_keep(&s->tail, tail.data + used, tail.have - used, 0) < 0)
		session_close(s, CLOSE_MEMORY);
	free(tail.data);
	return v == GONE_ON;
}

/* TLS: a handshake record. Nobody can look into it; it is relayed untouched. */
static bool looks_like_tls(const uint8_t *data, size_t size)
{
	return size >= 2 && data[0] == 0x16 && data[1] == 0x03;
}

size_t requests_consume(struct session *s, const uint8_t *data, size_t size, size_t *ret_want)
{
	size_t at = 0, used;

	if (s->version == 0 && s->state == SESSION_HANDSHAKE && looks_like_tls(data, size))
		session_set_state(s, SESSION_OPAQUE);
	if (s->state == SESSION_OPAQUE) {
		emit_bytes(session_emit(s, s->primary == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET), data, size);
		return size;
	}
	if (s->tail.have && !consume_tail(s))
		return 0;
	if (!s->segments) {
		envelopes(s, data, size, /* wrapped= */ false, &used, ret_want);
		/* The handshake of v5 is not framed; what is parsed here never follows it. */
		return used;
	}
	while (at < size && !s->stalled && s->state != SESSION_CLOSING) {
		struct segment seg;
		int r = segment_header_read(data + at, size - at, s->compression == COMPRESSION_LZ4, &seg);

		if (r == CQL_INCOMPLETE) {
			*ret_want = s->compression == COMPRESSION_LZ4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
			break;
		}
		if (r == CQL_MALFORMED) {
			request_malformed(s, 0, "A segment's header checksum (CRC24) does not match");
			break;
		}
		*ret_want = seg.wire_size;
		if (size - at < seg.wire_size)
			break;
		at += seg.wire_size;
		*ret_want = 0;
		if (one_segment(s, data + at - seg.wire_size, &seg) != GONE_ON)
			break;
	}
	return at;
}
