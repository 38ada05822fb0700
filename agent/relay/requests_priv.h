/* SPDX-License-Identifier: Apache-2.0 */
/* Between receive.c (bytes to envelopes) and requests.c (what becomes of an envelope). */
#pragma once
#include "relay/session.h"

enum verdict { GONE_ON, STALLED, ENDED };

/* The agent's own ERROR to the client; it goes on. */
enum verdict request_refuse(struct session *s, int16_t stream, int32_t code, const char *text);
/* What the client sent is no CQL, or not as the protocol has it: it is told, and that is the end. */
enum verdict request_malformed(struct session *s, int16_t stream, const char *text);
/* Carries out one whole envelope, or leaves everything as it was (STALLED). */
enum verdict request_handle(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size);
