/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the migration service: see update.h for their form. */
#include "migrate/update.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[UPDATE_TYPES] = {"TableUpdate", "Start",   "Complete",
						     "Shutdown",    "Success", "Failure"};

static const char *const step_names[TABLE_STEPS] = {"Errored",
						    "Waiting",
						    "MigratingSchema",
						    "MigratingSchemaComplete",
						    "WaitingToUnload",
						    "UnloadingData",
						    "UnloadingDataComplete",
						    "LoadingData",
						    "LoadingDataComplete"};

const char *update_type_name(enum update_type type)
{
	return type < UPDATE_TYPES ? type_names[type] : "unknown";
}

const char *table_step_name(enum table_step step)
{
	return step < TABLE_STEPS ? step_names[step] : "unknown";
}

int update_frame(const uint8_t *data, size_t size, struct span *ret_body)
{
	uint32_t length;

	if (size < UPDATE_HEADER_SIZE)
		return UPDATE_INCOMPLETE;
	length = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
	if (length == 0 || length > UPDATE_MAX)
		return UPDATE_MALFORMED;
	if (size - UPDATE_HEADER_SIZE < length)
		return UPDATE_INCOMPLETE;
	*ret_body = span_of(data + UPDATE_HEADER_SIZE, length);
	return (int)(UPDATE_HEADER_SIZE + length);
}

/* ---- base64, RFC 4648 section 4, with padding: Go's StdEncoding */

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* `to` has room for size / 4 * 3 bytes. The number of bytes, or −EINVAL. */
static ssize_t base64_decode(const char *text, size_t size, uint8_t *to)
{
	size_t n = 0;

	if (size % 4)
		return -EINVAL;
	for (size_t i = 0; i < size; i += 4) {
		unsigned pad = i + 4 < size ? 0 : text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
		uint32_t group = 0;

		for (unsigned k = 0; k < 4; k++) {
			int value = k >= 4 - pad ? 0 : base64_value(text[i + k]);

			if (value < 0)
				return -EINVAL;
			group = group << 6 | (uint32_t)value;
		}
		to[n++] = (uint8_t)(group >> 16);
		if (pad < 2)
			to[n++] = (uint8_t)(group >> 8);
		if (pad < 1)
			to[n++] = (uint8_t)group;
	}
	return (ssize_t)n;
}

/* malloc'ed, with a NUL; NULL when there is no memory. */
static char *base64_encode(const uint8_t *data, size_t size)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((size + 2) / 3 * 4 + 1), *to = text;

	if (!text)
		return NULL;
	for (size_t i = 0; i < size; i += 3) {
		size_t left = size - i;
		uint32_t group = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
				 (left > 2 ? data[i + 2] : 0);

		*to++ = digits[group >> 18];
		*to++ = digits[group >> 12 & 63];
		*to++ = left > 1 ? digits[group >> 6 & 63] : '=';
		*to++ = left > 2 ? digits[group & 63] : '=';
	}
	*to = 0;
	return text;
}

/* ---- JSON */

/* Quotes what a peer wrote: into logs and answers goes printable ASCII only. `to` has `size` bytes. */
static const char *printable(const char *text, char *to, size_t size)
{
	size_t n = 0;

	for (; *text && n + 1 < size; text++)
		to[n++] = *text >= ' ' && *text <= '~' ? *text : '?';
	to[n] = 0;
	return to;
}

/* An upper bound of the values in a text, found before a parser makes an object of each of them. */
static bool has_few_values(struct span text)
{
	bool string = false, escaped = false;
	size_t values = 0;

	for (size_t i = 0; i < text.size; i++) {
		uint8_t c = text.data[i];

		if (string) {
			string = escaped || c != '"';
			escaped = !escaped && c == '\\';
			continue;
		}
		string = c == '"';
		values += c == ',' || c == ':' || c == '[' || c == '{';
	}
	return values <= UPDATE_VALUES_MAX;
}

static int object_parse(struct span text, const char *what, json_t **ret, struct error *error)
{
	char quoted[200];
	json_error_t why;
	json_t *root;

	if (!has_few_values(text))
		return error_set(error, -EINVAL, "%s has more than %u JSON values", what, UPDATE_VALUES_MAX);
	root = json_loadb((const char *)text.data, text.size, 0, &why);
	if (!root)
		return error_set(error, -EINVAL, "%s is not JSON: %s", what,
				 printable(why.text, quoted, sizeof(quoted)));
	if (!json_is_object(root)) {
		json_decref(root);
		return error_set(error, -EINVAL, "%s is not a JSON object", what);
	}
	*ret = root;
	return 0;
}

