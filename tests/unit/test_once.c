// SPDX-License-Identifier: Apache-2.0
/* A whole list is sent to the target once: what became of it is asked of its rows, not tried again. */
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

#define PLAIN "INSERT INTO ks.t (k, v) VALUES (1, 2)"
#define LIST "INSERT INTO ks.t (k, l) VALUES (1, [1, 2])"

static _Atomic unsigned failures, asked;

/* The origin: whoever compares rows begins with its schema. */
static ssize_t origin_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if ((h->opcode == OP_QUERY || h->opcode == OP_PREPARE) && contains(h, body, "system_schema"))
		atomic_fetch_add(&asked, 1);
	return plain_answer(p, h, body, to);
}

/* The target: the first writes fail, or not. */
static ssize_t late_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_QUERY && contains(h, body, "INSERT") && atomic_load(&failures)) {
		atomic_fetch_sub(&failures, 1);
		atomic_fetch_add(&p->cluster->writes, 1);
		return response_write_error(h->version, h->stream, CQL_SERVER_ERROR, "late", to, ROOM);
	}
	return plain_answer(p, h, body, to);
}

static void write_one(const char *text)
{
	int fd = client_open();

	client_query(fd, 3, text);
	assert_int_equal(expect(fd, 3), OP_RESULT);
	close(fd);
}

static void begin(unsigned times)
{
	atomic_store(&failures, times);
	atomic_store(&asked, 0);
	cluster_start(&origin, origin_answer);
	cluster_start(&target, late_answer);
	agent_start(1, &mirroring);
}

static void a_write_that_may_have_arrived_is_repeated(void **unused)
{
	(void)unused;
	begin(2);
	write_one(PLAIN);
	assert_true(wait_for(&target.writes, 3));
	assert_int_equal(atomic_load(&asked), 0);
	agent_stop();
}

static void a_list_that_arrived_is_done(void **unused)
{
	uint64_t before = metrics_total(METRIC_MIRROR_APPLIED);

	(void)unused;
	begin(0);
	write_one(LIST);
	for (int i = 0; i < 5000 && metrics_total(METRIC_MIRROR_APPLIED) == before; i++)
		usleep(1000);
	assert_int_equal(metrics_total(METRIC_MIRROR_APPLIED), before + 1);
	assert_int_equal(atomic_load(&target.writes), 1);
	assert_int_equal(atomic_load(&asked), 0);
	agent_stop();
}

static void a_list_that_may_have_arrived_is_compared(void **unused)
{
	(void)unused;
	begin(2);
	write_one(LIST);
	for (int i = 0; i < 5000 && !atomic_load(&asked); i++)
		usleep(1000);
	assert_true(atomic_load(&asked) > 0);
	assert_int_equal(atomic_load(&target.writes), 1);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_write_that_may_have_arrived_is_repeated),
		cmocka_unit_test(a_list_that_arrived_is_done),
		cmocka_unit_test(a_list_that_may_have_arrived_is_compared),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
