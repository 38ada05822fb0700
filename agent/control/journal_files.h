/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's files and those of dead letters as a command finds them on disk, beside an agent that may be writing them: each is copied
 * into memory (a mapping of a file that is cut off under it would kill us), nothing is locked, nothing is changed. A file that vanishes
 * meanwhile is no file.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/span.h"
#include "mirror/journal_format.h"

/* No file of ours is larger: its one entry, and a statement or two. */
#define JOURNAL_FILE_READ_MAX ((uint64_t)JOURNAL_ENTRY_MAX + (64u << 20))

struct journal_found {
	char life[64];      /* directory below journal/; "" = the journal's own directory */
	bool running;       /* a process holds that life's lock */
	bool aside;         /* *.damaged: put aside by an agent that could not read it */
	char name[256];
	char path[4096];
	uint64_t size;      /* of the file */
	struct span bytes;  /* its copy, until the callback returns; data NULL: see `error` */
	struct error error; /* why it could not be read */
};

/* Calls back for each file below <state>/journal, by life and name. False from it ends the walk. 0, or −errno with the reason. */
int journal_files_each(const char *state, bool (*each)(void *context, struct journal_found *f), void *context, struct error *error);

/* The same for <state>/dead. A directory that is not there has no files; one that cannot be read is an error. */
int dead_files_each(const char *state, bool (*each)(void *context, struct journal_found *f), void *context, struct error *error);

/* Copies the file once more into `f` (it was being written when it was copied first). The callback's only. */
void journal_found_again(struct journal_found *f);
