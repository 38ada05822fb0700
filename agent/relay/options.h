/* SPDX-License-Identifier: Apache-2.0 */
/* What a node says before any login: OPTIONS and its answer (native_protocol_v4.spec 4.1.2, 4.2.5). */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "net/stream.h"

#define OPTIONS_ANSWER_MAX 4096 /* SUPPORTED of Cassandra 5 has about 250 bytes */

/*
 * Asks in protocol v4 and reads one frame, or as much as fits; what came before the end when it is no frame at all (a TLS alert is 7 bytes). Blocks until the
 * deadline (CLOCK_MONOTONIC). Bytes read, at least 1, or −errno.
 */
ssize_t options_ask(struct stream *stream, uint64_t deadline_ns, uint8_t answer[OPTIONS_ANSWER_MAX]);
