// SPDX-License-Identifier: Apache-2.0
/* The page that Prometheus reads: whole families in its text format, sums over threads that ended too, and every family in docs/metrics.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"

static bool ends_with(const char *text, const char *end)
{
	size_t size = strlen(text), end_size = strlen(end);

	return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* The value of a series, as it stands on the page. */
static double value_of(const char *series)
{
	char *text, *line, *at;
	size_t size;
	double value = -1;

	assert_int_equal(metrics_render(&text, &size), 0);
	assert_int_equal(strlen(text), size);
	for (line = strtok_r(text, "\n", &at); line; line = strtok_r(NULL, "\n", &at))
		if (strncmp(line, series, strlen(series)) == 0 && line[strlen(series)] == ' ')
			value = strtod(line + strlen(series), NULL);
	free(text);
	return value;
}

/* HELP and TYPE once for each family, before its series, which follow one another. */
static void a_family_is_in_one_piece(void **state)
{
	char *text, *line, *at, family[128] = "", seen[16384] = " ", kind[16] = "", key[130];
	size_t size, series = 0;

	(void)state;
	assert_int_equal(metrics_render(&text, &size), 0);
	for (line = strtok_r(text, "\n", &at); line; line = strtok_r(NULL, "\n", &at)) {
		char name[128], help[16];

		if (sscanf(line, "# HELP %127s %15s", name, help) == 2) {
			snprintf(family, sizeof(family), "%s", name);
			snprintf(key, sizeof(key), " %s ", name);
			if (strstr(seen, key))
				fail_msg("%s is there twice", name);
			assert_true(strlen(seen) + strlen(name) + 2 < sizeof(seen));
			strcat(strcat(seen, name), " ");
		} else if (sscanf(line, "# TYPE %127s %15s", name, kind) == 2) {
			assert_string_equal(name, family);
			if (ends_with(name, "_total") != (strcmp(kind, "counter") == 0))
				fail_msg("%s is a %s", name, kind);
		} else {
			if (strncmp(line, family, strlen(family)) != 0 || !strchr("{ _", line[strlen(family)]))
				fail_msg("in family %s there is %s", family, line);
			series++;
		}
	}
	assert_true(series >= METRIC_COUNT + HISTOGRAM_COUNT * (HISTOGRAM_BUCKETS + 2));
	free(text);
}

/* What a thread has counted stays when it ends. */
static void totals_never_go_back(void **state)
{
	struct metrics *one = aligned_alloc(64, sizeof(*one)), *two = aligned_alloc(64, sizeof(*two));

	(void)state;
	memset(one, 0, sizeof(*one));
	memset(two, 0, sizeof(*two));
	metrics_register(one);
	metrics_register(two);
	metric_add(one, METRIC_DIAL_OK, 3);
	metric_add(two, METRIC_DIAL_OK, 4);
	metric_add(one, METRIC_SESSIONS, 2);
	metric_sub(two, METRIC_SESSIONS, 3);
	assert_true(value_of("cqlferry_sessions") == 0); /* one's next was not read yet */
	metric_add(two, METRIC_SESSIONS, 2); /* opened by one, closed by the other */
	assert_true(value_of("cqlferry_dials_total{result=\"ok\"}") == 7);
	assert_true(value_of("cqlferry_sessions") == 1);
	metrics_unregister(one);
	assert_true(value_of("cqlferry_dials_total{result=\"ok\"}") == 7);
	assert_int_equal(metrics_total(METRIC_DIAL_OK), 7);
	metrics_unregister(two);
	assert_int_equal(metrics_total(METRIC_SESSIONS), 1);
	free(one);
	free(two);
}

/* Buckets hold what is at or below their bound; the last one all of it. */
static void a_histogram_adds_up(void **state)
{
	struct metrics *m = aligned_alloc(64, sizeof(*m));
#define BUCKET(le) value_of("cqlferry_mirror_seconds_bucket{kind=\"lag\",le=\"" le "\"}")

	(void)state;
	memset(m, 0, sizeof(*m));
	metrics_register(m);
	histogram_record(m, HISTOGRAM_MIRROR_LAG, 10);
	histogram_record(m, HISTOGRAM_MIRROR_LAG, 11);
	histogram_record(m, HISTOGRAM_MIRROR_LAG, 2000000);
	assert_true(BUCKET("1e-05") == 1);
	assert_true(BUCKET("2.5e-05") == 2);
	assert_true(BUCKET("1") == 2);
	assert_true(BUCKET("+Inf") == 3);
	assert_true(value_of("cqlferry_mirror_seconds_count{kind=\"lag\"}") == 3);
	assert_true(value_of("cqlferry_mirror_seconds_sum{kind=\"lag\"}") > 2.00002);
	metrics_unregister(m);
	free(m);
}

static void every_family_is_documented(void **state)
{
	static const char *const families[] = {
#define METRIC(id, kind, name, labels, help) "| `" name "` | " kind " |",
#define HISTOGRAM(id, name, labels, help) "| `" name "` | histogram |",
#include "base/metrics_list.h"
#undef METRIC
#undef HISTOGRAM
	};
	FILE *f = fopen("docs/metrics.md", "r");
	char *document = calloc(1, 1 << 20);

	(void)state;
	if (!f)
		fail_msg("docs/metrics.md: %s (run from the top of the repository)", strerror(errno));
	assert_true(fread(document, 1, (1 << 20) - 1, f) > 0);
	fclose(f);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		if (!strstr(document, families[i]))
			fail_msg("docs/metrics.md lacks %s", families[i]);
	free(document);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_family_is_in_one_piece),
		cmocka_unit_test(totals_never_go_back),
		cmocka_unit_test(a_histogram_adds_up),
		cmocka_unit_test(every_family_is_documented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
