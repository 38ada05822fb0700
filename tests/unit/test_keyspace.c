/* SPDX-License-Identifier: Apache-2.0 */
/* Which keyspaces are the cluster's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/keyspace.h"
#include "unit/guard.h"

static void test_those_of_the_cluster(void **state)
{
	static const char *const own[] = {"system", "system_auth", "system_schema", "system_virtual_schema", "system_traces", "HiveMetaStore",
					  "OpsCenter", "cfs", "dse_system", "dsefs", "solr_admin", "data_endpoint_auth"};

	(void)state;
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		assert_true(keyspace_of_cluster(own[i]));
}

static void test_those_of_users(void **state)
{
	static const char *const theirs[] = {"", "s", "shop", "systems", "system_x", "System", "SYSTEM_AUTH", "system_auth2", "cfs_", "dse", "data", "Orders"};

	(void)state;
	for (size_t i = 0; i < sizeof(theirs) / sizeof(*theirs); i++)
		assert_false(keyspace_of_cluster(theirs[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_those_of_the_cluster), cmocka_unit_test(test_those_of_users)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
