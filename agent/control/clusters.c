/* SPDX-License-Identifier: Apache-2.0 */
#include "control/clusters.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"

static const char *name_of(unsigned which)
{
	return which < SIDES ? side_name((enum side)which) : "listen";
}

bool clusters_tls_settings(const struct config_cluster *from, struct tls_settings *ret)
{
	const struct config_tls *t = &from->tls;

	*ret = (struct tls_settings){.ca_file = t->ca_file,
				     .cert_file = t->cert_file,
				     .key_file = t->key_file,
				     .key_password_file = t->key_password_file,
				     .bundle_file = from->bundle,
				     .any_name = !t->verify_hostname,
				     .lowest = (enum tls_version)t->lowest};
	return t->enabled || *from->bundle;
}

bool clusters_client_settings(const struct config *c, struct tls_settings *ret)
{
	*ret = (struct tls_settings){.server = true,
				     .ca_file = c->listen.client_ca_file,
				     .cert_file = c->listen.cert_file,
				     .key_file = c->listen.key_file,
				     .key_password_file = c->listen.key_password_file,
				     .lowest = (enum tls_version)c->listen.lowest,
				     .client_auth = (enum tls_client_auth)c->listen.client_auth};
	return *c->listen.cert_file != 0;
}

/* ---- opening */

/* All addresses of one host become nodes, but for the room of one for each of the hosts `to_come`. 0, or −errno; `key` begins the reason. */
static int resolve_host(struct cluster *to, const struct config_endpoint *e, size_t to_come, const char *key, struct error *error)
{
	int found, room = (int)RELAY_NODES_MAX - (int)to->node_count - (int)to_come;
	unsigned char raw[16];
	struct error why;
	char text[300];

	room = room > 0 ? room : 0;
	snprintf(text, sizeof(text), strchr(e->host, ':') ? "[%s]:%u" : "%s:%u", e->host, e->port);
	found = addr_resolve_all(text, e->port, &to->nodes[to->node_count], (unsigned)room, &why);
	if (found < 0)
		return error_set(error, found, "%s: %s", key, why.text);
	if (found > room) {
		log_warn("agent", "%s: %s has %d addresses, of which %d are left out: a cluster may have %u in all", key, e->host, found,
			 found - room, RELAY_NODES_MAX);
		found = room;
	}
	for (; found > 0; found--, to->node_count++) {
		addr_unmap(&to->nodes[to->node_count]);
		if (inet_pton(AF_INET, e->host, raw) != 1 && inet_pton(AF_INET6, e->host, raw) != 1)
			snprintf(to->names[to->node_count], ENDPOINT_NAME, "%s", e->host);
	}
	return 0;
}

static int resolve_nodes(const struct config *c, enum side side, struct cluster *to, struct error *error)
{
	const struct config_cluster *from = side == ORIGIN ? &c->origin : &c->target;
	size_t controls = side == ORIGIN ? c->connection.control_hosts.count : 0, to_come = from->contact_points.count + controls;
	struct config_endpoint e;
	unsigned contacts;
	char key[64];
	int rc = 0;

	snprintf(key, sizeof(key), "%s.contactPoints", side_name(side));
	for (size_t i = 0; rc == 0 && i < from->contact_points.count; i++) {
		e = config_endpoint(from, i);
		rc = resolve_host(to, &e, --to_come, key, error);
	}
	contacts = to->node_count;
	for (size_t i = 0; rc == 0 && i < controls; i++) {
		e = config_control_host(c, i);
		rc = resolve_host(to, &e, --to_come, "connection.controlHosts", error);
	}
	to->control_count = to->node_count - contacts;
	return rc;
}

static int open_sni(struct clusters *all, const struct config *c, enum side side, const uint32_t *mark,
		    struct cluster *to, struct error *error)
{
	const struct config_cluster *from = side == ORIGIN ? &c->origin : &c->target;
	struct sni_settings settings = {.bundle_file = from->bundle,
					.cache_file = all->cache_file[side],
					.any_name = !from->tls.verify_hostname,
					.mark = mark,
					.tls = all->tls[side]};
	struct error stale, why;
	struct endpoint first;
	int rc;

	if (mark && *c->state.directory)
		snprintf(all->cache_file[side], PATH_MAX, "%s/%s-nodes.json", c->state.directory,
			 side_name(side));
	rc = sni_new(&settings, &all->sni[side], &stale, &why);
	if (rc < 0)
		return error_set(error, rc, "%s.secureConnectBundle: %s", side_name(side), why.text);
	if (*stale.text)
		log_warn("agent", "%s.secureConnectBundle: %s; going on with the nodes that it named before",
			 side_name(side), stale.text);
	to->sni = all->sni[side];
	to->node_count = sni_count(to->sni);
	sni_endpoint(to->sni, 0, &first);
	for (unsigned i = 0; i < to->node_count; i++)
		to->nodes[i] = first.addr;
	return 0;
}

