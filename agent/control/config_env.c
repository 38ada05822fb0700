// SPDX-License-Identifier: Apache-2.0
/*
 * The environment: the document's variables, then CQLFERRY_*. An empty variable counts as not set, because
 * charts and compose files pass variables through that nobody filled in.
 *
 * Kubernetes puts CQLFERRY_PORT=tcp://…, CQLFERRY_SERVICE_HOST and the like into every pod of a namespace
 * that has a Service called cqlferry (or PROXY_PORT=tcp://… for one called proxy). They are told apart by
 * form and left alone; otherwise the agent would refuse to start as soon as its own Service exists.
 */
#include "control/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "control/nearest.h"

#define PREFIX "CQLFERRY_"
#define PREFIX_SIZE (sizeof(PREFIX) - 1)

void config_key_variable(const struct config_key *key, char *name, size_t size)
{
	size_t at = (size_t)snprintf(name, size, PREFIX);

	for (const char *p = key->path; *p && at + 2 < size; p++) {
		if (*p == '.') {
			name[at++] = '_';
			continue;
		}
		if (isupper((unsigned char)*p))
			name[at++] = '_';
		name[at++] = (char)toupper((unsigned char)*p);
	}
	name[at] = 0;
}

static const char *env_get(char *const *env, const char *name)
{
	size_t size = strlen(name);

	for (; env && *env; env++)
		if (!strncmp(*env, name, size) && (*env)[size] == '=')
			return (*env)[size + 1] ? *env + size + 1 : NULL;
	return NULL;
}

static bool is_service_link(const char *value)
{
	return !strncmp(value, "tcp://", 6) || !strncmp(value, "udp://", 6) || !strncmp(value, "sctp://", 7);
}

static bool ends_with(const char *text, size_t size, const char *end)
{
	return size >= strlen(end) && !memcmp(text + size - strlen(end), end, strlen(end));
}

/* Names of the Docker-link form: …_SERVICE_HOST, …_SERVICE_PORT[_NAME], …_PORT_9042_TCP[_ADDR|_PORT|_PROTO].
 */
static bool is_service_variable(const char *name, size_t size, const char *value)
{
	char text[128];

	if (is_service_link(value))
		return true;
	if (size >= sizeof(text))
		return false;
	memcpy(text, name, size);
	text[size] = 0;
	if (ends_with(text, size, "_SERVICE_HOST") || ends_with(text, size, "_SERVICE_PORT") ||
	    strstr(text, "_SERVICE_PORT_"))
		return true;
	for (const char *p = text; (p = strstr(p, "_PORT_")) != NULL; p += 1) {
		const char *digits = p + 6;
		size_t n = strspn(digits, "0123456789");

		if (n && (!strncmp(digits + n, "_TCP", 4) || !strncmp(digits + n, "_UDP", 4) ||
			  !strncmp(digits + n, "_SCTP", 5)))
			return true;
	}
	return false;
}

bool config_env_is_document_mode(char *const *env)
{
	return env_get(env, "SOURCE_HOSTNAME") || env_get(env, "PROXY_QUERY_PORT");
}

static int apply_document(struct config *c, char *const *env, struct error *error)
{
	for (size_t i = 0; i < config_variable_count; i++) {
		const struct config_variable *v = &config_variables[i];
		const struct config_source source = {CONFIG_FROM_DOCUMENT, 0, v->name};
		const char *value = env_get(env, v->name);
		int rc;

		if (!value || is_service_link(value))
			continue;
		if (v->how == VARIABLE_TRUE_SETS) {
			if (!strcasecmp(value, "false") || !strcmp(value, "0"))
				continue;
			if (strcasecmp(value, "true") != 0 && strcmp(value, "1") != 0)
				return error_set(
				    error, -EINVAL,
				    "%s: '%.40s' is neither true nor false; allowed: true or false", v->name,
				    value);
			value = v->sets;
		}
		rc = config_set(c, config_key_find(v->path, strlen(v->path)), value, source, v->name, error);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* CQLFERRY_CONFIG names the file (the command line's business); CQLFERRY_BUILD is how the test suites find
 * the binary. */
static bool is_for_others(const char *name, size_t size)
{
	static const char *const others[] = {PREFIX "CONFIG", PREFIX "BUILD"};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strlen(others[i]) == size && !memcmp(others[i], name, size))
			return true;
	return false;
}

static int refuse_unknown(const char *name, size_t size, struct error *error)
{
	char word[128], known[CONFIG_KEYS_MAX][96];
	/* Without the prefix, which all have in common: it would make everything look near. */
	struct nearest near = {.word = word + PREFIX_SIZE};

	snprintf(word, sizeof(word), "%.*s", (int)(size < 127 ? size : 127), name);
	for (size_t i = 0; i < config_key_count; i++) {
		config_key_variable(&config_keys[i], known[i], sizeof(known[i]));
		nearest_offer(&near, known[i] + PREFIX_SIZE);
	}
	if (near.best)
		return error_set(error, -EINVAL, "%s: unknown variable; did you mean " PREFIX "%s?", word,
				 near.best);
	return error_set(error, -EINVAL,
			 "%s: unknown variable; `cqlferry help configuration` lists the known ones", word);
}

int config_apply_env(struct config *c, char *const *env, struct error *error)
{
	int rc = apply_document(c, env, error);

	for (char *const *e = env; rc == 0 && e && *e; e++) {
		const char *equals = strchr(*e, '=');
		char name[96];
		size_t size, i;

		if (!equals || strncmp(*e, PREFIX, PREFIX_SIZE) != 0)
			continue;
		size = (size_t)(equals - *e);
		if (!equals[1] || is_for_others(*e, size))
			continue;
		for (i = 0; i < config_key_count; i++) {
			config_key_variable(&config_keys[i], name, sizeof(name));
			if (strlen(name) == size && !memcmp(name, *e, size))
				break;
		}
		if (i == config_key_count)
			rc = is_service_variable(*e, size, equals + 1) ? 0 : refuse_unknown(*e, size, error);
		else if (!is_service_link(equals + 1))
			rc = config_set(c, (int)i, equals + 1,
					(struct config_source){CONFIG_FROM_ENV, 0, NULL}, name, error);
	}
	return rc;
}
