/* SPDX-License-Identifier: Apache-2.0 */
/* Steps through a statement, see reader.h. Calls of functions are noticed on the way, wherever they stand. */
#include "cql/reader.h"

#include "cql/functions.h"

void reader_init(struct reader *r, struct span text, struct statement *s)
{
	*r = (struct reader){.s = s};
	lexer_init(&r->lexer, text);
	r->token = lexer_next(&r->lexer);
}

/* What it gives may be a list: from a document, or what it was given. */
static bool gives_list(const struct token *t)
{
	static const char *const names[] = {"mask_null", "mask_default", "mask_replace"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (token_is(t, names[i]))
			return true;
	return false;
}

/* `previous` stands before '(' among terms. A value like {a:now()} reads as ":now" and '('. */
static void note_call(struct reader *r)
{
	static const char *const keywords[] = {"in", "and", "where", "if", "set", "key"};
	const struct token *t = &r->previous;

	if (!token_named(t) && t->kind != TOKEN_NAMED_BIND)
		return;
	if (!r->qualified)
		for (unsigned i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
			if (token_is(t, keywords[i]))
				return;
	if (r->qualified || !function_is_fixed(t->text, t->kind != TOKEN_QUOTED))
		r->s->flags |= STATEMENT_FUNCTION;
	if (function_is_json(t->text, t->kind != TOKEN_QUOTED))
		r->s->flags |= STATEMENT_LIST_VALUE | STATEMENT_JSON;
	else if (gives_list(t))
		r->s->flags |= STATEMENT_LIST_VALUE;
}

/* A string among terms. Its column may be a timestamp, and then 'now' is a call like any other. */
static void note_string(struct reader *r)
{
	if (string_is_now(r->token.text) || (r->s->flags & STATEMENT_JSON && json_has_now(r->token.text)))
		r->s->flags |= STATEMENT_FUNCTION;
}

void reader_advance(struct reader *r)
{
	/* What becomes `previous` stands behind a dot, and that behind another keyspace than Cassandra's own. */
	r->qualified = token_punct(&r->previous, '.') && !r->system;
	r->system = token_named(&r->previous) && function_is_system(r->previous.text, r->previous.kind == TOKEN_NAME);
	r->previous = r->token;
	r->token = lexer_next(&r->lexer);
	if (r->terms && token_punct(&r->token, '('))
		note_call(r);
	else if (r->terms && r->token.kind == TOKEN_STRING)
		note_string(r);
}

bool reader_take(struct reader *r, const char *word)
{
	if (!token_is(&r->token, word))
		return false;
	reader_advance(r);
	return true;
}

void reader_expect_word(struct reader *r, const char *word)
{
	if (!reader_take(r, word))
		r->failed = true;
}

void reader_expect(struct reader *r, char c)
{
	if (!token_punct(&r->token, c))
		r->failed = true;
	else
		reader_advance(r);
}

void reader_skip_group(struct reader *r)
{
	unsigned depth = 0;

	do {
		if (token_ended(&r->token)) {
			r->failed = true;
			return;
		}
		if (token_opens(&r->token))
			depth++;
		else if (token_closes(&r->token))
			depth--;
		reader_advance(r);
	} while (depth);
}

void reader_skip_term(struct reader *r)
{
	while (!token_ended(&r->token) && !token_closes(&r->token) && !token_punct(&r->token, ',') &&
	       !token_punct(&r->token, ';')) {
		if (token_is(&r->token, "where"))
			return;
		if (token_opens(&r->token))
			reader_skip_group(r);
		else
			reader_advance(r);
	}
	if (token_ended(&r->token))
		r->failed = true;
}

bool token_name(const struct token *t, char to[CQL_NAME_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < t->text.size; i++) {
		uint8_t c = t->text.data[i];
		if (t->kind == TOKEN_NAME && c >= 'A' && c <= 'Z')
			c |= 0x20;
		else if (t->kind == TOKEN_QUOTED && c == '"')
			i++;
		if (n == CQL_NAME_MAX)
			return false;
		to[n++] = (char)c;
	}
	to[n] = 0;
	return true;
}

void reader_add_table(struct reader *r, const struct token *keyspace, const struct token *table)
{
	struct statement *s = r->s;
	struct table_name name = {0};

	if (r->sink)
		r->sink->name(r->sink->context, keyspace, table);
	/* An empty keyspace would read as none. */
	if ((keyspace && (!token_name(keyspace, name.keyspace) || !name.keyspace[0])) || (table && !token_name(table, name.table))) {
		s->flags |= STATEMENT_TABLES_MORE;
		return;
	}
	for (unsigned i = 0; i < s->table_count; i++)
		if (!strcmp(s->tables[i].keyspace, name.keyspace) && !strcmp(s->tables[i].table, name.table))
			return;
	if (s->table_count == STATEMENT_TABLES_MAX)
		s->flags |= STATEMENT_TABLES_MORE;
	else
		s->tables[s->table_count++] = name;
}

void reader_name(struct reader *r, bool table)
{
	struct token first = r->token, second;

	if (!token_named(&first)) {
		r->failed = true;
		return;
	}
	reader_advance(r);
	if (!token_punct(&r->token, '.')) {
		if (table)
			reader_add_table(r, NULL, &first);
		return;
	}
	reader_advance(r);
	second = r->token;
	if (!token_named(&second)) {
		r->failed = true;
		return;
	}
	reader_advance(r);
	reader_add_table(r, &first, table ? &second : NULL);
}

bool reader_find(struct reader *r, const char *word)
{
	while (!token_ended(&r->token)) {
		if (reader_take(r, word))
			return true;
		reader_advance(r);
	}
	return false;
}
