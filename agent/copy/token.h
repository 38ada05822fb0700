/* SPDX-License-Identifier: Apache-2.0 */
/* Where a partition key lies on the ring: the hash of Murmur3Partitioner. */
#pragma once
#include <stdint.h>

#include "base/span.h"

/* Of the key as it is routed: one column's bytes, or for each of several a length of two bytes, the bytes and
 * a zero. */
int64_t token_of(struct span key);
