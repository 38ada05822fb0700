/* SPDX-License-Identifier: Apache-2.0 */
/* Timestamps, dates, times and durations between the protocol's values and text. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "copy/bytes.h"

#define MOMENT_FORMAT "%Y-%m-%d %H:%M:%S.%f%z" /* cqlsh's own */

/*
 * Milliseconds since 1970 in the form of strftime(3), with %f for the fraction (three digits behind a '.',
 * else six) in UTC. Outside the years 1 to 9999 the number itself.
 */
void moment_format_timestamp(const char *format, int64_t ms, struct bytes *out);
/*
 * The format; else YYYY-MM-DD with or without a time after a blank or T, a fraction and a zone (Z, ±HHMM,
 * ±HH:MM); else milliseconds since 1970. Without a zone: local time. False: none of them.
 */
bool moment_parse_timestamp(const char *format, struct span text, int64_t *ret);

/* Days since 1970; YYYY-MM-DD, outside the years 1 to 9999 the number itself. */
void moment_format_date(int64_t days, struct bytes *out);
/* Whether it is within these years. */
bool moment_has_date(int64_t days);
bool moment_parse_date(struct span text, int64_t *ret);

/* Nanoseconds since midnight; HH:MM:SS.nnnnnnnnn, when read with up to nine digits. */
void moment_format_time(int64_t ns, struct bytes *out);
bool moment_parse_time(struct span text, int64_t *ret);

/* 1y2mo3d4h5m6s7ms8us9ns. The bytes are those of the protocol: three signed vints. False: malformed. */
bool moment_format_duration(struct span v, struct bytes *out);
bool moment_parse_duration(struct span text, struct bytes *out);

/* An unsigned vint, also the length of a vector's element: taken from the front of *from. */
bool moment_take_vint(struct span *from, uint64_t *ret);
void moment_put_vint(uint64_t v, struct bytes *out);
