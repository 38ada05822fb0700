// SPDX-License-Identifier: Apache-2.0
/* The frozen topology while the origin is away, or hangs. Real relay (relaytest.h). */
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

static const char local[] = "SELECT cluster_name FROM system.local", peers[] = "SELECT peer FROM system.peers";

/* Says which cluster it is behind an empty result. */
static ssize_t names_itself(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_QUERY && contains(h, body, "system."))
		return say(h, OP_RESULT, p->cluster == &origin ? "\0\0\0\1o" : "\0\0\0\1t", 5, to);
	return plain_answer(p, h, body, to);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_asked_before_waits_for_an_origin_that_is_gone),
		cmocka_unit_test(an_origin_that_hangs_stalls_a_session_for_ever),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
