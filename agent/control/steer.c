/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel side from the main thread's point of view: what is watched, what happened, who passes by. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/node.h"
#include "cutover/ledger.h"
#include "mirror/client.h"

#define STRAYS_A_SECOND 20 /* closed connections: drivers reconnect with back-off and must not all come at once */
#define LEARNED_MAX 256

/* In the kernel's terms: how long the door stays closed. 0 would mean the default. */
static unsigned finish_grace_ms(const struct config *c)
{
	return c->intercept.grace_millis ? c->intercept.grace_millis : 1;
}

/* The same, as onAgentDown.mirror has it. */
static unsigned grace_ms(const struct config *c)
{
	switch (c->intercept.on_agent_down[CONFIG_PHASE_MIRROR]) {
	case AGENT_DOWN_OPEN:
		return 1;
	case AGENT_DOWN_CLOSED:
		return UINT32_MAX; /* seven weeks */
	default:
		return finish_grace_ms(c);
	}
}

int steer_open(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	struct intercept_options o = {
		.pin_root = c->intercept.pin_path[0] ? c->intercept.pin_path : NULL,
		.cgroups = (const char *const *)c->intercept.cgroups.item,
		.cgroup_count = c->intercept.cgroups.count,
		.acceleration = (enum intercept_acceleration)c->intercept.acceleration,
		.workers = config_workers(c),
		.observe_relays = c->connection.while_observing,
		.takeover = n->takeover != NULL,
		.grace_ms = grace_ms(c),
		.finish_grace_ms = finish_grace_ms(c),
		.phase = (enum intercept_phase)(c->migration.complete ? PHASE_FINISH : c->phase.initial),
	};
	int r = intercept_open(&o, &n->intercept, error);

	if (r < 0)
		return r;
	if (c->intercept.cgroups.count == 0) {
		/* The root of the pods, as the kubelet names it with the systemd and the cgroupfs driver. */
		struct error why;

		if (intercept_cgroup_add(n->intercept, "kubepods.slice", &why) < 0 &&
		    intercept_cgroup_add(n->intercept, "kubepods", &why) < 0) {
			intercept_close(n->intercept, INTERCEPT_REMOVE);
			n->intercept = NULL;
			return error_set(error, -ENOENT, "intercept.cgroups names nothing, and this node has no kubepods.slice or kubepods: "
							 "name the cgroups whose connections are to be looked at");
		}
	}
	n->relay.intercept = n->intercept;
	n->relay.options.mark = intercept_mark(n->intercept);
	return 0;
}

static uint16_t watch_port(const struct config *c)
{
	return (uint16_t)(c->intercept.port ? c->intercept.port : c->origin.port);
}

/* "10.0.0.0/16:9042", "10.0.3.7", "[fd00::]/64:9042" … */
static int watch_entry(struct node *n, const char *entry, struct error *error)
{
	char text[128];
	const char *slash = strchr(entry, '/');
	struct addr a;
	int prefix = -1;

	if (strlen(entry) >= sizeof(text))
		return error_set(error, -EINVAL, "intercept.watch: '%s' is too long", entry);
	memcpy(text, entry, strlen(entry) + 1);
	if (slash) {
		char *rest;

		prefix = (int)strtol(slash + 1, &rest, 10);
		memmove(text + (slash - entry), rest, strlen(rest) + 1);
	}
	if (addr_resolve(text, watch_port(n->config), &a, error) < 0)
		return -EINVAL;
	return intercept_watch_add(n->intercept, &a.sa, prefix, INTERCEPT_CONFIGURED, error);
}

static void on_event(void *context, const struct intercept_event *e)
{
	struct node *n = context;
	char to[ADDR_TEXT_MAX];
	struct addr a = {0};

	memcpy(&a.storage, &e->destination, sizeof(e->destination));
	ledger_event(gaps_ledger(n), e, clock_wall_us(), clock_now_ns());
	switch (e->kind) {
	case INTERCEPT_EVENT_BYPASSED:
		metric_add(n->metrics, METRIC_UNMIRRORED_BYPASS, n->relay.course.mirroring);
		log_warn("intercept", "a connection of pid %u to %s passes by the agent: %s", e->pid, addr_format(&a, to), e->cause);
		break;
	case INTERCEPT_EVENT_REFUSED:
		log_debug("intercept", "a connection of pid %u to %s was refused: %s", e->pid, addr_format(&a, to), e->cause);
		break;
	case INTERCEPT_EVENT_TRIPPED:
		log_warn("intercept", "connections of one network namespace (pid %u) do not reach the agent; it is left alone for a while. "
				      "See whether an egress policy or a sidecar is in the way", e->pid);
		break;
	default:
		log_debug("intercept", "pid %u to %s: %s", e->pid, addr_format(&a, to), e->cause ? e->cause : "");
		break;
	}
}

