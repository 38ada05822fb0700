// SPDX-License-Identifier: Apache-2.0
/* acknowledgement: both. When a write's answer reaches the client, and what passes it by. */
#include "unit/relaytest.h"

#define MS 1000000ull

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

static struct {
	uint64_t both, late, journal;
} counted;

static void count(void)
{
	counted.both = metrics_total(METRIC_ACKNOWLEDGED_BOTH);
	counted.late = metrics_total(METRIC_ACKNOWLEDGED_LATE);
	counted.journal = metrics_total(METRIC_ACKNOWLEDGED_JOURNAL);
}

static void expect_counted(uint64_t both, uint64_t late, uint64_t journal)
{
	assert_int_equal(metrics_total(METRIC_ACKNOWLEDGED_BOTH) - counted.both, both);
	assert_int_equal(metrics_total(METRIC_ACKNOWLEDGED_LATE) - counted.late, late);
	assert_int_equal(metrics_total(METRIC_ACKNOWLEDGED_JOURNAL) - counted.journal, journal);
}

static int begin_with(ssize_t (*answer)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *), uint64_t wait_ns)
{
	cluster_start(&origin, answer);
	cluster_start(&target, plain_answer);
	acknowledge_ns = wait_ns;
	agent_start(1, &mirroring);
	for (int i = 0; i < 5000 && metrics_total(METRIC_MIRROR_CONNECTIONS) == 0; i++)
		usleep(1000);
	assert_true(metrics_total(METRIC_MIRROR_CONNECTIONS) > 0);
	count();
	return client_open();
}

static int begin(uint64_t wait_ns)
{
	return begin_with(plain_answer, wait_ns);
}

static bool silent(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 0;
}

static void answer_waits_for_the_target_and_others_pass_it(void **unused)
{
	int fd = begin(60000 * MS);

	(void)unused;
	atomic_store(&target.hold_writes, true);
	client_query(fd, 2, "INSERT INTO ks.t (k) VALUES (1)");
	assert_true(wait_for(&origin.writes, 1));
	client_query(fd, 3, "SELECT k FROM ks.t");
	assert_int_equal(expect(fd, 3), OP_RESULT);
	client_query(fd, 2, "SELECT k FROM ks.t"); /* its stream id is still taken */
	assert_int_equal(expect(fd, 2), OP_ERROR);
	close(fd);
	atomic_store(&target.hold_writes, false);

	fd = client_open();
	atomic_store(&target.hold_writes, true);
	for (int16_t i = 2; i < 12; i++)
		client_query(fd, i, "INSERT INTO ks.t (k) VALUES (2)");
	assert_true(silent(fd, 300));
	atomic_store(&target.hold_writes, false);
	unsigned seen = 0;

	for (int i = 2; i < 12; i++) {
		struct frame_header h = {0};

		assert_int_equal(client_receive(fd, &h, answer_body), OP_RESULT);
		seen |= 1u << h.stream;
	}
	assert_int_equal(seen, 0xffc);
	assert_int_equal(atomic_load(&target.writes), 11);
	expect_counted(11, 0, 0);
	close(fd);
	agent_stop();
}

static void answer_comes_when_the_time_is_over(void **unused)
{
	int fd = begin(200 * MS);
	uint64_t before, took;

	(void)unused;
	atomic_store(&target.hold_writes, true);
	before = clock_now_ns();
	client_query(fd, 2, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	took = clock_now_ns() - before;
	if (took < 195 * MS || took > 3000 * MS)
		fail_msg("answered after %llu ms", (unsigned long long)(took / MS));
	expect_counted(0, 1, 0);
	atomic_store(&target.hold_writes, false);
	assert_true(wait_for(&target.writes, 1));
	client_query(fd, 2, "INSERT INTO ks.t (k) VALUES (2)");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	expect_counted(1, 1, 0);
	close(fd);
	agent_stop();
}

static void client_that_goes_while_its_answer_waits(void **unused)
{
	int fd = begin(60000 * MS);

	(void)unused;
	atomic_store(&target.hold_writes, true);
	for (int16_t i = 2; i < 20; i++)
		client_query(fd, i, "INSERT INTO ks.t (k) VALUES (1)");
	assert_true(wait_for(&origin.writes, 18));
	close(fd);
	usleep(50000);
	atomic_store(&target.hold_writes, false);
	assert_true(wait_for(&target.writes, 18));
	agent_stop(); /* not before its sessions are gone */
	assert_int_equal(metrics_total(METRIC_SESSIONS), 0);
}

static void nothing_is_waited_for_where_nothing_is_connected(void **unused)
{
	int fd = begin(60000 * MS);

	(void)unused;
	cluster_stop(&target);
	for (int i = 0; i < 5000 && metrics_total(METRIC_MIRROR_CONNECTIONS) > 0; i++)
		usleep(1000);
	client_query(fd, 2, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	expect_counted(0, 0, 1);
	close(fd);
	cluster_start(&target, plain_answer); /* for agent_stop() */
	agent_stop();
}

/* Refused writes and reads are answered as ever. */
static ssize_t refuses(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_QUERY && contains(h, body, "INSERT"))
		return response_write_error(h->version, h->stream, CQL_INVALID, "no", to, ROOM);
	return plain_answer(p, h, body, to);
}

static void refused_write_is_answered_at_once(void **unused)
{
	int fd = begin_with(refuses, 60000 * MS);

	(void)unused;
	atomic_store(&target.hold_writes, true);
	client_query(fd, 2, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 2), OP_ERROR);
	expect_counted(0, 0, 0);
	atomic_store(&target.hold_writes, false);
	close(fd);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(answer_waits_for_the_target_and_others_pass_it),
	    cmocka_unit_test(answer_comes_when_the_time_is_over),
	    cmocka_unit_test(client_that_goes_while_its_answer_waits),
	    cmocka_unit_test(nothing_is_waited_for_where_nothing_is_connected),
	    cmocka_unit_test(refused_write_is_answered_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
