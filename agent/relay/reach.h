/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How sessions and mirror reach a node of a cluster: straight, or through a host that can be reached where the node cannot
 * (the connection modes of net/mode.h).
 *
 *   reach_dial ─▶ direct ─────────────────────────────────────▶ the replica, or the document's error
 *              ├▶ proxy ──────────────────────────────────────▶ control hosts, the first that is up (net/eyeballs.h)
 *              └▶ auto ─▶ nothing known ─▶ trial ─▶ wait for its verdict ─┐
 *                      ├▶ known to answer ──────────────────────▶ replica ├─ fails: doubt ─▶ trial, and control hosts meanwhile
 *                      └▶ known not to, or in doubt ──────────────────────┴─▶ control hosts
 *
 * Verdicts come from trials alone (reach_trial.c): a connection of the agent's own, on which the node has to answer one OPTIONS. A
 * sidecar or load balancer in front of a node accepts connections whether or not it can reach the node, so that connect(2) alone
 * proves nothing. No client waits longer for a verdict than first_ms; the trial itself goes on for as long as any dial may
 * last, and a replica that was only slow is dialled straight from then on.
 *
 * Control hosts of a replica, in this order: connection.controlHosts; the node that this client has reached last itself; the
 * contact points. Those known not to answer come last, and never is it the client itself: a balancer on this node whose own connections
 * are intercepted would be asked for what it asks for. Where there is none but the replica itself, it is simply dialled.
 *
 * One table for all workers behind one lock, which is taken when a connection is opened or has come to nothing, never for what
 * flows on it. Each worker has a seat: its dials and trials, on its loop.
 */
#pragma once
#include <uv.h>

#include "net/dial.h"
#include "net/eyeballs.h"
#include "net/mode.h"
#include "relay/relay.h"

struct metrics;
struct reach;
struct reach_seat;
struct reach_dial;

/* What is shared. `options` is borrowed for life. NULL: out of memory. Says in the log which modes hold. */
struct reach *reach_new(const struct relay_options *options);
/* After the last seat is freed. NULL is fine. */
void reach_free(struct reach *r);

/* A worker's seat, before its thread runs. NULL: out of memory. `metrics` is borrowed. */
struct reach_seat *reach_seat_new(struct reach *r, uv_loop_t *loop, struct metrics *metrics);
/* On its thread, when all dials of it have ended: no more trials. The loop then finishes with what is left. */
void reach_seat_close(struct reach_seat *s);
/* After the loop has ended, or without one that ever ran (its handles are closed by then). NULL is fine. */
void reach_seat_free(struct reach_seat *s);
/* A few times a second, on one seat only: probes what is due, counts replicas by state. */
void reach_seat_tick(struct reach_seat *s, uint64_t now_ns);

struct reach_want {
	enum side side;
	struct addr replica; /* AF_UNSPEC behind an SNI proxy: there is no address to dial */
	unsigned turn;	     /* which contact point comes first, where any will do */
	uint64_t client;     /* whose own contact point may stand in; 0 = nobody's */
	struct addr from;    /* the client's address: it does not stand in for itself; AF_UNSPEC = whoever */
	bool passes_tls;     /* client and cluster speak TLS with each other: ours would go around it */
};

/*
 * Called once from the loop. `address`: who was dialled in the end. On failure `result->reason` says it all: the replica's, and
 * the control host's where that was tried.
 */
typedef void (*reach_done)(void *context, struct dial_result *result, const struct addr *address);

/* NULL: memory or descriptors are short. `done` is never called before this returns. */
struct reach_dial *reach_dial(struct reach_seat *s, const struct reach_want *want, reach_done done, void *context);
/* `done` will not be called. NULL is fine. */
void reach_cancel(struct reach_dial *d);

/* A connection to that address ended before a byte came: is there anybody behind it? */
void reach_doubt(struct reach_seat *s, enum side side, const struct addr *address);

/* For status: each replica that something is known of. Any thread. */
struct reach_view {
	enum side side;
	struct replica_verdict verdict;
};
/* At most `max` of them, those that cannot be reached first. Their number. */
unsigned reach_list(struct reach *r, struct reach_view *list, unsigned max);
/* The mode for a cluster's nodes where no rule says otherwise. */
enum connection_mode reach_mode(const struct reach *r, enum side side);
