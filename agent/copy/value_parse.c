// SPDX-License-Identifier: Apache-2.0
/*
 * Text to values, see value.h. Stricter than cqlsh where cqlsh would load something else than what stands
 * there: a word that is neither of BOOLSTYLE's, a date with more behind it, a number beyond its type.
 */
#include <arpa/inet.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "copy/moment.h"
#include "copy/number.h"
#include "copy/text.h"
#include "copy/value.h"

struct parser {
	const struct value_style *style;
	struct bytes *out;
};

static const char *parse_value(struct parser *p, const struct type *t, struct span v, bool nested);

static const char no_memory[] = "out of memory";

/* ------------------------------------------------------------- text */

static struct span trim(struct span v)
{
	while (v.size && (v.data[0] == ' ' || v.data[0] == '\t'))
		v = span_of(v.data + 1, v.size - 1);
	while (v.size && (v.data[v.size - 1] == ' ' || v.data[v.size - 1] == '\t'))
		v.size--;
	return v;
}

/* What stands between quotes; *ret_quoted whether there were any. */
static struct span unquote(struct span v, bool *ret_quoted)
{
	*ret_quoted = v.size >= 2 && v.data[0] == '\'' && v.data[v.size - 1] == '\'';
	return *ret_quoted ? span_of(v.data + 1, v.size - 2) : v;
}

static const char *parse_text(struct parser *p, const struct type *t, struct span v, bool nested)
{
	bool quoted = false;
	size_t from = p->out->size;

	if (nested)
		v = unquote(v, &quoted);
	if (!text_is_utf8(v))
		return "not UTF-8";
	if (memchr(v.data, 0, v.size))
		return "a NUL byte";
	if (!quoted && !(p->style->escapes && memchr(v.data, '\\', v.size)))
		bytes_put(p->out, v.data, v.size);
	else
		text_put_plain(v, quoted, p->style->escapes, p->out);
	if (t->kind == TYPE_ASCII)
		for (size_t i = from; i < p->out->size; i++)
			if (p->out->data[i] >= 0x80)
				return "not ASCII";
	return NULL;
}

/* ------------------------------------------------------------- single values */

/* The field without THOUSANDSSEP and with '.' for DECIMALSEP, in `room`; data = NULL when it is too long for
 * a number. */
static struct span plain_number(const struct value_style *s, struct span v, bool fraction, char *room,
				size_t size)
{
	size_t group = strlen(s->group), point = fraction ? strlen(s->point) : 0, n = 0;

	if (!group && (!point || !strcmp(s->point, ".")))
		return v;
	for (size_t i = 0; i < v.size;) {
		if (n == size)
			return (struct span){0};
		if (group && v.size - i >= group && !memcmp(v.data + i, s->group, group)) {
			i += group;
		} else if (point && v.size - i >= point && !memcmp(v.data + i, s->point, point)) {
			room[n++] = '.';
			i += point;
		} else {
			room[n++] = (char)v.data[i++];
		}
	}
	return span_of(room, n);
}

static const char *parse_integer(struct parser *p, struct span v, unsigned size)
{
	int64_t n, limit = size == 8 ? INT64_MAX : ((int64_t)1 << (8 * size - 1)) - 1;
	char room[64];

	if (!number_parse_int(plain_number(p->style, v, false, room, sizeof(room)), &n))
		return "not an integer, or beyond 64 bits";
	if (n > limit || n < -limit - 1)
		return "an integer beyond the range of the type";
	uint8_t *to = bytes_room(p->out, 8);

	if (!to)
		return no_memory;
	store_be64(to, (uint64_t)n << (64 - 8 * size));
	p->out->size += size;
	return NULL;
}

static const char *parse_float(struct parser *p, struct span v, bool narrow)
{
	char room[512];
	uint64_t wide;
	uint32_t bits;
	float f;
	double d;

	if (!number_parse_float(plain_number(p->style, v, true, room, sizeof(room)), &d))
		return "not a number";
	f = (float)d;
	if (narrow && isinf(f) && !isinf(d))
		return "a number beyond the range of the type";
	memcpy(&bits, &f, 4);
	memcpy(&wide, &d, 8);
	if (narrow)
		bytes_u32(p->out, bits);
	else
		bytes_u64(p->out, wide);
	return NULL;
}

