// SPDX-License-Identifier: Apache-2.0
/*
 * Connection modes of sessions, against nodes that functions here play: nodes that refuse, are silent, slow, or stand behind something
 * that takes connections and passes nothing on. Clients of the explicit port are led to the contact points in turn: node[0] is
 * `origin`, which always answers, node[1] the one in question.
 */
#include "base/metrics.h"
#include "net/eyeballs.h"
#include "unit/relaytest.h"

static const struct course observe = {.primary = ORIGIN}, cut_over = {.primary = TARGET, .mirroring = true};

static struct cluster_play replica;
static _Atomic unsigned slow_ms; /* how long the replica takes for its first answers */

static ssize_t slow_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_OPTIONS)
		usleep(atomic_load(&slow_ms) * 1000);
	return plain_answer(p, h, body, to);
}

/* What a sidecar looks like that cannot reach the node behind it. */
static _Atomic bool passes;

static ssize_t sidecar(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	return atomic_load(&passes) ? plain_answer(p, h, body, to) : -1;
}

/* A session that begins on the replica: with one worker every second one of the explicit port does. */
static int to_replica(void)
{
	int fd = client_open();

	close(fd);
	return client_open();
}

static void begin_with(struct reach_options options, const struct addr *second, unsigned workers)
{
	reach_options = options;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(workers, &observe);
	relay.options.dial_timeout_ms = 2000;
	relay.options.cluster[ORIGIN].nodes[1] = *second;
	relay.options.cluster[ORIGIN].node_count = 2;
}

/* Where a session's requests end up, by what each cluster counts. */
static void expect_on(struct cluster_play *c, int fd)
{
	unsigned before = atomic_load(&c->writes);

	client_query(fd, 7, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 7), OP_RESULT);
	assert_int_equal(atomic_load(&c->writes), before + 1);
}

static enum verdict_state state_of(const struct addr *a)
{
	struct reach_view list[8];
	unsigned n = reach_list(relay.reach, list, 8);

	for (unsigned i = 0; i < n; i++)
		if (addr_equal(&list[i].verdict.replica, a))
			return list[i].verdict.state;
	return (enum verdict_state)99;
}

static bool becomes(const struct addr *a, enum verdict_state state)
{
	for (int i = 0; i < 4000; i++) {
		if (state_of(a) == state)
			return true;
		usleep(1000);
	}
	return false;
}

/* An address where nobody listens, and one where nobody answers: a listener whose queue is full. */
static struct addr nobody(void)
{
	struct cluster_play gone;

	cluster_start(&gone, plain_answer);
	cluster_stop(&gone);
	return gone.addr;
}

struct silence {
	int fd, fill[4];
	struct addr addr;
};

static void silence_begin(struct silence *s)
{
	socklen_t size = sizeof(s->addr.in);

	memset(s, 0, sizeof(*s));
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	s->addr.in.sin_family = AF_INET;
	s->addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(s->fd, &s->addr.sa, size), 0);
	assert_int_equal(listen(s->fd, 0), 0);
	getsockname(s->fd, &s->addr.sa, &size);
	for (int i = 0; i < 4; i++) {
		s->fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(s->fill[i], &s->addr.sa, size);
	}
}

static void silence_end(struct silence *s)
{
	for (int i = 0; i < 4; i++)
		close(s->fill[i]);
	close(s->fd);
}

/* ---- auto */

static void a_refused_replica_is_reached_through_the_control_host(void **unused)
{
	struct addr gone = nobody();
	int fd;

	(void)unused;
	begin_with((struct reach_options){0}, &gone, 1);
	fd = to_replica();
	expect_on(&origin, fd);
	assert_int_equal(state_of(&gone), VERDICT_UNREACHABLE);
	close(fd);
	agent_stop();
}

/* However many clients want it at once, on however many workers. */
static void a_silent_replica_costs_one_time_out(void **unused)
{
	enum { CLIENTS = 40 };
	uint64_t trials = metrics_total(METRIC_TRIAL_FAILED), fallbacks = metrics_total(METRIC_WAY_FALLBACK), begun, ms;
	struct silence s;
	int fd[CLIENTS];

	(void)unused;
	silence_begin(&s);
	begin_with((struct reach_options){.first_ms = 400}, &s.addr, 2);
	begun = clock_now_ns();
	for (int i = 0; i < CLIENTS; i++) {
		fd[i] = client_connect();
		client_send(fd[i], OP_STARTUP, 1, startup, sizeof(startup) - 1);
	}
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(expect(fd[i], 1), OP_READY);
	ms = (clock_now_ns() - begun) / 1000000;
	print_message("%d clients, one silent replica: %llu ms with a first time-out of 400 ms\n", CLIENTS, (unsigned long long)ms);
	assert_true(ms >= 350 && ms < 1600);
	assert_true(metrics_total(METRIC_WAY_FALLBACK) - fallbacks >= CLIENTS / 2 - 1);
	assert_int_equal(metrics_total(METRIC_TRIAL_FAILED) - trials, 1);
	for (int i = 0; i < CLIENTS; i++)
		close(fd[i]);
	/* Afterwards nobody waits. */
	begun = clock_now_ns();
	close(to_replica());
	assert_true((clock_now_ns() - begun) / 1000000 < 300);
	agent_stop();
	silence_end(&s);
}

