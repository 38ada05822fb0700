/* SPDX-License-Identifier: Apache-2.0 */
#include "control/vigil.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mirror/preflight.h"
#include "mirror/replicas.h"
#include "mirror/skew.h"

#define QUESTION_MS 5000
#define PROBLEMS_MAX 32
#define ROUTE_UNASKED 1

struct reading {
	bool known;
	struct skew skew;
	char node[ADDR_TEXT_MAX];
	char error[200]; /* why it is not known */
};

struct vigil {
	struct node *node;
	uv_work_t work;
	bool running;
	_Atomic bool stopping; /* no further question */
	unsigned seconds;
	bool preflight; /* this round makes one */
	bool routing;   /* and reads the target's ring */
	/* Of the round that is under way; the main loop looks at it when that has ended. */
	struct reading fresh[SIDES];
	char problem[PROBLEMS_MAX][400];
	unsigned problems, failures;
	int routed; /* what became of reading the ring: 0, −errno with the reason, or ROUTE_UNASKED */
	struct replicas *replicas; /* if that is 0 */
	struct error unrouted;
	/* What is said. */
	struct reading clock[SIDES];
	bool alarm[SIDES];
	unsigned said; /* failures, when they were last told */
	int route_said; /* the same of `routed` */
	json_t *shown; /* findings that stand against mirroring */
};

/* ---- on the thread pool */

static void measure(struct vigil *v, enum side side)
{
	const struct relay_options *o = &v->node->relay.options;
	const struct cluster *c = &o->cluster[side];
	struct reading *k = &v->fresh[side];

	*k = (struct reading){.error = "no contact point is configured"};
	for (unsigned i = 0; i < c->node_count && !k->known && !atomic_load(&v->stopping); i++) {
		struct client *client = NULL;
		struct error error = {""};
		struct endpoint to;

		addr_format(&c->nodes[i], k->node);
		cluster_endpoint(c, i, &to);
		k->known = client_open(&client, c, &to, o->mark, QUESTION_MS, &error) == 0 &&
			       skew_measure(client, &k->skew, &error) == 0;
		snprintf(k->error, sizeof(k->error), "%s", error.text);
		if (k->known && side == TARGET && v->routing)
			v->routed = replicas_read(client, c, i, &v->replicas, &v->unrouted);
		client_close(client);
	}
}

static void found(void *context, enum preflight_grade grade, const char *what, const char *remedy)
{
	struct vigil *v = context;

	if (grade < PREFLIGHT_FAIL)
		return;
	v->failures++;
	if (v->problems < PROBLEMS_MAX)
		snprintf(v->problem[v->problems++], sizeof(v->problem[0]), "%s%s%s", what, remedy ? ". " : "", remedy ? remedy : "");
}

static void work(uv_work_t *w)
{
	struct vigil *v = w->data;
	const struct relay_options *o = &v->node->relay.options;

	v->routed = ROUTE_UNASKED;
	v->unrouted.text[0] = 0;
	for (int side = 0; side < SIDES; side++)
		measure(v, side);
	v->problems = v->failures = 0;
	if (v->preflight && !atomic_load(&v->stopping))
		preflight_run(o->cluster, o->scope, o->mark, v->node->config->limits.max_clock_skew_millis, found, v);
}

/* ---- on the main loop */

static void judge_clock(struct vigil *v, enum side side)
{
	static const enum metric skews[SIDES] = {[ORIGIN] = METRIC_CLOCK_SKEW_ORIGIN, [TARGET] = METRIC_CLOCK_SKEW_TARGET};
	static const enum metric alarms[SIDES] = {[ORIGIN] = METRIC_CLOCK_ALARM_ORIGIN, [TARGET] = METRIC_CLOCK_ALARM_TARGET};
	unsigned max = v->node->config->limits.max_clock_skew_millis;
	const struct reading *c = &v->fresh[side];
	bool beyond;

	v->clock[side] = *c;
	if (!c->known) {
		log_warn("agent", "%s: the clock cannot be read: %s", side_name(side), c->error);
		return;
	}
	beyond = skew_judge(&c->skew, max) == SKEW_BEYOND;
	metric_set(v->node->metrics, skews[side], (uint64_t)skew_far(&c->skew));
	metric_set(v->node->metrics, alarms[side], beyond);
	if (beyond && !v->alarm[side])
		log_error("agent", "%s: the clock of %s is %.1f ms %s this node's, more than limits.maxClockSkewMillis (%u): timestamps of writes "
				   "are wrong by so much. Synchronise the clocks (chrony, ntpd)", side_name(side), c->node,
			  (double)skew_far(&c->skew) / 1000, c->skew.offset_us < 0 ? "behind" : "ahead of", max);
	else if (!beyond && v->alarm[side])
		log_info("agent", "%s: the clock of %s is close enough again", side_name(side), c->node);
	v->alarm[side] = beyond;
}

