/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for the other cluster, as a person sees and steers it: sizes by table, tables on hold, dead letters. Main loop only.
 *
 *   {"command": "hold", "keyspace", "table"}       table "" = all of the keyspace; without a keyspace: lists
 *   {"command": "release", "keyspace", "table"}
 *   {"command": "dead", "action": "replay" | "drop", "keyspace", "table"}     without a keyspace: all
 */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "control/node.h"

#define QUEUES_SERIES 200 /* of /metrics: two for each table; the smallest tables are one, "others" */

int queues_register(struct node *n, struct error *error);
/* Once a second. */
void queues_tick(struct node *n);
/* For `status`: adds to "mirror" and adds "tablesOnHold". */
void queues_describe(struct node *n, json_t *status);
/* For /metrics; `context` is the node. */
void queues_metrics(FILE *out, void *context);
