// SPDX-License-Identifier: Apache-2.0
/*
 * Input: one byte (bit 0: values by name), one byte n, n values as on the wire, the rest is a statement. What
 * is read has terms that can stand in a WHERE: as many markers as values, and the values are whole.
 */
#include <errno.h>

#include "cql/lexer.h"
#include "cql/rowkey.h"
#include "fuzz/holds.h"

static void check_term(const struct rowkey_term *t)
{
	unsigned markers = 0, values = 0;
	struct lexer l;
	struct token token;
	size_t at = 0;

	if (!t->usable)
		return;
	lexer_init(&l, t->text);
	while ((token = lexer_next(&l)).kind != TOKEN_END) {
		HOLDS(token.kind != TOKEN_BAD);
		markers += token.kind == TOKEN_BIND;
	}
	HOLDS(markers == t->value_count && t->text.size);
	while (at < t->values.size) {
		HOLDS(t->values.size - at >= 4);
		size_t n = (size_t)t->values.data[at] << 24 | (size_t)t->values.data[at + 1] << 16 |
			   (size_t)t->values.data[at + 2] << 8 | t->values.data[at + 3];

		HOLDS(n <= t->values.size - at - 4);
		at += 4 + n;
		values++;
	}
	HOLDS(values == t->value_count && t->values.size <= ROWKEY_VALUES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rowkey k;
	unsigned statements = 0;

	if (size < 2 || size - 2 < data[1])
		return 0;
	struct rowkey_values values = {
	    .values = span_of(data + 2, data[1]), .count = data[1], .names = data[0] & 1};
	int rc = rowkey_read(span_of(data + 2 + data[1], size - 2 - data[1]), values, &k);

	HOLDS(rc == 0 || rc == -ENOKEY || rc == -E2BIG);
	if (rc)
		return 0;
	for (const struct rowkey_statement *s = k.statements; s; s = s->next, statements++) {
		HOLDS(s->kind >= STATEMENT_INSERT && s->kind <= STATEMENT_DELETE);
		for (const struct rowkey_relation *r = s->relations; r; r = r->next) {
			unsigned terms = 0;

			HOLDS(r->names && (r->tuple || !r->names->next));
			for (const struct rowkey_term *t = r->terms; t; t = t->next, terms++)
				check_term(t);
			HOLDS(terms == r->term_count && (terms == 1 || r->op == ROWKEY_EQ));
		}
	}
	HOLDS(statements && statements == k.count);
	rowkey_done(&k);
	return 0;
}
