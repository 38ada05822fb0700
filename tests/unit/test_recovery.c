// SPDX-License-Identifier: Apache-2.0
/* What an agent that was killed left in its journal reaches the target: barriers among it, in doubt, and of tables on hold. */
#include <unistd.h>

#include "mirror/hold.h"
#include "mirror/recovery.h"
#include "unit/relaytest.h"
#include "unit/directory.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

#define INSERT "INSERT INTO ks.t (k, v) VALUES (1, 2)"
#define TRUNCATE "TRUNCATE ks.t"

/* The journal of a life that has ended. */
struct left {
	char state[DIRECTORY_MAX];
	struct journals all;
	_Atomic uint64_t epoch;
	struct recovery *recovery;
	struct journal *journal;
};

static void life_begin(struct left *l)
{
	struct recovery_found found;
	struct error error;

	memset(l, 0, sizeof(*l));
	assert_int_equal(directory_make(l->state), 0);
	l->all = (struct journals){.budget = 8u << 20, .file_size = 64u << 10, .epoch = &l->epoch};
	assert_int_equal(recovery_open(l->state, JOURNAL_SYNC_NONE, &l->all, &l->recovery, &found, &error), 0);
	l->journal = journal_new(&l->all, 0, TARGET);
	assert_non_null(l->journal);
}

static void life_writes(struct left *l, const char *text, bool queued)
{
	uint8_t envelope[256];
	ssize_t n = request_write_query(4, 0, span_text(text), CL_ONE, envelope, sizeof(envelope));
	bool barrier = strcmp(text, TRUNCATE) == 0;
	struct journal_write w = {.kind = barrier ? ENTRY_BARRIER : ENTRY_WRITE, .statement = barrier ? STATEMENT_TRUNCATE : STATEMENT_INSERT,
				  .version = 4, .opcode = OP_QUERY, .keyspace = "", .now = 1, .pinned = !barrier,
				  .body = span_of(envelope + FRAME_HEADER_SIZE, (size_t)n - FRAME_HEADER_SIZE)};
	struct record *r;
	int error;

	w.timestamp = barrier ? (int64_t)atomic_fetch_add(&l->epoch, 1) : 1000;
	r = journal_intent(l->journal, &w, &error);
	assert_non_null(r);
	if (barrier)
		journal_roll(l->journal);
	if (queued)
		journal_queued(r);
}

/* The next agent finds it. */
static void life_end(struct left *l)
{
	journal_free(l->journal);
	recovery_close(l->recovery);
	cluster_start(&origin, plain_answer);
	cluster_start(&target, plain_answer);
	state_directory = l->state;
	agent_start(2, &mirroring);
}

static void agent_end(struct left *l)
{
	agent_stop();
	state_directory = "";
	assert_int_equal(directory_remove(l->state), 0);
}

static bool delivered(unsigned writes, unsigned truncates)
{
	for (int i = 0; i < 3000; i++) {
		if (atomic_load(&target.writes) == writes && atomic_load(&target.truncates) == truncates &&
		    metrics_total(METRIC_MIRROR_BACKLOG) == 0)
			return true;
		usleep(1000);
	}
	return false;
}

static void what_waited_around_a_barrier_is_delivered(void **unused)
{
	struct left l;

	(void)unused;
	life_begin(&l);
	life_writes(&l, INSERT, true);
	life_writes(&l, TRUNCATE, true);
	life_writes(&l, INSERT, true);
	life_end(&l);
	assert_true(delivered(2, 1));
	agent_end(&l);
}

/* Nobody can tell whether it was executed: it goes on the ledger, and what came after it is delivered. */
static void a_barrier_in_doubt_keeps_everything_waiting(void **unused)
{
	uint64_t before = metrics_total(METRIC_UNMIRRORED_UNKNOWN_OUTCOME);
	struct left l;

	(void)unused;
	life_begin(&l);
	life_writes(&l, INSERT, true);
	life_writes(&l, TRUNCATE, false);
	life_writes(&l, INSERT, true);
	life_end(&l);
	assert_true(delivered(2, 0));
	assert_int_equal(metrics_total(METRIC_UNMIRRORED_UNKNOWN_OUTCOME), before + 1);
	agent_end(&l);
}

static void a_held_barrier_of_an_earlier_life_stops_the_worker(void **unused)
{
	struct error error = {""};
	struct holds holds;
	struct left l;
	int fd;

	(void)unused;
	life_begin(&l);
	life_writes(&l, INSERT, true);
	life_writes(&l, TRUNCATE, true);
	life_writes(&l, INSERT, true);
	holds_init(&holds, false);
	assert_int_equal(holds_add(&holds, "ks", "t", HOLD_PERSON), 1);
	assert_int_equal(holds_save(&holds, l.state, &error), 0);
	holds_done(&holds);
	life_end(&l);
	for (int i = 0; i < 3000 && atomic_load(&target.writes) < 1; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&target.writes), 1);
	/* The worker that has it still serves. */
	for (int i = 0; i < 4; i++) {
		fd = client_open();
		client_query(fd, 3, "SELECT k FROM ks.t");
		assert_int_equal(expect(fd, 3), OP_RESULT);
		close(fd);
	}
	assert_int_equal(atomic_load(&target.truncates), 0);
	assert_int_equal(mirror_hold(&mirror, "ks", "t", HOLD_PERSON, false, &error), 1);
	mirror_rescan(&mirror);
	assert_true(delivered(2, 1));
	agent_end(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_waited_around_a_barrier_is_delivered),
		cmocka_unit_test(a_barrier_in_doubt_keeps_everything_waiting),
		cmocka_unit_test(a_held_barrier_of_an_earlier_life_stops_the_worker),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
