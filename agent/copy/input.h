/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of COPY FROM, cut into rows. A record that spans lines has to be well formed (copy/csv.h) and to
 * have the right number of fields; where it does not, a quote was probably never closed: its first line alone
 * is rejected, and reading goes on behind it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "copy/csv.h"

#define INPUT_ROW_MAX (8u << 20) /* half of what a server with default limits takes as one write */
#define INPUT_CUT (64u << 10)	 /* of a longer one so much is kept for the error file */

/* A place between two rows. */
struct input_mark {
	uint32_t file;
	uint64_t offset;    /* in that file */
	uint64_t line, row; /* that were read before: lines of the file, rows of all files */
};

struct input_row {
	struct span data;   /* with its line end; until the next call */
	uint64_t row, line; /* from 1; the row's first line */
	uint32_t file;
	const char *wrong; /* NULL, or why it cannot be read */
};

struct input {
	const struct csv_dialect *dialect;
	bool header;
	unsigned fields; /* that a row should have */
	char **paths;	 /* owned; one entry NULL: standard input */
	unsigned path_count, opened;
	uint64_t total; /* bytes of all files; 0: not known */
	int fd;
	bool end; /* of the current file */
	struct bytes buffer;
	size_t at; /* in the buffer: what is before it has been given out */
	struct input_mark mark;
	bool header_due;
};

/*
 * `files`: names and patterns separated by commas; NULL: standard input, which a line `\.` ends. 0, −ENOENT
 * (named in `error`), −ENOMEM.
 */
int input_open(struct input *in, const char *files, const struct csv_dialect *dialect, bool header,
	       unsigned fields, struct error *error);
/* Before the first row: goes on at a mark of an earlier run. −EINVAL where the files are too few or too
 * short. */
int input_resume(struct input *in, const struct input_mark *mark, struct error *error);
/* 1, 0 = the end, −errno with a reason. Empty lines are passed over. */
int input_next(struct input *in, struct input_row *ret, struct error *error);
void input_close(struct input *in);