static void a_slow_replica_within_the_bound_is_kept(void **unused)
{
	int fd;

	(void)unused;
	atomic_store(&slow_ms, 300);
	cluster_start(&replica, slow_answer);
	begin_with((struct reach_options){.first_ms = 1500}, &replica.addr, 1);
	fd = to_replica();
	expect_on(&replica, fd);
	assert_int_equal(state_of(&replica.addr), VERDICT_REACHABLE);
	close(fd);
	agent_stop();
	cluster_stop(&replica);
}

/* Its answer comes late; the next connection is straight, long before a probe would be due. */
static void a_replica_that_was_only_slow_is_not_punished(void **unused)
{
	int fd;

	(void)unused;
	atomic_store(&slow_ms, 900);
	cluster_start(&replica, slow_answer);
	begin_with((struct reach_options){.first_ms = 200}, &replica.addr, 1);
	fd = to_replica();
	expect_on(&origin, fd);
	close(fd);
	assert_int_equal(state_of(&replica.addr), VERDICT_UNREACHABLE);
	assert_true(becomes(&replica.addr, VERDICT_REACHABLE));
	fd = to_replica();
	expect_on(&replica, fd);
	close(fd);
	agent_stop();
	cluster_stop(&replica);
}

/* It takes connections and passes nothing on: connect(2) alone would believe it. */
static void a_sidecar_in_front_of_nobody_is_found_out(void **unused)
{
	int fd;

	(void)unused;
	atomic_store(&passes, false);
	cluster_start(&replica, sidecar);
	begin_with((struct reach_options){.probe_ms = 300}, &replica.addr, 1);
	fd = to_replica();
	expect_on(&origin, fd);
	assert_int_equal(state_of(&replica.addr), VERDICT_UNREACHABLE);
	close(fd);
	/* Nobody asks for it; it is probed all the same, and connections return. */
	atomic_store(&passes, true);
	assert_true(becomes(&replica.addr, VERDICT_REACHABLE));
	fd = to_replica();
	expect_on(&replica, fd);
	/* Once it passes nothing on any more, one connection is lost, as without us; the next one is not. */
	atomic_store(&passes, false);
	close(fd);
	close(client_open());
	fd = client_connect();
	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), -1);
	close(fd);
	assert_true(becomes(&replica.addr, VERDICT_UNREACHABLE));
	fd = to_replica();
	expect_on(&origin, fd);
	close(fd);
	agent_stop();
	cluster_stop(&replica);
}

/* Like a Cassandra node that wants TLS: what is not TLS is ended without a word, TLS gets an answer. */
static _Atomic unsigned plain_ended;

static void *tls_only(void *argument)
{
	int listener = *(int *)argument, fd;
	uint8_t first[512];

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		ssize_t n = recv(fd, first, sizeof(first), 0);

		if (n > 5 && first[0] == 22 && n == 5 + first[3] * 256 + first[4])
			send(fd, "\x15\x03\x03\x00\x02\x02\x28", 7, MSG_NOSIGNAL);
		else
			atomic_fetch_add(&plain_ended, 1);
		close(fd);
	}
	return NULL;
}

static void a_node_that_speaks_only_tls_is_there(void **unused)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
	struct addr node = {0};
	socklen_t size = sizeof(node.in);
	pthread_t thread;

	(void)unused;
	node.in.sin_family = AF_INET;
	node.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, &node.sa, size), 0);
	assert_int_equal(listen(listener, 8), 0);
	getsockname(listener, &node.sa, &size);
	pthread_create(&thread, NULL, tls_only, &listener);
	begin_with((struct reach_options){0}, &node, 1);
	close(client_open());
	fd = client_connect();
	assert_true(becomes(&node, VERDICT_REACHABLE));
	assert_true(atomic_load(&plain_ended) > 0);
	close(fd);
	agent_stop();
	shutdown(listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(listener);
}

