/* SPDX-License-Identifier: Apache-2.0 */
/* A record that will not reach the other cluster: which tables that concerns, for the gap ledger. */
#pragma once
#include "mirror/journal.h"
#include "relay/gap.h"
#include "relay/worker.h"

/* The cell of its tables (relay/gap.h), and the first of their names for people (returns `to`, or a constant). */
uint16_t missing_cell(struct worker *w, const struct record *r);
const char *missing_table(struct worker *w, const struct record *r, char *to, size_t size);

/*
 * Notes it (the worker's thread), for the cluster that it was meant for. The tables are read from the record's own request once more:
 * this is rare, and on the path of a write it would cost something. Borrows.
 */
void missing_note(struct worker *w, const struct record *r, enum gap_cause cause);
