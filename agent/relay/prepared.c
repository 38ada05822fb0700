/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/prepared.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "relay/keep.h"
#include "relay/prepared_record.h"

/* One key of the node-wide map: an entry has one for each distinct id. */
struct key {
	struct key *next;
	struct prepared *prepared; /* shares */
	uint8_t size;
	uint8_t id[PREPARED_ID_MAX];
};

struct prepared_map {
	pthread_mutex_t lock;
	struct key **buckets;
	uint32_t mask, keys;
	struct prepared **all; /* shares; by insertion */
	uint32_t count, capacity;
	size_t text_bytes;
	_Atomic uint32_t generation; /* +1 each time the map is emptied */
	bool changed;                /* since the last save */
};

struct cached {
	struct prepared_slot slot;
	struct cached *next;
	uint8_t size;
	uint8_t id[PREPARED_ID_MAX];
};

struct prepared_cache {
	struct prepared_map *map;
	struct cached **buckets;
	uint32_t mask, count, generation;
	struct cached *retired; /* from an older generation, still in use */
};

static uint32_t id_hash(struct span id)
{
	return (uint32_t)XXH3_64bits(id.data, id.size);
}

void prepared_put(struct prepared *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) != 1)
		return;
	for (int side = 0; side < SIDES; side++) {
		struct prepared_remote *r = atomic_load(&p->remote[side]);

		while (r) {
			struct prepared_remote *older = r->older;

			free(r);
			r = older;
		}
	}
	free(p);
}

