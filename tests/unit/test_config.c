// SPDX-License-Identifier: Apache-2.0
/*
 * The configuration: a table of bad inputs with the exact text a person reads, precedence of the sources, the
 * document's variables, limits of every key, and docs/configuration.md against the key table.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/config_table.h"
#include "control/nearest.h"

#define ARRAY(a) (sizeof(a) / sizeof((a)[0]))

static char *no_env[] = {NULL};

static int parse(struct config *c, const char *text, char *const *env, struct error *e)
{
	return config_parse(c, "c.yaml", text, strlen(text), env, e);
}

/* ---------------------------------------------------------------- bad input */

static const struct {
	const char *name, *yaml, *error;
} bad_yaml[] = {
    {"unknown key, near", "listen:\n  prot: 1\n",
     "c.yaml:2: unknown key 'listen.prot'; did you mean 'listen.port'?"},
    {"unknown key, far", "listen:\n  zzzzzzzzz: 1\n",
     "c.yaml:2: unknown key 'listen.zzzzzzzzz'; allowed in listen: address, port, agentAddress, "
     "agentAddress6, agentPort, tls"},
    {"unknown section", "\n\nxyzxyzxyz:\n  a: 1\n",
     "c.yaml:3: unknown key 'xyzxyzxyz'; allowed: origin, target, listen, intercept, connection, workers, limits, mirror, journal, rowSync, auth, "
     "ddl, topology, "
     "acknowledgement, state, admin, takeover, http, log, phase, migration"},
    {"case matters", "origin:\n  contactpoints: [a]\n",
     "c.yaml:2: unknown key 'origin.contactpoints'; did you mean 'origin.contactPoints'?"},
    {"no number", "listen:\n  port: abc\n",
     "c.yaml:2: listen.port: 'abc' is not a number; allowed: 0 to 65535"},
    {"negative", "listen:\n  port: -1\n", "c.yaml:2: listen.port: '-1' is not a number; allowed: 0 to 65535"},
    {"number with unit", "limits:\n  sessions: 10k\n",
     "c.yaml:2: limits.sessions: '10k' is not a number; allowed: 1 to 1000000"},
    {"out of range", "listen:\n  port: 65536\n",
     "c.yaml:2: listen.port: '65536' is out of range; allowed: 0 to 65535"},
    {"overflow", "listen:\n  port: 18446744073709551617\n",
     "c.yaml:2: listen.port: '18446744073709551617' is not a number; allowed: 0 to 65535"},
    {"empty number", "http:\n  port:\n", "c.yaml:2: http.port: '' is not a number; allowed: 0 to 65535"},
    {"bytes", "limits:\n  frameBytes: 16MB\n",
     "c.yaml:2: limits.frameBytes: '16MB' is not a number of bytes such as 65536, 64KiB or 16MiB; allowed: "
     "4KiB to 256MiB"},
    {"bytes out of range", "limits:\n  frameBytes: 257MiB\n",
     "c.yaml:2: limits.frameBytes: '257MiB' is out of range; allowed: 4KiB to 256MiB"},
    {"bytes overflow", "limits:\n  mirrorBytes: 99999999999999GiB\n",
     "c.yaml:2: limits.mirrorBytes: '99999999999999GiB' is not a number of bytes such as 65536, 64KiB or "
     "16MiB; allowed: "
     "1MiB to 1024GiB"},
    {"bool", "intercept:\n  enabled: maybe\n",
     "c.yaml:2: intercept.enabled: 'maybe' is neither true nor false; allowed: true or false"},
    {"enum", "auth:\n  mode: none\n",
     "c.yaml:2: auth.mode: 'none' is not known; allowed: passthrough or configured"},
    {"enum of three", "intercept:\n  acceleration: fast\n",
     "c.yaml:2: intercept.acceleration: 'fast' is not known; allowed: auto, on or off"},
    {"acknowledgement", "acknowledgement: target\n",
     "c.yaml:1: acknowledgement: 'target' is not known; allowed: journal or both"},
    {"connection mode", "connection:\n  mode: fallback\n",
     "c.yaml:2: connection.mode: 'fallback' is not known; allowed: auto, direct or proxy"},
    {"override without a mode", "connection:\n  overrides: [10.0.0.0/8]\n",
     "c.yaml:2: connection.overrides: '10.0.0.0/8' is not address[/bits][:port]=mode; allowed: address[/bits][:port]=mode"},
    {"override of no mode", "connection:\n  overrides:\n    - 10.0.0.0/8=proxy\n    - 10.1.0.0/16=never\n",
     "c.yaml:4: connection.overrides: '10.1.0.0/16=never' names no mode behind its =; allowed: address[/bits][:port]=mode"},
    {"override of a long prefix", "connection:\n  overrides: ['10.0.0.0/33=proxy']\n",
     "c.yaml:2: connection.overrides: '10.0.0.0/33=proxy' has a prefix length that its address family does not have; allowed: "
     "address[/bits][:port]=mode"},
    {"control host", "connection:\n  controlHosts: ['a b']\n",
     "c.yaml:2: connection.controlHosts: 'a b' is not host or host:port; allowed: hosts, each with :port if it differs"},
    {"phase that none starts in", "phase:\n  initial: cutover\n",
     "c.yaml:2: phase.initial: 'cutover' is not known; allowed: observe, mirror or finish"},
    {"split brain", "intercept:\n  onAgentDown:\n    cutover: open\n",
     "c.yaml:3: intercept.onAgentDown.cutover: 'open' is not known; allowed: closed"},
    {"consistency", "target:\n  consistency: SOME\n",
     "c.yaml:2: target.consistency: 'SOME' is not known; allowed: empty, ANY, ONE, TWO, THREE, QUORUM, ALL, "
     "LOCAL_QUORUM, "
     "EACH_QUORUM or LOCAL_ONE"},
    {"address", "listen:\n  address: localhost\n",
     "c.yaml:2: listen.address: 'localhost' is not an IP address; allowed: an IP address"},
    {"host", "origin:\n  contactPoints:\n    - 10.0.0.1\n    - bad host\n",
     "c.yaml:4: origin.contactPoints: 'bad host' is not host or host:port; allowed: hosts, each with :port "
     "if it differs"},
    {"address with a slip", "origin:\n  contactPoints: [10.0.0.300]\n",
     "c.yaml:2: origin.contactPoints: '10.0.0.300' is not host or host:port; allowed: hosts, each with :port "
     "if it differs"},
    {"port 0", "origin:\n  contactPoints: ['a:0']\n",
     "c.yaml:2: origin.contactPoints: 'a:0' is not host or host:port; allowed: hosts, each with :port if it "
     "differs"},
    {"empty item", "origin:\n  contactPoints: a,,b\n",
     "c.yaml:2: origin.contactPoints: '' is not host or host:port; allowed: hosts, each with :port if it "
     "differs"},
    {"watch everything", "intercept:\n  watch: [10.0.0.1, 0.0.0.0/0]\n",
     "c.yaml:2: intercept.watch: '0.0.0.0/0' would take in every connection of the node; allowed: addresses "
     "or CIDRs, each with "
     ":port if it differs"},
    {"prefix", "intercept:\n  watch: [10.0.0.0/33]\n",
     "c.yaml:2: intercept.watch: '10.0.0.0/33' has a prefix length that its address family does not have; "
     "allowed: addresses or "
     "CIDRs, each with :port if it differs"},
    {"cgroup", "intercept:\n  cgroups: [../x]\n",
     "c.yaml:2: intercept.cgroups: '../x' contains ..; allowed: paths, absolute or below the cgroup2 mount"},
    {"pattern", "mirror:\n  include: [shop, 'crm.*.x']\n",
     "c.yaml:2: mirror.include: 'crm.*.x' is not keyspace, keyspace.* or keyspace.table, spelled as in the schema and without "
     "quotes; allowed: keyspaces, or keyspace.table"},
    {"rename", "mirror:\n  rename: [shop]\n",
     "c.yaml:2: mirror.rename: 'shop' is not keyspace=name or keyspace.table=name, without quotes; allowed: keyspace=name, or "
     "keyspace.table=name"},
    {"relative path", "admin:\n  socket: admin.sock\n",
     "c.yaml:2: admin.socket: 'admin.sock' is not an absolute path; allowed: an absolute path"},
    {"twice", "listen:\n  port: 1\n  port: 2\n", "c.yaml:3: listen.port is set twice, first in line 2"},
    {"section as value", "listen: 5\n", "c.yaml:1: listen is a section; allowed: keys below it"},
    {"value as section", "workers:\n  a: 1\n", "c.yaml:2: workers: is a section; allowed: a single value"},
    {"list for a value", "workers: [1]\n", "c.yaml:1: workers: is a list; allowed: a single value"},
    {"section in a list", "origin:\n  contactPoints:\n  - a: 1\n",
     "c.yaml:3: origin.contactPoints: an entry is a section; allowed: single values"},
    {"top level list", "- a\n", "c.yaml:1: the file is a list; allowed: keys with values"},
    {"top level word", "hello\n", "c.yaml:1: the file is a single value; allowed: keys with values"},
    {"second document", "workers: 1\n---\nworkers: 2\n", "c.yaml:3: a second document begins; allowed: one"},
    {"key that is a list", "[a]: 1\n", "c.yaml:1: a key of the file is no plain word"},
    {"tab", "listen:\n\tport: 1\n",
     "c.yaml:2: not readable as YAML: found character that cannot start any token while scanning for the "
     "next token"},
    {"NUL", "http:\n  address: \"1\\0\"\n", "c.yaml:2: http.address: the value contains a NUL character"},
    {"escape sequence", "ddl: \"\\e[2Jx\"\n",
     "c.yaml:1: ddl: '?[2Jx' is not known; allowed: mirror, refuse or ignore"},
    {"long value is cut", "ddl: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg\n",
     "c.yaml:1: ddl: 'aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff...' is not known; "
     "allowed: mirror, refuse or "
     "ignore"},
    {"two passwords", "origin:\n  username: u\n  password: p\n  passwordFile: /nowhere\n",
     "c.yaml:4: origin.passwordFile: origin.password is set as well; allowed: one of the two"},
    {"password file", "target:\n  passwordFile: /nowhere/at-all\n",
     "c.yaml:2: target.passwordFile: cannot read '/nowhere/at-all': No such file or directory"},
    {"a self-referring alias", "&a intercept: &b\n  onAgentDown: *b\n", NULL},
};

