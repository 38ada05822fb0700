// SPDX-License-Identifier: Apache-2.0
/* Listening sockets that go from one relay to the next, and sessions that are closed between two requests (relaytest.h). */
#include <fcntl.h>

#include "cutover/fit.h"
#include "relay/retire.h"
#include "unit/relaytest.h"

static const struct course observe = {.primary = ORIGIN};

/* As if every session had been opened long ago. */
static void age(struct worker *w, void *context)
{
	for (struct session *s = w->sessions; s; s = s->next)
		s->opened_ns = 0;
	atomic_fetch_add((_Atomic unsigned *)context, 1);
}

static void make_old(void)
{
	_Atomic unsigned done = 0;

	assert_int_equal(relay_each_worker(&relay, age, NULL, (void *)&done), 0);
	assert_true(wait_for(&done, relay.worker_count));
}

static bool closed_within(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;

	return poll(&p, 1, ms) == 1 && recv(fd, &byte, 1, 0) == 0;
}

static bool sessions_fall_to(unsigned count, int ms)
{
	for (; ms > 0 && atomic_load(&relay.session_count) > count; ms -= 5)
		usleep(5000);
	return atomic_load(&relay.session_count) == count;
}

static void idle_sessions_are_closed_and_busy_ones_answered(void **unused)
{
	int idle[6], busy, young;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(2, &observe);
	for (int i = 0; i < 6; i++)
		idle[i] = client_open();
	busy = client_open();
	atomic_store(&origin.hold, true);
	client_query(busy, 9, "TRUNCATE ks.t"); /* in flight for as long as we like */
	make_old();
	young = client_open();
	relay_retire(&relay, 60000);
	for (int i = 0; i < 6; i++)
		assert_true(closed_within(idle[i], 5000));
	/* A request in flight, and a driver that has only just connected, are left alone. */
	assert_false(closed_within(young, 700));
	client_query(young, 4, "SELECT k FROM ks.t");
	assert_int_equal(expect(young, 4), OP_RESULT);
	assert_int_equal(atomic_load(&relay.session_count), 2);
	atomic_store(&origin.hold, false);
	assert_int_equal(expect(busy, 9), OP_RESULT);
	assert_true(closed_within(busy, 2000));
	/* Nobody accepts any more. */
	assert_true(connect(socket(AF_INET, SOCK_STREAM, 0), &relay.options.explicit_listen.sa, sizeof(relay.options.explicit_listen.in)) < 0);
	make_old();
	assert_true(closed_within(young, 2000));
	for (int i = 0; i < 6; i++)
		close(idle[i]);
	close(busy);
	close(young);
	agent_stop();
}

/* A driver goes on with its connections to other nodes while it takes one for down. */
static void one_node_after_the_other(void **unused)
{
	int fd[6];

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	relay.options.cluster[ORIGIN].nodes[1] = target.addr; /* sessions go to the one and the other in turn */
	relay.options.cluster[ORIGIN].node_count = 2;
	for (int i = 0; i < 6; i++)
		fd[i] = client_open();
	make_old();
	relay_retire(&relay, 6000); /* 2000 for each node, beginning with the latest session's */
	assert_true(sessions_fall_to(3, 1900));
	for (int i = 1; i < 6; i += 2)
		assert_true(closed_within(fd[i], 100));
	assert_false(closed_within(fd[0], 300));
	assert_true(sessions_fall_to(0, 2500));
	for (int i = 0; i < 6; i++)
		close(fd[i]);
	agent_stop();
}

static void the_deadline_ends_what_is_left(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	fd = client_open(); /* young: only the deadline closes it */
	relay_retire(&relay, 600);
	assert_false(closed_within(fd, 300));
	assert_true(closed_within(fd, 3000));
	assert_true(sessions_fall_to(0, 2000));
	close(fd);
	agent_stop();
}

