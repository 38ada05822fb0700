// SPDX-License-Identifier: Apache-2.0
/* Input: what a migration service sends on one connection. */
#include <string.h>

#include "fuzz/holds.h"
#include "migrate/update.h"

/* Written again it reads the same. */
static void check_again(const struct update *u)
{
	struct update v;
	struct span body;
	struct error error;
	char id[UPDATE_ID_SIZE];
	uint8_t *bytes;
	size_t size;

	HOLDS(strlen(u->id) == UPDATE_ID_SIZE - 1 && u->type < UPDATE_TYPES &&
	      (u->data != NULL || u->data_size == 0));
	HOLDS(update_write(u, &bytes, &size) == 0);
	HOLDS(update_frame(bytes, size, &body) == (int)size);
	HOLDS(update_parse(body, &v, id, &error) == 0);
	HOLDS(!strcmp(u->id, v.id) && !strcmp(u->id, id) && u->type == v.type && !strcmp(u->error, v.error));
	HOLDS(u->data_size == v.data_size && (!u->data_size || !memcmp(u->data, v.data, u->data_size)));
	update_done(&v);
	free(bytes);
}

static void check_data(struct span data)
{
	struct migration_status s;
	struct migration_table t;
	struct error error;

	if (table_parse(data, &t, &error) == 0)
		HOLDS(t.keyspace[0] && t.name[0] && t.step < TABLE_STEPS);
	if (status_parse(data, &s, &error) < 0)
		return;
	for (size_t i = 0; i < s.count; i++)
		HOLDS(status_find(&s, s.tables[i].keyspace, s.tables[i].name) == &s.tables[i]);
	status_done(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char id[UPDATE_ID_SIZE];
	struct error error;
	struct span body;
	struct update u;

	for (int n; (n = update_frame(data, size, &body)) > 0; data += n, size -= (size_t)n) {
		if (update_parse(body, &u, id, &error) == 0) {
			check_again(&u);
			check_data(span_of(u.data, u.data_size));
			update_done(&u);
		}
		check_data(body); /* also without base64, which a fuzzer seldom gets right */
	}
	return 0;
}
