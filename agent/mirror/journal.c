/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/journal_priv.h"

/* A statement's entry grows when another worker publishes a cluster's ids of it between the measuring and the writing. */
#define PREPARED_GROWTH (SIDES * 2u * PREPARED_ID_MAX)

/* ---- records */

static struct record *record_take(struct journal *j)
{
	struct record *r = j->free;

	if (!r) {
		struct block *b = calloc(1, sizeof(*b));

		if (!b)
			return NULL;
		b->next = j->blocks;
		j->blocks = b;
		for (unsigned i = 0; i < RECORDS_BLOCK; i++) {
			b->records[i].next = j->free;
			j->free = &b->records[i];
		}
		r = j->free;
	}
	j->free = r->next;
	return r;
}

static void record_give(struct journal *j, struct record *r)
{
	struct journal_file *f = r->file;

	/* Nobody looks into it for now: its pages need not stay in our memory. */
	if (f && --f->held == 0 && f != j->tail)
		journal_file_unmap(f);
	r->file = NULL;
	r->next = j->free;
	j->free = r;
}

struct record *journal_mark(struct journal *j)
{
	struct record *r = record_take(j);

	if (r)
		memset(r, 0, sizeof(*r));
	return r;
}

void journal_mark_free(struct journal *j, struct record *r)
{
	record_give(j, r);
}

/* ---- writing */

/* What this write needs in file `f`, statements included that are not in it yet. */
static size_t room_for(const struct journal *j, const struct journal_file *f, const struct journal_write *w)
{
	size_t size = journal_entry_size(strlen(w->keyspace), w->body.size);

	for (unsigned i = 0; i < w->slot_count; i++)
		if (!f || w->slots[i]->journaled[j->side] != f->salt)
			size += journal_entry_size(0, prepared_record(w->slots[i]->prepared, NULL, 0) + PREPARED_GROWTH);
	return size;
}

static struct journal_entry *entry_begin(struct journal_file *f, size_t keyspace_size, size_t body_size)
{
	struct journal_entry *e = journal_file_entry(f, f->used);
	size_t size = journal_entry_size(keyspace_size, body_size);

	/* What a reader meets behind it is the end, whatever an earlier life left there. */
	if (f->used + size < f->size)
		f->base[f->used + size] = ENTRY_END;
	return e;
}

static void entry_end(struct journal *j, struct journal_file *f, struct journal_entry *e, unsigned state)
{
	size_t size = journal_entry_size(e->keyspace_size, e->body_size);

	e->check = journal_check(e, f->salt);
	store_state(e, state);
	f->used += size;
	f->dirty = true;
	atomic_fetch_add_explicit(&j->all->written, size, memory_order_relaxed);
}

static void write_prepared(struct journal *j, struct journal_file *f, struct prepared_slot *slot)
{
	struct journal_entry *e;
	size_t size = prepared_record(slot->prepared, NULL, 0), have;

	do { /* another worker may publish an id in between */
		have = size;
		e = entry_begin(f, 0, have);
		*e = (struct journal_entry){.kind = ENTRY_PREPARED, .body_size = (uint32_t)have};
		size = prepared_record(slot->prepared, e->data, have);
	} while (size != have);
	entry_end(j, f, e, ENTRY_DONE);
	slot->journaled[j->side] = f->salt;
}

static uint8_t opcode_bits(uint8_t opcode)
{
	return opcode == OP_EXECUTE ? 1 << 2 : opcode == OP_BATCH ? 2 << 2 : 0;
}

