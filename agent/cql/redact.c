/* SPDX-License-Identifier: Apache-2.0 */
#include "cql/redact.h"

#include "cql/lexer.h"

struct line {
	char *to;
	size_t at, size;
};

static void put(struct line *l, const void *bytes, size_t size)
{
	const uint8_t *from = bytes;

	for (size_t i = 0; i < size && l->at + 1 < l->size; i++)
		l->to[l->at++] = from[i] < ' ' || from[i] == 0x7f ? '?' : (char)from[i];
}

static bool is_value(const struct token *t)
{
	static const char *const words[] = {"true", "false", "nan", "infinity"};

	if (t->kind == TOKEN_STRING || t->kind == TOKEN_NUMBER || t->kind == TOKEN_HEX || t->kind == TOKEN_UUID || t->kind == TOKEN_BIND)
		return true;
	for (size_t i = 0; t->kind == TOKEN_NAME && i < sizeof(words) / sizeof(words[0]); i++)
		if (token_is(t, words[i]))
			return true;
	return false;
}

size_t statement_redact(struct span text, char *to, size_t size)
{
	struct line l = {.to = to, .size = size};
	struct lexer lexer;
	struct token t;
	size_t end = 0;

	lexer_init(&lexer, text);
	while ((t = lexer_next(&lexer)).kind != TOKEN_END) {
		/* Whatever separated two tokens, a comment included, is one space here. */
		if (t.at > end && l.at)
			put(&l, " ", 1);
		if (t.kind == TOKEN_BAD) {
			put(&l, "…", sizeof("…") - 1);
			break;
		}
		if (is_value(&t)) {
			put(&l, "?", 1);
		} else if (t.kind == TOKEN_QUOTED) {
			put(&l, "\"", 1);
			put(&l, t.text.data, t.text.size);
			put(&l, "\"", 1);
		} else {
			if (t.kind == TOKEN_NAMED_BIND)
				put(&l, ":", 1);
			put(&l, t.text.data, t.text.size);
		}
		end = lexer.at;
	}
	to[l.at] = 0;
	return l.at;
}
