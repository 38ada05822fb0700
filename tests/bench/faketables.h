/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faketables.h - system tables of the fake node: what a driver or a proxy reads before it trusts a server.
 *
 * One node of a Cassandra 5.0.9 cluster: system.local has one row, peers none, system_schema describes the
 * keyspace `bench` with its tables kv_<bytes>. A select is understood as far as such clients go: `*` or a
 * list of columns, count(*), now()-functions, and `name = 'literal'` filters; all else about WHERE is
 * ignored.
 */
#ifndef BENCH_FAKETABLES_H
#define BENCH_FAKETABLES_H

#include "wire.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/evp.h>
#include <time.h>

struct fake_node {
	const char *address, *cluster, *datacenter, *release;
	int port;
	char host_id[40], tokens[256];
};

static struct fake_node node;
static const uint32_t blob_sizes[] = {100, 10240, 1048576, 67108864};
enum { BLOB_SIZES = sizeof blob_sizes / sizeof *blob_sizes };
/* bench.rows, see fakecopy.h: name, type, and the letter of cell_put(). */
static const struct {
	const char *name, *type;
	char letter;
} copy_columns[] = {{"id", "int", 'i'},	     {"a", "text", 't'},      {"b", "bigint", 'l'}, {"c", "double", 'd'},
		    {"d", "boolean", 'b'}, {"e", "timestamp", 'c'}, {"f", "text", 't'},	    {"g", "int", 'i'},
		    {"h", "uuid", 'u'},	     {"i", "blob", 'x'}};
enum { COPY_COLUMNS = sizeof copy_columns / sizeof *copy_columns };
#define SCHEMA_VERSION "6f0d3cc4-98a1-3a54-a0f5-0a1cbe5c0de1"

/* name:type, type being one letter of cell_put(). */
static const struct fake_table {
	const char *name, *columns;
} fake_tables[] = {
    {"system.local",
     "key:t bootstrapped:t broadcast_address:n broadcast_port:i cluster_name:t cql_version:t data_center:t "
     "gossip_generation:i host_id:u listen_address:n listen_port:i native_protocol_version:t partitioner:t "
     "rack:t "
     "release_version:t rpc_address:n rpc_port:i schema_version:u tokens:s truncated_at:M"},
    {"system.peers", "peer:n data_center:t host_id:u preferred_ip:n rack:t release_version:t rpc_address:n "
		     "schema_version:u tokens:s"},
    {"system.peers_v2", "peer:n peer_port:i data_center:t host_id:u native_address:n native_port:i "
			"preferred_ip:n preferred_port:i "
			"rack:t release_version:t schema_version:u tokens:s"},
    {"system_schema.keyspaces", "keyspace_name:t durable_writes:b replication:m"},
    {"system_schema.tables",
     "keyspace_name:t table_name:t additional_write_policy:t allow_auto_snapshot:b bloom_filter_fp_chance:d "
     "caching:m cdc:b comment:t compaction:m compression:m crc_check_chance:d dclocal_read_repair_chance:d "
     "default_time_to_live:i extensions:M flags:s gc_grace_seconds:i id:u incremental_backups:b "
     "max_index_interval:i memtable:t memtable_flush_period_in_ms:i min_index_interval:i read_repair:t "
     "read_repair_chance:d speculative_retry:t"},
    {"system_schema.columns", "keyspace_name:t table_name:t column_name:t clustering_order:t "
			      "column_name_bytes:x kind:t position:i type:t"},
    {"system_schema.types", "keyspace_name:t type_name:t field_names:L field_types:L"},
    {"system_schema.functions", "keyspace_name:t function_name:t argument_types:L argument_names:L body:t "
				"called_on_null_input:b language:t "
				"return_type:t"},
    {"system_schema.aggregates",
     "keyspace_name:t aggregate_name:t argument_types:L final_func:t initcond:t return_type:t state_func:t "
     "state_type:t"},
    {"system_schema.triggers", "keyspace_name:t table_name:t trigger_name:t options:m"},
    {"system_schema.indexes", "keyspace_name:t table_name:t index_name:t kind:t options:m"},
    {"system_schema.views", "keyspace_name:t view_name:t base_table_id:u base_table_name:t id:u "
			    "include_all_columns:b where_clause:t"},
    {"system_schema.dropped_columns",
     "keyspace_name:t table_name:t column_name:t dropped_time:c kind:t type:t"},
    {"system_schema.column_masks",
     "keyspace_name:t table_name:t column_name:t function_name:t function_keyspace:t"},
    {"system_virtual_schema.keyspaces", "keyspace_name:t"},
    {"system_virtual_schema.tables", "keyspace_name:t table_name:t comment:t"},
    {"system_virtual_schema.columns", "keyspace_name:t table_name:t column_name:t clustering_order:t "
				      "column_name_bytes:x kind:t position:i type:t"},
};

