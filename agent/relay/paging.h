/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging states belong to the cluster that made them. Those born on the target carry a tag in front, which the agent
 * strips before the target sees them again; an untagged state is the origin's. Nothing is remembered, because a state
 * may come back on another connection, through another agent, or after a restart.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/span.h"

/* No Cassandra state begins like this: theirs start with small lengths or varints, never with four high bytes. */
#define PAGING_TAG "\xfe\xc9\xf1\xe7target1"
#define PAGING_TAG_SIZE 11u

static inline bool paging_is_target(struct span state)
{
	return state.size >= PAGING_TAG_SIZE && memcmp(state.data, PAGING_TAG, PAGING_TAG_SIZE) == 0;
}
