/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing sessions that are idle, a few at a time, so that their drivers come back at a pace that a cluster's logins bear.
 *
 * A session is closed between two requests: nothing in flight, nothing unsent, and no byte of a next request received. One that was
 * opened a moment ago is left alone: its driver may still be asking what it needs to begin, and would call that a failed connect.
 * Worker's thread.
 */
#pragma once
#include "relay/session.h"

#define RETIRE_NODES_MAX 64  /* that take turns; further ones come with the last */
#define RETIRE_TURN_MS 3000  /* for a driver to find a node up again; drivers try after 1 s and a little more */
#define RETIRE_A_SECOND 20 /* on the node; a login costs a cluster some 100 ms of CPU (bcrypt) */
#define RETIRE_AGE_NS (5ull * 1000000000u) /* the connect time-out of most drivers */

/*
 * Closes up to `quota` idle sessions for which `which` (NULL = all) says true. Returns how many. Harmless to call from a tick; never
 * while bytes of this worker are being worked through.
 */
unsigned retire_idle(struct worker *w, unsigned quota, enum close_reason reason,
		     bool (*which)(const struct session *s, const void *context), const void *context);

/* Each tick of `tick_ms`: goes on with relay_retire, if that has begun. */
void retire_some(struct worker *w, unsigned tick_ms);
/* After the workers have ended. NULL is allowed. */
void retirement_free(struct retirement *t);
