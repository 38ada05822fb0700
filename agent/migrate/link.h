/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP connection that carries messages of the migration service (update.h), accepted or dialled.
 *
 *   DIALLING ──connected──▶ OPEN ──link_finish, end of stream──▶ DRAINING ──output written──▶ closed
 *       └──────────────────────┴────────── link_close, failure ──────┴───────────────────────▶ closed
 *
 * Ownership: a link belongs to its owner until hooks.closed was called, which happens once, from inside
 * link_close or any time before; the memory goes by itself with the last callback of the loop. Everything
 * runs on one loop.
 *
 * Bounds: a message is UPDATE_MAX at most, and its buffer grows with what has arrived, not with what was
 * announced; a message that has begun has `frame_ms` to be complete; output that the peer does not read ends
 * at LINK_OUTPUT_MAX, then link_send says so.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/span.h"

#define LINK_OUTPUT_MAX (256u << 10) /* for a peer that does not read: about 2,500 answers */
#define LINK_DRAIN_MS 1000	     /* for the peer to take what is left, and to close */

struct link;

/* Called on the loop. `context` is the owner's. */
struct link_hooks {
	void (*opened)(void *context, struct link *l); /* dialled links only; may be NULL */
	void (*message)(void *context, struct link *l, struct span body); /* borrows body */
	void (*broken)(void *context, struct link *l,
		       const char *why); /* no message can be read any more: say so, then link_finish */
	void (*closed)(void *context, struct link *l, const char *why); /* the last call */
	void *context;
};

/* Takes the next connection of `listener`. `hooks` is copied. 0 or −errno. */
int link_accept(uv_stream_t *listener, unsigned frame_ms, const struct link_hooks *hooks, struct link **ret);

/*
 * Looks `host` up, unless it is an address, and connects to one of its addresses: the (attempt mod count)th,
 * so that repeated attempts try all. `host` is borrowed during the call. 0, and later opened or closed;
 * −errno.
 */
int link_dial(uv_loop_t *loop, const char *host, uint16_t port, unsigned attempt, unsigned frame_ms,
	      const struct link_hooks *hooks, struct link **ret);

/* Copies. All of it or nothing: 0; −ENOTCONN: not open; −ENOBUFS: the peer does not read; −ENOMEM. */
int link_send(struct link *l, const uint8_t *bytes, size_t size);

/* No more messages in either direction; closes when the output is written, at the latest after LINK_DRAIN_MS.
 */
void link_finish(struct link *l);

/* Closes at once. `why` is a literal. */
void link_close(struct link *l, const char *why);

bool link_is_open(const struct link *l);
const char *link_peer(const struct link *l); /* "10.0.3.7:4711" */
uint64_t link_born_ns(const struct link *l);
