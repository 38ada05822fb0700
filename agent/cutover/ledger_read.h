/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the gap ledger's files page by page, while an agent writes them or without one. Bounded memory: one page and one line.
 *
 *   summaries of gaps.log ─▶ gaps of gaps.log.1 ─▶ gaps of gaps.log ─▶ (open spans: ledger_spans, or ledger_read_spans)
 *
 * A line that is not whole yet, or damaged, is skipped.
 */
#pragma once
#include "base/error.h"
#include "cutover/ledger_format.h"

enum ledger_stage { LEDGER_SUMMARIES, LEDGER_OLDER, LEDGER_CURRENT, LEDGER_READ };

/* Where to go on; all zero = at the beginning. It stays good when the ledger is rotated once. */
struct ledger_cursor {
	enum ledger_stage stage;
	uint64_t older, current; /* inodes of gaps.log.1 (0 = there was none) and gaps.log, as they were at the beginning */
	uint64_t offset;
};

/* What is wanted. A gap whose keyspace or table is not known may concern any, and matches. */
struct ledger_filter {
	int64_t since_us;  /* gaps that were not over then; 0 = all */
	char cause[48];    /* a cause or a kind; "" = all */
	char keyspace[49]; /* "" = all */
	char table[49];
};

/* "keyspace.table", "table", "keyspace.*" or "keyspace."; 0 or −EINVAL. */
int ledger_filter_table(struct ledger_filter *f, const char *text);
bool ledger_matches(const struct ledger_filter *f, const struct ledger_record *r);

typedef void (*ledger_found)(void *context, const struct ledger_record *r);

/*
 * Calls back for at most `most` matching gaps and reads at most `bytes` of the files (rounded up to a line). 1 = there is more, 0 = all
 * was read, −ESTALE: the ledger was rotated too often meanwhile, begin again; other −errno with the reason.
 */
int ledger_read(const char *directory, const struct ledger_filter *f, struct ledger_cursor *cursor, unsigned most, size_t bytes,
		ledger_found found, void *context, struct error *e);

/*
 * Calls back for each whole line of `fd` from *offset on, until it returns other than 0 or `bytes` were read; *offset moves behind the
 * last line that was given. 0 = at the end of the file (an unfinished line is not given), 1 = stopped, −errno. What has no end within
 * LEDGER_LINE_MAX bytes is given in pieces, which do not decode.
 */
int ledger_lines(int fd, uint64_t *offset, size_t bytes, int (*line)(void *context, struct span line), void *context);

/* Spans that the files leave open, at most LEDGER_SPANS_MAX of them, for reading without the agent. Their number, or −errno. */
int ledger_read_spans(const char *directory, const struct ledger_filter *f, ledger_found found, void *context, struct error *e);
