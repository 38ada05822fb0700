/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap: how the relay tells the mirror about writes without knowing it (the mirror stands above the relay).
 *
 *   request parsed ─▶ intent() ─▶ record ─▶ bytes go to the primary ─▶ answer ─▶ outcome(record) ─▶ bytes go to the client
 *                                 (when relay_durable() says so, where pending() is not 0)         flush() ─▶ to the other cluster
 *
 * All calls come from the worker's own thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cql/request.h"
#include "cql/response.h"
#include "cql/statement.h"
#include "relay/relay.h"

struct record; /* one write; the mirror's */
struct prepared_slot;
struct session;

struct tap_write {
	/*
	 * How it reaches the other side: MIRRORABLE = by being repeated with its timestamp; ONCE = the same, but only once; LIST = so, and
	 * then a row sync, since elements stand in the order in which they arrive; LWT, FUNCTION, UNCLASSIFIED = by a row sync after its
	 * success; COUNTER = by being sent once. Never POLICY. A batch is what its most demanding child is.
	 */
	enum unmirrored way;
	const struct request *request;       /* borrows; body uncompressed, as the client sent it but for functions that became values */
	const struct statement *statement;   /* borrows; BATCH: a summary over its children */
	struct prepared_slot *slot;          /* EXECUTE; NULL otherwise */
	const char *keyspace;                /* the session's current one, "" = none */
	bool pinned;                         /* the relay sets `timestamp` on the request */
	int64_t timestamp;                   /* µs */
	enum side primary;                   /* who answers; the record is for the other side */
};

struct tap_ops {
	/* Per-worker state, made before the thread runs. NULL with the reason. */
	void *(*open)(void *mirror, struct worker *w, struct error *error);
	/* Begins to close connections and timers (the worker's thread); the loop ends when they are gone. */
	void (*close)(void *tap);
	/* After the loop has ended. */
	void (*free)(void *tap);

	/*
	 * A write is about to go to the primary. 0 with *ret (the relay returns it through outcome(), always, exactly once);
	 * −ENOSPC: relay it unmirrored (counted as shed by the tap); −EAGAIN: hold this session, relay_resume_stalled() follows.
	 */
	int (*intent)(void *tap, const struct tap_write *write, struct record **ret);

	/* What became of it; a conditional write that did not apply is refused. Takes the record. */
	void (*outcome)(void *tap, struct record *record, enum write_outcome outcome);

	/*
	 * The number under which relay_durable() will say that the last intent is as durable as configured: until then its request
	 * must not leave. 0: it may go at once.
	 */
	uint64_t (*pending)(void *tap);

	/* A batch of answers has been worked through: what they queued may be sent. */
	void (*flush)(void *tap);

	/* The course of the worker has changed (direction, mirroring on or off). */
	void (*course)(void *tap, const struct course *course);

	/* Whether nothing waits any more for the side that is not primary. */
	bool (*idle)(void *tap);
};

/* For the tap: intents up to this number are durable; their requests go out. */
void relay_durable(struct worker *w, uint64_t number);
/* For the tap: space is there again; sessions that got −EAGAIN go on. */
void relay_resume_stalled(struct worker *w);