struct prepared_map *prepared_map_new(void)
{
	struct prepared_map *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->mask = 1023;
	m->buckets = calloc(m->mask + 1, sizeof(*m->buckets));
	if (!m->buckets) {
		free(m);
		return NULL;
	}
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

static void map_clear(struct prepared_map *m)
{
	for (uint32_t i = 0; i <= m->mask; i++) {
		while (m->buckets[i]) {
			struct key *k = m->buckets[i];

			m->buckets[i] = k->next;
			prepared_put(k->prepared);
			free(k);
		}
	}
	for (uint32_t i = 0; i < m->count; i++)
		prepared_put(m->all[i]);
	m->count = m->keys = 0;
	m->text_bytes = 0;
	atomic_fetch_add(&m->generation, 1);
}

void prepared_map_free(struct prepared_map *m)
{
	if (!m)
		return;
	map_clear(m);
	free(m->all);
	free(m->buckets);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

uint32_t prepared_map_count(struct prepared_map *m)
{
	pthread_mutex_lock(&m->lock);
	uint32_t n = m->count;
	pthread_mutex_unlock(&m->lock);
	return n;
}

static struct prepared *find_by_id(struct prepared_map *m, struct span id)
{
	for (struct key *k = m->buckets[id_hash(id) & m->mask]; k; k = k->next)
		if (span_equal(span_of(k->id, k->size), id))
			return k->prepared;
	return NULL;
}

static struct prepared *find_by_text(struct prepared_map *m, struct span text, const char *keyspace)
{
	for (uint32_t i = m->count; i-- > 0;) {
		struct prepared *p = m->all[i];

		if (p->text_size == text.size && memcmp(p->text, text.data, text.size) == 0 &&
		    strcmp(p->keyspace, keyspace) == 0)
			return p;
	}
	return NULL;
}

static int add_key(struct prepared_map *m, struct span id, struct prepared *p)
{
	struct key *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	if (m->keys > m->mask) { /* grow: chains stay short */
		uint32_t mask = m->mask * 2 + 1;
		struct key **buckets = calloc(mask + 1, sizeof(*buckets));

		if (buckets) {
			for (uint32_t i = 0; i <= m->mask; i++) {
				while (m->buckets[i]) {
					struct key *move = m->buckets[i];
					uint32_t to = id_hash(span_of(move->id, move->size)) & mask;

					m->buckets[i] = move->next;
					move->next = buckets[to];
					buckets[to] = move;
				}
			}
			free(m->buckets);
			m->buckets = buckets;
			m->mask = mask;
		}
	}
	k->size = (uint8_t)id.size;
	memcpy(k->id, id.data, id.size);
	k->prepared = prepared_get(p);
	uint32_t at = id_hash(id) & m->mask;
	k->next = m->buckets[at];
	m->buckets[at] = k;
	m->keys++;
	return 0;
}

static struct prepared *make(struct prepared_map *m, struct span text, const char *keyspace, struct columns binds)
{
	struct prepared *p;

	if (m->count >= PREPARED_ENTRIES_MAX || m->text_bytes + text.size > PREPARED_TEXT_MAX)
		map_clear(m);
	if (m->count == m->capacity) {
		uint32_t capacity = m->capacity ? m->capacity * 2 : 256;
		struct prepared **all = realloc(m->all, capacity * sizeof(*all));

		if (!all)
			return NULL;
		m->all = all;
		m->capacity = capacity;
	}
	p = calloc(1, sizeof(*p) + text.size + 1);
	if (!p)
		return NULL;
	p->references = 1;
	p->text_size = (uint32_t)text.size;
	memcpy(p->text, text.data, text.size);
	snprintf(p->keyspace, sizeof(p->keyspace), "%s", keyspace);
	statement_read(text, &p->statement);
	statement_refine(&p->statement, binds); /* before anybody else can see it */
	m->all[m->count++] = p;
	m->text_bytes += text.size;
	return p;
}

static uint64_t columns_hash(struct columns c)
{
	uint64_t h = c.count;
	struct column column;

	while (column_next(&c, &column) > 0) {
		h = XXH3_64bits_withSeed(column.name.data, column.name.size, h);
		h = XXH3_64bits_withSeed(column.option.data, column.option.size, h);
	}
	return h;
}

static void compare_sides(struct prepared *p)
{
	const struct prepared_remote *a = prepared_on(p, ORIGIN), *b = prepared_on(p, TARGET);

	if (!a || !b)
		return;
	atomic_store(&p->bind_differs, a->bind_hash != b->bind_hash);
	atomic_store(&p->result_differs, a->result_hash != b->result_hash);
}

static int publish(struct prepared *p, enum side side, const struct prepared_result *answer)
{
	struct prepared_remote *old = atomic_load(&p->remote[side]), *r;
	uint64_t bind_hash = columns_hash(answer->binds), result_hash = columns_hash(answer->result);

	/* The usual case, a second driver that prepares the same: nothing to publish. */
	if (old && span_equal(span_of(old->id, old->id_size), answer->id) && old->bind_hash == bind_hash &&
	    old->result_hash == result_hash &&
	    (answer->result_metadata_id.size == 0 ||
	     span_equal(span_of(old->result_id, old->result_id_size), answer->result_metadata_id)))
		return 0;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->id_size = (uint8_t)answer->id.size;
	memcpy(r->id, answer->id.data, answer->id.size);
	r->result_id_size = (uint8_t)answer->result_metadata_id.size;
	if (r->result_id_size)
		memcpy(r->result_id, answer->result_metadata_id.data, answer->result_metadata_id.size);
	if (!r->result_id_size && old && old->result_hash == result_hash) {
		r->result_id_size = old->result_id_size;
		memcpy(r->result_id, old->result_id, old->result_id_size);
	}
	r->bind_hash = bind_hash;
	r->result_hash = result_hash;
	r->older = old;
	atomic_store_explicit(&p->remote[side], r, memory_order_release);
	compare_sides(p);
	return 1;
}

int prepared_map_learn(struct prepared_map *m, enum side side, uint8_t version, struct span text, const char *keyspace,
		       const struct prepared_result *answer)
{
	struct prepared *p;
	int r = 0;

	(void)version;
	if (answer->id.size == 0 || answer->id.size > PREPARED_ID_MAX || answer->result_metadata_id.size > PREPARED_ID_MAX)
		return -E2BIG;
	pthread_mutex_lock(&m->lock);
	p = find_by_id(m, answer->id);
	if (!p || p->text_size != text.size || memcmp(p->text, text.data, text.size) != 0) {
		p = find_by_text(m, text, keyspace);
		if (!p)
			p = make(m, text, keyspace, answer->binds);
	}
	if (!p)
		r = -ENOMEM;
	if (r == 0)
		r = publish(p, side, answer);
	if (r > 0) {
		m->changed = true;
		r = 0;
	}
	if (r == 0 && find_by_id(m, answer->id) != p)
		r = add_key(m, answer->id, p);
	pthread_mutex_unlock(&m->lock);
	return r;
}

int prepared_map_learn_for(struct prepared_map *m, enum side side, uint8_t version, struct prepared *p,
			   const struct prepared_result *answer)
{
	int r = prepared_map_learn(m, side, version, span_of(p->text, p->text_size), p->keyspace, answer);

	if (r == 0) {
		pthread_mutex_lock(&m->lock);
		r = publish(p, side, answer);
		pthread_mutex_unlock(&m->lock);
	}
	return r < 0 ? r : 0;
}

void prepared_map_each(struct prepared_map *m, bool (*callback)(void *context, struct prepared *p), void *context)
{
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < m->count; i++)
		if (!callback(context, m->all[i]))
			break;
	pthread_mutex_unlock(&m->lock);
}

/* ---- over a restart: prepared_record.h */

bool prepared_map_changed(struct prepared_map *m)
{
	pthread_mutex_lock(&m->lock);
	bool changed = m->changed;
	pthread_mutex_unlock(&m->lock);
	return changed;
}

#define SAVED_PIECES (2 * SIDES + 3)

static unsigned saved_pieces(const struct prepared *p, struct saved *head, struct span pieces[SAVED_PIECES])
{
	unsigned n = 1;

	*head = (struct saved){.flags = p->statement.flags, .keyspace_size = (uint8_t)strlen(p->keyspace)};
	for (int side = 0; side < SIDES; side++) {
		const struct prepared_remote *r = prepared_on(p, side);

		if (!r)
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
	struct span pieces[SAVED_PIECES];

	keep_record(w, pieces, saved_pieces(p, &head, pieces));
}

size_t prepared_record(const struct prepared *p, uint8_t *to, size_t capacity)
{
	struct saved head;
	struct span pieces[SAVED_PIECES];
	unsigned n = saved_pieces(p, &head, pieces);
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
	for (uint32_t i = 0; all && i < count; i++)
		all[i] = prepared_get(m->all[i]);
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
	bool known = true; /* every worker's journal has it */

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
	pthread_mutex_lock(&m->lock);
	for (int side = 0; side < SIDES; side++)
		known &= !remote[side] || find_by_id(m, span_of(remote[side]->id, remote[side]->id_size));
	if (!known)
		p = make(m, span_of(at, (size_t)(end - at)), keyspace, (struct columns){0});
	for (int side = 0; p && side < SIDES; side++) {
		struct prepared_remote *r = remote[side];

		if (!r)
			continue;
		p->statement.flags = head.flags; /* as the bind variables' types had refined them */
		atomic_store(&p->remote[side], r);
		remote[side] = NULL;
		if (!find_by_id(m, span_of(r->id, r->id_size)))
			add_key(m, span_of(r->id, r->id_size), p);
	}
	if (p)
		compare_sides(p);
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

/* ---- a worker's view */

struct prepared_cache *prepared_cache_new(struct prepared_map *m)
{
	struct prepared_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->map = m;
	c->mask = 255;
	c->buckets = calloc(c->mask + 1, sizeof(*c->buckets));
	if (!c->buckets) {
		free(c);
		return NULL;
	}
	return c;
}

static void sweep_retired(struct prepared_cache *c, bool all)
{
	for (struct cached **at = &c->retired; *at;) {
		struct cached *e = *at;

		if (e->slot.uses && !all) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		prepared_put(e->slot.prepared);
		free(e);
	}
}

static void retire_all(struct prepared_cache *c)
{
	for (uint32_t i = 0; i <= c->mask; i++) {
		while (c->buckets[i]) {
			struct cached *e = c->buckets[i];

			c->buckets[i] = e->next;
			e->next = c->retired;
			c->retired = e;
		}
	}
	c->count = 0;
	sweep_retired(c, false);
}

void prepared_cache_free(struct prepared_cache *c)
{
	if (!c)
		return;
	retire_all(c);
	sweep_retired(c, true);
	free(c->buckets);
	free(c);
}

static void cache_grow(struct prepared_cache *c)
{
	uint32_t mask = c->mask * 2 + 1;
	struct cached **buckets = calloc(mask + 1, sizeof(*buckets));

	if (!buckets)
		return; /* longer chains, nothing worse */
	for (uint32_t i = 0; i <= c->mask; i++) {
		while (c->buckets[i]) {
			struct cached *e = c->buckets[i];
			uint32_t to = id_hash(span_of(e->id, e->size)) & mask;

			c->buckets[i] = e->next;
			e->next = buckets[to];
			buckets[to] = e;
		}
	}
	free(c->buckets);
	c->buckets = buckets;
	c->mask = mask;
}

struct prepared_slot *prepared_find(struct prepared_cache *c, struct span id)
{
	uint32_t generation = atomic_load_explicit(&c->map->generation, memory_order_acquire);
	uint32_t hash = id_hash(id);
	struct prepared *p;
	struct cached *e;

	if (id.size == 0 || id.size > PREPARED_ID_MAX)
		return NULL;
	if (generation != c->generation) {
		retire_all(c);
		c->generation = generation;
	}
	for (e = c->buckets[hash & c->mask]; e; e = e->next)
		if (span_equal(span_of(e->id, e->size), id))
			return &e->slot;

	pthread_mutex_lock(&c->map->lock);
	p = find_by_id(c->map, id);
	if (p)
		prepared_get(p);
	pthread_mutex_unlock(&c->map->lock);
	if (!p)
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e) {
		prepared_put(p);
		return NULL;
	}
	e->slot.prepared = p;
	e->size = (uint8_t)id.size;
	memcpy(e->id, id.data, id.size);
	if (c->count > c->mask)
		cache_grow(c);
	e->next = c->buckets[hash & c->mask];
	c->buckets[hash & c->mask] = e;
	c->count++;
	return &e->slot;
}

struct span prepared_slot_id(const struct prepared_slot *s)
{
	const struct cached *e = (const struct cached *)s; /* its first member */

	return span_of(e->id, e->size);
}

void prepared_release(struct prepared_slot *s)
{
	if (s)
		s->uses--;
}
