/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's view of the map: what it has seen once it finds again without a lock, until the map is emptied or has another entry
 * for one of them.
 *
 * Another worker may empty it in the middle of a request, which goes on with the slots that it found before without counting them as a use.
 * Hence they are only put aside there, and go from the worker's tick, where no request is half-way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "relay/prepared_priv.h"

struct cached {
	struct prepared_slot slot;
	struct cached *next;
	uint8_t size;
	uint8_t id[PREPARED_ID_MAX];
};

struct prepared_cache {
	struct prepared_map *map;
	struct cached **buckets;
	uint32_t mask, count, generation;
	uint32_t batches; /* that were asked for: marks the statements of one of them */
	struct cached *retired; /* from an older generation: in use, or not swept yet */
};

struct prepared_cache *prepared_cache_new(struct prepared_map *m)
{
	struct prepared_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->map = m;
	c->mask = 255;
	c->buckets = calloc(c->mask + 1, sizeof(*c->buckets));
	if (!c->buckets) {
		free(c);
		return NULL;
	}
	return c;
}

static void sweep_retired(struct prepared_cache *c, bool all)
{
	for (struct cached **at = &c->retired; *at;) {
		struct cached *e = *at;

		if (e->slot.uses && !all) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		prepared_put(e->slot.prepared);
		free(e);
	}
}

static void retire_all(struct prepared_cache *c)
{
	for (uint32_t i = 0; i <= c->mask; i++) {
		while (c->buckets[i]) {
			struct cached *e = c->buckets[i];

			c->buckets[i] = e->next;
			e->next = c->retired;
			c->retired = e;
		}
	}
	c->count = 0;
}

void prepared_cache_sweep(struct prepared_cache *c)
{
	sweep_retired(c, false);
}

void prepared_cache_free(struct prepared_cache *c)
{
	if (!c)
		return;
	retire_all(c);
	sweep_retired(c, true);
	free(c->buckets);
	free(c);
}

static void cache_grow(struct prepared_cache *c)
{
	uint32_t mask = c->mask * 2 + 1;
	struct cached **buckets = calloc(mask + 1, sizeof(*buckets));

	if (!buckets)
		return; /* longer chains, nothing worse */
	for (uint32_t i = 0; i <= c->mask; i++) {
		while (c->buckets[i]) {
			struct cached *e = c->buckets[i];
			uint32_t to = prepared_hash(span_of(e->id, e->size)) & mask;

			c->buckets[i] = e->next;
			e->next = buckets[to];
			buckets[to] = e;
		}
	}
	free(c->buckets);
	c->buckets = buckets;
	c->mask = mask;
}

struct prepared_slot *prepared_find(struct prepared_cache *c, struct span id)
{
	uint32_t generation = atomic_load_explicit(&c->map->generation, memory_order_acquire);
	uint32_t hash = prepared_hash(id);
	struct prepared *p;
	struct cached *e;

	if (id.size == 0 || id.size > PREPARED_ID_MAX)
		return NULL;
	if (generation != c->generation) {
		retire_all(c);
		c->generation = generation;
	}
	for (e = c->buckets[hash & c->mask]; e; e = e->next)
		if (span_equal(span_of(e->id, e->size), id))
			return &e->slot;

	pthread_mutex_lock(&c->map->lock);
	p = prepared_find_id(c->map, id);
	if (p)
		prepared_get(p);
	pthread_mutex_unlock(&c->map->lock);
	if (!p)
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e) {
		prepared_put(p);
		return NULL;
	}
	e->slot.prepared = p;
	e->size = (uint8_t)id.size;
	memcpy(e->id, id.data, id.size);
	if (c->count > c->mask)
		cache_grow(c);
	e->next = c->buckets[hash & c->mask];
	c->buckets[hash & c->mask] = e;
	c->count++;
	return &e->slot;
}

int prepared_of_batch(struct prepared_cache *c, const struct request *q, struct prepared_slot *ret[PREPARED_BATCH_MAX])
{
	struct span cursor = q->batch_children;
	struct batch_child child;
	int n = 0;

	c->batches++;
	while (batch_next(q->version, &cursor, &child) > 0) {
		struct prepared_slot *slot = child.prepared ? prepared_find(c, child.text) : NULL;

		if (!slot || slot->seen == c->batches)
			continue;
		if (n == PREPARED_BATCH_MAX)
			return -E2BIG;
		slot->seen = c->batches;
		ret[n++] = slot;
	}
	return n;
}

struct span prepared_slot_id(const struct prepared_slot *s)
{
	const struct cached *e = (const struct cached *)s; /* its first member */

	return span_of(e->id, e->size);
}

void prepared_release(struct prepared_slot *s)
{
	if (s)
		s->uses--;
}
