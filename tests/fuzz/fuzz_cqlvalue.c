// SPDX-License-Identifier: Apache-2.0
/* Input: the size of a type (2 bytes), the type as an option of the protocol, then bytes that are taken as a
 * value and as text. */
#include <stdlib.h>
#include <string.h>

#include "copy/moment.h"
#include "copy/value.h"
#include "fuzz/holds.h"

#define VALUE_MAX 4096 /* integers of any size take quadratic time */

/* Whether the name can be told apart in a file: no two fields share it, and it is made of letters. */
static bool plain_name(const struct type *t, unsigned field)
{
	const char *name = t->names[field];

	for (unsigned i = 0; i < field; i++)
		if (!strcmp(t->names[i], name))
			return false;
	return *name && name[strspn(name, "abcdefghijklmnopqrstuvwxyz_")] == 0;
}

/* Digits are lost where the options say so; names that nobody can tell apart lose their values. */
static bool loses(const struct type *t)
{
	if (t->kind == TYPE_FLOAT || t->kind == TYPE_DOUBLE)
		return true;
	for (unsigned i = 0; i < t->count; i++)
		if (loses(&t->parts[i]) || (t->kind == TYPE_UDT && !plain_name(t, i)))
			return true;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct value_style style = {.null = {(const uint8_t *)"", 0},
						 .null_written = {(const uint8_t *)"", 0},
						 .yes = "True",
						 .no = "False",
						 .point = ".",
						 .group = "",
						 .timestamp = MOMENT_FORMAT,
						 .float_precision = 5,
						 .double_precision = 12,
						 .escapes = true};
	struct bytes text = {0}, value = {0}, again = {0};
	size_t type_size;
	struct span rest;
	struct type t;

	if (size < 2)
		return 0;
	type_size = (size_t)data[0] << 8 | data[1];
	if (type_size > size - 2 || size - 2 - type_size > VALUE_MAX ||
	    type_parse(span_of(data + 2, type_size), &t) < 0)
		return 0;
	rest = span_of(data + 2 + type_size, size - 2 - type_size);
	/* A value that was read is written so that it is read again, and written the same. */
	if (value_format(&style, &t, rest, &text) && !value_parse(&style, &t, bytes_span(&text), &value) &&
	    (int32_t)load_be32(value.data) >= 0) {
		HOLDS(load_be32(value.data) == value.size - 4);
		text.size = 0;
		HOLDS(value_format(&style, &t, span_of(value.data + 4, value.size - 4), &text));
		value.size = 0;
		HOLDS(!value_parse(&style, &t, bytes_span(&text), &value));
		if ((int32_t)load_be32(value.data) >= 0) {
			HOLDS(value_format(&style, &t, span_of(value.data + 4, value.size - 4), &again));
			HOLDS(loses(&t) || span_equal(bytes_span(&text), bytes_span(&again)));
		}
	}
	text.size = value.size = 0;
	value_format_literal(&t, rest, &text);
	if (!value_parse(&style, &t, rest, &value))
		HOLDS(value.size >= 4);
	bytes_done(&text);
	bytes_done(&value);
	bytes_done(&again);
	type_done(&t);
	return 0;
}
