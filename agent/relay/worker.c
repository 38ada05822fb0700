/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "net/listener.h"
#include "relay/instants.h"
#include "relay/reach.h"
#include "relay/retire.h"
#include "relay/session.h"
#include "relay/tap.h"

#define WORKER_MAGIC 0x0A0B0C0Du
#define TICK_MS 250
#define PLAIN_KEEP (1u << 20) /* larger scratch is given back when a tick finds it unused */
#define ACCEPT_BURST 64
#define WARM_AT_ONCE 2u
#define CLOSING_NS (2ull * 1000000000u) /* a client that does not take what is left for it, or does not end, is cut off */
#define LEAVE_NS (10ull * 1000000000u) /* after finish a page sequence that began on the origin may end there for so long */

struct message {
	struct message *next;
	void (*job)(struct worker *w, void *context);
	void *context;
};

int worker_post(struct worker *w, void (*job)(struct worker *w, void *context), void *context)
{
	struct message *m = malloc(sizeof(*m));

	if (!m)
		return -ENOMEM;
	*m = (struct message){.job = job, .context = context};
	pthread_mutex_lock(&w->inbox_lock);
	if (w->inbox_tail)
		w->inbox_tail->next = m;
	else
		w->inbox = m;
	w->inbox_tail = m;
	pthread_mutex_unlock(&w->inbox_lock);
	uv_async_send(&w->wake);
	return 0;
}

static void on_wake(uv_async_t *wake)
{
	struct worker *w = wake->data;
	struct message *m, *next;

	MAGIC_CHECK(w, WORKER_MAGIC);
	pthread_mutex_lock(&w->inbox_lock);
	m = w->inbox;
	w->inbox = w->inbox_tail = NULL;
	pthread_mutex_unlock(&w->inbox_lock);
	w->turn_ns = clock_now_ns();
	for (; m; m = next) {
		next = m->next;
		m->job(w, m->context);
		free(m);
	}
}

int64_t worker_timestamp(struct worker *w)
{
	int64_t now = clock_wall_us(), last = atomic_load_explicit(&w->last_timestamp, memory_order_relaxed);

	last = now > last ? now : last + 1;
	atomic_store_explicit(&w->last_timestamp, last, memory_order_relaxed);
	return last;
}

static void on_moment(uv_timer_t *timer)
{
	struct worker *w = timer->data;

	MAGIC_CHECK(w, WORKER_MAGIC);
	w->turn_ns = clock_now_ns();
	relay_resume_stalled(w);
}

bool worker_moment_passed(struct worker *w, int64_t *since)
{
	const struct relay *r = w->relay;

	if (*since == 0)
		for (unsigned i = 0; i < r->worker_count; i++) {
			int64_t last = atomic_load_explicit(&r->workers[i]->last_timestamp, memory_order_relaxed);

			*since = last > *since ? last : *since;
		}
	/* A clock that was set back must not hold anybody for long. */
	if (clock_wall_us() / 1000 != *since / 1000) {
		*since = 0;
		return true;
	}
	uv_update_time(&w->loop);
	if (!uv_is_active((uv_handle_t *)&w->moment))
		uv_timer_start(&w->moment, on_moment, 1, 0);
	return false;
}

uint8_t *worker_plain(struct worker *w, size_t size)
{
	if (size > w->plain_capacity) {
		size_t capacity = size < 64u << 10 ? 64u << 10 : size;
		uint8_t *plain = realloc(w->plain, capacity);

		if (!plain)
			return NULL;
		w->plain = plain;
		w->plain_capacity = capacity;
	}
	return w->plain;
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
	struct worker *w = poll->data;
	unsigned i = 0;

	(void)events;
	MAGIC_CHECK(w, WORKER_MAGIC);
	if (status < 0)
		return;
	w->turn_ns = clock_now_ns();
	while (i < w->listener_count && &w->listener[i].poll != poll)
		i++;
	for (int burst = 0; burst < ACCEPT_BURST; burst++) {
		struct addr peer, local;
		socklen_t size = sizeof(local.storage);
		int fd = listener_accept(w->listener[i].fd, &peer);

		if (fd == -EAGAIN)
			return;
		if (fd < 0) {
			/* Out of descriptors: the connection stays in the queue; look again at the next tick, not at once. */
			log_warn("relay", "cannot accept a connection: %s. Raise the limit of open files (ulimit -n)",
				 strerror(-fd));
			uv_poll_stop(poll);
			return;
		}
		memset(&local, 0, sizeof(local));
		getsockname(fd, &local.sa, &size);
		session_accept(w, fd, &local, &peer, w->listener[i].intercepted);
	}
}

