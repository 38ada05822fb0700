// SPDX-License-Identifier: Apache-2.0
/* Loading: the order of the sources, values into their places, password files. config_keys.c holds the table.
 */
#include "control/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSWORD_MAX 1024 /* bytes; a SASL PLAIN token is far shorter */

bool config_number(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text) || __builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return false;
	}
	*ret_value = value;
	return true;
}

static bool bytes_parse(const char *text, uint64_t *ret_value)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
	char digits[24];
	size_t n = strspn(text, "0123456789");
	uint64_t value;

	if (n == 0 || n >= sizeof(digits))
		return false;
	memcpy(digits, text, n);
	digits[n] = 0;
	if (!config_number(digits, &value))
		return false;
	for (text += n; *text == ' ';)
		text++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text, units[i].unit) != 0)
			continue;
		if (value > UINT64_MAX >> units[i].shift)
			return false;
		*ret_value = value << units[i].shift;
		return true;
	}
	return false;
}

static bool bool_parse(const char *text, bool *ret_value)
{
	if (!strcasecmp(text, "true") || !strcmp(text, "1"))
		*ret_value = true;
	else if (!strcasecmp(text, "false") || !strcmp(text, "0"))
		*ret_value = false;
	else
		return false;
	return true;
}

int config_key_find(const char *path, size_t size)
{
	for (size_t i = 0; i < config_key_count; i++)
		if (strlen(config_keys[i].path) == size && !memcmp(config_keys[i].path, path, size))
			return (int)i;
	return -1;
}

static void bytes_print(char *text, size_t size, uint64_t value)
{
	static const char *const units[] = {"", "KiB", "MiB", "GiB"};
	unsigned u = 0;

	while (u < 3 && value && value % 1024 == 0) {
		value /= 1024;
		u++;
	}
	snprintf(text, size, "%llu%s", (unsigned long long)value, units[u]);
}

void config_key_allowed(const struct config_key *key, char *text, size_t size)
{
	char low[32], high[32];

	if (key->allowed) {
		snprintf(text, size, "%s", key->allowed);
	} else if (key->type == CONFIG_ENUM) {
		size_t at = 0;

		text[0] = 0;
		for (const struct config_name *n = key->names; n->name && at < size; n++)
			at += (size_t)snprintf(text + at, size - at, "%s%s",
					       n == key->names ? ""
					       : n[1].name     ? ", "
							       : " or ",
					       *n->name ? n->name : "empty");
	} else if (key->type == CONFIG_BYTES) {
		bytes_print(low, sizeof(low), key->min);
		bytes_print(high, sizeof(high), key->max);
		snprintf(text, size, "%s to %s", low, high);
	} else {
		snprintf(text, size, "%llu to %llu", (unsigned long long)key->min,
			 (unsigned long long)key->max);
	}
}

/* Values come from files and variables: what cannot be printed must not reach a terminal or a log line. */
static void printable(char *out, size_t size, const char *in)
{
	size_t n = 0;

	for (; *in && n + 1 < size && n < 60; in++)
		out[n++] = (unsigned char)*in < ' ' || *in == 0x7f ? '?' : *in;
	if (*in && n >= 60 && n + 4 < size) {
		memcpy(out + n, "...", 3);
		n += 3;
	}
	out[n] = 0;
}

static int refuse(const struct config_key *key, const char *where, const char *value, const char *wrong,
		  struct error *error)
{
	char allowed[256], shown[80];

	config_key_allowed(key, allowed, sizeof(allowed));
	printable(shown, sizeof(shown), value);
	if (key->secret)
		return error_set(error, -EINVAL, "%s: the value %s", where, wrong);
	return error_set(error, -EINVAL, "%s: '%s' %s; allowed: %s", where, shown, wrong, allowed);
}

static void secret_free(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

static void list_done(struct config_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->item[i]);
	free(list->item);
	*list = (struct config_list){0};
}

static int set_string(struct config *c, const struct config_key *key, const char *value)
{
	char **place = (char **)((char *)c + key->offset), *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	if (key->secret)
		secret_free(*place);
	else
		free(*place);
	*place = copy;
	return 0;
}

