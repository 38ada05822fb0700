// SPDX-License-Identifier: Apache-2.0
/* Values as cqlsh writes them, read back, and types from what servers say. Expected texts were taken from
 * cqlsh 6.2.2 on Python 3.11. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "copy/moment.h"
#include "copy/number.h"
#include "copy/value.h"
#include "unit/guard.h"

#define PACKAGE "org.apache.cassandra.db.marshal."

static struct value_style style = {.null = {(const uint8_t *)"", 0},
				   .null_written = {(const uint8_t *)"", 0},
				   .yes = "True",
				   .no = "False",
				   .point = ".",
				   .group = "",
				   .timestamp = MOMENT_FORMAT,
				   .float_precision = 5,
				   .double_precision = 12,
				   .escapes = true};

/* A type by the name of its class, as a custom option. */
static struct type class_type(const char *class)
{
	struct bytes option = {0};
	struct type t;

	bytes_u16(&option, TYPE_CUSTOM);
	bytes_u16(&option, (uint16_t)strlen(class));
	bytes_text(&option, class);
	if (type_parse(guard_slot(3, option.data, option.size), &t) < 0)
		fail_msg("%s is not understood", class);
	bytes_done(&option);
	return t;
}

/* Class, bytes in hex, text; written and read again these are the same bytes. */
static const struct {
	const char *class, *hex, *text;
} values[] = {
    {"Int32Type", "80000000", "-2147483648"},
    {"Int32Type", "00000064", "100"},
    {"LongType", "7fffffffffffffff", "9223372036854775807"},
    {"LongType", "8000000000000000", "-9223372036854775808"},
    {"ShortType", "fffb", "-5"},
    {"ByteType", "80", "-128"},
    {"IntegerType", "00", "0"},
    {"IntegerType", "ff", "-1"},
    {"IntegerType", "80", "-128"},
    {"IntegerType", "ff7f", "-129"},
    {"IntegerType", "0080", "128"},
    {"IntegerType", "018ee90ff6c373e0ee4e3f0ad2", "123456789012345678901234567890"},
    {"IntegerType", "fe7fffffffffffffffffffffffffffffff", "-510423550381407695195061911147652317185"},
    {"DecimalType", "0000000296", "-1.06"},
    {"DecimalType", "000000020096", "1.50"},
    {"DecimalType", "ffffffe201", "1E+30"},
    {"DecimalType", "0000000a01", "1E-10"},
    {"DecimalType", "0000000601", "0.000001"},
    {"DecimalType", "0000000200", "0.00"},
    {"DoubleType", "3fb999999999999a", "0.1"},
    {"DoubleType", "430c6bf526340000", "1e+15"},
    {"DoubleType", "7ff8000000000000", "NaN"},
    {"DoubleType", "fff0000000000000", "-Infinity"},
    {"DoubleType", "8000000000000000", "-0"},
    {"FloatType", "40200000", "2.5"},
    {"FloatType", "3dcccccd", "0.1"},
    {"BooleanType", "01", "True"},
    {"BooleanType", "00", "False"},
    {"BytesType", "", "0x"},
    {"BytesType", "00ff10", "0x00ff10"},
    {"UUIDType", "123e4567e89b12d3a456426655440000", "123e4567-e89b-12d3-a456-426655440000"},
    {"TimeUUIDType", "50554d6e29bb11e5b345feff819cdc9f", "50554d6e-29bb-11e5-b345-feff819cdc9f"},
    {"InetAddressType", "0a000001", "10.0.0.1"},
    {"InetAddressType", "fe800000000000000000000000000001", "fe80::1"},
    {"TimestampType", "0000016f6435cf1e", "2020-01-02 03:04:05.662+0000"},
    {"TimestampType", "ffffffffffffffff", "1969-12-31 23:59:59.999+0000"},
    {"TimestampType", "0000e677d21fdbff", "9999-12-31 23:59:59.999+0000"},
    {"TimestampType", "0000e677d21fdc00", "253402300800000"},
    {"TimestampType", "ffffd5cf4b4d6800", "500-01-01 00:00:00.000+0000"},
    {"TimestampType", "8000000000000000", "-9223372036854775808"},
    {"SimpleDateType", "800047c2", "2020-04-18"},
    {"SimpleDateType", "80000000", "1970-01-01"},
    {"SimpleDateType", "00000000", "-2147483648"},
    {"TimeType", "000029327b04e115", "12:34:56.789020949"},
    {"DurationType", "1c06fc23ede7186312", "1y2mo3d5h29m12s345ms678us217ns"},
    {"DurationType", "050000", "-3mo"},
    {"DurationType", "000000", "0ns"},
    {"UTF8Type", "c3bc6e6920e282ac20f09f9880", "\xc3\xbcni \xe2\x82\xac \xf0\x9f\x98\x80"},
    {"UTF8Type", "6122275c62", "a\"'\\\\b"},
    {"UTF8Type", "610a0d090b1b7f62", "a\\n\\r\\t\\x0b\\x1b\\x7fb"},
    {"UTF8Type", "61c280c2a0c2a1", "a\\x80\\xa0\xc2\xa1"},
    {"AsciiType", "6162", "ab"},
    {"ListType(" PACKAGE "Int32Type)", "00000002000000040000000100000004ffffffff", "[1, -1]"},
    {"ListType(" PACKAGE "Int32Type)", "00000000", "[]"},
    {"SetType(" PACKAGE "UTF8Type)", "0000000300000000000000022c27000000025c0a", "{'', ',''', '\\\\\\n'}"},
    {"SetType(" PACKAGE "InetAddressType)", "000000020000000409000001000000040a00000a",
     "{'10.0.0.10', '9.0.0.1'}"},
    {"MapType(" PACKAGE "UTF8Type," PACKAGE "Int32Type)", "00000001000000036b3a2c0000000400000007",
     "{'k:,': 7}"},
    {"MapType(" PACKAGE "TimeType," PACKAGE "Int32Type)", "000000010000000800000000000003e80000000400000007",
     "{00:00:00.000001000: 7}"},
    {"MapType(" PACKAGE "TimestampType," PACKAGE "FrozenType(" PACKAGE "SetType(" PACKAGE "DoubleType)))",
     "00000001000000080000000000000001000000100000000100000008"
     "3ff8000000000000",
     "{'1970-01-01 00:00:00.001+0000': {1.5}}"},
    {"TupleType(" PACKAGE "Int32Type," PACKAGE "UTF8Type," PACKAGE "FloatType)",
     "00000004000000010000000374776fffffffff", "(1, 'two', )"},
    {"UserType(ks,61646472,6e616d65:" PACKAGE "UTF8Type,7a6970:" PACKAGE "Int32Type)",
     "00000003416e6e0000000400000001", "{name: 'Ann', zip: 1}"},
    {"UserType(ks,61646472,6e616d65:" PACKAGE "UTF8Type,7a6970:" PACKAGE "Int32Type)",
     "ffffffff0000000400000001", "{name: , zip: 1}"},
    {"VectorType(" PACKAGE "FloatType , 3)", "3f80000040200000c0400000", "[1, 2.5, -3]"},
    {"VectorType(" PACKAGE "UTF8Type, 2)", "016103622c63", "['a', 'b,c']"},
    {"ReversedType(" PACKAGE "Int32Type)", "00000001", "1"},
};

