/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phase of the migration, and the moves between phases.
 *
 *   OBSERVE ──▶ MIRROR ──▶ DRAIN ──▶ CUTOVER ──▶ FINISH
 *      ▲          │ ▲        │          │
 *      └──────────┘ └────────┴─ROLLBACK◀┘
 *
 * A move to CUTOVER (or ROLLBACK) is a sequence of steps on the main loop:
 *
 *   check      what stands against it: unmirrored writes, sessions we cannot read, writers that we do not carry
 *   warm       phase DRAIN: sessions open the other side in advance; statements are prepared there
 *   drain      until the backlog is below the threshold
 *   hold       workers stop parsing requests; each one answers when nothing is in flight and nothing waits for the other side
 *   switch     all have answered: the new phase is written to the state file, workers get the new course and go on
 *
 * When the hold lasts longer than allowed, everybody goes on with the old course and it is tried again until the request's time-out.
 * No client ever gets an error from this.
 *
 * Main loop only. Several agents agree through an interface that this one state file stands in for.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "mirror/mirror.h"
#include "relay/relay.h"

/* In the order of the gauge cqlferry_phase. */
enum phase { PHASE_OBSERVE, PHASE_MIRROR, PHASE_DRAIN, PHASE_CUTOVER, PHASE_ROLLBACK, PHASE_FINISH, PHASES };

const char *phase_name(enum phase p);
/* −1 when `name` is no phase. */
int phase_from_name(const char *name);

struct phase_options {
	unsigned hold_ms;            /* longest hold */
	uint32_t drain_backlog;      /* records that may be left when the hold begins */
	unsigned max_clock_skew_ms;
	const char *state_directory; /* "" = the phase is not kept over a restart */
	struct ledger *ledger;       /* where forced moves are put on record; NULL = nowhere */
	/* Puts what was counted until now into the ledger's files, before they are read. NULL = nothing to do. */
	void (*settle)(void *context);
	void *settle_context;
};

/* How a move is told of. All on the main loop. `done` is called exactly once; error NULL = success, texts are borrowed. */
struct phase_listener {
	void (*progress)(void *context, const char *text);
	void (*done)(void *context, const char *error, const char *hint);
	void *context;
};

struct phases;

/*
 * Starts in the phase that the state file names, or in `initial` when there is none, and gives the workers their course. A
 * phase that was interrupted (drain, rollback) is resumed from its safe end: mirror, or cutover. 0 or −errno with the reason.
 */
int phases_start(uv_loop_t *loop, struct relay *relay, struct mirror *mirror, const struct phase_options *options,
		 enum phase initial, struct phases **ret, struct error *error);
void phases_stop(struct phases *p);

enum phase phases_current(const struct phases *p);
/* A move is under way. */
bool phases_moving(const struct phases *p);
/* None is, and every worker follows the phase. */
bool phases_settled(const struct phases *p);

/* From now on moves are refused, with `why` (a literal); NULL = they are not any more. NULL `p` is allowed. */
void phases_block(struct phases *p, const char *why);

struct phase_request {
	enum phase to;
	bool plan;           /* only say what would be done and what stands against it */
	bool force;          /* go on although writes may be missing on the other side; put on record */
	unsigned timeout_ms;
	const char *who;     /* for the audit line; borrowed during the call */
};

/* Carries a move out. `listener` is copied. A second move while one is under way is refused. */
void phases_request(struct phases *p, const struct phase_request *request, const struct phase_listener *listener);
