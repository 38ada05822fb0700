/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/skew.h"

#include <errno.h>

#include "base/clock.h"

#define SAMPLES 5

static int on_clock(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	int64_t *ms = context;

	(void)columns;
	if (count != 1 || cells[0].size != 8)
		return -EPROTO;
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | cells[0].data[i];
	*ms = (int64_t)v;
	return 0;
}

int skew_measure(struct client *c, struct skew *ret, struct error *error)
{
	int64_t best = INT64_MAX, offset = 0;

	for (int i = 0; i < SAMPLES; i++) {
		int64_t wall = clock_wall_us(), ms = 0;
		uint64_t begin = clock_now_ns();
		int rc = client_query(c, "SELECT toTimestamp(now()) FROM system.local WHERE key = 'local'", CL_ONE, on_clock, &ms, error);
		int64_t flight = (int64_t)((clock_now_ns() - begin) / 1000u);

		if (rc < 0)
			return rc;
		if (flight >= best)
			continue;
		best = flight;
		offset = ms * 1000 + 500 - (wall + flight / 2); /* 500: the milliseconds were cut off */
	}
	*ret = (struct skew){.offset_us = offset, .unsure_us = best / 2 + 500};
	return 0;
}
