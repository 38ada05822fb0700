// SPDX-License-Identifier: Apache-2.0
/* See render.h. Nothing here knows what the agent reports. */
#include "control/render.h"

#include <ctype.h>
#include <string.h>

#define VALUE_MAX 512
#define COLUMNS_MAX 16
#define DEPTH_MAX 8

static const char bold[] = "\033[1m", red[] = "\033[31m", plain[] = "\033[0m";

/* ASCII control characters and C1 ones (U+0080…U+009F, in UTF-8 0xC2 0x80…0x9F) move cursors and set titles.
 */
static void sanitise(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < ' ' || *p == 0x7f) {
			*p = '?';
		} else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) {
			p[0] = p[1] = '?';
			p++;
		}
	}
}

/* How many of the `n` bytes at `text` fit into a piece of VALUE_MAX that does not end inside a character. */
static size_t piece(const char *text, size_t n)
{
	const size_t most = VALUE_MAX - 1;

	if (n <= most)
		return n;
	/* At most three bytes of a character follow its first one; where more do it is no UTF-8. */
	for (size_t i = most; i > most - 4; i--)
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return i;
	return most;
}

void render_text(FILE *out, const char *text)
{
	char line[VALUE_MAX];

	/* Line by line: a hint may have several. */
	while (*text) {
		size_t n = strcspn(text, "\n"), size;

		for (; n; n -= size, text += size) {
			size = piece(text, n);
			memcpy(line, text, size);
			line[size] = 0;
			sanitise(line);
			fputs(line, out);
		}
		if (*text)
			fputs("\n  ", out);
		text += *text != 0;
	}
}

static size_t unit_suffix(const char *name, const char **ret_unit)
{
	static const char *const units[] = {"Bytes", "Micros", "Millis", "Seconds"};
	size_t size = strlen(name);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i]);

		if (size > n && !strcmp(name + size - n, units[i])) {
			*ret_unit = units[i];
			return n;
		}
	}
	*ret_unit = "";
	return 0;
}

void render_label(const char *name, char *label, size_t size)
{
	const char *unit;
	size_t length = strlen(name) - unit_suffix(name, &unit), at = 0;

	for (size_t i = 0; i < length && at + 2 < size; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c == '_') {
			label[at++] = ' ';
		} else if (isupper(c) && i && islower((unsigned char)name[i - 1])) {
			label[at++] = ' ';
			label[at++] = isupper((unsigned char)name[i + 1])
					  ? (char)c
					  : (char)tolower(c); /* clientIP keeps IP */
		} else {
			label[at++] = (char)c;
		}
	}
	label[at] = 0;
	sanitise(label);
}

static void bytes_text(double value, char *text, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned u = 0;

	while (value >= 1024 && u < 4) {
		value /= 1024;
		u++;
	}
	snprintf(text, size, u ? "%.1f %s" : "%.0f %s", value, units[u]);
}

static void micros_text(double value, char *text, size_t size)
{
	if (value < 1000)
		snprintf(text, size, "%.0f us", value);
	else if (value < 1e6)
		snprintf(text, size, "%.1f ms", value / 1e3);
	else if (value < 120e6)
		snprintf(text, size, "%.1f s", value / 1e6);
	else if (value < 7200e6)
		snprintf(text, size, "%.0f min", value / 60e6);
	else
		snprintf(text, size, "%.1f h", value / 3600e6);
}

