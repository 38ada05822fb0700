// SPDX-License-Identifier: Apache-2.0
/*
 * Regressions of relay and mirror, each named after its symptom: a real relay with its threads between clients on blocking sockets
 * and clusters that a function of the test plays (v4, any number of connections, one thread each).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "cql/request.h"
#include "cql/response.h"
#include "mirror/mirror.h"
#include "relay/paging.h"
#include "relay/session.h"

#define ROOM (1u << 20)
#define PEERS 256

/* ---- a cluster */

struct peer {
	struct cluster_play *cluster;
	int fd;
	pthread_t thread;
};

struct cluster_play {
	int listener;
	struct addr addr;
	/* Answers one request: whole envelopes into `to`; their size, 0 = says nothing, −1 = closes the connection. */
	ssize_t (*answer)(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to);
	pthread_t thread;
	struct peer peer[PEERS];
	_Atomic unsigned count;
	_Atomic unsigned truncates, writes, options;
	_Atomic bool hold, hold_writes; /* TRUNCATE, INSERT are answered only when it is false */
};

static bool receive(int fd, uint8_t *to, size_t size)
{
	for (size_t have = 0; have < size;) {
		ssize_t n = recv(fd, to + have, size - have, 0);

		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return true;
}

static void *peer_run(void *argument)
{
	struct peer *p = argument;
	uint8_t *body = malloc(ROOM), *to = malloc(ROOM), header[FRAME_HEADER_SIZE];
	struct frame_header h;

	while (receive(p->fd, header, sizeof(header)) && frame_header_read(header, sizeof(header), &h) > 0 && h.length <= ROOM &&
	       receive(p->fd, body, h.length)) {
		ssize_t n;

		if (h.version > 4) /* the mirror begins with v5 */
			n = response_write_error(4, h.stream, CQL_PROTOCOL_ERROR, "Invalid or unsupported protocol version", to, ROOM);
		else
			n = p->cluster->answer(p, &h, body, to);
		if (n < 0 || (n > 0 && send(p->fd, to, (size_t)n, MSG_NOSIGNAL) != n))
			break;
	}
	shutdown(p->fd, SHUT_RDWR);
	free(body);
	free(to);
	return NULL;
}

static void *cluster_run(void *argument)
{
	struct cluster_play *c = argument;
	int fd;

	while ((fd = accept(c->listener, NULL, NULL)) >= 0) {
		struct peer *p = &c->peer[atomic_load(&c->count)];

		if (p == &c->peer[PEERS])
			abort();
		*p = (struct peer){.cluster = c, .fd = fd};
		pthread_create(&p->thread, NULL, peer_run, p);
		atomic_fetch_add(&c->count, 1);
	}
	return NULL;
}

static void cluster_start(struct cluster_play *c, ssize_t (*answer)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *))
{
	socklen_t size = sizeof(c->addr.in);

	memset(c, 0, sizeof(*c));
	c->answer = answer;
	c->listener = socket(AF_INET, SOCK_STREAM, 0);
	c->addr.in.sin_family = AF_INET;
	c->addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(c->listener, &c->addr.sa, sizeof(c->addr.in)), 0);
	assert_int_equal(listen(c->listener, 64), 0);
	getsockname(c->listener, &c->addr.sa, &size);
	pthread_create(&c->thread, NULL, cluster_run, c);
}

