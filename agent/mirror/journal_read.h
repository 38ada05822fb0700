/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a journal file from a copy of its bytes: entry by entry, each with the statements that it executes.
 *
 *   file ─▶ journal_reader_next ─▶ entry ─▶ journal_view_of ─▶ tables ─ journal_view_next ─▶ text, text, …
 *
 * A file stands alone (journal_format.h): the prepared statements that its entries execute stand in it, before them. Pure: no I/O,
 * no clock, no log; reads only inside `file`, whatever is in it. The bytes are aligned to 8, as malloc() and mmap() give them.
 */
#pragma once
#include "cql/request.h"
#include "cql/statement.h"
#include "mirror/journal_format.h"
#include "relay/prepared_record.h"

struct journal_reader {
	struct span file;
	const struct journal_head *head;
	size_t at;                   /* where the next entry stands */
	bool torn;                   /* after the end: something stands there that is not an entry */
	struct prepared_text *texts; /* of the PREPARED entries so far */
	size_t text_count, text_capacity;
	uint32_t *index;             /* by id: number of the text + 1; open addressing, at most half full */
	size_t index_size, index_used;
};

/* 0; −EINVAL with the reason (a constant) as journal_head_read(). journal_reader_done() is due after 0. */
int journal_reader_open(struct journal_reader *r, struct span file, const char **ret_why);
void journal_reader_done(struct journal_reader *r);

/* The next entry, where it stands in *ret_at; NULL at the end. Statements of PREPARED entries are taken note of, memory permitting. */
const struct journal_entry *journal_reader_next(struct journal_reader *r, size_t *ret_at);

/* What a journalled request does. Views of the file. */
struct journal_view {
	const struct journal_reader *reader;
	uint8_t version, opcode;
	bool readable;              /* the body is a request of that version; else there are no statements */
	bool unnamed;               /* it may touch more tables than those listed */
	struct statement statement; /* tables of all its statements, with their keyspace where it is known */
	struct request request;
	struct span keyspace;       /* of the session, or of the request */
	struct span cursor;         /* of journal_view_next() */
	bool ended;
};

/* One of its statements. */
struct journal_part {
	bool prepared;
	struct span id;      /* of a prepared one */
	struct span text;    /* data NULL: the file does not have the prepared statement */
	struct span values;  /* bound */
	unsigned values_count;
	bool named;          /* each value with its name before it */
};

void journal_view_of(const struct journal_reader *r, const struct journal_entry *e, struct journal_view *ret);
/* False: there is no other. */
bool journal_view_next(struct journal_view *v, struct journal_part *ret);

/* Whether it touches that table, or may. An empty table: any of the keyspace. */
bool journal_view_touches(const struct journal_view *v, const char *keyspace, const char *table);
