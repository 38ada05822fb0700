/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent answers on its admin socket and to health questions. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/handover.h"
#include "control/node.h"
#include "control/queues.h"
#include "control/vigil.h"
#include "cutover/ledger.h"
#include "relay/reach.h"
#include "relay/session.h"
#include "relay/worker.h"

#define REPLICAS_SHOWN 64u

static json_t *count(enum metric id)
{
	return json_integer((json_int_t)metrics_total(id));
}

static json_t *cluster_answer(const struct node *n, enum side side)
{
	const struct cluster *c = &n->relay.options.cluster[side];
	json_t *nodes = json_array(), *o = json_object();
	char text[ADDR_TEXT_MAX];

	for (unsigned i = 0; i < c->node_count; i++)
		json_array_append_new(nodes, json_string(addr_format(&c->nodes[i], text)));
	json_object_set_new(o, "nodes", nodes);
	json_object_set_new(o, "tls", json_boolean(c->tls != NULL));
	json_object_set_new(o, "sessions", count(side == ORIGIN ? METRIC_UPSTREAMS_ORIGIN : METRIC_UPSTREAMS_TARGET));
	json_object_set_new(o, "mirrorConnections", json_integer(atomic_load(&n->mirror.connected[side])));
	return o;
}

static json_t *unmirrored_answer(void)
{
	static const struct {
		const char *name;
		enum metric metric;
	} causes[] = {{"lwt", METRIC_UNMIRRORED_LWT}, {"counter", METRIC_UNMIRRORED_COUNTER},
		      {"listOperation", METRIC_UNMIRRORED_LIST}, {"serverFunction", METRIC_UNMIRRORED_FUNCTION},
		      {"unclassified", METRIC_UNMIRRORED_UNCLASSIFIED}, {"unknownOutcome", METRIC_UNMIRRORED_UNKNOWN_OUTCOME},
		      {"shed", METRIC_UNMIRRORED_SHED}, {"deadLetter", METRIC_UNMIRRORED_DEAD},
		      {"policy", METRIC_UNMIRRORED_POLICY}, {"bypass", METRIC_UNMIRRORED_BYPASS}};
	json_t *o = json_object();

	for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++)
		json_object_set_new(o, causes[i].name, count(causes[i].metric));
	return o;
}

static json_t *intercept_answer(const struct node *n)
{
	struct intercept_totals t = {0};
	const char *why = "";
	bool on = intercept_accelerated(n->intercept, &why);

	intercept_get_totals(n->intercept, &t);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:I}", "redirected", (json_int_t)t.redirected, "bypassed",
			 (json_int_t)t.bypassed, "refused", (json_int_t)t.refused, "direct", (json_int_t)t.direct, "observed",
			 (json_int_t)t.observed, "unattributed", (json_int_t)metrics_total(METRIC_SESSIONS_UNATTRIBUTED), "acceleration",
			 on ? "on" : "off", "because", why, "strays", (json_int_t)n->looked.found, "straysClosed",
			 (json_int_t)n->strays_closed);
}

/* How nodes are reached, and the first of those that something is known of. */
static json_t *connection_answer(const struct node *n)
{
	struct reach_view list[REPLICAS_SHOWN];
	unsigned shown = reach_list(n->relay.reach, list, REPLICAS_SHOWN);
	uint64_t now = clock_now_ns();
	json_t *replicas = json_array(), *o;
	char text[ADDR_TEXT_MAX];

	for (unsigned i = 0; i < shown; i++) {
		const struct replica_verdict *v = &list[i].verdict;
		bool waits = v->state == VERDICT_UNREACHABLE && v->retry_ns > now;

		json_array_append_new(replicas, json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "replica", addr_format(&v->replica, text), "side",
							  side_name(list[i].side), "state", verdict_name(v->state), "failures",
							  (json_int_t)v->failures, "triedAgainInSeconds",
							  (json_int_t)(waits ? (v->retry_ns - now) / 1000000000u : 0), "because",
							  v->cause ? strerror(-v->cause) : ""));
	}
	o = json_pack("{s:s, s:o, s:o, s:o}", "mode", mode_name(reach_mode(n->relay.reach, ORIGIN)), "toReplicas", count(METRIC_WAY_REPLICA),
		      "fallbacks", count(METRIC_WAY_FALLBACK), "toControlHosts", count(METRIC_WAY_CONTROL));
	if (n->config->target.contact_points.count || n->config->target.bundle[0])
		json_object_set_new(o, "targetMode", json_string(mode_name(reach_mode(n->relay.reach, TARGET))));
	json_object_set_new(o, "replicas", replicas);
	return o;
}

