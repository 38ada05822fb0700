/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection on a worker's loop: a stream, its readiness, and what could not be written yet.
 *
 *   send(iov) ──▶ nothing queued: straight into the socket ──▶ what did not fit is copied into the queue
 *             └─▶ something queued: behind it                     └─ flushed when the socket is writable
 *
 * An encrypted stream may wait for the other direction than the one that is asked for, and may hold bytes that the socket no
 * longer shows; the owner notices neither.
 *
 * Back-pressure is the owner's: conn_congested() says that the queue is above CONN_HIGH, `drained` is called when it has
 * fallen below CONN_LOW; meanwhile the owner stops reading whoever feeds it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uv.h>

#include "net/addr.h"
#include "net/stream.h"

#define CONN_HIGH (256u << 10)
#define CONN_LOW (64u << 10)

struct conn;
struct chunk;

struct conn_ops {
	void (*readable)(struct conn *c);
	void (*drained)(struct conn *c);        /* the queue fell below CONN_LOW after having been above CONN_HIGH */
	void (*failed)(struct conn *c, int error); /* −errno: writing failed; called from the loop, never from conn_send() */
	void (*closed)(struct conn *c);         /* after conn_close(): the memory may go now */
};

struct conn {
	uint32_t magic;
	bool reading, writing, congested, broken, finishing, closing, corked;
	int error, events; /* events: what the loop waits for now */
	unsigned handles;
	uv_poll_t poll;
	uv_idle_t idle; /* runs while the stream holds bytes that are wanted */
	struct stream stream;
	const struct conn_ops *ops;
	void *owner;
	struct chunk *head, *tail;
	size_t queued; /* bytes in the queue */
	uint64_t taken_told; /* conn_taken() */
};

/* Takes the stream and begins on `loop`, not yet reading. The owner keeps the memory until `closed`. 0 or −errno. */
int conn_init(struct conn *c, uv_loop_t *loop, struct stream stream, const struct conn_ops *ops, void *owner);

/* Starts or stops calling `readable`. */
void conn_read(struct conn *c, bool on);

/* Reads once. Bytes, 0 = end of stream, −EAGAIN, −errno. */
static inline ssize_t conn_recv(struct conn *c, void *to, size_t size)
{
	return stream_read(&c->stream, to, size);
}

/* Bytes that left the socket's receive queue since the last call: with TLS more than what was read. */
static inline uint64_t conn_taken(struct conn *c)
{
	uint64_t n = c->stream.taken - c->taken_told;

	c->taken_told = c->stream.taken;
	return n;
}

/*
 * Sends or queues the bytes (borrows them). Returns 0; or −errno when the connection is broken or memory is short,
 * after which it only waits to be closed.
 */
int conn_send(struct conn *c, const struct iovec *iov, int count);

/* While corked, what is sent is only queued; uncorking writes it, and may call `drained` or `failed`. */
void conn_cork(struct conn *c);
void conn_uncork(struct conn *c);

static inline bool conn_congested(const struct conn *c)
{
	return c->congested;
}

/*
 * Puts another stream in the place of the one that is there, on the same socket (takes it): TLS that begins on an open connection.
 * Nothing may be queued.
 */
void conn_replace(struct conn *c, struct stream stream);

/* Throws away what has been received and not read, so that a close that follows is an orderly end. Bounded. False: the peer has ended, too. */
bool conn_discard_input(struct conn *c);

/*
 * An orderly end: what is queued is written, then our direction is ended, and what still comes is thrown away until the peer ends
 * as well. (A plain close with unread bytes is a reset, which destroys what the peer has not read yet.) The owner sets the
 * time limit: conn_close().
 */
void conn_finish(struct conn *c);

/* Stops everything and closes the socket. `closed` comes later from the loop. Calling it twice is harmless. */
void conn_close(struct conn *c);
