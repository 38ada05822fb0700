/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One agent follows another without a refused connect.
 *
 *   the new one (takeover.c)                                   the old one (handover.c)
 *   ▶ {"command":"handover","probe":true,"protocol":1}         on the admin socket
 *   ◀ {"ok":true,"pid":4711,"version":"…","state":"65025:4242"}   device and inode of state.directory: it must be the same one
 *     loads its programs, takes the links over
 *   ▶ {"command":"handover","protocol":1,"pid":4712}           on a connection of its own, which stays
 *                                                              writes and releases phase, ledger, state files, HTTP port, migration
 *                                                              service, admin socket; goes on serving
 *   ◀ {"ok":true,"phase":"mirror","started":false,"listeners":[{"address":"10.77.0.1:19042","intercepted":true},…]} with the sockets (SCM_RIGHTS);
 *                                                            started: the migration service has said Start
 *     opens all of these, accepts, steers to itself
 *   ▶ {"serving":true}                                         closes its listeners after HANDOVER_ACCEPT_MS, idle sessions bit by bit
 *   ◀ {"sessions":7,"backlog":0,"gaps":[…]}                    once a second
 *   ◀ {"ended":true,"gaps":[…]}                                nothing is left; ends
 *
 * Listening sockets are passed and not opened anew: what waits in a socket's queue is lost when the last process closes it, and with
 * SO_REUSEPORT that would be a part of the clients. So there is one queue, and either process may accept from it.
 *
 * Of everything that is written to disk but the journal, of which each agent has its own, there is one writer at any time: the old
 * agent has closed its files before it answers, and what it learns afterwards for the ledger goes to the new one over this connection.
 *
 * A new agent that ends before it says "serving" ends the connection: the old one takes all back and has served all the while. An old
 * agent that ends before it says "ended" leaves what it had not delivered in its journal, which the new one takes over; without a
 * journal on disk that is lost, and on the ledger.
 *
 * Phases do not change before the old one has ended: its sessions would go on writing to the side that was left.
 */
#pragma once
#include "control/node.h"

#define HANDOVER_PROTOCOL 1
#define HANDOVER_ACCEPT_MS 200 /* connects that were steered to the old address arrive within milliseconds */
#define HANDOVER_ANSWER_MS 20000
#define HANDOVER_LINE_MAX (1u << 20)

#define HANDOVER_STATE_MAX 48
/* What tells one state directory from another, whatever it is mounted as; "" = nothing is kept. Returns `id`. */
const char *handover_state(const char *directory, char id[HANDOVER_STATE_MAX]);

/* ---- the old agent */

int handover_register(struct node *n, struct error *error);
/*
 * After the main loop has stopped: true = it was for the sake of a handover, which has been carried out or refused; run it again.
 * It runs the loop itself, so never from a callback.
 */
bool handover_due(struct node *n);
/* Everything that has one owner belongs to another process. */
bool handover_given(const struct node *n);
/* What was given, while all is taken back: without a state directory nobody else knows. −1 and false = nothing was. */
int handover_phase(const struct node *n);
bool handover_started(const struct node *n);
/* Once a second. Stops the loop when nothing is left to do. */
void handover_tick(struct node *n);
/* After the workers have ended. */
void handover_end(struct node *n);

/* ---- the new agent */

/* Asks the agent that runs here whether it can hand over. 1 = yes, 0 = there is none, −errno with the reason and the remedy. */
int takeover_find(struct node *n, struct error *error);
/* Has it hand over, and takes the sockets. 0 or −errno with the reason; it goes on as before then. */
int takeover_take(struct node *n, struct error *error);
/* The phase that it was in; −1 = there was none. */
int takeover_phase(const struct node *n);
/* Its migration service had said Start. */
bool takeover_started(const struct node *n);
/* Clients are served here. */
void takeover_serving(struct node *n);
/* For `status`; NULL = no older agent is left. */
json_t *takeover_describe(const struct node *n);
/* Closes the connection. The last thing that is done: from then on a predecessor that was not told takes everything back. */
void takeover_end(struct node *n);
