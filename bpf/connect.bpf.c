/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * connect(2) of processes in the selected cgroups: the first thing that happens to a client's connection.
 *
 *   not TCP, not watched, the agent's own (cgroup, SO_MARK) ─▶ left alone
 *   watched ─▶ decide() ─▶ redirected          rewrite to the agent
 *                          refused             rewrite to an address where nobody listens
 *                          direct              rewrite to a target node
 *                          observed, bypassed  no rewrite, but remembered and counted
 *
 * What was decided is kept on the socket (map `clients`), because a socket may connect again: each connect
 * resets it. The hook itself never refuses (it always returns 1): whatever fails in here, the client goes
 * where it wanted to go.
 */
#include "decide.h"
#include "endpoint.h"
#include "kernel.h"
#include "report.h"
#include "watch.h"

#include <bpf/bpf_core_read.h>

char LICENSE[] __weak SEC("license") = "GPL";

#define STEER_SOCK_STREAM 1
#define STEER_TCP 6
#define CONNECT_SECOND_RUN_NS 5000000ull

static __always_inline int connect_is_own(struct bpf_sock_addr *ctx, const struct settings *s, __u64 cgroup)
{
	struct excluded_key key = {.cgroup = cgroup};
	__u32 mark = 0;

	if (bpf_map_lookup_elem(&excluded, &key))
		return 1;
	if (!s->agent_mark || !ctx->sk)
		return 0;
	mark = ctx->sk->mark;
	return mark == s->agent_mark;
}

/* The hook sees the first subflow of an MPTCP socket, which calls itself TCP. Steered, it would answer
 * getpeername with our address. */
static __always_inline int connect_is_mptcp(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp;
}

static __always_inline void connect_decide(const struct settings *s, const struct agent_address *agent,
					   int ip, __u64 netns, struct decision *ret_decision)
{
	struct decision_input in = {0};
	struct heartbeat *beat = heartbeat_get();
	struct listener_key listener_key = {.netns = s->agent_netns};
	struct trip_key trip_key = {.netns = netns};
	struct carried_key carried_key = {.pid = bpf_get_current_pid_tgid() >> 32};
	struct listener *l;
	struct trip *t;

	in.switched_off = !power_is_on();
	in.phase = s->phase;
	in.observe_relays = s->observe_relays;
	in.has_direct = ip == 4 ? s->targets4 : s->targets6;
	in.carried = bpf_map_lookup_elem(&carried, &carried_key) != 0;
	listener_key.port = ip == 4 ? agent->ip4.port : agent->ip6.port;
	in.has_address = listener_key.port != 0;
	in.now_ns = bpf_ktime_get_ns();
	in.grace_ns = s->grace_ns;
	if (beat) {
		in.boot = beat->boot;
		in.deadline_ns = beat->deadline_ns;
	}
	l = bpf_map_lookup_elem(&listeners, &listener_key);
	if (l) {
		in.listener_known = 1;
		in.listener_open = l->open;
		in.listener_closed_ns = l->closed_ns;
	}
	t = bpf_map_lookup_elem(&trips, &trip_key);
	if (t && t->boot == in.boot) {
		in.trip_since_ns = t->since_ns;
		in.trip_until_ns = t->until_ns;
	}
	*ret_decision = decide(&in);
}

static __always_inline void connect_refuse_to(struct endpoint *to, int ip)
{
	if (ip == 4)
		endpoint_from_ip4(to, bpf_htonl(0x7f000001), ABI_REFUSE_PORT);
	else
		endpoint_from_ip6(to, 0, 0, 0, bpf_htonl(1), ABI_REFUSE_PORT);
}

/* Any target node of the family: connects of one pool spread over them. 0, or −1 when the map and its count
 * disagree. */
static __always_inline int connect_target(const struct settings *s, int ip, struct endpoint *ret_to)
{
	__u32 count = ip == 4 ? s->targets4 : s->targets6;
	__u32 key;
	struct endpoint *target;

	if (!count)
		return -1;
	key = bpf_get_prandom_u32() % count + (ip == 4 ? 0 : ABI_DIRECT);
	target = bpf_map_lookup_elem(&targets, &key);
	if (!target || !target->port)
		return -1;
	*ret_to = *target;
	return 0;
}