/* It was there: whoever dials just then falls back, and so do the others without a time-out of their own. */
static void a_replica_that_goes_is_left(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&replica, plain_answer);
	begin_with((struct reach_options){.probe_ms = 200}, &replica.addr, 1);
	fd = to_replica();
	expect_on(&replica, fd);
	close(fd);
	cluster_stop(&replica);
	for (int i = 0; i < 3; i++) {
		fd = to_replica();
		expect_on(&origin, fd);
		close(fd);
	}
	assert_true(becomes(&replica.addr, VERDICT_UNREACHABLE));
	agent_stop();
}

/* A client that gives up while it waits for the verdict takes nothing along that others wait for. */
static void a_client_that_leaves_does_not_end_the_trial(void **unused)
{
	struct silence s;
	int fd;

	(void)unused;
	silence_begin(&s);
	begin_with((struct reach_options){.first_ms = 500}, &s.addr, 1);
	close(client_open());
	fd = client_connect(); /* the trial is this one's doing */
	usleep(100000);
	close(fd);
	close(client_open());
	fd = client_open();
	expect_on(&origin, fd);
	close(fd);
	agent_stop(); /* and one that stops while a trial is under way ends at once */
	silence_end(&s);
}

static void an_agent_that_stops_does_not_wait_for_a_trial(void **unused)
{
	struct silence s;
	uint64_t begun;

	(void)unused;
	silence_begin(&s);
	begin_with((struct reach_options){.first_ms = 60000}, &s.addr, 1);
	relay.options.dial_timeout_ms = 60000;
	close(client_open());
	close(client_connect());
	usleep(100000);
	assert_int_equal(state_of(&s.addr), VERDICT_TRYING);
	begun = clock_now_ns();
	agent_stop();
	assert_true((clock_now_ns() - begun) / 1000000 < 3000);
	silence_end(&s);
}

static void neither_answers_and_the_client_is_told(void **unused)
{
	struct addr gone = nobody(), other = nobody();
	int fd;

	(void)unused;
	begin_with((struct reach_options){0}, &gone, 1);
	relay.options.cluster[ORIGIN].nodes[0] = other;
	fd = client_connect();
	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_ERROR);
	assert_non_null(memmem(answer_body, 600, "Connection refused; nor the control host 127.0.0.1:", 51));
	close(fd);
	agent_stop();
}

/* ---- direct and proxy */

static void direct_fails_with_the_documents_words(void **unused)
{
	static const char text[] = "Error: Cannot connect to replica node 127.0.0.1:";
	struct addr gone = nobody();
	int fd;

	(void)unused;
	begin_with((struct reach_options){.mode = MODE_DIRECT}, &gone, 1);
	fd = client_open();
	expect_on(&origin, fd);
	close(fd);
	fd = client_connect();
	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_ERROR);
	assert_non_null(memmem(answer_body, 600, text, sizeof(text) - 1));
	assert_non_null(memmem(answer_body, 600, "(refused).\nThis may occur in cloud or containerized", 50));
	assert_non_null(memmem(answer_body, 600, "CONNECTIONMODE='proxy' to route through the control connection.", 62));
	close(fd);
	assert_int_equal(state_of(&gone), 99);
	agent_stop();
}

/* All workers use the control host, and nobody looks at the replica. */
static void proxy_asks_nobody_else(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&replica, plain_answer);
	begin_with((struct reach_options){.mode = MODE_PROXY}, &replica.addr, 2);
	relay.options.cluster[ORIGIN].nodes[1] = origin.addr; /* the control host, and a node that is not one */
	relay.options.cluster[ORIGIN].nodes[0] = replica.addr;
	relay.options.cluster[ORIGIN].control_count = 1;
	for (int i = 0; i < 4; i++) {
		fd = client_open();
		expect_on(&origin, fd);
		close(fd);
	}
	assert_int_equal(atomic_load(&replica.count), 0);
	agent_stop();
	cluster_stop(&replica);
}

static void a_rule_beats_the_mode(void **unused)
{
	struct reach_options o = {.mode = MODE_DIRECT};
	struct addr gone = nobody();
	struct error error;
	char rule[64];
	int fd;

	(void)unused;
	snprintf(rule, sizeof(rule), "127.0.0.0/8:%u=proxy", addr_port(&gone));
	assert_int_equal(mode_rule_parse(rule, &o.rules[o.rule_count++], &error), 0);
	begin_with(o, &gone, 1);
	fd = to_replica();
	expect_on(&origin, fd);
	close(fd);
	agent_stop();
}

/* ---- after the switch */

