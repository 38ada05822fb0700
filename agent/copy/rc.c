// SPDX-License-Identifier: Apache-2.0
#include "copy/rc.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int add(struct rc *rc, const char *section, const char *key, size_t key_size, const char *value,
	       size_t value_size)
{
	struct rc_entry *grown = realloc(rc->entries, (rc->count + 1) * sizeof(*grown)), *e;

	if (!grown)
		return -ENOMEM;
	rc->entries = grown;
	e = &grown[rc->count++];
	*e = (struct rc_entry){strdup(section), strndup(key, key_size), strndup(value, value_size)};
	return e->section && e->key && e->value ? 0 : -ENOMEM;
}

static void trim(const char **begin, const char **end)
{
	while (*begin < *end && isspace((unsigned char)**begin))
		++*begin;
	while (*end > *begin && isspace((unsigned char)(*end)[-1]))
		--*end;
}

/* A line that goes on with the value before it. */
static int append(struct rc_entry *e, const char *text, size_t size)
{
	size_t old = strlen(e->value);
	char *grown = realloc(e->value, old + size + 2);

	if (!grown)
		return -ENOMEM;
	grown[old] = '\n';
	memcpy(grown + old + 1, text, size);
	grown[old + 1 + size] = 0;
	e->value = grown;
	return 0;
}

static int parse_line(struct rc *rc, char section[128], bool *goes_on, const char *line, const char *end)
{
	bool indented = line < end && isspace((unsigned char)*line);
	const char *separator, *key_end, *value;

	trim(&line, &end);
	if (line == end || *line == '#' || *line == ';')
		return 0;
	if (indented && *goes_on)
		return append(&rc->entries[rc->count - 1], line, (size_t)(end - line));
	*goes_on = false;
	if (*line == '[') {
		const char *close = memchr(line, ']', (size_t)(end - line));

		if (!close || close - line - 1 >= 128)
			return -EINVAL;
		memcpy(section, line + 1, (size_t)(close - line - 1));
		section[close - line - 1] = 0;
		return 0;
	}
	for (separator = line; separator < end && *separator != '=' && *separator != ':'; separator++)
		;
	if (!*section || separator == line || separator == end)
		return -EINVAL;
	key_end = separator;
	value = separator + 1;
	trim(&line, &key_end);
	trim(&value, &end);
	*goes_on = true;
	return add(rc, section, line, (size_t)(key_end - line), value, (size_t)(end - value));
}

int rc_parse(struct rc *ret, const char *name, const char *text, size_t size, struct error *error)
{
	const char *at = text, *end = text + size;
	struct rc rc = {0};
	char section[128] = "";
	bool goes_on = false;

	for (unsigned number = 1; at < end; number++) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		int code;

		if (!line_end)
			line_end = end;
		code = parse_line(&rc, section, &goes_on, at, line_end);
		if (code < 0) {
			rc_done(&rc);
			if (code == -ENOMEM)
				return error_set(error, code, "out of memory");
			return error_set(error, code,
					 "%s:%u: neither [section] nor \"key = value\" in a section", name,
					 number);
		}
		at = line_end + 1;
	}
	*ret = rc;
	return 0;
}

int rc_read(struct rc *ret, const char *path, struct error *error)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	int code;

	if (!file)
		return error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
	text = malloc(RC_FILE_MAX);
	if (!text) {
		code = error_set(error, -ENOMEM, "out of memory");
		goto out;
	}
	size = fread(text, 1, RC_FILE_MAX, file);
	if (ferror(file))
		code = error_set(error, -EIO, "cannot read %s", path);
	else if (size == RC_FILE_MAX)
		code = error_set(error, -EFBIG, "%s is larger than 1 MiB", path);
	else
		code = rc_parse(ret, path, text, size, error);
out:
	free(text);
	fclose(file);
	return code;
}

void rc_done(struct rc *rc)
{
	for (size_t i = 0; i < rc->count; i++) {
		free(rc->entries[i].section);
		free(rc->entries[i].key);
		free(rc->entries[i].value);
	}
	free(rc->entries);
	*rc = (struct rc){0};
}

const char *rc_get(const struct rc *rc, const char *section, const char *key)
{
	for (size_t i = rc->count; i-- > 0;)
		if (!strcmp(rc->entries[i].section, section) && !strcasecmp(rc->entries[i].key, key))
			return rc->entries[i].value;
	return NULL;
}

bool rc_expand(const char *path, char *to, size_t size)
{
	const char *home = getenv("HOME");

	if (path[0] == '~' && path[1] == '/' && home)
		return (size_t)snprintf(to, size, "%s%s", home, path + 1) < size;
	return (size_t)snprintf(to, size, "%s", path) < size;
}