static void test_bad_yaml(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY(bad_yaml); i++) {
		struct error e = {"(none)"};
		struct config c;

		if (parse(&c, bad_yaml[i].yaml, no_env, &e) != -EINVAL)
			fail_msg("%s: was accepted", bad_yaml[i].name);
		if (bad_yaml[i].error && strcmp(e.text, bad_yaml[i].error) != 0)
			fail_msg("%s:\n  is       %s\n  expected %s", bad_yaml[i].name, e.text,
				 bad_yaml[i].error);
		/* A failed load leaves nothing to free, and done on it is allowed. */
		assert_null(c.admin.socket);
		config_done(&c);
	}
}

static void test_secret_never_shown(void **state)
{
	char secret[CONFIG_VALUE_MAX + 100], text[CONFIG_VALUE_MAX + 200], variable[CONFIG_VALUE_MAX + 200];
	char *env[] = {variable, NULL};
	struct config c;
	struct error e;

	(void)state;
	memset(secret, 'S', sizeof(secret) - 1);
	secret[sizeof(secret) - 1] = 0;
	snprintf(text, sizeof(text), "origin:\n  password: %s\n", secret);
	assert_int_equal(parse(&c, text, no_env, &e), -EINVAL);
	assert_string_equal(e.text, "c.yaml:2: origin.password: the value is longer than 4096 bytes");
	snprintf(variable, sizeof(variable), "ASTRA_PASSWORD=%s", secret);
	assert_int_equal(config_load(&c, NULL, env, &e), -EINVAL);
	assert_string_equal(e.text, "ASTRA_PASSWORD: the value is longer than 4096 bytes");
}

