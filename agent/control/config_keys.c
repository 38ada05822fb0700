// SPDX-License-Identifier: Apache-2.0
/*
 * The table of keys and the table of the document's variables. A line here changes only together with its row
 * in docs/configuration.md (`cqlferry help configuration --markdown` prints both tables; test_config
 * compares).
 */
#include "control/config_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "base/log.h"
#include "cql/scope.h"
#include "net/mode.h"
#include "net/tls_context.h"

static const struct config_name acceleration_names[] = {
    {"auto", ACCELERATION_AUTO}, {"on", ACCELERATION_ON}, {"off", ACCELERATION_OFF}, {NULL, 0}};
static const struct config_name down_observe_names[] = {{"open", AGENT_DOWN_OPEN}, {NULL, 0}};
static const struct config_name down_mirror_names[] = {
    {"grace", AGENT_DOWN_GRACE}, {"open", AGENT_DOWN_OPEN}, {"closed", AGENT_DOWN_CLOSED}, {NULL, 0}};
/* Open in cutover or rollback would be split brain: no name for it exists. */
static const struct config_name down_closed_names[] = {{"closed", AGENT_DOWN_CLOSED}, {NULL, 0}};
static const struct config_name down_finish_names[] = {
    {"target", AGENT_DOWN_TARGET}, {"closed", AGENT_DOWN_CLOSED}, {NULL, 0}};
static const struct config_name policy_names[] = {
    {"block", MIRROR_POLICY_BLOCK}, {"shed", MIRROR_POLICY_SHED}, {NULL, 0}};
static const struct config_name sync_names[] = {{"memory", CONFIG_SYNC_MEMORY},
						{"none", CONFIG_SYNC_NONE},
						{"interval", CONFIG_SYNC_INTERVAL},
						{"commit", CONFIG_SYNC_COMMIT},
						{NULL, 0}};
static const struct config_name auth_mode_names[] = {
    {"passthrough", AUTH_PASSTHROUGH}, {"configured", AUTH_CONFIGURED}, {NULL, 0}};
static const struct config_name auth_client_names[] = {
    {"match", AUTH_CLIENT_MATCH}, {"any", AUTH_CLIENT_ANY}, {NULL, 0}};
static const struct config_name ddl_names[] = {
    {"mirror", DDL_MIRROR}, {"refuse", DDL_REFUSE}, {"ignore", DDL_IGNORE}, {NULL, 0}};
static const struct config_name topology_names[] = {
    {"freeze", TOPOLOGY_FREEZE}, {"target", TOPOLOGY_TARGET}, {NULL, 0}};
static const struct config_name acknowledgement_names[] = {
    {"journal", ACKNOWLEDGE_JOURNAL}, {"both", ACKNOWLEDGE_BOTH}, {NULL, 0}};
static const struct config_name mode_names[] = {
    {"auto", MODE_AUTO}, {"direct", MODE_DIRECT}, {"proxy", MODE_PROXY}, {NULL, 0}};
static const struct config_name log_names[] = {
    {"error", LOG_ERROR}, {"warn", LOG_WARN}, {"info", LOG_INFO}, {"debug", LOG_DEBUG}, {NULL, 0}};
/* Drain, cutover and rollback are moves between states: nothing can start there. */
static const struct config_name phase_names[] = {{"observe", CONFIG_PHASE_OBSERVE},
						 {"mirror", CONFIG_PHASE_MIRROR},
						 {"finish", CONFIG_PHASE_FINISH},
						 {NULL, 0}};
static const struct config_name tls_version_names[] = {{"1.2", TLS_1_2}, {"1.3", TLS_1_3}, {NULL, 0}};
static const struct config_name client_auth_names[] = {
    {"none", TLS_CLIENT_AUTH_NONE}, {"optional", TLS_CLIENT_AUTH_OPTIONAL}, {"required", TLS_CLIENT_AUTH_REQUIRED}, {NULL, 0}};
/* ANY, ONE and LOCAL_ONE included: a single-node target in a test has nothing higher to offer. */
static const struct config_name consistency_names[] = {{"", CONFIG_CONSISTENCY_DEFAULT},
						       {"ANY", 0},
						       {"ONE", 1},
						       {"TWO", 2},
						       {"THREE", 3},
						       {"QUORUM", 4},
						       {"ALL", 5},
						       {"LOCAL_QUORUM", 6},
						       {"EACH_QUORUM", 7},
						       {"LOCAL_ONE", 10},
						       {NULL, 0}};

