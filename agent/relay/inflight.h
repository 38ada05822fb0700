/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of one session that wait for their answer, by stream id.
 *
 * Drivers spread stream ids over the whole 15-bit range, so this is a small open-addressing table that grows with the
 * requests in flight, not with the ids. Removal shifts entries back; there are no tombstones.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum request_kind {
	REQUEST_READ,     /* nothing to learn from the answer */
	REQUEST_WRITE,    /* `record` waits for the outcome */
	REQUEST_PREPARE,  /* `prepare` holds what was prepared */
	REQUEST_USE,      /* may change the session's keyspace */
	REQUEST_STARTUP,
	REQUEST_AUTH,
	REQUEST_REGISTER, /* `events` are for the other side, too, if this one takes them */
	REQUEST_TOPOLOGY, /* the answer is kept for the frozen topology; `topology` names the question */
	REQUEST_OTHER,
};

/* REGISTER's body, until it is answered. */
struct pending_register {
	size_t size;
	uint8_t body[];
};

struct inflight {
	int16_t stream;
	bool used;
	bool paged;    /* a page may follow: the answer may carry a paging state */
	bool conditional; /* REQUEST_WRITE: the answer says whether it was applied */
	bool piecemeal;   /* REQUEST_WRITE: may have been applied in part when replicas were away (struct statement) */
	uint8_t kind;  /* enum request_kind */
	uint8_t side;  /* enum side */
	uint8_t unmirrored; /* REQUEST_WRITE without a record: why (enum unmirrored); MIRRORABLE once it was counted */
	uint16_t gap;       /* with unmirrored: its tables (gap_cell) */
	union {
		struct record *record;
		struct pending_prepare *prepare;
		struct topology_question *topology;
		struct pending_register *events;
	};
	struct prepared_slot *slot; /* EXECUTE: the statement as the client knows it, for translating UNPREPARED */
	struct batch_ids *ids;      /* BATCH: the same for its children, where they have other ids on that side; else NULL */
	struct held_answer *held;   /* REQUEST_WRITE: its answer has come, and waits for the other cluster (held.h) */
	uint64_t sent_ns;           /* 0 = not sampled */
};

struct inflight_table {
	struct inflight *entries;
	uint32_t mask; /* size − 1; entries NULL while never used */
	uint32_t count;
};

/* The entry for `stream`, or NULL. The pointer holds until the next add or remove. */
struct inflight *inflight_find(struct inflight_table *t, int16_t stream);
/* A new, zeroed entry. NULL with *ret_duplicate = true when the stream is in flight already, NULL when memory is short. */
struct inflight *inflight_add(struct inflight_table *t, int16_t stream, bool *ret_duplicate);
void inflight_remove(struct inflight_table *t, int16_t stream);
void inflight_done(struct inflight_table *t);
/* Walks all entries: begin with *at = 0; NULL at the end. Not to be mixed with add or remove. */
struct inflight *inflight_each(struct inflight_table *t, uint32_t *at);
