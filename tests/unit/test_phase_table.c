// SPDX-License-Identifier: Apache-2.0
/*
 * The two tables of moves, all pairs: between phases (a request is taken or refused, with what is possible instead), and between
 * states of a session (an illegal one is our bug and stops the process).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cutover/phase.h"
#include "cutover/state.h"
#include "relay/session.h"
#include "relay/worker.h"
#include "unit/directory.h"

/* ---- sessions */

#define SESSION_MAGIC 0x5E55104Eu /* as in session.c */

/* The diagram in session.h, written down a second time. */
static const struct {
	enum session_state from, to;
} session_moves[] = {
	{SESSION_CONNECTING, SESSION_HANDSHAKE}, {SESSION_CONNECTING, SESSION_CLOSING}, {SESSION_HANDSHAKE, SESSION_OPEN},
	{SESSION_HANDSHAKE, SESSION_OPAQUE},	 {SESSION_HANDSHAKE, SESSION_CLOSING},  {SESSION_OPEN, SESSION_ORPHAN},
	{SESSION_OPEN, SESSION_CLOSING},	 {SESSION_OPAQUE, SESSION_CLOSING},     {SESSION_ORPHAN, SESSION_CLOSING},
};

static bool session_may(enum session_state from, enum session_state to)
{
	for (size_t i = 0; i < sizeof(session_moves) / sizeof(session_moves[0]); i++)
		if (session_moves[i].from == from && session_moves[i].to == to)
			return true;
	return false;
}

/* 0 = it went through, else the signal that ended it. */
static int move_in_a_child(enum session_state from, enum session_state to, uint32_t magic)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct rlimit none = {0, 0};
		struct session *s = calloc(1, sizeof(*s));
		struct worker *w = calloc(1, sizeof(*w));

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		w->metrics = aligned_alloc(64, sizeof(*w->metrics));
		memset(w->metrics, 0, sizeof(*w->metrics));
		w->gap = gap_new();
		s->magic = magic;
		s->worker = w;
		s->state = from;
		session_set_state(s, to);
		_exit(s->state == to ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status)) {
		assert_int_equal(WEXITSTATUS(status), 0);
		return 0;
	}
	return WTERMSIG(status);
}

static void sessions_move_only_as_drawn(void **unused)
{
	(void)unused;
	for (int from = 0; from < SESSION_STATES; from++) {
		for (int to = 0; to < SESSION_STATES; to++) {
			int ended = move_in_a_child(from, to, SESSION_MAGIC);

			if (ended != (session_may(from, to) ? 0 : SIGABRT))
				fail_msg("from %d to %d: %d", from, to, ended);
		}
	}
}

static void a_session_that_was_freed_is_noticed(void **unused)
{
	(void)unused;
	assert_int_equal(move_in_a_child(SESSION_OPEN, SESSION_CLOSING, 0), SIGABRT);
}

/* ---- phases */

static const char *const phase_moves[PHASES] = {
	/* What may be asked for, by where it is asked. */
	[PHASE_OBSERVE] = "mirror",
	[PHASE_MIRROR] = "observe drain cutover",
	[PHASE_DRAIN] = "observe mirror cutover",
	[PHASE_CUTOVER] = "rollback finish",
	[PHASE_ROLLBACK] = "mirror",
	[PHASE_FINISH] = "",
};

static struct told {
	unsigned calls;
	bool failed;
	char error[600], hint[600];
} told;

static void tell_done(void *context, const char *error, const char *hint)
{
	struct told *t = context;

	t->calls++;
	t->failed = error != NULL;
	snprintf(t->error, sizeof(t->error), "%s", error ? error : "");
	snprintf(t->hint, sizeof(t->hint), "%s", hint ? hint : "");
}

struct agent {
	uv_loop_t loop;
	struct relay relay;
	struct mirror mirror;
	struct phases *phases;
};

static void agent_start(struct agent *a, enum phase phase)
{
	struct phase_options options = {.hold_ms = 1000, .drain_backlog = 10, .max_clock_skew_ms = 100, .state_directory = directory};
	struct error error = {""};

	memset(a, 0, sizeof(*a));
	uv_loop_init(&a->loop);
	a->relay.options.workers = 2;
	a->relay.options.stop_ms = 100;
	a->relay.options.state_directory = "";
	a->mirror.relay = &a->relay;
	assert_int_equal(state_save(directory, phase, "test", 0, &error), 0);
	assert_int_equal(relay_start(&a->relay, NULL, NULL, &error), 0);
	assert_int_equal(phases_start(&a->loop, &a->relay, &a->mirror, &options, PHASE_OBSERVE, &a->phases, &error), 0);
}

static void agent_stop(struct agent *a)
{
	phases_stop(a->phases);
	relay_stop(&a->relay);
	uv_run(&a->loop, UV_RUN_DEFAULT);
	uv_loop_close(&a->loop);
	relay_done(&a->relay);
}