static void test_format_and_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		char class[512];
		struct bytes text = {0}, back = {0};
		struct span raw = guard_hex(0, values[i].hex);
		const char *wrong;
		struct type t;

		snprintf(class, sizeof(class), PACKAGE "%s", values[i].class);
		t = class_type(class);
		if (!value_format(&style, &t, raw, &text))
			fail_msg("%s %s cannot be written", values[i].class, values[i].hex);
		if (text.size != strlen(values[i].text) || memcmp(text.data, values[i].text, text.size) != 0)
			fail_msg("%s %s: %.*s", values[i].class, values[i].hex, (int)text.size,
				 (char *)text.data);
		wrong = value_parse(&style, &t, guard_slot(1, text.data, text.size), &back);
		if (wrong)
			fail_msg("%s %s: %s", values[i].class, values[i].text, wrong);
		/* Sets come back in the order of the text. */
		if (!strstr(values[i].class, "SetType(" PACKAGE "InetAddressType") &&
		    (back.size != raw.size + 4 || memcmp(back.data + 4, raw.data, raw.size) != 0))
			fail_msg("%s %s: read as other bytes", values[i].class, values[i].text);
		/* Bytes that end too early are never a value, nor a fault. */
		for (size_t n = 0; n < raw.size; n++) {
			text.size = 0;
			value_format(&style, &t, guard_slot(2, raw.data, n), &text);
		}
		bytes_done(&text);
		bytes_done(&back);
		type_done(&t);
	}
}

