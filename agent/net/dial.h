/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a connection to a cluster's node, without blocking, within a time limit. Here is also where a connection
 * mode (which host stands in for an unreachable replica) belongs.
 */
#pragma once
#include <stdint.h>
#include <uv.h>

#include "net/addr.h"

struct dial;

/* Called once from the loop: `fd` ≥ 0 (the callee takes it, non-blocking, TCP_NODELAY) or −errno. */
typedef void (*dial_done)(void *context, int fd);

/*
 * Starts dialling `to`. `mark`: SO_MARK that tells our kernel hooks to leave this connection alone (0 = none).
 * Returns the attempt, or NULL when memory or descriptors are short; `done` is never called before dial_start() returns.
 */
struct dial *dial_start(uv_loop_t *loop, const struct addr *to, uint32_t mark, unsigned timeout_ms, dial_done done,
			void *context);

/* Gives up: `done` will not be called. NULL is fine. */
void dial_cancel(struct dial *d);
