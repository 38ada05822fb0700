/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dialling several endpoints of which one is enough ("happy eyeballs", RFC 8305 section 5): the first at once, the next
 * when EYEBALLS_DELAY_MS have passed or the one before has failed, whichever comes first. The first that is up wins, the
 * others are given up.
 */
#pragma once
#include "net/dial.h"

#define EYEBALLS_MAX 8u
#define EYEBALLS_DELAY_MS 250u /* RFC 8305 section 8: Connection Attempt Delay */

struct eyeballs;

/*
 * Called once from the loop. `to`: the endpoint that won; when none did, the one that was preferred, whose failure it is
 * that `result` tells. Borrowed for the call.
 */
typedef void (*eyeballs_done)(void *context, struct dial_result *result, const struct endpoint *to);

/*
 * Dials up to EYEBALLS_MAX endpoints (borrowed), each within `timeout_ms`. NULL when memory or descriptors are short; `done` is
 * never called before this returns.
 */
struct eyeballs *eyeballs_start(uv_loop_t *loop, const struct endpoint *to, unsigned count, uint32_t mark,
				unsigned timeout_ms, eyeballs_done done, void *context);

/* Gives up: `done` will not be called. NULL is fine. */
void eyeballs_cancel(struct eyeballs *e);
