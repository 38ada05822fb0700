/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of one worker: every mirrored write from its intent until the other cluster has confirmed it.
 *
 *   journal_intent ─▶ IN DOUBT ─outcome applied─▶ QUEUED ─▶ (dispatch) ─▶ journal_release
 *                        └────── refused, unknown ─────────────────────▶ journal_release
 *
 * This journal lives in memory, in chunks that records are laid into one behind the other: no allocation for each write, and a
 * chunk goes back when its last record is released. A durable one has the same four functions.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "cql/request.h"
#include "cql/statement.h"
#include "relay/prepared.h"
#include "relay/relay.h"

struct chunk_of_records;
struct barrier;

enum record_kind { RECORD_WRITE, RECORD_BARRIER, RECORD_MARK };

struct record {
	struct record *next;           /* in a queue of the dispatch */
	struct chunk_of_records *chunk;
	struct prepared_slot *slot;    /* EXECUTE */
	struct barrier *barrier;       /* BARRIER: ours; MARK: another worker's */
	uint64_t acknowledged_ns;
	uint64_t retry_ns;             /* delayed: when again; retained: when it was applied */
	int64_t timestamp;             /* µs; valid when pinned */
	int32_t now_in_seconds;        /* when the client's request came: a late write must not live longer */
	uint32_t body_size;
	uint16_t attempts;             /* MARK: 1 = its barrier was told that it was reached */
	uint8_t kind;                  /* enum record_kind */
	uint8_t to;                    /* enum side */
	uint8_t version, opcode, header_flags;
	uint8_t statement;             /* enum statement_kind */
	uint8_t keyspace_size;
	bool pinned, needs_keyspace;   /* needs_keyspace: a table name without keyspace in a text */
	int32_t last_error;
	char keyspace[CQL_NAME_MAX + 1];
	char table[CQL_NAME_MAX + 1];  /* the first table, for people */
	uint8_t body[];
};

struct journal;

/* `budget` in bytes. NULL = out of memory. */
struct journal *journal_new(size_t budget);
void journal_free(struct journal *j);

/* Room for a record with a body of `body_size` bytes, zeroed up to it. NULL: the budget is spent (or memory short). */
struct record *journal_intent(struct journal *j, size_t body_size);
void journal_release(struct journal *j, struct record *r);

/* A record without a body that the budget does not limit: a barrier's mark must not be missing because writes are many. */
struct record *journal_mark(void);

/* Bytes that records hold now. */
size_t journal_bytes(const struct journal *j);
/* Records that are not released yet, marks not counted. */
size_t journal_records(const struct journal *j);
