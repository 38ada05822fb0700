/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much waits for a cluster, by table, and since when. One for each dispatch.
 *
 *   worker's thread: tables_add, tables_remove: an array by cell (relay/gap.h), no lock ─ tables_publish, 4 ×/s ─▶ list of names and sizes
 *   any thread:      tables_read ◀──────────────────────────────────────────────────────────────────────────────┘ under a lock
 *
 * A write is counted from its acknowledgement until it needs nothing more, wherever it waits; those of an earlier life of the agent when
 * they are read for the first time. A batch counts for each of its tables. What has no name (relay/gap.h: GAP_CELL_ANY) is one line
 * with both names empty.
 */
#pragma once
#include <stdint.h>

#include "cql/statement.h"

struct dispatch;
struct record;

struct table_size {
	struct table_name name;
	uint64_t records, bytes; /* bytes of the requests' bodies */
};

struct tables;

/* NULL = out of memory. */
struct tables *tables_new(void);
void tables_free(struct tables *t); /* NULL is fine */

/* The worker's thread. Each record counts once until it is removed, however often it is added. */
void tables_add(struct tables *t, struct record *r);
void tables_remove(struct tables *t, struct record *r);

/* Four times a second; cheap when nothing has changed. */
void tables_publish(struct dispatch *d, uint64_t now_ns);
/* What was confirmed waits again: the search for the oldest begins anew. */
void tables_repeated(struct tables *t);

/* Any thread: what was published last. Returns when the oldest write that waits was made (s since 1970), 0 = none. */
uint32_t tables_read(struct tables *t, void (*each)(void *context, const struct table_size *s), void *context);
