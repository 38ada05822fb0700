// SPDX-License-Identifier: Apache-2.0
/*
 * What asks through the client: the preflight and the survey of other writers, against scripted nodes that
 * answer from tables. Names, columns and wordings of the tables are those of Cassandra 5.0.9 and 4.1.10.
 */
#include "mirror/preflight.h"
#include "mirror/writers.h"
#include "unit/fakenode.h"

/* ------------------------------------------------------------- preflight */

#define LOCAL "cluster_name t,release_version t,partitioner t,host_id u,schema_version u"
#define PEERS                                                                        \
	{                                                                            \
		"FROM system.peers", "host_id u,schema_version u,release_version t", \
		{                                                                    \
			NULL                                                         \
		}                                                                    \
	}
#define CLOCK(ms)                       \
	{                               \
		"toTimestamp", "now m", \
		{                       \
			ms              \
		}                       \
	}
/* What the two literals are: 2025-01-15 and 2025-07-15, midnight. */
#define ZONE(winter, summer)                          \
	{                                             \
		"' AS winter", "winter e,summer e",   \
		{                                     \
			winter "|" summer             \
		}                                     \
	}
#define UTC ZONE("1736899200000", "1752537600000")
#define NEW_YORK ZONE("1736917200000", "1752552000000")
#define KOLKATA ZONE("1736879400000", "1752517800000")
#define NOTHING(table, columns)                  \
	{                                        \
		"system_schema." table, columns, \
		{                                \
			NULL                     \
		}                                \
	}
#define COLUMNS "keyspace_name t,table_name t,column_name t,kind t,position i,type t,clustering_order t"
#define OF_TABLE(name) "keyspace_name t,table_name t," name " t"
#define REST                                                                                         \
	NOTHING("views", "keyspace_name t,view_name t"), NOTHING("indexes", OF_TABLE("index_name")), \
	    NOTHING("triggers", OF_TABLE("trigger_name")),                                           \
	    NOTHING("functions", "keyspace_name t,function_name t,argument_types l"),                \
	    NOTHING("aggregates", "keyspace_name t,aggregate_name t,argument_types l")
#define TYPES(fields, types)                                                                      \
	{                                                                                         \
		"system_schema.types", "keyspace_name t,type_name t,field_names l,field_types l", \
		{                                                                                 \
			"app|addr|" fields "|" types                                              \
		}                                                                                 \
	}
#define LIST(may, on)                                                                \
	{"LIST ROLES OF \"ann\"", "role t,super b", {"ann|0"}},                      \
	{                                                                            \
		"LIST ALL PERMISSIONS OF \"ann\"", "role t,resource t,permission t", \
		{                                                                    \
			"ann|" on "|SELECT", "ann|" on "|" may                       \
		}                                                                    \
	}

static const struct fake_table origin_tables[] = {
    CLOCK("0"),
    UTC,
    {"FROM system.local", LOCAL, {"one|5.0.9|o.a.c.Murmur3Partitioner|A|s"}},
    PEERS,
    {"system_schema.keyspaces", "keyspace_name t", {"system", "app", "gone", "system_auth"}},
    TYPES("street,zips", "text,set<int>"),
    {"system_schema.tables",
     "keyspace_name t,table_name t,default_time_to_live i",
     {"app|t|60", "app|u|0", "gone|x|0", "system|local|0"}},
    {"system_schema.columns",
     COLUMNS,
     {"app|t|k|partition_key|0|int|none", "app|t|c|clustering|0|int|desc",
      "app|t|v|regular|-1|map<int, text>|none", "app|t|s|static|-1|text|none",
      "app|u|k|partition_key|0|int|none", "gone|x|k|partition_key|0|int|none",
      "app|view|k|partition_key|0|int|none"}},
    REST,
    LIST("MODIFY", "<keyspace app>"),
    {"system_views.clients", "address a", {NULL}},
    {0},
};

/* The same in another order, with other blanks in a type, and more of its own. */
static const struct fake_table good_tables[] = {
    CLOCK("20"),
    UTC,
    {"FROM system.local", LOCAL, {"two|4.1.10|o.a.c.Murmur3Partitioner|B|s"}},
    PEERS,
    {"system_schema.keyspaces", "keyspace_name t", {"gone", "own", "app"}},
    TYPES("street,zips", "text,set<int>"),
    {"system_schema.tables",
     "keyspace_name t,table_name t,default_time_to_live i",
     {"gone|x|0", "app|u|0", "app|t|60", "own|x|0"}},
    {"system_schema.columns",
     COLUMNS,
     {"app|t|v|regular|-1|map<int,text>|none", "app|t|k|partition_key|0|int|none",
      "app|t|c|clustering|0|int|desc", "app|t|s|static|-1|text|none", "app|u|k|partition_key|0|int|none",
      "gone|x|k|partition_key|0|int|none", "app|t|more|regular|-1|int|none"}},
    REST,
    LIST("MODIFY", "<all keyspaces>"),
    {0},
};