static void on_events(uv_poll_t *poll, int status, int events)
{
	struct node *n = poll->data;

	(void)status;
	(void)events;
	intercept_events_poll(n->intercept, on_event, n);
}

void steer_poll(struct node *n)
{
	intercept_events_poll(n->intercept, on_event, n);
}

/* ---- the watch list, learned from the origin */

struct look {
	struct addr *found;
	unsigned count;
	uint16_t port;
};

static int peer_row(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct look *l = context;
	struct addr *a = &l->found[l->count];

	(void)columns;
	if (l->count == LEARNED_MAX || count < 1)
		return 0;
	memset(a, 0, sizeof(*a));
	if (cells[0].size == 4) {
		a->in.sin_family = AF_INET;
		memcpy(&a->in.sin_addr, cells[0].data, 4);
	} else if (cells[0].size == 16) {
		a->in6.sin6_family = AF_INET6;
		memcpy(&a->in6.sin6_addr, cells[0].data, 16);
	} else {
		return 0;
	}
	addr_set_port(a, l->port);
	l->count++;
	return 0;
}

static void watch_work(uv_work_t *work)
{
	struct node *n = work->data;
	const struct cluster *c = &n->relay.options.cluster[ORIGIN];
	struct look l = {.found = n->learned, .port = watch_port(n->config)};
	struct client *client;
	struct endpoint to;
	struct error error;

	n->learned_count = 0;
	for (unsigned i = 0; i < c->node_count; i++) {
		cluster_endpoint(c, i, &to);
		if (client_open(&client, c, &to, n->relay.options.mark, 3000, &error) < 0)
			continue;
		if (client_query(client, "SELECT rpc_address FROM system.local WHERE key = 'local'", CL_ONE, peer_row, &l, &error) == 0 &&
		    client_query(client, "SELECT rpc_address FROM system.peers", CL_ONE, peer_row, &l, &error) == 0)
			n->learned_count = l.count;
		client_close(client);
		if (n->learned_count)
			return;
	}
}

static void watch_done(uv_work_t *work, int status)
{
	struct node *n = work->data;
	struct error error;

	(void)status;
	n->watch_running = false;
	for (unsigned i = 0; i < n->learned_count && n->intercept; i++)
		if (intercept_watch_add(n->intercept, &n->learned[i].sa, -1, INTERCEPT_LEARNED, &error) < 0)
			log_warn("intercept", "%s", error.text);
	if (n->learned_count && !n->watch_learned) {
		log_info("intercept", "%u nodes of the origin are watched", n->learned_count);
		n->watch_learned = true;
	}
}

static void learn_watch(struct node *n)
{
	if (n->watch_running || n->config->intercept.watch.count)
		return;
	if (!n->learned)
		n->learned = calloc(LEARNED_MAX, sizeof(*n->learned));
	if (!n->learned)
		return;
	n->watch_running = true;
	n->watch.data = n;
	uv_queue_work(&n->loop, &n->watch, watch_work, watch_done);
}

/* ---- connections older than the agent */

static void on_stray(void *opaque, const struct intercept_stray *stray)
{
	struct strays *s = opaque;

	s->found++;
	if (!stray->spared)
		return;
	s->spared++;
	s->spared_for = stray->spared;
}

static void strays_work(uv_work_t *work)
{
	struct node *n = work->data;
	struct strays *s = &n->looking;

	*s = (struct strays){0};
	s->result = intercept_strays(n->intercept, n->relay.course.mirroring ? STRAYS_A_SECOND : 0, &s->closed, on_stray, s, &s->error);
}

static void clear_over(struct node *n, const char *error, const char *hint)
{
	struct phase_listener l = n->clear;

	n->clear = (struct phase_listener){0};
	if (l.done)
		l.done(l.context, error, hint);
}

static void clear_late(struct node *n)
{
	const struct strays *s = &n->looked;
	char text[200], more[120] = "";

	if (s->spared)
		snprintf(more, sizeof(more), "; %u of them would pass by again: %s", s->spared, s->spared_for);
	snprintf(text, sizeof(text), "%u connections still pass by the agent after %u s, and what they write is not mirrored%s", s->found,
		 STEER_CLEAR_SECONDS, more);
	clear_over(n, text, s->spared ? "see \"What was bypassed, and why\" in docs/inspect.md, and stop those clients"
				      : "they are closed 20 a second: try again, or restart those clients");
}

/* Said when it begins, not every second. */
static void judge_strays(struct node *n, const struct strays *before)
{
	if (n->looked.result < 0 && before->result >= 0)
		log_error("intercept", "connections that pass by the agent are not all found and closed, and what they write is not mirrored: %s",
			  n->looked.error.text);
	else if (n->looked.result >= 0 && before->result < 0)
		log_info("intercept", "connections that pass by the agent are found and closed again");
}