/* The migration is finished: what still leads to the origin ends once it is idle. */
static void leave_origin(struct worker *w, struct session *s)
{
	struct upstream *u = &s->up[ORIGIN];

	if (w->course.finished && w->turn_ns > w->course_ns + LEAVE_NS && s->primary == TARGET && u->conn_live && u->inflight == 0 &&
	    u->passing == 0 && !s->stalled)
		upstream_close(u);
}

/* Sessions that wait longer than they may: an orphan whose write got no answer, a login that a cluster does not answer. */
static void sweep(struct worker *w)
{
	struct session *s, *next;

	for (s = w->sessions; s; s = next) {
		next = s->next;
		if (s->state == SESSION_ORPHAN && w->turn_ns > s->orphan_deadline_ns)
			session_close(s, CLOSE_CLIENT);
		else if (s->state == SESSION_CLOSING && s->client_live &&
			 (w->turn_ns > s->closing_since_ns + (s->client.queued ? 5 : 1) * CLOSING_NS || (w->stopping && s->client.queued == 0)))
			conn_close(&s->client); /* it does not read what is left for it */
		else if (w->stopping && s->state != SESSION_CLOSING &&
			 (session_idle(s) || w->turn_ns > s->orphan_deadline_ns))
			session_close(s, CLOSE_STOP);
		else
			leave_origin(w, s);
		upstream_sweep(&s->up[ORIGIN]);
		upstream_sweep(&s->up[TARGET]);
	}
	if (w->plain_capacity > PLAIN_KEEP) {
		free(w->plain);
		w->plain = NULL;
		w->plain_capacity = 0;
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct worker *w = timer->data;

	MAGIC_CHECK(w, WORKER_MAGIC);
	w->turn_ns = clock_now_ns();
	if (!w->stopping)
		for (unsigned i = 0; i < w->listener_count; i++)
			if (!uv_is_active((uv_handle_t *)&w->listener[i].poll) && w->running)
				uv_poll_start(&w->listener[i].poll, UV_READABLE, on_acceptable);
	sweep(w);
	prepared_cache_sweep(w->prepared);
	retire_some(w, TICK_MS);
	worker_warm(w);
	gap_hand_over(w->gap);
	if (w->index == 0)
		reach_seat_tick(w->reach, w->turn_ns);
	if (w->stopping)
		worker_settled(w);
}

static void on_turn(uv_check_t *check)
{
	struct worker *w = check->data;

	if (w->relay->intercept)
		intercept_beat(w->relay->intercept, w->index);
}

void worker_serve(struct worker *w)
{
	for (unsigned i = 0; i < w->listener_count; i++)
		uv_poll_start(&w->listener[i].poll, UV_READABLE, on_acceptable);
	w->running = true;
}

static void on_listener_closed(uv_handle_t *handle)
{
	(void)handle;
}

void worker_close_listeners(struct worker *w)
{
	for (unsigned i = 0; i < w->listener_count; i++) {
		/* What is in the accept queue was promised an answer: serve it for this last time. */
		if (w->running)
			on_acceptable(&w->listener[i].poll, 0, UV_READABLE);
		uv_close((uv_handle_t *)&w->listener[i].poll, on_listener_closed);
		close(w->listener[i].fd);
	}
	w->listener_count = 0;
}

void worker_stop(struct worker *w)
{
	struct session *s, *next;

	if (w->stopping)
		return;
	w->stopping = true;
	w->turn_ns = clock_now_ns();
	w->stop_deadline_ns = w->turn_ns + 2ull * w->relay->options.stop_ms * 1000000u;
	worker_close_listeners(w);
	for (s = w->sessions; s; s = next) {
		next = s->next;
		s->orphan_deadline_ns = w->turn_ns + (uint64_t)w->relay->options.stop_ms * 1000000u;
		if (session_idle(s))
			session_close(s, CLOSE_STOP);
		else
			session_update_reading(s);
	}
	worker_settled(w);
}

static void loop_end(struct worker *w)
{
	if (w->relay->tap)
		w->relay->tap->close(w->tap);
	gap_hand_over(w->gap);
	reach_seat_close(w->reach);
	uv_close((uv_handle_t *)&w->tick, NULL);
	uv_close((uv_handle_t *)&w->moment, NULL);
	uv_close((uv_handle_t *)&w->beat, NULL);
	uv_close((uv_handle_t *)&w->wake, NULL);
}

void worker_settled(struct worker *w)
{
	if (w->quiet && w->holding && w->inflight == 0 && (!w->relay->tap || w->relay->tap->idle(w->tap))) {
		void (*quiet)(struct worker *, void *) = w->quiet;

		w->quiet = NULL;
		quiet(w, w->quiet_context);
	}
	/* What clients were told is done still has to reach the other cluster; so long, but not for ever. */
	if (w->stopping && w->session_count == 0 && !uv_is_closing((uv_handle_t *)&w->wake) &&
	    (!w->relay->tap || w->relay->tap->idle(w->tap) || w->turn_ns > w->stop_deadline_ns))
		loop_end(w);
}

void worker_hold(struct worker *w, void (*quiet)(struct worker *w, void *context), void *context)
{
	w->holding = true;
	w->quiet = quiet;
	w->quiet_context = context;
	for (struct session *s = w->sessions; s; s = s->next)
		session_update_reading(s);
	worker_settled(w);
}

void worker_release(struct worker *w)
{
	struct session *s, *next;

	if (!w->holding)
		return;
	w->holding = false;
	w->quiet = NULL;
	for (s = w->sessions; s; s = next) {
		next = s->next;
		session_resume(s);
	}
}

void relay_resume_stalled(struct worker *w)
{
	struct session *s, *next;

	for (s = w->sessions; s; s = next) {
		next = s->next;
		if (s->stalled)
			session_resume(s);
	}
}

void worker_warm(struct worker *w)
{
	struct session *s;
	unsigned busy = 0;

	if (!w->course.warm || w->stopping)
		return;
	for (s = w->sessions; s; s = s->next)
		busy += s->up[ORIGIN].state == UP_REPLAY || s->up[TARGET].state == UP_REPLAY;
	for (s = w->sessions; s && busy < WARM_AT_ONCE; s = s->next) {
		struct upstream *u = &s->up[side_other(s->primary)];

		if (s->state != SESSION_OPEN || u->state != UP_ABSENT || u->conn_live || u->failed)
			continue;
		upstream_open(s, u->side, /* replay= */ true);
		busy++;
	}
}

void worker_set_course(struct worker *w, const struct course *course)
{
	struct session *s, *next;

	w->course = *course;
	w->course_ns = clock_now_ns();
	if (w->tap)
		w->relay->tap->course(w->tap, course);
	for (s = w->sessions; s; s = next) {
		next = s->next;
		session_follow_course(s);
	}
	worker_warm(w);
}

static void watch_listener(struct worker *w, int fd, bool intercepted)
{
	w->listener[w->listener_count].fd = fd;
	w->listener[w->listener_count].intercepted = intercepted;
	uv_poll_init(&w->loop, &w->listener[w->listener_count].poll, fd);
	w->listener[w->listener_count++].poll.data = w;
}

/* The sockets of the agent before us are dealt out among the workers: none may be left out, clients wait in their queues. */
static bool inherit_listeners(struct worker *w, const struct addr *a, bool intercepted)
{
	struct relay_options *o = &w->relay->options;
	unsigned ordinal = 0, had = w->listener_count;

	for (unsigned i = 0; i < o->inherited_count; i++) {
		struct relay_listener *l = &o->inherited[i];

		if (l->intercepted != intercepted || !addr_equal(&l->address, a) || ordinal++ % o->workers != w->index)
			continue;
		watch_listener(w, l->fd, intercepted);
		l->fd = -1;
	}
	return w->listener_count > had;
}

static int add_listener(struct worker *w, struct addr *a, bool intercepted, struct error *error)
{
	int fd;

	if (a->sa.sa_family == AF_UNSPEC || inherit_listeners(w, a, intercepted))
		return 0;
	fd = listener_open(a, error);
	if (fd < 0)
		return fd;
	watch_listener(w, fd, intercepted);
	return 0;
}

static void close_walked(uv_handle_t *handle, void *context)
{
	(void)context;
	uv_close(handle, NULL);
}

void worker_discard(struct worker *w)
{
	for (unsigned i = 0; i < w->listener_count; i++)
		close(w->listener[i].fd);
	if (w->tap)
		w->relay->tap->close(w->tap);
	uv_walk(&w->loop, close_walked, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	worker_free(w);
}

/* What a worker is made of before it has a loop. */
static struct worker *worker_alloc(struct relay *r, unsigned index)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->magic = WORKER_MAGIC;
	w->relay = r;
	w->index = index;
	w->course = r->course;
	w->rx = malloc(WORKER_RX);
	w->metrics = aligned_alloc(64, sizeof(*w->metrics));
	w->prepared = prepared_cache_new(r->prepared);
	w->instants = instants_new(index);
	w->gap = gap_new();
	if (w->rx && w->metrics && w->prepared && w->instants && w->gap && uv_loop_init(&w->loop) == 0) {
		w->reach = reach_seat_new(r->reach, &w->loop, w->metrics);
		if (w->reach)
			return w;
		uv_loop_close(&w->loop);
	}
	prepared_cache_free(w->prepared);
	instants_free(w->instants);
	gap_free(w->gap);
	free(w->metrics);
	free(w->rx);
	free(w);
	return NULL;
}

struct worker *worker_new(struct relay *r, unsigned index, struct error *error)
{
	struct worker *w = worker_alloc(r, index);

	if (!w)
		goto out;
	pthread_mutex_init(&w->inbox_lock, NULL);
	memset(w->metrics, 0, sizeof(*w->metrics));
	metrics_register(w->metrics);
	uv_async_init(&w->loop, &w->wake, on_wake);
	uv_timer_init(&w->loop, &w->tick);
	uv_check_init(&w->loop, &w->beat);
	w->wake.data = w->tick.data = w->beat.data = w;
	uv_timer_init(&w->loop, &w->moment);
	w->moment.data = w;
	uv_timer_start(&w->tick, on_tick, TICK_MS, TICK_MS);
	uv_check_start(&w->beat, on_turn);
	if (add_listener(w, &r->options.explicit_listen, false, error) < 0 ||
	    add_listener(w, &r->options.agent4, true, error) < 0 || add_listener(w, &r->options.agent6, true, error) < 0) {
		worker_discard(w);
		return NULL;
	}
	if (r->tap) {
		w->tap = r->tap->open(r->mirror, w, error);
		if (!w->tap) {
			worker_discard(w);
			return NULL;
		}
	}
	return w;
out:
	if (w)
		worker_discard(w);
	error_set(error, -ENOMEM, "out of memory while making worker %u", index);
	return NULL;
}

static void *run(void *argument)
{
	struct worker *w = argument;
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", w->index);
	pthread_setname_np(pthread_self(), name);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	return NULL;
}

int worker_start(struct worker *w)
{
	return -pthread_create(&w->thread, NULL, run, w);
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	while (w->inbox) { /* came after the loop's end */
		struct message *next = w->inbox->next;

		free(w->inbox);
		w->inbox = next;
	}
	uv_loop_close(&w->loop);
	if (w->tap)
		w->relay->tap->free(w->tap);
	prepared_cache_free(w->prepared);
	instants_free(w->instants);
	gap_free(w->gap);
	reach_seat_free(w->reach);
	metrics_unregister(w->metrics);
	pthread_mutex_destroy(&w->inbox_lock);
	free(w->metrics);
	free(w->plain);
	free(w->rx);
	w->magic = 0;
	free(w);
}