static const struct {
	const char *variable, *error;
} bad_env[] = {
    {"CQLFERRY_LISTEN_PORT=x", "CQLFERRY_LISTEN_PORT: 'x' is not a number; allowed: 0 to 65535"},
    {"CQLFERRY_LISTEN_PROT=1", "CQLFERRY_LISTEN_PROT: unknown variable; did you mean CQLFERRY_LISTEN_PORT?"},
    {"CQLFERRY_ORIGIN_CONTACTPOINTS=a",
     "CQLFERRY_ORIGIN_CONTACTPOINTS: unknown variable; did you mean CQLFERRY_ORIGIN_CONTACT_POINTS?"},
    {"CQLFERRY_Q=1", "CQLFERRY_Q: unknown variable; `cqlferry help configuration` lists the known ones"},
    {"CQLFERRY_ORIGIN_CONTACT_POINTS=a,b c",
     "CQLFERRY_ORIGIN_CONTACT_POINTS: 'b c' is not host or host:port; allowed: hosts, "
     "each with :port if it differs"},
    {"SOURCE_PORT=0", "SOURCE_PORT: '0' is out of range; allowed: 1 to 65535"},
    {"PROXY_QUERY_PORT=ninety", "PROXY_QUERY_PORT: 'ninety' is not a number; allowed: 0 to 65535"},
    {"MIGRATION_COMPLETE=perhaps",
     "MIGRATION_COMPLETE: 'perhaps' is neither true nor false; allowed: true or false"},
    {"DEBUG=*", "DEBUG: '*' is neither true nor false; allowed: true or false"},
    {"TEST=2", "TEST: '2' is neither true nor false; allowed: true or false"},
};

static void test_bad_env(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY(bad_env); i++) {
		char *env[] = {(char *)bad_env[i].variable, NULL};
		struct error e = {"(none)"};
		struct config c;

		if (config_load(&c, NULL, env, &e) != -EINVAL)
			fail_msg("%s was accepted", bad_env[i].variable);
		assert_string_equal(e.text, bad_env[i].error);
	}
}

/* ---------------------------------------------------------------- good input */

static void test_defaults(void **state)
{
	struct config c;
	struct error e;

	(void)state;
	assert_int_equal(config_load(&c, NULL, no_env, &e), 0);
	assert_int_equal(c.origin.port, 9042);
	assert_int_equal(c.origin.contact_points.count, 0);
	assert_string_equal(c.origin.password, "");
	assert_int_equal(c.target.consistency, CONFIG_CONSISTENCY_DEFAULT);
	assert_true(c.intercept.enabled);
	assert_int_equal(c.listen.port, 0);
	assert_int_equal(c.limits.frame_bytes, 256u << 20);
	assert_int_equal(c.limits.session_requests, 32768);
	assert_int_equal(c.limits.hold_millis, 1000);
	assert_int_equal(c.phase.initial, CONFIG_PHASE_OBSERVE);
	assert_int_equal(c.auth.mode, AUTH_PASSTHROUGH);
	assert_int_equal(c.log.level, LOG_INFO);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_OBSERVE], AGENT_DOWN_OPEN);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_MIRROR], AGENT_DOWN_GRACE);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_DRAIN], AGENT_DOWN_CLOSED);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_CUTOVER], AGENT_DOWN_CLOSED);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_ROLLBACK], AGENT_DOWN_CLOSED);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_FINISH], AGENT_DOWN_TARGET);
	assert_in_range(config_workers(&c), 1, 4);
	assert_false(c.document_mode);
	config_done(&c);
}

