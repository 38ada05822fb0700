/* SPDX-License-Identifier: Apache-2.0 */
/* Where a partition key lies on the ring: the hash of Murmur3Partitioner. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define TOKEN_PARTS_MAX 8u  /* columns of a partition key, in token_of_values() */
#define TOKEN_KEY_MAX 1024u /* bytes of a key of several columns, there */

/* Of the key as it is routed: one column's bytes, or for each of several a length of two bytes, the bytes and
 * a zero. */
int64_t token_of(struct span key);

/*
 * Of the key that is bound among `values`, which are [value]s without names: column i of the partition key is
 * the value at places[i]. False: one of them is null, not set or not there, or the key is beyond the limits
 * above.
 */
bool token_of_values(struct span values, const uint16_t *places, unsigned count, int64_t *ret);