static bool is_ip(const char *text)
{
	unsigned char raw[16];

	return inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1;
}

static const char *valid_ip(const char *value)
{
	return is_ip(value) ? NULL : "is not an IP address";
}

static const char *valid_ip4_or_empty(const char *value)
{
	unsigned char raw[4];

	return !*value || inet_pton(AF_INET, value, raw) == 1 ? NULL : "is not an IPv4 address";
}

static const char *valid_ip6_or_empty(const char *value)
{
	unsigned char raw[16];

	return !*value || inet_pton(AF_INET6, value, raw) == 1 ? NULL : "is not an IPv6 address";
}

static const char *valid_absolute(const char *value)
{
	return value[0] == '/' ? NULL : "is not an absolute path";
}

static const char *valid_absolute_or_empty(const char *value)
{
	return !*value ? NULL : valid_absolute(value);
}

/* sun_path holds 108 bytes with its end (unix(7)). */
static const char *valid_socket(const char *value)
{
	return strlen(value) > 107 ? "is longer than the 107 bytes that a unix socket's path can have"
				   : valid_absolute(value);
}

static const char *valid_cgroup(const char *value)
{
	return strstr(value, "..") ? "contains .." : !*value ? "is empty" : NULL;
}

/* Names as DNS and Kubernetes allow them, underscores included, or an IP literal. */
static bool is_host(const char *text)
{
	size_t size = strlen(text);

	if (is_ip(text))
		return true;
	if (size == 0 || size > 253 || text[0] == '-' || text[0] == '.')
		return false;
	for (size_t i = 0; i < size; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("-._", text[i]))
			return false;
	/* 10.0.0.300 is a slip of the pen, not a name: no top-level domain is a number. */
	const char *last = strrchr(text, '.');

	return !(last ? last[1] && strspn(last + 1, "0123456789") == strlen(last + 1)
		      : strspn(text, "0123456789") == size);
}

static const char *valid_host_or_empty(const char *value)
{
	return !*value || is_host(value) ? NULL : "is not a host name or address";
}

bool config_split_endpoint(const char *text, struct config_endpoint *ret_endpoint)
{
	struct config_endpoint e = {0};
	const char *host = text, *end, *port = NULL;
	uint64_t number = 0;

	if (text[0] == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || (end[1] && end[1] != ':'))
			return false;
		if (end[1])
			port = end + 2;
	} else {
		end = strchr(text, ':');
		if (end && !strchr(end + 1, ':')) {
			port = end + 1;
		} else { /* no colon, or several: a bare IPv6 address */
			end = text + strlen(text);
		}
	}
	if ((size_t)(end - host) >= sizeof(e.host))
		return false;
	memcpy(e.host, host, (size_t)(end - host));
	if (port && (!config_number(port, &number) || number == 0 || number > 65535))
		return false;
	unsigned char raw[16];

	if (text[0] == '[' && inet_pton(AF_INET6, e.host, raw) != 1)
		return false;
	e.port = (uint16_t)number;
	if (!is_host(e.host))
		return false;
	*ret_endpoint = e;
	return true;
}

static const char *valid_endpoint(const char *value)
{
	struct config_endpoint e;

	return config_split_endpoint(value, &e) ? NULL : "is not host or host:port";
}

