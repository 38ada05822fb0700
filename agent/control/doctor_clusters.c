// SPDX-License-Identifier: Apache-2.0
/*
 * The way to each contact point: name, TCP, TLS, and one CQL round trip. OPTIONS needs no login
 * (native_protocol_v4.spec 4.1.3); its answer names the protocol versions, and whether anything but CQL
 * listens there.
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "base/clock.h"
#include "control/clusters.h"
#include "control/doctor.h"
#include "cql/frame.h"
#include "cql/response.h"
#include "net/connect.h"
#include "net/stream_tls.h"
#include "relay/options.h"

/* What SUPPORTED lists for `key`, as "a, b". */
static void supported_entry(struct span body, const char *key, char *text, size_t room)
{
	size_t at = 0, out = 0;
	int count = supported_list(body, key, &at);

	text[0] = 0;
	for (at += 2; count > 0 && out + 1 < room && at + 2 <= body.size; count--) {
		size_t n = (size_t)(body.data[at] << 8 | body.data[at + 1]);

		at += 2;
		if (n > body.size - at)
			return;
		out += (size_t)snprintf(text + out, room - out, "%s%.*s", out ? ", " : "", (int)n, body.data + at);
		at += n;
	}
}

static void report_answer(struct doctor *d, const char *who, const char *reason, const uint8_t *answer, ssize_t size)
{
	bool frame = size >= FRAME_HEADER_SIZE && (answer[0] & 0x80);
	char versions[256];

	if (size < 0) {
		doctor_find(d, DOCTOR_FAIL, "is this the CQL port, and does it speak TLS just where tls.enabled says so?",
			    "%s accepts connections, but does not answer CQL: %s", who, reason ? reason : strerror((int)-size));
	} else if (size >= 2 && answer[0] == 0x15 && answer[1] == 0x03) {
		doctor_find(d, DOCTOR_FAIL, "set tls.enabled for that cluster, with its CA in tls.caFile", "%s speaks TLS", who);
	} else if (frame && answer[4] == OP_SUPPORTED) {
		supported_entry(span_of(answer + FRAME_HEADER_SIZE, (size_t)size - FRAME_HEADER_SIZE), "PROTOCOL_VERSIONS", versions,
				sizeof(versions));
		doctor_find(d, DOCTOR_OK, NULL, "%s speaks CQL%s%s", who, *versions ? ": " : "", versions);
	} else if (frame && answer[4] == OP_ERROR) {
		doctor_find(d, DOCTOR_WARN, "cqlferry needs protocol v4 or v5 on both clusters",
			    "%s speaks CQL, but refuses protocol v4 (answers with version %u)", who,
			    answer[0] & 0x7f);
	} else {
		doctor_find(d, DOCTOR_FAIL, "is this the CQL port?",
			    "%s answers with something that is not CQL", who);
	}
}

static void report_tls(struct doctor *d, const char *who, const struct stream *stream)
{
	struct stream_tls_peer peer;

	stream_tls_peer(stream, &peer);
	doctor_find(d, DOCTOR_OK, NULL, "%s: %s, certificate of %s", who, peer.version, peer.subject);
	doctor_tls_expiry(d, who, peer.subject, peer.not_after, "give that node a new certificate");
}

/* One address. False: it cannot be reached, and another one may be tried. */
static bool check_endpoint(struct doctor *d, const struct config *c, const char *who, const struct endpoint *to, bool last)
{
	uint8_t answer[OPTIONS_ANSWER_MAX];
	uint64_t deadline = clock_now_ns() + (uint64_t)c->limits.dial_timeout_millis * 1000000u;
	struct stream stream;
	struct error why;
	int rc = stream_connect(to, 0, deadline, &stream, &why);
	ssize_t size;

	if (rc == -EKEYREJECTED || rc == -EPROTO) {
		doctor_find(d, DOCTOR_FAIL, "correct tls.caFile, tls.certFile or tls.serverName, or the node's certificate",
			    "%s: %s", who, why.text);
		return true;
	}
	if (rc < 0) {
		if (last)
			doctor_find(d, DOCTOR_FAIL,
				    rc == -ECONNREFUSED
					? "is the node up, and is this its CQL port?"
					: "is there a route, and does no firewall or NetworkPolicy drop it?",
				    "%s cannot be reached: %s", who, why.text);
		return false;
	}
	if (to->tls)
		report_tls(d, who, &stream);
	size = options_ask(&stream, deadline, answer);
	report_answer(d, who, stream_reason(&stream), answer, size);
	stream_close(&stream);
	return true;
}

