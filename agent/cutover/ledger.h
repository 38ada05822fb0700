/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gap ledger: everything that was written and not mirrored, on record for whoever compares and repairs.
 *
 *   kernel events, table of bypassed connections ─┐
 *   workers (relay/gap.h) ────────────────────────┼─▶ ledger ─▶ <state.directory>/gaps.log    lines: ledger_format.h
 *   phase moves ──────────────────────────────────┘       └───▶ <state.directory>/gaps.alive  the last sign of life
 *
 * gaps.log (0600) is only appended to. A torn tail is cut off when it is opened; a damaged line in the middle is skipped and counted.
 * When it has reached the limit it becomes gaps.log.1, and a new one begins with one summary line for each (kind, cause, missing side,
 * keyspace, table) of what is dropped with the old gaps.log.1, and with the spans that are still open. So two files of the limit's size
 * hold the newest gaps one by one, and nothing older is forgotten but its exact time. A crash in the middle of that leaves gaps.log.new,
 * which is taken when gaps.log is missing and removed otherwise.
 *
 * gaps.alive has two slots of LEDGER_SLOT bytes, written alternately, each a line
 *   1 SEQUENCE ALIVE SETTLED SINCE MIRRORED CLEAN ORIGIN BACKLOG BOOT CRC
 * padded with blanks: times in µs; every gap up to SETTLED is in gaps.log and synced; SINCE = mirroring since (0 = it is off); MIRRORED =
 * it was on at some time; CLEAN = the agent has ended as it should; ORIGIN = the origin is the side that misses writes; BOOT = the node's
 * boot id; CRC as in the lines. The newer whole slot counts. An agent that finds CLEAN 0 puts a gap on record from SETTLED until now.
 *
 * Unmirrored statements are counted in windows of LEDGER_WINDOW_US: one line for each (cause, keyspace, table) in a window.
 * Spans count only while mirroring is on: before it begins nothing is expected to be mirrored. What is in progress then begins with it.
 *
 * Bounded: 2 × limit + summaries on disk; LEDGER_SPANS_MAX open spans (more are counted); LEDGER_OUT_MAX bytes that wait for the disk
 * (more are counted as `lost`). Main thread only, apart from ledger_sync_run(). No function logs; NULL is a ledger that is not kept.
 */
#pragma once
#include "base/error.h"
#include "cutover/ledger_format.h"
#include "intercept/intercept.h"
#include "relay/gap.h"
#include "relay/relay.h"

#define LEDGER_LIMIT (8u << 20)
#define LEDGER_WINDOW_US 10000000
#define LEDGER_ALIVE_US 2000000
#define LEDGER_SPANS_MAX 4096
#define LEDGER_OUT_MAX (1u << 20)
#define LEDGER_SLOT 256
/* A `down` that is on record for whoever compares, and no debt: what had to be mirrored is in the journal; what was counted as not
 * mirrored within the last window is not known. */
#define LEDGER_CAUSE_KEPT "killed, with its journal kept"

struct ledger;

struct ledger_options {
	const char *directory; /* borrowed during the call; "" = nothing is kept: *ret is NULL */
	size_t limit;          /* bytes of one file; 0 = LEDGER_LIMIT */
	const char *boot;      /* the node's boot id; NULL = as the kernel says */
	int64_t now_us;
	bool journaled;        /* the mirror's journal outlives the process: its end without notice costs nothing else unless the node went down */
	int64_t synced_us;     /* what the mirror's journal holds since then may be missing, after a restart of the node; 0 = nothing is */
};

struct ledger_opened {
	unsigned damaged;    /* lines that were skipped */
	size_t torn;         /* bytes cut off at the end */
	int64_t down_from_us; /* the agent ended without notice while mirroring: on record since then; 0 = it did not */
};

/* Opens or begins the ledger. 0, or −errno with the reason. `ret_opened` may be NULL. */
int ledger_open(const struct ledger_options *options, struct ledger **ret, struct ledger_opened *ret_opened, struct error *e);
/* Writes and syncs what is left, with the sign of a clean end. Takes `l`. No sync may be outstanding. */
void ledger_close(struct ledger *l, int64_t now_us);

/* What the workers do from now on. Cheap when nothing has changed. */
void ledger_course(struct ledger *l, const struct course *course, int64_t now_us);

void ledger_unmirrored(struct ledger *l, const struct gap_count *c);
void ledger_opaque(struct ledger *l, const struct gap_session *s);
/* BYPASSED, OBSERVED, BYPASS_ENDED; others are ignored. `now_ns` is CLOCK_MONOTONIC at now_us. */
void ledger_event(struct ledger *l, const struct intercept_event *event, int64_t now_us, uint64_t now_ns);
/* `who` made the agent go on, e.g. what "mirror -> cutover", although `text`. */
void ledger_forced(struct ledger *l, const char *who, const char *what, const char *text, int64_t now_us);
/* Another agent of this node, which still had clients from `from_us` on, ended without notice; `backlog` = records that it had not delivered.
 * Only while mirroring is on. */
void ledger_down(struct ledger *l, const char *cause, uint64_t backlog, int64_t from_us, int64_t now_us);

/*
 * The kernel's table of bypassed connections against ours, because events can be lost: ledger_seen for each entry, then ledger_seen_end.
 * What is open on the ledger and was twice not seen is over. Poll the events first.
 */
void ledger_seen(struct ledger *l, const struct intercept_event *event, int64_t now_us, uint64_t now_ns);
void ledger_seen_end(struct ledger *l, int64_t now_us);

/* Once a second: windows that are over, what waits for the disk, rotation. 0, or −errno: the disk does not take it (it is kept and tried again). */
int ledger_tick(struct ledger *l, int64_t now_us);
/* Writes the unfinished windows, so that a reader finds all there is. */
void ledger_write_windows(struct ledger *l, int64_t now_us);

/* ---- making it durable, on another thread */

struct ledger_sync {
	int fd, alive_fd;
	bool log, alive; /* what is to be done */
	char slot[LEDGER_SLOT];
	off_t at;
	int64_t settled_us;
	int result;
};

/* Whether there is anything to sync; then ledger_sync_run (any thread) and ledger_sync_end must follow. `backlog`: records that wait. */
bool ledger_sync_begin(struct ledger *l, struct ledger_sync *s, uint64_t backlog, int64_t now_us);
void ledger_sync_run(struct ledger_sync *s);
/* 0, or −errno of what failed: it is tried again. */
int ledger_sync_end(struct ledger *l, struct ledger_sync *s);

/* ---- for readers: ledger_read.h has the files; these are the spans that are open now, in the order of their beginning */

unsigned ledger_spans(struct ledger *l, void (*callback)(void *context, const struct ledger_record *r), void *context);
/* Lines lost since the ledger was opened: the disk did not take them. */
uint64_t ledger_lost(const struct ledger *l);
