/* SPDX-License-Identifier: Apache-2.0 */
/* What COPY asks the control host before it begins: the table's columns, the ring, and where replicas lie.
 * Blocks. */
#pragma once
#include "copy/ring.h"

enum column_kind { COLUMN_PARTITION, COLUMN_CLUSTERING, COLUMN_STATIC, COLUMN_REGULAR };

struct copy_column {
	char *name;
	enum column_kind kind;
	int position; /* among the columns of its kind; −1 for others than key columns */
	bool counter;
};

struct cluster {
	struct addr control;
	char control_text[ADDR_TEXT_MAX];
	struct ring ring;
	struct copy_column
	    *columns; /* key columns first, in their order, then the others by name: cqlsh's order */
	unsigned column_count;
};

struct cluster_login {
	const char *host; /* name or address, borrowed */
	uint16_t port;
	const char *username, *password;
	unsigned connect_ms;
};

/* 0, or −errno with a reason: what client_open() says; −ENOENT: no such keyspace or table. */
int cluster_read(struct cluster *c, const struct cluster_login *login, const char *keyspace,
		 const char *table, struct error *error);
void cluster_done(struct cluster *c);

/* NULL: no such column. */
const struct copy_column *cluster_column(const struct cluster *c, const char *name);
