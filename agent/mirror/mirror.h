/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror: every write that the primary has applied is applied to the other cluster as well.
 *
 *   relay ──tap──▶ journal ──outcome──▶ queue ──▶ dispatch ──▶ target connection ──▶ the other cluster
 *                                         ▲           │ retry with back-off, prepare again, dead letters
 *                                         └───────────┘
 *
 * Each worker has its own of all of these. What workers share is in struct mirror.
 */
#pragma once
#include <stdatomic.h>

#include "relay/relay.h"
#include "relay/tap.h"

enum mirror_policy { MIRROR_BLOCK, MIRROR_SHED };

struct mirror {
	struct relay *relay;
	size_t budget;              /* bytes, node-wide; each worker gets its share */
	uint64_t retain_ns;         /* how long records outlive the other cluster's answer; 0 = not at all */
	enum mirror_policy policy;  /* when the budget is spent */
	int consistency[SIDES];     /* override for what is sent to that side; −1 = higher of the client's and LOCAL_QUORUM */
	_Atomic uint8_t version[SIDES]; /* protocol version that the mirror's connections speak; 0 = never connected */
	_Atomic uint32_t connected[SIDES];
	_Atomic uint64_t barriers;      /* raised so far: their order on all workers */
};

extern const struct tap_ops mirror_tap;
