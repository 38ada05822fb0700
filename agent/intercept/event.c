/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel side tells: events from the ring, sums of the per-CPU counters, the table of connections
 * that pass by. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "intercept/priv.h"

#include "cqlferry.skel.h"

const char *cause_text(unsigned cause)
{
	static const char *const texts[CAUSE_COUNT] = {
	    [CAUSE_AGENT_SERVES] = "agent serves",
	    [CAUSE_OBSERVING] = "observing",
	    [CAUSE_AGENT_STALE] = "agent stale",
	    [CAUSE_AGENT_GONE] = "agent gone",
	    [CAUSE_NAMESPACE_TRIPPED] = "namespace tripped",
	    [CAUSE_NO_AGENT_ADDRESS] = "no agent address of this family",
	    [CAUSE_HOOK_MISSED] = "no connect hook saw it",
	    [CAUSE_MPTCP] = "MPTCP",
	    [CAUSE_NO_MEMORY] = "no memory",
	    [CAUSE_FINISHED] = "finished",
	    [CAUSE_CONNECT_FAILED] = "agent not reachable",
	    [CAUSE_UNATTRIBUTED] = "source translated on the way",
	    [CAUSE_PROBE] = "probe",
	    [CAUSE_SWITCHED_OFF] = "switched off",
	};

	return cause < CAUSE_COUNT && texts[cause] ? texts[cause] : "unknown";
}

/* ---- events */

static int event_take(void *opaque, void *data, size_t size)
{
	struct intercept *it = opaque;
	const struct event *raw = data;
	struct intercept_event event = {0};

	MAGIC_CHECK(it, INTERCEPT_MAGIC);
	if (size < sizeof(*raw) || !it->event_callback)
		return 0;
	_Static_assert((int)INTERCEPT_EVENT_REDIRECTED == (int)EVENT_REDIRECTED &&
			   (int)INTERCEPT_EVENT_TRIPPED == (int)EVENT_TRIPPED,
		       "same numbers");
	event.kind = (enum intercept_event_kind)raw->kind;
	event.cause = cause_text(raw->cause);
	event.at_ns = raw->at_ns;
	event.duration_ns = raw->duration_ns;
	endpoint_to_sockaddr(&raw->destination, &event.destination);
	endpoint_to_sockaddr(&raw->steered, &event.steered);
	event.client_cookie = raw->client_cookie;
	event.netns_cookie = raw->netns;
	event.cgroup_id = raw->cgroup;
	event.pid = raw->pid;
	event.phase = (enum intercept_phase)raw->phase;
	memcpy(event.program, raw->program, sizeof(event.program));
	event.program[sizeof(event.program) - 1] = 0;
	it->event_callback(it->event_opaque, &event);
	return 0;
}

int event_open(struct intercept *it, struct error *e)
{
	it->ring = ring_buffer__new(bpf_map__fd(it->skeleton->maps.events), event_take, it, NULL);
	return it->ring ? 0 : error_set(e, -errno, "mapping the event ring: %s", strerror(errno));
}

void event_close(struct intercept *it)
{
	ring_buffer__free(it->ring);
	it->ring = NULL;
}

int intercept_events_fd(struct intercept *it)
{
	return ring_buffer__epoll_fd(it->ring);
}

/* The ring has one reader: the agent that beats. Two would give each event to both or to none. */
int intercept_events_poll(struct intercept *it,
			  void (*callback)(void *opaque, const struct intercept_event *event), void *opaque)
{
	int taken;

	if (!it->started || intercept_superseded(it))
		return 0;
	it->event_callback = callback;
	it->event_opaque = opaque;
	taken = ring_buffer__consume(it->ring);
	it->event_callback = NULL;
	return taken;
}

