/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prepared statements: one node-wide map from either cluster's id to text, keyspace and what the statement does.
 *
 *   node-wide (mutex; PREPARE only)          each worker (no lock; every EXECUTE)
 *   id ─▶ struct prepared ◀────shares──────── struct prepared_slot ◀── id
 *
 * Ids of the two clusters are usually equal (MD5 of keyspace and text) but need not be. What one side answered to
 * PREPARE is a `prepared_remote`, published once and replaced, never changed. Clients know a statement by one id for ever, since
 * drivers give a statement up whose id is another one when it is prepared again: that of the side that first prepared it for a client.
 *
 * A write that calls now() or the like is two statements: the client's own, whose id and description it knows, and one whose text has bind
 * variables in place of the calls. From mirroring on the second is executed in place of the first (instants.h).
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cql/instant.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/statement.h"
#include "cql/token.h"
#include "relay/relay.h"

#define PREPARED_ID_MAX 64          /* Cassandra's ids have 16 bytes; the protocol allows 65535 */
#define PREPARED_ENTRIES_MAX 100000 /* then the map is emptied, and clients prepare again */
#define PREPARED_TEXT_MAX (64u << 20)
#define PREPARED_BATCH_MAX 256      /* different prepared statements in one batch */

struct prepared_remote {
	uint8_t side, id_size, result_id_size;
	uint8_t key_count; /* columns of the partition key, if all are bound; 0 = not, or not known: v3, a restart, more than fit */
	bool apart; /* of a text with other names: the id means nothing to anybody but the mirror, and is not kept over a restart */
	uint8_t id[PREPARED_ID_MAX];
	uint8_t result_id[PREPARED_ID_MAX]; /* result_metadata_id (v5), size 0 when the answer came in v3/v4 */
	uint16_t key[TOKEN_PARTS_MAX];      /* which of the bound values they are, in the order of the key */
	uint64_t bind_hash, result_hash;    /* of names and types, for comparing the two sides */
	struct prepared_remote *older;      /* in prepared.answers */
};

struct prepared {
	_Atomic uint32_t references;
	struct statement statement; /* refined by the bind variables' types */
	char keyspace[CQL_NAME_MAX + 1];
	struct prepared_remote *_Atomic remote[SIDES];
	struct prepared_remote *answers; /* all there ever were, with the map's lock: readers may still look at them */
	bool calls;                      /* it calls now() or the like; fixed, as the next two */
	struct instant_bind *binds;      /* what is executed in its place takes these values more; NULL: its text is, with literals */
	uint16_t bind_count;
	struct prepared *_Atomic changed; /* that statement (shares), once it is known: prepared_changed() */
	_Atomic bool refused;             /* a cluster does not take the changed text: as if there were no binds */
	_Atomic uint8_t told;             /* enum side: whose id clients know; SIDES = nobody was told */
	uint32_t hash;                    /* of text and keyspace */
	struct prepared *next, *same_text; /* the map's, with its lock */
	_Atomic bool result_differs, bind_differs; /* what the two sides said does not agree */
	uint32_t text_size;
	char text[]; /* NUL-terminated for logs of table names only; never logged whole */
};

struct prepared_slot {
	struct prepared *prepared;
	uint32_t uses; /* by requests in flight and records of this worker */
	uint16_t cell; /* its tables (gap_cell), once asked for; 0 = not yet */
	uint8_t part;  /* the mirror's: 1 + enum scope_part, once asked for; 0 = not yet */
	uint32_t seen; /* prepared_of_batch()'s */
	uint64_t journaled[SIDES]; /* the mirror's: which journal file has its text */
};

struct prepared_map *prepared_map_new(void);
void prepared_map_free(struct prepared_map *m);
/*
 * The target calls tables otherwise: what is prepared there is another text, whose id may be that of another statement on the origin. Such
 * ids are never looked up, and what an earlier life knew of the target is not taken over. Before anything is learned.
 */
void prepared_map_apart(struct prepared_map *m);
uint32_t prepared_map_count(struct prepared_map *m);

/*
 * `side` answered PREPARE of `text` in `keyspace` with `answer`. Finds or makes the entry and publishes the answer. Where other types than
 * before make another kind of write of it, there is a new entry for its ids; who holds the old one keeps it as it was.
 * Any thread; locks. 0, −ENOMEM, −E2BIG (id too long).
 */
int prepared_map_learn(struct prepared_map *m, enum side side, uint8_t version, struct span text, const char *keyspace,
		       const struct prepared_result *answer);

/* The same for an entry that the caller holds, which the map may have dropped meanwhile. */
int prepared_map_learn_for(struct prepared_map *m, enum side side, uint8_t version, struct prepared *p,
			   const struct prepared_result *answer);

/* The id under which clients know it, now that `side` has prepared it for one. */
struct span prepared_told(struct prepared *p, enum side side);

/* What is executed in its place from mirroring on (borrows: lives as long as `p`); NULL = nothing, or not prepared yet. Locks until found. */
struct prepared *prepared_changed(struct prepared_map *m, struct prepared *p);

/* Calls back for each entry, under the map's lock: gather, do not block. Stops when it returns false. */
void prepared_map_each(struct prepared_map *m, bool (*callback)(void *context, struct prepared *p), void *context);

/* Whether something was learned since the last save; saves all to, or loads from, the state directory (keep.h). Any thread; lock. */
bool prepared_map_changed(struct prepared_map *m);
int prepared_map_save(struct prepared_map *m, const char *directory, struct error *error);
/* Number of statements, or −errno. */
int prepared_map_load(struct prepared_map *m, const char *directory, bool *ret_damaged);
/* An entry as it is saved, here and in the mirror's journal. Returns its size; written when it fits (`to` may be NULL). Any thread. */
size_t prepared_record(const struct prepared *p, uint8_t *to, size_t capacity);
/* One saved record; malformed ones, and those whose ids are known, are ignored. */
void prepared_map_restore(struct prepared_map *m, struct span payload);

static inline struct prepared *prepared_get(struct prepared *p)
{
	atomic_fetch_add_explicit(&p->references, 1, memory_order_relaxed);
	return p;
}
void prepared_put(struct prepared *p); /* NULL is fine */

static inline const struct prepared_remote *prepared_on(const struct prepared *p, enum side side)
{
	return atomic_load_explicit(&((struct prepared *)p)->remote[side], memory_order_acquire);
}

/* A worker's view. */
struct prepared_cache;
struct prepared_cache *prepared_cache_new(struct prepared_map *m);
void prepared_cache_free(struct prepared_cache *c);

/* Frees what the map has dropped and nobody uses. From the loop, never in the middle of a request. */
void prepared_cache_sweep(struct prepared_cache *c);

/*
 * The statement with that id on either side, or NULL. Locks only the first time an id is seen by this worker. Valid until the next sweep,
 * or as long as it is used.
 */
struct prepared_slot *prepared_find(struct prepared_cache *c, struct span id);

/* The known statements of a BATCH's prepared children, each once. Their number, or −E2BIG. */
int prepared_of_batch(struct prepared_cache *c, const struct request *q, struct prepared_slot *ret[PREPARED_BATCH_MAX]);

/* The id that it was found by: the one that the client knows. */
struct span prepared_slot_id(const struct prepared_slot *s);

static inline struct prepared_slot *prepared_use(struct prepared_slot *s)
{
	s->uses++;
	return s;
}
void prepared_release(struct prepared_slot *s); /* NULL is fine */
