/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Received bytes that do not make a whole unit (frame, segment) yet.
 *
 * Normally a read goes into the worker's shared buffer and is consumed whole, and this holds nothing. What is left over
 * is kept here with room for the whole unit, so that a large frame is received in place and copied only once.
 */
#pragma once
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct input {
	uint8_t *data;
	size_t have, capacity;
};

static inline void input_done(struct input *in)
{
	free(in->data);
	*in = (struct input){0};
}

/*
 * Keeps `rest` bytes at `data` (inside in->data or elsewhere) until `want` bytes have come (0 = unknown, some more).
 * 0 or −ENOMEM.
 */
static inline int input_keep(struct input *in, const uint8_t *data, size_t rest, size_t want)
{
	if (rest == 0) {
		input_done(in);
		return 0;
	}
	if (want <= rest)
		want = rest + 4096;
	if (in->data && data >= in->data && data <= in->data + in->have) {
		memmove(in->data, data, rest);
		if (want > in->capacity) {
			uint8_t *bigger = realloc(in->data, want);

			if (!bigger)
				return -ENOMEM;
			in->data = bigger;
			in->capacity = want;
		}
	} else {
		uint8_t *fresh = malloc(want);

		if (!fresh)
			return -ENOMEM;
		memcpy(fresh, data, rest);
		free(in->data);
		in->data = fresh;
		in->capacity = want;
	}
	in->have = rest;
	return 0;
}
