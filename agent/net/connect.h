/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams for those who may wait: the agent's own questions, doctor. poll(2) with a deadline
 * (CLOCK_MONOTONIC, ns) around what the workers do without waiting. Never on a worker.
 */
#pragma once
#include <stdint.h>

#include "base/error.h"
#include "net/endpoint.h"
#include "net/stream.h"

/*
 * Connects and, where the endpoint says so, does the TLS handshake. `mark`: SO_MARK, 0 = none. 0, or −errno
 * with a reason in `error` that does not name the endpoint: −EKEYREJECTED (its certificate), −EPROTO (TLS),
 * −ETIMEDOUT, or what connect(2) said.
 */
int stream_connect(const struct endpoint *to, uint32_t mark, uint64_t deadline_ns, struct stream *ret,
		   struct error *error);

/* All of it. 0, −ETIMEDOUT, −errno. */
int stream_send_all(struct stream *s, const void *data, size_t size, uint64_t deadline_ns);

/* At least one byte. Bytes, 0 = end, −ETIMEDOUT, −errno. */
ssize_t stream_receive(struct stream *s, void *to, size_t size, uint64_t deadline_ns);
