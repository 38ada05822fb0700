/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * All maps. The programs are several objects that `bpftool gen object` links to one: a map that several of
 * them name must be weak, or the linker takes the definitions for a conflict. All are pinned by name by the
 * loader; what each holds is said in abi.h.
 */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define MAP __weak SEC(".maps")

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct power);
} power MAP;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings MAP;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heartbeat);
} heartbeat MAP;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ABI_WATCH);
	__type(key, struct watch4_key);
	__type(value, struct watch);
} watch4 MAP;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ABI_WATCH);
	__type(key, struct watch6_key);
	__type(value, struct watch);
} watch6 MAP;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * ABI_DIRECT);
	__type(key, __u32);
	__type(value, struct endpoint);
} targets MAP;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ABI_EXCLUDED);
	__type(key, struct excluded_key);
	__type(value, struct excluded);
} excluded MAP;

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
} clients MAP;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ABI_DESTINATIONS);
	__type(key, struct way);
	__type(value, struct destination);
} destinations MAP;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ABI_BYPASSED);
	__type(key, struct flow_key);
	__type(value, struct flow);
} bypassed MAP;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ABI_STEERED);
	__type(key, struct flow_key);
	__type(value, struct flow);
} steered MAP;

/* LRU: a node may see more namespaces than this in its life, and forgetting a trip costs two more failed
 * connects. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ABI_TRIPS);
	__type(key, struct trip_key);
	__type(value, struct trip);
} trips MAP;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ABI_CARRIED);
	__type(key, struct carried_key);
	__type(value, struct carried);
} carried MAP;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ABI_LISTENERS);
	__type(key, struct listener_key);
	__type(value, struct listener);
} listeners MAP;

/* Marks listening sockets that are counted in `listeners`, so that each is taken off exactly once. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct listener_key);
} listening MAP;

/* A sockhash value of 8 bytes lets a dump return socket cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, ABI_SOCKS);
	__type(key, struct pair_key);
	__type(value, __u64);
} client_socks MAP;

/* No program is attached to this one: the agent's sockets only receive, so their own sends stay the kernel's
 * plain tcp_sendmsg. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, ABI_SOCKS);
	__type(key, struct pair_key);
	__type(value, __u64);
} agent_socks MAP;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ABI_CREDITS);
	__type(key, __u32);
	__type(value, struct credit);
} credits MAP;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters MAP;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ABI_EVENT_BYTES);
} events MAP;
