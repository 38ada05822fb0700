/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that call now(), uuid() and the like get one value for both clusters (cql/instant.h), from mirroring on.
 *
 *   QUERY, texts of BATCH      literals in place of the calls
 *   PREPARE                    the agent first prepares the changed text on the same connection, then the client's own, whose answer the
 *                              client gets as it is: its ids and descriptions are the cluster's own, and stay good where the agent is
 *                              bypassed
 *   EXECUTE, also in BATCH     the changed statement is executed in place of the client's, with values for what was added
 *
 * A statement that was prepared before mirroring began has no changed one yet: the first EXECUTE is answered UNPREPARED, and the driver
 * prepares it again, under the same id. A statement whose changed text a cluster does not take (markers inside a literal of a set, list or
 * map), or that cannot have one, is executed as text with literals; where that could mean something else, because the session has left
 * the keyspace that it was prepared in, it stays as it is.
 */
#pragma once
#include "relay/analyse.h"

struct instants; /* of one worker: where values come from, and room for a request's body */

struct instants *instants_new(unsigned worker); /* NULL = out of memory, or no randomness */
void instants_free(struct instants *i);

/*
 * Writes `a`'s request with values in place of calls into the worker's room, where it is valid until the next one. Returns its size;
 * −ENOENT: *ret_unprepared (the client's id) has to be prepared again; −ENOMEM; −E2BIG: it cannot be said, and is sent as it is.
 * *ret_opcode: an EXECUTE may have become a QUERY.
 */
ssize_t instants_write(struct session *s, const struct analysis *a, const uint8_t **ret, uint8_t *ret_opcode,
		       struct span *ret_unprepared);

/* The same for PREPARE, with bind variables. 0: there is nothing to change. */
ssize_t instants_prepare(struct session *s, const struct analysis *a, const uint8_t **ret, struct span *ret_text);
