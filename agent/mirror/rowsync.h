/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row sync: the cure for writes that cannot be replayed (lightweight transactions, list operations, unknown
 * outcome, statements that nobody could classify). It derives the rows that a request touches, reads them
 * with WRITETIME and TTL from both clusters, and makes the other side's equal to those of `from`.
 *
 *   worker ──submit──▶ waiting ──due──▶ running ──▶ done(0 or the reason why it cannot be done)
 *                        ▲  merged with      │
 *                        │  the same rows    │ transient trouble: back-off, for ever
 *                        └───────────────────┘
 *
 * The threads are row sync's own, each with one blocking connection to each cluster. Jobs for one partition
 * never run at the same time. A table that gives trouble is probed by one job while its others wait, so that
 * it holds up nobody else's. What is compared and written, and what cannot be told, is in docs/row-sync.md.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/span.h"
#include "cql/statement.h"
#include "relay/relay.h"

struct rowsync;

#define ROWSYNC_THREADS_MAX 16u
#define ROWSYNC_ROWS_MAX 10000u		/* of one range, partition or IN, on one side; more is −E2BIG */
#define ROWSYNC_BYTES_MAX (64u << 20)	/* read for one job; more is −E2BIG */
#define ROWSYNC_QUEUE_BYTES (64u << 20) /* of all keys that wait; more is −EAGAIN */

struct rowsync_options {
	const struct relay_options *relay; /* clusters, credentials, mark: borrowed until rowsync_free() */
	unsigned threads;		   /* 0: 2; at most ROWSYNC_THREADS_MAX */
	unsigned queue_max;		   /* jobs that are not done, merged ones included; 0: 16384 */
	/*
	 * Names for the side that is written: changes what `from` calls a table into what `to` calls it.
	 * false: the table does not belong there (−ENOENT). NULL: the same names. Any row sync thread.
	 */
	bool (*translate)(void *context, enum side to, struct table_name *name);
	/* Whether rows of the table (as `from` calls it) are passed over: it is not mirrored. NULL: none is. */
	bool (*passes_over)(void *context, const struct table_name *name);
	void *context;
};

/* One statement with its values. */
struct rowsync_child {
	struct span text;     /* of a prepared statement: what was prepared; or a whole text batch */
	const char *keyspace; /* the session's, "" or NULL = none */
	struct span values;   /* the [value]s without their count */
	uint16_t values_count;
	bool names;	 /* QUERY_NAMES */
	uint8_t version; /* of the protocol: 3, 4 or 5. Values are encoded alike in all of them */
};

struct rowsync_job {
	enum side from;			      /* the truth is read here; the other side is written */
	bool serial;			      /* the write was conditional: `from` is read at SERIAL */
	bool lists_only;		      /* the other side has applied it: only the lists of its rows may differ */
	uint64_t not_before_ns;		      /* CLOCK_MONOTONIC; 0 = at once */
	unsigned child_count;		      /* a BATCH has several; they are written as one logged batch */
	const struct rowsync_child *children; /* borrowed during the call */
	/*
	 * Called once, from a row sync thread (or from that of rowsync_stop()), when submit returned 0; `result`:
	 *   0           both sides hold the same, as far as it can be read
	 *   −ECANCELED  rowsync_stop() came first
	 * and what no repetition cures, for the gap ledger:
	 *   −ENOKEY     the statement tells no key (seen only now, with the table's schema)
	 *   −ENOENT     the table, or one of its columns, is not on the other side
	 *   −ENOTSUP    counters: they are never written
	 *   −E2BIG      too many rows or bytes
	 *   −EINVAL     a cluster refuses what is asked, also after its schema was read again
	 *   −EPERM, −EACCES, −EREMOTEIO
	 *               unauthorized, or an error of the server, twelve times
	 *   −ESTALE     the other side keeps something that is newer than all that may be written
	 *   −ESHUTDOWN  the other side has become the primary: `from` is no longer the truth
	 */
	void (*done)(void *context, int result);
	void *context;
};

/* NULL with the reason in `e`. Threads start at once, connections are opened when first needed. */
struct rowsync *rowsync_new(const struct rowsync_options *o, struct error *e);

/* Any thread; does not block on a cluster. 0; −EAGAIN: full; −ENOKEY: no key can be derived; −E2BIG: the key
 * alone is too large; −ENOMEM. `done` is called only after 0. */
int rowsync_submit(struct rowsync *rs, const struct rowsync_job *job);

/*
 * Whether a write can have been seen by a row sync while it was on its way: on the cluster that answers already, and not yet on the other,
 * so that the row sync copied it there. Any thread, no lock. rowsync_moment() before the write goes to either; false later: perhaps.
 */
uint32_t rowsync_moment(struct rowsync *rs);
bool rowsync_rested(struct rowsync *rs, uint32_t since);

/*
 * Which cluster answers the clients from now on: nothing is written to it any more, since what is newer there may not be in `from` (−ESHUTDOWN).
 * Any thread, before the first client of it goes on.
 */
void rowsync_primary(struct rowsync *rs, enum side primary);

/* The schema of `keyspace` (NULL: of any) has changed. Changes that nobody reports are found within 10 s. */
void rowsync_schema_changed(struct rowsync *rs, const char *keyspace);

/* No more jobs; those that wait are told −ECANCELED. Returns when all threads have ended: at most the 5 s of
 * one question. */
void rowsync_stop(struct rowsync *rs);
void rowsync_free(struct rowsync *rs); /* after rowsync_stop(); NULL is fine */

/*
 * default_time_to_live of a table on `side`, s, by the name that the origin has for it; −EAGAIN: not known, or not for long enough sure.
 * Any thread; does not block on a cluster.
 */
int rowsync_default_ttl(struct rowsync *rs, enum side side, const struct table_name *name);

struct rowsync_counters {
	uint64_t queued, running; /* now */
	uint64_t done, failed;	  /* done(0), done(anything else) */
	uint64_t merged;	  /* jobs that joined one that was waiting */
	uint64_t retries;	  /* attempts beyond the first */
	uint64_t rows;		  /* compared */
	uint64_t repaired,
	    deleted;	  /* cells, elements and row markers written; cells, elements and rows deleted */
	uint64_t splits;  /* batches that the other side found too large, applied one by one */
	uint64_t refused; /* −EAGAIN at submit */
};
void rowsync_count(struct rowsync *rs, struct rowsync_counters *ret);