static const char *parse_large(struct parser *p, struct span v, bool decimal)
{
	size_t size = v.size + 1;
	char *room = malloc(size);
	bool ok = false;

	if (!room)
		return no_memory;
	v = plain_number(p->style, v, decimal, room, size);
	ok = decimal ? number_parse_decimal(v, p->out) : number_parse_varint(v, p->out);
	free(room);
	return ok ? NULL : decimal ? "not a decimal" : "not an integer";
}

static const char *parse_uuid(struct parser *p, struct span v, bool time)
{
	uint8_t raw[16];
	unsigned digits = 0;

	for (size_t i = 0; i < v.size; i++) {
		int digit = text_hex_digit(v.data[i]);

		if (v.data[i] == '-')
			continue;
		if (digit < 0 || digits == 32)
			return "not a UUID";
		raw[digits / 2] = (uint8_t)(digits & 1 ? raw[digits / 2] << 4 | digit : digit);
		digits++;
	}
	if (digits != 32)
		return "not a UUID";
	if (time && raw[6] >> 4 != 1)
		return "not a UUID of version 1";
	bytes_put(p->out, raw, sizeof(raw));
	return NULL;
}

static const char *parse_blob(struct parser *p, struct span v)
{
	uint8_t *to;

	if (v.size < 2 || v.data[0] != '0' || (v.data[1] | 32) != 'x')
		return "a blob begins with 0x";
	if (v.size % 2)
		return "a blob has an even number of hexadecimal digits";
	to = bytes_room(p->out, v.size / 2);
	if (!to)
		return no_memory;
	for (size_t i = 2; i < v.size; i += 2) {
		int high = text_hex_digit(v.data[i]), low = text_hex_digit(v.data[i + 1]);

		if (high < 0 || low < 0)
			return "not hexadecimal";
		*to++ = (uint8_t)(high << 4 | low);
	}
	p->out->size += v.size / 2 - 1;
	return NULL;
}

static const char *parse_inet(struct parser *p, struct span v)
{
	char text[INET6_ADDRSTRLEN];
	uint8_t raw[16];

	if (v.size >= sizeof(text))
		return "not an address";
	memcpy(text, v.data, v.size);
	text[v.size] = 0;
	if (inet_pton(AF_INET, text, raw) == 1)
		bytes_put(p->out, raw, 4);
	else if (inet_pton(AF_INET6, text, raw) == 1)
		bytes_put(p->out, raw, 16);
	else
		return "not an address";
	return NULL;
}

static const char *parse_boolean(struct parser *p, struct span v)
{
	const char *styles[] = {p->style->no, p->style->yes};

	for (unsigned i = 0; i < 2; i++)
		if (v.size == strlen(styles[i]) && !strncasecmp((const char *)v.data, styles[i], v.size)) {
			bytes_u8(p->out, (uint8_t)i);
			return NULL;
		}
	return "neither of the two words of BOOLSTYLE";
}

static const char *parse_moment(struct parser *p, uint16_t kind, struct span v)
{
	int64_t n;

	switch (kind) {
	case TYPE_TIMESTAMP:
		if (!moment_parse_timestamp(p->style->timestamp, v, &n))
			return "not a timestamp";
		bytes_u64(p->out, (uint64_t)n);
		return NULL;
	case TYPE_DATE:
		if (!moment_parse_date(v, &n))
			return "not a date (YYYY-MM-DD)";
		bytes_u32(p->out, (uint32_t)(n + ((int64_t)1 << 31)));
		return NULL;
	case TYPE_TIME:
		if (!moment_parse_time(v, &n))
			return "not a time (HH:MM:SS.nnnnnnnnn)";
		bytes_u64(p->out, (uint64_t)n);
		return NULL;
	default:
		return moment_parse_duration(v, p->out) ? NULL : "not a duration (1y2mo3d4h5m6s7ms8us9ns)";
	}
}

/* ------------------------------------------------------------- collections */

static bool brackets_match(struct span v)
{
	static const char pairs[] = "[]{}()";
	const char *open = v.size >= 2 ? strchr(pairs, v.data[0]) : NULL;

	return open && *open && (open - pairs) % 2 == 0 && open[1] == v.data[v.size - 1];
}

/*
 * The next piece of *rest up to a `separator` outside quotes and brackets, trimmed. For a map's colon one
 * with a blank behind it counts before others: keys of type time have colons of their own. False: nothing is
 * left.
 */