static const struct fake_table bad_tables[] = {
    CLOCK("-300"),
    UTC,
    {"FROM system.local", LOCAL, {"two|4.1.10|o.a.c.RandomPartitioner|B|s"}},
    PEERS,
    {"system_schema.keyspaces", "keyspace_name t", {"app"}},
    TYPES("street", "text"),
    {"system_schema.tables", "keyspace_name t,table_name t,default_time_to_live i", {"app|t|0"}},
    {"system_schema.columns",
     COLUMNS,
     {"app|t|k|partition_key|0|int|none", "app|t|c|clustering|0|int|asc",
      "app|t|v|regular|-1|map<int, blob>|none", "app|t|d|clustering|1|int|asc"}},
    REST,
    LIST("ALTER", "<table app.t>"),
    {0},
};

struct findings {
	enum preflight_grade worst;
	unsigned count[4];
	char text[8192], remedies[8192];
};

static void found(void *context, enum preflight_grade grade, const char *what, const char *remedy)
{
	struct findings *f = context;

	f->count[grade]++;
	if (grade > f->worst)
		f->worst = grade;
	snprintf(f->text + strlen(f->text), sizeof(f->text) - strlen(f->text), "%d %s\n", grade, what);
	if (remedy)
		snprintf(f->remedies + strlen(f->remedies), sizeof(f->remedies) - strlen(f->remedies), "%s\n",
			 remedy);
}

static const struct scope *scope; /* of the next one; NULL = everything */

static void preflight_between(const struct fake_table *origin, const struct fake_table *target,
			      fake_answer answer, struct findings *ret)
{
	struct fake f[SIDES];
	struct cluster clusters[SIDES];

	memset(ret, 0, sizeof(*ret));
	memset(clusters, 0, sizeof(clusters));
	for (int i = 0; i < SIDES; i++) {
		fake_start(&f[i], "127.0.0.1", answer);
		f[i].tables = i == ORIGIN ? origin : target;
		clusters[i] = (struct cluster){.node_count = 1, .username = "ann", .password = "secret"};
		clusters[i].nodes[0] = f[i].addr;
	}
	int worst = preflight_run(clusters, scope, 0, 100, found, ret);

	assert_int_equal(worst, ret->worst);
	for (int i = 0; i < SIDES; i++)
		fake_stop(&f[i]);
}

static void expect(const char *text, const char *const *parts)
{
	for (; *parts; parts++)
		if (!strstr(text, *parts))
			fail_msg("\"%s\" is not in:\n%s", *parts, text);
}

static void preflight_good(void **state)
{
	struct findings f;

	(void)state;
	preflight_between(origin_tables, good_tables, fake_password, &f);
	/* The origin's role has nothing in the keyspace "gone": the one fault here. */
	expect(f.text,
	       (const char *[]){
		   "schema: the same on both clusters (keyspaces: 2, types: 1, tables: 3, columns: 6)",
		   "both clusters use Murmur3Partitioner", "1 only on the target: app.t.more, keyspace own",
		   "0 target: role ann may SELECT and MODIFY in all 2 keyspaces",
		   "3 origin: role ann lacks SELECT and MODIFY on keyspace gone", NULL});
	expect(f.remedies, (const char *[]){"on the origin: GRANT SELECT ON KEYSPACE \"gone\" TO \"ann\"; "
					    "GRANT MODIFY ON KEYSPACE \"gone\" TO \"ann\";",
					    NULL});
	assert_int_equal(f.count[PREFLIGHT_FAIL], 1);
	assert_int_equal(f.count[PREFLIGHT_WARN], 0);
}

