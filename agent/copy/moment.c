// SPDX-License-Identifier: Apache-2.0
#include "copy/moment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "copy/number.h"

#define DAY_MS 86400000
#define DAY_NS (86400ull * 1000000000ull)

/* ------------------------------------------------------------- the calendar (proleptic Gregorian) */

struct civil {
	int64_t year;
	unsigned month, day;
};

/* By years that begin in March, so that the leap day is the last one; eras of 400 years repeat. */
static struct civil civil_of(int64_t days)
{
	int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	unsigned doe = (unsigned)(shifted - era * 146097);
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	unsigned month = mp < 10 ? mp + 3 : mp - 9;

	return (struct civil){.year = (int64_t)yoe + era * 400 + (month <= 2),
			      .month = month,
			      .day = doy - (153 * mp + 2) / 5 + 1};
}

static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
	int64_t y = month <= 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400;
	unsigned yoe = (unsigned)(y - era * 400);
	unsigned doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static bool date_exists(int64_t year, unsigned month, unsigned day)
{
	if (month < 1 || month > 12 || day < 1)
		return false;
	struct civil c = civil_of(days_of(year, month, day));

	return c.year == year && c.month == month && c.day == day;
}

static void put_padded(uint64_t v, unsigned width, struct bytes *out)
{
	uint8_t *to = bytes_room(out, width);

	if (!to)
		return;
	for (unsigned i = width; i-- > 0; v /= 10)
		to[i] = (uint8_t)('0' + v % 10);
	out->size += width;
}

/* ------------------------------------------------------------- timestamps */

static void put_clock(unsigned seconds, struct bytes *out)
{
	put_padded(seconds / 3600, 2, out);
	bytes_u8(out, ':');
	put_padded(seconds / 60 % 60, 2, out);
	bytes_u8(out, ':');
	put_padded(seconds % 60, 2, out);
}

/* One directive, or plain text, of at most a few characters: whatever the C library makes of it. */
static void put_directive(const char *directive, const struct tm *tm, struct bytes *out)
{
	char text[128];
	size_t n = strftime(text, sizeof(text), directive, tm);

	bytes_put(out, text, n);
}

static void format_freely(const char *format, const struct tm *tm, unsigned ms, struct bytes *out)
{
	for (const char *at = format; *at; at++) {
		char directive[4] = {*at, at[1], 0, 0};

		if (*at != '%' || !at[1]) {
			bytes_u8(out, (uint8_t)*at);
			continue;
		}
		at++;
		if (*at == 'f') {
			bool point = out->size && out->data[out->size - 1] == '.';

			put_padded(point ? ms : ms * 1000ull, point ? 3 : 6, out);
		} else if (*at == 'z') {
			bytes_text(out, "+0000");
		} else if (*at == 'Z') {
			bytes_text(out, "UTC");
		} else {
			if ((*at == '-' || *at == '_' || *at == 'E' || *at == 'O') && at[1])
				directive[2] = *++at;
			put_directive(directive, tm, out);
		}
	}
}

void moment_format_timestamp(const char *format, int64_t ms, struct bytes *out)
{
	int64_t days = ms / DAY_MS - (ms % DAY_MS < 0);
	unsigned rest;
	struct civil c;
	struct tm tm;

	if (days < days_of(1, 1, 1) || days > days_of(9999, 12, 31)) {
		number_format_int(ms, "", out);
		return;
	}
	rest = (unsigned)(ms - days * DAY_MS);
	c = civil_of(days);
	if (!strcmp(format, MOMENT_FORMAT) && c.year >= 1000) {
		put_padded((uint64_t)c.year, 4, out);
		bytes_u8(out, '-');
		put_padded(c.month, 2, out);
		bytes_u8(out, '-');
		put_padded(c.day, 2, out);
		bytes_u8(out, ' ');
		put_clock(rest / 1000, out);
		bytes_u8(out, '.');
		put_padded(rest % 1000, 3, out);
		bytes_text(out, "+0000");
		return;
	}
	tm = (struct tm){.tm_year = (int)c.year - 1900,
			 .tm_mon = (int)c.month - 1,
			 .tm_mday = (int)c.day,
			 .tm_hour = (int)(rest / 3600000),
			 .tm_min = (int)(rest / 60000 % 60),
			 .tm_sec = (int)(rest / 1000 % 60),
			 .tm_wday = (int)((days % 7 + 11) % 7),
			 .tm_yday = (int)(days - days_of(c.year, 1, 1)),
			 .tm_zone = "UTC"};
	format_freely(format, &tm, rest % 1000, out);
}