static bool next_piece(struct span *rest, char separator, struct span *ret)
{
	size_t found = rest->size;
	bool quote = false, blank = false;
	int level = 0;

	if (rest->size == 0)
		return false;
	for (size_t i = 0; i < rest->size && !blank; i++) {
		uint8_t c = rest->data[i];

		if (c == '\'')
			quote = !quote;
		else if (quote)
			continue;
		else if (c == '[' || c == '{' || c == '(')
			level++;
		else if (c == ']' || c == '}' || c == ')')
			level--;
		else if (c == (uint8_t)separator && level == 0) {
			blank = separator != ':' || (i + 1 < rest->size && rest->data[i + 1] == ' ');
			if (blank || found == rest->size)
				found = i;
		}
	}
	*ret = trim(span_of(rest->data, found));
	*rest = found < rest->size ? span_of(rest->data + found + 1, rest->size - found - 1)
				   : span_of(rest->data + found, 0);
	return true;
}

/* A [bytes]: four bytes of length, then what parse_value() appends. */
static const char *parse_sized(struct parser *p, const struct type *t, struct span v)
{
	size_t from = p->out->size;
	const char *wrong;

	bytes_u32(p->out, 0);
	wrong = parse_value(p, t, v, true);
	if (!wrong && !p->out->failed)
		store_be32(p->out->data + from, (uint32_t)(p->out->size - from - 4));
	return wrong;
}

static bool is_string(const struct type *t)
{
	return t->kind == TYPE_VARCHAR || t->kind == TYPE_ASCII;
}

/* An element of a collection, where null is not allowed: an empty one must be a text. */
static const char *parse_element(struct parser *p, const struct type *t, struct span v)
{
	if (value_is_null(p->style, v) && !is_string(t))
		return "an empty value in a collection";
	return parse_sized(p, t, v);
}

/* A field of a tuple or user type. Quotes tell an empty text from null. */
static const char *parse_field(struct parser *p, const struct type *t, struct span v)
{
	if (!value_is_null(p->style, v))
		return parse_sized(p, t, v);
	bytes_u32(p->out, UINT32_MAX);
	return NULL;
}

static const char *parse_collection(struct parser *p, const struct type *t, struct span inside)
{
	size_t from = p->out->size;
	uint32_t count = 0;
	struct span piece, key;
	const char *wrong = NULL;

	bytes_u32(p->out, 0);
	for (; !wrong && next_piece(&inside, ',', &piece); count++) {
		if (t->kind != TYPE_MAP) {
			wrong = parse_element(p, &t->parts[0], piece);
			continue;
		}
		if (!next_piece(&piece, ':', &key) || key.data + key.size == piece.data + piece.size)
			return "a map's entry without a colon";
		wrong = parse_element(p, &t->parts[0], key);
		if (!wrong)
			wrong = parse_element(p, &t->parts[1], trim(piece));
	}
	if (!p->out->failed)
		store_be32(p->out->data + from, count);
	return wrong;
}

static const char *parse_tuple(struct parser *p, const struct type *t, struct span inside)
{
	struct span piece;
	const char *wrong = NULL;
	unsigned i = 0;

	for (; !wrong && next_piece(&inside, ',', &piece); i++) {
		if (i == t->count)
			return "too many fields in a tuple";
		wrong = parse_field(p, &t->parts[i], piece);
	}
	for (; !wrong && i < t->count; i++)
		bytes_u32(p->out, UINT32_MAX);
	return wrong;
}

/* The value of the field of that name, data = NULL when there is none. */
static struct span find_field(struct span inside, const char *wanted)
{
	struct span piece, name, found = {0};
	bool quoted;

	while (next_piece(&inside, ',', &piece)) {
		if (!next_piece(&piece, ':', &name))
			break;
		if (span_equal(unquote(name, &quoted), span_text(wanted)))
			found = trim(piece);
	}
	return found;
}

/* Fields may stand in any order; one that is missing is null. */
static const char *parse_user_type(struct parser *p, const struct type *t, struct span inside)
{
	struct span rest = inside, piece, name, field;
	const char *wrong = NULL;
	bool quoted;

	while (next_piece(&rest, ',', &piece)) {
		unsigned i = 0;

		if (!next_piece(&piece, ':', &name))
			return "a field of a user type without a colon";
		while (i < t->count && !span_equal(unquote(name, &quoted), span_text(t->names[i])))
			i++;
		if (i == t->count)
			return "a field that the user type does not have";
	}
	for (unsigned i = 0; i < t->count && !wrong; i++) {
		field = find_field(inside, t->names[i]);
		if (field.data)
			wrong = parse_field(p, &t->parts[i], field);
		else
			bytes_u32(p->out, UINT32_MAX);
	}
	return wrong;
}

