/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CQL tokens: names, "quoted names", 'strings' with '' inside, $$strings$$, numbers, blobs, uuids, bind
 * markers, punctuation, and the three kinds of comments (-- // and / * … * /), which are skipped. Never a
 * string search.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

enum token_kind {
	TOKEN_END,
	TOKEN_NAME,   /* unquoted: compare without case */
	TOKEN_QUOTED, /* "…": text is without the outer quotes, "" inside is left doubled */
	TOKEN_STRING, /* '…' or $$…$$, text without the quotes, '' inside is left doubled */
	/* Integer, float or duration, without a sign: "-" is a token of its own. NaN and Infinity are names.
	 */
	TOKEN_NUMBER,
	TOKEN_HEX, /* 0x… blob */
	TOKEN_UUID,
	TOKEN_BIND, /* ? */
	/* :name or :"name", text without the colon; also what follows the colon of a map, as in {a:now()}. */
	TOKEN_NAMED_BIND,
	TOKEN_PUNCT, /* one character, or += -= <= >= != .. */
	TOKEN_BAD,   /* unterminated string or comment, unknown character; text is all the rest */
};

struct token {
	enum token_kind kind;
	struct span text;
	size_t at; /* offset in the statement */
};

struct lexer {
	struct span text;
	size_t at;
};

void lexer_init(struct lexer *l, struct span text);
/* The next token; TOKEN_END for ever at the end, TOKEN_BAD for ever after a bad one. */
struct token lexer_next(struct lexer *l);
/* Whether an unquoted name equals `word` (lower case), case ignored. */
bool token_is(const struct token *t, const char *word);