struct scanner {
	const char *at;
	bool failed;
};

#define SCANNED_MAX 32 /* no date or time of day is as long */

static bool scan_begin(struct scanner *s, struct span text, char copy[SCANNED_MAX])
{
	*s = (struct scanner){.at = copy};
	if (text.size == 0 || text.size >= SCANNED_MAX || memchr(text.data, 0, text.size))
		return false;
	memcpy(copy, text.data, text.size);
	copy[text.size] = 0;
	return true;
}

/* Between `least` and `most` digits. */
static unsigned scan_digits(struct scanner *s, unsigned least, unsigned most, unsigned *ret_count)
{
	unsigned v = 0, n = 0;

	for (; n < most && *s->at >= '0' && *s->at <= '9'; n++)
		v = v * 10 + (unsigned)(*s->at++ - '0');
	if (n < least)
		s->failed = true;
	if (ret_count)
		*ret_count = n;
	return v;
}

static bool scan_char(struct scanner *s, char c)
{
	if (*s->at != c)
		return false;
	s->at++;
	return true;
}

static void scan_expect(struct scanner *s, char c)
{
	if (!scan_char(s, c))
		s->failed = true;
}

/* A fraction of `digits` at most, as a number of that many digits. */
static unsigned scan_fraction(struct scanner *s, unsigned digits)
{
	unsigned n, v = scan_digits(s, 1, digits, &n);

	for (; n < digits; n++)
		v *= 10;
	return v;
}

