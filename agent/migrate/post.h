/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways between the agent and the migration service, and the answers that go over them.
 *
 *   requests   arrive on up to POST_LINKS_MAX connections to migration.proxyPort
 *   answers    go back on the connection of their request, and to migration.servicePort, where the document
 * has them written: over a connection that is kept and made again with back-off. Requests may come by it as
 * well; it carries no second answer then.
 *
 * An answer that cannot be delivered to servicePort yet waits in the outbox; on a connection that is not read
 * it is dropped and counted. Main loop only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "migrate/update.h"

#define POST_LINKS_MAX 4
#define POST_OUTBOX_MAX 64   /* answers; the oldest goes first … */
#define POST_OUTBOX_MS 60000 /* … or when so old that a restarted service would not know its ID */
#define POST_DELAYED_MAX 64  /* Failures that are held back; more are sent at once */

struct post;

/* Whom an answer is for. */
struct sender {
	uint64_t link; /* number of the connection that the request came by */
	char id[UPDATE_ID_SIZE];
};

struct post_options {
	const char *service_host; /* migration.serviceHost: a name or an address */
	uint16_t service_port;
	const char *proxy_host; /* "" = all addresses; a name that is not this node's means the same */
	uint16_t proxy_port;	/* 0 = one that is free (tests): post_port() */
	unsigned frame_ms;	/* for a message that has begun; 0 = 30000 */
	unsigned failure_ms;	/* the same ID fails again: answered so much later; 0 = 1000 */
};

struct post_hooks {
	/* A message that could be read; to be answered once, now or later, or not at all. Borrows both. */
	void (*update)(void *context, const struct update *u, const struct sender *from);
	void *context;
};

struct post_counts {
	uint64_t updates;     /* messages that arrived */
	uint64_t failures;    /* answered with Failure … */
	uint64_t malformed;   /* … of these: could not be read */
	uint64_t dropped;     /* answers that did not go out on one of their ways */
	uint64_t refused;     /* connections above POST_LINKS_MAX */
	unsigned connections; /* to proxyPort, now */
	bool reachable;	      /* connected to servicePort */
};

/*
 * Listens, and begins to connect to the service. Strings are borrowed until post_stop, `hooks` is copied.
 * Names are looked up, which may block: before anybody is served. 0, or −errno with the reason.
 */
int post_start(uv_loop_t *loop, const struct post_options *options, const struct post_hooks *hooks,
	       struct post **ret, struct error *error);

void post_succeed(struct post *p, const struct sender *to);
void post_fail(struct post *p, const struct sender *to, const char *text);

/* post_fail for what could not be read: counted as such. */
void post_malformed(struct post *p, const struct sender *to, const char *text);

/* A message of our own, to the service's port. False: there is no connection to it now. */
bool post_tell(struct post *p, const struct update *u);

/* "10.0.3.7:4711"; "gone" when its connection has ended. */
const char *post_peer(const struct post *p, const struct sender *from);

/* The port it listens on. */
uint16_t post_port(const struct post *p);
struct post_counts post_counts(const struct post *p);

/* Takes `p` (NULL is allowed). The memory goes with the loop's last callbacks: run it once more. */
void post_stop(struct post *p);
