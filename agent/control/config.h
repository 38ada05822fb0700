/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent is told: defaults, then the YAML file, then the variables of the proxy document
 * (SOURCE_HOSTNAME, …), then CQLFERRY_* variables; the later source wins, key by key.
 *
 * The keys are a table (config_keys.c): path, type, place in struct config, default, limits, help. Everything
 * else is derived from it: the name of the environment variable, the error texts, `cqlferry help
 * configuration`, and the tables of docs/configuration.md, which a test compares with it. A key that is not
 * in the table is an error, as is a value outside its limits: both name the place (file:line or variable),
 * the value and what is allowed. Secrets are never part of an error text.
 *
 * `struct config` owns all of its strings. It is filled once, before threads exist, and read-only afterwards.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define CONFIG_DEFAULT_FILE "/etc/cqlferry/cqlferry.yaml"
#define CONFIG_KEYS_MAX 128	   /* the table is smaller; asserted in config_keys.c */
#define CONFIG_LIST_MAX 256	   /* entries in one list: a watch list of single addresses stays readable */
#define CONFIG_FILE_MAX (1u << 20) /* bytes; a configuration is a page or two */
#define CONFIG_VALUE_MAX 4096	   /* bytes in one scalar */

/* In the order of the gauge cqlferry_phase. */
enum config_phase {
	CONFIG_PHASE_OBSERVE,
	CONFIG_PHASE_MIRROR,
	CONFIG_PHASE_DRAIN,
	CONFIG_PHASE_CUTOVER,
	CONFIG_PHASE_ROLLBACK,
	CONFIG_PHASE_FINISH,
	CONFIG_PHASE_COUNT
};

/* What becomes of a connect() while the agent does not beat its heart. */
enum config_agent_down {
	AGENT_DOWN_OPEN,   /* straight to the origin, on the gap ledger */
	AGENT_DOWN_CLOSED, /* ECONNREFUSED */
	AGENT_DOWN_GRACE,  /* closed for intercept.graceMillis, then open */
	AGENT_DOWN_TARGET  /* straight to the target (kernel-direct); closed where that is impossible */
};

enum config_acceleration { ACCELERATION_AUTO, ACCELERATION_ON, ACCELERATION_OFF };
enum config_sync { CONFIG_SYNC_MEMORY, CONFIG_SYNC_NONE, CONFIG_SYNC_INTERVAL, CONFIG_SYNC_COMMIT };
enum config_mirror_policy { MIRROR_POLICY_BLOCK, MIRROR_POLICY_SHED };
enum config_auth_mode { AUTH_PASSTHROUGH, AUTH_CONFIGURED };
enum config_auth_client { AUTH_CLIENT_MATCH, AUTH_CLIENT_ANY };
enum config_ddl { DDL_MIRROR, DDL_REFUSE, DDL_IGNORE };
enum config_topology { TOPOLOGY_FREEZE, TOPOLOGY_TARGET };
enum config_acknowledgement { ACKNOWLEDGE_JOURNAL, ACKNOWLEDGE_BOTH };

/* consistency: the protocol's code (native_protocol_v5.spec section 3, [consistency]), or this. */
#define CONFIG_CONSISTENCY_DEFAULT (-1) /* the higher of the client's and LOCAL_QUORUM */

struct config_list {
	char **item;
	size_t count;
};

/* TLS to a cluster. Files are read by agent/net, when the agent starts and whenever they change. */
struct config_tls {
	bool enabled, verify_hostname;
	char *ca_file, *cert_file, *key_file, *key_password_file; /* "" = none */
	char *server_name; /* "" = the host that is dialled */
	int lowest;	   /* enum tls_version of net/tls_context.h */
};

struct config_cluster {
	struct config_list contact_points; /* "host" or "host:port" or "[v6]:port"; see config_endpoint() */
	uint32_t port;			   /* where a contact point names none */
	char *username;			   /* "" = none */
	char *password;			   /* secret; already read from passwordFile when that is set */
	char *password_file;
	int consistency; /* target only, as the next two */
	uint32_t protocol_version;
	bool token_aware;
	struct config_tls tls;
	char *bundle; /* secure-connect bundle; "" = none. Instead of contact points and tls */
};

/* Where a value came from; also the order in which sources win. */
enum config_rank { CONFIG_FROM_DEFAULT, CONFIG_FROM_FILE, CONFIG_FROM_DOCUMENT, CONFIG_FROM_ENV };
struct config_source {
	enum config_rank rank;
	unsigned line;	      /* CONFIG_FROM_FILE */
	const char *variable; /* CONFIG_FROM_DOCUMENT: the variable's name; static */
};

