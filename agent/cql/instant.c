/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the calls and makes the values, see instant.h. What becomes of requests stands in instant_request.c.
 *
 * A call is a name that Cassandra has given to such a function, alone or behind "system.", and an empty pair of
 * parentheses: nothing else in the grammar of a write looks like that. Strings and comments are tokens of their own.
 */
#include "cql/instant.h"

#include <stdio.h>

#include "cql/functions.h"
#include "cql/instant_text.h"
#include "cql/reader.h"

/* 100 ns from 1582-10-15, where the time of uuids begins, to 1970. */
#define GREGORIAN 0x01b21dd213814000u
#define DAY_US 86400000000

void instant_source_init(struct instant_source *s, const uint8_t node[8],
			 void (*random)(void *context, uint8_t to[16]), void *context)
{
	*s = (struct instant_source){.random = random, .context = context};
	memcpy(s->node, node, sizeof(s->node));
	s->node[0] = (s->node[0] & 0x3f) | 0x80;
	s->node[2] |= 0x01;
}

static void put(struct instant *to, uint64_t value, unsigned size)
{
	to->size = (uint8_t)size;
	for (unsigned i = 0; i < size; i++)
		to->value[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static void take_timeuuid(struct instant_source *s, uint64_t us, struct instant *to)
{
	uint64_t ticks = us * 10 + GREGORIAN;

	s->ticks = ticks > s->ticks ? ticks : s->ticks + 1;
	/* Low, middle and high part of the time, with the version, 1, in front of the high one. */
	put(to, s->ticks << 32 | (s->ticks >> 16 & 0xffff0000u) | 0x1000 | (s->ticks >> 48 & 0x0fff), 8);
	memcpy(to->value + 8, s->node, 8);
	to->size = 16;
}

void instant_take(struct instant_source *s, enum instant_kind kind, struct instant *ret)
{
	uint64_t us = s->wall_us > 0 ? (uint64_t)s->wall_us : 0;

	*ret = (struct instant){.kind = kind};
	switch (kind) {
	case INSTANT_TIMEUUID:
		take_timeuuid(s, us, ret);
		break;
	case INSTANT_UUID:
		s->random(s->context, ret->value);
		ret->value[6] = (ret->value[6] & 0x0f) | 0x40; /* version 4 */
		ret->value[8] = (ret->value[8] & 0x3f) | 0x80;
		ret->size = 16;
		break;
	case INSTANT_TIMESTAMP:
		put(ret, us / 1000, 8);
		break;
	case INSTANT_DATE: /* days; 1970-01-01 is 2^31 */
		put(ret, us / DAY_US + (1u << 31), 4);
		break;
	case INSTANT_TIME: /* ns since midnight */
		put(ret, us % DAY_US * 1000, 8);
		break;
	case INSTANT_NONE:
		break;
	}
}

/* ------------------------------------------------------------------------------------------------- calls */

void instant_scan_init(struct instant_scan *s, struct span text)
{
	*s = (struct instant_scan){.text = text};
	lexer_init(&s->lexer, text);
}

static bool is_quoted(const struct token *t)
{
	return t->kind == TOKEN_QUOTED || (t->kind == TOKEN_NAMED_BIND && t->text.data[-1] == '"');
}

/* A name, also one that stands right behind a colon: {a:now()}. */
static bool is_name(const struct token *t)
{
	return token_named(t) || t->kind == TOKEN_NAMED_BIND;
}

static size_t name_at(const struct token *t)
{
	return t->at + (t->kind == TOKEN_NAMED_BIND);
}

/* The parenthesis `close` ends a call? */
static bool is_call(const struct instant_scan *s, const struct token *close, struct instant_call *ret)
{
	const struct token *open = &s->past[0], *name = &s->past[1], *first = name;

	if (!token_punct(open, '(') || !is_name(name))
		return false;
	if (token_punct(&s->past[2], '.')) {
		first = &s->past[3];
		if (!is_name(first) || !function_is_system(first->text, !is_quoted(first)))
			return false;
	}
	*ret = (struct instant_call){.at = name_at(first),
				     .size = close->at + 1 - name_at(first),
				     .kind = function_instant(name->text, !is_quoted(name)),
				     .markers = s->markers};
	return ret->kind != INSTANT_NONE;
}

/* Inside braces, behind what can be a key, ":x" is not a marker but the colon and the value's first word. */
static bool is_marker(const struct instant_scan *s)
{
	const struct token *t = &s->past[0];

	return !(s->depth && s->braces & 1) || (t->kind == TOKEN_PUNCT && !token_closes(t));
}

static bool is_ours(const struct token *t)
{
	static const char prefix[] = INSTANT_MARKER;

	for (size_t i = 0; i < sizeof(prefix) - 1; i++)
		if (i >= t->text.size || (t->text.data[i] | 0x20) != (prefix[i] | 0x20))
			return false;
	return true;
}

static void enter(struct instant_scan *s, const struct token *t)
{
	s->braces = s->braces << 1 | token_punct(t, '{');
	s->depth++;
}

static void leave(struct instant_scan *s)
{
	s->braces >>= 1;
	if (s->depth)
		s->depth--;
}

bool instant_next(struct instant_scan *s, struct instant_call *ret)
{
	bool found = false;

	while (!found) {
		struct token t = lexer_next(&s->lexer);

		if (token_ended(&t))
			return false;
		if (t.kind == TOKEN_BIND) {
			s->markers++;
		} else if (t.kind == TOKEN_NAMED_BIND && is_marker(s)) {
			s->markers++;
			s->taken |= is_ours(&t);
		} else if (token_opens(&t)) {
			enter(s, &t);
		} else if (token_closes(&t)) {
			found = token_punct(&t, ')') && is_call(s, &t, ret);
			leave(s);
		}
		memmove(&s->past[1], &s->past[0], 3 * sizeof(s->past[0]));
		s->past[0] = t;
	}
	return true;
}

int instant_binds(struct span text, struct instant_bind binds[INSTANT_BINDS_MAX])
{
	struct instant_scan scan;
	struct instant_call call;
	int count = 0;

	instant_scan_init(&scan, text);
	while (instant_next(&scan, &call)) {
		if (count == INSTANT_BINDS_MAX || call.markers + (unsigned)count > UINT16_MAX)
			return -E2BIG;
		binds[count] = (struct instant_bind){.position = (uint16_t)(call.markers + (unsigned)count),
						     .kind = (uint8_t)call.kind};
		count++;
	}
	return count && scan.taken ? -EEXIST : count;
}

bool instant_binds_match(struct columns columns, const struct instant_bind *binds, unsigned count)
{
	struct column c;
	unsigned next = 0;

	for (unsigned i = 0; column_next(&columns, &c) > 0; i++) {
		char name[INSTANT_NAME_SIZE];

		if (next == count)
			break;
		instant_name(next, name);
		if ((i == binds[next].position) != span_equal(c.name, span_text(name)))
			return false;
		next += i == binds[next].position;
	}
	return next == count;
}

/* ------------------------------------------------------------------------------------------------- texts */

void instant_name(unsigned number, char name[INSTANT_NAME_SIZE])
{
	snprintf(name, INSTANT_NAME_SIZE, INSTANT_MARKER "%u", number);
}

static uint64_t number_of(const struct instant *v)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < v->size; i++)
		n = n << 8 | v->value[i];
	return n;
}

