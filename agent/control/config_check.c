// SPDX-License-Identifier: Apache-2.0
/* How the keys fit together: what an agent must know for the phase it is to start in. Order: what a person
 * meets first. */
#include "control/config.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "control/config_table.h"
#include "control/scope_config.h"
#include "net/mode.h"
#include "net/tls_context.h"
#include "relay/cluster.h"

/* Control hosts are hosts of the origin. */
static bool same_node(const struct config *c, struct config_endpoint *ret_node)
{
	size_t contacts = c->origin.contact_points.count;

	for (size_t i = 0; i < contacts + c->connection.control_hosts.count; i++) {
		for (size_t j = 0; j < c->target.contact_points.count; j++) {
			struct config_endpoint a = i < contacts ? config_endpoint(&c->origin, i) : config_control_host(c, i - contacts),
					       b = config_endpoint(&c->target, j);

			if (a.port == b.port && !strcasecmp(a.host, b.host)) {
				*ret_node = a;
				return true;
			}
		}
	}
	return false;
}

static bool any_address(const char *text)
{
	return !strcmp(text, "0.0.0.0") || !strcmp(text, "::");
}

bool config_is_set(const struct config *c, const char *path)
{
	return c->source[config_key_find(path, strlen(path))].rank != CONFIG_FROM_DEFAULT;
}

static int check_ports(const struct config *c, struct error *error)
{
	const struct {
		const char *key, *address;
		uint32_t port;
		bool used;
	} p[] = {
	    {"listen.port", c->listen.address, c->listen.port, c->listen.port != 0},
	    {"listen.agentPort", *c->listen.agent_address ? c->listen.agent_address : "0.0.0.0",
	     c->listen.agent_port, c->intercept.enabled},
	    {"http.port", c->http.address, c->http.port, c->http.port != 0},
	    {"migration.proxyPort", "0.0.0.0", c->migration.proxy_port, c->migration.proxy_port != 0},
	};
	const size_t count = sizeof(p) / sizeof(p[0]);

	for (size_t i = 0; i < count; i++)
		for (size_t j = i + 1; j < count; j++)
			if (p[i].used && p[j].used && p[i].port == p[j].port &&
			    (any_address(p[i].address) || any_address(p[j].address) ||
			     !strcmp(p[i].address, p[j].address)))
				return error_set(error, -EINVAL,
						 "%s and %s are both %u; allowed: a port of its own for each",
						 p[i].key, p[j].key, p[i].port);
	return 0;
}

static int check_credentials(const struct config_cluster *cluster, const char *name, struct error *error)
{
	if (*cluster->password && !*cluster->username)
		return error_set(error, -EINVAL, "%s.password is set without %s.username", name, name);
	if (*cluster->username && !*cluster->password)
		return error_set(error, -EINVAL,
				 "%s.username is set without a password; set %s.password or %s.passwordFile",
				 name, name, name);
	return 0;
}

/* Keys that do nothing without another one are a misunderstanding, and with TLS one that matters. */
static int check_tls(const struct config_cluster *cluster, const char *name, struct error *error)
{
	const struct config_tls *t = &cluster->tls;
	const struct {
		const char *key, *value;
	} files[] = {{"caFile", t->ca_file}, {"certFile", t->cert_file}, {"keyFile", t->key_file},
		     {"keyPasswordFile", t->key_password_file}, {"serverName", t->server_name}};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (*files[i].value && *cluster->bundle)
			return error_set(error, -EINVAL, "%s.tls.%s is set, but the certificates come from %s.secureConnectBundle; allowed: one of the two",
					 name, files[i].key, name);
		if (*files[i].value && !t->enabled)
			return error_set(error, -EINVAL, "%s.tls.%s is set, but %s.tls.enabled is false", name, files[i].key, name);
	}
	if (*t->key_file && !*t->cert_file)
		return error_set(error, -EINVAL, "%s.tls.keyFile is set without %s.tls.certFile", name, name);
	if (*cluster->bundle && cluster->contact_points.count)
		return error_set(error, -EINVAL, "%s.contactPoints is set, but the nodes come from %s.secureConnectBundle; allowed: one of the two",
				 name, name);
	if (*cluster->bundle && !*cluster->username)
		return error_set(error, -EINVAL,
				 "%s.secureConnectBundle needs %s.username and a password (an application token: username token, the token as password)",
				 name, name);
	return 0;
}

static int check_listen_tls(const struct config *c, struct error *error)
{
	if (!*c->listen.cert_file && (*c->listen.key_file || *c->listen.key_password_file || *c->listen.client_ca_file ||
				      c->listen.client_auth != TLS_CLIENT_AUTH_NONE))
		return error_set(error, -EINVAL, "listen.tls has settings, but no certificate: set listen.tls.certFile");
	if (c->listen.client_auth != TLS_CLIENT_AUTH_NONE && !*c->listen.client_ca_file)
		return error_set(error, -EINVAL, "listen.tls.clientAuth needs listen.tls.clientCaFile: who signs the clients' certificates?");
	return 0;
}

static bool has_nodes(const struct config_cluster *cluster)
{
	return cluster->contact_points.count || *cluster->bundle;
}

/* Clients that are led to the target name the origin's tables there. */
static int check_mirror(const struct config *c, struct error *error)
{
	struct scope scope = {0};
	int rc = scope_from_config(c, &scope, error);

	scope_done(&scope);
	if (rc < 0 || !c->mirror.rename.count)
		return rc;
	if (c->phase.initial == CONFIG_PHASE_FINISH)
		return error_set(error, -EINVAL, "mirror.rename is set, but phase.initial is finish: clients would name the origin's "
						 "keyspaces on the target; leave one of the two out");
	if (*c->migration.service_host)
		return error_set(error, -EINVAL, "mirror.rename is set, but migration.serviceHost (MIGRATION_SERVICE_HOSTNAME) ends with a "
						 "cutover, which needs the same names on both clusters; leave one of the two out");
	return 0;
}

