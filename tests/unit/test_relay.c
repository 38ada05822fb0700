// SPDX-License-Identifier: Apache-2.0
/*
 * Regressions of relay and mirror, each named after its symptom: a real relay between clients and clusters that functions here play
 * (relaytest.h).
 */
#include <lz4.h>

#include "relay/paging.h"
#include "unit/relaytest.h"

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
		retain_ms = retain ? 600000 : 0;
		agent_start(1, &mirroring);
		small_budget = retain_ms = 0;
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

static int client_open_v5(bool lz4)
{
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", lz4 ? "COMPRESSION" : NULL, "lz4", NULL};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(5, 1, pairs, envelope, sizeof(envelope));
	int fd = client_connect();

	assert_true(n > 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 1), OP_READY);
	return fd;
}

#define PARTS 200u    /* of an answer, each in a segment: more than the relay gathers */
#define PART_SIZE 1000u

static _Atomic bool go_on, orphaned;

/* A compressed segment that is not self-contained; its size. */
static size_t part_of_answer(const uint8_t *payload, size_t size, uint8_t *to)
{
	int n = LZ4_compress_default((const char *)payload, (char *)to + SEGMENT_HEADER_LZ4, (int)size, LZ4_compressBound((int)size));
	uint64_t bits = (uint64_t)n | (uint64_t)size << 17;
	uint32_t crc;

	for (int i = 0; i < 5; i++)
		to[i] = (uint8_t)(bits >> 8 * i);
	crc = segment_crc24(to, 5);
	for (int i = 0; i < 3; i++)
		to[5 + i] = (uint8_t)(crc >> 8 * i);
	segment_trailer_write(to + SEGMENT_HEADER_LZ4 + n, segment_crc32(to + SEGMENT_HEADER_LZ4, (size_t)n));
	return SEGMENT_HEADER_LZ4 + (size_t)n + SEGMENT_TRAILER;
}

/* The first part at once, and all others in one piece when the test says so. What is asked behind it waits that long. */
static ssize_t in_many_parts(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static const uint8_t zeros[PART_SIZE];
	struct frame_header own = {.version = 5, .response = true, .stream = h->stream, .opcode = OP_RESULT, .length = PARTS * PART_SIZE};
	uint8_t first[FRAME_HEADER_SIZE + PART_SIZE] = {0};
	size_t size;

	if (h->opcode != OP_QUERY || !contains(h, body, "SELECT v"))
		return plain_answer(p, h, body, to);
	frame_header_write(first, &own);
	size = part_of_answer(first, sizeof(first), to);
	(void)!send(p->fd, to, size, MSG_NOSIGNAL);
	while (!atomic_load(&go_on))
		usleep(1000);
	size = 0;
	for (unsigned i = 1; i < PARTS; i++)
		size += part_of_answer(zeros, PART_SIZE, to + size);
	(void)!send(p->fd, to, size, MSG_NOSIGNAL);
	return 0;
}

static void look_for_orphan(struct worker *w, void *context)
{
	(void)context;
	for (const struct session *s = w->sessions; s; s = s->next)
		if (s->state == SESSION_ORPHAN && !s->client_live)
			atomic_store(&orphaned, true);
}

/* Its write keeps the session, so the answer goes on coming: one that takes little room as it comes, and much then. */
static void a_client_that_leaves_a_large_answer_stops_the_agent(void **unused)
{
	static uint8_t payload[ROOM], room[ROOM];
	ssize_t n, m;
	int fd;

	(void)unused;
	speak_v5 = true;
	atomic_store(&go_on, false);
	atomic_store(&orphaned, false);
	cluster_start(&origin, in_many_parts);
	cluster_start(&target, plain_answer);
	agent_start(1, &mirroring);
	fd = client_open_v5(/* lz4= */ true);
	n = request_write_query(5, 2, span_text("SELECT v FROM ks.t"), CL_ONE, payload, ROOM);
	m = request_write_query(5, 3, span_text("INSERT INTO ks.t (k) VALUES (1)"), CL_ONE, payload + n, ROOM - (size_t)n);
	assert_true(n > 0 && m > 0);
	assert_true(send_segment(fd, /* lz4= */ true, payload, (size_t)(n + m)));
	assert_int_equal(receive_segment(fd, /* lz4= */ true, payload, room), FRAME_HEADER_SIZE + PART_SIZE);
	close(fd);
	for (int i = 0; i < 5000 && !atomic_load(&orphaned); i++) {
		assert_int_equal(relay_each_worker(&relay, look_for_orphan, NULL, NULL), 0);
		usleep(1000);
	}
	assert_true(atomic_load(&orphaned));
	atomic_store(&go_on, true);
	/* What became of the write is learned all the same. */
	assert_true(wait_for(&origin.writes, 1));
	assert_true(wait_for(&target.writes, 1));
	agent_stop();
	speak_v5 = false;
}

#define EVENTS_MAX 60u
#define SMALL 100u /* the body of an answer that comes in two parts, and why not */

static _Atomic unsigned events;
static _Atomic bool first_as_it_is;

static size_t plain_segment(const uint8_t *payload, size_t size, bool whole, uint8_t *to)
{
	size_t at = segment_header_write(to, /* lz4= */ false, (uint32_t)size, whole);

	memcpy(to + at, payload, size);
	segment_trailer_write(to + at + size, segment_crc32(payload, size));
	return at + size + SEGMENT_TRAILER;
}

