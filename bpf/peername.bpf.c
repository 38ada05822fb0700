/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * getpeername(2) of a steered socket names the host that the application connected to: drivers compare it
 * with the addresses in system.peers. Only the socket's own storage is consulted; a socket without one, or
 * with another peer than we gave it, is not ours.
 */
#include "endpoint.h"
#include "report.h"

char LICENSE[] __weak SEC("license") = "GPL";

/* What the application asked for, if the socket is really connected to where we sent it. */
static __always_inline const struct endpoint *peername_asked(struct bpf_sock_addr *ctx,
							     const struct endpoint *now)
{
	struct bpf_sock *sk = ctx->sk;
	struct client *c;

	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!c || (c->verdict != VERDICT_REDIRECTED && c->verdict != VERDICT_DIRECT) ||
	    !endpoint_equal(&c->steered, now))
		return 0;
	COUNT(peernames);
	return &c->asked;
}

SEC("cgroup/getpeername4")
int steer_peername4(struct bpf_sock_addr *ctx)
{
	const struct endpoint *asked;
	struct endpoint now;

	endpoint_from_ip4(&now, ctx->user_ip4, bpf_ntohs(ctx->user_port));
	asked = peername_asked(ctx, &now);
	if (asked && asked->ip == 4) {
		ctx->user_ip4 = endpoint_word(asked, 0);
		ctx->user_port = bpf_htons(asked->port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int steer_peername6(struct bpf_sock_addr *ctx)
{
	const struct endpoint *asked;
	struct endpoint now;

	endpoint_from_ip6(&now, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3],
			  bpf_ntohs(ctx->user_port));
	asked = peername_asked(ctx, &now);
	if (!asked)
		return 1;
	if (asked->ip == 4) {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = MAPPED_PREFIX;
		ctx->user_ip6[3] = endpoint_word(asked, 0);
	} else {
		ctx->user_ip6[0] = endpoint_word(asked, 0);
		ctx->user_ip6[1] = endpoint_word(asked, 1);
		ctx->user_ip6[2] = endpoint_word(asked, 2);
		ctx->user_ip6[3] = endpoint_word(asked, 3);
	}
	ctx->user_port = bpf_htons(asked->port);
	return 1;
}
