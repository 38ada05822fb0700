// SPDX-License-Identifier: Apache-2.0
/* The frozen topology while the origin is away, or hangs. Real relay (relaytest.h). */
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

static const char local[] = "SELECT cluster_name FROM system.local", peers[] = "SELECT peer FROM system.peers";

static void what_was_asked_before_waits_for_an_origin_that_is_gone(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, names_itself);
	cluster_start(&target, names_itself);
	agent_start(1, &mirroring);
	fd = client_open();
	client_query(fd, 2, local);
	assert_int_equal(expect(fd, 2), OP_RESULT);
	close(fd);
	change_course(&cut_over);
	cluster_stop(&origin);
	/* A driver that begins now. */
	fd = client_open();
	client_query(fd, 2, local);
	assert_int_equal(expect(fd, 2), OP_RESULT);
	assert_int_equal(answer_body[4], 'o');
	/* This was not asked before; that is said, and does not keep others waiting. */
	client_query(fd, 3, peers);
	assert_int_equal(expect(fd, 3), OP_ERROR);
	assert_non_null(memmem(answer_body, 200, "origin cannot be reached", 24));
	client_query(fd, 4, local);
	assert_int_equal(expect(fd, 4), OP_RESULT);
	client_query(fd, 5, "SELECT k FROM ks.t");
	assert_int_equal(expect(fd, 5), OP_RESULT);
	close(fd);
	cluster_start(&origin, plain_answer); /* for agent_stop() */
	agent_stop();
}

/* Takes connections, and that is all. */
static ssize_t hangs(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	(void)p, (void)h, (void)body, (void)to;
	return 0;
}

static void an_origin_that_hangs_stalls_a_session_for_ever(void **unused)
{
	uint64_t before;
	int fd;

	(void)unused;
	cluster_start(&origin, hangs);
	cluster_start(&target, names_itself);
	agent_start(1, &cut_over);
	fd = client_open();
	for (int16_t i = 2; i < 4; i++) {
		before = clock_now_ns();
		client_query(fd, i, peers);
		client_query(fd, (int16_t)(i + 10), "SELECT k FROM ks.t"); /* behind it */
		assert_int_equal(expect(fd, i), OP_ERROR);
		assert_non_null(memmem(answer_body, 200, "origin cannot be reached", 24));
		assert_int_equal(expect(fd, (int16_t)(i + 10)), OP_RESULT);
		/* Not before the time that a connection may take: 300 ms here. */
		assert_true(clock_now_ns() - before > 290000000u);
	}
	close(fd);
	agent_stop();
}

/* One row for each page: "1" with more to come, then "2"; all of it, "3", for a large page. */
static ssize_t pages(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
#define ROW(c) "\0\0\0\1\0\0\0\1" c
	static const uint8_t first[] = "\0\0\0\2\0\0\0\6\0\0\0\1\0\0\0\4next" ROW("1"), last[] = "\0\0\0\2\0\0\0\4\0\0\0\1" ROW("2"),
			     whole[] = "\0\0\0\2\0\0\0\4\0\0\0\1" ROW("3");
	struct request r;

	if (p->cluster != &origin || h->opcode != OP_QUERY || !contains(h, body, "system.peers"))
		return plain_answer(p, h, body, to);
	if (request_parse(h->version, h->flags, h->opcode, span_of(body, h->length), &r) < 0)
		return -1;
	if (r.params.flags & QUERY_PAGING_STATE)
		return say(h, OP_RESULT, last, sizeof(last) - 1, to);
	return r.params.page_size == 1 ? say(h, OP_RESULT, first, sizeof(first) - 1, to) : say(h, OP_RESULT, whole, sizeof(whole) - 1, to);
}

/* What stands in the row that comes. */
static uint8_t ask_page(int fd, int16_t stream, uint8_t page_size, const char *state)
{
	uint8_t body[256] = {0}, *at = body + 3;
	struct frame_header h = {0};

	*at++ = sizeof(peers) - 1;
	memcpy(at, peers, sizeof(peers) - 1);
	at += sizeof(peers) - 1;
	*at++ = 0, *at++ = CL_ONE;
	*at++ = state ? QUERY_PAGE_SIZE | QUERY_PAGING_STATE : QUERY_PAGE_SIZE;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = page_size;
	if (state) {
		*at++ = 0, *at++ = 0, *at++ = 0, *at++ = (uint8_t)strlen(state);
		memcpy(at, state, strlen(state));
		at += strlen(state);
	}
	client_send(fd, OP_QUERY, stream, body, (size_t)(at - body));
	assert_int_equal(client_receive(fd, &h, answer_body), OP_RESULT);
	assert_int_equal(h.stream, stream);
	return answer_body[h.length - 1];
}

