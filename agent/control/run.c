/* SPDX-License-Identifier: Apache-2.0 */
#include "control/run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/gaps.h"
#include "control/handover.h"
#include "control/node.h"
#include "control/queues.h"
#include "control/scope_config.h"
#include "control/vigil.h"
#include "cutover/fit.h"
#include "migrate/started.h"
#include "mirror/dead.h"
#include "mirror/late.h"
#include "mirror/preflight.h"
#include "relay/prepared.h"

#define KEEP_SECONDS 5

static int literal(const char *text, uint32_t port, const char *key, struct addr *ret, struct error *error)
{
	struct error why;

	if (addr_resolve(text, (uint16_t)port, ret, &why) < 0)
		return error_set(error, -EINVAL, "%s: %s", key, why.text);
	addr_set_port(ret, (uint16_t)port);
	return 0;
}

/* The address of this node on the way to the origin: what pods reach it by. No packet is sent. */
static void own_address(const struct cluster *origin, int family, struct addr *ret)
{
	for (unsigned i = 0; i < origin->node_count; i++) {
		const struct addr *to = &origin->nodes[i];
		socklen_t size = sizeof(ret->storage);
		int fd;

		if (to->sa.sa_family != family)
			continue;
		fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue;
		if (connect(fd, &to->sa, addr_size(to)) == 0)
			getsockname(fd, &ret->sa, &size);
		close(fd);
		if (ret->sa.sa_family == family)
			return;
	}
}

static int listen_addresses(const struct config *c, struct relay_options *o, struct error *error)
{
	if (c->listen.port && literal(c->listen.address, c->listen.port, "listen.address", &o->explicit_listen, error) < 0)
		return -EINVAL;
	if (!c->intercept.enabled)
		return 0;
	if (c->listen.agent_address[0]) {
		if (literal(c->listen.agent_address, c->listen.agent_port, "listen.agentAddress", &o->agent4, error) < 0)
			return -EINVAL;
	} else {
		own_address(&o->cluster[ORIGIN], AF_INET, &o->agent4);
	}
	if (c->listen.agent_address6[0]) {
		if (literal(c->listen.agent_address6, c->listen.agent_port, "listen.agentAddress6", &o->agent6, error) < 0)
			return -EINVAL;
	} else {
		own_address(&o->cluster[ORIGIN], AF_INET6, &o->agent6);
	}
	if (o->agent4.sa.sa_family == AF_INET)
		addr_set_port(&o->agent4, (uint16_t)c->listen.agent_port);
	if (o->agent6.sa.sa_family == AF_INET6)
		addr_set_port(&o->agent6, (uint16_t)c->listen.agent_port);
	if (o->agent4.sa.sa_family == AF_UNSPEC && o->agent6.sa.sa_family == AF_UNSPEC)
		return error_set(error, -EADDRNOTAVAIL, "this node has no address on the way to the origin; set listen.agentAddress");
	return 0;
}

static void reach_options_from(const struct config *c, struct reach_options *o)
{
	struct error error;

	o->mode = (enum connection_mode)c->connection.mode;
	o->mode_named = config_is_set(c, "connection.mode");
	o->first_ms = c->connection.first_timeout_millis;
	o->probe_ms = c->connection.probe_millis;
	for (size_t i = 0; i < c->connection.overrides.count && o->rule_count < MODE_RULES_MAX; i++)
		if (mode_rule_parse(c->connection.overrides.item[i], &o->rules[o->rule_count], &error) == 0)
			o->rule_count++;
}

