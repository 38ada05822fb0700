/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/inflight.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 8u

static uint32_t home(const struct inflight_table *t, int16_t stream)
{
	/* Fibonacci hashing: neighbouring ids must not pile up. */
	return ((uint32_t)(uint16_t)stream * 2654435769u) >> 16 & t->mask;
}

struct inflight *inflight_find(struct inflight_table *t, int16_t stream)
{
	if (t->count == 0)
		return NULL;
	for (uint32_t i = home(t, stream); t->entries[i].used; i = (i + 1) & t->mask)
		if (t->entries[i].stream == stream)
			return &t->entries[i];
	return NULL;
}

static struct inflight *place(struct inflight_table *t, int16_t stream)
{
	uint32_t i = home(t, stream);

	while (t->entries[i].used)
		i = (i + 1) & t->mask;
	return &t->entries[i];
}

static bool grow(struct inflight_table *t)
{
	struct inflight_table bigger = {.mask = t->entries ? t->mask * 2 + 1 : FIRST_SIZE - 1, .count = t->count};

	bigger.entries = calloc(bigger.mask + 1, sizeof(*bigger.entries));
	if (!bigger.entries)
		return false;
	for (uint32_t i = 0; t->entries && i <= t->mask; i++)
		if (t->entries[i].used)
			*place(&bigger, t->entries[i].stream) = t->entries[i];
	free(t->entries);
	*t = bigger;
	return true;
}

struct inflight *inflight_add(struct inflight_table *t, int16_t stream, bool *ret_duplicate)
{
	struct inflight *e;

	*ret_duplicate = inflight_find(t, stream) != NULL;
	if (*ret_duplicate)
		return NULL;
	if ((!t->entries || t->count * 4 >= (t->mask + 1) * 3) && !grow(t))
		return NULL;
	e = place(t, stream);
	*e = (struct inflight){.stream = stream, .used = true};
	t->count++;
	return e;
}

void inflight_remove(struct inflight_table *t, int16_t stream)
{
	struct inflight *e = inflight_find(t, stream);
	uint32_t hole, i;

	if (!e)
		return;
	hole = (uint32_t)(e - t->entries);
	for (i = (hole + 1) & t->mask; t->entries[i].used; i = (i + 1) & t->mask) {
		/* An entry may fill the hole unless its home lies between the hole and itself. */
		uint32_t distance = (i - home(t, t->entries[i].stream)) & t->mask;

		if (distance >= ((i - hole) & t->mask)) {
			t->entries[hole] = t->entries[i];
			hole = i;
		}
	}
	t->entries[hole].used = false;
	t->count--;
}

void inflight_done(struct inflight_table *t)
{
	free(t->entries);
	memset(t, 0, sizeof(*t));
}

struct inflight *inflight_each(struct inflight_table *t, uint32_t *at)
{
	while (t->entries && *at <= t->mask) {
		struct inflight *e = &t->entries[(*at)++];

		if (e->used)
			return e;
	}
	return NULL;
}
