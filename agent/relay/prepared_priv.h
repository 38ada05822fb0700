/* SPDX-License-Identifier: Apache-2.0 */
/* The node-wide map as its three files see it: prepared.c (the map), prepared_keep.c (over a restart), prepared_cache.c (a worker's view). */
#pragma once
#include <pthread.h>
#include <xxhash.h>

#include "relay/prepared.h"

/* One key of the map: an entry has one for each distinct id. */
struct key {
	struct key *next;
	struct prepared *prepared; /* shares */
	uint8_t size;
	uint8_t id[PREPARED_ID_MAX];
};

struct prepared_map {
	pthread_mutex_t lock;
	struct key **by_id;
	struct prepared **by_text; /* chains of prepared.same_text; the same number of buckets; shares */
	uint32_t mask, keys;       /* number of buckets − 1 */
	uint32_t count;
	struct prepared *first, *last; /* by insertion */
	size_t text_bytes;
	_Atomic uint32_t generation; /* +1 each time the map is emptied, or an id leads to another entry */
	bool changed;                /* since the last save */
	bool apart;                  /* prepared_map_apart() */
};

static inline uint32_t prepared_hash(struct span id)
{
	return (uint32_t)XXH3_64bits(id.data, id.size);
}

/* All with the map's lock held. */
struct prepared *prepared_find_id(struct prepared_map *m, struct span id);
struct prepared *prepared_find_text(struct prepared_map *m, struct span text, const char *keyspace);
/* A new entry, with its statement read and refined. NULL = out of memory. */
struct prepared *prepared_make(struct prepared_map *m, struct span text, const char *keyspace, struct columns binds);
/* The id leads to `p` from now on. 0 or −ENOMEM. */
int prepared_add_key(struct prepared_map *m, struct span id, struct prepared *p);
/* Makes `r` what is known of that side. Takes it. */
void prepared_publish(struct prepared *p, enum side side, struct prepared_remote *r);
