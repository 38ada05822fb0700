/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Body compression of v3/v4, see compress.h. A length that the peer claims decides how much memory the caller
 * takes, so it is held against what the algorithm can reach before anybody believes it.
 */
#include "cql/compress.h"

#include <limits.h>
#include <lz4.h>
#include <snappy-c.h>
#include <strings.h>

#include "cql/frame.h"
#include "cql/wire.h"

#define LZ4_PREFIX 4u
/* One byte of an LZ4 match length stands for at most 255 bytes; a Snappy copy of 64 bytes takes 3. */
#define LZ4_RATIO_MAX 255u
#define SNAPPY_RATIO_MAX 64u

enum compression compression_from_name(struct span name)
{
	if (name.size == 3 && !strncasecmp((const char *)name.data, "lz4", 3))
		return COMPRESSION_LZ4;
	if (name.size == 6 && !strncasecmp((const char *)name.data, "snappy", 6))
		return COMPRESSION_SNAPPY;
	return COMPRESSION_NONE;
}

int64_t body_plain_size(enum compression c, struct span body, size_t limit)
{
	size_t plain = 0;
	size_t reach = 0;

	switch (c) {
	case COMPRESSION_LZ4:
		if (body.size < LZ4_PREFIX)
			return CQL_MALFORMED;
		plain = load_u32(body.data);
		reach = (body.size - LZ4_PREFIX) * LZ4_RATIO_MAX;
		break;
	case COMPRESSION_SNAPPY:
		if (!body.size ||
		    snappy_uncompressed_length((const char *)body.data, body.size, &plain) != SNAPPY_OK)
			return CQL_MALFORMED;
		reach = body.size * SNAPPY_RATIO_MAX;
		break;
	case COMPRESSION_NONE:
		plain = reach = body.size;
		break;
	}
	return plain > limit || plain > reach || plain > INT_MAX ? CQL_MALFORMED : (int64_t)plain;
}

int64_t body_decompress(enum compression c, struct span body, uint8_t *to, size_t capacity)
{
	int64_t plain = body_plain_size(c, body, capacity);
	size_t written = capacity;
	int n;

	if (plain < 0 || body.size > INT_MAX)
		return CQL_MALFORMED;
	switch (c) {
	case COMPRESSION_LZ4:
		/* An empty plain body may come as the bare length. */
		if (!plain && body.size == LZ4_PREFIX)
			return 0;
		n = LZ4_decompress_safe((const char *)body.data + LZ4_PREFIX, (char *)to,
					(int)(body.size - LZ4_PREFIX), (int)plain);
		return n == plain ? plain : CQL_MALFORMED;
	case COMPRESSION_SNAPPY:
		if (snappy_uncompress((const char *)body.data, body.size, (char *)to, &written) != SNAPPY_OK)
			return CQL_MALFORMED;
		return (int64_t)written == plain ? plain : CQL_MALFORMED;
	case COMPRESSION_NONE:
		break;
	}
	if (body.size)
		memcpy(to, body.data, body.size);
	return plain;
}

size_t body_compress_bound(enum compression c, size_t plain)
{
	switch (c) {
	case COMPRESSION_LZ4:
		return plain > LZ4_MAX_INPUT_SIZE ? 0 : LZ4_PREFIX + (size_t)LZ4_compressBound((int)plain);
	case COMPRESSION_SNAPPY:
		return snappy_max_compressed_length(plain);
	case COMPRESSION_NONE:
		break;
	}
	return plain;
}

int64_t body_compress(enum compression c, struct span plain, uint8_t *to, size_t capacity)
{
	/* Neither library takes NULL for "nothing". */
	const char *from = plain.size ? (const char *)plain.data : "";
	size_t written = capacity;
	int n;

	if (plain.size > FRAME_BODY_MAX)
		return CQL_MALFORMED;
	switch (c) {
	case COMPRESSION_LZ4:
		if (capacity < LZ4_PREFIX)
			return CQL_MALFORMED;
		if (capacity > INT_MAX)
			capacity = INT_MAX;
		n = LZ4_compress_default(from, (char *)to + LZ4_PREFIX, (int)plain.size,
					 (int)(capacity - LZ4_PREFIX));
		if (n <= 0)
			return CQL_MALFORMED;
		store_u32(to, (uint32_t)plain.size);
		return (int64_t)n + LZ4_PREFIX;
	case COMPRESSION_SNAPPY:
		/* Snappy demands the whole upper bound before it begins. */
		return snappy_compress(from, plain.size, (char *)to, &written) == SNAPPY_OK ? (int64_t)written
											    : CQL_MALFORMED;
	case COMPRESSION_NONE:
		break;
	}
	if (plain.size > capacity)
		return CQL_MALFORMED;
	if (plain.size)
		memcpy(to, plain.data, plain.size);
	return (int64_t)plain.size;
}
