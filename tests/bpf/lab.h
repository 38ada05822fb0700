/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage for tests/bpf/test_*.c: namespaces that play a node and its pods, cgroups and a bpffs of the
 * test's own.
 *
 *        pod A 10.77.1.2 ┐
 *        pod B 10.77.2.2 ┼── host 10.77.N.1, fd77:N::1 ── cluster C 10.77.3.2     (pods and C: fd77:N::2)
 *
 * main() forks: the child unshares mounts and network, does the tests and dies with its parent; the parent
 * removes the cgroups whatever happened. Namespaces and pins vanish with the child. What a killed run left is
 * swept by the next.
 *
 * The test process is the agent. To act as a client it steps into a pod (cgroup and network namespace) and
 * back: a socket keeps the cgroup and namespace that it was made in.
 */
#pragma once
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <bpf/bpf.h>

#include "base/clock.h"
#include "intercept/priv.h"

#define LAB_PORT 9042
#define LAB_CLUSTER4 "10.77.3.2"
#define LAB_CLUSTER6 "fd77:3::2"

enum lab_place { LAB_HOST, LAB_POD_A, LAB_POD_B, LAB_CLUSTER, LAB_PLACES };

static struct {
	char base[PATH_MAX];			/* …/cqlferry-test-<pid> */
	char cgroup[LAB_PLACES][PATH_MAX + 32]; /* LAB_HOST: the agent's */
	int netns[LAB_PLACES];
	char pins[64];
} lab __attribute__((unused));

static inline void lab_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(2);
	}
	close(fd);
}

__attribute__((format(printf, 1, 2))) static inline int lab_run(const char *format, ...)
{
	char command[1024];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	status = system(command);
	if (status)
		fprintf(stderr, "`%s` failed with status %d\n", command, status);
	return status;
}

/* ---- places */

static inline void lab_enter(enum lab_place place)
{
	char procs[PATH_MAX + 64];

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", lab.cgroup[place]);
	lab_write(procs, "0");
	if (setns(lab.netns[place], CLONE_NEWNET)) {
		perror("setns");
		exit(2);
	}
}

static inline void lab_leave(void)
{
	lab_enter(LAB_HOST);
}

static inline int lab_new_netns(void)
{
	int fd;

	if (unshare(CLONE_NEWNET)) {
		perror("unshare(CLONE_NEWNET)");
		exit(2);
	}
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (lab_run("ip link set lo up"))
		exit(2);
	return fd;
}

static inline void lab_wire(enum lab_place place, int n)
{
	setns(lab.netns[LAB_HOST], CLONE_NEWNET);
	if (lab_run("ip link add h%d type veth peer name eth0 netns /proc/%d/fd/%d && ip addr add "
		    "10.77.%d.1/24 dev h%d && "
		    "ip addr add fd77:%d::1/64 dev h%d nodad && ip link set h%d up",
		    n, (int)getpid(), lab.netns[place], n, n, n, n, n))
		exit(2);
	setns(lab.netns[place], CLONE_NEWNET);
	if (lab_run("ip addr add 10.77.%d.2/24 dev eth0 && ip addr add fd77:%d::2/64 dev eth0 nodad && ip "
		    "link set eth0 up && "
		    "ip route add default via 10.77.%d.1 && ip -6 route add default via fd77:%d::1",
		    n, n, n, n))
		exit(2);
	setns(lab.netns[LAB_HOST], CLONE_NEWNET);
}

static inline void lab_build(void)
{
	static const char *const names[] = {"agent", "pod-a", "pod-b", "cluster"};

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		perror("a private mount namespace");
		exit(2);
	}
	snprintf(lab.pins, sizeof(lab.pins), "/sys/fs/bpf");
	if (mount("bpf", lab.pins, "bpf", 0, NULL)) {
		perror("mounting a bpffs");
		exit(2);
	}
	for (int place = LAB_HOST; place < LAB_PLACES; place++) {
		snprintf(lab.cgroup[place], sizeof(lab.cgroup[place]), "%s/%s", lab.base, names[place]);
		if (mkdir(lab.cgroup[place], 0755)) {
			perror(lab.cgroup[place]);
			exit(2);
		}
		lab.netns[place] = lab_new_netns();
	}
	setns(lab.netns[LAB_HOST], CLONE_NEWNET);
	lab_wire(LAB_POD_A, 1);
	lab_wire(LAB_POD_B, 2);
	lab_wire(LAB_CLUSTER, 3);
	lab_write("/proc/sys/net/ipv4/ip_forward", "1");
	lab_write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
	lab_leave();
}