static int flow_list(int fd, uint32_t most, enum intercept_event_kind kind,
		     void (*callback)(void *opaque, const struct intercept_event *event), void *opaque)
{
	struct flow_key key, *previous = NULL;
	struct flow f;
	int found = 0;

	/* At most once round: entries come and go meanwhile. */
	for (uint32_t i = 0; i < most && !bpf_map_get_next_key(fd, previous, &key); i++) {
		struct intercept_event event = {.kind = kind};

		previous = &key;
		if (bpf_map_lookup_elem(fd, &key, &f))
			continue;
		found++;
		if (!callback)
			continue;
		if (f.verdict == VERDICT_DIRECT)
			event.kind = INTERCEPT_EVENT_DIRECT;
		else if (f.verdict == VERDICT_OBSERVED)
			event.kind = INTERCEPT_EVENT_OBSERVED;
		event.cause = cause_text(f.cause);
		event.at_ns = f.since_ns;
		endpoint_to_sockaddr(&f.destination, &event.destination);
		endpoint_to_sockaddr(&f.steered, &event.steered);
		event.client_cookie = key.client_cookie;
		event.netns_cookie = f.netns;
		event.cgroup_id = f.cgroup;
		event.pid = f.pid;
		event.phase = (enum intercept_phase)f.phase;
		memcpy(event.program, f.program, sizeof(event.program));
		event.program[sizeof(event.program) - 1] = 0;
		callback(opaque, &event);
	}
	return found;
}

int intercept_bypassed(struct intercept *it,
		       void (*callback)(void *opaque, const struct intercept_event *event), void *opaque)
{
	return flow_list(bpf_map__fd(it->skeleton->maps.bypassed), ABI_BYPASSED, INTERCEPT_EVENT_BYPASSED,
			 callback, opaque);
}

int intercept_steered(struct intercept *it,
		      void (*callback)(void *opaque, const struct intercept_event *event), void *opaque)
{
	return flow_list(bpf_map__fd(it->skeleton->maps.steered), ABI_STEERED, INTERCEPT_EVENT_REDIRECTED,
			 callback, opaque);
}

/* ---- counters */

static const struct {
	const char *name, *help;
} counter_list[] = {
#define COUNTER_ROW(field, text) {#field, text},
    COUNTER_LIST(COUNTER_ROW)
#undef COUNTER_ROW
};

#define COUNTERS (sizeof(counter_list) / sizeof(*counter_list))
_Static_assert(sizeof(struct counters) == COUNTERS * sizeof(uint64_t), "one word each");

size_t intercept_counter_count(void)
{
	return COUNTERS;
}

const char *intercept_counter_name(size_t index)
{
	return index < COUNTERS ? counter_list[index].name : NULL;
}

const char *intercept_counter_help(size_t index)
{
	return index < COUNTERS ? counter_list[index].help : NULL;
}

static int counters_sum(struct intercept *it, struct counters *ret_sum)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t *sum = (uint64_t *)ret_sum;
	struct counters *each;
	uint32_t key = 0;
	int code = 0;

	if (cpus < 0)
		return cpus;
	each = calloc((size_t)cpus, sizeof(*each));
	if (!each)
		return -ENOMEM;
	memset(ret_sum, 0, sizeof(*ret_sum));
	if (bpf_map_lookup_elem(bpf_map__fd(it->skeleton->maps.counters), &key, each))
		code = -errno;
	for (int cpu = 0; !code && cpu < cpus; cpu++)
		for (size_t i = 0; i < COUNTERS; i++)
			sum[i] += ((const uint64_t *)&each[cpu])[i];
	free(each);
	return code;
}

int intercept_counters(struct intercept *it, uint64_t *ret_values, size_t count)
{
	struct counters sum;
	int code = counters_sum(it, &sum);

	if (!code)
		memcpy(ret_values, &sum, (count < COUNTERS ? count : COUNTERS) * sizeof(uint64_t));
	return code;
}

int intercept_get_totals(struct intercept *it, struct intercept_totals *ret_totals)
{
	struct counters c;
	int code = counters_sum(it, &c);

	if (code)
		return code;
	ret_totals->redirected = c.redirected;
	ret_totals->observed = c.observed;
	ret_totals->direct = c.direct;
	ret_totals->bypassed = c.bypassed_agent_stale + c.bypassed_agent_gone + c.bypassed_tripped +
			       c.bypassed_no_address + c.bypassed_switched_off + c.bypassed_mptcp +
			       c.bypassed_hook_missed + c.bypassed_no_memory;
	ret_totals->refused = c.refused_agent_stale + c.refused_agent_gone + c.refused_tripped +
			      c.refused_no_address + c.refused_no_memory;
	return 0;
}
