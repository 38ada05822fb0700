/* SPDX-License-Identifier: Apache-2.0 */
/* Time as the rest of the agent takes it: nanoseconds since boot for spans, microseconds since 1970 for CQL. */
#pragma once
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in ns: for intervals and deadlines. The same clock as bpf_ktime_get_ns(). */
static inline uint64_t clock_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Wall clock in µs since the epoch: the unit of CQL write timestamps. */
static inline int64_t clock_wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