static void preflight_bad(void **state)
{
	struct findings f;

	(void)state;
	preflight_between(origin_tables, bad_tables, fake_password, &f);
	expect(f.text,
	       (const char *[]){
		   "3 partitioners differ: origin Murmur3Partitioner, target RandomPartitioner",
		   "3 keyspace gone is missing", "3 table app.u is missing",
		   "3 table app.t: default_time_to_live is 60 on the origin and 0",
		   "3 type app.addr is (street text, zips set<int>) on the origin and (street text)",
		   "3 column app.t.c is \"clustering 0 int desc\" on the origin and \"clustering 0 int asc\"",
		   "3 column app.t.s (static text) is missing",
		   "3 column app.t.v is \"regular map<int, text>\"",
		   "3 column app.t.d (clustering 1 int asc) is part of the key on the target",
		   "ms behind this node's", "3 target: role ann lacks MODIFY on keyspace app", NULL});
	expect(f.remedies,
	       (const char *[]){"ALTER TABLE \"app\".\"t\" ADD \"s\" text STATIC;",
				"WITH default_time_to_live = 60;",
				"on the target: GRANT MODIFY ON KEYSPACE \"app\" TO \"ann\";", NULL});
	/* 8 of the schema, partitioner, clock, the target's role; and nothing told twice. */
	assert_int_equal(f.count[PREFLIGHT_FAIL], 11);
	assert_null(strstr(f.text, "gone.x"));
	assert_null(strstr(f.text, "app.u.k"));
	assert_null(strstr(f.text, "app.view"));
	assert_null(strstr(f.text, "system"));
}

/* Both clusters have both keyspaces, under each other's names: nothing fits, and findings name what is on the target. */
static void preflight_other_names(void **state)
{
	struct scope_rename renames[] = {{{"app", ""}, "gone"}, {{"gone", ""}, "app"}};
	const struct scope swapped = {.rename = renames, .rename_count = 2};
	struct findings f;

	(void)state;
	scope = &swapped;
	preflight_between(origin_tables, good_tables, fake_password, &f);
	scope = NULL;
	expect(f.text, (const char *[]){"3 table gone.t is missing on the target", "3 table app.x is missing on the target", "app is gone",
					"3 origin: role ann lacks SELECT and MODIFY on keyspace gone", NULL});
	expect(f.remedies, (const char *[]){"on the origin: GRANT SELECT ON KEYSPACE \"gone\" TO \"ann\";", NULL});
}

static void preflight_left_out(void **state)
{
	struct table_name exclude[] = {{"gone", ""}, {"app", "u"}};
	const struct scope less = {.exclude = exclude, .exclude_count = 2};
	struct findings f;

	(void)state;
	scope = &less;
	preflight_between(origin_tables, good_tables, fake_password, &f);
	scope = NULL;
	expect(f.text, (const char *[]){"schema: the same on both clusters (keyspaces: 1, types: 1, tables: 1,",
					"leaves out (app.u, gone.x)", "only on the target: ", NULL});
	assert_int_equal(f.count[PREFLIGHT_FAIL], 0);
}

