/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: writes that the other cluster refused for good. They are on the gap ledger, and kept here so that they can be sent once
 * more when what stood against them has been put right.
 *
 *   <state.directory>/dead/dead-<start>-<number>.journal       0600, each for one cluster
 *
 * Files of the journal's format (journal_format.h), not below journal/: a start takes over what is there. A letter is two entries:
 *
 *   REFUSED   state DONE, now and timestamp = when it was refused; body: code i32, retries u32 (enum cql_error, or −errno)
 *   the write as it stood in the journal, state QUEUED; DONE when it has been sent again or dropped
 *
 * and the PREPARED entries that it needs stand before it in the same file. A file without letters is removed.
 *
 * Bounded: when the share of the journal's budget is spent, what is there stays and later ones are only on the ledger, and counted. They
 * survive the process at once, the node when dead_sync() has run. Any thread; a lock, which no healthy write ever meets.
 */
#pragma once
#include <stdbool.h>

#include "base/error.h"
#include "cql/statement.h"
#include "mirror/journal_read.h"

struct dead;
struct record;
struct worker;

struct dead_reason {
	int32_t code;
	uint32_t retries;
};

/*
 * Opens or makes the directory; `share` = bytes for it. "" = nothing is kept (*ret = NULL, which all functions take). 0, or −errno with
 * the reason.
 */
int dead_open(const char *state_directory, size_t share, struct dead **ret, struct error *error);
void dead_close(struct dead *d);

/* Keeps a copy of the record (the worker's thread). False: it is not kept. */
bool dead_keep(struct dead *d, struct worker *w, const struct record *r, int32_t code);

struct dead_counts {
	uint64_t letters, bytes, unkept; /* kept now; size of the files; not kept since the start */
};
struct dead_counts dead_count(struct dead *d);

/* Makes what was kept survive the node. Blocks on the disk. */
void dead_sync(struct dead *d);

/* Which of them: zeroed = all. An empty table: all of the keyspace. */
struct dead_filter {
	bool by_table;
	struct table_name table;
};

struct dead_round {
	struct dead_filter filter;
	uint64_t next, end; /* files by their number: the next one, and the first that is none of this round */
	uint64_t sent, kept, barriers; /* sent again; left for want of room; TRUNCATE and DDL, which are not sent */
};

/* What is kept now, and nothing that comes later, is meant. */
void dead_round_begin(struct dead *d, const struct dead_filter *f, struct dead_round *ret);
/*
 * The letters of one file go through the worker's journal again (its thread). They leave the dead ones when they are in it. False: the
 * round is over.
 */
bool dead_replay(struct dead *d, struct worker *w, struct dead_round *round);
/* Forgets letters. Returns how many. */
uint64_t dead_drop(struct dead *d, const struct dead_filter *f);

/* The write behind a REFUSED entry of a file that is being read, with its view; NULL: there is none, or it is a letter no more. */
const struct journal_entry *dead_letter_next(struct journal_reader *r, size_t *ret_at, struct dead_reason *ret_reason, int64_t *ret_at_us);
