/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CQL tokens, see lexer.h. One class for each byte decides where a token goes; nothing is copied or folded.
 *
 * It departs from Cassandra's own lexer where that makes no difference to a reader of statements: a minus
 * sign is always a token of its own (theirs belongs to the number, which is why "x = x -1" needs a rule of
 * its own there), durations are numbers, and true, false, NaN and Infinity are names.
 */
#include "cql/lexer.h"

enum byte_class {
	BAD, /* control characters, @ # & | ^ ~ ` \ and everything beyond ASCII */
	SPACE,
	LETTER,
	DIGIT,
	QUOTE,
	DOUBLE_QUOTE,
	DOLLAR,
	BIND,
	COLON,
	MINUS,
	SLASH,
	DOT,
	SIGN, /* may be followed by '=': + < > ! */
	SINGLE,
};

/* clang-format off */
static const uint8_t classes[256] = {
	[' '] = SPACE, ['\t'] = SPACE, ['\n'] = SPACE, ['\r'] = SPACE,
	['a' ... 'z'] = LETTER, ['A' ... 'Z'] = LETTER, ['0' ... '9'] = DIGIT,
	['\''] = QUOTE, ['"'] = DOUBLE_QUOTE, ['$'] = DOLLAR, ['?'] = BIND, [':'] = COLON,
	['-'] = MINUS, ['/'] = SLASH, ['.'] = DOT, ['+'] = SIGN, ['<'] = SIGN, ['>'] = SIGN, ['!'] = SIGN,
	['('] = SINGLE, [')'] = SINGLE, ['['] = SINGLE, [']'] = SINGLE, ['{'] = SINGLE, ['}'] = SINGLE,
	[','] = SINGLE, [';'] = SINGLE, ['='] = SINGLE, ['*'] = SINGLE, ['%'] = SINGLE,
};

#define N 1 /* continues a name: letter, digit, underscore */
#define H 2 /* hexadecimal digit */
static const uint8_t parts[256] = {
	['0' ... '9'] = N | H, ['a' ... 'f'] = N | H, ['A' ... 'F'] = N | H, ['g' ... 'z'] = N, ['G' ... 'Z'] = N, ['_'] = N,
};
/* clang-format on */

void lexer_init(struct lexer *l, struct span text)
{
	*l = (struct lexer){.text = text};
}

/* The byte at `at`, 0 beyond the end (a 0 in the text is as bad as an end anywhere it matters). */
static uint8_t peek(const struct lexer *l, size_t at)
{
	return at < l->text.size ? l->text.data[at] : 0;
}

static size_t skip_parts(const struct lexer *l, size_t at, uint8_t part)
{
	while (at < l->text.size && parts[l->text.data[at]] & part)
		at++;
	return at;
}

/* White space and comments. false: a comment does not end. */
static bool skip_blank(struct lexer *l)
{
	const uint8_t *p = l->text.data;
	size_t size = l->text.size, at = l->at;

	for (;;) {
		while (at < size && classes[p[at]] == SPACE)
			at++;
		l->at = at;
		if (at + 1 >= size)
			return true;
		if ((p[at] == '-' && p[at + 1] == '-') || (p[at] == '/' && p[at + 1] == '/')) {
			for (at += 2; at < size && p[at] != '\n' && p[at] != '\r'; at++)
				;
		} else if (p[at] == '/' && p[at + 1] == '*') {
			for (at += 2; at + 1 < size && !(p[at] == '*' && p[at + 1] == '/'); at++)
				;
			if (at + 1 >= size)
				return false;
			at += 2;
		} else {
			return true;
		}
	}
}

static struct token give(struct lexer *l, enum token_kind kind, size_t from, size_t to, size_t after)
{
	struct token t = {.kind = kind, .text = span_of(l->text.data + from, to - from), .at = l->at};

	l->at = after;
	return t;
}

/* Stays where it is, so that the next call fails again. */
static struct token bad(struct lexer *l)
{
	return (struct token){
	    .kind = TOKEN_BAD, .text = span_of(l->text.data + l->at, l->text.size - l->at), .at = l->at};
}

/* A quoted token from the quote at `from` on; the quote doubled stands for itself. */
static struct token quoted(struct lexer *l, enum token_kind kind, size_t from, uint8_t quote)
{
	const uint8_t *p = l->text.data;

	for (size_t at = from + 1;; at += 2) {
		const uint8_t *end = at < l->text.size ? memchr(p + at, quote, l->text.size - at) : NULL;
		if (!end)
			return bad(l);
		at = (size_t)(end - p);
		if (peek(l, at + 1) != quote)
			return give(l, kind, from + 1, at, at + 1);
	}
}

static struct token dollars(struct lexer *l)
{
	const uint8_t *p = l->text.data;

	if (peek(l, l->at + 1) != '$')
		return bad(l);
	for (size_t at = l->at + 2; at + 1 < l->text.size; at++)
		if (p[at] == '$' && p[at + 1] == '$')
			return give(l, TOKEN_STRING, l->at + 2, at, at + 2);
	return bad(l);
}

