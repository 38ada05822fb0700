/* SPDX-License-Identifier: Apache-2.0 */
/* Agents that follow one another: planned, killed, by mistake; and that nothing stays behind when it shall
 * not. */
#include <bpf/bpf.h>

#include "bpf/lab.h"

static int cluster;

static int setup(void **state)
{
	(void)state;
	cluster = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, LAB_PORT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(cluster);
	return 0;
}

/* Each test starts from nothing, also after one that failed. */
static int sweep(void **state)
{
	(void)state;
	intercept_remove_pinned(NULL, NULL);
	return 0;
}

/* Serves one client: who served, and whether the destination was known. */
static void serve_one(struct lab_agent *a, char name)
{
	struct intercept_origin origin;
	int code = -1, fd = lab_accept(a, a->listener, &origin, &code);
	char answer = code ? 'U' : name;

	if (fd < 0)
		return;
	if (send(fd, &answer, 1, MSG_NOSIGNAL) != 1)
		perror("send");
	close(fd);
	intercept_release(a->it, code ? NULL : origin.slot);
}

/* An agent in a process of its own: serves until it is superseded, and then what is still under way. */
static pid_t agent_process(const struct intercept_options *options, int *ret_ready)
{
	int ready[2];
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child) {
		struct lab_agent a;
		uint64_t last;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		a = lab_agent_open(options);
		if (write(ready[1], "r", 1) != 1)
			_exit(3);
		last = clock_now_ns();
		while (!intercept_superseded(a.it) || clock_now_ns() - last < 200000000ull) {
			if (!intercept_superseded(a.it))
				last = clock_now_ns();
			if (lab_readable(a.listener, 20)) {
				serve_one(&a, 'O');
				last = clock_now_ns();
			}
		}
		lab_agent_close(&a, INTERCEPT_KEEP);
		_exit(0);
	}
	close(ready[1]);
	*ret_ready = ready[0];
	return child;
}

static void await_byte(int fd)
{
	char byte;

	assert_true(lab_readable(fd, 5000));
	assert_int_equal(read(fd, &byte, 1), 1);
	close(fd);
}

struct tally {
	unsigned old, new, refused, unattributed, silent;
};

/* A client that connects again and again, as fast as it is answered; its tally comes through the pipe when it
 * is told to stop. */
static pid_t client_process(int *ret_result, int *ret_stop)
{
	int result[2], stop[2];
	pid_t child;

	assert_int_equal(pipe(result), 0);
	assert_int_equal(pipe(stop), 0);
	child = fork();
	if (!child) {
		struct tally t = {0};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(stop[1]);
		while (!lab_readable(stop[0], 0)) {
			int fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
			char answer = 0;

			if (fd < 0) {
				t.refused++;
				continue;
			}
			if (lab_readable(fd, 3000) && recv(fd, &answer, 1, 0) == 1) {
				t.old += answer == 'O';
				t.new += answer == 'N';
				t.unattributed += answer == 'U';
			} else {
				t.silent++;
			}
			close(fd);
		}
		if (write(result[1], &t, sizeof(t)) != sizeof(t))
			_exit(3);
		_exit(0);
	}
	close(stop[0]);
	close(result[1]);
	*ret_result = result[0];
	*ret_stop = stop[1];
	return child;
}

