/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How the programs say what they did: a per-CPU counter for everything, one ring-buffer event for each
 * connection that was not left alone. */
#pragma once
#include "maps.h"

#define COUNT(name)                                                                      \
	do {                                                                             \
		__u32 count_key = 0;                                                     \
		struct counters *count_all = bpf_map_lookup_elem(&counters, &count_key); \
		if (count_all)                                                           \
			count_all->name++;                                               \
	} while (0)

static __always_inline struct settings *settings_get(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

static __always_inline struct heartbeat *heartbeat_get(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&heartbeat, &key);
}

static __always_inline int power_is_on(void)
{
	__u32 key = 0;
	struct power *p = bpf_map_lookup_elem(&power, &key);

	return p && p->interception == INTERCEPTION_ON;
}

static __always_inline void event_emit(const struct client *c, enum event_kind kind, enum cause cause,
				       __u64 duration_ns)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		COUNT(events_lost);
		return;
	}
	e->kind = kind;
	e->cause = cause;
	e->phase = c->phase;
	e->pid = c->pid;
	e->at_ns = bpf_ktime_get_ns();
	e->duration_ns = duration_ns;
	e->client_cookie = c->cookie;
	e->netns = c->netns;
	e->cgroup = c->cgroup;
	e->destination = c->asked;
	e->steered = c->steered;
	__builtin_memcpy(e->program, c->program, sizeof(e->program));
	bpf_ringbuf_submit(e, 0);
}
