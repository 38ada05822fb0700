// SPDX-License-Identifier: Apache-2.0
/* Input: an envelope. What parses keeps its values through edits and through encoding for every version. */
#include <errno.h>

#include "cql/request.h"
#include "cql/token.h"
#include "fuzz/holds.h"

static void check_same(const struct request *a, const struct request *b)
{
	HOLDS(span_equal(a->text, b->text) && span_equal(a->id, b->id) &&
	      a->params.consistency == b->params.consistency);
	HOLDS(a->params.values_count == b->params.values_count &&
	      span_equal(a->params.values, b->params.values));
	HOLDS(a->batch_count == b->batch_count && span_equal(a->batch_children, b->batch_children));
}

static void check_edits(const struct request *r, uint8_t *to)
{
	struct edit e[REQUEST_EDITS_MAX];
	unsigned count = request_pin_timestamp(r, -7, e);
	size_t from = 0, at = 0;
	struct request again;

	for (unsigned i = 0; i < count; i++, at += e[i - 1].size) {
		HOLDS(e[i].at >= from && e[i].at + e[i].remove <= r->body.size);
		memcpy(to + at, r->body.data + from, e[i].at - from);
		at += e[i].at - from;
		memcpy(to + at, e[i].insert, e[i].size);
		from = e[i].at + e[i].remove;
	}
	memcpy(to + at, r->body.data + from, r->body.size - from);
	at += r->body.size - from;
	HOLDS(at == r->body.size + (size_t)edits_growth(e, count));
	HOLDS(request_parse(r->version, r->header_flags, r->opcode, span_of(to, at), &again) == 0);
	check_same(r, &again);
	HOLDS(!count ||
	      (again.params.timestamp == -7 && again.params.flags == (r->params.flags | QUERY_TIMESTAMP)));
}

/* Whatever the values are, and wherever a key is looked for among them; with names they are other bytes, but bytes. */
static void check_token(const struct request *r)
{
	static const uint16_t places[] = {0, 2, 1};
	int64_t token;

	for (unsigned n = 1; n <= 3; n++)
		token_of_values(r->params.values, places, n, &token);
	HOLDS(!token_of_values(span_of(NULL, 0), places, 1, &token));
}

/* What is left has everything but that option, and nothing can be taken from it again. */
static void check_without(struct span body)
{
	uint8_t *to = malloc(body.size + 1);
	size_t n = startup_without(body, "COMPRESSION", to);
	struct span value;

	HOLDS(n <= body.size);
	HOLDS(n == body.size || !startup_option(span_of(to, n), "COMPRESSION", &value));
	free(to);
}

/* Whoever asks for the same events once more asks for nothing new. */
static void check_events(struct span body)
{
	size_t capacity = body.size + 2;
	uint8_t *once = malloc(capacity), *twice = malloc(capacity);
	size_t n = register_join(span_of(NULL, 0), body, once, capacity);

	HOLDS(n >= 2 && n <= capacity);
	HOLDS(register_join(span_of(once, n), body, twice, capacity) == n && memcmp(once, twice, n) == 0);
	HOLDS(register_names(span_of(once, n), span_text("SCHEMA_CHANGE")) == (n > 2 && register_names(body, span_text("SCHEMA_CHANGE"))));
	free(once);
	free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_header h;
	struct request r, again;
	struct span value, id;

	if (frame_header_read(data, size, &h) < 0)
		return 0;
	struct span body = span_of(data + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE);
	startup_option(body, "COMPRESSION", &value);
	check_without(body);
	check_events(body);
	int rc = request_execute_id(h.flags, body, &id);
	if (request_parse(h.version, h.flags, h.opcode, body, &r))
		return 0;
	HOLDS(h.opcode != OP_EXECUTE || (rc == 0 && span_equal(id, r.id)));
	check_token(&r);
	size_t room = request_encode_bound(&r);
	uint8_t *to = malloc(room);
	check_edits(&r, to);
	for (uint8_t v = 3; v <= 5; v++) {
		struct request_target t = {.version = v, .consistency = -1, .keyspace = span_text("ks"),
					   .keep_payload = data[2] & 1};
		t.result_metadata_id = span_text("id");
		ssize_t n = request_encode(&r, &t, to, room);
		HOLDS(n >= FRAME_HEADER_SIZE || n == -ENOTSUP);
		if (n < 0)
			continue;
		body = span_of(to + FRAME_HEADER_SIZE, (size_t)n - FRAME_HEADER_SIZE);
		HOLDS(request_parse(v, to[1], r.opcode, body, &again) == 0);
		check_same(&r, &again);
		HOLDS(span_equal(again.payload, t.keep_payload ? r.payload : span_of(NULL, 0)));
	}
	free(to);
	return 0;
}
