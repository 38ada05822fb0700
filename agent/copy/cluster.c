// SPDX-License-Identifier: Apache-2.0
#include "copy/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copy/bytes.h"
#include "mirror/ring_read.h"
#include "net/sni.h"

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
	const char *local_dc;
	struct ring_replication how;
};

static int on_replication(void *context, const struct column *columns, const struct span *cells,
			  unsigned count)
{
	struct replication *r = context;

	(void)columns;
	r->found = count == 1 && ring_read_replication(cells[0], r->local_dc, &r->how);
	return r->found ? 0 : -EPROTO;
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
	struct replication replication = {0};
	struct client *client = NULL;
	int rc;

	*c = (struct copy_cluster){0};
	rc = find_control(c, login, error);
	if (rc == 0)
		rc = open_control(c, login, &client, error);
	if (rc < 0)
		return rc;
	rc = ring_read(&c->ring, client, &c->contact.nodes[0], error);
	if (rc == 0) {
		replication.local_dc = c->ring.nodes[0].dc;
		rc = read_replication(client, keyspace, &replication, error);
	}
	if (rc == 0)
		rc = read_columns(c, client, keyspace, table, error);
	if (rc == 0)
		rc = ring_finish(&c->ring, replication.how.strategy, replication.how.factor);
	client_close(client);
	if (rc < 0) {
		if (!*error->text)
			error_set(error, rc, "%s: the system tables cannot be understood: %s",
				  c->control_text, strerror(-rc));
		copy_cluster_done(c);
	}
	return rc;
}
