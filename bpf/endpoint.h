/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Addresses as the hooks' contexts show them, turned into `struct endpoint` and back.
 *
 * IPv4-mapped IPv6 (::ffff:a.b.c.d) is what a dual-stack client such as a JVM connects with: it is IPv4 in an
 * AF_INET6 socket, and is stored as IPv4, so that the agent's AF_INET listener and its client name one
 * connection by the same bytes.
 */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define STEER_AF_INET 2
#define STEER_AF_INET6 10

#define MAPPED_PREFIX bpf_htonl(0x0000ffff)

static __always_inline void endpoint_from_ip4(struct endpoint *e, __u32 address, __u16 port)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->ip = 4;
	e->port = port;
	__builtin_memcpy(e->address, &address, 4);
}

static __always_inline void endpoint_from_ip6(struct endpoint *e, __u32 a, __u32 b, __u32 c, __u32 d,
					      __u16 port)
{
	if (!a && !b && c == MAPPED_PREFIX) {
		endpoint_from_ip4(e, d, port);
		return;
	}
	e->ip = 6;
	e->port = port;
	__builtin_memcpy(e->address, &a, 4);
	__builtin_memcpy(e->address + 4, &b, 4);
	__builtin_memcpy(e->address + 8, &c, 4);
	__builtin_memcpy(e->address + 12, &d, 4);
}

static __always_inline __u32 endpoint_word(const struct endpoint *e, int index)
{
	__u32 word;

	__builtin_memcpy(&word, e->address + 4 * index, 4);
	return word;
}

static __always_inline int endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->ip == b->ip && a->port == b->port && endpoint_word(a, 0) == endpoint_word(b, 0) &&
	       endpoint_word(a, 1) == endpoint_word(b, 1) && endpoint_word(a, 2) == endpoint_word(b, 2) &&
	       endpoint_word(a, 3) == endpoint_word(b, 3);
}

/* A sockops remote_port: 16 bits in network order, in the upper half on the mainline kernel and in the lower
 * on some vendors'. */
static __always_inline __u16 endpoint_remote_port(__u32 remote_port)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	if (remote_port >> 16)
		remote_port >>= 16;
#endif
	return bpf_ntohs((__u16)remote_port);
}
