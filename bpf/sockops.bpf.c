/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The life of a connection between connect(2) and close(2), seen from both ends.
 *
 *   client's cgroup
 *     TCP_CONNECT          ask for state changes; not seen by the connect hook? then count it
 *     ACTIVE_ESTABLISHED   write the destination, enrol for sk_msg
 *     * → CLOSE            remove the destination again, judge the way to the agent
 *   agent's cgroup
 *     TCP_LISTEN           count the listener
 *     PASSIVE_ESTABLISHED  enrol the agent's end
 *     LISTEN → CLOSE       the agent is gone: noticed at once
 *
 * Selected cgroups get both halves, because the agent may live in one of them; a cgroup that is only the
 * agent's gets its half.
 *
 * ACTIVE_ESTABLISHED runs before the ACK leaves that completes the handshake, so the agent cannot accept
 * before the entry is there.
 *
 * A redirected connection is proof that redirecting works in its namespace when the agent has consumed its
 * destination; it is a strike against it when it never got beyond SYN_SENT, or when the agent closed it
 * without having found the entry (the source was translated on the way). Two strikes trip the namespace:
 * redirecting there is worse than nothing.
 */
#include "decide.h"
#include "endpoint.h"
#include "report.h"
#include "watch.h"

char LICENSE[] __weak SEC("license") = "GPL";

#define CREDIT_TRIES 4

static __always_inline void sockops_local(struct bpf_sock_ops *ops, struct endpoint *e)
{
	if (ops->family == STEER_AF_INET)
		endpoint_from_ip4(e, ops->local_ip4, ops->local_port);
	else
		endpoint_from_ip6(e, ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2],
				  ops->local_ip6[3], ops->local_port);
}

static __always_inline void sockops_remote(struct bpf_sock_ops *ops, struct endpoint *e)
{
	__u16 port = endpoint_remote_port(ops->remote_port);

	if (ops->family == STEER_AF_INET)
		endpoint_from_ip4(e, ops->remote_ip4, port);
	else
		endpoint_from_ip6(e, ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2],
				  ops->remote_ip6[3], port);
}

/* ---- credit slots */

/* Claims a free slot for this connection; −1: the few that were tried are all in use. */
static __always_inline int credit_claim(__u64 cookie)
{
	struct heartbeat *beat = heartbeat_get();
	int try;

#pragma unroll
	for (try = 0; try < CREDIT_TRIES; try++) {
		__u32 slot = (__u32)((cookie * 0x9e3779b97f4a7c15ull) >> 40) + (__u32)try * 4099;
		struct credit *credit;

		slot &= ABI_CREDITS - 1;
		credit = bpf_map_lookup_elem(&credits, &slot);
		if (credit && __sync_val_compare_and_swap(&credit->owner, 0, cookie) == 0) {
			credit->sent = 0;
			credit->consumed = 0;
			credit->boot = beat ? beat->boot : 0;
			return (int)slot;
		}
	}
	return -1;
}

/* Only for connections that the agent never accepted; otherwise it gives the slot back itself, when it has
 * closed its end. */
static __always_inline void credit_release(int index, __u64 cookie)
{
	__u32 slot = (__u32)index;
	struct credit *credit;

	if (index < 0)
		return;
	credit = bpf_map_lookup_elem(&credits, &slot);
	if (credit)
		__sync_val_compare_and_swap(&credit->owner, cookie, 0);
}

/* ---- strikes */

static __always_inline void strike(const struct client *c, enum cause cause)
{
	struct settings *s = settings_get();
	struct heartbeat *beat = heartbeat_get();
	struct trip_key key = {.netns = c->netns};
	struct trip fresh = {0};
	__u64 now = bpf_ktime_get_ns();
	struct trip *t;

	if (!s || !beat)
		return;
	t = bpf_map_lookup_elem(&trips, &key);
	if (!t) {
		bpf_map_update_elem(&trips, &key, &fresh, BPF_NOEXIST);
		t = bpf_map_lookup_elem(&trips, &key);
		if (!t)
			return;
	}
	if (decide_strike(t, cause, now, beat->boot, s->trip_ns)) {
		COUNT(trips);
		event_emit(c, EVENT_TRIPPED, cause, 0);
	}
}

