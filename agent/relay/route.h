/* SPDX-License-Identifier: Apache-2.0 */
/* A request on its way to one side: ids of that side, its own paging state, the pinned timestamp. */
#pragma once
#include "relay/analyse.h"
#include "relay/batch_ids.h"
#include "relay/session.h"

/* Whether that side has prepared everything that the request executes. */
bool route_known(const struct analysis *a, enum side side);

/*
 * Emits the envelope with whatever has to change; unchanged bytes are only pointed at. *ids: for a BATCH whose children have other ids
 * over there than the client knows (batch_ids.h).
 */
void route_emit(struct session *s, enum side side, const struct frame_header *h, struct analysis *a, const uint8_t *envelope,
		size_t size, const struct edit *edits, unsigned edit_count, struct batch_ids **ids);

/* Emits a request whose body is the agent's own, and valid only until this returns. */
void route_emit_body(struct session *s, enum side side, const struct frame_header *h, struct span body);
