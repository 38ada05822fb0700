/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interception: everything that the rest of the agent needs to know about the kernel side.
 *
 *   start   intercept_open ─▶ listen (relay) ─▶ intercept_set_agent ─▶ intercept_watch_add …
 *           ─▶ intercept_set_phase ─▶ intercept_start
 *   accept  accept(2) ─▶ intercept_accept: where did this client want to go? ─▶ session …
 *           ─▶ intercept_consumed for each read ─▶ close(2) ─▶ intercept_release
 *   dial    socket(2) ─▶ setsockopt(SO_MARK, intercept_mark()) ─▶ connect(2): never steered back to us
 *   stop    intercept_close(it, INTERCEPT_KEEP): programs stay, the phase's rule for a missing agent applies
 *           intercept_close(it, INTERCEPT_REMOVE): nothing of ours stays behind
 *
 * Nothing is steered before intercept_start. The listener must be opened *after* intercept_open: the kernel
 * then sees it close, and knows at once that the agent is gone (otherwise when the heartbeat runs out). It
 * must be made in the agent's cgroup, and that cgroup must not be the root, or there is no such notice and no
 * acceleration either.
 *
 * Threads: intercept_accept, intercept_release, intercept_consumed and intercept_beat may be called from any
 * thread at any time; all else from one thread (the main loop). Functions return 0 or −errno; `e` (may be
 * NULL) then holds a text that says what is missing and what to do. All strings and addresses given are
 * borrowed for the call.
 */
#pragma once
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/error.h"

struct intercept;

/* The order is the one of docs/phases.md; the numbers are those that the kernel side sees. */
enum intercept_phase {
	INTERCEPT_OBSERVE,  /* agent down: open */
	INTERCEPT_MIRROR,   /* agent down: closed for the grace, then open */
	INTERCEPT_DRAIN,    /* agent down: closed */
	INTERCEPT_CUTOVER,  /* agent down: closed */
	INTERCEPT_ROLLBACK, /* agent down: closed */
	INTERCEPT_FINISH,   /* straight to a target node where intercept_set_direct gave any; else agent down:
			       closed */
};

enum intercept_acceleration { INTERCEPT_AUTO, INTERCEPT_ON, INTERCEPT_OFF };

struct intercept_options {
	const char *pin_root; /* directory on a bpffs; NULL: <first bpffs>/cqlferry. Maps and links go to
				 <pin_root>/v<layout>/ */
	const char *const *cgroups; /* selected sources: absolute paths, or relative to the cgroup2 mount */
	size_t cgroup_count;	    /* 0 is allowed: add them later */
	const char *agent_cgroup;   /* where the agent's own sockets are made; NULL: the caller's cgroup */
	uint32_t mark;		    /* SO_MARK of the agent's own dials; 0: INTERCEPT_DEFAULT_MARK */
	enum intercept_acceleration acceleration;
	bool takeover; /* take pins over although another agent still holds them (planned restart, upgrade) */
	bool observe_relays; /* false: while observing, connections stay direct and are only counted */
	unsigned workers; /* threads that call intercept_beat, numbered from 0; ≤ INTERCEPT_MAX_WORKERS */
	unsigned heartbeat_ms; /* how long one beat is good for; 0: 2000 */
	unsigned stall_ms;     /* a worker without a beat for so long stops the heartbeat; 0: 3000 */
	unsigned grace_ms;     /* phase mirror: closed for so long after the agent is gone; 0: 10000 */
	unsigned finish_grace_ms; /* phase finish: the same for processes that were redirected before; 0: 10000 */
	unsigned trip_ms; /* a namespace in which redirecting fails is left alone for so long; 0: 180000 */
	unsigned credit_bytes; /* redirected bytes that a client may be ahead of the agent; 0: 262144 */
	enum intercept_phase
	    phase; /* phase to start in; a takeover keeps nothing of the old agent's phase: say it */
};

#define INTERCEPT_DEFAULT_MARK 0x0c91f0ffu
#define INTERCEPT_MAX_WORKERS 64

