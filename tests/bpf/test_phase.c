/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to clients while the agent is away, in each phase; how its absence is noticed; what is on
 * record afterwards. */
#include "bpf/lab.h"

#define GRACE_MS 400

static int cluster, cluster6;

static int setup(void **state)
{
	(void)state;
	cluster = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, LAB_PORT);
	cluster6 = lab_listen(LAB_CLUSTER, LAB_CLUSTER6, LAB_PORT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(cluster);
	close(cluster6);
	return 0;
}

static struct lab_agent open_in(enum intercept_phase phase)
{
	struct intercept_options options = lab_options();

	options.phase = phase;
	options.grace_ms = GRACE_MS;
	return lab_agent_open(&options);
}

/* Where a connect goes, by phase: while the agent serves, at once when it is gone, and when the grace is
 * over. */
static const struct {
	enum intercept_phase phase;
	const char *name, *serving, *gone, *later;
} rows[] = {
    {INTERCEPT_OBSERVE, "observe", "agent", "cluster", "cluster"},
    {INTERCEPT_MIRROR, "mirror", "agent", "ECONNREFUSED", "cluster"},
    {INTERCEPT_DRAIN, "drain", "agent", "ECONNREFUSED", "ECONNREFUSED"},
    {INTERCEPT_CUTOVER, "cutover", "agent", "ECONNREFUSED", "ECONNREFUSED"},
    {INTERCEPT_ROLLBACK, "rollback", "agent", "ECONNREFUSED", "ECONNREFUSED"},
    {INTERCEPT_FINISH, "finish", "agent", "ECONNREFUSED", "ECONNREFUSED"},
};

static void expect_where(struct lab_agent *a, const char *expected, const char *phase, const char *when)
{
	const char *where = lab_where(a, LAB_POD_A, cluster);

	if (strcmp(where, expected))
		fail_msg("phase %s, agent %s: the client got \"%s\" instead of \"%s\"", phase, when, where,
			 expected);
}

/* The listener closes, as it does when the process dies: noticed by the kernel, no heartbeat has to run out.
 */
static void test_listener_gone(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct lab_agent a = open_in(rows[i].phase);
		uint64_t end;

		expect_where(&a, rows[i].serving, rows[i].name, "serving");
		close(a.listener);
		end = clock_now_ns() + (GRACE_MS + 20) * 1000000ull;
		a.listener = -1;
		expect_where(&a, rows[i].gone, rows[i].name, "gone");
		while (clock_now_ns() < end)
			usleep(5000);
		expect_where(&a, rows[i].later, rows[i].name, "gone for longer than the grace");
		lab_agent_close(&a, INTERCEPT_REMOVE);
	}
}

/* The heartbeat is withdrawn by a planned stop; the listener may still be open in another process. */
static void test_agent_stopped(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct lab_agent a = open_in(rows[i].phase);
		struct error e = {""};
		uint64_t end;

		intercept_close(a.it, INTERCEPT_KEEP);
		end = clock_now_ns() + (GRACE_MS + 20) * 1000000ull;
		expect_where(&a, rows[i].gone, rows[i].name, "stopped");
		while (clock_now_ns() < end)
			usleep(5000);
		expect_where(&a, rows[i].later, rows[i].name, "stopped for longer than the grace");
		close(a.listener);
		close(a.listener6);
		assert_int_equal(intercept_remove_pinned(NULL, &e), 0);
	}
}

static void test_refused_means_econnrefused_in_every_family(void **state)
{
	struct lab_agent a = open_in(INTERCEPT_CUTOVER);

	(void)state;
	close(a.listener);
	close(a.listener6);
	a.listener = a.listener6 = -1;
	assert_int_equal(lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT), -ECONNREFUSED);
	assert_int_equal(lab_connect(LAB_POD_A, "::ffff:" LAB_CLUSTER4, LAB_PORT), -ECONNREFUSED);
	assert_int_equal(lab_connect(LAB_POD_A, LAB_CLUSTER6, LAB_PORT), -ECONNREFUSED);
	assert_int_equal(lab_counter(a.it, "refused_agent_gone"), 3);
	intercept_close(a.it, INTERCEPT_REMOVE);
}

