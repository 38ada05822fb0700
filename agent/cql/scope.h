/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tables are mirrored, and how the target calls them.
 *
 *   include:  shop, crm.people     only these (nothing = all); a keyspace means all of its tables
 *   exclude:  shop.audit           and of them not these
 *   rename:   shop=store           the target's name of a keyspace
 *             shop.orders=sales    the target's name of a table, in whatever its keyspace is called there
 *
 * Names are the origin's, spelled as its schema spells them, without quotes. Pure; filled once, read by all threads.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "cql/statement.h"

struct scope_rename {
	struct table_name from; /* empty table: a keyspace */
	char to[CQL_NAME_MAX + 1];
};

struct scope {
	struct table_name *include, *exclude; /* empty table: all of the keyspace */
	struct scope_rename *rename;
	unsigned include_count, exclude_count, rename_count;
};

/* One entry of the lists above. 0 or −EINVAL. */
int scope_read_pattern(const char *text, struct table_name *ret);
int scope_read_rename(const char *text, struct scope_rename *ret);

/* Whether anything is left out; whether anything is called otherwise. NULL is a scope with everything in it. */
static inline bool scope_filters(const struct scope *s)
{
	return s && s->include_count + s->exclude_count;
}

static inline bool scope_renames(const struct scope *s)
{
	return s && s->rename_count;
}

/* Whether the table is mirrored. Empty table: whether something of the keyspace is. */
bool scope_has(const struct scope *s, const struct table_name *name);

enum scope_part { SCOPE_ALL, SCOPE_SOME, SCOPE_NONE };

/*
 * How much of a write is mirrored; `keyspace` is that of names without one. What a statement that was not understood may touch
 * counts as mirrored. A schema change is mirrored when all that it names is.
 */
enum scope_part scope_of(const struct scope *s, const struct statement *statement, const char *keyspace);

/* Changes the origin's name into the target's. false: they are the same. Empty table: a keyspace. */
bool scope_translate(const struct scope *s, struct table_name *name);

/* What the origin calls a keyspace of the target. */
const char *scope_origin_keyspace(const struct scope *s, const char *keyspace);
