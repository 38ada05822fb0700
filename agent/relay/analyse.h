/* SPDX-License-Identifier: Apache-2.0 */
/* What a QUERY, PREPARE, EXECUTE or BATCH does, as far as the relay must know. Lives while its envelope does. */
#pragma once
#include "cql/request.h"
#include "cql/statement.h"
#include "relay/prepared.h"

struct session;

struct analysis {
	struct request request;            /* views of the plain body */
	const struct statement *statement; /* of the text, of the prepared statement, or `own` */
	struct statement own;
	struct prepared_slot *slot;        /* EXECUTE with a known id (borrows; not yet counted as a use) */
	struct prepared_slot *asked;       /* EXECUTE: what the client named; not `slot` where another one is executed in its place */
	struct span asked_children;        /* BATCH: the children as they were received */
	struct span unknown_id;            /* an id that the map does not know */
	enum unmirrored unmirrored;
	enum topology topology;
	bool functions;                    /* it calls now() or the like, and could be changed (instants.h) */
	bool changed;                      /* and was: the request's body is not the received one, but in the worker's room */
	bool compressed;                   /* v3/v4: the envelope's body is compressed, request is of the plain one */
};

/* A statement that was sent to be prepared, until its answer comes. */
struct pending_prepare {
	char keyspace[CQL_NAME_MAX + 1];
	bool first;   /* what is in flight is the changed text: the client's own envelope follows */
	bool refused; /* that came to nothing */
	size_t size, changed_size, envelope_size;
	uint8_t text[]; /* the client's; the changed one; the client's envelope. The last two only where there is something to change. */
};

/*
 * The body as the client meant it: v3/v4 bodies may be compressed, then *ret points into the worker's scratch. 1 = it was
 * compressed, 0, CQL_MALFORMED, −ENOMEM.
 */
int plain_body(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size, struct span *ret);

/* Fills *ret. 0, CQL_MALFORMED, −ENOMEM. The views hold until the next analyse() of this worker. */
int analyse(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size, struct analysis *ret);