static bool uuid_is_valid(const char *text, size_t size)
{
	if (size != UPDATE_ID_SIZE - 1)
		return false;
	for (size_t i = 0; i < size; i++) {
		char c = text[i];
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? c != '-'
			 : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
			return false;
	}
	return true;
}

static int data_parse(const json_t *data, struct update *u, struct error *error)
{
	size_t size = json_string_length(data);
	ssize_t n;

	if (!data || json_is_null(data) || (json_is_string(data) && size == 0))
		return 0;
	if (!json_is_string(data))
		return error_set(error, -EINVAL, "Data is neither a base64 text nor null");
	u->data = malloc(size / 4 * 3 + 1);
	if (!u->data)
		return error_set(error, -ENOMEM, "out of memory");
	n = base64_decode(json_string_value(data), size, u->data);
	if (n < 0) {
		free(u->data);
		u->data = NULL;
		return error_set(error, -EINVAL, "Data is not base64 (RFC 4648, with padding)");
	}
	u->data_size = (size_t)n;
	return 0;
}

int update_parse(struct span body, struct update *ret, char *ret_id, struct error *error)
{
	struct update u = {0};
	const json_t *id, *type, *text;
	json_t *root = NULL;
	int r;

	memcpy(ret_id, UPDATE_ID_NONE, UPDATE_ID_SIZE);
	r = object_parse(body, "the message", &root, error);
	if (r < 0)
		return r;
	id = json_object_get(root, "ID");
	type = json_object_get(root, "Type");
	text = json_object_get(root, "Error");
	if (!json_is_string(id) || !uuid_is_valid(json_string_value(id), json_string_length(id))) {
		r = error_set(error, -EINVAL, "ID is not a UUID");
		goto out;
	}
	memcpy(u.id, json_string_value(id), UPDATE_ID_SIZE);
	memcpy(ret_id, u.id, UPDATE_ID_SIZE);
	if (!json_is_integer(type)) {
		r = error_set(error, -EINVAL, "Type is not a number");
		goto out;
	}
	if (json_integer_value(type) < 0 || json_integer_value(type) >= UPDATE_TYPES) {
		r = error_set(error, -EINVAL,
			      "Type %" JSON_INTEGER_FORMAT
			      " is unknown; known are 0 (TableUpdate) to 5 (Failure)",
			      json_integer_value(type));
		goto out;
	}
	u.type = (enum update_type)json_integer_value(type);
	/* An error type in place of the text becomes {} in Go's hands: nothing that could be read. */
	if (json_is_string(text))
		printable(json_string_value(text), u.error, sizeof(u.error));
	r = data_parse(json_object_get(root, "Data"), &u, error);
	if (r == 0)
		*ret = u;
out:
	json_decref(root);
	return r;
}

void update_done(struct update *u)
{
	free(u->data);
	*u = (struct update){0};
}

int update_write(const struct update *u, uint8_t **ret_bytes, size_t *ret_size)
{
	char error[UPDATE_ERROR_SIZE];
	char *data = NULL, *text = NULL;
	json_t *root = NULL;
	uint8_t *bytes;
	size_t size;
	int r = -ENOMEM;

	if (u->data) {
		data = base64_encode(u->data, u->data_size);
		if (!data)
			goto out;
	}
	root = json_pack("{s:s, s:i, s:s?, s:s}", "ID", u->id, "Type", (int)u->type, "Data", data, "Error",
			 printable(u->error, error, sizeof(error)));
	text = root ? json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	if (!text)
		goto out;
	size = strlen(text);
	if (size > UPDATE_MAX) {
		r = -EMSGSIZE;
		goto out;
	}
	bytes = malloc(UPDATE_HEADER_SIZE + size);
	if (!bytes)
		goto out;
	for (unsigned i = 0; i < UPDATE_HEADER_SIZE; i++)
		bytes[i] = (uint8_t)(size >> (24 - 8 * i));
	memcpy(bytes + UPDATE_HEADER_SIZE, text, size);
	*ret_bytes = bytes;
	*ret_size = UPDATE_HEADER_SIZE + size;
	r = 0;
out:
	json_decref(root);
	free(text);
	free(data);
	return r;
}

/* ---- tables */

int table_write(const struct migration_table *t, uint8_t **ret_data, size_t *ret_size)
{
	json_t *o = json_pack("{s:s, s:s, s:i, s:n, s:I, s:{}}", "Keyspace", t->keyspace, "Name", t->name, "Step", (int)t->step, "Error",
			      "Priority", (json_int_t)t->priority, "Lock");
	char *text = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;

	json_decref(o);
	if (!text)
		return -ENOMEM;
	*ret_data = (uint8_t *)text;
	*ret_size = strlen(text);
	return 0;
}

