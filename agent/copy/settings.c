// SPDX-License-Identifier: Apache-2.0
#include "copy/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cql/request.h"

#define DEFAULT_PORT 9042
#define DEFAULT_CONNECT_SECONDS 5 /* cqlsh's */

/* ------------------------------------------------------------- files */

static int find_rc(struct copy_settings *s, const char *given, struct error *error)
{
	static const char *const places[] = {"~/.cassandra/cqlshrc", "~/.cqlshrc"};
	size_t size = sizeof(s->rc_path);

	if (given) {
		rc_expand(given, s->rc_path, size);
		return rc_read(&s->rc, s->rc_path, error);
	}
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		if (rc_expand(places[i], s->rc_path, size) && access(s->rc_path, F_OK) == 0)
			return rc_read(&s->rc, s->rc_path, error);
	*s->rc_path = 0;
	return 0;
}

/* A file with passwords that others can read is not used, as cqlsh does not. */
static int read_credentials(struct copy_settings *s, const char *given, struct error *error)
{
	const char *path = given ? given : rc_get(&s->rc, "authentication", "credentials");
	char full[1024];
	struct stat st;

	if (!rc_expand(path ? path : "~/.cassandra/credentials", full, sizeof(full)) || stat(full, &st) < 0)
		return given ? error_set(error, -ENOENT, "cannot read %s: %s", given, strerror(errno)) : 0;
	if (st.st_uid != geteuid() || st.st_mode & (S_IRWXG | S_IRWXO)) {
		if (given)
			return error_set(error, -EPERM, "%s can be read by others: chmod 600 %s", full, full);
		fprintf(stderr, "Warning: %s is not used, since others can read it: chmod 600 %s\n", full,
			full);
		return 0;
	}
	return rc_read(&s->credentials, full, error);
}

/* ------------------------------------------------------------- the connection */

static const char *first_of(const char *a, const char *b, const char *c)
{
	return a ? a : b && *b ? b : c;
}

static int read_number(const char *name, const char *text, unsigned long max, unsigned long *ret,
		       struct error *error)
{
	char *end;

	if (!text)
		return 0;
	*ret = strtoul(text, &end, 10);
	if (!*text || *end || *ret == 0 || *ret > max)
		return error_set(error, -EINVAL, "Invalid %s: %s. Must be a number from 1 to %lu", name, text,
				 max);
	return 0;
}

/* What is named on the command line wins, then the environment, then cqlshrc; in one place both a bundle and a host would contradict each other. */
static int read_tls(struct copy_settings *s, const struct copy_request *r, struct error *error)
{
	const char *bundle = r->bundle, *elsewhere = getenv("CQLSH_HOST");
	int rc;

	if (!bundle && !r->host && !(elsewhere && *elsewhere))
		bundle = rc_get(&s->rc, "connection", "secure_connect_bundle");
	if (bundle && (r->host || r->port || r->sni))
		return error_set(error, -EINVAL, "a secure-connect bundle names the host itself: leave out --%s",
				 r->host ? "host" : r->port ? "port" : "sni");
	if (bundle && *bundle) {
		rc = copy_cloud_open(&s->cloud, bundle, error);
		s->login.tls = s->cloud.tls;
		s->login.sni = s->cloud.sni;
		return rc;
	}
	rc = copy_ssl_open(&s->ssl, &s->rc, s->login.host, r->ssl || r->sni, error);
	s->login.tls = s->ssl.context;
	s->login.sni_name = r->sni;
	return rc;
}

static int read_consistency(struct copy_settings *s, const char *name, struct error *error)
{
	static const struct {
		const char *name;
		uint16_t level;
	} levels[] = {{"ONE", CL_ONE},
		      {"TWO", CL_TWO},
		      {"THREE", CL_THREE},
		      {"QUORUM", CL_QUORUM},
		      {"ALL", CL_ALL},
		      {"LOCAL_QUORUM", CL_LOCAL_QUORUM},
		      {"EACH_QUORUM", CL_EACH_QUORUM},
		      {"LOCAL_ONE", CL_LOCAL_ONE},
		      {"ANY", CL_ANY}};

	s->consistency = CL_ONE; /* cqlsh's */
	for (size_t i = 0; name && i < sizeof(levels) / sizeof(*levels); i++)
		if (!strcasecmp(levels[i].name, name)) {
			s->consistency = levels[i].level;
			return 0;
		}
	return name ? error_set(error, -EINVAL,
				"Invalid consistency: %s. Must be ONE, TWO, THREE, QUORUM, ALL, "
				"LOCAL_QUORUM, EACH_QUORUM, LOCAL_ONE or ANY",
				name)
		    : 0;
}

