/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to a node with many requests in flight, protocol v4, on the loop of one thread.
 *
 *   DIALING ─▶ STARTUP ─▶ (AUTH) ─▶ (PREPARE) ─▶ UP ─▶ GONE
 *      └──────────┴──────────┴─────────┴───────────────▲
 *
 * Answers stream: whoever asked gets the bytes of a body as they come, so that a page of any size needs
 * memory for one row. Requests belong to whoever made them; the channel only lists them by stream id.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/span.h"
#include "copy/bytes.h"
#include "cql/frame.h"
#include "net/endpoint.h"

#define CHANNEL_STREAMS 1024 /* requests in flight at most */
#define CHANNEL_PIECE_MAX \
	(34u << 20)		  /* what has to be held in one piece: a row, or a small answer as a whole */
#define CHANNEL_READ (256u << 10) /* one read */

struct channel;

struct channel_request {
	/*
	 * Bytes of the answer that are there and not taken yet; `whole`: there will be no more. Returns how
	 * many it takes; with `whole` all count as taken, and the request has left the channel before the
	 * call, so that it may be sent again in it. −errno: the answer is malformed, the connection is given
	 * up.
	 */
	ssize_t (*answer)(struct channel_request *r, const struct frame_header *head, struct span body,
			  bool whole);
	/* The connection is lost, or (−ETIMEDOUT) the deadline has passed. The request has left the channel.
	 */
	void (*failed)(struct channel_request *r, int error);
	uint64_t deadline_ns; /* of the whole answer; set by whoever sends */
	int16_t stream;
	bool sent; /* by channel_send(): what has become of it is not known when it fails */
};

struct channel_settings {
	const char *username, *password; /* username NULL or "": none */
	const char *prepare;		 /* a statement that is prepared on the way up; may be NULL */
	unsigned connect_ms;		 /* for dialling, and again for the way up */
	uint8_t *scratch;		 /* CHANNEL_READ bytes that all links of a thread share */
};

struct channel_ops {
	/* UP, or the way there has failed or the connection is lost (`error` < 0, `reason` may be ""). When
	 * failing, all requests have been told, and the channel frees itself after the call. */
	void (*changed)(void *owner, struct channel *l, int error, const char *reason);
	/* A request has been answered, or the socket takes bytes again. */
	void (*room)(void *owner, struct channel *l);
};

/* Dials. `to` is borrowed for the call, settings for the channel's life. NULL: out of memory or descriptors. */
struct channel *channel_new(uv_loop_t *loop, const struct endpoint *to,
			    const struct channel_settings *settings, const struct channel_ops *ops,
			    void *owner);

/* Whether channel_send() would take a request now. */
bool channel_ready(const struct channel *l);
unsigned channel_inflight(const struct channel *l);
/* Of the statement in `prepare`, while UP. Borrowed. */
struct span channel_prepared_id(const struct channel *l);
/* The whole PREPARED body, for its metadata. Borrowed until the channel is gone. */
struct span channel_prepared_body(const struct channel *l);

/* Sends one envelope (borrowed), in which the stream id is filled in. 0 or −errno: not sent, r->failed() is
 * not called. */
int channel_send(struct channel *l, struct channel_request *r, uint8_t *envelope, size_t size);

/* Deadlines. To be called a few times a second. */
void channel_tick(struct channel *l, uint64_t now_ns);

/* Fails what is in flight with −ECANCELED and frees later, from the loop; `changed` is not called. NULL is
 * fine. */
void channel_close(struct channel *l);