static void a_dead_contact_point_of_the_target_costs_no_session(void **unused)
{
	struct addr gone = nobody();
	int fd[4];

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	reach_options = (struct reach_options){0};
	agent_start(1, &observe);
	relay.options.cluster[TARGET].nodes[0] = gone;
	relay.options.cluster[TARGET].nodes[1] = target.addr;
	relay.options.cluster[TARGET].node_count = 2;
	for (int i = 0; i < 4; i++)
		fd[i] = client_open();
	change_course(&cut_over);
	for (int i = 0; i < 4; i++) {
		client_query(fd[i], 5, "SELECT k FROM ks.t");
		assert_int_equal(expect(fd[i], 5), OP_RESULT);
		close(fd[i]);
	}
	agent_stop();
}

/* ---- happy eyeballs */

struct outcome {
	int calls, error;
	struct addr winner;
};

static void on_done(void *context, struct dial_result *result, const struct endpoint *to)
{
	struct outcome *o = context;

	o->calls++;
	o->error = result->error;
	o->winner = to->addr;
	if (result->error == 0)
		stream_close(&result->stream);
	else
		assert_non_null(result->reason);
}

static struct outcome race(const struct addr *list, unsigned count, unsigned timeout_ms, uint64_t *ret_ms)
{
	struct endpoint to[EYEBALLS_MAX] = {0};
	struct outcome o = {0};
	uint64_t begun = clock_now_ns();
	uv_loop_t loop;

	for (unsigned i = 0; i < count; i++)
		to[i].addr = list[i];
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_non_null(eyeballs_start(&loop, to, count, 0, timeout_ms, on_done, &o));
	assert_int_equal(o.calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0); /* nothing is left behind */
	assert_int_equal(o.calls, 1);
	*ret_ms = (clock_now_ns() - begun) / 1000000;
	return o;
}

static void the_first_that_is_up_wins(void **unused)
{
	struct addr gone = nobody();
	struct silence s;
	struct outcome o;
	uint64_t ms;

	(void)unused;
	silence_begin(&s);
	cluster_start(&origin, plain_answer);
	cluster_start(&replica, plain_answer);
	/* The preferred one, as long as it is up. */
	o = race((struct addr[]){replica.addr, origin.addr}, 2, 2000, &ms);
	assert_true(o.error == 0 && addr_equal(&o.winner, &replica.addr));
	/* A refusal is not waited for, a silence 250 ms. */
	o = race((struct addr[]){gone, origin.addr}, 2, 2000, &ms);
	assert_true(o.error == 0 && addr_equal(&o.winner, &origin.addr) && ms < 200);
	o = race((struct addr[]){s.addr, gone, s.addr, origin.addr}, 4, 5000, &ms);
	assert_true(o.error == 0 && addr_equal(&o.winner, &origin.addr) && ms >= 400 && ms < 2000);
	/* None: the preferred one's reason. */
	o = race((struct addr[]){s.addr, gone}, 2, 400, &ms);
	assert_true(o.error == -ETIMEDOUT && addr_equal(&o.winner, &s.addr));
	o = race(&gone, 1, 400, &ms);
	assert_true(o.error == -ECONNREFUSED);
	cluster_stop(&replica);
	cluster_stop(&origin);
	silence_end(&s);
}

static void giving_up_a_race_is_silent(void **unused)
{
	struct endpoint to[2] = {0};
	struct outcome o = {0};
	struct eyeballs *e;
	struct silence s;
	uv_loop_t loop;

	(void)unused;
	silence_begin(&s);
	to[0].addr = to[1].addr = s.addr;
	assert_int_equal(uv_loop_init(&loop), 0);
	e = eyeballs_start(&loop, to, 2, 0, 60000, on_done, &o);
	uv_run(&loop, UV_RUN_NOWAIT);
	eyeballs_cancel(e);
	eyeballs_cancel(NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(o.calls, 0);
	silence_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_refused_replica_is_reached_through_the_control_host),
		cmocka_unit_test(a_silent_replica_costs_one_time_out),
		cmocka_unit_test(a_slow_replica_within_the_bound_is_kept),
		cmocka_unit_test(a_replica_that_was_only_slow_is_not_punished),
		cmocka_unit_test(a_sidecar_in_front_of_nobody_is_found_out),
		cmocka_unit_test(a_node_that_speaks_only_tls_is_there),
		cmocka_unit_test(a_replica_that_goes_is_left),
		cmocka_unit_test(a_client_that_leaves_does_not_end_the_trial),
		cmocka_unit_test(an_agent_that_stops_does_not_wait_for_a_trial),
		cmocka_unit_test(neither_answers_and_the_client_is_told),
		cmocka_unit_test(direct_fails_with_the_documents_words),
		cmocka_unit_test(proxy_asks_nobody_else),
		cmocka_unit_test(a_rule_beats_the_mode),
		cmocka_unit_test(a_dead_contact_point_of_the_target_costs_no_session),
		cmocka_unit_test(the_first_that_is_up_wins),
		cmocka_unit_test(giving_up_a_race_is_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
