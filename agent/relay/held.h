/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer that the primary has given and the client has not got yet: it waits for the other cluster (acknowledgement: both).
 *
 *   answer (answer.c) ─▶ held ─▶ tap: outcome() takes it ─▶ relay_acknowledged() ─▶ the client
 *
 * Its request stays in flight meanwhile: its stream id is not free, a hold waits for it, and a session that ends forgets it. Others' answers
 * pass it by.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct record;
struct session;
struct worker;

struct held_answer {
	struct session *session;              /* NULL: the request has ended otherwise */
	struct held_answer *next, **previous; /* the tap's, as the next two */
	struct record *record;
	uint64_t deadline_ns;
	int16_t stream;
	size_t size;
	uint8_t envelope[];
};

/* Copies an envelope as it came. NULL = out of memory. */
struct held_answer *held_new(struct session *s, int16_t stream, const uint8_t *envelope, size_t size);
