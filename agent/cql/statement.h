/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CQL statement does: kind, tables, and the properties that decide whether and how it can be mirrored.
 * Read by tokens, never by string search. A statement that is not understood is STATEMENT_UNKNOWN, and the
 * agent treats it as a write that it cannot replay.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "cql/response.h"

enum statement_kind {
	STATEMENT_UNKNOWN,
	STATEMENT_SELECT, /* also DESCRIBE, LIST ROLES and other reads that change nothing */
	STATEMENT_INSERT,
	STATEMENT_UPDATE,
	STATEMENT_DELETE,
	STATEMENT_BATCH, /* BEGIN … BATCH as text */
	STATEMENT_TRUNCATE,
	STATEMENT_USE,
	STATEMENT_SCHEMA, /* CREATE/ALTER/DROP of keyspace, table, type, index, view, function, trigger … */
	STATEMENT_ROLE,	  /* roles, users, GRANT, REVOKE, identities: never mirrored, text never logged */
};

enum statement_flag {
	/* IF …: a lightweight transaction. */
	STATEMENT_CONDITIONAL = 1 << 0,
	/* Certainly a counter update: BEGIN COUNTER BATCH, x = x + 1, or a bind of type counter. */
	STATEMENT_COUNTER = 1 << 1,
	/* Certainly a list append, prepend or subtraction, or an index that is set or deleted. */
	STATEMENT_LIST = 1 << 2,
	/* now(), uuid(), currentTimestamp() …, also nested, and the string 'now', which a timestamp takes for the
	 * present: a different value on each cluster. */
	STATEMENT_FUNCTION = 1 << 3,
	STATEMENT_TIMESTAMP = 1 << 4, /* USING TIMESTAMP */
	STATEMENT_TTL = 1 << 5,	      /* USING TTL */
	/* x = x ± term: counter, list, set, map or number; undecided without types. */
	STATEMENT_ARITHMETIC = 1 << 6,
	/* x[term] = …, DELETE x[term]: list or map; undecided without types. */
	STATEMENT_ELEMENT = 1 << 7,
	STATEMENT_TABLES_MORE = 1 << 8, /* touches more tables than fit, or one whose name is too long */
	STATEMENT_JSON = 1 << 9, /* SELECT JSON, INSERT … JSON, fromJson() */
	STATEMENT_TEXT_BATCH_MIXED = 1 << 10, /* text batch whose children carry differing properties */
	/* Beside ARITHMETIC or ELEMENT: a term whose type the binds do not tell. */
	STATEMENT_UNTYPED = 1 << 11,
	/* Assigns a whole list (or a vector or frozen list: neither text nor binds can tell). Written twice
	 * with one timestamp, a list has its elements twice. */
	STATEMENT_LIST_VALUE = 1 << 12,
};

#define STATEMENT_TABLES_MAX 8

struct table_name {
	char keyspace[CQL_NAME_MAX + 1]; /* empty: the session's */
	char table[CQL_NAME_MAX + 1];	 /* case folded unless it was quoted */
};

struct statement {
	enum statement_kind kind;
	uint32_t flags; /* enum statement_flag */
	/* A name is, or may be, looked for in the connection's keyspace. Those of types, functions and indexes are looked for in that of
	 * the table, or of what is made with them. */
	bool unqualified;
	/* The coordinator looks for replicas anew before each part of it, and may have written some when those of a later one are away: IN,
	 * and a batch without a log, over several partitions. Conditional writes (STATEMENT_CONDITIONAL) do so as well: accepted is not yet
	 * committed. */
	bool piecemeal;
	uint8_t table_count;
	/* SELECT, DML, TRUNCATE, SCHEMA on a table or view (a view's base table, too). USE, and SCHEMA on a
	 * keyspace or on a type, function or index that is named with its keyspace: that keyspace and an
	 * empty table name. */
	struct table_name tables[STATEMENT_TABLES_MAX];
};

/*
 * Never fails and never reads outside `text`. What does not fit the grammar is STATEMENT_UNKNOWN, with the
 * tables and flags that were found before; like a ROLE's, its text may hold a password and does not belong in
 * a log. Calls of functions that users defined count as STATEMENT_FUNCTION, since their values are anybody's
 * guess.
 */
void statement_read(struct span text, struct statement *ret);

/*
 * Decides what only types can decide (ARITHMETIC, ELEMENT) from the bind variables that the cluster
 * described: type counter or list of the bound term, names such as "key(m)" and "idx(l)". What stays
 * undecided keeps its flag. Sets STATEMENT_LIST_VALUE where a whole list is bound.
 */
void statement_refine(struct statement *s, struct columns binds);

/* Why a write of this kind cannot simply be replayed on another cluster (with a pinned timestamp). */
enum unmirrored {
	MIRRORABLE,
	MIRRORABLE_ONCE, /* a whole list is assigned: twice with one timestamp, and its elements are there twice */
	UNMIRRORED_LWT,
	UNMIRRORED_COUNTER,
	UNMIRRORED_LIST,
	UNMIRRORED_FUNCTION,
	UNMIRRORED_UNCLASSIFIED,
	UNMIRRORED_POLICY
};
enum unmirrored statement_unmirrored(const struct statement *s);

/*
 * The same for one request with its bound values (query_params.values, or a BATCH's children): of a bound JSON
 * document the text says nothing. It may hold a list where there is a bracket in it, and the instant "now".
 */
enum unmirrored statement_unmirrored_bound(const struct statement *s, struct span values);

/* A write, or something that has to be treated as one. */
static inline bool statement_writes(const struct statement *s)
{
	return s->kind != STATEMENT_SELECT && s->kind != STATEMENT_USE;
}

/* INSERT, UPDATE, DELETE, or a batch of them. */
static inline bool statement_changes_rows(const struct statement *s)
{
	return s->kind == STATEMENT_INSERT || s->kind == STATEMENT_UPDATE || s->kind == STATEMENT_DELETE ||
	       s->kind == STATEMENT_BATCH;
}

/* Which of the tables that describe the cluster a SELECT reads. An empty keyspace is not "system": fill in
 * the session's first. */
enum topology { TOPOLOGY_NONE, TOPOLOGY_LOCAL, TOPOLOGY_PEERS, TOPOLOGY_PEERS_V2 };
enum topology statement_topology(const struct statement *s);

const char *statement_kind_name(enum statement_kind kind);
