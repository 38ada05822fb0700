/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside row sync:
 *
 *   rowsync.c        threads, back-off, results
 *   rowsync_job.c    a request ─▶ a job
 *   rowsync_queue.c  which job comes next, which become one
 *   rowsync_plan.c   statements and schema ─▶ selections: one WHERE for each key or range
 *   rowsync_read.c   selections ─▶ rows with their stamps
 *   rowsync_diff.c   rows of both sides ─▶ changes
 *   rowsync_write.c  changes ─▶ statements with bound values
 *   rowsync_run.c    one attempt at a job: all of these in turn
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "cql/rowkey.h"
#include "mirror/client.h"
#include "mirror/rowsync.h"
#include "mirror/schema.h"

/* How long a write may be on its way: Cassandra's write time-out (2 s) and two clocks, with room to spare.
 * What is older than this has arrived wherever it could. */
#define SETTLE_US 10000000

/* ------------------------------------------------------------- text that grows */

struct text {
	char *data;
	size_t size, room;
	bool failed; /* out of memory */
};

void text_add(struct text *t, const void *bytes, size_t size);
static inline void text_put(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}
/* A [value]: 4 bytes of length and the bytes. */
void text_value(struct text *t, struct span bytes);
void text_value_int(struct text *t, int32_t v);
void text_value_long(struct text *t, int64_t v);

/* ------------------------------------------------------------- plan */

/* A part of a WHERE: text with "?" and the values that belong to it. */
struct clause {
	struct span text, values;
	unsigned value_count;
	bool literals; /* among its terms: such a text hardly comes again */
};

struct selection {
	struct selection *next;
	struct table_name name;	 /* as `from` calls it */
	struct clause partition; /* "k" = ? */
	struct clause range;	 /* AND "c" = ? …; empty text: none */
	bool rows;		 /* false: only the partition's static columns */
	bool marker;		 /* an INSERT: rows that are written get a row marker */
	uint64_t hash;		 /* of the partition's key as bound values; 0: it stands there as text */
};

/* One statement's selections, in `arena`; appended at *tail. 0, −ENOKEY, −E2BIG, −ENOTSUP, −ENOMEM. */
int plan_statement(struct arena *arena, const struct rowkey_statement *s, const struct table_name *name,
		   const struct schema_table *table, struct selection ***tail);

/* ------------------------------------------------------------- rows */

struct row {
	struct span key; /* the [value]s of the key columns: all, or the partition's for statics */
	uint32_t sequence;
	bool statics, marker;
	int64_t read_s;	    /* wall clock, to which TTLs are relative */
	struct span *cells; /* three for each column of its kind: value, WRITETIME, TTL; data = NULL: null */
};

struct row_set {
	struct row *rows;
	size_t count, room;
	struct arena arena; /* of keys and cells */
};

/*
 * Adds what `selection` finds on `client`'s cluster, asking for the columns of `columns` (the origin's view,
 * so that both sides give the same ones) with the stamps that `own` can give. 0, −E2BIG, or what client_ask()
 * said.
 */
int rows_read(struct row_set *set, struct client *client, const struct selection *selection,
	      const struct schema_table *columns, const struct schema_table *own, uint16_t consistency,
	      struct error *error);
/* Rows by key, statics last. */
int rows_order(const struct row *a, const struct row *b);
/* Into that order; of rows with one key the first or the last that was read stays. */
void rows_sort(struct row_set *set, bool keep_last);
void rows_clear(struct row_set *set);

/* ------------------------------------------------------------- changes */

struct stamp {
	int64_t written; /* µs */
	int64_t expires; /* wall clock in s, 0 = never */
	bool known;	 /* false: the cluster does not tell it */
};

enum change_kind {
	/* in the order in which they are written */
	CHANGE_ROW_DROP,
	CHANGE_DROP,	   /* "c" */
	CHANGE_DROP_KEY,   /* "c"[?] */
	CHANGE_DROP_FIELD, /* "c"."f" */
	CHANGE_MARK,	   /* the row's existence */
	CHANGE_SET,	   /* "c" = ? */
	CHANGE_PUT,	   /* "c" = "c" + ? */
	CHANGE_FIELD,	   /* "c"."f" = ? */
	CHANGE_DISCARD,	   /* "c" = "c" - ?: what the list has, wherever it stands in it */
	CHANGE_APPEND,	   /* "c" = "c" + ?, in order */
	CHANGE_PREPEND,	   /* "c" = ? + "c", in order */
};