static void decode(const struct journal *j, struct record *r)
{
	static const uint8_t opcodes[] = {OP_QUERY, OP_EXECUTE, OP_BATCH, OP_QUERY};
	const struct journal_entry *e = entry_of(r);

	r->entry = (uint8_t)journal_kind(e);
	r->kind = r->entry == ENTRY_BARRIER ? RECORD_BARRIER : RECORD_WRITE;
	r->to = (uint8_t)j->side;
	r->statement = e->kind >> 4;
	r->version = (uint8_t)(3 + (e->flags & 3));
	r->opcode = opcodes[e->flags >> 2 & 3];
	r->header_flags = e->flags & ENTRY_PAYLOAD ? FRAME_PAYLOAD : 0;
	r->pinned = e->flags & ENTRY_PINNED;
	r->needs_keyspace = e->flags & ENTRY_KEYSPACE;
	r->serial = e->flags & ENTRY_SERIAL;
	r->timestamp = e->timestamp;
	r->now = e->now;
	r->body_size = e->body_size;
	memcpy(r->keyspace, e->data, e->keyspace_size <= CQL_NAME_MAX ? e->keyspace_size : 0);
}

struct record *journal_intent(struct journal *j, const struct journal_write *w, int *ret_error)
{
	struct journal_file *f = j->tail;
	size_t keyspace_size = strlen(w->keyspace), need = f ? room_for(j, f, w) : 0;
	struct journal_entry *e;
	struct record *r;

	if (!f || f->ended || f->used + need > f->size) {
		*ret_error = journal_next_file(j, room_for(j, NULL, w));
		if (*ret_error < 0)
			return NULL;
		f = j->tail;
	}
	r = record_take(j);
	if (!r) {
		*ret_error = -ENOMEM;
		return NULL;
	}
	for (unsigned i = 0; i < w->slot_count; i++)
		if (w->slots[i]->journaled[j->side] != f->salt)
			write_prepared(j, f, w->slots[i]);
	memset(r, 0, sizeof(*r));
	r->file = f;
	r->at = f->used;
	e = entry_begin(f, keyspace_size, w->body.size);
	e->state = ENTRY_END;
	e->kind = (uint8_t)(w->kind | w->statement << 4);
	e->flags = (uint8_t)((w->version - 3u) | opcode_bits(w->opcode) | (w->header_flags & FRAME_PAYLOAD ? ENTRY_PAYLOAD : 0) |
			     (w->pinned ? ENTRY_PINNED : 0) | (w->needs_keyspace ? ENTRY_KEYSPACE : 0) | (w->serial ? ENTRY_SERIAL : 0));
	e->keyspace_size = (uint8_t)keyspace_size;
	e->body_size = (uint32_t)w->body.size;
	e->now = w->now;
	e->timestamp = w->timestamp;
	memcpy(e->data, w->keyspace, keyspace_size);
	memcpy(e->data + keyspace_size, w->body.data, w->body.size);
	entry_end(j, f, e, ENTRY_INTENT | ENTRY_HELD);
	f->open++;
	f->held++;
	j->open++;
	decode(j, r);
	return r;
}

/* ---- states */

void journal_queued(struct record *r)
{
	store_state(entry_of(r), ENTRY_QUEUED | ENTRY_HELD);
}

void journal_sent(struct record *r)
{
	store_state(entry_of(r), ENTRY_SENT | ENTRY_HELD);
	r->file->dirty = true; /* after a crash of the node it must not be taken for one that was never sent */
}

/* The record ends; its entry goes on as `state`. */
static void leave(struct record *r, unsigned state)
{
	store_state(entry_of(r), state);
	record_give(owner(r), r);
}

void journal_rewind(struct journal_file *f, size_t at)
{
	struct journal *j = f->journal;

	if (at >= f->scan)
		return;
	if (f->left)
		at = sizeof(struct journal_head);
	j->waiting += f->left;
	j->left -= f->left;
	f->left = 0;
	f->scan = at;
}

void journal_spill(struct record *r)
{
	struct journal *j = owner(r);
	struct journal_file *f = r->file;

	f->spilled++;
	j->waiting++;
	journal_rewind(f, r->at);
	if (r->entry == ENTRY_BARRIER)
		f->barrier_ticket = (uint64_t)r->timestamp;
	leave(r, journal_state(entry_of(r)) | (r->counted ? ENTRY_COUNTED : 0));
}

void journal_applied(struct record *r, uint64_t now_ns)
{
	struct journal *j = owner(r);
	struct journal_file *f = r->file;

	if (!j->all->retain_ns) {
		journal_done(r);
		return;
	}
	f->open--;
	j->open--;
	f->applied++;
	f->applied_ns = now_ns;
	leave(r, journal_state(entry_of(r)) | ENTRY_APPLIED);
}