int config_set_list(struct config *c, int index, const char *const *items, size_t count,
		    struct config_source source, const char *where, struct error *error)
{
	const struct config_key *key = &config_keys[index];
	struct config_list list = {0}, *place = (struct config_list *)((char *)c + key->offset);

	if (count > CONFIG_LIST_MAX)
		return error_set(error, -EINVAL, "%s: %zu entries; allowed: at most %d", where, count,
				 CONFIG_LIST_MAX);
	list.item = calloc(count ? count : 1, sizeof(char *));
	if (!list.item)
		goto memory;
	for (size_t i = 0; i < count; i++) {
		const char *wrong = key->valid(items[i]);

		if (wrong) {
			list_done(&list);
			return refuse(key, where, items[i], wrong, error);
		}
		list.item[i] = strdup(items[i]);
		if (!list.item[i])
			goto memory;
		list.count = i + 1;
	}
	list_done(place);
	*place = list;
	c->source[index] = source;
	return 0;
memory:
	list_done(&list);
	return error_set(error, -ENOMEM, "%s: out of memory", where);
}

/* "a, b,c": blanks around items do not count, an empty text is an empty list, an empty item is an error of
 * the item. */
static int set_list_text(struct config *c, int index, const char *value, struct config_source source,
			 const char *where, struct error *error)
{
	const char *items[CONFIG_LIST_MAX + 1];
	char *copy = strdup(value), *at = copy;
	size_t count = 0;
	int rc;

	if (!copy)
		return error_set(error, -ENOMEM, "%s: out of memory", where);
	for (char *item; copy[strspn(copy, " ")] && (item = strsep(&at, ",")) && count <= CONFIG_LIST_MAX;) {
		size_t n;

		item += strspn(item, " ");
		for (n = strlen(item); n && item[n - 1] == ' ';)
			item[--n] = 0;
		items[count++] = item;
	}
	rc = config_set_list(c, index, items, count, source, where, error);
	free(copy);
	return rc;
}

int config_set(struct config *c, int index, const char *value, struct config_source source, const char *where,
	       struct error *error)
{
	const struct config_key *key = &config_keys[index];
	void *place = (char *)c + key->offset;
	const char *wrong;
	uint64_t number;
	bool flag;

	if (strlen(value) > CONFIG_VALUE_MAX)
		return refuse(key, where, value, "is longer than 4096 bytes", error);
	switch (key->type) {
	case CONFIG_BOOL:
		if (!bool_parse(value, &flag))
			return refuse(key, where, value, "is neither true nor false", error);
		*(bool *)place = flag;
		break;
	case CONFIG_U32:
		if (!config_number(value, &number))
			return refuse(key, where, value, "is not a number", error);
		if (number < key->min || number > key->max)
			return refuse(key, where, value, "is out of range", error);
		*(uint32_t *)place = (uint32_t)number;
		break;
	case CONFIG_BYTES:
		if (!bytes_parse(value, &number))
			return refuse(key, where, value,
				      "is not a number of bytes such as 65536, 64KiB or 16MiB", error);
		if (number < key->min || number > key->max)
			return refuse(key, where, value, "is out of range", error);
		*(uint64_t *)place = number;
		break;
	case CONFIG_ENUM: {
		const struct config_name *n = key->names;

		while (n->name && strcasecmp(n->name, value) != 0)
			n++;
		if (!n->name)
			return refuse(key, where, value, "is not known", error);
		*(int *)place = n->value;
		break;
	}
	case CONFIG_STRING:
		wrong = key->valid ? key->valid(value) : NULL;
		if (wrong)
			return refuse(key, where, value, wrong, error);
		if (set_string(c, key, value) < 0)
			return error_set(error, -ENOMEM, "%s: out of memory", where);
		break;
	case CONFIG_LIST:
		return set_list_text(c, index, value, source, where, error);
	}
	c->source[index] = source;
	return 0;
}

static int set_path(struct config *c, const char *path, const char *value, struct error *error)
{
	return config_set(c, config_key_find(path, strlen(path)), value,
			  (struct config_source){CONFIG_FROM_DEFAULT, 0, NULL}, path, error);
}

