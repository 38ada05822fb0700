/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run, and what concerns nodes: reachable, two different clusters, partitioner, schema agreement, clocks.
 */
#include "mirror/preflight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mirror/preflight_priv.h"
#include "mirror/skew.h"

#define QUESTION_MS 5000u
#define FURTHER_NODES_NS (15ull * 1000000000u) /* spent on contact points beyond the first that answered */
#define HOST_ID 16

/* What a node says of itself and of its peers. */
struct node_facts {
	char release[64], partitioner[128], cluster[128];
	uint8_t host_id[HOST_ID], schema_version[HOST_ID];
	bool has_host_id, has_schema_version;
};

struct peer_facts {
	const struct node_facts *local;
	unsigned peers, other_schemas, other_releases;
	const uint8_t *wanted; /* a host id of the other cluster */
	bool found_wanted;
};

/* ------------------------------------------------------------- small things */

void preflight_say(struct preflight *p, enum preflight_grade grade, const char *remedy, const char *format,
		   ...)
{
	char what[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	if (grade > p->worst)
		p->worst = grade;
	p->found(p->context, grade, what, grade == PREFLIGHT_OK ? NULL : remedy);
}

void roster_add(struct roster *r, const char *format, ...)
{
	size_t at = strlen(r->text), keep = sizeof(r->text) - 32; /* room for "and N more" */
	char name[300];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	r->count++;
	if (r->shown + 1 != r->count || at + strlen(name) + 2 >= keep)
		return;
	r->shown++;
	snprintf(r->text + at, sizeof(r->text) - at, "%s%s", at ? ", " : "", name);
}

const char *roster_text(struct roster *r)
{
	size_t at = strlen(r->text);

	if (r->shown < r->count)
		snprintf(r->text + at, sizeof(r->text) - at, " and %u more", r->count - r->shown);
	r->shown = r->count;
	return r->text;
}

const char *preflight_quote(const char *name, char to[PREFLIGHT_NAME_MAX])
{
	size_t n = 0;

	to[n++] = '"';
	for (; *name && n < PREFLIGHT_NAME_MAX - 3; name++) {
		if (*name == '"')
			to[n++] = '"';
		to[n++] = *name;
	}
	to[n++] = '"';
	to[n] = 0;
	return to;
}

struct span preflight_cell(const struct column *columns, const struct span *cells, unsigned count,
			   const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (span_equal(columns[i].name, span_text(name)))
			return cells[i];
	return (struct span){0};
}

const char *preflight_text(struct span cell, char *to, size_t size)
{
	size_t n = cell.size < size - 1 ? cell.size : size - 1;

	if (n)
		memcpy(to, cell.data, n);
	to[n] = 0;
	return to;
}

/* ------------------------------------------------------------- a node and its peers */

static bool uuid_cell(struct span cell, uint8_t to[HOST_ID])
{
	if (cell.size != HOST_ID)
		return false;
	memcpy(to, cell.data, HOST_ID);
	return true;
}

static int on_local(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct node_facts *f = context;

	preflight_text(preflight_cell(columns, cells, count, "release_version"), f->release,
		       sizeof(f->release));
	preflight_text(preflight_cell(columns, cells, count, "partitioner"), f->partitioner,
		       sizeof(f->partitioner));
	preflight_text(preflight_cell(columns, cells, count, "cluster_name"), f->cluster, sizeof(f->cluster));
	f->has_host_id = uuid_cell(preflight_cell(columns, cells, count, "host_id"), f->host_id);
	f->has_schema_version =
	    uuid_cell(preflight_cell(columns, cells, count, "schema_version"), f->schema_version);
	return 0;
}

static int on_peer(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct peer_facts *f = context;
	struct span host = preflight_cell(columns, cells, count, "host_id");
	struct span schema = preflight_cell(columns, cells, count, "schema_version");
	struct span release = preflight_cell(columns, cells, count, "release_version");

	if (!host.data) /* a half-written row of a node that left */
		return 0;
	f->peers++;
	if (f->wanted && span_equal(host, span_of(f->wanted, HOST_ID)))
		f->found_wanted = true;
	if (schema.data && f->local && f->local->has_schema_version &&
	    !span_equal(schema, span_of(f->local->schema_version, HOST_ID)))
		f->other_schemas++;
	if (release.data && f->local && !span_equal(release, span_text(f->local->release)))
		f->other_releases++;
	return 0;
}

static int ask_local(struct client *c, struct node_facts *f, struct error *error)
{
	memset(f, 0, sizeof(*f));
	return client_query(
	    c, "SELECT cluster_name, release_version, partitioner, host_id, schema_version FROM system.local "
	       "WHERE key = 'local'",
	    CL_ONE, on_local, f, error);
}

static int ask_peers(struct client *c, struct peer_facts *f, struct error *error)
{
	return client_query(c, "SELECT host_id, schema_version, release_version FROM system.peers", CL_ONE,
			    on_peer, f, error);
}

/* ------------------------------------------------------------- clocks */

static void check_clock(struct preflight *p, enum side side, struct client *c)
{
	static const char remedy[] = "synchronise the clocks of that node and of this one (chrony, ntpd): "
				     "write timestamps come from this "
				     "one; or raise limits.maxClockSkewMillis";
	static const enum preflight_grade grades[] = {[SKEW_FINE] = PREFLIGHT_OK, [SKEW_UNSURE] = PREFLIGHT_WARN, [SKEW_BEYOND] = PREFLIGHT_FAIL};
	enum preflight_grade grade;
	struct error error = {0};
	struct skew skew;

	if (skew_measure(c, &skew, &error) < 0) {
		preflight_say(
		    p, PREFLIGHT_FAIL,
		    "see the server's message; the clock's offset must be known before writes are mirrored",
		    "%s: the clock cannot be read: %s", side_name(side),
		    error.text[0] ? error.text : "malformed answer");
		return;
	}
	grade = grades[skew_judge(&skew, p->max_skew_ms)];
	preflight_say(p, grade, remedy,
		      "%s: the clock of %s is %.1f ms %s this node's (± %.1f ms, allowed %u ms)%s",
		      side_name(side), client_node(c), (double)skew_far(&skew) / 1000, skew.offset_us < 0 ? "behind" : "ahead of",
		      (double)skew.unsure_us / 1000, p->max_skew_ms,
		      grade == PREFLIGHT_WARN ? ": too close to the limit to tell" : "");
}

/* ------------------------------------------------------------- reaching a cluster */

static const char *remedy_for(int code)
{
	switch (code) {
	case -ENOKEY:
		return "configure a role for the agent: username and password (or passwordFile) of that "
		       "cluster";
	case -EACCES:
		return "correct username and password (or passwordFile) of that cluster; the role needs "
		       "LOGIN = true";
	case -ECONNREFUSED:
		return "is the node up, and is this its CQL port?";
	case -EPROTO:
	case -ECONNRESET:
		return "is this the CQL port, and does it speak TLS just where tls.enabled says so?";
	case -EKEYREJECTED:
		return "correct tls.caFile or tls.serverName, or give the node another certificate";
	case -EAGAIN:
		return "are enough nodes of that cluster up? (system_auth should be replicated to each of "
		       "them)";
	case -EPROTONOSUPPORT:
		return "cqlferry needs protocol v4 or v5 on both clusters";
	default:
		return "is there a route, and does no firewall or NetworkPolicy drop it?";
	}
}

/* Connects to one contact point and reports on it. NULL when it cannot be used. */
static struct client *check_node(struct preflight *p, enum side side, unsigned node,
				 enum preflight_grade when_down)
{
	const struct cluster *cluster = &p->cluster[side];
	struct node_facts facts;
	struct client *c = NULL;
	struct endpoint to;
	struct error error = {0};
	int rc;

	cluster_endpoint(cluster, node, &to);
	rc = client_open(&c, cluster, &to, p->mark, QUESTION_MS, &error);
	if (rc == 0)
		rc = ask_local(c, &facts, &error);
	if (rc < 0) {
		/* One password for the whole cluster: refused by one node is refused. */
		preflight_say(p, rc == -EACCES || rc == -ENOKEY ? PREFLIGHT_FAIL : when_down, remedy_for(rc),
			      "%s: %s", side_name(side), error.text);
		client_close(c);
		return NULL;
	}
	preflight_say(p, PREFLIGHT_OK, NULL, "%s: %s answers, release %s, cluster \"%s\"", side_name(side),
		      client_node(c), facts.release, facts.cluster);
	check_clock(p, side, c);
	return c;
}

/*
 * One node must answer; others that do not are a warning, since the drivers' and the mirror's connections are
 * spread over all. While none has answered it is not known yet whether a silent one matters: those are told
 * as warnings, too, and a FAIL ends it.
 */
static void check_nodes(struct preflight *p, enum side side)
{
	const struct cluster *cluster = &p->cluster[side];
	uint64_t until = 0;
	char remedy[96];

	snprintf(remedy, sizeof(remedy), "set %s.contactPoints", side_name(side));
	if (!cluster->node_count)
		preflight_say(p, PREFLIGHT_FAIL, remedy,
			      "%s: no contact points are configured, so it cannot be checked",
			      side_name(side));
	for (unsigned i = 0; i < cluster->node_count; i++) {
		bool last = !p->client[side] && i + 1 == cluster->node_count;

		if (until && clock_now_ns() > until) {
			preflight_say(p, PREFLIGHT_WARN, "remove contact points that do not exist any more",
				      "%s: %u contact points were not tried, the others took too long",
				      side_name(side), cluster->node_count - i);
			break;
		}
		struct client *c = check_node(p, side, i, last ? PREFLIGHT_FAIL : PREFLIGHT_WARN);

		if (!c || p->client[side]) {
			client_close(c);
			continue;
		}
		p->client[side] = c;
		until = clock_now_ns() + FURTHER_NODES_NS;
	}
}

/* ------------------------------------------------------------- identity */

static const char *last_part(const char *class)
{
	const char *dot = strrchr(class, '.');

	return dot ? dot + 1 : class;
}

static void check_agreement(struct preflight *p, enum side side, const struct node_facts *local,
			    struct peer_facts *peers)
{
	struct error error = {0};

	if (ask_peers(p->client[side], peers, &error) < 0) {
		preflight_say(p, PREFLIGHT_WARN, "see the server's message",
			      "%s: its peers cannot be read: %s", side_name(side), error.text);
		return;
	}
	if (peers->other_schemas)
		preflight_say(p, PREFLIGHT_WARN,
			      "wait for schema agreement (nodetool describecluster) and check again",
			      "%s: %u of %u peers have another schema version than %s", side_name(side),
			      peers->other_schemas, peers->peers, client_node(p->client[side]));
	if (peers->other_releases)
		preflight_say(p, PREFLIGHT_WARN, "finish the upgrade of that cluster first",
			      "%s: %u of %u peers run another release than %s (%s)", side_name(side),
			      peers->other_releases, peers->peers, client_node(p->client[side]),
			      local->release);
}

static void check_identity(struct preflight *p)
{
	struct node_facts local[SIDES];
	struct peer_facts peers[SIDES] = {{0}};
	struct error error = {0};

	for (enum side s = ORIGIN; s < SIDES; s++)
		if (ask_local(p->client[s], &local[s], &error) < 0) {
			preflight_say(p, PREFLIGHT_FAIL, "see the server's message",
				      "%s: system.local cannot be read: %s", side_name(s), error.text);
			return;
		}
	for (enum side s = ORIGIN; s < SIDES; s++) {
		enum side other = side_other(s);

		peers[s].local = &local[s];
		peers[s].wanted = local[other].has_host_id ? local[other].host_id : NULL;
		check_agreement(p, s, &local[s], &peers[s]);
	}
	if ((local[ORIGIN].has_host_id && local[TARGET].has_host_id &&
	     !memcmp(local[ORIGIN].host_id, local[TARGET].host_id, HOST_ID)) ||
	    peers[ORIGIN].found_wanted || peers[TARGET].found_wanted)
		preflight_say(p, PREFLIGHT_FAIL, "correct origin.contactPoints or target.contactPoints",
			      "origin and target are the same cluster: %s and %s",
			      client_node(p->client[ORIGIN]), client_node(p->client[TARGET]));
	if (strcmp(local[ORIGIN].partitioner, local[TARGET].partitioner) != 0)
		preflight_say(p, PREFLIGHT_FAIL,
			      "build the target with the origin's partitioner: token() and token ranges mean "
			      "different rows otherwise",
			      "partitioners differ: origin %s, target %s",
			      last_part(local[ORIGIN].partitioner), last_part(local[TARGET].partitioner));
	else
		preflight_say(p, PREFLIGHT_OK, NULL, "both clusters use %s",
			      last_part(local[ORIGIN].partitioner));
}

/* ------------------------------------------------------------- the run */

int preflight_run(const struct cluster cluster[SIDES], const struct scope *scope, uint32_t mark, unsigned max_clock_skew_ms,
		  void (*found)(void *context, enum preflight_grade grade, const char *what,
				const char *remedy),
		  void *context)
{
	struct preflight p = {.cluster = cluster,
			      .scope = scope,
			      .mark = mark,
			      .max_skew_ms = max_clock_skew_ms,
			      .found = found,
			      .context = context};

	for (enum side s = ORIGIN; s < SIDES; s++)
		check_nodes(&p, s);
	if (p.client[ORIGIN] && p.client[TARGET]) {
		check_identity(&p);
		preflight_zones(&p);
	}
	for (enum side s = ORIGIN; s < SIDES; s++)
		if (p.client[s])
			preflight_schema_load(&p, s);
	if (p.schema[ORIGIN].loaded && p.schema[TARGET].loaded)
		preflight_schema_compare(&p);
	if (p.schema[TARGET].loaded)
		preflight_roles(&p, TARGET);
	if (p.schema[ORIGIN].loaded)
		preflight_roles(&p, ORIGIN);
	if (p.client[ORIGIN])
		preflight_clients_readable(&p);
	for (enum side s = ORIGIN; s < SIDES; s++) {
		client_close(p.client[s]);
		schema_done(&p.schema[s]);
	}
	return p.no_memory ? -ENOMEM : (int)p.worst;
}
