/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay: what all workers share.
 *
 *               accept                    frames                      frames
 *   client ───────────────▶ session ────────────────▶ upstream[ORIGIN] ────────▶ origin replica
 *                            │  └───────────────────▶ upstream[TARGET] ────────▶ target node
 *                            └─ writes ─▶ tap (the mirror, through tap.h)
 *
 * A session, its upstreams and its writes live on one worker thread; nothing on their path takes a lock. What is shared
 * between workers (prepared statements, frozen topology) is read through copies that each worker keeps.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "net/addr.h"
#include "net/mode.h"
#include "relay/cluster.h"

enum side { ORIGIN, TARGET, SIDES };

static inline enum side side_other(enum side s)
{
	return s == ORIGIN ? TARGET : ORIGIN;
}

static inline const char *side_name(enum side s)
{
	return s == ORIGIN ? "origin" : "target";
}

#define RELAY_WORKERS_MAX 16
#define RELAY_LISTENERS_MAX (RELAY_WORKERS_MAX * 3)

struct intercept;
struct worker;
struct tap_ops;
struct prepared_map;
struct topology_store;
struct retirement;
struct scope;
struct reach;

/* What new requests are to be done with. Workers get it by message, so that all requests of a turn see the same. */
struct course {
	enum side primary;   /* who answers clients */
	bool mirroring;      /* successful writes go to the other side as well */
	bool frozen;         /* topology answers stay as the origin gave them; once finished, to intercepted clients only */
	bool warm;           /* sessions open the other side in advance: a switch is near */
	bool finished;       /* the origin is left for good: its connections close after a grace period */
};

/* A listening socket on its way from one agent to the next. */
struct relay_listener {
	int fd;
	struct addr address;
	bool intercepted;
};

/* How nodes are reached: relay/reach.h. */
struct reach_options {
	enum connection_mode mode;
	bool mode_named;     /* somebody chose it: it holds behind an SNI proxy, too */
	unsigned rule_count; /* of those, the longest prefix beats the mode */
	struct mode_rule rules[MODE_RULES_MAX];
	unsigned first_ms;   /* how long clients wait for a replica while there is another way; 0 = the default */
	unsigned probe_ms;   /* a replica that could not be reached is tried again so much later, then ever more rarely; 0 = the default */
};

struct relay_options {
	unsigned workers;
	struct addr explicit_listen; /* AF_UNSPEC = off: for clients that are pointed at the agent */
	struct addr agent4, agent6;  /* for intercepted connections; AF_UNSPEC = off. The port is filled in when it was 0 */
	struct cluster cluster[SIDES];
	const struct scope *scope;      /* what is mirrored, under which names; NULL = everything, under the same. Borrowed for life */
	struct tls_context *client_tls; /* clients' TLS ends here; NULL = it is relayed untouched. Shares */
	uint32_t sessions_max;         /* node-wide */
	uint32_t requests_max;         /* in flight on this node */
	uint32_t session_requests_max; /* in flight on one session */
	uint32_t frame_max;            /* bytes of a request's body */
	unsigned dial_timeout_ms, stop_ms;
	struct reach_options reach;
	bool configured_auth;          /* else the client's own handshake is passed through */
	bool any_client;               /* configured_auth: do not compare the client's credentials */
	bool acknowledge_both;         /* a write's answer waits for the other cluster, as the tap says (held.h) */
	bool freeze_topology;
	bool kernel_direct;            /* after finish new connections go straight to a target node, past the agent */
	enum { RELAY_DDL_MIRROR, RELAY_DDL_REFUSE, RELAY_DDL_IGNORE } ddl;
	uint32_t mark;                 /* SO_MARK for dials, 0 = none */
	const char *state_directory;   /* "" = nothing is kept */
	/* Sockets of the agent before this one, with what waits in their queues. relay_start takes those whose address is listened on. */
	struct relay_listener inherited[RELAY_LISTENERS_MAX];
	unsigned inherited_count;
};

struct relay {
	struct relay_options options;
	struct intercept *intercept; /* NULL = explicit only */
	struct course course;        /* as last given to the workers; the main thread's */
	_Atomic uint32_t session_count;
	_Atomic uint8_t version_cap; /* highest protocol version that new sessions may speak; 0 = no cap */
	_Atomic uint8_t lacks[SIDES]; /* compressions that the cluster does not know, 1 << enum compression; unpack.h */
	struct prepared_map *prepared;
	struct topology_store *topology;
	struct reach *reach;
	const struct tap_ops *tap;
	void *mirror;                /* the tap's shared state */
	struct retirement *retirement; /* NULL = nothing is being retired; retire.c */
	struct worker *workers[RELAY_WORKERS_MAX];
	unsigned worker_count;
};

/*
 * Makes the workers, opens their listeners, and starts the threads. `tap` may be NULL (nothing is ever mirrored).
 * 0, or −errno with the reason. The relay is not yet accepting: relay_serve().
 */
int relay_start(struct relay *r, const struct tap_ops *tap, void *mirror, struct error *error);

/* Workers begin to accept connections. */
void relay_serve(struct relay *r);

/* The workers' listening sockets (borrowed: they stay the workers'). Their number. Main thread, before relay_retire and relay_stop. */
unsigned relay_listeners(const struct relay *r, struct relay_listener ret[RELAY_LISTENERS_MAX]);

/*
 * Another agent accepts now: what is in the queues is still taken, then the listeners are closed. Sessions are closed while they are idle,
 * RETIRE_A_SECOND of them a second, or as many more as it takes to be through in `drain_ms`; at its end as relay_stop does. Node after
 * node: a driver that loses its connection to one takes it for down, and goes on with the others. 0 or −ENOMEM. Main thread, once.
 */
int relay_retire(struct relay *r, unsigned drain_ms);

/* No new connections; sessions end as soon as nothing is in flight, at the latest after options.stop_ms. Blocks until all threads ended. */
void relay_stop(struct relay *r);

/* Writes what outlives a restart to the state directory, if it has changed. Blocks on the disk: a thread pool's, or after relay_stop(). */
void relay_keep(struct relay *r);

/* Releases everything after relay_stop(). */
void relay_done(struct relay *r);

/*
 * Runs `job` once on each worker's thread. When the last one has run, `after` (may be NULL) is called on the thread that ran last; at once
 * where there are no workers.
 * `context` is shared by all. Main thread only.
 */
int relay_each_worker(struct relay *r, void (*job)(struct worker *w, void *context), void (*after)(void *context),
		      void *context);

/* Gives all workers a new course; `after` as above. */
int relay_set_course(struct relay *r, const struct course *course, void (*after)(void *context), void *context);