/* address[/bits][:port], IPv6 with a port in brackets: [fd00::/64]:9042 */
static const char *valid_watch(const char *value)
{
	static const char wrong[] = "is not address, address/bits or either with :port";
	char text[128];
	char *address = text, *slash, *port = NULL;
	uint64_t number;
	unsigned char raw[16];

	if (strlen(value) >= sizeof(text))
		return wrong;
	memcpy(text, value, strlen(value) + 1);
	if (text[0] == '[') {
		char *close = strchr(text, ']');

		if (!close || (close[1] && close[1] != ':'))
			return wrong;
		if (close[1])
			port = close + 2;
		*close = 0;
		address = text + 1;
	} else {
		char *colon = strchr(text, ':');

		if (colon && !strchr(colon + 1, ':')) {
			*colon = 0;
			port = colon + 1;
		}
	}
	if (port && (!config_number(port, &number) || number == 0 || number > 65535))
		return wrong;
	slash = strchr(address, '/');
	if (slash)
		*slash++ = 0;
	bool v4 = inet_pton(AF_INET, address, raw) == 1;

	if (!v4 && inet_pton(AF_INET6, address, raw) != 1)
		return wrong;
	if (v4 && text[0] == '[')
		return wrong;
	if (slash && (!config_number(slash, &number) || number > (v4 ? 32u : 128u)))
		return "has a prefix length that its address family does not have";
	if (slash && number == 0)
		return "would take in every connection of the node";
	return NULL;
}

static const char *valid_pattern(const char *value)
{
	struct table_name name;

	return scope_read_pattern(value, &name) == 0 ? NULL : "is not keyspace, keyspace.* or keyspace.table, spelled as in the schema and without quotes";
}

static const char *valid_rename(const char *value)
{
	struct scope_rename rename;

	return scope_read_rename(value, &rename) == 0 ? NULL : "is not keyspace=name or keyspace.table=name, without quotes";
}

/* What it says is wrong is the middle of a sentence, as a validator's text has to be. */
static const char *valid_override(const char *value)
{
	static _Thread_local struct error why;
	struct mode_rule rule;

	return mode_rule_parse(value, &rule, &why) < 0 ? why.text : NULL;
}

#define AT(field) offsetof(struct config, field)
#define STRING(path, field, standard, valid, allowed, help)                                       \
	{                                                                                         \
		path, CONFIG_STRING, AT(field), standard, 0, 0, NULL, valid, false, allowed, help \
	}
#define SECRET(path, field, help)                                                        \
	{                                                                                \
		path, CONFIG_STRING, AT(field), "", 0, 0, NULL, NULL, true, "text", help \
	}
#define ENUM(path, field, standard, names, help)                                             \
	{                                                                                    \
		path, CONFIG_ENUM, AT(field), standard, 0, 0, names, NULL, false, NULL, help \
	}
#define BOOL(path, field, standard, help)                                                              \
	{                                                                                              \
		path, CONFIG_BOOL, AT(field), standard, 0, 0, NULL, NULL, false, "true or false", help \
	}
#define NUMBER(path, field, standard, min, max, help)                                          \
	{                                                                                      \
		path, CONFIG_U32, AT(field), standard, min, max, NULL, NULL, false, NULL, help \
	}
#define BYTES(path, field, standard, min, max, help)                                             \
	{                                                                                        \
		path, CONFIG_BYTES, AT(field), standard, min, max, NULL, NULL, false, NULL, help \
	}
#define LIST(path, field, valid, allowed, help)                                           \
	{                                                                                 \
		path, CONFIG_LIST, AT(field), "", 0, 0, NULL, valid, false, allowed, help \
	}
#define FILE_NAME(path, field, help) STRING(path, field, "", valid_absolute_or_empty, "an absolute path", help)
#define TLS(side, cluster)                                                                                          \
	BOOL(side ".tls.enabled", cluster.tls.enabled, "false", "Speak TLS to this cluster"),                       \
	    FILE_NAME(side ".tls.caFile", cluster.tls.ca_file, "Certificates that are trusted; empty = the system's"), \
	    FILE_NAME(side ".tls.certFile", cluster.tls.cert_file,                                                  \
		      "Certificate and chain to show to it (mutual TLS); PKCS#12 may hold the key as well"),         \
	    FILE_NAME(side ".tls.keyFile", cluster.tls.key_file, "Private key of certFile"),                         \
	    FILE_NAME(side ".tls.keyPasswordFile", cluster.tls.key_password_file,                                   \
		      "File whose first line is the password of the key or of the PKCS#12 file"),                    \
	    BOOL(side ".tls.verifyHostname", cluster.tls.verify_hostname, "true",                                    \
		 "A node's certificate has to be for the host that is dialled, or for serverName"),                  \
	    STRING(side ".tls.serverName", cluster.tls.server_name, "", valid_host_or_empty,                        \
		   "a host name or address", "Name that is asked for and has to be in every node's certificate; empty = the host"), \
	    ENUM(side ".tls.minVersion", cluster.tls.lowest, "1.2", tls_version_names, "Lowest version of TLS"),     \
	    FILE_NAME(side ".secureConnectBundle", cluster.bundle,                                                  \
		      "Zip file of a cluster behind an SNI proxy (Astra); instead of contactPoints and tls")
