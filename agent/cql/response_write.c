/* SPDX-License-Identifier: Apache-2.0 */
/* The few answers that the agent gives itself, as whole uncompressed envelopes. */
#include "cql/response.h"

#include <stdio.h>

#include "cql/wire.h"

/* Whether the specification puts further fields behind the message; a driver that misses them drops the
 * connection. */
static bool error_has_fields(int32_t code)
{
	switch (code) {
	case CQL_UNAVAILABLE:
	case CQL_WRITE_TIMEOUT:
	case CQL_READ_TIMEOUT:
	case CQL_READ_FAILURE:
	case CQL_FUNCTION_FAILURE:
	case CQL_WRITE_FAILURE:
	case CQL_CAS_WRITE_UNKNOWN:
	case CQL_ALREADY_EXISTS:
	case CQL_UNPREPARED:
		return true;
	default:
		return false;
	}
}

static ssize_t finish(struct wire_out *o, uint8_t version, int16_t stream, uint8_t opcode)
{
	return out_end(o, (struct frame_header){
			      .version = version, .response = true, .stream = stream, .opcode = opcode});
}

ssize_t response_write_error(uint8_t version, int16_t stream, int32_t code, const char *message, uint8_t *to,
			     size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	if (error_has_fields(code))
		return -EINVAL;
	out_int(&o, (uint32_t)code);
	out_string(&o, span_text(message));
	return finish(&o, version, stream, OP_ERROR);
}

ssize_t response_write_unprepared(uint8_t version, int16_t stream, struct span id, uint8_t *to,
				  size_t capacity)
{
	static const char hex[] = "0123456789abcdef";
	char message[128] = "Prepared query with ID ";
	size_t n = strlen(message);
	struct wire_out o = out_begin(to, capacity);

	for (size_t i = 0; i < id.size && i < 32; i++) {
		message[n++] = hex[id.data[i] >> 4];
		message[n++] = hex[id.data[i] & 15];
	}
	snprintf(message + n, sizeof(message) - n, " not found");
	out_int(&o, CQL_UNPREPARED);
	out_string(&o, span_text(message));
	out_string(&o, id);
	return finish(&o, version, stream, OP_ERROR);
}

ssize_t response_write_void(uint8_t version, int16_t stream, uint8_t *to, size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	out_int(&o, RESULT_VOID);
	return finish(&o, version, stream, OP_RESULT);
}

ssize_t response_write_set_keyspace(uint8_t version, int16_t stream, struct span keyspace, uint8_t *to,
				    size_t capacity)
{
	struct wire_out o = out_begin(to, capacity);

	out_int(&o, RESULT_SET_KEYSPACE);
	out_string(&o, keyspace);
	return finish(&o, version, stream, OP_RESULT);
}

/*
 * Cassandra 4+ lists the versions and always answers in version 5; Cassandra 3 named the lowest and the
 * greatest. The sentence says both: gocql looks for the older words at the end and otherwise goes by the
 * header, that is, by 5.
 */
ssize_t response_write_version_error(uint8_t asked, uint8_t highest, uint8_t *to, size_t capacity)
{
	char message[192];
	int n = snprintf(message, sizeof(message),
			 "Invalid or unsupported protocol version (%u); supported versions are (3/v3", asked);

	for (unsigned v = 4; v <= highest && v <= 5; v++)
		n += snprintf(message + n, sizeof(message) - (size_t)n, ", %u/v%u", v, v);
	snprintf(message + n, sizeof(message) - (size_t)n,
		 "); the lowest supported version is 3 and the greatest is %u", highest);
	return response_write_error(5, 0, CQL_PROTOCOL_ERROR, message, to, capacity);
}
