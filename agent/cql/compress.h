/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression of v3/v4 frame bodies (section 5 of the specification): LZ4 is a 4-byte big-endian plain length
 * and a raw block, Snappy is its own format.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum compression { COMPRESSION_NONE, COMPRESSION_LZ4, COMPRESSION_SNAPPY };

/* "lz4" | "snappy" (any case) as in STARTUP's COMPRESSION; COMPRESSION_NONE for anything else. */
enum compression compression_from_name(struct span name);

/* Plain size of a compressed body without decompressing it; CQL_MALFORMED when it lies or exceeds `limit`. */
int64_t body_plain_size(enum compression c, struct span body, size_t limit);

/* Decompresses into `to` (body_plain_size bytes). Returns the plain size or CQL_MALFORMED. */
int64_t body_decompress(enum compression c, struct span body, uint8_t *to, size_t capacity);

/* Upper bound of and compression into `to`. Returns the size or CQL_MALFORMED (capacity too small). */
size_t body_compress_bound(enum compression c, size_t plain);
int64_t body_compress(enum compression c, struct span plain, uint8_t *to, size_t capacity);