static int relay_options_from(const struct config *c, struct clusters *clusters, struct relay_options *o, struct error *error)
{
	int r = clusters_open(clusters, c, o, error);

	if (r < 0)
		return r;
	o->workers = config_workers(c);
	o->sessions_max = c->limits.sessions;
	o->session_requests_max = c->limits.session_requests;
	o->requests_max = c->limits.requests_in_flight;
	o->frame_max = (uint32_t)c->limits.frame_bytes;
	o->dial_timeout_ms = c->limits.dial_timeout_millis;
	o->stop_ms = c->limits.stop_millis;
	reach_options_from(c, &o->reach);
	o->configured_auth = c->auth.mode == AUTH_CONFIGURED;
	o->any_client = c->auth.client == AUTH_CLIENT_ANY;
	o->kernel_direct = c->intercept.on_agent_down[CONFIG_PHASE_FINISH] == AGENT_DOWN_TARGET;
	o->acknowledge_both = c->acknowledgement == ACKNOWLEDGE_BOTH;
	o->freeze_topology = c->topology == TOPOLOGY_FREEZE;
	o->ddl = c->ddl == DDL_MIRROR ? RELAY_DDL_MIRROR : c->ddl == DDL_REFUSE ? RELAY_DDL_REFUSE : RELAY_DDL_IGNORE;
	o->state_directory = c->state.directory;
	return listen_addresses(c, o, error);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct node *n = handle->data;

	log_info("agent", "signal %d: stopping; requests in flight are answered first", number);
	n->signalled = true;
	uv_stop(&n->loop);
}

static void keep_work(uv_work_t *work)
{
	struct node *n = work->data;

	relay_keep(&n->relay);
	dead_sync(n->mirror.dead);
}

static void keep_done(uv_work_t *work, int status)
{
	struct node *n = work->data;

	(void)status;
	n->keep_running = false;
}

static void on_second(uv_timer_t *timer)
{
	struct node *n = timer->data;

	handover_tick(n);
	if (handover_given(n))
		return; /* the other agent looks after all that follows */
	/* Before they are steered here, connections that pass by the agent are as they should be. */
	if (n->intercept && n->serving)
		steer_tick(n);
	gaps_tick(n);
	queues_tick(n);
	mirror_tick(&n->mirror, n->metrics);
	vigil_tick(n);
	clusters_tick(&n->clusters, &n->loop, n->metrics);
	metric_set(n->metrics, METRIC_PREPARED_ENTRIES, prepared_map_count(n->relay.prepared));
	if (++n->seconds % KEEP_SECONDS == 0 && !n->keep_running) {
		n->keep_running = true;
		n->keep.data = n;
		uv_queue_work(&n->loop, &n->keep, keep_work, keep_done);
	}
	/* New sessions may not speak what the other cluster does not, from mirroring on. */
	uint8_t version = atomic_load(&n->mirror.version[TARGET]);
	if (version && n->relay.course.mirroring)
		atomic_store(&n->relay.version_cap, version);
	if (n->relay.course.mirroring)
		fit_close_older(&n->relay);
}

static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Before the migration service's Start the target's schema may not be there: nothing is mirrored until then, whatever comes first. */
static enum phase initial_phase(const struct config *c)
{
	struct error error;

	if (c->migration.complete)
		return PHASE_FINISH;
	if (c->migration.service_host[0] && started_load(c->state.directory, &error) == 0)
		return PHASE_OBSERVE;
	return (enum phase)c->phase.initial;
}

int node_claim(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	int r = admin_new(&n->loop, &n->admin);

	if (r < 0)
		return error_set(error, r, "out of memory");
	r = answers_register(n, error);
	if (r == 0)
		r = queues_register(n, error);
	if (r == 0)
		r = handover_register(n, error);
	if (r == 0)
		r = admin_listen(n->admin, c->admin.socket, error);
	if (r == 0 && c->http.port) {
		struct http_options o = {.address = c->http.address, .port = (uint16_t)c->http.port, .metrics = queues_metrics, .health = answer_health,
					 .ready = answer_ready, .context = n};

		r = http_start(&n->loop, &o, &n->http, error);
	}
	return r == 0 ? gaps_start(n, error) : r;
}

/* ---- the migration service's view of the agent */

static int serve(void *context, struct error *error)
{
	struct node *n = context;
	int r;

	/* Accepting comes first: the kernel side leads clients here from the moment that it is told to. */
	relay_serve(&n->relay);
	r = n->intercept ? steer_start(n, error) : 0;
	if (r < 0)
		return r;
	n->serving = true;
	return 0;
}

