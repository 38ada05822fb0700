/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See service.h. A request is answered at once or, where it asks for a phase, when the phases have answered:
 *
 *   NONE ──Start───────▶ START     phase mirror, then: no client passes by the agent any more
 *    ▲ ────Complete────▶ COMPLETE  phases cutover, finish
 *    └──────── Success, or Failure with the reason, to all that wait
 *
 * Requests of the kind that is under way join; others are refused until it is over. Connections and answers
 * are post.c's.
 */
#include "migrate/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/magic.h"
#include "migrate/post.h"
#include "migrate/started.h"
#include "migrate/update.h"

#define SERVICE_MAGIC 0x5e51ce01u
#define PHASE_TIMEOUT_MS 300000 /* as long as `cqlferry phase` waits */

enum goal { GOAL_NONE, GOAL_START, GOAL_COMPLETE };

struct service {
	uint32_t magic;
	struct service_options options;
	struct service_hooks hooks;
	struct post *post;
	unsigned users; /* its owner, and a phase change that is under way */
	bool waiting, stopped;
	struct migration_status status;
	enum goal goal;
	enum phase asked;
	bool moved; /* for this goal a phase was asked for */
	struct sender waiters[SERVICE_WAITERS_MAX];
	unsigned waiter_count;
};

static void service_put(struct service *s)
{
	MAGIC_CHECK(s, SERVICE_MAGIC);
	if (--s->users > 0)
		return;
	status_done(&s->status);
	s->magic = 0;
	free(s);
}

/* ---- what needs a phase */

static void goal_step(struct service *s);

static void goal_over(struct service *s, const char *error)
{
	struct sender waiters[SERVICE_WAITERS_MAX];
	unsigned count = s->waiter_count;

	memcpy(waiters, s->waiters, sizeof(waiters));
	if (s->moved || error)
		log_audit("migration service: %s %s%s%s", s->goal == GOAL_START ? "Start" : "Complete",
			  error ? "failed" : "done", error ? ": " : "", error ? error : "");
	s->goal = GOAL_NONE;
	s->moved = false;
	s->waiter_count = 0;
	for (unsigned i = 0; i < count; i++) {
		if (error)
			post_fail(s->post, &waiters[i], error);
		else
			post_succeed(s->post, &waiters[i]);
	}
}

/* What to do follows what is wrong. */
static void failure_text(char to[UPDATE_ERROR_SIZE], const char *error, const char *hint)
{
	snprintf(to, UPDATE_ERROR_SIZE, "%s%s%s", error, hint && *hint ? ". " : "", hint && *hint ? hint : "");
}

static void on_moved(void *context, const char *error, const char *hint)
{
	struct service *s = context;
	char text[UPDATE_ERROR_SIZE];

	MAGIC_CHECK(s, SERVICE_MAGIC);
	if (s->stopped) {
		service_put(s);
		return;
	}
	if (error)
		failure_text(text, error, hint);
	else if (s->hooks.phase(s->hooks.context) != s->asked)
		snprintf(text, sizeof(text), "the agent did not reach phase %s", phase_name(s->asked));
	else
		text[0] = 0;
	if (text[0])
		goal_over(s, text);
	else
		goal_step(s);
	service_put(s);
}

static void on_clear(void *context, const char *error, const char *hint)
{
	struct service *s = context;
	char text[UPDATE_ERROR_SIZE];

	MAGIC_CHECK(s, SERVICE_MAGIC);
	if (error)
		failure_text(text, error, hint);
	if (!s->stopped)
		goal_over(s, error ? text : NULL);
	service_put(s);
}

/* Writes that pass by the agent would be missing from what the service unloads and from what is mirrored. */
static bool may_pass_by(const struct service *s)
{
	enum phase now = s->hooks.phase(s->hooks.context);

	return s->hooks.clear && (now == PHASE_MIRROR || now == PHASE_DRAIN);
}

static void goal_step(struct service *s)
{
	enum phase now = s->hooks.phase(s->hooks.context);
	struct phase_request request = {.timeout_ms = PHASE_TIMEOUT_MS};
	struct phase_listener listener = {.done = on_moved, .context = s};
	char who[64];

	if (s->goal == GOAL_START && may_pass_by(s)) {
		listener.done = on_clear;
		s->users++;
		s->hooks.clear(s->hooks.context, &listener);
		return;
	}
	if (s->goal == GOAL_START ? now != PHASE_OBSERVE : now == PHASE_FINISH) {
		goal_over(s, NULL);
		return;
	}
	s->asked = s->goal == GOAL_START ? PHASE_MIRROR : now == PHASE_CUTOVER ? PHASE_FINISH : PHASE_CUTOVER;
	snprintf(who, sizeof(who), "migration service %.40s", post_peer(s->post, &s->waiters[0]));
	request.to = s->asked;
	request.who = who;
	s->users++;
	s->moved = true;
	s->hooks.move(s->hooks.context, &request, &listener);
}