/* ---- main */

static inline void lab_remove_cgroups(const char *base)
{
	static const char *const names[] = {"agent", "pod-a", "pod-b", "cluster", "other"};
	char path[3 * PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", base, names[i]);
		for (int k = 0; k < 500 && rmdir(path) && errno == EBUSY; k++)
			usleep(2000);
	}
	rmdir(base);
}

/* Nobody in there, and older than a start takes? Process ids say nothing: the suites run in pid namespaces of
 * their own. */
static inline bool lab_is_abandoned(const char *base)
{
	char path[3 * PATH_MAX], text[256] = "";
	struct stat st;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.events", base);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	return n > 0 && strstr(text, "populated 0") && !stat(base, &st) && time(NULL) - st.st_mtime > 10;
}

/* What a run that was killed left behind. */
static inline void lab_sweep(const char *mount)
{
	char path[2 * PATH_MAX];
	struct dirent *entry;
	DIR *dir = opendir(mount);

	while (dir && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "cqlferry-test-", 14))
			continue;
		snprintf(path, sizeof(path), "%s/%.64s", mount, entry->d_name);
		if (lab_is_abandoned(path))
			lab_remove_cgroups(path);
	}
	if (dir)
		closedir(dir);
}

/* Only in a sanitizer build. */
extern void __lsan_do_leak_check(void) __attribute__((weak));

static inline int lab_main(int (*tests)(void))
{
	char mount[PATH_MAX - 64];
	int status = 0;
	pid_t child;

	if (geteuid()) {
		fprintf(stderr, "these tests need root\n");
		return 77;
	}
	if (mount_find("cgroup2", mount, sizeof(mount))) {
		fprintf(stderr, "cgroup2 is not mounted\n");
		return 77;
	}
	lab_sweep(mount);
	snprintf(lab.base, sizeof(lab.base), "%s/cqlferry-test-%d", mount, (int)getpid());
	if (mkdir(lab.base, 0755)) {
		perror(lab.base);
		return 2;
	}
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		signal(SIGPIPE, SIG_IGN);
		alarm(60); /* whatever hangs ends here */
		lab_build();
		status = tests();
		if (__lsan_do_leak_check) /* _exit skips it */
			__lsan_do_leak_check();
		fflush(NULL);
		_exit(status > 255 ? 255 : status);
	}
	waitpid(child, &status, 0);
	lab_remove_cgroups(lab.base);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- addresses and sockets */

static inline struct sockaddr_storage lab_address(const char *ip, int port)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in6 *in6 = (void *)&storage;
	struct sockaddr_in *in = (void *)&storage;

	if (inet_pton(AF_INET, ip, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
	} else {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		if (inet_pton(AF_INET6, ip, &in6->sin6_addr) != 1)
			fail_msg("bad address %s", ip);
	}
	return storage;
}

static inline socklen_t lab_size(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* "10.77.3.2:9042", "[fd77:3::2]:9042"; "-" for none. In one of four static buffers. */
static inline const char *lab_text(const struct sockaddr_storage *address)
{
	static char texts[4][ENDPOINT_TEXT];
	static unsigned next;
	char *text = texts[next++ % 4], ip[INET6_ADDRSTRLEN];

	if (address->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)address;

		inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		snprintf(text, ENDPOINT_TEXT, "%s:%u", ip, ntohs(in->sin_port));
	} else if (address->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)address;

		inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof(ip));
		snprintf(text, ENDPOINT_TEXT, "[%s]:%u", ip, ntohs(in->sin6_port));
	} else {
		snprintf(text, ENDPOINT_TEXT, "-");
	}
	return text;
}

static inline int lab_listen(enum lab_place place, const char *ip, int port)
{
	struct sockaddr_storage address = lab_address(ip, port);
	int fd, on = 1;

	lab_enter(place);
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, lab_size(&address)) || listen(fd, 128))
		fail_msg("listening on %s: %s", lab_text(&address), strerror(errno));
	lab_leave();
	return fd;
}

static inline struct sockaddr_storage lab_local(int fd)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);

	getsockname(fd, (struct sockaddr *)&address, &size);
	return address;
}

static inline struct sockaddr_storage lab_peer(int fd)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &size))
		address.ss_family = AF_UNSPEC;
	return address;
}