static void expect_takeover_without_a_hole(enum intercept_acceleration acceleration)
{
	struct intercept_options options = lab_options();
	int ready, result, stop, status;
	pid_t old, client;
	struct lab_agent a;
	struct tally t;
	uint64_t end;

	options.acceleration = acceleration;
	options.phase = INTERCEPT_CUTOVER; /* the strictest: any hole would be a refused connect */
	old = agent_process(&options, &ready);
	await_byte(ready);
	client = client_process(&result, &stop);
	usleep(150000);

	options.takeover = true;
	a = lab_agent_open(&options);
	for (end = clock_now_ns() + 700000000ull; clock_now_ns() < end;)
		if (lab_readable(a.listener, 20))
			serve_one(&a, 'N');
	close(stop);
	while (!lab_readable(result, 0))
		if (lab_readable(a.listener, 20))
			serve_one(&a, 'N');
	assert_int_equal(read(result, &t, sizeof(t)), sizeof(t));
	close(result);
	assert_int_equal(waitpid(client, &status, 0), client);
	assert_int_equal(waitpid(old, &status, 0), old);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	print_message("served by the old agent %u, by the new one %u\n", t.old, t.new);
	assert_int_equal(t.refused, 0);
	assert_int_equal(t.unattributed, 0);
	assert_int_equal(t.silent, 0);
	assert_true(t.old > 10);
	assert_true(t.new > 10);
	/* the lock came free with the old agent and is ours now */
	for (int i = 0; i < 500 && !atomic_load(&a.it->locked); i++)
		usleep(5000);
	assert_true(atomic_load(&a.it->locked));
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_takeover_without_a_refused_connect(void **state)
{
	(void)state;
	expect_takeover_without_a_hole(INTERCEPT_OFF);
}

static void test_takeover_with_acceleration(void **state)
{
	(void)state;
	expect_takeover_without_a_hole(INTERCEPT_ON);
}

static void test_second_agent_is_refused(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a = lab_agent_open(&options);
	struct intercept *second = NULL;
	struct error e = {""};
	char pid[32];

	(void)state;
	assert_int_equal(intercept_open(&options, &second, &e), -EBUSY);
	assert_null(second);
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(e.text, pid));
	assert_non_null(strstr(e.text, "takeover"));
	/* and the first did not suffer from it */
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* A second one with pins of its own, which no lock keeps apart: told by its programs. */
static void test_second_agent_with_other_pins_is_refused(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a = lab_agent_open(&options);
	struct intercept *second = NULL;
	struct error e = {""};

	(void)state;
	options.pin_root = "/sys/fs/bpf/elsewhere";
	assert_int_equal(intercept_open(&options, &second, &e), -EEXIST);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, "another cqlferry agent"));
	assert_int_equal(access(options.pin_root, F_OK), -1);
	/* on cgroups of its own it may live */
	options.cgroup_count = 0;
	assert_int_equal(intercept_open(&options, &second, &e), 0);
	assert_int_equal(intercept_cgroup_add(second, lab.cgroup[LAB_POD_A], &e), -EEXIST);
	intercept_close(second, INTERCEPT_REMOVE);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static uint32_t link_id(enum hook hook, const char *cgroup)
{
	struct bpf_link_info info = {0};
	__u32 size = sizeof(info);
	char path[PATH_MAX];
	uint64_t id;
	int fd;

	assert_int_equal(cgroup_id(cgroup, &id), 0);
	snprintf(path, sizeof(path), "%s/cqlferry/v%d/link-%s-%llu", lab.pins, ABI_LAYOUT, hook_name(hook),
		 (unsigned long long)id);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
	close(fd);
	return info.id;
}

/* kill -9: at once the phase's rule; the next agent finds all in place and goes on with the same links. */
static void test_killed_agent_and_its_successor(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent none = {.listener = -1};
	struct sockaddr_storage learned = lab_address("10.77.3.77", LAB_PORT),
				configured = lab_address("10.77.3.88", LAB_PORT);
	struct endpoint endpoint;
	uint32_t link[HOOK_COUNT];
	struct lab_agent a;
	int ready, status;
	pid_t old;

	(void)state;
	options.phase = INTERCEPT_CUTOVER;
	options.heartbeat_ms = 5000;
	old = agent_process(&options, &ready);
	await_byte(ready);
	for (int hook = 0; hook < HOOK_COUNT; hook++)
		link[hook] = link_id(hook, lab.cgroup[LAB_POD_A]);
	kill(old, SIGKILL);
	assert_int_equal(waitpid(old, &status, 0), old);
	/* the heartbeat is good for 5 s more, but the listener's end is known */
	assert_string_equal(lab_where(&none, LAB_POD_A, cluster), "ECONNREFUSED");

	options.phase = INTERCEPT_OBSERVE;
	a = lab_agent_open(&options);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	for (int hook = 0; hook < HOOK_COUNT; hook++)
		assert_int_equal(link_id(hook, lab.cgroup[LAB_POD_A]), link[hook]);
	assert_true(lab_counter(a.it, "refused_agent_gone") >= 1);

	/* What was learned from system.peers outlives the agent; what it was configured with does not. */
	assert_int_equal(intercept_watch_add(a.it, (struct sockaddr *)&learned, -1, INTERCEPT_LEARNED, NULL),
			 0);
	assert_int_equal(
	    intercept_watch_add(a.it, (struct sockaddr *)&configured, -1, INTERCEPT_CONFIGURED, NULL), 0);
	lab_agent_close(&a, INTERCEPT_KEEP);
	a = lab_agent_open(&options);
	endpoint_from_sockaddr(&endpoint, (struct sockaddr *)&learned);
	assert_true(watch_has(a.it, &endpoint));
	endpoint_from_sockaddr(&endpoint, (struct sockaddr *)&configured);
	assert_false(watch_has(a.it, &endpoint));
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* Sessions that died with their agent must not keep their credit slots for ever. */
static void test_credit_of_a_killed_agent_comes_back(void **state)
{
	struct intercept_options options = lab_options();
	int ready, status, fd;
	uint32_t used = 0;
	struct lab_agent a;
	char byte;
	pid_t old;

	(void)state;
	options.acceleration = INTERCEPT_ON;
	old = agent_process(&options, &ready);
	await_byte(ready);
	kill(old, SIGSTOP); /* established, and never released */
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	kill(old, SIGKILL);
	kill(old, SIGCONT);
	assert_int_equal(waitpid(old, &status, 0), old);
	assert_true(lab_readable(fd, 1000));
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
	a = lab_agent_open(&options);
	/* one that the dead agent had accepted, as its slot would look */
	a.it->credits[5].owner = 12345;
	lab_agent_close(&a, INTERCEPT_KEEP);
	a = lab_agent_open(&options);
	for (uint32_t i = 0; i < ABI_CREDITS; i++)
		used += a.it->credits[i].owner != 0;
	assert_int_equal(used, 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* Maps of another build under our name: said so, with the remedy, and nothing of it touched. */
static void test_foreign_map_is_named(void **state)
{
	struct intercept_options options = lab_options();
	struct intercept *it = NULL;
	struct error e = {""};
	char path[PATH_MAX];
	int map = bpf_map_create(BPF_MAP_TYPE_HASH, "steered", 4, 4, 7, NULL);

	(void)state;
	snprintf(path, sizeof(path), "%s/cqlferry", lab.pins);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/cqlferry/v%d", lab.pins, ABI_LAYOUT);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/cqlferry/v%d/steered", lab.pins, ABI_LAYOUT);
	assert_int_equal(bpf_obj_pin(map, path), 0);
	close(map);
	assert_true(intercept_open(&options, &it, &e) < 0);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, "cqlferry off --remove"));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(intercept_remove_pinned(NULL, &e), 0);
}

