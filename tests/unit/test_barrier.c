// SPDX-License-Identifier: Apache-2.0
/* TRUNCATE reaches the other cluster behind everything that came before it, wherever that waits; it leaves no tombstone to come too late for. */

#include "mirror/hold.h"
#include "unit/relaytest.h"
#include "unit/directory.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

/* What the target executed: the numbers that were written, −1 for a TRUNCATE, −2 for one of another table. */
#define SEEN_MAX 20000
static int seen[SEEN_MAX];
static _Atomic unsigned seen_count;
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool away;

static void note(int what)
{
	pthread_mutex_lock(&seen_lock);
	if (seen_count < SEEN_MAX) {
		seen[seen_count] = what;
		atomic_fetch_add(&seen_count, 1); /* whoever waits for it may look */
	}
	pthread_mutex_unlock(&seen_lock);
}

static ssize_t target_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	const char *at;

	if (atomic_load(&away))
		return -1;
	if (h->opcode == OP_QUERY && contains(h, body, "TRUNCATE"))
		note(contains(h, body, "ks.other") ? -2 : -1);
	else if (h->opcode == OP_QUERY && (at = memmem(body, h->length, "VALUES (", 8)))
		note(atoi(at + 8));
	return plain_answer(p, h, body, to);
}

static void begin(unsigned workers)
{
	cluster_start(&origin, plain_answer);
	cluster_start(&target, target_answer);
	agent_start(workers, &mirroring);
}

static void write_number(int fd, int number)
{
	char text[80];

	snprintf(text, sizeof(text), "INSERT INTO ks.t (k) VALUES (%d)", number);
	client_query(fd, (int16_t)(number % 90), text);
}

static void ask(int fd, const char *text)
{
	client_query(fd, 95, text);
	assert_int_equal(expect(fd, 95), OP_RESULT);
}

/* The next answer, whichever it is for. */
static int answered(int fd)
{
	struct frame_header h;

	return client_receive(fd, &h, answer_body);
}

/* The target goes away: its connections end, and new ones do. */
static void leave(void)
{
	atomic_store(&away, true);
	for (unsigned i = 0; i < atomic_load(&target.count); i++)
		shutdown(target.peer[i].fd, SHUT_RDWR);
	usleep(50000);
}

static unsigned place_of(int what)
{
	for (unsigned i = 0; i < seen_count; i++)
		if (seen[i] == what)
			return i;
	return SEEN_MAX;
}

#define LEFT 14400 /* more than a worker takes into memory in two goes */

static void what_an_earlier_life_left_comes_first(void **unused)
{
	int fd;

	assert_int_equal(directory_setup(unused), 0);
	state_directory = directory;
	seen_count = 0;
	atomic_store(&away, true);
	begin(2);
	fd = client_open();
	for (int i = 0; i < LEFT; i += 90) {
		for (int k = i; k < i + 90; k++)
			write_number(fd, k);
		for (int k = 0; k < 90; k++)
			assert_int_equal(answered(fd), OP_RESULT);
	}
	close(fd);
	agent_stop();

	begin(2);
	fd = client_open();
	ask(fd, "TRUNCATE ks.t");
	write_number(fd, LEFT + 1);
	assert_int_equal(answered(fd), OP_RESULT);
	atomic_store(&away, false);
	assert_true(wait_for(&seen_count, LEFT + 2));
	assert_int_equal(place_of(-1), LEFT);
	assert_int_equal(seen[LEFT + 1], LEFT + 1);
	close(fd);
	agent_stop();
	state_directory = "";
	assert_int_equal(directory_teardown(unused), 0);
}

static void what_a_node_may_have_forgotten_comes_first(void **unused)
{
	int fd;

	(void)unused;
	seen_count = 0;
	retain_ms = 600000;
	begin(2);
	retain_ms = 0;
	fd = client_open();
	write_number(fd, 1);
	assert_int_equal(answered(fd), OP_RESULT);
	assert_true(wait_for(&seen_count, 1));
	usleep(50000); /* it is confirmed */
	leave();
	ask(fd, "TRUNCATE ks.t");
	write_number(fd, 2);
	assert_int_equal(answered(fd), OP_RESULT);
	atomic_store(&away, false);
	assert_true(wait_for(&seen_count, 4));
	for (int i = 0; i < 4; i++)
		assert_int_equal(seen[i], ((int[]){1, 1, -1, 2})[i]);
	close(fd);
	agent_stop();
}

static void hold(bool on)
{
	struct error error;

	assert_int_equal(mirror_hold(&mirror, "ks", "t", HOLD_PERSON, on, &error), 1);
	if (!on)
		mirror_rescan(&mirror);
}

#define CLIENTS 12

static void what_waits_for_its_table_comes_first(void **unused)
{
	int fd[CLIENTS];

	(void)unused;
	seen_count = 0;
	atomic_store(&away, false);
	begin(4);
	hold(true);
	for (int i = 0; i < CLIENTS; i++) {
		char text[120];

		fd[i] = client_open();
		snprintf(text, sizeof(text), "BEGIN BATCH INSERT INTO ks.t (k) VALUES (%d); INSERT INTO ks.u (k) VALUES (0); APPLY BATCH", i + 1);
		ask(fd[i], text);
	}
	/* One that has nothing to do with it does not wait. */
	ask(fd[0], "TRUNCATE ks.other");
	assert_true(wait_for(&seen_count, 1));
	assert_int_equal(seen[0], -2);
	/* Of the other table of those batches, which is on no hold itself. */
	ask(fd[0], "TRUNCATE ks.u");
	usleep(300000);
	assert_int_equal(seen_count, 1);
	hold(false);
	assert_true(wait_for(&seen_count, CLIENTS + 2));
	assert_int_equal(place_of(-1), CLIENTS + 1);

	/* Of the table that is on hold: it waits itself, on one worker; what came before it waits on all. */
	seen_count = 0;
	hold(true);
	for (int i = 0; i < CLIENTS; i++) {
		char text[80];

		snprintf(text, sizeof(text), "BEGIN BATCH INSERT INTO ks.t (k) VALUES (%d); APPLY BATCH", i + 1);
		ask(fd[i], text);
	}
	ask(fd[0], "TRUNCATE ks.t");
	for (int i = 0; i < CLIENTS; i++)
		write_number(fd[i], 50 + i);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(answered(fd[i]), OP_RESULT);
	usleep(300000);
	assert_int_equal(seen_count, 0);
	hold(false);
	assert_true(wait_for(&seen_count, 2 * CLIENTS + 1));
	assert_int_equal(place_of(-1), CLIENTS);
	for (int i = 0; i < CLIENTS; i++)
		close(fd[i]);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_an_earlier_life_left_comes_first),
		cmocka_unit_test(what_a_node_may_have_forgotten_comes_first),
		cmocka_unit_test(what_waits_for_its_table_comes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
