/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for one thing while it is looked at, and then for the next one. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define ROOM_FIRST 8192u
#define ROOM_KEPT (1u << 20) /* what was larger does not keep its memory */

struct room {
	uint8_t *data;
	size_t capacity;
};

/* `size` bytes, whose contents are anything. NULL = out of memory. */
static inline uint8_t *room_for(struct room *r, size_t size)
{
	if (size > r->capacity || r->capacity > ROOM_KEPT) {
		size_t capacity = size < ROOM_FIRST ? ROOM_FIRST : size;
		uint8_t *data = realloc(r->data, capacity);

		if (!data)
			return NULL;
		*r = (struct room){data, capacity};
	}
	return r->data;
}

static inline void room_done(struct room *r)
{
	free(r->data);
	*r = (struct room){0};
}
