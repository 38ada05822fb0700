/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding all workers' requests for the moment of a switch.
 *
 *   hold_begin ─▶ each worker: stop parsing ─▶ nothing in flight, mirror idle ─▶ quiet ─┐
 *   hold_quiet() = all are ◀────────────────────────────────────────────────────────────┘
 *   hold_end(course): each worker takes the course and goes on; hold_end(NULL): goes on as before
 */
#pragma once
#include <uv.h>

#include "relay/relay.h"

struct hold;

/* Asks all workers to hold; `wake` is sent when the last one is quiet. NULL = out of memory. */
struct hold *hold_begin(struct relay *r, uv_async_t *wake);
bool hold_quiet(const struct hold *h);
/* Takes `h`. `after` (may be NULL) runs on some worker's thread when all go on. */
void hold_end(struct hold *h, const struct course *course, void (*after)(void *context), void *context);