static void test_yaml_values(void **state)
{
	static const char text[] =
	    "# a comment\n"
	    "origin:\n"
	    "  contactPoints: [10.0.3.7, 'db.example:19042', '[fd00::7]:9043', 'fd00::8']\n"
	    "  username: app\n"
	    "  password: \"p#1: \\\"x\\\"\"\n"
	    "target:\n"
	    "  contactPoints: t1, t2:9142\n"
	    "  port: 9142\n"
	    "  consistency: each_quorum\n"
	    "intercept:\n"
	    "  cgroups:\n"
	    "    - kubepods.slice\n"
	    "  watch: [10.0.0.0/8, '10.1.2.3:9142', 'fd00::/64', '[fd00::/64]:9042']\n"
	    "  acceleration: off\n"
	    "  onAgentDown:\n"
	    "    mirror: closed\n"
	    "limits:\n"
	    "  mirrorBytes: 2 GiB\n"
	    "listen:\n" /* every line of it commented out */
	    "ddl: REFUSE\n"
	    "log: {level: debug}\n"
	    "state:\n"
	    "  directory: ~\n";
	struct config c;
	struct error e;
	struct config_endpoint p;

	(void)state;
	if (parse(&c, text, no_env, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(c.origin.contact_points.count, 4);
	p = config_endpoint(&c.origin, 0);
	assert_string_equal(p.host, "10.0.3.7");
	assert_int_equal(p.port, 9042);
	p = config_endpoint(&c.origin, 1);
	assert_string_equal(p.host, "db.example");
	assert_int_equal(p.port, 19042);
	p = config_endpoint(&c.origin, 2);
	assert_string_equal(p.host, "fd00::7");
	assert_int_equal(p.port, 9043);
	p = config_endpoint(&c.origin, 3);
	assert_string_equal(p.host, "fd00::8");
	assert_int_equal(p.port, 9042);
	assert_string_equal(c.origin.password, "p#1: \"x\"");
	assert_int_equal(c.target.contact_points.count, 2);
	assert_int_equal(config_endpoint(&c.target, 0).port, 9142);
	assert_int_equal(c.target.consistency, 7);
	assert_string_equal(c.intercept.cgroups.item[0], "kubepods.slice");
	assert_int_equal(c.intercept.watch.count, 4);
	assert_int_equal(c.intercept.acceleration, ACCELERATION_OFF);
	assert_int_equal(c.intercept.on_agent_down[CONFIG_PHASE_MIRROR], AGENT_DOWN_CLOSED);
	assert_true(c.limits.mirror_bytes == 2ull << 30);
	assert_int_equal(c.ddl, DDL_REFUSE);
	assert_int_equal(c.log.level, LOG_DEBUG);
	assert_string_equal(c.state.directory, "");
	assert_int_equal(c.source[config_key_find("ddl", 3)].rank, CONFIG_FROM_FILE);
	assert_int_equal(c.source[config_key_find("ddl", 3)].line, 20);
	config_done(&c);

	/* Nothing at all is a configuration, too. */
	assert_int_equal(parse(&c, "", no_env, &e), 0);
	config_done(&c);
	assert_int_equal(parse(&c, "# only a comment\n", no_env, &e), 0);
	config_done(&c);
}

static void test_precedence(void **state)
{
	char *env[] = {"SOURCE_HOSTNAME=from-document", "SOURCE_PORT=2", "CQLFERRY_ORIGIN_PORT=3",
		       "CQLFERRY_WORKERS=", NULL};
	struct config c;
	struct error e;

	(void)state;
	assert_int_equal(
	    parse(&c, "origin: {contactPoints: [from-file], port: 1, username: from-file}\nworkers: 2\n", env,
		  &e),
	    0);
	assert_string_equal(c.origin.contact_points.item[0], "from-document");
	assert_int_equal(c.origin.contact_points.count, 1);
	assert_int_equal(c.origin.port, 3);
	assert_string_equal(c.origin.username, "from-file");
	assert_int_equal(c.workers, 2); /* an empty variable is no variable */
	assert_int_equal(c.source[config_key_find("origin.port", 11)].rank, CONFIG_FROM_ENV);
	assert_false(c.document_mode); /* there is a file: its defaults are not the document's */
	assert_true(c.intercept.enabled);
	config_done(&c);
}

/* Every key has a variable of its own, and it works with the key's default. */
static void test_every_key_by_env(void **state)
{
	char names[CONFIG_KEYS_MAX][96], text[256];

	(void)state;
	for (size_t i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		char *env[] = {text, NULL};
		struct config c;
		struct error e;

		config_key_variable(key, names[i], sizeof(names[i]));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
		for (size_t j = 0; j < config_variable_count; j++)
			assert_string_not_equal(names[i], config_variables[j].name);
		snprintf(text, sizeof(text), "%s=%s", names[i],
			 *key->standard				 ? key->standard
			 : strstr(key->path, "passwordFile")	 ? "/proc/sys/kernel/ostype"
			 : strstr(key->path, "Address6")	 ? "fd00::1"
			 : strstr(key->path, "Address")		 ? "10.0.0.1"
			 : strstr(key->path, "Host")		 ? "host"
			 : strstr(key->path, "serverName")	 ? "host"
			 : strstr(key->path, "consistency")	 ? "ONE"
			 : !strcmp(key->path, "mirror.rename")	 ? "shop=store,shop.orders=sales"
			 : !strncmp(key->path, "mirror.", 7)	 ? "shop,crm.people,hr.*"
			 : strstr(key->path, "overrides")	 ? "10.0.0.0/8=proxy,[fd00::/16]:9042=direct"
			 : !strcmp(key->path, "intercept.watch") ? "10.0.0.0/8"
								 : "/x");
		if (!strcmp(key->path, "origin.contactPoints") || !strcmp(key->path, "target.contactPoints"))
			snprintf(text, sizeof(text), "%s=a,b:1", names[i]);
		if (config_load(&c, NULL, env, &e) < 0)
			fail_msg("%s: %s", text, e.text);
		assert_int_equal(c.source[i].rank, CONFIG_FROM_ENV);
		config_done(&c);
	}
	assert_string_equal(names[0], "CQLFERRY_ORIGIN_CONTACT_POINTS");
}

/* min−1, min, max, max+1 of every number. */
static void test_limits(void **state)
{
	unsigned tried = 0;

	(void)state;
	for (size_t i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		char name[96], text[160];
		char *env[] = {text, NULL};
		struct config c;
		struct error e;

		if (key->type != CONFIG_U32 && key->type != CONFIG_BYTES)
			continue;
		config_key_variable(key, name, sizeof(name));
		for (int n = 0; n < 4; n++) {
			uint64_t value = n < 2 ? key->min - (n == 0) : key->max + (n == 3);
			bool good = n == 1 || n == 2;

			if (n == 0 && key->min == 0)
				continue;
			snprintf(text, sizeof(text), "%s=%llu", name, (unsigned long long)value);
			if ((config_load(&c, NULL, env, &e) == 0) != good)
				fail_msg("%s: %s", text, good ? e.text : "was accepted");
			config_done(&c);
			tried++;
		}
	}
	assert_true(tried > 60);
}

static void test_list_bound(void **state)
{
	size_t room = 32 * (CONFIG_LIST_MAX + 2), at;
	char *text = malloc(room);
	struct config c;
	struct error e;

	(void)state;
	for (int extra = 0; extra < 2; extra++) {
		at = (size_t)snprintf(text, room, "intercept:\n  watch:\n");
		for (int i = 0; i < CONFIG_LIST_MAX + extra; i++)
			at += (size_t)snprintf(text + at, room - at, "  - 10.0.%d.%d\n", i / 256, i % 256);
		assert_int_equal(parse(&c, text, no_env, &e), extra ? -EINVAL : 0);
		if (extra)
			assert_string_equal(
			    e.text, "c.yaml:3: intercept.watch: more than 256 entries; allowed: at most 256");
		config_done(&c);
	}
	at = (size_t)snprintf(text, room, "CQLFERRY_INTERCEPT_WATCH=");
	for (int i = 0; i <= CONFIG_LIST_MAX; i++)
		at += (size_t)snprintf(text + at, room - at, "%s10.0.%d.%d", i ? "," : "", i / 256, i % 256);
	char *env[] = {text, NULL};

	assert_true(config_load(&c, NULL, env, &e) == -EINVAL);
	free(text);
}

/* ---------------------------------------------------------------- the document's variables */

#define DOCUMENT                                                                                            \
	"SOURCE_HOSTNAME=127.0.0.1", "SOURCE_USERNAME=cassandra", "SOURCE_PASSWORD=s3cret",                 \
	    "SOURCE_PORT=9142", "ASTRA_HOSTNAME=127.0.0.2", "ASTRA_USERNAME=token", "ASTRA_PASSWORD=t0ken", \
	    "ASTRA_PORT=9242", "PROXY_QUERY_PORT=14002"

static void test_document_only(void **state)
{
	char *env[] = {"PATH=/bin", DOCUMENT, "MIGRATION_COMPLETE=false", "DEBUG=true", "TEST=true", NULL};
	struct config c;
	struct error e = {""};

	(void)state;
	assert_int_equal(config_load(&c, NULL, env, &e), 0);
	assert_true(c.document_mode);
	assert_false(c.intercept.enabled);
	assert_int_equal(c.phase.initial, CONFIG_PHASE_MIRROR);
	assert_int_equal(c.auth.mode, AUTH_CONFIGURED);
	assert_int_equal(c.auth.client, AUTH_CLIENT_MATCH);
	assert_int_equal(c.listen.port, 14002);
	assert_string_equal(config_endpoint(&c.origin, 0).host, "127.0.0.1");
	assert_int_equal(config_endpoint(&c.origin, 0).port, 9142);
	assert_string_equal(c.origin.username, "cassandra");
	assert_string_equal(c.origin.password, "s3cret");
	assert_string_equal(config_endpoint(&c.target, 0).host, "127.0.0.2");
	assert_int_equal(config_endpoint(&c.target, 0).port, 9242);
	assert_string_equal(c.target.password, "t0ken");
	assert_string_equal(c.migration.service_host, "");
	assert_int_equal(c.log.level, LOG_DEBUG);
	assert_string_equal(c.state.directory, "");
	if (config_check(&c, &e) < 0)
		fail_msg("%s", e.text);
	config_done(&c);
}

static void test_document_complete(void **state)
{
	char *env[] = {DOCUMENT, "MIGRATION_COMPLETE=true", "DEBUG=false", "TEST=0", NULL};
	char *contradiction[] = {DOCUMENT, "MIGRATION_COMPLETE=true", "CQLFERRY_PHASE_INITIAL=mirror", NULL};
	struct config c;
	struct error e = {""};

	(void)state;
	assert_int_equal(config_load(&c, NULL, env, &e), 0);
	assert_true(c.migration.complete);
	assert_int_equal(c.phase.initial, CONFIG_PHASE_FINISH);
	assert_int_equal(c.log.level, LOG_INFO);
	assert_string_equal(c.state.directory, "/var/lib/cqlferry");
	assert_int_equal(config_check(&c, &e), 0);
	config_done(&c);

	assert_int_equal(config_load(&c, NULL, contradiction, &e), 0);
	assert_int_equal(config_check(&c, &e), -EINVAL);
	assert_string_equal(e.text, "migration.complete (MIGRATION_COMPLETE) is true, but phase.initial is "
				    "mirror; allowed: finish, or "
				    "leave phase.initial out");
	config_done(&c);
}

static void test_document_service(void **state)
{
	char *env[] = {DOCUMENT,
		       "MIGRATION_SERVICE_HOSTNAME=migrator",
		       "MIGRATION_PORT=15000",
		       "PROXY_SERVICE_HOSTNAME=proxy",
		       "PROXY_PORT=14000",
		       NULL};
	char *half[] = {DOCUMENT, "MIGRATION_SERVICE_HOSTNAME=migrator", NULL};
	struct config c;
	struct error e = {""};

	(void)state;
	assert_int_equal(config_load(&c, NULL, env, &e), 0);
	assert_string_equal(c.migration.service_host, "migrator");
	assert_int_equal(c.migration.service_port, 15000);
	assert_string_equal(c.migration.proxy_host, "proxy");
	assert_int_equal(c.migration.proxy_port, 14000);
	assert_int_equal(config_check(&c, &e), 0);
	config_done(&c);
	assert_int_equal(config_load(&c, NULL, half, &e), 0);
	assert_int_equal(config_check(&c, &e), -EINVAL);
	assert_string_equal(
	    e.text, "migration.serviceHost (MIGRATION_SERVICE_HOSTNAME) is set without migration.servicePort "
		    "(MIGRATION_PORT)");
	config_done(&c);
}

/* CQLFERRY_* beats the document's own defaults as well. */
static void test_document_overridden(void **state)
{
	char *env[] = {DOCUMENT,
		       "CQLFERRY_PHASE_INITIAL=observe",
		       "CQLFERRY_AUTH_MODE=passthrough",
		       "CQLFERRY_AUTH_CLIENT=match",
		       "CQLFERRY_CONFIG=/not/read/here",
		       "CQLFERRY_INTERCEPT_ENABLED=true",
		       NULL};
	struct config c;
	struct error e;

	(void)state;
	assert_int_equal(config_load(&c, NULL, env, &e), 0);
	assert_int_equal(c.phase.initial, CONFIG_PHASE_OBSERVE);
	assert_int_equal(c.auth.mode, AUTH_PASSTHROUGH);
	assert_true(c.intercept.enabled);
	config_done(&c);
}

/* What Kubernetes puts into a pod because of Services called cqlferry, cqlferry-http, proxy and migration. */
static void test_service_links(void **state)
{
	char *env[] = {"CQLFERRY_SERVICE_HOST=10.96.0.7",
		       "CQLFERRY_SERVICE_PORT=9042",
		       "CQLFERRY_SERVICE_PORT_CQL=9042",
		       "CQLFERRY_PORT=tcp://10.96.0.7:9042",
		       "CQLFERRY_PORT_9042_TCP=tcp://10.96.0.7:9042",
		       "CQLFERRY_PORT_9042_TCP_ADDR=10.96.0.7",
		       "CQLFERRY_PORT_9042_TCP_PORT=9042",
		       "CQLFERRY_PORT_9042_TCP_PROTO=tcp",
		       "CQLFERRY_HTTP_PORT=tcp://10.96.0.8:9180",
		       "CQLFERRY_HTTP_SERVICE_HOST=10.96.0.8",
		       "PROXY_PORT=tcp://10.96.0.9:80",
		       "MIGRATION_PORT=tcp://10.96.0.9:80",
		       NULL};
	struct config c;
	struct error e = {""};

	(void)state;
	if (config_load(&c, NULL, env, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(c.http.port, 9180);
	assert_int_equal(c.migration.proxy_port, 0);
	config_done(&c);
}

/* ---------------------------------------------------------------- files and passwords */

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void test_files(void **state)
{
	char directory[] = "/tmp/cqlferry-config-XXXXXX", file[64], password[64], text[200], variable[128],
	     env_file[128];
	char *env[] = {variable, NULL}, *by_file[] = {env_file, NULL};
	struct config c;
	struct error e;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(file, sizeof(file), "%s/c.yaml", directory);
	snprintf(password, sizeof(password), "%s/password", directory);
	write_file(password, "from file \n\nmore\n");
	snprintf(text, sizeof(text), "origin:\n  username: u\n  passwordFile: %s\n", password);
	write_file(file, text);
	assert_int_equal(config_load(&c, file, no_env, &e), 0);
	assert_string_equal(c.origin.password, "from file "); /* a blank may be part of it */
	assert_string_equal(c.file, file);
	config_done(&c);
	/* The stronger source wins, in both directions. */
	snprintf(variable, sizeof(variable), "SOURCE_PASSWORD=from env");
	assert_int_equal(config_load(&c, file, env, &e), 0);
	assert_string_equal(c.origin.password, "from env");
	config_done(&c);
	write_file(file, "origin: {username: u, password: old}\n");
	snprintf(env_file, sizeof(env_file), "CQLFERRY_ORIGIN_PASSWORD_FILE=%s", password);
	assert_int_equal(config_load(&c, file, by_file, &e), 0);
	assert_string_equal(c.origin.password, "from file ");
	config_done(&c);
	write_file(password, "\nx\n");
	assert_int_equal(config_load(&c, file, by_file, &e), -EINVAL);
	assert_non_null(strstr(e.text, "CQLFERRY_ORIGIN_PASSWORD_FILE: the first line of"));

	assert_int_equal(config_load(&c, directory, no_env, &e), -EINVAL);
	assert_non_null(strstr(e.text, "it is a directory"));
	unlink(file);
	assert_int_equal(config_load(&c, file, no_env, &e), -ENOENT);
	assert_non_null(strstr(e.text, "No such file"));
	/* One byte above the limit: refused, not cut. */
	FILE *f = fopen(file, "w");

	assert_int_equal(ftruncate(fileno(f), CONFIG_FILE_MAX + 1), 0);
	fclose(f);
	assert_int_equal(config_load(&c, file, no_env, &e), -EINVAL);
	assert_non_null(strstr(e.text, "too large"));
	/* A FIFO must not hang the start. */
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(config_load(&c, file, no_env, &e), 0);
	config_done(&c);
	unlink(file);
	unlink(password);
	rmdir(directory);
}

/* ---------------------------------------------------------------- how keys fit together */

static const struct {
	const char *yaml, *error;
} bad_sum[] = {
    {"intercept: {enabled: false}\n",
     "nothing to serve: intercept.enabled is false and listen.port is 0; set listen.port "
     "(PROXY_QUERY_PORT) or enable interception"},
    {"listen: {port: 9042}\n",
     "listen.port is set, but origin.contactPoints (SOURCE_HOSTNAME) is empty: where should its clients "
     "be led to?"},
    {"workers: 1\n", "nothing to intercept: intercept.watch and origin.contactPoints are both empty"},
    {"origin: {contactPoints: [a]}\nphase: {initial: mirror}\n",
     "phase mirror needs target.contactPoints (ASTRA_HOSTNAME)"},
    {"origin: {contactPoints: [b]}\nconnection: {controlHosts: ['a:9043']}\ntarget: {contactPoints: ['a:9043']}\n",
     "a port 9043 is a contact point of both origin and target: every write would be mirrored onto itself"},
    {"origin: {contactPoints: [b, A]}\ntarget: {contactPoints: ['a:9042']}\n",
     "A port 9042 is a contact point of both origin and target: every write would be mirrored onto itself"},
    {"origin: {contactPoints: [a], password: p}\n", "origin.password is set without origin.username"},
    {"origin: {contactPoints: [a]}\ntarget: {username: u}\n",
     "target.username is set without a password; set target.password or target.passwordFile"},
    {"origin: {contactPoints: [a]}\nauth: {client: any}\n",
     "auth.client any needs auth.mode configured: with passthrough the origin decides"},
    {"origin: {contactPoints: [a]}\nauth: {mode: configured}\n",
     "auth.mode configured needs origin.username (SOURCE_USERNAME)"},
    {"origin: {contactPoints: [a]}\nhttp: {port: 19042}\n",
     "listen.agentPort and http.port are both 19042; allowed: a port of its own for each"},
    {"origin: {contactPoints: [a]}\nlimits: {requestsInFlight: 5, sessionRequests: 6}\n",
     "limits.sessionRequests (6) is above limits.requestsInFlight (5)"},
    {"origin: {contactPoints: [a]}\nlimits: {mirrorBytes: 1MiB}\n",
     "limits.mirrorBytes is below limits.frameBytes: one request of the largest size would never fit"},
    {"origin: {contactPoints: [a], tls: {caFile: /ca}}\n", "origin.tls.caFile is set, but origin.tls.enabled is false"},
    {"origin: {contactPoints: [a]}\ntarget: {contactPoints: [b], tls: {enabled: true, keyFile: /k}}\n",
     "target.tls.keyFile is set without target.tls.certFile"},
    {"origin: {contactPoints: [a]}\ntarget: {contactPoints: [b], secureConnectBundle: /b, username: u, password: p}\n",
     "target.contactPoints is set, but the nodes come from target.secureConnectBundle; allowed: one of the two"},
    {"origin: {contactPoints: [a]}\ntarget: {secureConnectBundle: /b, username: u, password: p, tls: {certFile: /c}}\n",
     "target.tls.certFile is set, but the certificates come from target.secureConnectBundle; allowed: one of the two"},
    {"origin: {contactPoints: [a]}\ntarget: {secureConnectBundle: /b}\n",
     "target.secureConnectBundle needs target.username and a password (an application token: username token, "
     "the token as password)"},
    {"origin: {secureConnectBundle: /b, username: u, password: p}\n",
     "origin.secureConnectBundle needs intercept.enabled false and listen.port: clients of such a cluster "
     "speak TLS with its proxy, and nothing else names its nodes"},
    {"origin: {contactPoints: [a]}\nmirror: {rename: [a=b, c=b]}\n", "mirror.rename: a=b and c=b would become one on the target"},
    {"origin: {contactPoints: [a]}\nmirror: {rename: [a.x=t, a.y=t]}\n", "mirror.rename: a.x=t and a.y=t would become one on the target"},
    {"origin: {contactPoints: [a]}\nmirror: {rename: [a=b, a.x=t, a=c]}\n", "mirror.rename: a=b and a=c give one name twice"},
    {"origin: {contactPoints: [a]}\ntarget: {contactPoints: [b]}\nmirror: {rename: [a=b]}\nphase: {initial: finish}\n",
     "mirror.rename is set, but phase.initial is finish: clients would name the origin's keyspaces on the target; leave one of the two out"},
    {"origin: {contactPoints: [a]}\nmirror: {rename: [a=b]}\nmigration: {serviceHost: m, servicePort: 1, proxyPort: 2}\n",
     "mirror.rename is set, but migration.serviceHost (MIGRATION_SERVICE_HOSTNAME) ends with a cutover, which needs the same names on "
     "both clusters; leave one of the two out"},
    {"origin: {contactPoints: [a]}\nlisten: {tls: {keyFile: /k}}\n",
     "listen.tls has settings, but no certificate: set listen.tls.certFile"},
    {"origin: {contactPoints: [a]}\nlisten: {tls: {certFile: /c, clientAuth: required}}\n",
     "listen.tls.clientAuth needs listen.tls.clientCaFile: who signs the clients' certificates?"},
};

static size_t add_hosts(char *text, size_t at, size_t room, const char *key, char letter, int count)
{
	at += (size_t)snprintf(text + at, room - at, "%s: [", key);
	for (int i = 0; i < count; i++)
		at += (size_t)snprintf(text + at, room - at, "%s%c%d", i ? "," : "", letter, i);
	return at + (size_t)snprintf(text + at, room - at, "]}\n");
}

/* Lists of so many hosts; `expected` NULL: they are accepted. */
static void check_hosts(int origin, int control, int target, const char *expected)
{
	char text[4096];
	struct config c;
	struct error e;
	size_t at;

	at = add_hosts(text, 0, sizeof(text), "origin: {contactPoints", 'o', origin);
	at = add_hosts(text, at, sizeof(text), "connection: {controlHosts", 'c', control);
	add_hosts(text, at, sizeof(text), "target: {contactPoints", 't', target);
	if (parse(&c, text, no_env, &e) < 0)
		fail_msg("%s", e.text);
	if (config_check(&c, &e) != (expected ? -EINVAL : 0))
		fail_msg("%d, %d, %d: %s", origin, control, target, expected ? "accepted" : e.text);
	if (expected)
		assert_string_equal(e.text, expected);
	config_done(&c);
}

static void test_check(void **state)
{
	struct config c;
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY(bad_sum); i++) {
		if (parse(&c, bad_sum[i].yaml, no_env, &e) < 0)
			fail_msg("%s: %s", bad_sum[i].yaml, e.text);
		if (config_check(&c, &e) != -EINVAL)
			fail_msg("%s: was accepted", bad_sum[i].yaml);
		assert_string_equal(e.text, bad_sum[i].error);
		config_done(&c);
	}
	assert_int_equal(
	    parse(&c,
		  "origin: {contactPoints: [a]}\ntarget: {contactPoints: [b]}\nphase: {initial: mirror}\n",
		  no_env, &e),
	    0);
	assert_int_equal(config_check(&c, &e), 0);
	config_done(&c);
	check_hosts(64, 0, 64, NULL);
	check_hosts(60, 4, 0, NULL);
	check_hosts(65, 0, 0, "origin.contactPoints: 65 hosts; allowed: at most 64");
	check_hosts(1, 65, 0, "connection.controlHosts: 65 hosts; allowed: at most 64");
	check_hosts(60, 5, 0, "origin.contactPoints and connection.controlHosts: 65 hosts; allowed: at most 64");
	check_hosts(1, 0, 66, "target.contactPoints: 66 hosts; allowed: at most 64");
	/* A bundle stands for contact points and TLS. */
	assert_int_equal(parse(&c,
			       "origin: {contactPoints: [a]}\nphase: {initial: mirror}\n"
			       "target: {secureConnectBundle: /b, username: token, password: t}\n",
			       no_env, &e),
			 0);
	assert_int_equal(config_check(&c, &e), 0);
	config_done(&c);
}

/* Every strict prefix and every flipped byte of a real file: an error or a configuration, never a crash or a
 * leak. */
static void test_mangled(void **state)
{
	static const char text[] =
	    "origin:\n  contactPoints: [10.0.3.7, 'db.example:19042']\n  username: app\n"
	    "  password: &p \"x\"\ntarget:\n  contactPoints: t1\n  password: *p\nlimits: {mirrorBytes: "
	    "2GiB}\n";
	char copy[sizeof(text)];
	unsigned good = 0, bad = 0;
	struct config c;
	struct error e;

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		char *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read past the end */

		memcpy(exact, text, n);
		*(config_parse(&c, "c.yaml", exact, n, no_env, &e) == 0 ? &good : &bad) += 1;
		config_done(&c);
		free(exact);
	}
	for (size_t n = 0; n + 1 < sizeof(text); n++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(copy, text, sizeof(text));
			copy[n] = (char)(copy[n] ^ (1u << bit));
			*(config_parse(&c, "c.yaml", copy, sizeof(text) - 1, no_env, &e) == 0 ? &good
											      : &bad) += 1;
			config_done(&c);
		}
	}
	assert_true(good > 10);
	assert_true(bad > 100);
}

/* ---------------------------------------------------------------- the documentation */

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text;
	size_t n;

	if (!f)
		fail_msg("%s: %s (run from the top of the repository)", path, strerror(errno));
	text = malloc(1 << 20);
	n = fread(text, 1, (1 << 20) - 1, f);
	text[n] = 0;
	fclose(f);
	return text;
}