/* What must not be loaded as something else. */
static const struct {
	const char *class, *text;
} refused[] = {
    {"Int32Type", "2147483648"},
    {"Int32Type", "1.5"},
    {"Int32Type", "0x10"},
    {"Int32Type", "abc"},
    {"Int32Type", "1 2"},
    {"ByteType", "128"},
    {"LongType", "9223372036854775808"},
    {"IntegerType", "12a"},
    {"DecimalType", "1.2.3"},
    {"DecimalType", "1e99999999999"},
    {"DecimalType", "."},
    {"DoubleType", "0x1p3"},
    {"DoubleType", "nan(1)"},
    {"DoubleType", "1.5x"},
    {"FloatType", "1e300"},
    {"BooleanType", "yes"},
    {"BytesType", "abcd"},
    {"BytesType", "0xabc"},
    {"BytesType", "0xzz"},
    {"UUIDType", "123e4567-e89b-12d3-a456-42665544000"},
    {"TimeUUIDType", "123e4567-e89b-42d3-a456-426655440000"},
    {"InetAddressType", "10.0.0"},
    {"InetAddressType", "host"},
    {"TimestampType", "2020-13-01 00:00:00+0000"},
    {"TimestampType", "2019-02-29"},
    {"TimestampType", "2020-01-01 10:00:00+0000 x"},
    {"TimestampType", "yesterday"},
    {"SimpleDateType", "2020-02-30"},
    {"TimeType", "24:00:00"},
    {"TimeType", "10:00"},
    {"DurationType", "1x"},
    {"DurationType", "y"},
    {"UTF8Type", "\xff"},
    {"UTF8Type", "a\xc3"},
    {"UTF8Type", "\xed\xa0\x80"},
    {"AsciiType", "\xc3\xbc"},
    {"ListType(" PACKAGE "Int32Type)", "1, 2"},
    {"ListType(" PACKAGE "Int32Type)", "[1, 2"},
    {"ListType(" PACKAGE "Int32Type)", "[1, , 2]"},
    {"MapType(" PACKAGE "UTF8Type," PACKAGE "Int32Type)", "{'a'}"},
    {"TupleType(" PACKAGE "Int32Type)", "(1, 2)"},
    {"UserType(ks,61646472,6e616d65:" PACKAGE "UTF8Type)", "{other: 'x'}"},
    {"VectorType(" PACKAGE "FloatType , 3)", "[1, 2]"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		char class[512];
		struct bytes out = {0};
		struct type t;

		snprintf(class, sizeof(class), PACKAGE "%s", refused[i].class);
		t = class_type(class);
		if (!value_parse(&style, &t, guard_text(refused[i].text), &out))
			fail_msg("%s %s is loaded", refused[i].class, refused[i].text);
		bytes_done(&out);
		type_done(&t);
	}
}

