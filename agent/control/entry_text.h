/* SPDX-License-Identifier: Apache-2.0 */
/* An entry of the journal for people's eyes: what `cqlferry journal show` and `cqlferry dead show` print of it. */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "cql/statement.h"
#include "mirror/journal_read.h"

/* Which entries are meant; zeroed = all. */
struct entry_filter {
	bool by_table;
	struct table_name table; /* an empty table: all of the keyspace */
	const char *state, *kind; /* words of entry_state() and journal_kind_name(); NULL = any */
	int64_t since_us;
};

/* "in doubt", "queued", "sent", "confirmed", "done". */
const char *entry_state(const struct journal_entry *e);
/* When the client's request came, µs (to the second). */
static inline int64_t entry_time_us(const struct journal_entry *e)
{
	return (int64_t)e->now * 1000000;
}
bool entry_matches(const struct entry_filter *f, const struct journal_view *v, const struct journal_entry *e);

/* "shop.cart, shop.orders"; "-" when they are not known. Returns to. */
const char *entry_tables(const struct journal_view *v, char *to, size_t size);

/* The texts of its statements, without values, or with those of the text and the bound ones. Terminal-safe. */
void entry_print_texts(FILE *out, struct journal_view *v, bool values);

/* file, offset and what is known of it. The caller's. NULL = out of memory. */
json_t *entry_json(const char *file, size_t at, const struct journal_entry *e, struct journal_view *v, bool values);

/* "2026-01-02T03:04:05.678Z"; `to` has 32 bytes. Returns to. */
const char *entry_time(int64_t us, char to[32]);
