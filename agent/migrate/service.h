/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the migration service asks of the agent, and what comes of it (docs/migration-service.md; messages:
 * update.h, connections: post.h).
 *
 *   WAITING ──Start──▶ STARTED ──Complete──▶ phases cutover, finish
 *
 * While WAITING the agent's owner serves no client. A Start is on record in the state directory before
 * anybody acts on it, so that an agent that is restarted in the middle of a migration serves at once; it does
 * not wait either in a phase in which the clients' traffic has been moved (cutover, rollback, finish).
 *
 * What it does to the agent goes through `struct service_hooks`. Main loop only.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "cutover/phase.h"
#include "migrate/post.h"
#include "migrate/update.h"

#define SERVICE_WAITERS_MAX 8 /* requests that wait for one phase change */

struct service;

struct service_options {
	struct post_options post;
	const char *state_directory; /* "" = a restarted agent waits again */
	bool started; /* a Start has arrived at the agent before, or at this one before it handed over */
};

/* All on the loop; from inside service_start `phase` alone. */
struct service_hooks {
	int (*serve)(void *context,
		     struct error *error); /* begin to serve clients: 0, or −errno with the reason */
	enum phase (*phase)(void *context);
	void (*move)(void *context, const struct phase_request *request,
		     const struct phase_listener *listener);
	/* In phases mirror and drain: wait until no client passes by the agent any more; `done` says so, or why some do.
	 * NULL = none can. */
	void (*clear)(void *context, const struct phase_listener *listener);
	/* Tables that are at these steps: hold or release their writes. 0, or −errno with the reason. */
	int (*hold)(void *context, const struct migration_table *tables, size_t count, struct error *error);
	void (*stop)(void *context); /* end the agent, gracefully */
	void *context;
};

/*
 * Reads the record, listens, and begins to connect to the service. Strings are borrowed until service_stop,
 * `hooks` is copied. 0, or −errno with the reason. Blocks while names are looked up.
 */
int service_start(uv_loop_t *loop, const struct service_options *options, const struct service_hooks *hooks,
		  struct service **ret, struct error *error);

/* No Start has arrived: do not serve clients. */
bool service_waiting(const struct service *s);

/* The port it listens on. */
uint16_t service_port(const struct service *s);

/*
 * Now and then: tells the service how many writes wait for each table that is not loaded yet, where that has changed by half or more, so
 * that it can take those first. `waiting` says how many; borrows.
 */
void service_backlog(struct service *s, uint64_t (*waiting)(void *context, const char *keyspace, const char *table), void *context);

/* For `status`: {"waiting", "tables", "connections", "reachable", "updates", "failures", "malformed",
 * "dropped", "refused"}. */
json_t *service_describe(const struct service *s);

/* For a person who asks why clients are not served; `text` has `size` bytes. Returns text. */
const char *service_reason(const struct service *s, char *text, size_t size);

/* Takes `s` (NULL is allowed). The memory goes with the loop's last callbacks: run it once more. */
void service_stop(struct service *s);