/* In one piece: segments with an event and an answer that nobody waits for, so that they do not go on as they are, and then the answer. */
static ssize_t behind_events(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static const uint8_t zeros[SMALL];
	struct frame_header event = {.version = 5, .stream = -1}, stray = {.version = 5, .stream = 999};
	uint8_t payload[256];
	size_t size = 0, n;

	if (h->opcode != OP_QUERY || !contains(h, body, "SELECT v"))
		return plain_answer(p, h, body, to);
	n = (size_t)say(&event, OP_EVENT, "\0\1x", 3, payload);
	if (atomic_load(&first_as_it_is))
		size += plain_segment(payload, n, /* whole= */ true, to);
	n += (size_t)say(&stray, OP_RESULT, "\0\0\0\1", 4, payload + n);
	for (unsigned i = 0; i < atomic_load(&events); i++)
		size += plain_segment(payload, n, /* whole= */ true, to + size);
	n = (size_t)say(h, OP_RESULT, zeros, SMALL, payload);
	size += plain_segment(payload, n / 2, /* whole= */ false, to + size);
	size += plain_segment(payload + n / 2, n - n / 2, /* whole= */ false, to + size);
	(void)!send(p->fd, to, size, MSG_NOSIGNAL);
	return 0;
}

/* As strict as drivers are: a self-contained segment is whole envelopes (events, here), and others are parts of the answer. */
static void expect_in_parts(int fd, int16_t stream)
{
	static uint8_t room[ROOM];
	uint8_t answer[FRAME_HEADER_SIZE + SMALL];
	struct frame_header h = {0};
	struct segment s;

	for (size_t have = 0; have < sizeof(answer);) {
		assert_true(receive(fd, room, SEGMENT_HEADER_PLAIN));
		assert_true(segment_header_read(room, SEGMENT_HEADER_PLAIN, /* lz4= */ false, &s) > 0);
		assert_true(receive(fd, room + s.header_size, s.wire_size - s.header_size));
		assert_int_equal(segment_payload_check(room, &s), 0);
		if (!s.self_contained) {
			assert_true(s.payload_size <= sizeof(answer) - have);
			memcpy(answer + have, room + s.header_size, s.payload_size);
			have += s.payload_size;
			continue;
		}
		assert_int_equal(have, 0);
		for (size_t at = 0; at < s.payload_size; at += FRAME_HEADER_SIZE + h.length) {
			assert_true(frame_header_read(room + s.header_size + at, s.payload_size - at, &h) > 0);
			assert_int_equal(h.opcode, OP_EVENT);
			assert_true(at + FRAME_HEADER_SIZE + h.length <= s.payload_size);
		}
	}
	assert_true(frame_header_read(answer, sizeof(answer), &h) > 0);
	assert_int_equal(h.opcode, OP_RESULT);
	assert_int_equal(h.stream, stream);
	assert_int_equal(h.length, SMALL);
}

/* Where so much had been gathered before it that room was to be made. */
static void an_answer_s_last_part_comes_as_a_whole_envelope(void **unused)
{
	uint8_t envelope[256];
	int16_t stream = 2;
	int fd;

	(void)unused;
	speak_v5 = true;
	cluster_start(&origin, behind_events);
	cluster_start(&target, plain_answer);
	agent_start(1, &observe);
	fd = client_open_v5(/* lz4= */ false);
	for (unsigned i = 0; i < 2 * EVENTS_MAX; i++, stream++) {
		ssize_t n = request_write_query(5, stream, span_text("SELECT v FROM ks.t"), CL_ONE, envelope, sizeof(envelope));

		atomic_store(&events, i / 2);
		atomic_store(&first_as_it_is, i & 1);
		assert_true(n > 0);
		assert_true(send_segment(fd, /* lz4= */ false, envelope, (size_t)n));
		expect_in_parts(fd, stream);
	}
	close(fd);
	agent_stop();
	speak_v5 = false;
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

/* Intercepted clients go on seeing the origin's nodes (tests/e2e/test_drivers.py); who is pointed at a port has no other way to the target's. */
static void who_is_pointed_at_the_agent_sees_the_target_once_finished(void **unused)
{
	static const struct course finished = {.primary = TARGET, .frozen = true, .finished = true};
	const struct course *courses[] = {&mirroring, &cut_over, &finished};
	int fd;

	(void)unused;
	cluster_start(&origin, names_itself);
	cluster_start(&target, names_itself);
	agent_start(1, &mirroring);
	fd = client_open();
	for (int i = 0; i < 3; i++) {
		if (i > 0)
			change_course(courses[i]);
		client_query(fd, (int16_t)(2 + i), "SELECT cluster_name FROM system.local");
		assert_int_equal(expect(fd, (int16_t)(2 + i)), OP_RESULT);
		assert_int_equal(answer_body[4], i < 2 ? 'o' : 't');
	}
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
		cmocka_unit_test(a_client_that_leaves_a_large_answer_stops_the_agent),
		cmocka_unit_test(an_answer_s_last_part_comes_as_a_whole_envelope),
		cmocka_unit_test(write_behind_the_password_is_not_mirrored),
		cmocka_unit_test(who_is_pointed_at_the_agent_sees_the_target_once_finished),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
