/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/unpack.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cql/request.h"
#include "cql/response.h"
#include "relay/envelope.h"

static const char *const name_of[] = {[COMPRESSION_LZ4] = "lz4", [COMPRESSION_SNAPPY] = "snappy"};

static bool lacks(const struct relay *r, enum side side, enum compression c)
{
	return atomic_load_explicit(&r->lacks[side], memory_order_relaxed) & 1u << c;
}

static void note(struct relay *r, enum side side, enum compression c)
{
	if (!(atomic_fetch_or_explicit(&r->lacks[side], (uint8_t)(1u << c), memory_order_relaxed) & 1u << c))
		log_info("relay", "the %s does not know the compression %s: what clients compress so it gets decompressed", side_name(side),
			 name_of[c]);
}

bool unpack_agree(struct upstream *u)
{
	struct session *s = u->session;

	u->compression = lacks(s->worker->relay, u->side, s->compression) ? COMPRESSION_NONE : s->compression;
	return u->compression == s->compression;
}

void unpack_startup(struct upstream *u, int16_t stream)
{
	struct session *s = u->session;
	size_t size = FRAME_HEADER_SIZE + s->startup.size;
	uint8_t small[1024], *envelope = size <= sizeof(small) ? small : malloc(size);
	struct span body = span_of(s->startup.data, s->startup.size);
	struct frame_header h = {.version = s->version, .stream = stream, .opcode = OP_STARTUP, .length = (uint32_t)body.size};

	if (!envelope)
		return; /* as if it were lost on the way: the handshake's time runs out */
	if (unpack_agree(u))
		memcpy(envelope + FRAME_HEADER_SIZE, body.data, body.size);
	else
		h.length = (uint32_t)startup_without(body, "COMPRESSION", envelope + FRAME_HEADER_SIZE);
	frame_header_write(envelope, &h);
	envelope_send(&u->conn, /* segments= */ false, false, envelope, FRAME_HEADER_SIZE + h.length);
	if (envelope != small)
		free(envelope);
}

bool unpack_refused(struct upstream *u, int16_t stream, struct span body)
{
	struct response_error error;

	/* "Unknown compression algorithm: …", "This instance does not support Snappy compression" (5.0.9); versions are refused by the same code. */
	if (u->compression == COMPRESSION_NONE || response_error_parse(body, &error) < 0 || error.code != CQL_PROTOCOL_ERROR ||
	    !memmem(error.message.data, error.message.size, "ompress", 7))
		return false;
	note(u->session->worker->relay, u->side, u->compression);
	unpack_startup(u, stream);
	return true;
}

bool unpack_needed(const struct session *s, enum side side)
{
	return s->up[side].compression != s->compression;
}

void unpack_supported(struct answer *a, struct span body, size_t at)
{
	struct session *s = a->u->session;
	size_t list, size = 2;

	_Static_assert(sizeof(a->insert) >= 2 + 2 + 3 + 2 + 6, "both names");
	int count = supported_list(body, "COMPRESSION", &list);

	if (count < 0)
		return;
	for (enum compression c = COMPRESSION_LZ4; c <= COMPRESSION_SNAPPY; c++) {
		size_t n = strlen(name_of[c]);

		if (supported_has(body, "COMPRESSION", name_of[c]) || (s->version >= 5 && c == COMPRESSION_SNAPPY))
			continue;
		note(s->worker->relay, a->u->side, c);
		a->insert[size++] = 0;
		a->insert[size++] = (uint8_t)n;
		memcpy(a->insert + size, name_of[c], n);
		size += n;
		count++;
	}
	if (size == 2)
		return;
	a->insert[0] = (uint8_t)(count >> 8);
	a->insert[1] = (uint8_t)count;
	a->insert_size = size;
	a->changed = true;
	a->change_at = at + list;
	a->change_remove = 2;
}
