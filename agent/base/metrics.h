/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, gauges and histograms. The list with names and help texts is metrics_list.h; nothing is created at run time.
 *
 * Every thread that counts owns one `struct metrics` and is its only writer, so that counting is a plain
 * add without a lock or an atomic read-modify-write; a reader (the HTTP page, `status`) sums over all of them.
 */
#pragma once
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum metric {
#define METRIC(id, kind, name, labels, help) METRIC_##id,
#include "base/metrics_list.h"
#undef METRIC
	METRIC_COUNT
};

enum histogram {
#define HISTOGRAM(id, name, labels, help) HISTOGRAM_##id,
#include "base/metrics_list.h"
#undef HISTOGRAM
	HISTOGRAM_COUNT
};

/* Upper bounds in µs, starting where a proxy's own share can still be seen; the last bucket is +Inf. */
#define HISTOGRAM_BOUNDS_US {10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 1000000}
#define HISTOGRAM_BUCKETS 14

struct metrics {
	_Atomic uint64_t value[METRIC_COUNT];
	_Atomic uint64_t bucket[HISTOGRAM_COUNT][HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_us[HISTOGRAM_COUNT];
} __attribute__((aligned(64)));

static inline void metric_add(struct metrics *m, enum metric id, uint64_t n)
{
	atomic_store_explicit(&m->value[id], atomic_load_explicit(&m->value[id], memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* Gauges go down as well; the sum over threads is what counts, so a single thread's value may wrap. */
static inline void metric_sub(struct metrics *m, enum metric id, uint64_t n)
{
	metric_add(m, id, (uint64_t)0 - n);
}

static inline void metric_set(struct metrics *m, enum metric id, uint64_t n)
{
	atomic_store_explicit(&m->value[id], n, memory_order_relaxed);
}

static inline uint64_t metric_get(const struct metrics *m, enum metric id)
{
	return atomic_load_explicit(&((struct metrics *)m)->value[id], memory_order_relaxed);
}

void histogram_record(struct metrics *m, enum histogram id, uint64_t us);

/* Registers a thread's metrics for the readers (shares: it must stay valid until metrics_unregister). Locks. */
void metrics_register(struct metrics *m);
void metrics_unregister(struct metrics *m);

/* Sum over all registered threads. Locks the list, not the writers. */
uint64_t metrics_total(enum metric id);

/* The whole page in Prometheus text format. *ret_text is malloc'ed, the caller frees it. 0 or −ENOMEM. */
int metrics_render(char **ret_text, size_t *ret_size);

/* Full series name with its labels, for `status` output: "cqlferry_unmirrored_total{cause=\"lwt\"}". */
const char *metric_series(enum metric id);
