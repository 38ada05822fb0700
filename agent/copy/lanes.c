// SPDX-License-Identifier: Apache-2.0
#include "copy/lanes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/magic.h"

#define LANES_MAGIC 0x1A4E51A4u
#define DEAD_NS 1000000000ull /* a node that refused is not dialled again for so long */

struct lane {
	struct lanes *lanes;
	int node; /* −1: the control host */
	struct channel *channel;
	bool up;
	uint64_t dead_until_ns;
	int dead_cause;
	struct lane_request *head, *tail; /* waiting */
	unsigned waiting;
};

struct lanes {
	uint32_t magic;
	bool closing;
	uv_loop_t *loop;
	struct routes *routes;
	const struct channel_settings *settings;
	unsigned inflight, control_count;
	unsigned turn; /* of the next connection through the control host */
	void (*fatal)(void *owner, const char *reason);
	void *owner;
	struct lane *control; /* control_count of them */
	struct lane nodes[];  /* by the ring's index; node 0 stays unused */
};

static void pump(struct lane *lane);

static void waiting_put(struct lane *lane, struct lane_request *r)
{
	r->next = NULL;
	if (lane->tail)
		lane->tail->next = r;
	else
		lane->head = r;
	lane->tail = r;
	lane->waiting++;
}

static struct lane_request *waiting_take(struct lane *lane)
{
	struct lane_request *r = lane->head;

	if (r) {
		lane->head = r->next;
		if (!lane->head)
			lane->tail = NULL;
		lane->waiting--;
	}
	return r;
}

static void fail(struct lane_request *r, int error)
{
	r->request.failed(&r->request, error);
}

/* A lane could not be opened, or lost its connection: what waits there, and has not been sent, finds another
 * way. Through the control host that is a new connection, unless there was none. */
static void give_back(struct lane *lane, bool was_up, int error)
{
	struct lane_request *r = lane->head, *next;

	lane->head = lane->tail = NULL;
	lane->waiting = 0;
	for (; r; r = next) {
		next = r->next;
		if (lane->lanes->closing || (lane->node < 0 && !was_up))
			fail(r, error);
		else
			lanes_submit(lane->lanes, r);
	}
}

static void on_changed(void *owner, struct channel *c, int error, const char *reason)
{
	struct lane *lane = owner;
	struct lanes *l = lane->lanes;
	bool was_up = lane->up;

	MAGIC_CHECK(l, LANES_MAGIC);
	(void)c;
	lane->up = error == 0;
	if (lane->up) {
		if (lane->node >= 0)
			routes_reached(l->routes, (unsigned)lane->node);
		pump(lane);
		return;
	}
	lane->channel = NULL;
	if (!was_up) {
		lane->dead_until_ns = clock_now_ns() + DEAD_NS;
		lane->dead_cause = error;
		if (error == -EACCES || error == -ENOKEY || error == -EINVAL || error == -EPROTO)
			l->fatal(l->owner, reason);
		else if (lane->node >= 0)
			routes_failed(l->routes, (unsigned)lane->node, error);
	}
	give_back(lane, was_up, error);
}

static void on_room(void *owner, struct channel *c)
{
	struct lane *lane = owner;

	MAGIC_CHECK(lane->lanes, LANES_MAGIC);
	(void)c;
	pump(lane);
}

static const struct channel_ops channel_callbacks = {.changed = on_changed, .room = on_room};

static bool lane_open(struct lane *lane)
{
	const struct copy_cluster *cluster = lane->lanes->routes->cluster;
	struct endpoint to;

	if (lane->channel)
		return true;
	if (lane->node >= 0)
		copy_cluster_node(cluster, (unsigned)lane->node, &to);
	else
		copy_cluster_control(cluster, lane->lanes->turn++, &to);
	lane->channel =
	    channel_new(lane->lanes->loop, &to, lane->lanes->settings, &channel_callbacks, lane);
	return lane->channel != NULL;
}

static void pump(struct lane *lane)
{
	while (lane->head && lane->up && channel_ready(lane->channel) &&
	       channel_inflight(lane->channel) < lane->lanes->inflight) {
		struct lane_request *r = waiting_take(lane);
		int rc = r->start(r, lane->channel);

		if (rc == -EAGAIN) {
			r->next = lane->head;
			lane->head = r;
			if (!lane->tail)
				lane->tail = r;
			lane->waiting++;
			return;
		}
		if (rc < 0)
			fail(r, rc);
	}
}