static enum phase service_phase(void *context)
{
	return phases_current(((struct node *)context)->phases);
}

static void service_move(void *context, const struct phase_request *request, const struct phase_listener *listener)
{
	phases_request(((struct node *)context)->phases, request, listener);
}

static void service_clear(void *context, const struct phase_listener *listener)
{
	struct node *n = context;

	if (n->intercept)
		steer_clear(n, listener);
	else
		listener->done(listener->context, NULL, NULL); /* who is not pointed at the agent is not known to it */
}

static void service_shutdown(void *context)
{
	log_info("agent", "stopping, as the migration service asked; requests in flight are answered first");
	uv_stop(&((struct node *)context)->loop);
}

/* From before the unload until the load is complete, what a load could undo waits. After an error nothing is known: it stays as it is. */
static int service_hold(void *context, const struct migration_table *tables, size_t count, struct error *error)
{
	struct mirror *m = &((struct node *)context)->mirror;
	bool held = false, released = false;

	for (size_t i = 0; i < count; i++) {
		const struct migration_table *t = &tables[i];
		bool hold = t->step >= TABLE_WAITING_TO_UNLOAD && t->step <= TABLE_LOADING_DATA;
		int r = t->step == TABLE_ERRORED ? 0 : mirror_hold(m, t->keyspace, t->name, HOLD_SERVICE, hold, error);

		if (r < 0)
			return r;
		held |= r > 0 && hold;
		released |= r > 0 && !hold;
	}
	if (released)
		mirror_rescan(m);
	return held || released ? mirror_holds_kept(m, error) : 0;
}

static int start_migration_service(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	struct service_options o = {.post = {.service_host = c->migration.service_host,
					     .service_port = (uint16_t)c->migration.service_port,
					     .proxy_host = c->migration.proxy_host,
					     .proxy_port = (uint16_t)c->migration.proxy_port},
				    .state_directory = c->state.directory,
				    .started = takeover_started(n) || handover_started(n)};
	struct service_hooks hooks = {.serve = serve, .phase = service_phase, .move = service_move, .clear = service_clear, .hold = service_hold, .stop = service_shutdown,
				      .context = n};

	return c->migration.service_host[0] ? service_start(&n->loop, &o, &hooks, &n->service, error) : 0;
}

int node_lead(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	struct phase_options phase = {.hold_ms = c->limits.hold_millis, .drain_backlog = c->limits.drain_backlog,
				      .max_clock_skew_ms = c->limits.max_clock_skew_millis, .state_directory = c->state.directory,
				      .ledger = gaps_ledger(n), .settle = gaps_settle, .settle_context = n};
	int before = takeover_phase(n), known = before < 0 ? handover_phase(n) : before, r;

	r = phases_start(&n->loop, &n->relay, &n->mirror, &phase, known < 0 ? initial_phase(c) : (enum phase)known, &n->phases, error);
	if (r < 0)
		return r;
	/* Drain is resumed as mirror: the same for whoever writes. */
	if (before >= 0 && before != (int)phases_current(n->phases) && before != PHASE_DRAIN)
		return error_set(error, -EINVAL, "the agent before this one is in phase %s, and this one's state.directory (%s) says %s: give it the same "
						 "state.directory", phase_name((enum phase)before), c->state.directory,
				 phase_name(phases_current(n->phases)));
	if (scope_renames(&n->scope) && phases_current(n->phases) >= PHASE_CUTOVER)
		log_warn("agent", "mirror.rename has no effect in phase %s: clients name the target's tables themselves", phase_name(phases_current(n->phases)));
	gaps_follow(n);
	return start_migration_service(n, error);
}

