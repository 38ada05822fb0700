/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to watched destinations that do not go through the agent: opened before it, or while it was
 * away.
 *
 * Nobody can adopt an established stream (what was negotiated on it is unknown), so all there is to do is to
 * list them, and to close them at a limited rate, so that the drivers reconnect through us. sock_diag shows
 * one network namespace at a time: a helper thread enters each namespace in which a process of a selected
 * cgroup lives. A thread of its own, because setns is for the calling thread, and a worker that failed to
 * come back would dial from a pod.
 *
 * A redirected connection is no stray: its peer, as the kernel knows it, is the agent. The agent's own are
 * told by mark and cgroup.
 *
 * Spared is what would pass by again: its driver would come back the same way, to be closed the same way, for
 * ever. The kill switch, whose promise is that open connections live on; MPTCP; a family without an agent
 * address; a namespace that is tripped.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "intercept/priv.h"

#define STRAY_MAX_CGROUPS 65536
#define STRAY_MAX_NAMESPACES 4096
#define STATE_ESTABLISHED 1

struct namespace
{
	uint64_t inode;
	uint32_t pid;
};

struct hunt {
	struct intercept *it;
	uint64_t *cgroups; /* ids of all selected ones and what is below */
	size_t cgroup_count, cgroup_room;
	struct namespace *namespaces;
	size_t namespace_count, namespace_room;
	unsigned hidden; /* processes that our pid namespace does not show */
	unsigned close_limit, closed, found;
	bool switched_off;
	void (*callback)(void *opaque, const struct intercept_stray *stray);
	void *opaque;
	int code;
	struct error error;
};

/* ---- where to look */

static int hunt_add_cgroup(struct hunt *h, uint64_t id)
{
	if (h->cgroup_count == h->cgroup_room) {
		size_t room = h->cgroup_room ? 2 * h->cgroup_room : 256;
		uint64_t *grown =
		    room > STRAY_MAX_CGROUPS ? NULL : realloc(h->cgroups, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		h->cgroups = grown;
		h->cgroup_room = room;
	}
	h->cgroups[h->cgroup_count++] = id;
	return 0;
}

static int hunt_add_namespace(struct hunt *h, uint64_t inode, uint32_t pid)
{
	for (size_t i = 0; i < h->namespace_count; i++)
		if (h->namespaces[i].inode == inode)
			return 0;
	if (h->namespace_count == h->namespace_room) {
		size_t room = h->namespace_room ? 2 * h->namespace_room : 64;
		struct namespace *grown =
		    room > STRAY_MAX_NAMESPACES ? NULL : realloc(h->namespaces, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		h->namespaces = grown;
		h->namespace_room = room;
	}
	h->namespaces[h->namespace_count++] = (struct namespace){.inode = inode, .pid = pid};
	return 0;
}

static void hunt_read_processes(struct hunt *h, const char *cgroup)
{
	char path[PATH_MAX + 32];
	unsigned pid;
	FILE *file;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	file = fopen(path, "re");
	if (!file)
		return;
	while (fscanf(file, "%u", &pid) == 1) {
		struct stat st;

		h->hidden += pid == 0;
		snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
		if (!stat(path, &st)) /* a process may have ended meanwhile */
			hunt_add_namespace(h, st.st_ino, pid);
	}
	fclose(file);
}

static __thread struct hunt *hunt_walking; /* nftw hands nothing through */

static int hunt_visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type != FTW_D)
		return 0;
	hunt_read_processes(hunt_walking, path);
	return hunt_add_cgroup(hunt_walking, st->st_ino) ? 1 : 0;
}

static int hunt_prepare(struct hunt *h)
{
	for (size_t i = 0; i < h->it->cgroup_count; i++) {
		if (h->it->cgroups[i].only_sockops)
			continue;
		hunt_walking = h;
		if (nftw(h->it->cgroups[i].path, hunt_visit, 16, FTW_PHYS) == 1)
			return -ENOMEM;
	}
	return 0;
}

static bool hunt_has_cgroup(const struct hunt *h, uint64_t id)
{
	for (size_t i = 0; i < h->cgroup_count; i++)
		if (h->cgroups[i] == id)
			return true;
	return false;
}

/* ---- what is there */

struct diag_request {
	struct nlmsghdr head;
	struct inet_diag_req_v2 body;
};

