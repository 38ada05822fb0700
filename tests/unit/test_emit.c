// SPDX-License-Identifier: Apache-2.0
/*
 * What comes out of an emit is decoded again and must be the envelopes that were to go on, in order: random envelopes,
 * kept, changed and dropped, without segments (v3/v4) and with them (v5, plain and LZ4), also larger than a segment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cql/frame.h"
#include "cql/segment.h"
#include "net/conn.h"
#include "relay/emit.h"

#define INSERT "eleven byte"
#define INSERT_SIZE 11u

struct bytes {
	uint8_t *data;
	size_t size, capacity;
};

static uint64_t state;

static uint32_t random_below(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % limit;
}

static void add(struct bytes *b, const void *data, size_t size)
{
	if (b->size + size > b->capacity) {
		b->capacity = (b->size + size) * 2;
		b->data = realloc(b->data, b->capacity);
		assert_non_null(b->data);
	}
	if (size)
		memcpy(b->data + b->size, data, size);
	b->size += size;
}

/* ---- a connection whose other end keeps what comes */

static uv_loop_t loop;
static struct conn conn;
static int other_end;
static struct bytes received;
static struct emit *e;

static void ignore(struct conn *c)
{
	(void)c;
}

static void failed(struct conn *c, int error)
{
	(void)c;
	fail_msg("the connection failed: %d", error);
}

static const struct conn_ops ops = {.readable = ignore, .drained = ignore, .failed = failed, .closed = ignore};

