// SPDX-License-Identifier: Apache-2.0
/* The journal: entries through their states, what waits on disk and comes back, space, and what a dead life leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "mirror/journal.h"
#include "mirror/recovery.h"
#include "unit/directory.h"

#define MIB (1u << 20)

static _Atomic uint64_t epoch;

struct place {
	char state[DIRECTORY_MAX];
	struct journals all;
	struct recovery *recovery;
	struct recovery_found found;
	struct journal *j;
};

static void open_place(struct place *p, size_t budget)
{
	struct error error;

	p->all = (struct journals){.budget = budget, .file_size = 64u << 10, .epoch = &epoch, .retain_ns = 1000};
	if (recovery_open(p->state, JOURNAL_SYNC_NONE, &p->all, &p->recovery, &p->found, &error) < 0)
		fail_msg("%s", error.text);
	p->j = journal_new(&p->all, 0, TARGET);
	assert_non_null(p->j);
}

static void make_place(struct place *p, size_t budget)
{
	memset(p, 0, sizeof(*p));
	epoch = 0;
	assert_int_equal(directory_make(p->state), 0);
	open_place(p, budget);
}

/* As a kill does: nothing is written back, the files stay as the stores left them. */
static void die(struct place *p)
{
	char command[200];

	/* A child that is killed is what happens in life; here a copy of the directory is enough, and the lock is free with us. */
	snprintf(command, sizeof(command), "cp -a %s/journal %s/copy", p->state, p->state);
	assert_int_equal(system(command), 0);
	journal_free(p->j);
	recovery_close(p->recovery);
	snprintf(command, sizeof(command), "rm -rf %s/journal && mv %s/copy %s/journal", p->state, p->state, p->state);
	assert_int_equal(system(command), 0);
}

static void remove_place(struct place *p)
{
	journal_free(p->j);
	recovery_close(p->recovery);
	assert_int_equal(directory_remove(p->state), 0);
}

static struct record *write_one(struct place *p, enum journal_kind kind, unsigned number, size_t size, int *ret_error)
{
	uint8_t *body = malloc(size);
	struct journal_write w = {.kind = kind, .version = 4, .opcode = OP_QUERY, .pinned = true, .timestamp = number, .now = 7,
				  .keyspace = "shop", .body = span_of(body, size)};
	struct record *r;
	int error = 0;

	memset(body, (int)(number % 251), size);
	memcpy(body, &number, sizeof(number));
	r = journal_intent(p->j, &w, &error);
	free(body);
	if (ret_error)
		*ret_error = error;
	else
		assert_non_null(r);
	return r;
}

struct seen {
	unsigned count, limit, leave;
	unsigned number[4096];
	bool unknown[4096];
	struct record *record[4096];
};

static enum journal_take gather(void *context, struct record *r)
{
	struct seen *s = context;
	struct span body = record_body(r);
	unsigned number;

	memcpy(&number, body.data, sizeof(number));
	if (s->leave && number % s->leave == 0)
		return JOURNAL_LEAVE;
	if (s->limit && s->count == s->limit)
		return JOURNAL_STOP;
	for (size_t i = sizeof(number); i < body.size; i++)
		assert_int_equal(body.data[i], number % 251);
	assert_string_equal(r->keyspace, "shop");
	assert_int_equal(r->timestamp, number);
	assert_int_equal(r->now, 7);
	s->unknown[s->count] = r->unknown;
	s->record[s->count] = r;
	s->number[s->count++] = number;
	return JOURNAL_TAKE;
}