/* Seconds east of Greenwich of Z, ±HHMM, ±HH:MM; false where no zone stands. */
static bool scan_zone(struct scanner *s, int *ret)
{
	bool west = *s->at == '-';
	unsigned hours, minutes;

	if (scan_char(s, 'Z') || scan_char(s, 'z')) {
		*ret = 0;
		return true;
	}
	if (!scan_char(s, '+') && !scan_char(s, '-'))
		return false;
	hours = scan_digits(s, 2, 2, NULL);
	scan_char(s, ':');
	minutes = scan_digits(s, 2, 2, NULL);
	*ret = (int)(hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return true;
}

/* YYYY-MM-DD[( |T)HH:MM[:SS[.ffffff]]][zone] */
static bool parse_common(const char *text, int64_t *ret)
{
	struct scanner s = {.at = text};
	unsigned year, month, day, hour = 0, minute = 0, second = 0, micros = 0;
	bool blank, zoned;
	int zone = 0;

	year = scan_digits(&s, 1, 4, NULL); /* strftime does not pad it */
	scan_expect(&s, '-');
	month = scan_digits(&s, 2, 2, NULL);
	scan_expect(&s, '-');
	day = scan_digits(&s, 2, 2, NULL);
	blank = scan_char(&s, ' ') || scan_char(&s, 'T') || scan_char(&s, 't');
	if (!s.failed && blank && *s.at >= '0' && *s.at <= '9') {
		hour = scan_digits(&s, 2, 2, NULL);
		scan_expect(&s, ':');
		minute = scan_digits(&s, 2, 2, NULL);
		if (scan_char(&s, ':')) {
			second = scan_digits(&s, 2, 2, NULL);
			if (scan_char(&s, '.'))
				micros = scan_fraction(&s, 6);
		}
	}
	zoned = !s.failed && scan_zone(&s, &zone);
	if (s.failed || *s.at || !date_exists(year, month, day) || hour > 23 || minute > 59 || second > 59)
		return false;
	if (!zoned) {
		struct tm tm = {.tm_year = (int)year - 1900,
				.tm_mon = (int)month - 1,
				.tm_mday = (int)day,
				.tm_hour = (int)hour,
				.tm_min = (int)minute,
				.tm_sec = (int)second,
				.tm_isdst = -1};

		*ret = (int64_t)mktime(&tm) * 1000 + micros / 1000;
		return true;
	}
	*ret = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60000 + second * 1000 +
	       micros / 1000 - (int64_t)zone * 1000;
	return true;
}

/* By the format: pieces without %f and %z go to the C library. */
static bool parse_by_format(const char *format, const char *text, int64_t *ret)
{
	struct tm tm = {.tm_year = 0, .tm_mday = 1, .tm_isdst = -1};
	struct scanner s = {.at = text};
	unsigned micros = 0;
	bool zoned = false;
	int zone = 0;

	while (*format && !s.failed) {
		char piece[128];
		size_t n = 0;

		while (*format &&
		       !(format[0] == '%' && (format[1] == 'f' || format[1] == 'z' || format[1] == 'Z'))) {
			if (n + 2 >= sizeof(piece))
				return false;
			if (*format == '%' && format[1])
				piece[n++] = *format++;
			piece[n++] = *format++;
		}
		piece[n] = 0;
		if (n) {
			s.at = strptime(s.at, piece, &tm);
			if (!s.at)
				return false;
		}
		if (!*format)
			break;
		if (format[1] == 'f') {
			micros = scan_fraction(&s, 6);
		} else if (format[1] == 'z') {
			zoned = scan_zone(&s, &zone);
			s.failed |= !zoned;
		} else if (!strncmp(s.at, "UTC", 3) || !strncmp(s.at, "GMT", 3)) {
			s.at += 3;
			zoned = true;
		} else {
			s.failed = true;
		}
		format += 2;
	}
	if (s.failed || *s.at ||
	    !date_exists(tm.tm_year + 1900, (unsigned)tm.tm_mon + 1, (unsigned)tm.tm_mday))
		return false;
	if (!zoned)
		*ret = (int64_t)mktime(&tm) * 1000 + micros / 1000;
	else
		*ret = days_of(tm.tm_year + 1900, (unsigned)tm.tm_mon + 1, (unsigned)tm.tm_mday) * DAY_MS +
		       ((tm.tm_hour * 60 + tm.tm_min) * 60 + tm.tm_sec - zone) * 1000ll + micros / 1000;
	return true;
}

bool moment_parse_timestamp(const char *format, struct span text, int64_t *ret)
{
	char copy[256];

	if (text.size == 0 || text.size >= sizeof(copy) || memchr(text.data, 0, text.size))
		return false;
	memcpy(copy, text.data, text.size);
	copy[text.size] = 0;
	if (strcmp(format, MOMENT_FORMAT) != 0 && parse_by_format(format, copy, ret))
		return true;
	return parse_common(copy, ret) || number_parse_int(text, ret);
}

/* ------------------------------------------------------------- dates and times */

bool moment_has_date(int64_t days)
{
	return days >= days_of(1, 1, 1) && days <= days_of(9999, 12, 31);
}

void moment_format_date(int64_t days, struct bytes *out)
{
	struct civil c;

	if (!moment_has_date(days)) {
		number_format_int(days, "", out);
		return;
	}
	c = civil_of(days);
	put_padded((uint64_t)c.year, 4, out);
	bytes_u8(out, '-');
	put_padded(c.month, 2, out);
	bytes_u8(out, '-');
	put_padded(c.day, 2, out);
}

bool moment_parse_date(struct span text, int64_t *ret)
{
	char copy[SCANNED_MAX];
	struct scanner s;
	unsigned year, month, day;

	if (!scan_begin(&s, text, copy))
		return false;
	year = scan_digits(&s, 4, 4, NULL);
	scan_expect(&s, '-');
	month = scan_digits(&s, 1, 2, NULL);
	scan_expect(&s, '-');
	day = scan_digits(&s, 1, 2, NULL);
	if (!s.failed && !*s.at && date_exists(year, month, day)) {
		*ret = days_of(year, month, day);
		return true;
	}
	return number_parse_int(text, ret) && *ret >= INT32_MIN && *ret <= INT32_MAX;
}

void moment_format_time(int64_t ns, struct bytes *out)
{
	uint64_t t = (uint64_t)ns % DAY_NS;

	put_clock((unsigned)(t / 1000000000u), out);
	bytes_u8(out, '.');
	put_padded(t % 1000000000u, 9, out);
}

bool moment_parse_time(struct span text, int64_t *ret)
{
	char copy[SCANNED_MAX];
	struct scanner s;
	unsigned hour, minute, second, nanos = 0;

	if (!scan_begin(&s, text, copy))
		return false;
	hour = scan_digits(&s, 1, 2, NULL);
	scan_expect(&s, ':');
	minute = scan_digits(&s, 1, 2, NULL);
	scan_expect(&s, ':');
	second = scan_digits(&s, 1, 2, NULL);
	if (!s.failed && scan_char(&s, '.'))
		nanos = scan_fraction(&s, 9);
	if (s.failed || *s.at || hour > 23 || minute > 59 || second > 59)
		return false;
	*ret = ((int64_t)hour * 3600 + minute * 60 + second) * 1000000000 + nanos;
	return true;
}

/* ------------------------------------------------------------- durations */

/* The ones at the front of the first byte count the bytes that follow; the highest come first. */
bool moment_take_vint(struct span *from, uint64_t *ret)
{
	struct span head, rest;
	unsigned more;
	uint64_t v;

	if (!span_take(from, 1, &head))
		return false;
	more = head.data[0] == 0xff ? 8 : (unsigned)__builtin_clz((unsigned)(uint8_t)~head.data[0] << 24);
	if (!span_take(from, more, &rest))
		return false;
	v = more < 8 ? head.data[0] & (0xffu >> more) : 0;
	for (unsigned i = 0; i < more; i++)
		v = v << 8 | rest.data[i];
	*ret = v;
	return true;
}

void moment_put_vint(uint64_t v, struct bytes *out)
{
	unsigned bits = v ? 64 - (unsigned)__builtin_clzll(v) : 1;
	unsigned more = bits > 56 ? 8 : (bits - 1) / 7;
	uint8_t *to = bytes_room(out, more + 1);

	if (!to)
		return;
	for (unsigned i = more; i > 0; i--, v >>= 8)
		to[i] = (uint8_t)v;
	to[0] = (uint8_t)((uint8_t)(0xff00u >> more) | (more < 8 ? (uint8_t)v : 0));
	out->size += more + 1;
}

static const struct {
	const char *name;
	uint64_t size; /* in the unit of its part */
	unsigned part; /* 0 months, 1 days, 2 nanoseconds */
} units[] = {
    {"y", 12, 0},
    {"mo", 1, 0},
    {"w", 7, 1},
    {"d", 1, 1},
    {"h", 3600ull * 1000000000, 2},
    {"m", 60ull * 1000000000, 2},
    {"s", 1000000000, 2},
    {"ms", 1000000, 2},
    {"us", 1000, 2},
    {"ns", 1, 2},
};
#define UNIT_COUNT (sizeof(units) / sizeof(*units))

bool moment_format_duration(struct span v, struct bytes *out)
{
	uint64_t parts[3], raw;
	bool negative = false;

	for (unsigned i = 0; i < 3; i++) {
		if (!moment_take_vint(&v, &raw))
			return false;
		int64_t part = (int64_t)(raw >> 1) ^ -(int64_t)(raw & 1);

		negative |= part < 0;
		parts[i] = part < 0 ? -(uint64_t)part : (uint64_t)part;
	}
	if (v.size)
		return false;
	if (negative)
		bytes_u8(out, '-');
	for (unsigned i = 0; i < UNIT_COUNT; i++) {
		uint64_t *part = &parts[units[i].part];

		if (!strcmp(units[i].name, "w") || *part < units[i].size)
			continue;
		number_format_int((int64_t)(*part / units[i].size), "", out);
		bytes_text(out, units[i].name);
		*part %= units[i].size;
	}
	return true;
}

/* The unit at the front of the text; the longest that fits. */
static int unit_at(const struct span *text)
{
	int found = -1;

	for (unsigned i = 0; i < UNIT_COUNT; i++) {
		size_t n = strlen(units[i].name);

		if (text->size >= n && !memcmp(text->data, units[i].name, n) &&
		    (found < 0 || n > strlen(units[found].name)))
			found = (int)i;
	}
	return found;
}

bool moment_parse_duration(struct span text, struct bytes *out)
{
	static const uint64_t limits[] = {INT32_MAX, INT32_MAX, INT64_MAX};
	bool negative = text.size && text.data[0] == '-';
	uint64_t parts[3] = {0};

	if (negative) {
		text.data++;
		text.size--;
	}
	if (text.size == 0)
		return false;
	while (text.size) {
		uint64_t v = 0;
		size_t n = 0;
		int unit;

		for (; n < text.size && text.data[n] >= '0' && text.data[n] <= '9'; n++)
			if (n == 19 || __builtin_mul_overflow(v, 10u, &v) ||
			    __builtin_add_overflow(v, (uint64_t)text.data[n] - '0', &v))
				return false;
		text = span_of(text.data + n, text.size - n);
		unit = unit_at(&text);
		if (n == 0 || unit < 0)
			return false;
		uint64_t *part = &parts[units[unit].part];

		if (__builtin_mul_overflow(v, units[unit].size, &v) ||
		    __builtin_add_overflow(*part, v, part) || *part > limits[units[unit].part])
			return false;
		n = strlen(units[unit].name);
		text = span_of(text.data + n, text.size - n);
	}
	for (unsigned i = 0; i < 3; i++)
		moment_put_vint(negative && parts[i] ? 2 * parts[i] - 1 : 2 * parts[i], out);
	return true;
}
