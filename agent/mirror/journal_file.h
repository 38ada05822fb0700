/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a journal: preallocated, mapped, counted. What its bytes mean: journal_format.h.
 *
 * Preallocation is what makes stores safe: a full disk is found out when a file is made, never by a signal in the middle of a
 * write. A file that is used up goes to the owner's spares and is begun again under a new salt, so that a steady flow of writes
 * neither allocates nor frees disk space.
 */
#pragma once
#include "base/error.h"
#include "mirror/journal_format.h"

struct journal;

struct journal_file {
	struct journal_file *next;
	uint8_t *base;   /* NULL while not mapped */
	size_t size;     /* of the file */
	size_t used;     /* bytes of head and entries */
	size_t scan;     /* where the search for spilled entries goes on */
	struct journal *journal; /* whose it is */
	uint64_t salt, sequence, epoch;
	uint64_t barrier_ticket;      /* of the barrier that ends it; UINT64_MAX = none that waits */
	uint64_t applied_ns;          /* when the last entry was confirmed */
	uint32_t open;                /* entries that are neither DONE nor APPLIED */
	uint32_t applied;             /* QUEUED | APPLIED */
	uint32_t spilled;             /* QUEUED without a record in memory */
	uint32_t left;                /* of them: passed over by the search */
	uint32_t held;                /* records that point into it */
	uint32_t syncing;             /* syncs that use its descriptor */
	int fd;                       /* −1: in memory */
	bool dirty;                   /* an intent, or a state that must not be lost, since the last sync */
	bool ended;                   /* a fence stands behind it: nothing is added, though there is room */
	bool recovered;               /* of an earlier life of the agent */
	char name[40];                /* in its directory */
};

/* Makes and maps a file of `size` bytes in `directory` (descriptor; −1 = memory only). 0, or −errno with the reason (−ENOSPC: the disk is full). */
int journal_file_make(int directory, const char *name, size_t size, struct journal_file **ret, struct error *error);
/* Maps one of an earlier life for reading and state changes. 0 or −errno with the reason. */
int journal_file_open(int directory, const char *name, struct journal_file **ret, struct error *error);

/* A new life: empty, under a new head. */
void journal_file_begin(struct journal_file *f, uint64_t salt, uint64_t sequence, unsigned worker, unsigned side, uint64_t epoch,
			int64_t now_us);

/* 0 or −errno: a descriptor's pages may be mapped again at any time. */
int journal_file_map(struct journal_file *f);
void journal_file_unmap(struct journal_file *f);

/* Gives back what lies behind `used`: nothing is added any more. */
void journal_file_trim(struct journal_file *f);

/* Unmaps and frees; `directory` ≥ 0: removes the file as well. NULL is fine. */
void journal_file_free(struct journal_file *f, int directory);

static inline struct journal_entry *journal_file_entry(const struct journal_file *f, size_t at)
{
	return (struct journal_entry *)(f->base + at);
}
