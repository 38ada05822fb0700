// SPDX-License-Identifier: Apache-2.0
/*
 * Segments of protocol v5. The vectors were made by the codec of Apache Cassandra's Python driver; both
 * checksums are computed again here, bit by bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/segment.h"
#include "unit/guard.h"

#define OPTIONS "050000050500000000"

static const struct {
	const char *name, *hex;
	bool lz4, self_contained;
	uint32_t payload, plain;
} valid[] = {
    {"OPTIONS", "090002 a4c8c1" OPTIONS "a317e51d", false, true, 9, 0},
    {"OPTIONS on an LZ4 connection, not worth compressing", "0900000004 c2b895" OPTIONS "a317e51d", true,
     true, 9, 0},
    {"300 zeros in LZ4", "0c00580204 749a73 1f000100ff14500000000000 133b5243", true, true, 12, 300},
};

static uint32_t slow_crc24(const uint8_t *data, size_t size)
{
	uint32_t crc = 0x875060;

	for (size_t i = 0; i < size; i++) {
		crc ^= (uint32_t)data[i] << 16;
		for (int bit = 0; bit < 8; bit++) {
			crc <<= 1;
			if (crc & 0x1000000)
				crc ^= 0x1974F0B;
		}
	}
	return crc;
}

static uint32_t slow_crc32(uint32_t crc, const uint8_t *data, size_t size)
{
	crc = ~crc;
	for (size_t i = 0; i < size; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static void checksums_agree_with_the_bitwise_ones(void **state)
{
	uint8_t bytes[257];
	uint32_t seed = slow_crc32(0, (const uint8_t *)"\xfa\x2d\x55\xca", 4);

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 167 + 13);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		struct span s = guard_bytes(bytes, n);
		assert_int_equal(segment_crc24(s.data, n), slow_crc24(bytes, n));
		assert_int_equal(segment_crc32(s.data, n), slow_crc32(seed, bytes, n));
		/* In pieces, one of them empty. */
		struct segment_crc pieces;
		segment_crc_begin(&pieces);
		segment_crc_add(&pieces, s.data, n / 3);
		segment_crc_add(&pieces, NULL, 0);
		segment_crc_add(&pieces, s.data + n / 3, n - n / 3);
		assert_int_equal(pieces.value, slow_crc32(seed, bytes, n));
	}
	/* Every entry of the table. */
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(segment_crc24(&(uint8_t){(uint8_t)i}, 1),
				 slow_crc24(&(uint8_t){(uint8_t)i}, 1));
	assert_int_equal(segment_crc32((const uint8_t *)"123456789", 9), 0xe2a261a7);
}

static void segments_of_the_python_driver_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		struct span s = guard_hex(0, valid[i].hex);
		struct segment g;
		unsigned header = valid[i].lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;

		print_message("%s\n", valid[i].name);
		assert_int_equal(segment_header_read(s.data, s.size, valid[i].lz4, &g), header);
		assert_int_equal(g.header_size, header);
		assert_int_equal(g.wire_size, s.size);
		assert_int_equal(g.payload_size, valid[i].payload);
		assert_int_equal(g.plain_size, valid[i].plain);
		assert_int_equal(g.self_contained, valid[i].self_contained);
		assert_int_equal(segment_payload_check(s.data, &g), 0);
		if (!g.plain_size)
			continue;
		uint8_t *to = guard_room(1, g.plain_size);
		assert_int_equal(segment_decompress(s.data + header, &g, to), 0);
		for (uint32_t n = 0; n < g.plain_size; n++)
			assert_int_equal(to[n], 0);
	}
}

