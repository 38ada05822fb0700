/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's files, version 1. Everything is little endian and laid out for reading in place.
 *
 *   file:   head (64 bytes) | entry | entry | … | 0 …
 *   entry:  state u8 | kind:4 statement:4 u8 | flags u8 | keyspace size u8 | body size u32 | check u32 | now u32 | timestamp i64
 *           | keyspace | body | padding to a multiple of 8
 *
 * A file is preallocated, mapped shared, and written front to back by the one worker that owns it. Stores into the mapping survive
 * the process as they are made; fdatasync makes them survive the node (journal_sync.h).
 *
 * The torn tail. An entry's state is stored last: an entry that a killed process left half written has state 0, which ends the
 * file's contents. After a crash of the node pages that were not synced may be missing or old: the first entry whose sizes do
 * not fit or whose check does not match ends the contents, and what lies behind it had not been synced. `check` is the lower half of
 * XXH3-64 over now … end of body, seeded by the head's salt, mixed with the first eight bytes without the state; salts are random, so
 * that an entry of the file's earlier life never looks like one of this.
 *
 * The state changes in place and is not part of the check:
 *
 *   INTENT ──applied──▶ QUEUED ──sent (COUNT only)──▶ SENT
 *      └── refused ─────────┴──── delivered, or on the gap ledger ──▶ DONE
 *
 * Three more bits mean something to the running process only (a record in memory stands for the entry; the other cluster has confirmed
 * it and it is kept for a while; it has been counted): a reader masks them. What has been confirmed and is still kept is sent again after a crash, which
 * does no harm: it carries its timestamp.
 *
 * Each file stands alone: before the first entry that executes a prepared statement comes a PREPARED entry with its text, keyspace and
 * ids (its body: relay/prepared.h, prepared_record()). And each belongs to one epoch: `epoch` barriers (TRUNCATE, DDL) had been raised on
 * the node before it was begun. A barrier ends the file of the worker that raises it, and its ticket is the epoch that it ends: what
 * is in files of that epoch and of earlier ones reaches the other cluster before it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define JOURNAL_VERSION 1
#define JOURNAL_FILE_MAX (4u << 20)  /* of the usual files; one entry may need a larger one */
#define JOURNAL_FILE_MIN (64u << 10)
#define JOURNAL_ENTRY_MAX (300u << 20) /* a request of limits.frameBytes at its largest, and its keyspace */

enum journal_state { ENTRY_END, ENTRY_INTENT, ENTRY_QUEUED, ENTRY_SENT, ENTRY_DONE, ENTRY_STATES };
#define ENTRY_HELD 0x80u    /* a record in memory stands for it */
#define ENTRY_APPLIED 0x40u /* QUEUED, and confirmed by the other cluster */
#define ENTRY_COUNTED 0x20u /* it is in the backlog's sizes by table (tables.h) */
#define ENTRY_STATE_MASK 0x0Fu

enum journal_kind {
	ENTRY_WRITE = 1, /* sent as it is, any number of times */
	ENTRY_BARRIER,   /* TRUNCATE, DDL: sent as it is, behind all that came before */
	ENTRY_COUNT,     /* a counter's update: sent at most once */
	ENTRY_ROWS,      /* its rows are compared and made equal */
	ENTRY_PREPARED,
	ENTRY_REFUSED, /* dead letters only (dead.h): why the write behind it is one */
	ENTRY_KINDS
};

/* flags: version − 3 in bits 0–1, opcode in bits 2–3 (0 QUERY, 1 EXECUTE, 2 BATCH), then */
#define ENTRY_PAYLOAD 0x10u  /* the request carries a custom payload */
#define ENTRY_PINNED 0x20u   /* `timestamp` goes with the request */
#define ENTRY_KEYSPACE 0x40u /* the request's text needs the keyspace */
#define ENTRY_SERIAL 0x80u   /* it was conditional */

struct journal_head {
	char magic[8]; /* "CQLFJRNL" */
	uint32_t version, size;
	uint64_t salt, sequence;
	int64_t created_us;
	uint16_t worker;
	uint8_t side, reserved;
	uint32_t reserved2;
	uint64_t epoch; /* barriers raised before the first entry */
	uint64_t check; /* XXH3-64 of what is before it */
};

struct journal_entry {
	uint8_t state, kind, flags, keyspace_size;
	uint32_t body_size;
	uint32_t check;
	uint32_t now;      /* s: when the client's request came */
	int64_t timestamp; /* µs; BARRIER: its ticket */
	uint8_t data[];
};

_Static_assert(sizeof(struct journal_head) == 64, "on disk");
_Static_assert(sizeof(struct journal_entry) == 24, "on disk");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is read in place");

/* Bytes that an entry takes. */
static inline size_t journal_entry_size(size_t keyspace_size, size_t body_size)
{
	return (sizeof(struct journal_entry) + keyspace_size + body_size + 7) & ~(size_t)7;
}

static inline enum journal_kind journal_kind(const struct journal_entry *e)
{
	return (enum journal_kind)(e->kind & 15);
}

static inline enum journal_state journal_state(const struct journal_entry *e)
{
	return (enum journal_state)(e->state & ENTRY_STATE_MASK);
}

static inline struct span journal_body(const struct journal_entry *e)
{
	return span_of(e->data + e->keyspace_size, e->body_size);
}

/* "INTENT", "WRITE" …; NULL for what is none. */
const char *journal_state_name(unsigned state);
const char *journal_kind_name(unsigned kind);

uint32_t journal_check(const struct journal_entry *e, uint64_t salt);
void journal_head_seal(struct journal_head *h);

/* 0; −EINVAL: not one of our files, damaged, or of another version (*ret_why says which, a constant). */
int journal_head_read(struct span file, const struct journal_head **ret, const char **ret_why);

/*
 * Walks the entries: *at begins as 0. The next one, or NULL at the end; *ret_torn then says whether something that is not an entry
 * stands there (bytes behind it are lost). Reads only inside `file`, whatever is in it.
 */
const struct journal_entry *journal_next(struct span file, size_t *at, bool *ret_torn);
