/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that COPY TO writes, or several (MAXOUTPUTSIZE: FILE, FILE.1, FILE.2 …), or standard output. Not
 * locked: the caller does.
 */
#pragma once
#include "base/error.h"
#include "copy/bytes.h"

struct output {
	const char *path; /* NULL: standard output */
	int fd;
	unsigned files;	     /* that were begun */
	uint64_t offset;     /* in the last one */
	int64_t max_rows;    /* of a file; −1: no limit */
	uint64_t file_rows;  /* in the last one */
	struct bytes header; /* the first line, written into the first file only, as cqlsh does */
	int broken;	     /* −errno of a write that failed: the file may end within a row */
};

/* `header` is taken; may be empty. 0 or −errno with a reason. */
int output_open(struct output *o, const char *path, int64_t max_rows, struct bytes header,
		struct error *error);
/* Goes on where an earlier run stood: the last of `files` is cut at `offset`. */
int output_resume(struct output *o, const char *path, int64_t max_rows, unsigned files, uint64_t offset,
		  uint64_t file_rows, struct error *error);

/* Whole rows, each with CR LF at its end. Where that fails `files`, `offset` and `file_rows` stay what they
 * were: output_resume() cuts off what came in of them. Nothing is written behind it. */
int output_write(struct output *o, struct span data, uint64_t rows, struct error *error);
/* Closes; what could not be written shows here at the latest. Calling it twice is harmless. */
int output_close(struct output *o, struct error *error);