static void diag_endpoint(struct endpoint *e, const struct inet_diag_msg *m, const __be32 address[4],
			  __be16 port)
{
	struct sockaddr_storage storage = {.ss_family = m->idiag_family};

	if (m->idiag_family == AF_INET) {
		((struct sockaddr_in *)&storage)->sin_port = port;
		memcpy(&((struct sockaddr_in *)&storage)->sin_addr, address, 4);
	} else {
		((struct sockaddr_in6 *)&storage)->sin6_port = port;
		memcpy(&((struct sockaddr_in6 *)&storage)->sin6_addr, address, 16);
	}
	if (endpoint_from_sockaddr(e, (struct sockaddr *)&storage))
		memset(e, 0, sizeof(*e));
}

/* 0 or the kernel's answer to SOCK_DESTROY. A socket of its own: the dump is still being read from the other.
 */
static int stray_close(const struct inet_diag_msg *m)
{
	struct diag_request request = {
	    .head = {.nlmsg_len = sizeof(request),
		     .nlmsg_type = SOCK_DESTROY,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
	    .body = {.sdiag_family = m->idiag_family,
		     .sdiag_protocol = IPPROTO_TCP,
		     .idiag_states = -1u,
		     .id = m->id},
	};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[256];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int code = 0;

	if (fd < 0)
		return -errno;
	if (send(fd, &request, sizeof(request), 0) < 0 ||
	    recv(fd, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer.head))
		code = -errno;
	else if (answer.head.nlmsg_type == NLMSG_ERROR)
		code = answer.error.error;
	close(fd);
	return code;
}

static bool trip_in_force(const struct intercept *it, uint64_t netns)
{
	struct trip_key key = {.netns = netns};
	struct trip trip;

	return !loader_lookup(it, "trips", &key, &trip) && trip.boot == it->heartbeat->boot && trip.since_ns &&
	       clock_now_ns() < trip.until_ns;
}

/* Why its driver's next connection would pass by as well: a cause, or CAUSE_AGENT_SERVES = it would not. */
static enum cause stray_spared(const struct hunt *h, uint64_t cookie)
{
	struct flow_key key = {.client_cookie = cookie};
	const struct agent_address *agent = &h->it->address;
	struct flow f;

	if (h->switched_off)
		return CAUSE_SWITCHED_OFF;
	if (loader_lookup(h->it, "bypassed", &key, &f))
		return CAUSE_AGENT_SERVES; /* older than our programs */
	switch (f.cause) {
	case CAUSE_MPTCP:
		return f.cause;
	case CAUSE_NO_AGENT_ADDRESS:
		return (f.destination.ip == 4 ? agent->ip4.port : agent->ip6.port) ? CAUSE_AGENT_SERVES : f.cause;
	case CAUSE_NAMESPACE_TRIPPED:
		return trip_in_force(h->it, f.netns) ? f.cause : CAUSE_AGENT_SERVES;
	default:
		return CAUSE_AGENT_SERVES;
	}
}

static void hunt_meet(struct hunt *h, const struct namespace *ns, const struct nlmsghdr *head)
{
	const struct inet_diag_msg *m = NLMSG_DATA(head);
	int left = (int)head->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*m));
	struct rtattr *attribute = (struct rtattr *)(m + 1);
	struct intercept_stray stray = {0};
	struct endpoint local, peer;
	struct excluded_key key;
	struct excluded value;
	enum cause spared;
	uint32_t mark = 0;
	int code;

	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		if (attribute->rta_type == INET_DIAG_MARK)
			memcpy(&mark, RTA_DATA(attribute), sizeof(mark));
		else if (attribute->rta_type == INET_DIAG_CGROUP_ID)
			memcpy(&stray.cgroup_id, RTA_DATA(attribute), sizeof(stray.cgroup_id));
	}
	diag_endpoint(&peer, m, m->id.idiag_dst, m->id.idiag_dport);
	if (!peer.ip || mark == h->it->mark || !watch_has(h->it, &peer) ||
	    !hunt_has_cgroup(h, stray.cgroup_id))
		return;
	key.cgroup = stray.cgroup_id;
	if (!loader_lookup(h->it, "excluded", &key, &value))
		return;
	h->found++;
	diag_endpoint(&local, m, m->id.idiag_src, m->id.idiag_sport);
	endpoint_to_sockaddr(&local, &stray.local);
	endpoint_to_sockaddr(&peer, &stray.peer);
	stray.client_cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
	stray.netns_inode = ns->inode;
	stray.pid = ns->pid;
	spared = stray_spared(h, stray.client_cookie);
	stray.spared = spared == CAUSE_AGENT_SERVES ? NULL : cause_text(spared);
	if (h->callback)
		h->callback(h->opaque, &stray);
	if (stray.spared || h->closed >= h->close_limit)
		return;
	code = stray_close(m);
	if (!code)
		h->closed++;
	else if (code == -EOPNOTSUPP)
		h->code = error_set(&h->error, code,
				    "closing connections of others needs a kernel with "
				    "CONFIG_INET_DIAG_DESTROY; restart the clients instead");
	else if (code != -ENOENT)
		h->code = error_set(&h->error, code,
				    "closing a connection of another process: %s (CAP_NET_ADMIN is needed); restart "
				    "the clients instead",
				    strerror(-code));
	/* −ENOENT: it closed by itself meanwhile. */
}

