/* SPDX-License-Identifier: Apache-2.0 */
/* Text on its way from a file into a value. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "copy/bytes.h"

/* 0 to 15, or −1. */
int text_hex_digit(uint8_t c);

/* Whether a whole text is UTF-8 as servers check it: no surrogates, nothing beyond 10FFFF, shortest forms. */
bool text_is_utf8(struct span v);

/*
 * Appends text as it is meant. `quoted`: it stood between apostrophes, two of them are one. `escapes`: what
 * value_escape() writes is undone; any other backslash is a backslash.
 */
void text_put_plain(struct span v, bool quoted, bool escapes, struct bytes *out);
