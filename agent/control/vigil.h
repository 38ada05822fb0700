/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mirroring agent keeps asking the clusters, on the thread pool: how far their clocks are from this node's; whether what
 * `phase mirror` checks is (still) so where nobody asked, because the agent started in that phase; and where the target keeps which
 * partitions (mirror/replicas.h).
 *
 * Nothing is refused for it: writes are flowing. It is said in the log when it begins and when it ends, in `status` and in metrics
 * (cqlferry_clock_skew_microseconds, cqlferry_clock_alarm, cqlferry_preflight_failed).
 */
#pragma once
#include <jansson.h>

#include "control/node.h"

#define VIGIL_SECONDS 60 /* between two rounds; a login costs a cluster some 100 ms of CPU */

/* 0 or −ENOMEM. `preflight`: the agent has started in a phase that nobody checked. */
int vigil_start(struct node *n, bool preflight, struct error *error);
/* Once a second. */
void vigil_tick(struct node *n);
/* {"clocks": {…}, "problems": […]} for `status`. */
void vigil_describe(const struct node *n, json_t *status);
/* Runs the loop until the thread pool has let go: not from a callback. */
void vigil_stop(struct node *n);
