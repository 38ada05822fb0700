/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.h - latencies in nanoseconds, in buckets of less than 0.8% width, from 1 ns to centuries.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { BUCKETS = 64 * 128 };

static inline uint32_t bucket_of(uint64_t ns)
{
	int shift = ns < 256 ? 0 : 63 - __builtin_clzll(ns) - 7;

	return (uint32_t)(shift * 128 + (int)(ns >> shift));
}

static inline double bucket_us(uint32_t bucket)
{
	uint32_t shift = bucket < 256 ? 0 : (bucket - 128) / 128;
	uint64_t low = (uint64_t)(bucket - shift * 128) << shift;

	return (double)(low + ((1ull << shift) - 1) / 2.0) / 1000;
}

static inline double percentile(const uint64_t *h, uint64_t n, double q)
{
	uint64_t want = (uint64_t)(q * (double)n + 0.999999), seen = 0;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		seen += h[i];
		if (seen >= want && seen)
			return bucket_us(i);
	}
	return 0;
}

#endif