static void what_is_spilled_comes_back_in_order(void **unused)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct place p;

	(void)unused;
	make_place(&p, 64 * MIB);
	for (unsigned i = 0; i < 2000; i++) {
		struct record *r = write_one(&p, ENTRY_WRITE, i, 300, NULL);

		journal_queued(r);
		journal_spill(r);
	}
	assert_int_equal(journal_waiting(p.j), 2000);
	s->limit = 700;
	assert_false(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 700);
	assert_int_equal(journal_waiting(p.j), 1300);
	s->limit = 0;
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 2000);
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(s->number[i], i);
	/* One goes back behind the search, and is found again. */
	journal_spill(s->record[5]);
	for (unsigned i = 0; i < 2000; i++)
		if (i != 5)
			journal_done(s->record[i]);
	s->count = 0;
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 1);
	assert_int_equal(s->number[0], 5);
	journal_done(s->record[0]);
	assert_int_equal(journal_open_entries(p.j), 0);
	remove_place(&p);
	free(s);
}

static void what_was_left_is_met_again_after_a_rescan_and_counted_once(void **unused)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct record *early;
	struct place p;

	(void)unused;
	make_place(&p, 64 * MIB);
	early = write_one(&p, ENTRY_WRITE, 1, 300, NULL);
	for (unsigned i = 2; i < 602; i++) {
		struct record *r = write_one(&p, ENTRY_WRITE, i, 300, NULL);

		journal_queued(r);
		journal_spill(r);
	}
	s->leave = 3;
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 400);
	assert_int_equal(journal_left(p.j), 200);
	assert_int_equal(journal_waiting(p.j), 0);
	/* An earlier entry is spilled later: the search goes back over what was left. */
	journal_queued(early);
	journal_spill(early);
	assert_int_equal(journal_waiting(p.j) + journal_left(p.j), 201);
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 401);
	assert_int_equal(journal_left(p.j), 200);
	s->leave = 0;
	journal_rescan(p.j);
	assert_int_equal(journal_waiting(p.j), 200);
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 601);
	assert_int_equal(journal_left(p.j) + journal_waiting(p.j), 0);
	for (unsigned i = 0; i < s->count; i++)
		journal_done(s->record[i]);
	remove_place(&p);
	free(s);
}

static void space_comes_back_when_it_was_kept_for_long_enough(void **unused)
{
	struct place p;
	size_t most = 0;

	(void)unused;
	make_place(&p, 4 * MIB);
	for (unsigned i = 0; i < 100000; i++) {
		struct record *r = write_one(&p, ENTRY_WRITE, i, 500, NULL);

		journal_queued(r);
		journal_applied(r, i);
		journal_reclaim(p.j, i);
		if (p.all.held > most)
			most = p.all.held;
	}
	assert_true(most < MIB); /* retain: 1000 writes of about 540 bytes, and spares */
	assert_true(most > 512u << 10);
	remove_place(&p);
}

static void the_budget_is_a_limit_and_precaution_gives_way(void **unused)
{
	struct record *all[8192], *r;
	unsigned n = 0;
	struct place p;
	int error = 0;

	(void)unused;
	make_place(&p, MIB);
	while (n < 8192 && (all[n] = write_one(&p, ENTRY_WRITE, n, 1000, &error)))
		n++;
	assert_int_equal(error, -ENOSPC);
	assert_true(n > 950 && n < 1050);
	assert_false(journal_shrink(p.j));
	for (unsigned i = 0; i < n; i++) {
		journal_queued(all[i]);
		journal_applied(all[i], 1);
	}
	assert_null(write_one(&p, ENTRY_WRITE, 1, 1000, &error));
	assert_true(journal_shrink(p.j));
	assert_non_null(r = write_one(&p, ENTRY_WRITE, 1, 1000, &error));
	journal_done(r);
	/* One that is larger than the usual file; spares and precautions go for it. */
	while (!(r = write_one(&p, ENTRY_WRITE, 2, 600000, &error)))
		assert_true(journal_shrink(p.j));
	journal_done(r);
	assert_null(write_one(&p, ENTRY_WRITE, 3, 2 * MIB, &error));
	assert_int_equal(error, -ENOSPC);
	remove_place(&p);
}

