/* SPDX-License-Identifier: Apache-2.0 */
/* Where a client wanted to go, at accept; and the byte credit that belongs to its connection. */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "intercept/priv.h"

#include "cqlferry.skel.h"

_Static_assert(sizeof(struct intercept_slot) == sizeof(struct credit),
	       "intercept.h shows abi.h's struct credit");
_Static_assert(offsetof(struct intercept_slot, consumed) == offsetof(struct credit, consumed), "same layout");

static void credit_free(struct credit *credit, __u64 owner)
{
	__atomic_compare_exchange_n(&credit->owner, &owner, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static int origin_unknown(struct intercept *it)
{
	/* The connect hooks' side of this: a client that we close now counts as a strike against its
	 * namespace (bpf/sockops.bpf.c). */
	__atomic_store_n(&it->heartbeat->unattributed_ns, clock_now_ns(), __ATOMIC_RELEASE);
	__atomic_fetch_add(&it->heartbeat->unattributed, 1, __ATOMIC_RELAXED);
	return -ENOENT;
}

int intercept_accept(struct intercept *it, const struct sockaddr *local, const struct sockaddr *peer,
		     struct intercept_origin *ret_origin)
{
	struct destination d;
	struct way way;
	int code;

	memset(&way, 0, sizeof(way));
	code = endpoint_from_sockaddr(&way.client, peer);
	if (!code)
		code = endpoint_from_sockaddr(&way.agent, local);
	if (code)
		return code;
	if (bpf_map_lookup_and_delete_elem(bpf_map__fd(it->skeleton->maps.destinations), &way, &d))
		return errno == ENOENT ? origin_unknown(it) : -errno;
	if (d.ambiguous) {
		if (d.credit_slot >= 0)
			credit_free(&it->credits[(uint32_t)d.credit_slot % ABI_CREDITS], d.client_cookie);
		return origin_unknown(it);
	}
	memset(ret_origin, 0, sizeof(*ret_origin));
	ret_origin->destination_size = endpoint_to_sockaddr(&d.asked, &ret_origin->destination);
	ret_origin->client_cookie = d.client_cookie;
	ret_origin->netns_cookie = d.netns;
	ret_origin->cgroup_id = d.cgroup;
	ret_origin->pid = d.pid;
	ret_origin->connected_ns = d.established_ns;
	if (d.credit_slot >= 0)
		ret_origin->slot =
		    (struct intercept_slot *)&it->credits[(uint32_t)d.credit_slot % ABI_CREDITS];
	return 0;
}

void intercept_release(struct intercept *it, struct intercept_slot *slot)
{
	(void)it;
	if (slot)
		atomic_store_explicit(&slot->owner, 0, memory_order_release);
}

/* Owners that wait in `destinations` are alive: the agent that died had not accepted them, and we shall. */
void credit_sweep(struct intercept *it)
{
	int fd = bpf_map__fd(it->skeleton->maps.destinations);
	struct way way, *previous = NULL;
	struct destination d;
	uint8_t *waiting = calloc(1, ABI_CREDITS);

	if (!waiting)
		return; /* slots stay claimed: fewer connections are accelerated, nothing else */
	while (!bpf_map_get_next_key(fd, previous, &way)) {
		if (!bpf_map_lookup_elem(fd, &way, &d) && d.credit_slot >= 0)
			waiting[(uint32_t)d.credit_slot % ABI_CREDITS] = 1;
		previous = &way;
	}
	for (uint32_t i = 0; i < ABI_CREDITS; i++) {
		uint64_t owner = __atomic_load_n(&it->credits[i].owner, __ATOMIC_RELAXED);

		if (owner && !waiting[i] && it->credits[i].boot != it->boot)
			credit_free(&it->credits[i], owner);
	}
	free(waiting);
}

int intercept_drain(struct intercept *it, unsigned timeout_ms)
{
	uint64_t end = clock_now_ns() + timeout_ms * 1000000ull;
	struct timespec pause = {.tv_nsec = 2000000};

	/* Each socket looks at this before it redirects, and stays on TCP for good then. */
	__atomic_store_n(&it->settings->acceleration, 0, __ATOMIC_RELEASE);
	for (;;) {
		bool unread = false;

		for (uint32_t i = 0; i < ABI_CREDITS && !unread; i++)
			unread = __atomic_load_n(&it->credits[i].owner, __ATOMIC_ACQUIRE) &&
				 (int64_t)(__atomic_load_n(&it->credits[i].sent, __ATOMIC_ACQUIRE) -
					   __atomic_load_n(&it->credits[i].consumed, __ATOMIC_ACQUIRE)) > 0;
		if (!unread)
			return 0;
		if (clock_now_ns() >= end)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
}
