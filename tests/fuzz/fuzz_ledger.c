// SPDX-License-Identifier: Apache-2.0
/*
 * Input: a line of the gap ledger; and, since hardly any input has the right checksum, the same with its checksum made right. What is
 * accepted is plain text within its bounds, and writing and reading it again changes nothing.
 */
#include <libdeflate.h>
#include <stdio.h>
#include <string.h>

#include "cutover/ledger_format.h"
#include "fuzz/holds.h"

#define HOLDS_TEXT(field) HOLDS(memchr(field, 0, sizeof(field)))

static void check(const char *line, size_t size)
{
	struct ledger_record r, again;
	char written[LEDGER_LINE_MAX];
	int n;

	memset(&r, 0x5a, sizeof(r));
	if (ledger_decode(span_of(line, size), &r) < 0)
		return;
	HOLDS((unsigned)r.type < LEDGER_TYPES && (unsigned)r.kind < LEDGER_KINDS && r.from_us >= 0 && r.to_us >= 0);
	HOLDS_TEXT(r.cause);
	HOLDS_TEXT(r.keyspace);
	HOLDS_TEXT(r.table);
	HOLDS_TEXT(r.program);
	HOLDS_TEXT(r.client);
	HOLDS_TEXT(r.destination);
	HOLDS_TEXT(r.who);
	HOLDS_TEXT(r.text);
	n = ledger_encode(&r, written);
	HOLDS(n > 0 && n <= LEDGER_LINE_MAX);
	for (int i = 0; i < n - 1; i++)
		HOLDS(written[i] >= 0x20 && written[i] < 0x7f);
	HOLDS(ledger_decode(span_of(written, (size_t)n), &again) == 0);
	HOLDS(!memcmp(r.text, again.text, sizeof(r.text)) && r.count == again.count && r.from_us == again.from_us && r.to_us == again.to_us);
	HOLDS(r.type == again.type && r.kind == again.kind && r.id == again.id && r.key == again.key && !strcmp(r.table, again.table));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char line[LEDGER_LINE_MAX + 32];
	size_t body = size;

	check((const char *)data, size);
	/* Without its trailer, if it has one: `{…` + `,"crc":"…"}`. */
	if (size > 18 && !memcmp(data + size - 18, ",\"crc\":\"", 8))
		body = size - 18;
	if (body > LEDGER_LINE_MAX)
		return 0;
	memcpy(line, data, body);
	snprintf(line + body, sizeof(line) - body, ",\"crc\":\"%08x\"}", libdeflate_crc32(0, data, body));
	check(line, body + 18);
	return 0;
}
