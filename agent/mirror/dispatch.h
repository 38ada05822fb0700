/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of one worker's records to one cluster.
 *
 *                     ┌────────────── retry after back-off ◀─ delayed ◀─ transient error
 *                     ▼                                                      │
 *   dispatch_push ─▶ queue ─▶ pump ─▶ target (stream ids) ─▶ answer ─────────┼─▶ confirmed: the journal keeps it for a while
 *        │            ▲  ▲     ├▶ parked: its statement is being prepared    └─▶ permanent error: dead letter
 *        │            │  └─────┘
 *        │            │        └▶ row sync (rows.h) ─▶ done, or on the gap ledger
 *        └▶ journal ──┘ refill (backlog.c)
 *
 * Memory is bounded by DISPATCH_LIVE records; what comes beyond that waits in the journal, and as soon as something waits there all
 * that follows does, so that nothing overtakes it for long. An answer is not durability: a killed node forgets what its commit log
 * had not yet synced, so the journal keeps what was confirmed for a while, and it is sent again when a node comes back.
 *
 * Records go out in order and may overtake each other: with one timestamp on both clusters order does not matter. Where it does (DDL,
 * TRUNCATE) the record is a barrier: see barrier.h. What an earlier life of the agent left behind comes first: see recovery.h.
 */
#pragma once
#include "base/room.h"
#include "base/sparing.h"
#include "mirror/journal.h"
#include "mirror/mirror.h"
#include "relay/worker.h"

#define DISPATCH_TARGETS 4   /* connections of one worker to one cluster */
#define DISPATCH_WINDOW 1024 /* records in flight on one connection */
#define DISPATCH_LIVE 8192   /* records in memory of one worker for one cluster, those in flight not counted */

struct replicas;
struct tables;
struct target;

struct dispatch {
	uint32_t magic;
	struct mirror *mirror;
	struct worker *worker;
	struct journal *journal;
	struct journal *again;          /* confirmed writes of which the rows are compared once more, for a next life (rows.c) */
	struct journal *recovered;      /* of an earlier life; NULL = nothing of it is left */
	enum side side;                 /* the cluster that the records go to */
	bool on;                        /* connections are wanted */
	struct record *head, *tail;     /* queue */
	struct record *delayed, *parked;
	struct record *fences;          /* marks and barriers before which something waits in the journal (backlog.c) */
	uint32_t queued, waiting, flying; /* in queue; delayed + parked; sent, or in row sync */
	uint32_t delayed_blocking;      /* delayed for a reason that a barrier must wait for */
	uint32_t barriers;              /* of our own: in the queue, delayed, or on their way */
	struct target *targets[DISPATCH_TARGETS];
	unsigned target_count, next_target;
	struct replicas *replicas;      /* which of them hold what (shares); NULL = unknown, or there is nothing to choose */
	struct sparing dead_lines, rows_lines; /* dead letters; rows that cannot be compared */
	uint64_t reclaimed_ns, rescanned_ns;
	bool fenced;                    /* a barrier of our own is on its way */
	bool resting;                   /* nothing more is sent: the agent ends */
	bool left_behind;               /* it has ended, and something waits on disk for the next life */
	struct rows_job *rows;          /* records in row sync */
	uint32_t rows_count;
	struct ailing *ailing;          /* by cell: tables that the cluster refuses */
	struct tables *tables;          /* what waits, by table */
	bool left_any, left[GAP_CELLS]; /* cells of writes that the search in the journal has passed over */
	struct room room;               /* for requests that get other names */
	uv_timer_t timer;               /* delayed records, reconnects, space */
	void (*settled)(struct dispatch *d);
	void (*space)(struct dispatch *d);
};

/* 0, or −errno with the reason. */
int dispatch_init(struct dispatch *d, struct mirror *m, struct worker *w, enum side side, struct error *error);
/* Connections come up or go down (when nothing is left to send). */
void dispatch_switch(struct dispatch *d, bool on);
/* What an earlier life left (takes it; while the loop runs). */
void dispatch_adopt(struct dispatch *d, struct journal *journal);
/* Closes everything. What is undelivered waits on disk for the next life; without a disk it goes on the gap ledger. */
void dispatch_close(struct dispatch *d);
/* After the loop has ended. */
void dispatch_done(struct dispatch *d);

/* Takes the record. */
void dispatch_push(struct dispatch *d, struct record *r);
/* Sends what was pushed. */
void dispatch_flush(struct dispatch *d);

/* Whether a connection can take requests now. */
bool dispatch_up(struct dispatch *d);
/* Prepares a statement on one of the cluster's nodes, ahead of its use. */
void dispatch_prepare(struct dispatch *d, struct prepared *p);

/* Nothing is on its way, and nothing waits. */
bool dispatch_idle(const struct dispatch *d);
/* Nothing is on its way, and nothing can be sent now. */
bool dispatch_resting(struct dispatch *d);
/* Nothing more is sent. True: nothing is on its way that must not be sent again unseen; row syncs may be. */
bool dispatch_rest(struct dispatch *d);
/* The journal lacks space: what is kept only as a precaution goes. False: there is none. */
bool dispatch_shrink(struct dispatch *d);

/* ---- for target.c and rows.c */

/* A node that was lost is back: what it may have forgotten is sent again. */
void dispatch_repeat(struct dispatch *d);

/* The other cluster confirmed the record. */
void dispatch_applied(struct dispatch *d, struct record *r);
/* It refused, failed, or was lost: retried or dead by error class. `code`: enum cql_error, or −errno for a lost connection. */
void dispatch_failed(struct dispatch *d, struct record *r, int32_t code);
/* Nothing came of it for now: it waits in the journal. */
void dispatch_postpone(struct dispatch *d, struct record *r);
/* The record's statement has to be prepared first: it waits until dispatch_prepared(). */
void dispatch_park(struct dispatch *d, struct record *r);
/* `p` was prepared on the cluster (code 0), or could not be. */
void dispatch_prepared(struct dispatch *d, struct prepared *p, int32_t code);
/* A connection came up: send. */
void dispatch_pump(struct dispatch *d);

/* ---- backlog.c: what waits in the journal */

/* Fills the queue from the journal as far as there is room. */
void backlog_refill(struct dispatch *d);
/* Whether a record may go straight into the queue. */
bool backlog_flows(const struct dispatch *d, const struct record *r);
/* A mark or barrier that must wait for what is in the journal before it (takes it). */
void backlog_fence(struct dispatch *d, struct record *r);
/* Whether the table of the record refuses writes, is held, … for now. */
bool backlog_held(const struct dispatch *d, const struct record *r);
/* What was held is looked at again. */
void backlog_rescan(struct dispatch *d);

/* What stands in the queue from the first fence on that was not reached goes back to where it came from: something older has turned up. */
void backlog_withdraw(struct dispatch *d);

/* ---- dispatch.c, for backlog.c */

void dispatch_enqueue(struct dispatch *d, struct record *r);
/* The record goes on the gap ledger for `cause`, and ends. */
void dispatch_give_up(struct dispatch *d, struct record *r, enum gap_cause cause);
