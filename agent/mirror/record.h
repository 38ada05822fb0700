/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record: the handle in memory of one entry of the journal, while something is being done with it. What waits for long has none.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "mirror/journal_file.h"
#include "relay/prepared.h"

struct barrier;
struct held_answer;

enum record_kind { RECORD_WRITE, RECORD_BARRIER, RECORD_MARK };

struct record {
	struct record *next;           /* in a queue of the dispatch, or of free ones */
	struct journal_file *file;     /* NULL: a MARK */
	struct prepared_slot *slot;    /* EXECUTE */
	struct barrier *barrier;       /* BARRIER: ours; MARK: another worker's */
	struct held_answer *answer;    /* waits for the confirmation; NULL = the client has it, or it is none (acknowledge.h) */
	uint64_t acknowledged_ns;
	uint64_t retry_ns;             /* delayed: when again; ROWS: not before */
	int64_t timestamp;             /* µs; valid when pinned */
	size_t at;                     /* where the entry stands in its file */
	uint32_t now;                  /* s: when the client's request came: a late write must not live longer */
	uint32_t body_size;
	int32_t last_error;
	uint16_t attempts;             /* MARK: 1 = its barrier was told that it was reached */
	uint16_t cell;                 /* its tables (relay/gap.h) */
	uint8_t kind;                  /* enum record_kind */
	uint8_t entry;                 /* enum journal_kind */
	uint8_t to;                    /* enum side */
	uint8_t version, opcode, header_flags;
	uint8_t statement;             /* enum statement_kind */
	bool pinned, needs_keyspace;   /* needs_keyspace: struct statement, unqualified; no prepared statement's */
	bool serial;                   /* it was conditional */
	bool unknown;                  /* the primary may or may not have applied it */
	bool sent;                     /* COUNT, or ROWS, of an earlier life: the other cluster may or may not have applied it */
	bool once;                     /* ROWS, but to be sent as it is if that can be said to be for the first time: not when it has waited */
	bool compared;                 /* once: and its rows are compared afterwards in any case */
	bool refused;                  /* the other cluster does not understand the statement (last_error): its rows are compared instead */
	bool lists_only;               /* ROWS: it was sent once, and has arrived */
	uint32_t moment;               /* once: rowsync_moment() before it was */
	bool counted;                  /* in the backlog's sizes by table (tables.h) */
	char keyspace[CQL_NAME_MAX + 1];
};

/* The request's body, as the client sent it (borrowed; valid while the record is). */
static inline struct span record_body(const struct record *r)
{
	return journal_body(journal_file_entry(r->file, r->at));
}

/* acknowledged_ns of one from disk: by its time on the wall, to the second. `now_ns`: CLOCK_MONOTONIC. */
static inline uint64_t record_since(const struct record *r, uint64_t now_ns)
{
	int64_t age = clock_wall_us() / 1000000 - (int64_t)r->now;

	return now_ns - (age > 0 ? (uint64_t)age * 1000000000u : 0);
}