static bool dead(const struct lane *lane)
{
	return !lane->channel && lane->dead_until_ns > clock_now_ns();
}

static unsigned load_of(const struct lane *lane)
{
	return lane->waiting + (lane->up ? channel_inflight(lane->channel) : 0);
}

/* The way through the control host that has least to do. One that was just refused comes last: behind the
 * others may be another node. */
static struct lane *control_lane(struct lanes *l)
{
	struct lane *best = &l->control[0];

	for (unsigned i = 1; i < l->control_count; i++) {
		struct lane *lane = &l->control[i];

		if (dead(lane) == dead(best) ? load_of(lane) < load_of(best) : dead(best))
			best = lane;
	}
	return best;
}

/* The first of the request's replicas that there is a way to; NULL: none. */
static struct lane *replica_lane(struct lanes *l, const struct lane_request *r, int *ret_cause)
{
	for (unsigned i = 0; i < r->replicas.count; i++) {
		unsigned node = r->replicas.nodes[(r->turn + i) % r->replicas.count];
		struct lane *lane = &l->nodes[node];

		if (node == 0 && !copy_cluster_by_name(l->routes->cluster))
			return control_lane(l);
		switch (routes_choose(l->routes, node)) {
		case WAY_REPLICA:
		case WAY_TRY:
		case WAY_WAIT:
			if (!dead(lane))
				return lane;
			*ret_cause = lane->dead_cause;
			break;
		case WAY_PROBE:
			lane_open(lane); /* its outcome is the probe's */
			break;
		case WAY_CONTROL:
			break;
		}
	}
	return NULL;
}

void lanes_submit(struct lanes *l, struct lane_request *r)
{
	int cause = -EHOSTUNREACH;
	struct lane *lane;

	r->request.sent = false;
	if (l->closing) {
		fail(r, -ECANCELED);
		return;
	}
	lane = replica_lane(l, r, &cause);
	if (!lane && (l->routes->verdicts.mode != MODE_DIRECT || r->replicas.count == 0))
		lane = control_lane(l);
	if (!lane || dead(lane)) {
		fail(r, lane ? lane->dead_cause : cause);
		return;
	}
	if (!lane_open(lane)) {
		fail(r, -ENOMEM);
		return;
	}
	waiting_put(lane, r);
	pump(lane);
}

void lanes_tick(struct lanes *l, uint64_t now_ns)
{
	for (unsigned i = 0; i < l->routes->cluster->ring.node_count + l->control_count; i++)
		if (l->nodes[i].channel)
			channel_tick(l->nodes[i].channel, now_ns);
}

struct lanes *lanes_new(uv_loop_t *loop, struct routes *routes, const struct channel_settings *settings,
			unsigned control, unsigned turn, unsigned inflight,
			void (*fatal)(void *owner, const char *reason),
			void *owner)
{
	unsigned count = routes->cluster->ring.node_count;
	struct lanes *l = calloc(1, sizeof(*l) + (count + control) * sizeof(struct lane));

	if (!l)
		return NULL;
	*l = (struct lanes){.magic = LANES_MAGIC,
			    .loop = loop,
			    .routes = routes,
			    .settings = settings,
			    .inflight = inflight,
			    .control_count = control,
			    .turn = turn,
			    .fatal = fatal,
			    .owner = owner};
	l->control = &l->nodes[count];
	for (unsigned i = 0; i < count + control; i++)
		l->nodes[i] = (struct lane){.lanes = l, .node = i < count ? (int)i : -1};
	return l;
}

void lanes_free(struct lanes *l)
{
	if (!l)
		return;
	MAGIC_CHECK(l, LANES_MAGIC);
	l->closing = true;
	for (unsigned i = 0; i < l->routes->cluster->ring.node_count + l->control_count; i++) {
		struct lane *lane = &l->nodes[i];

		channel_close(lane->channel);
		lane->channel = NULL;
		lane->up = false;
		give_back(lane, false, -ECANCELED);
	}
	l->magic = 0;
	free(l);
}