/* An agent whose maps have another layout: its links go when ours are in force, and it is told by its pins'
 * absence. */
static void test_other_layout_is_retired(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a = lab_agent_open(&options), b;
	char path[2 * PATH_MAX], other[2 * PATH_MAX];
	struct dirent **names = NULL;
	int count;

	(void)state;
	/* what is pinned now becomes "v0" */
	snprintf(other, sizeof(other), "%s/cqlferry/v0", lab.pins);
	assert_int_equal(mkdir(other, 0700), 0);
	count = scandir(a.it->pin_dir, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", a.it->pin_dir, names[i]->d_name);
		snprintf(other, sizeof(other), "%s/cqlferry/v0/%s", lab.pins, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			assert_int_equal(rename(path, other), 0);
		free(names[i]);
	}
	free(names);
	for (int i = 0; i < 500 && !intercept_superseded(a.it); i++)
		usleep(5000);
	assert_true(intercept_superseded(a.it));

	options.takeover = true;
	b = lab_agent_open(&options);
	snprintf(other, sizeof(other), "%s/cqlferry/v0", lab.pins);
	assert_int_equal(access(other, F_OK), -1);
	assert_string_equal(lab_where(&b, LAB_POD_A, cluster), "agent");
	lab_agent_close(&a, INTERCEPT_KEEP);
	assert_string_equal(lab_where(&b, LAB_POD_A, cluster), "agent");
	lab_agent_close(&b, INTERCEPT_REMOVE);
}

static unsigned programs_on(const char *cgroup)
{
	unsigned total = 0;

	for (int hook = 0; hook < HOOK_COUNT; hook++) {
		int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		__u32 count = 0;

		bpf_prog_query(fd, hook_attach_type(hook), 0, NULL, NULL, &count);
		total += count;
		close(fd);
	}
	return total;
}

/* Another selection: until the new agent steers the old one keeps all that is its, and a start that fails leaves no trace. */
static void test_links_go_when_the_new_agent_steers(void **state)
{
	const char *first[] = {lab.cgroup[LAB_POD_A]}, *second[] = {lab.cgroup[LAB_POD_B]};
	struct intercept_options options = lab_options();
	struct intercept *it;
	struct error e = {""};
	struct lab_agent a, b;

	(void)state;
	options.cgroups = first;
	options.cgroup_count = 1;
	a = lab_agent_open(&options);
	options.cgroups = second;
	options.takeover = true;
	assert_int_equal(intercept_open(&options, &it, &e), 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	intercept_close(it, INTERCEPT_KEEP);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), HOOK_COUNT);
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_B]), 0);

	b = lab_agent_open(&options);
	assert_string_equal(lab_where(&b, LAB_POD_A, cluster), "cluster");
	assert_string_equal(lab_where(&b, LAB_POD_B, cluster), "agent");
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), 0);
	lab_agent_close(&a, INTERCEPT_KEEP);
	assert_string_equal(lab_where(&b, LAB_POD_B, cluster), "agent");
	lab_agent_close(&b, INTERCEPT_REMOVE);
}