static __always_inline void strike_forget(__u64 netns)
{
	struct trip_key key = {.netns = netns};
	struct trip *t = bpf_map_lookup_elem(&trips, &key);

	if (t) {
		t->strikes = 0;
		if (bpf_ktime_get_ns() >= t->until_ns)
			t->since_ns = 0;
	}
}

/* A failed connect is a strike only while the agent serves: otherwise it says nothing about the namespace. */
static __always_inline int strike_agent_serves(const struct endpoint *agent)
{
	struct settings *s = settings_get();
	struct heartbeat *beat = heartbeat_get();
	struct decision_input in = {0};
	struct listener_key key = {0};
	struct listener *l;
	__u64 since;

	if (!s || !beat)
		return 0;
	key.netns = s->agent_netns;
	key.port = agent->port;
	l = bpf_map_lookup_elem(&listeners, &key);
	if (l) {
		in.listener_known = 1;
		in.listener_open = l->open;
	}
	in.now_ns = bpf_ktime_get_ns();
	in.deadline_ns = beat->deadline_ns;
	return decide_agent(&in, &since) == CAUSE_AGENT_SERVES;
}

/* ---- client side */

static __always_inline void client_connecting(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct client *c = bpf_sk_storage_get(&clients, sk, 0, 0);
	struct settings *s = settings_get();
	struct endpoint to = {0};

	if (!c) {
		struct heartbeat *beat = heartbeat_get();
		struct watch *w;

		if (!s || !beat || !beat->boot)
			return;
		sockops_remote(ops, &to);
		w = watch_match(&to);
		if (!w || w->why == WATCH_PROBE || (s->agent_mark && sk->mark == s->agent_mark))
			return;
		COUNT(bypassed_hook_missed);
		c = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!c)
			return;
		__builtin_memset(c, 0, sizeof(*c));
		c->asked = to;
		c->verdict = VERDICT_BYPASSED;
		c->cause = CAUSE_HOOK_MISSED;
		c->phase = s->phase;
		c->credit_slot = -1;
		c->cookie = bpf_get_socket_cookie(ops);
		c->netns = bpf_get_netns_cookie(ops);
		c->connect_ns = bpf_ktime_get_ns();
	}
	if (c->verdict != VERDICT_LEFT_ALONE)
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Both ends or none: without the destination entry the agent's end cannot find the key, and without a slot
 * nothing may be redirected. */
static __always_inline void client_enrol(struct bpf_sock_ops *ops, struct client *c)
{
	struct pair_key key = {.client_cookie = c->cookie, .client_netns = c->netns};
	long rc;

	c->credit_slot = credit_claim(c->cookie);
	if (c->credit_slot < 0) {
		COUNT(accelerate_no_slot);
		return;
	}
	rc = bpf_sock_hash_update(ops, &client_socks, &key, BPF_ANY);
	if (!rc)
		return;
	if (rc == -16 /* EBUSY */)
		COUNT(accelerate_busy);
	else
		COUNT(accelerate_refused);
	credit_release(c->credit_slot, c->cookie);
	c->credit_slot = -1;
}

static __always_inline void client_remember(struct bpf_sock_ops *ops, struct client *c)
{
	struct settings *s = settings_get();
	struct destination d = {0};
	struct destination *old;
	struct way way = {0};

	sockops_local(ops, &way.client);
	sockops_remote(ops, &way.agent);
	old = bpf_map_lookup_elem(&destinations, &way);
	if (old && old->client_cookie != c->cookie) {
		if (old->netns != c->netns && c->established_ns - old->established_ns < ABI_AMBIGUOUS_NS) {
			/* Which of the two will be accepted under this 4-tuple? Nobody can know. */
			old->ambiguous = 1;
			COUNT(destination_ambiguous);
			return;
		}
		/* Its client is gone: within a namespace a 4-tuple is not given twice, and across them it is
		 * too old to be waiting. */
		credit_release(old->credit_slot, old->client_cookie);
		COUNT(destination_stale);
	}
	if (s && s->acceleration)
		client_enrol(ops, c);
	d.asked = c->asked;
	d.credit_slot = c->credit_slot;
	d.client_cookie = c->cookie;
	d.netns = c->netns;
	d.cgroup = c->cgroup;
	d.established_ns = c->established_ns;
	d.pid = c->pid;
	__builtin_memcpy(d.program, c->program, sizeof(d.program));
	if (bpf_map_update_elem(&destinations, &way, &d, BPF_ANY)) {
		COUNT(destination_full);
		credit_release(c->credit_slot, c->cookie);
		c->credit_slot = -1;
	}
}

