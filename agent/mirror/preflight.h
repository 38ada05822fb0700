/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to be right before writes are mirrored, asked of both clusters: reachable, two different clusters,
 * same partitioner, clocks together, the origin's schema present on the target, and roles that may read and
 * write. Used by `phase mirror` and by `cqlferry doctor`. It reads and never changes anything.
 *
 *   preflight.c        nodes, identity, clocks
 *   preflight_schema.c keyspaces, types, tables, columns, …
 *   preflight_scope.c  what of the origin's is mirrored, under which names
 *   preflight_roles.c  privileges
 *   client.c           the connection
 */
#pragma once
#include <stdint.h>

#include "cql/scope.h"
#include "relay/relay.h"

enum preflight_grade {
	PREFLIGHT_OK,
	PREFLIGHT_NOTE, /* worth knowing; nothing to do */
	PREFLIGHT_WARN, /* works, but something will be worse, or could not be found out */
	PREFLIGHT_FAIL, /* mirroring would lose or refuse writes */
};

/*
 * Asks both clusters, and reports finding by finding: `found` gets both texts for the call, one line each;
 * `remedy` is NULL for OK and may be NULL for NOTE. Blocks: some tenths of a second where all is well, at
 * most 5 s for each question that is not answered. `cluster`, with credentials for these questions and, on
 * the target, for the mirror, is borrowed, as `scope` is (NULL: everything is mirrored); `mark`: SO_MARK for the connections. A cluster that cannot be
 * asked is a FAIL, not an error.
 * Returns the worst grade, or −ENOMEM.
 */
int preflight_run(const struct cluster cluster[SIDES], const struct scope *scope, uint32_t mark, unsigned max_clock_skew_ms,
		  void (*found)(void *context, enum preflight_grade grade, const char *what,
				const char *remedy),
		  void *context);