/* A cgroup above the selected one: for a while both agents' programs run for each connect, which counts as one. */
static void test_takeover_with_a_wider_selection(void **state)
{
	const char *inner[] = {lab.cgroup[LAB_POD_A]}, *outer[] = {lab.base};
	struct intercept_options options = lab_options();
	struct intercept *it;
	struct error e = {""};
	struct lab_agent a;
	uint32_t before, used = 0;

	(void)state;
	options.cgroups = inner;
	options.cgroup_count = 1;
	options.acceleration = INTERCEPT_ON;
	a = lab_agent_open(&options);
	before = link_id(HOOK_CONNECT4, lab.cgroup[LAB_POD_A]);
	options.cgroups = outer;
	options.takeover = true;
	assert_int_equal(intercept_open(&options, &it, &e), 0);
	assert_int_equal(link_id(HOOK_CONNECT4, lab.cgroup[LAB_POD_A]), before);
	assert_int_equal(programs_on(lab.base), HOOK_COUNT);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	assert_int_equal(lab_counter(a.it, "redirected"), 1);
	assert_int_equal(lab_counter(a.it, "established"), 1);
	for (uint32_t i = 0; i < ABI_CREDITS; i++)
		used += a.it->credits[i].owner != 0;
	assert_int_equal(used, 1); /* nobody has released it */
	intercept_switch(a.it, false);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	assert_int_equal(lab_counter(a.it, "bypassed_switched_off"), 1);
	intercept_switch(a.it, true);
	intercept_close(it, INTERCEPT_KEEP);
	assert_int_equal(programs_on(lab.base), 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_remove_leaves_nothing(void **state)
{
	struct intercept_options options = lab_options();
	struct lab_agent a = lab_agent_open(&options);
	struct error e = {""};
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), HOOK_COUNT);
	assert_int_equal(programs_on(lab.cgroup[LAB_HOST]), 1);
	lab_agent_close(&a, INTERCEPT_REMOVE);
	snprintf(path, sizeof(path), "%s/cqlferry", lab.pins);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), 0);
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_B]), 0);
	assert_int_equal(programs_on(lab.cgroup[LAB_HOST]), 0);
	/* the same without an agent */
	a = lab_agent_open(&options);
	lab_agent_close(&a, INTERCEPT_KEEP);
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), HOOK_COUNT);
	assert_int_equal(intercept_remove_pinned(NULL, &e), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(programs_on(lab.cgroup[LAB_POD_A]), 0);
	assert_int_equal(intercept_remove_pinned(NULL, &e), -ENOENT);
	assert_int_equal(intercept_switch_pinned(NULL, false, &e), -ENOENT);
	assert_non_null(strstr(e.text, "nothing is pinned"));
}

static void test_failed_open_leaves_nothing(void **state)
{
	struct intercept_options options = lab_options();
	const char *missing[] = {"no-such-cgroup"};
	struct intercept *it = NULL;
	struct error e = {""};
	char path[PATH_MAX];

	(void)state;
	options.cgroups = missing;
	options.cgroup_count = 1;
	assert_int_equal(intercept_open(&options, &it, &e), -ENOENT);
	assert_non_null(strstr(e.text, "no-such-cgroup"));
	options = lab_options();
	options.pin_root = "/tmp/cqlferry-not-a-bpffs";
	assert_int_equal(intercept_open(&options, &it, &e), -EINVAL);
	assert_non_null(strstr(e.text, "bpffs"));
	assert_int_equal(access(options.pin_root, F_OK), -1);
	snprintf(path, sizeof(path), "%s/cqlferry", lab.pins);
	assert_int_equal(access(path, F_OK), -1);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test_setup(test_takeover_without_a_refused_connect, sweep),
	    cmocka_unit_test_setup(test_takeover_with_acceleration, sweep),
	    cmocka_unit_test_setup(test_second_agent_is_refused, sweep),
	    cmocka_unit_test_setup(test_second_agent_with_other_pins_is_refused, sweep),
	    cmocka_unit_test_setup(test_killed_agent_and_its_successor, sweep),
	    cmocka_unit_test_setup(test_credit_of_a_killed_agent_comes_back, sweep),
	    cmocka_unit_test_setup(test_foreign_map_is_named, sweep),
	    cmocka_unit_test_setup(test_other_layout_is_retired, sweep),
	    cmocka_unit_test_setup(test_links_go_when_the_new_agent_steers, sweep),
	    cmocka_unit_test_setup(test_takeover_with_a_wider_selection, sweep),
	    cmocka_unit_test_setup(test_remove_leaves_nothing, sweep),
	    cmocka_unit_test_setup(test_failed_open_leaves_nothing, sweep),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