/* The MD5 of a text, spread over a uuid's form or a token, so that two fakes differ and one never changes. */
static inline void md5(const void *p, size_t n, uint8_t ret_digest[16])
{
	if (!EVP_Q_digest(NULL, "MD5", NULL, p, n, ret_digest, NULL))
		die("MD5 is not available in this OpenSSL");
}

static inline void node_init(void)
{
	char seed[128];
	uint8_t d[16];
	size_t n = 0;

	snprintf(seed, sizeof seed, "%s %s:%d", node.cluster, node.address, node.port);
	md5(seed, strlen(seed), d);
	snprintf(node.host_id, sizeof node.host_id,
		 "%02x%02x%02x%02x-%02x%02x-4%x%02x-a%x%02x-%02x%02x%02x%02x%02x%02x", d[0], d[1], d[2], d[3],
		 d[4], d[5], d[6] & 15, d[7], d[8] & 15, d[9], d[10], d[11], d[12], d[13], d[14], d[15]);
	for (int i = 0; i < 4; i++) /* one token a quarter of the ring */
		n += (size_t)snprintf(node.tokens + n, sizeof node.tokens - n, "%s%lld", i ? "," : "",
				      (long long)((i - 2) * (1LL << 62) + (d[i] << 20 | d[i + 4])));
}

static inline int fake_rows(const char *table)
{
	if (!strcmp(table, "system.local") || !strcmp(table, "system_schema.keyspaces"))
		return 1;
	if (!strcmp(table, "system_schema.tables"))
		return BLOB_SIZES;
	return strcmp(table, "system_schema.columns") ? 0 : BLOB_SIZES * 2 + COPY_COLUMNS;
}

