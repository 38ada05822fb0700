/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of import*.c and batch.c: chunks on their way from the reader to a worker, and what becomes of
 * their rows. */
#pragma once
#include "copy/import.h"
#include "copy/input.h"
#include "copy/reject.h"
#include "copy/mover.h"

#define CHUNK_BYTES (1u << 20)	 /* of rows in a chunk; one more row may be longer */
#define CHUNKS_BYTES (16u << 20) /* of rows in all chunks: what bounds memory whatever the file */

/* A row of the file, and once it is parsed its values. */
struct chunk_row {
	size_t at, size; /* in chunk.data */
	uint64_t row, line;
	uint32_t file;
	uint32_t place; /* range of the ring */
	size_t values_at,
	    values_size; /* in chunk.values: a [value] for each bind, or the text of a statement */
};

struct chunk {
	struct chunk *next;
	struct bytes data, values;
	struct chunk_row *rows;
	uint32_t *order;	    /* rows in the order in which they go into batches */
	unsigned count, room, left; /* left: rows without an outcome */
	unsigned wrong;		    /* rows before its last one that the reader rejected; not in it */
	unsigned rejected;	    /* `wrong`, and those of its own that were rejected */
	size_t charged;		    /* against CHUNKS_BYTES */
	/* For the progress file; under import.lock. */
	struct input_mark after;
	bool done;
	struct chunk *younger;
};

struct import {
	struct plan *plan;
	struct input input;
	struct rejects rejects;
	pthread_mutex_t lock;		  /* of all below */
	struct chunk *queue, **queue_end; /* read, not taken */
	struct chunk *oldest, *youngest;  /* whose outcome is not known, in the order of the files */
	struct input_mark mark;		  /* up to here everything has an outcome */
	uint64_t mark_rows, mark_rejected; /* up to there: all of them, and those that were rejected */
	uint64_t earlier, earlier_rejected; /* rows of the run that is resumed: written, rejected */
	_Atomic uint64_t written;	    /* by this one */
	size_t charged;
	bool finished; /* nothing more will be read */
	unsigned workers;
	struct import_worker *list;

	/* Which field of the file each bind is, and what binds are. */
	unsigned field_count, bind_count;
	unsigned *bind_field;	     /* field of the file */
	unsigned *bind_column;	     /* column of the plan */
	bool *bind_key;		     /* of the primary key: may not be null */
	unsigned pk_count, *pk_bind; /* binds that make the partition key, in its order */
};

struct import_worker {
	struct mover worker; /* first */
	struct import *import;
	struct batch *ready, **ready_end; /* not sent yet */
	struct batch *waiting;		  /* for their time to be sent again */
	struct batch *spare;
	unsigned ready_count, active; /* active: all batches without an outcome */
	struct bytes scratch, envelope;
	struct span *fields;
	unsigned turn;
};

struct batch {
	struct lane_request lane; /* first */
	struct import_worker *owner;
	struct chunk *chunk;
	uint32_t first, count; /* in chunk.order */
	unsigned attempts;
	uint64_t retry_ns;
	struct batch *next;
};

int import_worker_make(struct import_worker *w, struct import *im);
void import_worker_free(struct import_worker *w);
/* For worker.turn: takes chunks, sends batches. */
bool import_turn(struct mover *worker, uint64_t now_ns);

/* rows.c: parses the chunk's rows, rejecting what cannot be read, and puts the others into `order` by place.
 * The number of these. */
unsigned rows_parse_chunk(struct import_worker *w, struct chunk *c);

/* The row has its outcome. Frees the chunk with the last one. */
void chunk_settle(struct import *im, struct chunk *c, unsigned rows);
/* NULL: none is there now. */
struct chunk *chunk_take(struct import *im);
