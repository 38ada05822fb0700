/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster as configured: where to dial, who to be there, whom to expect. */
#pragma once
#include "net/endpoint.h"

#define RELAY_NODES_MAX 64

struct sni;

/* Strings and what is pointed at are borrowed for the life of the relay. */
struct cluster {
	struct addr nodes[RELAY_NODES_MAX]; /* contact points, resolved; behind an SNI proxy the proxy's
					       address, once for each node */
	unsigned node_count;
	const char *username, *password; /* "" = none */
	struct tls_context *tls;	 /* NULL = plain */
	const char
	    *server_name; /* whom every certificate has to be for; "" or NULL = the host that is dialled */
	char names[RELAY_NODES_MAX]
		  [ENDPOINT_NAME]; /* of the contact points that are names; "" = an address */
	unsigned control_count; /* so many of the nodes, the last ones, are hosts that stand in for those that
				   cannot be reached (connection.controlHosts) */
	struct sni *sni;	   /* the nodes are behind a proxy; NULL = dialled by address */
};

/* Contact point `node` (below node_count). */
void cluster_endpoint(const struct cluster *c, unsigned node, struct endpoint *ret);

/* Any node of the cluster by its address. Not to be asked behind an SNI proxy, where addresses say nothing.
 */
void cluster_endpoint_at(const struct cluster *c, const struct addr *node, struct endpoint *ret);
