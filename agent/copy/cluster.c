// SPDX-License-Identifier: Apache-2.0
#include "copy/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copy/bytes.h"
#include "copy/number.h"
#include "mirror/client.h"
#include "net/sni.h"

#define MURMUR "org.apache.cassandra.dht.Murmur3Partitioner"

void copy_cluster_done(struct copy_cluster *c)
{
	for (unsigned i = 0; i < c->column_count; i++)
		free(c->columns[i].name);
	free(c->columns);
	ring_done(&c->ring);
	*c = (struct copy_cluster){0};
}

const struct copy_column *copy_cluster_column(const struct copy_cluster *c, const char *name)
{
	for (unsigned i = 0; i < c->column_count; i++)
		if (!strcmp(c->columns[i].name, name))
			return &c->columns[i];
	return NULL;
}

/* A cell as text; "" for null. What does not fit is cut. */
static const char *cell_text(struct span cell, char *to, size_t size)
{
	snprintf(to, size, "%.*s", (int)cell.size, cell.data ? (const char *)cell.data : "");
	return to;
}

/* ------------------------------------------------------------- columns */

static int on_column(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct copy_cluster *c = context;
	struct copy_column *grown;
	char kind[32], type[16];
	int32_t position = -1;

	(void)columns;
	if (count != 4 || !cells[0].data)
		return -EPROTO;
	grown = realloc(c->columns, (c->column_count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->columns = grown;
	if (cells[2].size == 4)
		position = (int32_t)load_be32(cells[2].data);
	cell_text(cells[1], kind, sizeof(kind));
	cell_text(cells[3], type, sizeof(type));
	grown += c->column_count;
	*grown = (struct copy_column){.name = strndup((const char *)cells[0].data, cells[0].size),
				      .kind = !strcmp(kind, "partition_key") ? COLUMN_PARTITION
					      : !strcmp(kind, "clustering")  ? COLUMN_CLUSTERING
					      : !strcmp(kind, "static")	     ? COLUMN_STATIC
									     : COLUMN_REGULAR,
				      .position = position,
				      .counter = !strcmp(type, "counter")};
	if (!grown->name)
		return -ENOMEM;
	c->column_count++;
	return 0;
}

static int compare_columns(const void *a, const void *b)
{
	const struct copy_column *x = a, *y = b;
	int kind_x = x->kind < COLUMN_STATIC ? (int)x->kind : COLUMN_STATIC,
	    kind_y = y->kind < COLUMN_STATIC ? (int)y->kind : COLUMN_STATIC;

	if (kind_x != kind_y)
		return kind_x - kind_y;
	if (kind_x < COLUMN_STATIC)
		return x->position - y->position;
	return strcmp(x->name, y->name);
}

/* 'text' with quotes doubled. */
static void put_literal(struct bytes *to, const char *text)
{
	bytes_u8(to, '\'');
	for (; *text; text++) {
		if (*text == '\'')
			bytes_u8(to, '\'');
		bytes_u8(to, (uint8_t)*text);
	}
	bytes_u8(to, '\'');
}

static int read_columns(struct copy_cluster *c, struct client *client, const char *keyspace,
			const char *table, struct error *error)
{
	struct bytes query = {0};
	int rc = -ENOMEM;

	bytes_text(
	    &query,
	    "SELECT column_name, kind, position, type FROM system_schema.columns WHERE keyspace_name = ");
	put_literal(&query, keyspace);
	bytes_text(&query, " AND table_name = ");
	put_literal(&query, table);
	bytes_u8(&query, 0);
	if (!query.failed)
		rc = client_query(client, (const char *)query.data, CL_LOCAL_ONE, on_column, c, error);
	bytes_done(&query);
	if (rc == 0 && c->column_count == 0)
		return error_set(error, -ENOENT, "there is no table %s.%s", keyspace, table);
	if (rc == 0)
		qsort(c->columns, c->column_count, sizeof(*c->columns), compare_columns);
	return rc;
}

/* ------------------------------------------------------------- replication */

struct replication {
	bool found;
	enum ring_strategy strategy;
	unsigned factor;
	const char *local_dc;
};

/* "3", or "3/1" where one of them is transient. */
static unsigned factor_of(struct span text)
{
	unsigned n = 0;

	for (size_t i = 0; i < text.size && text.data[i] >= '0' && text.data[i] <= '9' && n < 1000; i++)
		n = n * 10 + text.data[i] - '0';
	return n;
}

static int on_replication(void *context, const struct column *columns, const struct span *cells,
			  unsigned count)
{
	struct replication *r = context;
	struct span map = cells[0], head, key, value;

	(void)columns;
	if (count != 1 || !span_take(&map, 4, &head))
		return -EPROTO;
	r->found = true;
	for (uint32_t n = load_be32(head.data); n; n--) {
		if (!span_take_bytes(&map, &key) || !span_take_bytes(&map, &value))
			return -EPROTO;
		if (span_equal(key, span_text("class"))) {
			r->strategy = memmem(value.data, value.size, "SimpleStrategy", 14) ? RING_SIMPLE
				      : memmem(value.data, value.size, "NetworkTopologyStrategy", 23)
					  ? RING_TOPOLOGY
					  : RING_LOCAL;
		} else if (span_equal(key, span_text("replication_factor")) ||
			   span_equal(key, span_text(r->local_dc))) {
			r->factor = factor_of(value);
		}
	}
	return 0;
}

static int read_replication(struct client *client, const char *keyspace, struct replication *ret,
			    struct error *error)
{
	struct bytes query = {0};
	int rc = -ENOMEM;

	bytes_text(&query, "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ");
	put_literal(&query, keyspace);
	bytes_u8(&query, 0);
	if (!query.failed)
		rc = client_query(client, (const char *)query.data, CL_LOCAL_ONE, on_replication, ret, error);
	bytes_done(&query);
	if (rc == 0 && !ret->found)
		return error_set(error, -ENOENT, "there is no keyspace %s", keyspace);
	return rc;
}

/* ------------------------------------------------------------- nodes */

/* A set of tokens, which are text. Those of other partitioners are not kept. */
static int add_tokens(struct ring *r, unsigned node, struct span set)
{
	struct span head, token;
	int64_t value;
	int rc = 0;

	if (!r->hashed || !set.data)
		return 0;
	if (!span_take(&set, 4, &head))
		return -EPROTO;
	for (uint32_t n = load_be32(head.data); n && rc == 0; n--) {
		if (!span_take_bytes(&set, &token))
			return -EPROTO;
		if (number_parse_int(token, &value))
			rc = ring_add_token(r, node, value);
	}
	return rc;
}

/* An id that is no UUID leaves a node without one, which is then spoken to through the control host. */
static void keep_id(struct ring_node *n, struct span id)
{
	if (id.size != 16)
		return;
	for (unsigned i = 0, at = 0; i < 16; i++)
		at += (unsigned)snprintf(n->id + at, sizeof(n->id) - at, "%s%02x",
					 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id.data[i]);
}

static int on_local(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct copy_cluster *c = context;
	char dc[64], rack[64];
	int node;

	(void)columns;
	if (count != 5)
		return -EPROTO;
	c->ring.hashed = span_equal(cells[3], span_text(MURMUR));
	node = ring_add_node(&c->ring, &c->contact.nodes[0], cell_text(cells[0], dc, sizeof(dc)),
			     cell_text(cells[1], rack, sizeof(rack)));
	if (node >= 0)
		keep_id(&c->ring.nodes[node], cells[4]);
	return node < 0 ? node : add_tokens(&c->ring, (unsigned)node, cells[2]);
}

static bool take_address(struct span cell, uint16_t port, struct addr *ret)
{
	static const uint8_t any[16];

	memset(ret, 0, sizeof(*ret));
	if ((cell.size != 4 && cell.size != 16) || !memcmp(cell.data, any, cell.size))
		return false;
	if (cell.size == 4) {
		ret->in.sin_family = AF_INET;
		memcpy(&ret->in.sin_addr, cell.data, 4);
	} else {
		ret->in6.sin6_family = AF_INET6;
		memcpy(&ret->in6.sin6_addr, cell.data, 16);
	}
	addr_set_port(ret, port);
	return true;
}

/* peer, native address, data center, rack, tokens, host id [, port]. A row without tokens or an address is a node that
 * is coming or going. */
static int on_peer(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct copy_cluster *c = context;
	uint16_t port = addr_port(&c->contact.nodes[0]);
	char dc[64], rack[64];
	struct addr addr;
	int node;

	(void)columns;
	if (count < 6)
		return -EPROTO;
	if (count > 6 && cells[6].size == 4)
		port = (uint16_t)load_be32(cells[6].data);
	if (!cells[4].data || (!take_address(cells[1], port, &addr) && !take_address(cells[0], port, &addr)))
		return 0;
	node = ring_add_node(&c->ring, &addr, cell_text(cells[2], dc, sizeof(dc)),
			     cell_text(cells[3], rack, sizeof(rack)));
	if (node >= 0)
		keep_id(&c->ring.nodes[node], cells[5]);
	return node < 0 ? node : add_tokens(&c->ring, (unsigned)node, cells[4]);
}

static int read_nodes(struct copy_cluster *c, struct client *client, struct error *error)
{
	int rc = client_query(
	    client,
	    "SELECT data_center, rack, tokens, partitioner, host_id FROM system.local WHERE key = 'local'",
	    CL_LOCAL_ONE, on_local, c, error);

	if (rc == 0 && c->ring.node_count == 0)
		return error_set(error, -EPROTO, "%s: system.local has no row", c->control_text);
	if (rc < 0)
		return rc;
	rc = client_query(
	    client,
	    "SELECT peer, native_address, data_center, rack, tokens, host_id, native_port FROM "
	    "system.peers_v2",
	    CL_LOCAL_ONE, on_peer, c, error);
	if (rc == -EINVAL) /* before Cassandra 4 */
		rc = client_query(client,
				  "SELECT peer, rpc_address, data_center, rack, tokens, host_id FROM system.peers",
				  CL_LOCAL_ONE, on_peer, c, error);
	return rc;
}

/* ------------------------------------------------------------- where to */

/* The host without a port; nothing for an address. */
static void keep_name(const char *host, char name[ENDPOINT_NAME])
{
	unsigned char raw[4];

	snprintf(name, ENDPOINT_NAME, "%.*s", (int)strcspn(host, ":"), host);
	if (*host == '[' || strchr(host, ':') != strrchr(host, ':') || inet_pton(AF_INET, name, raw) == 1)
		*name = 0;
}

bool copy_cluster_by_name(const struct copy_cluster *c)
{
	return c->contact.sni || c->sni_name;
}

void copy_cluster_control(const struct copy_cluster *c, unsigned turn, struct endpoint *ret)
{
	cluster_endpoint(&c->contact, c->contact.sni ? c->turn + turn : 0, ret);
	if (c->sni_name)
		snprintf(ret->sni, sizeof(ret->sni), "%s", c->sni_name);
}

void copy_cluster_node(const struct copy_cluster *c, unsigned node, struct endpoint *ret)
{
	const struct ring_node *n = &c->ring.nodes[node];

	if (!copy_cluster_by_name(c)) {
		cluster_endpoint_at(&c->contact, &n->addr, ret);
		return;
	}
	copy_cluster_control(c, node, ret);
	if (*n->id)
		snprintf(ret->sni, sizeof(ret->sni), "%s", n->id);
}

static int find_control(struct copy_cluster *c, const struct copy_login *login, struct error *error)
{
	struct cluster *to = &c->contact;
	struct endpoint proxy;
	int rc = 0;

	to->username = login->username;
	to->password = login->password;
	to->tls = login->tls;
	to->sni = login->sni;
	to->node_count = 1;
	c->sni_name = login->sni_name;
	if (login->sni) {
		sni_endpoint(login->sni, 0, &proxy);
		to->nodes[0] = proxy.addr;
	} else {
		rc = addr_resolve(login->host, login->port, &to->nodes[0], error);
		keep_name(login->host, to->names[0]);
	}
	if (rc == 0)
		addr_format(&to->nodes[0], c->control_text);
	return rc;
}

/* Behind a bundle's proxy one node after the other, until one answers. */
static int open_control(struct copy_cluster *c, const struct copy_login *login, struct client **ret,
			struct error *error)
{
	unsigned count = login->sni ? sni_count(login->sni) : 1;
	struct endpoint to;
	int rc = -EHOSTUNREACH;

	for (c->turn = 0; c->turn < count; c->turn++) {
		copy_cluster_control(c, 0, &to);
		rc = client_open(ret, &c->contact, &to, 0, login->connect_ms, error);
		if (rc == 0 || rc == -EACCES || rc == -ENOKEY || rc == -EKEYREJECTED)
			break;
	}
	return rc;
}

int copy_cluster_read(struct copy_cluster *c, const struct copy_login *login, const char *keyspace,
		      const char *table, struct error *error)
{
	struct replication replication = {.strategy = RING_LOCAL};
	struct client *client = NULL;
	int rc;

	*c = (struct copy_cluster){0};
	rc = find_control(c, login, error);
	if (rc == 0)
		rc = open_control(c, login, &client, error);
	if (rc < 0)
		return rc;
	rc = read_nodes(c, client, error);
	if (rc == 0) {
		replication.local_dc = c->ring.nodes[0].dc;
		rc = read_replication(client, keyspace, &replication, error);
	}
	if (rc == 0)
		rc = read_columns(c, client, keyspace, table, error);
	if (rc == 0)
		rc = ring_finish(&c->ring, replication.strategy, replication.factor);
	client_close(client);
	if (rc < 0) {
		if (!*error->text)
			error_set(error, rc, "%s: the system tables cannot be understood: %s",
				  c->control_text, strerror(-rc));
		copy_cluster_done(c);
	}
	return rc;
}
