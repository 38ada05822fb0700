/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/envelope.h"

#include "cql/segment.h"
#include "net/conn.h"

void envelope_send(struct conn *c, bool segments, bool lz4, const uint8_t *envelope, size_t size)
{
	/* Servers and drivers wait for a second part of what is not self-contained. */
	bool whole = size <= SEGMENT_PAYLOAD_MAX;

	if (!segments) {
		conn_send(c, &(struct iovec){(void *)envelope, size}, 1);
		return;
	}
	while (size > 0) {
		uint8_t header[SEGMENT_HEADER_LZ4], trailer[SEGMENT_TRAILER];
		size_t part = size < SEGMENT_PAYLOAD_MAX ? size : SEGMENT_PAYLOAD_MAX;
		struct iovec iov[3] = {{header, segment_header_write(header, lz4, (uint32_t)part, whole)},
				       {(void *)envelope, part},
				       {trailer, sizeof(trailer)}};

		segment_trailer_write(trailer, segment_crc32(envelope, part));
		conn_send(c, iov, 3);
		envelope += part;
		size -= part;
	}
}
