// SPDX-License-Identifier: Apache-2.0
/* Input: delimiter, quote, escape, then a file. */
#include <stdlib.h>
#include <string.h>

#include "copy/csv.h"
#include "fuzz/holds.h"

#define FIELDS 64

/* Fields that are written and read again are the same fields. */
static void check_again(const struct csv_dialect *d, const struct span *fields, unsigned count)
{
	struct span again[FIELDS];
	struct bytes out = {0};
	struct csv_record r;

	for (unsigned i = 0; i < count; i++) {
		size_t from;

		if (i)
			bytes_u8(&out, d->delimiter);
		from = out.size;
		bytes_put(&out, fields[i].data, fields[i].size);
		csv_write(d, &out, from);
	}
	bytes_text(&out, "\r\n");
	HOLDS(csv_scan(d, out.data, out.size, false, &r) == CSV_RECORD && r.size == out.size && !r.open &&
	      !r.loose);
	HOLDS(csv_split(d, out.data, r.size, again, FIELDS) == count && r.fields == count);
	for (unsigned i = 0; i < count; i++)
		HOLDS(span_equal(fields[i], again[i]));
	bytes_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csv_dialect d;
	uint8_t *copy;

	if (size < 3 || data[0] == data[1] || data[0] == data[2] || memchr(data, '\n', 3) ||
	    memchr(data, '\r', 3))
		return 0;
	csv_init(&d, data[0], data[1], data[2]);
	data += 3;
	size -= 3;
	copy = malloc(size ? size : 1);
	HOLDS(copy);
	for (size_t at = 0; at < size;) {
		struct span fields[FIELDS];
		struct csv_record r;
		unsigned count;

		HOLDS(csv_scan(&d, data + at, size - at, true, &r) == CSV_RECORD);
		HOLDS(r.size > 0 && r.size <= size - at && r.first_line > 0 && r.first_line <= r.size &&
		      r.lines > 0);
		memcpy(copy, data + at, r.size);
		count = csv_split(&d, copy, r.size, fields, FIELDS);
		/* A quote that is open takes the line end at the end of the file as its own. */
		HOLDS(count == r.fields || r.open);
		if (count <= FIELDS)
			check_again(&d, fields, count);
		at += r.size;
	}
	free(copy);
	return 0;
}
