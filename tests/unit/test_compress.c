// SPDX-License-Identifier: Apache-2.0
/* Compression of v3/v4 bodies: round trips, a body of the Python driver, and lengths that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/compress.h"
#include "cql/frame.h"
#include "unit/guard.h"

static const enum compression kinds[] = {COMPRESSION_NONE, COMPRESSION_LZ4, COMPRESSION_SNAPPY};

static void names_of_startup(void **state)
{
	(void)state;
	assert_int_equal(compression_from_name(guard_text("lz4")), COMPRESSION_LZ4);
	assert_int_equal(compression_from_name(guard_text("LZ4")), COMPRESSION_LZ4);
	assert_int_equal(compression_from_name(guard_text("Snappy")), COMPRESSION_SNAPPY);
	assert_int_equal(compression_from_name(guard_text("snapp")), COMPRESSION_NONE);
	assert_int_equal(compression_from_name(guard_text("zstd")), COMPRESSION_NONE);
	assert_int_equal(compression_from_name(guard_text("")), COMPRESSION_NONE);
}

static void bodies_round_trip(void **state)
{
	static const size_t sizes[] = {0, 1, 9, 100, 4096, 100000};

	(void)state;
	for (size_t k = 0; k < 3; k++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			for (unsigned step = 1; step < 5000; step += 4219) {
				size_t size = sizes[i], bound = body_compress_bound(kinds[k], size);
				uint8_t *plain = guard_room(0, size), *packed = guard_room(1, bound),
					*again = guard_room(2, size);
				for (size_t n = 0; n < size; n++)
					plain[n] = (uint8_t)(n * n * step >> 7);
				int64_t n = body_compress(kinds[k], span_of(plain, size), packed, bound);
				assert_true(n >= 0 && (size_t)n <= bound);
				struct span body = guard_slot(3, packed, (size_t)n);
				assert_int_equal(body_plain_size(kinds[k], body, FRAME_BODY_MAX), size);
				assert_int_equal(body_decompress(kinds[k], body, again, size), size);
				assert_memory_equal(again, plain, size);
				/* The limit, and a place too small. */
				if (size) {
					assert_int_equal(body_plain_size(kinds[k], body, size - 1),
							 CQL_MALFORMED);
					assert_int_equal(body_decompress(kinds[k], body, again, size - 1),
							 CQL_MALFORMED);
				}
			}
}

static void a_body_of_the_python_driver(void **state)
{
	struct span body = guard_hex(0, "0000006c9f63716c66657272792009004b506572727920");
	uint8_t plain[108];

	(void)state;
	assert_int_equal(body_decompress(COMPRESSION_LZ4, body, plain, sizeof(plain)), 108);
	for (unsigned i = 0; i < sizeof(plain); i++)
		assert_int_equal(plain[i], "cqlferry "[i % 9]);
}

static void lies_are_refused(void **state)
{
	static const struct {
		enum compression kind;
		const char *name, *hex;
	} cases[] = {
	    {COMPRESSION_LZ4, "nothing", ""},
	    {COMPRESSION_LZ4, "no length", "0000"},
	    {COMPRESSION_LZ4, "negative length", "80000000 00"},
	    {COMPRESSION_LZ4, "256 MB out of 7 bytes", "0fffffff 10616161616161"},
	    {COMPRESSION_LZ4, "longer than it is", "0000006d 9f63716c66657272792009004b506572727920"},
	    {COMPRESSION_LZ4, "shorter than it is", "0000006b 9f63716c66657272792009004b506572727920"},
	    {COMPRESSION_LZ4, "offset before the beginning", "0000000c 1061ffff50616161616161"},
	    {COMPRESSION_SNAPPY, "nothing", ""},
	    {COMPRESSION_SNAPPY, "endless varint", "ffffffffffff"},
	    {COMPRESSION_SNAPPY, "100 MB out of 5 bytes", "80c2d72f 00"},
	    {COMPRESSION_SNAPPY, "literal cut off", "05 10 6162"},
	    {COMPRESSION_SNAPPY, "copy before the beginning", "04 0161"},
	};
	uint8_t to[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("%s\n", cases[i].name);
		assert_int_equal(body_decompress(cases[i].kind, guard_hex(0, cases[i].hex), to, sizeof(to)),
				 CQL_MALFORMED);
	}
	assert_int_equal(
	    body_plain_size(COMPRESSION_LZ4, guard_hex(0, "0fffffff 10616161616161"), FRAME_BODY_MAX),
	    CQL_MALFORMED);
	assert_int_equal(body_plain_size(COMPRESSION_SNAPPY, guard_hex(0, "80c2d72f 00"), FRAME_BODY_MAX),
			 CQL_MALFORMED);
	/* An empty plain body may come without a block. */
	assert_int_equal(body_decompress(COMPRESSION_LZ4, guard_hex(0, "00000000"), to, 0), 0);
	assert_int_equal(body_decompress(COMPRESSION_LZ4, guard_hex(0, "00000000 00"), to, 0), 0);
}

static void too_little_room_is_refused(void **state)
{
	uint8_t to[64];
	struct span plain = guard_text("0123456789abcdefghijklmnopqrstuvwxyz");

	(void)state;
	for (size_t k = 0; k < 3; k++)
		for (size_t room = 0; room < 20; room++)
			assert_int_equal(body_compress(kinds[k], plain, to, room), CQL_MALFORMED);
	assert_int_equal(body_compress(COMPRESSION_LZ4, span_of(to, FRAME_BODY_MAX + 1), to, 64),
			 CQL_MALFORMED);
	assert_int_equal(body_compress_bound(COMPRESSION_LZ4, SIZE_MAX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_of_startup),
	    cmocka_unit_test(bodies_round_trip),
	    cmocka_unit_test(a_body_of_the_python_driver),
	    cmocka_unit_test(lies_are_refused),
	    cmocka_unit_test(too_little_room_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
