// SPDX-License-Identifier: Apache-2.0
#include "copy/type.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy/bytes.h"

/* The server accepts deeper nesting, people do not write it; the limit is for hostile bytes. */
#define DEPTH_MAX 24
#define PARTS_MAX 4096

static const struct {
	const char *class, *name;
	uint16_t kind;
} simple[] = {
    {"AsciiType", "ascii", TYPE_ASCII},
    {"LongType", "bigint", TYPE_BIGINT},
    {"BytesType", "blob", TYPE_BLOB},
    {"BooleanType", "boolean", TYPE_BOOLEAN},
    {"CounterColumnType", "counter", TYPE_COUNTER},
    {"DecimalType", "decimal", TYPE_DECIMAL},
    {"DoubleType", "double", TYPE_DOUBLE},
    {"FloatType", "float", TYPE_FLOAT},
    {"Int32Type", "int", TYPE_INT},
    {"TimestampType", "timestamp", TYPE_TIMESTAMP},
    {"DateType", "timestamp", TYPE_TIMESTAMP},
    {"UUIDType", "uuid", TYPE_UUID},
    {"UTF8Type", "text", TYPE_VARCHAR},
    {"IntegerType", "varint", TYPE_VARINT},
    {"TimeUUIDType", "timeuuid", TYPE_TIMEUUID},
    {"InetAddressType", "inet", TYPE_INET},
    {"SimpleDateType", "date", TYPE_DATE},
    {"TimeType", "time", TYPE_TIME},
    {"ShortType", "smallint", TYPE_SMALLINT},
    {"ByteType", "tinyint", TYPE_TINYINT},
    {"DurationType", "duration", TYPE_DURATION},
    {"ListType", "list", TYPE_LIST},
    {"MapType", "map", TYPE_MAP},
    {"SetType", "set", TYPE_SET},
    {"UserType", "user type", TYPE_UDT},
    {"TupleType", "tuple", TYPE_TUPLE},
    {"VectorType", "vector", TYPE_VECTOR},
};
#define SIMPLE_COUNT (sizeof(simple) / sizeof(*simple))

const char *type_name(const struct type *t)
{
	for (size_t i = 0; i < SIMPLE_COUNT; i++)
		if (simple[i].kind == t->kind)
			return simple[i].name;
	return "custom type";
}

void type_done(struct type *t)
{
	for (unsigned i = 0; i < t->count; i++) {
		if (t->parts)
			type_done(&t->parts[i]);
		if (t->names)
			free(t->names[i]);
	}
	free(t->parts);
	free(t->names);
	*t = (struct type){0};
}

static int parts_make(struct type *t, unsigned count, bool named)
{
	t->parts = calloc(count ? count : 1, sizeof(*t->parts));
	t->names = named ? calloc(count ? count : 1, sizeof(*t->names)) : NULL;
	if (!t->parts || (named && !t->names))
		return -ENOMEM;
	t->count = (uint16_t)count;
	return 0;
}

/* ------------------------------------------------------------- names of classes */

struct class_reader {
	const char *at, *end;
};

static int class_parse(struct class_reader *r, struct type *ret, unsigned depth);

static void skip_blanks(struct class_reader *r)
{
	while (r->at < r->end && *r->at == ' ')
		r->at++;
}

