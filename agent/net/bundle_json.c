/* SPDX-License-Identifier: Apache-2.0 */
#include "net/bundle_json.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

static json_t *read_object(struct span json, const char *what, struct error *error)
{
	json_error_t why;
	json_t *all;

	if (json.size > BUNDLE_JSON_MAX) {
		error_set(error, -EINVAL, "%s has %zu bytes; at most %u are expected", what, json.size,
			  BUNDLE_JSON_MAX);
		return NULL;
	}
	/* It nests no deeper than jansson's own limit of 2048; NUL in a text is refused by default. */
	all = json_loadb((const char *)json.data, json.size, JSON_REJECT_DUPLICATES, &why);
	if (all && !json_is_object(all)) {
		json_decref(all);
		error_set(error, -EINVAL, "%s is not a JSON object", what);
		return NULL;
	}
	if (!all)
		error_set(error, -EINVAL, "%s is not JSON: %s, line %d", what, why.text, why.line);
	return all;
}

/* Letters, digits, '-', '_' and '.'; or ':' for an IPv6 address. They end up in TLS, in URLs and in logs. */
static bool is_name(const char *text, size_t size, bool colons)
{
	if (size == 0 || text[0] == '.' || text[0] == '-')
		return false;
	for (size_t i = 0; i < size; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("-._", text[i]) &&
		    !(colons && text[i] == ':'))
			return false;
	return true;
}

static int name_in(const json_t *value, const char *what, char *to, size_t room, struct error *error)
{
	const char *text = json_string_value(value);
	size_t size = json_string_length(value);

	if (!value)
		return error_set(error, -EINVAL, "%s is missing", what);
	if (!text || size >= room || !is_name(text, size, true))
		return error_set(error, -EINVAL, "%s is not a host name", what);
	memcpy(to, text, size + 1);
	return 0;
}

/* Texts that only a person reads: what does not fit or cannot be shown is left out. */
static void text_in(const json_t *value, char *to, size_t room)
{
	size_t size = json_string_length(value);

	to[0] = 0;
	if (json_is_string(value) && size < room &&
	    (size == 0 || is_name(json_string_value(value), size, false)))
		memcpy(to, json_string_value(value), size + 1);
}

static bool port_in(const json_t *value, uint16_t *ret)
{
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < 1 || n > 65535)
		return false;
	*ret = (uint16_t)n;
	return true;
}

int bundle_config_parse(struct span json, struct bundle_config *ret, struct error *error)
{
	json_t *all = read_object(json, "config.json", error);
	struct bundle_config c = {0};
	int rc;

	if (!all)
		return -EINVAL;
	rc = name_in(json_object_get(all, "host"), "\"host\" in config.json", c.host, sizeof(c.host), error);
	if (rc == 0 && !port_in(json_object_get(all, "port"), &c.port))
		rc = error_set(error, -EINVAL, "\"port\" in config.json is not a port");
	text_in(json_object_get(all, "keyspace"), c.keyspace, sizeof(c.keyspace));
	text_in(json_object_get(all, "localDC"), c.local_dc, sizeof(c.local_dc));
	json_decref(all);
	if (rc == 0)
		*ret = c;
	return rc;
}

/* "host:port" or "[v6]:port" */
static int proxy_in(const json_t *value, struct bundle_contact *c, struct error *error)
{
	const char *text = json_string_value(value), *colon = text ? strrchr(text, ':') : NULL, *end = colon;
	unsigned long port = 0;

	if (!colon || !colon[1] || strlen(colon + 1) > 5 ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return error_set(error, -EINVAL,
				 "\"sni_proxy_address\" of the metadata service is not host:port");
	for (const char *p = colon + 1; *p; p++)
		port = port * 10 + (unsigned long)(*p - '0');
	if (*text == '[' && end[-1] == ']') {
		text++;
		end--;
	} else if (memchr(text, ':', (size_t)(colon - text))) {
		end = text; /* an IPv6 address without brackets cannot be told from its port */
	}
	if (port == 0 || port > 65535 || (size_t)(end - text) >= sizeof(c->proxy_host) ||
	    !is_name(text, (size_t)(end - text), true))
		return error_set(error, -EINVAL,
				 "\"sni_proxy_address\" of the metadata service is not host:port");
	memcpy(c->proxy_host, text, (size_t)(end - text));
	c->proxy_host[end - text] = 0;
	c->proxy_port = (uint16_t)port;
	return 0;
}

static int points_in(const json_t *list, struct bundle_contact *c, struct error *error)
{
	const json_t *one;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) == 0)
		return error_set(error, -EINVAL, "the metadata service names no \"contact_points\"");
	json_array_foreach(list, i, one)
	{
		const char *text = json_string_value(one);
		size_t size = json_string_length(one);

		if (!text || size >= BUNDLE_ID_MAX || !is_name(text, size, false))
			return error_set(error, -EINVAL,
					 "contact point %zu of the metadata service is not a host id", i + 1);
		if (c->count == BUNDLE_NODES_MAX)
			c->left_out++;
		else
			memcpy(c->host_id[c->count++], text, size + 1);
	}
	return 0;
}

int bundle_contact_parse(struct span json, struct bundle_contact *ret, struct error *error)
{
	json_t *all = read_object(json, "the metadata service's answer", error), *info;
	struct bundle_contact c = {0};
	const char *type;
	int rc = 0;

	if (!all)
		return -EINVAL;
	info = json_object_get(all, "contact_info");
	type = json_string_value(json_object_get(info, "type"));
	if (!json_is_object(info))
		rc = error_set(error, -EINVAL, "the metadata service's answer has no \"contact_info\"");
	else if (type && strcmp(type, "sni_proxy") != 0)
		rc = error_set(error, -EINVAL,
			       "the metadata service names a way to the cluster that is not known here; "
			       "known: sni_proxy");
	if (rc == 0)
		rc = proxy_in(json_object_get(info, "sni_proxy_address"), &c, error);
	if (rc == 0)
		rc = points_in(json_object_get(info, "contact_points"), &c, error);
	text_in(json_object_get(info, "local_dc"), c.local_dc, sizeof(c.local_dc));
	text_in(json_object_get(all, "region"), c.region, sizeof(c.region));
	json_decref(all);
	if (rc == 0)
		*ret = c;
	return rc;
}
