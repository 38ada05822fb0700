/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses: views of ERROR, RESULT and SUPPORTED bodies (section 4.2 of the specification), and the few
 * answers that the agent gives itself. A view borrows the body. Nothing here allocates.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"
#include "cql/frame.h"

enum cql_error {
	CQL_SERVER_ERROR = 0x0000,
	CQL_PROTOCOL_ERROR = 0x000A,
	CQL_BAD_CREDENTIALS = 0x0100,
	CQL_UNAVAILABLE = 0x1000,
	CQL_OVERLOADED = 0x1001,
	CQL_BOOTSTRAPPING = 0x1002,
	CQL_TRUNCATE_ERROR = 0x1003,
	CQL_WRITE_TIMEOUT = 0x1100,
	CQL_READ_TIMEOUT = 0x1200,
	CQL_READ_FAILURE = 0x1300,
	CQL_FUNCTION_FAILURE = 0x1400,
	CQL_WRITE_FAILURE = 0x1500,
	CQL_CDC_WRITE_FAILURE = 0x1600,
	CQL_CAS_WRITE_UNKNOWN = 0x1700,
	CQL_SYNTAX_ERROR = 0x2000,
	CQL_UNAUTHORIZED = 0x2100,
	CQL_INVALID = 0x2200,
	CQL_CONFIG_ERROR = 0x2300,
	CQL_ALREADY_EXISTS = 0x2400,
	CQL_UNPREPARED = 0x2500,
};

/* What an ERROR says about a write. Codes that are not known: WRITE_UNKNOWN; never
 * WRITE_APPLIED. `piecemeal`: struct statement; then UNAVAILABLE says nothing about the parts before. */
enum write_outcome { WRITE_APPLIED, WRITE_REFUSED, WRITE_UNKNOWN, WRITE_UNPREPARED };
enum write_outcome error_write_outcome(int32_t code, bool piecemeal);

enum result_kind {
	RESULT_VOID = 1,
	RESULT_ROWS = 2,
	RESULT_SET_KEYSPACE = 3,
	RESULT_PREPARED = 4,
	RESULT_SCHEMA_CHANGE = 5
};

/*
 * Skips what header flags put before the body proper: tracing id, warnings, custom payload. Returns the bytes
 * skipped, CQL_INCOMPLETE (`body` may be only a beginning), or CQL_MALFORMED (a length that no frame can
 * hold).
 */
int64_t response_prefix(uint8_t header_flags, struct span body);

/* The functions below take the body after that prefix. */

struct response_error {
	int32_t code;
	struct span message;
	struct span unprepared_id; /* CQL_UNPREPARED only */
};
int response_error_parse(struct span body, struct response_error *ret); /* 0 or CQL_MALFORMED */

/* The kind of a RESULT; needs 4 bytes. CQL_INCOMPLETE, or CQL_MALFORMED for an unknown kind. */
int result_kind(struct span body_start);

/* SET_KEYSPACE's name. 0 or CQL_MALFORMED. */
int result_set_keyspace(struct span body, struct span *ret);

enum rows_flag {
	ROWS_GLOBAL_SPEC = 0x01,
	ROWS_MORE_PAGES = 0x02,
	ROWS_NO_METADATA = 0x04,
	ROWS_METADATA_CHANGED = 0x08
};

/* The beginning of a ROWS result, of which only the first bytes need to be there. */
struct rows_head {
	uint32_t flags;
	uint32_t columns;
	struct span paging_state;    /* ROWS_MORE_PAGES */
	size_t paging_at;	     /* offset of the paging state's 4-byte length from the start of `body` */
	struct span new_metadata_id; /* v5, ROWS_METADATA_CHANGED */
	size_t metadata_id_at;	     /* offset of its 2-byte length */
	size_t size; /* bytes up to here: what follows are column specifications or the row count */
};
/* 0, CQL_INCOMPLETE, CQL_MALFORMED */
int rows_head_parse(uint8_t version, struct span body_start, struct rows_head *ret);

