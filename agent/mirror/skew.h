/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a node's clock is from ours. Write timestamps are taken from ours, and clients that write past the agent take the node's.
 *
 * Measured as NTP does: server time minus the middle of the question's flight, from the sample with the shortest flight, so that a
 * pause on either side spoils one sample and not the result. now() counts milliseconds.
 */
#pragma once
#include "mirror/client.h"

struct skew {
	int64_t offset_us; /* the node's clock minus ours */
	int64_t unsure_us; /* how far that may be off */
};

enum skew_grade { SKEW_FINE, SKEW_UNSURE /* too close to the limit to tell */, SKEW_BEYOND };

/* Asks the node five times. Blocks. 0, or as client_query(). */
int skew_measure(struct client *c, struct skew *ret, struct error *error);

static inline int64_t skew_far(const struct skew *s)
{
	return s->offset_us < 0 ? -s->offset_us : s->offset_us;
}

static inline enum skew_grade skew_judge(const struct skew *s, unsigned max_ms)
{
	int64_t max = (int64_t)max_ms * 1000;

	return skew_far(s) - s->unsure_us > max ? SKEW_BEYOND : skew_far(s) + s->unsure_us > max ? SKEW_UNSURE : SKEW_FINE;
}
