/* SPDX-License-Identifier: Apache-2.0 */
#include "cql/keyspace.h"

#include <stdlib.h>
#include <string.h>

/* In the order of strcmp(). */
static const char *const own[] = {
	"HiveMetaStore", "OpsCenter", "cfs", "cfs_archive", "data_endpoint_auth", "datastax_sla", "dse_analytics", "dse_insights",
	"dse_insights_local", "dse_leases", "dse_perf", "dse_security", "dse_system", "dse_system_local", "dsefs", "solr_admin", "system",
	"system_auth", "system_backups", "system_cluster_metadata", "system_distributed", "system_metrics", "system_monitor",
	"system_replicated", "system_schema", "system_traces", "system_views", "system_virtual_schema",
};

static int compare(const void *name, const void *entry)
{
	return strcmp(name, *(const char *const *)entry);
}

bool keyspace_of_cluster(const char *name)
{
	if (!name[0] || !strchr("HOcds", name[0]))
		return false;
	return bsearch(name, own, sizeof(own) / sizeof(*own), sizeof(*own), compare) != NULL;
}
