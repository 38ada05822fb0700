/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: views of QUERY, PREPARE, EXECUTE and BATCH bodies (section 4.1 of the specification), edits that
 * leave the rest of the body where it is (a pinned timestamp), and encoding for another protocol version or
 * another cluster.
 *
 * A view borrows the body. Nothing here allocates.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"
#include "cql/frame.h"

enum query_flag {
	QUERY_VALUES = 0x01,
	QUERY_SKIP_METADATA = 0x02,
	QUERY_PAGE_SIZE = 0x04,
	QUERY_PAGING_STATE = 0x08,
	QUERY_SERIAL = 0x10,
	QUERY_TIMESTAMP = 0x20,
	QUERY_NAMES = 0x40,
	QUERY_KEYSPACE = 0x80,	      /* v5 */
	QUERY_NOW_IN_SECONDS = 0x100, /* v5 */
};

enum consistency {
	CL_ANY = 0,
	CL_ONE = 1,
	CL_TWO = 2,
	CL_THREE = 3,
	CL_QUORUM = 4,
	CL_ALL = 5,
	CL_LOCAL_QUORUM = 6,
	CL_EACH_QUORUM = 7,
	CL_SERIAL = 8,
	CL_LOCAL_SERIAL = 9,
	CL_LOCAL_ONE = 10,
};

/* <query_parameters>, and the tail of BATCH: flags, serial consistency, timestamp, keyspace and now. */
struct query_params {
	uint16_t consistency;
	uint32_t flags; /* enum query_flag; v3/v4 carry one byte, v5 four */
	uint16_t values_count;
	struct span
	    values; /* the [value]s without their count, with names where QUERY_NAMES; none in BATCH */
	int32_t page_size;
	struct span paging_state;
	uint16_t serial_consistency;
	int64_t timestamp;    /* µs; valid when flags & QUERY_TIMESTAMP */
	struct span keyspace; /* data = NULL without QUERY_KEYSPACE */
	int32_t now_in_seconds;
	/* Offsets from the start of the body, for edits. */
	size_t consistency_at;
	size_t flags_at;
	size_t paging_at;    /* where the 4-byte length of the paging state stands or would stand */
	size_t timestamp_at; /* where the 8 bytes stand or would stand */
};

struct request {
	uint8_t version, opcode, header_flags;
	struct span body;		/* whole body as on the wire, custom payload included */
	struct span payload;		/* custom payload bytes map (v4+), empty if none */
	struct span text;		/* QUERY, PREPARE: the statement */
	struct span id;			/* EXECUTE: prepared id */
	size_t id_at;			/* offset of the id's 2-byte length in the body */
	struct span result_metadata_id; /* EXECUTE v5 */
	struct span prepare_keyspace;	/* PREPARE v5 with flag 0x01; data = NULL without it */
	uint8_t batch_type;		/* 0 logged, 1 unlogged, 2 counter */
	uint16_t batch_count;
	struct span batch_children; /* for batch_next() */
	struct query_params params; /* QUERY, EXECUTE, BATCH */
};

/*
 * Parses a whole (decompressed) body. `version` 3, 4 or 5. Returns 0 or CQL_MALFORMED: truncated, trailing
 * bytes that no version defines, negative lengths where none is allowed, or unknown flag bits. Other opcodes:
 * 0 with only version, opcode, flags and body set. What is malformed may still be good for the server: relay
 * it, but do not act on it.
 */
int request_parse(uint8_t version, uint8_t header_flags, uint8_t opcode, struct span body,
		  struct request *ret);

/* The prepared id of an EXECUTE body that may be only a beginning. 0, CQL_INCOMPLETE or CQL_MALFORMED. */
int request_execute_id(uint8_t header_flags, struct span body_start, struct span *ret_id);

/*
 * Where the request's unqualified names are: the keyspace that goes with it (v5), or else the session's. Of a prepared statement, that of its
 * PREPARE counts: struct prepared has it. `to`: room for one. Returns `to` or `session`.
 */
const char *request_keyspace(const struct request *r, const char *session, char to[CQL_NAME_MAX + 1]);

struct batch_child {
	bool prepared;
	struct span text; /* or the id when prepared */
	uint16_t values_count;
	struct span values;
};
/*
 * Walks the children: `cursor` begins as request->batch_children and shrinks. 1 = child, 0 = end,
 * CQL_MALFORMED. Values have no names here, whatever QUERY_NAMES says: that flag stands behind the children,
 * and servers ignore it.
 */
int batch_next(uint8_t version, struct span *cursor, struct batch_child *ret);

/*
 * Whether a value that is bound to a text (of QUERY, or of a BATCH's child) may be a list that is not empty: nobody described its type, but
 * lists and sets look like nothing else, a number of elements each behind its length.
 */
