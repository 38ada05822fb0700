/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads answers in place, see response.h: prefix, errors, the head of ROWS, and the small results. Column
 * specifications and PREPARED stand in columns.c, the agent's own answers in response_write.c.
 *
 * Errors and SUPPORTED may carry more than we know, by the specification's own rule; it is not looked at.
 */
#include "cql/response.h"

#include "cql/wire.h"

enum write_outcome error_write_outcome(int32_t code, bool piecemeal)
{
	if (code == CQL_UNPREPARED)
		return WRITE_UNPREPARED;
	if (code >= 0x2000 && code <= 0x2fff)
		return WRITE_REFUSED;
	switch (code) {
	case CQL_UNAVAILABLE:
		return piecemeal ? WRITE_UNKNOWN : WRITE_REFUSED;
	case CQL_BOOTSTRAPPING:
	case CQL_BAD_CREDENTIALS:
		return WRITE_REFUSED;
	default:
		/* Also codes that we do not know: what is not certainly refused may have been applied. */
		return WRITE_UNKNOWN;
	}
}

int64_t response_prefix(uint8_t header_flags, struct span body)
{
	struct wire w = wire_of(body);

	if (header_flags & FRAME_TRACING)
		wire_take(&w, 16);
	if (header_flags & FRAME_WARNING)
		for (unsigned n = wire_short(&w); n && !w.error; n--)
			wire_string(&w);
	if (header_flags & FRAME_PAYLOAD)
		wire_skip_bytes_map(&w);
	return w.error ? w.error : (int64_t)w.at;
}

int response_error_parse(struct span body, struct response_error *ret)
{
	struct wire w = wire_of(body);
	struct response_error e = {0};

	e.code = wire_int(&w);
	e.message = wire_string(&w);
	if (e.code == CQL_UNPREPARED)
		e.unprepared_id = wire_string(&w);
	if (w.error)
		return CQL_MALFORMED;
	*ret = e;
	return 0;
}

int result_kind(struct span body_start)
{
	struct wire w = wire_of(body_start);
	int32_t kind = wire_int(&w);

	if (w.error)
		return w.error;
	return kind < RESULT_VOID || kind > RESULT_SCHEMA_CHANGE ? CQL_MALFORMED : kind;
}

int result_set_keyspace(struct span body, struct span *ret)
{
	struct wire w = wire_of(body);
	int32_t kind = wire_int(&w);
	struct span name = wire_string(&w);

	if (w.error || kind != RESULT_SET_KEYSPACE)
		return CQL_MALFORMED;
	*ret = name;
	return 0;
}

int rows_head_parse(uint8_t version, struct span body_start, struct rows_head *ret)
{
	struct wire w = wire_of(body_start);
	struct rows_head h = {0};

	if (wire_int(&w) != RESULT_ROWS)
		wire_fail(&w, CQL_MALFORMED);
	h.flags = (uint32_t)wire_int(&w);
	/* A flag that we do not know moves what follows. */
	if (h.flags & ~(uint32_t)(version >= 5 ? 0x0f : 0x07))
		wire_fail(&w, CQL_MALFORMED);
	h.columns = wire_count(&w);
	h.paging_at = w.at;
	if (h.flags & ROWS_MORE_PAGES)
		h.paging_state = wire_bytes(&w);
	h.metadata_id_at = w.at;
	if (h.flags & ROWS_METADATA_CHANGED)
		h.new_metadata_id = wire_string(&w);
	if (w.error)
		return w.error;
	h.size = w.at;
	*ret = h;
	return 0;
}

bool authenticate_wants_mechanism(struct span body)
{
	struct wire w = wire_of(body);
	struct span name = wire_string(&w), dse = span_text("DseAuthenticator");

	return !w.error && name.size >= dse.size && memcmp(name.data + name.size - dse.size, dse.data, dse.size) == 0;
}

int supported_list(struct span body, const char *key, size_t *ret_at)
{
	struct wire w = wire_of(body);
	struct span wanted = span_text(key);
	int found = CQL_MALFORMED;

	for (unsigned n = wire_short(&w); n && !w.error; n--) {
		bool here = span_equal(wire_string(&w), wanted);
		size_t at = w.at;
		unsigned count = wire_short(&w);

		for (unsigned m = count; m && !w.error; m--)
			wire_string(&w);
		if (here && !w.error) {
			*ret_at = at;
			found = (int)count;
		}
	}
	return w.error ? CQL_MALFORMED : found;
}

bool supported_has(struct span body, const char *key, const char *value)
{
	struct wire w = wire_of(body);
	struct span wanted_key = span_text(key), wanted = span_text(value);
	bool found = false;

	for (unsigned n = wire_short(&w); n && !w.error; n--) {
		struct span k = wire_string(&w);
		bool here = !w.error && span_equal(k, wanted_key);
		for (unsigned m = wire_short(&w); m && !w.error; m--) {
			struct span v = wire_string(&w);
			if (here && !w.error && span_equal(v, wanted))
				found = true;
		}
	}
	return found && !w.error;
}