/* Other ways to write the same. */
static const struct {
	const char *class, *text, *hex;
} accepted[] = {
    {"Int32Type", " +5 ", "00000005"},
    {"DoubleType", "INF", "7ff0000000000000"},
    {"BooleanType", "tRUE", "01"},
    {"UUIDType", "123E4567E89B12D3A456426655440000", "123e4567e89b12d3a456426655440000"},
    {"TimestampType", "1970-01-01T00:00:01Z", "00000000000003e8"},
    {"TimestampType", "1970-01-01 01:00:01.5+01:00", "00000000000005dc"},
    {"TimestampType", "1970-01-01 00:00+0000", "0000000000000000"},
    {"TimestampType", "1234", "00000000000004d2"},
    {"SimpleDateType", "-1", "7fffffff"},
    {"TimeType", "1:02:03", "00000362d417ae00"},
    {"DurationType", "2w", "001c00"},
    {"UTF8Type", "C:\\dir \\q \\x41", "433a5c646972205c71205c783431"},
    {"UserType(ks,61646472,6e616d65:" PACKAGE "UTF8Type,7a6970:" PACKAGE "Int32Type)", "{zip:1,name:''}",
     "000000000000000400000001"},
    {"ListType(" PACKAGE "UTF8Type)", "[a, 'b, c']", "00000002000000016100000004622c2063"},
};

static void test_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(accepted) / sizeof(*accepted); i++) {
		char class[512];
		struct bytes out = {0};
		struct span raw = guard_hex(0, accepted[i].hex);
		struct type t;
		const char *wrong;

		snprintf(class, sizeof(class), PACKAGE "%s", accepted[i].class);
		t = class_type(class);
		wrong =
		    value_parse(&style, &t, guard_slot(1, accepted[i].text, strlen(accepted[i].text)), &out);
		if (wrong)
			fail_msg("%s %s: %s", accepted[i].class, accepted[i].text, wrong);
		if (out.size != raw.size + 4 || memcmp(out.data + 4, raw.data, raw.size) != 0)
			fail_msg("%s %s: other bytes", accepted[i].class, accepted[i].text);
		bytes_done(&out);
		type_done(&t);
	}
}

static void test_styles(void **state)
{
	struct value_style s = style;
	struct type number = {.kind = TYPE_DOUBLE}, integer = {.kind = TYPE_INT},
		    flag = {.kind = TYPE_BOOLEAN}, time = {.kind = TYPE_TIMESTAMP};
	struct bytes out = {0};

	(void)state;
	s.point = ",";
	s.group = ".";
	s.yes = "yes";
	s.no = "no";
	s.timestamp = "%d.%m.%Y %H:%M";
	value_format(&s, &number, guard_hex(0, "c132d687e6b50b0f"), &out);
	bytes_u8(&out, ' ');
	value_format(&s, &integer, guard_hex(0, "0012d687"), &out);
	bytes_u8(&out, ' ');
	value_format(&s, &flag, guard_hex(0, "01"), &out);
	bytes_u8(&out, ' ');
	value_format(&s, &time, guard_hex(0, "0000016f6435cf1e"), &out);
	bytes_u8(&out, 0);
	assert_string_equal((char *)out.data, "-1.234.567,901199999964 1.234.567 yes 02.01.2020 03:04");
	out.size = 0;
	assert_null(value_parse(&s, &integer, span_text("1.234.567"), &out));
	assert_null(value_parse(&s, &number, span_text("-1.234,5"), &out));
	assert_null(value_parse(&s, &flag, span_text("NO"), &out));
	assert_int_equal(out.size, 8 + 12 + 5);
	assert_int_equal(load_be64(out.data + 12), 0xc0934a0000000000);
	bytes_done(&out);
}

static void test_null(void **state)
{
	struct value_style s = style;
	struct type text = {.kind = TYPE_VARCHAR}, integer = {.kind = TYPE_INT};
	struct bytes out = {0};

	(void)state;
	assert_null(value_parse(&s, &text, span_text(""), &out));
	assert_int_equal((int32_t)load_be32(out.data), -1);
	s.null = span_text("\\N");
	s.null_written = span_text("\\\\N");
	out.size = 0;
	assert_null(value_parse(&s, &text, span_text(""), &out));
	assert_int_equal(load_be32(out.data), 0); /* an empty text */
	assert_null(value_parse(&s, &integer, span_text(""), &out));
	assert_int_equal((int32_t)load_be32(out.data + 4), -1); /* there is no empty number */
	assert_null(value_parse(&s, &text, span_text("\\N"), &out));
	assert_null(value_parse(&s, &text, span_text("\\\\N"), &out)); /* as it is written */
	assert_int_equal((int32_t)load_be32(out.data + 8) & (int32_t)load_be32(out.data + 12), -1);
	out.size = 0;
	assert_true(value_format(&s, &integer, (struct span){0}, &out));
	assert_memory_equal(out.data, "\\\\N", 3);
	/* TEXTESCAPES=FALSE: as cqlsh reads it. */
	s.escapes = false;
	out.size = 0;
	assert_null(value_parse(&s, &text, span_text("a\\n"), &out));
	assert_int_equal(out.size, 4 + 3);
	bytes_done(&out);
}

