/* SPDX-License-Identifier: Apache-2.0 */
/* A view of bytes that somebody else owns. It dies with the buffer it points into. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
	const uint8_t *data;
	size_t size;
};

static inline struct span span_of(const void *data, size_t size)
{
	return (struct span){.data = data, .size = size};
}

static inline struct span span_text(const char *text)
{
	return span_of(text, strlen(text));
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Takes `size` bytes off the front. False: there are not so many. */
static inline bool span_take(struct span *from, size_t size, struct span *ret)
{
	if (from->size < size)
		return false;
	*ret = span_of(from->data, size);
	from->data += size;
	from->size -= size;
	return true;
}

/* A big-endian number of four bytes. False: there are not so many. */
static inline bool span_take_u32(struct span *from, uint32_t *ret)
{
	struct span head;

	if (!span_take(from, 4, &head))
		return false;
	*ret = (uint32_t)head.data[0] << 24 | (uint32_t)head.data[1] << 16 | (uint32_t)head.data[2] << 8 | head.data[3];
	return true;
}

/* [bytes]: a length of four bytes and so many bytes; negative is null (data = NULL). False: malformed. */
static inline bool span_take_bytes(struct span *from, struct span *ret)
{
	uint32_t n;

	if (!span_take_u32(from, &n))
		return false;
	*ret = (struct span){0};
	return (int32_t)n < 0 || span_take(from, n, ret);
}
