/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which contact points of a cluster hold which partitions, so that a write can go straight to one that does.
 *
 *   ring (ring_read.h) ─▶ sorted tokens ────────────────────────────────┐
 *   keyspaces ─▶ by distinct replication: for each range of the ring,   ├─▶ replicas_holders(keyspace, token)
 *                the contact points that hold it, a bit for each ───────┘
 *
 * What was read is never changed and counted: who has a reference looks at it without a lock. Read again now and then (control/vigil.h); in
 * between it may be out of date, which costs a hop inside the cluster, nothing else.
 */
#pragma once
#include "base/error.h"
#include "mirror/client.h"
#include "relay/cluster.h"

struct replicas;

/*
 * Asks the cluster; `client` is connected to contact point `point`. Blocks. 0 with a reference; −ENOTSUP with the reason where tokens
 * would say nothing: another partitioner, contact points that are not the nodes themselves (fewer than two of them are in the ring), or
 * in more than one data center, among which tokens must not choose; other −errno as of ring_read().
 */
int replicas_read(struct client *client, const struct cluster *cluster, unsigned point, struct replicas **ret, struct error *error);

struct replicas *replicas_get(struct replicas *s);
void replicas_put(struct replicas *s); /* NULL is fine */

/* The contact points, by their index a bit each, that hold the token in that keyspace; 0 = none does, or nobody knows. */
uint64_t replicas_holders(const struct replicas *s, const char *keyspace, int64_t token);
