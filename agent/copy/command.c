// SPDX-License-Identifier: Apache-2.0
#include "copy/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "cql/lexer.h"

struct copy_reader {
	struct lexer lexer;
	struct token token; /* the one to be looked at */
	struct error *error;
};

static void advance(struct copy_reader *r)
{
	r->token = lexer_next(&r->lexer);
}

static struct copy_reader reader_of(const char *text, struct error *error)
{
	struct copy_reader r = {.error = error};

	lexer_init(&r.lexer, span_text(text));
	advance(&r);
	return r;
}

static int expected(struct copy_reader *r, const char *what)
{
	if (r->token.kind == TOKEN_END)
		return error_set(r->error, -EINVAL, "%s expected at the end", what);
	return error_set(r->error, -EINVAL, "%s expected at \"%.40s\"", what,
			 (const char *)r->lexer.text.data + r->token.at);
}

static bool is_punct(const struct copy_reader *r, char c)
{
	return r->token.kind == TOKEN_PUNCT && r->token.text.size == 1 && r->token.text.data[0] == (uint8_t)c;
}

static bool take_punct(struct copy_reader *r, char c)
{
	if (!is_punct(r, c))
		return false;
	advance(r);
	return true;
}

static bool take_word(struct copy_reader *r, const char *word)
{
	if (r->token.kind != TOKEN_NAME || !token_is(&r->token, word))
		return false;
	advance(r);
	return true;
}

/* Text between quotes, doubled ones made single. Returns its size. */
static size_t unescape(struct span text, char quote, char *to)
{
	size_t n = 0;

	for (size_t i = 0; i < text.size; i++) {
		to[n++] = (char)text.data[i];
		if (quote && text.data[i] == (uint8_t)quote && i + 1 < text.size &&
		    text.data[i + 1] == (uint8_t)quote)
			i++;
	}
	to[n] = 0;
	return n;
}

/* Unquoted names are lower case. */
static int take_name(struct copy_reader *r, char to[NAME_MAX_BYTES], const char *what)
{
	struct span text = r->token.text;

	if ((r->token.kind != TOKEN_NAME && r->token.kind != TOKEN_QUOTED) || text.size == 0)
		return expected(r, what);
	if (text.size >= NAME_MAX_BYTES)
		return error_set(r->error, -EINVAL, "%s: longer than %d bytes", what, NAME_MAX_BYTES - 1);
	unescape(text, r->token.kind == TOKEN_QUOTED ? '"' : 0, to);
	for (char *c = to; r->token.kind == TOKEN_NAME && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	advance(r);
	return 0;
}

static int take_columns(struct copy_reader *r, struct copy_command *s)
{
	char name[NAME_MAX_BYTES];

	s->columns = calloc(COLUMNS_MAX, sizeof(*s->columns));
	if (!s->columns)
		return error_set(r->error, -ENOMEM, "out of memory");
	do {
		int rc = take_name(r, name, "the name of a column");

		if (rc < 0)
			return rc;
		if (s->column_count == COLUMNS_MAX)
			return error_set(r->error, -EINVAL, "more than %d columns", COLUMNS_MAX);
		s->columns[s->column_count] = strdup(name);
		if (!s->columns[s->column_count])
			return error_set(r->error, -ENOMEM, "out of memory");
		s->column_count++;
	} while (take_punct(r, ','));
	return take_punct(r, ')') ? 0 : expected(r, "\")\" behind the columns");
}

static int take_table(struct copy_reader *r, struct copy_command *s)
{
	int rc = take_name(r, s->table, "the name of a table");

	if (rc == 0 && take_punct(r, '.')) {
		memcpy(s->keyspace, s->table, sizeof(s->keyspace));
		rc = take_name(r, s->table, "the name of a table");
	}
	if (rc == 0 && take_punct(r, '('))
		rc = take_columns(r, s);
	return rc;
}

/* One of: 'text', a word, a number with or without sign. */
static int take_value(struct copy_reader *r, const char *name, size_t name_size, struct option_list *options)
{
	struct span text = r->token.text;
	bool negative = take_punct(r, '-');
	char *value;
	size_t size;
	int rc;

	if (negative)
		text = r->token.text;
	if (r->token.kind != TOKEN_NUMBER &&
	    (negative ||
	     (r->token.kind != TOKEN_STRING && r->token.kind != TOKEN_NAME && r->token.kind != TOKEN_QUOTED)))
		return expected(r, "the value of an option");
	value = malloc(text.size + 2);
	if (!value)
		return error_set(r->error, -ENOMEM, "out of memory");
	*value = '-';
	size = unescape(text,
			r->token.kind == TOKEN_STRING	? '\''
			: r->token.kind == TOKEN_QUOTED ? '"'
							: 0,
			value + negative) +
	       negative;
	rc = option_list_add(options, name, name_size, value, size);
	free(value);
	advance(r);
	return rc < 0 ? error_set(r->error, rc, "out of memory") : 0;
}

static int take_options(struct copy_reader *r, struct option_list *options)
{
	do {
		struct span name = r->token.text;
		int rc;

		if (r->token.kind != TOKEN_NAME)
			return expected(r, "the name of an option");
		advance(r);
		if (!take_punct(r, '='))
			return expected(r, "\"=\"");
		rc = take_value(r, (const char *)name.data, name.size, options);
		if (rc < 0)
			return rc;
	} while (take_word(r, "and"));
	return 0;
}

static int take_end(struct copy_reader *r, const char *what)
{
	while (take_punct(r, ';'))
		;
	return r->token.kind == TOKEN_END ? 0 : expected(r, what);
}

int command_parse(const char *text, struct copy_command *ret, struct error *error)
{
	struct copy_reader r = reader_of(text, error);
	int rc;

	if (!take_word(&r, "copy"))
		return expected(&r, "COPY");
	rc = take_table(&r, ret);
	if (rc < 0)
		return rc;
	ret->to = take_word(&r, "to");
	if (!ret->to && !take_word(&r, "from"))
		return expected(&r, "TO or FROM");
	if (r.token.kind == TOKEN_STRING) {
		ret->file = malloc(r.token.text.size + 1);
		if (!ret->file)
			return error_set(error, -ENOMEM, "out of memory");
		unescape(r.token.text, '\'', ret->file);
		advance(&r);
	} else if (!take_word(&r, ret->to ? "stdout" : "stdin")) {
		return expected(&r, ret->to ? "'file' or STDOUT" : "'file' or STDIN");
	}
	if (take_word(&r, "with")) {
		rc = take_options(&r, &ret->options);
		if (rc < 0)
			return rc;
	}
	return take_end(&r, "WITH, AND or the end");
}

int command_parse_table(const char *text, struct copy_command *s, struct error *error)
{
	struct copy_reader r = reader_of(text, error);
	int rc = take_table(&r, s);

	return rc < 0 ? rc : take_end(&r, "(column, …) or the end");
}

int command_parse_with(const char *text, struct option_list *options, struct error *error)
{
	struct copy_reader r = reader_of(text, error);
	int rc = take_options(&r, options);

	return rc < 0 ? rc : take_end(&r, "AND or the end");
}

void command_done(struct copy_command *s)
{
	for (unsigned i = 0; i < s->column_count; i++)
		free(s->columns[i]);
	free(s->columns);
	free(s->file);
	option_list_done(&s->options);
	*s = (struct copy_command){0};
}