static int open_mirror(struct node *n, struct error *error)
{
	static const enum journal_sync syncs[] = {[CONFIG_SYNC_MEMORY] = JOURNAL_MEMORY, [CONFIG_SYNC_NONE] = JOURNAL_SYNC_NONE,
						  [CONFIG_SYNC_INTERVAL] = JOURNAL_SYNC_INTERVAL,
						  [CONFIG_SYNC_COMMIT] = JOURNAL_SYNC_COMMIT};
	const struct config *c = n->config;
	struct mirror_options o = {.budget = c->limits.mirror_bytes, .retain_ms = c->limits.retain_millis,
				   .policy = c->limits.mirror_policy == MIRROR_POLICY_BLOCK ? MIRROR_BLOCK : MIRROR_SHED,
				   .refused_attempts = c->limits.refused_attempts,
				   .consistency = {[ORIGIN] = -1, [TARGET] = c->target.consistency},
				   .highest = {[TARGET] = (uint8_t)c->target.protocol_version},
				   .sync = syncs[c->journal.sync], .sync_ms = c->journal.sync_millis,
				   .rows_threads = c->row_sync.threads,
				   .settle_ns = (uint64_t)c->row_sync.settle_millis * 1000000u,
				   .again_ns = (uint64_t)c->row_sync.again_minutes * 60000000000u,
				   .late_ns = LATE_NS,
				   .acknowledge_ns = (uint64_t)c->limits.acknowledge_millis * 1000000u,
				   .strict_holds = c->journal.strict_holds, .state_directory = c->state.directory};
	int r = mirror_open(&n->mirror, &n->relay, &o, &n->recovered, error);

	if (r == 0) {
		metric_set(n->metrics, METRIC_JOURNAL_RECOVERED_BYTES, n->recovered.bytes);
		metric_set(n->metrics, METRIC_JOURNAL_RECOVERY_US, n->recovered.nanoseconds / 1000);
	}
	return r;
}

static int start(struct node *n, struct error *error)
{
	const struct config *c = n->config;
	int r = relay_options_from(c, &n->clusters, &n->relay.options, error);

	if (r < 0)
		return r;
	r = scope_from_config(c, &n->scope, error);
	if (r < 0)
		return r;
	n->relay.options.scope = &n->scope;
	r = c->takeover.enabled ? takeover_find(n, error) : 0;
	if (r >= 0 && c->intercept.enabled)
		r = steer_open(n, error);
	if (r >= 0 && n->takeover)
		r = takeover_take(n, error);
	if (r < 0)
		return r;
	/* The admin socket's lock says first of all whether another agent lives here. */
	r = open_mirror(n, error);
	if (r == 0)
		r = node_claim(n, error);
	if (r == 0)
		r = relay_start(&n->relay, &mirror_tap, &n->mirror, error);
	if (r == 0)
		r = node_lead(n, error);
	if (r == 0)
		r = vigil_start(n, phases_current(n->phases) == PHASE_MIRROR, error);
	if (r == 0 && n->service && service_waiting(n->service))
		relay_serve(&n->relay); /* clients that are pointed at the agent, as in phase observe; nothing is steered */
	else if (r == 0)
		r = serve(n, error);
	if (r == 0)
		takeover_serving(n);
	return r;
}