/* A cell as text, NULL for null; lists and maps as comma-separated elements. */
static inline const char *fake_cell(const char *table, int row, const char *column)
{
	static _Thread_local char text[64];
	static const char *const local[][2] = {
	    {"key", "local"},
	    {"bootstrapped", "COMPLETED"},
	    {"cql_version", "3.4.7"},
	    {"gossip_generation", "1760000000"},
	    {"listen_port", "7000"},
	    {"broadcast_port", "7000"},
	    {"native_protocol_version", "5"},
	    {"partitioner", "org.apache.cassandra.dht.Murmur3Partitioner"},
	    {"rack", "rack1"},
	    {"schema_version", SCHEMA_VERSION},
	};
	static const char *const options[][2] = {
	    {"additional_write_policy", "99p"},
	    {"allow_auto_snapshot", "true"},
	    {"bloom_filter_fp_chance", "0.01"},
	    {"caching", "keys,ALL,rows_per_partition,NONE"},
	    {"cdc", "false"},
	    {"comment", ""},
	    {"compaction", "class,org.apache.cassandra.db.compaction.SizeTieredCompactionStrategy"},
	    {"compression", "enabled,false"},
	    {"crc_check_chance", "1"},
	    {"dclocal_read_repair_chance", "0"},
	    {"default_time_to_live", "0"},
	    {"extensions", ""},
	    {"flags", "compound"},
	    {"gc_grace_seconds", "864000"},
	    {"incremental_backups", "true"},
	    {"max_index_interval", "2048"},
	    {"memtable_flush_period_in_ms", "0"},
	    {"min_index_interval", "128"},
	    {"read_repair", "BLOCKING"},
	    {"read_repair_chance", "0"},
	    {"speculative_retry", "99p"},
	};

	if (!strcmp(table, "system.local")) {
		for (size_t i = 0; i < sizeof local / sizeof *local; i++)
			if (!strcmp(local[i][0], column))
				return local[i][1];
		if (strstr(column, "_address"))
			return node.address;
		if (!strcmp(column, "rpc_port"))
			return snprintf(text, sizeof text, "%d", node.port), text;
		return !strcmp(column, "cluster_name")	    ? node.cluster
		       : !strcmp(column, "data_center")	    ? node.datacenter
		       : !strcmp(column, "release_version") ? node.release
		       : !strcmp(column, "host_id")	    ? node.host_id
		       : !strcmp(column, "tokens")	    ? node.tokens
							    : NULL;
	}
	if (!strcmp(column, "keyspace_name"))
		return "bench";
	if (!strcmp(column, "durable_writes"))
		return "true";
	if (!strcmp(column, "replication"))
		return "class,org.apache.cassandra.locator.SimpleStrategy,replication_factor,1";
	if (!strcmp(table, "system_schema.tables")) {
		for (size_t i = 0; i < sizeof options / sizeof *options; i++)
			if (!strcmp(options[i][0], column))
				return options[i][1];
		if (!strcmp(column, "id"))
			return snprintf(text, sizeof text, "5b1c8f10-0000-11f0-8000-00000000000%d", row),
			       text;
		return !strcmp(column, "table_name")
			   ? (snprintf(text, sizeof text, "kv_%u", blob_sizes[row]), text)
			   : NULL;
	}
	if (row >= BLOB_SIZES * 2) {
		bool key = row == BLOB_SIZES * 2;

		row -= BLOB_SIZES * 2;
		return !strcmp(column, "table_name")	     ? "rows"
		       : !strncmp(column, "column_name", 11) ? copy_columns[row].name
		       : !strcmp(column, "clustering_order") ? "none"
		       : !strcmp(column, "kind")	     ? (key ? "partition_key" : "regular")
		       : !strcmp(column, "position")	     ? (key ? "0" : "-1")
		       : !strcmp(column, "type")	     ? copy_columns[row].type
							     : NULL;
	}
	if (!strcmp(column, "table_name"))
		return snprintf(text, sizeof text, "kv_%u", blob_sizes[row / 2]), text;
	if (!strcmp(column, "column_name") || !strcmp(column, "column_name_bytes"))
		return row & 1 ? "v" : "k";
	if (!strcmp(column, "clustering_order"))
		return "none";
	if (!strcmp(column, "kind"))
		return row & 1 ? "regular" : "partition_key";
	if (!strcmp(column, "position"))
		return row & 1 ? "-1" : "0";
	return !strcmp(column, "type") ? (row & 1 ? "blob" : "int") : NULL;
}

static inline void type_put(struct buf *b, char type)
{
	static const struct {
		char letter;
		uint8_t code, first, second;
	} types[] = {{'t', 0x0D, 0, 0},	      {'n', 0x10, 0, 0},      {'i', 0x09, 0, 0},
		     {'l', 0x02, 0, 0},	      {'u', 0x0C, 0, 0},      {'b', 0x04, 0, 0},
		     {'d', 0x07, 0, 0},	      {'x', 0x03, 0, 0},      {'c', 0x0B, 0, 0},
		     {'v', 0x0F, 0, 0},	      {'s', 0x22, 0x0D, 0},   {'L', 0x20, 0x0D, 0},
		     {'m', 0x21, 0x0D, 0x0D}, {'M', 0x21, 0x0D, 0x03}};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (types[i].letter == type) {
			put16(b, types[i].code);
			if (types[i].first)
				put16(b, types[i].first);
			if (types[i].second)
				put16(b, types[i].second);
			return;
		}
}

