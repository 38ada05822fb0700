// SPDX-License-Identifier: Apache-2.0
#include "copy/mover.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/magic.h"

#define MOVER_MAGIC 0xC0B43053u
#define CONTROL_MAX 4 /* connections of a thread through the control host */

static void end(struct mover *w)
{
	if (w->ending)
		return;
	w->ending = true;
	lanes_free(w->lanes);
	w->lanes = NULL;
	uv_close((uv_handle_t *)&w->wake, NULL);
	uv_close((uv_handle_t *)&w->timer, NULL);
}

static void turn(struct mover *w)
{
	if (!w->ending && w->turn(w, clock_now_ns()))
		end(w);
}

static void on_wake(uv_async_t *handle)
{
	struct mover *w = handle->data;

	MAGIC_CHECK(w, MOVER_MAGIC);
	turn(w);
}

static void on_tick(uv_timer_t *handle)
{
	struct mover *w = handle->data;

	MAGIC_CHECK(w, MOVER_MAGIC);
	if (!w->ending)
		lanes_tick(w->lanes, clock_now_ns());
	turn(w);
}

static void run(void *context)
{
	struct mover *w = context;

	MAGIC_CHECK(w, MOVER_MAGIC);
	turn(w);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	pthread_mutex_lock(&w->plan->lock);
	w->plan->live--;
	pthread_cond_broadcast(&w->plan->changed);
	pthread_mutex_unlock(&w->plan->lock);
}

static void on_fatal(void *owner, const char *reason)
{
	struct mover *w = owner;

	MAGIC_CHECK(w, MOVER_MAGIC);
	plan_fail(w->plan, -EACCES, "%s", reason);
}

int mover_start(struct mover *w, struct plan *plan, unsigned number, unsigned inflight,
		bool (*turn_function)(struct mover *w, uint64_t now_ns), struct error *error)
{
	unsigned control = 0;
	int rc;

	w->magic = MOVER_MAGIC;
	w->plan = plan;
	w->number = number;
	w->turn = turn_function;
	w->settings = plan->settings;
	w->settings.scratch = malloc(CHANNEL_READ);
	if (!w->settings.scratch)
		return error_set(error, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < plan->cluster.ring.node_count; i++)
		control += plan->cluster.ring.nodes[i].local;
	if (control < 2)
		control = 2;
	rc = uv_loop_init(&w->loop);
	if (rc < 0)
		goto no_loop;
	w->lanes = lanes_new(&w->loop, &plan->routes, &w->settings,
			     control < CONTROL_MAX ? control : CONTROL_MAX, number, inflight, on_fatal, w);
	if (!w->lanes) {
		rc = UV_ENOMEM;
		goto no_lanes;
	}
	uv_async_init(&w->loop, &w->wake, on_wake);
	uv_timer_init(&w->loop, &w->timer);
	w->wake.data = w->timer.data = w;
	uv_timer_start(&w->timer, on_tick, MOVER_TICK_MS, MOVER_TICK_MS);
	pthread_mutex_lock(&plan->lock);
	plan->live++;
	pthread_mutex_unlock(&plan->lock);
	rc = uv_thread_create(&w->thread, run, w);
	if (rc == 0)
		return 0;
	pthread_mutex_lock(&plan->lock);
	plan->live--;
	pthread_mutex_unlock(&plan->lock);
	end(w);
	uv_run(&w->loop, UV_RUN_DEFAULT);
no_lanes:
	uv_loop_close(&w->loop);
no_loop:
	free(w->settings.scratch);
	return error_set(error, rc, "thread %u cannot be started: %s", number, uv_strerror(rc));
}

void mover_wake(struct mover *w)
{
	uv_async_send(&w->wake);
}

void mover_join(struct mover *w)
{
	uv_thread_join(&w->thread);
	uv_loop_close(&w->loop);
	free(w->settings.scratch);
	w->magic = 0;
}
