/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of one cluster, see schema.h. */
#include "mirror/schema.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "uthash.h"

/* Value, WRITETIME and TTL of each column have to fit into one answer. */
#define COLUMNS_MAX (CLIENT_COLUMNS_MAX / 3)

struct entry {
	struct table_name name; /* the hash's key: no bytes but those of the names, the rest 0 */
	struct schema_table *table;
	UT_hash_handle hh;
};

struct schema_cache {
	pthread_mutex_t lock;
	struct entry *entries;
	uint64_t generation; /* moves when something is forgotten: what was asked before is not kept */
	int major;	     /* of the cluster's release, 0 = not asked yet */
};

struct schema_cache *schema_cache_new(void)
{
	struct schema_cache *c = calloc(1, sizeof(*c));

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

static void column_done(struct schema_column *c)
{
	free((void *)c->name);
	free((void *)c->quoted);
	for (unsigned i = 0; i < c->field_count; i++)
		free((void *)c->fields[i]);
	free(c->fields);
}

void schema_table_put(struct schema_table *t)
{
	if (!t || atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned i = 0; i < t->count; i++)
		column_done(&t->columns[i]);
	free(t->columns);
	free((void *)t->quoted);
	free(t);
}

static void entry_drop(struct schema_cache *c, struct entry *e)
{
	HASH_DEL(c->entries, e);
	schema_table_put(e->table);
	free(e);
}

void schema_cache_forget(struct schema_cache *c, const char *keyspace)
{
	struct entry *e, *next;

	pthread_mutex_lock(&c->lock);
	c->generation++;
	c->major = 0;
	HASH_ITER(hh, c->entries, e, next)
	if (!keyspace || !strcmp(e->name.keyspace, keyspace))
		entry_drop(c, e);
	pthread_mutex_unlock(&c->lock);
}

void schema_cache_free(struct schema_cache *c)
{
	if (!c)
		return;
	schema_cache_forget(c, NULL);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ------------------------------------------------------------- reading */

static char *quote(const char *name, char *to)
{
	*to++ = '"';
	for (; *name; name++) {
		if (*name == '"')
			*to++ = '"';
		*to++ = *name;
	}
	*to++ = '"';
	*to = 0;
	return to;
}

static char *quoted_name(const char *name)
{
	char *to = malloc(2 * strlen(name) + 3);

	if (to)
		quote(name, to);
	return to;
}

static char *quoted_table(const struct table_name *name)
{
	char *to = malloc(4 * CQL_NAME_MAX + 8), *p;

	if (!to)
		return NULL;
	p = quote(name->keyspace, to);
	*p++ = '.';
	quote(name->table, p);
	return to;
}

static bool begins(struct span text, const char *prefix)
{
	size_t n = strlen(prefix);

	return text.size >= n && !memcmp(text.data, prefix, n);
}

/* system_schema spells types as CQL does; what is no type of the language is a user type, not frozen. */
static enum column_shape shape_of(struct span type)
{
	static const char *const native[] = {
	    "ascii",	"bigint",  "blob", "boolean", "counter",  "date", "decimal", "double",
	    "duration", "float",   "inet", "int",     "smallint", "text", "time",    "timestamp",
	    "timeuuid", "tinyint", "uuid", "varchar", "varint",	  "empty"};

	if (begins(type, "set<"))
		return SHAPE_SET;
	if (begins(type, "map<"))
		return SHAPE_MAP;
	if (begins(type, "list<"))
		return SHAPE_LIST;
	if (begins(type, "frozen<") || begins(type, "tuple<") || begins(type, "vector<") || begins(type, "'"))
		return SHAPE_PLAIN;
	for (size_t i = 0; i < sizeof(native) / sizeof(*native); i++)
		if (span_equal(type, span_text(native[i])))
			return SHAPE_PLAIN;
	return SHAPE_UDT;
}

/* A user type's name as system_schema.types has it: without quotes. */
static char *type_name(struct span type)
{
	char *name = malloc(type.size + 1), *to = name;
	bool quoted = type.size >= 2 && type.data[0] == '"';

	for (size_t i = quoted; name && i < type.size - quoted; i++) {
		*to++ = (char)type.data[i];
		if (quoted && type.data[i] == '"')
			i++;
	}
	if (name)
		*to = 0;
	return name;
}

struct reading {
	struct schema_table *table;
	unsigned room;
	struct reading_place {
		struct schema_column column;
		int32_t position;
		char *type; /* of a user type, its name */
	} * places;
	unsigned count;
};

static int32_t int_of(struct span cell)
{
	if (!cell.data || cell.size != 4)
		return 0;
	return (int32_t)((uint32_t)cell.data[0] << 24 | (uint32_t)cell.data[1] << 16 |
			 (uint32_t)cell.data[2] << 8 | cell.data[3]);
}

/* column_name, kind, position, type */
static int on_column(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	static const char *const kinds[] = {"partition_key", "clustering", "static", "regular"};
	struct reading *r = context;
	int kind = -1;

	(void)columns;
	if (count != 4 || !cells[0].data || !cells[1].data || !cells[3].data ||
	    memchr(cells[0].data, 0, cells[0].size))
		return -EPROTO;
	for (int i = 0; i < 4; i++)
		if (span_equal(cells[1], span_text(kinds[i])))
			kind = i;
	/* Of a table that was once compact: no column that can be asked for. */
	if (kind < 0)
		return 0;
	if (r->count == COLUMNS_MAX)
		return -E2BIG;
	if (r->count == r->room) {
		unsigned room = r->room ? r->room * 2 : 16;
		void *grown = realloc(r->places, room * sizeof(*r->places));

		if (!grown)
			return -ENOMEM;
		r->places = grown;
		r->room = room;
	}
	struct reading_place *p = &r->places[r->count];

	*p = (struct reading_place){.position = int_of(cells[2])};
	p->column.kind = (enum column_kind)kind;
	p->column.shape = shape_of(cells[3]);
	p->column.name = strndup((const char *)cells[0].data, cells[0].size);
	p->column.quoted = p->column.name ? quoted_name(p->column.name) : NULL;
	if (p->column.shape == SHAPE_UDT)
		p->type = type_name(cells[3]);
	r->count++;
	r->table->counters |= span_equal(cells[3], span_text("counter"));
	return p->column.quoted && (p->type || p->column.shape != SHAPE_UDT) ? 0 : -ENOMEM;
}

/* "5.0.9", "4.1.10", "4.0.0.6816" */
static int on_release(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	int *major = context;

	(void)columns;
	*major = 0;
	for (size_t i = 0; count == 1 && cells[0].data && i < cells[0].size && i < 4; i++) {
		if (cells[0].data[i] < '0' || cells[0].data[i] > '9')
			break;
		*major = *major * 10 + cells[0].data[i] - '0';
	}
	return 0;
}

static int place_compare(const void *left, const void *right)
{
	const struct reading_place *a = left, *b = right;

	if (a->column.kind != b->column.kind)
		return (int)a->column.kind - (int)b->column.kind;
	if (a->column.kind < COLUMN_STATIC)
		return (a->position > b->position) - (a->position < b->position);
	return strcmp(a->column.name, b->column.name);
}

/* field_names: a list of text */
static int on_fields(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct schema_column *c = context;
	struct span list = cells[0];
	size_t at = 4;

	(void)columns;
	if (count != 1 || !list.data || list.size < 4 || c->fields)
		return -EPROTO;
	uint32_t n = (uint32_t)int_of(span_of(list.data, 4));

	/* Each has a length of 4 bytes. */
	if (n > list.size / 4 || !(c->fields = calloc(n + 1, sizeof(*c->fields))))
		return n > list.size / 4 ? -EPROTO : -ENOMEM;
	for (; c->field_count < n; c->field_count++) {
		size_t size = list.size - at >= 4 ? (uint32_t)int_of(span_of(list.data + at, 4)) : SIZE_MAX;

		if (list.size - at < 4 || size > list.size - at - 4)
			return -EPROTO;
		char *name = strndup((const char *)list.data + at + 4, size);

		c->fields[c->field_count] = name ? quoted_name(name) : NULL;
		free(name);
		if (!c->fields[c->field_count])
			return -ENOMEM;
		at += 4 + size;
	}
	return 0;
}

/* default_time_to_live */
static int on_table(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct reading *r = context;

	(void)columns;
	r->table->default_ttl = count == 1 ? int_of(cells[0]) : 0;
	return 0;
}

/* Asks for what is told of two names. */
static int ask(struct client *client, const char *text, const char *keyspace, const char *name,
	       client_row row, void *context, struct error *error)
{
	const char *names[] = {keyspace, name};
	size_t at = 0, size = strlen(keyspace) + strlen(name) + 8;
	uint8_t *values = malloc(size);
	int rc;

	if (!values)
		return error_set(error, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < 2; i++) {
		size_t n = strlen(names[i]);

		for (int shift = 24; shift >= 0; shift -= 8)
			values[at++] = (uint8_t)(n >> shift);
		memcpy(values + at, names[i], n);
		at += n;
	}
	struct client_question q = {.text = span_text(text),
				    .consistency = CL_ONE,
				    .value_count = 2,
				    .values = span_of(values, size)};

	rc = client_ask(client, &q, row, context, error);
	free(values);
	return rc;
}

static int read_facts(struct client *client, struct reading *r, struct error *error)
{
	const struct table_name *name = &r->table->name;
	int rc = ask(client,
		     "SELECT column_name, kind, position, type FROM system_schema.columns "
		     "WHERE keyspace_name = ? AND table_name = ?",
		     name->keyspace, name->table, on_column, r, error);

	if (!rc)
		rc = ask(client,
			 "SELECT default_time_to_live FROM system_schema.tables "
			 "WHERE keyspace_name = ? AND table_name = ?",
			 name->keyspace, name->table, on_table, r, error);
	for (unsigned i = 0; i < r->count && !rc; i++)
		if (r->places[i].type)
			rc = ask(client,
				 "SELECT field_names FROM system_schema.types "
				 "WHERE keyspace_name = ? AND type_name = ?",
				 name->keyspace, r->places[i].type, on_fields, &r->places[i].column, error);
	return rc;
}

static int build(struct reading *r)
{
	struct schema_table *t = r->table;

	if (!r->count)
		return -ENOENT;
	qsort(r->places, r->count, sizeof(*r->places), place_compare);
	t->columns = calloc(r->count, sizeof(*t->columns));
	t->quoted = quoted_table(&t->name);
	if (!t->columns || !t->quoted)
		return -ENOMEM;
	for (; t->count < r->count; t->count++) {
		struct schema_column *c = &r->places[t->count].column;

		t->columns[t->count] = *c;
		*c = (struct schema_column){.kind = c->kind};
		c = &t->columns[t->count];
		t->partition += c->kind == COLUMN_PARTITION;
		t->clustering += c->kind == COLUMN_CLUSTERING;
		t->statics += c->kind == COLUMN_STATIC;
	}
	return t->partition ? 0 : -ENOENT;
}

static int read_table(struct client *client, const struct table_name *name, int *major,
		      struct schema_table **ret, struct error *error)
{
	struct reading r = {.table = calloc(1, sizeof(*r.table))};
	int rc = 0;

	if (!r.table)
		return error_set(error, -ENOMEM, "out of memory");
	atomic_init(&r.table->references, 1);
	r.table->name = *name;
	r.table->read_ns = clock_now_ns();
	if (!*major)
		rc = client_query(client, "SELECT release_version FROM system.local WHERE key = 'local'", CL_ONE, on_release,
				  major, error);
	r.table->element_stamps = *major >= 5;
	if (!rc)
		rc = read_facts(client, &r, error);
	if (!rc)
		rc = build(&r);
	for (unsigned i = 0; i < r.count; i++) {
		column_done(&r.places[i].column);
		free(r.places[i].type);
	}
	free(r.places);
	if (rc) {
		schema_table_put(r.table);
		return rc;
	}
	*ret = r.table;
	return 0;
}

/* ------------------------------------------------------------- the cache */

/* The bytes behind the names' ends count in the hash. */
static struct table_name key_of(const struct table_name *name)
{
	struct table_name key = {0};

	memcpy(key.keyspace, name->keyspace, strnlen(name->keyspace, CQL_NAME_MAX));
	memcpy(key.table, name->table, strnlen(name->table, CQL_NAME_MAX));
	return key;
}

struct schema_table *schema_cache_peek(struct schema_cache *c, const struct table_name *name)
{
	struct table_name key = key_of(name);
	struct schema_table *t = NULL;
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	HASH_FIND(hh, c->entries, &key, sizeof(key), e);
	if (e) {
		t = e->table;
		atomic_fetch_add_explicit(&t->references, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&c->lock);
	return t;
}

/* Keeps a reference of its own; without memory nothing is kept. */
static void keep(struct schema_cache *c, struct schema_table *t)
{
	struct entry *e;

	HASH_FIND(hh, c->entries, &t->name, sizeof(t->name), e);
	if (e)
		entry_drop(c, e);
	if (HASH_COUNT(c->entries) >= SCHEMA_TABLES_MAX) {
		struct entry *next;

		HASH_ITER(hh, c->entries, e, next)
		entry_drop(c, e);
	}
	e = calloc(1, sizeof(*e));
	if (!e)
		return;
	e->name = t->name;
	e->table = t;
	atomic_fetch_add_explicit(&t->references, 1, memory_order_relaxed);
	HASH_ADD(hh, c->entries, name, sizeof(e->name), e);
}

int schema_cache_get(struct schema_cache *c, struct client *client, const struct table_name *name,
		     struct schema_table **ret, struct error *error)
{
	struct schema_table *t = schema_cache_peek(c, name);
	struct table_name key = key_of(name);
	uint64_t generation;
	int rc, major;

	if (t && clock_now_ns() - t->read_ns < SCHEMA_AGE_NS) {
		*ret = t;
		return 0;
	}
	schema_table_put(t);
	pthread_mutex_lock(&c->lock);
	generation = c->generation;
	major = c->major;
	pthread_mutex_unlock(&c->lock);
	rc = read_table(client, &key, &major, &t, error);
	if (rc)
		return rc == -ENOENT ? error_set(error, rc, "%s has no table %s.%s", client_node(client),
						 name->keyspace, name->table)
				     : rc;
	pthread_mutex_lock(&c->lock);
	c->major = major;
	if (c->generation == generation)
		keep(c, t);
	pthread_mutex_unlock(&c->lock);
	*ret = t;
	return 0;
}
