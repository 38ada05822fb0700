/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that expire, on their way to a cluster that speaks no v5: there a TTL is counted from the moment at which the cluster executes the
 * write, so one that is late lives too long. (In v5 the time of the write travels with it.) Such a write goes through row sync, which reads
 * on the primary what is left of each cell's time.
 *
 *   before it is sent     it has waited for longer than late_ns                     ─▶ row sync in place of it
 *   when it is confirmed  that took longer than late_ns: a node that was paused, …  ─▶ row sync behind it
 */
#pragma once
#include "mirror/dispatch.h"

#define LATE_NS (1500u * 1000000ull) /* for mirror_options: TTLs count whole seconds, and are compared within two */

/*
 * Turns a record that is to be sent, or was confirmed, into a row sync (true) when it is late and has a TTL, or a table of it may have a
 * default one. What is not known of a table is learned by that row sync.
 */
bool late_turn(struct dispatch *d, struct record *r);
