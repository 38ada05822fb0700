/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that could not be imported: the row as it stood in its file goes to ERRFILE, so that it can be
 * corrected and loaded again; its number and the reason to ERRFILE.reasons, a line for each row, in the same
 * order. The first few are told on standard error as well.
 */
#pragma once
#include <pthread.h>

#include "copy/input.h"
#include "copy/plan.h"

struct rejects {
	pthread_mutex_t lock;
	struct plan *plan;
	char path[OPTION_PATH], reasons_path[OPTION_PATH + 16];
	char *const *files; /* borrowed: names for reasons */
	FILE *rows, *reasons;
	uint64_t parse_errors, insert_errors;
};

/* A file that is there already is renamed, as cqlsh does, unless the copy is `resumed`. The new one appears
 * with the first row. */
void rejects_init(struct rejects *r, struct plan *plan, char *const *files, bool resumed);
/* `insert`: the server refused it; `attempts` were made. Fails the plan when there are more than the options
 * allow. */
void rejects_add(struct rejects *r, const struct input_row *row, bool insert, unsigned attempts,
		 const char *reason, int reason_size);
uint64_t rejects_count(struct rejects *r);
/* 0 or −errno: the last of them could not be written. */
int rejects_close(struct rejects *r, struct error *error);