/* Who waits in the queue when the first relay goes is served by the second one, with fewer workers and as many sockets. */
static void the_queue_goes_from_one_relay_to_the_next(void **unused)
{
	struct relay_listener listeners[RELAY_LISTENERS_MAX];
	struct relay *second = calloc(1, sizeof(*second));
	struct relay_options options;
	struct error error = {""};
	int waiting[12];
	unsigned count;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	options = relay.options;
	relay_stop(&relay);
	relay_done(&relay);

	/* Three workers that never accept. */
	memset(&relay, 0, sizeof(relay));
	relay.options = options;
	relay.options.workers = 3;
	relay.course = observe;
	mirror.relay = &relay;
	assert_int_equal(relay_start(&relay, &mirror_tap, &mirror, &error), 0);
	count = relay_listeners(&relay, listeners);
	assert_int_equal(count, 3);
	for (int i = 0; i < 12; i++)
		waiting[i] = client_connect();
	for (unsigned i = 0; i < count; i++) {
		assert_true(addr_equal(&listeners[i].address, &options.explicit_listen));
		assert_false(listeners[i].intercepted);
		listeners[i].fd = dup(listeners[i].fd); /* as over a socket to another process */
	}
	second->options = options;
	second->options.workers = 2;
	memcpy(second->options.inherited, listeners, count * sizeof(*listeners));
	second->options.inherited[count] = listeners[0];
	second->options.inherited[count].fd = dup(listeners[0].fd);
	addr_set_port(&second->options.inherited[count].address, 1); /* not listened on any more: closed */
	second->options.inherited_count = count + 1;
	second->course = observe;
	assert_int_equal(relay_start(second, NULL, NULL, &error), 0);
	assert_true(fcntl(second->options.inherited[count].fd, F_GETFD) < 0);
	assert_int_equal(second->workers[0]->listener_count, 2);
	assert_int_equal(second->workers[1]->listener_count, 1);
	mirror_stop(&mirror);
	relay_stop(&relay);
	relay_done(&relay);
	mirror_close(&mirror);
	relay_set_course(second, &observe, NULL, NULL);
	relay_serve(second);
	for (int i = 0; i < 12; i++) {
		client_send(waiting[i], OP_OPTIONS, 7, NULL, 0);
		assert_int_equal(expect(waiting[i], 7), OP_SUPPORTED);
		close(waiting[i]);
	}
	relay_stop(second);
	relay_done(second);
	free(second);
	cluster_stop(&origin);
	cluster_stop(&target);
}

static void sessions_above_the_version_limit_come_back(void **unused)
{
	struct frame_header h = {.version = 3, .stream = 1, .opcode = OP_STARTUP, .length = sizeof(startup) - 1};
	uint8_t envelope[64];
	int above, below, fd;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	above = client_open();
	below = client_connect();
	frame_header_write(envelope, &h);
	memcpy(envelope + FRAME_HEADER_SIZE, startup, h.length);
	assert_int_equal(send(below, envelope, FRAME_HEADER_SIZE + h.length, MSG_NOSIGNAL), FRAME_HEADER_SIZE + h.length);
	assert_int_equal(expect(below, 1), OP_READY);
	make_old();
	fit_close_older(&relay); /* no limit is known yet */
	assert_false(closed_within(above, 200));
	atomic_store(&relay.version_cap, 3);
	fit_close_older(&relay);
	assert_true(closed_within(above, 2000));
	assert_false(closed_within(below, 200));
	assert_int_equal(metrics_total(METRIC_SESSIONS_CLOSED_VERSION), 1);
	fd = client_connect(); /* and a new one is told */
	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 0), OP_ERROR);
	close(fd);
	close(above);
	close(below);
	agent_stop();
}

/* What a target says of itself, and one that says nothing. */
static ssize_t supported(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static const uint8_t map[] = "\0\2\0\13COMPRESSION\0\1\0\3lz4\0\21PROTOCOL_VERSIONS\0\2\0\0044/v4\0\0045/v5";

	(void)p;
	(void)body;
	return h->opcode == OP_OPTIONS ? say(h, OP_SUPPORTED, map, sizeof(map) - 1, to) : -1;
}

static ssize_t hangs_up(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	(void)p, (void)h, (void)body, (void)to;
	return -1;
}

static ssize_t old_version(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	(void)p;
	(void)body;
	return response_write_error(3, h->stream, CQL_PROTOCOL_ERROR, "Invalid or unsupported protocol version (4)", to, ROOM);
}

static void what_a_target_speaks(void **unused)
{
	static const struct {
		ssize_t (*answer)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *);
		int result;
		uint8_t highest;
		bool lz4, snappy;
	} rows[] = {{supported, 0, 5, true, false}, {plain_answer, 0, 4, false, false}, {old_version, 0, 3, false, false}, {hangs_up, -ECONNRESET, 0, 0, 0}};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct error error = {""};
		struct cluster c;
		struct fit fit = {0};

		cluster_start(&target, rows[i].answer);
		c = (struct cluster){.nodes = {target.addr}, .node_count = 1};
		assert_int_equal(fit_ask(&c, 0, &fit, &error), rows[i].result);
		assert_int_equal(fit.highest, rows[i].highest);
		assert_int_equal(fit.compression[COMPRESSION_LZ4], rows[i].lz4);
		assert_int_equal(fit.compression[COMPRESSION_SNAPPY], rows[i].snappy);
		if (rows[i].result < 0)
			assert_non_null(strstr(error.text, "target"));
		cluster_stop(&target);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idle_sessions_are_closed_and_busy_ones_answered),
		cmocka_unit_test(one_node_after_the_other),
		cmocka_unit_test(the_deadline_ends_what_is_left),
		cmocka_unit_test(the_queue_goes_from_one_relay_to_the_next),
		cmocka_unit_test(sessions_above_the_version_limit_come_back),
		cmocka_unit_test(what_a_target_speaks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