static inline int lab_readable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) == 1;
}

/* accept(2) that gives up after a second: −1. */
static inline int lab_take(int listener)
{
	return lab_readable(listener, 1000) ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
}

/* Non-blocking connect of an existing socket, from `place`; waits at most timeout_ms. 0, or the errno of the
 * outcome; ETIMEDOUT. */
static inline int lab_connect_fd(enum lab_place place, int fd, const char *ip, int port, int timeout_ms)
{
	struct sockaddr_storage address = lab_address(ip, port);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int outcome = 0;
	socklen_t size = sizeof(outcome);

	lab_enter(place);
	if (connect(fd, (struct sockaddr *)&address, lab_size(&address)))
		outcome = errno;
	lab_leave();
	if (outcome != EINPROGRESS)
		return outcome;
	if (poll(&p, 1, timeout_ms) != 1)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &outcome, &size);
	return outcome;
}

static inline int lab_socket(enum lab_place place, int family, int protocol)
{
	int fd;

	lab_enter(place);
	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	lab_leave();
	return fd;
}

/* A connected client socket in `place`, non-blocking; −errno when it could not connect. */
static inline int lab_connect(enum lab_place place, const char *ip, int port)
{
	int fd = lab_socket(place, strchr(ip, ':') ? AF_INET6 : AF_INET, 0);
	int outcome = lab_connect_fd(place, fd, ip, port, 2000);

	if (!outcome)
		return fd;
	close(fd);
	return -outcome;
}

/* Connects to the cluster with a short patience, as drivers have, and closes. 0, or the errno of the outcome. */
static inline int lab_try_connect(enum lab_place pod)
{
	int fd = lab_socket(pod, AF_INET, 0);
	int outcome = lab_connect_fd(pod, fd, LAB_CLUSTER4, LAB_PORT, 60);

	close(fd);
	return outcome;
}

/* What becomes of the pod's SYNs to the agent, in nft's words ("drop"); NULL: the rule goes. */
static inline void lab_egress_policy(enum lab_place pod, const char *action)
{
	lab_enter(pod);
	if (action)
		assert_int_equal(lab_run("nft 'add table inet guard; add chain inet guard out { type filter "
					 "hook output priority 0; }; "
					 "add rule inet guard out ip daddr 10.77.1.1 tcp flags syn %s'",
					 action),
				 0);
	else
		assert_int_equal(lab_run("nft delete table inet guard"), 0);
	lab_leave();
}

/* What the kernel calls this program. */
static inline const char *lab_program(void)
{
	static char name[17];

	prctl(PR_GET_NAME, name);
	return name;
}

/* The kernel side records process ids as the initial pid namespace has them: ours is known only there. */
static inline bool lab_pid_is(uint32_t pid)
{
	struct stat st;

	if (!stat("/proc/self/ns/pid", &st) && st.st_ino == 0xeffffffcu)
		return pid == (uint32_t)getpid();
	return pid != 0;
}

/* ---- the agent */

struct lab_agent {
	struct intercept *it;
	int listener, listener6;
	struct sockaddr_storage address, address6;
};

static inline struct intercept_options lab_options(void)
{
	static const char *cgroups[2];

	cgroups[0] = lab.cgroup[LAB_POD_A];
	cgroups[1] = lab.cgroup[LAB_POD_B];
	return (struct intercept_options){.cgroups = cgroups,
					  .cgroup_count = 2,
					  .acceleration = INTERCEPT_OFF,
					  .observe_relays = true,
					  .heartbeat_ms = 1000};
}

static inline void lab_watch(struct intercept *it, const char *ip, int prefix)
{
	struct sockaddr_storage address = lab_address(ip, LAB_PORT);
	struct error e = {""};

	if (intercept_watch_add(it, (struct sockaddr *)&address, prefix, INTERCEPT_CONFIGURED, &e))
		fail_msg("watch: %s", e.text);
}

