/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values between the protocol's bytes and the text that cqlsh's COPY writes and reads.
 *
 *   [1, 2]  {1, 2}  {'k': 1}  (1, 'a')  {field: 1, other: 'x'}     text, timestamps and addresses in quotes
 * only in here in text   \\ \n \r \t \x00 …   backslashes and control characters
 *
 * Where cqlsh's form cannot be read back by anybody (null in a tuple, fields whose names Python does not
 * like) ours is the one that can; docs/copy.md lists the differences.
 */
#pragma once
#include <stdbool.h>

#include "base/span.h"
#include "copy/bytes.h"
#include "copy/type.h"

struct value_style {
	struct span null;	  /* as the option says it, */
	struct span null_written; /* and as it stands in a file */
	const char *yes, *no;
	const char *point;     /* DECIMALSEP */
	const char *group;     /* THOUSANDSSEP */
	const char *timestamp; /* DATETIMEFORMAT */
	int float_precision, double_precision;
	bool escapes; /* reading: \n and the like in text mean what they mean when written */
};

/* Appends a cell (data = NULL: null). False: the bytes are no value of that type; what was appended is to be
 * thrown away. */
bool value_format(const struct value_style *s, const struct type *t, struct span cell, struct bytes *out);

/* Appends a cell as a literal of a CQL statement. */
bool value_format_literal(const struct type *t, struct span cell, struct bytes *out);

/* Appends text as it stands in a file: backslashes doubled, control characters escaped. */
void value_escape(struct span text, struct bytes *out);

/*
 * Appends a [bytes] for a field: its length and value, −1 for null. NULL, or what is wrong with it, a text of
 * ours without the value.
 */
const char *value_parse(const struct value_style *s, const struct type *t, struct span field,
			struct bytes *out);

/* Whether the field means null. */
bool value_is_null(const struct value_style *s, struct span field);
