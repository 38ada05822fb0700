/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The few fields of kernel structs that have no UAPI: relocated at load time by BTF, so no generated header
 * of the whole kernel.
 */
#pragma once
#include <linux/types.h>

#define KERNEL_STRUCT __attribute__((preserve_access_index))

struct tcp_sock {
	__u32 write_seq;  /* one past the last byte that the application queued for TCP */
	__u32 snd_una;	  /* first byte not acknowledged */
	__u64 bytes_sent; /* payload ever sent over TCP, retransmits included */
	_Bool is_mptcp;	  /* a subflow of an MPTCP socket; only with CONFIG_MPTCP */
} KERNEL_STRUCT;
