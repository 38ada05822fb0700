/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of row sync and where they wait; private to it. rowsync_job.c makes a job of a request,
 * rowsync_queue.c decides which comes next, rowsync.c runs them. Everything but making and freeing a job
 * needs the lock.
 */
#pragma once
#include "mirror/rowsync_priv.h"
#include "uthash.h"

struct job {
	struct sync sync;
	struct waiter *waiters;
	unsigned waiter_count;
	struct text fingerprint; /* the same for the same rows; empty: not known yet */
	size_t bytes;
	uint64_t due_ns, first_due_ns, sequence;
	unsigned failures, refusals;
	bool probe;	  /* of a gate: no gate stops it, or two of them could wait for each other */
	struct job *next; /* in a list */
	struct job *blocked, *blocked_tail; /* jobs for the same rows */
	UT_hash_handle hh;
};

struct gate {
	struct table_name name; /* the hash's key, filled up with 0 */
	struct job *list;
	uint64_t since_ns;
	UT_hash_handle hh;
};

struct rowsync {
	uint32_t magic;
	struct rowsync_options options;
	struct sync_shared shared;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct worker_thread threads[ROWSYNC_THREADS_MAX];
	struct job *running[ROWSYNC_THREADS_MAX];
	unsigned thread_count, started;
	struct job **heap;
	size_t heap_count, heap_room;
	struct job *waiting; /* hash by fingerprint of what is not running */
	struct gate *gates;
	uint64_t sequence;
	size_t bytes;
	struct rowsync_counters count;
	_Atomic uint32_t attempts_begun, attempts_ended;
};

/* Makes a job of a request. 0 or what rowsync_submit() returns. The caller frees it, in the end. */
int job_new(struct rowsync *rs, const struct rowsync_job *request, struct job **ret);
void job_free(struct job *j);
/* Once its rows are known: by what others with the same rows are told. */
void job_fingerprint(struct job *j);

/* Makes it wait for its time, or for its rows as a part of another, which is then all that is left of it. */
void queue_add(struct rowsync *rs, struct job *j);
/* The same, but it stays itself: a probe must not become a part of a job that its gate holds back. */
void queue_add_probe(struct rowsync *rs, struct job *j);
/* The next job that may run now; NULL: none before *ret_due_ns. */
struct job *queue_pick(struct rowsync *rs, uint64_t *ret_due_ns);
/* It has ended: those that waited for its rows may go on. `all`: also where they need not wait for each
 * other, or it did not end for good. */
void queue_unblock(struct rowsync *rs, struct job *j, bool all);
/* All that waits, wherever, as one list. */
struct job *queue_empty(struct rowsync *rs);

/* The job's table gives trouble: its jobs wait, while this one tries again. */
void gate_close(struct rowsync *rs, struct job *j, const struct table_name *name, const char *why);
/* It answers again. */
void gate_open(struct rowsync *rs, struct job *j);
