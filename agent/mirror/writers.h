/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who else is connected to the origin. Writes of clients that no agent carries do not reach the target, so a
 * cutover asks first. Each node knows only its own connections: all are asked, those of
 * system.peers included.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "relay/relay.h"

#define WRITERS_NODES_MAX 1024

/* Whether a connection that a node sees from `client` (address and port) is one of ours. */
typedef bool (*writers_ours)(void *context, const struct addr *client);

/* One client that is not ours. All borrowed for the call; `driver` and `user` are "" where the node does not
 * say. */
typedef void (*writers_foreign)(void *context, const char *node, const struct addr *client,
				const char *driver, const char *user);

/*
 * Asks all nodes of the cluster (the origin; before a rollback, the target) and reports clients that are not
 * ours. Connections of agents themselves (driver "cqlferry …") are left out whatever `ours` says. Blocks: up
 * to 3 s for each node that does not answer. `context` goes to both callbacks.
 *
 * 0: every node was asked. Else −errno, with the reason in `error`; what was reported before it holds:
 *
 *   −EHOSTUNREACH  some nodes could not be asked, `error` names them: what they serve is unknown;
 *   −ENOTSUP       a node has no such table (Cassandra before 4.0): unknown altogether;
 *   −EPERM         the role may not read it: `error` holds the GRANT;
 *   other          no node could be asked at all.
 */
int writers_list(const struct cluster *origin, uint32_t mark, writers_ours ours, writers_foreign foreign,
		 void *context, struct error *error);

/*
 * A `writers_ours` that takes every address of this machine's interfaces for ours (context unused). So it
 * also passes clients on this machine that go round the agent, hostNetwork pods among them; a caller that
 * knows the relay's own connections can be stricter.
 */
bool writers_is_local(void *context, const struct addr *client);