static int apply_defaults(struct config *c, bool document_mode, struct error *error)
{
	/* The document's proxy: explicit port, mirroring at once, one configured pair of credentials, no
	 * kernel side. */
	static const char *const document[][2] = {
	    {"intercept.enabled", "false"}, {"phase.initial", "mirror"}, {"auth.mode", "configured"}};
	int rc;

	for (size_t i = 0; i < config_key_count; i++) {
		rc = set_path(c, config_keys[i].path, config_keys[i].standard, error);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; document_mode && i < sizeof(document) / sizeof(document[0]); i++) {
		rc = set_path(c, document[i][0], document[i][1], error);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int read_bounded(const char *path, size_t max, char **ret_text, size_t *ret_size, const char **ret_why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK),
	    rc = 0; /* a FIFO here must not hang the start */
	struct stat st;
	char *text = NULL;
	size_t used = 0;

	if (fd < 0) {
		*ret_why = strerror(errno);
		return -errno;
	}
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
		*ret_why = "it is a directory";
		rc = -EISDIR;
		goto out;
	}
	text = malloc(max + 1);
	if (!text) {
		*ret_why = "out of memory";
		rc = -ENOMEM;
		goto out;
	}
	for (ssize_t n = 1; n > 0 && used <= max; used += (size_t)n) {
		do
			n = read(fd, text + used, max + 1 - used);
		while (n < 0 && errno == EINTR);
		if (n < 0) {
			*ret_why = strerror(errno);
			rc = -errno;
			goto out;
		}
		if (n == 0)
			break;
	}
	if (used > max) {
		*ret_why = "it is too large";
		rc = -EFBIG;
		goto out;
	}
	text[used] = 0;
	*ret_text = text;
	*ret_size = used;
	text = NULL;
out:
	if (text)
		explicit_bzero(text, max + 1);
	free(text);
	close(fd);
	return rc;
}

/* Where a value of this source was written, for error texts about a whole configuration. */
static void source_name(const struct config *c, int index, char *text, size_t size)
{
	const struct config_source *s = &c->source[index];
	char variable[96];

	if (s->rank == CONFIG_FROM_FILE) {
		snprintf(text, size, "%s:%u: %s", c->file, s->line, config_keys[index].path);
	} else if (s->rank == CONFIG_FROM_DOCUMENT) {
		snprintf(text, size, "%s", s->variable);
	} else if (s->rank == CONFIG_FROM_ENV) {
		config_key_variable(&config_keys[index], variable, sizeof(variable));
		snprintf(text, size, "%s", variable);
	} else {
		snprintf(text, size, "%s", config_keys[index].path);
	}
}

/* A password file beats a password of the same or a weaker source; both from one source are a contradiction.
 */
static int resolve_password(struct config *c, struct config_cluster *cluster, const char *name,
			    struct error *error)
{
	char path[64], where[512], *text = NULL;
	const char *why = "";
	size_t size = 0;
	int password, file, rc;

	snprintf(path, sizeof(path), "%s.password", name);
	password = config_key_find(path, strlen(path));
	snprintf(path, sizeof(path), "%s.passwordFile", name);
	file = config_key_find(path, strlen(path));
	if (!*cluster->password_file)
		return 0;
	source_name(c, file, where, sizeof(where));
	if (*cluster->password) {
		if (c->source[password].rank == c->source[file].rank)
			return error_set(error, -EINVAL,
					 "%s: %s.password is set as well; allowed: one of the two", where,
					 name);
		if (c->source[password].rank > c->source[file].rank)
			return 0;
	}
	rc = read_bounded(cluster->password_file, PASSWORD_MAX, &text, &size, &why);
	if (rc < 0)
		return error_set(error, -EINVAL, "%s: cannot read '%s': %s", where, cluster->password_file,
				 why);
	text[strcspn(text, "\r\n")] = 0;
	if (!*text)
		rc = error_set(error, -EINVAL, "%s: the first line of '%s' is empty; allowed: the password",
			       where, cluster->password_file);
	else if (set_string(c, &config_keys[password], text) < 0)
		rc = error_set(error, -ENOMEM, "%s: out of memory", where);
	explicit_bzero(text, size);
	free(text);
	return rc;
}

