/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a connection to a cluster's node, without blocking, within a time limit: TCP and, where the endpoint says so, the TLS
 * handshake. Which host stands in for an unreachable replica is relay/reach.h's matter.
 */
#pragma once
#include <stdint.h>
#include <uv.h>

#include "net/endpoint.h"
#include "net/stream.h"

struct dial;

struct dial_result {
	int error;            /* 0, or −errno: −EKEYREJECTED (its certificate), −EPROTO (TLS), −ETIMEDOUT, what connect(2) said */
	const char *reason;   /* for a person; borrowed for the call; NULL when error is 0 */
	struct stream stream; /* when error is 0: the callee takes it; ready, TCP_NODELAY */
};

/* Called once from the loop. */
typedef void (*dial_done)(void *context, struct dial_result *result);

/*
 * Starts dialling `to` (borrowed). `mark`: SO_MARK that tells our kernel hooks to leave this connection alone (0 = none).
 * Returns the attempt, or NULL when memory or descriptors are short; `done` is never called before dial_start() returns.
 */
struct dial *dial_start(uv_loop_t *loop, const struct endpoint *to, uint32_t mark, unsigned timeout_ms, dial_done done,
			void *context);

/* Gives up: `done` will not be called. NULL is fine. */
void dial_cancel(struct dial *d);
