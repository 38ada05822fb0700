/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/emit.h"

#include <string.h>

#include "cql/segment.h"
#include "net/conn.h"

/* Room that one more envelope may need: header, edits, tail. */
#define IOV_RESERVE 24
#define ARENA_RESERVE (EMIT_ARENA / 2)

void emit_begin(struct emit *e, struct conn *conn, bool segments, bool lz4)
{
	e->conn = conn;
	e->segments = segments;
	e->lz4 = lz4;
	e->count = e->open = 0;
	e->open_bytes = e->arena_used = 0;
	e->touched = false;
}

static void push(struct emit *e, const void *data, size_t size)
{
	if (e->open > e->count) {
		struct iovec *last = &e->iov[e->open - 1];

		if ((const uint8_t *)last->iov_base + last->iov_len == (const uint8_t *)data) {
			last->iov_len += size;
			e->open_bytes += size;
			return;
		}
	}
	e->iov[e->open++] = (struct iovec){(void *)data, size};
	e->open_bytes += size;
}

/* Without segments whatever is gathered is ready. */
static void settle(struct emit *e)
{
	if (!e->segments) {
		/* Merge across the border, too. */
		if (e->count > 0 && e->open > e->count) {
			struct iovec *a = &e->iov[e->count - 1], *b = &e->iov[e->count];

			if ((uint8_t *)a->iov_base + a->iov_len == (uint8_t *)b->iov_base) {
				a->iov_len += b->iov_len;
				memmove(b, b + 1, (size_t)(e->open - e->count - 1) * sizeof(*b));
				e->open--;
			}
		}
		e->count = e->open;
		e->open_bytes = 0;
		e->touched = false;
	}
}

void emit_bytes(struct emit *e, const void *data, size_t size)
{
	if (size == 0)
		return;
	push(e, data, size);
	settle(e);
	if (!e->segments && e->open > EMIT_IOV - IOV_RESERVE)
		emit_flush(e);
}

void emit_copy(struct emit *e, const void *data, size_t size)
{
	uint8_t *to = e->arena + e->arena_used;

	if (size == 0)
		return;
	memcpy(to, data, size);
	e->arena_used += size;
	e->touched = true;
	push(e, to, size);
	settle(e);
}

static bool tight(const struct emit *e)
{
	return e->open > EMIT_IOV - IOV_RESERVE || e->arena_used > ARENA_RESERVE;
}

/* The envelopes so far become a segment of their own; what follows can no longer go on as received. */
static void split(struct emit *e)
{
	emit_segment(e, span_of(NULL, 0), 0, true);
	emit_flush(e);
	e->touched = true;
}

void emit_envelope_begin(struct emit *e, size_t size, bool changed)
{
	if (e->segments && e->open > e->count && (e->touched || changed) && e->open_bytes + size > SEGMENT_PAYLOAD_MAX)
		split(e);
}

void emit_envelope_end(struct emit *e)
{
	if (!tight(e))
		return;
	if (e->segments && e->open > e->count) {
		split(e);
	} else {
		emit_flush(e);
	}
}

static void send_ready(struct emit *e, const struct iovec *iov, int count)
{
	if (count > 0 && e->conn)
		conn_send(e->conn, iov, count);
}

/* Too much for one segment (a large envelope): pieces, each sent at once, since this is never the hot path. */
static void wrap_large(struct emit *e)
{
	int at = e->count;
	size_t offset = 0, left = e->open_bytes;

	send_ready(e, e->iov, e->count);
	while (left > 0) {
		uint8_t header[SEGMENT_HEADER_LZ4], trailer[SEGMENT_TRAILER];
		struct iovec piece[EMIT_IOV + 2];
		size_t room = left < SEGMENT_PAYLOAD_MAX ? left : SEGMENT_PAYLOAD_MAX;
		int n = 1;
		struct segment_crc crc;

		piece[0] = (struct iovec){header, segment_header_write(header, e->lz4, (uint32_t)room, false)};
		segment_crc_begin(&crc);
		left -= room;
		while (room > 0) {
			size_t part = e->iov[at].iov_len - offset < room ? e->iov[at].iov_len - offset : room;

			piece[n] = (struct iovec){(uint8_t *)e->iov[at].iov_base + offset, part};
			segment_crc_add(&crc, piece[n].iov_base, part);
			n++;
			room -= part;
			offset += part;
			if (offset == e->iov[at].iov_len) {
				at++;
				offset = 0;
			}
		}
		segment_trailer_write(trailer, crc.value);
		piece[n++] = (struct iovec){trailer, sizeof(trailer)};
		send_ready(e, piece, n);
	}
	e->count = e->open = 0;
	e->arena_used = 0;
}

static void wrap(struct emit *e, bool whole)
{
	uint8_t *header = e->arena + e->arena_used, *trailer = header + SEGMENT_HEADER_LZ4;
	struct segment_crc crc;

	e->arena_used += SEGMENT_HEADER_LZ4 + SEGMENT_TRAILER;
	memmove(&e->iov[e->count + 1], &e->iov[e->count], (size_t)(e->open - e->count) * sizeof(e->iov[0]));
	segment_crc_begin(&crc);
	for (int i = e->count + 1; i <= e->open; i++)
		segment_crc_add(&crc, e->iov[i].iov_base, e->iov[i].iov_len);
	e->iov[e->count] = (struct iovec){header, segment_header_write(header, e->lz4, (uint32_t)e->open_bytes, whole)};
	segment_trailer_write(trailer, crc.value);
	e->open++;
	e->iov[e->open++] = (struct iovec){trailer, SEGMENT_TRAILER};
	e->count = e->open;
}

void emit_segment(struct emit *e, struct span received, size_t payload, bool whole)
{
	if (e->open > e->count) {
		if (received.data && !e->touched && e->open_bytes == payload) {
			e->iov[e->count] = (struct iovec){(void *)received.data, received.size};
			e->open = e->count + 1;
			/* Segments that follow each other in the buffer go on as one piece. */
			if (e->count > 0) {
				struct iovec *before = &e->iov[e->count - 1];

				if ((uint8_t *)before->iov_base + before->iov_len == received.data) {
					before->iov_len += received.size;
					e->open--;
				}
			}
			e->count = e->open;
		} else if (e->open_bytes > SEGMENT_PAYLOAD_MAX) {
			wrap_large(e);
		} else {
			wrap(e, whole);
		}
	}
	e->open = e->count;
	e->open_bytes = 0;
	e->touched = false;
	if (tight(e))
		emit_flush(e);
}

void emit_flush(struct emit *e)
{
	send_ready(e, e->iov, e->count);
	if (e->open > e->count) /* an unfinished segment stays */
		memmove(e->iov, &e->iov[e->count], (size_t)(e->open - e->count) * sizeof(e->iov[0]));
	else
		e->arena_used = 0;
	e->open -= e->count;
	e->count = 0;
}