/* Type ids of section 4.2.5.2; the option's details (custom class, element types, …) follow in `detail`. */
enum cql_type {
	TYPE_CUSTOM = 0x00,
	TYPE_ASCII = 0x01,
	TYPE_BIGINT = 0x02,
	TYPE_BLOB = 0x03,
	TYPE_BOOLEAN = 0x04,
	TYPE_COUNTER = 0x05,
	TYPE_DECIMAL = 0x06,
	TYPE_DOUBLE = 0x07,
	TYPE_FLOAT = 0x08,
	TYPE_INT = 0x09,
	TYPE_TIMESTAMP = 0x0B,
	TYPE_UUID = 0x0C,
	TYPE_VARCHAR = 0x0D,
	TYPE_VARINT = 0x0E,
	TYPE_TIMEUUID = 0x0F,
	TYPE_INET = 0x10,
	TYPE_DATE = 0x11,
	TYPE_TIME = 0x12,
	TYPE_SMALLINT = 0x13,
	TYPE_TINYINT = 0x14,
	TYPE_DURATION = 0x15,
	TYPE_LIST = 0x20,
	TYPE_MAP = 0x21,
	TYPE_SET = 0x22,
	TYPE_UDT = 0x30,
	TYPE_TUPLE = 0x31,
};
struct column {
	struct span keyspace, table, name;
	uint16_t type;	    /* enum cql_type of the outermost option */
	struct span option; /* the whole option, for comparing */
};

/* Column specifications: from a PREPARED answer (binds or result) or a ROWS head. */
struct columns {
	uint32_t count;
	bool global;
	struct span keyspace, table; /* when global */
	struct span rest;	     /* for column_next() */
};
/* 1, 0 = end, CQL_MALFORMED. `c` shrinks: walk a copy. */
int column_next(struct columns *c, struct column *ret);

struct prepared_result {
	struct span id;
	struct span result_metadata_id; /* v5 */
	struct columns binds;
	uint16_t pk_count;	     /* v4+ */
	struct span pk_indexes;	     /* pk_count big-endian uint16 */
	struct columns result;	     /* count = 0 for a write */
	struct span bind_metadata;   /* raw bytes of <metadata> */
	struct span result_metadata; /* raw bytes of <result_metadata> */
};
/* 0 or CQL_MALFORMED */
int result_prepared_parse(uint8_t version, struct span body, struct prepared_result *ret);

/* Same column names, order and types. Keyspace and table names may differ (a rename), also a user type's. */
bool columns_equal(struct columns a, struct columns b);

/* Over names, order and types: the same for one table in every protocol version, as far as versions tell types differently. */
uint64_t columns_hash(struct columns c);

/* Rows of an answer to the agent's own queries. */
struct rows {
	struct columns columns;
	uint32_t count;
	struct span rest;
	struct rows_head head;
};
int rows_parse(uint8_t version, struct span body, struct rows *ret); /* needs metadata; 0 or CQL_MALFORMED */
/* Gives the cells of the next row; data = NULL for null. `cells` has columns.count places. 1, 0 = end,
 * CQL_MALFORMED. */
int rows_next(struct rows *r, struct span *cells);

/*
 * What a conditional write's answer says, of which only the first bytes need to be there: 1 = applied, 0 = not, CQL_INCOMPLETE, or
 * CQL_MALFORMED where it says nothing of the kind. Rows tell by their column [applied], all of a batch the same. 4.1.10 and 5.0.9 send
 * metadata even where the client skips it, and that column first; without metadata it is taken to be the first.
 */
int result_applied(uint8_t version, struct span body_start);

/*
 * AUTHENTICATE: whether the authenticator is DSE's, which wants the mechanism's name ("PLAIN") first, and the token when it challenges, as
 * DataStax's drivers do it.
 */
bool authenticate_wants_mechanism(struct span body);

/* SUPPORTED / string multimap: whether `key` lists `value`. */
bool supported_has(struct span body, const char *key, const char *value);

/* How many values SUPPORTED lists for `key`; *ret_at: where in the body that [short] stands. CQL_MALFORMED where it has no such key. */
int supported_list(struct span body, const char *key, size_t *ret_at);

/*
 * Answers of the agent's own: whole envelopes, size or −ENOSPC. Error codes that demand further fields
 * (Unavailable, timeouts, failures, AlreadyExists, Unprepared) are −EINVAL.
 */
ssize_t response_write_error(uint8_t version, int16_t stream, int32_t code, const char *message, uint8_t *to,
			     size_t capacity);
ssize_t response_write_unprepared(uint8_t version, int16_t stream, struct span id, uint8_t *to,
				  size_t capacity);
ssize_t response_write_void(uint8_t version, int16_t stream, uint8_t *to, size_t capacity);
ssize_t response_write_set_keyspace(uint8_t version, int16_t stream, struct span keyspace, uint8_t *to,
				    size_t capacity);
/*
 * An unknown or capped version, in the cluster's own form: header version 5, stream 0, code 0x0A, and
 * Cassandra's sentence, that of version 4+ followed by that of version 3, by which gocql learns `highest`.
 */
ssize_t response_write_version_error(uint8_t asked, uint8_t highest, uint8_t *to, size_t capacity);
