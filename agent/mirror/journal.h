/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of one worker for one cluster: every mirrored write from its intent until the other cluster has confirmed it.
 *
 *   journal_intent ─▶ in doubt ─ applied ▶ journal_queued ─▶ (dispatch) ─▶ journal_applied ─ kept for a while ─▶ space again
 *                        │                      ├─▶ journal_spill: it waits without a record ─▶ journal_refill ─▶ (dispatch)
 *                        └─ refused ────────────┴─▶ journal_done
 *
 * Files (journal_file.h) are filled one after the other; a file's space comes back when nothing of it is open and what was confirmed
 * has been kept for long enough. Memory is bounded: what waits beyond the dispatch's window is on disk only, and a file of which no
 * record is held is not even mapped. The worker's thread only, except where said.
 */
#pragma once
#include <stdatomic.h>

#include "base/error.h"

#include "mirror/record.h"
#include "relay/relay.h"

enum journal_sync { JOURNAL_MEMORY, JOURNAL_SYNC_NONE, JOURNAL_SYNC_INTERVAL, JOURNAL_SYNC_COMMIT };

/* What the journals of a node share. */
struct journals {
	int directory;               /* descriptor; −1 = in memory */
	size_t budget, file_size;    /* bytes, node-wide; of one file */
	_Atomic size_t held;         /* of it: files of all journals, spares included */
	uint64_t retain_ns;          /* how long entries outlive the other cluster's answer; 0 = not at all */
	_Atomic uint64_t names;      /* files made so far */
	_Atomic uint64_t written;    /* bytes of entries */
	_Atomic uint64_t *epoch;     /* barriers raised so far */
};

struct journal_write {
	enum journal_kind kind;
	uint8_t statement, version, opcode, header_flags;
	bool pinned, needs_keyspace, serial;
	int64_t timestamp;
	uint32_t now;
	const char *keyspace;
	struct span body;
	struct prepared_slot *const *slots; /* of EXECUTE, or of a BATCH's children: each once */
	unsigned slot_count;
};

struct journal;

/* The first file is made by the first intent. `worker` and `side` are for the files' heads. NULL = out of memory. */
struct journal *journal_new(struct journals *all, unsigned worker, enum side side);
/* What is open, or confirmed and still kept, stays on disk for the next life. NULL is fine. */
void journal_free(struct journal *j);
/* One for files of an earlier life, to which nothing is added. NULL = out of memory. */
struct journal *journal_new_adopted(struct journals *all, enum side side);
/* All files of `from`, of which nothing is held, go to `to`; frees `from`. */
void journal_merge(struct journal *to, struct journal *from);
/* Takes a file whose counts are set. */
void journal_adopt(struct journal *j, struct journal_file *f);

/*
 * Room for an entry, written and in doubt when this returns; it survives the process from then on. NULL with *ret_error: −ENOSPC (the
 * budget is spent, or the disk is full), −ENOMEM.
 */
struct record *journal_intent(struct journal *j, const struct journal_write *w, int *ret_error);

/* The primary has applied it. */
void journal_queued(struct record *r);
/* It is about to be sent for the only time. */
void journal_sent(struct record *r);
/* These end the record: it waits on disk; it was confirmed; it needs nothing more. */
void journal_spill(struct record *r);
void journal_applied(struct record *r, uint64_t now_ns);
void journal_done(struct record *r);

enum journal_take { JOURNAL_TAKE, JOURNAL_LEAVE, JOURNAL_STOP };

/*
 * Entries of a file that wait, in their order: for each a record, which `take` keeps (TAKE), leaves where it is until journal_rescan()
 * (LEAVE), or has enough with (STOP). `slot` is not set. Returns false when it was stopped.
 */
bool journal_refill_file(struct journal_file *f, enum journal_take (*take)(void *context, struct record *r), void *context);
/* The same for all files before the one with sequence `end` (UINT64_MAX = all), the oldest first. */
bool journal_refill(struct journal *j, uint64_t end, enum journal_take (*take)(void *context, struct record *r), void *context);
/* What was left before is looked at again. */
void journal_rescan(struct journal *j);
/* Entries that wait and were not left. */
uint32_t journal_waiting(const struct journal *j);
/* Those that were left. */
uint32_t journal_left(const struct journal *j);

/* Whether entries wait (and were not left) before the file with sequence `end`. */
bool journal_waiting_before(const struct journal *j, uint64_t end);
/* The oldest; the others follow by `next`. */
struct journal_file *journal_files(const struct journal *j);

/* What follows goes to another file: a barrier stands between. Returns its sequence. */
uint64_t journal_roll(struct journal *j);

/* The other cluster may have forgotten what it confirmed: all of it waits again. Returns how many. */
uint32_t journal_repeat(struct journal *j);
/* Whether something is kept that was confirmed. */
bool journal_keeps(const struct journal *j);
/* What was confirmed needs no keeping any more: it must not be repeated behind a TRUNCATE. */
void journal_forget(struct journal *j);
/* Gives back files; call it now and then. True: space was given back. */
bool journal_reclaim(struct journal *j, uint64_t now_ns);
/* Space is short: the oldest file that is kept only as a precaution goes. False: there is none. */
bool journal_shrink(struct journal *j);

/* Bytes of its files; entries that are neither done nor confirmed. */
size_t journal_bytes(const struct journal *j);
uint32_t journal_open_entries(const struct journal *j);

/* A record without an entry that the budget does not limit: a barrier's mark must not be missing because writes are many. NULL = out of memory. */
struct record *journal_mark(struct journal *j);
void journal_mark_free(struct journal *j, struct record *r);

/* ---- for journal_sync.c: files with intents that were not synced; the caller gives each back. Returns their number. */
unsigned journal_dirty(struct journal *j, struct journal_file **ret, unsigned max);
void journal_synced(struct journal_file *f, bool ok);
