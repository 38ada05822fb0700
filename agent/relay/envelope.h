/* SPDX-License-Identifier: Apache-2.0 */
/* An envelope of the agent's own on its way to a client or a cluster. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;

/*
 * Sends it at once (borrows): as it is, or in as many segments as it takes where the connection speaks segments (v5); `lz4`: with that
 * connection's form of header. What was gathered for the connection before must have been flushed.
 */
void envelope_send(struct conn *c, bool segments, bool lz4, const uint8_t *envelope, size_t size);
