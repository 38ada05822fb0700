/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakequeue.h - a connection of the fake server and the answers it still has to send.
 *
 * The queue is a list of pieces, each a stretch of the connection's own bytes or of the blobs' pattern, which
 * all share: a result of 64 MiB is a list of references. What a turn of the loop answered goes out in one
 * sendmsg(). Where segments are spoken (v5), answers are gathered in the worker's `frames` first and wrapped
 * as one segment.
 */
#ifndef BENCH_FAKEQUEUE_H
#define BENCH_FAKEQUEUE_H

#include "wire.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	PATTERN = 1 << 20,   /* the blob's period */
	REF_MIN = 16 << 10,  /* shorter blobs are copied: one iovec more costs about as much */
	QUEUE_MAX = 4 << 20, /* unsent answers beyond which the connection is not read */
};

enum count {
	COUNT_QUERY,
	COUNT_PREPARE,
	COUNT_EXECUTE,
	COUNT_BATCH,
	COUNT_READ,
	COUNT_WRITE,
	COUNT_OTHER,
	COUNT_ERROR,
	COUNTS
};
static const char *const count_names[COUNTS] = {"query", "prepare", "execute", "batch",
						"read",	 "write",   "other",   "error"};

struct worker {
	int epoll, listener;
	uint8_t *read;
	struct buf frames;		 /* answers of this turn to a connection that speaks segments */
	_Atomic uint64_t counts[COUNTS]; /* written by this thread alone */
};

struct piece {
	const uint8_t *ref; /* in the pattern; NULL: at `off` in the connection's bytes */
	size_t off, len;
};

struct conn {
	int fd;
	bool paused, want_write, drop;
	struct worker *worker;
	struct deframer in;
	int version;
	char *keyspace;
	struct buf own; /* bytes of answers that are not in the pattern */
	size_t noted;	/* so many of them are in pieces already */
	struct piece *pieces;
	size_t first, count, cap, queued;
};

static uint8_t *pattern; /* PATTERN and SEGMENT_MAX bytes, so that a segment never wraps */

static inline void count_add(struct worker *w, enum count c)
{
	atomic_store_explicit(&w->counts[c], atomic_load_explicit(&w->counts[c], memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ------------------------------------------------------------------ queue of answers */
static inline void piece_add(struct conn *c, const uint8_t *ref, size_t off, size_t len)
{
	struct piece *last = c->count > c->first ? &c->pieces[c->count - 1] : NULL;

	c->queued += len;
	if (last && !ref && !last->ref && last->off + last->len == off) {
		last->len += len;
		return;
	}
	if (c->count == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 4;
		c->pieces = realloc(c->pieces, c->cap * sizeof *c->pieces);
		if (!c->pieces)
			die("out of memory");
	}
	c->pieces[c->count++] = (struct piece){ref, off, len};
}

static inline void own_note(struct conn *c)
{
	if (c->own.n > c->noted)
		piece_add(c, NULL, c->noted, c->own.n - c->noted);
	c->noted = c->own.n;
}

/* Where answers are built: straight into the queue, or, when they go into segments, beside it first. */
static inline struct buf *answers(struct conn *c)
{
	return c->in.segmented ? &c->worker->frames : &c->own;
}

static inline void answers_close(struct conn *c)
{
	struct buf *frames = &c->worker->frames;

	if (c->in.segmented) {
		put_segments(&c->own, frames->p, frames->n);
		frames->n = 0;
	}
	own_note(c);
}

/* 0, -EAGAIN when the socket is full, -errno when it is lost. */
static inline int queue_flush(struct conn *c)
{
	while (c->queued) {
		struct iovec iov[256];
		struct msghdr msg = {.msg_iov = iov};
		ssize_t n;

		for (size_t i = c->first; i < c->count && msg.msg_iovlen < 256; i++)
			iov[msg.msg_iovlen++] = (struct iovec){
			    (void *)(c->pieces[i].ref ? c->pieces[i].ref : c->own.p + c->pieces[i].off),
			    c->pieces[i].len};
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EINTR ? 0 : -errno;
		c->queued -= (size_t)n;
		while (n) {
			struct piece *p = &c->pieces[c->first];
			size_t take = p->len < (size_t)n ? p->len : (size_t)n;

			p->ref = p->ref ? p->ref + take : NULL;
			p->off += take;
			p->len -= take;
			n -= (ssize_t)take;
			c->first += !p->len;
		}
	}
	c->first = c->count = c->own.n = c->noted = 0;
	return 0;
}

#endif
