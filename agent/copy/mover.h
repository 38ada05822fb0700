/* SPDX-License-Identifier: Apache-2.0 */
/* A thread of COPY: its loop, its connections, a clock tick, and how it is woken and ended. */
#pragma once
#include "copy/lanes.h"
#include "copy/plan.h"

struct mover {
	uint32_t magic;
	struct plan *plan;
	unsigned number;
	uv_thread_t thread;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t timer;
	struct lanes *lanes;
	struct channel_settings settings;
	bool ending;
	/* Called on the thread: at the start and whenever it is woken, and every MOVER_TICK_MS. True: nothing
	 * is left to do. */
	bool (*turn)(struct mover *w, uint64_t now_ns);
};

#define MOVER_TICK_MS 50

/* `inflight`: requests on each connection. 0 or −errno with a reason. */
int mover_start(struct mover *w, struct plan *plan, unsigned number, unsigned inflight,
		bool (*turn)(struct mover *w, uint64_t now_ns), struct error *error);
/* From any thread. */
void mover_wake(struct mover *w);
/* Waits for the end. Only for workers that were started. */
void mover_join(struct mover *w);
