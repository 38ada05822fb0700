// SPDX-License-Identifier: Apache-2.0
/* Values as text, see value.h. The recursion is as deep as the type, which type_parse() bounds. */
#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "copy/moment.h"
#include "copy/number.h"
#include "copy/value.h"

struct formatter {
	const struct value_style *style;
	int precision; /* of the column: elements have that of the outermost type */
	bool literal;  /* CQL instead of cqlsh's form: exact, nothing but quotes escaped */
	struct bytes *out;
};

static bool format_value(struct formatter *f, const struct type *t, struct span v, bool nested);

/* ------------------------------------------------------------- text */

static const char hex_digits[] = "0123456789abcdef";

/* What Python's repr() makes of a control character. */
static void put_escape(uint8_t c, struct bytes *out)
{
	uint8_t hex[4] = {'\\', 'x', (uint8_t)hex_digits[c >> 4], (uint8_t)hex_digits[c & 15]};

	if (c == '\n')
		bytes_text(out, "\\n");
	else if (c == '\r')
		bytes_text(out, "\\r");
	else if (c == '\t')
		bytes_text(out, "\\t");
	else
		bytes_put(out, hex, sizeof(hex));
}

/* `quote`: a character that is doubled, 0 = none. Escaped are a backslash and the code points 00–1F and
 * 7F–A0. */
static void put_text(struct span text, uint8_t quote, struct bytes *out)
{
	size_t from = 0;

	if (!bytes_room(out, text.size))
		return;
	for (size_t i = 0; i < text.size; i++) {
		uint8_t c = text.data[i];

		if (__builtin_expect(c >= 0x20 && c < 0x7f && c != '\\' && c != quote, 1))
			continue;
		/* C2 80 … C2 A0 are the code points 80 … A0. */
		bool control =
		    c == 0xc2 && i + 1 < text.size && text.data[i + 1] >= 0x80 && text.data[i + 1] <= 0xa0;

		if (c >= 0x80 && !control)
			continue;
		bytes_put(out, text.data + from, i - from);
		if (control)
			put_escape(text.data[++i], out);
		else if (c == '\\' || (quote && c == quote))
			bytes_put(out, (uint8_t[2]){c, c}, 2);
		else
			put_escape(c, out);
		from = i + 1;
	}
	bytes_put(out, text.data + from, text.size - from);
}

/* Text of a CQL literal: in it only quotes are special. */
static void put_literal(struct span text, uint8_t quote, struct bytes *out)
{
	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] == quote)
			bytes_u8(out, quote);
		bytes_u8(out, text.data[i]);
	}
}

void value_escape(struct span text, struct bytes *out)
{
	put_text(text, 0, out);
}

/* ------------------------------------------------------------- order */

/* Whether the order in which Python sorts such values differs from the server's. */
static bool sorts_differently(const struct type *t)
{
	if (t->kind == TYPE_UUID || t->kind == TYPE_TIMEUUID || t->kind == TYPE_INET)
		return true;
	for (unsigned i = 0; i < t->count; i++)
		if (sorts_differently(&t->parts[i]))
			return true;
	return false;
}

static void inet_text(struct span v, char text[INET6_ADDRSTRLEN])
{
	*text = 0;
	if (v.size == 4 || v.size == 16)
		inet_ntop(v.size == 4 ? AF_INET : AF_INET6, v.data, text, INET6_ADDRSTRLEN);
}

