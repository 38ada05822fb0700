/* SPDX-License-Identifier: Apache-2.0 */
#include "control/handover_gaps.h"

#include <arpa/inet.h>
#include <string.h>

static const char *other_side(bool origin)
{
	return side_name(origin ? ORIGIN : TARGET);
}

json_t *handover_gap_count(const struct gap_count *c)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "cause", gap_cause_name(c->cause), "missing", side_name(c->missing),
			 "keyspace", c->keyspace, "table", c->table, "count", (json_int_t)c->count, "first", (json_int_t)c->first_us,
			 "last", (json_int_t)c->last_us);
}

static json_t *opaque(const char *what, bool origin, uint64_t key, uint64_t cookie, int64_t at, const char *client, const char *destination)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s}", "opaque", what, "missing", other_side(origin), "key", (json_int_t)key,
			 "cookie", (json_int_t)cookie, "at", (json_int_t)at, "client", client, "destination", destination);
}

json_t *handover_gap_session(const struct gap_session *s)
{
	char client[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];

	return opaque(s->begin ? "begin" : "end", s->missing == ORIGIN, s->key, s->cookie, s->at_us, addr_format(&s->client, client),
		      addr_format(&s->destination, destination));
}

json_t *handover_gap_span(const struct ledger_record *r)
{
	return opaque("begin", r->missing_on_origin, r->key, r->cookie, r->from_us, r->client, r->destination);
}

static bool read_name(const json_t *o, const char *member, char to[CQL_NAME_MAX + 1])
{
	const char *text = json_string_value(json_object_get(o, member));

	if (!text || strlen(text) > CQL_NAME_MAX)
		return false;
	memcpy(to, text, strlen(text) + 1);
	return true;
}

static bool read_side(const json_t *o, enum side *ret)
{
	const char *text = json_string_value(json_object_get(o, "missing"));

	if (!text || (strcmp(text, "origin") != 0 && strcmp(text, "target") != 0))
		return false;
	*ret = strcmp(text, "origin") == 0 ? ORIGIN : TARGET;
	return true;
}

static bool read_count(const json_t *o, struct gap_count *c)
{
	const char *cause = json_string_value(json_object_get(o, "cause"));

	*c = (struct gap_count){.count = (uint64_t)json_integer_value(json_object_get(o, "count")),
				.first_us = json_integer_value(json_object_get(o, "first")),
				.last_us = json_integer_value(json_object_get(o, "last"))};
	for (int i = GAP_LWT; cause && i < GAP_CAUSES; i++)
		if (strcmp(gap_cause_name(i), cause) == 0)
			c->cause = i;
	if (cause && !c->cause) /* of a newer agent: nobody is to lose it */
		c->cause = GAP_UNCLASSIFIED;
	return cause && c->count > 0 && read_side(o, &c->missing) && read_name(o, "keyspace", c->keyspace) && read_name(o, "table", c->table);
}

/* "10.0.0.1:4000", "[fd00::7]:9042". Anything else leaves it empty: a name must not be looked up, and the gap counts all the same. */
static void read_address(const json_t *o, const char *member, struct addr *ret)
{
	const char *text = json_string_value(json_object_get(o, member)), *end;
	bool v6 = text && text[0] == '[';
	char host[ADDR_TEXT_MAX];
	uint8_t raw[16];
	struct error error;

	if (!text || !(end = strchr(text, v6 ? ']' : ':')) || (size_t)(end - text) >= sizeof(host))
		return;
	memcpy(host, text + v6, (size_t)(end - text) - v6);
	host[(size_t)(end - text) - v6] = 0;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, host, raw) == 1 && addr_resolve(text, 0, ret, &error) < 0)
		*ret = (struct addr){0};
}

static bool read_session(const json_t *o, struct gap_session *s)
{
	const char *what = json_string_value(json_object_get(o, "opaque"));

	*s = (struct gap_session){.key = (uint64_t)json_integer_value(json_object_get(o, "key")),
				  .cookie = (uint64_t)json_integer_value(json_object_get(o, "cookie")),
				  .at_us = json_integer_value(json_object_get(o, "at"))};
	if (!what || !read_side(o, &s->missing))
		return false;
	s->begin = strcmp(what, "begin") == 0;
	read_address(o, "client", &s->client);
	read_address(o, "destination", &s->destination);
	return true;
}

unsigned handover_gaps_read(const json_t *array, void (*count)(void *context, const struct gap_count *c),
			    void (*session)(void *context, const struct gap_session *s), void *context)
{
	unsigned unknown = 0;
	struct gap_session s;
	struct gap_count c;
	size_t i;
	json_t *o;

	json_array_foreach(array, i, o)
	{
		if (json_object_get(o, "opaque") && read_session(o, &s))
			session(context, &s);
		else if (json_object_get(o, "cause") && read_count(o, &c))
			count(context, &c);
		else
			unknown++;
	}
	return unknown;
}
