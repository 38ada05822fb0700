/* SPDX-License-Identifier: Apache-2.0 */
#include "cql/response.h"
#include "relay/topology.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "relay/keep.h"

#define BUCKETS 512
#define ANSWER_COLUMNS_MAX 64u /* system.local of Cassandra 5 has 21 */

struct topology_question {
	uint64_t hash;
	size_t size;
	uint8_t key[];
};

struct answer {
	struct answer *next;
	struct topology_question *question;
	uint8_t *body;
	size_t size;
};

struct topology_store {
	pthread_mutex_t lock;
	struct answer *bucket[BUCKETS];
	unsigned count;
	size_t bytes;
	bool changed; /* since the last save */
};

struct topology_store *topology_store_new(void)
{
	struct topology_store *t = calloc(1, sizeof(*t));

	if (t)
		pthread_mutex_init(&t->lock, NULL);
	return t;
}

void topology_store_free(struct topology_store *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (t->bucket[i]) {
			struct answer *a = t->bucket[i];

			t->bucket[i] = a->next;
			free(a->question);
			free(a->body);
			free(a);
		}
	}
	pthread_mutex_destroy(&t->lock);
	free(t);
}

struct topology_question *topology_question_new(const struct addr *node, const struct request *r, struct span text)
{
	char address[ADDR_TEXT_MAX];
	size_t node_size, size;
	struct topology_question *q;
	uint8_t *at;

	addr_format(node, address);
	node_size = strlen(address) + 1;
	size = node_size + 2 + text.size + r->params.values.size;
	q = malloc(sizeof(*q) + size);
	if (!q)
		return NULL;
	at = q->key;
	memcpy(at, address, node_size);
	at += node_size;
	*at++ = r->version;
	*at++ = r->params.flags & QUERY_SKIP_METADATA;
	memcpy(at, text.data, text.size);
	at += text.size;
	if (r->params.values.size)
		memcpy(at, r->params.values.data, r->params.values.size);
	q->size = size;
	q->hash = XXH3_64bits(q->key, size);
	return q;
}

void topology_question_free(struct topology_question *q)
{
	free(q);
}

static struct answer *find(struct topology_store *t, const struct topology_question *q)
{
	for (struct answer *a = t->bucket[q->hash % BUCKETS]; a; a = a->next)
		if (a->question->hash == q->hash && a->question->size == q->size &&
		    memcmp(a->question->key, q->key, q->size) == 0)
			return a;
	return NULL;
}

static struct answer *add(struct topology_store *t, const struct topology_question *q)
{
	struct answer *a = t->count < TOPOLOGY_ENTRIES_MAX ? calloc(1, sizeof(*a)) : NULL;

	if (!a)
		return NULL;
	a->question = malloc(sizeof(*q) + q->size);
	if (!a->question) {
		free(a);
		return NULL;
	}
	memcpy(a->question, q, sizeof(*q) + q->size);
	a->next = t->bucket[q->hash % BUCKETS];
	t->bucket[q->hash % BUCKETS] = a;
	t->count++;
	return a;
}

/*
 * All rows of all answers have one schema version. Otherwise those that were asked for while a schema change was on its way would differ for
 * ever, and a driver would wait to the end of its patience, mostly ten seconds, after each schema change of its own.
 */
static void agree(const struct topology_question *q, uint8_t *body, size_t size)
{
	static const uint8_t version[16] = {0xc9, 0x1f, 0xe4, 0x44, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1};
	struct span cells[ANSWER_COLUMNS_MAX];
	struct columns columns;
	struct column column;
	struct rows rows;
	uint32_t place = 0;

	if (rows_parse(q->key[strlen((const char *)q->key) + 1], span_of(body, size), &rows) || rows.head.columns > ANSWER_COLUMNS_MAX)
		return;
	columns = rows.columns;
	while (column_next(&columns, &column) > 0 && !(column.type == TYPE_UUID && span_equal(column.name, span_text("schema_version"))))
		place++;
	while (place < rows.head.columns && rows_next(&rows, cells) > 0)
		if (cells[place].size == sizeof(version))
			memcpy(body + (cells[place].data - body), version, sizeof(version));
}