static void hunt_blind(struct hunt *h, const struct namespace *ns, int code)
{
	h->code = error_set(&h->error, code, "listing the sockets of process %u's network namespace: %s (the kernel module tcp_diag is needed)",
			    ns->pid, strerror(-code));
}

static void hunt_dump(struct hunt *h, const struct namespace *ns, int fd, int family)
{
	struct diag_request request = {
	    .head = {.nlmsg_len = sizeof(request),
		     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	    .body = {.sdiag_family = (uint8_t)family,
		     .sdiag_protocol = IPPROTO_TCP,
		     .idiag_states = 1u << STATE_ESTABLISHED},
	};
	static __thread char buffer[32768] __attribute__((aligned(8)));

	if (send(fd, &request, sizeof(request), 0) < 0) {
		hunt_blind(h, ns, -errno);
		return;
	}
	for (;;) {
		ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
		struct nlmsghdr *head = (struct nlmsghdr *)buffer;

		if (size <= 0) {
			hunt_blind(h, ns, size < 0 ? -errno : -EPIPE);
			return;
		}
		for (; NLMSG_OK(head, size); head = NLMSG_NEXT(head, size)) {
			if (head->nlmsg_type == NLMSG_ERROR)
				hunt_blind(h, ns, ((struct nlmsgerr *)NLMSG_DATA(head))->error);
			if (head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR)
				return;
			if (head->nlmsg_type == SOCK_DIAG_BY_FAMILY)
				hunt_meet(h, ns, head);
		}
	}
}

static void hunt_enter(struct hunt *h, const struct namespace *ns)
{
	char path[64];
	int netns, fd;

	snprintf(path, sizeof(path), "/proc/%u/ns/net", ns->pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return; /* gone, and its connections with it */
	if (setns(netns, CLONE_NEWNET)) {
		h->code =
		    error_set(&h->error, -errno,
			      "entering the network namespace of process %u: %s (CAP_SYS_ADMIN is needed)",
			      ns->pid, strerror(errno));
		close(netns);
		return;
	}
	close(netns);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0) {
		hunt_blind(h, ns, -errno);
		return;
	}
	hunt_dump(h, ns, fd, AF_INET);
	hunt_dump(h, ns, fd, AF_INET6);
	close(fd);
}

static void *hunt_run(void *opaque)
{
	struct hunt *h = opaque;

	for (size_t i = 0; i < h->namespace_count; i++)
		hunt_enter(h, &h->namespaces[i]);
	return NULL;
}

int intercept_strays(struct intercept *it, unsigned close_limit, unsigned *ret_closed,
		     void (*callback)(void *opaque, const struct intercept_stray *stray), void *opaque,
		     struct error *e)
{
	struct hunt h = {.it = it, .close_limit = close_limit, .callback = callback, .opaque = opaque};
	struct power power = {.interception = INTERCEPTION_ON};
	uint32_t key = 0;
	pthread_t thread;
	int code;

	loader_lookup(it, "power", &key, &power);
	h.switched_off = power.interception != INTERCEPTION_ON;
	code = hunt_prepare(&h);
	if (!code)
		code = -pthread_create(&thread, NULL, hunt_run, &h);
	if (!code) {
		pthread_join(thread, NULL);
		/* Also where some are visible, the agent's own perhaps: what was not looked at may be anything. */
		if (!h.code && h.hidden)
			h.code = error_set(&h.error, -EPERM,
					   "%u processes of the selected cgroups are in another pid namespace: run the agent in the "
					   "node's (hostPID: true) to find their connections",
					   h.hidden);
		code = h.code;
		if (code && e)
			*e = h.error;
	} else {
		error_set(e, code, "looking for connections that pass by the agent: %s", strerror(-code));
	}
	free(h.cgroups);
	free(h.namespaces);
	if (ret_closed)
		*ret_closed = h.closed;
	return code ? code : (int)h.found;
}
