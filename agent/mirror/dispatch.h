/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of one worker's records to one cluster.
 *
 *                     ┌────────────── retry after back-off ◀─ delayed ◀─ transient error
 *                     ▼                                                      │
 *   dispatch_push ─▶ queue ─▶ pump ─▶ target (stream ids) ─▶ answer ─────────┼─▶ applied: released
 *                     ▲         └▶ parked: its statement is being prepared   └─▶ permanent error: dead letter
 *                     └──────────────── prepared ◀──────────┘
 *
 * An answer is not durability: a killed node forgets what its commit log had not yet synced. Records therefore outlive the answer
 * by `retain_ns`, and are sent again when a node comes back. When the journal's budget is short they go first.
 *
 * Records go out in order and may overtake each other: with one timestamp on both clusters order does not matter. Where it does (DDL,
 * TRUNCATE) the record is a barrier: see barrier.h.
 */
#pragma once
#include "mirror/journal.h"
#include "mirror/mirror.h"
#include "relay/worker.h"

#define DISPATCH_TARGETS 4   /* connections of one worker to one cluster */
#define DISPATCH_WINDOW 1024 /* records in flight on one connection */

struct target;

struct dispatch {
	uint32_t magic;
	struct mirror *mirror;
	struct worker *worker;
	struct journal *journal;
	enum side side;                 /* the cluster that the records go to */
	bool on;                        /* connections are wanted */
	bool settling;                  /* dispatch_settled() runs */
	struct record *head, *tail;     /* queue */
	struct record *delayed, *parked;
	struct record *retained, *retained_tail; /* applied, oldest first */
	uint32_t queued, waiting, flying; /* in queue; delayed + parked; sent */
	uint32_t delayed_blocking;      /* delayed for a reason that a barrier must wait for */
	struct target *targets[DISPATCH_TARGETS];
	unsigned target_count, next_target;
	unsigned dead_untold;           /* dead letters since the last log line */
	uint64_t dead_told_ns;
	bool fenced;                    /* a barrier of our own is on its way */
	uv_timer_t timer;               /* delayed records, reconnects */
	void (*settled)(struct dispatch *d);
	void (*space)(struct dispatch *d);
};

void dispatch_init(struct dispatch *d, struct mirror *m, struct worker *w, struct journal *j, enum side side);
/* Connections come up or go down (when nothing is left to send). */
void dispatch_switch(struct dispatch *d, bool on);
/* Closes everything; undelivered records are dropped and counted as dead. */
void dispatch_close(struct dispatch *d);

/* Takes the record. */
void dispatch_push(struct dispatch *d, struct record *r);
/* Sends what was pushed. */
void dispatch_flush(struct dispatch *d);

/* Whether a connection can take requests now. */
bool dispatch_up(struct dispatch *d);
/* Prepares a statement on one of the cluster's nodes, ahead of its use. */
void dispatch_prepare(struct dispatch *d, struct prepared *p);

static inline bool dispatch_idle(const struct dispatch *d)
{
	return d->queued == 0 && d->waiting == 0 && d->flying == 0;
}

/* Gives up the oldest retained records until some of the journal is free again. False: there were none. */
bool dispatch_shrink(struct dispatch *d);

/* ---- for target.c */

/* A node that was lost is back: what it may have forgotten is sent again. */
void dispatch_repeat(struct dispatch *d);

/* The other cluster confirmed the record. */
void dispatch_applied(struct dispatch *d, struct record *r);
/* It refused, failed, or was lost: retried or dead by error class. `code`: enum cql_error, or −errno for a lost connection. */
void dispatch_failed(struct dispatch *d, struct record *r, int32_t code);
/* The record's statement has to be prepared first: it waits until dispatch_prepared(). */
void dispatch_park(struct dispatch *d, struct record *r);
/* `p` was prepared on the cluster (code 0), or could not be. */
void dispatch_prepared(struct dispatch *d, struct prepared *p, int32_t code);
/* A connection came up: send. */
void dispatch_pump(struct dispatch *d);