static const char *parse_vector(struct parser *p, const struct type *t, struct span inside)
{
	bool fixed = type_fixed_size(&t->parts[0]) != 0;
	struct bytes element = {0};
	const char *wrong = NULL;
	struct span piece;
	uint32_t count = 0;

	for (; !wrong && next_piece(&inside, ',', &piece); count++) {
		if (value_is_null(p->style, piece) && !is_string(&t->parts[0])) {
			wrong = "an empty value in a vector";
		} else if (fixed) {
			wrong = parse_value(p, &t->parts[0], piece, true);
		} else {
			struct parser one = {.style = p->style, .out = &element};

			element.size = 0;
			wrong = parse_value(&one, &t->parts[0], piece, true);
			moment_put_vint(element.size, p->out);
			bytes_put(p->out, element.data, element.size);
		}
	}
	bytes_done(&element);
	return wrong		       ? wrong
	       : count == t->dimension ? NULL
				       : "another number of elements than the vector has";
}

static const char *parse_composite(struct parser *p, const struct type *t, struct span v)
{
	struct span inside;

	if (!brackets_match(v))
		return "a collection stands between matching brackets";
	inside = trim(span_of(v.data + 1, v.size - 2));
	switch (t->kind) {
	case TYPE_TUPLE:
		return parse_tuple(p, t, inside);
	case TYPE_UDT:
		return parse_user_type(p, t, inside);
	case TYPE_VECTOR:
		return parse_vector(p, t, inside);
	default:
		return parse_collection(p, t, inside);
	}
}

static const char *parse_value(struct parser *p, const struct type *t, struct span v, bool nested)
{
	bool quoted;

	if (is_string(t))
		return parse_text(p, t, v, nested);
	v = trim(v);
	if (nested)
		v = unquote(v, &quoted);
	switch (t->kind) {
	case TYPE_TINYINT:
		return parse_integer(p, v, 1);
	case TYPE_SMALLINT:
		return parse_integer(p, v, 2);
	case TYPE_INT:
		return parse_integer(p, v, 4);
	case TYPE_BIGINT:
	case TYPE_COUNTER:
		return parse_integer(p, v, 8);
	case TYPE_VARINT:
		return parse_large(p, v, false);
	case TYPE_DECIMAL:
		return parse_large(p, v, true);
	case TYPE_FLOAT:
		return parse_float(p, v, true);
	case TYPE_DOUBLE:
		return parse_float(p, v, false);
	case TYPE_BOOLEAN:
		return parse_boolean(p, v);
	case TYPE_UUID:
	case TYPE_TIMEUUID:
		return parse_uuid(p, v, t->kind == TYPE_TIMEUUID);
	case TYPE_INET:
		return parse_inet(p, v);
	case TYPE_TIMESTAMP:
	case TYPE_DATE:
	case TYPE_TIME:
	case TYPE_DURATION:
		return parse_moment(p, t->kind, v);
	case TYPE_LIST:
	case TYPE_SET:
	case TYPE_MAP:
	case TYPE_TUPLE:
	case TYPE_UDT:
	case TYPE_VECTOR:
		return parse_composite(p, t, v);
	default:
		return parse_blob(p, v);
	}
}

bool value_is_null(const struct value_style *s, struct span field)
{
	return span_equal(field, s->null) || span_equal(field, s->null_written);
}

const char *value_parse(const struct value_style *s, const struct type *t, struct span field,
			struct bytes *out)
{
	struct parser p = {.style = s, .out = out};
	size_t from = out->size;
	const char *wrong;

	/* An empty field is null also where NULL is another word, unless it can be an empty text. */
	if (value_is_null(s, field) || (field.size == 0 && !is_string(t))) {
		bytes_u32(out, UINT32_MAX);
		return out->failed ? no_memory : NULL;
	}
	bytes_u32(out, 0);
	wrong = parse_value(&p, t, field, false);
	if (!wrong && out->failed)
		wrong = no_memory;
	if (!wrong)
		store_be32(out->data + from, (uint32_t)(out->size - from - 4));
	return wrong;
}
