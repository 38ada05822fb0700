/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/missing.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cql/request.h"

/* The tables of one child are added to those of the whole. */
static void add(struct statement *into, const struct statement *child, const char *keyspace)
{
	into->flags |= child->flags & STATEMENT_TABLES_MORE;
	for (unsigned i = 0; i < child->table_count; i++) {
		struct table_name t = child->tables[i];
		unsigned j = 0;

		if (!t.keyspace[0])
			memcpy(t.keyspace, keyspace, strlen(keyspace) + 1);
		while (j < into->table_count &&
		       (strcmp(into->tables[j].table, t.table) != 0 || strcmp(into->tables[j].keyspace, t.keyspace) != 0))
			j++;
		if (j < into->table_count)
			continue;
		if (into->table_count == STATEMENT_TABLES_MAX)
			into->flags |= STATEMENT_TABLES_MORE;
		else
			into->tables[into->table_count++] = t;
	}
}

static void read_text(struct statement *into, struct span text, const char *keyspace)
{
	struct statement one;

	statement_read(text, &one);
	if (one.kind == STATEMENT_ROLE)
		into->kind = STATEMENT_ROLE;
	add(into, &one, keyspace);
}

static void read_batch(struct worker *w, const struct request *q, const char *keyspace, struct statement *into)
{
	struct span cursor = q->batch_children;
	struct batch_child child;

	while (batch_next(q->version, &cursor, &child) > 0) {
		struct prepared_slot *slot = child.prepared ? prepared_find(w->prepared, child.text) : NULL;

		if (slot)
			add(into, &slot->prepared->statement, slot->prepared->keyspace);
		else if (child.prepared)
			into->flags |= STATEMENT_TABLES_MORE;
		else
			read_text(into, child.text, keyspace);
	}
}

uint16_t missing_cell(struct worker *w, const struct record *r)
{
	struct statement all = {.kind = STATEMENT_BATCH};
	struct request q;
	char own[CQL_NAME_MAX + 1];
	const char *keyspace = r->keyspace;

	if (r->slot)
		add(&all, &r->slot->prepared->statement, r->slot->prepared->keyspace);
	else if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) == 0) {
		keyspace = request_keyspace(&q, r->keyspace, own);
		if (r->opcode == OP_BATCH)
			read_batch(w, &q, keyspace, &all);
		else if (r->opcode == OP_QUERY)
			read_text(&all, q.text, keyspace);
	}
	return gap_cell(w->gap, &all, keyspace);
}

const char *missing_table(struct worker *w, const struct record *r, char *to, size_t size)
{
	uint16_t cell = missing_cell(w, r);
	const char *keyspace, *table;

	if (!gap_cell_next(w->gap, &cell, &keyspace, &table))
		return "a table that is not known";
	snprintf(to, size, "%s.%s", keyspace[0] ? keyspace : "?", table[0] ? table : "*");
	return to;
}

void missing_note(struct worker *w, const struct record *r, enum gap_cause cause)
{
	/* When it was written, which may be long ago: by that a repair finds it. */
	int64_t age = clock_wall_us() - (r->pinned ? r->timestamp : (int64_t)r->now * 1000000);

	gap_note(w->gap, cause, (enum side)r->to, missing_cell(w, r), age > 0 ? age : 0);
}