static __always_inline int client_is_steered(const struct client *c)
{
	return c->verdict == VERDICT_REDIRECTED || c->verdict == VERDICT_DIRECT;
}

/* Into the table that a person reads. */
static __always_inline void client_track(struct bpf_sock_ops *ops, struct client *c)
{
	struct flow_key key = {.client_cookie = c->cookie};
	struct flow f = {0};

	f.destination = c->asked;
	f.steered = c->steered;
	sockops_local(ops, &f.client);
	f.verdict = c->verdict;
	f.cause = c->cause;
	f.phase = c->phase;
	f.netns = c->netns;
	f.cgroup = c->cgroup;
	f.since_ns = c->established_ns;
	f.pid = c->pid;
	__builtin_memcpy(f.program, c->program, sizeof(f.program));
	if (client_is_steered(c)) {
		if (bpf_map_update_elem(&steered, &key, &f, BPF_ANY))
			COUNT(steered_untracked);
	} else if (bpf_map_update_elem(&bypassed, &key, &f, BPF_ANY)) {
		COUNT(bypass_untracked);
	}
}

static __always_inline void client_established(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct client *c = bpf_sk_storage_get(&clients, sk, 0, 0);

	/* Established already: the second run of a cgroup above (connect_seen_already). */
	if (!c || c->verdict == VERDICT_LEFT_ALONE || c->verdict == VERDICT_REFUSED || c->established_ns)
		return;
	c->established_ns = bpf_ktime_get_ns();
	if (c->verdict == VERDICT_REDIRECTED) {
		COUNT(established);
		client_remember(ops, c);
	} else if (c->verdict != VERDICT_DIRECT) {
		event_emit(c, c->verdict == VERDICT_OBSERVED ? EVENT_OBSERVED : EVENT_BYPASSED, c->cause, 0);
	}
	client_track(ops, c);
}

/* Did the agent ever find out whose connection this was? If not: whose fault was it? */
static __always_inline void client_judge(struct bpf_sock_ops *ops, struct client *c, __u32 old_state)
{
	struct heartbeat *beat = heartbeat_get();
	struct destination *d;
	struct way way = {0};

	sockops_local(ops, &way.client);
	sockops_remote(ops, &way.agent);
	d = bpf_map_lookup_elem(&destinations, &way);
	if (!d || d->client_cookie != c->cookie) {
		strike_forget(c->netns); /* consumed: the agent knew */
		return;
	}
	bpf_map_delete_elem(&destinations, &way);
	credit_release(c->credit_slot, c->cookie);
	/* Ended by the other side, which meanwhile refused one that it could not attribute. A client that
	 * hung up first says nothing. */
	if ((old_state == BPF_TCP_LAST_ACK || old_state == BPF_TCP_CLOSE_WAIT ||
	     old_state == BPF_TCP_ESTABLISHED) &&
	    beat && beat->unattributed_ns > c->established_ns) {
		COUNT(unattributed);
		strike(c, CAUSE_UNATTRIBUTED);
	}
}

