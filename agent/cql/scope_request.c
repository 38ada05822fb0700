/* SPDX-License-Identifier: Apache-2.0 */
/* See scope_request.h. A text is copied from left to right, with other names where the reader of statements says that names stand. */
#include "cql/scope_request.h"

#include <errno.h>

#include "cql/reader.h"
#include "cql/wire.h"

struct renaming {
	const struct scope *scope;
	struct wire_out *out;
	struct span text;
	const char *keyspace;
	bool schema;           /* a schema change */
	size_t done;           /* of the text */
	unsigned depth;        /* open brackets there */
	struct token previous; /* token before it */
};

static void put(struct renaming *r, size_t to)
{
	out_raw(r->out, span_of(r->text.data + r->done, to - r->done));
	r->done = to;
}

/* Names of the target are letters, digits and _. Two quotes side by side would be one inside of a name. */
static void put_name(struct renaming *r, const char *name)
{
	struct wire_out *o = r->out;

	if (!o->full && o->at && o->to[o->at - 1] == '"')
		out_byte(o, ' ');
	out_byte(o, '"');
	out_raw(o, span_text(name));
	out_byte(o, '"');
}

/* Goes on behind a token whose name was put. */
static void pass(struct renaming *r, size_t to)
{
	r->done = to;
	if (to < r->text.size && r->text.data[to] == '"')
		out_byte(r->out, ' ');
}

/* A token's place in the whole text, quotes included. */
static size_t begin_of(const struct renaming *r, const struct token *t)
{
	return (size_t)(t->text.data - r->text.data) - (t->kind == TOKEN_QUOTED);
}

static size_t end_of(const struct renaming *r, const struct token *t)
{
	return (size_t)(t->text.data - r->text.data) + t->text.size + (t->kind == TOKEN_QUOTED);
}

/* (type) or part of one, <type>: what stands before and behind "keyspace.name" there. */
static bool in_type(const struct token *before, const struct token *behind)
{
	return (token_punct(before, '(') || token_punct(before, '<') || token_punct(before, ',')) &&
	       (token_punct(behind, ')') || token_punct(behind, '>') || token_punct(behind, ','));
}

/* "keyspace . name" of a type or function begins at `t`? A column's field, which looks like it, has no bracket there. */
static bool qualifies(const struct renaming *r, const struct lexer *at, const struct token *t)
{
	struct lexer ahead = *at;
	struct token dot = lexer_next(&ahead), name = lexer_next(&ahead), behind = lexer_next(&ahead);

	if (!token_named(t) || !token_punct(&dot, '.') || !token_named(&name) || token_punct(&r->previous, '.'))
		return false;
	return r->schema || token_punct(&behind, '(') || (r->depth && in_type(&r->previous, &behind));
}

static void rename_keyspace(struct renaming *r, const struct token *t)
{
	struct table_name name = {0};

	if (!token_name(t, name.keyspace) || !scope_translate(r->scope, &name))
		return;
	put(r, begin_of(r, t));
	put_name(r, name.keyspace);
	pass(r, end_of(r, t));
}

/* What stands up to there, where no table's name does. */
static void copy_to(struct renaming *r, size_t to)
{
	struct lexer l;
	struct token t;

	lexer_init(&l, span_of(r->text.data, to));
	l.at = r->done;
	while ((t = lexer_next(&l)).kind != TOKEN_END && t.kind != TOKEN_BAD) {
		struct lexer whole = {.text = r->text, .at = l.at};

		if (qualifies(r, &whole, &t))
			rename_keyspace(r, &t);
		r->depth += token_opens(&t);
		r->depth -= token_closes(&t) && r->depth;
		r->previous = t;
	}
	put(r, to);
}

