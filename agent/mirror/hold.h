/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables on hold: while the migration service unloads a table, what must not overtake the load waits in the journal.
 *
 * What must wait is decided by the statement: a write with a pinned timestamp need not, since a load keeps its own WRITETIME. Row
 * syncs, counters and TRUNCATE must, and a batch, which is to be seen as a whole. The strict rule makes all but plain INSERTs wait.
 *
 * A person and the migration service may hold the same table; it is free when both have released it. What is held is on record in the
 * state directory (keep.h) before anybody is told, so that a restart does not let go of it.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "cql/statement.h"
#include "mirror/record.h"

struct mirror;
struct worker;

enum hold_by { HOLD_PERSON = 1, HOLD_SERVICE = 2 };

#define HOLDS_MAX 20000 /* a migration service's list of tables is 16384 at most */

struct hold {
	struct table_name name; /* empty table: all of the keyspace */
	uint8_t by;             /* enum hold_by, or-ed */
};

struct holds {
	pthread_mutex_t lock;
	_Atomic uint32_t generation; /* +1 with each change; 0 = nothing was ever held */
	struct hold *tables;
	unsigned count, capacity;
	bool strict;
};

void holds_init(struct holds *h, bool strict);
void holds_done(struct holds *h);

/* Any thread. 1 = it changed, 0 = it was so already, −ENOMEM, −E2BIG: HOLDS_MAX are held. */
int holds_add(struct holds *h, const char *keyspace, const char *table, enum hold_by by);
int holds_remove(struct holds *h, const char *keyspace, const char *table, enum hold_by by);
/* Calls back for each table on hold, under the lock. */
void holds_each(struct holds *h, void (*callback)(void *context, const struct hold *t), void *context);

/* To and from the state directory ("" = nothing is kept). Blocks on the disk. 0, or −errno with the reason. */
int holds_save(struct holds *h, const char *directory, struct error *error);
int holds_load(struct holds *h, const char *directory, struct error *error);

/* A worker's view: which cells touch a table on hold. */
struct hold_view {
	uint32_t generation;
	uint8_t *held; /* by cell: 0 not looked at, 1 no, 2 yes */
};

void hold_view_done(struct hold_view *v);

/* Whether the record must wait (the worker's thread). */
bool mirror_holds(const struct mirror *m, const struct worker *w, const struct record *r);