static void goal_join(struct service *s, enum goal goal, const struct sender *w)
{
	if (s->goal != GOAL_NONE && s->goal != goal) {
		post_fail(s->post, w,
			  s->goal == GOAL_START
			      ? "Start is not done yet: the agent is on its way to phase mirror, or clients still pass by it"
			      : "Complete is under way");
		return;
	}
	if (s->waiter_count == SERVICE_WAITERS_MAX) {
		post_fail(s->post, w, "too many requests wait for the same phase change");
		return;
	}
	s->waiters[s->waiter_count++] = *w;
	if (s->goal != GOAL_NONE)
		return;
	s->goal = goal;
	if (goal == GOAL_COMPLETE && s->hooks.phase(s->hooks.context) != PHASE_FINISH)
		log_audit("migration service %s: Complete %s", post_peer(s->post, w), w->id);
	goal_step(s);
}

/* ---- updates */

static int begin(struct service *s, const struct sender *w, struct error *error)
{
	int r = started_save(s->options.state_directory, w->id, error);

	if (r < 0)
		return r;
	r = s->hooks.serve(s->hooks.context, error);
	if (r < 0) {
		started_remove(s->options.state_directory);
		return r;
	}
	s->waiting = false;
	return 0;
}

static void take_start(struct service *s, const struct update *u, const struct sender *w)
{
	struct migration_status status;
	struct error error;

	if (status_parse(span_of(u->data, u->data_size), &status, &error) < 0) {
		post_malformed(s->post, w, error.text);
		return;
	}
	if (s->waiting)
		log_audit("migration service %s: Start %s, %zu tables", post_peer(s->post, w), w->id,
			  status.count);
	else
		log_debug("migrate", "%s: Start %s once more, %zu tables", post_peer(s->post, w), w->id,
			  status.count);
	if (status.skipped)
		log_warn("migrate", "Start %s: %zu entries of Tables are no tables and were left out", w->id,
			 status.skipped);
	status_done(&s->status);
	s->status = status;
	for (size_t i = 0; i < status.count; i++)
		s->status.tables[i].priority = 0; /* what the service was told last */
	if (s->hooks.hold(s->hooks.context, status.tables, status.count, &error) < 0) {
		post_fail(s->post, w, error.text);
		return;
	}
	if (s->waiting && begin(s, w, &error) < 0) {
		post_fail(s->post, w, error.text);
		return;
	}
	/* Success lets the service unload: from here on nothing that is written may be missed. */
	if (s->hooks.phase(s->hooks.context) == PHASE_OBSERVE || (s->goal != GOAL_COMPLETE && may_pass_by(s)))
		goal_join(s, GOAL_START, w);
	else
		post_succeed(s->post, w);
}

static void take_table(struct service *s, const struct update *u, const struct sender *w)
{
	const struct migration_table *at;
	struct migration_table t;
	struct error error;
	char text[UPDATE_ERROR_SIZE];

	if (table_parse(span_of(u->data, u->data_size), &t, &error) < 0) {
		post_malformed(s->post, w, error.text);
		return;
	}
	if (s->waiting) {
		post_fail(s->post, w, "TableUpdate before Start");
		return;
	}
	if (s->status.count && !status_find(&s->status, t.keyspace, t.name)) {
		snprintf(text, sizeof(text), "table %s.%s is not in the Start's list", t.keyspace, t.name);
		post_fail(s->post, w, text);
		return;
	}
	if (s->hooks.hold(s->hooks.context, &t, 1, &error) < 0) {
		post_fail(s->post, w, error.text);
		return;
	}
	at = status_find(&s->status, t.keyspace, t.name);
	if (at)
		s->status.tables[at - s->status.tables].step = t.step;
	log_info("migrate", "%s.%s: %s", t.keyspace, t.name, table_step_name(t.step));
	post_succeed(s->post, w);
}

static void take_complete(struct service *s, const struct sender *w)
{
	if (s->waiting) {
		post_fail(s->post, w, "Complete before Start: nothing is mirrored yet");
		return;
	}
	goal_join(s, GOAL_COMPLETE, w);
}

