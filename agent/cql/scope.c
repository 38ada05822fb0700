/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of names, see scope.h. They are short, and what is asked often is remembered by the caller. */
#include "cql/scope.h"

#include <errno.h>
#include <string.h>

/* Cassandra allows letters, digits and _ in names of keyspaces and tables. */
static size_t name_size(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
}

static bool take_name(const char **text, char to[CQL_NAME_MAX + 1])
{
	size_t n = name_size(*text);

	if (n == 0 || n > CQL_NAME_MAX)
		return false;
	memcpy(to, *text, n);
	to[n] = 0;
	*text += n;
	return true;
}

int scope_read_pattern(const char *text, struct table_name *ret)
{
	struct table_name name = {0};

	if (!take_name(&text, name.keyspace))
		return -EINVAL;
	if (strcmp(text, ".*") == 0) {
		text += 2;
	} else if (*text == '.') {
		text++;
		if (!take_name(&text, name.table))
			return -EINVAL;
	}
	if (*text)
		return -EINVAL;
	*ret = name;
	return 0;
}

int scope_read_rename(const char *text, struct scope_rename *ret)
{
	struct scope_rename r = {0};

	if (!take_name(&text, r.from.keyspace))
		return -EINVAL;
	if (*text == '.') {
		text++;
		if (!take_name(&text, r.from.table))
			return -EINVAL;
	}
	if (*text++ != '=' || !take_name(&text, r.to) || *text)
		return -EINVAL;
	*ret = r;
	return 0;
}

static bool matches(const struct table_name *pattern, const struct table_name *name)
{
	return strcmp(pattern->keyspace, name->keyspace) == 0 && (!pattern->table[0] || strcmp(pattern->table, name->table) == 0);
}

bool scope_has(const struct scope *s, const struct table_name *name)
{
	bool in = !s || s->include_count == 0;

	for (unsigned i = 0; !in && i < s->include_count; i++)
		in = matches(&s->include[i], name) || (!name->table[0] && strcmp(s->include[i].keyspace, name->keyspace) == 0);
	for (unsigned i = 0; in && s && i < s->exclude_count; i++)
		in = !matches(&s->exclude[i], name);
	return in;
}

enum scope_part scope_of(const struct scope *s, const struct statement *st, const char *keyspace)
{
	struct table_name nameless = {0};
	const struct table_name *tables = st->table_count ? st->tables : &nameless;
	unsigned count = st->table_count ? st->table_count : 1, out = 0;

	if (!scope_filters(s) || st->kind == STATEMENT_UNKNOWN)
		return SCOPE_ALL;
	for (unsigned i = 0; i < count; i++) {
		struct table_name name = tables[i];

		if (!name.keyspace[0])
			memcpy(name.keyspace, keyspace, strnlen(keyspace, CQL_NAME_MAX) + 1);
		name.keyspace[CQL_NAME_MAX] = 0;
		out += name.keyspace[0] && !scope_has(s, &name);
	}
	if (out == 0)
		return SCOPE_ALL;
	if (st->kind == STATEMENT_SCHEMA || (out == count && !(st->flags & STATEMENT_TABLES_MORE)))
		return SCOPE_NONE;
	return SCOPE_SOME;
}

static const struct scope_rename *rename_of(const struct scope *s, const char *keyspace, const char *table)
{
	for (unsigned i = 0; i < s->rename_count; i++)
		if (strcmp(s->rename[i].from.keyspace, keyspace) == 0 && strcmp(s->rename[i].from.table, table) == 0)
			return &s->rename[i];
	return NULL;
}

bool scope_translate(const struct scope *s, struct table_name *name)
{
	const struct scope_rename *table, *keyspace;

	if (!scope_renames(s))
		return false;
	table = name->table[0] ? rename_of(s, name->keyspace, name->table) : NULL;
	keyspace = rename_of(s, name->keyspace, "");
	if (table)
		memcpy(name->table, table->to, sizeof(table->to));
	if (keyspace)
		memcpy(name->keyspace, keyspace->to, sizeof(keyspace->to));
	return table || keyspace;
}

const char *scope_origin_keyspace(const struct scope *s, const char *keyspace)
{
	for (unsigned i = 0; s && i < s->rename_count; i++)
		if (!s->rename[i].from.table[0] && strcmp(s->rename[i].to, keyspace) == 0)
			return s->rename[i].from.keyspace;
	return keyspace;
}
