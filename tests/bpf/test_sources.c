/* SPDX-License-Identifier: Apache-2.0 */
/* Selected cgroups while running, the health check, conflicts with other users of the hooks, and connections
 * that pass by the agent. */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <netinet/in.h>

#include "bpf/insn.h"
#include "bpf/lab.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

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

static int sweep(void **state)
{
	(void)state;
	intercept_remove_pinned(NULL, NULL);
	return 0;
}

static struct lab_agent open_with(const char *first)
{
	struct intercept_options options = lab_options();
	const char *cgroups[1] = {first};

	options.cgroups = cgroups;
	options.cgroup_count = first ? 1 : 0;
	return lab_agent_open(&options);
}

static void test_sources_come_and_go(void **state)
{
	struct lab_agent a = open_with(NULL);
	struct error e = {""};

	(void)state;
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	assert_int_equal(intercept_cgroup_add(a.it, lab.cgroup[LAB_POD_A], &e), 0);
	assert_int_equal(intercept_cgroup_add(a.it, lab.cgroup[LAB_POD_A], &e), 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	assert_string_equal(lab_where(&a, LAB_POD_B, cluster), "cluster");
	assert_int_equal(intercept_cgroup_remove(a.it, lab.cgroup[LAB_POD_A], &e), 0);
	assert_int_equal(intercept_cgroup_remove(a.it, lab.cgroup[LAB_POD_A], &e), -ENOENT);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "cluster");
	assert_int_equal(intercept_cgroup_add(a.it, "/proc", &e), -EINVAL);
	assert_non_null(strstr(e.text, "not on cgroup2"));
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* A cgroup above a selected one is selected: one run for each connect, and everything below is covered. */
static void test_outer_cgroup_covers_inner_one(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	struct error e = {""};

	(void)state;
	assert_int_equal(intercept_cgroup_add(a.it, lab.base, &e), 0);
	assert_int_equal(a.it->cgroup_count, 1);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	assert_string_equal(lab_where(&a, LAB_POD_B, cluster), "agent");
	assert_int_equal(lab_counter(a.it, "redirected"), 2);
	/* the agent itself is below it, too, and is left out */
	assert_string_equal(lab_where(&a, LAB_HOST, cluster), "cluster");
	assert_int_equal(intercept_cgroup_add(a.it, lab.cgroup[LAB_POD_B], &e), 0);
	assert_int_equal(a.it->cgroup_count, 1);
	assert_int_equal(intercept_check(a.it, &e), 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* A pod in the host's network namespace, where the agent is as well: told apart by cgroup, not by namespace.
 */
static void test_host_network_pod(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT), peer;
	struct intercept_origin origin;
	int fd, end, code = -1;

	(void)state;
	lab_enter(LAB_POD_A);
	assert_int_equal(setns(lab.netns[LAB_HOST], CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
	lab_leave();
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), "10.77.3.2:9042");
	end = lab_accept(&a, a.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_string_equal(lab_text(&origin.destination), "10.77.3.2:9042");
	close(fd);
	close(end);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* Both attached for a moment, as while the outer one is being selected: the second run must not undo the
 * first one's work. */
static void test_two_runs_for_one_connect(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	int base = open(lab.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int link =
	    bpf_link_create(loader_program_fd(a.it, HOOK_CONNECT4), base, BPF_CGROUP_INET4_CONNECT, NULL);

	(void)state;
	assert_true(link >= 0);
	assert_string_equal(lab_where(&a, LAB_POD_A, cluster), "agent");
	close(link);
	close(base);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_health_check(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	struct error e = {""};

	(void)state;
	if (intercept_check(a.it, &e))
		fail_msg("%s", e.text);
	assert_int_equal(lab_counter(a.it, "probes"), 1);
	/* taken off behind our back */
	assert_int_equal(bpf_link_detach(a.it->cgroups[0].link[HOOK_PEERNAME6]), 0);
	assert_int_equal(intercept_check(a.it, &e), -ENOTCONN);
	assert_non_null(strstr(e.text, "getpeername6"));
	assert_non_null(strstr(e.text, "pod-a"));
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* There, but without effect: the kill switch is off. */
static void test_health_check_sees_that_nothing_is_steered(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	struct error e = {""};

	(void)state;
	intercept_switch(a.it, false);
	assert_int_equal(intercept_check(a.it, &e), -ENOTCONN);
	assert_non_null(strstr(e.text, "not seen by our hook"));
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* A pod's cgroup goes with the pod: the check says so, and it can be deselected by its name. */
static void test_cgroup_that_is_gone(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	struct error e = {""};
	char other[2 * PATH_MAX];

	(void)state;
	snprintf(other, sizeof(other), "%s/other", lab.base);
	assert_int_equal(mkdir(other, 0755), 0);
	assert_int_equal(intercept_cgroup_add(a.it, other, &e), 0);
	assert_int_equal(intercept_check(a.it, &e), 0);
	assert_int_equal(rmdir(other), 0);
	assert_int_equal(intercept_check(a.it, &e), -ENOENT);
	assert_non_null(strstr(e.text, "other is gone"));
	assert_int_equal(intercept_cgroup_remove(a.it, other, &e), 0);
	assert_int_equal(intercept_check(a.it, &e), 0);

	/* and the next agent does not stumble over what such a one left pinned */
	assert_int_equal(mkdir(other, 0755), 0);
	assert_int_equal(intercept_cgroup_add(a.it, other, &e), 0);
	lab_agent_close(&a, INTERCEPT_KEEP);
	assert_int_equal(rmdir(other), 0);
	a = open_with(lab.cgroup[LAB_POD_A]);
	assert_int_equal(intercept_check(a.it, &e), 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
	assert_int_equal(access("/sys/fs/bpf/cqlferry", F_OK), -1);
}

/* A process that stays in the pod: strays are looked for where processes of the selected cgroups are. Returns
 * once it is there. */
static pid_t pod_process(enum lab_place pod)
{
	int there[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe(there), 0);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		lab_enter(pod);
		if (write(there[1], "t", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(there[0], &byte, 1), 1);
	close(there[0]);
	close(there[1]);
	return child;
}

/* Seen out of another pid namespace, the processes have no number: said so instead of "none found". */
static void test_hidden_processes_are_named(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	pid_t pod = pod_process(LAB_POD_A), watcher, visible;
	int status;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWPID), 0);
	watcher = fork();
	if (!watcher) {
		struct error e = {""};
		unsigned closed;
		int found = intercept_strays(a.it, 0, &closed, NULL, NULL, &e);

		if (found != -EPERM || !strstr(e.text, "hostPID"))
			_exit(1);
		/* One that is seen, as the agent's own where its pod is selected, too, does not stand for the others. */
		if (unshare(CLONE_NEWNS) || mount("proc", "/proc", "proc", 0, NULL))
			_exit(3);
		visible = pod_process(LAB_POD_A);
		found = intercept_strays(a.it, 0, &closed, NULL, NULL, &e);
		kill(visible, SIGKILL);
		_exit(found == -EPERM ? 0 : 2);
	}
	assert_int_equal(waitpid(watcher, &status, 0), watcher);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	kill(pod, SIGKILL);
	waitpid(pod, NULL, 0);
	/* back: children are to be made in our own namespace again */
	int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(own, CLONE_NEWPID), 0);
	close(own);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* As a tool attaches that forgets "multi": nobody else may attach there. Said by name, not as "failed to
 * load". */
static void test_exclusive_user_is_named(void **state)
{
	struct bpf_insn pass[] = {INSN_MOV_IMM(0, 1), INSN_EXIT};
	LIBBPF_OPTS(bpf_prog_load_opts, load, .expected_attach_type = BPF_CGROUP_INET4_CONNECT);
	int program = bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "greedy_connect", "GPL", pass, 2, &load);
	int base = open(lab.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct intercept_options options = lab_options();
	struct intercept *it = NULL;
	struct error e = {""};

	(void)state;
	assert_true(program >= 0);
	assert_int_equal(bpf_prog_attach(program, base, BPF_CGROUP_INET4_CONNECT, 0), 0);
	assert_true(intercept_open(&options, &it, &e) < 0);
	assert_non_null(strstr(e.text, "held exclusively"));
	assert_non_null(strstr(e.text, "greedy_connect"));
	assert_non_null(strstr(e.text, "connect4"));
	print_message("%s\n", e.text);
	assert_int_equal(bpf_prog_detach2(program, base, BPF_CGROUP_INET4_CONNECT), 0);
	close(base);
	close(program);
	/* nothing of the attempt is left */
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/cqlferry", lab.pins);
	assert_int_equal(access(path, F_OK), -1);
}

struct findings {
	unsigned grades[3];
	char broken[512];
};

static void find(void *opaque, enum intercept_grade grade, const char *what, const char *remedy)
{
	struct findings *f = opaque;

	f->grades[grade]++;
	if (grade == INTERCEPT_BROKEN)
		snprintf(f->broken, sizeof(f->broken), "%.200s; %.200s", what, remedy);
}

static void test_doctor(void **state)
{
	struct intercept_options options = lab_options();
	const char *wrong[] = {"no-such-cgroup"};
	struct findings f = {0};

	(void)state;
	assert_int_equal(intercept_doctor(&options, find, &f), INTERCEPT_FINE);
	assert_true(f.grades[INTERCEPT_FINE] > 10);
	options.cgroups = wrong;
	options.cgroup_count = 1;
	memset(&f, 0, sizeof(f));
	assert_int_equal(intercept_doctor(&options, find, &f), INTERCEPT_BROKEN);
	assert_non_null(strstr(f.broken, "no-such-cgroup"));
}

/* Without a privilege: which one, what for, what to do. */
static void test_missing_privilege_is_named(void **state)
{
	int status;
	pid_t child;

	(void)state;
	child = fork();
	if (!child) {
		struct intercept_options options = lab_options();
		struct intercept *it = NULL;
		struct error e = {""};
		int code;

		/* CAP_SYS_ADMIN stands for both, so it goes as well */
		if (prctl(PR_CAPBSET_DROP, 39 /* CAP_BPF */) ||
		    prctl(PR_CAPBSET_DROP, 21 /* CAP_SYS_ADMIN */))
			_exit(4);
		execl("/proc/self/exe", "test_sources", "without-privilege", NULL);
		code = intercept_open(&options, &it, &e);
		_exit(code ? 5 : 6);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int without_privilege(void)
{
	struct intercept_options options = {0};
	struct intercept *it = NULL;
	struct error e = {""};
	int code = intercept_open(&options, &it, &e);

	fprintf(stderr, "%s\n", e.text);
	return code == -EPERM && strstr(e.text, "CAP_BPF") ? 0 : 1;
}

struct strays {
	unsigned count;
	struct intercept_stray last;
};

static void stray(void *opaque, const struct intercept_stray *found)
{
	struct strays *s = opaque;

	s->count++;
	s->last = *found;
}

static void test_older_connections_are_found_and_closed(void **state)
{
	struct sockaddr_storage peer;
	struct strays s = {0};
	struct lab_agent a;
	struct error e = {""};
	int old[3], ends[3], fd, end, code = -1, found = 0;
	struct intercept_origin origin;
	unsigned closed = 0;
	char byte;
	pid_t pod;

	(void)state;
	for (int i = 0; i < 3; i++) {
		old[i] = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
		assert_true(old[i] >= 0);
		ends[i] = lab_take(cluster);
	}
	pod = pod_process(LAB_POD_A);
	a = open_with(lab.cgroup[LAB_POD_A]);
	/* one that goes through the agent, and the agent's own dial: no strays */
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	end = lab_accept(&a, a.listener, &origin, &code);
	assert_int_equal(code, 0);
	uint32_t mark = intercept_mark(a.it);
	int own = lab_socket(LAB_POD_A, AF_INET, 0);
	setsockopt(own, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	assert_int_equal(lab_connect_fd(LAB_POD_A, own, LAB_CLUSTER4, LAB_PORT, 1000), 0);

	found = intercept_strays(a.it, 0, &closed, stray, &s, &e);
	if (found < 0)
		fail_msg("strays: %s", e.text);
	assert_int_equal(found, 3);
	assert_int_equal(s.count, 3);
	assert_int_equal(closed, 0);
	assert_string_equal(lab_text(&s.last.peer), "10.77.3.2:9042");

	/* at a limited rate: two now, one later */
	assert_int_equal(intercept_strays(a.it, 2, &closed, NULL, NULL, &e), 3);
	assert_int_equal(closed, 2);
	assert_int_equal(intercept_strays(a.it, 2, &closed, NULL, NULL, &e), 1);
	assert_int_equal(closed, 1);
	assert_int_equal(intercept_strays(a.it, 2, &closed, NULL, NULL, &e), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(recv(old[i], &byte, 1, 0), -1);
		assert_int_equal(errno, ECONNABORTED);
		close(old[i]);
		close(ends[i]);
	}
	/* the others live */
	lab_exchange(fd, end, "still here");
	peer = lab_peer(own);
	assert_string_equal(lab_text(&peer), "10.77.3.2:9042");
	close(fd);
	close(end);
	close(own);
	close(lab_take(cluster));
	kill(pod, SIGKILL);
	waitpid(pod, NULL, 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

/* Hunts as the agent does, and says why the one that is found is spared; NULL: it was closed. */
static const char *hunt_one(struct lab_agent *a)
{
	struct strays s = {0};
	struct error e = {""};
	unsigned closed = 0;

	if (intercept_strays(a->it, 20, &closed, stray, &s, &e) < 0)
		fail_msg("strays: %s", e.text);
	assert_int_equal(s.count, 1);
	assert_int_equal(closed, s.last.spared ? 0 : 1);
	return s.last.spared;
}

/* A connection past the agent, and the cluster's end of it. */
static int pass_by(const char *ip, int listener, int protocol, int *ret_end)
{
	int fd = lab_socket(LAB_POD_A, strchr(ip, ':') ? AF_INET6 : AF_INET, protocol);

	assert_true(fd >= 0);
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, ip, LAB_PORT, 5000), 0); /* the first of IPv6 may take a second */
	*ret_end = lab_take(listener);
	assert_true(*ret_end >= 0);
	return fd;
}

/* Closing what would pass by again would close it once a second for ever. */
static void test_what_would_pass_by_again_lives_on(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	pid_t pod = pod_process(LAB_POD_A);
	int cluster6 = lab_listen(LAB_CLUSTER, LAB_CLUSTER6, LAB_PORT), fd, end;
	struct sockaddr_storage none = lab_address("::", 0);
	struct trip_key key;
	struct trip trip = {.boot = a.it->boot, .since_ns = 1, .until_ns = UINT64_MAX};
	int trips = loader_map_fd(a.it, "trips");
	socklen_t size = sizeof(key.netns);
	struct error e = {""};

	(void)state;
	/* The kill switch: until it is on again. */
	assert_int_equal(intercept_switch(a.it, false), 0);
	fd = pass_by(LAB_CLUSTER4, cluster, 0, &end);
	assert_string_equal(hunt_one(&a), cause_text(CAUSE_SWITCHED_OFF));
	lab_exchange(fd, end, "switched off");
	assert_int_equal(intercept_switch(a.it, true), 0);
	assert_null(hunt_one(&a));
	close(fd);
	close(end);

	/* No address of its family: until there is one. */
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&none, &e), 0);
	fd = pass_by(LAB_CLUSTER6, cluster6, 0, &end);
	assert_string_equal(hunt_one(&a), cause_text(CAUSE_NO_AGENT_ADDRESS));
	lab_exchange(fd, end, "no address");
	assert_int_equal(intercept_set_agent(a.it, (struct sockaddr *)&a.address6, &e), 0);
	assert_null(hunt_one(&a));
	close(fd);
	close(end);

	/* A namespace that is tripped: until that is over. */
	fd = lab_socket(LAB_POD_A, AF_INET, 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &key.netns, &size), 0);
	close(fd);
	assert_int_equal(bpf_map_update_elem(trips, &key, &trip, BPF_ANY), 0);
	assert_int_equal(intercept_set_phase(a.it, INTERCEPT_MIRROR), 0);
	fd = pass_by(LAB_CLUSTER4, cluster, 0, &end);
	assert_string_equal(hunt_one(&a), cause_text(CAUSE_NAMESPACE_TRIPPED));
	lab_exchange(fd, end, "tripped");
	trip.until_ns = clock_now_ns();
	assert_int_equal(bpf_map_update_elem(trips, &key, &trip, BPF_ANY), 0);
	assert_null(hunt_one(&a));
	close(fd);
	close(end);

	kill(pod, SIGKILL);
	waitpid(pod, NULL, 0);
	close(cluster6);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static void test_mptcp_lives_on(void **state)
{
	struct lab_agent a = open_with(lab.cgroup[LAB_POD_A]);
	pid_t pod = pod_process(LAB_POD_A);
	int probe = lab_socket(LAB_POD_A, AF_INET, IPPROTO_MPTCP), fd, end;

	(void)state;
	if (probe >= 0) {
		close(probe);
		fd = pass_by(LAB_CLUSTER4, cluster, IPPROTO_MPTCP, &end);
		if (lab_counter(a.it, "bypassed_mptcp"))
			assert_string_equal(hunt_one(&a), cause_text(CAUSE_MPTCP));
		else
			print_message("this kernel does not tell its hooks what is MPTCP\n");
		close(fd);
		close(end);
	}
	kill(pod, SIGKILL);
	waitpid(pod, NULL, 0);
	lab_agent_close(&a, INTERCEPT_REMOVE);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test_setup(test_sources_come_and_go, sweep),
	    cmocka_unit_test_setup(test_outer_cgroup_covers_inner_one, sweep),
	    cmocka_unit_test_setup(test_host_network_pod, sweep),
	    cmocka_unit_test_setup(test_two_runs_for_one_connect, sweep),
	    cmocka_unit_test_setup(test_health_check, sweep),
	    cmocka_unit_test_setup(test_health_check_sees_that_nothing_is_steered, sweep),
	    cmocka_unit_test_setup(test_cgroup_that_is_gone, sweep),
	    cmocka_unit_test_setup(test_exclusive_user_is_named, sweep),
	    cmocka_unit_test_setup(test_doctor, sweep),
	    cmocka_unit_test_setup(test_missing_privilege_is_named, sweep),
	    cmocka_unit_test_setup(test_older_connections_are_found_and_closed, sweep),
	    cmocka_unit_test_setup(test_what_would_pass_by_again_lives_on, sweep),
	    cmocka_unit_test_setup(test_mptcp_lives_on, sweep),
	    cmocka_unit_test_setup(test_hidden_processes_are_named, sweep),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "without-privilege"))
		return without_privilege();
	return lab_main(tests);
}
