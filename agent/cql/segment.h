/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: the outer framing of protocol v5 (native_protocol_v5.spec, section 2.2), used by both directions
 * after the handshake's STARTUP/READY or AUTHENTICATE. A segment carries whole envelopes (self-contained) or
 * a part of one large one.
 *
 *   uncompressed:  3 B header (17 bit length, 1 bit self-contained)             | CRC24 | payload | CRC32
 *   LZ4:           5 B header (17 bit compressed, 17 bit plain length, 1 bit)  | CRC24 | payload | CRC32
 *
 * Header and checksums are little endian.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cql/frame.h"

#define SEGMENT_PAYLOAD_MAX 131071u /* 2^17 − 1 */
#define SEGMENT_HEADER_PLAIN 6u	    /* with its CRC24 */
#define SEGMENT_HEADER_LZ4 8u
#define SEGMENT_TRAILER 4u /* CRC32 */

struct segment {
	uint32_t wire_size; /* whole segment: header + payload + trailer */
	uint32_t header_size;
	uint32_t payload_size; /* as on the wire */
	uint32_t plain_size;   /* LZ4 only: size after decompression; 0 = payload is not compressed */
	bool self_contained;
};

/* CRC of the header (polynomial 0x1974F0B, initial 0x875060) and of the payload (CRC-32 that begins with
 * FA 2D 55 CA). */
uint32_t segment_crc24(const uint8_t *data, size_t size);
uint32_t segment_crc32(const uint8_t *data, size_t size);

/*
 * Reads and checks the header at `data`. `lz4`: whether the connection negotiated compression. Returns
 * header_size, CQL_INCOMPLETE when fewer bytes are there, CQL_MALFORMED on a CRC24 mismatch. Does not need
 * the payload.
 */
int segment_header_read(const uint8_t *data, size_t size, bool lz4, struct segment *ret);

/* Checks the CRC32 of a whole segment (`data` holds s->wire_size bytes). 0 or CQL_MALFORMED. */
int segment_payload_check(const uint8_t *data, const struct segment *s);

/* Writes a header for `payload_size` bytes that are sent uncompressed. Returns the header's size (6, or 8
 * with lz4). */
size_t segment_header_write(uint8_t *to, bool lz4, uint32_t payload_size, bool self_contained);

/* Writes the 4-byte trailer for a payload. */
void segment_trailer_write(uint8_t to[SEGMENT_TRAILER], uint32_t crc32);

/* Decompresses an LZ4 payload into `to` (s->plain_size bytes). 0 or CQL_MALFORMED. */
int segment_decompress(const uint8_t *payload, const struct segment *s, uint8_t *to);

/* CRC32 of a payload that lies in several pieces. */
struct segment_crc {
	uint32_t value; /* the trailer's, once everything is added */
};
void segment_crc_begin(struct segment_crc *c);
void segment_crc_add(struct segment_crc *c, const void *data, size_t size);