/* A first page alone would be the answer to whoever asks, and the next one be asked of a cluster that may be gone. */
static bool goes_on(const struct topology_question *q, struct span body)
{
	struct rows_head head;

	return rows_head_parse(q->key[strlen((const char *)q->key) + 1], body, &head) == 0 && head.flags & ROWS_MORE_PAGES;
}

void topology_store_put(struct topology_store *t, const struct topology_question *q, struct span body)
{
	struct answer *a;
	uint8_t *copy;

	if (body.size > TOPOLOGY_ANSWER_MAX || goes_on(q, body))
		return;
	copy = malloc(body.size ? body.size : 1);
	if (!copy)
		return;
	memcpy(copy, body.data, body.size);
	agree(q, copy, body.size);
	pthread_mutex_lock(&t->lock);
	a = find(t, q);
	if (t->bytes - (a ? a->size : 0) + body.size > TOPOLOGY_BYTES_MAX)
		a = NULL;
	else if (!a)
		a = add(t, q);
	if (a) {
		t->changed = t->changed || a->size != body.size || memcmp(a->body, copy, body.size) != 0;
		t->bytes += body.size - a->size;
		free(a->body);
		a->body = copy;
		a->size = body.size;
		copy = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	free(copy);
}

bool topology_store_get(struct topology_store *t, const struct topology_question *q, uint8_t **ret_body, size_t *ret_size)
{
	uint8_t *copy = NULL;
	size_t size = 0;

	pthread_mutex_lock(&t->lock);
	struct answer *a = find(t, q);
	if (a && a->body) {
		copy = malloc(a->size ? a->size : 1);
		if (copy) {
			memcpy(copy, a->body, a->size);
			size = a->size;
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (!copy)
		return false;
	*ret_body = copy;
	*ret_size = size;
	return true;
}

/* ---- over a restart: question size u32 | question | answer */

bool topology_store_changed(struct topology_store *t)
{
	pthread_mutex_lock(&t->lock);
	bool changed = t->changed;
	pthread_mutex_unlock(&t->lock);
	return changed;
}

int topology_store_save(struct topology_store *t, const char *directory, struct error *error)
{
	struct keep_writer w;
	int r = keep_begin(&w, directory, "topology.keep", KEEP_TOPOLOGY, error);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct answer *a = t->bucket[i]; a; a = a->next) {
			uint32_t size = (uint32_t)a->question->size;
			struct span pieces[3] = {span_of(&size, sizeof(size)), span_of(a->question->key, size), span_of(a->body, a->size)};

			if (a->body)
				keep_record(&w, pieces, 3);
		}
	}
	t->changed = false;
	pthread_mutex_unlock(&t->lock);
	r = keep_end(&w, error);
	if (r < 0) { /* tried again with the next */
		pthread_mutex_lock(&t->lock);
		t->changed = true;
		pthread_mutex_unlock(&t->lock);
	}
	return r;
}

void topology_store_restore(struct topology_store *t, struct span payload)
{
	uint32_t size;
	struct topology_question *q;

	if (payload.size < sizeof(size))
		return;
	memcpy(&size, payload.data, sizeof(size));
	if (size > payload.size - sizeof(size))
		return;
	q = malloc(sizeof(*q) + size);
	if (!q)
		return;
	q->size = size;
	memcpy(q->key, payload.data + sizeof(size), size);
	q->hash = XXH3_64bits(q->key, size);
	topology_store_put(t, q, span_of(payload.data + sizeof(size) + size, payload.size - sizeof(size) - size));
	free(q);
}

static void restore_one(void *context, struct span payload)
{
	topology_store_restore(context, payload);
}

int topology_store_load(struct topology_store *t, const char *directory, bool *ret_damaged)
{
	int n = keep_read(directory, "topology.keep", KEEP_TOPOLOGY, restore_one, t, ret_damaged);

	t->changed = false;
	return n;
}
