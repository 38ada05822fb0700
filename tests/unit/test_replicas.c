// SPDX-License-Identifier: Apache-2.0
/* Which contact points hold what: a ring of three nodes, two of them contact points, as a scripted node tells it. */
#include "mirror/replicas.h"
#include "unit/fakenode.h"

#define TIMEOUT_MS 10000
#define MURMUR "org.apache.cassandra.dht.Murmur3Partitioner"
#define LOCAL "data_center t,rack t,tokens l,partitioner t,host_id u"
#define PEERS "peer a,rpc_address a,data_center t,rack t,tokens l,host_id u"
#define KEYSPACES "keyspace_name t,replication p"

/* From −300 on: C (rack r2), A (r1), B (r1, no contact point), C, A. There is no system.peers_v2. */
static const struct fake_table ring[] = {
    {"system.local", LOCAL, {"dc1|r1|-100,300|" MURMUR "|a"}},
    {"rpc_address", PEERS, {"10.0.0.2|127.0.0.2|dc1|r1|0|b", "10.0.0.3|127.0.0.3|dc1|r2|100,-300|c", "10.0.0.4|127.0.0.4|dc1|r2|-|d"}},
    {"system_schema.keyspaces", KEYSPACES,
     {"zwei|class,org.apache.cassandra.locator.SimpleStrategy,replication_factor,2",
      "eins|class,org.apache.cassandra.locator.SimpleStrategy,replication_factor,1",
      "system|class,org.apache.cassandra.locator.LocalStrategy",
      "racks|class,org.apache.cassandra.locator.NetworkTopologyStrategy,dc1,2,dc2,3",
      "elsewhere|class,org.apache.cassandra.locator.NetworkTopologyStrategy,dc2,3",
      "odd|class,com.example.OddStrategy,replication_factor,3"}},
    {NULL, NULL, {NULL}}};

/* The contact points are the node that answers and, on the same port, `second`. */
static int read_ring(const struct fake_table *tables, const char *second, struct replicas **ret, struct error *error)
{
	struct cluster cluster = {.node_count = second ? 2 : 1, .username = "", .password = ""};
	struct client *client = NULL;
	struct endpoint to;
	struct fake f;
	int r;

	fake_start(&f, "127.0.0.1", fake_ready);
	f.tables = tables;
	cluster.nodes[0] = cluster.nodes[1] = f.addr;
	if (second)
		inet_pton(AF_INET, second, &cluster.nodes[1].in.sin_addr);
	cluster_endpoint(&cluster, 0, &to);
	if (client_open(&client, &cluster, &to, 0, TIMEOUT_MS, error) < 0)
		fail_msg("%s", error->text);
	r = replicas_read(client, &cluster, 0, ret, error);
	client_close(client);
	fake_stop(&f);
	return r;
}

#define A 1
#define C 2

static void who_holds_what(void **state)
{
	static const struct {
		const char *keyspace;
		uint8_t holders[6]; /* at −300, −100, 0, 100, 300, and above all */
	} cases[] = {
	    {"eins", {C, A, 0, C, A, C}},
	    {"zwei", {A | C, A, C, A | C, A | C, A | C}},
	    {"racks", {A | C, A | C, C, A | C, A | C, A | C}}, /* the second replica lies in the other rack */
	    {"elsewhere", {0}},
	    {"system", {0}},
	    {"odd", {0}},
	    {"nowhere", {0}},
	    {"", {0}},
	};
	static const int64_t ends[] = {-300, -100, 0, 100, 300, INT64_MAX};
	struct replicas *s = NULL;
	struct error error = {""};

	(void)state;
	if (read_ring(ring, "127.0.0.3", &s, &error) < 0)
		fail_msg("%s", error.text);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (size_t k = 0; k < sizeof(ends) / sizeof(*ends); k++) {
			/* A range holds its end, and what lies behind the end before. */
			assert_int_equal(replicas_holders(s, cases[i].keyspace, ends[k]), cases[i].holders[k]);
			assert_int_equal(replicas_holders(s, cases[i].keyspace, k ? ends[k - 1] + 1 : INT64_MIN), cases[i].holders[k]);
		}
	}
	/* Who has a reference goes on with it. */
	assert_ptr_equal(replicas_get(s), s);
	replicas_put(s);
	assert_int_equal(replicas_holders(s, "eins", 1), C);
	replicas_put(s);
	replicas_put(NULL);
}

static void where_tokens_say_nothing(void **state)
{
	static const struct fake_table other_partitioner[] = {
	    {"system.local", LOCAL, {"dc1|r1|00ff|org.apache.cassandra.dht.ByteOrderedPartitioner|a"}},
	    {"rpc_address", PEERS, {"10.0.0.2|127.0.0.2|dc1|r1|11ff|b"}},
	    {"system_schema.keyspaces", KEYSPACES, {NULL}},
	    {NULL, NULL, {NULL}}};
	static const struct fake_table two_centers[] = {
	    {"system.local", LOCAL, {"dc1|r1|-100|" MURMUR "|a"}},
	    {"rpc_address", PEERS, {"10.0.0.2|127.0.0.2|dc2|r1|0|b"}},
	    {"system_schema.keyspaces", KEYSPACES, {NULL}},
	    {NULL, NULL, {NULL}}};
	const struct fake_table malformed[] = {
	    ring[0], ring[1], {"system_schema.keyspaces", "keyspace_name t,replication t", {"ks|no map"}}, {NULL, NULL, {NULL}}};
	const struct {
		const struct fake_table *tables;
		const char *second, *words;
		int error;
	} cases[] = {
	    {other_partitioner, "127.0.0.2", "partitioner", -ENOTSUP},
	    {two_centers, "127.0.0.2", "data center", -ENOTSUP},
	    {ring, "127.0.0.9", "fewer than two", -ENOTSUP}, /* a balancer, a tunnel */
	    {ring, NULL, "fewer than two", -ENOTSUP},
	    {malformed, "127.0.0.3", "cannot be understood", -EPROTO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct replicas *s = NULL;
		struct error error = {""};

		assert_int_equal(read_ring(cases[i].tables, cases[i].second, &s, &error), cases[i].error);
		assert_null(s);
		if (!strstr(error.text, cases[i].words))
			fail_msg("%s: %s", cases[i].words, error.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_holds_what),
	    cmocka_unit_test(where_tokens_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
