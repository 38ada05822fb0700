/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of the gap ledger: bytes ⇄ struct ledger_record. Pure: no I/O, no clock, no log.
 *
 *   {"type":"gap","kind":"unmirrored",…,"crc":"1a2b3c4d"}\n
 *
 * `crc` is always the last member: CRC-32 (zlib's) of all bytes from the opening brace up to, not including, the comma before it, in
 * eight lower-case hexadecimal digits. A line is at most LEDGER_LINE_MAX bytes of ASCII. Members with no value ("" or 0) are left out,
 * unknown ones are ignored, so that an older agent reads a newer one's lines. Times are µs since 1970.
 *
 *   type     head      first line of each file: "version" (1), "from" = when the file was begun
 *            begin     a span has begun ("id", "key"), its end is not known yet; a line of type gap with the same id ends it
 *            gap       a gap: a span with both ends, counted statements, or a forced move
 *            summary   "count" gaps or statements of lines that were dropped when the ledger was full
 *
 *   kind     unmirrored  statements ("count", "from" first, "to" last), by cause, keyspace, table
 *            bypass      a connection that passed by the agent ("pid", "cgroup", "netns", "cookie", "program", "destination")
 *            opaque      a connection through the agent that it could not read ("client", "destination")
 *            down        the agent was away without a notice ("backlog" = records that waited at the last sign of life)
 *            off         mirroring was switched off, back to phase observe
 *            forced      a person went on although something stood against it ("who", "text")
 *            lost        lines that could not be written or read back
 *
 *   missing  the cluster that lacks the writes: "target", or "origin" after a cutover
 *   keyspace, table      "" = not known: any. Token range: never known, the whole table
 *   approximate          true: `from` or `to` is the widest it can have been
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define LEDGER_VERSION 1
#define LEDGER_LINE_MAX 2048 /* with its newline */

enum ledger_type { LEDGER_HEAD, LEDGER_BEGIN, LEDGER_GAP, LEDGER_SUMMARY, LEDGER_TYPES };

enum ledger_kind {
	LEDGER_UNMIRRORED,
	LEDGER_BYPASS,
	LEDGER_OPAQUE,
	LEDGER_DOWN,
	LEDGER_OFF,
	LEDGER_FORCED,
	LEDGER_LOST,
	LEDGER_KINDS
};

struct ledger_record {
	enum ledger_type type;
	enum ledger_kind kind;
	bool missing_on_origin;
	bool approximate;
	uint32_t version; /* HEAD */
	uint32_t pid;
	int64_t from_us, to_us; /* to 0 = not over */
	uint64_t count;
	uint64_t id;  /* of a span, unique in the ledger; 0 = none */
	uint64_t key; /* of a span, unique among the open ones of its kind */
	uint64_t cgroup, netns, cookie, backlog;
	char cause[48];
	char keyspace[49], table[49];
	char program[16];
	char client[64], destination[64];
	char who[64];
	char text[320];
};

const char *ledger_kind_name(enum ledger_kind kind);
/* −1 = none of them. */
int ledger_kind_from_name(const char *name);

/* For how many a record counts: the statements of a line that counts them, otherwise one. */
static inline uint64_t ledger_weight(const struct ledger_record *r)
{
	/* Connections beyond the limit of spans, seen again: counted when they began. */
	bool again = r->kind == LEDGER_BYPASS && !r->id && r->approximate;

	return r->count || again ? r->count : 1;
}

/* Writes the line into `line` (LEDGER_LINE_MAX bytes). Characters that are no printable ASCII become '?'. Bytes, or −ENOMEM. */
int ledger_encode(const struct ledger_record *r, char *line);

/* One line, with or without its newline. 0, or −EBADMSG: damaged (checksum, shape), −EPROTONOSUPPORT: whole, but of a type or kind that
 * this version does not know. */
int ledger_decode(struct span line, struct ledger_record *ret);
