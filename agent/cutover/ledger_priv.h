/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of ledger*.c. */
#pragma once
#include <limits.h>

#include "cutover/ledger.h"
#include "cutover/ledger_spans.h"
#include "cutover/ledger_sums.h"

struct ledger {
	char directory[PATH_MAX];
	size_t limit;
	int fd, alive_fd;
	uint64_t size;  /* of gaps.log */
	char *out;      /* lines that wait for the disk */
	size_t out_used;
	uint64_t lost, lost_total; /* not yet on record; since the opening */
	int64_t lost_from_us;
	uint64_t last_id;
	struct ledger_spans spans;
	struct ledger_sums window;
	int64_t window_us; /* when it began, 0 = it is empty */
	/* For the next rotation: what is in gaps.log, in gaps.log.1, and what was dropped before. */
	struct ledger_sums current, older, dropped;
	/* The sign of life. */
	uint64_t sequence, backlog;
	int64_t alive_us, settled_us, written_us; /* written: up to there everything is in the file, if not synced yet */
	int64_t since_us; /* mirroring since, 0 = it is off */
	bool mirrored, missing_on_origin;
	bool dirty, syncing;
	char boot[40];
};

/* Queues a line; ledger_tick() writes it. Counts it among what is in gaps.log. */
void ledger_append(struct ledger *l, const struct ledger_record *r);

/* Mirroring was switched on or off, or its direction: a crash in the next moment must find that. */
void ledger_alive_now(struct ledger *l, int64_t now_us);

/* After an agent's end: spans that cannot have outlived it. */
void ledger_spans_orphaned(struct ledger *l, bool rebooted, bool clean, int64_t now_us);