static void close_handle(uv_handle_t *handle, void *context)
{
	(void)context;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

int agent_run(const struct config *config, struct error *error)
{
	struct node *n = calloc(1, sizeof(*n));
	char text[ADDR_TEXT_MAX];
	int r;

	if (!n)
		return error_set(error, -ENOMEM, "out of memory");
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	n->config = config;
	n->started_ns = clock_now_ns();
	n->metrics = aligned_alloc(64, sizeof(*n->metrics));
	if (!n->metrics)
		return error_set(error, -ENOMEM, "out of memory");
	memset(n->metrics, 0, sizeof(*n->metrics));
	metrics_register(n->metrics);
	uv_loop_init(&n->loop);
	uv_signal_init(&n->loop, &n->term);
	uv_signal_init(&n->loop, &n->interrupt);
	uv_timer_init(&n->loop, &n->second);
	n->term.data = n->interrupt.data = n->second.data = n;
	uv_signal_start(&n->term, on_signal, SIGTERM);
	uv_signal_start(&n->interrupt, on_signal, SIGINT);

	r = start(n, error);
	if (r == 0) {
		uv_timer_start(&n->second, on_second, 100, 1000);
		log_info("agent", "cqlferry %s: %u workers, phase %s%s%s, interception %s", CQLFERRY_VERSION,
			 n->relay.worker_count, phase_name(phases_current(n->phases)),
			 config->listen.port ? ", listening on " : "",
			 config->listen.port ? addr_format(&n->relay.options.explicit_listen, text) : "",
			 n->intercept ? "on" : "off");
		do
			uv_run(&n->loop, UV_RUN_DEFAULT);
		while (handover_due(n));
		n->serving = false;
	}
	phases_stop(n->phases);
	service_stop(n->service);
	n->service = NULL;
	admin_stop(n->admin);
	http_stop(n->http);
	mirror_stop(&n->mirror);
	relay_stop(&n->relay);
	gaps_stop(n);
	if (n->intercept)
		steer_stop(n);
	vigil_stop(n);
	while (n->keep_running || n->clusters.running)
		uv_run(&n->loop, UV_RUN_ONCE);
	if (handover_given(n)) {
		handover_end(n);
		if (config->takeover.wait_for_term && !n->signalled) {
			log_info("agent", "all sessions have ended; waiting for SIGTERM (takeover.waitForTerm)");
			uv_timer_stop(&n->second);
			uv_run(&n->loop, UV_RUN_DEFAULT);
		}
	} else if (r == 0) {
		relay_keep(&n->relay);
	}
	handover_end(n);
	uv_run(&n->loop, UV_RUN_NOWAIT); /* what workers and thread pool have sent is taken before the handles go */
	uv_walk(&n->loop, close_handle, NULL);
	for (int i = 0; i < 100 && uv_run(&n->loop, UV_RUN_NOWAIT); i++)
		;
	bool busy = uv_loop_close(&n->loop) < 0; /* a look-up of a name cannot be called off, and tells the loop when it ends */
	relay_done(&n->relay);
	mirror_close(&n->mirror);
	clusters_close(&n->clusters);
	scope_done(&n->scope);
	metrics_unregister(n->metrics);
	free(n->metrics);
	free(n->learned);
	takeover_end(n); /* what it was given is free again, should it not have served */
	if (!busy)
		free(n);
	if (r == 0)
		log_info("agent", "stopped");
	return r;
}

/* ---- doctor */

static void preflight_found(void *context, enum preflight_grade grade, const char *what, const char *remedy)
{
	static const enum doctor_grade grades[] = {
		[PREFLIGHT_OK] = DOCTOR_OK, [PREFLIGHT_NOTE] = DOCTOR_NOTE, [PREFLIGHT_WARN] = DOCTOR_WARN, [PREFLIGHT_FAIL] = DOCTOR_FAIL};

	doctor_find(context, grades[grade], remedy, "%s", what);
}

static void check_clusters(struct doctor *doctor, const struct config *config, void *context)
{
	struct clusters clusters = {0};
	struct cluster cluster[SIDES] = {0};
	struct scope scope = {0};
	struct error error;

	(void)context;
	if ((!config->origin.contact_points.count && !*config->origin.bundle) ||
	    (!config->target.contact_points.count && !*config->target.bundle)) {
		doctor_find(doctor, DOCTOR_NOTE, NULL, "origin and target are not both configured: schema and clocks were not compared");
		return;
	}
	if (clusters_open_one(&clusters, config, ORIGIN, NULL, &cluster[ORIGIN], &error) < 0 ||
	    clusters_open_one(&clusters, config, TARGET, NULL, &cluster[TARGET], &error) < 0)
		doctor_find(doctor, DOCTOR_FAIL, "correct the address, or the file that is named", "%s", error.text);
	else if (scope_from_config(config, &scope, &error) < 0)
		doctor_find(doctor, DOCTOR_FAIL, "correct mirror.rename", "%s", error.text);
	else
		preflight_run(cluster, &scope, 0, config->limits.max_clock_skew_millis, preflight_found, doctor);
	scope_done(&scope);
	clusters_close(&clusters);
}

void run_doctor_checks(struct doctor *doctor)
{
	doctor_add(doctor, "schema, privileges and clocks", check_clusters, NULL);
}
