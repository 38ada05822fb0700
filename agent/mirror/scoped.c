/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/scoped.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cql/scope_request.h"

#define GROWTH 4096u /* tried first; each further try has as much again as all before it */

/* ---- into the journal */

static enum scope_part slot_part(const struct scope *s, struct prepared_slot *slot)
{
	if (!slot->part)
		slot->part = (uint8_t)(1 + scope_of(s, &slot->prepared->statement, slot->prepared->keyspace));
	return (enum scope_part)(slot->part - 1);
}

struct keeping {
	struct worker *worker;
	const char *keyspace;
	unsigned kept, left_out;
	bool unqualified; /* struct statement, of what is kept */
};

static bool keep(void *context, const struct batch_child *child)
{
	struct keeping *k = context;
	const struct scope *s = k->worker->relay->options.scope;
	struct prepared_slot *slot = child->prepared ? prepared_find(k->worker->prepared, child->text) : NULL;
	struct statement one;
	bool wanted;

	if (child->prepared) {
		wanted = !slot || slot_part(s, slot) != SCOPE_NONE;
	} else {
		statement_read(child->text, &one);
		wanted = scope_of(s, &one, k->keyspace) != SCOPE_NONE;
		k->unqualified |= wanted && one.unqualified;
	}
	k->kept += wanted;
	k->left_out += !wanted;
	return wanted;
}

enum scope_part scoped_part(struct worker *w, const struct tap_write *write)
{
	const struct scope *s = w->relay->options.scope;
	const struct request *q = write->request;
	char own[CQL_NAME_MAX + 1];
	struct keeping k = {.worker = w, .keyspace = request_keyspace(q, write->keyspace, own)};
	struct span cursor = q->batch_children;
	struct batch_child child;

	if (!scope_filters(s))
		return SCOPE_ALL;
	if (write->slot)
		return slot_part(s, write->slot);
	if (q->opcode != OP_BATCH)
		return scope_of(s, write->statement, k.keyspace);
	while (batch_next(q->version, &cursor, &child) > 0)
		keep(&k, &child);
	return !k.left_out ? SCOPE_ALL : k.kept ? SCOPE_SOME : SCOPE_NONE;
}

int scoped_batch(struct worker *w, const struct tap_write *write, struct room *room, struct request *ret, bool *ret_unqualified)
{
	const struct request *q = write->request;
	char own[CQL_NAME_MAX + 1];
	struct keeping k = {.worker = w, .keyspace = request_keyspace(q, write->keyspace, own)};
	uint8_t *to = room_for(room, q->body.size);
	ssize_t n = to ? scope_batch(q, keep, &k, to, q->body.size) : -ENOMEM;

	if (n < 0 || request_parse(q->version, q->header_flags, q->opcode, span_of(to, (size_t)n), ret) < 0)
		return -ENOMEM;
	*ret_unqualified = k.unqualified;
	return (int)k.left_out;
}

/* ---- out of it */

bool scoped_mixed(struct worker *w, const struct record *r)
{
	const struct scope *s = w->relay->options.scope;
	struct statement one;
	struct request q;
	char own[CQL_NAME_MAX + 1];

	if (!scope_filters(s))
		return false;
	if (r->slot)
		return slot_part(s, r->slot) == SCOPE_SOME;
	if (r->opcode != OP_QUERY || request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return false;
	statement_read(q.text, &one);
	return scope_of(s, &one, request_keyspace(&q, r->keyspace, own)) == SCOPE_SOME;
}

static void target_keyspace(const struct scope *s, const char *origin, char to[CQL_NAME_MAX + 1])
{
	struct table_name name = {0};

	memcpy(name.keyspace, origin, strnlen(origin, CQL_NAME_MAX));
	scope_translate(s, &name);
	memcpy(to, name.keyspace, sizeof(name.keyspace));
}

/* Runs `write` with more and more room, until what it says fits. */
static int with_room(ssize_t (*write)(void *context, uint8_t *to, size_t capacity), void *context, size_t size, struct room *room)
{
	for (size_t capacity = size + GROWTH; capacity / 4 <= FRAME_BODY_MAX; capacity *= 2) {
		uint8_t *to = room_for(room, capacity);
		ssize_t n = to ? write(context, to, capacity) : -ENOMEM;

		if (n != -ENOSPC)
			return n == -ENOMEM ? -EAGAIN : n < 0 ? -EBADMSG : 0;
	}
	return -EBADMSG;
}

struct renamed {
	const struct scope *scope;
	const char *keyspace;
	struct request *q;
	struct span *text;
};

static ssize_t write_request(void *context, uint8_t *to, size_t capacity)
{
	struct renamed *r = context;

	return scope_request(r->scope, r->q, r->keyspace, to, capacity);
}

static ssize_t write_text(void *context, uint8_t *to, size_t capacity)
{
	struct renamed *r = context;
	ssize_t n = scope_text(r->scope, *r->text, r->keyspace, to, capacity);

	if (n >= 0)
		*r->text = span_of(to, (size_t)n);
	return n;
}

int scoped_request(const struct scope *s, const struct record *r, struct request *q, char keyspace[CQL_NAME_MAX + 1], struct room *room)
{
	char own[CQL_NAME_MAX + 1];
	struct renamed x = {.scope = s, .keyspace = request_keyspace(q, r->keyspace, own), .q = q};

	target_keyspace(s, x.keyspace, keyspace);
	if (r->opcode == OP_EXECUTE)
		return 0;
	if (q->params.keyspace.size)
		q->params.keyspace = span_text(keyspace);
	return with_room(write_request, &x, q->body.size, room);
}

int scoped_text(const struct scope *s, const struct prepared *p, struct span *ret, char keyspace[CQL_NAME_MAX + 1], struct room *room)
{
	struct renamed x = {.scope = s, .keyspace = p->keyspace, .text = ret};

	*ret = span_of(p->text, p->text_size);
	target_keyspace(s, p->keyspace, keyspace);
	return with_room(write_text, &x, ret->size, room);
}
