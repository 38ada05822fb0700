// SPDX-License-Identifier: Apache-2.0
/* Input: a line of gaps from the agent before this one. */
#include <string.h>

#include "control/handover_gaps.h"
#include "fuzz/holds.h"

static unsigned found;

static void on_count(void *context, const struct gap_count *c)
{
	found++;
	HOLDS(c->cause >= GAP_LWT && c->cause < GAP_CAUSES && c->count > 0 && c->missing < SIDES);
	HOLDS(strlen(c->keyspace) <= CQL_NAME_MAX && strlen(c->table) <= CQL_NAME_MAX);
	if (context)
		json_array_append_new(context, handover_gap_count(c));
}

static void on_session(void *context, const struct gap_session *s)
{
	sa_family_t client = s->client.sa.sa_family, destination = s->destination.sa.sa_family;

	found++;
	HOLDS(s->missing < SIDES);
	HOLDS(client == AF_UNSPEC || client == AF_INET || client == AF_INET6);
	HOLDS(destination == AF_UNSPEC || destination == AF_INET || destination == AF_INET6);
	if (context)
		json_array_append_new(context, handover_gap_session(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *array = json_loadb((const char *)data, size, 0, NULL), *again = json_array();
	unsigned first;

	found = 0;
	HOLDS(handover_gaps_read(array, on_count, on_session, again) + found == json_array_size(array));
	first = found;
	found = 0;
	/* What was understood and is written again is understood again. */
	HOLDS(json_array_size(again) == first && handover_gaps_read(again, on_count, on_session, NULL) == 0 && found == first);
	json_decref(again);
	json_decref(array);
	return 0;
}
