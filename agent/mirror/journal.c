/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/journal.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE (256u << 10)
#define CHUNKS_SPARE 4u

struct chunk_of_records {
	struct chunk_of_records *next; /* spare list */
	size_t capacity, used;
	uint32_t records;
	uint8_t data[] __attribute__((aligned(16)));
};

struct journal {
	size_t budget, held, records;
	struct chunk_of_records *current, *spare;
	unsigned spares;
};

struct journal *journal_new(size_t budget)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j)
		j->budget = budget;
	return j;
}

static void chunk_drop(struct journal *j, struct chunk_of_records *c)
{
	j->held -= c->capacity;
	free(c);
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	while (j->spare) {
		struct chunk_of_records *next = j->spare->next;

		free(j->spare);
		j->spare = next;
	}
	free(j->current);
	free(j);
}

static struct chunk_of_records *chunk_new(struct journal *j, size_t capacity)
{
	struct chunk_of_records *c;

	if (capacity == CHUNK_SIZE && j->spare) {
		c = j->spare;
		j->spare = c->next;
		j->spares--;
		c->used = 0;
		return c;
	}
	while (j->held + capacity > j->budget && j->spare) { /* nothing is in them */
		c = j->spare;
		j->spare = c->next;
		j->spares--;
		chunk_drop(j, c);
	}
	if (j->held + capacity > j->budget && j->current && j->current->records == 0) {
		chunk_drop(j, j->current);
		j->current = NULL;
	}
	if (j->held + capacity > j->budget)
		return NULL;
	c = malloc(sizeof(*c) + capacity);
	if (!c)
		return NULL;
	*c = (struct chunk_of_records){.capacity = capacity};
	j->held += capacity;
	return c;
}

static void chunk_unused(struct journal *j, struct chunk_of_records *c)
{
	if (c->capacity == CHUNK_SIZE && j->spares < CHUNKS_SPARE) {
		c->next = j->spare;
		j->spare = c;
		j->spares++;
	} else {
		chunk_drop(j, c);
	}
}

struct record *journal_intent(struct journal *j, size_t body_size)
{
	size_t size = (sizeof(struct record) + body_size + 15) & ~(size_t)15;
	struct chunk_of_records *c = j->current;
	struct record *r;

	if (size > CHUNK_SIZE / 4) {
		c = chunk_new(j, size); /* a chunk of its own */
		if (!c)
			return NULL;
	} else if (!c || c->capacity - c->used < size) {
		c = chunk_new(j, CHUNK_SIZE);
		if (!c)
			return NULL;
		if (j->current && j->current->records == 0)
			chunk_unused(j, j->current);
		j->current = c;
	}
	r = (struct record *)(c->data + c->used);
	memset(r, 0, sizeof(*r));
	c->used += size;
	c->records++;
	j->records++;
	r->chunk = c;
	r->body_size = (uint32_t)body_size;
	return r;
}

void journal_release(struct journal *j, struct record *r)
{
	struct chunk_of_records *c = r->chunk;

	if (!c) {
		free(r);
		return;
	}
	j->records--;
	if (--c->records > 0)
		return;
	if (c == j->current)
		c->used = 0;
	else
		chunk_unused(j, c);
}

size_t journal_records(const struct journal *j)
{
	return j->records;
}

struct record *journal_mark(void)
{
	return calloc(1, sizeof(struct record));
}

size_t journal_bytes(const struct journal *j)
{
	return j->held;
}
