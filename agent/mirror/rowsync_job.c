/* SPDX-License-Identifier: Apache-2.0 */
/* A request becomes a job: its keys, what it keeps others from, and by what it is known to be the same. */
#include <errno.h>

#include "mirror/rowsync_queue.h"

void job_free(struct job *j)
{
	for (unsigned i = 0; i < j->sync.key_count; i++)
		rowkey_done(&j->sync.keys[i]);
	while (j->waiters) {
		struct waiter *w = j->waiters;

		j->waiters = w->next;
		free(w);
	}
	free(j->fingerprint.data);
	arena_done(&j->sync.arena);
	free(j);
}

static void fingerprint_clause(struct text *t, const struct clause *c)
{
	text_value(t, c->text);
	text_value(t, c->values);
}

/* What two jobs have in common that do the same. Whether the read is SERIAL is no part of it. */
void job_fingerprint(struct job *j)
{
	if (!j->sync.planned || j->fingerprint.size)
		return;
	text_value_int(&j->fingerprint, j->sync.from);
	for (const struct selection *s = j->sync.selections; s; s = s->next) {
		text_value(&j->fingerprint, span_text(s->name.keyspace));
		text_value(&j->fingerprint, span_text(s->name.table));
		fingerprint_clause(&j->fingerprint, &s->partition);
		fingerprint_clause(&j->fingerprint, &s->range);
		text_value_int(&j->fingerprint, s->rows | s->marker << 1);
	}
	if (j->fingerprint.failed)
		j->fingerprint.size = 0;
}

static void claim(struct sync *y, const struct table_name *name, uint64_t hash)
{
	struct claim *c = &y->claims[y->claim_count];

	*c = (struct claim){.hash = hash};
	snprintf(c->name.keyspace, sizeof(c->name.keyspace), "%s", name->keyspace);
	snprintf(c->name.table, sizeof(c->name.table), "%s", name->table);
	y->claim_count++;
}

/* Before the selections are known: whole tables. */
static int make_claims(struct sync *y)
{
	unsigned n = 0;

	for (const struct selection *s = y->selections; s; s = s->next)
		n++;
	for (unsigned i = 0; i < y->key_count; i++)
		n += y->keys[i].count;
	y->claims = arena_zero(&y->arena, (n + 1) * sizeof(*y->claims));
	if (!y->claims)
		return -ENOMEM;
	for (const struct selection *s = y->selections; s; s = s->next)
		claim(y, &s->name, s->hash);
	for (unsigned i = 0; i < y->key_count; i++) {
		for (struct rowkey_statement *k = y->keys[i].statements; k; k = k->next) {
			struct table_name name = k->name;

			if (!name.keyspace[0])
				snprintf(name.keyspace, sizeof(name.keyspace), "%s", y->keyspaces[i]);
			claim(y, &name, 0);
		}
	}
	return 0;
}

static int read_children(struct sync *y, const struct rowsync_job *job)
{
	unsigned n = job->child_count, statements = 0;

	y->keys = arena_zero(&y->arena, (n + 1) * sizeof(*y->keys));
	y->keyspaces = arena_zero(&y->arena, (n + 1) * sizeof(*y->keyspaces));
	if (!y->keys || !y->keyspaces)
		return -ENOMEM;
	for (; y->key_count < n; y->key_count++) {
		const struct rowsync_child *c = &job->children[y->key_count];
		struct rowkey_values values = {
		    .values = c->values, .count = c->values_count, .names = c->names};
		int rc = rowkey_read(c->text, values, &y->keys[y->key_count]);

		if (rc)
			return rc;
		snprintf((char *)y->keyspaces[y->key_count], sizeof(*y->keyspaces), "%s",
			 c->keyspace ? c->keyspace : "");
		statements += y->keys[y->key_count].count;
		for (struct rowkey_statement *s = y->keys[y->key_count].statements; s; s = s->next) {
			y->deletes |= s->kind == STATEMENT_DELETE;
			if (!s->name.keyspace[0] && (!c->keyspace || !*c->keyspace)) {
				y->key_count++;
				return -ENOKEY;
			}
		}
	}
	y->atomic = statements > 1;
	return statements ? 0 : -ENOKEY;
}

static size_t size_of(const struct job *j)
{
	size_t size = sizeof(*j) + j->sync.arena.used + j->fingerprint.room;

	for (unsigned i = 0; i < j->sync.key_count; i++)
		size += j->sync.keys[i].arena.used;
	return size;
}

int job_new(struct rowsync *rs, const struct rowsync_job *request, struct job **ret)
{
	struct job *j = calloc(1, sizeof(*j));
	struct waiter *waiter = calloc(1, sizeof(*waiter));
	int rc = -ENOMEM;

	if (!j || !waiter) {
		free(waiter);
		free(j);
		return -ENOMEM;
	}
	*waiter = (struct waiter){.done = request->done, .context = request->context};
	j->waiters = waiter;
	j->waiter_count = 1;
	j->sync.from = request->from;
	j->sync.serial = request->serial;
	j->sync.lists_only = request->lists_only;
	j->due_ns = j->first_due_ns = request->not_before_ns;
	rc = read_children(&j->sync, request);
	if (!rc) {
		rc = sync_plan_cached(&rs->shared, &j->sync);
		if (rc == -EAGAIN || rc == -ENOTSUP)
			rc = 0; /* told by the attempt, which looks at the schema once more */
	}
	if (!rc)
		rc = make_claims(&j->sync);
	if (rc) {
		job_free(j);
		return rc;
	}
	job_fingerprint(j);
	j->bytes = size_of(j);
	*ret = j;
	return 0;
}
