/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror: every write that the primary has applied is applied to the other cluster as well.
 *
 *   relay ──tap──▶ journal ──outcome──▶ queue ──▶ dispatch ──▶ target connection ──▶ the other cluster
 *                     │ ▲                 ▲           │ retry with back-off, prepare again, dead letters
 *                     ▼ │                 └───────────┤
 *                    disk                             └─▶ row sync: rows of both clusters are made equal
 *
 * Each worker has its own of all of these. What workers share is in struct mirror.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "mirror/hold.h"
#include "mirror/journal.h"
#include "relay/relay.h"
#include "relay/tap.h"

enum mirror_policy { MIRROR_BLOCK, MIRROR_SHED };

struct dead;
struct metrics;
struct recovery;
struct replicas;
struct rowsync;
struct table_size;

struct mirror_options {
	size_t budget;              /* bytes of the journal, node-wide */
	unsigned retain_ms;         /* how long records outlive the other cluster's answer; 0 = not at all */
	enum mirror_policy policy;  /* when the budget is spent */
	unsigned refused_attempts;  /* how often a write is tried that is refused for good, from 1 on */
	int consistency[SIDES];     /* override for what is sent to that side; −1 = higher of the client's and LOCAL_QUORUM */
	uint8_t highest[SIDES];     /* protocol version that the mirror's connections try first; 0 = 5 */
	enum journal_sync sync;
	unsigned sync_ms;           /* of JOURNAL_SYNC_INTERVAL */
	uint64_t late_ns;           /* from when on a write that expires is late for a cluster without v5 (late.h); 0 = never */
	uint64_t acknowledge_ns;    /* how long a client's answer waits for the other cluster, where relay_options say that it does */
	bool strict_holds;
	unsigned rows_threads;      /* row sync */
	uint64_t settle_ns, again_ns; /* after an unknown outcome: when the rows are compared, and when once more (0 = never) */
	const char *state_directory; /* borrowed; "" = the journal is in memory */
};

struct mirror {
	struct relay *relay;
	struct mirror_options options;
	struct journals journals;
	struct recovery *recovery;
	struct rowsync *rowsync;
	_Atomic uint32_t rows_again; /* row syncs that nobody waits for */
	struct holds holds;
	struct dead *dead;              /* NULL = refused writes are not kept */
	_Atomic uint8_t version[SIDES]; /* protocol version that the mirror's connections speak; 0 = never connected */
	_Atomic uint32_t connected[SIDES];
	_Atomic uint64_t barriers;      /* raised so far: their order on all workers */
	_Atomic uint32_t open_barriers; /* of them, neither applied nor given up */
	_Atomic uint32_t recovered_barriers; /* of an earlier life, that wait: nothing of this one may pass them */
	pthread_mutex_t replicas_lock;  /* of the pointer; workers have references of their own */
	struct replicas *replicas;      /* which of the target's contact points hold what; NULL = not known */
};

struct recovery_found;

/* Opens the journal and takes over what an earlier life left. Before relay_start(). 0, or −errno with the reason. */
int mirror_open(struct mirror *m, struct relay *relay, const struct mirror_options *options, struct recovery_found *found,
		struct error *error);
/* Takes over what lives of the agent left that have ended since mirror_open(). Main thread, while the workers run. 0, or −errno with the reason. */
int mirror_look(struct mirror *m, struct error *error);
/* TRUNCATE and DDL that wait for their turn, on any worker. Any thread. */
uint32_t mirror_barriers_waiting(const struct mirror *m);
/* Once a second, main thread: counters of what workers share. */
void mirror_tick(struct mirror *m, struct metrics *metrics);
/* Which contact points of the target hold what, from now on (takes it; NULL = nobody knows). Main thread, while the workers run. */
void mirror_route(struct mirror *m, struct replicas *replicas);
/* Row syncs end; what is not done waits in the journal. Before relay_stop(). */
void mirror_stop(struct mirror *m);
/* After relay_done(). Harmless when it was never opened. */
void mirror_close(struct mirror *m);

/*
 * What waits for either cluster, by table: one call for each worker and table (the main thread, while the workers run). Returns when the
 * oldest write that waits was made (s since 1970), 0 = none.
 */
uint32_t mirror_tables(struct mirror *m, void (*each)(void *context, const struct table_size *s), void *context);

/*
 * Puts a table on hold, or ends it (table "" = all of the keyspace). 1, 0 = it was so, or −errno with the reason. Nobody may be told of a
 * hold before mirror_holds_kept() has put all of them on record (it blocks on the disk; 0 or −errno with the reason); when holds have
 * ended, mirror_rescan() has what waited for them looked at.
 */
int mirror_hold(struct mirror *m, const char *keyspace, const char *table, enum hold_by by, bool hold, struct error *error);
int mirror_holds_kept(struct mirror *m, struct error *error);
void mirror_rescan(struct mirror *m);

extern const struct tap_ops mirror_tap;
