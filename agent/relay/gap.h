/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker did not have mirrored, counted by (cause, missing side, keyspace, table) until the ledger takes it.
 *
 *   worker's thread                                          main thread, once a second
 *   gap_note ─▶ own table, no lock ─gap_hand_over, 4 ×/s─▶ handed-over table ─gap_take─▶ cutover/ledger
 *
 * The ledger stands far above the relay; this is the small interface below it. Tables are named by cells: a cell is an interned list
 * of (keyspace, table), so that a request in flight carries 16 bits for whatever it writes to. Cells are never given back.
 *
 * Bounded: GAP_CELLS names and GAP_COUNTS counters for each worker. What does not fit is counted without its table's name, never
 * dropped. Neither values nor texts of statements come here.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cql/statement.h"
#include "net/addr.h"
#include "relay/relay.h"

enum gap_cause {
	GAP_LWT = 1,
	GAP_COUNTER,
	GAP_LIST,
	GAP_FUNCTION,
	GAP_UNCLASSIFIED,
	GAP_POLICY,
	GAP_UNKNOWN_OUTCOME, /* it may or may not be on the primary */
	GAP_SHED,            /* the mirror's budget was spent */
	GAP_DEAD,            /* the other cluster refused it for good */
	GAP_UNDELIVERED,     /* still queued when the agent ended */
	GAP_CAUSES
};

#define GAP_CELLS 2048
#define GAP_COUNTS 1024      /* a power of two */
#define GAP_SESSIONS_MAX 4096 /* begins and ends of opaque sessions between two takings */
#define GAP_CELL_ANY 0       /* the table is not known: any of them */

/* The word for it in the ledger and in cqlferry_unmirrored_total{cause}. */
const char *gap_cause_name(enum gap_cause cause);
enum gap_cause gap_cause_of(enum unmirrored why);

struct gap_count {
	enum gap_cause cause;
	enum side missing;               /* the cluster that lacks the writes */
	char keyspace[CQL_NAME_MAX + 1]; /* both empty: not known */
	char table[CQL_NAME_MAX + 1];
	uint64_t count;
	int64_t first_us, last_us; /* wall clock, µs: when the writes were made */
};

struct gap_session {
	bool begin;
	enum side missing;
	uint64_t key;    /* the same at begin and end, and no other open session's */
	uint64_t cookie; /* SO_COOKIE of the client's socket, 0 = not intercepted */
	int64_t at_us;
	struct addr client, destination;
};

struct gap;
struct prepared_slot;
struct request;

/* NULL = out of memory. */
struct gap *gap_new(void);
void gap_free(struct gap *g);

/* The cell for the tables of `s`; a table without keyspace is in `keyspace` ("" = not known). The worker's thread, as all up to hand_over. */
uint16_t gap_cell(struct gap *g, const struct statement *s, const char *keyspace);
/*
 * The one of a write: `session_keyspace` holds its unqualified names unless the request names another. `slot`: its prepared statement, where the cell is
 * remembered, or NULL.
 */
uint16_t gap_cell_write(struct gap *g, const struct statement *s, struct prepared_slot *slot, const struct request *q, const char *session_keyspace);

uint16_t gap_cell_of(struct gap *g, const char *keyspace, const char *table);

/* The first table of a list and the rest of it (*cell). False: the list has ended (the names of GAP_CELL_ANY are not known). */
bool gap_cell_next(const struct gap *g, uint16_t *cell, const char **keyspace, const char **table);

/* One write, made `age_us` ago, was not mirrored (counted once for each table of its cell). No lock, no system call. */
void gap_note(struct gap *g, enum gap_cause cause, enum side missing, uint16_t cell, int64_t age_us);

/* A session that we cannot read begins or ends. */
void gap_opaque(struct gap *g, const struct gap_session *session);

/* Makes what was noted visible to gap_take(). Locks when there is something. */
void gap_hand_over(struct gap *g);

/* Any thread: each count and session handed over since the last taking, in no order of counts. Everything is borrowed. */
void gap_take(struct gap *g, void (*count)(void *context, const struct gap_count *c),
	      void (*session)(void *context, const struct gap_session *s), void *context);
