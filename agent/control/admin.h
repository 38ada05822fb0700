/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin socket: how `cqlferry status`, `phase`, `off`, … talk to the running agent.
 *
 * A unix stream socket (mode 0600: who may open it may steer the migration). One JSON object a line each way:
 *
 *   ▶ {"command": "phase", "to": "cutover"}
 *   ◀ {"progress": "backlog 812 records"}                    any number of these
 *   ◀ {"ok": true, "phase": "cutover", …}                    then exactly one final line,
 *   ◀ {"ok": false, "error": "…", "hint": "…"}               or this one
 *
 * Requests of one connection are answered one after the other. A client that half-closes (printf … | nc -N)
 * still gets its answer. Nothing a client does blocks or grows the agent: lines, connections, waiting time
 * and unsent output are bounded, and what exceeds its bound is cut off. An answer that exceeds it by itself
 * becomes an error.
 *
 * SIGPIPE must be ignored (`cqlferry agent` does it): libuv writes with write(2).
 * Everything runs on the loop given to admin_start (the main loop). No function here may be called from
 * another thread.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

#include "base/error.h"

#define ADMIN_LINE_MAX (64u << 10) /* bytes of a request with its newline */
#define ADMIN_OUTPUT_MAX \
	(4u << 20) /* bytes that wait for a slow client; `sessions` of 10,000 clients is about 2 MiB */
#define ADMIN_CONNECTIONS_MAX 32
#define ADMIN_COMMANDS_MAX 32
#define ADMIN_IDLE_MILLIS 30000 /* for a client that neither finishes a line nor reads its answer */

struct admin;
struct admin_reply;

/*
 * Carries out one request, at once or later: admin_done() or admin_fail() is called exactly once for each
 * call of the handler, from inside it or any time after. `request` is borrowed during the call (json_incref
 * to keep it).
 */
typedef void (*admin_handler)(struct admin_reply *reply, const json_t *request, void *context);

/* *ret_admin is the caller's until admin_stop. Listens nowhere yet. 0 or −ENOMEM. */
int admin_new(uv_loop_t *loop, struct admin **ret_admin);

/* `command` is borrowed for the life of `admin` (a literal). 0; −EEXIST, −ENOSPC: our mistakes. */
int admin_register(struct admin *admin, const char *command, admin_handler handler, void *context);

/*
 * Makes the socket's directory (0700) where it is missing, takes `path`.lock, removes a stale socket and
 * listens. −EADDRINUSE with the pid of the agent that holds the lock; other −errno with a text. May be called
 * once.
 */
int admin_listen(struct admin *admin, const char *path, struct error *error);

/*
 * Stops listening, removes the socket, drops all connections; takes `admin` (NULL is allowed). The memory
 * goes with the last loop callback and the last outstanding reply: run the loop once more. Outstanding
 * replies still have to be ended.
 */
void admin_stop(struct admin *admin);

/* A line {"progress": text} for a client that waits. Dropped when the client is gone. */
void admin_progress(struct admin_reply *reply, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Final: {"ok": true} and the members of `object`. Takes both; `object` NULL = nothing to add. */
void admin_done(struct admin_reply *reply, json_t *object);

/* Final: {"ok": false, "error", "hint"}. Takes `reply`; `hint` NULL or "" = none. */
void admin_fail(struct admin_reply *reply, const char *error, const char *hint);

/*
 * Final: nothing is sent, the connection is closed on this side, and its socket (non-blocking) is handed to the caller, who may go on
 * with it as he likes. −1 when the client is gone. Takes `reply`.
 */
int admin_detach(struct admin_reply *reply);

/* Nobody waits for this answer any more. A long action may end early; a phase move carries on. */
bool admin_is_gone(const struct admin_reply *reply);

/* Who asks, for audit lines: "uid 0 pid 4711". Valid as long as the reply. */
const char *admin_peer(const struct admin_reply *reply);
