/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which connection takes the next record: the one with the fewest in flight. A prepared write whose partition key is bound goes to a
 * replica of its partition instead (replicas.h), which applies it itself: any other node would only pass it on. That is worth some
 * waiting, not much: a replica that falls behind the others is left alone until it has caught up. Schema changes go to one node.
 */
#include <string.h>

#include "cql/request.h"
#include "cql/scope.h"
#include "cql/token.h"
#include "mirror/dispatch_priv.h"
#include "mirror/record.h"
#include "mirror/replicas.h"
#include "mirror/target.h"

/* So many more in flight than elsewhere a replica may have: a quarter of the window. Another node would send it the write all the same. */
#define REPLICA_SLACK (DISPATCH_WINDOW / 4)

static struct target *least_busy(const struct dispatch *d, uint64_t nodes)
{
	struct target *best = NULL;

	/* Beginning where the last one ended. */
	for (unsigned i = 0; i < d->target_count; i++) {
		struct target *t = d->targets[(d->next_target + i) % d->target_count];

		if (target_ready(t) && (!nodes || target_among(t, nodes)) && (!best || target_inflight(t) < target_inflight(best)))
			best = t;
	}
	return best;
}

struct target *dispatch_choose(struct dispatch *d)
{
	return least_busy(d, 0);
}

/* The contact points that hold what the record writes, a bit each; 0 = nobody knows. */
static uint64_t holders_of(const struct dispatch *d, const struct record *r)
{
	const struct scope *scope = d->mirror->relay->options.scope;
	const struct prepared_remote *told;
	const struct prepared *p;
	struct table_name table;
	struct request q;
	int64_t token;

	if (r->opcode != OP_EXECUTE || r->kind != RECORD_WRITE || !r->slot)
		return 0;
	p = r->slot->prepared;
	told = prepared_on(p, d->side);
	if (!told || !told->key_count)
		told = prepared_on(p, side_other(d->side)); /* the same text has the same key */
	if (!told || !told->key_count || p->statement.table_count != 1)
		return 0;
	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0 || (q.params.flags & QUERY_NAMES) ||
	    !token_of_values(q.params.values, told->key, told->key_count, &token))
		return 0;
	table = p->statement.tables[0];
	if (!table.keyspace[0])
		memcpy(table.keyspace, p->keyspace, sizeof(table.keyspace));
	if (d->side == TARGET)
		scope_translate(scope, &table);
	return replicas_holders(d->replicas, table.keyspace, token);
}

/* One node for the schema changes of all workers: there the next one sees what the one before it made, without waiting for agreement. */
static struct target *schema_node(struct dispatch *d, struct target *otherwise)
{
	struct target *t = NULL;

	for (unsigned node = 0; node < 64 && !t; node++)
		t = least_busy(d, 1ull << node);
	return t ? t : otherwise;
}

struct target *dispatch_choose_for(struct dispatch *d, const struct record *r, bool *ret_holds)
{
	struct target *best = dispatch_choose(d), *near;
	uint64_t holders;

	*ret_holds = false;
	if (best && r->statement == STATEMENT_SCHEMA)
		return schema_node(d, best);
	if (!d->replicas || !best)
		return best;
	holders = holders_of(d, r);
	near = holders ? least_busy(d, holders) : NULL;
	if (!near || target_inflight(near) > target_inflight(best) + REPLICA_SLACK)
		return best;
	*ret_holds = true;
	return near;
}
