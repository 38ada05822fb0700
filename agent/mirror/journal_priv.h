/* SPDX-License-Identifier: Apache-2.0 */
/* Between journal.c (entries and their states) and journal_space.c (files, and when their space comes back). */
#pragma once
#include "mirror/journal.h"

#define RECORDS_BLOCK 64u /* records that are allocated at once */

struct block {
	struct block *next;
	struct record records[RECORDS_BLOCK];
};

struct journal {
	struct journals *all;
	unsigned worker;
	enum side side;
	struct journal_file *head, *tail; /* by sequence; writes go to the tail */
	struct journal_file *spare;
	unsigned spares;
	bool adopted;          /* files of an earlier life: nothing is added to them */
	uint64_t sequence;
	uint32_t intents;      /* so far: marks the slots of one write */
	uint32_t waiting, left, open;
	struct block *blocks;
	struct record *free;
};

static inline struct journal *owner(const struct record *r)
{
	return r->file->journal;
}

static inline struct journal_entry *entry_of(const struct record *r)
{
	return journal_file_entry(r->file, r->at);
}

/* Stores into the mapping are what survives: their order is part of the format. */
static inline void store_state(struct journal_entry *e, unsigned state)
{
	__atomic_store_n(&e->state, (uint8_t)state, __ATOMIC_RELEASE);
}

/* Another tail, with room for `size` bytes behind the head. 0 or −errno. */
int journal_next_file(struct journal *j, size_t size);
/* The search for what waits goes back; what it had left behind is met once more, and counted then. */
void journal_rewind(struct journal_file *f, size_t at);