static bool class_takes(struct class_reader *r, char c)
{
	skip_blanks(r);
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

/* Up to a bracket, comma, colon or the end. */
static struct span class_word(struct class_reader *r)
{
	const char *from;

	skip_blanks(r);
	from = r->at;
	while (r->at < r->end && !strchr("(),: ", *r->at))
		r->at++;
	return span_of(from, (size_t)(r->at - from));
}

static int hex_digit(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static char *hex_text(struct span hex)
{
	char *text = calloc(1, hex.size / 2 + 1);

	for (size_t i = 0; text && i + 1 < hex.size; i += 2) {
		int high = hex_digit(hex.data[i]), low = hex_digit(hex.data[i + 1]);

		if (high < 0 || low < 0) {
			free(text);
			return NULL;
		}
		text[i / 2] = (char)(high << 4 | low);
	}
	return text;
}

/* The arguments of a list, set, map or tuple, or of a user type behind its keyspace and name. */
static int class_parts(struct class_reader *r, struct type *t, bool named, unsigned depth)
{
	unsigned room = 4;
	int rc = parts_make(t, room, named);

	t->count = 0;
	while (rc == 0) {
		if (t->count == room) {
			struct type *parts = realloc(t->parts, 2 * room * sizeof(*parts));

			if (!parts)
				return -ENOMEM;
			t->parts = parts;
			if (named) {
				char **grown = realloc(t->names, 2 * room * sizeof(*grown));

				if (!grown)
					return -ENOMEM;
				t->names = grown;
			}
			room *= 2;
		}
		struct type *part = &t->parts[t->count];

		*part = (struct type){0};
		if (named)
			t->names[t->count] = NULL;
		if (t->count == PARTS_MAX)
			return -EINVAL;
		t->count++;
		if (named) {
			t->names[t->count - 1] = hex_text(class_word(r));
			if (!t->names[t->count - 1] || !class_takes(r, ':'))
				return -EINVAL;
		}
		rc = class_parse(r, part, depth + 1);
		if (rc == 0 && !class_takes(r, ','))
			return class_takes(r, ')') ? 0 : -EINVAL;
	}
	return rc;
}

static int class_vector(struct class_reader *r, struct type *t, unsigned depth)
{
	int rc = parts_make(t, 1, false);
	struct span number;
	char text[16];
	unsigned long n;

	if (rc == 0)
		rc = class_parse(r, &t->parts[0], depth + 1);
	if (rc < 0)
		return rc;
	if (!class_takes(r, ','))
		return -EINVAL;
	number = class_word(r);
	snprintf(text, sizeof(text), "%.*s", (int)(number.size < 15 ? number.size : 15),
		 (const char *)number.data);
	n = strtoul(text, NULL, 10);
	if (n == 0 || n > 1u << 20)
		return -EINVAL;
	t->dimension = (uint32_t)n;
	return class_takes(r, ')') ? 0 : -EINVAL;
}

/* A class whose arguments mean nothing to us: over them. */
static int class_skip(struct class_reader *r)
{
	unsigned level = 1;

	while (r->at < r->end && level) {
		level += *r->at == '(';
		level -= *r->at == ')';
		r->at++;
	}
	return level ? -EINVAL : 0;
}

static int class_parse(struct class_reader *r, struct type *ret, unsigned depth)
{
	struct span word = class_word(r);
	const uint8_t *dot = memrchr(word.data, '.', word.size);
	int rc;

	if (depth > DEPTH_MAX || word.size == 0)
		return -EINVAL;
	if (dot)
		word = span_of(dot + 1, word.size - (size_t)(dot + 1 - word.data));
	ret->kind = TYPE_CUSTOM;
	for (size_t i = 0; i < SIMPLE_COUNT; i++)
		if (span_equal(word, span_text(simple[i].class)))
			ret->kind = simple[i].kind;
	bool wrapper =
	    span_equal(word, span_text("FrozenType")) || span_equal(word, span_text("ReversedType"));

	if (!class_takes(r, '(')) {
		bool composite = ret->kind >= TYPE_LIST;

		return composite || wrapper ? -EINVAL : 0;
	}
	if (wrapper) {
		rc = class_parse(r, ret, depth + 1);
		return rc < 0 ? rc : class_takes(r, ')') ? 0 : -EINVAL;
	}
	switch (ret->kind) {
	case TYPE_VECTOR:
		return class_vector(r, ret, depth);
	case TYPE_UDT:
		class_word(r); /* keyspace */
		if (!class_takes(r, ','))
			return -EINVAL;
		class_word(r); /* name */
		if (!class_takes(r, ','))
			return -EINVAL;
		return class_parts(r, ret, true, depth);
	case TYPE_LIST:
	case TYPE_SET:
	case TYPE_MAP:
	case TYPE_TUPLE:
		rc = class_parts(r, ret, false, depth);
		if (rc == 0 && ret->kind != TYPE_TUPLE && ret->count != (ret->kind == TYPE_MAP ? 2 : 1))
			rc = -EINVAL;
		return rc;
	default:
		return class_skip(r);
	}
}

/* ------------------------------------------------------------- options of the protocol */

static bool take_short(struct span *from, unsigned *ret)
{
	struct span s;

	if (!span_take(from, 2, &s))
		return false;
	*ret = load_be16(s.data);
	return true;
}

static bool take_string(struct span *from, struct span *ret)
{
	unsigned size;

	return take_short(from, &size) && span_take(from, size, ret);
}

static int option_parse(struct span *from, struct type *ret, unsigned depth)
{
	struct span text;
	unsigned kind, count = 0;
	bool named = false;
	int rc;

	if (depth > DEPTH_MAX || !take_short(from, &kind))
		return -EINVAL;
	ret->kind = (uint16_t)kind;
	switch (kind) {
	case TYPE_CUSTOM:
		if (!take_string(from, &text))
			return -EINVAL;
		struct class_reader r = {(const char *)text.data, (const char *)text.data + text.size};

		return class_parse(&r, ret, depth);
	case TYPE_LIST:
	case TYPE_SET:
		count = 1;
		break;
	case TYPE_MAP:
		count = 2;
		break;
	case TYPE_UDT:
		named = true;
		if (!take_string(from, &text) || !take_string(from, &text))
			return -EINVAL;
		/* fall through */
	case TYPE_TUPLE:
		if (!take_short(from, &count) || count == 0 || count > PARTS_MAX)
			return -EINVAL;
		break;
	default:
		return kind <= TYPE_DURATION
			   ? 0
			   : -EINVAL; /* our own numbers begin behind those of the protocol */
	}
	rc = parts_make(ret, count, named);
	for (unsigned i = 0; i < count && rc == 0; i++) {
		if (named) {
			if (!take_string(from, &text))
				return -EINVAL;
			ret->names[i] = strndup((const char *)text.data, text.size);
			if (!ret->names[i])
				return -ENOMEM;
		}
		rc = option_parse(from, &ret->parts[i], depth + 1);
	}
	return rc;
}

int type_parse(struct span option, struct type *ret)
{
	struct type t = {0};
	int rc = option_parse(&option, &t, 0);

	if (rc < 0) {
		type_done(&t);
		return rc;
	}
	*ret = t;
	return 0;
}

unsigned type_fixed_size(const struct type *t)
{
	switch (t->kind) {
	case TYPE_BOOLEAN:
		return 1;
	case TYPE_INT:
	case TYPE_FLOAT:
		return 4;
	case TYPE_BIGINT:
	case TYPE_DOUBLE:
	case TYPE_TIMESTAMP:
		return 8;
	case TYPE_UUID:
	case TYPE_TIMEUUID:
		return 16;
	case TYPE_VECTOR:
		return t->dimension * type_fixed_size(&t->parts[0]);
	default:
		/* smallint, tinyint, time and date have a length of their own in the server, too. */
		return 0;
	}
}