void render_value(const char *name, const json_t *value, char *text, size_t size)
{
	const char *unit;

	unit_suffix(name, &unit);
	if (json_is_number(value) && !strcmp(unit, "Bytes"))
		bytes_text(json_number_value(value), text, size);
	else if (json_is_number(value) && *unit)
		micros_text(json_number_value(value) * (*unit == 'S'	 ? 1e6
							: unit[2] == 'l' ? 1e3
									 : 1),
			    text, size);
	else if (json_is_integer(value))
		snprintf(text, size, "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(text, size, "%.2f", json_real_value(value));
	else if (json_is_boolean(value))
		snprintf(text, size, "%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_string(value))
		snprintf(text, size, "%s", *json_string_value(value) ? json_string_value(value) : "-");
	else
		snprintf(text, size, "-");
	sanitise(text);
}

static bool is_plain(const json_t *value)
{
	return !json_is_object(value) && !json_is_array(value);
}

static bool is_alarming(const char *name, const json_t *value)
{
	static const char *const names[] = {"error", "problems", "warnings", "blockers"};

	if (json_is_null(value) || (json_is_array(value) && !json_array_size(value)))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* Columns on a screen: bytes that do not continue a UTF-8 character. */
static size_t columns(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void pad(FILE *out, size_t used, size_t width)
{
	for (; used < width; used++)
		fputc(' ', out);
}

static void heading(FILE *out, const char *label, unsigned depth, const char *style)
{
	fprintf(out, "%s%*s%s%s%s\n", depth ? "" : "\n", (int)(2 * depth), "", style, label,
		*style ? plain : "");
}

/* A list of objects: the first one's plain members are the columns; what does not fit in them is left to
 * --json. */
static void render_table(FILE *out, const json_t *rows, unsigned depth, const char *style)
{
	const char *name[COLUMNS_MAX];
	size_t width[COLUMNS_MAX], count = 0, i;
	char text[VALUE_MAX];
	const char *key;
	json_t *row, *value;

	json_object_foreach(json_array_get(rows, 0), key, value)
	{
		if (count == COLUMNS_MAX || !is_plain(value))
			continue;
		render_label(key, text, sizeof(text));
		width[count] = columns(text);
		name[count++] = key;
	}
	json_array_foreach(rows, i, row)
	{
		for (size_t c = 0; c < count; c++) {
			render_value(name[c], json_object_get(row, name[c]), text, sizeof(text));
			if (columns(text) > width[c])
				width[c] = columns(text);
		}
	}
	fprintf(out, "%*s%s", (int)(2 * depth), "", style);
	for (size_t c = 0; c < count; c++) {
		render_label(name[c], text, sizeof(text));
		fputs(text, out);
		if (c + 1 < count)
			pad(out, columns(text), width[c] + 2);
	}
	fprintf(out, "%s\n", *style ? plain : "");
	json_array_foreach(rows, i, row)
	{
		fprintf(out, "%*s", (int)(2 * depth), "");
		for (size_t c = 0; c < count; c++) {
			render_value(name[c], json_object_get(row, name[c]), text, sizeof(text));
			fputs(text, out);
			if (c + 1 < count)
				pad(out, columns(text), width[c] + 2);
		}
		fputc('\n', out);
	}
}

static void render_section(FILE *out, const json_t *object, unsigned depth, bool color)
{
	char label[96], text[VALUE_MAX];
	size_t width = 0, i;
	const char *key;
	json_t *value, *item;

	json_object_foreach((json_t *)object, key, value)
	{
		if (!is_plain(value) && !(json_is_array(value) && !json_array_size(value)))
			continue;
		render_label(key, label, sizeof(label));
		if (columns(label) > width)
			width = columns(label);
	}
	json_object_foreach((json_t *)object, key, value)
	{
		bool nothing = json_is_array(value) && !json_array_size(value);

		if (!is_plain(value) && !nothing)
			continue;
		render_label(key, label, sizeof(label));
		if (nothing)
			snprintf(text, sizeof(text), "none");
		else
			render_value(key, value, text, sizeof(text));
		fprintf(out, "%*s%s", (int)(2 * depth), "", label);
		pad(out, columns(label), width + 2);
		fprintf(out, "%s%s%s\n", color && is_alarming(key, value) ? red : "", text,
			color && is_alarming(key, value) ? plain : "");
	}
	json_object_foreach((json_t *)object, key, value)
	{
		if (is_plain(value) || (json_is_array(value) && !json_array_size(value)))
			continue;
		render_label(key, label, sizeof(label));
		heading(out, label, depth, !color ? "" : is_alarming(key, value) ? red : bold);
		if (depth == DEPTH_MAX) {
			fprintf(out, "%*s(deeper than shown; see --json)\n", (int)(2 * depth + 2), "");
		} else if (json_is_object(value)) {
			render_section(out, value, depth + 1, color);
		} else if (json_is_object(json_array_get(value, 0))) {
			render_table(out, value, depth + 1, color ? bold : "");
		} else {
			json_array_foreach(value, i, item)
			{
				render_value(key, item, text, sizeof(text));
				fprintf(out, "%*s%s\n", (int)(2 * depth + 2), "", text);
			}
		}
	}
}

void render_object(FILE *out, const json_t *object, bool color)
{
	render_section(out, object, 0, color);
}
