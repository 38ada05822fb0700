/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INSERT … JSON: finds the members of a document's outermost object. Their values are not interpreted: the
 * server reads them again as fromJson(?), with the type of the column that it knows.
 *
 * The server has accepted the document before, so this reader is not strict; what it cannot follow is
 * −ENOKEY.
 */
#include <errno.h>
#include <sys/types.h>

#include "cql/functions.h"
#include "cql/rowkey_priv.h"

/* A table has fewer columns; members are compared with each other. */
#define JSON_MEMBERS_MAX 4096u

struct json {
	const uint8_t *data;
	size_t size, at;
};

static uint8_t json_peek(const struct json *j)
{
	return j->at < j->size ? j->data[j->at] : 0;
}

static void json_blank(struct json *j)
{
	while (json_peek(j) == ' ' || json_peek(j) == '\t' || json_peek(j) == '\n' || json_peek(j) == '\r')
		j->at++;
}

/* Over a string, from its opening quote to behind the closing one. */
static bool json_skip_string(struct json *j)
{
	for (j->at++; j->at < j->size; j->at++) {
		if (j->data[j->at] == '\\')
			j->at++;
		else if (j->data[j->at] == '"')
			return j->at++, true;
	}
	return false;
}

/* Over a value, up to the comma or brace that belongs to the object around it. */
static bool json_skip_value(struct json *j)
{
	size_t depth = 0;

	while (j->at < j->size) {
		uint8_t c = j->data[j->at];

		if (c == '"') {
			if (!json_skip_string(j))
				return false;
			continue;
		}
		if (!depth && (c == ',' || c == '}'))
			return true;
		if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth-- == 0)
			return false;
		j->at++;
	}
	return false;
}

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \uXXXX at `p`, of which four digits must be there. −1: not hexadecimal. */
static int32_t unicode_escape(const uint8_t *p, size_t left)
{
	int32_t v = 0;

	if (left < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int d = hex_digit(p[i]);

		if (d < 0)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

static size_t utf8_put(uint8_t *to, uint32_t c)
{
	if (c < 0x80) {
		to[0] = (uint8_t)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (uint8_t)(0xc0 | c >> 6);
		to[1] = (uint8_t)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (uint8_t)(0xe0 | c >> 12);
		to[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		to[2] = (uint8_t)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (uint8_t)(0xf0 | c >> 18);
	to[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
	to[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
	to[3] = (uint8_t)(0x80 | (c & 0x3f));
	return 4;
}

/* Unescapes `from` into `to`, which is as long; it never grows. Returns the size, −1 for a bad escape. */
static ssize_t json_unescape(struct span from, uint8_t *to)
{
	static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	size_t n = 0;

	for (size_t i = 0; i < from.size; i++) {
		if (from.data[i] != '\\') {
			to[n++] = from.data[i];
			continue;
		}
		if (++i == from.size)
			return -1;
		if (from.data[i] != 'u') {
			const char *e = from.data[i] ? strchr(escapes, from.data[i]) : NULL;

			if (!e)
				return -1;
			to[n++] = (uint8_t)meant[e - escapes];
			continue;
		}
		int32_t c = unicode_escape(from.data + i + 1, from.size - i - 1);

		if (c < 0)
			return -1;
		i += 4;
		if (c >= 0xd800 && c < 0xdc00 && from.size - i > 6 && from.data[i + 1] == '\\' &&
		    from.data[i + 2] == 'u') {
			int32_t low = unicode_escape(from.data + i + 3, from.size - i - 3);

			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				i += 6;
			}
		}
		n += utf8_put(to + n, (uint32_t)c);
	}
	return (ssize_t)n;
}

/* A member's name, as Cassandra takes it: folded, unless the string itself is in double quotes. */
static int json_name(struct arena *arena, struct span raw, struct span *ret)
{
	uint8_t *name = arena_take(arena, raw.size + 1);
	ssize_t n = name ? json_unescape(raw, name) : 0;

	if (!name)
		return -ENOMEM;
	if (n < 0)
		return -ENOKEY;
	if (n >= 2 && name[0] == '"' && name[n - 1] == '"') {
		*ret = span_of(name + 1, (size_t)n - 2);
		return 0;
	}
	for (ssize_t i = 0; i < n; i++)
		if (name[i] >= 'A' && name[i] <= 'Z')
			name[i] |= 0x20;
	*ret = span_of(name, (size_t)n);
	return 0;
}

/* The relation of that name; of two members with one name the last counts. */
static struct rowkey_relation *json_relation(struct arena *arena, struct span name,
					     struct rowkey_relation **list)
{
	while (*list && !span_equal((*list)->names->text, name))
		list = &(*list)->next;
	if (*list)
		return *list;
	struct rowkey_relation *r = arena_zero(arena, sizeof(*r));

	if (!r || !(r->names = arena_zero(arena, sizeof(*r->names))) ||
	    !(r->terms = arena_zero(arena, sizeof(*r->terms))))
		return NULL;
	r->names->text = name;
	r->term_count = 1;
	return *list = r;
}

static int json_member(struct json *j, struct arena *arena, struct rowkey_relation **list)
{
	struct span name;
	size_t from = j->at;
	int rc;

	if (json_peek(j) != '"' || !json_skip_string(j))
		return -ENOKEY;
	rc = json_name(arena, span_of(j->data + from + 1, j->at - from - 2), &name);
	if (rc)
		return rc;
	json_blank(j);
	if (json_peek(j) != ':')
		return -ENOKEY;
	j->at++;
	json_blank(j);
	from = j->at;
	if (!json_skip_value(j))
		return -ENOKEY;
	size_t to = j->at;

	while (to > from && (j->data[to - 1] <= ' '))
		to--;
	struct rowkey_relation *r = json_relation(arena, name, list);

	if (!r)
		return -ENOMEM;
	struct rowkey_term *t = r->terms;
	size_t size = to - from;
	bool null = size == 4 && !memcmp(j->data + from, "null", 4);

	bool now = size == 5 && j->data[from] == '"' && string_is_now(span_of(j->data + from + 1, 3));

	t->usable = size && !null && size <= ROWKEY_VALUES_MAX && (now || !json_has_now(span_of(j->data + from, size)));
	if (!t->usable)
		return 0;
	t->value_count = 1;
	if (now) {
		uint8_t *value = arena_take(arena, WALK_NOW_SIZE);

		if (!value)
			return -ENOMEM;
		t->text = span_text("?");
		t->values = span_of(value, walk_put_now(span_of(j->data + from + 1, 3), value));
		return 0;
	}
	uint8_t *value = arena_take(arena, size + 4);

	if (!value)
		return -ENOMEM;
	for (int i = 0; i < 4; i++)
		value[i] = (uint8_t)(size >> (24 - 8 * i));
	memcpy(value + 4, j->data + from, size);
	t->text = span_text("fromJson(?)");
	t->values = span_of(value, size + 4);
	return 0;
}

int rowkey_json(struct arena *arena, struct span document, struct rowkey_relation **ret)
{
	struct json j = {.data = document.data, .size = document.size};

	*ret = NULL;
	json_blank(&j);
	if (json_peek(&j) != '{')
		return -ENOKEY;
	j.at++;
	json_blank(&j);
	if (json_peek(&j) == '}')
		return 0;
	for (unsigned i = 0; i < JSON_MEMBERS_MAX; i++) {
		json_blank(&j);
		int rc = json_member(&j, arena, ret);

		if (rc)
			return rc;
		if (json_peek(&j) == '}')
			return 0;
		j.at++; /* json_skip_value() stops at nothing else but a comma */
	}
	return -ENOKEY;
}
