/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contact points are asked first, and name their peers, which are asked next. A node may be known by
 * several addresses (a Service, a load balancer, its own): its host id tells that it was asked already.
 */
#include "mirror/writers.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/client.h"

#define QUESTION_MS 3000u
#define NAME_MAX_SHOWN 256
#define HOST_ID 16

struct survey {
	const struct cluster *origin;
	uint32_t mark;
	writers_ours ours;
	writers_foreign foreign;
	void *context;
	struct addr nodes[WRITERS_NODES_MAX];
	unsigned count;
	uint8_t asked[WRITERS_NODES_MAX][HOST_ID];
	unsigned asked_count;
	bool too_many;
	struct client *client; /* the one that is being asked */
	uint16_t port;	       /* of that node: for peers that name none */
	bool again;	       /* it was asked already, by another address */
	unsigned unreachable;
	char unreachable_names[200];
};

static struct span cell_of(const struct column *columns, const struct span *cells, unsigned count,
			   const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (span_equal(columns[i].name, span_text(name)))
			return cells[i];
	return (struct span){0};
}

/* An inet cell. false for null and for sizes that are no address. */
static bool addr_of(struct span cell, uint16_t port, struct addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (cell.size == 4) {
		ret->in.sin_family = AF_INET;
		memcpy(&ret->in.sin_addr, cell.data, 4);
	} else if (cell.size == 16) {
		ret->in6.sin6_family = AF_INET6;
		memcpy(&ret->in6.sin6_addr, cell.data, 16);
	} else {
		return false;
	}
	addr_set_port(ret, port);
	addr_unmap(ret);
	return true;
}