/* Opened, listening in the host on both families, watching the cluster, started. */
static inline struct lab_agent lab_agent_open(const struct intercept_options *options)
{
	struct lab_agent a = {0};
	struct error e = {""};

	if (intercept_open(options, &a.it, &e))
		fail_msg("open: %s", e.text);
	a.listener = lab_listen(LAB_HOST, "10.77.1.1", 0);
	a.listener6 = lab_listen(LAB_HOST, "fd77:1::1", 0);
	a.address = lab_local(a.listener);
	a.address6 = lab_local(a.listener6);
	lab_watch(a.it, LAB_CLUSTER4, -1);
	lab_watch(a.it, LAB_CLUSTER6, -1);
	if (intercept_set_agent(a.it, (struct sockaddr *)&a.address, &e) ||
	    intercept_set_agent(a.it, (struct sockaddr *)&a.address6, &e) || intercept_start(a.it, &e))
		fail_msg("start: %s", e.text);
	return a;
}

static inline void lab_agent_close(struct lab_agent *a, enum intercept_end end)
{
	close(a->listener);
	close(a->listener6);
	intercept_close(a->it, end);
}

/* Accepts on `listener` and attributes. Returns the socket; *ret_code is what intercept_accept said. −1:
 * nobody came. */
static inline int lab_accept(struct lab_agent *a, int listener, struct intercept_origin *ret_origin,
			     int *ret_code)
{
	struct sockaddr_storage peer, local = lab_local(listener);
	socklen_t size = sizeof(peer);
	int fd;

	if (!lab_readable(listener, 1000))
		return -1;
	fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
	if (fd < 0)
		return -1;
	*ret_code = intercept_accept(a->it, (struct sockaddr *)&local, (struct sockaddr *)&peer, ret_origin);
	return fd;
}

static inline uint64_t lab_counter(struct intercept *it, const char *name)
{
	uint64_t values[128] = {0};

	assert_true(intercept_counter_count() <= 128);
	assert_int_equal(intercept_counters(it, values, 128), 0);
	for (size_t i = 0; i < intercept_counter_count(); i++)
		if (!strcmp(intercept_counter_name(i), name))
			return values[i];
	fail_msg("no counter is named %s", name);
	return 0;
}

/* Waits for `counter` to reach at least `value`: some hooks run in another context than the call that caused
 * them. */
static inline void lab_await(struct intercept *it, const char *counter, uint64_t value)
{
	uint64_t end = clock_now_ns() + 2000000000ull;

	while (lab_counter(it, counter) < value) {
		if (clock_now_ns() > end)
			fail_msg("%s is %llu, expected %llu", counter,
				 (unsigned long long)lab_counter(it, counter), (unsigned long long)value);
		usleep(2000);
	}
}

/* Where does a connect from this pod end up? "agent", "cluster", or the errno's name. Closes everything
 * again. */
static inline const char *lab_where(struct lab_agent *a, enum lab_place pod, int cluster)
{
	struct intercept_origin origin;
	const char *where = "nowhere";
	int code = 0, end = -1;
	int fd = lab_connect(pod, LAB_CLUSTER4, LAB_PORT);
	struct pollfd p[2] = {{.fd = cluster, .events = POLLIN}, {.fd = a->listener, .events = POLLIN}};

	if (fd < 0)
		return fd == -ECONNREFUSED ? "ECONNREFUSED" : strerror(-fd);
	poll(p, 2, 1000);
	if (p[1].revents & POLLIN) {
		end = lab_accept(a, a->listener, &origin, &code);
		where = code ? "unattributed" : "agent";
	} else if (p[0].revents & POLLIN) {
		end = accept4(cluster, NULL, NULL, SOCK_CLOEXEC);
		where = "cluster";
	}
	if (end >= 0)
		close(end);
	close(fd);
	return where;
}

/* As if no process had been redirected before: this one is. */
static inline void lab_forget_carried(const struct intercept *it)
{
	struct carried_key key;

	while (!bpf_map_get_next_key(loader_map_fd(it, "carried"), NULL, &key))
		bpf_map_delete_elem(loader_map_fd(it, "carried"), &key);
}

/* Sends, receives exactly as much, compares. */
static inline void lab_exchange(int from, int to, const char *text)
{
	size_t size = strlen(text), got = 0;
	char buffer[4096];

	assert_true(size < sizeof(buffer));
	assert_int_equal(send(from, text, size, MSG_NOSIGNAL), size);
	while (got < size) {
		ssize_t n;

		if (!lab_readable(to, 2000))
			fail_msg("only %zu of %zu bytes arrived", got, size);
		n = recv(to, buffer + got, size - got, 0);
		if (n <= 0)
			fail_msg("recv: %zd %s", n, strerror(errno));
		got += (size_t)n;
	}
	assert_memory_equal(buffer, text, size);
}