/*
 * Loads or takes over the programs and maps and attaches them to the selected cgroups; probes the
 * acceleration. Steers nothing yet (on a takeover: goes on steering to the old agent's address until
 * intercept_start). *ret_it is the caller's until intercept_close. −EBUSY: another agent holds the pins and
 * `takeover` is not set. −EPERM, −EOPNOTSUPP, −ENOENT, −EEXIST: named in `e`.
 */
int intercept_open(const struct intercept_options *options, struct intercept **ret_it, struct error *e);

/* Where clients are sent to. Give the listener's address as pods reach it: once for each family that there
 * is. Port 0 takes it away. */
int intercept_set_agent(struct intercept *it, const struct sockaddr *address, struct error *e);

/* From here on connections are steered: the heartbeat thread starts (and is the proof that workers make
 * progress). */
int intercept_start(struct intercept *it, struct error *e);

/*
 * Planned restart: KEEP leaves links and maps pinned; the heartbeat is withdrawn, so that the phase's rule
 * for a missing agent applies from now until the next agent starts (nothing of that if a taking-over agent
 * beats already). Close the listener first. For a restart without a refused connect: the new agent opens with
 * `takeover` and listens on the old one's sockets, or on a port of its own; the old one sees intercept_superseded,
 * goes on accepting for a moment (what was already steered to it arrives within milliseconds), and then closes. REMOVE detaches and
 * unpins all (waits for nothing: call intercept_drain first if acceleration may be in use). Takes `it`; NULL
 * is allowed.
 */
enum intercept_end { INTERCEPT_KEEP, INTERCEPT_REMOVE };
void intercept_close(struct intercept *it, enum intercept_end end);

/* ---- one client connection */

struct intercept_origin {
	struct sockaddr_storage
	    destination; /* what the client asked for; AF_INET for IPv4-mapped addresses */
	socklen_t destination_size;
	uint64_t client_cookie; /* SO_COOKIE of the client's socket: the word that joins maps, events, `ss -e`
				   and logs */
	uint64_t netns_cookie;
	uint64_t cgroup_id;
	uint32_t pid;		     /* in the initial pid namespace, as `ps` on the node shows it */
	uint64_t connected_ns;	     /* CLOCK_MONOTONIC */
	struct intercept_slot *slot; /* byte credit; NULL when this connection is not accelerated */
};

/*
 * On a connection with a slot: read with recv/read/readv only (splice never sees redirected bytes, and kernel
 * TLS cannot be put on the socket); epoll in either mode is right; do not trust FIONREAD. Every byte read is
 * reported by intercept_consumed, or the client falls back to TCP after credit_bytes.
 */

/*
 * Right after accept(2): looks the original destination up and consumes the entry. One system call. `local`
 * is the accepted socket's own address (the listener's, when that is no wildcard), `peer` what accept gave.
 * −ENOENT: unknown. Close the socket, never guess; the kernel side learns of it and stops steering a
 * namespace where that repeats.
 */
int intercept_accept(struct intercept *it, const struct sockaddr *local, const struct sockaddr *peer,
		     struct intercept_origin *ret_origin);

/* Plain memory that the kernel reads: no system call. */
struct intercept_slot {
	_Atomic uint64_t owner;
	_Atomic uint64_t boot;
	_Atomic uint64_t sent;
	_Atomic uint64_t consumed;
};

/* `bytes` were received from this client (and are out of the socket). One writer for each slot. */
static inline void intercept_consumed(struct intercept_slot *slot, uint64_t bytes)
{
	if (slot)
		atomic_store_explicit(&slot->consumed,
				      atomic_load_explicit(&slot->consumed, memory_order_relaxed) + bytes,
				      memory_order_release);
}

/* The session is over: the slot goes back. NULL is allowed. Call it *after* the socket is closed. */
void intercept_release(struct intercept *it, struct intercept_slot *slot);

/* ---- health */

/* Worker `worker` is alive: call it in each loop turn, and from a timer of ≤ 500 ms when idle. No system
 * call. */
void intercept_beat(struct intercept *it, unsigned worker);

/* True once another agent has taken over: stop accepting, finish the sessions, intercept_close(KEEP). No
 * system call. */
