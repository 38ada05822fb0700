/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY FROM: one thread reads and cuts the files into chunks of rows, the workers turn rows into values,
 * gather them into batches by replica and send them, many at a time.
 *
 *   input ─▶ chunk ─▶ worker: values, token, ─▶ batches of one range or replica ─▶ answered ─▶ chunk over ─▶
 * mark moves on ▲                                            │ refused: row by row, so that one bad row costs
 * only itself └── waits while chunks hold too many bytes   └ time-out, overloaded: again after a while
 *
 * The mark, up to which every row has been written or rejected, goes to a progress file once a second.
 * Writing a row twice does no harm, so a run that goes on there loses and doubles nothing; counters are
 * another matter, and cannot be resumed.
 */
#pragma once
#include "copy/plan.h"

struct import_request {
	const char *files;    /* as COPY has them; NULL: standard input */
	const char *progress; /* path of the progress file; NULL: none */
	bool resume;
	char *const
	    *file_columns; /* of the file: names; those that are not in the plan's columns are passed over */
	unsigned file_column_count;
};

struct import_result {
	uint64_t rows, rejected, skipped; /* rows: written */
	unsigned files;
	char errfile[OPTION_PATH];
};

/* The INSERT, or for counters the UPDATE; malloc'ed, NULL: out of memory. */
char *import_statement(const struct plan *p);

/* Runs to the end. 0; or −errno with a reason: not everything has been imported. */
int import_run(struct plan *p, const struct import_request *request, struct import_result *ret,
	       struct error *error);