static void strays_done(uv_work_t *work, int status)
{
	struct node *n = work->data;
	struct strays before = n->looked;

	(void)status;
	n->strays_running = false;
	n->looked = n->looking;
	n->strays_closed += n->looked.closed;
	if (n->looked.closed)
		log_info("intercept", "%u connections that did not go through the agent were closed; their drivers reconnect",
			 n->looked.closed);
	judge_strays(n, &before);
	if (!n->clear.done || !n->clear_counts)
		return;
	if (n->looked.result < 0)
		clear_over(n, n->looked.error.text, NULL);
	else if (n->looked.found == 0)
		clear_over(n, NULL, NULL);
}

static void look_for_strays(struct node *n)
{
	if (n->strays_running)
		return;
	n->strays_running = true;
	n->clear_counts = n->clear.done != NULL;
	n->strays.data = n;
	uv_queue_work(&n->loop, &n->strays, strays_work, strays_done);
}

void steer_clear(struct node *n, const struct phase_listener *listener)
{
	if (n->clear.done) {
		listener->done(listener->context, "somebody waits already for the last connection that passes by the agent", NULL);
		return;
	}
	n->clear = *listener;
	n->clear_until_ns = clock_now_ns() + STEER_CLEAR_SECONDS * 1000000000ull;
	look_for_strays(n);
}

void steer_describe(const struct node *n, json_t *status)
{
	json_t *problems;

	if (!n->intercept || n->looked.result >= 0)
		return;
	problems = json_copy(json_object_get(status, "problems")); /* others keep theirs */
	if (!problems)
		problems = json_array();
	json_array_append_new(problems, json_string(n->looked.error.text));
	json_object_set_new(status, "problems", problems);
}

int steer_start(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	const struct relay_options *o = &n->relay.options;
	const struct cluster *origin = &o->cluster[ORIGIN];
	const char *why;
	int r = 0;

	if (o->agent4.sa.sa_family == AF_INET)
		r = intercept_set_agent(n->intercept, &o->agent4.sa, error);
	if (r == 0 && o->agent6.sa.sa_family == AF_INET6)
		r = intercept_set_agent(n->intercept, &o->agent6.sa, error);
	for (size_t i = 0; r == 0 && i < c->intercept.watch.count; i++)
		r = watch_entry(n, c->intercept.watch.item[i], error);
	for (unsigned i = 0; r == 0 && i < origin->node_count && !c->intercept.watch.count; i++)
		r = intercept_watch_add(n->intercept, &origin->nodes[i].sa, -1, INTERCEPT_CONFIGURED, error);
	if (r == 0)
		r = intercept_start(n->intercept, error);
	if (r < 0)
		return r;
	bool accelerated = intercept_accelerated(n->intercept, &why);

	log_info("intercept", "acceleration %s: %s", accelerated ? "on" : "off", why ? why : "as configured");
	/* Attached is not yet in force: another program may stand in front of ours, or the path be no cgroup2. */
	if (intercept_check(n->intercept, error) < 0)
		log_error("intercept", "connections are not steered: %s", error->text);
	n->events.data = n;
	if (uv_poll_init(&n->loop, &n->events, intercept_events_fd(n->intercept)) == 0)
		n->events_made = true;
	steer_resume(n);
	return 0;
}

void steer_resume(struct node *n)
{
	if (n->events_made && uv_poll_start(&n->events, UV_READABLE, on_events) == 0)
		n->events_on = true;
	learn_watch(n);
}

void steer_pause(struct node *n)
{
	clear_over(n, "the agent is stopping", NULL);
	/* Work on the thread pool still looks at the kernel side, and its findings are the ledger's. */
	while (n->strays_running || n->watch_running)
		uv_run(&n->loop, UV_RUN_ONCE);
	if (n->events_on)
		uv_poll_stop(&n->events);
	n->events_on = false;
}

void steer_tick(struct node *n)
{
	static unsigned seconds;
	struct intercept_totals t;

	if (intercept_get_totals(n->intercept, &t) == 0) {
		metric_set(n->metrics, METRIC_REDIRECTED, t.redirected);
		metric_set(n->metrics, METRIC_BYPASSED, t.bypassed);
		metric_set(n->metrics, METRIC_REFUSED, t.refused);
	}
	if (++seconds % 10 == 1)
		learn_watch(n);
	if (n->clear.done && clock_now_ns() > n->clear_until_ns)
		clear_late(n);
	if (n->relay.course.mirroring)
		look_for_strays(n);
	if (intercept_superseded(n->intercept) && n->serving) {
		log_info("agent", "another agent has taken over; this one ends");
		uv_stop(&n->loop);
	}
}

void steer_stop(struct node *n)
{
	steer_pause(n);
	if (n->events_made) {
		uv_close((uv_handle_t *)&n->events, NULL);
		uv_run(&n->loop, UV_RUN_NOWAIT);
	}
	intercept_close(n->intercept, INTERCEPT_KEEP);
	n->intercept = NULL;
}
