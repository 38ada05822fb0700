// SPDX-License-Identifier: Apache-2.0
/* Input: a byte for the algorithm, then a body that is read as compressed and compressed as plain. */
#include "cql/compress.h"
#include "cql/frame.h"
#include "fuzz/holds.h"

#define PLAIN_MAX (1u << 20)

static void round_trip(enum compression c, struct span plain)
{
	size_t bound = body_compress_bound(c, plain.size);
	uint8_t *packed = malloc(bound ? bound : 1), *again = malloc(plain.size ? plain.size : 1);
	int64_t n = body_compress(c, plain, packed, bound);

	HOLDS(n >= 0 && (size_t)n <= bound);
	HOLDS(body_plain_size(c, span_of(packed, (size_t)n), FRAME_BODY_MAX) == (int64_t)plain.size);
	HOLDS(body_decompress(c, span_of(packed, (size_t)n), again, plain.size) == (int64_t)plain.size);
	HOLDS(span_equal(span_of(again, plain.size), plain));
	free(packed);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	enum compression c = data[0] % 3;
	struct span body = span_of(data + 1, size - 1);
	int64_t plain = body_plain_size(c, body, PLAIN_MAX);

	HOLDS(plain <= PLAIN_MAX);
	round_trip(c, body);
	if (plain < 0)
		return 0;
	/* Exactly the room that was announced. */
	uint8_t *to = malloc(plain ? (size_t)plain : 1);
	int64_t n = body_decompress(c, body, to, (size_t)plain);
	HOLDS(n == plain || n == CQL_MALFORMED);
	if (n >= 0)
		round_trip(c, span_of(to, (size_t)n));
	free(to);
	return 0;
}