bool intercept_superseded(struct intercept *it);

/*
 * Are our programs in the effective list of every selected cgroup, and does a connect made inside one go
 * through them? Forks a short-lived child. 0, or −errno with the cgroup and the hook named in `e`. Takes some
 * milliseconds.
 */
int intercept_check(struct intercept *it, struct error *e);

/* Acceleration as it is: true = on. *ret_why: why it is so, in words; a static string. */
bool intercept_accelerated(struct intercept *it, const char **ret_why);

/* ---- what is steered, and how */

enum intercept_why { INTERCEPT_CONFIGURED = 1, INTERCEPT_LEARNED, INTERCEPT_SERVICE };

/* Port and address (or CIDR: `prefix` bits; −1 = a single host). Adding twice is fine. −E2BIG: list full
 * (INTERCEPT_MAX_WATCH). */
#define INTERCEPT_MAX_WATCH 4096
int intercept_watch_add(struct intercept *it, const struct sockaddr *address, int prefix,
			enum intercept_why why, struct error *e);
/* The same, but matching destinations are left alone even if a shorter prefix is watched. */
int intercept_watch_except(struct intercept *it, const struct sockaddr *address, int prefix, struct error *e);
int intercept_watch_del(struct intercept *it, const struct sockaddr *address, int prefix);

/* More or fewer sources while running (pods come and go). A cgroup inside a selected one is covered already:
 * nothing is done. */
int intercept_cgroup_add(struct intercept *it, const char *path, struct error *e);
int intercept_cgroup_remove(struct intercept *it, const char *path, struct error *e);

/* Processes of this cgroup are never steered (the agent's own is left out by intercept_open). */
int intercept_exclude_cgroup(struct intercept *it, const char *path, struct error *e);

/* SO_MARK for every socket that the agent dials with. */
uint32_t intercept_mark(const struct intercept *it);

int intercept_set_phase(struct intercept *it, enum intercept_phase phase);

/*
 * Target nodes for kernel-direct in phase finish; count 0 takes it away. At most INTERCEPT_MAX_DIRECT for
 * each family. They outlive the agent. A client whose family has no target node goes through the agent.
 */
#define INTERCEPT_MAX_DIRECT 64
int intercept_set_direct(struct intercept *it, const struct sockaddr *const *addresses, size_t count,
			 struct error *e);

/* Kill switch: false = every new connect goes where it wanted to go, at once; open sessions live on. It
 * survives the agent. */
int intercept_switch(struct intercept *it, bool on);
/* The same for `cqlferry off` and `on` without an agent: opens the pinned map only. pin_root NULL: found by
 * mountinfo. */
int intercept_switch_pinned(const char *pin_root, bool on, struct error *e);
/* Takes all pins below pin_root away without an agent (`cqlferry off --remove`). −ENOENT: there were none. */
int intercept_remove_pinned(const char *pin_root, struct error *e);

/* Stops acceleration for new bytes and waits until no redirected byte is unread, at most timeout_ms.
 * −ETIMEDOUT. */
int intercept_drain(struct intercept *it, unsigned timeout_ms);

/* ---- what happened */

/* Sums over all CPUs since the maps were made; survives restarts. Names: intercept_counter_name(0 … count−1).
 */
size_t intercept_counter_count(void);
const char *intercept_counter_name(size_t index);
const char *intercept_counter_help(size_t index);
/* Fills ret_values[0 … min(count, intercept_counter_count())−1]. */
int intercept_counters(struct intercept *it, uint64_t *ret_values, size_t count);
/* The three sums that matter most (metrics REDIRECTED, BYPASSED, REFUSED). */
struct intercept_totals {
	uint64_t redirected, bypassed, refused, direct, observed;
};
int intercept_get_totals(struct intercept *it, struct intercept_totals *ret_totals);

