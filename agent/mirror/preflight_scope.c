/* SPDX-License-Identifier: Apache-2.0 */
/* The origin's schema as far as it is mirrored, under the target's names. */
#include <string.h>

#include "mirror/preflight_priv.h"

static bool of_table(enum fact_kind kind)
{
	return kind == FACT_TABLE || kind == FACT_COLUMN || kind == FACT_VIEW || kind == FACT_INDEX || kind == FACT_TRIGGER;
}

bool preflight_into_scope(struct preflight *p, enum fact_kind kind, char keyspace[PREFLIGHT_NAME_MAX], char table[PREFLIGHT_NAME_MAX])
{
	const struct scope *s = p->scope;
	struct table_name name = {0};

	if (!s || strlen(keyspace) > CQL_NAME_MAX || strlen(table) > CQL_NAME_MAX)
		return true;
	memcpy(name.keyspace, keyspace, strlen(keyspace));
	if (of_table(kind))
		memcpy(name.table, table, strlen(table));
	if (!scope_has(s, &name)) {
		if (kind == FACT_TABLE)
			roster_add(&p->left_out, "%s.%s", keyspace, table);
		return false;
	}
	if (scope_translate(s, &name) && (kind == FACT_KEYSPACE || (kind == FACT_TABLE && strcmp(name.table, table) != 0)))
		roster_add(&p->renamed, "%s%s%s is %s", keyspace, *table ? "." : "", table,
			   *table ? name.table : name.keyspace);
	memcpy(keyspace, name.keyspace, sizeof(name.keyspace));
	if (of_table(kind))
		memcpy(table, name.table, sizeof(name.table));
	return true;
}
