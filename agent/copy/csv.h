/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comma-separated values as cqlsh reads and writes them: the rules of Python's csv module, with a line end of
 * CR LF.
 *
 *   QUOTE ≠ ESCAPE   a quote or escape character inside a field has the escape character before it
 *   QUOTE = ESCAPE   a quote inside a quoted field is doubled; nothing else is escaped
 *
 * Quotes stand only around fields that hold the delimiter or a line end, and around the empty field of a row
 * with one field. Reading is as lenient as Python within one line; csv_scan() tells of a record that spans
 * lines and is not well formed, so that a quote that somebody forgot to close does not swallow the rest of
 * the file.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "copy/bytes.h"

struct csv_dialect {
	uint8_t delimiter, quote, escape;
	bool special[256]; /* what csv_write() has to look at */
};

/* The three characters must not be line ends; delimiter and quote must differ. */
void csv_init(struct csv_dialect *d, uint8_t delimiter, uint8_t quote, uint8_t escape);

enum { CSV_MORE = 0, CSV_RECORD = 1 };

struct csv_record {
	size_t size;	   /* of the whole record, its line end included */
	size_t first_line; /* of its first line, line end included */
	unsigned fields;
	unsigned lines; /* line ends inside quotes, and its own */
	bool open;	/* a quote is not closed up to the end of the input */
	bool loose;	/* something stands behind a closing quote */
};

/*
 * Finds the end of the record that begins at `data`. CSV_RECORD; or CSV_MORE when the bytes end before it
 * does, unless they are the `last` ones. An empty line is a record with one empty field and the size of its
 * line end.
 */
int csv_scan(const struct csv_dialect *d, const uint8_t *data, size_t size, bool last,
	     struct csv_record *ret);

/*
 * Splits one record (of csv_scan(), with or without its line end) into fields, unescaping in place. Returns
 * their number; no more than `room` are given.
 */
unsigned csv_split(const struct csv_dialect *d, uint8_t *record, size_t size, struct span *fields,
		   unsigned room);

/* Turns the field that was appended to `out` at `from` into what a file holds. */
void csv_write(const struct csv_dialect *d, struct bytes *out, size_t from);