static void the_second_page_takes_the_place_of_the_first(void **unused)
{
	int fd;

	(void)unused;
	for (int whole = 0; whole < 2; whole++) {
		cluster_start(&origin, pages);
		cluster_start(&target, plain_answer);
		agent_start(1, &mirroring);
		fd = client_open();
		if (whole)
			assert_int_equal(ask_page(fd, 2, 100, NULL), '3');
		assert_int_equal(ask_page(fd, 3, 1, NULL), '1');
		assert_int_equal(ask_page(fd, 4, 1, "next"), '2');
		change_course(&cut_over);
		/* The whole answer is one to any page size. Without it the origin gives its pages. */
		assert_int_equal(ask_page(fd, 5, 1, NULL), whole ? '3' : '1');
		assert_int_equal(ask_page(fd, 6, 1, "next"), '2');
		assert_int_equal(ask_page(fd, 7, 100, NULL), '3');
		close(fd);
		agent_stop();
	}
}

/* ---- what the client is told of */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t registered[256]; /* the last REGISTER that the target got */
static size_t registered_size;

static ssize_t notes_register(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (p->cluster == &target && h->opcode == OP_REGISTER && h->length <= sizeof(registered)) {
		pthread_mutex_lock(&lock);
		memcpy(registered, body, h->length);
		registered_size = h->length;
		pthread_mutex_unlock(&lock);
	}
	if (h->opcode == OP_REGISTER && contains(h, body, "UNHEARD_OF"))
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "Invalid value 'UNHEARD_OF' for Type", to, ROOM);
	return plain_answer(p, h, body, to);
}

static void client_register(int fd, int16_t stream, const char *event)
{
	const char *const events[] = {event, NULL};
	uint8_t envelope[128];
	ssize_t n = request_write_register(4, stream, events, envelope, sizeof(envelope));

	assert_true(n > 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, stream), strcmp(event, "UNHEARD_OF") == 0 ? OP_ERROR : OP_READY);
}

/* A client registers with one REGISTER for each event; what the target is told of it once that is the primary. */
static void expect_registered(const struct course *after, const char *const *events, size_t count, const void *want, size_t size)
{
	int fd;

	registered_size = 0;
	cluster_start(&origin, notes_register);
	cluster_start(&target, notes_register);
	agent_start(1, &mirroring);
	fd = client_open();
	for (size_t i = 0; i < count; i++)
		client_register(fd, (int16_t)(2 + i), events[i]);
	change_course(after);
	client_query(fd, 9, "SELECT k FROM ks.t");
	assert_int_equal(expect(fd, 9), OP_RESULT);
	pthread_mutex_lock(&lock);
	assert_int_equal(registered_size, size);
	assert_memory_equal(registered, want, size);
	pthread_mutex_unlock(&lock);
	close(fd);
	agent_stop();
}

static void a_second_register_undoes_the_first(void **unused)
{
	static const struct course switched = {.primary = TARGET, .mirroring = true};
	static const char *const events[] = {"STATUS_CHANGE", "UNHEARD_OF", "SCHEMA_CHANGE", "STATUS_CHANGE"};
	static const uint8_t both[] = "\0\2" "\0\15STATUS_CHANGE" "\0\15SCHEMA_CHANGE";

	(void)unused;
	expect_registered(&switched, events, 4, both, sizeof(both) - 1);
}

/* An event that no driver asked for is one that it may not expect. */
static void a_frozen_client_hears_of_the_schema_unasked(void **unused)
{
	static const char *const asked[] = {"TOPOLOGY_CHANGE", "SCHEMA_CHANGE"}, *const other[] = {"TOPOLOGY_CHANGE", "STATUS_CHANGE"};
	static const uint8_t schema[] = "\0\1" "\0\15SCHEMA_CHANGE";

	(void)unused;
	expect_registered(&cut_over, asked, 2, schema, sizeof(schema) - 1);
	expect_registered(&cut_over, other, 2, "", 0);
	expect_registered(&cut_over, NULL, 0, "", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_asked_before_waits_for_an_origin_that_is_gone),
		cmocka_unit_test(an_origin_that_hangs_stalls_a_session_for_ever),
		cmocka_unit_test(the_second_page_takes_the_place_of_the_first),
		cmocka_unit_test(a_second_register_undoes_the_first),
		cmocka_unit_test(a_frozen_client_hears_of_the_schema_unasked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
