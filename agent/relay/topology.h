/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen topology: the origin's own answers to questions about system.local, system.peers and system.peers_v2, kept by
 * node and question, and given again after the cutover. Drivers ask the same few questions for ever, so the answers
 * are kept as bytes and nothing about columns or aliases has to be understood, but for schema_version: all rows have the same.
 *
 * Shared by all workers; locks; off the hot path.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "cql/request.h"
#include "net/addr.h"

#define TOPOLOGY_ENTRIES_MAX 4096
#define TOPOLOGY_ANSWER_MAX (1u << 20)
#define TOPOLOGY_BYTES_MAX (32u << 20)

struct topology_store;
struct topology_question; /* which node was asked what, in which protocol version */

struct topology_store *topology_store_new(void);
void topology_store_free(struct topology_store *t);

/* `text`: the statement (of the prepared one for EXECUTE). NULL when memory is short: then nothing is kept. */
struct topology_question *topology_question_new(const struct addr *node, const struct request *r, struct span text);
void topology_question_free(struct topology_question *q);

/* Keeps a RESULT's body. Drops it silently at the limits, or when more pages follow: the origin is then asked instead. */
void topology_store_put(struct topology_store *t, const struct topology_question *q, struct span body);

/* A copy of the body (malloc'ed, the caller frees it), or false. */
bool topology_store_get(struct topology_store *t, const struct topology_question *q, uint8_t **ret_body, size_t *ret_size);

/* Over a restart (keep.h). Any thread; lock. */
bool topology_store_changed(struct topology_store *t);
int topology_store_save(struct topology_store *t, const char *directory, struct error *error);
/* Number of answers, or −errno. */
int topology_store_load(struct topology_store *t, const char *directory, bool *ret_damaged);
/* One saved record; malformed ones are ignored. */
void topology_store_restore(struct topology_store *t, struct span payload);
