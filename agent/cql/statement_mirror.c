/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from a statement that was read: whether it can be replayed on another cluster, which of the
 * tables about the cluster it asks for, and what the types of its bind variables decide afterwards.
 */
#include "cql/functions.h"
#include "cql/statement.h"

static bool begins(struct span name, const char *prefix)
{
	size_t n = strlen(prefix);

	return name.size >= n && !memcmp(name.data, prefix, n);
}

/*
 * Cassandra names an anonymous bind variable after what receives it: "x" for x = x + ?, "key(m)" and "idx(l)"
 * for an element's term, "in(k)" for IN ?. Its type is that of the receiver, and only counters, lists, sets
 * and maps take arithmetic. Several undecided terms share the flags, so the worst type that occurs anywhere
 * decides.
 */
void statement_refine(struct statement *s, struct columns binds)
{
	bool counter = false, list = false, other_collection = false, index = false, key = false;
	struct column c;
	int more;

	while ((more = column_next(&binds, &c)) > 0) {
		if (begins(c.name, "in("))
			continue;
		counter |= c.type == TYPE_COUNTER;
		list |= c.type == TYPE_LIST;
		other_collection |= c.type == TYPE_SET || c.type == TYPE_MAP;
		index |= begins(c.name, "idx(");
		key |= begins(c.name, "key(");
	}
	if (more < 0)
		return;
	if (list)
		s->flags |= STATEMENT_LIST_VALUE;
	if (s->flags & STATEMENT_ARITHMETIC) {
		bool typed = !(s->flags & STATEMENT_UNTYPED);
		if (counter)
			s->flags |= STATEMENT_COUNTER;
		else if (list)
			s->flags |= STATEMENT_LIST;
		/* A table with a counter has nothing else to add to. */
		if (counter || (typed && (list || other_collection)))
			s->flags &= ~(uint32_t)STATEMENT_ARITHMETIC;
	}
	if (s->flags & STATEMENT_ELEMENT) {
		if (index)
			s->flags |= STATEMENT_LIST;
		if (!(s->flags & STATEMENT_UNTYPED) && (index || key))
			s->flags &= ~(uint32_t)STATEMENT_ELEMENT;
	}
	if (!(s->flags & (STATEMENT_ARITHMETIC | STATEMENT_ELEMENT)))
		s->flags &= ~(uint32_t)STATEMENT_UNTYPED;
}

/* The order is that of how much it forbids: what may not be repeated at all comes before what needs a row
 * sync. */
enum unmirrored statement_unmirrored(const struct statement *s)
{
	static const uint32_t undecided = STATEMENT_ARITHMETIC | STATEMENT_ELEMENT, list = STATEMENT_LIST | STATEMENT_LIST_VALUE;

	switch (s->kind) {
	case STATEMENT_UNKNOWN:
		return UNMIRRORED_UNCLASSIFIED;
	case STATEMENT_ROLE:
		return UNMIRRORED_POLICY;
	case STATEMENT_INSERT:
	case STATEMENT_UPDATE:
	case STATEMENT_DELETE:
	case STATEMENT_BATCH:
		break;
	default:
		return MIRRORABLE;
	}
	if (s->flags & STATEMENT_CONDITIONAL)
		return UNMIRRORED_LWT;
	if (s->flags & STATEMENT_COUNTER)
		return UNMIRRORED_COUNTER;
	/* Before what is undecided: where a list is certain there are no counters. What changes a list is sent, and then nothing but its lists
	 * is compared: a function's value beside it would stay another. */
	if (s->flags & STATEMENT_FUNCTION && s->flags & list)
		return UNMIRRORED_FUNCTION;
	if (s->flags & STATEMENT_LIST || (s->flags & STATEMENT_LIST_VALUE && s->flags & undecided))
		return UNMIRRORED_LIST;
	if (s->flags & undecided)
		return UNMIRRORED_UNCLASSIFIED;
	if (s->flags & STATEMENT_FUNCTION)
		return UNMIRRORED_FUNCTION;
	/*
	 * Elements have keys that each coordinator invents, and the tombstone for the old ones is a microsecond older than the write:
	 * the same write again leaves [1,2,1,2] (seen on 5.0.9).
	 */
	return s->flags & STATEMENT_LIST_VALUE ? MIRRORABLE_ONCE : MIRRORABLE;
}

enum unmirrored statement_unmirrored_bound(const struct statement *s, struct span values)
{
	enum unmirrored why = statement_unmirrored(s);
	bool plain = why == MIRRORABLE || why == MIRRORABLE_ONCE || why == UNMIRRORED_LIST;

	/* Only what would otherwise be sent has to be looked at. */
	if (!(s->flags & STATEMENT_JSON) || !statement_writes(s) || !plain || !values.size)
		return why;
	if (json_has_now(values))
		return UNMIRRORED_FUNCTION;
	return why == MIRRORABLE && memchr(values.data, '[', values.size) ? MIRRORABLE_ONCE : why;
}

enum topology statement_topology(const struct statement *s)
{
	const struct table_name *t = &s->tables[0];

	if (s->kind != STATEMENT_SELECT || !s->table_count || strcmp(t->keyspace, "system"))
		return TOPOLOGY_NONE;
	if (!strcmp(t->table, "local"))
		return TOPOLOGY_LOCAL;
	if (!strcmp(t->table, "peers"))
		return TOPOLOGY_PEERS;
	if (!strcmp(t->table, "peers_v2"))
		return TOPOLOGY_PEERS_V2;
	return TOPOLOGY_NONE;
}

const char *statement_kind_name(enum statement_kind kind)
{
	static const char *const names[] = {
	    [STATEMENT_UNKNOWN] = "unknown",   [STATEMENT_SELECT] = "select", [STATEMENT_INSERT] = "insert",
	    [STATEMENT_UPDATE] = "update",     [STATEMENT_DELETE] = "delete", [STATEMENT_BATCH] = "batch",
	    [STATEMENT_TRUNCATE] = "truncate", [STATEMENT_USE] = "use",	      [STATEMENT_SCHEMA] = "schema",
	    [STATEMENT_ROLE] = "role",
	};

	return (unsigned)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}
