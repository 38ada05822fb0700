/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring as a cluster describes it: nodes and tokens of system.local and the peers, replication of system_schema.keyspaces. Asked with a
 * blocking client, for whoever routes by tokens: COPY, and the mirror's connections (replicas.h).
 */
#pragma once
#include "mirror/client.h"
#include "net/ring.h"

/*
 * Adds the cluster's nodes and tokens to an empty ring, first the node that answers: its address is `self`. A node without an address or
 * without tokens is coming or going, and left out. 0; −ENOSPC: more than a ring holds; −EPROTO: tables that are not understood; or what
 * client_query() says, with its reason. Then, too, the ring is to be given to ring_done().
 */
int ring_read(struct ring *r, struct client *client, const struct addr *self, struct error *error);

struct ring_replication {
	enum ring_strategy strategy; /* RING_LOCAL: neither of the others */
	unsigned factor;             /* of data center `dc` for RING_TOPOLOGY */
};

/* A value of system_schema.keyspaces.replication. False: malformed. */
bool ring_read_replication(struct span map, const char *dc, struct ring_replication *ret);