int clusters_open_one(struct clusters *all, const struct config *c, enum side side, const uint32_t *mark,
		      struct cluster *to, struct error *error)
{
	const struct config_cluster *from = side == ORIGIN ? &c->origin : &c->target;
	struct tls_settings settings;
	struct error why;
	int rc;

	to->username = from->username;
	to->password = from->password;
	if (clusters_tls_settings(from, &settings)) {
		rc = tls_context_new(&settings, &all->tls[side], &why);
		if (rc < 0)
			return error_set(error, rc, "%s.%s: %s", side_name(side),
					 *from->bundle ? "secureConnectBundle" : "tls", why.text);
		to->tls = all->tls[side];
		to->server_name = from->tls.server_name;
	}
	if (*from->bundle)
		return open_sni(all, c, side, mark, to, error);
	return resolve_nodes(c, side, to, error);
}

int clusters_open(struct clusters *all, const struct config *c, struct relay_options *o, struct error *error)
{
	struct tls_settings settings;
	struct error why;
	int rc = clusters_open_one(all, c, ORIGIN, &o->mark, &o->cluster[ORIGIN], error);

	if (rc == 0)
		rc = clusters_open_one(all, c, TARGET, &o->mark, &o->cluster[TARGET], error);
	if (rc == 0 && clusters_client_settings(c, &settings)) {
		rc = tls_context_new(&settings, &all->client, &why);
		if (rc < 0)
			error_set(error, rc, "listen.tls: %s", why.text);
	}
	o->client_tls = all->client;
	return rc;
}

void clusters_close(struct clusters *all)
{
	for (int side = 0; side < SIDES; side++) {
		sni_free(all->sni[side]);
		tls_context_free(all->tls[side]);
	}
	tls_context_free(all->client);
	memset(all, 0, sizeof(*all));
}

/* ---- looking again */

static void look_work(uv_work_t *work)
{
	struct clusters *all = work->data;
	struct tls_context *const contexts[SIDES + 1] = {all->tls[ORIGIN], all->tls[TARGET], all->client};

	for (int i = 0; i < SIDES + 1; i++)
		all->look[i].result = contexts[i] ? tls_context_refresh(contexts[i], &all->look[i].error) : 0;
	for (int side = 0; side < SIDES; side++)
		all->nodes[side].result = all->sni[side] && (all->ask || all->look[side].result == 1)
					      ? sni_refresh(all->sni[side], &all->nodes[side].error)
					      : 0;
}

static void look_done(uv_work_t *work, int status)
{
	struct clusters *all = work->data;

	all->running = false;
	if (status < 0)
		return;
	for (unsigned i = 0; i < SIDES + 1; i++) {
		if (all->look[i].result > 0) {
			metric_add(all->metrics, METRIC_TLS_RELOADED, 1);
			log_info("agent", "%s: new certificates are in force from the next TLS handshake on",
				 name_of(i));
		} else if (all->look[i].result < 0) {
			metric_add(all->metrics, METRIC_TLS_RELOAD_FAILED, 1);
			log_error("agent", "%s: the new certificates cannot be used, the old ones stay: %s",
				  name_of(i), all->look[i].error.text);
		}
	}
	for (unsigned i = 0; i < SIDES; i++) {
		if (all->nodes[i].result > 0)
			log_info("agent",
				 "%s.secureConnectBundle: the nodes behind the proxy have changed: %u now",
				 name_of(i), sni_count(all->sni[i]));
		else if (all->nodes[i].result < 0 && !all->sni_failed[i])
			log_warn("agent",
				 "%s.secureConnectBundle: %s; going on with the nodes that it named before",
				 name_of(i), all->nodes[i].error.text);
		if (all->ask || all->nodes[i].result)
			all->sni_failed[i] = all->nodes[i].result < 0;
	}
}

void clusters_tick(struct clusters *all, uv_loop_t *loop, struct metrics *metrics)
{
	if (all->running || !(all->tls[ORIGIN] || all->tls[TARGET] || all->client))
		return;
	all->metrics = metrics;
	all->ask = ++all->seconds % CLUSTERS_SNI_SECONDS == 0;
	all->work.data = all;
	all->running = uv_queue_work(loop, &all->work, look_work, look_done) == 0;
}
