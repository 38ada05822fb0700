/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes on their way to one connection, gathered while one batch of input is worked through.
 *
 * Unchanged bytes are only pointed at, neighbouring ones merge; what the agent writes itself goes into a small arena. One
 * system call sends all. On a connection that speaks segments (v5) the envelopes of one received segment are
 * gathered first: when they are exactly that segment's, unchanged, the received bytes go on as they are; otherwise
 * they get a segment of their own.
 *
 *   emit_begin(conn) ─▶ emit_bytes / emit_copy … ─▶ [emit_segment] ─▶ emit_flush
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/span.h"

#define EMIT_IOV 128
#define EMIT_ARENA (32u << 10)

struct conn;

struct emit {
	struct conn *conn;
	bool segments, lz4;       /* the connection's framing now */
	int count;                /* ready to be sent: iov[0 … count−1] */
	int open;                 /* of an unfinished segment: iov[count … open−1]; = count when there is none */
	size_t open_bytes, arena_used;
	bool touched;             /* the unfinished segment holds something that is not the received bytes */
	struct iovec iov[EMIT_IOV];
	uint8_t arena[EMIT_ARENA];
};

/* Points at `conn`; nothing may be pending for another one. */
void emit_begin(struct emit *e, struct conn *conn, bool segments, bool lz4);

/* Adds bytes that stay valid until emit_flush() (borrows). `size` 0 is fine. */
void emit_bytes(struct emit *e, const void *data, size_t size);

/* Adds bytes of the agent's own (copies; at most EMIT_ARENA / 4 at once). */
void emit_copy(struct emit *e, const void *data, size_t size);

/*
 * An envelope of up to `size` bytes follows; `changed`: not exactly as received. Envelopes that could no longer share one segment
 * with it are wrapped now.
 */
void emit_envelope_begin(struct emit *e, size_t size, bool changed);

/* An envelope is complete: makes room when the gathered list grows long. */
void emit_envelope_end(struct emit *e);

/*
 * Ends the gathered envelopes of one segment. `received`: the segment they came in, sent as it is when nothing was touched
 * and `payload` bytes were gathered; data = NULL: always wrapped anew. `whole`: they are whole envelopes.
 */
void emit_segment(struct emit *e, struct span received, size_t payload, bool whole);

/* Sends all. */
void emit_flush(struct emit *e);
