/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside rowkey: rowkey.c knows the statements, rowkey_walk.c tokens with their values, rowkey_json.c
 * documents. Private to agent/cql.
 */
#pragma once
#include "cql/lexer.h"
#include "cql/rowkey.h"

/* A place in a statement, and in its values. Once `error` is set nothing that is read counts any more. */
struct walk {
	struct lexer lexer;
	struct token token, previous;
	size_t end;	 /* behind `token`, in the text */
	size_t gap;	 /* behind `previous`: less than token.at where blanks are between */
	unsigned braces; /* open ones */
	bool hint;	 /* what is in the last round brackets may be a type */
	bool bind;	 /* `token` is a bind marker */
	struct rowkey_values values;
	size_t value_at;       /* of the next value by position */
	struct span value;     /* of `token`, by position: its [value]; data = NULL where there is none */
	uint8_t *text, *bytes; /* scratch for a term */
	struct arena *arena;
	int error;
};

void walk_fail(struct walk *w, int error); /* the first error stays */

/* The next token becomes `token`, and takes its value when it is a bind marker. */
void walk_advance(struct walk *w);

/* Whether that word or character stands here; if so, steps behind it. The others fail where it does not. */
bool walk_take(struct walk *w, const char *word);
bool walk_take_punct(struct walk *w, char c);
void walk_expect_word(struct walk *w, const char *word);
void walk_expect(struct walk *w, char c);

/* From the arena, zeroed; NULL and an error when there is none. */
void *walk_memory(struct walk *w, size_t size);

/* A name folded, or without its quotes; `to` has room for the text's size. */
size_t walk_unquote(const struct token *t, uint8_t *to);
struct span walk_name(struct walk *w, const struct token *t);

/* The [value] of the marker that stands here, data = NULL where it has none. `receiver`: the name that the
 * server gives to an anonymous one. */
struct span walk_marker(struct walk *w, struct span receiver);

#define WALK_NOW_SIZE 7u
/* The [value] in place of the string 'now', of which `text` has the three bytes. Returns WALK_NOW_SIZE. */
size_t walk_put_now(struct span text, uint8_t *to);

/* One term, to the comma, bracket or word behind it, as a copy that stands for itself. */
void walk_term(struct walk *w, struct span receiver, struct rowkey_term *ret);

uint32_t walk_length(const uint8_t *p); /* an [int] */
/* The [value] at `at`, its length included; false when it is cut off. Null and unset have a length below 0.
 */
bool walk_value_at(struct span values, size_t at, struct span *ret);
bool walk_value_null(struct span value);

/*
 * The members of a JSON document as relations "name = fromJson(?)". 0, −ENOKEY (not an object, malformed),
 * −ENOMEM.
 */
int rowkey_json(struct arena *arena, struct span document, struct rowkey_relation **ret);
