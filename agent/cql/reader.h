/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place in a statement that is being read, and the steps from there: token by token, over brackets and
 * terms, over names of tables. Private to agent/cql; statement.c knows the statements.
 *
 * Once `failed` is set the statement is unknown, whatever is read afterwards. Every step ends at the end of
 * the text.
 */
#pragma once
#include "cql/lexer.h"
#include "cql/statement.h"

/* Who wants to know where names stand, in the order of the text. Either token may be NULL, not both. */
struct name_sink {
	void (*name)(void *context, const struct token *keyspace, const struct token *table);
	void *context;
};

struct reader {
	struct lexer lexer;
	struct token token;    /* the one to be looked at */
	struct token previous; /* the one before it */
	bool qualified;	       /* `previous` is a name of a keyspace that is not the system's */
	bool system;	       /* `system` stands before `previous` */
	bool terms; /* here a name before '(' is a function call, and noted in the statement's flags */
	bool failed;
	struct statement *s;
	const struct name_sink *sink; /* may be NULL */
};

static inline bool token_punct(const struct token *t, char c)
{
	return t->kind == TOKEN_PUNCT && t->text.size == 1 && t->text.data[0] == (uint8_t)c;
}

static inline bool token_sign(const struct token *t, const char *two)
{
	return t->kind == TOKEN_PUNCT && t->text.size == 2 && t->text.data[0] == two[0] &&
	       t->text.data[1] == two[1];
}

static inline bool token_named(const struct token *t)
{
	return t->kind == TOKEN_NAME || t->kind == TOKEN_QUOTED;
}

static inline bool token_opens(const struct token *t)
{
	return token_punct(t, '(') || token_punct(t, '[') || token_punct(t, '{');
}

static inline bool token_closes(const struct token *t)
{
	return token_punct(t, ')') || token_punct(t, ']') || token_punct(t, '}');
}

static inline bool token_ended(const struct token *t)
{
	return t->kind == TOKEN_END || t->kind == TOKEN_BAD;
}

void reader_init(struct reader *r, struct span text, struct statement *s);

/* The next token becomes `token`. */
void reader_advance(struct reader *r);

/* Whether `word`, unquoted, stands here; if so, steps behind it. The others fail where it does not. */
bool reader_take(struct reader *r, const char *word);
void reader_expect_word(struct reader *r, const char *word);
void reader_expect(struct reader *r, char c);

/* From an opening bracket to behind the one that closes it. */
void reader_skip_group(struct reader *r);

/* One term: to the comma, bracket, semicolon or WHERE behind it. */
void reader_skip_term(struct reader *r);

/* To the next unquoted `word`, which the grammar must reserve, and behind it. */
bool reader_find(struct reader *r, const char *word);

/* [keyspace.]name, which goes into the statement's tables; the last name is that of a table only when
 * `table`. */
void reader_name(struct reader *r, bool table);

/* The name as the schema has it. false when it is longer than any can be: cut off, it could be taken for another. */
bool token_name(const struct token *t, char to[CQL_NAME_MAX + 1]);

/* As statement_read(), and tells of the names on the way. */
void statement_read_names(struct span text, struct statement *ret, const struct name_sink *sink);

/* Either may be NULL. */
void reader_add_table(struct reader *r, const struct token *keyspace, const struct token *table);
