/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One attempt at a job:
 *
 *   schemas ─▶ read the side that is written ─▶ read the truth ─▶ differences ─▶ write ─▶ [look again]
 *
 * In that order: see rowsync_diff.c. A write that one replica has confirmed need not be visible at
 * LOCAL_QUORUM yet. So before something that is younger than SETTLE_US is deleted or overruled the truth is
 * read once more at ALL; where that cannot be had the job waits until the thing is old.
 *
 * What is written under the horizon, because no stamp tells the right time, is looked at afterwards; if
 * something newer than the horizon is in its way the job comes back after SETTLE_US, with the time of its
 * first look.
 */
#include <errno.h>

#include "base/clock.h"
#include "mirror/rowsync_priv.h"

#define TIMEOUT_MS 5000
#define PASSES_MAX 4
#define MOMENT_NS 500000000u
#define TABLES_MAX 64u
/* Cells of one row while they are compared, at up to 14 bytes for each byte read. */
#define DIFF_BYTES_MAX (256u << 20)

struct table_work {
	struct table_name name, other; /* as `from` and the other side call it */
	struct schema_table *schema[SIDES];
	struct row_set rows[SIDES];
};

struct attempt {
	struct sync_shared *shared;
	struct worker_thread *worker;
	struct sync *y;
	enum side to;
	struct table_work tables[TABLES_MAX];
	unsigned table_count;
	struct table_name *at; /* where we are, for the caller */
	int64_t begun_us;      /* wall clock before the first read */
	struct error *error;
};

/* ------------------------------------------------------------- connections */

static int connect_side(struct attempt *a, enum side side)
{
	const struct relay_options *relay = a->shared->options->relay;
	const struct cluster *c = &relay->cluster[side];
	struct worker_thread *w = a->worker;
	struct endpoint to;

	if (w->client[side] && !client_broken(w->client[side]))
		return 0;
	client_close(w->client[side]);
	w->client[side] = NULL;
	if (!c->node_count)
		return error_set(a->error, -ENOTCONN, "no node of the %s is known", side_name(side));
	cluster_endpoint(c, w->node[side]++ % c->node_count, &to);
	/* Whatever it was: another node, or later. */
	return client_open(&w->client[side], c, &to, relay->mark, TIMEOUT_MS, a->error) < 0 ? -ENOTCONN : 0;
}

/* ------------------------------------------------------------- tables */

static bool name_equal(const struct table_name *a, const struct table_name *b)
{
	return !strcmp(a->keyspace, b->keyspace) && !strcmp(a->table, b->table);
}

/* Whether the other side has every column in the same form. */
static int compare_tables(struct attempt *a, const struct table_work *t)
{
	const struct schema_table *from = t->schema[a->y->from], *to = t->schema[a->to];
	unsigned k = 0;

	if (from->partition != to->partition || from->clustering != to->clustering)
		return error_set(a->error, -ENOENT, "the key of %s differs", from->quoted);
	for (unsigned i = 0; i < from->count; i++) {
		const struct schema_column *c = &from->columns[i];

		/* Both are in one order; the other side may have more of the later kinds. */
		while (k < to->count &&
		       (to->columns[k].kind < c->kind ||
			(to->columns[k].kind == c->kind && strcmp(to->columns[k].name, c->name))))
			k++;
		if (k == to->count || to->columns[k].kind != c->kind || to->columns[k].shape != c->shape)
			return error_set(a->error, -ENOENT,
					 "%s: column %s is not there on the %s in that form", from->quoted,
					 c->quoted, side_name(a->to));
		k++;
	}
	return 0;
}

static int open_table(struct attempt *a, const struct table_name *name, struct table_work **ret)
{
	const struct rowsync_options *o = a->shared->options;
	struct table_work *t = a->tables;
	int rc;

	*a->at = *name;
	for (; t < a->tables + a->table_count; t++) {
		if (name_equal(&t->name, name)) {
			*ret = t;
			return 0;
		}
	}
	if (a->table_count == TABLES_MAX)
		return -E2BIG;
	a->table_count++;
	*t = (struct table_work){.name = *name, .other = *name};
	if (o->translate && !o->translate(o->context, a->to, &t->other))
		return error_set(a->error, -ENOENT, "%s.%s does not belong on the %s", name->keyspace,
				 name->table, side_name(a->to));
	for (enum side side = ORIGIN; side < SIDES; side++) {
		rc = schema_cache_get(a->shared->schema[side], a->worker->client[side],
				      side == a->to ? &t->other : name, &t->schema[side], a->error);
		if (rc)
			return rc;
	}
	if (t->schema[ORIGIN]->counters || t->schema[TARGET]->counters)
		return -ENOTSUP;
	*ret = t;
	return compare_tables(a, t);
}

/* ------------------------------------------------------------- plan */

static struct table_name full_name(const struct rowkey_statement *s, const char *keyspace)
{
	struct table_name name = s->name;

