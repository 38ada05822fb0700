/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/ledger_format.h"

#include <errno.h>
#include <jansson.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const types[LEDGER_TYPES] = {"head", "begin", "gap", "summary"};
static const char *const kinds[LEDGER_KINDS] = {"unmirrored", "bypass", "opaque", "down", "off", "forced", "lost"};

#define TRAILER ",\"crc\":\"01234567\"}" /* 18 bytes behind the checked ones */
#define TRAILER_SIZE (sizeof(TRAILER) - 1)

const char *ledger_kind_name(enum ledger_kind kind)
{
	return (unsigned)kind < LEDGER_KINDS ? kinds[kind] : "unknown";
}

static int name_index(const char *const *names, int count, const char *name)
{
	for (int i = 0; name && i < count; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

int ledger_kind_from_name(const char *name)
{
	return name_index(kinds, LEDGER_KINDS, name);
}

static void trailer_write(char *to, const char *text, size_t size)
{
	char buffer[TRAILER_SIZE + 1];

	snprintf(buffer, sizeof(buffer), ",\"crc\":\"%08x\"}", libdeflate_crc32(0, text, size));
	memcpy(to, buffer, TRAILER_SIZE);
}

/* ---- writing */

static void put_text(json_t *o, const char *name, const char *value, size_t size)
{
	char plain[sizeof(((struct ledger_record *)0)->text)];
	size_t i;

	for (i = 0; i < size - 1 && value[i]; i++)
		plain[i] = value[i] >= 0x20 && value[i] < 0x7f ? value[i] : '?';
	plain[i] = 0;
	if (i)
		json_object_set_new(o, name, json_string(plain));
}

static void put_number(json_t *o, const char *name, uint64_t value)
{
	if (value)
		json_object_set_new(o, name, json_integer((json_int_t)value));
}

#define PUT_TEXT(o, r, field) put_text(o, #field, (r)->field, sizeof((r)->field))

int ledger_encode(const struct ledger_record *r, char *line)
{
	json_t *o = json_object();
	size_t size;
	int n;

	json_object_set_new(o, "type", json_string(types[r->type]));
	put_number(o, "version", r->version);
	if (r->type != LEDGER_HEAD) {
		json_object_set_new(o, "kind", json_string(kinds[r->kind]));
		json_object_set_new(o, "missing", json_string(r->missing_on_origin ? "origin" : "target"));
	}
	PUT_TEXT(o, r, cause);
	PUT_TEXT(o, r, keyspace);
	PUT_TEXT(o, r, table);
	put_number(o, "count", r->count);
	put_number(o, "from", (uint64_t)r->from_us);
	put_number(o, "to", (uint64_t)r->to_us);
	if (r->approximate)
		json_object_set_new(o, "approximate", json_true());
	put_number(o, "id", r->id);
	put_number(o, "key", r->key);
	put_number(o, "pid", r->pid);
	put_number(o, "cgroup", r->cgroup);
	put_number(o, "netns", r->netns);
	put_number(o, "cookie", r->cookie);
	put_number(o, "backlog", r->backlog);
	PUT_TEXT(o, r, program);
	PUT_TEXT(o, r, client);
	PUT_TEXT(o, r, destination);
	PUT_TEXT(o, r, who);
	PUT_TEXT(o, r, text);
	size = json_dumpb(o, line, LEDGER_LINE_MAX, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(o);
	/* All texts together, each character escaped, stay below it: only memory can be short. */
	if (size < 2 || size + TRAILER_SIZE > LEDGER_LINE_MAX)
		return -ENOMEM;
	size--; /* the brace moves behind the checksum */
	trailer_write(line + size, line, size);
	n = (int)(size + TRAILER_SIZE);
	line[n++] = '\n';
	return n;
}

/* ---- reading */

static bool get_text(const json_t *o, const char *name, char *to, size_t size)
{
	const json_t *v = json_object_get(o, name);

	to[0] = 0;
	if (!v)
		return true;
	if (!json_is_string(v) || json_string_length(v) >= size)
		return false;
	memcpy(to, json_string_value(v), json_string_length(v) + 1);
	/* What was written is plain; what is not was made by somebody else, and ends up on terminals. */
	for (; *to; to++)
		if (*to < 0x20 || *to >= 0x7f)
			return false;
	return true;
}

static bool get_number(const json_t *o, const char *name, uint64_t *to)
{
	const json_t *v = json_object_get(o, name);

	*to = 0;
	if (!v)
		return true;
	if (!json_is_integer(v))
		return false;
	*to = (uint64_t)json_integer_value(v); /* cookies use all 64 bits */
	return true;
}

static bool get_time(const json_t *o, const char *name, int64_t *to)
{
	uint64_t v;

	if (!get_number(o, name, &v) || v > INT64_MAX)
		return false;
	*to = (int64_t)v;
	return true;
}

#define GET_TEXT(o, r, field) get_text(o, #field, (r)->field, sizeof((r)->field))

static int decode_object(const json_t *o, struct ledger_record *r)
{
	const char *type = json_string_value(json_object_get(o, "type")), *kind = json_string_value(json_object_get(o, "kind"));
	const char *missing = json_string_value(json_object_get(o, "missing"));
	uint64_t version, pid;
	int t = name_index(types, LEDGER_TYPES, type), k = ledger_kind_from_name(kind);

	if (!type)
		return -EBADMSG;
	if (t < 0 || (t != LEDGER_HEAD && kind && k < 0))
		return -EPROTONOSUPPORT;
	r->type = (enum ledger_type)t;
	if (t != LEDGER_HEAD) {
		if (k < 0 || !missing)
			return -EBADMSG;
		r->kind = (enum ledger_kind)k;
		r->missing_on_origin = !strcmp(missing, "origin");
	}
	r->approximate = json_is_true(json_object_get(o, "approximate"));
	if (!get_number(o, "version", &version) || version > UINT32_MAX || !get_number(o, "pid", &pid) || pid > UINT32_MAX ||
	    !get_time(o, "from", &r->from_us) || !get_time(o, "to", &r->to_us) || !get_number(o, "count", &r->count) ||
	    !get_number(o, "id", &r->id) || !get_number(o, "key", &r->key) || !get_number(o, "cgroup", &r->cgroup) ||
	    !get_number(o, "netns", &r->netns) || !get_number(o, "cookie", &r->cookie) ||
	    !get_number(o, "backlog", &r->backlog) || !GET_TEXT(o, r, cause) || !GET_TEXT(o, r, keyspace) ||
	    !GET_TEXT(o, r, table) || !GET_TEXT(o, r, program) || !GET_TEXT(o, r, client) || !GET_TEXT(o, r, destination) ||
	    !GET_TEXT(o, r, who) || !GET_TEXT(o, r, text))
		return -EBADMSG;
	r->version = (uint32_t)version;
	r->pid = (uint32_t)pid;
	return 0;
}

int ledger_decode(struct span line, struct ledger_record *ret)
{
	const char *text = (const char *)line.data;
	struct ledger_record r = {0};
	char trailer[TRAILER_SIZE];
	size_t size = line.size;
	json_t *o;
	int code;

	if (size && text[size - 1] == '\n')
		size--;
	if (size < TRAILER_SIZE + 2 || size >= LEDGER_LINE_MAX || text[0] != '{')
		return -EBADMSG;
	size -= TRAILER_SIZE;
	trailer_write(trailer, text, size);
	if (memcmp(trailer, text + size, TRAILER_SIZE) != 0)
		return -EBADMSG;
	o = json_loadb(text, size + TRAILER_SIZE, JSON_REJECT_DUPLICATES, NULL);
	if (!o)
		return -EBADMSG;
	code = json_is_object(o) ? decode_object(o, &r) : -EBADMSG;
	json_decref(o);
	if (code == 0)
		*ret = r;
	return code;
}
