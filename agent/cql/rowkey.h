/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rows a write touches: the text of an INSERT, UPDATE, DELETE or text batch and its bound values, taken
 * apart into tables and relations. No schema is needed here, therefore an INSERT yields one relation for each
 * column; the caller picks those of the primary key.
 *
 * A term is carried on as text with "?" for every bind marker and the values of those markers, so that it can
 * stand in a WHERE of the caller's: a literal stays the literal that our lexer read, and a bound value is
 * bound again. A JSON document's member becomes fromJson(?) with the member's text as value. IN becomes "="
 * with several alternatives. The string 'now', which a timestamp would take for the present, becomes "?" with
 * these three bytes as value: a text takes them, a timestamp refuses them.
 *
 * Named markers are resolved by name where the request brings names, and by position where it does not (each
 * occurrence has a position of its own). TTL, TIMESTAMP, SET and IF use up positions like all others.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/span.h"
#include "cql/statement.h"

/* Bytes of values in one term; no key is longer (a Cassandra limit). */
#define ROWKEY_VALUES_MAX 65535u
#define ROWKEY_MEMORY_MAX (32u << 20)

enum rowkey_op { ROWKEY_EQ, ROWKEY_LT, ROWKEY_LE, ROWKEY_GT, ROWKEY_GE };
const char *rowkey_op_text(enum rowkey_op op);

struct rowkey_term {
	struct rowkey_term *next; /* the next alternative */
	/* false: depends on the moment (now(), a function that users defined), is null, unset or missing, or
	 * longer than any key. Text and values mean nothing then. */
	bool usable;
	uint16_t value_count;
	struct span text;   /* "?", "'x'", "(?, 2)", … */
	struct span values; /* value_count [value]s: length and bytes */
};

struct rowkey_name {
	struct rowkey_name *next;
	struct span text; /* as the schema spells it: folded unless quoted, without quotes */
};

struct rowkey_relation {
	struct rowkey_relation *next;
	struct rowkey_name *names; /* more than one, or `tuple`: (a, b) = … */
	bool tuple;
	enum rowkey_op op;
	unsigned term_count;	   /* 0: IN (), which nothing fulfils */
	struct rowkey_term *terms; /* alternatives; more than one only with ROWKEY_EQ */
};

struct rowkey_statement {
	struct rowkey_statement *next;
	enum statement_kind kind; /* INSERT, UPDATE, DELETE */
	bool whole;		  /* DELETE without columns: of a row, a range or a partition */
	struct table_name name;	  /* empty keyspace: the session's */
	struct rowkey_relation *relations;
};

struct rowkey {
	struct rowkey_statement *statements;
	unsigned count;
	struct arena arena; /* of all the above; nothing of text or values is borrowed */
};

struct rowkey_values {
	struct span values; /* as in query_params or batch_child */
	uint16_t count;
	bool names; /* QUERY_NAMES */
};

/*
 * 0; −ENOKEY: no such statement, more or fewer values by position than markers, or a relation that names no rows of a primary key (token(), !=, CONTAINS …);
 * −E2BIG: more than ROWKEY_MEMORY_MAX; −ENOMEM. On error `ret` needs no rowkey_done().
 */
int rowkey_read(struct span text, struct rowkey_values values, struct rowkey *ret);
void rowkey_done(struct rowkey *k);
