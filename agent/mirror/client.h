/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small blocking CQL client for the agent's own questions: preflight, doctor, who else writes, row sync.
 * Protocol v4, one request in flight, password login. It waits in poll(2), so it belongs on the control
 * thread or a thread pool, never on a worker.
 *
 * Everything that the peer decides is bounded: the size of an answer, the columns of a row, the pages of a
 * result, the time for each step. Error texts name the node and carry the server's own message.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/span.h"
#include "cql/request.h"
#include "cql/response.h"
#include "relay/cluster.h"

#define CLIENT_ANSWER_MAX (16u << 20) /* bytes in one answer (one page) */
/* Columns of a result. A row sync asks for value, WRITETIME and TTL of each column of a table. */
#define CLIENT_COLUMNS_MAX 2048u
#define CLIENT_PAGES_MAX 10000u
#define CLIENT_PAGE_ROWS 5000 /* asked for; what the Java driver asks for */
/* How the agent's connections name themselves in system_views.clients; the mirror's are "cqlferry mirror". */
#define CLIENT_DRIVER_NAME "cqlferry"

struct client;

/*
 * Connects to a node of `cluster` and logs in as the cluster says; plain or by TLS, as it says, too. `to` is where: cluster_endpoint() or
 * cluster_endpoint_at(). All arguments are borrowed; the password is not kept. `mark`: SO_MARK that tells our kernel hooks to leave the connection alone (0 = none;
 * refused marks are ignored, as for sessions). `timeout_ms` bounds all of this call, and later each page of
 * client_query().
 * 0, or with the reason in `error`: −ENOKEY (a login is wanted and none configured), −EACCES (login refused),
 * −EAGAIN (a node that cannot judge logins now), −EPROTONOSUPPORT (no v4), −EPROTO (not CQL, or not the TLS that was
 * expected), −EKEYREJECTED (its certificate), −ETIMEDOUT, or what connect(2) and recv(2) said.
 */
int client_open(struct client **ret, const struct cluster *cluster, const struct endpoint *to, uint32_t mark,
		unsigned timeout_ms, struct error *error);

/* One row. Views die with the call; a cell is data = NULL for null. Return 0 to go on; anything else ends
 * client_query() with it. */
typedef int (*client_row)(void *context, const struct column *columns, const struct span *cells,
			  unsigned count);

/*
 * Asks and follows the pages to the end. `consistency`: enum consistency. `row` may be NULL, and is not
 * called for answers without rows. Returns 0; what `row` returned; or −errno with the reason in `error`:
 *
 *   the server's ERROR, after which the connection is good for the next question: −EPERM (unauthorized),
 *   −EINVAL (syntax, invalid, configuration), −EEXIST, −EAGAIN (overloaded, bootstrapping, unavailable),
 *   −ETIME (its own time-out), −E2BIG ("Batch too large"), −EREMOTEIO (any other);
 *
 *   trouble on the way, after which it is not, and every later call gives −ENOTCONN: −EMSGSIZE (one of the
 *   limits above), −EPROTO, −ETIMEDOUT, −ECONNRESET, …
 */
int client_query(struct client *c, const char *text, uint16_t consistency, client_row row, void *context,
		 struct error *error);

/* A question with values for its bind markers, by position. All is borrowed. `consistency` may be SERIAL for
 * a SELECT of one partition: it then sees, and completes, what lightweight transactions have decided. */
struct client_question {
	struct span text;
	uint16_t consistency;
	uint16_t value_count;
	struct span values; /* value_count [value]s: 4 bytes of length and the bytes */
	/* The text will come again, many times: let the server read it once. Not for texts with literals. */
	bool prepare;
};

/* As client_query(). */
int client_ask(struct client *c, const struct client_question *q, client_row row, void *context,
	       struct error *error);

/* Whether the server asked for a login. */
bool client_authenticated(const struct client *c);

/* Whether no further question can be asked: open another. */
bool client_broken(const struct client *c);

/* "10.0.3.7:9042"; borrowed, lives as long as the client. */
const char *client_node(const struct client *c);

/* NULL is fine. */
void client_close(struct client *c);
