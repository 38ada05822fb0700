/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a write is for the other cluster (cql/scope.h), on the way into the journal and out of it.
 *
 * What is left out never reaches the journal: a BATCH enters it without such statements. A batch in one text cannot be cut; it enters
 * whole, its rows are compared, and row sync passes over those of other tables.
 */
#pragma once
#include "base/room.h"
#include "cql/scope.h"
#include "mirror/record.h"
#include "relay/tap.h"
#include "relay/worker.h"

/* How much of it. Any write; remembered for prepared statements. */
enum scope_part scoped_part(struct worker *w, const struct tap_write *write);

/*
 * A BATCH without the statements that are left out: *ret borrows `room`; its slots are not resolved, and *ret_unqualified is as in struct
 * statement. Returns how many were left out, or −ENOMEM.
 */
int scoped_batch(struct worker *w, const struct tap_write *write, struct room *room, struct request *ret, bool *ret_unqualified);

/* Whether the record, a batch in one text, touches a table that is left out: it must not be sent as it is. */
bool scoped_mixed(struct worker *w, const struct record *r);

/*
 * The record's request with the target's names: `q`, which was parsed from it, and the keyspace change in place. 0, −EAGAIN (memory),
 * −EBADMSG: its text is not understood.
 */
int scoped_request(const struct scope *s, const struct record *r, struct request *q, char keyspace[CQL_NAME_MAX + 1], struct room *room);

/* The text of a prepared statement with the target's names, in `room`, and its keyspace. The same errors. */
int scoped_text(const struct scope *s, const struct prepared *p, struct span *ret, char keyspace[CQL_NAME_MAX + 1], struct room *room);