static void cluster_stop(struct cluster_play *c)
{
	shutdown(c->listener, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(c->listener);
	for (unsigned i = 0; i < atomic_load(&c->count); i++) {
		shutdown(c->peer[i].fd, SHUT_RDWR);
		pthread_join(c->peer[i].thread, NULL);
		close(c->peer[i].fd);
	}
}

static ssize_t say(const struct frame_header *h, uint8_t opcode, const void *body, size_t size, uint8_t *to)
{
	struct frame_header own = {.version = h->version, .response = true, .stream = h->stream, .opcode = opcode, .length = (uint32_t)size};

	frame_header_write(to, &own);
	if (size)
		memcpy(to + FRAME_HEADER_SIZE, body, size);
	return (ssize_t)(FRAME_HEADER_SIZE + size);
}

static bool contains(const struct frame_header *h, const uint8_t *body, const char *needle)
{
	return memmem(body, h->length, needle, strlen(needle)) != NULL;
}

static ssize_t plain_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct cluster_play *c = p->cluster;

	switch (h->opcode) {
	case OP_STARTUP:
	case OP_REGISTER:
		return say(h, OP_READY, NULL, 0, to);
	case OP_OPTIONS:
		atomic_fetch_add(&c->options, 1);
		return say(h, OP_SUPPORTED, "\0\0", 2, to);
	case OP_QUERY:
		if (contains(h, body, "TRUNCATE")) {
			while (atomic_load(&c->hold))
				usleep(1000);
			atomic_fetch_add(&c->truncates, 1);
		} else if (contains(h, body, "INSERT")) {
			while (atomic_load(&c->hold_writes))
				usleep(1000);
			atomic_fetch_add(&c->writes, 1);
		}
		return response_write_void(h->version, h->stream, to, ROOM);
	case OP_AUTH_RESPONSE:
		return say(h, OP_AUTH_SUCCESS, "\xff\xff\xff\xff", 4, to);
	default:
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "?", to, ROOM);
	}
}

/* ---- the agent */

static struct cluster_play origin, target;
static struct relay relay;
static struct mirror mirror;

static size_t small_budget; /* 0 = enough */
static uint64_t retain_ns;

static void agent_start(unsigned workers, const struct course *course)
{
	struct error error = {""};

	memset(&relay, 0, sizeof(relay));
	memset(&mirror, 0, sizeof(mirror));
	relay.options = (struct relay_options){.workers = workers, .sessions_max = 100, .requests_max = 1000, .session_requests_max = 100,
					       .frame_max = 1 << 20, .dial_timeout_ms = 300, .stop_ms = 300, .freeze_topology = true,
					       .state_directory = ""};
	relay.options.explicit_listen.in.sin_family = AF_INET;
	relay.options.explicit_listen.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	relay.options.cluster[ORIGIN] = (struct cluster){.nodes = {origin.addr}, .node_count = 1, .username = "", .password = ""};
	relay.options.cluster[TARGET] = (struct cluster){.nodes = {target.addr}, .node_count = 1, .username = "", .password = ""};
	relay.course = *course;
	mirror = (struct mirror){.relay = &relay, .budget = small_budget ? small_budget : 8u << 20, .retain_ns = retain_ns, .consistency = {-1, -1}};
	assert_int_equal(relay_start(&relay, &mirror_tap, &mirror, &error), 0);
	assert_int_equal(relay_set_course(&relay, course, NULL, NULL), 0);
	relay_serve(&relay);
}

static void agent_stop(void)
{
	relay_stop(&relay);
	relay_done(&relay);
	cluster_stop(&origin);
	cluster_stop(&target);
}

static void set(void *context)
{
	atomic_store((_Atomic bool *)context, true);
}

static void change_course(const struct course *course)
{
	_Atomic bool done = false;

	assert_int_equal(relay_set_course(&relay, course, set, (void *)&done), 0);
	for (int i = 0; i < 5000 && !atomic_load(&done); i++)
		usleep(1000);
	assert_true(atomic_load(&done));
}

/* ---- a client */