/* Cassandra's rule for names of keyspaces and tables, quoted or not: word characters. */
static bool name_take(const char *name, char *to)
{
	size_t size = name ? strlen(name) : 0;

	if (size == 0 || size >= UPDATE_NAME_SIZE)
		return false;
	for (size_t i = 0; i < size; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
		      (name[i] >= '0' && name[i] <= '9') || name[i] == '_'))
			return false;
	memcpy(to, name, size + 1);
	return true;
}

static bool step_take(const json_t *step, enum table_step *to)
{
	if (!json_is_integer(step) || json_integer_value(step) < 0 || json_integer_value(step) >= TABLE_STEPS)
		return false;
	*to = (enum table_step)json_integer_value(step);
	return true;
}

int table_parse(struct span data, struct migration_table *ret, struct error *error)
{
	struct migration_table t = {0};
	json_t *root = NULL;
	int r;

	if (data.size == 0)
		return error_set(error, -EINVAL, "TableUpdate without a migration.Table in Data");
	r = object_parse(data, "Data (migration.Table)", &root, error);
	if (r < 0)
		return r;
	if (!name_take(json_string_value(json_object_get(root, "Keyspace")), t.keyspace))
		r = error_set(error, -EINVAL, "Keyspace of migration.Table is not the name of a keyspace");
	else if (!name_take(json_string_value(json_object_get(root, "Name")), t.name))
		r = error_set(error, -EINVAL, "Name of migration.Table is not the name of a table");
	else if (!step_take(json_object_get(root, "Step"), &t.step))
		r = error_set(error, -EINVAL,
			      "Step of %s.%s is not one of 0 (Errored) to %d (LoadingDataComplete)",
			      t.keyspace, t.name, TABLE_LOADING_DATA_COMPLETE);
	t.priority = json_integer_value(json_object_get(root, "Priority"));
	json_decref(root);
	if (r == 0)
		*ret = t;
	return r;
}

static int by_name(const void *a, const void *b)
{
	const struct migration_table *x = a, *y = b;
	int order = strcmp(x->keyspace, y->keyspace);

	return order ? order : strcmp(x->name, y->name);
}

static void keyspace_take(struct migration_status *s, const char *keyspace, json_t *tables)
{
	const char *name;
	json_t *table;

	json_object_foreach(tables, name, table)
	{
		struct migration_table *t = &s->tables[s->count];

		*t = (struct migration_table){0};
		if (name_take(keyspace, t->keyspace) && name_take(name, t->name) && json_is_object(table) &&
		    step_take(json_object_get(table, "Step"), &t->step)) {
			t->priority = json_integer_value(json_object_get(table, "Priority"));
			s->count++;
		} else {
			s->skipped++;
		}
	}
}

int status_parse(struct span data, struct migration_status *ret, struct error *error)
{
	struct migration_status s = {0};
	json_t *root = NULL, *keyspaces, *tables;
	const char *keyspace;
	size_t count = 0;
	int r;

	if (data.size == 0) {
		*ret = s;
		return 0;
	}
	r = object_parse(data, "Data (migration.Status)", &root, error);
	if (r < 0)
		return r;
	keyspaces = json_object_get(root, "Tables");
	if (keyspaces && !json_is_object(keyspaces) && !json_is_null(keyspaces)) {
		r = error_set(error, -EINVAL, "Tables of migration.Status is not a map of keyspaces");
		goto out;
	}
	json_object_foreach(keyspaces, keyspace, tables) count += json_object_size(tables);
	if (count > UPDATE_TABLES_MAX) {
		r = error_set(error, -EINVAL, "migration.Status has %zu tables, more than %u", count,
			      UPDATE_TABLES_MAX);
		goto out;
	}
	s.tables = calloc(count + 1, sizeof(*s.tables));
	if (!s.tables) {
		r = error_set(error, -ENOMEM, "out of memory");
		goto out;
	}
	json_object_foreach(keyspaces, keyspace, tables)
	{
		if (json_is_object(tables))
			keyspace_take(&s, keyspace, tables);
		else
			s.skipped += !json_is_null(tables);
	}
	qsort(s.tables, s.count, sizeof(*s.tables), by_name);
	*ret = s;
out:
	json_decref(root);
	return r;
}

void status_done(struct migration_status *s)
{
	free(s->tables);
	*s = (struct migration_status){0};
}

const struct migration_table *status_find(const struct migration_status *s, const char *keyspace,
					  const char *name)
{
	struct migration_table key = {0};

	if (!s->count || !name_take(keyspace, key.keyspace) || !name_take(name, key.name))
		return NULL;
	return bsearch(&key, s->tables, s->count, sizeof(key), by_name);
}
