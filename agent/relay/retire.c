/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/retire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"

/* What is received and not read yet is a request that was promised an answer. */
static bool silent(const struct session *s)
{
	struct pollfd p = {.fd = s->client.stream.fd, .events = POLLIN};

	return s->in.have == 0 && s->tail.have == 0 && poll(&p, 1, 0) == 0;
}

static bool ripe(const struct session *s)
{
	return s->state == SESSION_OPEN && s->client_live && session_idle(s) && !s->stalled && s->streaming < 0 &&
	       s->worker->turn_ns > s->opened_ns + RETIRE_AGE_NS;
}

unsigned retire_idle(struct worker *w, unsigned quota, enum close_reason reason,
		     bool (*which)(const struct session *s, const void *context), const void *context)
{
	struct session *s, *next;
	unsigned closed = 0;

	for (s = w->sessions; s && closed < quota; s = next) {
		next = s->next;
		if (!ripe(s) || (which && !which(s, context)) || !silent(s))
			continue;
		session_close(s, reason);
		closed++;
	}
	return closed;
}

/* `rate` a second on the node, as this worker's share of one tick, rounded up. */
static unsigned share(const struct worker *w, uint64_t rate, unsigned tick_ms)
{
	uint64_t ticks = 1000u / tick_ms, workers = w->relay->worker_count;

	return (unsigned)((rate + ticks * workers - 1) / (ticks * workers));
}

/* ---- node after node */

struct retirement {
	struct relay *relay;
	unsigned drain_ms, turn_ms;
	uint64_t rate;                       /* sessions a second on the node */
	pthread_mutex_t lock;                /* while it is filled */
	struct addr order[RETIRE_NODES_MAX]; /* destinations of the sessions */
	unsigned count;
};

void retirement_free(struct retirement *t)
{
	if (t)
		pthread_mutex_destroy(&t->lock);
	free(t);
}

static unsigned rank(const struct retirement *t, const struct addr *destination)
{
	unsigned i = 0;

	while (i < t->count && !addr_equal(&t->order[i], destination))
		i++;
	return i;
}

static void list_destinations(struct worker *w, void *context)
{
	struct retirement *t = context;

	pthread_mutex_lock(&t->lock);
	for (const struct session *s = w->sessions; s; s = s->next)
		if (rank(t, &s->destination) == t->count && t->count < RETIRE_NODES_MAX)
			t->order[t->count++] = s->destination;
	pthread_mutex_unlock(&t->lock);
}

static void begin(struct worker *w, void *context)
{
	(void)context;
	if (w->stopping)
		return;
	w->retire_ns = w->turn_ns = clock_now_ns();
	worker_close_listeners(w);
}

/* On the thread of the last worker: posting to the others takes their inboxes' locks only. */
static void listed(void *context)
{
	struct retirement *t = context;
	unsigned share_ms = t->drain_ms / (t->count + 1);

	t->turn_ms = share_ms < RETIRE_TURN_MS ? share_ms : RETIRE_TURN_MS;
	relay_each_worker(t->relay, begin, NULL, t);
}

int relay_retire(struct relay *r, unsigned drain_ms)
{
	uint64_t sessions = atomic_load(&r->session_count), needed = drain_ms ? sessions * 1000u / drain_ms + 1 : sessions;
	struct retirement *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->relay = r;
	t->drain_ms = drain_ms;
	t->rate = needed > RETIRE_A_SECOND ? needed : RETIRE_A_SECOND;
	pthread_mutex_init(&t->lock, NULL);
	r->retirement = t;
	return relay_each_worker(r, list_destinations, listed, t);
}

struct turn {
	const struct retirement *retirement;
	unsigned now;
};

static bool has_its_turn(const struct session *s, const void *context)
{
	const struct turn *t = context;

	return rank(t->retirement, &s->destination) <= t->now;
}

void retire_some(struct worker *w, unsigned tick_ms)
{
	const struct retirement *t = w->relay->retirement;
	uint64_t elapsed_ms;
	struct turn turn;

	if (!w->retire_ns || w->stopping)
		return;
	elapsed_ms = (w->turn_ns - w->retire_ns) / 1000000u;
	turn = (struct turn){t, t->turn_ms ? (unsigned)(elapsed_ms / t->turn_ms) : UINT32_MAX};
	if (elapsed_ms >= t->drain_ms)
		worker_stop(w);
	else
		retire_idle(w, share(w, t->rate, tick_ms), CLOSE_STOP, has_its_turn, &turn);
}
