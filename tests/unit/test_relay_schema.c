// SPDX-License-Identifier: Apache-2.0
/* Schema changes on their way to a target of two nodes. Real relay and mirror, clusters that functions here play (relaytest.h). */
#include "unit/relaytest.h"

#define CHANGES 12u

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};
static struct cluster_play other;
static _Atomic unsigned changes[3]; /* origin, the target's first node, its second */

static ssize_t counting(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_QUERY && contains(h, body, "CREATE"))
		atomic_fetch_add(&changes[p->cluster == &origin ? 0 : p->cluster == &target ? 1 : 2], 1);
	return plain_answer(p, h, body, to);
}

/* What one change made the next one, of whichever worker, sees at that node without waiting for agreement. */
static void they_all_go_to_one_node(void **unused)
{
	int fd[4];

	(void)unused;
	cluster_start(&other, counting);
	second_node = &other;
	cluster_start(&origin, counting);
	cluster_start(&target, counting);
	agent_start(2, &mirroring);
	for (int i = 0; i < 4; i++) {
		fd[i] = client_open();
		client_query(fd[i], 2, "INSERT INTO ks.t (k) VALUES (1)"); /* the mirror's connections are there */
		assert_int_equal(expect(fd[i], 2), OP_RESULT);
	}
	for (int i = 0; i < 5000 && atomic_load(&target.writes) + atomic_load(&other.writes) < 4; i++)
		usleep(1000);
	assert_true(atomic_load(&other.count) >= 2); /* both workers', so that they had the choice */
	for (unsigned i = 0; i < CHANGES; i++) {
		client_query(fd[i % 4], 3, "CREATE TABLE ks.t2 (k int PRIMARY KEY)");
		assert_int_equal(expect(fd[i % 4], 3), OP_RESULT);
	}
	assert_int_equal(atomic_load(&changes[0]), CHANGES);
	assert_true(wait_for(&changes[1], CHANGES));
	assert_int_equal(atomic_load(&changes[2]), 0);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	agent_stop();
	cluster_stop(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_all_go_to_one_node),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