/* Each row that the table prints stands in the document, and the document has no row of its own. */
static void compare_rows(const char *document, void (*print)(FILE *, bool), const char *begin)
{
	char *rows = NULL, *at;
	size_t size, rows_count = 0, document_count = 0;
	FILE *f = open_memstream(&rows, &size);
	const char *section = strstr(document, begin);

	print(f, true);
	fclose(f);
	if (!section)
		fail_msg("docs/configuration.md has no '%s'", begin);
	for (char *line = strtok_r(rows, "\n", &at); line; line = strtok_r(NULL, "\n", &at), rows_count++)
		if (!strstr(document, line))
			fail_msg("docs/configuration.md lacks this row; `cqlferry help configuration "
				 "--markdown` prints all:\n%s",
				 line);
	for (const char *p = section; *p; p = strchr(p, '\n') + 1) {
		if (p != section && (!strncmp(p, "## ", 3)))
			break;
		document_count += !strncmp(p, "| `", 3);
		if (!strchr(p, '\n'))
			break;
	}
	assert_int_equal(document_count, rows_count);
	free(rows);
}

static void test_documentation(void **state)
{
	char *document = slurp("docs/configuration.md");

	(void)state;
	compare_rows(document, config_print_keys, "## Keys");
	compare_rows(document, config_print_document_variables, "## The document's variables");
	free(document);
}