static int read_login(struct copy_settings *s, const struct copy_request *r, struct error *error)
{
	unsigned long port = r->port ? r->port : DEFAULT_PORT;
	unsigned long seconds = r->connect_seconds ? r->connect_seconds : DEFAULT_CONNECT_SECONDS;
	int rc = 0;

	s->login.host = first_of(r->host, getenv("CQLSH_HOST"), rc_get(&s->rc, "connection", "hostname"));
	if (!s->login.host)
		s->login.host = "127.0.0.1";
	if (!r->port)
		rc = read_number("port",
				 first_of(NULL, getenv("CQLSH_PORT"), rc_get(&s->rc, "connection", "port")),
				 65535, &port, error);
	if (rc == 0 && !r->connect_seconds)
		rc = read_number("connection timeout", rc_get(&s->rc, "connection", "timeout"), 3600,
				 &seconds, error);
	s->login.port = (uint16_t)port;
	s->login.connect_ms = (unsigned)seconds * 1000;
	s->login.username = first_of(r->username, rc_get(&s->credentials, "plain_text_auth", "username"),
				     rc_get(&s->rc, "authentication", "username"));
	s->login.password = first_of(r->password, rc_get(&s->credentials, "plain_text_auth", "password"),
				     rc_get(&s->rc, "authentication", "password"));
	return rc;
}

/* ------------------------------------------------------------- options */

/* The last value of an option in the list; NULL: not there. */
static const char *listed(const struct option_list *l, const char *name)
{
	for (size_t i = l->count; i-- > 0;)
		if (!strcasecmp(l->list[i].name, name))
			return l->list[i].value;
	return NULL;
}

static int apply_section(struct copy_options *o, const struct rc *rc, const char *path, const char *section,
			 struct error *error)
{
	struct error wrong;

	for (size_t i = 0; i < rc->count; i++) {
		if (strcmp(rc->entries[i].section, section) != 0)
			continue;
		int code = options_set(o, rc->entries[i].key, rc->entries[i].value, &wrong);

		if (code < 0)
			return error_set(error, code, "%s, [%s]: %.400s", path, section, wrong.text);
	}
	return 0;
}

static int read_options(struct copy_settings *s, const struct copy_request *r, struct error *error)
{
	const struct copy_command *c = &r->command;
	const char *direction = c->to ? "to" : "from", *config = listed(&c->options, "configfile"),
		   *path = s->rc_path;
	const char *format = getenv("CQLSH_DEFAULT_TIMESTAMP_FORMAT"),
		   *shown = rc_get(&s->rc, "ui", "time_format");
	const struct rc *from = &s->rc;
	char section[4][2 * NAME_MAX_BYTES + 32];
	int rc = 0;

	if (config && *config) {
		rc = rc_read(&s->config, config, error);
		from = &s->config;
		path = config;
	}
	if (rc == 0 && (shown || (format && *format)))
		rc = options_set(&s->options, "DATETIMEFORMAT", shown ? shown : format, error);
	snprintf(section[0], sizeof(section[0]), "copy");
	snprintf(section[1], sizeof(section[1]), "copy-%s", direction);
	snprintf(section[2], sizeof(section[2]), "copy:%s.%s", c->keyspace, c->table);
	snprintf(section[3], sizeof(section[3]), "copy-%s:%s.%s", direction, c->keyspace, c->table);
	for (unsigned i = 0; i < 4 && rc == 0; i++)
		rc = apply_section(&s->options, from, path, section[i], error);
	if (rc == 0 && r->proxy)
		rc = options_set(&s->options, "CONNECTIONMODE", "proxy", error);
	for (size_t i = 0; i < c->options.count && rc == 0; i++)
		rc = options_set(&s->options, c->options.list[i].name, c->options.list[i].value, error);
	if (rc < 0)
		return rc;
	/* Behind an SNI proxy there is one way in, unless somebody knows better. */
	if (!s->options.mode_named && (s->login.sni || s->login.sni_name)) {
		fprintf(stderr, "[INFO] %s detected, using proxy mode\n",
			s->login.sni ? "Cloud cluster" : "SNI endpoint");
		s->options.mode = MODE_PROXY;
	}
	return options_finish(&s->options, error);
}

int settings_read(struct copy_settings *s, struct copy_request *r, struct error *error)
{
	struct copy_command *c = &r->command;
	const char *keyspace;
	int rc;

	*s = (struct copy_settings){0};
	options_init(&s->options);
	rc = find_rc(s, r->cqlshrc, error);
	if (rc == 0)
		rc = read_credentials(s, r->credentials, error);
	if (rc < 0)
		return rc;
	keyspace = r->keyspace ? r->keyspace : rc_get(&s->rc, "authentication", "keyspace");
	if (!*c->keyspace && !keyspace)
		return error_set(error, -EINVAL, "which keyspace? Write KEYSPACE.%s, or --keyspace",
				 c->table);
	if (!*c->keyspace)
		snprintf(c->keyspace, sizeof(c->keyspace), "%s", keyspace);
	rc = read_login(s, r, error);
	if (rc == 0)
		rc = read_tls(s, r, error);
	if (rc == 0)
		rc = read_consistency(s, r->consistency, error);
	return rc < 0 ? rc : read_options(s, r, error);
}

void settings_done(struct copy_settings *s)
{
	copy_ssl_done(&s->ssl);
	copy_cloud_done(&s->cloud);
	rc_done(&s->rc);
	rc_done(&s->config);
	rc_done(&s->credentials);
	options_done(&s->options);
}
