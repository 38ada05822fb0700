/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers between the protocol's bytes and text: integers of any size (two's complement, big endian),
 * decimals (a scale of four bytes and such an integer) and floating point numbers as Python writes them.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "copy/bytes.h"

#define NUMBER_BYTES_MAX (32u << 10) /* of an integer: about 78,000 digits; conversion is quadratic */

/* Appends the decimal digits; `group`: what stands between groups of three digits, "" = nothing. */
void number_format_int(int64_t v, const char *group, struct bytes *out);
/* False: empty, or longer than NUMBER_BYTES_MAX. */
bool number_format_varint(struct span v, const char *group, struct bytes *out);
/* As str(Decimal) of Python. False: malformed. */
bool number_format_decimal(struct span v, struct bytes *out);
/*
 * As cqlsh: `precision` digits behind the point; exponents only for very small and very large values; `point`
 * instead of '.', and `group` between groups of three digits.
 */
void number_format_float(double v, int precision, const char *point, const char *group, struct bytes *out);
/* So that reading gives the same number again. */
void number_format_exact(double v, struct bytes *out);

/* Text without blanks around it. False: no integer, or beyond 64 bits. */
bool number_parse_int(struct span text, int64_t *ret);
/* Appends the shortest two's complement. False: no integer, or too long. */
bool number_parse_varint(struct span text, struct bytes *out);
bool number_parse_decimal(struct span text, struct bytes *out);
/* Also nan, inf, infinity in any case. */
bool number_parse_float(struct span text, double *ret);