static void take(void)
{
	static uint8_t chunk[64 << 10];
	ssize_t n;

	while ((n = recv(other_end, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0)
		add(&received, chunk, (size_t)n);
}

static void take_all(void)
{
	do {
		uv_run(&loop, UV_RUN_NOWAIT);
		take();
	} while (conn.queued);
	take();
}

static int setup(void **unused)
{
	int pair[2];

	(void)unused;
	e = calloc(1, sizeof(*e));
	uv_loop_init(&loop);
	if (!e || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	other_end = pair[1];
	received.size = 0;
	return conn_init(&conn, &loop, stream_plain(pair[0]), &ops, NULL);
}

static int teardown(void **unused)
{
	(void)unused;
	conn_close(&conn);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	close(other_end);
	free(e);
	free(received.data);
	received = (struct bytes){0};
	return 0;
}

/* ---- envelopes and what is done with them */

static void make_envelope(struct bytes *to, size_t body)
{
	struct frame_header h = {.version = 5, .stream = (int16_t)random_below(32768), .opcode = OP_QUERY, .length = (uint32_t)body};
	uint8_t header[FRAME_HEADER_SIZE], *fill = malloc(body + 1);
	uint8_t seed = (uint8_t)random_below(256);

	frame_header_write(header, &h);
	add(to, header, sizeof(header));
	for (size_t i = 0; i < body; i++)
		fill[i] = (uint8_t)(seed + i / 3 + (i % 97 == 0 ? random_below(256) : 0));
	add(to, fill, body);
	free(fill);
}

enum fate { KEEP, CHANGE, DROP };

/* Emits one envelope as relay and route do; what should arrive goes to `expected`. */
static void emit_one(const uint8_t *envelope, size_t size, enum fate fate, struct bytes *expected)
{
	struct frame_header h = {0};
	uint8_t header[FRAME_HEADER_SIZE];
	size_t at;

	if (fate == DROP)
		return;
	if (fate == KEEP) {
		emit_envelope_begin(e, size, false);
		emit_bytes(e, envelope, size);
		emit_envelope_end(e);
		add(expected, envelope, size);
		return;
	}
	frame_header_read(envelope, size, &h);
	at = random_below((uint32_t)h.length + 1);
	h.length += INSERT_SIZE;
	frame_header_write(header, &h);
	emit_envelope_begin(e, size + INSERT_SIZE, true);
	emit_copy(e, header, sizeof(header));
	emit_bytes(e, envelope + FRAME_HEADER_SIZE, at);
	emit_copy(e, INSERT, INSERT_SIZE);
	emit_bytes(e, envelope + FRAME_HEADER_SIZE + at, size - FRAME_HEADER_SIZE - at);
	emit_envelope_end(e);
	add(expected, header, sizeof(header));
	add(expected, envelope + FRAME_HEADER_SIZE, at);
	add(expected, INSERT, INSERT_SIZE);
	add(expected, envelope + FRAME_HEADER_SIZE + at, size - FRAME_HEADER_SIZE - at);
}

/* ---- segments */

/* Plain, or LZ4-compressed when that is smaller. */
static void make_segment(struct bytes *to, const uint8_t *payload, size_t size, bool lz4, bool whole)
{
	uint8_t header[8], trailer[SEGMENT_TRAILER];
	char *packed = lz4 ? malloc((size_t)LZ4_compressBound((int)size)) : NULL;
	int n = lz4 && random_below(4) ? LZ4_compress_default((const char *)payload, packed, (int)size, LZ4_compressBound((int)size)) : 0;

	if (n > 0 && (size_t)n < size) {
		uint64_t bits = (uint64_t)n | (uint64_t)size << 17 | (uint64_t)whole << 34;
		uint32_t crc;

		for (int i = 0; i < 5; i++)
			header[i] = (uint8_t)(bits >> 8 * i);
		crc = segment_crc24(header, 5);
		for (int i = 0; i < 3; i++)
			header[5 + i] = (uint8_t)(crc >> 8 * i);
		add(to, header, 8);
		add(to, packed, (size_t)n);
		segment_trailer_write(trailer, segment_crc32((uint8_t *)packed, (size_t)n));
	} else {
		add(to, header, segment_header_write(header, lz4, (uint32_t)size, whole));
		add(to, payload, size);
		segment_trailer_write(trailer, segment_crc32(payload, size));
	}
	add(to, trailer, sizeof(trailer));
	free(packed);
}

/* Segments → envelopes. Says what a strict receiver would not take. */
static void decode(const struct bytes *wire, bool lz4, struct bytes *ret)
{
	static uint8_t plain[SEGMENT_PAYLOAD_MAX];
	size_t at = 0, large_left = 0;

	while (at < wire->size) {
		struct segment seg;
		const uint8_t *payload;
		size_t size;

		assert_true(segment_header_read(wire->data + at, wire->size - at, lz4, &seg) > 0);
		assert_true(seg.wire_size <= wire->size - at);
		assert_int_equal(segment_payload_check(wire->data + at, &seg), 0);
		payload = wire->data + at + seg.header_size;
		size = seg.payload_size;
		if (seg.plain_size) {
			assert_int_equal(segment_decompress(payload, &seg, plain), 0);
			payload = plain;
			size = seg.plain_size;
		}
		if (seg.self_contained) {
			assert_int_equal(large_left, 0); /* nothing may come between the parts of a large envelope */
			for (size_t i = 0; i < size;) {
				struct frame_header h = {0};

				assert_int_equal(frame_header_read(payload + i, size - i, &h), FRAME_HEADER_SIZE);
				i += FRAME_HEADER_SIZE + h.length;
				assert_true(i <= size);
			}
		} else if (large_left == 0) {
			struct frame_header h = {0};

			assert_int_equal(frame_header_read(payload, size, &h), FRAME_HEADER_SIZE);
			/* Servers wait for a second part. */
			assert_true(FRAME_HEADER_SIZE + (size_t)h.length > size);
			large_left = FRAME_HEADER_SIZE + h.length - size;
		} else {
			assert_true(size <= large_left);
			large_left -= size;
		}
		add(ret, payload, size);
		at += seg.wire_size;
	}
	assert_int_equal(large_left, 0);
}

static void compare(const struct bytes *a, const struct bytes *b)
{
	assert_int_equal(a->size, b->size);
	if (a->size)
		assert_memory_equal(a->data, b->data, a->size);
}

static void without_segments(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 300; round++) {
		struct bytes input = {0}, expected = {0};
		size_t offsets[400];
		unsigned count = 1 + random_below(300);

		state = 77 + round;
		received.size = 0;
		for (unsigned i = 0; i < count; i++) {
			offsets[i] = input.size;
			make_envelope(&input, random_below(round % 7 == 0 ? 20000 : 200));
		}
		offsets[count] = input.size;
		emit_begin(e, &conn, false, false);
		for (unsigned i = 0; i < count; i++)
			emit_one(input.data + offsets[i], offsets[i + 1] - offsets[i],
				 round % 3 == 0 ? KEEP : (enum fate)random_below(3), &expected);
		emit_flush(e);
		take_all();
		compare(&received, &expected);
		if (round % 3 == 0)
			compare(&received, &input);
		free(input.data);
		free(expected.data);
	}
}

/* One received segment of whole envelopes; `fates`: none = all kept. */
static bool pass_segment(const uint8_t *wire, bool lz4, bool mixed, bool say_dropped, struct bytes *expected)
{
	struct segment seg;
	const uint8_t *payload;
	size_t size;
	uint8_t *plain = NULL;
	bool untouched = true;

	assert_true(segment_header_read(wire, 8, lz4, &seg) > 0);
	payload = wire + seg.header_size;
	size = seg.payload_size;
	if (seg.plain_size) {
		plain = malloc(seg.plain_size);
		assert_int_equal(segment_decompress(payload, &seg, plain), 0);
		payload = plain;
		size = seg.plain_size;
	}
	for (size_t at = 0; at < size;) {
		enum fate fate = mixed ? (enum fate)random_below(3) : KEEP;
		struct frame_header h = {0};
		size_t whole;

		frame_header_read(payload + at, size - at, &h);
		whole = FRAME_HEADER_SIZE + h.length;
		emit_one(payload + at, whole, fate, expected);
		untouched = untouched && fate == KEEP;
		if (fate == DROP && say_dropped)
			e->touched = true;
		at += whole;
	}
	emit_segment(e, span_of(wire, seg.wire_size), size, true);
	if (plain) {
		emit_flush(e);
		free(plain);
	}
	return untouched;
}

static void with_segments(bool lz4)
{
	for (unsigned round = 0; round < 250; round++) {
		struct bytes input = {0}, expected = {0}, decoded = {0};
		size_t offsets[40];
		unsigned count = 1 + random_below(30);
		bool mixed = round % 3, untouched = true;

		state = 4711 + round;
		received.size = 0;
		for (unsigned i = 0; i < count; i++) {
			struct bytes payload = {0};
			/* Many small ones, a few that fill the segment to its last byte. */
			unsigned want = 1 + random_below(round % 5 == 0 ? 300 : 12);

			for (unsigned k = 0; k < want && payload.size + FRAME_HEADER_SIZE + 600 < SEGMENT_PAYLOAD_MAX; k++)
				make_envelope(&payload, random_below(600));
			if (random_below(6) == 0)
				make_envelope(&payload, SEGMENT_PAYLOAD_MAX - payload.size - FRAME_HEADER_SIZE);
			offsets[i] = input.size;
			make_segment(&input, payload.data, payload.size, lz4, true);
			free(payload.data);
		}
		emit_begin(e, &conn, true, lz4);
		for (unsigned i = 0; i < count; i++)
			untouched &= pass_segment(input.data + offsets[i], lz4, mixed && random_below(2), round & 1, &expected);
		emit_flush(e);
		take_all();
		if (untouched)
			compare(&received, &input);
		decode(&received, lz4, &decoded);
		compare(&decoded, &expected);
		free(input.data);
		free(expected.data);
		free(decoded.data);
	}
}

static void segments(void **unused)
{
	(void)unused;
	with_segments(false);
}

static void lz4_segments(void **unused)
{
	(void)unused;
	with_segments(true);
}

/* An envelope that was gathered from several segments goes out in segments of its own. */
static void large_envelopes_are_wrapped(void **unused)
{
	static const size_t sizes[] = {SEGMENT_PAYLOAD_MAX - INSERT_SIZE - 1, SEGMENT_PAYLOAD_MAX - INSERT_SIZE, SEGMENT_PAYLOAD_MAX - INSERT_SIZE + 1,
				       SEGMENT_PAYLOAD_MAX - 1, SEGMENT_PAYLOAD_MAX, SEGMENT_PAYLOAD_MAX + 1, 2 * SEGMENT_PAYLOAD_MAX - INSERT_SIZE,
				       2 * SEGMENT_PAYLOAD_MAX, 2 * SEGMENT_PAYLOAD_MAX + 1, 300000, 1 << 20, 5000000};

	(void)unused;
	for (unsigned i = 0; i < 4 * sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct bytes one = {0}, small = {0}, expected = {0}, decoded = {0};
		bool lz4 = i & 1;

		state = 99 + i;
		received.size = 0;
		make_envelope(&one, sizes[i / 4] - FRAME_HEADER_SIZE);
		make_envelope(&small, 50);
		emit_begin(e, &conn, true, lz4);
		/* Behind another one that is not wrapped yet. */
		emit_one(small.data, small.size, CHANGE, &expected);
		emit_one(one.data, one.size, i & 2 ? CHANGE : KEEP, &expected);
		emit_segment(e, span_of(NULL, 0), 0, true);
		emit_one(small.data, small.size, KEEP, &expected);
		emit_segment(e, span_of(NULL, 0), 0, true);
		emit_flush(e);
		take_all();
		decode(&received, lz4, &decoded);
		compare(&decoded, &expected);
		free(one.data);
		free(small.data);
		free(expected.data);
		free(decoded.data);
	}
}

/* An answer that streams: each segment is passed on as it comes, the first one perhaps with a longer head. */
static void large_envelopes_stream(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < 24; round++) {
		struct bytes one = {0}, wire = {0}, expected = {0}, decoded = {0};
		bool lz4 = round & 1, change = round & 2;
		struct frame_header h = {0};

		state = 31 + round;
		received.size = 0;
		make_envelope(&one, SEGMENT_PAYLOAD_MAX + random_below(1000000));
		frame_header_read(one.data, one.size, &h);
		emit_begin(e, &conn, true, lz4);
		for (size_t at = 0; at < one.size;) {
			size_t part = one.size - at < SEGMENT_PAYLOAD_MAX ? one.size - at : SEGMENT_PAYLOAD_MAX;
			struct bytes seg = {0};

			make_segment(&seg, one.data + at, part, lz4, false);
			add(&wire, seg.data, seg.size);
			if (at == 0) {
				uint8_t header[FRAME_HEADER_SIZE];

				emit_envelope_begin(e, SEGMENT_PAYLOAD_MAX, change);
				if (change) {
					h.length += INSERT_SIZE;
					frame_header_write(header, &h);
					emit_copy(e, header, sizeof(header));
					emit_copy(e, INSERT, INSERT_SIZE);
					add(&expected, header, sizeof(header));
					add(&expected, INSERT, INSERT_SIZE);
					emit_bytes(e, one.data + FRAME_HEADER_SIZE, part - FRAME_HEADER_SIZE);
					add(&expected, one.data + FRAME_HEADER_SIZE, part - FRAME_HEADER_SIZE);
				} else {
					emit_bytes(e, one.data, part);
					add(&expected, one.data, part);
				}
			} else {
				emit_bytes(e, one.data + at, part);
				add(&expected, one.data + at, part);
			}
			at += part;
			if (at == one.size)
				emit_envelope_end(e);
			emit_segment(e, span_of(seg.data, seg.size), part, false);
			emit_flush(e);
			free(seg.data);
		}
		take_all();
		if (!change)
			compare(&received, &wire);
		decode(&received, lz4, &decoded);
		compare(&decoded, &expected);
		free(one.data);
		free(wire.data);
		free(expected.data);
		free(decoded.data);
	}
}

/* Without a connection (the client has gone) nothing may pile up. */
static void nobody_listens(void **unused)
{
	struct bytes one = {0}, expected = {0};

	(void)unused;
	state = 5;
	make_envelope(&one, 100);
	emit_begin(e, NULL, false, false);
	for (unsigned i = 0; i < 10000; i++)
		emit_one(one.data, one.size, i & 1 ? CHANGE : KEEP, &expected);
	emit_flush(e);
	assert_int_equal(e->count, 0);
	assert_int_equal(e->open, 0);
	/* With segments, more at once than one holds. */
	one.size = 0;
	make_envelope(&one, 20000);
	emit_begin(e, NULL, true, true);
	for (unsigned i = 0; i < 1000; i++)
		emit_one(one.data, one.size, KEEP, &expected);
	emit_segment(e, span_of(NULL, 0), 0, true);
	emit_flush(e);
	assert_int_equal(e->count, 0);
	assert_int_equal(e->open, 0);
	free(one.data);
	free(expected.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(segments, setup, teardown),
		cmocka_unit_test_setup_teardown(lz4_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(large_envelopes_are_wrapped, setup, teardown),
		cmocka_unit_test_setup_teardown(large_envelopes_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_listens, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
