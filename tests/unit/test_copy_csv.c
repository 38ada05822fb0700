// SPDX-License-Identifier: Apache-2.0
/* CSV: what Python's csv module writes and reads, and files that somebody has broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>

#include "copy/csv.h"
#include "copy/input.h"
#include "unit/guard.h"

static struct csv_dialect dialect_of(const char *three)
{
	struct csv_dialect d;

	csv_init(&d, (uint8_t)three[0], (uint8_t)three[1], (uint8_t)three[2]);
	return d;
}

/* One field and how Python 3.11 writes it. */
static const struct {
	const char *name, *dialect, *field, *written;
} writes[] = {
    {"plain", ",\"\\", "abc", "abc"},
    {"empty", ",\"\\", "", ""},
    {"blanks need no quotes", ",\"\\", " a b ", " a b "},
    {"delimiter", ",\"\\", "p,q", "\"p,q\""},
    {"quote is escaped, not quoted", ",\"\\", "x\"y", "x\\\"y"},
    {"escape is escaped", ",\"\\", "a\\n", "a\\\\n"},
    {"all of them", ",\"\\", "x\\,\"y", "\"x\\\\,\\\"y\""},
    {"line ends", ",\"\\", "r\rs\nt", "\"r\rs\nt\""},
    {"doubled quotes", ",\"\"", "x\"y", "\"x\"\"y\""},
    {"doubled: no escape", ",\"\"", "a\\n", "a\\n"},
    {"another delimiter", ";\"\\", "a\\,;\"b\\\"", "\"a\\\\,;\\\"b\\\\\\\"\""},
    {"apostrophes", "|'\\", "it's|", "'it\\'s|'"},
};

static void test_write(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
		struct csv_dialect d = dialect_of(writes[i].dialect);
		struct bytes out = {0};

		bytes_text(&out, "before,");
		bytes_text(&out, writes[i].field);
		csv_write(&d, &out, 7);
		bytes_u8(&out, 0);
		assert_string_equal((char *)out.data + 7, writes[i].written);
		bytes_done(&out);
	}
}

/* Records and their fields, separated by '/'. */
static const struct {
	const char *name, *dialect, *record, *fields;
} reads[] = {
    {"fields", ",\"\\", "a,b,c\r\n", "a/b/c"},
    {"empty fields", ",\"\\", ",,\n", "//"},
    {"quoted", ",\"\\", "\"a,b\",c\n", "a,b/c"},
    {"line end inside", ",\"\\", "\"a\r\nb\",c\n", "a\r\nb/c"},
    {"escaped quote", ",\"\\", "\"a\\\"b\",c\\\\\n", "a\"b/c\\"},
    {"doubled quote", ",\"\"", "\"a\"\"b\",c\n", "a\"b/c"},
    {"quote inside a plain field", ",\"\\", "a\"b\",c\n", "a\"b\"/c"},
    {"text behind a closing quote", ",\"\\", "\"a\"b,c\n", "ab/c"},
    {"escaped delimiter", ",\"\\", "a\\,b,c\n", "a,b/c"},
    {"escaped line end", ",\"\\", "a\\\nb,c\n", "a\nb/c"},
    {"no line end", ",\"\\", "a,b", "a/b"},
    {"carriage return alone", ",\"\\", "a,b\rc", "a/b"},
    {"one empty quoted field", ",\"\\", "\"\"\r\n", ""},
    {"escape at the end", ",\"\\", "a,b\\", "a/b\\"},
};