static void on_update(void *context, const struct update *u, const struct sender *w)
{
	struct service *s = context;

	MAGIC_CHECK(s, SERVICE_MAGIC);
	switch (u->type) {
	case UPDATE_TABLE:
		take_table(s, u, w);
		break;
	case UPDATE_START:
		take_start(s, u, w);
		break;
	case UPDATE_COMPLETE:
		take_complete(s, w);
		break;
	case UPDATE_SHUTDOWN:
		log_audit("migration service %s: Shutdown %s", post_peer(s->post, w), w->id);
		post_succeed(s->post, w);
		s->hooks.stop(s->hooks.context);
		break;
	default: /* the service acknowledges our answers; an answer to that would go on for ever */
		log_debug("migrate", "%s for update %s", update_type_name(u->type), w->id);
		break;
	}
}

/* ---- sizes of backlogs */

#define TOLD_AT_ONCE 32 /* tables; the others' turn is the next one */

static bool tell(struct service *s, const struct migration_table *t, uint64_t waiting)
{
	struct migration_table said = *t;
	struct update u = {.type = UPDATE_TABLE};
	uint8_t b[16] = {0};
	bool told;

	said.priority = (int64_t)waiting;
	if (table_write(&said, &u.data, &u.data_size) < 0)
		return false;
	getrandom(b, sizeof(b), GRND_NONBLOCK);
	/* A UUID of version 4. */
	snprintf(u.id, sizeof(u.id), "%02x%02x%02x%02x-%02x%02x-4%x%02x-a%x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5],
		 b[6] & 15, b[7], b[8] & 15, b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	told = post_tell(s->post, &u);
	update_done(&u);
	return told;
}

void service_backlog(struct service *s, uint64_t (*waiting)(void *context, const char *keyspace, const char *table), void *context)
{
	unsigned told = 0;

	MAGIC_CHECK(s, SERVICE_MAGIC);
	for (size_t i = 0; i < s->status.count && told < TOLD_AT_ONCE && !s->waiting; i++) {
		struct migration_table *t = &s->status.tables[i];
		uint64_t now = waiting(context, t->keyspace, t->name), before = (uint64_t)t->priority;
		uint64_t change = now > before ? now - before : before - now;

		if (t->step == TABLE_LOADING_DATA_COMPLETE || change == 0 || (now && change < before / 2 + 1))
			continue;
		if (!tell(s, t, now))
			return; /* there is no connection to it */
		t->priority = (int64_t)now;
		told++;
	}
}

/* ---- life */

int service_start(uv_loop_t *loop, const struct service_options *options, const struct service_hooks *hooks,
		  struct service **ret, struct error *error)
{
	struct service *s = calloc(1, sizeof(*s));
	struct post_hooks updates = {.update = on_update, .context = s};
	enum phase now = hooks->phase(hooks->context);
	int r;

	if (!s)
		return error_set(error, -ENOMEM, "out of memory");
	s->magic = SERVICE_MAGIC;
	s->options = *options;
	s->hooks = *hooks;
	s->users = 1;
	r = started_load(options->state_directory, error);
	s->waiting = r == 0 && !options->started && now != PHASE_CUTOVER && now != PHASE_ROLLBACK && now != PHASE_FINISH;
	if (r >= 0)
		r = post_start(loop, &options->post, &updates, &s->post, error);
	if (r < 0) {
		service_put(s);
		return r;
	}
	if (s->waiting)
		log_info("migrate", "waiting for the migration service's Start; nothing is steered or mirrored before");
	else
		log_info("migrate",
			 "the migration has been started before (phase %s): clients are served at once",
			 phase_name(now));
	*ret = s;
	return 0;
}

bool service_waiting(const struct service *s)
{
	return s->waiting;
}

uint16_t service_port(const struct service *s)
{
	return post_port(s->post);
}

json_t *service_describe(const struct service *s)
{
	struct post_counts c = post_counts(s->post);

	return json_pack("{s:b, s:I, s:i, s:b, s:I, s:I, s:I, s:I, s:I}", "waiting", s->waiting, "tables",
			 (json_int_t)s->status.count, "connections", (int)c.connections, "reachable",
			 c.reachable, "updates", (json_int_t)c.updates, "failures", (json_int_t)c.failures,
			 "malformed", (json_int_t)c.malformed, "dropped", (json_int_t)c.dropped, "refused",
			 (json_int_t)c.refused);
}

const char *service_reason(const struct service *s, char *text, size_t size)
{
	snprintf(text, size,
		 "waiting for the Start of the migration service at %s port %u (migration.serviceHost), to "
		 "port %u of this agent",
		 s->options.post.service_host, s->options.post.service_port, post_port(s->post));
	return text;
}

void service_stop(struct service *s)
{
	if (!s)
		return;
	MAGIC_CHECK(s, SERVICE_MAGIC);
	if (s->stopped)
		abort();
	s->stopped = true;
	post_stop(s->post);
	s->post = NULL;
	service_put(s);
}
