// SPDX-License-Identifier: Apache-2.0
#include "copy/plan.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "copy/type.h"

#define TICK_MS 200

void plan_fail(struct plan *p, int code, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&p->lock);
	if (p->code == 0) {
		p->code = code;
		va_start(args, format);
		vsnprintf(p->error.text, sizeof(p->error.text), format, args);
		va_end(args);
	}
	atomic_store(&p->stop, true);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

void plan_check_signals(struct plan *p)
{
	const struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	if (p->signals && sigtimedwait(&set, NULL, &now) > 0)
		plan_fail(p, -EINTR, "stopped");
}

void plan_wait(struct plan *p, unsigned millis)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(millis % 1000) * 1000000;
	until.tv_sec += millis / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&p->lock);
	pthread_cond_timedwait(&p->changed, &p->lock, &until);
	pthread_mutex_unlock(&p->lock);
	plan_check_signals(p);
}

void plan_notify(struct plan *p)
{
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

unsigned plan_live(struct plan *p)
{
	unsigned live;

	pthread_mutex_lock(&p->lock);
	live = p->live;
	pthread_mutex_unlock(&p->lock);
	return live;
}

void plan_put_name(struct bytes *to, const char *name)
{
	bytes_u8(to, '"');
	for (; *name; name++) {
		if (*name == '"')
			bytes_u8(to, '"');
		bytes_u8(to, (uint8_t)*name);
	}
	bytes_u8(to, '"');
}

/* ------------------------------------------------------------- types */

struct preparing {
	struct plan *plan;
	struct channel *channel; /* until it is over */
	bool counters_first; /* binds stand in another order than columns: UPDATE */
	int rc;
	struct error *error;
	bool over;
};

/* The columns of a SELECT are its result, those of a write its binds, which are told apart by name. */
static int keep_types(struct preparing *w, struct span body)
{
	struct plan *p = w->plan;
	struct prepared_result answer;
	struct columns walk;
	struct column column;
	int rc = 0;

	if (result_prepared_parse(4, body, &answer) < 0)
		return error_set(w->error, -EPROTO, "malformed answer to PREPARE");
	p->types = calloc(p->column_count, sizeof(*p->types));
	if (!p->types)
		return error_set(w->error, -ENOMEM, "out of memory");
	walk = answer.result.count ? answer.result : answer.binds;
	while (rc == 0 && column_next(&walk, &column) == 1)
		for (unsigned i = 0; i < p->column_count && rc == 0; i++)
			if (!p->types[i].kind && !p->types[i].parts &&
			    span_equal(column.name, span_text(p->columns[i])))
				rc = type_parse(column.option, &p->types[i]);
	return rc < 0 ? error_set(w->error, rc, "the server describes a type that cannot be understood") : 0;
}

static void on_changed(void *owner, struct channel *c, int error, const char *reason)
{
	struct preparing *w = owner;

	w->over = true;
	if (error < 0)
		w->rc = error_set(w->error, error, "%s: %s", w->plan->cluster.control_text,
				  *reason ? reason : strerror(-error));
	else
		w->rc = keep_types(w, channel_prepared_body(c));
	if (error == 0)
		channel_close(c);
}

static void on_room(void *owner, struct channel *c)
{
	(void)owner;
	(void)c;
}

static void on_tick(uv_timer_t *timer)
{
	struct preparing *w = timer->data;

	if (w->over)
		uv_close((uv_handle_t *)timer, NULL);
	else
		channel_tick(w->channel, clock_now_ns());
}

int plan_prepare(struct plan *p, struct error *error)
{
	static const struct channel_ops ops = {.changed = on_changed, .room = on_room};
	struct preparing w = {.plan = p, .error = error};
	struct channel_settings settings = p->settings;
	struct endpoint to;
	uv_timer_t timer;
	uv_loop_t loop;

	settings.scratch = malloc(CHANNEL_READ);
	if (!settings.scratch)
		return error_set(error, -ENOMEM, "out of memory");
	if (uv_loop_init(&loop) < 0) {
		free(settings.scratch);
		return error_set(error, -EMFILE, "no event loop: too many open files?");
	}
	uv_timer_init(&loop, &timer);
	timer.data = &w;
	uv_timer_start(&timer, on_tick, 5, TICK_MS / 40);
	copy_cluster_control(&p->cluster, 0, &to);
	w.channel = channel_new(&loop, &to, &settings, &ops, &w);
	if (!w.channel) {
		w.rc = error_set(error, -ENOMEM, "out of memory");
		w.over = true;
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	free(settings.scratch);
	return w.rc;
}
