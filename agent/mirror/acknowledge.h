/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With acknowledgement: both, a client hears of its write when the other cluster has it too, and after a bounded time in any case: the
 * journal has it. So trouble there costs the client that time and nothing else, and none where no connection is up.
 *
 *   held answer ─▶ waiting, by time ─┬─ the record was confirmed ───────────────┐
 *                                    ├─ it ended, or waits on disk now ─────────┼─▶ due ─▶ relay_acknowledged()
 *                                    └─ acknowledge_ns are over ────────────────┘
 *
 * One for each worker; its thread only.
 */
#pragma once
#include <uv.h>

#include "mirror/record.h"
#include "relay/held.h"
#include "relay/worker.h"

struct acknowledge {
	struct worker *worker;
	uint64_t wait_ns;
	struct held_answer *waiting, **waiting_end; /* the first is the oldest */
	struct held_answer *due;
	uv_timer_t timer;
	bool posted; /* somebody will look at `due` */
};

void acknowledge_init(struct acknowledge *a, struct worker *w, uint64_t wait_ns);
/* The record's answer waits from now on (takes it). */
void acknowledge_wait(struct acknowledge *a, struct record *r, struct held_answer *h);
/*
 * The record is confirmed, or no longer in anybody's hands. Anywhere in the worker's work: the answer goes out from the loop. Nothing
 * happens when none waits.
 */
void acknowledge_end(struct acknowledge *a, struct record *r, bool confirmed);
/* The loop is about to end. */
void acknowledge_close(struct acknowledge *a);
/* After it has ended. */
void acknowledge_done(struct acknowledge *a);