/* All of them take a number, but for uuids. */
static void put_literal(struct wire_out *o, const struct instant *v)
{
	static const char hex[] = "0123456789abcdef";
	char text[40];
	size_t n = 0;

	if (v->size == 16) {
		for (unsigned i = 0; i < 16; i++) {
			if (i == 4 || i == 6 || i == 8 || i == 10)
				text[n++] = '-';
			text[n++] = hex[v->value[i] >> 4];
			text[n++] = hex[v->value[i] & 15];
		}
	} else {
		n = (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)number_of(v));
	}
	out_raw(o, span_of(text, n));
}

static const char *type_hint(enum instant_kind kind)
{
	static const char *const hints[] = {
	    [INSTANT_NONE] = "",
	    [INSTANT_TIMEUUID] = "(timeuuid)",
	    [INSTANT_UUID] = "(uuid)",
	    [INSTANT_TIMESTAMP] = "(timestamp)",
	    [INSTANT_DATE] = "(date)",
	    [INSTANT_TIME] = "(time)",
	};

	return hints[kind];
}

/* Whether what follows a call would become a part of what is put in its place: "now()AND" is no mistake. */
static bool continues(struct span text, size_t at)
{
	uint8_t c = at < text.size ? text.data[at] : 0;

	return c == '_' || c == '.' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

void instant_put_text(struct wire_out *o, struct span text, struct instant_source *source)
{
	struct instant_scan scan;
	struct instant_call call;
	struct instant value;
	char name[INSTANT_NAME_SIZE];
	size_t from = 0;

	instant_scan_init(&scan, text);
	for (unsigned i = 0; instant_next(&scan, &call); i++) {
		out_raw(o, span_of(text.data + from, call.at - from));
		from = call.at + call.size;
		out_raw(o, span_text(type_hint(call.kind)));
		if (source) {
			instant_take(source, call.kind, &value);
			put_literal(o, &value);
		} else {
			instant_name(i, name);
			out_raw(o, span_text(":"));
			out_raw(o, span_text(name));
		}
		if (continues(text, from))
			out_byte(o, ' ');
	}
	out_raw(o, span_of(text.data + from, text.size - from));
}

ssize_t instant_text(struct span text, uint8_t *to, size_t capacity)
{
	struct wire_out o = {.to = to, .capacity = capacity};

	instant_put_text(&o, text, NULL);
	return o.full ? -ENOSPC : (ssize_t)o.at;
}