static void preflight_time_zones_differ(void **state)
{
	static const struct fake_table rest[] = {CLOCK("0"), {"FROM system.local", LOCAL, {"two|4.1.10|o.a.c.Murmur3Partitioner|B|s"}}, PEERS, {0}};
	static const struct {
		struct fake_table origin, target;
		const char *found;
	} cases[] = {
	    {UTC, UTC, "0 both clusters read timestamps without a zone as UTC+00:00"},
	    {NEW_YORK, NEW_YORK, "0 both clusters read timestamps without a zone as UTC-05:00 (in July UTC-04:00)"},
	    {UTC, NEW_YORK, "3 time zones differ: the origin is at UTC+00:00, the target at UTC-05:00 (in July UTC-04:00)"},
	    {KOLKATA, UTC, "3 time zones differ: the origin is at UTC+05:30, the target at UTC+00:00: "},
	    /* alike in winter */
	    {ZONE("1736899200000", "1752534000000"), UTC, "3 time zones differ: the origin is at UTC+00:00 (in July UTC+01:00), the target at UTC+00:00: "},
	    {UTC, {"' AS winter", "winter t", {"x"}}, "1 target: its time zone is not known"},
	    {{"' AS nothing", "winter t", {NULL}}, UTC, "1 origin: its time zone is not known"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake_table tables[SIDES][5];
		struct findings f;

		print_message("%s\n", cases[i].found);
		for (int side = 0; side < SIDES; side++) {
			tables[side][0] = side == ORIGIN ? cases[i].origin : cases[i].target;
			memcpy(&tables[side][1], rest, sizeof(rest));
		}
		preflight_between(tables[ORIGIN], tables[TARGET], fake_ready, &f);
		expect(f.text, (const char *[]){cases[i].found, NULL});
		assert_int_equal(strstr(f.remedies, "-Duser.timezone") != NULL, cases[i].found[0] == '3');
	}
}

/* The tables of `from`, with masks before them and grants of their own. */
static void masked(const struct fake_table *from, struct fake_table to[32], const struct fake_table *masks, const struct fake_table *grants)
{
	unsigned n = 0;

	to[n++] = *masks;
	to[n++] = *grants;
	while (from->needle)
		to[n++] = *from++;
	assert_true(n < 32);
	to[n] = (struct fake_table){0};
}

#define MASKS(...) {"system_schema.column_masks", "keyspace_name t,table_name t", {__VA_ARGS__}}
#define PERMISSIONS(...) {"LIST ALL PERMISSIONS OF", "role t,resource t,permission t", {"ann|<all keyspaces>|SELECT", "ann|<all keyspaces>|MODIFY", __VA_ARGS__}}

static void preflight_masked_columns(void **state)
{
	static const struct {
		struct fake_table masks, permissions;
		const char *found; /* NULL: nothing */
	} cases[] = {
	    {MASKS(NULL), PERMISSIONS(NULL), NULL},
	    {MASKS("app|t", "app|t", "app|u"), PERMISSIONS(NULL), "lacks UNMASK on tables with masked columns (app.t, app.u): "},
	    {MASKS("app|t", "app|u"), PERMISSIONS("ann|<table app.u>|UNMASK"), "lacks UNMASK on tables with masked columns (app.t): "},
	    {MASKS("app|t", "app|u"), PERMISSIONS("ann|<keyspace app>|SELECT_MASKED"), "lacks UNMASK on tables with masked columns (app.t, app.u): "},
	    {MASKS("app|t"), PERMISSIONS("ann|<keyspace app>|UNMASK"), NULL},
	    {MASKS("app|t"), PERMISSIONS("ann|<all tables in app>|UNMASK"), NULL},
	    {MASKS("app|t", "gone|x"), PERMISSIONS("ann|<all keyspaces>|UNMASK"), NULL},
	    {MASKS("own|x", "app|more"), PERMISSIONS(NULL), NULL}, /* not on both */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (int side = 0; side < SIDES; side++) {
			struct fake_table tables[32], other[32];
			const struct fake_table none = MASKS(NULL), all = PERMISSIONS(NULL);
			struct findings f;
			char expected[256];

			masked(side == ORIGIN ? origin_tables : good_tables, tables, &cases[i].masks, &cases[i].permissions);
			masked(side == ORIGIN ? good_tables : origin_tables, other, &none, &all);
			preflight_between(side == ORIGIN ? tables : other, side == ORIGIN ? other : tables, fake_password, &f);
			assert_int_equal(f.count[PREFLIGHT_FAIL], cases[i].found != NULL);
			if (!cases[i].found)
				continue;
			snprintf(expected, sizeof(expected), "3 %s: role ann %s", side_name((enum side)side), cases[i].found);
			expect(f.text, (const char *[]){expected, NULL});
			snprintf(expected, sizeof(expected), "on the %s: GRANT UNMASK ON ALL KEYSPACES TO \"ann\";", side_name((enum side)side));
			expect(f.remedies, (const char *[]){expected, NULL});
		}
	}
}

static void preflight_same_cluster(void **state)
{
	struct findings f;

	(void)state;
	preflight_between(origin_tables, origin_tables, fake_ready, &f);
	expect(f.text,
	       (const char *[]){"3 origin and target are the same cluster", "asks for no login", NULL});
	assert_int_equal(f.count[PREFLIGHT_FAIL], 1);
}

static void preflight_unreachable(void **state)
{
	struct cluster clusters[SIDES] = {{.node_count = 0, .username = "", .password = ""},
					  {.node_count = 2, .username = "", .password = ""}};
	struct findings f = {0};
	struct fake gone;

	(void)state;
	fake_start(&gone, "127.0.0.1", fake_ready);
	fake_stop(&gone);
	clusters[TARGET].nodes[0] = clusters[TARGET].nodes[1] = gone.addr;
	assert_int_equal(preflight_run(clusters, NULL, 0, 100, found, &f), PREFLIGHT_FAIL);
	expect(f.text, (const char *[]){"3 origin: no contact points",
					"2 target: 127.0.0.1:", "3 target: 127.0.0.1:", NULL});
	assert_int_equal(f.count[PREFLIGHT_FAIL], 2);
	expect(f.remedies, (const char *[]){"origin.contactPoints", NULL});
}

/* ------------------------------------------------------------- writers */

struct foreigners {
	unsigned count;
	char text[1024];
};

static void foreign(void *context, const char *node, const struct addr *client, const char *driver,
		    const char *user)
{
	struct foreigners *f = context;
	char text[ADDR_TEXT_MAX];
	size_t at = strlen(f->text);

	(void)node;
	f->count++;
	snprintf(f->text + at, sizeof(f->text) - at, "%s %s %s\n", addr_format(client, text), driver, user);
}

#define CLIENTS "address a,port i,driver_name t,username t"

static void writers_of_all_nodes(void **state)
{
	/* The second node is known by a contact point and as a peer; the third is down. */
	static char peer_up[64], peer_down[64];
	struct fake f[2], down;
	struct foreigners seen = {0};
	struct cluster origin = {.node_count = 1, .username = "ann", .password = "secret"};
	struct error e = {0};

	(void)state;
	fake_start(&f[0], "127.0.0.1", fake_password);
	fake_start(&f[1], "127.0.0.2", fake_password);
	fake_start(&down, "127.0.0.3", fake_password);
	fake_stop(&down);
	snprintf(peer_up, sizeof(peer_up), "127.0.0.2|127.0.0.2|%u", addr_port(&f[1].addr));
	snprintf(peer_down, sizeof(peer_down), "127.0.0.3|0.0.0.0|%u", addr_port(&down.addr));
	const struct fake_table first[] =
	    {
		{"FROM system.local", "host_id u", {"A"}},
		{"FROM system.peers_v2", "peer a,native_address a,native_port i", {peer_up, peer_down}},
		{"system_views.clients",
		 CLIENTS,
		 {"10.1.2.3|4444|Java\x1b Driver|bob", "127.0.0.1|5|x|ann", "10.9.9.9|1|cqlferry mirror|ann",
		  "10.1.2.4|1|-|-", "10.1.2.5|2|cqlferryman|x"}},
		{0},
	    },
				second[] = {
				    {"FROM system.local", "host_id u", {"B"}},
				    {"FROM system.peers_v2", "peer a,native_address a,native_port i", {NULL}},
				    {"system_views.clients", CLIENTS, {"10.1.2.6|7|gocql|eve"}},
				    {0},
				};

	f[0].tables = first;
	f[1].tables = second;
	origin.nodes[0] = f[0].addr;
	assert_int_equal(writers_list(&origin, 0, writers_is_local, foreign, &seen, &e), -EHOSTUNREACH);
	assert_string_equal(
	    seen.text,
	    "10.1.2.3:4444 Java  Driver bob\n10.1.2.4:1  \n10.1.2.5:2 cqlferryman x\n10.1.2.6:7 gocql eve\n");
	assert_non_null(strstr(e.text, "127.0.0.3:"));
	fake_stop(&f[0]);
	fake_stop(&f[1]);
}

static void writers_before_cassandra_4(void **state)
{
	static const struct fake_table old[] = {
	    {"FROM system.local", "host_id u", {"A"}},
	    {"FROM system.peers ", "peer a,rpc_address a", {NULL}},
	    {"FROM system.peers", "peer a,rpc_address a", {NULL}},
	    {0},
	};
	struct fake f;
	struct foreigners seen = {0};
	struct cluster origin = {.node_count = 1, .username = "", .password = ""};
	struct error e = {0};

	(void)state;
	fake_start(&f, "127.0.0.1", fake_ready);
	f.tables = old;
	origin.nodes[0] = f.addr;
	assert_int_equal(writers_list(&origin, 0, writers_is_local, foreign, &seen, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "unknown"));
	fake_stop(&f);
	assert_int_equal(writers_list(&origin, 0, writers_is_local, foreign, &seen, &e), -ECONNREFUSED);
	origin.node_count = 0;
	assert_true(writers_list(&origin, 0, writers_is_local, foreign, &seen, &e) < 0);
	assert_non_null(strstr(e.text, "contactPoints"));
	assert_int_equal(seen.count, 0);
}

static void local_addresses(void **state)
{
	static const struct {
		const char *text;
		bool local;
	} cases[] = {{"127.0.0.1:1", true},	     {"127.9.9.9:1", true},  {"[::1]:1", true},
		     {"[::ffff:127.0.0.1]:1", true}, {"192.0.2.1:1", false}, {"[2001:db8::1]:1", false}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct addr a;

		assert_int_equal(addr_resolve(cases[i].text, 1, &a, NULL), 0);
		assert_int_equal(writers_is_local(NULL, &a), cases[i].local);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(preflight_good),	      cmocka_unit_test(preflight_bad),
	    cmocka_unit_test(preflight_other_names),
	    cmocka_unit_test(preflight_left_out),
	    cmocka_unit_test(preflight_time_zones_differ),
	    cmocka_unit_test(preflight_masked_columns),
	    cmocka_unit_test(preflight_same_cluster), cmocka_unit_test(preflight_unreachable),
	    cmocka_unit_test(writers_of_all_nodes),   cmocka_unit_test(writers_before_cassandra_4),
	    cmocka_unit_test(local_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
