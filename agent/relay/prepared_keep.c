/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prepared statements over a restart, in prepared.keep (keep.h). A record: prepared_record.h. Flags are the statement's, and
 * TOLD_TARGET. What is executed in place of a statement (prepared_changed) follows from its text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "relay/keep.h"
#include "relay/prepared_priv.h"
#include "relay/prepared_record.h"

/* Clients know it by the target's id. Otherwise by the origin's, if that has one. */
#define TOLD_TARGET (1u << 31)

bool prepared_map_changed(struct prepared_map *m)
{
	pthread_mutex_lock(&m->lock);
	bool changed = m->changed;
	pthread_mutex_unlock(&m->lock);
	return changed;
}

#define PIECES (2 * SIDES + 3)

/* What a record consists of; borrows. Returns the number of pieces. */
static unsigned pieces_of(const struct prepared *p, struct saved *head, struct span pieces[PIECES])
{
	unsigned n = 1;

	*head = (struct saved){.flags = p->statement.flags, .keyspace_size = (uint8_t)strlen(p->keyspace)};
	if (atomic_load(&p->told) == TARGET)
		head->flags |= TOLD_TARGET;
	for (int side = 0; side < SIDES; side++) {
		const struct prepared_remote *r = prepared_on(p, side);

		if (!r || r->apart)
			continue;
		head->side[side] = (struct saved_side){r->id_size, r->result_id_size, r->bind_hash, r->result_hash};
		pieces[n++] = span_of(r->id, r->id_size);
		pieces[n++] = span_of(r->result_id, r->result_id_size);
	}
	pieces[n++] = span_of(p->keyspace, head->keyspace_size);
	pieces[n++] = span_of(p->text, p->text_size);
	pieces[0] = span_of(head, sizeof(*head));
	return n;
}

static void save_one(struct keep_writer *w, const struct prepared *p)
{
	struct saved head;
	struct span pieces[PIECES];

	keep_record(w, pieces, pieces_of(p, &head, pieces));
}

size_t prepared_record(const struct prepared *p, uint8_t *to, size_t capacity)
{
	struct saved head;
	struct span pieces[PIECES];
	unsigned n = pieces_of(p, &head, pieces);
	size_t size = 0;

	for (unsigned i = 0; i < n; i++) {
		if (to && size + pieces[i].size <= capacity)
			memcpy(to + size, pieces[i].data, pieces[i].size);
		size += pieces[i].size;
	}
	return size;
}

int prepared_map_save(struct prepared_map *m, const char *directory, struct error *error)
{
	struct keep_writer w;
	struct prepared **all;
	uint32_t count;
	int r = keep_begin(&w, directory, "prepared.keep", KEEP_PREPARED, error);

	if (r < 0)
		return r;
	/* The disk may be slow and PREPARE must not wait for it: the entries are held, not the lock. */
	pthread_mutex_lock(&m->lock);
	count = m->count;
	all = malloc((count ? count : 1) * sizeof(*all));
	uint32_t held = 0;
	for (struct prepared *p = m->first; all && p; p = p->next)
		all[held++] = prepared_get(p);
	if (all)
		m->changed = false;
	pthread_mutex_unlock(&m->lock);
	if (!all)
		w.failed = -ENOMEM;
	for (uint32_t i = 0; all && i < count; i++) {
		save_one(&w, all[i]);
		prepared_put(all[i]);
	}
	free(all);
	r = keep_end(&w, error);
	if (r < 0) {
		pthread_mutex_lock(&m->lock);
		m->changed = true;
		pthread_mutex_unlock(&m->lock);
	}
	return r;
}

void prepared_map_restore(struct prepared_map *m, struct span payload)
{
	struct saved head;
	const uint8_t *at, *end = payload.data + payload.size;
	struct prepared_remote *remote[SIDES] = {NULL};
	char keyspace[CQL_NAME_MAX + 1] = "";
	struct prepared *p = NULL;

	if (payload.size < sizeof(head))
		return;
	memcpy(&head, payload.data, sizeof(head));
	at = payload.data + sizeof(head);
	for (int side = 0; side < SIDES; side++) {
		const struct saved_side *s = &head.side[side];

		if (s->id_size == 0)
			continue;
		if (s->id_size > PREPARED_ID_MAX || s->result_id_size > PREPARED_ID_MAX || end - at < s->id_size + s->result_id_size)
			goto out;
		remote[side] = calloc(1, sizeof(*remote[side]));
		if (!remote[side])
			goto out;
		*remote[side] = (struct prepared_remote){.id_size = s->id_size, .result_id_size = s->result_id_size,
							 .bind_hash = s->bind_hash, .result_hash = s->result_hash};
		memcpy(remote[side]->id, at, s->id_size);
		memcpy(remote[side]->result_id, at + s->id_size, s->result_id_size);
		at += s->id_size + s->result_id_size;
	}
	if (head.keyspace_size > CQL_NAME_MAX || end - at < head.keyspace_size || (!remote[ORIGIN] && !remote[TARGET]))
		goto out;
	memcpy(keyspace, at, head.keyspace_size);
	at += head.keyspace_size;
	if (m->apart) {
		free(remote[TARGET]);
		remote[TARGET] = NULL;
		if (!remote[ORIGIN])
			goto out;
	}
	pthread_mutex_lock(&m->lock);
	if (!prepared_find_text(m, span_of(at, (size_t)(end - at)), keyspace))
		p = prepared_make(m, span_of(at, (size_t)(end - at)), keyspace, (struct columns){0});
	if (p) {
		p->statement.flags = head.flags & ~TOLD_TARGET; /* as the bind variables' types had refined them */
		p->told = head.flags & TOLD_TARGET || !remote[ORIGIN] ? TARGET : ORIGIN;
	}
	for (int side = 0; p && side < SIDES; side++) {
		struct prepared_remote *r = remote[side];

		if (!r)
			continue;
		prepared_publish(p, side, r);
		remote[side] = NULL;
		if (!prepared_find_id(m, span_of(r->id, r->id_size)))
			prepared_add_key(m, span_of(r->id, r->id_size), p);
	}
	pthread_mutex_unlock(&m->lock);
out:
	free(remote[ORIGIN]);
	free(remote[TARGET]);
}

static void restore_one(void *context, struct span payload)
{
	prepared_map_restore(context, payload);
}

int prepared_map_load(struct prepared_map *m, const char *directory, bool *ret_damaged)
{
	return keep_read(directory, "prepared.keep", KEEP_PREPARED, restore_one, m, ret_damaged);
}