static void test_observe_may_leave_connections_direct(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a;

	(void)state;
	options.observe_relays = false;
	a = lab_agent_open(&options);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	assert_int_equal(lab_counter(a.it, "observed"), 1);
	assert_int_equal(intercept_set_phase(a.it, INTERCEPT_MIRROR), 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	assert_int_equal(intercept_set_phase(a.it, 99), -EINVAL);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* In finish with target nodes the agent's health does not matter. */
static void test_finish_with_targets_needs_no_agent(void **state)
{
	struct lab_agent a = open_in(INTERCEPT_FINISH);
	struct sockaddr_storage target = lab_address("10.77.2.1", 7777);
	const struct sockaddr *targets[1] = {(struct sockaddr *)&target};
	int listener = lab_listen(LAB_HOST, "10.77.2.1", 7777), fd;
	struct error e = {""};

	(void)state;
	assert_int_equal(intercept_set_direct(a.it, targets, 1, &e), 0);
	lab_forget_carried(a.it);
	lab_agent_close(&a, INTERCEPT_KEEP);
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	assert_true(lab_readable(listener, 1000));
	close(fd);
	close(listener);
	assert_int_equal(intercept_remove_pinned(NULL, &e), 0);
}

static const char *where_to(int listener)
{
	int fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT), end;

	if (fd < 0)
		return fd == -ECONNREFUSED ? "ECONNREFUSED" : strerror(-fd);
	end = lab_take(listener);
	close(end);
	close(fd);
	return end < 0 ? "elsewhere" : "there";
}

/* What mirror is configured to do, never refused or always, is not what a carried process gets in finish. */
static void test_finish_has_a_grace_of_its_own(void **state)
{
	static const unsigned mirror_grace_ms[] = {1, UINT32_MAX};
	int target = lab_listen(LAB_HOST, "10.77.2.1", 7777);
	struct sockaddr_storage address = lab_address("10.77.2.1", 7777);
	const struct sockaddr *targets[1] = {(struct sockaddr *)&address};
	struct error e = {""};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(mirror_grace_ms) / sizeof(*mirror_grace_ms); i++) {
		struct intercept_options options = lab_options();
		struct lab_agent a;
		uint64_t end;

		/* By a move, and by a start. */
		options.phase = i & 1 ? INTERCEPT_FINISH : INTERCEPT_MIRROR;
		options.grace_ms = mirror_grace_ms[i / 2];
		options.finish_grace_ms = GRACE_MS;
		a = lab_agent_open(&options);
		assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent"); /* carried from now on */
		assert_int_equal(intercept_set_direct(a.it, targets, 1, &e), 0);
		if (!(i & 1))
			assert_int_equal(intercept_set_phase(a.it, INTERCEPT_FINISH), 0);
		close(a.listener);
		end = clock_now_ns() + (GRACE_MS + 20) * 1000000ull;
		a.listener = -1;
		usleep(20000);
		assert_string_equal(where_to(target), "ECONNREFUSED");
		while (clock_now_ns() < end)
			usleep(5000);
		assert_string_equal(where_to(target), "there");
		lab_agent_close(&a, INTERCEPT_REMOVE);
	}
	close(target);
}

static void test_stalled_worker_ends_the_heartbeat(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a;
	uint64_t end;

	(void)state;
	options.workers = 2;
	options.heartbeat_ms = 120;
	options.stall_ms = 100;
	a = lab_agent_open(&options);
	/* both move: served for much longer than one beat is good for */
	for (end = clock_now_ns() + 400000000ull; clock_now_ns() < end; usleep(5000)) {
		intercept_beat(a.it, 0);
		intercept_beat(a.it, 1);
	}
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	/* one of them hangs */
	for (end = clock_now_ns() + 400000000ull; clock_now_ns() < end; usleep(5000))
		intercept_beat(a.it, 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	assert_int_equal(lab_counter(a.it, "bypassed_agent_stale"), 1);
	/* and comes back */
	for (end = clock_now_ns() + 200000000ull; clock_now_ns() < end; usleep(5000)) {
		intercept_beat(a.it, 0);
		intercept_beat(a.it, 1);
	}
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_no_address_of_the_family(void **state)
{
	struct lab_agent a = open_in(INTERCEPT_MIRROR);
	struct sockaddr_storage none = lab_address("::", 0);
	struct error e = {""};
	int fd;

	(void)state;
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&none, &e), 0);
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER6, LAB_PORT);
	assert_true(fd >= 0);
	assert_true(lab_readable(cluster6, 1000));
	close(lab_take(cluster6));
	close(fd);
	assert_int_equal(lab_counter(a.it, "bypassed_no_address"), 1);
	intercept_set_phase(a.it, INTERCEPT_CUTOVER);
	assert_int_equal(lab_connect(LAB_POD_A, LAB_CLUSTER6, LAB_PORT), -ECONNREFUSED);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	/* the wildcard is no address that anybody could be sent to */
	none = lab_address("0.0.0.0", 9042);
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&none, &e), -EINVAL);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* Several listeners on one address (SO_REUSEPORT), as one for each worker: only the last one's end is the
 * agent's. */
