/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps through a statement together with its values: tokens, bind markers, terms. What the grammar makes of
 * them is in rowkey.c.
 */
#include <errno.h>

#include "cql/functions.h"
#include "cql/reader.h"
#include "cql/rowkey_priv.h"

void walk_fail(struct walk *w, int error)
{
	if (!w->error)
		w->error = error;
}

/* ------------------------------------------------------------- values */

uint32_t walk_length(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The [value] at `at`, its length included; false when it is cut off. Null and unset have a length below 0.
 */
bool walk_value_at(struct span values, size_t at, struct span *ret)
{
	if (values.size - at < 4)
		return false;
	int32_t n = (int32_t)walk_length(values.data + at);
	size_t size = n > 0 ? (size_t)n : 0;

	if (values.size - at - 4 < size)
		return false;
	*ret = span_of(values.data + at, size + 4);
	return true;
}

bool walk_value_null(struct span value)
{
	return (int32_t)walk_length(value.data) < 0;
}

/* The value that the request gives to `name`; data = NULL where it gives none. */
static struct span value_named(const struct rowkey_values *v, struct span name)
{
	size_t at = 0;

	for (unsigned i = 0; i < v->count; i++) {
		struct span value;

		if (v->values.size - at < 2)
			break;
		size_t n = (size_t)(v->values.data[at] << 8 | v->values.data[at + 1]);

		if (v->values.size - at - 2 < n)
			break;
		struct span own = span_of(v->values.data + at + 2, n);

		at += 2 + n;
		if (!walk_value_at(v->values, at, &value))
			break;
		at += value.size;
		if (span_equal(own, name))
			return value;
	}
	return (struct span){0};
}

/* ------------------------------------------------------------- tokens */

/* Whether a term may end with it: then a colon behind it separates, as in {a:now()}, and begins no marker. */
static bool ends_term(const struct token *t)
{
	switch (t->kind) {
	case TOKEN_NAME:
	case TOKEN_QUOTED:
	case TOKEN_STRING:
	case TOKEN_NUMBER:
	case TOKEN_HEX:
	case TOKEN_UUID:
	case TOKEN_BIND:
	case TOKEN_NAMED_BIND:
		return true;
	default:
		return token_closes(t);
	}
}

/* true, false, null, NaN, Infinity: terms, although they look like names. */
static bool is_constant(const struct token *name)
{
	static const char *const words[] = {"true", "false", "null", "nan", "infinity"};
	struct token t = *name;

	if (t.kind == TOKEN_NAMED_BIND)
		t.kind = TOKEN_NAME;
	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (token_is(&t, words[i]))
			return true;
	return false;
}

/* Follows a group in round brackets that may be a type, as in "(map<int, text>)?": behind a name it is a call. */
static void follow_hint(struct walk *w)
{
	const struct token *t = &w->token;

	if (token_punct(t, '(')) {
		w->hint = !token_named(&w->previous) && w->previous.kind != TOKEN_NAMED_BIND;
	} else if (token_punct(&w->previous, '(')) {
		w->hint &= token_named(t) && !is_constant(t);
	} else if (!token_punct(&w->previous, ')')) {
		w->hint &= token_named(t) || t->kind == TOKEN_NUMBER || token_punct(t, '<') || token_punct(t, '>') ||
			   token_punct(t, ',') || token_punct(t, '.') || token_punct(t, ')');
	}
}

/* Whether ":x", which stands here inside braces, is a marker, and not the colon and the first word of what belongs to a key or field. */
static bool marks_in_braces(const struct walk *w)
{
	struct lexer ahead = w->lexer;

	if (!ends_term(&w->previous))
		return true;
	if (!w->hint || !token_punct(&w->previous, ')') || is_constant(&w->token))
		return false;
	struct token next = lexer_next(&ahead);

	return !token_punct(&next, '(') && !token_punct(&next, '.');
}

void walk_advance(struct walk *w)
{
	if (token_punct(&w->token, '{'))
		w->braces++;
	else if (token_punct(&w->token, '}') && w->braces)
		w->braces--;
	w->previous = w->token;
	w->gap = w->end;
	w->token = lexer_next(&w->lexer);
	w->end = w->lexer.at;
	follow_hint(w);
	w->bind = w->token.kind == TOKEN_BIND || (w->token.kind == TOKEN_NAMED_BIND && (!w->braces || marks_in_braces(w)));
	w->value = (struct span){0};
	if (w->bind && !w->values.names) {
		if (walk_value_at(w->values.values, w->value_at, &w->value))
			w->value_at += w->value.size;
		else
			walk_fail(w, -ENOKEY);
	}
	if (w->token.kind == TOKEN_BAD)
		walk_fail(w, -ENOKEY);
}

bool walk_take(struct walk *w, const char *word)
{
	if (!token_is(&w->token, word))
		return false;
	walk_advance(w);
	return true;
}

void walk_expect_word(struct walk *w, const char *word)
{
	if (!walk_take(w, word))
		walk_fail(w, -ENOKEY);
}

bool walk_take_punct(struct walk *w, char c)
{
	if (!token_punct(&w->token, c))
		return false;
	walk_advance(w);
	return true;
}

void walk_expect(struct walk *w, char c)
{
	if (!walk_take_punct(w, c))
		walk_fail(w, -ENOKEY);
}

void *walk_memory(struct walk *w, size_t size)
{
	void *p = arena_zero(w->arena, size);

	if (!p)
		walk_fail(w, w->arena->used + size + 64 > w->arena->max ? -E2BIG : -ENOMEM);
	return p;
}

/* Folds a name or takes the quotes out of it. `to` has room for the text's size. */
size_t walk_unquote(const struct token *t, uint8_t *to)
{
	/* A named marker's text looks the same quoted or not; the colon's neighbour tells. */
	bool quoted = t->kind == TOKEN_QUOTED || (t->kind == TOKEN_NAMED_BIND && t->text.data[-1] == '"');
	size_t n = 0;

	for (size_t i = 0; i < t->text.size; i++) {
		uint8_t c = t->text.data[i];

		if (!quoted && c >= 'A' && c <= 'Z')
			c |= 0x20;
		else if (quoted && c == '"')
			i++;
		to[n++] = c;
	}
	return n;
}

struct span walk_name(struct walk *w, const struct token *t)
{
	uint8_t *to = arena_take(w->arena, t->text.size + 1);

	if (!to) {
		walk_fail(w, -ENOMEM);
		return (struct span){0};
	}
	return span_of(to, walk_unquote(t, to));
}

/* ------------------------------------------------------------- terms */

static bool term_ends(const struct walk *w)
{
	static const char *const words[] = {"and",    "if",	"using",  "where",
					    "insert", "update", "delete", "apply"};

	if (token_ended(&w->token) || token_punct(&w->token, ',') || token_punct(&w->token, ';') ||
	    token_closes(&w->token))
		return true;
	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (token_is(&w->token, words[i]))
			return true;
	return false;
}

/* The value of the marker that stands here. `receiver`: the name that the server gives to an anonymous one.
 */
struct span walk_marker(struct walk *w, struct span receiver)
{
	if (!w->values.names)
		return w->value;
	if (w->token.kind == TOKEN_BIND)
		return value_named(&w->values, receiver);
	return value_named(&w->values, walk_name(w, &w->token));
}

/*
 * What 'now' becomes: a bound value of three bytes. A text column takes it as that text; a timestamp, of which nobody knows which instant
 * it was, refuses it, so that no other row is taken for the one that was written.
 */
size_t walk_put_now(struct span text, uint8_t *to)
{
	memcpy(to, "\0\0\0\3", 4);
	memcpy(to + 4, text.data, 3);
	return WALK_NOW_SIZE;
}

/* One term, as a copy that stands for itself. */
void walk_term(struct walk *w, struct span receiver, struct rowkey_term *ret)
{
	size_t text = 0, bytes = 0;
	unsigned depth = 0, count = 0;
	bool usable = !term_ends(w), json = false;

	while (!token_ended(&w->token) && (depth || !term_ends(w))) {
		/* A name of this term's own before a bracket is a call. */
		if (text && token_punct(&w->token, '(') &&
		    (token_named(&w->previous) || w->previous.kind == TOKEN_NAMED_BIND) &&
		    !function_is_fixed(w->previous.text, w->previous.kind != TOKEN_QUOTED))
			usable = false;
		if (text && token_punct(&w->token, '('))
			json |= function_is_json(w->previous.text, w->previous.kind != TOKEN_QUOTED);
		/* A function of a keyspace's own; no number and no name of a key has a dot. */
		if (token_punct(&w->token, '.'))
			usable = false;
		if (token_is(&w->token, "null"))
			usable = false;
		if (token_opens(&w->token))
			depth++;
		else if (token_closes(&w->token))
			depth--;
		if (text && w->gap != w->token.at)
			w->text[text++] = ' ';
		if (w->bind) {
			struct span value = walk_marker(w, receiver);

			if (!value.data || walk_value_null(value) || value.size > ROWKEY_VALUES_MAX - bytes) {
				usable = false;
			} else {
				memcpy(w->bytes + bytes, value.data, value.size);
				bytes += value.size;
				count++;
			}
			w->text[text++] = '?';
		} else if (w->token.kind == TOKEN_STRING && string_is_now(w->token.text)) {
			if (bytes > ROWKEY_VALUES_MAX - WALK_NOW_SIZE) {
				usable = false;
			} else {
				bytes += walk_put_now(w->token.text, w->bytes + bytes);
				count++;
			}
			w->text[text++] = '?';
		} else {
			if (json && w->token.kind == TOKEN_STRING && json_has_now(w->token.text))
				usable = false;
			memcpy(w->text + text, w->lexer.text.data + w->token.at, w->end - w->token.at);
			text += w->end - w->token.at;
		}
		walk_advance(w);
	}
	if (json && json_has_now(span_of(w->bytes, bytes)))
		usable = false;
	*ret = (struct rowkey_term){.usable = usable && text && !depth && text <= 2 * ROWKEY_VALUES_MAX};
	if (!ret->usable)
		return;
	ret->text = arena_copy(w->arena, span_of(w->text, text));
	ret->values = arena_copy(w->arena, span_of(w->bytes, bytes));
	ret->value_count = (uint16_t)count;
	if (!ret->text.data || !ret->values.data)
		walk_fail(w, -E2BIG);
}