#define MIB (1024u * 1024u)
#define GIB ((uint64_t)1024 * MIB)

const struct config_key config_keys[] = {
    LIST("origin.contactPoints", origin.contact_points, valid_endpoint,
	 "hosts, each with :port if it differs", "Nodes of the cluster that the applications use now"),
    NUMBER("origin.port", origin.port, "9042", 1, 65535, "CQL port of the contact points that name none"),
    STRING("origin.username", origin.username, "", NULL, "text",
	   "Role for preflight and, with auth.mode configured, for the sessions"),
    SECRET("origin.password", origin.password, "Its password; passwordFile is the better place"),
    STRING("origin.passwordFile", origin.password_file, "", valid_absolute_or_empty, "an absolute path",
	   "File whose first line is the password"),
    TLS("origin", origin),
    LIST("target.contactPoints", target.contact_points, valid_endpoint,
	 "hosts, each with :port if it differs", "Nodes of the cluster to move to; needed from mirror on"),
    NUMBER("target.port", target.port, "9042", 1, 65535, "CQL port of the contact points that name none"),
    STRING("target.username", target.username, "", NULL, "text", "Role under which writes are mirrored"),
    SECRET("target.password", target.password, "Its password; passwordFile is the better place"),
    STRING("target.passwordFile", target.password_file, "", valid_absolute_or_empty, "an absolute path",
	   "File whose first line is the password"),
    ENUM("target.consistency", target.consistency, "", consistency_names,
	 "Consistency of mirrored writes; empty = the higher of the client's and LOCAL_QUORUM"),

    NUMBER("target.protocolVersion", target.protocol_version, "5", 3, 5,
	   "Highest protocol version of the mirror's connections, and so of new sessions from mirror on; lower where the target has trouble with it"),
    BOOL("target.tokenAware", target.token_aware, "true",
	 "Mirrored prepared writes go to a node that holds their partition, where a contact point does (needs two of them at least)"),
    TLS("target", target),

    STRING("listen.address", listen.address, "0.0.0.0", valid_ip, "an IP address",
	   "Where clients that are pointed at the agent connect to"),
    NUMBER("listen.port", listen.port, "0", 0, 65535, "Port for such clients; 0 = none"),
    STRING("listen.agentAddress", listen.agent_address, "", valid_ip4_or_empty, "an IPv4 address",
	   "Address that intercepted IPv4 connections are led to; empty = the node's"),
    STRING("listen.agentAddress6", listen.agent_address6, "", valid_ip6_or_empty, "an IPv6 address",
	   "Address that intercepted IPv6 connections are led to; empty = the node's"),
    NUMBER("listen.agentPort", listen.agent_port, "19042", 1, 65535,
	   "Port that intercepted connections are led to"),
    FILE_NAME("listen.tls.certFile", listen.cert_file,
	      "Certificate and chain for clients that speak TLS; empty = they are relayed untouched"),
    FILE_NAME("listen.tls.keyFile", listen.key_file, "Private key of certFile"),
    FILE_NAME("listen.tls.keyPasswordFile", listen.key_password_file,
	      "File whose first line is the password of the key or of the PKCS#12 file"),
    FILE_NAME("listen.tls.clientCaFile", listen.client_ca_file, "Who signs the certificates of clients"),
    ENUM("listen.tls.clientAuth", listen.client_auth, "none", client_auth_names,
	 "Whether clients that speak TLS have to show a certificate"),
    ENUM("listen.tls.minVersion", listen.lowest, "1.2", tls_version_names, "Lowest version of TLS with clients"),

    BOOL("intercept.enabled", intercept.enabled, "true",
	 "Steer connections of the node's pods to the agent by eBPF"),
    LIST("intercept.cgroups", intercept.cgroups, valid_cgroup, "paths, absolute or below the cgroup2 mount",
	 "cgroups whose connections are looked at; empty = the root of the pods"),
    LIST("intercept.watch", intercept.watch, valid_watch, "addresses or CIDRs, each with :port if it differs",
	 "Destinations that are ours; empty = origin.contactPoints and what its system.peers names"),
    NUMBER("intercept.port", intercept.port, "0", 0, 65535,
	   "Port of watched destinations that name none; 0 = origin.port"),
    ENUM("intercept.acceleration", intercept.acceleration, "auto", acceleration_names,
	 "Socket-to-socket redirect in the kernel; auto = where the start-up probe proves it sound"),
    STRING("intercept.pinPath", intercept.pin_path, "", valid_absolute_or_empty, "an absolute path",
	   "Directory in a bpf file system for pinned links and maps; empty = cqlferry in the first one "
	   "mounted"),
    ENUM("intercept.onAgentDown.observe", intercept.on_agent_down[CONFIG_PHASE_OBSERVE], "open",
	 down_observe_names, "New connections while the agent is down in this phase"),
    ENUM("intercept.onAgentDown.mirror", intercept.on_agent_down[CONFIG_PHASE_MIRROR], "grace",
	 down_mirror_names,
	 "The same in mirror; grace = closed for graceMillis, then open and on the gap ledger"),
    ENUM("intercept.onAgentDown.drain", intercept.on_agent_down[CONFIG_PHASE_DRAIN], "closed",
	 down_closed_names, "The same in drain"),
    ENUM("intercept.onAgentDown.cutover", intercept.on_agent_down[CONFIG_PHASE_CUTOVER], "closed",
	 down_closed_names, "The same in cutover; open would be split brain"),
    ENUM("intercept.onAgentDown.rollback", intercept.on_agent_down[CONFIG_PHASE_ROLLBACK], "closed",
	 down_closed_names, "The same in rollback; open would be split brain"),
    ENUM("intercept.onAgentDown.finish", intercept.on_agent_down[CONFIG_PHASE_FINISH], "target",
	 down_finish_names,
	 "The same in finish; target = straight to the target where it needs no translation"),
    NUMBER("intercept.graceMillis", intercept.grace_millis, "10000", 0, 600000,
	   "How long onAgentDown grace stays closed"),

    ENUM("connection.mode", connection.mode, "auto", mode_names,
	 "auto = straight to a node, through a control host where that fails; direct = never through another; proxy = always"),
    LIST("connection.overrides", connection.overrides, valid_override, "address[/bits][:port]=mode",
	 "Other modes for some destinations; the longest prefix decides"),
    LIST("connection.controlHosts", connection.control_hosts, valid_endpoint, "hosts, each with :port if it differs",
	 "Who stands in for nodes of the origin; empty = the node that the client reached last, then origin.contactPoints"),
    NUMBER("connection.firstTimeoutMillis", connection.first_timeout_millis, "1500", 10, 60000,
	   "How long a client waits for a node while a control host could stand in"),
    NUMBER("connection.probeMillis", connection.probe_millis, "10000", 100, 3600000,
	   "How long after a failure a node is tried again; doubled each time, up to 30 times as much"),
    BOOL("connection.whileObserving", connection.while_observing, "false",
	 "Connections go through the agent in phase observe as well, so that the modes apply; else they are left alone there"),

    NUMBER("workers", workers, "0", 0, 16, "Worker threads; 0 = half of the cores, from 1 to 4"),

    NUMBER("limits.sessions", limits.sessions, "10000", 1, 1000000, "Client connections on this node"),
    NUMBER("limits.requestsInFlight", limits.requests_in_flight, "100000", 1, 10000000,
	   "Requests without an answer on this node; more are answered OVERLOADED"),
    NUMBER("limits.sessionRequests", limits.session_requests, "32768", 1, 32768,
	   "The same for one session; 32768 is what the protocol's stream ids allow"),
    BYTES("limits.frameBytes", limits.frame_bytes, "256MiB", 4096, 256 * MIB,
	  "Largest request body; 256MiB is the protocol's own limit"),
    BYTES("limits.mirrorBytes", limits.mirror_bytes, "1GiB", MIB, 1024 * GIB,
	  "Budget of the journal on disk: writes that the target has not confirmed, or only just"),
    ENUM("limits.mirrorPolicy", limits.mirror_policy, "block", policy_names,
	 "When the budget is spent: block = writers wait, shed = the write is not mirrored and on record"),
    NUMBER("limits.retainMillis", limits.retain_millis, "15000", 0, 600000,
	   "How long mirrored writes are kept after the target's answer, to send them again when a killed node comes back"),
    NUMBER("limits.refusedAttempts", limits.refused_attempts, "9", 1, 1000,
	   "How often a write that the target refuses as invalid or unauthorized is tried before it is a dead letter; 9 times take 11 s"),
    NUMBER("limits.holdMillis", limits.hold_millis, "1000", 10, 60000,
	   "Longest time that requests are held at a switch; then it is called off"),
    NUMBER("limits.acknowledgeMillis", limits.acknowledge_millis, "500", 1, 60000,
	   "With acknowledgement both: longest time that an answer waits for the target; then the journal will do"),
    NUMBER("limits.drainBacklog", limits.drain_backlog, "100", 0, 1000000,
	   "Backlog in records below which a cutover may begin to hold"),
    NUMBER("limits.maxClockSkewMillis", limits.max_clock_skew_millis, "100", 1, 60000,
	   "Difference to the clusters' clocks beyond which mirroring is refused"),
    NUMBER("limits.dialTimeoutMillis", limits.dial_timeout_millis, "5000", 10, 120000,
	   "Longest wait for a connection to a cluster"),
    NUMBER("limits.stopMillis", limits.stop_millis, "10000", 0, 600000,
	   "Longest wait at a graceful stop for requests in flight"),

    LIST("mirror.include", mirror.include, valid_pattern, "keyspaces, or keyspace.table",
	 "Tables that are mirrored, named as on the origin; empty = all"),
    LIST("mirror.exclude", mirror.exclude, valid_pattern, "keyspaces, or keyspace.table", "Of those, tables that are not mirrored"),
    LIST("mirror.rename", mirror.rename, valid_rename, "keyspace=name, or keyspace.table=name",
	 "What the target calls a keyspace or a table; such an agent mirrors, but does not cut over"),

    ENUM("journal.sync", journal.sync, "interval", sync_names,
	 "When the journal survives a crash of the node (of the agent it always does): commit = before the origin sees a write, "
	 "interval = every journal.syncMillis, none = as the kernel likes; memory = the journal is not on disk at all"),
    NUMBER("journal.syncMillis", journal.sync_millis, "500", 10, 60000, "With interval: how often"),
    BOOL("journal.strictHolds", journal.strict_holds, "false",
	 "While its table is on hold every UPDATE and DELETE waits as well; else only what a load could undo, and batches"),

    NUMBER("rowSync.threads", row_sync.threads, "2", 1, 16,
	   "Threads that compare rows of both clusters, for what cannot be repeated; each has a connection to each"),
    NUMBER("rowSync.settleMillis", row_sync.settle_millis, "3000", 0, 600000,
	   "How long after a write of unknown outcome its rows are compared; longer than the clusters' own write time-outs"),
    NUMBER("rowSync.againMinutes", row_sync.again_minutes, "180", 0, 10080,
	   "After how long they are compared once more, since hints may bring it late (max_hint_window); 0 = not at all"),

    ENUM("auth.mode", auth.mode, "passthrough", auth_mode_names,
	 "passthrough = the client's own handshake with the origin; configured = origin.username for every "
	 "session"),
    ENUM("auth.client", auth.client, "match", auth_client_names,
	 "With configured: match = the client must present the same credentials, any = whatever it presents "
	 "will do"),

    ENUM("ddl", ddl, "mirror", ddl_names, "CREATE, ALTER and DROP during the migration"),
    ENUM("topology", topology, "freeze", topology_names,
	 "What system.local and system.peers show from cutover on: the origin as it was, or the "
	 "target"),
    ENUM("acknowledgement", acknowledgement, "journal", acknowledgement_names,
	 "When a write is answered: journal = once the origin has it and the mirror has taken it over; both = once the target has it, too, or "
	 "limits.acknowledgeMillis are over"),

    STRING("state.directory", state.directory, "/var/lib/cqlferry", valid_absolute_or_empty,
	   "an absolute path",
	   "Phase, prepared statements and what else outlives a restart; empty = keep nothing"),
    STRING("admin.socket", admin.socket, "/run/cqlferry/admin.sock", valid_socket, "an absolute path",
	   "Unix socket that status, phase and the other commands talk to"),
    BOOL("takeover.enabled", takeover.enabled, "false",
	 "When another agent runs here: take over from it instead of refusing to start"),
    NUMBER("takeover.drainMillis", takeover.drain_millis, "30000", 0, 3600000,
	   "How long an agent that was superseded goes on with its sessions, closing idle ones, before it ends them"),
    BOOL("takeover.waitForTerm", takeover.wait_for_term, "false",
	 "Such an agent then stays until SIGTERM; for a DaemonSet, whose kubelet would start again what ends by itself"),
    STRING("http.address", http.address, "0.0.0.0", valid_ip, "an IP address",
	   "Where /metrics, /healthz and /readyz are"),
    NUMBER("http.port", http.port, "9180", 0, 65535, "Their port; 0 = none"),
    ENUM("log.level", log.level, "info", log_names, "Lines above this level are dropped"),
    ENUM("phase.initial", phase.initial, "observe", phase_names,
	 "Phase to start in when state.directory holds none"),

    BOOL("migration.complete", migration.complete, "false",
	 "Everything to the target from the start: phase finish"),
    STRING("migration.serviceHost", migration.service_host, "", valid_host_or_empty, "a host name or address",
	   "Migration service; when set, nothing is steered or mirrored before its Start"),
    NUMBER("migration.servicePort", migration.service_port, "0", 0, 65535, "Its port"),
    STRING("migration.proxyHost", migration.proxy_host, "", valid_host_or_empty, "a host name or address",
	   "Where this agent listens for the migration service"),
    NUMBER("migration.proxyPort", migration.proxy_port, "0", 0, 65535,
	   "Port for the migration service; 0 = none"),
};
const size_t config_key_count = sizeof(config_keys) / sizeof(config_keys[0]);
_Static_assert(sizeof(config_keys) / sizeof(config_keys[0]) <= CONFIG_KEYS_MAX, "raise CONFIG_KEYS_MAX");

