// SPDX-License-Identifier: Apache-2.0
/* The files of COPY TO: what a write that failed leaves behind, and the progress file beside files that change. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sys/resource.h>
#include <unistd.h>

#include "copy/export_priv.h"
#include "unit/directory.h"

static const char *path;

static int setup(void **state)
{
	int rc = directory_setup(state);

	path = in_directory("out.csv");
	return rc;
}

static struct bytes bytes_of(const char *text)
{
	struct bytes b = {0};

	bytes_text(&b, text);
	return b;
}

static void limit_files(rlim_t size)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void holds(const char *file, const char *text)
{
	char found[64] = "";
	FILE *f = fopen(file, "re");

	assert_non_null(f);
	found[fread(found, 1, sizeof(found) - 1, f)] = 0;
	fclose(f);
	assert_string_equal(found, text);
}

/* The disk takes a part of the rows. What the progress file is told is what was whole before. */
static void test_rows_that_the_disk_did_not_take_are_there_after_a_resume(void **state)
{
	struct output o, again;
	struct error error;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(output_open(&o, path, -1, bytes_of("a\r\n"), &error), 0);
	assert_int_equal(output_write(&o, span_text("1\r\n"), 1, &error), 0);
	limit_files(8);
	assert_int_equal(output_write(&o, span_text("22\r\n33\r\n"), 2, &error), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_int_equal(o.files, 1);
	assert_int_equal(o.offset, 6);
	assert_int_equal(o.file_rows, 1);
	/* Another thread's rows do not go behind half a row. */
	assert_int_equal(output_write(&o, span_text("4\r\n"), 1, &error), -EFBIG);
	assert_int_equal(o.offset, 6);
	assert_int_equal(output_close(&o, &error), 0);

	assert_int_equal(output_resume(&again, path, -1, o.files, o.offset, o.file_rows, &error), 0);
	assert_int_equal(output_write(&again, span_text("22\r\n33\r\n"), 2, &error), 0);
	assert_int_equal(output_close(&again, &error), 0);
	holds(path, "a\r\n1\r\n22\r\n33\r\n");
}

/* MAXOUTPUTSIZE: the rows went into two files, the second of which fails. */
static void test_a_write_over_two_files_is_taken_back_from_both(void **state)
{
	struct output o, again;
	struct error error;
	char second[128];

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	snprintf(second, sizeof(second), "%s.1", path);
	assert_int_equal(output_open(&o, path, 2, (struct bytes){0}, &error), 0);
	assert_int_equal(output_write(&o, span_text("1\r\n"), 1, &error), 0);
	limit_files(7);
	assert_int_equal(output_write(&o, span_text("2\r\n3\r\n444444\r\n"), 3, &error), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_int_equal(o.files, 1);
	assert_int_equal(o.offset, 3);
	assert_int_equal(o.file_rows, 1);
	assert_int_equal(output_close(&o, &error), 0);

	assert_int_equal(output_resume(&again, path, 2, o.files, o.offset, o.file_rows, &error), 0);
	assert_int_equal(output_write(&again, span_text("2\r\n3\r\n444444\r\n"), 3, &error), 0);
	assert_int_equal(output_close(&again, &error), 0);
	holds(path, "1\r\n2\r\n");
	holds(second, "3\r\n444444\r\n");
}

static void test_a_file_without_its_header_is_not_gone_on_with(void **state)
{
	struct output o;
	struct error error;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	limit_files(2);
	assert_int_equal(output_open(&o, path, -1, bytes_of("a,b\r\n"), &error), -EFBIG);
	limit_files(RLIM_INFINITY);
	assert_int_equal(o.fd, -1);
	assert_int_equal(output_close(&o, &error), 0);
}

struct rotation {
	struct export *export;
	_Atomic bool over;
	int rc;
};

/* Each row is a file of its own; the same few, so that the directory stays small. */
static void *rotate(void *context)
{
	struct rotation *r = context;
	struct output *o = &r->export->output;
	struct error error;

	while (r->rc == 0 && !atomic_load(&r->over)) {
		pthread_mutex_lock(&r->export->lock);
		o->files %= 8;
		r->rc = output_write(o, span_text("1\r\n"), 1, &error);
		pthread_mutex_unlock(&r->export->lock);
		sched_yield();
	}
	return NULL;
}

static void test_the_progress_is_saved_while_another_file_is_begun(void **state)
{
	struct copy_options options;
	struct plan plan = {.options = &options, .keyspace = "ks", .table = "t"};
	struct export e = {.plan = &plan};
	struct rotation rotation = {.export = &e};
	char progress[128];
	struct error error = {""};
	pthread_t thread;

	(void)state;
	snprintf(progress, sizeof(progress), "%s/progress", directory);
	options_init(&options);
	pthread_mutex_init(&e.lock, NULL);
	assert_int_equal(output_open(&e.output, path, 1, (struct bytes){0}, &error), 0);
	assert_int_equal(pthread_create(&thread, NULL, rotate, &rotation), 0);
	for (unsigned i = 0; i < 500 && !*error.text; i++)
		ranges_save(&e, progress, &error);
	atomic_store(&rotation.over, true);
	pthread_join(thread, NULL);
	assert_string_equal(error.text, "");
	assert_int_equal(rotation.rc, 0);
	assert_int_equal(output_close(&e.output, &error), 0);
	pthread_mutex_destroy(&e.lock);
	options_done(&options);
}

/* Options, and whether numbers, and null in their columns, go into the file without a look at their characters. */
static void test_a_null_that_holds_the_delimiter_is_quoted_in_columns_of_numbers(void **state)
{
	static const struct {
		const char *delimiter, *null;
		bool plain;
	} rows[] = {
	    {",", "", true}, {",", "null", true}, {"|", "N/A", true},
	    {"/", "", true}, {"/", "N/A", false}, {",", "\\N", false}, {",", "a\"b", false}, {"-", "", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct copy_options options;
		struct error error;

		options_init(&options);
		assert_int_equal(options_set(&options, "DELIMITER", rows[i].delimiter, &error), 0);
		assert_int_equal(options_set(&options, "NULL", rows[i].null, &error), 0);
		assert_int_equal(options_finish(&options, &error), 0);
		assert_int_equal(export_numbers_are_plain(&options), rows[i].plain);
		options_done(&options);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_rows_that_the_disk_did_not_take_are_there_after_a_resume, setup,
					    directory_teardown),
	    cmocka_unit_test_setup_teardown(test_a_write_over_two_files_is_taken_back_from_both, setup, directory_teardown),
	    cmocka_unit_test_setup_teardown(test_a_file_without_its_header_is_not_gone_on_with, setup, directory_teardown),
	    cmocka_unit_test(test_a_null_that_holds_the_delimiter_is_quoted_in_columns_of_numbers),
	    cmocka_unit_test_setup_teardown(test_the_progress_is_saved_while_another_file_is_begun, setup, directory_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
