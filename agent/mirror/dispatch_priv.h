/* SPDX-License-Identifier: Apache-2.0 */
/* Between dispatch.c (the queue), dispatch_choose.c (where a record goes) and dispatch_outcome.c (what becomes of it). */
#pragma once
#include "mirror/dispatch.h"

/* The client need not wait any longer for what the record becomes (acknowledge.h). */
void dispatch_answer(struct dispatch *d, struct record *r, bool applied);
/* The record's way has ended. `applied`: the other cluster has confirmed it. */
void dispatch_finish(struct dispatch *d, struct record *r, bool applied);
void dispatch_push_front(struct dispatch *d, struct record *r);
/* It is tried again after a back-off; `code` says why. */
void dispatch_delay(struct dispatch *d, struct record *r, int32_t code);
/* No other attempt will do: the next refusal is its last. */
void dispatch_spend(const struct dispatch *d, struct record *r);
/* The timer runs as fast as there is something to do. */
void dispatch_wind(struct dispatch *d);

/* ---- dispatch_choose.c */

/* The least busy connection that can take a record now; NULL = none can. */
struct target *dispatch_choose(struct dispatch *d);
/* The same for this record: one to a replica of its partition, where that is known. *ret_holds: it is one. */
struct target *dispatch_choose_for(struct dispatch *d, const struct record *r, bool *ret_holds);