static int compare_bytes(struct span a, struct span b)
{
	size_t least = a.size < b.size ? a.size : b.size;
	int order = least ? memcmp(a.data, b.data, least) : 0;

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_values(const struct type *t, struct span a, struct span b);

static int compare_parts(const struct type *t, struct span a, struct span b)
{
	bool tuple = t->kind == TYPE_TUPLE || t->kind == TYPE_UDT;
	struct span x, y;

	if (!tuple && (!span_take(&a, 4, &x) || !span_take(&b, 4, &y)))
		return 0;
	for (unsigned i = 0; tuple ? i < t->count : true; i++) {
		if (!span_take_bytes(&a, &x) || !span_take_bytes(&b, &y))
			break;
		int order = compare_values(&t->parts[tuple ? i : 0], x, y);

		if (order)
			return order;
	}
	return (a.size > b.size) - (a.size < b.size);
}

static int compare_values(const struct type *t, struct span a, struct span b)
{
	char x[INET6_ADDRSTRLEN], y[INET6_ADDRSTRLEN];

	switch (t->kind) {
	case TYPE_INET:
		inet_text(a, x);
		inet_text(b, y);
		return strcmp(x, y);
	case TYPE_TINYINT:
	case TYPE_SMALLINT:
	case TYPE_INT:
	case TYPE_BIGINT:
	case TYPE_TIMESTAMP:
		if (a.size && a.size == b.size && (a.data[0] ^ b.data[0]) & 0x80)
			return a.data[0] & 0x80 ? -1 : 1;
		return compare_bytes(a, b);
	case TYPE_LIST:
	case TYPE_TUPLE:
	case TYPE_UDT:
		return compare_parts(t, a, b);
	default:
		return compare_bytes(a, b);
	}
}

struct entry {
	struct span key, value;
};

static int compare_entries(const void *a, const void *b, void *type)
{
	return compare_values(type, ((const struct entry *)a)->key, ((const struct entry *)b)->key);
}

/* ------------------------------------------------------------- collections */

static bool put_element(struct formatter *f, const struct type *t, struct span v)
{
	if (v.data == NULL)
		bytes_put(f->out, f->style->null_written.data, f->style->null_written.size);
	else
		return format_value(f, t, v, true);
	return true;
}

/* Elements of a list or set, or keys and values of a map. */
static bool format_collection(struct formatter *f, const struct type *t, struct span v)
{
	bool map = t->kind == TYPE_MAP, ok = true;
	struct entry small[16], *entries = small;
	struct span head;
	uint32_t count;

	if (!span_take(&v, 4, &head))
		return false;
	count = load_be32(head.data);
	if (count > v.size / (map ? 8 : 4))
		return false;
	if (count > 16) {
		entries = malloc(count * sizeof(*entries));
		if (!entries) {
			f->out->failed = true;
			return false;
		}
	}
	for (uint32_t i = 0; i < count && ok; i++)
		ok = span_take_bytes(&v, &entries[i].key) && (!map || span_take_bytes(&v, &entries[i].value));
	ok = ok && v.size == 0;
	if (ok && t->kind != TYPE_LIST && sorts_differently(&t->parts[0]))
		qsort_r(entries, count, sizeof(*entries), compare_entries, &t->parts[0]);
	bytes_u8(f->out, t->kind == TYPE_LIST ? '[' : '{');
	for (uint32_t i = 0; i < count && ok; i++) {
		if (i)
			bytes_text(f->out, ", ");
		ok = put_element(f, &t->parts[0], entries[i].key);
		if (map && ok) {
			bytes_text(f->out, ": ");
			ok = put_element(f, &t->parts[1], entries[i].value);
		}
	}
	bytes_u8(f->out, t->kind == TYPE_LIST ? ']' : '}');
	if (entries != small)
		free(entries);
	return ok;
}

/* Fields that the value ends before are null: the type has been given them later. */
static bool format_fields(struct formatter *f, const struct type *t, struct span v)
{
	bool user = t->kind == TYPE_UDT;

	bytes_u8(f->out, user ? '{' : '(');
	for (unsigned i = 0; i < t->count; i++) {
		struct span field = {0};

		if (v.size && !span_take_bytes(&v, &field))
			return false;
		if (i)
			bytes_text(f->out, ", ");
		if (user && f->literal) {
			bytes_u8(f->out, '"');
			put_literal(span_text(t->names[i]), '"', f->out);
			bytes_text(f->out, "\": ");
		} else if (user) {
			put_text(span_text(t->names[i]), 0, f->out);
			bytes_text(f->out, ": ");
		}
		if (!put_element(f, &t->parts[i], field))
			return false;
	}
	bytes_u8(f->out, user ? '}' : ')');
	return true;
}

static bool format_vector(struct formatter *f, const struct type *t, struct span v)
{
	unsigned fixed = type_fixed_size(&t->parts[0]);

	bytes_u8(f->out, '[');
	for (uint32_t i = 0; i < t->dimension; i++) {
		uint64_t size = fixed;
		struct span element;

		if ((!fixed && !moment_take_vint(&v, &size)) || !span_take(&v, size, &element))
			return false;
		if (i)
			bytes_text(f->out, ", ");
		if (!format_value(f, &t->parts[0], element, true))
			return false;
	}
	bytes_u8(f->out, ']');
	return v.size == 0;
}

/* ------------------------------------------------------------- single values */

static void put_uuid(const uint8_t *v, struct bytes *out)
{
	uint8_t *to = bytes_room(out, 36);

	if (!to)
		return;
	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = (uint8_t)hex_digits[v[i] >> 4];
		*to++ = (uint8_t)hex_digits[v[i] & 15];
	}
	out->size += 36;
}

