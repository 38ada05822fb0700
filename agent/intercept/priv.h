/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this directory share. Nobody outside includes it.
 *
 *   intercept.c  the object, settings, takeover order
 *   loader.c     the embedded BPF object, pins, links
 *   cgroup.c     mounts, ids, who is selected
 *   feature.c    what the kernel or our privileges lack, in words
 *   doctor.c     the same as findings, and what is pinned now
 *   origin.c     destination at accept, credit slots
 *   heartbeat.c  the thread that vouches for the workers
 *   watch.c      watch list, target nodes
 *   event.c      events, counters, tables of open connections
 *   probe.c      acceleration by doing, self-connect
 *   stray.c      connections that pass by us
 *   pinned.c     kill switch and removal without an agent
 *   address.c    sockaddr and struct endpoint
 */
#pragma once
#include <dirent.h>
#include <limits.h>
#include <pthread.h>

#include "abi.h"
#include "base/magic.h"
#include "intercept/intercept.h"

#define INTERCEPT_MAGIC 0x1ce9700du
#define INTERCEPT_MAX_CGROUPS 512
#define INTERCEPT_PROBE_IP4 0xc0000201u /* 192.0.2.1, of TEST-NET-1: never a real host */
#define INTERCEPT_PROBE_PORT 9

struct cqlferry_bpf;
struct ring_buffer;

enum hook { HOOK_CONNECT4, HOOK_CONNECT6, HOOK_PEERNAME4, HOOK_PEERNAME6, HOOK_SOCKOPS, HOOK_COUNT };

/* A cgroup that we are attached to. */
struct steered_cgroup {
	char *path;
	uint64_t id;
	bool only_sockops;    /* the agent's own, when nothing selected covers it */
	int link[HOOK_COUNT]; /* −1: not attached */
	bool made[HOOK_COUNT]; /* by us; otherwise taken over */
};

struct watch_entry {
	struct endpoint network; /* port, and address with host bits zero */
	int prefix;
};

struct progress {
	_Atomic uint64_t beats;
} __attribute__((aligned(64)));

struct intercept {
	uint32_t magic;
	struct cqlferry_bpf *skeleton;
	char pin_dir[PATH_MAX];
	int lock_fd; /* the pin root; flock says which agent it belongs to */
	_Atomic bool locked;
	char cgroup_mount[PATH_MAX];
	struct steered_cgroup cgroups[INTERCEPT_MAX_CGROUPS];
	size_t cgroup_count;
	uint64_t own_cgroup; /* 0: the root cgroup, which tells nothing */
	uint64_t own_netns;
	uint32_t mark;
	bool fresh; /* the pin directory is ours from the beginning */

	struct settings *settings; /* mapped; shared with the kernel */
	struct heartbeat *heartbeat;
	struct credit *credits;

	/* what intercept_start will publish */
	struct agent_address address;
	enum steer_phase phase;
	bool observe_relays;
	uint32_t credit_bytes;
	uint64_t grace_ns, finish_grace_ns, trip_ns;
	bool started;

	bool accelerated;
	const char *accelerated_why;

	uint64_t exempt[ABI_EXCLUDED]; /* cgroups that this agent was told to leave alone */
	size_t exempt_count;

	struct watch_entry *watched;
	size_t watched_count, watched_room;

	struct ring_buffer *ring;
	void (*event_callback)(void *opaque, const struct intercept_event *event);
	void *event_opaque;

	pthread_t beater;
	bool beating;
	_Atomic bool stop;
	_Atomic bool superseded;
	uint64_t boot;
	uint64_t period_ns, deadline_ns, stall_ns;
	unsigned workers;
	struct progress progress[INTERCEPT_MAX_WORKERS];
};

/* ---- address.c: endpoints are canonical (IPv4-mapped IPv6 becomes IPv4) */
int endpoint_from_sockaddr(struct endpoint *ret_endpoint, const struct sockaddr *address);
socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint, struct sockaddr_storage *ret_address);
#define ENDPOINT_TEXT 64
/* "10.0.3.7:9042", "[2001:db8::7]:9042". Returns text. */
const char *endpoint_text(const struct endpoint *endpoint, char text[ENDPOINT_TEXT]);

