/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gap ledger in a running agent: what feeds it once a second, syncs it, and answers the admin command "gaps".
 *
 *   ▶ {"command": "gaps", "since": µs, "cause": "lwt", "table": "ks.t", "next": "…"}     all members but the command may be missing
 *   ◀ {"ok": true, "kept": true, "gaps": [{…}, …], "next": "…"}                           one page; ask again with its "next"
 *   ◀ {"ok": true, "kept": true, "gaps": […], "lost": 0}                                  the last one: with the spans that are open
 *
 * A page is read from the files on the thread pool: neither a large ledger nor a slow reader grows the agent or holds its loop up.
 */
#pragma once
#include <jansson.h>

#include "cutover/ledger_format.h"
#include "cutover/ledger_read.h"
#include "control/node.h"

/* Opens the ledger in state.directory ("" = none is kept), registers the command. 0 or −errno with the reason. */
int gaps_start(struct node *n, struct error *error);
/* What the workers do has changed, or may have. */
void gaps_follow(struct node *n);
void gaps_tick(struct node *n); /* once a second, behind steer_tick */
/* After the workers have ended and before their memory goes. */
void gaps_stop(struct node *n);

/* What another agent of this node counted: handover_gaps.h. NULL = nothing. */
void gaps_feed(struct node *n, const json_t *array);
/* phase_options.settle: what was counted until now is in the files. `context` is the node. */
void gaps_settle(void *context);

/* A gap for people and programs: kind, cause, missing, keyspace, table, tokens (null = all), from, to (µs, null = not over), count, … */
json_t *gap_json(const struct ledger_record *r);