/* A host has at least one address, and what a cluster has no room for is never dialled. */
static int check_nodes(const struct config *c, struct error *error)
{
	const struct {
		const char *key;
		size_t count;
	} lists[] = {
		{"origin.contactPoints", c->origin.contact_points.count},
		{"connection.controlHosts", c->connection.control_hosts.count},
		{"origin.contactPoints and connection.controlHosts", c->origin.contact_points.count + c->connection.control_hosts.count},
		{"target.contactPoints", c->target.contact_points.count},
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (lists[i].count > RELAY_NODES_MAX)
			return error_set(error, -EINVAL, "%s: %zu hosts; allowed: at most %u", lists[i].key, lists[i].count, RELAY_NODES_MAX);
	return 0;
}

int config_check(const struct config *c, struct error *error)
{
	struct config_endpoint node;
	int rc;

	if (!c->intercept.enabled && !c->listen.port)
		return error_set(
		    error, -EINVAL,
		    "nothing to serve: intercept.enabled is false and listen.port is 0; set listen.port "
		    "(PROXY_QUERY_PORT) or enable interception");
	if (c->listen.port && !has_nodes(&c->origin))
		return error_set(error, -EINVAL,
				 "listen.port is set, but origin.contactPoints (SOURCE_HOSTNAME) is empty: "
				 "where should its "
				 "clients be led to?");
	if (c->intercept.enabled && *c->origin.bundle)
		return error_set(error, -EINVAL,
				 "origin.secureConnectBundle needs intercept.enabled false and listen.port: clients of such a cluster "
				 "speak TLS with its proxy, and nothing else names its nodes");
	if (c->intercept.enabled && !c->intercept.watch.count && !c->origin.contact_points.count)
		return error_set(
		    error, -EINVAL,
		    "nothing to intercept: intercept.watch and origin.contactPoints are both empty");
	if (c->phase.initial != CONFIG_PHASE_OBSERVE && !has_nodes(&c->target))
		return error_set(error, -EINVAL, "phase %s needs target.contactPoints (ASTRA_HOSTNAME)",
				 config_phase_name(c->phase.initial));
	if (c->migration.complete && c->phase.initial != CONFIG_PHASE_FINISH)
		return error_set(error, -EINVAL,
				 "migration.complete (MIGRATION_COMPLETE) is true, but phase.initial is %s; "
				 "allowed: finish, or "
				 "leave phase.initial out",
				 config_phase_name(c->phase.initial));
	if (same_node(c, &node))
		return error_set(error, -EINVAL,
				 "%s port %u is a contact point of both origin and target: every write would "
				 "be mirrored onto "
				 "itself",
				 node.host, node.port);
	rc = check_nodes(c, error);
	if (rc == 0)
		rc = check_credentials(&c->origin, "origin", error);
	if (rc == 0)
		rc = check_credentials(&c->target, "target", error);
	if (rc == 0)
		rc = check_tls(&c->origin, "origin", error);
	if (rc == 0)
		rc = check_tls(&c->target, "target", error);
	if (rc == 0)
		rc = check_listen_tls(c, error);
	if (rc == 0)
		rc = check_mirror(c, error);
	if (rc < 0)
		return rc;
	if (c->auth.client == AUTH_CLIENT_ANY && c->auth.mode != AUTH_CONFIGURED)
		return error_set(
		    error, -EINVAL,
		    "auth.client any needs auth.mode configured: with passthrough the origin decides");
	/* Asked for by name it must be possible; in document mode a cluster without authentication needs no
	 * role. */
	if (c->auth.mode == AUTH_CONFIGURED && config_is_set(c, "auth.mode") && !*c->origin.username)
		return error_set(error, -EINVAL,
				 "auth.mode configured needs origin.username (SOURCE_USERNAME)");
	if (*c->migration.service_host && !c->migration.service_port)
		return error_set(
		    error, -EINVAL,
		    "migration.serviceHost (MIGRATION_SERVICE_HOSTNAME) is set without migration.servicePort "
		    "(MIGRATION_PORT)");
	if (*c->migration.service_host && !c->migration.proxy_port)
		return error_set(
		    error, -EINVAL,
		    "migration.serviceHost (MIGRATION_SERVICE_HOSTNAME) is set without migration.proxyPort "
		    "(PROXY_PORT): the service could not send its Start");
	if (c->connection.overrides.count > MODE_RULES_MAX)
		return error_set(error, -EINVAL, "connection.overrides has %zu entries; allowed: at most %u", c->connection.overrides.count,
				 MODE_RULES_MAX);
	if (c->connection.control_hosts.count && *c->origin.bundle)
		return error_set(error, -EINVAL, "connection.controlHosts is set, but the nodes of the origin are reached through the proxy of its "
						 "secureConnectBundle; allowed: one of the two");
	if (c->limits.session_requests > c->limits.requests_in_flight)
		return error_set(error, -EINVAL,
				 "limits.sessionRequests (%u) is above limits.requestsInFlight (%u)",
				 c->limits.session_requests, c->limits.requests_in_flight);
	if (c->limits.mirror_bytes < c->limits.frame_bytes)
		return error_set(error, -EINVAL,
				 "limits.mirrorBytes is below limits.frameBytes: one request of the largest "
				 "size would never fit");
	return check_ports(c, error);
}
