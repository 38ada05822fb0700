/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's directory, and what earlier lives of the agent left in it.
 *
 *   <state.directory>/journal/<life>/lock           held (flock) as long as that life lasts
 *                                   /synced         boot id and time of its last sync, one line
 *                                   /000017.journal files (journal_format.h)
 *
 * Every start is a life of its own, with a directory of its own. Those whose lock is free are dead: their files move into the new one's
 * directory and are dispatched before anything else, epoch by epoch (backlog.c). What is in doubt in them goes through row sync. A life
 * that still holds its lock (it hands over and delivers what it has) is left alone until recovery_look() finds it gone.
 */
#pragma once
#include "mirror/journal.h"

struct prepared_map;
struct recovery;

struct recovery_found {
	unsigned lives, files;
	uint64_t bytes, queued, in_doubt, barriers;
	unsigned torn;         /* files that end in something that is not an entry */
	unsigned damaged;      /* files that could not be read at all: they are kept, renamed to *.damaged */
	uint64_t nanoseconds;
	bool node_restarted;   /* the last life ran under another boot id: what was not synced may be missing */
	int64_t synced_us;     /* … since then; 0 = not known */
};

/*
 * Opens or makes the directory, begins a life in it, and takes over what dead ones left. Sets all->directory and the epoch. With
 * `state_directory` "" or sync JOURNAL_MEMORY there is no directory and nothing to take. 0, or −errno with the reason.
 */
int recovery_open(const char *state_directory, enum journal_sync sync, struct journals *all, struct recovery **ret,
		  struct recovery_found *found, struct error *error);

/* Once more, while this life runs: lives that have ended since. 0, or −errno with the reason. */
int recovery_look(struct recovery *r, struct recovery_found *found, struct error *error);

/* Statements that the files brought become known. */
void recovery_statements(struct recovery *r, struct prepared_map *map);

/* The journal with the files for one side (the caller frees it); NULL = there are none. Once. */
struct journal *recovery_take(struct recovery *r, enum side side);

/* Writes the mark of a sync that began at `now_us`. Any thread, one at a time. 0 or −errno. */
int recovery_mark(struct recovery *r, int64_t now_us);

/* The life ends; a directory without files goes. NULL is fine. */
void recovery_close(struct recovery *r);