static void test_literals(void **state)
{
	static const struct {
		const char *class, *hex, *literal;
	} cases[] = {
	    {"UTF8Type", "61275c0a", "'a''\\\n'"},
	    {"DoubleType", "3fb999999999999a", "0.10000000000000001"},
	    {"TimeType", "0000000000000000", "'00:00:00.000000000'"},
	    {"SimpleDateType", "80000000", "'1970-01-01'"},
	    {"SimpleDateType", "802cc0a1", "'2150416545'"}, /* 10000-01-01 */
	    {"SimpleDateType", "00000000", "'0'"},
	    {"UserType(ks,61646472,5a:" PACKAGE "UTF8Type)", "ffffffff", "{\"Z\": NULL}"},
	    {"BooleanType", "01", "true"},
	};
	struct bytes out = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char class[256];
		struct type t;

		snprintf(class, sizeof(class), PACKAGE "%s", cases[i].class);
		t = class_type(class);
		out.size = 0;
		assert_true(value_format_literal(&t, guard_hex(0, cases[i].hex), &out));
		bytes_u8(&out, 0);
		assert_string_equal((char *)out.data, cases[i].literal);
		type_done(&t);
	}
	bytes_done(&out);
}

static void test_options_of_the_protocol(void **state)
{
	static const char *const bad[] = {"",	      "00",   "0020",	  "0100",     "0016",
					  "00210009", "0030", "0031ffff", "00000004", "0000000161"};
	struct type t;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (type_parse(guard_hex(0, bad[i]), &t) == 0) {
			/* "a" is a class of its own: anything goes as bytes */
			assert_string_equal(bad[i], "0000000161");
			assert_int_equal(t.kind, TYPE_CUSTOM);
			type_done(&t);
		}
	/* map<text, frozen<tuple<int, list<uuid>>>> */
	assert_int_equal(type_parse(guard_hex(0, "0021 000d 0031 0002 0009 0020 000c"), &t), 0);
	assert_int_equal(t.kind, TYPE_MAP);
	assert_int_equal(t.parts[1].kind, TYPE_TUPLE);
	assert_int_equal(t.parts[1].parts[1].parts[0].kind, TYPE_UUID);
	type_done(&t);
	/* Deeper than anybody declares. */
	struct bytes deep = {0};

	for (unsigned i = 0; i < 100; i++)
		bytes_u16(&deep, TYPE_LIST);
	assert_true(type_parse(guard_bytes(deep.data, deep.size), &t) < 0);
	bytes_done(&deep);
}

static void test_vints(void **state)
{
	uint64_t v;

	(void)state;
	for (unsigned bits = 0; bits <= 64; bits++)
		for (int add = -1; add <= 1; add++) {
			uint64_t n = (bits == 64 ? 0 : 1ull << bits) + (uint64_t)add;
			struct bytes out = {0};
			struct span in;

			moment_put_vint(n, &out);
			in = guard_bytes(out.data, out.size);
			assert_true(moment_take_vint(&in, &v));
			assert_int_equal(v, n);
			assert_int_equal(in.size, 0);
			in = guard_bytes(out.data, out.size - 1);
			assert_false(moment_take_vint(&in, &v));
			bytes_done(&out);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_format_and_parse),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_accepted),
	    cmocka_unit_test(test_styles),
	    cmocka_unit_test(test_null),
	    cmocka_unit_test(test_literals),
	    cmocka_unit_test(test_vints),
	    cmocka_unit_test(test_options_of_the_protocol),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
