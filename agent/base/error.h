/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text that says what was wrong and what to do, filled in where the fault is known and printed where a
 * person reads it. Functions that can fail for a reason an operator must understand take a `struct error *`.
 */
#pragma once
#include <stdarg.h>
#include <stdio.h>

struct error {
	char text[512];
};

/* Composes the text; returns `code` (a −errno), so that `return error_set(e, -EINVAL, "…")` reads well. */
static inline __attribute__((format(printf, 3, 4))) int error_set(struct error *e, int code, const char *format, ...)
{
	va_list args;

	if (e) {
		va_start(args, format);
		vsnprintf(e->text, sizeof(e->text), format, args);
		va_end(args);
	}
	return code;
}