/* ---- cgroup.c */
/* First mount of `type` in /proc/self/mountinfo; for "cgroup2" the one that shows our own namespace's root.
 * −ENOENT. */
int mount_find(const char *type, char *ret_path, size_t size);
/* Absolute, symlink-free path of a selected cgroup; checked to be a directory on cgroup2. */
int cgroup_resolve(const struct intercept *it, const char *path, char ret_path[PATH_MAX], struct error *e);
int cgroup_id(const char *path, uint64_t *ret_id);
/* The caller's cgroup as a path below `mount`. */
int cgroup_own(const char *mount, char ret_path[PATH_MAX], struct error *e);
bool cgroup_contains(const char *outer, const char *inner);

/* ---- loader.c */
int loader_load(struct intercept *it, struct error *e);
/* A link that is pinned for it already is taken over by link update. */
int loader_attach(struct intercept *it, struct steered_cgroup *cgroup, struct error *e);
void loader_detach(struct steered_cgroup *cgroup, const char *pin_dir, bool remove);
/* Detaches what loader_attach made, not what it took over: another agent may still steer by that. */
void loader_unmake(struct steered_cgroup *cgroup, const char *pin_dir);
/* Pinned links of cgroups that are selected no more, or that died, go. Only once ours steer. */
void loader_drop_rest(struct intercept *it);
/* Removes what agents with another ABI_LAYOUT pinned; they notice that their pins are gone. */
void loader_retire_layouts(struct intercept *it);
void loader_remove_dir(const char *dir);
void loader_unpin_maps(struct intercept *it);
int loader_map_fd(const struct intercept *it, const char *name);
/* A map element by name; 0 or −errno. */
int loader_lookup(const struct intercept *it, const char *map, const void *key, void *ret_value);
int loader_program_fd(const struct intercept *it, enum hook hook);
int loader_program_for(const struct intercept *it, const struct steered_cgroup *cgroup, enum hook hook);
const char *hook_name(enum hook hook);
int hook_attach_type(enum hook hook);
/* The libbpf messages since the last call, for an error text. */
const char *loader_messages(void);

/* ---- feature.c */
/* After a failure `code`: the text that says which feature or privilege is missing; returns code. */
int feature_explain(int code, const char *what, struct error *e);
/* Who holds this hook on the cgroup, or above it, in a way that excludes us? Fills e and returns −EEXIST, or
 * returns 0. */
int feature_conflict(const char *cgroup_path, enum hook hook, struct error *e);
/* Does another agent, with pins elsewhere than below `root`, steer this cgroup? Fills e and returns −EEXIST,
 * or 0. */
int feature_other_agent(const char *cgroup_path, const char *root, struct error *e);
typedef void feature_finding(void *opaque, enum intercept_grade grade, const char *what, const char *remedy);
enum intercept_grade feature_report(feature_finding *finding, void *opaque);

/* ---- heartbeat.c */
int heartbeat_start(struct intercept *it, struct error *e);
void heartbeat_stop(struct intercept *it);

/* ---- intercept.c */
/* Exclusions of earlier agents go; an agent that may still live keeps its own. */
void exclusion_reconcile(struct intercept *it, bool alone);

/* ---- origin.c */
/* After a crash: slots whose owner cannot come back. Only when no other agent lives. */
void credit_sweep(struct intercept *it);

/* ---- probe.c */
void probe_acceleration(struct intercept *it, enum intercept_acceleration wanted);

/* ---- watch.c */
int watch_open(struct intercept *it, struct error *e);
/* Drops what an earlier agent was configured with and we are not. What was learned stays. */
void watch_reconcile(struct intercept *it);
/* Is it watched (longest prefix, exceptions heeded)? */
bool watch_has(struct intercept *it, const struct endpoint *endpoint);

/* ---- event.c */
int event_open(struct intercept *it, struct error *e);
void event_close(struct intercept *it);
const char *cause_text(unsigned cause);