enum intercept_event_kind {
	INTERCEPT_EVENT_REDIRECTED = 1, /* goes to the agent */
	INTERCEPT_EVENT_OBSERVED,	/* left direct on purpose while observing */
	INTERCEPT_EVENT_BYPASSED,	/* goes past the agent: a gap begins */
	INTERCEPT_EVENT_BYPASS_ENDED, /* that connection is closed: the gap ends; duration_ns says how long it
					 was */
	INTERCEPT_EVENT_REFUSED,      /* ECONNREFUSED, as the phase demands */
	INTERCEPT_EVENT_DIRECT,	      /* kernel-direct to a target node */
	INTERCEPT_EVENT_TRIPPED,      /* this namespace is left alone from now on: redirecting failed twice */
};

struct intercept_event {
	enum intercept_event_kind kind;
	const char *cause;		     /* static: "agent stale", "namespace tripped", "MPTCP", … */
	uint64_t at_ns;			     /* CLOCK_MONOTONIC */
	uint64_t duration_ns;		     /* BYPASS_ENDED only */
	struct sockaddr_storage destination; /* what the client asked for */
	struct sockaddr_storage steered;     /* where it went instead; AF_UNSPEC if nowhere else */
	uint64_t client_cookie, netns_cookie, cgroup_id;
	uint32_t pid;
	char program[16]; /* its name, as in /proc/<pid>/comm; ends with a zero byte */
	enum intercept_phase phase;
};

/* Pollable (readable = events). Events made while no agent ran are still there, up to the ring's size;
 * `counters` know all. */
int intercept_events_fd(struct intercept *it);
/* Calls back for each event that is there now. The event is borrowed. Returns their number or −errno. */
int intercept_events_poll(struct intercept *it,
			  void (*callback)(void *opaque, const struct intercept_event *event), void *opaque);

/*
 * Connections that are open now, as the kernel side's tables have them: those past the agent (kinds BYPASSED
 * and OBSERVED), and those steered (REDIRECTED and DIRECT). at_ns is when they were established. Callback may
 * be NULL. Returns their number.
 */
int intercept_bypassed(struct intercept *it,
		       void (*callback)(void *opaque, const struct intercept_event *event), void *opaque);
int intercept_steered(struct intercept *it,
		      void (*callback)(void *opaque, const struct intercept_event *event), void *opaque);

/* ---- connections that do not go through the agent although they should */

struct intercept_stray {
	struct sockaddr_storage local, peer; /* as the client's namespace sees them */
	uint64_t client_cookie, cgroup_id;
	uint64_t netns_inode; /* /proc/<pid>/ns/net */
	uint32_t pid;	      /* a process of that namespace */
	const char *spared; /* static: why it is never closed, since the next one would pass by as well; NULL = it is */
};

/*
 * Established connections to watched destinations that were opened before the agent, or bypassed it: in the
 * network namespaces of all processes of the selected cgroups. The agent's own (mark, excluded cgroups) are
 * left out. With close_limit > 0 at most so many of them are closed (the client sees ECONNABORTED and
 * reconnects: call it once a second for a rate), but none that would pass by again (kill switch off, MPTCP, no
 * agent address of the family, namespace tripped). Callback may be NULL. Blocks for some ms per namespace: not
 * on a worker's loop; it may run on a thread of its own as long as no cgroup is added or removed meanwhile.
 * The processes must be visible (the node's pid namespace: hostPID). Returns how many were found, *ret_closed
 * how many were closed; −EOPNOTSUPP: this kernel cannot close sockets of others (CONFIG_INET_DIAG_DESTROY),
 * −EPERM: CAP_SYS_ADMIN for setns is missing, or processes are not visible. After an error *ret_closed and the
 * callback have what was seen all the same.
 */
int intercept_strays(struct intercept *it, unsigned close_limit, unsigned *ret_closed,
		     void (*callback)(void *opaque, const struct intercept_stray *stray), void *opaque,
		     struct error *e);

/* ---- doctor */

enum intercept_grade { INTERCEPT_FINE, INTERCEPT_NOTE, INTERCEPT_BROKEN };
/* One finding with its remedy for each thing that interception needs: kernel, privileges, mounts, conflicts.
 * Loads nothing that stays. Returns the worst grade. */
enum intercept_grade intercept_doctor(const struct intercept_options *options,
				      void (*finding)(void *opaque, enum intercept_grade grade,
						      const char *what, const char *remedy),
				      void *opaque);
