/* SPDX-License-Identifier: Apache-2.0 */
/* Keyspaces that a cluster keeps for itself: Cassandra's (SchemaConstants.java of 4.1 and 5.0), and those of DSE and Astra. */
#pragma once
#include <stdbool.h>

/* `name` as in the schema: unquoted, in its own case. Costs a comparison of one letter for most others. */
bool keyspace_of_cluster(const char *name);
