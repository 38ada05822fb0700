/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakecopy.h - a table of the fake server that is worth copying: bench.rows, ten columns of the usual types.
 *
 * A SELECT by tokens gives as many rows as the range's share of the ring, in pages; a page is cut from one
 * that was built at the start, so that the server costs next to nothing. The paging state is the number of
 * rows that are left.
 */
#ifndef BENCH_FAKECOPY_H
#define BENCH_FAKECOPY_H

#include "fakequeue.h"
#include "faketables.h"

enum { COPY_PAGE = 5000 }; /* rows of the longest page */

#define COPY_TABLE "\"bench\".\"rows\""

static uint64_t copy_rows = 10000000; /* of the whole table */
static struct buf copy_pattern;
static size_t copy_offsets[COPY_PAGE + 1];

static inline bool copy_mentions(const char *text)
{
	return strstr(text, COPY_TABLE) != NULL;
}

static inline void copy_init(void)
{
	for (uint32_t i = 0; i < COPY_PAGE; i++) {
		struct buf *b = &copy_pattern;
		char text[64];
		double d = i * 1.25;
		uint64_t bits;
		uint8_t uuid[16] = {0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0, 0};

		copy_offsets[i] = b->n;
		memcpy(&bits, &d, sizeof bits);
		be32_store(uuid + 12, i);
		put32(b, 4), put32(b, i);
		put_bytes(b, text, (size_t)snprintf(text, sizeof text, "name-%u", i));
		put32(b, 8), put64(b, (uint64_t)i * 1234567);
		put32(b, 8), put64(b, bits);
		put32(b, 1), put8(b, i & 1);
		put32(b, 8), put64(b, 1700000000000 + i);
		put_bytes(b, text, (size_t)snprintf(text, sizeof text, "text of row %u with some words", i));
		put32(b, 4), put32(b, i * 7);
		put_bytes(b, uuid, sizeof uuid);
		put_bytes(b, uuid + 12, 4);
	}
	copy_offsets[COPY_PAGE] = copy_pattern.n;
}

static inline void copy_put_columns(struct buf *b)
{
	for (size_t i = 0; i < COPY_COLUMNS; i++) {
		put_string(b, copy_columns[i].name);
		type_put(b, copy_columns[i].letter);
	}
}

static inline void copy_put_table(struct buf *b)
{
	put_string(b, "bench");
	put_string(b, "rows");
}

/* PREPARED: the binds of a SELECT are two tokens, those of an INSERT the columns in their order. */
static inline void copy_prepared(struct conn *c, int stream, const uint8_t id[16], bool select)
{
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT);
	put32(b, RESULT_PREPARED);
	put_short_bytes(b, id, 16);
	if (c->version >= 5)
		put_short_bytes(b, id, 16);
	put32(b, 1);
	put32(b, select ? 2 : COPY_COLUMNS);
	if (c->version >= 4)
		put32(b, !select);
	if (c->version >= 4 && !select)
		put16(b, 0);
	copy_put_table(b);
	if (select) {
		for (int i = 0; i < 2; i++) {
			put_string(b, "partition key token");
			type_put(b, 'l');
		}
		put32(b, 1);
		put32(b, COPY_COLUMNS);
		copy_put_table(b);
		copy_put_columns(b);
	} else {
		copy_put_columns(b);
		put32(b, 4);
		put32(b, 0);
	}
	frame_end(b, mark);
}

static inline int64_t copy_token(struct cursor *in)
{
	int64_t high;

	get32(in);
	high = get32(in);
	return (int64_t)((uint64_t)high << 32 | get32(in));
}

/* EXECUTE of the SELECT, behind the prepared id: consistency, flags, two tokens, page size, paging state. */
static inline void copy_page(struct conn *c, int stream, struct cursor *in)
{
	struct buf *b = answers(c);
	uint32_t flags, page = 5000, rows, left;
	uint64_t width = 0;
	size_t mark;

	get16(in);
	flags = c->version >= 5 ? get32(in) : get8(in);
	if (flags & 0x01 && get16(in) == 2) {
		int64_t begin = copy_token(in), end = copy_token(in);

		width = (uint64_t)end - (uint64_t)begin;
	}
	if (flags & 0x04)
		page = get32(in);
	left = (uint32_t)((double)width / 18446744073709551616.0 * (double)copy_rows);
	if (flags & 0x08 && get32(in) == 4)
		left = get32(in);
	rows = page < COPY_PAGE ? page : COPY_PAGE;
	rows = rows < left ? rows : left;
	left -= rows;
	mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT);
	put32(b, RESULT_ROWS);
	put32(b, 4 | (left ? 2 : 0));
	put32(b, COPY_COLUMNS);
	if (left) {
		put32(b, 4);
		put32(b, left);
	}
	put32(b, rows);
	put(b, copy_pattern.p, copy_offsets[rows]);
	frame_end(b, mark);
}

#endif
