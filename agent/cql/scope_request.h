/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as the target gets them under a scope: with its names in place of the origin's, and batches without what is left out.
 *
 * Names are found where the grammar has names, never by string search: in "DELETE name FROM name" the column stays. In statements
 * about rows those of tables, types and functions change; in schema changes every name in front of a dot that is a renamed keyspace's.
 *
 * Pure.
 */
#pragma once
#include <sys/types.h>

#include "cql/request.h"
#include "cql/scope.h"

/*
 * Writes `text` with the target's names; `keyspace` is that of names without one, whose own name the caller sends along. Its size;
 * −ENOSPC; −EINVAL: the text is not understood.
 */
ssize_t scope_text(const struct scope *s, struct span text, const char *keyspace, uint8_t *to, size_t capacity);

/*
 * The same for the texts of a parsed QUERY or BATCH, whose views change: they borrow `to`. Returns the bytes used there. (An EXECUTE has no
 * text; the request's own keyspace is not changed.)
 */
ssize_t scope_request(const struct scope *s, struct request *r, const char *keyspace, uint8_t *to, size_t capacity);

/*
 * Writes the body of a BATCH with those of its children that `keep` wants, the rest as it was; r->body.size is enough room. Its size, or
 * −ENOSPC.
 */
ssize_t scope_batch(const struct request *r, bool (*keep)(void *context, const struct batch_child *child), void *context, uint8_t *to,
		    size_t capacity);