static void what_was_confirmed_can_be_repeated_or_forgotten(void **unused)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct place p;

	(void)unused;
	make_place(&p, 16 * MIB);
	for (unsigned i = 0; i < 500; i++) {
		struct record *r = write_one(&p, i % 2 ? ENTRY_WRITE : ENTRY_ROWS, i, 300, NULL);

		journal_queued(r);
		if (i < 400)
			journal_applied(r, 10);
		else
			journal_done(r);
	}
	assert_int_equal(journal_repeat(p.j), 400);
	assert_true(journal_refill(p.j, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 400);
	for (unsigned i = 0; i < 400; i++)
		journal_applied(s->record[i], 20);
	journal_forget(p.j);
	assert_int_equal(journal_repeat(p.j), 0);
	remove_place(&p);
	free(s);
}

static void a_dead_life_is_taken_over_entry_by_entry(void **unused)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct journal *old;
	struct place p;

	(void)unused;
	make_place(&p, 16 * MIB);
	for (unsigned i = 0; i < 1000; i++) {
		struct record *r = write_one(&p, ENTRY_WRITE, i, 100 + i, NULL);

		switch (i % 5) {
		case 0: /* in doubt */
			break;
		case 1:
			journal_queued(r);
			break;
		case 2:
			journal_queued(r);
			journal_spill(r);
			break;
		case 3:
			journal_queued(r);
			journal_applied(r, 5);
			break;
		case 4:
			journal_done(r);
			break;
		}
	}
	die(&p);
	open_place(&p, 16 * MIB);
	assert_int_equal(p.found.lives, 1);
	assert_int_equal(p.found.in_doubt, 200);
	assert_int_equal(p.found.queued, 600); /* what was confirmed and kept is repeated */
	assert_int_equal(p.found.torn, 0);
	assert_false(p.found.node_restarted);
	old = recovery_take(p.recovery, TARGET);
	assert_non_null(old);
	assert_null(recovery_take(p.recovery, ORIGIN));
	assert_int_equal(journal_waiting(old), 800);
	assert_true(journal_refill(old, UINT64_MAX, gather, s));
	assert_int_equal(s->count, 800);
	for (unsigned i = 0; i < 800; i++) {
		assert_int_not_equal(s->number[i] % 5, 4);
		assert_int_equal(s->unknown[i], s->number[i] % 5 == 0);
		journal_done(s->record[i]);
	}
	assert_true(journal_reclaim(old, 1u << 30));
	assert_null(journal_files(old));
	journal_free(old);
	remove_place(&p);
	free(s);
}

/* Whatever bytes the end of a file consists of, what stands before them is found and nothing else. */
static void a_torn_tail_is_cut(void **unused)
{
	char path[300];
	struct dirent **list;
	struct place p;
	int fd, n;

	(void)unused;
	for (unsigned round = 0; round < 40; round++) {
		struct journal *old;

		make_place(&p, 16 * MIB);
		for (unsigned i = 0; i < 10; i++)
			journal_queued(write_one(&p, ENTRY_WRITE, i, 200, NULL));
		size_t used = journal_files(p.j)->used, size = journal_entry_size(4, 200);

		die(&p);
		snprintf(path, sizeof(path), "%s/journal", p.state);
		n = scandir(path, &list, NULL, alphasort);
		snprintf(path, sizeof(path), "%s/journal/%s/000000.journal", p.state, list[n - 1]->d_name);
		while (n)
			free(list[--n]);
		free(list);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0);
		/* The last entry: one byte behind its state is another than it was, or all of it was never written. */
		if (round < 30) {
			uint8_t byte;
			off_t at = (off_t)(used - size + 1 + round * 7);

			assert_int_equal(pread(fd, &byte, 1, at), 1);
			byte ^= 0x55;
			/* Padding may be anything. */
			if ((size_t)at < used - size + sizeof(struct journal_entry) + 204)
				assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		} else {
			static const uint8_t zero[4096];

			assert_int_equal(pwrite(fd, zero, 512, (off_t)(used - size)), 512);
		}
		close(fd);
		open_place(&p, 16 * MIB);
		old = recovery_take(p.recovery, TARGET);
		assert_int_equal(p.found.queued, round < 30 && 1 + round * 7 >= sizeof(struct journal_entry) + 204 ? 10 : 9);
		assert_int_equal(p.found.torn, p.found.queued == 9 && round < 30);
		journal_free(old);
		remove_place(&p);
	}
}

