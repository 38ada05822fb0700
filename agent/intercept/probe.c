/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is acceleration sound on this kernel? Asked by doing, never by version: patch releases have broken sockmap
 * overnight and mended it again.
 *
 *   order     bytes redirected and unread, then bytes over TCP: must be read in that order (our own sk_msg
 *             program does both)
 *   FIONREAD  bytes that came over TCP to a socket in a map: ioctl(FIONREAD) must see them. Where it says 0,
 *             clients that ask before they read (nginx, Java, .NET did) stall, so `auto` is off there
 *
 * And is interception in force? A child process goes into each selected cgroup and connects to an address
 * that only our hook knows.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "intercept/priv.h"

#include "cqlferry.skel.h"

#define PROBE_WAIT_MS 1000

/* ---- acceleration */

struct pair {
	int client, agent;
	uint64_t cookie;
};

static void pair_close(struct pair *p)
{
	if (p->client >= 0)
		close(p->client);
	if (p->agent >= 0)
		close(p->agent);
}

static int pair_open(struct pair *p, uint32_t mark)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address), cookie_size = sizeof(p->cookie);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int code = 0;

	p->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->agent = -1;
	if (listener < 0 || p->client < 0 || bind(listener, (struct sockaddr *)&address, size) ||
	    listen(listener, 1) || getsockname(listener, (struct sockaddr *)&address, &size) ||
	    setsockopt(p->client, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ||
	    connect(p->client, (struct sockaddr *)&address, size) ||
	    getsockopt(p->client, SOL_SOCKET, SO_COOKIE, &p->cookie, &cookie_size))
		code = -errno;
	if (!code) {
		p->agent = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (p->agent < 0)
			code = -errno;
	}
	if (listener >= 0)
		close(listener);
	return code;
}

/* Both ends into the maps, as sockops does it; a credit slot is claimed when the client's bytes shall be
 * redirected. */
static int pair_enrol(struct intercept *it, struct pair *p, struct credit **ret_credit)
{
	struct pair_key key = {.client_cookie = p->cookie, .client_netns = it->own_netns};
	struct client client = {.verdict = VERDICT_REDIRECTED, .cause = CAUSE_PROBE, .credit_slot = -1};
	uint64_t client_fd = (uint64_t)p->client, agent_fd = (uint64_t)p->agent;

	client.cookie = p->cookie;
	client.netns = it->own_netns;
	for (uint32_t i = 0; ret_credit && i < 64 && client.credit_slot < 0; i++) {
		struct credit *credit = &it->credits[ABI_CREDITS - 1 - i];
		__u64 free_owner = 0;

		if (!__atomic_compare_exchange_n(&credit->owner, &free_owner, p->cookie, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		credit->sent = credit->consumed = 0;
		credit->boot = it->boot;
		client.credit_slot = (int32_t)(ABI_CREDITS - 1 - i);
		*ret_credit = credit;
	}
	if (bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.clients), &p->client, &client, BPF_ANY) ||
	    bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.agent_socks), &key, &agent_fd, BPF_ANY) ||
	    bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.client_socks), &key, &client_fd, BPF_ANY))
		return -errno;
	return 0;
}

/* Sends 5 bytes one way over TCP and asks the receiver how many there are. 1: right, 0: the fault, −errno:
 * cannot tell. */
static int fionread_right(int from, int to)
{
	struct pollfd ready = {.fd = to, .events = POLLIN};
	int pending = -1;

	if (send(from, "hello", 5, MSG_NOSIGNAL) != 5)
		return -errno;
	if (poll(&ready, 1, PROBE_WAIT_MS) != 1 || ioctl(to, FIONREAD, &pending))
		return -EIO;
	return pending == 5;
}

static int probe_fionread(struct intercept *it)
{
	struct pair p;
	int right = pair_open(&p, it->mark);

	if (!right)
		right =
		    pair_enrol(it, &p, NULL); /* no slot: nothing is redirected, both directions are TCP */
	if (!right)
		right = fionread_right(p.client, p.agent);
	if (right == 1)
		right = fionread_right(p.agent, p.client);
	pair_close(&p);
	return right;
}

/* 1: order kept, 0: not, or nothing was redirected at all. */
static int probe_order(struct intercept *it)
{
	struct pollfd ready = {.events = POLLIN};
	struct credit *credit = NULL;
	char got[16] = "";
	size_t size = 0;
	struct pair p;
	int code = pair_open(&p, it->mark);

	if (!code)
		code = pair_enrol(it, &p, &credit);
	if (!code && !credit)
		code = -EBUSY;
	if (!code && send(p.client, "first", 5, MSG_NOSIGNAL) != 5)
		code = -errno;
	if (!code && credit->sent != 5)
		code = -EOPNOTSUPP;
	if (!code) {
		credit->sent += (uint64_t)1 << 40; /* spends the credit: the next send is TCP */
		if (send(p.client, "second", 6, MSG_NOSIGNAL) != 6)
			code = -errno;
	}
	ready.fd = p.agent;
	while (!code && size < 11 && poll(&ready, 1, PROBE_WAIT_MS) == 1) {
		ssize_t n = recv(p.agent, got + size, sizeof(got) - 1 - size, 0);

		if (n <= 0)
			break;
		size += (size_t)n;
	}
	pair_close(&p);
	if (credit)
		__atomic_store_n(&credit->owner, 0, __ATOMIC_RELEASE);
	return code ? code : !strcmp(got, "firstsecond");
}

