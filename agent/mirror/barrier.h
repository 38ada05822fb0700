/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A barrier: DDL and TRUNCATE reach the other cluster behind everything that came before, and before everything that comes after, on
 * all workers.
 *
 *   owner's queue:   … w w w [BARRIER] w w        another worker's: … w w [MARK] w w
 *                             ▲ waits until its own earlier records are through and every MARK has been reached
 *                                                                       ▲ waits until the barrier is over
 *
 * Two workers may raise barriers at the same time, and each meets the other's mark before its own statement: every queue therefore keeps
 * barriers and marks in the order of their tickets. A ticket is drawn at the intent, so what is overtaken by that was written during it.
 *
 * Marks are set when the statement is about to go to the primary (its intent), so that what is written after its success stands behind them.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cql/statement.h"

struct dispatch;
struct mirror;
struct worker;

struct barrier {
	_Atomic unsigned references;
	_Atomic unsigned unreached; /* marks that wait to be reached */
	_Atomic bool over;          /* applied, refused, or given up: marks dissolve */
	uint64_t ticket;
	struct worker *owner;
	bool truncates;
	struct table_name table; /* of TRUNCATE */
};

/*
 * A barrier owned by `w` (`ticket`: drawn from mirror->barriers), with a mark on its way to every other worker. `table`: that a TRUNCATE
 * names (copied), NULL for DDL. NULL = out of memory.
 */
struct barrier *barrier_raise(struct worker *w, uint64_t ticket, const struct table_name *table);
/* The owner's statement is through (or will never be): everybody goes on. Gives the owner's reference back. */
void barrier_lower(struct barrier *b);
/* A worker's dispatch stands at its mark. */
void barrier_reached(struct barrier *b);
void barrier_put(struct barrier *b);
