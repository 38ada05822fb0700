/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/ailing.h"

#include <stdlib.h>

#include "relay/gap.h"

#define WAIT_NS 900000000ull /* less than the time between two looks at what is held (dispatch.c) */

struct ailing {
	uint32_t some; /* cells that are not well */
	struct state {
		uint64_t until_ns;
		uint8_t refused;
		bool hopeless;
	} cell[GAP_CELLS];
};

struct ailing *ailing_new(void)
{
	return calloc(1, sizeof(struct ailing));
}

void ailing_free(struct ailing *a)
{
	free(a);
}

void ailing_refused(struct ailing *a, uint16_t cell, bool last, uint64_t now_ns)
{
	struct state *s = &a->cell[cell];

	/* Tables that we cannot name are many: one must not stand for all. */
	if (cell == GAP_CELL_ANY)
		return;
	if (s->refused == 0)
		a->some++;
	if (s->refused < UINT8_MAX)
		s->refused++;
	s->until_ns = now_ns + WAIT_NS;
	s->hopeless |= last;
}

void ailing_well(struct ailing *a, uint16_t cell)
{
	if (!a->some || a->cell[cell].refused == 0)
		return;
	a->cell[cell] = (struct state){0};
	a->some--;
}

bool ailing_now(const struct ailing *a, uint16_t cell, uint64_t now_ns)
{
	const struct state *s = &a->cell[cell];

	return a->some && s->refused >= AILING_AFTER && !s->hopeless && now_ns < s->until_ns;
}

bool ailing_hopeless(const struct ailing *a, uint16_t cell)
{
	return a->some && a->cell[cell].hopeless;
}
