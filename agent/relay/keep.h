/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What outlives a restart: prepared statements, the frozen topology, tables on hold, each in a file of the state directory.
 *
 *   file:   "CQLFKEEP" | version u32 | kind u32 | record …
 *   record: size u32 | payload (size bytes) | XXH3 of the payload u64          all little endian
 *
 * A file is written whole to a temporary one, synced and renamed; then the directory is synced. A record whose checksum does not
 * match ends the reading: what comes before it is used, what is lost is learned again from clients and clusters. Mode 0600.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/span.h"

enum keep_kind { KEEP_PREPARED = 1, KEEP_TOPOLOGY = 2, KEEP_HOLDS = 3 };

#define KEEP_RECORD_MAX (4u << 20)

struct keep_writer {
	FILE *file;
	int failed; /* the first −errno */
	char path[4096], temporary[4096 + 8];
};

/* 0 or −errno with the reason. */
int keep_begin(struct keep_writer *w, const char *directory, const char *name, enum keep_kind kind, struct error *error);
/* Adds a record made of `count` pieces. */
void keep_record(struct keep_writer *w, const struct span *pieces, unsigned count);
/* Syncs, renames, and syncs the directory. −errno with the reason: the old file stays, or which of the two survives a crash is not known. */
int keep_end(struct keep_writer *w, struct error *error);

/*
 * Calls back for each record of the file. Returns their number, 0 when there is no file, −EINVAL for a file of another kind or
 * version. `ret_damaged` tells whether it ended before the file did.
 */
int keep_read(const char *directory, const char *name, enum keep_kind kind, void (*record)(void *context, struct span payload),
	      void *context, bool *ret_damaged);

/* The same over bytes in memory (tests, fuzzing). */
int keep_parse(struct span file, enum keep_kind kind, void (*record)(void *context, struct span payload), void *context,
	       bool *ret_damaged);
