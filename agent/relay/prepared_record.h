/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prepared statement as it is saved, in prepared.keep and in the mirror's journal. In this machine's byte order: it does not leave
 * the node.
 *
 *   flags u32 | keyspace size u8 | for each side: id size u8, result id size u8, bind hash u64, result hash u64
 *   | for each side that has an id: id, result id | keyspace | text
 */
#pragma once
#include "base/span.h"
#include "relay/relay.h"

struct saved_side {
	uint8_t id_size, result_id_size;
	uint64_t bind_hash, result_hash;
} __attribute__((packed));

struct saved {
	uint32_t flags; /* enum statement_flag, as the bind variables' types had refined them */
	uint8_t keyspace_size;
	struct saved_side side[SIDES];
} __attribute__((packed));

struct prepared_text {
	struct span id[SIDES]; /* size 0 = that cluster has not prepared it */
	struct span keyspace, text;
	struct span record;     /* the whole */
	uint32_t flags;
};

/* Pure; views of `payload`. 0, or −EINVAL: it is none. */
int prepared_record_read(struct span payload, struct prepared_text *ret);