const struct config_variable config_variables[] = {
    {"SOURCE_HOSTNAME", "origin.contactPoints", VARIABLE_VALUE, NULL, "Hostname of the client's database"},
    {"SOURCE_USERNAME", "origin.username", VARIABLE_VALUE, NULL, "Its username"},
    {"SOURCE_PASSWORD", "origin.password", VARIABLE_VALUE, NULL, "Its password"},
    {"SOURCE_PORT", "origin.port", VARIABLE_VALUE, NULL, "Its port"},
    {"ASTRA_HOSTNAME", "target.contactPoints", VARIABLE_VALUE, NULL, "Hostname of the target, Astra or not"},
    {"ASTRA_USERNAME", "target.username", VARIABLE_VALUE, NULL, "Its username"},
    {"ASTRA_PASSWORD", "target.password", VARIABLE_VALUE, NULL, "Its password"},
    {"ASTRA_PORT", "target.port", VARIABLE_VALUE, NULL, "Its port"},
    {"PROXY_QUERY_PORT", "listen.port", VARIABLE_VALUE, NULL, "Port for the clients' queries"},
    {"MIGRATION_COMPLETE", "migration.complete", VARIABLE_BOOL, NULL, "true = start in phase finish"},
    {"MIGRATION_SERVICE_HOSTNAME", "migration.serviceHost", VARIABLE_VALUE, NULL, "Set = wait for its Start"},
    {"MIGRATION_PORT", "migration.servicePort", VARIABLE_VALUE, NULL, "Port of the migration service"},
    {"PROXY_SERVICE_HOSTNAME", "migration.proxyHost", VARIABLE_VALUE, NULL,
     "Hostname of this agent for the service"},
    {"PROXY_PORT", "migration.proxyPort", VARIABLE_VALUE, NULL, "Port of this agent for the service"},
    {"DEBUG", "log.level", VARIABLE_TRUE_SETS, "debug", "true = log level debug"},
    {"TEST", "state.directory", VARIABLE_TRUE_SETS, "", "true = a trial: nothing is kept over a restart"},
};
const size_t config_variable_count = sizeof(config_variables) / sizeof(config_variables[0]);
