/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/analyse.h"

#include <errno.h>
#include <string.h>

#include "cql/compress.h"
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
	if (a->request.batch_type == 2)
		a->own.flags |= STATEMENT_COUNTER;
	while ((r = batch_next(a->request.version, &cursor, &child)) > 0) {
		if (child.prepared) {
			struct prepared_slot *slot = prepared_find(s->worker->prepared, child.text);

			if (slot)
				merge(&a->own, &slot->prepared->statement);
			else if (!a->unknown_id.size)
				a->unknown_id = child.text;
		} else {
			struct statement one;

			statement_read(child.text, &one);
			merge(&a->own, &one);
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

int analyse(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size, struct analysis *a)
{
	struct span body;
	int r = plain_body(s, h, envelope, size, &body);

	if (r < 0)
		return r;
	a->slot = NULL;
	a->unknown_id = span_of(NULL, 0);
	a->compressed = r > 0;
	r = request_parse(s->version, h->flags, h->opcode, body, &a->request);
	if (r < 0)
		return CQL_MALFORMED;
	switch (h->opcode) {
	case OP_EXECUTE:
		a->slot = prepared_find(s->worker->prepared, a->request.id);
		if (a->slot) {
			a->statement = &a->slot->prepared->statement;
			break;
		}
		a->unknown_id = a->request.id;
		memset(&a->own, 0, sizeof(a->own));
		a->statement = &a->own;
		break;
	case OP_BATCH:
		if (analyse_batch(s, a) < 0)
			return CQL_MALFORMED;
		break;
	default:
		statement_read(a->request.text, &a->own);
		a->statement = &a->own;
		break;
	}
	a->unmirrored = statement_unmirrored_bound(a->statement, h->opcode == OP_BATCH ? a->request.batch_children : a->request.params.values);
	a->topology = statement_topology(a->statement);
	return 0;
}