static void answer_status(struct admin_reply *reply, const json_t *request, void *context)
{
	struct node *n = context;
	json_t *o = json_object();

	(void)request;
	json_object_set_new(o, "version", json_string(CQLFERRY_VERSION));
	json_object_set_new(o, "phase", json_string(phase_name(phases_current(n->phases))));
	json_object_set_new(o, "moving", json_boolean(phases_moving(n->phases)));
	json_object_set_new(o, "upSeconds", json_integer((json_int_t)((clock_now_ns() - n->started_ns) / 1000000000u)));
	json_object_set_new(o, "sessions",
			    json_pack("{s:o, s:o, s:o, s:o, s:o}", "open", count(METRIC_SESSIONS), "opened",
				      count(METRIC_SESSIONS_OPENED), "opaque", count(METRIC_SESSIONS_OPAQUE), "refusedAtLimit",
				      count(METRIC_SESSIONS_CLOSED_LIMIT), "closedAtSwitch", count(METRIC_SESSIONS_CLOSED_SWITCH)));
	json_object_set_new(o, "requests",
			    json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "read", count(METRIC_REQUESTS_READ), "write",
				      count(METRIC_REQUESTS_WRITE), "prepare", count(METRIC_REQUESTS_PREPARE), "inFlight",
				      count(METRIC_REQUESTS_INFLIGHT), "badFrames", count(METRIC_BAD_FRAMES), "overloaded",
				      count(METRIC_REFUSED_OVERLOADED)));
	json_object_set_new(o, "origin", cluster_answer(n, ORIGIN));
	json_object_set_new(o, "target", cluster_answer(n, TARGET));
	json_object_set_new(o, "connections", connection_answer(n));
	json_object_set_new(o, "mirror",
			    json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "backlog", count(METRIC_MIRROR_BACKLOG), "backlogBytes",
				      count(METRIC_MIRROR_BACKLOG_BYTES), "inDoubt", count(METRIC_MIRROR_INDOUBT), "applied",
				      count(METRIC_MIRROR_APPLIED), "retried", count(METRIC_MIRROR_RETRIED), "dead",
				      count(METRIC_MIRROR_DEAD), "refusedByPrimary", count(METRIC_MIRROR_REFUSED_BY_PRIMARY)));
	json_object_set_new(json_object_get(o, "mirror"), "leftOut", count(METRIC_MIRROR_LEFT_OUT));
	queues_describe(n, o);
	json_object_set_new(o, "unmirrored", unmirrored_answer());
	json_object_set_new(o, "holds",
			    json_pack("{s:o, s:o}", "count", count(METRIC_HOLDS), "lastMicros", count(METRIC_HOLD_LAST_US)));
	if (n->intercept)
		json_object_set_new(o, "interception", intercept_answer(n));
	vigil_describe(n, o);
	steer_describe(n, o);
	if (n->takeover)
		json_object_set_new(o, "agentBefore", takeover_describe(n));
	if (n->service)
		json_object_set_new(o, "migrationService", service_describe(n->service));
	admin_done(reply, o);
}

/* ---- phase */

static void phase_progress(void *context, const char *text)
{
	admin_progress(context, "%s", text);
}

static void phase_done(void *context, const char *error, const char *hint)
{
	struct admin_reply *reply = context;

	if (error)
		admin_fail(reply, error, hint);
	else
		admin_done(reply, NULL);
}

static void answer_phase(struct admin_reply *reply, const json_t *request, void *context)
{
	struct node *n = context;
	const char *to = json_string_value(json_object_get(request, "to"));
	int phase = to ? phase_from_name(to) : -1;
	struct phase_request r = {.plan = json_is_true(json_object_get(request, "plan")),
				  .force = json_is_true(json_object_get(request, "force")),
				  .timeout_ms = (unsigned)json_integer_value(json_object_get(request, "timeoutMillis")),
				  .who = admin_peer(reply)};
	struct phase_listener l = {.progress = phase_progress, .done = phase_done, .context = reply};

	if (phase < 0) {
		admin_fail(reply, "\"to\" names no phase", "allowed: observe, mirror, drain, cutover, rollback, finish");
		return;
	}
	if (r.timeout_ms == 0)
		r.timeout_ms = 300000;
	r.to = (enum phase)phase;
	phases_request(n->phases, &r, &l);
}

/* ---- interception on and off */

