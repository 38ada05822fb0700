// SPDX-License-Identifier: Apache-2.0
#include "copy/csv.h"

void csv_init(struct csv_dialect *d, uint8_t delimiter, uint8_t quote, uint8_t escape)
{
	*d = (struct csv_dialect){.delimiter = delimiter, .quote = quote, .escape = escape};
	d->special[delimiter] = d->special[quote] = d->special[escape] = d->special['\r'] = d->special['\n'] =
	    true;
}

/* Where a record is while it is read. */
enum place { FIELD_START, PLAIN, QUOTED, BEHIND_QUOTE };

/* The size of the line end at `at`: 1 or 2; 0 when that is known only with the next byte. */
static size_t line_end(const uint8_t *data, size_t at, size_t size, bool last)
{
	if (data[at] == '\n')
		return 1;
	if (at + 1 < size)
		return data[at + 1] == '\n' ? 2 : 1;
	return last;
}

int csv_scan(const struct csv_dialect *d, const uint8_t *data, size_t size, bool last, struct csv_record *ret)
{
	struct csv_record r = {.fields = 1};
	enum place place = FIELD_START;
	bool doubled = d->quote == d->escape;
	size_t at = 0;

	while (at < size) {
		uint8_t c = data[at];

		if (!d->special[c]) {
			if (place == BEHIND_QUOTE) {
				r.loose = true;
				place = PLAIN;
			} else if (place == FIELD_START) {
				place = PLAIN;
			}
			at++;
		} else if (c == d->escape && !doubled && place != BEHIND_QUOTE) {
			if (at + 1 == size && !last)
				return CSV_MORE;
			if (at + 1 < size && (data[at + 1] == '\n' || data[at + 1] == '\r')) {
				r.lines++;
				if (!r.first_line)
					r.first_line = at + 2;
			}
			at += 2;
			if (place == FIELD_START)
				place = PLAIN;
		} else if (c == d->quote) {
			if (place == FIELD_START) {
				place = QUOTED;
			} else if (place == QUOTED) {
				place = BEHIND_QUOTE;
			} else if (place == BEHIND_QUOTE) {
				if (doubled) {
					place = QUOTED;
				} else {
					r.loose = true;
					place = PLAIN;
				}
			}
			at++;
		} else if (c == '\n' || c == '\r') {
			size_t end = line_end(data, at, size, last);

			if (end == 0)
				return CSV_MORE;
			at += end;
			r.lines++;
			if (!r.first_line)
				r.first_line = at;
			if (place != QUOTED) {
				r.size = at;
				*ret = r;
				return CSV_RECORD;
			}
		} else if (c == d->delimiter) {
			if (place != QUOTED) {
				r.fields++;
				place = FIELD_START;
			}
			at++;
		} else { /* the escape character behind a closing quote */
			r.loose = true;
			place = PLAIN;
		}
	}
	if (!last || size == 0)
		return CSV_MORE;
	r.open = place == QUOTED;
	r.lines++;
	r.size = size;
	if (!r.first_line)
		r.first_line = size;
	*ret = r;
	return CSV_RECORD;
}

unsigned csv_split(const struct csv_dialect *d, uint8_t *record, size_t size, struct span *fields,
		   unsigned room)
{
	bool doubled = d->quote == d->escape;
	enum place place = FIELD_START;
	uint8_t *to = record, *begin = record;
	unsigned count = 0;

	if (size && record[size - 1] == '\n')
		size--;
	if (size && record[size - 1] == '\r')
		size--;
	for (size_t at = 0; at < size; at++) {
		uint8_t c = record[at];

		if (!d->special[c]) {
			if (place == FIELD_START || place == BEHIND_QUOTE)
				place = PLAIN;
			*to++ = c;
		} else if (c == d->escape && !doubled && place != BEHIND_QUOTE) {
			if (at + 1 < size)
				at++;
			*to++ = record[at];
			if (place == FIELD_START)
				place = PLAIN;
		} else if (c == d->quote) {
			if (place == FIELD_START) {
				place = QUOTED;
			} else if (place == QUOTED) {
				place = BEHIND_QUOTE;
			} else {
				*to++ = c;
				place = place == BEHIND_QUOTE && doubled ? QUOTED : PLAIN;
			}
		} else if (c == d->delimiter && place != QUOTED) {
			if (count < room)
				fields[count] = span_of(begin, (size_t)(to - begin));
			count++;
			begin = to;
			place = FIELD_START;
		} else {
			if (place == BEHIND_QUOTE) {
				place = PLAIN;
				if (c == d->escape && at + 1 < size)
					c = record[++at];
			}
			*to++ = c;
		}
	}
	if (count < room)
		fields[count] = span_of(begin, (size_t)(to - begin));
	return count + 1;
}

void csv_write(const struct csv_dialect *d, struct bytes *out, size_t from)
{
	bool quoted = false, doubled = d->quote == d->escape;
	size_t escapes = 0, size = out->size - from, added;
	uint8_t *data, *end, *to;

	for (size_t i = from; i < out->size; i++) {
		uint8_t c = out->data[i];

		if (__builtin_expect(!d->special[c], 1))
			continue;
		if (c == d->quote || c == d->escape) {
			escapes++;
			quoted |= doubled;
		} else {
			quoted = true;
		}
	}
	added = escapes + (quoted ? 2 : 0);
	if (added == 0 || !bytes_room(out, added))
		return;
	data = out->data + from;
	end = data + size;
	to = end + added;
	out->size += added;
	if (quoted)
		*--to = d->quote;
	while (end > data) {
		uint8_t c = *--end;

		*--to = c;
		if (c == d->quote || c == d->escape)
			*--to = d->escape;
	}
	if (quoted)
		*--to = d->quote;
}
