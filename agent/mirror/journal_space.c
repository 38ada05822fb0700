/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's files: how they are made, filled up, kept, and used again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "mirror/journal_priv.h"

#define SPARES 2u /* files that wait for being used again */

static int file_new(struct journal *j, size_t size, struct journal_file **ret, struct error *error)
{
	struct journals *all = j->all;
	char name[40];
	int r;

	if (atomic_load(&all->held) + size > all->budget)
		return error_set(error, -ENOSPC, "the journal's budget of %zu MiB is spent (limits.mirrorBytes)", all->budget >> 20);
	snprintf(name, sizeof(name), "%06llu.journal", (unsigned long long)atomic_fetch_add(&all->names, 1));
	r = journal_file_make(all->directory, name, size, ret, error);
	if (r == 0) {
		atomic_fetch_add(&all->held, size);
		(*ret)->journal = j;
	}
	return r;
}

static void file_free(struct journal *j, struct journal_file *f)
{
	atomic_fetch_sub(&j->all->held, f->size);
	journal_file_free(f, j->all->directory);
}

static void append_file(struct journal *j, struct journal_file *f)
{
	f->next = NULL;
	if (j->tail)
		j->tail->next = f;
	else
		j->head = f;
	j->tail = f;
}

static void begin(struct journal *j, struct journal_file *f)
{
	uint64_t salt = 0;

	if (getrandom(&salt, sizeof(salt), GRND_NONBLOCK) != sizeof(salt))
		salt = clock_now_ns() * 0x9E3779B97F4A7C15u ^ (uintptr_t)f;
	journal_file_begin(f, salt, ++j->sequence, j->worker, j->side, atomic_load(j->all->epoch), clock_wall_us());
	append_file(j, f);
}

int journal_next_file(struct journal *j, size_t size)
{
	struct journal_file *f;
	struct error error;
	size_t whole = sizeof(struct journal_head) + size + sizeof(struct journal_entry);
	int r;

	if (whole <= j->all->file_size && j->spare) {
		f = j->spare;
		j->spare = f->next;
		j->spares--;
	} else {
		whole = whole <= j->all->file_size ? j->all->file_size : (whole + 4095) & ~(size_t)4095;
		/* Spares of the usual size are no use for a larger one, but they count. */
		while (j->spare && atomic_load(&j->all->held) + whole > j->all->budget) {
			f = j->spare;
			j->spare = f->next;
			j->spares--;
			file_free(j, f);
		}
		r = file_new(j, whole, &f, &error);
		if (r < 0)
			return r;
	}
	if (j->tail && j->tail->held == 0)
		journal_file_unmap(j->tail);
	begin(j, f);
	return 0;
}

uint64_t journal_roll(struct journal *j)
{
	struct journal_file *f = j->tail;

	if (!f)
		return j->sequence + 1; /* nothing was ever written */
	if (f->used > sizeof(struct journal_head)) {
		size_t before = f->size;

		if (journal_next_file(j, 0) < 0) {
			f->ended = true; /* the next intent needs a file as well, and says that there is none */
			return f->sequence + 1;
		}
		journal_file_trim(f);
		atomic_fetch_sub(&j->all->held, before - f->size);
	} else {
		journal_file_begin(f, f->salt, f->sequence, j->worker, j->side, atomic_load(j->all->epoch), clock_wall_us());
	}
	return j->tail->sequence;
}

struct journal *journal_new(struct journals *all, unsigned worker, enum side side)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j)
		*j = (struct journal){.all = all, .worker = worker, .side = side};
	return j;
}

struct journal *journal_new_adopted(struct journals *all, enum side side)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->all = all;
	j->side = side;
	j->adopted = true;
	return j;
}

void journal_adopt(struct journal *j, struct journal_file *f)
{
	f->journal = j;
	j->waiting += f->spilled;
	j->open += f->open;
	atomic_fetch_add(&j->all->held, f->size);
	append_file(j, f);
	if (f->held == 0)
		journal_file_unmap(f);
}

