/* SPDX-License-Identifier: Apache-2.0 */
/* Between target.c (the connection's life and its answers) and target_send.c (what goes out). */
#pragma once
#include "mirror/target.h"
#include "net/conn.h"
#include "relay/input.h"
#include "relay/reach.h"

#define TARGET_MAGIC 0x7A26E7C0u
#define STREAMS (DISPATCH_WINDOW + 64) /* some for PREPARE, USE and pings */
#define OUT_SIZE (256u << 10)
#define SEGMENT_FILL (32u << 10)       /* a gathered segment is closed beyond this: small enough to be checked early */
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 5000u
#define ANSWER_TIMEOUT_NS (20u * 1000000000ull)
#define REFUSED_NS (1000u * 1000000ull) /* a keyspace that could not be bound is not asked for again; as long as a table that is ailing (ailing.h) */
#define PING_NS (30u * 1000000000ull) /* Astra ends a connection that is silent for ten minutes */

enum stream_kind { STREAM_FREE, STREAM_RECORD, STREAM_PREPARE, STREAM_USE, STREAM_PING };

struct stream_slot {
	uint8_t kind;
	union {
		struct record *record;
		struct prepared *prepared; /* shares; USE: the statement that waits for it, NULL = a record */
	};
};

struct target {
	uint32_t magic;
	enum target_state state;
	struct dispatch *dispatch;
	unsigned node;
	struct addr address; /* that was dialled last */
	bool itself;         /* that is the node's own */
	uint8_t version;
	bool segments, conn_live, freeing, warned, repeat; /* repeat: it was up before; what it may have forgotten is sent again */
	struct reach_dial *dial;
	struct conn conn;
	struct input in, plain; /* bytes as received; envelopes out of segments */
	uint32_t backoff_ms, inflight, prepares;
	uint64_t next_dial_ns, last_answer_ns, last_send_ns;
	char keyspace[CQL_NAME_MAX + 1]; /* what the connection is bound to (v3/v4) */
	bool binding;                    /* USE is on its way: nothing else goes out */
	char refused[CQL_NAME_MAX + 1];  /* the keyspace that the last failed USE asked for, with when and why; empty = none */
	uint64_t refused_ns;
	int32_t refused_code;
	uint8_t *out;
	size_t out_size, segment_at;     /* segment_at: where the open segment's header stands; SIZE_MAX = none */
	uint16_t free_streams[STREAMS];
	unsigned free_count;
	struct stream_slot stream[STREAMS];
};

/* Room for an envelope of up to `size` bytes, inside a segment where there are segments. NULL: too large for the buffer. */
uint8_t *target_reserve(struct target *t, size_t size);
/* `size` bytes of the reserved room were used; negative or 0: none. */
void target_commit(struct target *t, ssize_t size);
/* A free stream id, taken for `what`; −EAGAIN. */
int target_take_stream(struct target *t, enum stream_kind kind, void *what);
void target_give_stream(struct target *t, unsigned id);