static void test_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(reads) / sizeof(*reads); i++) {
		struct csv_dialect d = dialect_of(reads[i].dialect);
		struct span in = guard_text(reads[i].record), fields[8];
		struct csv_record r;
		struct bytes joined = {0};
		unsigned count;

		assert_int_equal(csv_scan(&d, in.data, in.size, true, &r), CSV_RECORD);
		/* Each shorter beginning wants more, unless it is the end of the file. */
		for (size_t n = 0; n + 1 < r.size; n++) {
			struct span part = guard_slot(1, reads[i].record, n);
			struct csv_record other;

			if (!strchr("\r\n", reads[i].record[r.size - 1]) || n < r.size - 2)
				assert_int_equal(csv_scan(&d, part.data, part.size, false, &other), CSV_MORE);
		}
		count = csv_split(&d, (uint8_t *)in.data, r.size, fields, 8);
		assert_int_equal(count, r.fields);
		for (unsigned k = 0; k < count; k++) {
			if (k)
				bytes_u8(&joined, '/');
			bytes_put(&joined, fields[k].data, fields[k].size);
		}
		bytes_u8(&joined, 0);
		if (strcmp((char *)joined.data, reads[i].fields) != 0)
			fail_msg("%s: %s", reads[i].name, (char *)joined.data);
		bytes_done(&joined);
	}
}

/* What is written reads the same, in any dialect. */
static void test_round_trip(void **state)
{
	static const char *const dialects[] = {",\"\\", ",\"\"", "|'\\", "\t\"\\", ";''"};
	static const char letters[] = "ab,\"\\|'\t;\r\n ";
	uint32_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 5000; round++) {
		struct csv_dialect d = dialect_of(dialects[round % 5]);
		struct bytes plain = {0}, out = {0};
		size_t starts[5] = {0};
		struct span fields[4];
		struct csv_record r;

		for (unsigned k = 0; k < 4; k++) {
			size_t from = out.size;

			for (random = random * 1664525 + 1013904223; random >> 28 > 3;
			     random = random * 1664525 + 1013904223)
				bytes_u8(&plain, (uint8_t)letters[(random >> 16) % (sizeof(letters) - 1)]);
			starts[k + 1] = plain.size;
			bytes_put(&out, plain.data + starts[k], starts[k + 1] - starts[k]);
			csv_write(&d, &out, from);
			bytes_text(&out, k < 3 ? (char[2]){(char)d.delimiter, 0} : "\r\n");
		}
		struct span in = guard_bytes(out.data, out.size);

		assert_int_equal(csv_scan(&d, in.data, in.size, false, &r), CSV_RECORD);
		assert_int_equal(r.size, in.size);
		assert_false(r.loose || r.open);
		assert_int_equal(csv_split(&d, (uint8_t *)in.data, r.size, fields, 4), 4);
		for (unsigned k = 0; k < 4; k++) {
			assert_int_equal(fields[k].size, starts[k + 1] - starts[k]);
			if (fields[k].size)
				assert_memory_equal(fields[k].data, plain.data + starts[k], fields[k].size);
		}
		bytes_done(&plain);
		bytes_done(&out);
	}
}

/* ------------------------------------------------------------- files */

static char path[] = "/tmp/cqlferry-test-XXXXXX";