static inline void cell_put(struct buf *b, char type, const char *text)
{
	uint8_t raw[16];
	uint64_t bits;
	double d;
	size_t mark, count = 0;

	if (!text) {
		put32(b, 0xFFFFFFFF);
		return;
	}
	switch (type) {
	case 'i':
		put32(b, 4);
		put32(b, (uint32_t)strtol(text, NULL, 10));
		return;
	case 'l':
	case 'c':
		put32(b, 8);
		put64(b, (uint64_t)strtoll(text, NULL, 10));
		return;
	case 'd':
		d = strtod(text, NULL);
		memcpy(&bits, &d, sizeof bits);
		put32(b, 8);
		put64(b, bits);
		return;
	case 'b':
		put32(b, 1);
		put8(b, *text == 't');
		return;
	case 'n':
		if (inet_pton(AF_INET, text, raw) == 1)
			put_bytes(b, raw, 4);
		else if (inet_pton(AF_INET6, text, raw) == 1)
			put_bytes(b, raw, 16);
		else
			put32(b, 0xFFFFFFFF);
		return;
	case 'u':
	case 'v':
		for (; *text && count < 16; text++)
			if (isxdigit((unsigned char)*text)) {
				char hex[3] = {text[0], text[1], 0};

				raw[count++] = (uint8_t)strtoul(hex, NULL, 16);
				text++;
			}
		put_bytes(b, raw, 16);
		return;
	case 's':
	case 'L':
	case 'm':
	case 'M':
		mark = b->n;
		put32(b, 0);
		put32(b, 0);
		while (*text) {
			size_t n = strcspn(text, ",");

			put_bytes(b, text, n);
			count++;
			text += n + (text[n] == ',');
		}
		be32_store(b->p + mark, (uint32_t)(b->n - mark - 4));
		be32_store(b->p + mark + 4, (uint32_t)(type == 'm' || type == 'M' ? count / 2 : count));
		return;
	default:
		put_bytes(b, text, strlen(text));
	}
}

struct fake_column {
	char name[48], label[48], type;
};

/* One entry of the select list → a column; functions of the clock get their value through `name`. */
static inline bool column_find(const struct fake_table *t, const char *want, size_t n,
			       struct fake_column *ret)
{
	const char *p = t->columns;

	snprintf(ret->name, sizeof ret->name, "%.*s", (int)n, want);
	snprintf(ret->label, sizeof ret->label, "%s", ret->name);
	if (!strncasecmp(want, "count(", 6)) {
		snprintf(ret->label, sizeof ret->label, "count");
		ret->type = 'l';
		return true;
	}
	if (memmem(want, n, "now()", 5) || (n > 7 && !strncasecmp(want, "current", 7))) {
		ret->type = strncasecmp(want, "tounix", 6) ? (strncasecmp(want, "now", 3) ? 'c' : 'v') : 'l';
		return true;
	}
	for (; p; p = strchr(p, ' ')) {
		p += *p == ' ';
		if (!strncmp(p, ret->name, n) && p[n] == ':') {
			ret->type = p[n + 1];
			return true;
		}
	}
	return false;
}

static inline const char *column_value(const struct fake_table *t, int row, const struct fake_column *c)
{
	static _Thread_local char text[64];
	struct timespec now;
	uint64_t v;

	if (!strncasecmp(c->name, "count(", 6))
		return snprintf(text, sizeof text, "%d", fake_rows(t->name)), text;
	if (!strchr(c->name, '('))
		return fake_cell(t->name, row, c->name);
	clock_gettime(CLOCK_REALTIME, &now);
	v = (uint64_t)now.tv_sec * 10000000 + (uint64_t)now.tv_nsec / 100;
	if (c->type != 'v')
		return snprintf(text, sizeof text, "%llu", (unsigned long long)(v / 10000)), text;
	v += 0x01B21DD213814000; /* 1582-10-15 to 1970-01-01 in 100 ns */
	snprintf(text, sizeof text, "%08x-%04x-1%03x-8000-0000000000fa", (unsigned)v,
		 (unsigned)(v >> 32 & 0xFFFF), (unsigned)(v >> 48 & 0xFFF));
	return text;
}

