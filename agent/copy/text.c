// SPDX-License-Identifier: Apache-2.0
#include "copy/text.h"

int text_hex_digit(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The bytes of a whole text are UTF-8 as the server checks it: no surrogates, nothing beyond 10FFFF, shortest
 * forms. */
bool text_is_utf8(struct span v)
{
	for (size_t i = 0; i < v.size;) {
		uint8_t c = v.data[i];
		unsigned more = c < 0x80		? 0
				: c >= 0xc2 && c < 0xe0 ? 1
				: c >= 0xe0 && c < 0xf0 ? 2
				: c >= 0xf0 && c < 0xf5 ? 3
							: 9;

		if (more == 0) {
			i++;
			continue;
		}
		if (more == 9 || v.size - i <= more)
			return false;
		for (unsigned k = 1; k <= more; k++)
			if ((v.data[i + k] & 0xc0) != 0x80)
				return false;
		uint8_t second = v.data[i + 1];

		if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) ||
		    (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
			return false;
		i += more + 1;
	}
	return true;
}

/* The code point behind `\x` if it is one that is written so, else −1. */
static int escaped_code(struct span v, size_t at)
{
	int high = at + 1 < v.size ? text_hex_digit(v.data[at]) : -1,
	    low = high >= 0 ? text_hex_digit(v.data[at + 1]) : -1;
	int code = low < 0 ? -1 : high << 4 | low;

	return code < 0x20 || (code >= 0x7f && code <= 0xa0) ? code : -1;
}

/*
 * Appends text without its length. In quotes: '' is '. Only what value_escape() writes is undone; any other
 * backslash is a backslash.
 */
void text_put_plain(struct span v, bool quoted, bool escapes, struct bytes *out)
{
	size_t from = 0, i = 0;

	while (i < v.size) {
		uint8_t c = v.data[i], next = i + 1 < v.size ? v.data[i + 1] : 0;
		size_t taken = 2;
		int code = -1;

		if (quoted && c == '\'' && next == '\'')
			code = '\'';
		else if (escapes && c == '\\' && i + 1 < v.size) {
			code = next == '\\'  ? '\\'
			       : next == 'n' ? '\n'
			       : next == 'r' ? '\r'
			       : next == 't' ? '\t'
					     : -1;
			if (next == 'x') {
				code = escaped_code(v, i + 2);
				taken = 4;
			}
		}
		if (code < 0) {
			i++;
			continue;
		}
		bytes_put(out, v.data + from, i - from);
		if (code >= 0x80)
			bytes_u8(out, 0xc2);
		bytes_u8(out, (uint8_t)code);
		i += taken;
		from = i;
	}
	bytes_put(out, v.data + from, v.size - from);
}
