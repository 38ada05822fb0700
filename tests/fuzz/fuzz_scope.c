// SPDX-License-Identifier: Apache-2.0
/*
 * Input: a statement, and the same bytes as an envelope. With other names it is the same kind of statement about the same number of tables,
 * each under its new name; what a batch keeps parses again.
 */
#include <errno.h>

#include "cql/scope_request.h"
#include "fuzz/holds.h"

/* One to one, so that two tables stay two. */
static struct scope_rename renames[] = {{{"a", ""}, "bb"}, {{"bb", ""}, "a"}, {{"a", "t"}, "tt"}, {{"a", "tt"}, "t"}};
static const struct scope names = {.rename = renames, .rename_count = 4};

static void check_table(const struct table_name *before, const struct table_name *after)
{
	struct table_name want = *before;

	if (!want.keyspace[0])
		strcpy(want.keyspace, "a");
	scope_translate(&names, &want);
	if (!before->keyspace[0])
		want.keyspace[0] = 0;
	HOLDS(!strcmp(want.keyspace, after->keyspace) && !strcmp(want.table, after->table));
}

static void check_text(struct span text)
{
	size_t room = text.size * 60 + 1;
	uint8_t *to = malloc(room);
	ssize_t n = scope_text(&names, text, "a", to, room);
	struct statement before, after;

	statement_read(text, &before);
	HOLDS(n >= 0 || n == -EINVAL);
	HOLDS((n == -EINVAL) == (before.kind == STATEMENT_UNKNOWN));
	if (n >= 0) {
		statement_read(span_of(to, (size_t)n), &after);
		HOLDS(before.kind == after.kind && before.flags == after.flags && before.table_count == after.table_count);
		for (unsigned i = 0; i < before.table_count; i++)
			check_table(&before.tables[i], &after.tables[i]);
	}
	free(to);
}

static bool every_other(void *context, const struct batch_child *child)
{
	(void)child;
	return ++*(unsigned *)context & 1;
}

static void check_batch(const struct request *q)
{
	uint8_t *to = malloc(q->body.size ? q->body.size : 1);
	unsigned asked = 0;
	ssize_t n = scope_batch(q, every_other, &asked, to, q->body.size);
	struct request again;

	HOLDS(n > 0 && asked == q->batch_count);
	HOLDS(request_parse(q->version, q->header_flags, OP_BATCH, span_of(to, (size_t)n), &again) == 0);
	HOLDS(again.batch_count == (asked + 1) / 2 && again.params.flags == q->params.flags);
	free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span all = span_of(data, size);
	struct request q;
	struct frame_header h;

	if (size < 1 << 16)
		check_text(all);
	if (size < FRAME_HEADER_SIZE || frame_header_read(data, size, &h) != 0 || h.version < 3 || h.version > 5 ||
	    request_parse(h.version, h.flags, h.opcode, span_of(data + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE), &q) != 0)
		return 0;
	if (h.opcode == OP_BATCH)
		check_batch(&q);
	if ((h.opcode == OP_BATCH || h.opcode == OP_QUERY) && size < 1 << 16) {
		size_t room = size * 60 + 1;
		uint8_t *to = malloc(room);
		struct request changed = q;
		ssize_t n = scope_request(&names, &changed, "a", to, room);

		HOLDS(n >= 0 || n == -EINVAL);
		if (n >= 0 && h.opcode == OP_BATCH) {
			struct batch_child child;
			unsigned count = 0;
			int more;

			while ((more = batch_next(q.version, &changed.batch_children, &child)) > 0)
				count++;
			HOLDS(more == 0 && count == q.batch_count);
		}
		free(to);
	}
	return 0;
}
