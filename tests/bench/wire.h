/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - the CQL native protocol as far as the benchmark's two ends need it.
 *
 * Shared by fakecql.c (server) and cqlload.c (client). It is written apart from agent/cql on purpose: a
 * benchmark that used the code it measures would agree with that code's mistakes.
 *
 *   bytes off a socket ──deframer_feed()──▶ [v5: segments, both CRCs checked] ──▶ frames ──▶ on_frame()
 *
 * Frame (v3..v5):    version 1 · flags 1 · stream 2 · opcode 1 · length 4 · body                  big endian
 * Segment (v5):      length:17 self_contained:1 pad:6, CRC24 · payload ≤ 128 KiB-1 · CRC32     little endian
 *
 * A frame longer than `keep` is not held: its first `keep` bytes are, the rest is read and dropped, and
 * on_frame() runs when the last byte has come. So a 64 MiB result costs the load generator no memory.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <libdeflate.h>

enum { FRAME_HEAD = 9, SEGMENT_HEAD = 6, SEGMENT_MAX = 131071 };
/* The servers' default limit is 16 MiB for requests; results may be longer (we ask for 64 MiB). */
#define FRAME_MAX (256u << 20)

enum opcode {
	OP_ERROR = 0x00,
	OP_STARTUP = 0x01,
	OP_READY = 0x02,
	OP_AUTHENTICATE = 0x03,
	OP_OPTIONS = 0x05,
	OP_SUPPORTED = 0x06,
	OP_QUERY = 0x07,
	OP_RESULT = 0x08,
	OP_PREPARE = 0x09,
	OP_EXECUTE = 0x0A,
	OP_REGISTER = 0x0B,
	OP_EVENT = 0x0C,
	OP_BATCH = 0x0D,
	OP_AUTH_CHALLENGE = 0x0E,
	OP_AUTH_RESPONSE = 0x0F,
	OP_AUTH_SUCCESS = 0x10,
};

enum {
	RESULT_VOID = 1,
	RESULT_ROWS = 2,
	RESULT_SET_KEYSPACE = 3,
	RESULT_PREPARED = 4,
	RESULT_SCHEMA_CHANGE = 5
};
enum { ERR_PROTOCOL = 0x000A, ERR_UNAUTHORIZED = 0x2100, ERR_INVALID = 0x2200, ERR_UNPREPARED = 0x2500 };

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* ------------------------------------------------------------------ growing buffer */
struct buf {
	uint8_t *p;
	size_t n, cap;
};

static inline uint8_t *buf_room(struct buf *b, size_t more)
{
	if (b->cap - b->n < more) {
		size_t cap = b->cap ? b->cap : 256;

		while (cap - b->n < more)
			cap *= 2;
		b->p = realloc(b->p, cap);
		if (!b->p)
			die("out of memory (%zu bytes)", cap);
		b->cap = cap;
	}
	return b->p + b->n;
}

static inline void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

static inline void put(struct buf *b, const void *p, size_t n)
{
	if (!n)
		return;
	memcpy(buf_room(b, n), p, n);
	b->n += n;
}

static inline void be16_store(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void be32_store(uint8_t *p, uint32_t v)
{
	be16_store(p, v >> 16);
	be16_store(p + 2, v);
}

static inline uint32_t be16_load(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32_load(const uint8_t *p)
{
	return be16_load(p) << 16 | be16_load(p + 2);
}

static inline void put8(struct buf *b, uint32_t v)
{
	*buf_room(b, 1) = (uint8_t)v;
	b->n += 1;
}

static inline void put16(struct buf *b, uint32_t v)
{
	be16_store(buf_room(b, 2), v);
	b->n += 2;
}

static inline void put32(struct buf *b, uint32_t v)
{
	be32_store(buf_room(b, 4), v);
	b->n += 4;
}

static inline void put64(struct buf *b, uint64_t v)
{
	put32(b, (uint32_t)(v >> 32));
	put32(b, (uint32_t)v);
}

/* [string], [long string], [short bytes], [bytes] of the specification, section 3. */
static inline void put_string(struct buf *b, const char *s)
{
	put16(b, (uint32_t)strlen(s));
	put(b, s, strlen(s));
}

static inline void put_long_string(struct buf *b, const char *s)
{
	put32(b, (uint32_t)strlen(s));
	put(b, s, strlen(s));
}

static inline void put_short_bytes(struct buf *b, const void *p, size_t n)
{
	put16(b, (uint32_t)n);
	put(b, p, n);
}

static inline void put_bytes(struct buf *b, const void *p, size_t n)
{
	put32(b, (uint32_t)n);
	put(b, p, n);
}

/* ------------------------------------------------------------------ reading cursor */
struct cursor {
	const uint8_t *p, *end;
	bool bad; /* ran over the end: everything read since is zero or empty */
};

static inline const uint8_t *get(struct cursor *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || (size_t)(c->end - c->p) < n) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	return p;
}

static inline uint32_t get8(struct cursor *c)
{
	const uint8_t *p = get(c, 1);

	return p ? *p : 0;
}

static inline uint32_t get16(struct cursor *c)
{
	const uint8_t *p = get(c, 2);

	return p ? be16_load(p) : 0;
}

static inline uint32_t get32(struct cursor *c)
{
	const uint8_t *p = get(c, 4);

	return p ? be32_load(p) : 0;
}

static inline const uint8_t *get_short_bytes(struct cursor *c, size_t *ret_n)
{
	*ret_n = get16(c);
	return get(c, *ret_n);
}

/* ------------------------------------------------------------------ checksums, specification v5 section 2.2
 */
static uint32_t crc24_table[256];

static inline void wire_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i << 16;

		for (int bit = 0; bit < 8; bit++) {
			crc <<= 1;
			if (crc & 0x1000000)
				crc ^= 0x1974F0B;
		}
		crc24_table[i] = crc & 0xFFFFFF;
	}
}

