/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids of a BATCH that went to a cluster under other ids than the client's: an UNPREPARED for one of its children has to name
 * what the client sent, since drivers look the statement up by that.
 */
#pragma once
#include "base/span.h"

struct batch_ids;

/* Beyond so many different statements the others are not remembered, and an error names the cluster's own id. */
#define BATCH_IDS_MAX 256

/* Remembers that `asked` was sent as `sent`; makes *ids. Without memory: as beyond the limit. Ids of up to PREPARED_ID_MAX bytes. */
void batch_ids_add(struct batch_ids **ids, struct span asked, struct span sent);
/* What the client called it, or an empty span. */
struct span batch_ids_asked(const struct batch_ids *ids, struct span sent);
void batch_ids_free(struct batch_ids *ids); /* NULL is fine */