	if (!name.keyspace[0])
		memcpy(name.keyspace, keyspace, CQL_NAME_MAX);
	return name;
}

static bool passed_over(const struct sync_shared *s, const struct table_name *name)
{
	return s->options->passes_over && s->options->passes_over(s->options->context, name);
}

static void plan_finish(struct sync *y)
{
	for (unsigned i = 0; i < y->key_count; i++)
		rowkey_done(&y->keys[i]);
	y->key_count = 0;
	y->planned = true;
}

int sync_plan_cached(struct sync_shared *s, struct sync *y)
{
	struct selection **tail = &y->selections;
	int rc = 0;

	for (unsigned i = 0; i < y->key_count && !rc; i++) {
		for (struct rowkey_statement *k = y->keys[i].statements; k && !rc; k = k->next) {
			struct table_name name = full_name(k, y->keyspaces[i]);

			if (passed_over(s, &name))
				continue;
			struct schema_table *t = schema_cache_peek(s->schema[y->from], &name);

			rc = t ? plan_statement(&y->arena, k, &name, t, &tail) : -EAGAIN;
			schema_table_put(t);
		}
	}
	if (rc)
		y->selections = NULL;
	else
		plan_finish(y);
	return rc;
}

static int plan(struct attempt *a)
{
	struct selection **tail = &a->y->selections;
	struct table_work *t;
	int rc = 0;

	for (unsigned i = 0; i < a->y->key_count && !rc; i++) {
		for (struct rowkey_statement *k = a->y->keys[i].statements; k && !rc; k = k->next) {
			struct table_name name = full_name(k, a->y->keyspaces[i]);

			if (passed_over(a->shared, &name))
				continue;
			rc = open_table(a, &name, &t);
			if (!rc)
				rc = plan_statement(&a->y->arena, k, &name, t->schema[a->y->from], &tail);
		}
	}
	if (rc)
		a->y->selections = NULL;
	else
		plan_finish(a->y);
	return rc;
}

/* ------------------------------------------------------------- reading */

static int read_side(struct attempt *a, enum side side, uint16_t consistency)
{
	struct table_work *t;
	int rc = 0;

	for (unsigned i = 0; i < a->table_count; i++)
		rows_clear(&a->tables[i].rows[side]);
	for (const struct selection *s = a->y->selections; s && !rc; s = s->next) {
		if (atomic_load_explicit(&a->shared->stopping, memory_order_relaxed))
			return -ECANCELED;
		rc = open_table(a, &s->name, &t);
		if (!rc)
			rc = rows_read(&t->rows[side], a->worker->client[side], s, t->schema[a->y->from],
				       t->schema[side], consistency, a->error);
	}
	for (unsigned i = 0; i < a->table_count; i++)
		rows_sort(&a->tables[i].rows[side], side == a->y->from);
	return rc;
}

/* ------------------------------------------------------------- comparing */

/* One table's rows side by side; both are sorted. */
static void diff_table(struct attempt *a, struct table_work *t, struct diff *d, struct write_list *writes)
{
	const struct row_set *from = &t->rows[a->y->from], *to = &t->rows[a->to];
	size_t i = 0, k = 0;

	d->table = t->schema[a->y->from];
	while ((i < from->count || k < to->count) && !d->error) {
		const struct row *x = i < from->count ? &from->rows[i] : NULL;
		const struct row *y = k < to->count ? &to->rows[k] : NULL;

		if (x && y) {
			int order = rows_order(x, y);

			if (order < 0)
				y = NULL;
			else if (order > 0)
				x = NULL;
		}
		i += x != NULL;
		k += y != NULL;
		diff_row(d, x, y);
		write_changes(writes, d->table, t->schema[a->to]->quoted, x ? x : y, d->changes, d->count,
			      clock_wall_us() / 1000000);
		atomic_fetch_add_explicit(&a->shared->rows, 1, memory_order_relaxed);
	}
}

static int diff_all(struct attempt *a, struct diff *d, struct write_list *writes)
{
	d->used_horizon = d->is_young = d->guesses_row = d->verify = false;
	write_clear(writes);
	for (unsigned i = 0; i < a->table_count && !d->error; i++)
		diff_table(a, &a->tables[i], d, writes);
	if (d->error)
		return d->error;
	return writes->failed ? -ENOMEM : 0;
}

/* ------------------------------------------------------------- one pass */

static int64_t settled_us(const struct sync *y)
{
	return y->first_seen_us ? y->first_seen_us + SETTLE_US : INT64_MAX;
}

/* Comes back when all that was on its way at the first look has arrived. */
static int wait_settled(struct attempt *a, uint64_t *ret_wait_ns)
{
	if (!a->y->first_seen_us)
		a->y->first_seen_us = a->begun_us;
	int64_t wait = settled_us(a->y) - clock_wall_us();

	*ret_wait_ns = (uint64_t)(wait > 0 ? wait : 1) * 1000u;
	return -EAGAIN;
}

