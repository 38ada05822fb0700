/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person sees while rows are copied, in cqlsh's words; on a terminal with a bar, in a log as plain
 * lines.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct progress {
	_Atomic uint64_t rows; /* written by workers */
	_Atomic uint64_t done; /* of `total`: ranges, or bytes of the files */
	uint64_t total;	       /* 0 = not known: no bar */

	FILE *out; /* NULL: silent */
	bool terminal;
	double every; /* seconds between reports */
	const char *ratefile;
	uint64_t begin_ns, last_ns, last_rows;
	double rate;
};

/* `out` may be NULL. `ratefile` ("" = none) is begun anew. */
void progress_init(struct progress *p, FILE *out, double every, const char *ratefile, uint64_t now_ns);
/* Reports if it is time, or in any case (`last`). */
void progress_report(struct progress *p, uint64_t now_ns, bool last);
/* "1.234 seconds", "2 minutes and 3.456 seconds". Returns `text`. */
const char *progress_span(double seconds, char *text, size_t size);
