/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One value for both clusters in place of now(), uuid() and the like.
 *
 *   text      … VALUES (now(), ?)     ──▶ … VALUES ((timeuuid)50554d6e-…, ?)         a literal with a type hint
 *   PREPARE   … VALUES (now(), ?)     ──▶ … VALUES ((timeuuid):cqlferry_0, ?)        a bind marker
 *   EXECUTE   values: x               ──▶ values: 50554d6e…, x                       its value, at its position
 *
 * The type hint makes what surrounds the call mean the same as before: toDate(now()) finds its function, and
 * currentDate() - 1d its operator. Every call gets a value of its own, as each does on a cluster (seen on
 * 4.1.10 and 5.0.9: SELECT now(), now() gives two). Calls of functions that users defined stay.
 *
 * Pure: time and randomness come from the caller.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"
#include "cql/lexer.h"
#include "cql/request.h"
#include "cql/response.h"

enum instant_kind {
	INSTANT_NONE,
	INSTANT_TIMEUUID,
	INSTANT_UUID,
	INSTANT_TIMESTAMP,
	INSTANT_DATE,
	INSTANT_TIME
};

/* A value as it stands in a request. */
struct instant {
	enum instant_kind kind;
	uint8_t size;
	uint8_t value[16];
};

/* Where values come from. Not shared between threads; two sources of one node need different `node` bytes. */
struct instant_source {
	int64_t wall_us;  /* µs since 1970: the time of the request, set by the caller */
	uint64_t ticks;	  /* of the last timeuuid: 100 ns since 1582-10-15 */
	uint8_t node[8];  /* clock sequence and node id, as they end a timeuuid */
	void (*random)(void *context, uint8_t to[16]);
	void *context;
};

/* `node`: random bytes; the variant's and the multicast bit (no network card has it) are set here. */
void instant_source_init(struct instant_source *s, const uint8_t node[8],
			 void (*random)(void *context, uint8_t to[16]), void *context);

/* The next value of that kind; timeuuids of one source only grow. */
void instant_take(struct instant_source *s, enum instant_kind kind, struct instant *ret);

/* Finds the calls in a text, from left to right. */
struct instant_scan {
	struct span text;
	struct lexer lexer;
	struct token past[4]; /* the latest first */
	uint64_t braces;      /* one bit for each open bracket, the innermost lowest: 1 = '{' */
	unsigned depth;
	unsigned markers; /* bind markers passed so far */
	bool taken;	  /* one of them has a name that the agent would give */
};

struct instant_call {
	size_t at, size; /* in the text */
	enum instant_kind kind;
	unsigned markers; /* bind markers before it */
};

void instant_scan_init(struct instant_scan *s, struct span text);
bool instant_next(struct instant_scan *s, struct instant_call *ret);

/* A bind variable that the changed text has and the client's has not. */
struct instant_bind {
	uint16_t position; /* among all of the changed text's */
	uint8_t kind;
};
#define INSTANT_BINDS_MAX 256

/*
 * The variables that instant_text() adds to `text`, by position: their number, 0 when there is nothing to replace, −E2BIG
 * (more than fit), −EEXIST (the text has markers named like ours).
 */
int instant_binds(struct span text, struct instant_bind binds[INSTANT_BINDS_MAX]);

/* Whether a cluster understood them so: what it said of the changed text's variables. */
bool instant_binds_match(struct columns columns, const struct instant_bind *binds, unsigned count);

/* The text with markers in place of calls. Its size or −ENOSPC. No call makes it grow by more than INSTANT_TEXT_GROWTH bytes. */
#define INSTANT_TEXT_GROWTH 32
ssize_t instant_text(struct span text, uint8_t *to, size_t capacity);

/*
 * What is executed in place of a prepared statement: the one that was made of the changed text, or, where `text` is not empty, its text
 * with literals. (Clusters take no markers inside literals of sets, lists and maps.)
 */
struct instant_place {
	struct span id;
	const struct instant_bind *binds;
	unsigned count;
	struct span text;
};

struct instant_change {
	struct instant_source *source; /* not for PREPARE */
	/* false: the statement is executed as it is. */
	bool (*place)(void *context, struct span id, struct instant_place *ret);
	void *context;
};

/*
 * Writes the body of QUERY, PREPARE, EXECUTE or BATCH with what is in place of calls. Everything else stays as it is, but that an EXECUTE
 * of a text is a QUERY. Returns its size; −ENOSPC, or −E2BIG when it could not be said in any room: more values than a request can have.
 */
ssize_t instant_request(const struct request *r, const struct instant_change *how, uint8_t *to, size_t capacity);