static void every_prefix_of_a_header_is_incomplete(void **state)
{
	struct segment g;

	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		struct span s = guard_hex(1, valid[i].hex);
		unsigned header = valid[i].lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
		for (size_t n = 0; n < s.size; n++) {
			struct span part = guard_bytes(s.data, n);
			assert_int_equal(segment_header_read(part.data, n, valid[i].lz4, &g),
					 n < header ? CQL_INCOMPLETE : (int)header);
		}
	}
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct segment g;

	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		struct span s = guard_hex(0, valid[i].hex);
		uint8_t *bytes = (uint8_t *)s.data;
		unsigned header = valid[i].lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
		for (size_t bit = 0; bit < s.size * 8; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			int rc = segment_header_read(bytes, s.size, valid[i].lz4, &g);
			if (bit / 8 < header) {
				assert_int_equal(rc, CQL_MALFORMED);
			} else {
				assert_int_equal(rc, header);
				assert_int_equal(segment_payload_check(bytes, &g), CQL_MALFORMED);
			}
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
}

static void what_is_written_is_what_the_driver_writes(void **state)
{
	static uint8_t zeros[SEGMENT_PAYLOAD_MAX];
	uint8_t header[SEGMENT_HEADER_LZ4], trailer[SEGMENT_TRAILER];

	(void)state;
	assert_int_equal(segment_header_write(header, false, 9, true), SEGMENT_HEADER_PLAIN);
	assert_memory_equal(header, guard_hex(0, "090002a4c8c1").data, SEGMENT_HEADER_PLAIN);
	assert_int_equal(segment_header_write(header, true, 9, true), SEGMENT_HEADER_LZ4);
	assert_memory_equal(header, guard_hex(0, "0900000004c2b895").data, SEGMENT_HEADER_LZ4);
	/* The two parts of a message of 131081 zeros. */
	segment_header_write(header, false, SEGMENT_PAYLOAD_MAX, false);
	assert_memory_equal(header, guard_hex(0, "ffff013891fe").data, SEGMENT_HEADER_PLAIN);
	segment_trailer_write(trailer, segment_crc32(zeros, sizeof(zeros)));
	assert_memory_equal(trailer, guard_hex(0, "d4993d8f").data, SEGMENT_TRAILER);
	segment_header_write(header, false, 10, false);
	assert_memory_equal(header, guard_hex(0, "0a000091b9c0").data, SEGMENT_HEADER_PLAIN);
	segment_trailer_write(trailer, segment_crc32(zeros, 10));
	assert_memory_equal(trailer, guard_hex(0, "988d1c79").data, SEGMENT_TRAILER);
}

static void headers_round_trip(void **state)
{
	static const uint32_t sizes[] = {0, 1, 255, 256, 65535, 65536, SEGMENT_PAYLOAD_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (int kind = 0; kind < 4; kind++) {
			uint8_t *to = guard_room(0, kind & 1 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN);
			struct segment g;
			size_t n = segment_header_write(to, kind & 1, sizes[i], kind & 2);
			assert_int_equal(segment_header_read(to, n, kind & 1, &g), (int)n);
			assert_int_equal(g.payload_size, sizes[i]);
			assert_int_equal(g.plain_size, 0);
			assert_int_equal(g.self_contained, !!(kind & 2));
			assert_int_equal(g.wire_size, n + sizes[i] + SEGMENT_TRAILER);
		}
}

static void bad_lz4_is_refused(void **state)
{
	struct span s = guard_hex(0, "1f000100ff14500000000000");
	struct segment g = {.payload_size = 12, .plain_size = 300};
	uint8_t to[301];

	(void)state;
	assert_int_equal(segment_decompress(s.data, &g, to), 0);
	g.plain_size = 299;
	assert_int_equal(segment_decompress(s.data, &g, to), CQL_MALFORMED);
	g.plain_size = 301;
	assert_int_equal(segment_decompress(s.data, &g, to), CQL_MALFORMED);
	g.plain_size = 300;
	g.payload_size = 11;
	assert_int_equal(segment_decompress(guard_bytes(s.data, 11).data, &g, to), CQL_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(checksums_agree_with_the_bitwise_ones),
	    cmocka_unit_test(segments_of_the_python_driver_are_read),
	    cmocka_unit_test(every_prefix_of_a_header_is_incomplete),
	    cmocka_unit_test(every_flipped_bit_is_noticed),
	    cmocka_unit_test(what_is_written_is_what_the_driver_writes),
	    cmocka_unit_test(headers_round_trip),
	    cmocka_unit_test(bad_lz4_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
