/* SPDX-License-Identifier: Apache-2.0 */
/* A few BPF instructions by hand, for the programs of *other* BPF users and for facts about the kernel:
 * smaller than a second object. */
#pragma once
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#define INSN(op, dst, src, offset, value) \
	((struct bpf_insn){.code = (op), .dst_reg = (dst), .src_reg = (src), .off = (offset), .imm = (value)})
#define INSN_MOV_IMM(dst, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value)
#define INSN_MOV(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define INSN_ADD_IMM(dst, value) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, value)
#define INSN_LOAD32(dst, src, offset) INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, offset, 0)
#define INSN_STORE32(dst, offset, src) INSN(BPF_STX | BPF_MEM | BPF_W, dst, src, offset, 0)
#define INSN_STORE32_IMM(dst, offset, value) INSN(BPF_ST | BPF_MEM | BPF_W, dst, 0, offset, value)
#define INSN_JNE(dst, value, offset) INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, offset, value)
#define INSN_MAP(dst, fd) INSN(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define INSN_CALL(helper) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define INSN_EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* sockops: puts each socket into a sockhash (key: its local port, 4 bytes) at `op`. */
static inline int insn_sockops_that_enrols(int map, int op)
{
	struct bpf_insn program[] = {
	    INSN_MOV(6, 1),
	    INSN_LOAD32(2, 1, offsetof(struct bpf_sock_ops, op)),
	    INSN_JNE(2, op, 9),
	    INSN_LOAD32(2, 6, offsetof(struct bpf_sock_ops, local_port)),
	    INSN_STORE32(10, -4, 2),
	    INSN_MOV(1, 6),
	    INSN_MAP(2, map),
	    INSN_MOV(3, 10),
	    INSN_ADD_IMM(3, -4),
	    INSN_MOV_IMM(4, 0),
	    INSN_CALL(BPF_FUNC_sock_hash_update),
	    INSN_MOV_IMM(0, 1),
	    INSN_EXIT,
	};

	return bpf_prog_load(BPF_PROG_TYPE_SOCK_OPS, "other_sockops", "GPL", program,
			     sizeof(program) / sizeof(*program), NULL);
}

/* sk_msg: redirects everything into the receive queue of the socket under key 0 (4 bytes). */
static inline int insn_msg_that_redirects(int map)
{
	struct bpf_insn program[] = {
	    INSN_STORE32_IMM(10, -4, 0),
	    INSN_MAP(2, map),
	    INSN_MOV(3, 10),
	    INSN_ADD_IMM(3, -4),
	    INSN_MOV_IMM(4, BPF_F_INGRESS),
	    INSN_CALL(BPF_FUNC_msg_redirect_hash),
	    INSN_MOV_IMM(0, 1),
	    INSN_EXIT,
	};

	return bpf_prog_load(BPF_PROG_TYPE_SK_MSG, "redirects", "GPL", program,
			     sizeof(program) / sizeof(*program), NULL);
}

static inline int insn_msg_that_passes(void)
{
	struct bpf_insn program[] = {INSN_MOV_IMM(0, 1), INSN_EXIT};

	return bpf_prog_load(BPF_PROG_TYPE_SK_MSG, "passes", "GPL", program, 2, NULL);
}
