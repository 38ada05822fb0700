/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror's end of the relay's tap: one for each worker, with a journal and a dispatch to either side. */
#pragma once
#include "base/room.h"
#include "mirror/acknowledge.h"
#include "mirror/barrier.h"
#include "mirror/dispatch.h"
#include "mirror/journal_sync.h"

struct tap {
	struct worker *worker;
	struct mirror *mirror;
	struct dispatch dispatch[SIDES]; /* by the side that records go to */
	struct journal *journals[2 * SIDES]; /* for the syncer */
	struct journal_syncer syncer;
	struct acknowledge acknowledge;
	struct hold_view holds;
	struct room room;                /* for a batch that loses some of its statements */
	uint32_t in_doubt;
	uint64_t stopping_ns; /* when it was first asked at the end whether it is idle; 0 = not yet */
	bool stalled; /* sessions wait for space */
	bool closed;  /* nothing is sent any more */
};

/* A mark for a barrier of another worker (takes the reference). */
void tap_mark(struct worker *w, struct barrier *b);
/* What an earlier life left (takes the journal): it goes to the others of this worker's. */
void tap_adopt(struct worker *w, enum side side, struct journal *journal);
/* A barrier may have moved. */
void tap_go_on(struct worker *w);

/* A hold has ended: what waited for it is looked at again. */
void tap_rescan(struct worker *w);

/*
 * Prepares statements on `side` that only the other cluster knows, as many as fit now (the worker's own thread).
 * Returns how many are missing still; −ENOTCONN when there is no connection to that side.
 */
int tap_prepare_missing(struct worker *w, enum side side);