static bool is_any(const struct addr *a)
{
	return a->sa.sa_family == AF_INET ? a->in.sin_addr.s_addr == 0
					  : IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

static uint16_t port_of(struct span cell, uint16_t otherwise)
{
	if (cell.size != 4)
		return otherwise;
	uint32_t port = (uint32_t)cell.data[0] << 24 | (uint32_t)cell.data[1] << 16 |
			(uint32_t)cell.data[2] << 8 | cell.data[3];

	return port > 0 && port <= 65535 ? (uint16_t)port : otherwise;
}

/* ------------------------------------------------------------- the nodes */

static void add_node(struct survey *s, const struct addr *node)
{
	for (unsigned i = 0; i < s->count; i++)
		if (addr_equal(&s->nodes[i], node))
			return;
	if (s->count == WRITERS_NODES_MAX)
		s->too_many = true;
	else
		s->nodes[s->count++] = *node;
}

static int on_peer(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct survey *s = context;
	struct addr node;
	struct span address = cell_of(columns, cells, count, "native_address");
	uint16_t port = port_of(cell_of(columns, cells, count, "native_port"), s->port);

	if (!address.data)
		address = cell_of(columns, cells, count, "rpc_address");
	/* A node that listens everywhere gives no address to dial; the one among nodes is the best guess
	 * then, as for drivers. */
	if (!addr_of(address, port, &node) || is_any(&node))
		if (!addr_of(cell_of(columns, cells, count, "peer"), port, &node))
			return 0;
	add_node(s, &node);
	return 0;
}

static int on_local(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct survey *s = context;

	(void)columns;
	if (count != 1 || cells[0].size != HOST_ID)
		return 0;
	for (unsigned i = 0; i < s->asked_count; i++)
		if (!memcmp(s->asked[i], cells[0].data, HOST_ID)) {
			s->again = true;
			return 0;
		}
	if (s->asked_count < WRITERS_NODES_MAX)
		memcpy(s->asked[s->asked_count++], cells[0].data, HOST_ID);
	return 0;
}

/* ------------------------------------------------------------- their clients */

static void copy_text(struct span cell, char to[NAME_MAX_SHOWN])
{
	size_t n = cell.size < NAME_MAX_SHOWN - 1 ? cell.size : NAME_MAX_SHOWN - 1;

	/* The client chose it, and it goes to terminals and logs. */
	for (size_t i = 0; i < n; i++)
		to[i] = cell.data[i] < 0x20 || cell.data[i] == 0x7f ? ' ' : (char)cell.data[i];
	to[n] = 0;
}

static bool is_agent(struct span driver)
{
	size_t n = sizeof(CLIENT_DRIVER_NAME) - 1;

	return driver.size >= n && !memcmp(driver.data, CLIENT_DRIVER_NAME, n) &&
	       (driver.size == n || driver.data[n] == ' ');
}

static int on_client(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct survey *s = context;
	struct span driver_cell = cell_of(columns, cells, count, "driver_name");
	char driver[NAME_MAX_SHOWN], user[NAME_MAX_SHOWN];
	struct addr client;

	if (!addr_of(cell_of(columns, cells, count, "address"),
		     port_of(cell_of(columns, cells, count, "port"), 0), &client))
		return 0;
	if (is_agent(driver_cell) || s->ours(s->context, &client))
		return 0;
	copy_text(driver_cell, driver);
	copy_text(cell_of(columns, cells, count, "username"), user);
	s->foreign(s->context, client_node(s->client), &client, driver, user);
	return 0;
}

static int ask_peers(struct survey *s, struct error *error)
{
	/* Before 4.0 there is only the older table, which knows no ports. */
	int rc = client_query(s->client, "SELECT peer, native_address, native_port FROM system.peers_v2",
			      CL_ONE, on_peer, s, error);

	if (rc == -EINVAL)
		rc = client_query(s->client, "SELECT peer, rpc_address FROM system.peers", CL_ONE, on_peer, s,
				  error);
	return rc;
}

/* Asks the node that s->client is connected to. */
static int ask_node(struct survey *s, struct error *error)
{
	int rc = client_query(s->client, "SELECT host_id FROM system.local WHERE key = 'local'", CL_ONE, on_local, s, error);

	if (rc < 0 || s->again)
		return rc;
	rc = s->origin->sni ? 0 : ask_peers(s, error);
	if (rc < 0)
		return rc;
	rc = client_query(s->client, "SELECT address, port, driver_name, username FROM system_views.clients",
			  CL_ONE, on_client, s, error);
	if (rc == -EINVAL)
		return error_set(error, -ENOTSUP,
				 "%s has no system_views.clients (Cassandra 4.0 and later): who else writes "
				 "to that cluster is unknown",
				 client_node(s->client));
	if (rc == -EPERM)
		return error_set(error, -EPERM,
				 "role %s may not read who is connected; on that cluster: GRANT SELECT ON "
				 "system_views.clients TO \"%s\";",
				 s->origin->username, s->origin->username);
	return rc;
}

static void note_unreachable(struct survey *s, const struct addr *node)
{
	char text[ADDR_TEXT_MAX];
	size_t at = strlen(s->unreachable_names);

	s->unreachable++;
	if (at + sizeof(text) + 8 < sizeof(s->unreachable_names))
		snprintf(s->unreachable_names + at, sizeof(s->unreachable_names) - at, "%s%s", at ? ", " : "",
			 addr_format(node, text));
	else if (at && s->unreachable_names[at - 1] != '.')
		snprintf(s->unreachable_names + at, sizeof(s->unreachable_names) - at, ", ...");
}

int writers_list(const struct cluster *origin, uint32_t mark, writers_ours ours, writers_foreign foreign,
		 void *context, struct error *error)
{
	struct survey *s = calloc(1, sizeof(*s));
	unsigned asked = 0;
	int rc = 0, last = -EDESTADDRREQ;

	if (!s)
		return error_set(error, -ENOMEM, "out of memory");
	*s = (struct survey){
	    .origin = origin, .mark = mark, .ours = ours, .foreign = foreign, .context = context};
	/* Behind an SNI proxy the configured nodes are all there are to be asked, and have one address in common. */
	for (unsigned i = 0; i < origin->node_count; i++)
		if (origin->sni)
			s->nodes[s->count++] = origin->nodes[i];
		else
			add_node(s, &origin->nodes[i]);
	if (!s->count)
		error_set(
		    error, last,
		    "no contactPoints of that cluster are configured: who else writes to it is unknown");

	/* The list grows while it is walked. */
	for (unsigned i = 0; i < s->count; i++) {
		struct error why = {0};
		struct endpoint to;

		s->client = NULL;
		s->again = false;
		s->port = addr_port(&s->nodes[i]);
		if (origin->sni)
			cluster_endpoint(origin, i, &to);
		else
			cluster_endpoint_at(origin, &s->nodes[i], &to);
		rc = client_open(&s->client, origin, &to, mark, QUESTION_MS, &why);
		if (rc == 0)
			rc = ask_node(s, &why);
		client_close(s->client);
		if (rc == 0) {
			asked++;
			continue;
		}
		last = rc;
		if (error)
			*error = why;
		/* The same everywhere, and nothing that waiting or another node would change. */
		if (rc == -ENOTSUP || rc == -EPERM || rc == -EACCES || rc == -ENOKEY || rc == -ENOMEM)
			break;
		note_unreachable(s, &s->nodes[i]);
		rc = 0;
	}
	if (rc == 0 && !asked)
		rc = last;
	else if (rc == 0 && (s->unreachable || s->too_many)) {
		rc = error_set(error, -EHOSTUNREACH,
			       "nodes that could not be asked who is connected: %u%s%s%s", s->unreachable,
			       s->unreachable ? ", " : "", s->unreachable_names,
			       s->too_many ? "; and there are more nodes than can be asked" : "");
	}
	free(s);
	return rc;
}

bool writers_is_local(void *context, const struct addr *client)
{
	struct ifaddrs *list, *i;
	struct addr plain = *client;
	bool found = false;

	(void)context;
	addr_unmap(&plain);
	/* 127.0.0.0/8 is all ours, though only one address of it stands on the interface. */
	if (plain.sa.sa_family == AF_INET && ntohl(plain.in.sin_addr.s_addr) >> 24 == 127)
		return true;
	if (getifaddrs(&list) < 0)
		return false;
	for (i = list; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != plain.sa.sa_family)
			continue;
		if (plain.sa.sa_family == AF_INET)
			found =
			    ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == plain.in.sin_addr.s_addr;
		else if (plain.sa.sa_family == AF_INET6)
			found = IN6_ARE_ADDR_EQUAL(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr,
						   &plain.in6.sin6_addr);
	}
	freeifaddrs(list);
	return found;
}
