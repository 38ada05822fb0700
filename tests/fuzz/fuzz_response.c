// SPDX-License-Identifier: Apache-2.0
/* Input: an envelope; its body goes to every reader of answers, whatever the opcode. */
#include "cql/response.h"
#include "fuzz/holds.h"

/* Checked when they were parsed, columns can be walked to the end. */
static void walk(struct columns c)
{
	struct column column;
	uint32_t n = 0, count = c.count;

	HOLDS(columns_equal(c, c));
	HOLDS(columns_hash(c) == columns_hash(c));
	while (column_next(&c, &column) > 0)
		n++;
	HOLDS(n == count);
}

/* What is said once stays said, however much follows. */
static void check_applied(uint8_t version, struct span body)
{
	int applied = result_applied(version, body), half = result_applied(version, span_of(body.data, body.size / 2));

	HOLDS(applied == 0 || applied == 1 || applied == CQL_INCOMPLETE || applied == CQL_MALFORMED);
	HOLDS(half < 0 || half == applied);
	HOLDS(applied < 0 || result_kind(body) == RESULT_ROWS);
}

static void read_rows(uint8_t version, struct span body)
{
	static struct span cells[1 << 16];
	struct rows_head head, part;
	struct rows r;

	if (rows_head_parse(version, body, &head))
		return;
	/* It needs no byte more than it says, and no fewer. */
	HOLDS(rows_head_parse(version, span_of(body.data, head.size), &part) == 0 && part.size == head.size);
	HOLDS(rows_head_parse(version, span_of(body.data, head.size - 1), &part) == CQL_INCOMPLETE);
	if (rows_parse(version, body, &r) || r.head.columns > 1 << 16)
		return;
	walk(r.columns);
	while (rows_next(&r, cells) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_header h;
	struct response_error e;
	struct prepared_result p;
	struct span name;
	size_t at;

	if (frame_header_read(data, size, &h) < 0)
		return 0;
	struct span body = span_of(data + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE);
	int64_t skip = response_prefix(h.flags, body);
	if (skip < 0)
		return 0;
	body = span_of(body.data + skip, body.size - (size_t)skip);
	HOLDS(response_error_parse(body, &e) || error_write_outcome(e.code, data[0] & 1) != WRITE_APPLIED);
	HOLDS(result_set_keyspace(body, &name) || result_kind(body) == RESULT_SET_KEYSPACE);
	supported_has(body, "COMPRESSION", "lz4");
	HOLDS(supported_list(body, "COMPRESSION", &at) < 0 || at + 2 <= body.size);
	check_applied(h.version, body);
	read_rows(h.version, body);
	if (result_prepared_parse(h.version, body, &p) == 0) {
		walk(p.binds);
		walk(p.result);
	}
	return 0;
}
