/* SPDX-License-Identifier: Apache-2.0 */
/* The command line's side of the admin socket: one request, blocking. The protocol is in admin.h. */
#pragma once
#include <jansson.h>

#include "base/error.h"

#define ADMIN_ANSWER_MAX (16u << 20) /* bytes of one line from the agent */

/* A blocking connection to the agent that listens at `path`; the caller closes it. Or −errno as below, with the reason. */
int admin_connect(const char *path, struct error *error);

/*
 * Sends `request` (borrowed) to the agent that listens at `path` and waits for the final line. `on_progress`
 * (may be NULL) gets each progress text, borrowed. `timeout_millis` is the longest silence, −1 = no limit.
 *
 * 0: *ret_final is the final object, the caller's (json_decref); it says itself whether it is "ok".
 * −ECONNREFUSED, −ENOENT: no agent there; −ETIMEDOUT; −EPROTO; −ECONNRESET: it went away before the final
 * line.
 */
int admin_call(const char *path, const json_t *request, int timeout_millis,
	       void (*on_progress)(const char *text, void *context), void *context, json_t **ret_final,
	       struct error *error) __attribute__((warn_unused_result));
