/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands against a move between two phases, gathered before anything is changed.
 *
 *   review_begin ─▶ workers: what sessions speak, counts handed over ─▶ main loop: settle ─▶ thread pool: clusters and ledger are asked
 *                ─▶ main loop: done(context); then review_finding() … review_free()
 *
 * Main loop only. A review whose asker goes away is abandoned: it frees itself when the thread pool has let go of it.
 */
#pragma once
#include <uv.h>

#include "cutover/checks.h"

#define REVIEW_FINDINGS_MAX 64

struct review_finding {
	enum check_grade grade;
	char what[512], remedy[512];
};

struct review;

/* NULL = out of memory. `options` is borrowed until `done`, or until review_abandon. */
struct review *review_begin(uv_loop_t *loop, struct relay *relay, const struct phase_options *options, enum phase from, enum phase to,
			    void (*done)(void *context), void *context);

unsigned review_count(const struct review *r);
/* Borrowed from `r`. */
const struct review_finding *review_finding(const struct review *r, unsigned i);

/* Of `count` findings the one that refuses a move: the first blocker, without one the first obstacle; NULL: nothing does. */
const struct review_finding *review_reason(const struct review_finding *findings, unsigned count);

/* After `done`. NULL is allowed. */
void review_free(struct review *r);
/* Before `done`, which is not called any more. */
void review_abandon(struct review *r);