static void switch_interception(struct admin_reply *reply, struct node *n, bool on, bool force)
{
	enum phase p = phases_current(n->phases);

	if (!n->intercept) {
		admin_fail(reply, "this agent does not intercept", "intercept.enabled is false");
		return;
	}
	if (!on && p >= PHASE_DRAIN && !force) {
		admin_fail(reply, "after a cutover clients would be led back to the cluster that their writes left",
			   "roll back first, or --force");
		return;
	}
	if (intercept_switch(n->intercept, on) < 0) {
		admin_fail(reply, "the kernel side did not take it", "see docs/inspect.md for the bpftool line");
		return;
	}
	if (!on && p >= PHASE_DRAIN)
		ledger_forced(gaps_ledger(n), admin_peer(reply), "interception off", phase_name(p), clock_wall_us());
	log_audit("interception %s by %s in phase %s", on ? "on" : "off", admin_peer(reply), phase_name(p));
	admin_done(reply, json_pack("{s:s}", "interception", on ? "on" : "off"));
}

static void answer_off(struct admin_reply *reply, const json_t *request, void *context)
{
	switch_interception(reply, context, false, json_is_true(json_object_get(request, "force")));
}

static void answer_on(struct admin_reply *reply, const json_t *request, void *context)
{
	(void)request;
	switch_interception(reply, context, true, false);
}

/* ---- sessions */

struct listing {
	struct node *node;
	struct admin_reply *reply;
	uv_async_t done;
	size_t limit;
	json_t *of_worker[RELAY_WORKERS_MAX];
};

static void list_worker(struct worker *w, void *context)
{
	static const char *const states[SESSION_STATES] = {"connecting", "handshake", "open", "opaque", "orphan", "closing"};
	struct listing *l = context;
	json_t *list = json_array();
	char peer[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];

	for (struct session *s = w->sessions; s && json_array_size(list) < l->limit; s = s->next)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:i}", "client", addr_format(&s->peer, peer),
						      "destination", addr_format(&s->destination, destination), "state",
						      states[s->state], "primary", side_name(s->primary), "protocol", s->version,
						      "keyspace", s->keyspace, "inFlight", (int)s->inflight.count));
	l->of_worker[w->index] = list;
}

static void listed(void *context)
{
	struct listing *l = context;

	uv_async_send(&l->done);
}

static void listing_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void on_listed(uv_async_t *async)
{
	struct listing *l = async->data;
	json_t *all = json_array();

	for (unsigned i = 0; i < RELAY_WORKERS_MAX; i++) {
		for (size_t k = 0; l->of_worker[i] && k < json_array_size(l->of_worker[i]) && json_array_size(all) < l->limit; k++)
			json_array_append(all, json_array_get(l->of_worker[i], k));
		json_decref(l->of_worker[i]);
	}
	admin_done(l->reply, json_pack("{s:o, s:o}", "open", count(METRIC_SESSIONS), "sessions", all));
	uv_close((uv_handle_t *)async, listing_closed);
}

static void answer_sessions(struct admin_reply *reply, const json_t *request, void *context)
{
	struct node *n = context;
	struct listing *l = calloc(1, sizeof(*l));
	json_int_t limit = json_integer_value(json_object_get(request, "limit"));

	if (!l) {
		admin_fail(reply, "out of memory", NULL);
		return;
	}
	l->node = n;
	l->reply = reply;
	l->limit = limit > 0 ? (size_t)limit : 1000;
	uv_async_init(&n->loop, &l->done, on_listed);
	l->done.data = l;
	relay_each_worker(&n->relay, list_worker, listed, l);
}

int answers_register(struct node *n, struct error *error)
{
	if (admin_register(n->admin, "status", answer_status, n) < 0 || admin_register(n->admin, "phase", answer_phase, n) < 0 ||
	    admin_register(n->admin, "off", answer_off, n) < 0 || admin_register(n->admin, "on", answer_on, n) < 0 ||
	    admin_register(n->admin, "sessions", answer_sessions, n) < 0)
		return error_set(error, -ENOSPC, "too many admin commands");
	return 0;
}

/* ---- health */

bool answer_health(json_t *body, void *context)
{
	struct node *n = context;

	/* A target that is down is no reason to restart the agent: the origin's clients need it. */
	json_object_set_new(body, "phase", json_string(n->phases ? phase_name(phases_current(n->phases)) : "starting"));
	return true;
}

bool answer_ready(json_t *body, void *context)
{
	struct node *n = context;
	json_t *reasons = json_array();
	char text[400];

	if (!n->serving && n->service && service_waiting(n->service))
		json_array_append_new(reasons, json_string(service_reason(n->service, text, sizeof(text))));
	else if (!n->serving)
		json_array_append_new(reasons, json_string("not serving yet"));
	json_object_set_new(body, "reasons", reasons);
	return n->serving;
}