static void a_file_that_is_no_journal_is_put_aside(void **unused)
{
	char path[300];
	struct place p;
	int fd;

	(void)unused;
	make_place(&p, 16 * MIB);
	die(&p);
	snprintf(path, sizeof(path), "%s/journal/dead", p.state);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/journal/dead/7.journal", p.state);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "this is not a journal, it is only long enough to look like one, and then some", 76), 76);
	close(fd);
	open_place(&p, 16 * MIB);
	assert_int_equal(p.found.damaged, 1);
	assert_int_equal(p.found.queued, 0);
	remove_place(&p);
}

/* A barrier ends the epoch of all that was written before it, and its file. */
static void epochs_outlive_a_crash(void **unused)
{
	struct journal *old;
	struct journal_file *f;
	struct place p;

	(void)unused;
	make_place(&p, 16 * MIB);
	journal_queued(write_one(&p, ENTRY_WRITE, 1, 100, NULL));
	struct record *barrier = write_one(&p, ENTRY_BARRIER, 0, 100, NULL);
	epoch = 1;
	journal_roll(p.j);
	journal_queued(barrier);
	journal_queued(write_one(&p, ENTRY_WRITE, 2, 100, NULL));
	die(&p);
	epoch = 0;
	open_place(&p, 16 * MIB);
	assert_int_equal(p.found.barriers, 1);
	assert_true(epoch > 1);
	old = recovery_take(p.recovery, TARGET);
	f = journal_files(old);
	assert_int_equal(f->epoch, 0);
	assert_int_equal(f->barrier_ticket, 0);
	assert_true(f->size < p.all.file_size); /* given back when it was rolled */
	assert_int_equal(f->next->epoch, 1);
	assert_true(f->next->barrier_ticket == UINT64_MAX);
	journal_free(old);
	remove_place(&p);
}

/* A barrier must reach every worker, however full its journal is. */
static void marks_need_no_budget(void **unused)
{
	struct record *mark;
	struct place p;
	int error = 0;

	(void)unused;
	make_place(&p, MIB);
	while (write_one(&p, ENTRY_WRITE, 1, 10000, &error))
		;
	assert_non_null(mark = journal_mark(p.j));
	journal_mark_free(p.j, mark);
	remove_place(&p);
}

/* What is written behind a fence must not stand in a file before it, also where there is no room for another file. */
static void a_fence_ends_its_file_when_there_is_no_room(void **unused)
{
	struct record *all[8192], *small, *r;
	uint64_t fence;
	unsigned n = 0;
	struct place p;
	int error = 0;

	(void)unused;
	make_place(&p, MIB);
	while (n < 8192 && (all[n] = write_one(&p, ENTRY_WRITE, n, 10000, &error)))
		n++;
	assert_int_equal(error, -ENOSPC);
	assert_non_null(small = write_one(&p, ENTRY_WRITE, 1, 100, &error)); /* there is room for small ones */
	fence = journal_roll(p.j);
	assert_true(small->file->sequence < fence);
	assert_null(write_one(&p, ENTRY_WRITE, 2, 100, &error));
	assert_int_equal(error, -ENOSPC);
	/* It comes back when what stands before the fence is through, with nothing confirmed to be given up for it. */
	for (unsigned i = 0; i < n; i++)
		journal_done(all[i]);
	journal_done(small);
	while (!(r = write_one(&p, ENTRY_WRITE, 3, 100, &error)))
		assert_true(journal_shrink(p.j));
	assert_true(r->file->sequence >= fence);
	journal_done(r);
	remove_place(&p);
}

