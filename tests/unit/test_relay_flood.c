// SPDX-License-Identifier: Apache-2.0
/* A client that asks and does not read, where the agent itself has the answers: UNPREPARED. Real relay (relaytest.h). */
#include "unit/relaytest.h"

#define COUNT 20000
#define ID_SIZE 400 /* the agent knows none that is so long; answers of 10 MB in all, which no socket takes */
#define QUEUED_MAX (1u << 20)

static const struct course cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

struct sender {
	int fd;
	uint8_t version;
	pthread_t thread;
	_Atomic unsigned sent;
};

static size_t unknown_execute(uint8_t version, int16_t stream, uint8_t *to)
{
	struct frame_header h = {.version = version, .stream = stream, .opcode = OP_EXECUTE};
	uint8_t *at = to + FRAME_HEADER_SIZE;

	*at++ = ID_SIZE >> 8, *at++ = ID_SIZE & 255;
	memset(at, 'x', ID_SIZE);
	at += ID_SIZE;
	if (version >= 5)
		*at++ = 0, *at++ = 1, *at++ = 'm';
	*at++ = 0, *at++ = CL_ONE;
	*at++ = 0;
	if (version >= 5)
		*at++ = 0, *at++ = 0, *at++ = 0;
	h.length = (uint32_t)(at - to - FRAME_HEADER_SIZE);
	frame_header_write(to, &h);
	return (size_t)(at - to);
}

static void *send_all(void *argument)
{
	struct sender *s = argument;
	uint8_t bytes[8192 - 16];

	for (unsigned i = 0; i < COUNT;) {
		unsigned n = 0;
		size_t size = 0;

		for (; n < 16 && i + n < COUNT; n++)
			size += unknown_execute(s->version, (int16_t)(i + n), bytes + size);
		if (s->version >= 5 ? !send_segment(s->fd, /* lz4= */ false, bytes, size)
				    : send(s->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
			break;
		i += n;
		atomic_store(&s->sent, i);
	}
	return NULL;
}

/* What the worker holds for its clients. */
static _Atomic size_t held;
static _Atomic bool looked;

static void look(struct worker *w, void *context)
{
	size_t bytes = 0;

	(void)context;
	for (const struct session *s = w->sessions; s; s = s->next)
		bytes += s->client.queued + s->deferred_bytes + s->in.have + s->tail.have;
	atomic_store(&held, bytes);
	atomic_store(&looked, true);
}

/* Until nothing more has been sent for 0.3 s. The most that was held. */
static size_t wait_until_stuck(struct sender *s)
{
	size_t most = 0;
	unsigned last = 0;

	for (int still = 0; still < 30; usleep(10000)) {
		unsigned now = atomic_load(&s->sent);

		still = now == last ? still + 1 : 0;
		last = now;
		atomic_store(&looked, false);
		assert_int_equal(relay_each_worker(&relay, look, NULL, NULL), 0);
		for (int i = 0; i < 5000 && !atomic_load(&looked); i++)
			usleep(1000);
		assert_true(atomic_load(&looked));
		most = atomic_load(&held) > most ? atomic_load(&held) : most;
	}
	return most;
}

static void expect_unprepared(const struct frame_header *h, const uint8_t *body, int16_t stream)
{
	struct response_error error;

	assert_int_equal(h->opcode, OP_ERROR);
	assert_int_equal(h->stream, stream);
	assert_int_equal(response_error_parse(span_of(body, h->length), &error), 0);
	assert_int_equal(error.code, CQL_UNPREPARED);
	assert_int_equal(error.unprepared_id.size, ID_SIZE);
}

/* Each answer once, and in the order of the requests. */
static void read_all(const struct sender *s)
{
	static uint8_t payload[ROOM], room[ROOM];
	struct frame_header h = {0};

	for (int i = 0; i < COUNT;) {
		if (s->version < 5) {
			assert_true(client_receive(s->fd, &h, answer_body) >= 0);
			expect_unprepared(&h, answer_body, (int16_t)i++);
			continue;
		}
		ssize_t have = receive_segment(s->fd, /* lz4= */ false, payload, room);

		assert_true(have > 0);
		for (ssize_t at = 0; at < have; at += FRAME_HEADER_SIZE + h.length) {
			assert_true(frame_header_read(payload + at, (size_t)(have - at), &h) > 0);
			expect_unprepared(&h, payload + at + FRAME_HEADER_SIZE, (int16_t)i++);
		}
	}
}

/* A small window, so that what is not read stays with the agent. */
static int open_narrow(uint8_t version)
{
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", NULL};
	struct timeval limit = {.tv_sec = 5};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(version, 1, pairs, envelope, sizeof(envelope));
	int fd = socket(AF_INET, SOCK_STREAM, 0), small = 8192;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, &relay.options.explicit_listen.sa, sizeof(relay.options.explicit_listen.in)), 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 1), OP_READY);
	return fd;
}

