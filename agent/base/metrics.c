/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 128

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct metrics *threads[THREADS_MAX];
static struct metrics gone; /* what ended threads had counted, so that totals never go back */

static const struct {
	const char *kind, *name, *labels, *help, *series;
} metric_info[] = {
#define METRIC(id, kind, name, labels, help) {kind, name, labels, help, labels[0] ? name "{" labels "}" : name},
#include "base/metrics_list.h"
#undef METRIC
};

static const struct {
	const char *name, *labels, *help;
} histogram_info[] = {
#define HISTOGRAM(id, name, labels, help) {name, labels, help},
#include "base/metrics_list.h"
#undef HISTOGRAM
};

static const uint32_t bounds_us[] = HISTOGRAM_BOUNDS_US;

const char *metric_series(enum metric id)
{
	return metric_info[id].series;
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

void histogram_record(struct metrics *m, enum histogram id, uint64_t us)
{
	unsigned i = 0;

	while (i < HISTOGRAM_BUCKETS - 1 && us > bounds_us[i])
		i++;
	add(&m->bucket[id][i], 1);
	add(&m->sum_us[id], us);
}

void metrics_register(struct metrics *m)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < THREADS_MAX; i++) {
		if (!threads[i]) {
			threads[i] = m;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}

static void accumulate(struct metrics *to, struct metrics *from)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		add(&to->value[i], metric_get(from, i));
	for (unsigned h = 0; h < HISTOGRAM_COUNT; h++) {
		for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
			add(&to->bucket[h][i], atomic_load_explicit(&from->bucket[h][i], memory_order_relaxed));
		add(&to->sum_us[h], atomic_load_explicit(&from->sum_us[h], memory_order_relaxed));
	}
}

void metrics_unregister(struct metrics *m)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < THREADS_MAX; i++) {
		if (threads[i] == m) {
			accumulate(&gone, m);
			threads[i] = NULL;
		}
	}
	pthread_mutex_unlock(&lock);
}

static void sum_all(struct metrics *sum)
{
	memset(sum, 0, sizeof(*sum));
	pthread_mutex_lock(&lock);
	accumulate(sum, &gone);
	for (unsigned i = 0; i < THREADS_MAX; i++)
		if (threads[i])
			accumulate(sum, threads[i]);
	pthread_mutex_unlock(&lock);
}

uint64_t metrics_total(enum metric id)
{
	uint64_t total = 0;

	pthread_mutex_lock(&lock);
	total = metric_get(&gone, id);
	for (unsigned i = 0; i < THREADS_MAX; i++)
		if (threads[i])
			total += metric_get(threads[i], id);
	pthread_mutex_unlock(&lock);
	return total;
}

static void render_histogram(FILE *out, const struct metrics *sum, unsigned h)
{
	uint64_t below = 0;

	if (h == 0 || strcmp(histogram_info[h].name, histogram_info[h - 1].name) != 0)
		fprintf(out, "# HELP %s %s\n# TYPE %s histogram\n", histogram_info[h].name, histogram_info[h].help,
			histogram_info[h].name);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		below += sum->bucket[h][i];
		fprintf(out, "%s_bucket{%s,le=\"", histogram_info[h].name, histogram_info[h].labels);
		if (i < HISTOGRAM_BUCKETS - 1)
			fprintf(out, "%g", bounds_us[i] / 1e6);
		else
			fputs("+Inf", out);
		fprintf(out, "\"} %" PRIu64 "\n", below);
	}
	fprintf(out, "%s_sum{%s} %.6f\n", histogram_info[h].name, histogram_info[h].labels, (double)sum->sum_us[h] / 1e6);
	fprintf(out, "%s_count{%s} %" PRIu64 "\n", histogram_info[h].name, histogram_info[h].labels, below);
}

int metrics_render(char **ret_text, size_t *ret_size)
{
	char *text = NULL;
	size_t size = 0;
	struct metrics *sum = aligned_alloc(64, sizeof(*sum));
	FILE *out = sum ? open_memstream(&text, &size) : NULL;

	if (!out) {
		free(sum);
		return -ENOMEM;
	}
	sum_all(sum);
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		if (i == 0 || strcmp(metric_info[i].name, metric_info[i - 1].name))
			fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric_info[i].name, metric_info[i].help,
				metric_info[i].name, metric_info[i].kind);
		/* Read between what one thread took off and another had put on, a gauge can be below 0 for a moment. */
		if (sum->value[i] > INT64_MAX && metric_info[i].kind[0] == 'g')
			sum->value[i] = 0;
		fprintf(out, "%s %" PRIu64 "\n", metric_info[i].series, sum->value[i]);
	}
	for (unsigned h = 0; h < HISTOGRAM_COUNT; h++)
		render_histogram(out, sum, h);
	free(sum);
	if (fclose(out) != 0) {
		free(text);
		return -ENOMEM;
	}
	*ret_text = text;
	*ret_size = size;
	return 0;
}
