/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker: one thread with one loop, its listeners, sessions, scratch buffers and counters.
 * Everything here belongs to that thread, except the inbox.
 */
#pragma once
#include <pthread.h>
#include <uv.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "net/conn.h"
#include "relay/emit.h"
#include "relay/gap.h"
#include "relay/prepared.h"
#include "relay/relay.h"

#define WORKER_RX (256u << 10) /* holds a v5 segment (128 KiB) and then some */
#define WORKER_LISTENERS RELAY_LISTENERS_MAX /* one process may inherit those of sixteen workers */

struct session;
struct message;
struct reach_seat;

enum emit_to { EMIT_ORIGIN, EMIT_TARGET, EMIT_CLIENT, EMITS };

struct worker {
	uint32_t magic;
	unsigned index;
	struct relay *relay;
	uv_loop_t loop;
	pthread_t thread;
	bool running;
	struct metrics *metrics;
	struct course course;
	uint64_t course_ns;    /* when it was taken */
	bool holding;          /* requests are held for a switch */
	bool stopping;
	struct session *sessions; /* list */
	uint32_t session_count, inflight, inflight_writes;
	_Atomic int64_t last_timestamp; /* µs; see worker_timestamp(). Others read it */
	uint64_t stop_deadline_ns;
	uint64_t retire_ns;      /* since then it is retiring; 0 = it is not */
	uint32_t samples;
	uint64_t turn_ns;       /* CLOCK_MONOTONIC, taken once for each batch of input */
	uint32_t next_node[SIDES];
	struct reach_seat *reach; /* where its connections to clusters are dialled */
	struct prepared_cache *prepared;
	struct instants *instants; /* values in place of now() and the like */
	void *tap;
	struct upstream *corked, *uncorking; /* their requests wait for the journal; are about to go */
	struct gap *gap; /* writes that are not mirrored, for the ledger */
	/* Scratch for the session that is being worked on. */
	struct emit emit[EMITS];
	uint8_t *rx;
	uint8_t *plain; /* decompressed bytes; grows to the largest frame seen, shrinks when idle */
	size_t plain_capacity;
	struct {
		uv_poll_t poll;
		int fd;
		bool intercepted;
	} listener[WORKER_LISTENERS];
	unsigned listener_count;
	uv_timer_t tick; /* heartbeat, lazy sweeps */
	uv_timer_t moment; /* runs while a session waits for the next millisecond */
	uv_check_t beat;
	uv_async_t wake;
	pthread_mutex_t inbox_lock;
	struct message *inbox, *inbox_tail;
	/* Who waits for this worker to become quiet while holding. */
	void (*quiet)(struct worker *w, void *context);
	void *quiet_context;
};

/* One in 16 times: how long it took since the turn's beginning. One call of clock_gettime() and a store. */
static inline void worker_sample(struct worker *w, enum histogram path)
{
	if ((++w->samples & 15) == 0)
		histogram_record(w->metrics, path, (clock_now_ns() - w->turn_ns) / 1000);
}

/* Made and started by relay_start(). */
struct worker *worker_new(struct relay *r, unsigned index, struct error *error);
int worker_start(struct worker *w);
void worker_free(struct worker *w);
/* Frees a worker that was never started. */
void worker_discard(struct worker *w);

/* Queues `job` for the worker's thread (any thread). `after` runs right behind it. 0 or −ENOMEM. */
int worker_post(struct worker *w, void (*job)(struct worker *w, void *context), void *context);

/* Begins to accept (its own thread). */
void worker_serve(struct worker *w);
/* Takes what waits in the accept queues, and closes the listeners. */
void worker_close_listeners(struct worker *w);
/* Stops accepting and ends the sessions as they become idle (its own thread). The loop ends with the last one. */
void worker_stop(struct worker *w);

/* The next write timestamp: max(last + 1, wall clock), µs. */
int64_t worker_timestamp(struct worker *w);

/*
 * A conditional write gets its timestamp from the cluster, which counts in whole milliseconds where the agent counts in µs: sent within the
 * millisecond of a write that the agent has stamped before, it would be the older one. False: the session has to wait for the next
 * millisecond, and is resumed. `since` (µs, the caller's) keeps what it waits for; 0 = nothing.
 */
bool worker_moment_passed(struct worker *w, int64_t *since);

/* Room for `size` decompressed bytes, or NULL. Valid until the next call. */
uint8_t *worker_plain(struct worker *w, size_t size);

/*
 * Holds or releases requests. While holding, sessions neither read nor parse; `quiet` is called once, from the worker's loop,
 * when nothing is in flight on any session (and the tap is idle); NULL = nobody asks.
 */
void worker_hold(struct worker *w, void (*quiet)(struct worker *w, void *context), void *context);
void worker_release(struct worker *w);

/* To be called when something in flight has ended: tells who waits for quiet. */
void worker_settled(struct worker *w);

/*
 * While the course says warm: opens the sessions' other sides, a few at a time. A login costs a cluster some 100 ms of CPU (bcrypt): all
 * at once would slow down the very clients that are to notice nothing.
 */
void worker_warm(struct worker *w);

/* The worker's new course: sessions follow. */
void worker_set_course(struct worker *w, const struct course *course);