static __always_inline void connect_count(const struct decision *d)
{
	switch (d->verdict) {
	case VERDICT_REDIRECTED:
		COUNT(redirected);
		return;
	case VERDICT_OBSERVED:
		COUNT(observed);
		return;
	case VERDICT_DIRECT:
		COUNT(direct);
		return;
	case VERDICT_BYPASSED:
		if (d->cause == CAUSE_AGENT_STALE)
			COUNT(bypassed_agent_stale);
		else if (d->cause == CAUSE_AGENT_GONE)
			COUNT(bypassed_agent_gone);
		else if (d->cause == CAUSE_NAMESPACE_TRIPPED)
			COUNT(bypassed_tripped);
		else if (d->cause == CAUSE_NO_AGENT_ADDRESS)
			COUNT(bypassed_no_address);
		else if (d->cause == CAUSE_SWITCHED_OFF)
			COUNT(bypassed_switched_off);
		else if (d->cause == CAUSE_MPTCP)
			COUNT(bypassed_mptcp);
		else
			COUNT(bypassed_no_memory);
		return;
	case VERDICT_REFUSED:
		if (d->cause == CAUSE_AGENT_STALE)
			COUNT(refused_agent_stale);
		else if (d->cause == CAUSE_AGENT_GONE)
			COUNT(refused_agent_gone);
		else if (d->cause == CAUSE_NAMESPACE_TRIPPED)
			COUNT(refused_tripped);
		else if (d->cause == CAUSE_NO_MEMORY)
			COUNT(refused_no_memory);
		else
			COUNT(refused_no_address);
		return;
	default:
		return;
	}
}

/*
 * Is this the second run for one connect(2)? That happens for a while when a cgroup is selected above one
 * that is selected already: the inner one's program may have rewritten the address, and what it decided must
 * stay.
 */
static __always_inline int connect_seen_already(struct bpf_sock *sk, const struct endpoint *asked)
{
	struct client *c = bpf_sk_storage_get(&clients, sk, 0, 0);

	return c && !c->established_ns && endpoint_equal(c->steered.ip ? &c->steered : &c->asked, asked) &&
	       bpf_ktime_get_ns() - c->connect_ns < CONNECT_SECOND_RUN_NS;
}

/* What and why. LEFT_ALONE: as if the destination were not watched. */
static __always_inline void connect_judge(struct bpf_sock_addr *ctx, const struct settings *s, int ip,
					  __u64 netns, __u64 cgroup, struct decision *ret_decision)
{
	ret_decision->verdict = VERDICT_LEFT_ALONE;
	ret_decision->cause = CAUSE_AGENT_SERVES;
	if (connect_is_own(ctx, s, cgroup)) {
		COUNT(own);
	} else if (connect_is_mptcp(ctx->sk)) {
		ret_decision->verdict = VERDICT_BYPASSED;
		ret_decision->cause = CAUSE_MPTCP;
	} else {
		connect_decide(s, &s->agent[s->address_index & 1], ip, netns, ret_decision);
	}
}

/* Where to, by the verdict, which changes if that turns out to be nowhere. Returns 1 when the address is to
 * be rewritten. */
static __always_inline int connect_where(const struct settings *s, int ip, struct decision *d,
					 struct endpoint *ret_to)
{
	const struct agent_address *agent = &s->agent[s->address_index & 1];

	switch (d->verdict) {
	case VERDICT_REDIRECTED:
		*ret_to = ip == 4 ? agent->ip4 : agent->ip6;
		return 1;
	case VERDICT_DIRECT:
		if (!connect_target(s, ip, ret_to))
			return 1;
		d->verdict = VERDICT_REFUSED; /* the origin is no place for writes any more */
		d->cause = CAUSE_NO_AGENT_ADDRESS;
		connect_refuse_to(ret_to, ip);
		return 1;
	case VERDICT_REFUSED:
		connect_refuse_to(ret_to, ip);
		return 1;
	default:
		return 0;
	}
}

/*
 * No storage on the socket: the agent could not be told the destination. Open is the rule for our own
 * failures, except where a client that writes past us would write to the wrong side.
 */
static __always_inline int connect_without_storage(const struct settings *s, int ip, struct decision *d,
						   int steer, struct endpoint *ret_to)
{
	if (d->verdict == VERDICT_REDIRECTED || d->verdict == VERDICT_DIRECT) {
		d->cause = CAUSE_NO_MEMORY;
		d->verdict = s->phase >= PHASE_IS_DRAIN ? VERDICT_REFUSED : VERDICT_BYPASSED;
		steer = d->verdict == VERDICT_REFUSED;
		if (steer)
			connect_refuse_to(ret_to, ip);
	}
	connect_count(d);
	return steer;
}

static __always_inline void connect_remember(const struct client *c)
{
	struct carried_key key = {.pid = c->pid};
	struct carried value = {.connect_ns = c->connect_ns};

	__builtin_memcpy(value.program, c->program, sizeof(value.program));
	bpf_map_update_elem(&carried, &key, &value, BPF_ANY);
}

