/* SPDX-License-Identifier: Apache-2.0 */
#include "control/scope_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct table_name *patterns(const struct config_list *list, unsigned *ret_count)
{
	struct table_name *all = calloc(list->count + 1, sizeof(*all));

	for (size_t i = 0; all && i < list->count; i++)
		if (scope_read_pattern(list->item[i], &all[*ret_count]) == 0)
			++*ret_count; /* each was checked when it was read */
	return all;
}

static int check_renames(const struct config_list *list, const struct scope *s, struct error *error)
{
	for (unsigned i = 0; i < s->rename_count; i++) {
		for (unsigned j = 0; j < i; j++) {
			const struct scope_rename *a = &s->rename[j], *b = &s->rename[i];
			bool tables = a->from.table[0] != 0;
			bool same = strcmp(a->from.keyspace, b->from.keyspace) == 0;

			if (same && strcmp(a->from.table, b->from.table) == 0)
				return error_set(error, -EINVAL, "mirror.rename: %.100s and %.100s give one name twice", list->item[j], list->item[i]);
			if (tables == (b->from.table[0] != 0) && (same || !tables) && strcmp(a->to, b->to) == 0)
				return error_set(error, -EINVAL, "mirror.rename: %.100s and %.100s would become one on the target", list->item[j],
						 list->item[i]);
		}
	}
	return 0;
}

int scope_from_config(const struct config *c, struct scope *ret, struct error *error)
{
	const struct config_list *renames = &c->mirror.rename;
	struct scope s = {0};
	int r;

	s.include = patterns(&c->mirror.include, &s.include_count);
	s.exclude = patterns(&c->mirror.exclude, &s.exclude_count);
	s.rename = calloc(renames->count + 1, sizeof(*s.rename));
	for (size_t i = 0; s.rename && i < renames->count; i++)
		if (scope_read_rename(renames->item[i], &s.rename[s.rename_count]) == 0)
			s.rename_count++;
	r = s.include && s.exclude && s.rename ? check_renames(renames, &s, error) : error_set(error, -ENOMEM, "out of memory");
	if (r < 0)
		scope_done(&s);
	else
		*ret = s;
	return r;
}

void scope_done(struct scope *s)
{
	free(s->include);
	free(s->exclude);
	free(s->rename);
	*s = (struct scope){0};
}
