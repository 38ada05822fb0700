/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The envelope ("frame" up to v4) of the CQL native protocol: a 9-byte header and a body.
 *
 *   0         8        16        24        32        40
 *   +---------+---------+---------+---------+---------+
 *   | version |  flags  |      stream       | opcode  |     native_protocol_v3..v5.spec, section 2
 *   +---------+---------+---------+---------+---------+
 *   |                length (body)          |  body …
 *   +---------+---------+---------+---------+
 *
 * All functions are pure: no I/O, no allocation, no clock.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* What parsers return beside a number of bytes consumed (≥ 0). */
enum { CQL_INCOMPLETE = -2, CQL_MALFORMED = -1 };

#define FRAME_HEADER_SIZE 9
#define FRAME_BODY_MAX (256u << 20) /* section 2.5: frames are limited to 256 MiB */
#define CQL_NAME_MAX 48		    /* Cassandra's limit for keyspace and table names */

enum frame_flag {
	FRAME_COMPRESSED = 0x01, /* v3/v4 body; in v5 compression belongs to the segment */
	FRAME_TRACING = 0x02,
	FRAME_PAYLOAD = 0x04, /* v4+ */
	FRAME_WARNING = 0x08, /* v4+, responses */
	FRAME_BETA = 0x10,
};

enum opcode {
	OP_ERROR = 0x00,
	OP_STARTUP = 0x01,
	OP_READY = 0x02,
	OP_AUTHENTICATE = 0x03,
	OP_OPTIONS = 0x05,
	OP_SUPPORTED = 0x06,
	OP_QUERY = 0x07,
	OP_RESULT = 0x08,
	OP_PREPARE = 0x09,
	OP_EXECUTE = 0x0A,
	OP_REGISTER = 0x0B,
	OP_EVENT = 0x0C,
	OP_BATCH = 0x0D,
	OP_AUTH_CHALLENGE = 0x0E,
	OP_AUTH_RESPONSE = 0x0F,
	OP_AUTH_SUCCESS = 0x10,
};

struct frame_header {
	uint8_t version; /* 3, 4, 5, also DSE 0x41/0x42 and unknown ones; without the direction bit */
	bool response;	 /* the direction bit 0x80 */
	uint8_t flags;
	int16_t stream;
	uint8_t opcode;
	uint32_t length; /* body bytes that follow */
};

/*
 * Reads a header from the first bytes of `data`. Returns FRAME_HEADER_SIZE, CQL_INCOMPLETE (size < 9), or
 * CQL_MALFORMED (length > FRAME_BODY_MAX). Does not judge the version or the opcode.
 */
static inline int frame_header_read(const uint8_t *data, size_t size, struct frame_header *ret)
{
	if (size < FRAME_HEADER_SIZE)
		return CQL_INCOMPLETE;
	ret->version = data[0] & 0x7f;
	ret->response = data[0] & 0x80;
	ret->flags = data[1];
	ret->stream = (int16_t)((data[2] << 8) | data[3]);
	ret->opcode = data[4];
	ret->length = (uint32_t)data[5] << 24 | (uint32_t)data[6] << 16 | (uint32_t)data[7] << 8 | data[8];
	return ret->length > FRAME_BODY_MAX ? CQL_MALFORMED : FRAME_HEADER_SIZE;
}

static inline void frame_header_write(uint8_t data[FRAME_HEADER_SIZE], const struct frame_header *h)
{
	data[0] = h->version | (h->response ? 0x80 : 0);
	data[1] = h->flags;
	data[2] = (uint8_t)((uint16_t)h->stream >> 8);
	data[3] = (uint8_t)h->stream;
	data[4] = h->opcode;
	data[5] = (uint8_t)(h->length >> 24);
	data[6] = (uint8_t)(h->length >> 16);
	data[7] = (uint8_t)(h->length >> 8);
	data[8] = (uint8_t)h->length;
}

/* "QUERY", "RESULT", …; "?" for an unknown opcode. */
const char *opcode_name(uint8_t opcode);