static void write_file(const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

/* Rows of a file of two columns: number, line, and the row or '!' and the first word of the reason. */
static const struct {
	const char *name, *file, *rows;
	bool header;
} files[] = {
    {"nothing", "", "", false},
    {"two rows", "a,b\nc,d\n", "1:1 a,b|2:2 c,d|", false},
    {"header", "x,y\r\na,b\r\n", "1:2 a,b|", true},
    {"byte order mark",
     "\xef\xbb\xbf"
     "a,b\n",
     "1:1 a,b|", false},
    {"empty lines", "\n\na,b\n\r\nc,d", "1:3 a,b|2:5 c,d|", false},
    {"line end in quotes", "a,\"b\nc\"\nd,e\n", "1:1 a,\"b\nc\"|2:3 d,e|", false},
    {"quote that is never closed", "a,b\nc,\"d\ne,f\ng,h\n",
     "1:1 a,b|2:2 !a quote is opened and never closed|3:3 e,f|4:4 g,h|", false},
    {"quote that another row's closes", "a,\"b\nc,\"d\"\ne,f\n",
     "1:1 !a quote is opened, and closed within another line|2:2 c,\"d\"|3:3 e,f|", false},
    {"quote that swallows the fields of a row", "a,\"b\nc,d\n\",e\nf,g\n",
     "1:1 !a quote is opened and closed in another line, with another number of fields|2:2 c,d|3:3 !a quote "
     "is opened and never closed|4:4 f,g|",
     false},
    {"last line with an open quote", "a,b\nc,\"d", "1:1 a,b|2:2 !a quote is opened and never closed|", false},
};

static void read_all(const char *name, bool header, struct bytes *out)
{
	struct csv_dialect d = dialect_of(",\"\\");
	struct input in;
	struct input_row row;
	struct error error;
	int rc;

	assert_int_equal(input_open(&in, path, &d, header, 2, &error), 0);
	while ((rc = input_next(&in, &row, &error)) == 1) {
		char head[64];
		size_t size = row.data.size;

		snprintf(head, sizeof(head), "%llu:%llu ", (unsigned long long)row.row,
			 (unsigned long long)row.line);
		bytes_text(out, head);
		if (row.wrong) {
			bytes_u8(out, '!');
			bytes_text(out, row.wrong);
		} else {
			while (size && strchr("\r\n", row.data.data[size - 1]))
				size--;
			bytes_put(out, row.data.data, size);
		}
		bytes_u8(out, '|');
	}
	if (rc < 0)
		fail_msg("%s: %s", name, error.text);
	bytes_u8(out, 0);
	input_close(&in);
}

static void test_files(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		struct bytes out = {0};

		write_file(files[i].file, strlen(files[i].file));
		read_all(files[i].name, files[i].header, &out);
		if (strcmp((char *)out.data, files[i].rows) != 0)
			fail_msg("%s: %s", files[i].name, (char *)out.data);
		bytes_done(&out);
	}
}

static void test_a_row_that_is_too_long(void **state)
{
	size_t size = 10u << 20;
	struct bytes file = {0}, out = {0};
	uint8_t *room;

	(void)state;
	bytes_text(&file, "a,b\nc,\"");
	room = bytes_room(&file, size);
	assert_non_null(room);
	memset(room, 'x', size);
	file.size += size;
	bytes_text(&file, "\"\nd,e\n");
	write_file(file.data, file.size);
	read_all("10 MB", false, &out);
	assert_string_equal((char *)out.data,
			    "1:1 a,b|2:2 !longer than 8 MiB; its beginning was kept|3:3 d,e|");
	bytes_done(&file);
	bytes_done(&out);
}

/* A mark taken after any row leads to the same rows as reading on. */
static void test_resume(void **state)
{
	static const char text[] = "x,y\na,b\n\"c\nd\",e\n\nf,\"g\nh,i\n";
	struct csv_dialect d = dialect_of(",\"\\");
	struct input_mark marks[8] = {0};
	struct input in;
	struct input_row row;
	struct error error;
	unsigned count = 0;

	(void)state;
	write_file(text, sizeof(text) - 1);
	assert_int_equal(input_open(&in, path, &d, true, 2, &error), 0);
	while (input_next(&in, &row, &error) == 1)
		marks[++count] = in.mark;
	input_close(&in);
	assert_int_equal(count, 4);
	for (unsigned i = 1; i <= count; i++) {
		unsigned rest = 0;

		assert_int_equal(input_open(&in, path, &d, true, 2, &error), 0);
		assert_int_equal(input_resume(&in, &marks[i], &error), 0);
		while (input_next(&in, &row, &error) == 1)
			assert_int_equal(row.row, i + ++rest);
		assert_int_equal(rest, count - i);
		input_close(&in);
	}
}

static void test_no_such_file(void **state)
{
	struct csv_dialect d = dialect_of(",\"\\");
	struct input in;
	struct error error;

	(void)state;
	assert_true(input_open(&in, "/nonexistent/*.csv", &d, false, 2, &error) < 0);
	assert_non_null(strstr(error.text, "no matching file found"));
}

static int begin(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	return fd < 0;
}

static int end(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_write),	 cmocka_unit_test(test_read),
	    cmocka_unit_test(test_round_trip),	 cmocka_unit_test(test_files),
	    cmocka_unit_test(test_resume),	 cmocka_unit_test(test_a_row_that_is_too_long),
	    cmocka_unit_test(test_no_such_file),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