static void check_node(struct doctor *d, const struct config *c, enum side side, struct tls_context *tls,
		       struct config_endpoint node)
{
	const struct config_cluster *cluster = side == ORIGIN ? &c->origin : &c->target;
	const char *name = *cluster->tls.server_name ? cluster->tls.server_name : node.host;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
	struct endpoint to = {.tls = tls};
	char port[8], who[320];
	int rc;

	snprintf(port, sizeof(port), "%u", node.port);
	snprintf(who, sizeof(who), "%s %s port %s", side_name(side), node.host, port);
	rc = getaddrinfo(node.host, port, &hints, &list);
	if (rc != 0) {
		doctor_find(d, DOCTOR_FAIL, "correct the name, or give an address", "%s: %s", who,
			    gai_strerror(rc));
		return;
	}
	snprintf(to.names[0], ENDPOINT_NAME, "%s", name);
	snprintf(to.sni, sizeof(to.sni), "%s", name);
	for (struct addrinfo *a = list; a; a = a->ai_next) {
		memcpy(&to.addr.storage, a->ai_addr, a->ai_addrlen);
		if (check_endpoint(d, c, who, &to, !a->ai_next))
			break;
	}
	freeaddrinfo(list);
}

static void check_behind_proxy(struct doctor *d, const struct config *c, enum side side, struct clusters *all)
{
	struct cluster cluster = {0};
	struct endpoint to;
	struct error error;
	char who[400], text[ADDR_TEXT_MAX];

	if (clusters_open_one(all, c, side, NULL, &cluster, &error) < 0) {
		doctor_find(d, DOCTOR_FAIL, "download the bundle anew, and see that this node may reach the metadata service and the proxy",
			    "%s", error.text);
		return;
	}
	doctor_find(d, DOCTOR_OK, NULL, "%s: the metadata service names %u nodes behind %s", side_name(side), cluster.node_count,
		    addr_format(&cluster.nodes[0], text));
	for (unsigned i = 0; i < cluster.node_count; i++) {
		cluster_endpoint(&cluster, i, &to);
		snprintf(who, sizeof(who), "%s node %s by %s", side_name(side), to.sni, addr_format(&to.addr, text));
		check_endpoint(d, c, who, &to, true);
	}
}

static void check_cluster(struct doctor *d, const struct config *c, enum side side)
{
	const struct config_cluster *cluster = side == ORIGIN ? &c->origin : &c->target;
	struct clusters all = {0};
	struct tls_settings settings;
	struct error error;

	if (*cluster->bundle)
		check_behind_proxy(d, c, side, &all);
	else if (clusters_tls_settings(cluster, &settings) && tls_context_new(&settings, &all.tls[side], &error) < 0)
		doctor_find(d, DOCTOR_NOTE, NULL, "%s was not asked: its certificates cannot be used (see below)", side_name(side));
	else
		for (size_t i = 0; i < cluster->contact_points.count; i++)
			check_node(d, c, side, all.tls[side], config_endpoint(cluster, i));
	clusters_close(&all);
}

static void check_clusters(struct doctor *d, const struct config *c, void *context)
{
	(void)context;
	check_cluster(d, c, ORIGIN);
	check_cluster(d, c, TARGET);
	if (!c->origin.contact_points.count && !*c->origin.bundle)
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "origin.contactPoints is empty: the origin is learned from the clients");
	if (!c->target.contact_points.count && !*c->target.bundle)
		doctor_find(d, DOCTOR_NOTE, NULL, "target.contactPoints is empty: nothing can be mirrored");
}

void doctor_add_clusters(struct doctor *d)
{
	doctor_add(d, "clusters", check_clusters, NULL);
}
