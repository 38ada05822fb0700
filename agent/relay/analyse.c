/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/analyse.h"

#include <errno.h>
#include <string.h>

#include "cql/compress.h"
#include "relay/instants.h"
#include "relay/session.h"

/* A BATCH is what its children are together. */
static void merge(struct statement *into, const struct statement *child)
{
	into->flags |= child->flags & ~(uint32_t)STATEMENT_TIMESTAMP;
	if (child->kind == STATEMENT_UNKNOWN || !statement_writes(child))
		into->kind = STATEMENT_UNKNOWN;
	for (unsigned i = 0; i < child->table_count; i++) {
		unsigned j = 0;

		while (j < into->table_count && (strcmp(into->tables[j].table, child->tables[i].table) != 0 ||
						 strcmp(into->tables[j].keyspace, child->tables[i].keyspace) != 0))
			j++;
		if (j < into->table_count)
			continue;
		if (into->table_count == STATEMENT_TABLES_MAX)
			into->flags |= STATEMENT_TABLES_MORE;
		else
			into->tables[into->table_count++] = child->tables[i];
	}
}

static int analyse_batch(struct session *s, struct analysis *a)
{
	struct span cursor = a->request.batch_children;
	struct batch_child child;
	int r;

	memset(&a->own, 0, sizeof(a->own));
	a->own.kind = STATEMENT_BATCH;
	a->own.piecemeal = a->request.batch_type != 0;
	if (a->request.batch_type == 2)
		a->own.flags |= STATEMENT_COUNTER;
	while ((r = batch_next(a->request.version, &cursor, &child)) > 0) {
		if (child.prepared) {
			struct prepared_slot *slot = prepared_find(s->worker->prepared, child.text);

			/* A prepared one has its keyspace with it. */
			if (slot) {
				merge(&a->own, &slot->prepared->statement);
				a->functions |= slot->prepared->calls;
			}
			if (!a->unknown_id.size && (!slot || !prepared_on(slot->prepared, s->primary)))
				a->unknown_id = child.text;
		} else {
			struct statement one;

			statement_read(child.text, &one);
			merge(&a->own, &one);
			a->own.unqualified |= one.unqualified;
			a->functions |= one.flags & STATEMENT_FUNCTION && statement_changes_rows(&one);
		}
	}
	a->statement = &a->own;
	return r;
}

int plain_body(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size, struct span *ret)
{
	struct span body = span_of(envelope + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE);
	int64_t plain;
	uint8_t *to;

	*ret = body;
	if (s->version >= 5 || !(h->flags & FRAME_COMPRESSED) || body.size == 0)
		return 0;
	plain = body_plain_size(s->compression, body, s->worker->relay->options.frame_max);
	if (plain < 0)
		return CQL_MALFORMED;
	to = worker_plain(s->worker, (size_t)plain);
	if (!to)
		return -ENOMEM;
	plain = body_decompress(s->compression, body, to, (size_t)plain);
	if (plain < 0)
		return CQL_MALFORMED;
	*ret = span_of(to, (size_t)plain);
	return 1;
}

/* What the parsed request does. */
static int read_statements(struct session *s, struct analysis *a)
{
	a->slot = NULL;
	a->unknown_id = span_of(NULL, 0);
	a->functions = false;
	switch (a->request.opcode) {
	case OP_EXECUTE:
		a->slot = prepared_find(s->worker->prepared, a->request.id);
		if (a->slot) {
			a->statement = &a->slot->prepared->statement;
			a->functions = a->slot->prepared->calls;
			break;
		}
		a->unknown_id = a->request.id;
		memset(&a->own, 0, sizeof(a->own));
		a->statement = &a->own;
		break;
	case OP_BATCH:
		return analyse_batch(s, a) < 0 ? CQL_MALFORMED : 0;
	default:
		statement_read(a->request.text, &a->own);
		a->statement = &a->own;
		a->functions = a->request.opcode == OP_QUERY && a->own.flags & STATEMENT_FUNCTION && statement_changes_rows(&a->own);
		break;
	}
	return 0;
}

/* An id that the client knows: it prepares that again, and then sends the request once more. */
static struct span some_id(const struct request *r)
{
	struct span cursor = r->batch_children;
	struct batch_child child = {0};

	while (r->opcode == OP_BATCH && batch_next(r->version, &cursor, &child) > 0 && !child.prepared)
		;
	return r->opcode == OP_BATCH ? child.text : r->id;
}

/* Its functions become values, and it is read again. */
static int change_functions(struct session *s, struct analysis *a)
{
	struct span unprepared = {0};
	struct request asked = a->request;
	const uint8_t *body;
	uint8_t opcode;
	ssize_t n = instants_write(s, a, &body, &opcode, &unprepared);
	int r;

	if (n == -ENOENT) {
		a->unknown_id = unprepared;
		return 0;
	}
	if (n < 0)
		return n == -ENOMEM ? (int)n : 0;
	if (span_equal(span_of(body, (size_t)n), asked.body))
		return 0; /* only functions that users defined */
	if (request_parse(asked.version, asked.header_flags, opcode, span_of(body, (size_t)n), &a->request) < 0) {
		a->request = asked;
		return 0;
	}
	a->changed = true;
	r = read_statements(s, a);
	if (opcode != asked.opcode) {
		/* What types decided when it was prepared the text does not tell. */
		uint32_t left = a->own.flags & STATEMENT_FUNCTION;

		a->own = a->asked->prepared->statement;
		a->own.flags = (a->own.flags & ~(uint32_t)STATEMENT_FUNCTION) | left;
	}
	if (a->unknown_id.size) /* the map was emptied between the two */
		a->unknown_id = some_id(&asked);
	return r;
}

int analyse(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size, struct analysis *a)
{
	struct span body;
	int r = plain_body(s, h, envelope, size, &body);

	if (r < 0)
		return r;
	a->compressed = r > 0;
	a->changed = false;
	if (request_parse(s->version, h->flags, h->opcode, body, &a->request) < 0)
		return CQL_MALFORMED;
	r = read_statements(s, a);
	a->asked = a->slot;
	a->asked_children = a->request.batch_children;
	if (r == 0 && a->functions && !a->unknown_id.size && s->worker->course.mirroring)
		r = change_functions(s, a);
	if (r < 0)
		return r;
	a->unmirrored = statement_unmirrored_bound(a->statement, a->request.opcode == OP_BATCH ? a->request.batch_children
											       : a->request.params.values);
	if (a->unmirrored == MIRRORABLE && statement_changes_rows(a->statement) && request_may_bind_list(&a->request))
		a->unmirrored = MIRRORABLE_ONCE;
	/* Its children may say too little, but it is certain what it is. */
	if (a->request.opcode == OP_BATCH && a->request.batch_type == 2)
		a->unmirrored = UNMIRRORED_COUNTER;
	a->topology = statement_topology(a->statement);
	return 0;
}