static void on_name(void *context, const struct token *keyspace, const struct token *table)
{
	struct renaming *r = context;
	struct table_name name = {0}, was;

	copy_to(r, begin_of(r, keyspace ? keyspace : table));
	if (!table) {
		rename_keyspace(r, keyspace);
		return;
	}
	if (!keyspace)
		memcpy(name.keyspace, r->keyspace, strnlen(r->keyspace, CQL_NAME_MAX));
	if ((keyspace && !token_name(keyspace, name.keyspace)) || !token_name(table, name.table))
		return;
	was = name;
	if (!scope_translate(r->scope, &name) || (!keyspace && strcmp(name.table, was.table) == 0))
		return;
	if (keyspace) {
		put_name(r, name.keyspace);
		/* A name that stays may be spelled in any way. */
		if (strcmp(name.table, was.table) == 0) {
			pass(r, end_of(r, keyspace));
			return;
		}
		out_byte(r->out, '.');
	}
	put_name(r, name.table);
	pass(r, end_of(r, table));
}

static bool put_text(struct wire_out *o, const struct scope *s, struct span text, const char *keyspace)
{
	struct renaming r = {.scope = s, .out = o, .text = text, .keyspace = keyspace ? keyspace : ""};
	struct name_sink sink = {.name = on_name, .context = &r};
	struct statement statement;

	statement_read(text, &statement);
	if (statement.kind == STATEMENT_UNKNOWN)
		return false;
	r.schema = statement.kind == STATEMENT_SCHEMA;
	statement_read_names(text, &statement, &sink);
	copy_to(&r, text.size);
	return true;
}

ssize_t scope_text(const struct scope *s, struct span text, const char *keyspace, uint8_t *to, size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};

	if (!put_text(&o, s, text, keyspace))
		return -EINVAL;
	return o.full ? -ENOSPC : (ssize_t)o.at;
}

/* The children as they stood there, texts changed. */
static int put_children(struct wire_out *o, const struct request *r, const struct scope *s, const char *keyspace)
{
	struct span cursor = r->batch_children;
	struct batch_child child;

	for (struct span from = cursor; batch_next(r->version, &cursor, &child) > 0; from = cursor) {
		const uint8_t *behind = child.text.data + child.text.size;

		if (child.prepared) {
			out_raw(o, span_of(from.data, (size_t)(cursor.data - from.data)));
			continue;
		}
		out_byte(o, 0);
		uint8_t *size = out_take(o, 4);
		size_t at = o->at;

		if (!put_text(o, s, child.text, keyspace))
			return -EINVAL;
		if (!o->full && o->at - at > FRAME_BODY_MAX)
			o->full = true;
		if (!o->full)
			store_u32(size, (uint32_t)(o->at - at));
		out_raw(o, span_of(behind, (size_t)(cursor.data - behind)));
	}
	return 0;
}

ssize_t scope_request(const struct scope *s, struct request *r, const char *keyspace, uint8_t *to, size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};
	bool batch = r->opcode == OP_BATCH;

	if (!batch && r->opcode != OP_QUERY)
		return 0;
	if (batch ? put_children(&o, r, s, keyspace) < 0 : !put_text(&o, s, r->text, keyspace))
		return -EINVAL;
	if (o.full)
		return -ENOSPC;
	if (batch)
		r->batch_children = span_of(to, o.at);
	else
		r->text = span_of(to, o.at);
	return (ssize_t)o.at;
}

ssize_t scope_batch(const struct request *r, bool (*keep)(void *context, const struct batch_child *child), void *context, uint8_t *to,
		    size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};
	struct span cursor = r->batch_children;
	size_t from = (size_t)(cursor.data - r->body.data), behind = from + cursor.size;
	struct batch_child child;
	uint8_t *count;
	unsigned kept = 0;

	/* The number of children stands right before the first of them. */
	out_raw(&o, span_of(r->body.data, from - 2));
	count = out_take(&o, 2);
	for (struct span one = cursor; batch_next(r->version, &cursor, &child) > 0; one = cursor) {
		if (!keep(context, &child))
			continue;
		out_raw(&o, span_of(one.data, (size_t)(cursor.data - one.data)));
		kept++;
	}
	out_raw(&o, span_of(r->body.data + behind, r->body.size - behind));
	if (o.full)
		return -ENOSPC;
	count[0] = (uint8_t)(kept >> 8);
	count[1] = (uint8_t)kept;
	return (ssize_t)o.at;
}
