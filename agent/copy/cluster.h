/* SPDX-License-Identifier: Apache-2.0 */
/* What COPY asks the control host before it begins: the table's columns, the ring, and where replicas lie.
 * Blocks. */
#pragma once
#include "net/ring.h"
#include "relay/cluster.h"

enum column_kind { COLUMN_PARTITION, COLUMN_CLUSTERING, COLUMN_STATIC, COLUMN_REGULAR };

struct copy_column {
	char *name;
	enum column_kind kind;
	int position; /* among the columns of its kind; −1 for others than key columns */
	bool counter;
};

struct copy_cluster {
	struct cluster contact; /* the control host as the only contact point, and the login */
	const char *sni_name;	/* what TLS asks the control host for; NULL = its own name */
	unsigned turn;		/* behind a bundle's proxy: which of its nodes answered */
	char control_text[ADDR_TEXT_MAX];
	struct ring ring;
	struct copy_column
	    *columns; /* key columns first, in their order, then the others by name: cqlsh's order */
	unsigned column_count;
};

struct copy_login {
	const char *host; /* name or address, borrowed */
	uint16_t port;
	struct sni *sni;      /* of a bundle, instead of a host; NULL = none; borrowed for the cluster's life */
	const char *sni_name; /* the host is an SNI proxy, and this whom it is asked for; NULL = none; borrowed */
	const char *username, *password; /* NULL or "" = none; borrowed for the cluster's life */
	unsigned connect_ms;
	struct tls_context *tls; /* NULL = plain; borrowed for the cluster's life */
};

/* 0, or −errno with a reason: what client_open() says; −ENOENT: no such keyspace or table. */
int copy_cluster_read(struct copy_cluster *c, const struct copy_login *login, const char *keyspace,
		      const char *table, struct error *error);
void copy_cluster_done(struct copy_cluster *c);

/*
 * Where a connection to the control host goes, and one to a node of the ring. Behind a bundle's proxy the
 * control host is any of the nodes that the bundle's service names, another one for each `turn`; elsewhere
 * that says nothing. Nodes behind an SNI proxy are asked for by their host ids.
 */
void copy_cluster_control(const struct copy_cluster *c, unsigned turn, struct endpoint *ret);
void copy_cluster_node(const struct copy_cluster *c, unsigned node, struct endpoint *ret);

/* Whether the control host is an SNI proxy, so that addresses of nodes say nothing. */
bool copy_cluster_by_name(const struct copy_cluster *c);

/* NULL: no such column. */
const struct copy_column *copy_cluster_column(const struct copy_cluster *c, const char *name);
