// SPDX-License-Identifier: Apache-2.0
/* Input: a statement. It reads the same between blanks and comments, and every token lies inside the text. */
#include "cql/lexer.h"
#include "cql/statement.h"
#include "fuzz/holds.h"

static enum token_kind check_tokens(struct span text)
{
	struct lexer l;
	struct token t;
	size_t at = 0;

	lexer_init(&l, text);
	for (;;) {
		t = lexer_next(&l);
		HOLDS(t.at >= at && t.at <= text.size);
		if (t.kind == TOKEN_END || t.kind == TOKEN_BAD)
			return t.kind;
		HOLDS(t.text.data >= text.data + t.at && t.text.data + t.text.size <= text.data + text.size);
		HOLDS(l.at > t.at && l.at <= text.size);
		at = l.at;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char before[] = "/* x */ -- y\n", after[] = "\n// z";
	struct span text = span_of(data, size);
	struct statement s, again;
	enum token_kind end = check_tokens(text);

	statement_read(text, &s);
	HOLDS(s.table_count <= STATEMENT_TABLES_MAX && statement_unmirrored(&s) <= UNMIRRORED_POLICY);
	for (unsigned i = 0; i < s.table_count; i++)
		HOLDS(memchr(s.tables[i].keyspace, 0, CQL_NAME_MAX + 1) &&
		      memchr(s.tables[i].table, 0, CQL_NAME_MAX + 1));
	HOLDS(statement_topology(&s) == TOPOLOGY_NONE || s.kind == STATEMENT_SELECT);
	/* A broken text is no write that could be repeated. */
	HOLDS(end != TOKEN_BAD || s.kind < STATEMENT_INSERT || s.kind > STATEMENT_BATCH);
	size_t room = sizeof(before) + size + sizeof(after);
	uint8_t *longer = malloc(room);
	memcpy(longer, before, sizeof(before) - 1);
	if (size)
		memcpy(longer + sizeof(before) - 1, data, size);
	memcpy(longer + sizeof(before) - 1 + size, after, sizeof(after) - 1);
	/* Behind an open comment or string there is no comment; whatever follows belongs to it. */
	statement_read(
	    span_of(longer, sizeof(before) - 1 + size + (end == TOKEN_BAD ? 0 : sizeof(after) - 1)), &again);
	HOLDS(s.kind == again.kind && s.flags == again.flags && s.table_count == again.table_count);
	HOLDS(!memcmp(s.tables, again.tables, sizeof(s.tables)));
	free(longer);
	return 0;
}
