// SPDX-License-Identifier: Apache-2.0
#include "copy/number.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define BILLION 1000000000u

static const char pairs[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* Digits of `v` to the left of `end`; where they begin. */
static char *digits_before(char *end, uint64_t v)
{
	while (v >= 100) {
		unsigned two = (unsigned)(v % 100);

		v /= 100;
		end -= 2;
		memcpy(end, pairs + 2 * two, 2);
	}
	if (v >= 10) {
		end -= 2;
		memcpy(end, pairs + 2 * v, 2);
	} else {
		*--end = (char)('0' + v);
	}
	return end;
}

/* Digits with `group` between groups of three. */
static void put_grouped(const char *digits, size_t size, const char *group, struct bytes *out)
{
	size_t first = *group ? (size % 3 ? size % 3 : 3) : size;

	if (first > size)
		first = size;
	bytes_put(out, digits, first);
	for (size_t at = first; at < size; at += 3) {
		bytes_text(out, group);
		bytes_put(out, digits + at, 3);
	}
}

void number_format_int(int64_t v, const char *group, struct bytes *out)
{
	char text[24], *end = text + sizeof(text);
	char *at = digits_before(end, v < 0 ? -(uint64_t)v : (uint64_t)v);

	if (v < 0)
		bytes_u8(out, '-');
	put_grouped(at, (size_t)(end - at), group, out);
}

/* ------------------------------------------------------------- integers of any size */

/* The magnitude of two's complement as words of 32 bits, least first. NULL: out of memory. */
static uint32_t *words_of(struct span v, bool negative, size_t *ret_count)
{
	size_t count = (v.size + 3) / 4;
	uint32_t *words = calloc(count + 1, sizeof(*words));
	uint64_t carry = negative;

	for (size_t i = 0; words && i < count; i++) {
		uint32_t w = 0;

		for (size_t k = 0; k < 4; k++) {
			size_t at = 4 * i + k;
			uint8_t b = at < v.size ? v.data[v.size - 1 - at] : negative ? 0xff : 0;

			w |= (uint32_t)b << (8 * k);
		}
		if (negative) {
			carry += (uint32_t)~w;
			w = (uint32_t)carry;
			carry >>= 32;
		}
		words[i] = w;
	}
	*ret_count = count;
	return words;
}

/* All decimal digits of the magnitude, malloc'ed; NULL: out of memory. */
static char *magnitude_digits(struct span v, bool negative, size_t *ret_size)
{
	size_t count, room = v.size * 5 / 2 + 16;
	uint32_t *words = words_of(v, negative, &count);
	char *text = malloc(room), *end = text + room, *at = end;

	if (!words || !text) {
		free(words);
		free(text);
		return NULL;
	}
	while (count) {
		uint64_t rest = 0;

		for (size_t i = count; i-- > 0;) {
			rest = rest << 32 | words[i];
			words[i] = (uint32_t)(rest / BILLION);
			rest %= BILLION;
		}
		while (count && !words[count - 1])
			count--;
		char *from = digits_before(at, rest);

		if (count)
			while (at - from < 9)
				*--from = '0';
		at = from;
	}
	if (at == end)
		*--at = '0';
	*ret_size = (size_t)(end - at);
	memmove(text, at, *ret_size);
	free(words);
	return text;
}

bool number_format_varint(struct span v, const char *group, struct bytes *out)
{
	bool negative = v.size && v.data[0] & 0x80;
	uint64_t small = negative ? UINT64_MAX : 0;
	size_t size;
	char *text;

	if (v.size == 0 || v.size > NUMBER_BYTES_MAX)
		return false;
	if (v.size <= 8) {
		for (size_t i = 0; i < v.size; i++)
			small = small << 8 | v.data[i];
		number_format_int((int64_t)small, group, out);
		return true;
	}
	text = magnitude_digits(v, negative, &size);
	if (!text) {
		out->failed = true;
		return false;
	}
	if (negative)
		bytes_u8(out, '-');
	put_grouped(text, size, group, out);
	free(text);
	return true;
}

/*
 * The digits with the point where the scale says, or, where that would need many zeros, in scientific
 * notation with one digit before the point: the rule of the General Decimal Arithmetic specification
 * ("to-scientific-string").
 */
bool number_format_decimal(struct span v, struct bytes *out)
{
	struct bytes digits = {0};
	const char *d;
	int64_t exponent, size, left, point;
	bool ok = v.size > 4 && number_format_varint(span_of(v.data + 4, v.size - 4), "", &digits);

	if (!ok) {
		bytes_done(&digits);
		return false;
	}
	exponent = -(int64_t)(int32_t)load_be32(v.data);
	d = (const char *)digits.data;
	size = (int64_t)digits.size;
	if (*d == '-') {
		bytes_u8(out, '-');
		d++;
		size--;
	}
	left = exponent + size; /* digits before the point */
	point = exponent <= 0 && left > -6 ? left : 1;
	if (point <= 0) {
		bytes_text(out, "0.");
		for (int64_t i = point; i < 0; i++)
			bytes_u8(out, '0');
		bytes_put(out, d, (size_t)size);
	} else {
		bytes_put(out, d, (size_t)(point < size ? point : size));
		if (point < size) {
			bytes_u8(out, '.');
			bytes_put(out, d + point, (size_t)(size - point));
		}
	}
	if (left != point) {
		char text[24];

		bytes_put(out, text,
			  (size_t)snprintf(text, sizeof(text), "E%+lld", (long long)(left - point)));
	}
	bytes_done(&digits);
	return true;
}

/* Text of printf with its '.' replaced. */
static void put_with_point(const char *text, const char *point, struct bytes *out)
{
	const char *dot = strchr(text, '.');

	if (!dot || !strcmp(point, ".")) {
		bytes_text(out, text);
		return;
	}
	bytes_put(out, text, (size_t)(dot - text));
	bytes_text(out, point);
	bytes_text(out, dot + 1);
}

static void format_grouped(double v, int precision, const char *point, const char *group, struct bytes *out)
{
	char text[352];
	double whole, part = modf(v, &whole);
	size_t end;

	snprintf(text, sizeof(text), "%.0f", whole);
	const char *digits = text + (*text == '-');

	if (*text == '-')
		bytes_u8(out, '-');
	put_grouped(digits, strlen(digits), group, out);
	snprintf(text, sizeof(text), "%.*f", precision, fabs(part));
	for (end = strlen(text); end > 2 && text[end - 1] == '0'; end--)
		;
	if (end > 2) {
		bytes_text(out, point);
		bytes_put(out, text + 2, end - 2);
	}
}

void number_format_float(double v, int precision, const char *point, const char *group, struct bytes *out)
{
	char text[384];

	if (isnan(v)) {
		bytes_text(out, "NaN");
		return;
	}
	if (isinf(v)) {
		bytes_text(out, v > 0 ? "Infinity" : "-Infinity");
		return;
	}
	if (precision > 300)
		precision = 300; /* beyond it a double has no digits */
	if (*group) {
		format_grouped(v, precision, point, group, out);
		return;
	}
	/* Where %g would not use an exponent, the digits before the point come on top. */
	if (fabs(v) > DBL_EPSILON) {
		int exponent = (int)log10(fabs(v));

		if (exponent >= -4 && exponent < precision)
			precision += exponent + 1;
	}
	snprintf(text, sizeof(text), "%.*g", precision, v);
	put_with_point(text, point, out);
}

void number_format_exact(double v, struct bytes *out)
{
	char text[40];

	if (isnan(v) || isinf(v)) {
		bytes_text(out, isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
		return;
	}
	snprintf(text, sizeof(text), "%.17g", v);
	bytes_text(out, text);
}

/* ------------------------------------------------------------- reading */

static bool take_sign(struct span *text)
{
	bool negative = text->size && text->data[0] == '-';

	if (text->size && (text->data[0] == '-' || text->data[0] == '+')) {
		text->data++;
		text->size--;
	}
	return negative;
}

bool number_parse_int(struct span text, int64_t *ret)
{
	bool negative = take_sign(&text);
	uint64_t v = 0, limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

	if (text.size == 0)
		return false;
	for (size_t i = 0; i < text.size; i++) {
		unsigned digit = (unsigned)text.data[i] - '0';

		if (digit > 9 || v > (limit - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = (int64_t)(negative ? -v : v);
	return true;
}

/* The shortest two's complement of ±v. */
static void put_small(uint64_t v, bool negative, struct bytes *out)
{
	uint8_t raw[9] = {0};
	size_t from = 0;

	store_be64(raw + 1, v);
	if (negative) {
		store_be64(raw + 1, -v);
		raw[0] = v ? 0xff : 0;
	}
	while (from < 8 &&
	       ((raw[from] == 0 && !(raw[from + 1] & 0x80)) || (raw[from] == 0xff && raw[from + 1] & 0x80)))
		from++;
	bytes_put(out, raw + from, 9 - from);
}

static void put_large(const uint32_t *words, size_t count, bool negative, struct bytes *out)
{
	size_t size = count * 4 + 1, from = 0;
	uint8_t *raw = bytes_room(out, size);
	unsigned carry = negative;

	if (!raw)
		return;
	raw[0] = 0;
	for (size_t i = 0; i < count; i++)
		store_be32(raw + size - 4 * (i + 1), words[i]);
	for (size_t i = size; negative && i-- > 0;) {
		carry += (uint8_t)~raw[i];
		raw[i] = (uint8_t)carry;
		carry >>= 8;
	}
	while (from + 1 < size &&
	       ((raw[from] == 0 && !(raw[from + 1] & 0x80)) || (raw[from] == 0xff && raw[from + 1] & 0x80)))
		from++;
	memmove(raw, raw + from, size - from);
	out->size += size - from;
}

/* Digits, all of which have been checked. */
static bool put_digits(struct span digits, bool negative, struct bytes *out)
{
	uint64_t small = 0;
	uint32_t *words;
	size_t count = 0;

	while (digits.size > 1 && digits.data[0] == '0') {
		digits.data++;
		digits.size--;
	}
	if (digits.size <= 18) {
		for (size_t i = 0; i < digits.size; i++)
			small = small * 10 + digits.data[i] - '0';
		put_small(small, negative, out);
		return true;
	}
	if (digits.size > NUMBER_BYTES_MAX * 12 / 5)
		return false;
	words = calloc(digits.size / 9 + 2, sizeof(*words));
	if (!words) {
		out->failed = true;
		return false;
	}
	for (size_t at = 0; at < digits.size;) {
		size_t part = (digits.size - at) % 9 ? (digits.size - at) % 9 : 9;
		uint64_t carry = 0, scale = 1;

		for (size_t i = 0; i < part; i++, scale *= 10)
			carry = carry * 10 + digits.data[at + i] - '0';
		for (size_t i = 0; i < count; i++) {
			carry += words[i] * scale;
			words[i] = (uint32_t)carry;
			carry >>= 32;
		}
		if (carry)
			words[count++] = (uint32_t)carry;
		at += part;
	}
	put_large(words, count, negative, out);
	free(words);
	return true;
}

static bool all_digits(struct span text)
{
	for (size_t i = 0; i < text.size; i++)
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
	return text.size > 0;
}

bool number_parse_varint(struct span text, struct bytes *out)
{
	bool negative = take_sign(&text);

	return all_digits(text) && put_digits(text, negative, out);
}

bool number_parse_decimal(struct span text, struct bytes *out)
{
	const uint8_t *e = text.size ? memchr(text.data, 'e', text.size) : NULL, *dot;
	bool negative, ok;
	struct bytes digits = {0};
	int64_t exponent = 0, scale;

	if (!e && text.size)
		e = memchr(text.data, 'E', text.size);
	if (e) {
		if (!number_parse_int(span_of(e + 1, (size_t)(text.data + text.size - e - 1)), &exponent))
			return false;
		text.size = (size_t)(e - text.data);
	}
	negative = take_sign(&text);
	dot = text.size ? memchr(text.data, '.', text.size) : NULL;
	if (dot) {
		bytes_put(&digits, text.data, (size_t)(dot - text.data));
		bytes_put(&digits, dot + 1, (size_t)(text.data + text.size - dot - 1));
	} else {
		bytes_put(&digits, text.data, text.size);
	}
	scale = (dot ? text.data + text.size - dot - 1 : 0) -
		(exponent > INT32_MAX || exponent < INT32_MIN ? INT64_MAX / 2 : exponent);
	ok = scale <= INT32_MAX && scale >= INT32_MIN && all_digits(bytes_span(&digits));
	if (ok) {
		bytes_u32(out, (uint32_t)scale);
		ok = put_digits(bytes_span(&digits), negative, out);
	}
	bytes_done(&digits);
	return ok;
}

bool number_parse_float(struct span text, double *ret)
{
	static const char *const words[] = {"nan", "inf", "infinity"};
	char copy[512], *end;
	size_t sign = text.size && (text.data[0] == '-' || text.data[0] == '+');

	if (text.size == 0 || text.size >= sizeof(copy))
		return false;
	memcpy(copy, text.data, text.size);
	copy[text.size] = 0;
	for (size_t i = 0; i < 3; i++)
		if (!strcasecmp(copy + sign, words[i])) {
			*ret = i == 0 ? NAN : copy[0] == '-' ? -INFINITY : INFINITY;
			return true;
		}
	/* What strtod() takes beyond decimal numbers (hexadecimal, "nan(…)") is not for files. */
	if (copy[strspn(copy, "0123456789+-.eE")])
		return false;
	*ret = strtod(copy, &end);
	return end == copy + text.size;
}
