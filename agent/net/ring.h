/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: who owns which tokens, and which nodes hold replicas of a range in the data center that we speak
 * to. Pure.
 *
 * Range i holds the tokens above token i−1 up to token i; range 0 also those above the last one.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "net/addr.h"

#define RING_NODES_MAX 1024u
#define RING_TOKENS_MAX (1u << 18)
#define RING_REPLICAS_MAX 8u

struct ring_node {
	struct addr addr;
	char text[ADDR_TEXT_MAX];
	char dc[64], rack[64];
	char id[40]; /* its host id as text, by which it is asked for behind an SNI proxy; "" = not known */
	bool local; /* in the data center of the control host */
};

struct ring_token {
	int64_t token;
	uint16_t node;
};

struct ring_replicas {
	uint16_t nodes[RING_REPLICAS_MAX];
	uint8_t count;
};

struct ring {
	struct ring_node *nodes; /* node 0 is the one that answers at the control host */
	unsigned node_count;
	bool hashed; /* Murmur3Partitioner: tokens mean something to us */
	struct ring_token *tokens;
	unsigned token_count;
	struct ring_replicas *replicas; /* of each range; none where the local data center has none */
};

enum ring_strategy { RING_SIMPLE, RING_TOPOLOGY, RING_LOCAL };

void ring_done(struct ring *r);
/* Index of the new node, −ENOSPC or −ENOMEM. */
int ring_add_node(struct ring *r, const struct addr *addr, const char *dc, const char *rack);
int ring_add_token(struct ring *r, unsigned node, int64_t token);

/*
 * Sorts the tokens and works out the replicas. `factor`: of the whole cluster (RING_SIMPLE) or of the local
 * data center (RING_TOPOLOGY: distinct racks first). RING_LOCAL: node 0 holds everything. 0 or −ENOMEM.
 */
int ring_finish(struct ring *r, enum ring_strategy strategy, unsigned factor);

/* The range that a token lies in. There must be tokens. */
unsigned ring_find(const struct ring *r, int64_t token);

/* A part of the ring to be read: tokens above `begin` up to `end`. */
struct token_range {
	int64_t begin, end;
	uint32_t place; /* the ring's range, for its replicas */
};

/*
 * The ring cut into ranges, in order, at least `least` of them where the tokens allow, within (begin, end]
 * where these are given. malloc'ed; NULL: out of memory.
 */
struct token_range *ring_ranges(const struct ring *r, unsigned least, const int64_t *begin,
				const int64_t *end, unsigned *ret_count);
