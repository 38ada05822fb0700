/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/instants.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "cql/instant.h"
#include "relay/session.h"

#define ROOM_FIRST (16u << 10)
/* One large request in a day must not hold its room for ever. */
#define ROOM_KEPT (1u << 20)
#define RANDOM_SIZE 512u

struct instants {
	struct instant_source source;
	uint8_t *room;
	size_t capacity;
	size_t random_used;
	uint8_t random[RANDOM_SIZE]; /* read from the kernel some uuids at a time */
};

static void random_take(void *context, uint8_t to[16])
{
	struct instants *i = context;

	if (i->random_used + 16 > RANDOM_SIZE) {
		/* Up to 256 bytes come whole and cannot fail once the kernel's generator is seeded, which instants_new() waited for. */
		for (size_t at = 0; at < RANDOM_SIZE; at += 256)
			while (getrandom(i->random + at, 256, 0) != 256)
				;
		i->random_used = 0;
	}
	memcpy(to, i->random + i->random_used, 16);
	explicit_bzero(i->random + i->random_used, 16);
	i->random_used += 16;
}

struct instants *instants_new(unsigned worker)
{
	struct instants *i = calloc(1, sizeof(*i));
	uint8_t node[8];

	if (!i)
		return NULL;
	if (getrandom(node, sizeof(node), 0) != sizeof(node)) {
		free(i);
		return NULL;
	}
	node[1] = (uint8_t)worker; /* of the clock sequence: no two workers of a node alike */
	instant_source_init(&i->source, node, random_take, i);
	i->random_used = RANDOM_SIZE;
	return i;
}

void instants_free(struct instants *i)
{
	if (!i)
		return;
	free(i->room);
	free(i);
}

static bool make_room(struct instants *i, size_t size)
{
	if (size > i->capacity || i->capacity > ROOM_KEPT) {
		size_t capacity = size < ROOM_FIRST ? ROOM_FIRST : size;
		uint8_t *room = realloc(i->room, capacity);

		if (!room)
			return false;
		i->room = room;
		i->capacity = capacity;
	}
	return true;
}

struct place_context {
	struct session *s;
	struct span unprepared;
	bool text; /* something is executed as text */
};

/* Whether the text means the same in this session as where it was prepared. */
static bool same_keyspace(const struct session *s, const struct prepared *p)
{
	if (strcmp(s->keyspace, p->keyspace) == 0)
		return true;
	for (unsigned i = 0; i < p->statement.table_count; i++)
		if (!p->statement.tables[i].keyspace[0])
			return false;
	return !(p->statement.flags & STATEMENT_TABLES_MORE);
}

static bool place_text(struct place_context *c, const struct prepared *p, struct instant_place *ret)
{
	if (!same_keyspace(c->s, p))
		return false;
	c->text = true;
	ret->text = span_of(p->text, p->text_size);
	return true;
}

static bool place(void *context, struct span id, struct instant_place *ret)
{
	struct place_context *c = context;
	struct worker *w = c->s->worker;
	struct prepared_slot *slot = prepared_find(w->prepared, id);
	struct prepared *p = slot ? slot->prepared : NULL, *changed;
	const struct prepared_remote *r;

	if (!p || !p->calls)
		return false;
	if (!p->binds || atomic_load_explicit(&p->refused, memory_order_relaxed))
		return place_text(c, p, ret);
	changed = prepared_changed(w->relay->prepared, p);
	r = changed ? prepared_on(changed, c->s->primary) : NULL;
	/* The map may have been emptied since, and know it no more. */
	if (!r || !prepared_find(w->prepared, span_of(r->id, r->id_size))) {
		c->unprepared = id;
		return false;
	}
	*ret = (struct instant_place){.id = span_of(r->id, r->id_size), .binds = p->binds, .count = p->bind_count};
	return true;
}

/* How much it grows by is known only afterwards: with twice the room it is tried again. */
static ssize_t write_request(struct instants *i, const struct request *r, const struct instant_change *how)
{
	size_t size = r->body.size + 1024;

	for (;;) {
		ssize_t n;

		if (!make_room(i, size))
			return -ENOMEM;
		n = instant_request(r, how, i->room, size);
		if (n != -ENOSPC)
			return n > (ssize_t)FRAME_BODY_MAX ? -E2BIG : n;
		if (size > FRAME_BODY_MAX)
			return -E2BIG;
		size *= 2;
	}
}

ssize_t instants_write(struct session *s, const struct analysis *a, const uint8_t **ret, uint8_t *ret_opcode, struct span *ret_unprepared)
{
	struct instants *i = s->worker->instants;
	struct place_context context = {.s = s};
	struct instant_change how = {.source = &i->source, .place = place, .context = &context};
	ssize_t n;

	i->source.wall_us = clock_wall_us();
	n = write_request(i, &a->request, &how);
	if (context.unprepared.size) {
		*ret_unprepared = context.unprepared;
		return -ENOENT;
	}
	*ret = i->room;
	*ret_opcode = context.text && a->request.opcode == OP_EXECUTE ? OP_QUERY : a->request.opcode;
	return n;
}

ssize_t instants_prepare(struct session *s, const struct analysis *a, const uint8_t **ret, struct span *ret_text)
{
	struct instants *i = s->worker->instants;
	struct instant_bind binds[INSTANT_BINDS_MAX];
	struct instant_change how = {0};
	struct request changed;
	ssize_t n;

	if (!(a->statement->flags & STATEMENT_FUNCTION) || !statement_changes_rows(a->statement) ||
	    instant_binds(a->request.text, binds) <= 0)
		return 0;
	n = write_request(i, &a->request, &how);
	if (n < 0)
		return n == -ENOMEM ? n : 0;
	if (request_parse(a->request.version, a->request.header_flags, OP_PREPARE, span_of(i->room, (size_t)n), &changed) < 0)
		return 0;
	*ret = i->room;
	*ret_text = changed.text;
	return n;
}