/* 8-4-4-4-12 hexadecimal digits; looked for only where the ninth character is a hyphen. */
static bool is_uuid(const struct lexer *l)
{
	const uint8_t *p = l->text.data + l->at;

	if (l->text.size - l->at < 36 || p[8] != '-' || p[13] != '-' || p[18] != '-' || p[23] != '-')
		return false;
	for (unsigned i = 0; i < 36; i++)
		if (i != 8 && i != 13 && i != 18 && i != 23 && !(parts[p[i]] & H))
			return false;
	return true;
}

/* Behind the unit of a duration that stands at `at` (y mo w d h m s ms us µs ns, in any case); `at` where none does. The longest counts, as
 * in Cassandra's lexer. */
static size_t skip_unit(const struct lexer *l, size_t at)
{
	uint8_t c = peek(l, at) | 0x20, next = peek(l, at + 1) | 0x20;

	if (peek(l, at) == 0xc2)
		return peek(l, at + 1) == 0xb5 && (peek(l, at + 2) | 0x20) == 's' ? at + 3 : at;
	switch (c) {
	case 'm':
		return at + (next == 'o' || next == 's' ? 2 : 1);
	case 'u':
	case 'n':
		return next == 's' ? at + 2 : at;
	case 'y':
	case 'w':
	case 'd':
	case 'h':
	case 's':
		return at + 1;
	default:
		return at;
	}
}

static size_t skip_digits(const struct lexer *l, size_t at)
{
	while (classes[peek(l, at)] == DIGIT)
		at++;
	return at;
}

/* From behind the first digits: (unit digits)* unit, or where it began. */
static size_t skip_duration(const struct lexer *l, size_t at)
{
	for (;;) {
		size_t end = skip_unit(l, at), more = skip_digits(l, end);

		if (end == at || more == end || skip_unit(l, more) == more)
			return end;
		at = more;
	}
}

/*
 * A number ends where it has to, and a word may follow at once: "k = 1IF EXISTS" and "1INSERT" are what they say to Cassandra as well (seen
 * on 5.0.9 and 4.1.10). Taken as one token they would hide a condition, or a statement of a batch.
 */
static struct token number(struct lexer *l)
{
	size_t at = l->at, from;

	if (peek(l, at) == '0' && (peek(l, at + 1) | 0x20) == 'x') {
		at = skip_parts(l, at + 2, H);
		return give(l, TOKEN_HEX, l->at, at, at);
	}
	from = at = skip_digits(l, at);
	/* "1..2" is a range of two integers. */
	if (peek(l, at) == '.' && peek(l, at + 1) != '.')
		at = skip_digits(l, at + 1);
	if ((peek(l, at) | 0x20) == 'e') {
		bool sign = peek(l, at + 1) == '+' || peek(l, at + 1) == '-';

		if (classes[peek(l, at + 1 + sign)] == DIGIT)
			at = skip_digits(l, at + 1 + sign);
	}
	if (at == from)
		at = skip_duration(l, at);
	return give(l, TOKEN_NUMBER, l->at, at, at);
}

struct token lexer_next(struct lexer *l)
{
	size_t at;

	if (!skip_blank(l))
		return bad(l);
	at = l->at;
	if (at >= l->text.size)
		return (struct token){.kind = TOKEN_END, .at = at};
	uint8_t c = l->text.data[at];
	switch ((enum byte_class)classes[c]) {
	case LETTER:
		if (parts[c] & H && is_uuid(l))
			return give(l, TOKEN_UUID, at, at + 36, at + 36);
		at = skip_parts(l, at + 1, N);
		return give(l, TOKEN_NAME, l->at, at, at);
	case DIGIT:
		if (is_uuid(l))
			return give(l, TOKEN_UUID, at, at + 36, at + 36);
		return number(l);
	case QUOTE:
		return quoted(l, TOKEN_STRING, at, '\'');
	case DOUBLE_QUOTE:
		return quoted(l, TOKEN_QUOTED, at, '"');
	case DOLLAR:
		return dollars(l);
	case BIND:
		return give(l, TOKEN_BIND, at, at + 1, at + 1);
	case COLON:
		if (classes[peek(l, at + 1)] == LETTER) {
			size_t end = skip_parts(l, at + 2, N);
			return give(l, TOKEN_NAMED_BIND, at + 1, end, end);
		}
		if (peek(l, at + 1) == '"')
			return quoted(l, TOKEN_NAMED_BIND, at + 1, '"');
		return give(l, TOKEN_PUNCT, at, at + 1, at + 1);
	case MINUS:
	case SIGN:
		if (peek(l, at + 1) == '=')
			return give(l, TOKEN_PUNCT, at, at + 2, at + 2);
		return c == '!' ? bad(l) : give(l, TOKEN_PUNCT, at, at + 1, at + 1);
	case DOT:
		if (peek(l, at + 1) == '.')
			return give(l, TOKEN_PUNCT, at, at + 2, at + 2);
		return give(l, TOKEN_PUNCT, at, at + 1, at + 1);
	case SLASH:
	case SINGLE:
		return give(l, TOKEN_PUNCT, at, at + 1, at + 1);
	case SPACE:
	case BAD:
		break;
	}
	return bad(l);
}

bool token_is(const struct token *t, const char *word)
{
	size_t i;

	if (t->kind != TOKEN_NAME)
		return false;
	for (i = 0; i < t->text.size && word[i]; i++) {
		uint8_t c = t->text.data[i];
		if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != (uint8_t)word[i])
			return false;
	}
	return i == t->text.size && !word[i];
}