#define EXPIRES_DEFAULT (-1) /* as the table's default TTL says */

struct change {
	enum change_kind kind;
	const struct schema_column *column;
	struct span key, value;
	unsigned field;
	int64_t written, expires;
	uint32_t sequence;
};

struct diff {
	const struct schema_table *table; /* columns, as read */
	int64_t horizon;		  /* µs: what is written under an unknown stamp */
	int64_t young;			  /* µs: younger cells may be on their way to the other side */
	bool lists_only;		  /* nothing else is looked at */
	bool deletes;			  /* the write may have deleted rows; INSERT and UPDATE leave their markers alone */
	struct change *changes;		  /* of one row */
	size_t count, room;
	struct arena arena; /* for keys that are made here */
	/* What came up, over all rows. */
	bool used_horizon; /* a stamp was unknown */
	bool is_young;	   /* something young would be deleted or overruled */
	bool guesses_row;  /* a whole row would go under the horizon, and with it what a client writes there under an older timestamp */
	bool verify;	   /* look again whether it had the effect */
	int error;
};

/* The changes that make `to` equal to `from`; one may be NULL. Those of the row before are
 * forgotten. */
void diff_row(struct diff *d, const struct row *from, const struct row *to);
void diff_done(struct diff *d);

/* ------------------------------------------------------------- statements */

struct write {
	struct write *next;
	struct text text, values;
	unsigned value_count;
};

struct write_list {
	struct write *first, *last;
	unsigned count;
	uint64_t repaired, deleted;
	bool failed; /* out of memory */
};

/* The statements for the changes of one row, at the end of the list. `quoted`: the table as the written side
 * calls it; `now_s`: wall clock, from which a TTL is counted. Sorts the changes. */
void write_changes(struct write_list *l, const struct schema_table *table, const char *quoted,
		   const struct row *row, struct change *changes, size_t count, int64_t now_s);
/*
 * Sends all: as one logged batch when `atomic`, else in batches of a bearable size. `ret_split` is set when
 * the cluster refused the batch as too large and got the statements one by one. 0 or what client_ask() said.
 */
int write_send(const struct write_list *l, struct client *client, bool atomic, bool *ret_split,
	       struct error *error);
void write_clear(struct write_list *l);

/* ------------------------------------------------------------- one attempt */

struct worker_thread {
	struct rowsync *rs;
	pthread_t thread;
	struct client *client[SIDES];
	unsigned node[SIDES]; /* the next to be dialed */
	uint64_t random;
};

struct waiter {
	struct waiter *next;
	void (*done)(void *context, int result);
	void *context;
};

/* What a job keeps others from while it runs. */
struct claim {
	struct table_name name;
	uint64_t hash; /* 0: the whole table */
};

struct sync {
	enum side from;
	bool serial, atomic;
	bool lists_only; /* as the job says */
	bool deletes;	 /* one of its statements is a DELETE */
	struct rowkey *keys; /* one for each child, until the selections are made */
	const char (*keyspaces)[CQL_NAME_MAX + 1];
	unsigned key_count;
	struct selection *selections; /* NULL: not made yet */
	bool planned;
	struct claim *claims;
	unsigned claim_count;
	struct arena arena;
	int64_t first_seen_us; /* when a stamp was first found unknown or a cell too young; 0 = never */
	bool tried_late;       /* with a horizon of that time */
	bool schema_again;     /* a refusal has led to a fresh look at the schema */
};

struct sync_shared {
	const struct rowsync_options *options;
	struct schema_cache *schema[SIDES];
	_Atomic bool stopping;
	_Atomic int primary; /* enum side; −1: nobody has said it yet */
	_Atomic uint64_t rows, repaired, deleted, splits;
};

/* Makes the selections from what is cached. 0; −EAGAIN: a schema is missing; or as plan_statement(). */
int sync_plan_cached(struct sync_shared *s, struct sync *y);

/*
 * One attempt. 0 or the reason as in rowsync_job.done; *ret_wait_ns > 0 with −EAGAIN: try again after that
 * time, nothing has failed. `ret_table`: where it went wrong.
 */
int sync_attempt(struct sync_shared *s, struct worker_thread *w, struct sync *y, uint64_t *ret_wait_ns,
		 struct table_name *ret_table, struct error *error);
