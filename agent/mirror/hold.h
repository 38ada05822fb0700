/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables on hold: while the migration service unloads a table, what must not overtake the load waits in the journal.
 *
 * What must wait is decided by the statement: a write with a pinned timestamp need not, since a load keeps its own WRITETIME. Row
 * syncs, counters and TRUNCATE must. The strict rule makes all but plain INSERTs wait (UPDATE, DELETE, BATCH, TRUNCATE).
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "cql/statement.h"
#include "mirror/record.h"

struct mirror;
struct worker;

struct holds {
	pthread_mutex_t lock;
	_Atomic uint32_t generation; /* +1 with each change; 0 = nothing was ever held */
	struct table_name *tables;   /* empty table: all of the keyspace */
	unsigned count;
	bool strict;
};

void holds_init(struct holds *h, bool strict);
void holds_done(struct holds *h);

/* Any thread. 1 = it changed, 0 = it was so already, −ENOMEM. */
int holds_add(struct holds *h, const char *keyspace, const char *table);
int holds_remove(struct holds *h, const char *keyspace, const char *table);
/* Calls back for each table on hold, under the lock. */
void holds_each(struct holds *h, void (*callback)(void *context, const struct table_name *t), void *context);

/* A worker's view: which cells touch a table on hold. */
struct hold_view {
	uint32_t generation;
	uint8_t *held; /* by cell: 0 not looked at, 1 no, 2 yes */
};

void hold_view_done(struct hold_view *v);

/* Whether the record must wait (the worker's thread). */
bool mirror_holds(const struct mirror *m, const struct worker *w, const struct record *r);
