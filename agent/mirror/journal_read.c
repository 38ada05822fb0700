/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/journal_read.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cql/frame.h"

#define INDEX_FIRST 256u

int journal_reader_open(struct journal_reader *r, struct span file, const char **ret_why)
{
	memset(r, 0, sizeof(*r));
	r->file = file;
	return journal_head_read(file, &r->head, ret_why);
}

void journal_reader_done(struct journal_reader *r)
{
	free(r->texts);
	free(r->index);
	r->texts = NULL;
	r->index = NULL;
}

/* ---- prepared statements, by id */

static const struct prepared_text *find(const struct journal_reader *r, struct span id)
{
	size_t i;

	if (!r->index || !id.size)
		return NULL;
	for (i = XXH3_64bits(id.data, id.size) & (r->index_size - 1); r->index[i]; i = (i + 1) & (r->index_size - 1)) {
		const struct prepared_text *t = &r->texts[r->index[i] - 1];

		if (span_equal(t->id[ORIGIN], id) || span_equal(t->id[TARGET], id))
			return t;
	}
	return NULL;
}

static void add_key(struct journal_reader *r, struct span id, uint32_t number)
{
	size_t i = XXH3_64bits(id.data, id.size) & (r->index_size - 1);

	while (r->index[i])
		i = (i + 1) & (r->index_size - 1);
	r->index[i] = number;
	r->index_used++;
}

/* Room for another two keys. False: out of memory. */
static bool grow(struct journal_reader *r)
{
	size_t size = r->index_size ? r->index_size * 2 : INDEX_FIRST;
	uint32_t *index;

	if (r->text_count == r->text_capacity) {
		size_t capacity = r->text_capacity ? r->text_capacity * 2 : 64;
		struct prepared_text *texts = realloc(r->texts, capacity * sizeof(*texts));

		if (!texts)
			return false;
		r->texts = texts;
		r->text_capacity = capacity;
	}
	if ((r->index_used + SIDES) * 2 <= r->index_size)
		return true;
	index = calloc(size, sizeof(*index));
	if (!index)
		return false;
	free(r->index);
	r->index = index;
	r->index_size = size;
	r->index_used = 0;
	for (size_t n = 0; n < r->text_count; n++)
		for (int side = 0; side < SIDES; side++)
			if (r->texts[n].id[side].size && (side == 0 || !span_equal(r->texts[n].id[0], r->texts[n].id[side])))
				add_key(r, r->texts[n].id[side], (uint32_t)n + 1);
	return true;
}

static void learn(struct journal_reader *r, struct span record)
{
	struct prepared_text t;

	if (prepared_record_read(record, &t) < 0 || !grow(r))
		return;
	r->texts[r->text_count++] = t;
	for (int side = 0; side < SIDES; side++)
		if (t.id[side].size && !find(r, t.id[side]))
			add_key(r, t.id[side], (uint32_t)r->text_count);
}

const struct journal_entry *journal_reader_next(struct journal_reader *r, size_t *ret_at)
{
	size_t at = r->at ? r->at : sizeof(struct journal_head);
	const struct journal_entry *e = journal_next(r->file, &r->at, &r->torn);

	*ret_at = at;
	if (e && journal_kind(e) == ENTRY_PREPARED)
		learn(r, journal_body(e));
	return e;
}

/* ---- what an entry does */

static void add_tables(struct journal_view *v, const struct statement *s, struct span keyspace)
{
	struct statement *all = &v->statement;

	v->unnamed |= (s->flags & STATEMENT_TABLES_MORE) || s->table_count == 0;
	for (unsigned i = 0; i < s->table_count; i++) {
		struct table_name t = s->tables[i];
		unsigned j = 0;

		if (!t.keyspace[0] && keyspace.size <= CQL_NAME_MAX) {
			memcpy(t.keyspace, keyspace.data ? keyspace.data : (const uint8_t *)"", keyspace.size);
			t.keyspace[keyspace.size] = 0;
		}
		while (j < all->table_count &&
		       (strcmp(all->tables[j].table, t.table) != 0 || strcmp(all->tables[j].keyspace, t.keyspace) != 0))
			j++;
		if (j < all->table_count)
			continue;
		if (all->table_count == STATEMENT_TABLES_MAX)
			v->unnamed = true;
		else
			all->tables[all->table_count++] = t;
	}
}

void journal_view_of(const struct journal_reader *r, const struct journal_entry *e, struct journal_view *ret)
{
	static const uint8_t opcodes[] = {OP_QUERY, OP_EXECUTE, OP_BATCH, OP_QUERY};
	struct journal_part part;

	memset(ret, 0, sizeof(*ret));
	ret->reader = r;
	ret->version = (uint8_t)(3 + (e->flags & 3));
	ret->opcode = opcodes[e->flags >> 2 & 3];
	ret->statement.kind = (enum statement_kind)(e->kind >> 4);
	ret->keyspace = span_of(e->data, e->keyspace_size);
	if (journal_kind(e) == ENTRY_PREPARED || journal_kind(e) == ENTRY_REFUSED || ret->version > 5 ||
	    request_parse(ret->version, e->flags & ENTRY_PAYLOAD ? FRAME_PAYLOAD : 0, ret->opcode, journal_body(e), &ret->request) != 0) {
		ret->ended = ret->unnamed = true;
		return;
	}
	ret->readable = true;
	if (ret->request.params.keyspace.size)
		ret->keyspace = ret->request.params.keyspace;
	ret->cursor = ret->request.batch_children;
	while (journal_view_next(ret, &part)) {
		struct statement s;

		if (!part.text.data) {
			ret->unnamed = true;
			continue;
		}
		statement_read(part.text, &s);
		add_tables(ret, &s, part.prepared ? find(r, part.id)->keyspace : ret->keyspace);
	}
	ret->cursor = ret->request.batch_children;
	ret->ended = false;
}

static void look_up(const struct journal_view *v, struct journal_part *p, struct span id)
{
	const struct prepared_text *t = find(v->reader, id);

	p->prepared = true;
	p->id = id;
	/* An empty text is a text. */
	if (t)
		p->text = t->text.data ? t->text : span_text("");
}

bool journal_view_next(struct journal_view *v, struct journal_part *ret)
{
	struct batch_child child;

	memset(ret, 0, sizeof(*ret));
	if (v->ended)
		return false;
	if (v->opcode == OP_BATCH) {
		if (batch_next(v->version, &v->cursor, &child) <= 0) {
			v->ended = true;
			return false;
		}
		if (child.prepared)
			look_up(v, ret, child.text);
		else
			ret->text = child.text.data ? child.text : span_text("");
		ret->values = child.values;
		ret->values_count = child.values_count;
		return true;
	}
	v->ended = true;
	if (v->opcode == OP_EXECUTE)
		look_up(v, ret, v->request.id);
	else
		ret->text = v->request.text.data ? v->request.text : span_text("");
	ret->values = v->request.params.values;
	ret->values_count = v->request.params.values_count;
	ret->named = v->request.params.flags & QUERY_NAMES;
	return true;
}

bool journal_view_touches(const struct journal_view *v, const char *keyspace, const char *table)
{
	if (v->unnamed)
		return true;
	for (unsigned i = 0; i < v->statement.table_count; i++) {
		const struct table_name *t = &v->statement.tables[i];

		if ((!t->keyspace[0] || strcmp(t->keyspace, keyspace) == 0) && (!table[0] || !t->table[0] || strcmp(t->table, table) == 0))
			return true;
	}
	return false;
}
