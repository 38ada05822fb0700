/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing run of bytes, and big-endian numbers in it. Running out of memory is remembered in `failed`:
 * writing goes on harmlessly and is judged once at the end.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"

struct bytes {
	uint8_t *data;
	size_t size, room;
	bool failed;
};

static inline bool bytes_grow(struct bytes *b, size_t more)
{
	size_t room = b->room ? b->room : 256;
	uint8_t *data;

	while (room - b->size < more)
		room *= 2;
	data = (uint8_t *)realloc(b->data, room);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->room = room;
	return true;
}

/* Room for `more` bytes behind the end, or NULL. Whoever wrote there adds to `size`. */
static inline uint8_t *bytes_room(struct bytes *b, size_t more)
{
	if (__builtin_expect(b->room - b->size < more || !b->data, 0) && !bytes_grow(b, more))
		return NULL;
	return b->data + b->size;
}

static inline void bytes_put(struct bytes *b, const void *data, size_t size)
{
	uint8_t *to = bytes_room(b, size);

	if (to && size) {
		memcpy(to, data, size);
		b->size += size;
	}
}

static inline void bytes_text(struct bytes *b, const char *text)
{
	bytes_put(b, text, strlen(text));
}

static inline void bytes_u8(struct bytes *b, uint8_t v)
{
	uint8_t *to = bytes_room(b, 1);

	if (to) {
		*to = v;
		b->size++;
	}
}

static inline void store_be16(uint8_t *to, uint16_t v)
{
	v = __builtin_bswap16(v);
	memcpy(to, &v, 2);
}

static inline void store_be32(uint8_t *to, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(to, &v, 4);
}

static inline void store_be64(uint8_t *to, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(to, &v, 8);
}

static inline uint16_t load_be16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return __builtin_bswap16(v);
}

static inline uint32_t load_be32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

static inline uint64_t load_be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}

static inline void bytes_u16(struct bytes *b, uint16_t v)
{
	uint8_t *to = bytes_room(b, 2);

	if (to) {
		store_be16(to, v);
		b->size += 2;
	}
}

static inline void bytes_u32(struct bytes *b, uint32_t v)
{
	uint8_t *to = bytes_room(b, 4);

	if (to) {
		store_be32(to, v);
		b->size += 4;
	}
}

static inline void bytes_u64(struct bytes *b, uint64_t v)
{
	uint8_t *to = bytes_room(b, 8);

	if (to) {
		store_be64(to, v);
		b->size += 8;
	}
}

static inline struct span bytes_span(const struct bytes *b)
{
	return span_of(b->data, b->size);
}

static inline void bytes_done(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}