static void judge_preflight(struct vigil *v)
{
	if (!v->preflight)
		return;
	if (v->failures != v->said) /* said when it changes, not every minute */
		for (unsigned i = 0; i < v->problems; i++)
			log_error("agent", "mirroring goes on although: %s", v->problem[i]);
	if (v->said && !v->failures)
		log_info("agent", "nothing stands against mirroring any more");
	metric_set(v->node->metrics, METRIC_PREFLIGHT_FAILED, v->failures);
	json_array_clear(v->shown);
	for (unsigned i = 0; i < v->problems; i++)
		json_array_append_new(v->shown, json_string(v->problem[i]));
	v->said = v->failures;
	v->preflight = v->failures > 0; /* again, until all is well */
}

/* A ring that could not be read today is still the one of yesterday. */
static void judge_route(struct vigil *v)
{
	if (v->routed == ROUTE_UNASKED)
		return;
	if (v->routed == 0 || v->routed == -ENOTSUP)
		mirror_route(&v->node->mirror, v->replicas);
	v->replicas = NULL;
	if (v->routed == 0 && v->route_said != 0)
		log_info("agent", "the ring of the target is known: mirrored writes go to replicas of their partitions");
	else if (v->routed < 0 && v->routed != v->route_said)
		log_info("agent", "the ring of the target is not known, mirrored writes go to any of its nodes: %s", v->unrouted.text);
	v->route_said = v->routed;
}

static void worked(uv_work_t *w, int status)
{
	struct vigil *v = w->data;

	(void)status;
	v->running = false;
	if (atomic_load(&v->stopping))
		return;
	for (int side = 0; side < SIDES; side++)
		judge_clock(v, side);
	judge_preflight(v);
	judge_route(v);
}

int vigil_start(struct node *n, bool preflight, struct error *error)
{
	struct vigil *v = calloc(1, sizeof(*v));

	if (v)
		v->shown = json_array();
	if (!v || !v->shown) {
		free(v);
		return error_set(error, -ENOMEM, "out of memory");
	}
	v->node = n;
	v->preflight = preflight;
	v->route_said = ROUTE_UNASKED;
	v->work.data = v;
	n->vigil = v;
	return 0;
}

void vigil_tick(struct node *n)
{
	const struct cluster *target = &n->relay.options.cluster[TARGET];
	struct vigil *v = n->vigil;

	if (!v || !n->relay.course.mirroring || v->running || v->seconds++ % VIGIL_SECONDS != 0)
		return;
	v->running = true;
	v->routing = v->node->config->target.token_aware && n->relay.course.primary == ORIGIN && target->node_count > 1 && !target->sni;
	uv_queue_work(&n->loop, &v->work, work, worked);
}

static json_t *clock_json(const struct vigil *v, enum side side)
{
	const struct reading *c = &v->clock[side];

	if (c->known)
		return json_pack("{s:s, s:f, s:s, s:f, s:b}", "node", c->node, "differsMillis", (double)skew_far(&c->skew) / 1000,
				 "direction", c->skew.offset_us < 0 ? "behind" : "ahead", "unsureMillis", (double)c->skew.unsure_us / 1000,
				 "tooFar", v->alarm[side]);
	return c->error[0] ? json_pack("{s:s, s:s}", "node", c->node, "error", c->error) : NULL;
}

void vigil_describe(const struct node *n, json_t *status)
{
	const struct vigil *v = n->vigil;
	json_t *clocks = json_object(), *one;

	for (int side = 0; v && side < SIDES; side++)
		if ((one = clock_json(v, side)))
			json_object_set_new(clocks, side_name(side), one);
	if (json_object_size(clocks))
		json_object_set(status, "clocks", clocks);
	json_decref(clocks);
	if (v && json_array_size(v->shown))
		json_object_set(status, "problems", v->shown);
}

void vigil_stop(struct node *n)
{
	struct vigil *v = n->vigil;

	if (!v)
		return;
	atomic_store(&v->stopping, true);
	while (v->running)
		uv_run(&n->loop, UV_RUN_ONCE);
	json_decref(v->shown);
	replicas_put(v->replicas);
	free(v);
	n->vigil = NULL;
}
