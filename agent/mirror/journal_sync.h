/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the journal of a worker becomes durable against a crash of the node (against one of the process it is at once).
 *
 *   none      when the kernel likes to
 *   interval  every journal.syncMillis, on a thread of the pool
 *   commit    a request goes to the primary when its intent is synced: all intents of one turn of the loop, and those that come
 *             while a sync is under way, form a group that one fdatasync serves
 *
 *   group 7: intents ─▶ corked ─ turn ends ─▶ fdatasync ─▶ relay_durable(7): the requests go out
 *   group 8:              intents ─▶ corked … waits until 7 is through
 *
 * A disk that does not take a sync is said loudly and counted, and the requests go on: clients must not hang on it.
 */
#pragma once
#include <uv.h>

#include "mirror/journal.h"

struct worker;
struct recovery;

#define JOURNAL_SYNC_FILES 64

struct journal_syncer {
	uv_work_t work;
	uv_timer_t timer;
	uv_check_t turn;
	struct worker *worker;
	struct recovery *mark; /* the worker that leaves the node's mark; NULL for the others */
	struct journal *const *journals;
	unsigned journal_count;
	enum journal_sync how;
	unsigned interval_ms;
	bool running, closing;
	uint64_t group, flying; /* that intents belong to now; that is being synced */
	int64_t began_us;
	int result;
	unsigned count;
	struct journal_file *files[JOURNAL_SYNC_FILES];
};

/* `journals`: borrowed for the life of the syncer. */
void journal_syncer_init(struct journal_syncer *s, struct worker *w, enum journal_sync how, unsigned interval_ms,
			 struct journal *const *journals, unsigned count, struct recovery *mark);
void journal_syncer_close(struct journal_syncer *s);

/* The group whose sync the last intent has to wait for; 0 = it need not. */
static inline uint64_t journal_syncer_group(const struct journal_syncer *s)
{
	return s->how == JOURNAL_SYNC_COMMIT ? s->group : 0;
}
