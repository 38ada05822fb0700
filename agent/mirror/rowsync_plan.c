/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From relations to selections: the relations of the primary key, in the schema's order, each combination of
 * IN's alternatives on its own. (A SELECT with IN on a clustering column may not ask for a collection, and
 * SERIAL reads one partition at a time.)
 */
#include <errno.h>

#include "mirror/rowsync_priv.h"
#include "xxhash.h"

/* Rows that one statement may name by IN. */
#define SELECTIONS_MAX 1000u

struct plan {
	struct arena *arena;
	const struct schema_table *table;
	const struct rowkey_relation **relations; /* of the key: the partition's first */
	unsigned count, partition;		  /* of those relations */
	int error;
};

static int column_of(const struct schema_table *t, struct span name)
{
	for (unsigned i = 0; i < t->partition + t->clustering; i++)
		if (span_equal(span_text(t->columns[i].name), name))
			return (int)i;
	return -1;
}

/* The relations whose first name is that key column. */
static void gather(struct plan *p, const struct rowkey_statement *s, unsigned column)
{
	for (const struct rowkey_relation *r = s->relations; r; r = r->next)
		if (column_of(p->table, r->names->text) == (int)column)
			p->relations[p->count++] = r;
}

static bool usable(const struct rowkey_relation *r)
{
	for (const struct rowkey_term *t = r->terms; t; t = t->next)
		if (!t->usable)
			return false;
	return true;
}

static const char *quoted_of(const struct schema_table *t, struct span name)
{
	int i = column_of(t, name);

	return i < 0 ? NULL : t->columns[i].quoted;
}

/* "c" >= ? or ("a", "b") = (?, 2) */
static bool put_relation(const struct schema_table *t, const struct rowkey_relation *r,
			 const struct rowkey_term *term, struct text *text)
{
	if (r->tuple)
		text_put(text, "(");
	for (const struct rowkey_name *n = r->names; n; n = n->next) {
		const char *quoted = quoted_of(t, n->text);

		if (!quoted)
			return false;
		text_put(text, quoted);
		if (n->next)
			text_put(text, ", ");
	}
	text_put(text, r->tuple ? ") " : " ");
	text_put(text, rowkey_op_text(r->op));
	text_put(text, " ");
	text_add(text, term->text.data, term->text.size);
	return true;
}

/* The relations [from, to) with the alternatives that `choice` names, as a part of a WHERE. */
static int make_clause(struct plan *p, unsigned from, unsigned to, const unsigned *choice, struct clause *ret)
{
	struct text text = {0}, values = {0};
	int rc = 0;

	for (unsigned i = from; i < to; i++) {
		const struct rowkey_term *t = p->relations[i]->terms;

		for (unsigned n = choice[i]; n; n--)
			t = t->next;
		if (i)
			text_put(&text, " AND ");
		if (!put_relation(p->table, p->relations[i], t, &text))
			rc = -ENOKEY;
		text_add(&values, t->values.data, t->values.size);
		ret->value_count += t->value_count;
		ret->literals |= t->value_count != 1 || t->text.size != 1;
	}
	if (text.failed || values.failed)
		rc = -ENOMEM;
	if (!rc) {
		ret->text = arena_copy(p->arena, span_of(text.data, text.size));
		ret->values = arena_copy(p->arena, span_of(values.data, values.size));
		if (!ret->text.data || !ret->values.data)
			rc = -ENOMEM;
	}
	free(text.data);
	free(values.data);
	return rc;
}

/* Only bound values tell which partition it is: one key may be written in many ways. */
static uint64_t hash_of(const struct clause *c)
{
	uint64_t hash = XXH64(c->values.data, c->values.size, 0);

	return c->literals ? 0 : hash ? hash : 1;
}

/* Counts `choice` on; false after the last combination. */
static bool next_choice(const struct plan *p, unsigned *choice)
{
	for (unsigned i = 0; i < p->count; i++) {
		if (++choice[i] < p->relations[i]->term_count)
			return true;
		choice[i] = 0;
	}
	return false;
}

static int make_selections(struct plan *p, const struct rowkey_statement *s, const struct table_name *name,
			   bool rows, struct selection ***tail)
{
	unsigned *choice = arena_zero(p->arena, (p->count + 1) * sizeof(*choice));
	size_t combinations = 1;
	int rc;

	if (!choice)
		return -ENOMEM;
	for (unsigned i = 0; i < p->count; i++) {
		combinations *= p->relations[i]->term_count;
		if (combinations > SELECTIONS_MAX)
			return -E2BIG;
	}
	if (!combinations)
		return 0; /* IN () */
	do {
		struct selection *x = arena_zero(p->arena, sizeof(*x));

		if (!x)
			return -ENOMEM;
		x->name = *name;
		x->rows = rows;
		x->marker = s->kind == STATEMENT_INSERT;
		rc = make_clause(p, 0, p->partition, choice, &x->partition);
		if (!rc)
			rc = make_clause(p, p->partition, p->count, choice, &x->range);
		if (rc)
			return rc;
		x->hash = hash_of(&x->partition);
		**tail = x;
		*tail = &x->next;
	} while (next_choice(p, choice));
	return 0;
}

int plan_statement(struct arena *arena, const struct rowkey_statement *s, const struct table_name *name,
		   const struct schema_table *table, struct selection ***tail)
{
	struct plan p = {.arena = arena, .table = table};
	unsigned relations = 0;
	bool rows;

	if (table->counters)
		return -ENOTSUP;
	for (const struct rowkey_relation *r = s->relations; r; r = r->next)
		relations++;
	p.relations = arena_take(arena, (relations + 1) * sizeof(*p.relations));
	if (!p.relations)
		return -ENOMEM;
	for (unsigned i = 0; i < table->partition; i++) {
		gather(&p, s, i);
		if (p.count != i + 1 || p.relations[i]->op != ROWKEY_EQ || p.relations[i]->tuple)
			return -ENOKEY;
	}
	p.partition = p.count;
	for (unsigned i = 0; i < table->clustering; i++)
		gather(&p, s, table->partition + i);
	for (unsigned i = 0; i < p.count; i++)
		if (!usable(p.relations[i]))
			return -ENOKEY;
	if (s->kind != STATEMENT_INSERT && p.count != relations)
		return -ENOKEY; /* a relation on something else than the key */
	/* Without clustering columns a write reaches rows only if there are none, or if it deletes all. */
	rows = p.count > p.partition || !table->clustering || (s->kind == STATEMENT_DELETE && s->whole);
	return make_selections(&p, s, name, rows, tail);
}