void journal_done(struct record *r)
{
	struct journal *j = owner(r);

	/* After a crash of the node it must not run once more, behind what came later. */
	if (r->kind == RECORD_BARRIER)
		r->file->dirty = true;
	r->file->open--;
	j->open--;
	leave(r, ENTRY_DONE);
}

/* ---- what waits on disk */

static bool waits(const struct journal_entry *e)
{
	unsigned state = journal_state(e);

	return (state == ENTRY_QUEUED || state == ENTRY_INTENT || state == ENTRY_SENT) && !(e->state & (ENTRY_HELD | ENTRY_APPLIED));
}

bool journal_refill_file(struct journal_file *f, enum journal_take (*take)(void *context, struct record *r), void *context)
{
	struct journal *j = f->journal;
	bool stopped = false;

	if (f->spilled == 0 || f->scan >= f->used || journal_file_map(f) < 0)
		return true;
	f->held++; /* stays mapped while we are in it */
	while (f->scan < f->used && !stopped) {
		struct journal_entry *e = journal_file_entry(f, f->scan);
		size_t size = journal_entry_size(e->keyspace_size, e->body_size);
		struct record *r;

		if (!waits(e)) {
			f->scan += size;
			continue;
		}
		r = record_take(j);
		if (!r) {
			stopped = true;
			break;
		}
		memset(r, 0, sizeof(*r));
		r->file = f;
		r->at = f->scan;
		f->held++;
		decode(j, r);
		r->unknown = journal_state(e) == ENTRY_INTENT;
		r->sent = journal_state(e) == ENTRY_SENT;
		r->counted = e->state & ENTRY_COUNTED;
		/* Before `take`, which may end the record. */
		store_state(e, e->state | ENTRY_HELD);
		f->spilled--;
		j->waiting--;
		if (r->entry == ENTRY_BARRIER)
			f->barrier_ticket = UINT64_MAX;
		switch (take(context, r)) {
		case JOURNAL_TAKE:
			f->scan += size;
			break;
		case JOURNAL_LEAVE:
			journal_spill(r);
			f->scan += size;
			j->waiting--;
			j->left++;
			f->left++;
			break;
		case JOURNAL_STOP:
			journal_spill(r);
			stopped = true;
			break;
		}
	}
	if (--f->held == 0 && f != j->tail)
		journal_file_unmap(f);
	return !stopped;
}

bool journal_refill(struct journal *j, uint64_t end, enum journal_take (*take)(void *context, struct record *r), void *context)
{
	for (struct journal_file *f = j->head; f && f->sequence < end && j->waiting; f = f->next)
		if (!journal_refill_file(f, take, context))
			return false;
	return true;
}

void journal_rescan(struct journal *j)
{
	for (struct journal_file *f = j->head; f && j->left; f = f->next)
		if (f->left)
			journal_rewind(f, sizeof(struct journal_head));
}

uint32_t journal_waiting(const struct journal *j)
{
	return j->waiting;
}

uint32_t journal_left(const struct journal *j)
{
	return j->left;
}

bool journal_waiting_before(const struct journal *j, uint64_t end)
{
	for (const struct journal_file *f = j->head; f && f->sequence < end && j->waiting; f = f->next)
		if (f->spilled && f->scan < f->used)
			return true;
	return false;
}

struct journal_file *journal_files(const struct journal *j)
{
	return j->head;
}

/* ---- syncing */

unsigned journal_dirty(struct journal *j, struct journal_file **ret, unsigned max)
{
	unsigned n = 0;

	for (struct journal_file *f = j->head; f && n < max; f = f->next) {
		if (!f->dirty || f->fd < 0)
			continue;
		f->dirty = false;
		f->syncing++;
		ret[n++] = f;
	}
	return n;
}

void journal_synced(struct journal_file *f, bool ok)
{
	f->syncing--;
	if (!ok)
		f->dirty = true;
}
