/* SPDX-License-Identifier: Apache-2.0 */
/* A log line that could come with every write, and comes once a second at most: with how many it stands for. One thread's. */
#pragma once
#include <stdint.h>

struct sparing {
	unsigned untold;
	uint64_t told_ns;
};

/* One more. How many the line to be logged now stands for; 0 = not now. `now_ns`: CLOCK_MONOTONIC. */
static inline unsigned sparing_count(struct sparing *s, uint64_t now_ns)
{
	unsigned n = ++s->untold;

	if (now_ns - s->told_ns <= 1000000000u)
		return 0;
	*s = (struct sparing){.told_ns = now_ns};
	return n;
}