static int client_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {.tv_sec = 5};

	assert_int_equal(connect(fd, &relay.options.explicit_listen.sa, sizeof(relay.options.explicit_listen.in)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void client_send(int fd, uint8_t opcode, int16_t stream, const void *body, size_t size)
{
	struct frame_header h = {.version = 4, .stream = stream, .opcode = opcode, .length = (uint32_t)size};
	uint8_t envelope[2048];

	frame_header_write(envelope, &h);
	memcpy(envelope + FRAME_HEADER_SIZE, size ? body : "", size);
	assert_int_equal(send(fd, envelope, FRAME_HEADER_SIZE + size, MSG_NOSIGNAL), FRAME_HEADER_SIZE + size);
}

static void client_query(int fd, int16_t stream, const char *text)
{
	uint8_t envelope[2048];
	ssize_t n = request_write_query(4, stream, span_text(text), CL_ONE, envelope, sizeof(envelope));

	assert_true(n > 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
}

/* The next answer, within 5 s; its opcode. −1 = none. */
static int client_receive(int fd, struct frame_header *h, uint8_t body[ROOM])
{
	uint8_t header[FRAME_HEADER_SIZE];

	if (!receive(fd, header, sizeof(header)) || frame_header_read(header, sizeof(header), h) < 0 || h->length > ROOM ||
	    !receive(fd, body, h->length))
		return -1;
	return h->opcode;
}

static uint8_t answer_body[ROOM];

static int expect(int fd, int16_t stream)
{
	struct frame_header h;
	int opcode = client_receive(fd, &h, answer_body);

	if (opcode >= 0)
		assert_int_equal(h.stream, stream);
	return opcode;
}

static const uint8_t startup[] = "\0\1\0\13CQL_VERSION\0\0053.0.0";

static int client_open(void)
{
	int fd = client_connect();

	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_READY);
	return fd;
}

static int client_challenged(void)
{
	int fd = client_connect();

	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_AUTHENTICATE);
	return fd;
}

static int client_login(void)
{
	int fd = client_challenged();

	client_send(fd, OP_AUTH_RESPONSE, 2, "\0\0\0\4\0a\0b", 8);
	assert_int_equal(expect(fd, 2), OP_AUTH_SUCCESS);
	return fd;
}

static bool wait_for(_Atomic unsigned *what, unsigned value)
{
	for (int i = 0; i < 5000 && atomic_load(what) < value; i++)
		usleep(1000);
	return atomic_load(what) == value;
}

static const struct course observe = {.primary = ORIGIN}, mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

/* A page of the origin, or of the target: a paging state in a query. */
static void client_page(int fd, int16_t stream, const char *state, size_t size)
{
	uint8_t body[256], *at = body;
	static const char text[] = "SELECT k FROM ks.t";

	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = sizeof(text) - 1;
	memcpy(at, text, sizeof(text) - 1);
	at += sizeof(text) - 1;
	*at++ = 0, *at++ = 1; /* consistency */
	*at++ = QUERY_PAGE_SIZE | QUERY_PAGING_STATE;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = 100;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = (uint8_t)size;
	memcpy(at, state, size);
	at += size;
	client_send(fd, OP_QUERY, stream, body, (size_t)(at - body));
}

/* ---- symptoms */

static void late_auth_response_stops_the_agent(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	fd = client_open();
	client_send(fd, OP_AUTH_RESPONSE, 2, "\0\0\0\1x", 5); /* the cluster says AUTH_SUCCESS to an open session */
	assert_int_equal(expect(fd, 2), OP_AUTH_SUCCESS);
	client_query(fd, 3, "SELECT k FROM ks.t");
	assert_int_equal(expect(fd, 3), OP_RESULT);
	close(fd);
	agent_stop();
}

static ssize_t no_new_connections(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	return h->opcode == OP_STARTUP ? -1 : plain_answer(p, h, body, to);
}

/* Neither refused nor accepted once, but again and again, without an answer for the client. */
static void page_of_a_cluster_that_is_down_hangs(void **unused)
{
	(void)unused;
	for (int how = 0; how < 2; how++) {
		struct cluster_play gone;
		int fd;

		cluster_start(&origin, plain_answer);
		if (how) {
			cluster_start(&target, no_new_connections); /* takes the connection, then closes it */
		} else {
			cluster_start(&gone, plain_answer);
			cluster_start(&target, plain_answer);
		}
		agent_start(1, &observe);
		if (!how) { /* nobody listens there any more */
			cluster_stop(&gone);
			relay.options.cluster[TARGET].nodes[0] = gone.addr;
		}
		fd = client_open();
		for (int16_t i = 2; i < 5; i++) {
			client_page(fd, i, PAGING_TAG "state", PAGING_TAG_SIZE + 5);
			assert_int_equal(expect(fd, i), OP_ERROR);
		}
		/* And the connection is still good. */
		client_query(fd, 9, "SELECT k FROM ks.t");
		assert_int_equal(expect(fd, 9), OP_RESULT);
		assert_true(atomic_load(&target.count) <= 3);
		close(fd);
		agent_stop();
	}
}

static ssize_t with_password(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_STARTUP)
		return say(h, OP_AUTHENTICATE, "\0\1x", 3, to);
	if (h->opcode == OP_AUTH_RESPONSE)
		usleep(50000);
	return plain_answer(p, h, body, to);
}

