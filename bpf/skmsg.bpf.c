/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * send(2) of a steered client: its bytes go into the receive queue of the agent's socket without a walk
 * through the TCP stack.
 *
 * Only client → agent: nobody could say how much the client has read, so the other direction stays on TCP.
 *
 * Order (measured, tests/bpf/test_msg.c): redirected bytes overtake TCP bytes that are still unread; the
 * reverse is safe. So a send is redirected only while the socket has never queued a byte for TCP. That is
 * read from the socket itself, at every send, under its lock: a flag set at the first send would miss a
 * thread that has been waiting inside the old send since before the handshake ended.
 *
 * Backpressure: the kernel has none here. A byte credit replaces it; when it is spent, this connection stays
 * on TCP for good.
 *
 * Sockets keep the program that they were enrolled with, so all that may change at run time is a map value.
 */
#include <bpf/bpf_core_read.h>

#include "decide.h"
#include "kernel.h"
#include "report.h"

char LICENSE[] __weak SEC("license") = "GPL";

SEC("sk_msg")
int steer_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct settings *s = settings_get();
	struct pair_key key = {0};
	struct credit *credit;
	struct tcp_sock *tp;
	struct client *c;
	__u32 slot;

	if (!sk || !s)
		return SK_PASS;
	c = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!c || c->verdict != VERDICT_REDIRECTED || c->tcp_for_good || c->credit_slot < 0)
		return SK_PASS;
	if (!s->acceleration && c->cause != CAUSE_PROBE) {
		c->tcp_for_good = 1;
		return SK_PASS;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || tp->bytes_sent || tp->write_seq != tp->snd_una) {
		c->tcp_for_good = 1;
		COUNT(messages_tcp_bytes_before);
		return SK_PASS;
	}
	slot = c->credit_slot;
	credit = bpf_map_lookup_elem(&credits, &slot);
	if (!credit)
		return SK_PASS;
	if (!decide_credit(credit->sent, *(volatile __u64 *)&credit->consumed, msg->size, s->credit_bytes)) {
		c->tcp_for_good = 1;
		COUNT(messages_tcp_no_credit);
		return SK_PASS;
	}
	key.client_cookie = c->cookie;
	key.client_netns = c->netns;
	/* The helper answers SK_DROP when the agent's end is not there; never hand that on, the client would
	 * see EACCES. */
	if (bpf_msg_redirect_hash(msg, &agent_socks, &key, BPF_F_INGRESS) != SK_PASS) {
		c->tcp_for_good = 1;
		COUNT(messages_tcp_no_peer);
		return SK_PASS;
	}
	__sync_fetch_and_add(&credit->sent, (__u64)msg->size);
	c->redirected_bytes += msg->size;
	COUNT(messages_redirected);
	return SK_PASS;
}
