// SPDX-License-Identifier: Apache-2.0
/* The state file: a phase that was kept comes back; what cannot be understood is an error and never a fresh start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cutover/state.h"
#include "unit/directory.h"

static const char *path;

static int setup(void **state)
{
	int rc = directory_setup(state);

	path = in_directory("phase.json");
	return rc;
}

static void write_file(const char *text, size_t size)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, size, f), size);
	fclose(f);
}

static size_t read_file(char *to, size_t capacity)
{
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(to, 1, capacity - 1, f);
	to[n] = 0;
	fclose(f);
	return n;
}

static void every_phase_comes_back(void **unused)
{
	struct error error;
	struct stat st;

	(void)unused;
	for (int p = 0; p < PHASES; p++) {
		enum phase phase = PHASES;
		int64_t mark = -1, high = 1700000000000000ll + p;

		assert_int_equal(state_save(directory, p, "uid 0 \"quoted\" \\ pid 1", high, &error), 0);
		assert_int_equal(state_load(directory, &phase, &mark, &error), 1);
		assert_int_equal(phase, p);
		assert_int_equal(mark, high);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void no_file_is_no_state(void **unused)
{
	enum phase phase = PHASE_DRAIN;
	int64_t mark = 5;
	struct error error;

	(void)unused;
	assert_int_equal(state_load(directory, &phase, &mark, &error), 0);
	assert_int_equal(state_load("", &phase, &mark, &error), 0);
	assert_int_equal(state_save("", PHASE_CUTOVER, "nobody", 1, &error), 0);
	assert_int_equal(phase, PHASE_DRAIN);
	assert_int_equal(mark, 5);
}

static void every_truncation_is_an_error(void **unused)
{
	char text[1024];
	struct error error;
	size_t size, last;

	(void)unused;
	assert_int_equal(state_save(directory, PHASE_CUTOVER, "test", 42, &error), 0);
	size = read_file(text, sizeof(text));
	for (last = size; last > 0 && text[last - 1] != '}'; last--)
		;
	for (size_t n = 0; n < last; n++) {
		enum phase phase = PHASE_DRAIN;
		int64_t mark = 5;

		write_file(text, n);
		error.text[0] = 0;
		assert_true(state_load(directory, &phase, &mark, &error) < 0);
		assert_int_equal(phase, PHASE_DRAIN);
		assert_int_equal(mark, 5);
		assert_non_null(strstr(error.text, path)); /* says which file */
	}
}

static void what_is_not_understood_is_an_error(void **unused)
{
	static const char *const bad[] = {
		"{}",
		"[]",
		"{\"version\": 2, \"phase\": \"cutover\"}",
		"{\"version\": 0, \"phase\": \"cutover\"}",
		"{\"version\": \"1\", \"phase\": \"cutover\"}",
		"{\"version\": 1, \"phase\": \"cut-over\"}",
		"{\"version\": 1, \"phase\": \"\"}",
		"{\"version\": 1, \"phase\": 3}",
		"{\"version\": 1}",
		"{\"phase\": \"cutover\"}",
		"{\"version\": 1, \"phase\": \"mirror\", \"phase\": \"cutover\"}",
		"{\"version\": 1, \"phase\": \"cutover\"} trailing",
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		enum phase phase = PHASE_DRAIN;
		int64_t mark = 5;
		struct error error = {""};

		write_file(bad[i], strlen(bad[i]));
		if (state_load(directory, &phase, &mark, &error) >= 0)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(phase, PHASE_DRAIN);
		assert_non_null(strstr(error.text, path));
	}
}

/* A full or read-only disk: the old state stays whole. */
static void what_cannot_be_written_leaves_the_old_state(void **unused)
{
	char in_the_way[160];
	enum phase phase = PHASES;
	int64_t mark;
	struct error error = {""};

	(void)unused;
	assert_int_equal(state_save(directory, PHASE_MIRROR, "test", 1, &error), 0);
	/* Root may write anywhere: a directory stands where the temporary file would. */
	snprintf(in_the_way, sizeof(in_the_way), "%s.new", path);
	assert_int_equal(mkdir(in_the_way, 0700), 0);
	assert_true(state_save(directory, PHASE_CUTOVER, "test", 2, &error) < 0);
	assert_non_null(strstr(error.text, "phase.json"));
	assert_int_equal(rmdir(in_the_way), 0);
	assert_int_equal(state_load(directory, &phase, &mark, &error), 1);
	assert_int_equal(phase, PHASE_MIRROR);
	assert_int_equal(mark, 1);
	/* A state directory that is a file. */
	assert_true(state_save(path, PHASE_CUTOVER, "test", 2, &error) < 0);
	assert_true(state_save("/proc/cqlferry", PHASE_CUTOVER, "test", 2, &error) < 0);
}

static void the_directory_is_made(void **unused)
{
	char sub[128];
	enum phase phase = PHASES;
	int64_t mark;
	struct error error;

	(void)unused;
	snprintf(sub, sizeof(sub), "%s/sub", directory);
	assert_int_equal(state_save(sub, PHASE_FINISH, "test", 9, &error), 0);
	assert_int_equal(state_load(sub, &phase, &mark, &error), 1);
	assert_int_equal(phase, PHASE_FINISH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_phase_comes_back, setup, directory_teardown),
		cmocka_unit_test_setup_teardown(no_file_is_no_state, setup, directory_teardown),
		cmocka_unit_test_setup_teardown(every_truncation_is_an_error, setup, directory_teardown),
		cmocka_unit_test_setup_teardown(what_is_not_understood_is_an_error, setup, directory_teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_written_leaves_the_old_state, setup, directory_teardown),
		cmocka_unit_test_setup_teardown(the_directory_is_made, setup, directory_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
