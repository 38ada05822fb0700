/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node-wide map: entries by the ids of both clusters, and by text and keyspace. Only PREPARE and a worker's first look at an id come
 * here; all of it is under one lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/prepared_priv.h"

#define FIRST_BUCKETS 1024u

void prepared_put(struct prepared *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) != 1)
		return;
	for (struct prepared_remote *r = p->answers, *older; r; r = older) {
		older = r->older;
		free(r);
	}
	prepared_put(atomic_load(&p->changed));
	free(p->binds);
	free(p);
}

void prepared_map_apart(struct prepared_map *m)
{
	m->apart = true;
}

struct prepared_map *prepared_map_new(void)
{
	struct prepared_map *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->mask = FIRST_BUCKETS - 1;
	m->by_id = calloc(FIRST_BUCKETS, sizeof(*m->by_id));
	m->by_text = calloc(FIRST_BUCKETS, sizeof(*m->by_text));
	if (!m->by_id || !m->by_text) {
		free(m->by_id);
		free(m->by_text);
		free(m);
		return NULL;
	}
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

static void map_clear(struct prepared_map *m)
{
	struct prepared *p = m->first, *next;

	for (uint32_t i = 0; i <= m->mask; i++) {
		while (m->by_id[i]) {
			struct key *k = m->by_id[i];

			m->by_id[i] = k->next;
			prepared_put(k->prepared);
			free(k);
		}
	}
	memset(m->by_text, 0, (m->mask + 1) * sizeof(*m->by_text));
	m->first = m->last = NULL;
	for (; p; p = next) {
		next = p->next;
		prepared_put(p);
	}
	m->count = m->keys = 0;
	m->text_bytes = 0;
	atomic_fetch_add(&m->generation, 1);
}

void prepared_map_free(struct prepared_map *m)
{
	if (!m)
		return;
	map_clear(m);
	free(m->by_id);
	free(m->by_text);
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

static struct span text_of(const struct prepared *p)
{
	return span_of(p->text, p->text_size);
}

static uint32_t text_hash(struct span text, const char *keyspace)
{
	return (uint32_t)XXH3_64bits_withSeed(text.data, text.size, XXH3_64bits(keyspace, strlen(keyspace)));
}

struct prepared *prepared_find_text(struct prepared_map *m, struct span text, const char *keyspace)
{
	uint32_t hash = text_hash(text, keyspace);

	for (struct prepared *p = m->by_text[hash & m->mask]; p; p = p->same_text)
		if (p->hash == hash && span_equal(text_of(p), text) && strcmp(p->keyspace, keyspace) == 0)
			return p;
	return NULL;
}

/* Chains stay short. Without memory they grow, nothing worse. */
static void grow(struct prepared_map *m)
{
	uint32_t mask = m->mask * 2 + 1;
	struct key **by_id = calloc(mask + 1, sizeof(*by_id));
	struct prepared **by_text = calloc(mask + 1, sizeof(*by_text));

	if (!by_id || !by_text) {
		free(by_id);
		free(by_text);
		return;
	}
	for (uint32_t i = 0; i <= m->mask; i++) {
		for (struct key *k; (k = m->by_id[i]);) {
			uint32_t to = prepared_hash(span_of(k->id, k->size)) & mask;

			m->by_id[i] = k->next;
			k->next = by_id[to];
			by_id[to] = k;
		}
		for (struct prepared *p; (p = m->by_text[i]);) {
			m->by_text[i] = p->same_text;
			p->same_text = by_text[p->hash & mask];
			by_text[p->hash & mask] = p;
		}
	}
	free(m->by_id);
	free(m->by_text);
	m->by_id = by_id;
	m->by_text = by_text;
	m->mask = mask;
}

static struct key *find_key(struct prepared_map *m, struct span id)
{
	struct key *k = m->by_id[prepared_hash(id) & m->mask];

	while (k && !span_equal(span_of(k->id, k->size), id))
		k = k->next;
	return k;
}

struct prepared *prepared_find_id(struct prepared_map *m, struct span id)
{
	struct key *k = find_key(m, id);

	return k ? k->prepared : NULL;
}

int prepared_add_key(struct prepared_map *m, struct span id, struct prepared *p)
{
	struct key *k = find_key(m, id);

	if (k) {
		prepared_get(p);
		prepared_put(k->prepared);
		k->prepared = p;
		return 0;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	if (m->keys > m->mask)
		grow(m);
	k->size = (uint8_t)id.size;
	memcpy(k->id, id.data, id.size);
	k->prepared = prepared_get(p);
	uint32_t at = prepared_hash(id) & m->mask;
	k->next = m->by_id[at];
	m->by_id[at] = k;
	m->keys++;
	return 0;
}

/* Which values it wants in place of now() and the like. */
static void find_instants(struct prepared *p)
{
	struct instant_bind binds[INSTANT_BINDS_MAX];
	int n;

	if (!(p->statement.flags & STATEMENT_FUNCTION) || !statement_changes_rows(&p->statement))
		return;
	n = instant_binds(text_of(p), binds);
	p->calls = n != 0;
	if (n <= 0)
		return;
	p->binds = malloc((size_t)n * sizeof(*binds));
	if (!p->binds)
		return;
	memcpy(p->binds, binds, (size_t)n * sizeof(*binds));
	p->bind_count = (uint16_t)n;
}

struct prepared *prepared_make(struct prepared_map *m, struct span text, const char *keyspace, struct columns binds)
{
	struct prepared *p;

	if (m->count >= PREPARED_ENTRIES_MAX || m->text_bytes + text.size > PREPARED_TEXT_MAX)
		map_clear(m);
	p = calloc(1, sizeof(*p) + text.size + 1);
	if (!p)
		return NULL;
	p->references = 1;
	p->told = SIDES;
	p->text_size = (uint32_t)text.size;
	memcpy(p->text, text.data, text.size);
	snprintf(p->keyspace, sizeof(p->keyspace), "%s", keyspace);
	statement_read(text, &p->statement);
	statement_refine(&p->statement, binds); /* before anybody else can see it */
	find_instants(p);
	p->hash = text_hash(text, keyspace);
	p->same_text = m->by_text[p->hash & m->mask];
	m->by_text[p->hash & m->mask] = p;
	if (m->last)
		m->last->next = p;
	else
		m->first = p;
	m->last = p;
	m->count++;
	m->text_bytes += text.size;
	return p;
}

static void compare_sides(struct prepared *p)
{
	const struct prepared_remote *a = prepared_on(p, ORIGIN), *b = prepared_on(p, TARGET);

	if (!a || !b || b->apart) /* descriptions with other names in them cannot be equal */
		return;
	atomic_store(&p->bind_differs, a->bind_hash != b->bind_hash);
	atomic_store(&p->result_differs, a->result_hash != b->result_hash);
}

void prepared_publish(struct prepared *p, enum side side, struct prepared_remote *r)
{
	r->side = (uint8_t)side;
	r->older = p->answers;
	p->answers = r;
	atomic_store_explicit(&p->remote[side], r, memory_order_release);
	compare_sides(p);
}

/* Where the partition key is bound. */
static void read_key(struct prepared_remote *r, const struct prepared_result *answer)
{
	const uint8_t *at = answer->pk_indexes.data;

	if (answer->pk_count > TOKEN_PARTS_MAX)
		return;
	r->key_count = (uint8_t)answer->pk_count;
	for (unsigned i = 0; i < r->key_count; i++, at += 2)
		r->key[i] = (uint16_t)(at[0] << 8 | at[1]);
}

/* v3 says nothing of the key, and that takes nothing back. */
static bool says_key(const struct prepared_remote *r, const struct prepared_result *answer)
{
	struct prepared_remote other = {0};

	read_key(&other, answer);
	return !other.key_count || (r->key_count == other.key_count && !memcmp(r->key, other.key, sizeof(r->key)));
}

static bool says(const struct prepared_remote *r, enum side side, const struct prepared_result *answer, uint64_t bind_hash,
		 uint64_t result_hash)
{
	return r->side == side && r->bind_hash == bind_hash && r->result_hash == result_hash && span_equal(span_of(r->id, r->id_size), answer->id) &&
	       (answer->result_metadata_id.size == 0 ||
		span_equal(span_of(r->result_id, r->result_id_size), answer->result_metadata_id)) &&
	       says_key(r, answer);
}

/* 1 = something new was learned. */
static int learn_answer(struct prepared *p, enum side side, bool apart, const struct prepared_result *answer)
{
	struct prepared_remote *now = atomic_load(&p->remote[side]), *r;
	uint64_t bind_hash = columns_hash(answer->binds), result_hash = columns_hash(answer->result);

	/* The usual case, a second driver that prepares the same: nothing to publish. */
	if (now && says(now, side, answer, bind_hash, result_hash))
		return 0;
	/* Nodes that do not agree (a schema change, an upgrade) take turns: what was said once is not kept twice. */
	for (r = p->answers; r; r = r->older) {
		if (!says(r, side, answer, bind_hash, result_hash))
			continue;
		atomic_store_explicit(&p->remote[side], r, memory_order_release);
		compare_sides(p);
		return 1;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->id_size = (uint8_t)answer->id.size;
	memcpy(r->id, answer->id.data, answer->id.size);
	r->result_id_size = (uint8_t)answer->result_metadata_id.size;
	if (r->result_id_size)
		memcpy(r->result_id, answer->result_metadata_id.data, answer->result_metadata_id.size);
	if (!r->result_id_size && now && now->result_hash == result_hash) {
		r->result_id_size = now->result_id_size;
		memcpy(r->result_id, now->result_id, now->result_id_size);
	}
	read_key(r, answer);
	if (!r->key_count && now && now->bind_hash == bind_hash) {
		r->key_count = now->key_count;
		memcpy(r->key, now->key, sizeof(r->key));
	}
	r->apart = apart;
	r->bind_hash = bind_hash;
	r->result_hash = result_hash;
	prepared_publish(p, side, r);
	return 1;
}

static void take_out(struct prepared_map *m, struct prepared *p)
{
	struct prepared **at = &m->by_text[p->hash & m->mask], *before = NULL;

	while (*at && *at != p)
		at = &(*at)->same_text;
	if (!*at)
		return; /* the map was emptied since */
	*at = p->same_text;
	for (at = &m->first; *at != p; at = &(*at)->next)
		before = *at;
	*at = p->next;
	if (m->last == p)
		m->last = before;
	m->count--;
	m->text_bytes -= p->text_size;
	prepared_put(p);
}

/* What the other side said of `old`: a change of types reaches it later, and until then, or until it says UNPREPARED, the id is good. */
static void keep_answer(struct prepared *p, const struct prepared *old, enum side side)
{
	const struct prepared_remote *r = prepared_on(old, side);
	struct prepared_remote *copy = r ? malloc(sizeof(*copy)) : NULL;

	if (!copy)
		return; /* it is prepared there again */
	*copy = *r;
	prepared_publish(p, side, copy);
}

/*
 * The same text with other types (the table was dropped and made anew, as one with a list or a counter) may be another kind of write under
 * the same id. Workers read what an entry says without a lock, so it gets a new one. Returns the entry that stands for the text; NULL = out
 * of memory.
 */
static struct prepared *follow_types(struct prepared_map *m, struct prepared *p, enum side side, struct columns binds)
{
	const struct prepared_remote *before = prepared_on(p, side);
	struct statement now;
	struct prepared *next;

	if (!before || before->bind_hash == columns_hash(binds))
		return p;
	statement_read(text_of(p), &now);
	statement_refine(&now, binds);
	if (now.flags == p->statement.flags)
		return p;
	prepared_get(p);
	take_out(m, p);
	next = prepared_make(m, text_of(p), p->keyspace, binds);
	if (next) {
		atomic_store(&next->told, atomic_load(&p->told));
		keep_answer(next, p, side_other(side));
		for (const struct prepared_remote *r = p->answers; r; r = r->older) {
			struct key *k = find_key(m, span_of(r->id, r->id_size));

			if (k && k->prepared == p)
				prepared_add_key(m, span_of(r->id, r->id_size), next);
		}
		atomic_fetch_add(&m->generation, 1);
	}
	prepared_put(p);
	return next;
}

static bool id_fits(const struct prepared_result *answer)
{
	return answer->id.size > 0 && answer->id.size <= PREPARED_ID_MAX && answer->result_metadata_id.size <= PREPARED_ID_MAX;
}

int prepared_map_learn(struct prepared_map *m, enum side side, uint8_t version, struct span text, const char *keyspace,
		       const struct prepared_result *answer)
{
	struct prepared *p;
	int r;

	(void)version;
	if (!id_fits(answer))
		return -E2BIG;
	pthread_mutex_lock(&m->lock);
	/* By id first: where all names are qualified, a text is one statement in every keyspace. */
	p = prepared_find_id(m, answer->id);
	if (!p || !span_equal(text_of(p), text))
		p = prepared_find_text(m, text, keyspace);
	p = p ? follow_types(m, p, side, answer->binds) : prepared_make(m, text, keyspace, answer->binds);
	r = p ? learn_answer(p, side, false, answer) : -ENOMEM;
	if (r > 0)
		m->changed = true;
	if (r >= 0)
		r = prepared_add_key(m, answer->id, p);
	pthread_mutex_unlock(&m->lock);
	return r < 0 ? r : 0;
}

int prepared_map_learn_for(struct prepared_map *m, enum side side, uint8_t version, struct prepared *p,
			   const struct prepared_result *answer)
{
	bool apart = m->apart && side == TARGET;
	int r = !id_fits(answer) ? -E2BIG : apart ? 0 : prepared_map_learn(m, side, version, text_of(p), p->keyspace, answer);

	if (r == 0) {
		pthread_mutex_lock(&m->lock);
		r = learn_answer(p, side, apart, answer);
		pthread_mutex_unlock(&m->lock);
	}
	return r < 0 ? r : 0;
}

void prepared_map_each(struct prepared_map *m, bool (*callback)(void *context, struct prepared *p), void *context)
{
	pthread_mutex_lock(&m->lock);
	for (struct prepared *p = m->first; p && callback(context, p); p = p->next)
		;
	pthread_mutex_unlock(&m->lock);
}

struct span prepared_told(struct prepared *p, enum side side)
{
	uint8_t nobody = SIDES;
	const struct prepared_remote *r;

	atomic_compare_exchange_strong(&p->told, &nobody, (uint8_t)side);
	r = prepared_on(p, (enum side)atomic_load(&p->told));
	if (!r)
		r = prepared_on(p, side);
	return r ? span_of(r->id, r->id_size) : span_of(NULL, 0);
}

struct prepared *prepared_changed(struct prepared_map *m, struct prepared *p)
{
	struct prepared *c = atomic_load_explicit(&p->changed, memory_order_acquire);
	size_t capacity = p->text_size + (size_t)p->bind_count * INSTANT_TEXT_GROWTH;
	uint8_t *text;
	ssize_t n;

	if (c || p->bind_count == 0)
		return c;
	text = malloc(capacity);
	n = text ? instant_text(text_of(p), text, capacity) : -ENOMEM;
	if (n > 0) {
		pthread_mutex_lock(&m->lock);
		c = atomic_load(&p->changed);
		if (!c) {
			c = prepared_find_text(m, span_of(text, (size_t)n), p->keyspace);
			if (c)
				atomic_store_explicit(&p->changed, prepared_get(c), memory_order_release);
		}
		pthread_mutex_unlock(&m->lock);
	}
	free(text);
	return c;
}