static void put_blob(struct span v, struct bytes *out)
{
	uint8_t *to = bytes_room(out, 2 * v.size + 2);

	if (!to)
		return;
	*to++ = '0';
	*to++ = 'x';
	for (size_t i = 0; i < v.size; i++) {
		*to++ = (uint8_t)hex_digits[v.data[i] >> 4];
		*to++ = (uint8_t)hex_digits[v.data[i] & 15];
	}
	out->size += 2 * v.size + 2;
}

static bool format_integer(struct formatter *f, struct span v, size_t size)
{
	int64_t n;

	if (v.size != size)
		return false;
	n = size == 8	? (int64_t)load_be64(v.data)
	    : size == 4 ? (int32_t)load_be32(v.data)
	    : size == 2 ? (int16_t)load_be16(v.data)
			: (int8_t)v.data[0];
	number_format_int(n, f->style->group, f->out);
	return true;
}

static bool format_float(struct formatter *f, struct span v, size_t size)
{
	uint32_t narrow;
	uint64_t wide;
	double d;
	float s;

	if (v.size != size)
		return false;
	if (size == 4) {
		narrow = load_be32(v.data);
		memcpy(&s, &narrow, 4);
		d = s;
	} else {
		wide = load_be64(v.data);
		memcpy(&d, &wide, 8);
	}
	if (f->literal)
		number_format_exact(d, f->out);
	else
		number_format_float(d, f->precision, f->style->point, f->style->group, f->out);
	return true;
}

/* With other separators cqlsh writes a decimal as a floating point number. */
static bool format_decimal(struct formatter *f, struct span v)
{
	struct bytes text = {0};
	double d = 0;
	bool ok;

	if (!*f->style->group && !strcmp(f->style->point, "."))
		return number_format_decimal(v, f->out);
	ok = number_format_decimal(v, &text) && number_parse_float(bytes_span(&text), &d);
	bytes_done(&text);
	if (ok)
		number_format_float(d, f->precision, f->style->point, f->style->group, f->out);
	return ok;
}

static bool format_quoted(struct formatter *f, const struct type *t, struct span v, bool nested)
{
	char address[INET6_ADDRSTRLEN];

	if (nested)
		bytes_u8(f->out, '\'');
	switch (t->kind) {
	case TYPE_TIMESTAMP:
		if (v.size != 8)
			return false;
		moment_format_timestamp(f->style->timestamp, (int64_t)load_be64(v.data), f->out);
		break;
	case TYPE_INET:
		if (v.size != 4 && v.size != 16)
			return false;
		inet_text(v, address);
		bytes_text(f->out, address);
		break;
	default:
		if (f->literal)
			put_literal(v, '\'', f->out);
		else
			put_text(v, nested ? '\'' : 0, f->out);
	}
	if (nested)
		bytes_u8(f->out, '\'');
	return true;
}

