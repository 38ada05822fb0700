/* SPDX-License-Identifier: Apache-2.0 */
/* Names for frame.h; the header itself is read and written inline. */
#include "cql/frame.h"

static const char *const names[] = {
    [OP_ERROR] = "ERROR",
    [OP_STARTUP] = "STARTUP",
    [OP_READY] = "READY",
    [OP_AUTHENTICATE] = "AUTHENTICATE",
    [OP_OPTIONS] = "OPTIONS",
    [OP_SUPPORTED] = "SUPPORTED",
    [OP_QUERY] = "QUERY",
    [OP_RESULT] = "RESULT",
    [OP_PREPARE] = "PREPARE",
    [OP_EXECUTE] = "EXECUTE",
    [OP_REGISTER] = "REGISTER",
    [OP_EVENT] = "EVENT",
    [OP_BATCH] = "BATCH",
    [OP_AUTH_CHALLENGE] = "AUTH_CHALLENGE",
    [OP_AUTH_RESPONSE] = "AUTH_RESPONSE",
    [OP_AUTH_SUCCESS] = "AUTH_SUCCESS",
};

const char *opcode_name(uint8_t opcode)
{
	if (opcode >= sizeof(names) / sizeof(names[0]) || !names[opcode])
		return "?";
	return names[opcode];
}