static void a_client_that_does_not_read_fills_the_memory(void **unused)
{
	(void)unused;
	for (uint8_t version = 4; version <= 5; version++) {
		struct sender s = {.version = version};
		size_t most;

		speak_v5 = version >= 5;
		cluster_start(&origin, plain_answer);
		cluster_start(&target, plain_answer);
		agent_start(1, &cut_over);
		s.fd = open_narrow(version);
		pthread_create(&s.thread, NULL, send_all, &s);
		most = wait_until_stuck(&s);
		if (most < CONN_HIGH || most > QUEUED_MAX)
			fail_msg("v%u: %zu bytes are held, %u requests are sent", version, most, atomic_load(&s.sent));
		read_all(&s);
		pthread_join(s.thread, NULL);
		/* And the connection is still good. */
		if (version < 5) {
			client_query(s.fd, 9, "SELECT k FROM ks.t");
			assert_int_equal(expect(s.fd, 9), OP_RESULT);
		}
		close(s.fd);
		agent_stop();
		speak_v5 = false;
	}
}

/* 3000 bytes of which the first come at once, and the rest when the test says so. */
static _Atomic bool rest;

static ssize_t in_two_halves(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct frame_header own = {.version = h->version, .response = true, .stream = h->stream, .opcode = OP_RESULT, .length = 3000};

	if (h->opcode != OP_QUERY || !contains(h, body, "SELECT v"))
		return plain_answer(p, h, body, to);
	memset(to, 0, FRAME_HEADER_SIZE + own.length);
	to[FRAME_HEADER_SIZE + 3] = 1;
	frame_header_write(to, &own);
	(void)!send(p->fd, to, 1000, MSG_NOSIGNAL);
	while (!atomic_load(&rest))
		usleep(1000);
	(void)!send(p->fd, to + 1000, FRAME_HEADER_SIZE + own.length - 1000, MSG_NOSIGNAL);
	return 0;
}

/* The agent's own answers wait for the end of one that is half-way to the client. */
static void what_waits_for_an_answer_s_end_fills_the_memory(void **unused)
{
	struct sender s = {.version = 4};
	uint8_t first[1000];
	size_t most;

	(void)unused;
	atomic_store(&rest, false);
	cluster_start(&origin, plain_answer);
	cluster_start(&target, in_two_halves);
	agent_start(1, &cut_over);
	s.fd = open_narrow(4);
	client_query(s.fd, 30000, "SELECT v FROM ks.t");
	assert_true(receive(s.fd, first, sizeof(first)));
	pthread_create(&s.thread, NULL, send_all, &s);
	most = wait_until_stuck(&s);
	if (most < CONN_HIGH || most > QUEUED_MAX)
		fail_msg("%zu bytes are held, %u requests are sent", most, atomic_load(&s.sent));
	atomic_store(&rest, true);
	assert_true(receive(s.fd, answer_body, FRAME_HEADER_SIZE + 3000 - sizeof(first)));
	read_all(&s);
	pthread_join(s.thread, NULL);
	client_query(s.fd, 9, "SELECT k FROM ks.t");
	assert_int_equal(expect(s.fd, 9), OP_RESULT);
	close(s.fd);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_that_does_not_read_fills_the_memory),
		cmocka_unit_test(what_waits_for_an_answer_s_end_fills_the_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
