// SPDX-License-Identifier: Apache-2.0
/* Envelope headers: both directions, every prefix, the length limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/frame.h"
#include "unit/guard.h"

static const struct {
	const char *name, *hex;
	int result;
	struct frame_header header;
} cases[] = {
    {"v4 query", "04 00 0005 07 00000023", 9, {4, false, 0, 5, OP_QUERY, 0x23}},
    {"v5 result with warning", "85 08 7fff 08 00000100", 9, {5, true, FRAME_WARNING, 32767, OP_RESULT, 256}},
    {"event on stream -1", "83 00 ffff 0c 00000000", 9, {3, true, 0, -1, OP_EVENT, 0}},
    {"DSE v2, compressed and traced", "42 03 8000 ff 00ffffff", 9, {0x42, false, 3, -32768, 0xff, 0xffffff}},
    {"longest body", "04 00 0000 07 10000000", 9, {4, false, 0, 0, OP_QUERY, 256u << 20}},
    {"one byte too long", "04 00 0000 07 10000001", CQL_MALFORMED, {0}},
    {"negative length", "04 00 0000 07 ffffffff", CQL_MALFORMED, {0}},
};

static void headers_are_read_and_written(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span bytes = guard_hex(0, cases[i].hex);
		struct frame_header h = {0};
		uint8_t *to = guard_room(1, FRAME_HEADER_SIZE);

		print_message("%s\n", cases[i].name);
		assert_int_equal(frame_header_read(bytes.data, bytes.size, &h), cases[i].result);
		if (cases[i].result < 0)
			continue;
		assert_int_equal(h.version, cases[i].header.version);
		assert_int_equal(h.response, cases[i].header.response);
		assert_int_equal(h.flags, cases[i].header.flags);
		assert_int_equal(h.stream, cases[i].header.stream);
		assert_int_equal(h.opcode, cases[i].header.opcode);
		assert_int_equal(h.length, cases[i].header.length);
		frame_header_write(to, &h);
		assert_memory_equal(to, bytes.data, FRAME_HEADER_SIZE);
	}
}

static void every_prefix_is_incomplete(void **state)
{
	struct frame_header h;

	(void)state;
	for (size_t n = 0; n < FRAME_HEADER_SIZE; n++) {
		struct span bytes = guard_bytes("\x04\0\0\0\x07\xff\xff\xff\xff", n);
		assert_int_equal(frame_header_read(bytes.data, bytes.size, &h), CQL_INCOMPLETE);
	}
}

static void opcodes_have_names(void **state)
{
	(void)state;
	assert_string_equal(opcode_name(OP_ERROR), "ERROR");
	assert_string_equal(opcode_name(OP_AUTH_SUCCESS), "AUTH_SUCCESS");
	assert_string_equal(opcode_name(0x04), "?");
	assert_string_equal(opcode_name(0x11), "?");
	assert_string_equal(opcode_name(0xff), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(headers_are_read_and_written),
	    cmocka_unit_test(every_prefix_is_incomplete),
	    cmocka_unit_test(opcodes_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