static inline uint32_t crc24(const uint8_t *p, size_t n)
{
	uint32_t crc = 0x875060;

	while (n--)
		crc = (crc << 8 & 0xFFFFFF) ^ crc24_table[(crc >> 16 ^ *p++) & 0xFF];
	return crc;
}

/* CRC32 of the payload, begun over four fixed bytes so that zeros do not sum to zero. */
static inline uint32_t crc32_begin(void)
{
	static const uint8_t seed[4] = {0xFA, 0x2D, 0x55, 0xCA};

	return libdeflate_crc32(0, seed, sizeof seed);
}

static inline void le_store(uint8_t *p, uint32_t v, int n)
{
	for (int i = 0; i < n; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

static inline uint32_t le_load(const uint8_t *p, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static inline void segment_head(uint8_t *p, size_t n, bool whole)
{
	le_store(p, (uint32_t)n | (whole ? 1u << 17 : 0), 3);
	le_store(p + 3, crc24(p, 3), 3);
}

static inline void put_segment(struct buf *b, const uint8_t *p, size_t n, bool whole)
{
	uint8_t *s = buf_room(b, SEGMENT_HEAD + n + 4);

	segment_head(s, n, whole);
	memcpy(s + SEGMENT_HEAD, p, n);
	le_store(s + SEGMENT_HEAD + n, libdeflate_crc32(crc32_begin(), p, n), 4);
	b->n += SEGMENT_HEAD + n + 4;
}

/* Appends frames (whole ones, back to back) as segments: small ones together, a larger one as a series of its
 * own. */
static inline void put_segments(struct buf *b, const uint8_t *p, size_t n)
{
	while (n) {
		size_t first = FRAME_HEAD + be32_load(p + 5), take = 0, part;

		while (take < n && take + FRAME_HEAD + be32_load(p + take + 5) <= SEGMENT_MAX)
			take += FRAME_HEAD + be32_load(p + take + 5);
		if (take)
			put_segment(b, p, take, true);
		for (; !take && first; first -= part) {
			part = first < SEGMENT_MAX ? first : SEGMENT_MAX;
			put_segment(b, p, part, false);
			p += part;
			n -= part;
		}
		p += take;
		n -= take;
	}
}

/* ------------------------------------------------------------------ frames out */
/* Begins a frame; the returned mark goes to frame_end(), which fills in the length. */
static inline size_t frame_begin(struct buf *b, int version, int stream, int opcode)
{
	uint8_t *p = buf_room(b, FRAME_HEAD);
	size_t mark = b->n;

	p[0] = (uint8_t)version;
	p[1] = 0;
	be16_store(p + 2, (uint32_t)stream);
	p[4] = (uint8_t)opcode;
	b->n += FRAME_HEAD;
	return mark;
}

static inline void frame_end(struct buf *b, size_t mark)
{
	be32_store(b->p + mark + 5, (uint32_t)(b->n - mark - FRAME_HEAD));
}

/* ------------------------------------------------------------------ frames in */
struct frame {
	int version; /* with the direction bit */
	int flags, stream, opcode;
	uint32_t length;     /* of the body as announced */
	const uint8_t *body; /* borrowed: dies with the callback */
	size_t held;	     /* bytes of body that are there: length, or less for a frame beyond `keep` */
};

struct deframer {
	bool segmented; /* may be set inside on_frame(): holds from the next byte on */
	size_t keep;
	struct buf part;    /* beginning of a frame: head and at most `keep` bytes of body */
	struct buf segment; /* beginning of a segment */
	uint64_t skip;	    /* bytes of the current frame still to drop */
	uint64_t frames;    /* that have come */
	int (*on_frame)(void *arg, const struct frame *f); /* 0, or -errno to stop */
	void *arg;
};

static inline void deframer_done(struct deframer *d)
{
	buf_free(&d->part);
	buf_free(&d->segment);
}

static inline int deframer_emit(struct deframer *d, const uint8_t *p, size_t held)
{
	struct frame f = {.version = p[0],
			  .flags = p[1],
			  .stream = (int16_t)be16_load(p + 2),
			  .opcode = p[4],
			  .length = be32_load(p + 5),
			  .body = p + FRAME_HEAD,
			  .held = held};

	d->frames++;
	return d->on_frame(d->arg, &f);
}

/* Takes bytes of the frame stream; stops early only when segmentation begins. Returns consumed or -errno. */
static inline ssize_t deframer_frames(struct deframer *d, const uint8_t *p, size_t n)
{
	const uint8_t *start = p, *end = p + n;
	bool segmented = d->segmented;
	int err = 0;

	while (p < end && !err && d->segmented == segmented) {
		size_t left = (size_t)(end - p), take, want;

		if (d->skip) {
			take = left < d->skip ? left : (size_t)d->skip;
			p += take;
			d->skip -= take;
			if (!d->skip) {
				err = deframer_emit(d, d->part.p, d->part.n - FRAME_HEAD);
				d->part.n = 0;
			}
			continue;
		}
		if (!d->part.n && left >= FRAME_HEAD && left - FRAME_HEAD >= be32_load(p + 5)) {
			take = be32_load(p + 5);
			err = deframer_emit(d, p, take);
			p += FRAME_HEAD + take;
			continue;
		}
		want = FRAME_HEAD;
		if (d->part.n >= FRAME_HEAD) {
			size_t length = be32_load(d->part.p + 5);

			if (length > FRAME_MAX)
				return -EPROTO;
			want += length < d->keep ? length : d->keep;
		}
		take = want - d->part.n < left ? want - d->part.n : left;
		put(&d->part, p, take);
		p += take;
		if (d->part.n < want || (want == FRAME_HEAD && be32_load(d->part.p + 5)))
			continue;
		d->skip = be32_load(d->part.p + 5) - (want - FRAME_HEAD);
		if (!d->skip) {
			err = deframer_emit(d, d->part.p, d->part.n - FRAME_HEAD);
			d->part.n = 0;
		}
	}
	return err ? err : p - start;
}

/*
 * One segment that is complete at p: checks both sums and how frames lie in it, hands the payload on. A
 * self-contained one holds whole frames; the others hold a single frame, which ends with the last of them.
 * Cassandra stalls on anything else, so it is an error here.
 */
static inline int deframer_segment(struct deframer *d, const uint8_t *p, size_t payload)
{
	const uint8_t *body = p + SEGMENT_HEAD;
	bool whole = le_load(p, 3) & 1u << 17, between = !d->part.n && !d->skip;
	uint64_t frames = d->frames;
	ssize_t r;

	if (libdeflate_crc32(crc32_begin(), body, payload) != le_load(body + payload, 4))
		return -EBADMSG;
	if (whole && !between)
		return -EPROTO;
	r = deframer_frames(d, body, payload);
	if (r < 0)
		return (int)r;
	between = !d->part.n && !d->skip;
	frames = d->frames - frames;
	return (whole ? between : frames == 0 || (frames == 1 && between)) ? 0 : -EPROTO;
}

/* Feeds what came from the socket. 0, or -EPROTO/-EBADMSG/what on_frame() returned: the connection is lost.
 */
static inline int deframer_feed(struct deframer *d, const uint8_t *p, size_t n)
{
	while (n && !d->segmented) {
		ssize_t r = deframer_frames(d, p, n);

		if (r < 0)
			return (int)r;
		p += r;
		n -= (size_t)r;
	}
	while (n) {
		bool direct = !d->segment.n;
		const uint8_t *s = direct ? p : d->segment.p;
		size_t have = direct ? n : d->segment.n, total = SEGMENT_HEAD, take;
		int err;

		if (have >= SEGMENT_HEAD) {
			if (crc24(s, 3) != le_load(s + 3, 3))
				return -EBADMSG;
			total += (le_load(s, 3) & SEGMENT_MAX) + 4;
		}
		if (direct && have >= SEGMENT_HEAD && have >= total) {
			err = deframer_segment(d, s, total - SEGMENT_HEAD - 4);
			if (err)
				return err;
			p += total;
			n -= total;
			continue;
		}
		take = total - d->segment.n < n ? total - d->segment.n : n;
		put(&d->segment, p, take);
		p += take;
		n -= take;
		if (total > SEGMENT_HEAD && d->segment.n == total) {
			err = deframer_segment(d, d->segment.p, total - SEGMENT_HEAD - 4);
			if (err)
				return err;
			d->segment.n = 0;
		}
	}
	return 0;
}

#endif