struct config {
	struct config_cluster origin, target;
	struct {
		char *address; /* literal; for clients that are pointed at the agent */
		uint32_t port; /* 0 = off */
		char *agent_address,
		    *agent_address6; /* for intercepted connections; "" = chosen by the agent / off */
		uint32_t agent_port;
		char *cert_file, *key_file, *key_password_file, *client_ca_file; /* clients' TLS; "" = none */
		int client_auth, lowest; /* enum tls_client_auth, enum tls_version of net/tls_context.h */
	} listen;
	struct {
		bool enabled;
		struct config_list cgroups; /* absolute, or relative to the cgroup2 mount; empty = all pods */
		struct config_list
		    watch;     /* "address", "address/bits", each with ":port" if wanted; empty = learned */
		uint32_t port; /* for watch entries that name none; 0 = origin.port */
		int acceleration;		       /* enum config_acceleration */
		char *pin_path;			       /* "" = found by mountinfo */
		int on_agent_down[CONFIG_PHASE_COUNT]; /* enum config_agent_down; cutover and rollback: always
							  closed */
		uint32_t grace_millis;
	} intercept;
	struct {
		int mode;			  /* enum connection_mode of net/mode.h */
		struct config_list overrides;	  /* mode_rule_parse() */
		struct config_list control_hosts; /* as contact_points; config_control_host() */
		uint32_t first_timeout_millis, probe_millis;
		bool while_observing; /* connections go through the agent in phase observe as well */
	} connection;
	uint32_t workers; /* 0 = half of the cores, from 1 to 4: config_workers() */
	struct {
		uint32_t sessions, requests_in_flight, session_requests;
		uint64_t frame_bytes, mirror_bytes;
		int mirror_policy; /* enum config_mirror_policy */
		uint32_t retain_millis, refused_attempts, hold_millis, acknowledge_millis, drain_backlog, max_clock_skew_millis, dial_timeout_millis, stop_millis;
	} limits;
	struct {
		struct config_list include, exclude, rename; /* cql/scope.h reads the entries */
	} mirror;
	struct {
		int sync; /* enum config_sync */
		uint32_t sync_millis;
		bool strict_holds;
	} journal;
	struct {
		uint32_t threads, settle_millis, again_minutes;
	} row_sync;
	struct {
		int mode, client; /* enum config_auth_mode, config_auth_client */
	} auth;
	int ddl, topology, acknowledgement; /* enums above */
	struct {
		char *directory; /* "" = keep nothing over a restart */
	} state;
	struct {
		char *socket;
	} admin;
	struct {
		bool enabled;	       /* an agent that runs here already hands over to this one */
		uint32_t drain_millis; /* how long this one, superseded, goes on with the sessions that it has */
		bool wait_for_term;    /* and then stays until SIGTERM */
	} takeover;
	struct {
		char *address;
		uint32_t port; /* 0 = off */
	} http;
	struct {
		int level; /* enum log_level */
	} log;
	struct {
		int initial; /* enum config_phase: where to start when no state file exists */
	} phase;
	struct {
		bool complete; /* MIGRATION_COMPLETE: everything to the target; forces phase.initial to finish
				*/
		char *service_host; /* not "" = do not serve before the migration service sent its Start */
		uint32_t service_port;
		char *proxy_host; /* where this agent listens for the migration service */
		uint32_t proxy_port;
	} migration;

	/* Not keys: */
	char *file;	    /* the file that was read, "" = none */
	bool document_mode; /* no file, and SOURCE_HOSTNAME or PROXY_QUERY_PORT set: the document's interface
			     */
	struct config_source source[CONFIG_KEYS_MAX]; /* by index into config_keys[] */
};

/* A host and port of contactPoints. */
struct config_endpoint {
	char host[254]; /* a name of at most 253 characters (RFC 1035), or a literal without brackets */
	uint16_t port;
};

/*
 * Fills `c` from defaults, `file` and the environment. `file` NULL or "" = none. `env` is a NULL-terminated
 * array of "NAME=value" (environ). Values and keys are checked one by one here; how they fit together is
 * config_check()'s. 0; −ENOENT when the file cannot be opened, −EINVAL for what it says, −ENOMEM. On failure
 * `c` is empty and needs no done.
 */
int config_load(struct config *c, const char *file, char *const *env, struct error *error)
    __attribute__((warn_unused_result));

/* As config_load, for a text that `name` stands for in the error texts. */
int config_parse(struct config *c, const char *name, const char *text, size_t size, char *const *env,
		 struct error *error) __attribute__((warn_unused_result));

/* What an agent needs beyond well-formed keys: somewhere to listen, clusters for its phase, … 0 or −EINVAL.
 */
int config_check(const struct config *c, struct error *error) __attribute__((warn_unused_result));

/* Frees everything; secrets are overwritten first. Takes an empty or zeroed struct as well. */
void config_done(struct config *c);

/* Worker threads to start: workers, or half of the cores, from 1 to 4. */
unsigned config_workers(const struct config *c);

/* contactPoints[i] of a cluster, split. `i` must be below count; the entry was checked when it was read. */
struct config_endpoint config_endpoint(const struct config_cluster *cluster, size_t i);

/* connection.controlHosts[i], split. A port that it does not name is the origin's. */
struct config_endpoint config_control_host(const struct config *c, size_t i);

/* Whether the key has a value from anywhere but the defaults. */
bool config_is_set(const struct config *c, const char *path);

/* "observe", …; NULL outside the enum. */
const char *config_phase_name(int phase);

/* −1 when `name` is no phase. */
int config_phase_from_name(const char *name);

/* Text tables of all keys and variables for `cqlferry help configuration`; markdown = the rows of
 * docs/configuration.md. */
void config_print_keys(FILE *out, bool markdown);
void config_print_document_variables(FILE *out, bool markdown);
