/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the mirror to a node of the other cluster, with stream ids of its own.
 *
 *   DOWN ─▶ DIALING ─▶ STARTUP ─▶ AUTH ─▶ UP ─▶ (lost) DOWN, dialled again with back-off
 *                         └ version refused: once more with a lower one
 *
 * Protocol v5 is spoken wherever the cluster does, whatever the client spoke: then keyspace and now_in_seconds travel with each
 * request. On v3/v4 a request whose text names no keyspace waits until the connection is bound to its keyspace; where the cluster refuses
 * that, the request is refused with its reason.
 */
#pragma once
#include "mirror/dispatch.h"

enum target_state { TARGET_DOWN, TARGET_DIALING, TARGET_STARTUP, TARGET_MECHANISM, TARGET_AUTH, TARGET_UP, TARGET_CLOSED };

struct target *target_new(struct dispatch *d, unsigned node);
/* Dials when down and its time has come (`now_ns`). */
void target_tick(struct target *t, uint64_t now_ns);
/* Closes and frees (later, from the loop). Records in flight go back through dispatch_failed(−ECANCELED). */
void target_free(struct target *t);

/* Whether another record can be sent now. */
bool target_ready(const struct target *t);
uint32_t target_inflight(const struct target *t);
/* Whether it leads to one of these contact points (by index a bit each), and to that node itself, not to a host that stands in for it. */
bool target_among(const struct target *t, uint64_t nodes);

/*
 * Encodes the record into the output buffer. 0; −EAGAIN: not now (window, buffer, another keyspace is being bound);
 * −EINPROGRESS: *ret_missing is not prepared there; target_prepare() first; other −errno: it can never be sent;
 * > 0 (enum cql_error): the cluster refuses its keyspace, and nothing was sent.
 */
int target_send(struct target *t, struct record *r, struct prepared **ret_missing);
/*
 * Sends PREPARE for the statement unless one is under way, on v3/v4 behind the USE that it may need: dispatch_prepared() tells what came of
 * it. 0; −EAGAIN: not now; −EBADMSG: its text is not understood; > 0 (enum cql_error): the cluster refuses its keyspace.
 */
int target_prepare(struct target *t, struct prepared *p);
void target_flush(struct target *t);
