/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/cluster.h"

#include <stdio.h>

#include "net/sni.h"

static void set_names(const struct cluster *c, const char *host, struct endpoint *to)
{
	if (c->server_name && *c->server_name)
		host = c->server_name;
	to->tls = c->tls;
	snprintf(to->names[0], ENDPOINT_NAME, "%s", host);
	snprintf(to->sni, sizeof(to->sni), "%s", host);
}

void cluster_endpoint(const struct cluster *c, unsigned node, struct endpoint *ret)
{
	if (c->sni) {
		sni_endpoint(c->sni, node, ret);
		return;
	}
	*ret = (struct endpoint){.addr = c->nodes[node]};
	set_names(c, c->names[node], ret);
}

void cluster_endpoint_at(const struct cluster *c, const struct addr *node, struct endpoint *ret)
{
	const char *name = "";

	for (unsigned i = 0; i < c->node_count && !*name; i++)
		if (addr_equal(&c->nodes[i], node))
			name = c->names[i];
	*ret = (struct endpoint){.addr = *node};
	set_names(c, name, ret);
}
