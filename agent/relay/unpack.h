/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cluster that does not know the compression which a client agreed on with the other one.
 *
 *   client ◀── lz4 or snappy, as before ──▶ agent ◀── STARTUP without COMPRESSION, plain requests ──▶ that cluster
 *
 * The specification marks each frame (v3, v4: flag 0x01) or each connection's segments (v5): only what goes to such a cluster has to be
 * made plain, its plain answers are good for any client of v3 and v4. That a cluster lacks a compression is learned from its SUPPORTED and
 * from its refusal of a STARTUP, and holds for all its nodes until the agent ends.
 */
#pragma once
#include "relay/answer.h"
#include "relay/session.h"

/* Decides what this upstream's STARTUP asks for (u->compression): true = what the client asked for. */
bool unpack_agree(struct upstream *u);

/* Sends STARTUP so, with the client's other options. What was gathered for the connection must have been flushed. */
void unpack_startup(struct upstream *u, int16_t stream);

/* An ERROR that answers it: true = it was for the compression's sake, and STARTUP was sent again without. `body`: without prefix. */
bool unpack_refused(struct upstream *u, int16_t stream, struct span body);

/* Whether what the client compressed has to be made plain for that side. */
bool unpack_needed(const struct session *s, enum side side);

/*
 * The target's SUPPORTED: what it lacks is remembered, and added to what the client sees, since it can go on with it. `at`: where `body` begins
 * in a->body.
 */
void unpack_supported(struct answer *a, struct span body, size_t at);