bool request_may_bind_list(const struct request *r);

/*
 * One change to a body: at offset `at` of the body as it was, `remove` bytes give way to the first `size`
 * bytes of `insert`. Lists of edits are in ascending order. The envelope's length changes by edits_growth().
 */
struct edit {
	size_t at;
	uint8_t remove;
	uint8_t size;
	uint8_t insert[14];
};
#define REQUEST_EDITS_MAX 4

/* Edits that give QUERY/EXECUTE/BATCH the timestamp flag and `timestamp` (µs). Returns their number; 0 when
 * one is set already. */
unsigned request_pin_timestamp(const struct request *r, int64_t timestamp,
			       struct edit edits[REQUEST_EDITS_MAX]);

/* How many bytes the body grows (or shrinks) by. */
ssize_t edits_growth(const struct edit *edits, unsigned count);

/*
 * How a request is encoded for another cluster, version or connection. Zero-initialised = as it is, but for
 * `consistency`, where 0 is ANY: say −1 to keep the request's.
 */
struct request_target {
	uint8_t version; /* 3, 4 or 5; 0: the request's own */
	int16_t stream;
	/* EXECUTE: replaces the prepared id when size > 0. */
	struct span id;
	/* EXECUTE to v5: what the target gave; required there unless the request has one. */
	struct span result_metadata_id;
	int consistency; /* −1: as in the request */
	/* Replaces the client's own timestamp, too: set it only to what the origin got. */
	bool set_timestamp;
	int64_t timestamp;
	/* v5: sent with QUERY, EXECUTE, BATCH, PREPARE when size > 0 and the request has none. v3/v4: says
	 * that the connection is bound to it, without which a request that brings its own is −ENOTSUP. */
	struct span keyspace;
	/* v5 only, and only where the client gave none: the origin used the client's. */
	bool set_now;
	int32_t now_in_seconds;
	bool skip_metadata; /* write: answers are not looked at */
	bool keep_payload;  /* the client's custom payload goes along; −ENOTSUP in v3, which has none */
	/* BATCH: gives the target's id for a child's id; false = unknown, encoding fails with −ENOENT. */
	bool (*child_id)(void *context, struct span id, struct span *ret);
	void *context;
};

/*
 * Writes the envelope (header + body, uncompressed, without tracing flag, page size and paging state, and
 * without custom payload unless that is to be kept) to `to`, which must not overlap the request. Returns its
 * size, −ENOSPC (capacity), −ENOENT (child_id), −ENOTSUP (cannot be said in that version: values that are not
 * set in v3, a keyspace or now_in_seconds of the client's own before v5).
 */
ssize_t request_encode(const struct request *r, const struct request_target *t, uint8_t *to, size_t capacity);

/* Enough capacity for request_encode(), whatever the version, with ids and keyspace of the target of up to 64
 * bytes each. */
size_t request_encode_bound(const struct request *r);

/* Envelopes of the agent's own requests. All return the size or −ENOSPC. `pairs`: NULL-terminated key, value,
 * key, value. */
ssize_t request_write_options(uint8_t version, int16_t stream, uint8_t *to, size_t capacity);
ssize_t request_write_startup(uint8_t version, int16_t stream, const char *const *pairs, uint8_t *to,
			      size_t capacity);
ssize_t request_write_auth(uint8_t version, int16_t stream, struct span token, uint8_t *to, size_t capacity);
ssize_t request_write_query(uint8_t version, int16_t stream, struct span text, uint16_t consistency,
			    uint8_t *to, size_t capacity);
ssize_t request_write_prepare(uint8_t version, int16_t stream, struct span text, struct span keyspace,
			      uint8_t *to, size_t capacity);
ssize_t request_write_register(uint8_t version, int16_t stream, const char *const *events, uint8_t *to,
			       size_t capacity);

/* STARTUP's value for `key` (exact match). false when absent or the body is malformed. */
bool startup_option(struct span body, const char *key, struct span *ret_value);

/* STARTUP's body without that option, into `to` (body.size bytes). Its size; a malformed body is copied as it is. */
size_t startup_without(struct span body, const char *key, uint8_t *to);

/* Whether REGISTER's body, a list of events, names that one. */
bool register_names(struct span body, struct span event);

/*
 * A second REGISTER adds to the first: the events of `had` (what this has made before, or empty) and those of `more`, each once, as one
 * body into `to`. Its size. What does not fit is left out, and so is all of a truncated `more`. `capacity`: at least 2, and had.size.
 */
size_t register_join(struct span had, struct span more, uint8_t *to, size_t capacity);
