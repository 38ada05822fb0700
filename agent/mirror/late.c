/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/late.h"

#include <string.h>

#include "cql/request.h"
#include "mirror/rowsync.h"

static bool statement_expires(const struct dispatch *d, const struct statement *s, const char *keyspace)
{
	if (s->flags & (STATEMENT_TTL | STATEMENT_TABLES_MORE))
		return true;
	if (s->kind == STATEMENT_DELETE)
		return false;
	for (unsigned i = 0; i < s->table_count; i++) {
		struct table_name name = s->tables[i];

		if (!name.keyspace[0])
			memcpy(name.keyspace, keyspace, strnlen(keyspace, CQL_NAME_MAX));
		if (rowsync_default_ttl(d->mirror->rowsync, d->side, &name) != 0)
			return true;
	}
	return false;
}

static bool text_expires(const struct dispatch *d, struct span text, const char *keyspace)
{
	struct statement s;

	statement_read(text, &s);
	return statement_expires(d, &s, keyspace);
}

static bool batch_expires(const struct dispatch *d, const struct request *q, const char *keyspace)
{
	struct span cursor = q->batch_children;
	struct batch_child child;
	bool expires = false;

	while (!expires && batch_next(q->version, &cursor, &child) > 0) {
		struct prepared_slot *slot = child.prepared ? prepared_find(d->worker->prepared, child.text) : NULL;

		expires = slot ? statement_expires(d, &slot->prepared->statement, slot->prepared->keyspace)
			       : child.prepared || text_expires(d, child.text, keyspace);
	}
	return expires;
}

static bool expires(const struct dispatch *d, const struct record *r)
{
	char own[CQL_NAME_MAX + 1];
	const char *keyspace;
	struct request q;

	if (r->slot)
		return statement_expires(d, &r->slot->prepared->statement, r->slot->prepared->keyspace);
	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return false; /* it cannot be sent, and will be told so */
	keyspace = request_keyspace(&q, r->keyspace, own);
	return r->opcode == OP_BATCH ? batch_expires(d, &q, keyspace) : text_expires(d, q.text, keyspace);
}

/* 0: nothing is connected yet, and nobody knows. */
static bool counts_from_execution(const struct dispatch *d)
{
	uint8_t version = atomic_load_explicit(&d->mirror->version[d->side], memory_order_relaxed);

	return version && version < 5;
}

bool late_turn(struct dispatch *d, struct record *r)
{
	const struct mirror_options *o = &d->mirror->options;
	/* The difference of the two holds also where the write is older than this machine's boot. */
	int64_t age_ns = (int64_t)(d->worker->turn_ns - r->acknowledged_ns);
	uint8_t was = r->entry;

	if ((was != ENTRY_WRITE && !r->once) || !o->late_ns || age_ns <= (int64_t)o->late_ns || !counts_from_execution(d) ||
	    !d->mirror->rowsync || !expires(d, r))
		return false;
	r->entry = ENTRY_ROWS;
	/* Row sync would bring what has to wait for the table's load. */
	if (mirror_holds(d->mirror, d->worker, r)) {
		r->entry = was;
		return false;
	}
	metric_add(d->worker->metrics, METRIC_MIRROR_LATE, 1);
	r->once = false;
	return true;
}
