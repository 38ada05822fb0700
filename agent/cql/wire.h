/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cursors over the protocol's notations (section 3 of the specification): [int], [short], [string], [bytes]
 * …, all big endian. A message is read straight down and judged once at the end: after the first error every
 * read gives zero or an empty span and moves nothing. Private to agent/cql.
 *
 * `error` is CQL_INCOMPLETE when the bytes ran out and CQL_MALFORMED when they can never become right. A
 * parser of whole bodies folds the first into the second with wire_whole().
 */
#pragma once
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "base/span.h"
#include "cql/frame.h"

struct wire {
	const uint8_t *data;
	size_t size, at;
	int error; /* 0, CQL_INCOMPLETE or CQL_MALFORMED */
};

static inline struct wire wire_of(struct span body)
{
	/* Never NULL, so that an empty body needs no special case in pointer arithmetic. */
	return (struct wire){.data = body.data ? body.data : (const uint8_t *)"", .size = body.size};
}

static inline void wire_fail(struct wire *w, int error)
{
	if (!w->error)
		w->error = error;
}

/* The next `size` bytes, or NULL. */
static inline const uint8_t *wire_take(struct wire *w, size_t size)
{
	if (__builtin_expect(w->error || size > w->size - w->at, 0)) {
		wire_fail(w, CQL_INCOMPLETE);
		return NULL;
	}
	const uint8_t *p = w->data + w->at;
	w->at += size;
	return p;
}

static inline struct span wire_span(struct wire *w, size_t size)
{
	const uint8_t *p = wire_take(w, size);

	return p ? span_of(p, size) : (struct span){0};
}

static inline uint16_t load_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t load_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint8_t wire_byte(struct wire *w)
{
	const uint8_t *p = wire_take(w, 1);

	return p ? *p : 0;
}

static inline uint16_t wire_short(struct wire *w)
{
	const uint8_t *p = wire_take(w, 2);

	return p ? load_u16(p) : 0;
}

static inline int32_t wire_int(struct wire *w)
{
	const uint8_t *p = wire_take(w, 4);

	return p ? (int32_t)load_u32(p) : 0;
}

static inline int64_t wire_long(struct wire *w)
{
	const uint8_t *p = wire_take(w, 8);

	return p ? (int64_t)((uint64_t)load_u32(p) << 32 | load_u32(p + 4)) : 0;
}

/* [string] and [short bytes] */
static inline struct span wire_string(struct wire *w)
{
	return wire_span(w, wire_short(w));
}

/* An [int] that counts or measures something: negative or beyond any frame is malformed, however many bytes
 * follow. */
static inline uint32_t wire_count(struct wire *w)
{
	int32_t n = wire_int(w);

	if (n < 0 || (uint32_t)n > FRAME_BODY_MAX) {
		wire_fail(w, CQL_MALFORMED);
		return 0;
	}
	return (uint32_t)n;
}

/* [long string] */
static inline struct span wire_long_string(struct wire *w)
{
	return wire_span(w, wire_count(w));
}

/* [bytes]: a negative length is null (data = NULL). */
static inline struct span wire_bytes(struct wire *w)
{
	int32_t n = wire_int(w);

	if (n < 0)
		return (struct span){0};
	if ((uint32_t)n > FRAME_BODY_MAX)
		wire_fail(w, CQL_MALFORMED);
	return wire_span(w, (size_t)n);
}

/* [bytes map] */
static inline void wire_skip_bytes_map(struct wire *w)
{
	for (unsigned n = wire_short(w); n && !w->error; n--) {
		wire_string(w);
		wire_bytes(w);
	}
}

/* 0 when a whole body was read without error, CQL_MALFORMED otherwise. */
static inline int wire_whole(const struct wire *w)
{
	return w->error ? CQL_MALFORMED : 0;
}

static inline struct span wire_rest(const struct wire *w)
{
	return span_of(w->data + w->at, w->size - w->at);
}

/* The writing side: once something did not fit, nothing is written any more. */
struct wire_out {
	uint8_t *to;
	size_t capacity, at;
	bool full;
};

static inline uint8_t *out_take(struct wire_out *o, size_t size)
{
	if (o->full || size > o->capacity - o->at) {
		o->full = true;
		return NULL;
	}
	uint8_t *p = o->to + o->at;
	o->at += size;
	return p;
}

static inline void store_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static inline void out_byte(struct wire_out *o, uint8_t v)
{
	uint8_t *p = out_take(o, 1);

	if (p)
		*p = v;
}

static inline void out_short(struct wire_out *o, size_t v)
{
	uint8_t *p = out_take(o, 2);

	if (p) {
		p[0] = (uint8_t)(v >> 8);
		p[1] = (uint8_t)v;
	}
}

static inline void out_int(struct wire_out *o, uint32_t v)
{
	uint8_t *p = out_take(o, 4);

	if (p)
		store_u32(p, v);
}

static inline void out_long(struct wire_out *o, int64_t v)
{
	uint8_t *p = out_take(o, 8);

	if (p) {
		store_u32(p, (uint32_t)((uint64_t)v >> 32));
		store_u32(p + 4, (uint32_t)v);
	}
}

static inline void out_raw(struct wire_out *o, struct span s)
{
	uint8_t *p = out_take(o, s.size);

	if (p && s.size)
		memcpy(p, s.data, s.size);
}

/* [string] and [short bytes]; more than a [short] can count does not fit. */
static inline void out_string(struct wire_out *o, struct span s)
{
	if (s.size > UINT16_MAX)
		o->full = true;
	out_short(o, s.size);
	out_raw(o, s);
}

/* [long string] and [bytes] that are not null */
static inline void out_long_string(struct wire_out *o, struct span s)
{
	if (s.size > FRAME_BODY_MAX)
		o->full = true;
	out_int(o, (uint32_t)s.size);
	out_raw(o, s);
}

/* An envelope: the header's place is kept by out_begin() and filled in by out_end(), which returns the whole
 * size. */
static inline struct wire_out out_begin(uint8_t *to, size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};

	out_take(&o, FRAME_HEADER_SIZE);
	return o;
}

static inline ssize_t out_end(struct wire_out *o, struct frame_header h)
{
	if (o->full || o->at - FRAME_HEADER_SIZE > FRAME_BODY_MAX)
		return -ENOSPC;
	h.length = (uint32_t)(o->at - FRAME_HEADER_SIZE);
	frame_header_write(o->to, &h);
	return (ssize_t)o->at;
}