static int load(struct config *c, const char *name, const char *text, size_t size, char *const *env,
		struct error *error)
{
	struct config fresh = {0};
	int rc;

	fresh.document_mode = !text && config_env_is_document_mode(env);
	fresh.file = strdup(name ? name : "");
	rc = fresh.file ? apply_defaults(&fresh, fresh.document_mode, error)
			: error_set(error, -ENOMEM, "out of memory");
	if (rc == 0 && text)
		rc = config_apply_yaml(&fresh, name, text, size, error);
	if (rc == 0)
		rc = config_apply_env(&fresh, env, error);
	if (rc == 0)
		rc = resolve_password(&fresh, &fresh.origin, "origin", error);
	if (rc == 0)
		rc = resolve_password(&fresh, &fresh.target, "target", error);
	if (rc < 0) {
		config_done(&fresh);
		*c = (struct config){0};
		return rc;
	}
	int initial = config_key_find("phase.initial", strlen("phase.initial"));

	if (fresh.migration.complete && fresh.source[initial].rank == CONFIG_FROM_DEFAULT)
		fresh.phase.initial = CONFIG_PHASE_FINISH;
	*c = fresh;
	return 0;
}

int config_parse(struct config *c, const char *name, const char *text, size_t size, char *const *env,
		 struct error *error)
{
	return load(c, name, text, size, env, error);
}

int config_load(struct config *c, const char *file, char *const *env, struct error *error)
{
	char *text = NULL;
	const char *why = "";
	size_t size = 0;
	int rc;

	*c = (struct config){0};
	if (!file || !*file)
		return load(c, NULL, NULL, 0, env, error);
	rc = read_bounded(file, CONFIG_FILE_MAX, &text, &size, &why);
	if (rc < 0)
		return error_set(error, rc == -ENOENT || rc == -ENOMEM ? rc : -EINVAL,
				 "cannot read the configuration '%s': %s", file, why);
	rc = load(c, file, text, size, env, error);
	explicit_bzero(text, size);
	free(text);
	return rc;
}

void config_done(struct config *c)
{
	for (size_t i = 0; i < config_key_count; i++) {
		void *place = (char *)c + config_keys[i].offset;

		if (config_keys[i].type == CONFIG_LIST)
			list_done(place);
		else if (config_keys[i].type == CONFIG_STRING)
			config_keys[i].secret ? secret_free(*(char **)place) : free(*(char **)place);
	}
	free(c->file);
	*c = (struct config){0};
}

unsigned config_workers(const struct config *c)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (c->workers)
		return c->workers;
	/* The node is the applications': one worker carries 100,000 small requests a second. */
	return cores < 4 ? 1 : cores > 8 ? 4 : (unsigned)cores / 2;
}

struct config_endpoint config_endpoint(const struct config_cluster *cluster, size_t i)
{
	struct config_endpoint e = {0};

	if (i < cluster->contact_points.count && config_split_endpoint(cluster->contact_points.item[i], &e) &&
	    !e.port)
		e.port = (uint16_t)cluster->port;
	return e;
}

struct config_endpoint config_control_host(const struct config *c, size_t i)
{
	struct config_endpoint e = {0};

	if (i < c->connection.control_hosts.count && config_split_endpoint(c->connection.control_hosts.item[i], &e) && !e.port)
		e.port = (uint16_t)c->origin.port;
	return e;
}

static const char *const phase_name[CONFIG_PHASE_COUNT] = {"observe", "mirror",	  "drain",
							   "cutover", "rollback", "finish"};

const char *config_phase_name(int phase)
{
	return phase >= 0 && phase < CONFIG_PHASE_COUNT ? phase_name[phase] : NULL;
}

int config_phase_from_name(const char *name)
{
	for (int i = 0; i < CONFIG_PHASE_COUNT; i++)
		if (!strcmp(phase_name[i], name))
			return i;
	return -1;
}