static ssize_t slow_startup(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_STARTUP)
		usleep(300000);
	return with_password(p, h, body, to);
}

static void hold_one(struct worker *w, void *context)
{
	(void)context;
	worker_hold(w, NULL, NULL);
}

static void release_one(struct worker *w, void *context)
{
	(void)context;
	worker_set_course(w, &cut_over);
	worker_release(w);
}

/* OPTIONS between the switch and the moment the target has taken the client's password. */
static void heartbeat_during_a_switch_gets_no_answer(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, with_password);
	cluster_start(&target, slow_startup);
	agent_start(1, &mirroring);
	fd = client_login();
	assert_int_equal(relay_each_worker(&relay, hold_one, NULL, NULL), 0);
	assert_int_equal(relay_each_worker(&relay, release_one, NULL, NULL), 0);
	usleep(50000);
	client_send(fd, OP_OPTIONS, 2, NULL, 0);
	client_query(fd, 3, "SELECT k FROM ks.t");
	assert_int_equal(expect(fd, 2), OP_SUPPORTED);
	assert_int_equal(expect(fd, 3), OP_RESULT);
	assert_int_equal(atomic_load(&target.options), 1);
	close(fd);
	agent_stop();
}

static void sessions_survive_many_switches(void **unused)
{
	int fd[8];

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(2, &mirroring);
	for (int i = 0; i < 8; i++)
		fd[i] = client_open();
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 8; i++)
			client_query(fd[i], (int16_t)(round + 2), "INSERT INTO ks.t (k) VALUES (1)");
		for (int i = 0; i < 8; i++)
			assert_int_equal(expect(fd[i], (int16_t)(round + 2)), OP_RESULT);
		change_course(round % 2 == 0 ? &cut_over : &mirroring);
	}
	/* Each write once on each side, whichever was the primary. */
	assert_true(wait_for(&origin.writes, 160));
	assert_true(wait_for(&target.writes, 160));
	for (int i = 0; i < 8; i++)
		close(fd[i]);
	agent_stop();
}

/* Two workers each hold the mark of the other's statement before their own. */
static void two_truncates_at_once_stop_the_mirror(void **unused)
{
	enum { CLIENTS = 12 };
	int fd[CLIENTS];

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	agent_start(4, &mirroring);
	/* The kernel spreads them over the workers' listeners. */
	for (int i = 0; i < CLIENTS; i++)
		fd[i] = client_open();
	for (unsigned round = 0; round < 5; round++) {
		atomic_store(&origin.hold, true); /* all intents are there before the first success */
		for (int i = 0; i < CLIENTS; i++)
			client_query(fd[i], 2, "TRUNCATE ks.t");
		usleep(60000);
		atomic_store(&origin.hold, false);
		for (int i = 0; i < CLIENTS; i++)
			assert_int_equal(expect(fd[i], 2), OP_RESULT);
		for (int i = 0; i < CLIENTS; i++)
			client_query(fd[i], 3, "INSERT INTO ks.t (k) VALUES (1)");
		for (int i = 0; i < CLIENTS; i++)
			assert_int_equal(expect(fd[i], 3), OP_RESULT);
		assert_true(wait_for(&target.truncates, (round + 1) * CLIENTS));
		assert_true(wait_for(&target.writes, (round + 1) * CLIENTS));
	}
	for (int i = 0; i < CLIENTS; i++)
		close(fd[i]);
	agent_stop();
}

