// SPDX-License-Identifier: Apache-2.0
/*
 * Input: an envelope whose request gets values in place of functions; and the same bytes as a text. What was parsed parses again; a text whose
 * calls became literals or markers has none left, and is still the same kind of statement; values keep their order.
 */
#include <errno.h>
#include <string.h>

#include "cql/instant.h"
#include "cql/statement.h"
#include "fuzz/holds.h"

static void same_bytes(void *context, uint8_t to[16])
{
	(void)context;
	memset(to, 0x5a, 16);
}

static unsigned calls_in(struct span text)
{
	struct instant_scan scan;
	struct instant_call call;
	unsigned n = 0;
	size_t end = 0;

	instant_scan_init(&scan, text);
	while (instant_next(&scan, &call)) {
		HOLDS(call.at >= end && call.size && call.at + call.size <= text.size);
		end = call.at + call.size;
		n++;
	}
	return n;
}

static void check_text(struct span text)
{
	struct instant_bind binds[INSTANT_BINDS_MAX];
	unsigned calls = calls_in(text);
	int count = instant_binds(text, binds);
	size_t room = text.size + (size_t)calls * INSTANT_TEXT_GROWTH;
	uint8_t *to = malloc(room ? room : 1);
	ssize_t n = instant_text(text, to, room);
	struct statement before, after;

	HOLDS(n >= 0);
	HOLDS(count == (int)calls || count == -E2BIG || count == -EEXIST);
	for (int i = 1; i < count; i++)
		HOLDS(binds[i].position > binds[i - 1].position);
	HOLDS(calls_in(span_of(to, (size_t)n)) == 0 || calls == 0);
	statement_read(text, &before);
	statement_read(span_of(to, (size_t)n), &after);
	/* Of a statement that is understood only its functions change; where a key was a call, its type is known afterwards. */
	if (statement_changes_rows(&before)) {
		HOLDS(after.kind == before.kind && after.table_count == before.table_count);
		/* "fromjson now()" is no CQL, and reads like a call of fromjson afterwards; and the children of a batch may differ only then. */
		HOLDS((after.flags & ~before.flags & ~(uint32_t)(STATEMENT_LIST_VALUE | STATEMENT_JSON | STATEMENT_TEXT_BATCH_MIXED)) == 0);
	}
	free(to);
}

static uint8_t other_id[16];

static bool place(void *context, struct span id, struct instant_place *ret)
{
	static const struct instant_bind binds[] = {{.position = 0, .kind = INSTANT_TIMEUUID}, {.position = 3, .kind = INSTANT_TIME}};

	(void)context;
	if (id.size % 3 == 0)
		return false;
	if (id.size % 3 == 1)
		*ret = (struct instant_place){.text = span_text("INSERT INTO t (k) VALUES (uuid())")};
	else
		*ret = (struct instant_place){.id = span_of(other_id, 16), .binds = binds, .count = 2};
	return true;
}

static void check_request(const struct request *r)
{
	struct instant_source source;
	struct instant_change how = {.source = &source, .place = place};
	size_t room = 64;
	uint8_t *to = malloc(room);
	struct request again;
	ssize_t n;

	instant_source_init(&source, other_id, same_bytes, NULL);
	source.wall_us = 1795271600123456;
	while ((n = instant_request(r, &how, to, room)) == -ENOSPC) {
		HOLDS(room < (64u << 20));
		to = realloc(to, room *= 2);
	}
	HOLDS(n >= 0 || n == -E2BIG || (n == -EINVAL && r->opcode != OP_QUERY && r->opcode != OP_PREPARE && r->opcode != OP_EXECUTE && r->opcode != OP_BATCH));
	if (n >= 0) {
		uint8_t opcode = r->opcode == OP_EXECUTE && r->id.size % 3 == 1 ? OP_QUERY : r->opcode;

		HOLDS(request_parse(r->version, r->header_flags, opcode, span_of(to, (size_t)n), &again) == 0);
		HOLDS(again.batch_count == r->batch_count && again.params.consistency == r->params.consistency);
		HOLDS(again.params.timestamp == r->params.timestamp && again.params.page_size == r->params.page_size);
		if (opcode == OP_EXECUTE && r->id.size % 3 == 2)
			HOLDS(again.params.values_count == r->params.values_count + 2 && span_equal(again.id, span_of(other_id, 16)));
		else if (opcode != OP_BATCH)
			HOLDS(again.params.values_count == r->params.values_count && span_equal(again.params.values, r->params.values));
	}
	free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_header h;
	struct request r;

	check_text(span_of(data, size));
	if (frame_header_read(data, size, &h) < 0)
		return 0;
	if (request_parse(h.version, h.flags, h.opcode, span_of(data + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE), &r) == 0) {
		request_may_bind_list(&r);
		check_request(&r);
	}
	return 0;
}