/* Does the row pass every `name = 'literal'` of the text after WHERE? */
static inline bool row_passes(const struct fake_table *t, int row, const char *where)
{
	for (const char *eq = where; eq && (eq = strchr(eq, '=')); eq++) {
		const char *end = eq, *name, *lit = eq + 1, *cell;
		struct fake_column c;
		size_t n;

		while (end > where && end[-1] == ' ')
			end--;
		for (name = end; name > where && (isalnum((unsigned char)name[-1]) || name[-1] == '_');)
			name--;
		lit += strspn(lit, " ");
		if (*lit != '\'' || !column_find(t, name, (size_t)(end - name), &c))
			continue;
		n = strcspn(++lit, "'");
		cell = fake_cell(t->name, row, c.name);
		if (!cell || strlen(cell) != n || strncmp(cell, lit, n))
			return false;
	}
	return true;
}

/*
 * Appends the body of a RESULT (ROWS) for a select on a system table; 0, or -EINVAL with a message for the
 * client. `table` is qualified, `list` is the text between SELECT and FROM, `where` what follows WHERE or
 * NULL.
 */
static inline int system_select(struct buf *b, const char *table, const char *list, size_t list_n,
				const char *where, char *ret_why, size_t why_n)
{
	const struct fake_table *t = NULL;
	struct fake_column columns[32];
	char keyspace[32];
	int n = 0;
	uint32_t rows = 0;
	size_t mark;

	for (size_t i = 0; i < sizeof fake_tables / sizeof *fake_tables && !t; i++)
		if (!strcmp(fake_tables[i].name, table))
			t = &fake_tables[i];
	if (!t) {
		snprintf(ret_why, why_n, "table %s does not exist", table);
		return -EINVAL;
	}
	if (list_n == 1 && *list == '*') {
		for (const char *p = t->columns; p; p = strchr(p, ' ')) {
			p += *p == ' ';
			column_find(t, p, strcspn(p, ":"), &columns[n++]);
		}
	} else {
		for (const char *p = list, *end = list + list_n; p < end && n < 32;) {
			size_t len = strcspn(p, ","), all;

			len = all = len < (size_t)(end - p) ? len : (size_t)(end - p);
			while (len && isspace((unsigned char)*p))
				p++, len--, all--;
			while (len && isspace((unsigned char)p[len - 1]))
				len--;
			if (!column_find(t, p, len, &columns[n++])) {
				snprintf(ret_why, why_n, "Undefined column name %.*s in table %s", (int)len,
					 p, table);
				return -EINVAL;
			}
			p += all + 1;
		}
	}
	put32(b, RESULT_ROWS);
	put32(b, 1); /* global table spec */
	put32(b, (uint32_t)n);
	snprintf(keyspace, sizeof keyspace, "%.*s", (int)strcspn(table, "."), table);
	put_string(b, keyspace);
	put_string(b, table + strlen(keyspace) + 1);
	for (int i = 0; i < n; i++) {
		put_string(b, columns[i].label);
		type_put(b, columns[i].type);
	}
	mark = b->n;
	put32(b, 0);
	for (int row = 0; row < fake_rows(table) || (!row && n && !strncasecmp(columns[0].name, "count(", 6));
	     row++) {
		if (where && !row_passes(t, row, where))
			continue;
		for (int i = 0; i < n; i++)
			cell_put(b, columns[i].type, column_value(t, row, &columns[i]));
		rows++;
		if (!strncasecmp(columns[0].name, "count(", 6))
			break;
	}
	be32_store(b->p + mark, rows);
	return 0;
}

#endif
