// SPDX-License-Identifier: Apache-2.0
/* A write with a TTL that a cluster without v5 confirms late is not done with that: it lives too long there. */
#include "mirror/late.h"
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

static uint64_t late(void)
{
	return metrics_total(METRIC_MIRROR_LATE);
}

static bool becomes(uint64_t (*what)(void), uint64_t value)
{
	for (int i = 0; i < 5000 && what() != value; i++)
		usleep(1000);
	return what() == value;
}

static uint64_t applied(void)
{
	return metrics_total(METRIC_MIRROR_APPLIED);
}

static void write_held_for(int fd, const char *text, unsigned us)
{
	unsigned writes = atomic_load(&target.writes);

	atomic_store(&target.hold_writes, us > 0);
	client_query(fd, 2, text);
	assert_int_equal(expect(fd, 2), OP_RESULT);
	usleep(us);
	atomic_store(&target.hold_writes, false);
	assert_true(wait_for(&target.writes, writes + 1));
}

static void late_write_with_a_ttl_is_compared(void **unused)
{
	unsigned long_us = LATE_NS / 1000 + 300000;
	uint64_t before = late(), done = applied();
	int fd;

	(void)unused;
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	late_ns = LATE_NS;
	agent_start(1, &mirroring);
	fd = client_open();
	write_held_for(fd, "INSERT INTO ks.t (k) VALUES (1) USING TTL 100", 0);
	assert_true(becomes(applied, done + 1));
	write_held_for(fd, "DELETE FROM ks.t WHERE k = 'INSERT'", long_us);
	assert_true(becomes(applied, done + 2));
	assert_int_equal(late(), before);
	write_held_for(fd, "INSERT INTO ks.t (k) VALUES (1) USING TTL 100", long_us);
	assert_true(becomes(late, before + 1));
	/* Nobody knows the table: it may have a default TTL. */
	write_held_for(fd, "INSERT INTO ks.t (k) VALUES (1)", long_us);
	assert_true(becomes(late, before + 2));
	assert_int_equal(applied(), done + 2);
	close(fd);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(late_write_with_a_ttl_is_compared)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