static void test_last_listener_counts(void **state)
{
	struct lab_agent a = open_in(INTERCEPT_CUTOVER);
	struct sockaddr_storage address = lab_address("10.77.1.1", 0);
	struct error e = {""};
	int first, second, on = 1;

	(void)state;
	first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	second = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(first, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(second, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	assert_int_equal(bind(first, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	address = lab_local(first);
	assert_int_equal(bind(second, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(listen(first, 16) | listen(second, 16), 0);
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&address, &e), 0);
	close(a.listener);
	a.listener = second;
	close(first);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	close(second);
	a.listener = -1;
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "ECONNREFUSED");
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* In the root cgroup there is no sockops for the agent: acceleration is off, and only the heartbeat tells
 * that it is gone. */
static void test_agent_in_the_root_cgroup(void **state)
{
	struct intercept_options options = lab_options();
	char root[PATH_MAX], procs[2 * PATH_MAX];
	struct lab_agent a = {.listener = -1};
	struct error e = {""};
	const char *why;
	int listener;

	(void)state;
	assert_int_equal(mount_find("cgroup2", root, sizeof(root)), 0);
	options.agent_cgroup = root;
	options.acceleration = INTERCEPT_ON;
	options.heartbeat_ms = 200;
	assert_int_equal(intercept_open(&options, &a.it, &e), 0);
	assert_false(intercept_accelerated(a.it, &why));
	assert_non_null(strstr(why, "root cgroup"));
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", root);
	lab_write(procs, "0");
	listener = lab_listen(LAB_HOST, "10.77.1.1", 0);
	lab_watch(a.it, LAB_CLUSTER4, -1);
	a.listener = listener;
	a.listener6 = -1;
	a.address = lab_local(listener);
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&a.address, &e), 0);
	assert_int_equal(intercept_start(a.it, &e), 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	lab_leave();
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

struct seen {
	unsigned kinds[8];
	struct intercept_event bypass, ended;
};

static void see(void *opaque, const struct intercept_event *event)
{
	struct seen *seen = opaque;

	seen->kinds[event->kind]++;
	if (event->kind == INTERCEPT_EVENT_BYPASSED)
		seen->bypass = *event;
	if (event->kind == INTERCEPT_EVENT_BYPASS_ENDED)
		seen->ended = *event;
}

/* While no agent ran, a client went past. The next agent learns of it: it is open now, or it was, from when
 * to when. */
static void test_bypasses_are_on_record(void **state)
{
	struct lab_agent a = open_in(INTERCEPT_OBSERVE);
	struct seen seen = {0};
	int fd, end;

	(void)state;
	lab_agent_close(&a, INTERCEPT_KEEP);
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	end = lab_take(cluster);
	assert_true(end >= 0);

	a = open_in(INTERCEPT_OBSERVE);
	assert_int_equal(intercept_bypassed(a.it, see, &seen), 1);
	assert_string_equal(lab_text(&seen.bypass.destination), "10.77.3.2:9042");
	assert_string_equal(seen.bypass.program, lab_program());
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(intercept_events_poll(a.it, see, &seen), 1);
	assert_int_equal(seen.kinds[INTERCEPT_EVENT_BYPASSED], 1);
	assert_true(!strcmp(seen.bypass.cause, "agent gone") || !strcmp(seen.bypass.cause, "agent stale"));
	close(fd);
	close(end);
	for (int i = 0; i < 500 && intercept_bypassed(a.it, NULL, NULL); i++)
		usleep(2000);
	assert_int_equal(intercept_bypassed(a.it, NULL, NULL), 0);
	assert_int_equal(intercept_events_poll(a.it, see, &seen), 1);
	assert_int_equal(seen.kinds[INTERCEPT_EVENT_BYPASS_ENDED], 1);
	assert_int_equal(seen.ended.client_cookie, seen.bypass.client_cookie);
	assert_true(seen.ended.duration_ns > 0);
	assert_true(seen.ended.at_ns - seen.ended.duration_ns >= seen.bypass.at_ns - 1000000);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_nothing_is_steered_before_start(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a = {.listener = -1};
	struct error e = {""};

	(void)state;
	options.phase = INTERCEPT_CUTOVER;
	assert_int_equal(intercept_open(&options, &a.it, &e), 0);
	lab_watch(a.it, LAB_CLUSTER4, -1);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	close(a.listener);
	intercept_close(a.it, INTERCEPT_REMOVE);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_nothing_is_steered_before_start),
	    cmocka_unit_test(test_listener_gone),
	    cmocka_unit_test(test_agent_stopped),
	    cmocka_unit_test(test_refused_means_econnrefused_in_every_family),
	    cmocka_unit_test(test_observe_may_leave_connections_direct),
	    cmocka_unit_test(test_finish_with_targets_needs_no_agent),
	    cmocka_unit_test(test_finish_has_a_grace_of_its_own),
	    cmocka_unit_test(test_stalled_worker_ends_the_heartbeat),
	    cmocka_unit_test(test_no_address_of_the_family),
	    cmocka_unit_test(test_bypasses_are_on_record),
	    cmocka_unit_test(test_last_listener_counts),
	    cmocka_unit_test(test_agent_in_the_root_cgroup),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