static void test_table_is_sound(void **state)
{
	(void)state;
	for (size_t i = 0; i < config_key_count; i++) {
		size_t size = strlen(config_keys[i].help);

		assert_true(size > 5 && config_keys[i].help[size - 1] != '.');
		assert_null(strchr(config_keys[i].help, '|'));
		assert_int_equal(config_key_find(config_keys[i].path, strlen(config_keys[i].path)), i);
		if (config_keys[i].type == CONFIG_LIST)
			assert_non_null(config_keys[i].valid);
	}
	for (size_t i = 0; i < config_variable_count; i++)
		assert_true(config_key_find(config_variables[i].path, strlen(config_variables[i].path)) >= 0);
}

static void test_nearest(void **state)
{
	static const struct {
		const char *word, *candidates[4], *best;
	} table[] = {
	    {"statsu", {"status", "sessions"}, "status"}, /* neighbours exchanged: one slip */
	    {"cutovr", {"rollback", "cutover"}, "cutover"},
	    {"xyz", {"status", "phase"}, NULL},
	    {"", {"status"}, NULL},
	    {"PHASE", {"phases", "phase"}, "phase"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY(table); i++) {
		struct nearest n = {.word = table[i].word};

		for (size_t j = 0; j < 4 && table[i].candidates[j]; j++)
			nearest_offer(&n, table[i].candidates[j]);
		if (table[i].best)
			assert_string_equal(n.best, table[i].best);
		else
			assert_null(n.best);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bad_yaml),
	    cmocka_unit_test(test_secret_never_shown),
	    cmocka_unit_test(test_bad_env),
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_yaml_values),
	    cmocka_unit_test(test_precedence),
	    cmocka_unit_test(test_every_key_by_env),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_list_bound),
	    cmocka_unit_test(test_document_only),
	    cmocka_unit_test(test_document_complete),
	    cmocka_unit_test(test_document_service),
	    cmocka_unit_test(test_document_overridden),
	    cmocka_unit_test(test_service_links),
	    cmocka_unit_test(test_files),
	    cmocka_unit_test(test_check),
	    cmocka_unit_test(test_mangled),
	    cmocka_unit_test(test_documentation),
	    cmocka_unit_test(test_table_is_sound),
	    cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
