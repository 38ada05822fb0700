// SPDX-License-Identifier: Apache-2.0
/* Input: a byte whose lowest bit says LZ4, then a stream of segments. */
#include <string.h>

#include "cql/segment.h"
#include "fuzz/holds.h"

static void check_header(const uint8_t *data, const struct segment *s, bool lz4)
{
	uint8_t again[SEGMENT_HEADER_LZ4];
	struct segment t;

	HOLDS(s->payload_size <= SEGMENT_PAYLOAD_MAX && s->plain_size <= SEGMENT_PAYLOAD_MAX);
	HOLDS(s->wire_size == s->header_size + s->payload_size + SEGMENT_TRAILER);
	if (s->plain_size)
		return;
	/* Written again it reads the same, and is the same but for bits that nobody uses. */
	HOLDS(segment_header_write(again, lz4, s->payload_size, s->self_contained) == s->header_size);
	HOLDS(segment_header_read(again, s->header_size, lz4, &t) == (int)s->header_size);
	HOLDS(t.wire_size == s->wire_size && t.payload_size == s->payload_size &&
	      t.self_contained == s->self_contained);
	HOLDS(!memcmp(again, data, 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t plain[SEGMENT_PAYLOAD_MAX];
	struct segment s;

	if (!size)
		return 0;
	bool lz4 = *data & 1;
	for (data++, size--;;) {
		memset(&s, 0, sizeof(s));
		int header = segment_header_read(data, size, lz4, &s);
		if (header < 0)
			return 0;
		check_header(data, &s, lz4);
		if (s.wire_size > size)
			return 0;
		if (segment_payload_check(data, &s) == 0) {
			uint8_t trailer[SEGMENT_TRAILER];
			segment_trailer_write(trailer, segment_crc32(data + header, s.payload_size));
			HOLDS(!memcmp(trailer, data + header + s.payload_size, SEGMENT_TRAILER));
		}
		/* Also with a wrong checksum, which a fuzzer seldom gets right. */
		if (s.plain_size)
			segment_decompress(data + header, &s, plain);
		data += s.wire_size;
		size -= s.wire_size;
	}
}
