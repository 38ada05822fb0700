/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY TO: reads ranges of tokens from their replicas, in parallel, page by page, and writes rows as CSV.
 *
 *   ranges ─▶ scan ─▶ EXECUTE ─▶ page ─▶ rows formatted as they stream in ─▶ output (lock) ─▶ next page … ─▶
 * next range └ error: again after a while, from the page where it stood; what was written of it is passed
 * over
 *
 * So a range is neither lost nor doubled by a retry, and a run that is interrupted can go on: how far each
 * range has come is known for every byte that is in the file, and kept in a progress file once a second.
 */
#pragma once
#include "copy/plan.h"

struct export_request {
	const char *file;     /* NULL: standard output */
	const char *progress; /* path of the progress file; NULL: none */
	bool resume;
};

struct export_result {
	uint64_t rows;
	unsigned files, ranges, failed; /* failed: ranges that were given up */
};

/* The SELECT for the plan's columns; malloc'ed, NULL: out of memory. */
char *export_statement(const struct plan *p);

/* Runs to the end. 0; or −errno with a reason: nothing, or not everything, has been exported. −EINTR: was
 * told to stop. */
int export_run(struct plan *p, const struct export_request *request, struct export_result *ret,
	       struct error *error);