void journal_merge(struct journal *to, struct journal *from)
{
	while (from->head) {
		struct journal_file *f = from->head;

		from->head = f->next;
		atomic_fetch_sub(&from->all->held, f->size);
		journal_adopt(to, f);
	}
	from->tail = NULL;
	journal_free(from);
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	while (j->spare) {
		struct journal_file *f = j->spare;

		j->spare = f->next;
		file_free(j, f);
	}
	while (j->head) {
		struct journal_file *f = j->head;

		j->head = f->next;
		if (f->open == 0 && f->applied == 0) {
			file_free(j, f);
		} else {
			atomic_fetch_sub(&j->all->held, f->size);
			journal_file_free(f, -1);
		}
	}
	while (j->blocks) {
		struct block *b = j->blocks;

		j->blocks = b->next;
		free(b);
	}
	free(j);
}

/* ---- what was confirmed */

/* Each confirmed entry of a file becomes `state`, without a record. Returns how many. */
static uint32_t change_applied(struct journal_file *f, bool again)
{
	size_t at = sizeof(struct journal_head);
	uint32_t count = f->applied;

	if (count == 0 || journal_file_map(f) < 0)
		return 0;
	while (at < f->used) {
		struct journal_entry *e = journal_file_entry(f, at);

		at += journal_entry_size(e->keyspace_size, e->body_size);
		if (e->state & ENTRY_APPLIED)
			store_state(e, again ? journal_state(e) : ENTRY_DONE);
	}
	f->applied = 0;
	f->dirty = true;
	if (f->held == 0 && f != f->journal->tail)
		journal_file_unmap(f);
	return count;
}

uint32_t journal_repeat(struct journal *j)
{
	uint32_t all = 0;

	for (struct journal_file *f = j->head; f; f = f->next) {
		uint32_t count = change_applied(f, true);

		if (!count)
			continue;
		f->spilled += count;
		f->open += count;
		journal_rewind(f, sizeof(struct journal_head));
		all += count;
	}
	j->waiting += all;
	j->open += all;
	return all;
}

bool journal_keeps(const struct journal *j)
{
	for (const struct journal_file *f = j->head; f; f = f->next)
		if (f->applied)
			return true;
	return false;
}

void journal_forget(struct journal *j)
{
	for (struct journal_file *f = j->head; f; f = f->next)
		change_applied(f, false);
}

/* ---- space */

static bool idle(const struct journal_file *f)
{
	return f->open == 0 && f->held == 0 && f->syncing == 0;
}

static void recycle(struct journal *j, struct journal_file **at)
{
	struct journal_file *f = *at;

	*at = f->next;
	f->applied = 0;
	if (f->size == j->all->file_size && j->spares < SPARES && !j->adopted && journal_file_map(f) == 0) {
		memset(f->base, 0, sizeof(struct journal_head)); /* an earlier life's entries are not there any more */
		f->next = j->spare;
		j->spare = f;
		j->spares++;
	} else {
		file_free(j, f);
	}
}

bool journal_reclaim(struct journal *j, uint64_t now_ns)
{
	struct journal_file *last = NULL;
	bool some = false;

	for (struct journal_file **at = &j->head; *at;) {
		struct journal_file *f = *at;

		if (idle(f) && (f != j->tail || j->adopted) && (f->applied == 0 || now_ns - f->applied_ns > j->all->retain_ns)) {
			recycle(j, at);
			some = true;
		} else {
			last = f;
			at = &f->next;
		}
	}
	j->tail = last;
	return some;
}

bool journal_shrink(struct journal *j)
{
	for (struct journal_file **at = &j->head; *at; at = &(*at)->next) {
		if (!idle(*at) || *at == j->tail)
			continue;
		recycle(j, at);
		return true;
	}
	/* Full of what is kept only as a precaution, or ended. A fence may stand behind what was in it: it is another one now. */
	if (j->tail && idle(j->tail) && (j->tail->applied || j->tail->ended)) {
		journal_forget(j);
		journal_file_begin(j->tail, j->tail->salt ^ clock_now_ns(), ++j->sequence, j->worker, j->side,
				   atomic_load(j->all->epoch), clock_wall_us());
		return true;
	}
	return false;
}

size_t journal_bytes(const struct journal *j)
{
	size_t all = 0;

	for (const struct journal_file *f = j->head; f; f = f->next)
		if (f->open || f->applied)
			all += f->used;
	return all;
}

uint32_t journal_open_entries(const struct journal *j)
{
	return j->open;
}