/* A counter that was sent may stand as queued on the disk: a node that went down in between must not send it again. */
static void a_counter_of_a_node_that_went_down_is_in_doubt(void **unused)
{
	struct journal_file *f;
	struct journal *old;
	char command[200];
	struct place p;

	(void)unused;
	for (int restarted = 0; restarted < 2; restarted++) {
		make_place(&p, 16 * MIB);
		journal_queued(write_one(&p, ENTRY_COUNT, 1, 100, NULL));
		/* What is to be compared may turn out to be one. */
		journal_queued(write_one(&p, ENTRY_ROWS, 2, 100, NULL));
		journal_queued(write_one(&p, ENTRY_WRITE, 3, 100, NULL));
		recovery_mark(p.recovery, 5);
		die(&p);
		snprintf(command, sizeof(command), "sed -i 's/^......../00000000/' %s/journal/*/synced", p.state);
		if (restarted)
			assert_int_equal(system(command), 0);
		open_place(&p, 16 * MIB);
		assert_int_equal(p.found.node_restarted, restarted);
		old = recovery_take(p.recovery, TARGET);
		f = journal_files(old);
		assert_int_equal(journal_file_map(f), 0);
		for (unsigned i = 0, at = sizeof(struct journal_head); i < 3; i++) {
			const struct journal_entry *e = journal_file_entry(f, at);

			assert_int_equal(journal_state(e), restarted && i < 2 ? ENTRY_SENT : ENTRY_QUEUED);
			at += (unsigned)journal_entry_size(e->keyspace_size, e->body_size);
		}
		assert_int_equal(p.found.queued, restarted ? 1 : 3);
		journal_free(old);
		remove_place(&p);
	}
}

/* Unsynced, a TRUNCATE that ran would run again behind what came later. */
static void the_end_of_a_barrier_is_synced(void **unused)
{
	struct journal_file *dirty[4];
	struct record *write, *barrier;
	struct place p;

	(void)unused;
	make_place(&p, 16 * MIB);
	write = write_one(&p, ENTRY_WRITE, 1, 100, NULL);
	barrier = write_one(&p, ENTRY_BARRIER, 2, 100, NULL);
	journal_queued(write);
	journal_queued(barrier);
	assert_int_equal(journal_dirty(p.j, dirty, 4), 1);
	journal_synced(dirty[0], true);
	journal_done(write);
	assert_int_equal(journal_dirty(p.j, dirty, 4), 0);
	journal_done(barrier);
	assert_int_equal(journal_dirty(p.j, dirty, 4), 1);
	journal_synced(dirty[0], true);
	remove_place(&p);
}

static void without_a_directory_it_is_in_memory(void **unused)
{
	struct place p = {0};
	struct record *r;

	(void)unused;
	open_place(&p, 16 * MIB);
	assert_int_equal(p.all.directory, -1);
	r = write_one(&p, ENTRY_WRITE, 1, 100, NULL);
	journal_queued(r);
	journal_done(r);
	journal_free(p.j);
	recovery_close(p.recovery);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_spilled_comes_back_in_order),
		cmocka_unit_test(what_was_left_is_met_again_after_a_rescan_and_counted_once),
		cmocka_unit_test(space_comes_back_when_it_was_kept_for_long_enough),
		cmocka_unit_test(the_budget_is_a_limit_and_precaution_gives_way),
		cmocka_unit_test(what_was_confirmed_can_be_repeated_or_forgotten),
		cmocka_unit_test(a_fence_ends_its_file_when_there_is_no_room),
		cmocka_unit_test(a_counter_of_a_node_that_went_down_is_in_doubt),
		cmocka_unit_test(a_dead_life_is_taken_over_entry_by_entry),
		cmocka_unit_test(a_torn_tail_is_cut),
		cmocka_unit_test(a_file_that_is_no_journal_is_put_aside),
		cmocka_unit_test(epochs_outlive_a_crash),
		cmocka_unit_test(marks_need_no_budget),
		cmocka_unit_test(the_end_of_a_barrier_is_synced),
		cmocka_unit_test(without_a_directory_it_is_in_memory),
	};
	log_threshold = LOG_ERROR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