static __always_inline void connect_report(const struct client *c, const struct decision *d)
{
	connect_count(d);
	if (d->verdict == VERDICT_REDIRECTED)
		connect_remember(c);
	/* Observed and bypassed ones are reported when they are established: only then is there a gap
	 * (sockops.bpf.c). */
	if (d->verdict == VERDICT_REDIRECTED)
		event_emit(c, EVENT_REDIRECTED, d->cause, 0);
	else if (d->verdict == VERDICT_REFUSED)
		event_emit(c, EVENT_REFUSED, d->cause, 0);
	else if (d->verdict == VERDICT_DIRECT)
		event_emit(c, EVENT_DIRECT, d->cause, 0);
}

/* Returns 1 when *ret_to is where the connection shall go instead. */
static __always_inline int connect_watched(struct bpf_sock_addr *ctx, const struct settings *s,
					   const struct endpoint *asked, struct endpoint *ret_to)
{
	__u64 netns = bpf_get_netns_cookie(ctx), cgroup = bpf_get_current_cgroup_id();
	struct bpf_sock *sk = ctx->sk;
	struct decision d = {0};
	struct client *c;
	int steer;

	if (!sk)
		return 0;
	connect_judge(ctx, s, asked->ip, netns, cgroup, &d);
	steer = connect_where(s, asked->ip, &d, ret_to);
	c = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return connect_without_storage(s, asked->ip, &d, steer, ret_to);

	/* Kept for those left alone as well: sockops knows by it that this hook saw them. */
	__builtin_memset(c, 0, sizeof(*c));
	c->asked = *asked;
	if (steer)
		c->steered = *ret_to;
	c->verdict = d.verdict;
	c->cause = d.cause;
	c->phase = s->phase;
	c->credit_slot = -1;
	c->cookie = bpf_get_socket_cookie(ctx);
	c->netns = netns;
	c->cgroup = cgroup;
	c->connect_ns = bpf_ktime_get_ns();
	c->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(c->program, sizeof(c->program));
	connect_report(c, &d);
	return steer;
}

/* Forgets an earlier connect of this socket; then: is this one ours? Returns 1 when *ret_to is where it shall
 * go instead. */
static __always_inline int connect_steer(struct bpf_sock_addr *ctx, const struct endpoint *asked,
					 struct endpoint *ret_to)
{
	struct settings *s = settings_get();
	struct bpf_sock *sk = ctx->sk;
	struct watch *w;

	if (!s || !sk)
		return 0;
	if (connect_seen_already(sk, asked))
		return 0;
	w = watch_match(asked);
	if (!w || w->why == WATCH_PROBE)
		bpf_sk_storage_delete(&clients, sk);
	if (!w)
		return 0;
	if (w->why == WATCH_PROBE) {
		if (!power_is_on())
			return 0;
		COUNT(probes);
		connect_refuse_to(ret_to, asked->ip);
		return 1;
	}
	__sync_fetch_and_add(&w->connects, 1);
	return connect_watched(ctx, s, asked, ret_to);
}

/* UDP and all else passes. */
static __always_inline int connect_is_stream(struct bpf_sock_addr *ctx)
{
	return ctx->type == STEER_SOCK_STREAM && ctx->protocol == STEER_TCP;
}

SEC("cgroup/connect4")
int steer_connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint asked, to = {0};

	if (!connect_is_stream(ctx))
		return 1;
	endpoint_from_ip4(&asked, ctx->user_ip4, bpf_ntohs(ctx->user_port));
	if (connect_steer(ctx, &asked, &to)) {
		ctx->user_ip4 = endpoint_word(&to, 0);
		ctx->user_port = bpf_htons(to.port);
	}
	return 1;
}

SEC("cgroup/connect6")
int steer_connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint asked, to = {0};

	if (!connect_is_stream(ctx))
		return 1;
	endpoint_from_ip6(&asked, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3],
			  bpf_ntohs(ctx->user_port));
	if (!connect_steer(ctx, &asked, &to))
		return 1;
	if (to.ip == 4) {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = MAPPED_PREFIX;
		ctx->user_ip6[3] = endpoint_word(&to, 0);
	} else {
		ctx->user_ip6[0] = endpoint_word(&to, 0);
		ctx->user_ip6[1] = endpoint_word(&to, 1);
		ctx->user_ip6[2] = endpoint_word(&to, 2);
		ctx->user_ip6[3] = endpoint_word(&to, 3);
	}
	ctx->user_port = bpf_htons(to.port);
	return 1;
}
