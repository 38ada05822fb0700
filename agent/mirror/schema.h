/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a table looks like on one cluster, read from its system_schema and kept for a while.
 *
 * A table is read when it is first wanted, again after SCHEMA_AGE_NS, and at once after
 * schema_cache_forget(): a column that was added unnoticed would be missing in what is read with it. Any
 * thread; locks, but not while the cluster is asked.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cql/statement.h"
#include "mirror/client.h"

#define SCHEMA_AGE_NS 10000000000ull
#define SCHEMA_TABLES_MAX 4096u /* then the cache is emptied */

enum column_kind { COLUMN_PARTITION, COLUMN_CLUSTERING, COLUMN_STATIC, COLUMN_REGULAR };

/* How a column's cells are kept: one, or one for each element or field. Frozen ones, tuples and vectors are
 * one. */
enum column_shape { SHAPE_PLAIN, SHAPE_SET, SHAPE_MAP, SHAPE_LIST, SHAPE_UDT };

struct schema_column {
	const char *name;   /* as it is spelled */
	const char *quoted; /* "name", ready for text */
	enum column_kind kind;
	enum column_shape shape;
	const char **fields; /* SHAPE_UDT: "name" of each, in order */
	unsigned field_count;
};

struct schema_table {
	_Atomic uint32_t references;
	struct table_name name;
	uint64_t read_ns; /* CLOCK_MONOTONIC */
	int32_t default_ttl; /* s, 0 = none */
	bool counters;
	bool element_stamps; /* WRITETIME and TTL of collections can be read (Cassandra 5) */
	const char *quoted;  /* "keyspace"."table" */
	unsigned count;	     /* of columns */
	unsigned partition, clustering, statics; /* how many of each kind; they come in that order */
	struct schema_column *columns;
};

struct schema_cache;
struct schema_cache *schema_cache_new(void);
void schema_cache_free(struct schema_cache *c); /* NULL is fine */

/*
 * The table as `client`'s cluster has it. 0 and a reference for schema_table_put(); −ENOENT: there is none;
 * −E2BIG: more columns than one answer may have; or what client_ask() said.
 */
int schema_cache_get(struct schema_cache *c, struct client *client, const struct table_name *name,
		     struct schema_table **ret, struct error *error);

/* What the cache has, of whatever age: keys do not change. NULL when it has nothing. */
struct schema_table *schema_cache_peek(struct schema_cache *c, const struct table_name *name);

/* `keyspace` NULL: everything. */
void schema_cache_forget(struct schema_cache *c, const char *keyspace);

void schema_table_put(struct schema_table *t); /* NULL is fine */