void probe_acceleration(struct intercept *it, enum intercept_acceleration wanted)
{
	int order, fionread;

	it->accelerated = false;
	if (wanted == INTERCEPT_OFF) {
		it->accelerated_why = "configured off";
		return;
	}
	if (!it->own_cgroup) {
		it->accelerated_why = "off: the agent runs in the root cgroup, where its end of a connection "
				      "cannot be enrolled";
		return;
	}
	order = probe_order(it);
	if (order != 1) {
		it->accelerated_why = order == 0 ? "off: this kernel reorders redirected bytes"
						 : "off: redirecting does not work on this kernel";
		return;
	}
	fionread = probe_fionread(it);
	if (wanted == INTERCEPT_AUTO && fionread != 1) {
		it->accelerated_why = fionread == 0
					  ? "off: FIONREAD reports 0 for sockets in a map on this kernel"
					  : "off: the FIONREAD probe failed";
		return;
	}
	it->accelerated = true;
	it->accelerated_why = wanted == INTERCEPT_ON
				  ? (fionread == 1 ? "configured on, and found sound"
						   : "configured on, although FIONREAD reports 0 here")
				  : "found sound";
}

bool intercept_accelerated(struct intercept *it, const char **ret_why)
{
	if (ret_why)
		*ret_why = it->accelerated_why;
	return it->accelerated;
}

/* ---- is interception in force? */

/* In the child: only system calls, because other threads of the agent may hold locks. Exit status 0: the hook
 * answered. */
static int check_child(const char *procs)
{
	struct sockaddr_in probe = {.sin_family = AF_INET, .sin_port = htons(INTERCEPT_PROBE_PORT)};
	int fd = open(procs, O_WRONLY | O_CLOEXEC);
	int outcome = 0;

	probe.sin_addr.s_addr = htonl(INTERCEPT_PROBE_IP4);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return 2;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 3;
	/* Rewritten to a loopback port where nobody listens: refused at once. Not rewritten: no answer, or no
	 * route. */
	if (connect(fd, (struct sockaddr *)&probe, sizeof(probe)) && errno == EINPROGRESS) {
		struct pollfd ready = {.fd = fd, .events = POLLOUT};
		socklen_t size = sizeof(outcome);

		if (poll(&ready, 1, PROBE_WAIT_MS) == 1)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &outcome, &size);
	} else {
		outcome = errno;
	}
	return outcome == ECONNREFUSED ? 0 : 1;
}

static int check_connect(const struct steered_cgroup *cgroup, struct error *e)
{
	char dir[PATH_MAX + 64], procs[PATH_MAX + 96];
	int status = -1, code = 0;
	pid_t child;

	/* A cgroup of its own below: a selected one with controllers switched on may hold no processes
	 * itself. */
	snprintf(dir, sizeof(dir), "%s/cqlferry-probe-%d", cgroup->path, (int)getpid());
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	if (mkdir(dir, 0755) && errno != EEXIST)
		return error_set(e, -errno, "self-test in cgroup %s: cannot make a cgroup in it: %s",
				 cgroup->path, strerror(errno));
	child = fork();
	if (!child)
		_exit(check_child(procs));
	if (child < 0 || waitpid(child, &status, 0) != child)
		code = error_set(e, -errno, "self-test in cgroup %s: %s", cgroup->path, strerror(errno));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) >= 2)
		code = error_set(e, -EPERM, "self-test in cgroup %s: a process could not be moved there",
				 cgroup->path);
	else if (WEXITSTATUS(status))
		code = error_set(e, -ENOTCONN,
				 "self-test in cgroup %s: a connect made there was not seen by our hook, "
				 "although it is attached: another program "
				 "may rewrite the address first, or the kill switch is off",
				 cgroup->path);
	for (int i = 0; rmdir(dir) && errno == EBUSY && i < 100;
	     i++) /* the child's last trace goes asynchronously */
		usleep(1000);
	return code;
}

static int check_effective(struct intercept *it, const struct steered_cgroup *cgroup, struct error *e)
{
	for (int hook = 0; hook < HOOK_COUNT; hook++) {
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info), ids[64], count = 64;
		bool found = false;
		int dir;

		if (cgroup->only_sockops && hook != HOOK_SOCKOPS)
			continue;
		if (bpf_obj_get_info_by_fd(loader_program_for(it, cgroup, hook), &info, &size))
			return error_set(e, -errno, "asking for our own program: %s", strerror(errno));
		dir = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return error_set(e, -errno, "cgroup %s is gone: %s", cgroup->path, strerror(errno));
		if (bpf_prog_query(dir, hook_attach_type(hook), BPF_F_QUERY_EFFECTIVE, NULL, ids, &count))
			count = 0;
		close(dir);
		for (__u32 i = 0; i < count; i++)
			found = found || ids[i] == info.id;
		if (!found)
			return error_set(e, -ENOTCONN, "%s: our program (id %u) is not in force on cgroup %s",
					 hook_name(hook), info.id, cgroup->path);
	}
	return 0;
}

int intercept_check(struct intercept *it, struct error *e)
{
	for (size_t i = 0; i < it->cgroup_count; i++) {
		int code = check_effective(it, &it->cgroups[i], e);

		if (!code && !it->cgroups[i].only_sockops)
			code = check_connect(&it->cgroups[i], e);
		if (code)
			return code;
	}
	return 0;
}