/* Clients of the other side write there what `from` does not know. What was read before they began stays as it was: every write is older. */
static bool overtaken(const struct attempt *a)
{
	return atomic_load(&a->shared->primary) == (int)a->to;
}

static int write_all(struct attempt *a, const struct write_list *writes)
{
	bool split = false;
	int rc;

	if (overtaken(a))
		return -ESHUTDOWN;
	rc = write_send(writes, a->worker->client[a->to], a->y->atomic, &split, a->error);

	if (split)
		atomic_fetch_add_explicit(&a->shared->splits, 1, memory_order_relaxed);
	if (!rc) {
		atomic_fetch_add_explicit(&a->shared->repaired, writes->repaired, memory_order_relaxed);
		atomic_fetch_add_explicit(&a->shared->deleted, writes->deleted, memory_order_relaxed);
	}
	return rc;
}

static bool has_lists(const struct schema_table *t)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->columns[i].shape == SHAPE_LIST)
			return true;
	return false;
}

/* What looked like a list in a request may have been none. */
static bool may_differ(const struct attempt *a)
{
	for (unsigned i = 0; i < a->table_count; i++)
		if (!a->y->lists_only || has_lists(a->tables[i].schema[a->y->from]))
			return true;
	return false;
}

/* Returns 1 when another look is wanted. */
static int pass(struct attempt *a, unsigned number, struct diff *d, struct write_list *writes,
		uint64_t *ret_wait_ns)
{
	struct sync *y = a->y;
	int rc;

	a->begun_us = clock_wall_us();
	rc = read_side(a, a->to, CL_LOCAL_QUORUM);
	if (!rc)
		rc = read_side(a, y->from, y->serial ? CL_SERIAL : CL_LOCAL_QUORUM);
	if (rc)
		return rc;
	bool late = a->begun_us >= settled_us(y);

	d->horizon = late ? y->first_seen_us : a->begun_us - SETTLE_US;
	d->young = late ? INT64_MAX : a->begun_us - SETTLE_US;
	rc = diff_all(a, d, writes);
	if (!rc && d->is_young) {
		rc = read_side(a, y->from, CL_ALL);
		if (rc == -EAGAIN || rc == -ETIME || rc == -EREMOTEIO)
			return wait_settled(a, ret_wait_ns);
		d->young = INT64_MAX;
		if (!rc)
			rc = diff_all(a, d, writes);
	}
	if (rc || !writes->count)
		return rc;
	/* Its deletion may just be on its way. */
	if (d->guesses_row && !y->first_seen_us) {
		y->first_seen_us = a->begun_us;
		*ret_wait_ns = MOMENT_NS;
		return -EAGAIN;
	}
	if (d->used_horizon) {
		if (late && y->tried_late)
			return -ESTALE;
		if (number && !late)
			return wait_settled(a, ret_wait_ns);
		y->tried_late |= late;
		if (!y->first_seen_us)
			y->first_seen_us = a->begun_us;
	}
	rc = write_all(a, writes);
	return rc ? rc : d->verify;
}

int sync_attempt(struct sync_shared *s, struct worker_thread *w, struct sync *y, uint64_t *ret_wait_ns,
		 struct table_name *ret_table, struct error *error)
{
	struct attempt *a = calloc(1, sizeof(*a));
	struct diff d = {.arena.max = DIFF_BYTES_MAX};
	struct write_list writes = {0};
	struct table_work *t;
	int rc;

	*ret_wait_ns = 0;
	if (!a)
		return -ENOMEM;
	a->shared = s;
	a->worker = w;
	a->y = y;
	a->to = side_other(y->from);
	a->at = ret_table;
	a->error = error;
	rc = overtaken(a) ? -ESHUTDOWN : connect_side(a, ORIGIN);
	if (!rc)
		rc = connect_side(a, TARGET);
	if (!rc && !y->planned)
		rc = plan(a);
	for (const struct selection *x = y->selections; x && !rc; x = x->next)
		rc = open_table(a, &x->name, &t);
	d.lists_only = y->lists_only;
	d.deletes = y->deletes;
	for (unsigned number = 0; !rc && may_differ(a) && number <= PASSES_MAX; number++) {
		rc = number == PASSES_MAX ? -EBUSY : pass(a, number, &d, &writes, ret_wait_ns);
		if (rc <= 0)
			break;
		rc = 0;
	}
	if (rc == -EINVAL && !y->schema_again) {
		y->schema_again = true;
		schema_cache_forget(s->schema[ORIGIN], NULL);
		schema_cache_forget(s->schema[TARGET], NULL);
		*ret_wait_ns = 1;
		rc = -EAGAIN;
	}
	for (unsigned i = 0; i < a->table_count; i++) {
		for (enum side side = ORIGIN; side < SIDES; side++) {
			schema_table_put(a->tables[i].schema[side]);
			rows_clear(&a->tables[i].rows[side]);
		}
	}
	write_clear(&writes);
	diff_done(&d);
	free(a);
	return rc;
}