/* The target stands still until the budget is spent; then it goes on, and so must the clients. */
static void full_journal_holds_clients_for_ever(void **unused)
{
	static char text[20001];
	uint8_t *envelope = malloc(ROOM);
	int fd;

	(void)unused;
	for (int retain = 0; retain < 2; retain++) {
		cluster_start(&origin, plain_answer);
		cluster_start(&target, plain_answer);
		small_budget = 1 << 20;
		retain_ns = retain ? 600ull * 1000000000u : 0;
		agent_start(1, &mirroring);
		small_budget = retain_ns = 0;
		atomic_store(&target.hold_writes, true);
		memset(text, ' ', sizeof(text) - 1);
		memcpy(text, "INSERT INTO ks.t (k) VALUES (1)", 31);
		fd = client_open();
		for (int16_t i = 0; i < 90; i++) { /* 1.8 MB */
			ssize_t n = request_write_query(4, i, span_text(text), CL_ONE, envelope, ROOM);

			assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
		}
		usleep(200000);
		assert_true(atomic_load(&origin.writes) < 90); /* some wait */
		atomic_store(&target.hold_writes, false);
		for (int16_t i = 0; i < 90; i++)
			assert_int_equal(expect(fd, i), OP_RESULT);
		assert_true(wait_for(&target.writes, 90));
		close(fd);
		agent_stop();
	}
	free(envelope);
}

/* An answer that is nobody's must not be taken for another request's. */
static ssize_t doubled(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	ssize_t n = plain_answer(p, h, body, to);

	if (h->opcode != OP_QUERY)
		return n;
	memcpy(to + n, to, (size_t)n);
	return 2 * n;
}

static void an_answer_too_many_reaches_the_client(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, doubled);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	fd = client_open();
	for (int16_t i = 0; i < 50; i++) {
		client_query(fd, i, "SELECT k FROM ks.t");
		assert_int_equal(expect(fd, i), OP_RESULT);
	}
	close(fd);
	agent_stop();
}

/* 12 MB that a slow client has not read yet when the cluster ends the connection. */
static ssize_t large_then_end(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static uint8_t rest[12000000];
	struct frame_header own = {.version = 4, .response = true, .stream = h->stream, .opcode = OP_RESULT, .length = sizeof(rest)};

	if (h->opcode != OP_QUERY)
		return plain_answer(p, h, body, to);
	frame_header_write(to, &own);
	(void)!send(p->fd, to, FRAME_HEADER_SIZE, MSG_NOSIGNAL | MSG_MORE);
	for (size_t at = 0; at < sizeof(rest);) {
		ssize_t n = send(p->fd, rest + at, sizeof(rest) - at, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	return -1;
}

static void answer_is_cut_when_the_cluster_closes_behind_it(void **unused)
{
	static uint8_t chunk[64 << 10];
	size_t got = 0;
	int fd;

	(void)unused;
	cluster_start(&origin, large_then_end);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	fd = client_open();
	client_query(fd, 2, "SELECT k FROM ks.t");
	for (ssize_t n; (n = recv(fd, chunk, sizeof(chunk), 0)) > 0; got += (size_t)n)
		usleep(1000);
	assert_int_equal(got, 12000000 + FRAME_HEADER_SIZE);
	close(fd);
	agent_stop();
}

/* A statement right behind AUTH_RESPONSE passed by the mirror. */
static void write_behind_the_password_is_not_mirrored(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, with_password);
	cluster_start(&target, plain_answer);
	agent_start(1, &mirroring);
	fd = client_challenged();
	client_send(fd, OP_AUTH_RESPONSE, 2, "\0\0\0\4\0a\0b", 8);
	client_query(fd, 3, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 2), OP_AUTH_SUCCESS);
	assert_int_equal(expect(fd, 3), OP_RESULT);
	assert_true(wait_for(&origin.writes, 1));
	assert_true(wait_for(&target.writes, 1));
	close(fd);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_auth_response_stops_the_agent),
		cmocka_unit_test(page_of_a_cluster_that_is_down_hangs),
		cmocka_unit_test(heartbeat_during_a_switch_gets_no_answer),
		cmocka_unit_test(sessions_survive_many_switches),
		cmocka_unit_test(two_truncates_at_once_stop_the_mirror),
		cmocka_unit_test(full_journal_holds_clients_for_ever),
		cmocka_unit_test(an_answer_too_many_reaches_the_client),
		cmocka_unit_test(answer_is_cut_when_the_cluster_closes_behind_it),
		cmocka_unit_test(write_behind_the_password_is_not_mirrored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
