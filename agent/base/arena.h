/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is given back all at once: many small things with one life. Aligned for any type; every arena
 * has a limit, because what is put into it is mostly decided by a peer.
 */
#pragma once
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"

#define ARENA_BLOCK 4096u

struct arena_block {
	struct arena_block *older;
	max_align_t data[];
};

struct arena {
	struct arena_block *block;
	size_t left;	  /* of the newest block */
	uint8_t *at;	  /* in it */
	size_t used, max; /* bytes handed out; max 0 = no limit */
};

/* Not cleared. NULL: out of memory, or beyond the limit. */
static inline void *arena_take(struct arena *a, size_t size)
{
	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	if (a->max && size > a->max - a->used)
		return NULL;
	if (size > a->left) {
		size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
		struct arena_block *b = malloc(sizeof(*b) + room);

		if (!b)
			return NULL;
		b->older = a->block;
		a->block = b;
		a->at = (uint8_t *)b->data;
		a->left = room;
	}
	void *p = a->at;

	a->at += size;
	a->left -= size;
	a->used += size;
	return p;
}

static inline void *arena_zero(struct arena *a, size_t size)
{
	void *p = arena_take(a, size);

	return p ? memset(p, 0, size) : NULL;
}

/* data = NULL only when there is no memory. */
static inline struct span arena_copy(struct arena *a, struct span s)
{
	uint8_t *p = arena_take(a, s.size ? s.size : 1);

	if (p && s.size)
		memcpy(p, s.data, s.size);
	return p ? span_of(p, s.size) : (struct span){0};
}

static inline void arena_done(struct arena *a)
{
	while (a->block) {
		struct arena_block *older = a->block->older;

		free(a->block);
		a->block = older;
	}
	*a = (struct arena){.max = a->max};
}