/* The days of 1970 are 2^31 in a number that stands for a date in CQL, and 0 in a file. */
static void put_date(struct formatter *f, uint32_t raw)
{
	int64_t days = (int64_t)raw - ((int64_t)1 << 31);

	if (f->literal && !moment_has_date(days))
		number_format_int(raw, "", f->out);
	else
		moment_format_date(days, f->out);
}

/* A date or a time; cqlsh writes them without quotes in collections, too, where CQL wants them. */
static bool format_day(struct formatter *f, const struct type *t, struct span v)
{
	if (v.size != (t->kind == TYPE_DATE ? 4 : 8))
		return false;
	if (f->literal)
		bytes_u8(f->out, '\'');
	if (t->kind == TYPE_DATE)
		put_date(f, load_be32(v.data));
	else
		moment_format_time((int64_t)load_be64(v.data), f->out);
	if (f->literal)
		bytes_u8(f->out, '\'');
	return true;
}

static bool format_value(struct formatter *f, const struct type *t, struct span v, bool nested)
{
	size_t mark = f->out->size;

	/* "Empty" is a value of most types, from the days of Thrift. */
	if (v.size == 0 && t->kind != TYPE_VARCHAR && t->kind != TYPE_ASCII && t->kind != TYPE_BLOB) {
		if (!nested)
			bytes_put(f->out, f->style->null_written.data, f->style->null_written.size);
		return true;
	}
	switch (t->kind) {
	case TYPE_ASCII:
	case TYPE_VARCHAR:
	case TYPE_TIMESTAMP:
	case TYPE_INET:
		return format_quoted(f, t, v, nested);
	case TYPE_TINYINT:
		return format_integer(f, v, 1);
	case TYPE_SMALLINT:
		return format_integer(f, v, 2);
	case TYPE_INT:
		return format_integer(f, v, 4);
	case TYPE_BIGINT:
	case TYPE_COUNTER:
		return format_integer(f, v, 8);
	case TYPE_VARINT:
		return number_format_varint(v, f->style->group, f->out);
	case TYPE_DECIMAL:
		return format_decimal(f, v);
	case TYPE_FLOAT:
		return format_float(f, v, 4);
	case TYPE_DOUBLE:
		return format_float(f, v, 8);
	case TYPE_BOOLEAN:
		if (v.size != 1)
			return false;
		bytes_text(f->out, v.data[0] ? f->style->yes : f->style->no);
		return true;
	case TYPE_UUID:
	case TYPE_TIMEUUID:
		if (v.size != 16)
			return false;
		put_uuid(v.data, f->out);
		return true;
	case TYPE_DATE:
	case TYPE_TIME:
		return format_day(f, t, v);
	case TYPE_DURATION:
		if (!moment_format_duration(v, f->out))
			return false;
		if (f->out->size == mark) /* nothing at all would be read as null */
			bytes_text(f->out, "0ns");
		return true;
	case TYPE_LIST:
	case TYPE_SET:
	case TYPE_MAP:
		return format_collection(f, t, v);
	case TYPE_TUPLE:
	case TYPE_UDT:
		return format_fields(f, t, v);
	case TYPE_VECTOR:
		return format_vector(f, t, v);
	default:
		put_blob(v, f->out);
		return true;
	}
}

bool value_format(const struct value_style *s, const struct type *t, struct span cell, struct bytes *out)
{
	struct formatter f = {.style = s,
			      .precision = t->kind == TYPE_DOUBLE ? s->double_precision : s->float_precision,
			      .out = out};

	if (cell.data == NULL) {
		bytes_put(out, s->null_written.data, s->null_written.size);
		return true;
	}
	return format_value(&f, t, cell, false);
}

bool value_format_literal(const struct type *t, struct span cell, struct bytes *out)
{
	static const struct value_style style = {.null_written = {(const uint8_t *)"NULL", 4},
						 .yes = "true",
						 .no = "false",
						 .point = ".",
						 .group = "",
						 .timestamp = MOMENT_FORMAT};
	struct formatter f = {.style = &style, .literal = true, .out = out};

	if (cell.data == NULL) {
		bytes_text(out, "NULL");
		return true;
	}
	return format_value(&f, t, cell, true);
}