static void ask(struct agent *a, enum phase to, bool plan)
{
	struct phase_request request = {.to = to, .plan = plan, .timeout_ms = 5000, .who = "test"};
	struct phase_listener listener = {.done = tell_done, .context = &told};

	told = (struct told){0};
	phases_request(a->phases, &request, &listener);
}

/* DRAIN and ROLLBACK are resumed as the phase behind them, so their rows are the ones of MIRROR and CUTOVER after a restart. */
static void phases_move_only_as_drawn(void **unused)
{
	(void)unused;
	for (int from = 0; from < PHASES; from++) {
		enum phase now = from == PHASE_DRAIN ? PHASE_MIRROR : from == PHASE_ROLLBACK ? PHASE_CUTOVER : (enum phase)from;

		for (int to = 0; to < PHASES; to++) {
			struct agent a;

			agent_start(&a, from);
			assert_int_equal(phases_current(a.phases), now);
			ask(&a, to, /* plan= */ true);
			if (to == (int)now) {
				assert_int_equal(told.calls, 1);
				assert_false(told.failed);
			} else if (strstr(phase_moves[now], phase_name(to))) {
				/* Taken: it is being checked. */
				assert_int_equal(told.calls, 0);
				assert_true(phases_moving(a.phases));
				ask(&a, to, true); /* a second one at the same time is not */
				assert_int_equal(told.calls, 1);
				assert_true(told.failed);
			} else {
				assert_int_equal(told.calls, 1);
				assert_true(told.failed);
				assert_non_null(strstr(told.error, phase_name(now)));
				assert_non_null(strstr(told.error, phase_name(to)));
				assert_non_null(strstr(told.hint, "possible from here"));
				assert_false(phases_moving(a.phases));
			}
			assert_int_equal(phases_current(a.phases), now);
			/* Stopping in the middle of a check tells whoever asked, once. */
			if (phases_moving(a.phases)) {
				told = (struct told){0};
				phases_stop(a.phases);
				assert_int_equal(told.calls, 1);
				assert_true(told.failed);
				relay_stop(&a.relay);
				uv_run(&a.loop, UV_RUN_DEFAULT);
				assert_int_equal(told.calls, 1);
				uv_loop_close(&a.loop);
				relay_done(&a.relay);
			} else {
				agent_stop(&a);
			}
		}
	}
}

static void the_hint_names_exactly_what_is_possible(void **unused)
{
	(void)unused;
	for (int from = 0; from < PHASES; from++) {
		enum phase now = from;
		struct agent a;
		int no = -1;

		if (from == PHASE_DRAIN || from == PHASE_ROLLBACK)
			continue;
		for (int to = 0; to < PHASES && no < 0; to++)
			if (to != from && !strstr(phase_moves[now], phase_name(to)))
				no = to;
		agent_start(&a, from);
		ask(&a, no, true);
		for (int to = 0; to < PHASES; to++)
			if (to != from && now != PHASE_FINISH)
				assert_int_equal(strstr(told.hint, phase_name(to)) != NULL,
						 strstr(phase_moves[now], phase_name(to)) != NULL);
		agent_stop(&a);
	}
}

static void names_are_phases_and_back(void **unused)
{
	(void)unused;
	for (int p = 0; p < PHASES; p++)
		assert_int_equal(phase_from_name(phase_name(p)), p);
	assert_int_equal(phase_from_name("Mirror"), -1);
	assert_int_equal(phase_from_name(""), -1);
}

static void an_unreadable_state_stops_the_start(void **unused)
{
	struct agent a;
	struct phase_options options = {.hold_ms = 1000, .state_directory = directory};
	struct error error = {""};
	char path[128];
	FILE *f;

	(void)unused;
	snprintf(path, sizeof(path), "%s/phase.json", directory);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("{\"version\": 1, \"phase\": \"cut", f);
	fclose(f);
	memset(&a, 0, sizeof(a));
	uv_loop_init(&a.loop);
	assert_true(phases_start(&a.loop, &a.relay, &a.mirror, &options, PHASE_OBSERVE, &a.phases, &error) < 0);
	assert_null(a.phases);
	assert_non_null(strstr(error.text, path));
	uv_loop_close(&a.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions_move_only_as_drawn),
		cmocka_unit_test(a_session_that_was_freed_is_noticed),
		cmocka_unit_test_setup_teardown(phases_move_only_as_drawn, directory_setup, directory_teardown),
		cmocka_unit_test_setup_teardown(the_hint_names_exactly_what_is_possible, directory_setup, directory_teardown),
		cmocka_unit_test(names_are_phases_and_back),
		cmocka_unit_test_setup_teardown(an_unreadable_state_stops_the_start, directory_setup, directory_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