static __always_inline void client_closed(struct bpf_sock_ops *ops, struct client *c, __u32 old_state)
{
	struct flow_key key = {.client_cookie = c->cookie};

	if (c->verdict == VERDICT_LEFT_ALONE)
		return;
	if (c->verdict == VERDICT_REDIRECTED && old_state == BPF_TCP_SYN_SENT &&
	    strike_agent_serves(&c->steered)) {
		COUNT(connect_failed);
		strike(c, CAUSE_CONNECT_FAILED);
	}
	if (!c->established_ns)
		return;
	if (client_is_steered(c)) {
		bpf_map_delete_elem(&steered, &key);
	} else {
		bpf_map_delete_elem(&bypassed, &key);
		event_emit(c, EVENT_BYPASS_ENDED, c->cause, bpf_ktime_get_ns() - c->established_ns);
	}
	if (c->verdict == VERDICT_REDIRECTED)
		client_judge(ops, c, old_state);
}

/* ---- agent side */

static __always_inline void agent_listening(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct settings *s = settings_get();
	struct listener_key key = {0};
	struct listener_key *mine;
	struct listener fresh = {0};
	struct listener *l;

	key.netns = bpf_get_netns_cookie(ops);
	key.port = ops->local_port;
	if (!s || key.netns != s->agent_netns)
		return; /* an application's own server in a selected cgroup */
	mine = bpf_sk_storage_get(&listening, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mine || mine->port)
		return; /* counted already: attached here and further up, under two names of one hierarchy */
	l = bpf_map_lookup_elem(&listeners, &key);
	if (!l) {
		bpf_map_update_elem(&listeners, &key, &fresh, BPF_NOEXIST);
		l = bpf_map_lookup_elem(&listeners, &key);
		if (!l)
			return;
	}
	*mine = key;
	__sync_fetch_and_add(&l->open, 1);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void agent_unlistening(struct bpf_sock *sk)
{
	struct listener_key *mine = bpf_sk_storage_get(&listening, sk, 0, 0);
	struct listener *l;

	if (!mine || !mine->port)
		return;
	l = bpf_map_lookup_elem(&listeners, mine);
	if (l) {
		/* The time first: who sees zero listeners must see when that began. */
		l->closed_ns = bpf_ktime_get_ns();
		__sync_fetch_and_add(&l->open, -1);
	}
	bpf_sk_storage_delete(&listening, sk);
}

static __always_inline void agent_accepting(struct bpf_sock_ops *ops)
{
	struct settings *s = settings_get();
	struct pair_key key = {0};
	struct destination *d;
	struct way way = {0};

	if (!s || !s->acceleration)
		return;
	sockops_remote(ops, &way.client);
	sockops_local(ops, &way.agent);
	d = bpf_map_lookup_elem(&destinations, &way);
	if (!d || d->ambiguous || d->credit_slot < 0)
		return;
	key.client_cookie = d->client_cookie;
	key.client_netns = d->netns;
	if (bpf_sock_hash_update(ops, &agent_socks, &key, BPF_ANY))
		COUNT(accelerate_refused);
	else
		COUNT(accelerated);
}

static __always_inline void agent_event(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		agent_accepting(ops);
	else if (ops->op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		agent_listening(ops, sk);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[0] == BPF_TCP_LISTEN &&
		 ops->args[1] == BPF_TCP_CLOSE)
		agent_unlistening(sk);
}

static __always_inline int sockops_is_ours(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	return sk && (ops->family == STEER_AF_INET || ops->family == STEER_AF_INET6);
}

SEC("sockops")
int steer_agent(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	if (sockops_is_ours(ops, sk))
		agent_event(ops, sk);
	return 1;
}

SEC("sockops")
int steer_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct client *c;

	if (!sockops_is_ours(ops, sk))
		return 1;
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		client_connecting(ops, sk);
	} else if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		client_established(ops, sk);
	} else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[0] != BPF_TCP_LISTEN &&
		   ops->args[1] == BPF_TCP_CLOSE) {
		c = bpf_sk_storage_get(&clients, sk, 0, 0);
		if (c) {
			client_closed(ops, c, ops->args[0]);
			c->verdict = VERDICT_LEFT_ALONE; /* once, also if this runs for a cgroup above as well */
		}
	} else {
		agent_event(ops, sk);
	}
	return 1;
}
