/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the preflight share. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "mirror/client.h"
#include "mirror/preflight.h"

#define PREFLIGHT_NAME_MAX \
	256 /* a quoted keyspace, table or role in an error text or a GRANT; longer ones are cut there */

/* In the order in which they are told: what holds others first. */
enum fact_kind {
	FACT_KEYSPACE,
	FACT_TYPE,
	FACT_TABLE,  /* value: default_time_to_live */
	FACT_COLUMN, /* value: kind, position, type, order */
	FACT_VIEW,
	FACT_INDEX,
	FACT_TRIGGER,
	FACT_FUNCTION,
	FACT_AGGREGATE,
	FACT_KINDS
};

/* One thing that a schema says. The strings are one allocation, owned by the schema; unused ones are "". */
struct fact {
	enum fact_kind kind;
	const char *keyspace, *name, *sub, *value;
};

/*
 * Facts of one cluster about user keyspaces, sorted by keyspace, kind, name, sub. Of the origin only what is mirrored, under the target's
 * names.
 */
struct schema {
	struct fact *facts;
	size_t count, room, bytes;
	bool loaded;
};

/* "a, b, c and 12 more": names for one finding. Zero-initialised = empty. */
struct roster {
	unsigned count, shown;
	char text[400];
};

struct preflight {
	const struct cluster *cluster; /* [SIDES], borrowed */
	const struct scope *scope;     /* may be NULL */
	uint32_t mark;
	unsigned max_skew_ms;
	void (*found)(void *context, enum preflight_grade grade, const char *what, const char *remedy);
	void *context;
	enum preflight_grade worst;
	bool no_memory;
	struct client *client[SIDES]; /* the first node of each that answered; NULL = none */
	struct schema schema[SIDES];
	struct roster left_out, renamed; /* tables; keyspaces and tables */
};

/* Reports one finding. */
void preflight_say(struct preflight *p, enum preflight_grade grade, const char *remedy, const char *format,
		   ...) __attribute__((format(printf, 4, 5)));

/* One name more. */
void roster_add(struct roster *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends the text with "and N more" where some did not fit. Returns it. */
const char *roster_text(struct roster *r);

/* "name" in double quotes, as CQL writes any name; inner ones doubled. Returns `to`. */
const char *preflight_quote(const char *name, char to[PREFLIGHT_NAME_MAX]);

/* The cell of the column `name`; data = NULL when null or absent. */
struct span preflight_cell(const struct column *columns, const struct span *cells, unsigned count,
			   const char *name);
/* Its bytes as a string, cut at `size`. Returns `to`. */
const char *preflight_text(struct span cell, char *to, size_t size);

/* Reads p->schema[side] through p->client[side]. What could not be read is reported; then schema.loaded stays
 * false. */
void preflight_schema_load(struct preflight *p, enum side side);
/* The target's names in place of the origin's. false: it is not mirrored. */
bool preflight_into_scope(struct preflight *p, enum fact_kind kind, char keyspace[PREFLIGHT_NAME_MAX], char name[PREFLIGHT_NAME_MAX]);
/* Reports what differs. Both are loaded. */
void preflight_schema_compare(struct preflight *p);
/* NULL when absent. `sub` "" where the kind has none. */
const struct fact *schema_find(const struct schema *s, enum fact_kind kind, const char *keyspace,
			       const char *name, const char *sub);
void schema_done(struct schema *s);

/* Reports whether the configured role of `side` may read and write all user keyspaces there. */
void preflight_roles(struct preflight *p, enum side side);
/* Reports whether both clusters read timestamps without a zone alike. Both have a client. */
void preflight_zones(struct preflight *p);
/* Reports whether the origin's list of clients can be read: without it a cutover cannot know who else writes.
 */
void preflight_clients_readable(struct preflight *p);
