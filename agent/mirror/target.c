/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/segment.h"
#include "net/conn.h"
#include "net/dial.h"
#include "relay/input.h"
#include "relay/session.h"

#define TARGET_MAGIC 0x7A26E7C0u
#define STREAMS (DISPATCH_WINDOW + 64) /* some for PREPARE, USE and pings */
#define OUT_SIZE (256u << 10)
#define SEGMENT_FILL (32u << 10)       /* a gathered segment is closed beyond this: small enough to be checked early */
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 5000u
#define ANSWER_TIMEOUT_NS (20u * 1000000000ull)
#define PING_NS (30u * 1000000000ull) /* Astra ends a connection that is silent for ten minutes */

enum stream_kind { STREAM_FREE, STREAM_RECORD, STREAM_PREPARE, STREAM_USE, STREAM_PING };

struct stream_slot {
	uint8_t kind;
	union {
		struct record *record;
		struct prepared *prepared; /* shares */
	};
};

struct target {
	uint32_t magic;
	enum target_state state;
	struct dispatch *dispatch;
	unsigned node;
	uint8_t version;
	bool segments, conn_live, freeing, warned, repeat; /* repeat: it was up before; what it may have forgotten is sent again */
	struct dial *dial;
	struct conn conn;
	struct input in, plain; /* bytes as received; envelopes out of segments */
	uint32_t backoff_ms, inflight, prepares;
	uint64_t next_dial_ns, last_answer_ns, last_send_ns;
	char keyspace[CQL_NAME_MAX + 1]; /* what the connection is bound to (v3/v4) */
	bool binding;                    /* USE is on its way: nothing else goes out */
	uint8_t *out;
	size_t out_size, segment_at;     /* segment_at: where the open segment's header stands; SIZE_MAX = none */
	uint16_t free_streams[STREAMS];
	unsigned free_count;
	struct stream_slot stream[STREAMS];
};

static const struct cluster *cluster_of(const struct target *t)
{
	return &t->dispatch->mirror->relay->options.cluster[t->dispatch->side];
}

static const struct addr *address_of(const struct target *t)
{
	return &cluster_of(t)->nodes[t->node];
}

struct target *target_new(struct dispatch *d, unsigned node)
{
	struct target *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->magic = TARGET_MAGIC;
	t->dispatch = d;
	t->node = node;
	t->version = 5;
	t->backoff_ms = BACKOFF_FIRST_MS;
	t->segment_at = SIZE_MAX;
	return t;
}

bool target_ready(const struct target *t)
{
	return t->state == TARGET_UP && !t->binding && t->inflight < DISPATCH_WINDOW && !conn_congested(&t->conn);
}

uint32_t target_inflight(const struct target *t)
{
	return t->inflight;
}

/* ---- output */

static void close_segment(struct target *t)
{
	size_t begin = t->segment_at, payload;

	if (begin == SIZE_MAX)
		return;
	payload = t->out_size - begin - SEGMENT_HEADER_PLAIN;
	segment_header_write(t->out + begin, false, (uint32_t)payload, true);
	segment_trailer_write(t->out + t->out_size, segment_crc32(t->out + begin + SEGMENT_HEADER_PLAIN, payload));
	t->out_size += SEGMENT_TRAILER;
	t->segment_at = SIZE_MAX;
}

void target_flush(struct target *t)
{
	struct iovec iov;

	if (t->out_size == 0)
		return;
	close_segment(t);
	iov = (struct iovec){t->out, t->out_size};
	conn_send(&t->conn, &iov, 1);
	t->out_size = 0;
	t->last_send_ns = t->dispatch->worker->turn_ns;
	if (t->last_answer_ns == 0)
		t->last_answer_ns = t->last_send_ns;
}

/* Room for an envelope of up to `size` bytes, inside a segment where there are segments. NULL: too large for the buffer. */
static uint8_t *reserve(struct target *t, size_t size)
{
	size_t frame = SEGMENT_HEADER_PLAIN + SEGMENT_TRAILER;

	if (size + frame > OUT_SIZE || (t->segments && size > SEGMENT_PAYLOAD_MAX))
		return NULL;
	if (t->segment_at != SIZE_MAX && t->out_size - t->segment_at > SEGMENT_FILL)
		close_segment(t);
	if (t->segment_at != SIZE_MAX && t->out_size - t->segment_at - SEGMENT_HEADER_PLAIN + size > SEGMENT_PAYLOAD_MAX)
		close_segment(t);
	if (t->out_size + size + 2 * frame > OUT_SIZE)
		target_flush(t);
	if (t->segments && t->segment_at == SIZE_MAX) {
		t->segment_at = t->out_size;
		t->out_size += SEGMENT_HEADER_PLAIN;
	}
	return t->out + t->out_size;
}

static void commit(struct target *t, ssize_t size)
{
	if (size > 0)
		t->out_size += (size_t)size;
	else if (t->segment_at != SIZE_MAX && t->out_size == t->segment_at + SEGMENT_HEADER_PLAIN) {
		t->out_size = t->segment_at; /* nothing came into the new segment */
		t->segment_at = SIZE_MAX;
	}
}

/* An envelope that does not fit the buffer: sent at once, in pieces where there are segments. */
static void send_large(struct target *t, const uint8_t *envelope, size_t size)
{
	/* Its bound did not fit a segment, but it may: servers wait for a second part of what is not self-contained. */
	bool whole = size <= SEGMENT_PAYLOAD_MAX;

	target_flush(t);
	while (size > 0) {
		uint8_t header[SEGMENT_HEADER_PLAIN], trailer[SEGMENT_TRAILER];
		size_t part = !t->segments || size <= SEGMENT_PAYLOAD_MAX ? size : SEGMENT_PAYLOAD_MAX;
		struct iovec iov[3] = {{header, sizeof(header)}, {(void *)envelope, part}, {trailer, sizeof(trailer)}};

		if (t->segments) {
			segment_header_write(header, false, (uint32_t)part, whole);
			segment_trailer_write(trailer, segment_crc32(envelope, part));
			conn_send(&t->conn, iov, 3);
		} else {
			conn_send(&t->conn, &iov[1], 1);
		}
		envelope += part;
		size -= part;
	}
}

static int take_stream(struct target *t, enum stream_kind kind, void *what)
{
	unsigned id;

	if (t->free_count == 0)
		return -EAGAIN;
	id = t->free_streams[--t->free_count];
	t->stream[id].kind = (uint8_t)kind;
	t->stream[id].record = what;
	if (kind == STREAM_RECORD)
		t->inflight++;
	return (int)id;
}

static void give_stream(struct target *t, unsigned id)
{
	if (t->stream[id].kind == STREAM_RECORD)
		t->inflight--;
	if (t->stream[id].kind == STREAM_PREPARE)
		t->prepares--;
	t->stream[id].kind = STREAM_FREE;
	t->free_streams[t->free_count++] = (uint16_t)id;
}

/* ---- records */

static int consistency_for(const struct target *t, uint16_t asked)
{
	/* By how many replicas have to answer. */
	static const uint8_t rank[] = {[CL_ANY] = 0, [CL_ONE] = 1, [CL_LOCAL_ONE] = 1, [CL_TWO] = 2, [CL_THREE] = 3,
				       [CL_LOCAL_QUORUM] = 4, [CL_QUORUM] = 5, [CL_EACH_QUORUM] = 6, [CL_ALL] = 7};
	int override = t->dispatch->mirror->consistency[t->dispatch->side];

	if (override >= 0)
		return override;
	if (asked >= sizeof(rank) || rank[asked] < rank[CL_LOCAL_QUORUM])
		return CL_LOCAL_QUORUM;
	return asked;
}

struct child_context {
	struct target *t;
	struct prepared *missing;
};

static bool child_id(void *context, struct span id, struct span *ret)
{
	struct child_context *c = context;
	struct prepared_slot *slot = prepared_find(c->t->dispatch->worker->prepared, id);
	const struct prepared_remote *r = slot ? prepared_on(slot->prepared, c->t->dispatch->side) : NULL;

	if (!r) {
		c->missing = slot ? slot->prepared : NULL;
		return false;
	}
	*ret = span_of(r->id, r->id_size);
	return true;
}

/* v3/v4: the connection has to be bound to the record's keyspace first. */
static int bind_keyspace(struct target *t, const char *keyspace)
{
	char text[CQL_NAME_MAX + 16];
	int stream;
	uint8_t *to;

	if (t->version >= 5 || !keyspace[0] || strcmp(t->keyspace, keyspace) == 0)
		return 0;
	if (t->inflight > 0 || t->prepares > 0)
		return -EAGAIN;
	stream = take_stream(t, STREAM_USE, NULL);
	if (stream < 0)
		return -EAGAIN;
	snprintf(text, sizeof(text), "USE \"%s\"", keyspace);
	to = reserve(t, 256);
	commit(t, request_write_query(t->version, (int16_t)stream, span_text(text), CL_ONE, to, 256));
	snprintf(t->keyspace, sizeof(t->keyspace), "%s", keyspace);
	t->binding = true;
	target_flush(t);
	return -EAGAIN;
}

int target_send(struct target *t, struct record *r, struct prepared **ret_missing)
{
	struct child_context child = {.t = t};
	struct request q;
	struct request_target how = {.version = t->version, .child_id = child_id, .context = &child, .skip_metadata = true};
	size_t bound;
	uint8_t *to, *large = NULL;
	ssize_t n;
	int stream, e;

	*ret_missing = NULL;
	if (request_parse(r->version, r->header_flags, r->opcode, span_of(r->body, r->body_size), &q) < 0)
		return -EBADMSG;
	if (r->opcode == OP_EXECUTE) {
		const struct prepared_remote *remote = prepared_on(r->slot->prepared, t->dispatch->side);

		if (!remote || (t->version >= 5 && remote->result_id_size == 0)) {
			*ret_missing = r->slot->prepared;
			return -EINPROGRESS;
		}
		how.id = span_of(remote->id, remote->id_size);
		how.result_metadata_id = span_of(remote->result_id, remote->result_id_size);
	} else if (r->needs_keyspace) {
		e = bind_keyspace(t, r->keyspace);
		if (e < 0)
			return e;
		how.keyspace = span_of(r->keyspace, r->keyspace_size);
	}
	how.consistency = consistency_for(t, q.params.consistency);
	if (r->pinned) {
		how.set_timestamp = true;
		how.timestamp = r->timestamp;
	}
	if (r->statement != STATEMENT_SCHEMA && r->statement != STATEMENT_TRUNCATE) {
		how.set_now = true;
		how.now_in_seconds = r->now_in_seconds;
	}
	bound = request_encode_bound(&q);
	stream = take_stream(t, STREAM_RECORD, r);
	if (stream < 0)
		return stream;
	how.stream = (int16_t)stream;
	to = reserve(t, bound);
	if (!to) {
		to = large = malloc(bound);
		if (!large) {
			give_stream(t, (unsigned)stream);
			return -EAGAIN;
		}
	}
	n = request_encode(&q, &how, to, bound);
	if (n < 0)
		give_stream(t, (unsigned)stream);
	if (large) {
		if (n > 0)
			send_large(t, large, (size_t)n);
		free(large);
	} else {
		commit(t, n);
	}
	if (n == -ENOENT && child.missing) {
		*ret_missing = child.missing;
		return -EINPROGRESS;
	}
	return n < 0 ? (int)n : 0;
}

int target_prepare(struct target *t, struct prepared *p)
{
	int stream, e;
	size_t size = p->text_size + 256u;
	uint8_t *to, *large = NULL;
	ssize_t n;

	for (unsigned i = 0; t->prepares && i < STREAMS; i++)
		if (t->stream[i].kind == STREAM_PREPARE && t->stream[i].prepared == p)
			return 0;
	e = bind_keyspace(t, p->keyspace);
	if (e < 0)
		return e;
	stream = take_stream(t, STREAM_PREPARE, p);
	if (stream < 0)
		return stream;
	t->prepares++;
	prepared_get(p);
	to = reserve(t, size);
	if (!to)
		to = large = malloc(size);
	n = to ? request_write_prepare(t->version, (int16_t)stream, span_of(p->text, p->text_size),
				       t->version >= 5 ? span_text(p->keyspace) : span_of(NULL, 0), to, size)
	       : -ENOMEM;
	if (large) {
		if (n > 0)
			send_large(t, large, (size_t)n);
		free(large);
	} else {
		commit(t, n);
	}
	if (n < 0) {
		give_stream(t, (unsigned)stream);
		prepared_put(p);
		return (int)n;
	}
	return 0;
}

/* ---- losing and finding the node */

static void lost(struct target *t, int error)
{
	struct dispatch *d = t->dispatch;
	char text[ADDR_TEXT_MAX];
	bool was_up = t->state == TARGET_UP;

	if (t->state == TARGET_DOWN || t->state == TARGET_CLOSED)
		return;
	if (was_up) {
		t->repeat = true;
		atomic_fetch_sub(&d->mirror->connected[d->side], 1);
		metric_sub(d->worker->metrics, METRIC_MIRROR_CONNECTIONS, 1);
	}
	if ((was_up || !t->warned) && !t->freeing) {
		log_warn("mirror", "%s %s: %s; writes wait in the journal and it is tried again", side_name(d->side),
			 addr_format(address_of(t), text), error ? strerror(-error) : "connection closed");
		t->warned = true;
	}
	t->state = t->freeing ? TARGET_CLOSED : TARGET_DOWN;
	t->next_dial_ns = clock_now_ns() + (uint64_t)t->backoff_ms * 1000000u;
	t->backoff_ms = t->backoff_ms * 2 < BACKOFF_MAX_MS ? t->backoff_ms * 2 : BACKOFF_MAX_MS;
	dial_cancel(t->dial);
	t->dial = NULL;
	if (t->conn_live)
		conn_close(&t->conn);
	input_done(&t->in);
	input_done(&t->plain);
	t->out_size = 0;
	t->segment_at = SIZE_MAX;
	t->segments = t->binding = false;
	t->keyspace[0] = 0;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream_slot slot = t->stream[i];

		if (slot.kind == STREAM_FREE)
			continue;
		give_stream(t, i);
		if (slot.kind == STREAM_RECORD) {
			dispatch_failed(d, slot.record, -ECONNRESET);
		} else if (slot.kind == STREAM_PREPARE) {
			dispatch_prepared(d, slot.prepared, -ECONNRESET);
			prepared_put(slot.prepared);
		}
	}
}

static void send_startup(struct target *t)
{
	static const char *const options[] = {"CQL_VERSION", "3.0.0", "DRIVER_NAME", "cqlferry mirror", "DRIVER_VERSION",
					      CQLFERRY_VERSION, NULL};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(t->version, 0, options, envelope, sizeof(envelope));
	struct iovec iov = {envelope, (size_t)n};

	t->state = TARGET_STARTUP;
	conn_send(&t->conn, &iov, 1);
}

static void up(struct target *t)
{
	struct dispatch *d = t->dispatch;
	char text[ADDR_TEXT_MAX];

	t->state = TARGET_UP;
	t->backoff_ms = BACKOFF_FIRST_MS;
	t->free_count = 0;
	for (unsigned i = STREAMS; i-- > 0;)
		t->free_streams[t->free_count++] = (uint16_t)i;
	t->inflight = t->prepares = 0;
	t->last_answer_ns = t->last_send_ns = d->worker->turn_ns;
	atomic_store(&d->mirror->version[d->side], t->version);
	atomic_fetch_add(&d->mirror->connected[d->side], 1);
	metric_add(d->worker->metrics, METRIC_MIRROR_CONNECTIONS, 1);
	if (t->warned)
		log_info("mirror", "%s %s is back", side_name(d->side), addr_format(address_of(t), text));
	t->warned = false;
	if (t->repeat)
		dispatch_repeat(d);
	t->repeat = false;
	dispatch_pump(d);
}

static int send_credentials(struct target *t)
{
	uint8_t token[512], envelope[700], segment[800];
	const struct cluster *c = cluster_of(t);
	ssize_t n = sasl_plain(c->username, c->password, token, sizeof(token));
	struct iovec iov;

	if (n < 0 || !c->username[0]) {
		log_error("mirror", "%s wants a user name and password; set %s.username and %s.password", side_name(t->dispatch->side),
			  side_name(t->dispatch->side), side_name(t->dispatch->side));
		return -EACCES;
	}
	n = request_write_auth(t->version, 0, span_of(token, (size_t)n), envelope, sizeof(envelope));
	explicit_bzero(token, sizeof(token));
	if (n < 0)
		return -EACCES;
	iov = (struct iovec){envelope, (size_t)n};
	if (t->segments) {
		size_t at = segment_header_write(segment, false, (uint32_t)n, true);

		memcpy(segment + at, envelope, (size_t)n);
		segment_trailer_write(segment + at + (size_t)n, segment_crc32(envelope, (size_t)n));
		iov = (struct iovec){segment, at + (size_t)n + SEGMENT_TRAILER};
	}
	conn_send(&t->conn, &iov, 1);
	explicit_bzero(envelope, sizeof(envelope));
	explicit_bzero(segment, sizeof(segment));
	t->state = TARGET_AUTH;
	return 0;
}

/* ---- answers */

static int handshake(struct target *t, const struct frame_header *h, struct span body)
{
	struct response_error error;

	if (h->opcode == OP_ERROR) {
		char text[ADDR_TEXT_MAX];

		if (response_error_parse(body, &error) < 0)
			return -EPROTO;
		if (error.code == CQL_PROTOCOL_ERROR && t->state == TARGET_STARTUP && t->version > 3) {
			t->version--; /* it says which it speaks; one step at a time finds the highest */
			t->backoff_ms = 1;
			t->warned = true;
			return -EPROTONOSUPPORT;
		}
		log_error("mirror", "%s %s refuses the agent: %.*s. Check %s.username and %s.password",
			  side_name(t->dispatch->side), addr_format(address_of(t), text),
			  (int)(error.message.size < 160 ? error.message.size : 160), (const char *)error.message.data,
			  side_name(t->dispatch->side), side_name(t->dispatch->side));
		t->warned = true;
		return -EACCES;
	}
	if (t->state == TARGET_STARTUP) {
		t->segments = t->version >= 5;
		if (h->opcode == OP_AUTHENTICATE)
			return send_credentials(t);
		if (h->opcode != OP_READY)
			return -EPROTO;
	} else if (h->opcode != OP_AUTH_SUCCESS) {
		return -EPROTO;
	}
	up(t);
	return 0;
}

static void record_answered(struct target *t, struct record *r, const struct frame_header *h, struct span body)
{
	struct response_error error = {.code = CQL_SERVER_ERROR};
	struct prepared_slot *slot;

	if (h->opcode == OP_RESULT) {
		dispatch_applied(t->dispatch, r);
		return;
	}
	if (h->opcode != OP_ERROR || response_error_parse(body, &error) < 0) {
		dispatch_failed(t->dispatch, r, CQL_SERVER_ERROR);
		return;
	}
	if (error.code == CQL_UNPREPARED) {
		/* This node has forgotten it (restart, eviction), or never heard of it. */
		slot = r->slot ? r->slot : prepared_find(t->dispatch->worker->prepared, error.unprepared_id);
		if (slot && target_prepare(t, slot->prepared) == 0) {
			dispatch_park(t->dispatch, r);
			return;
		}
	}
	dispatch_failed(t->dispatch, r, error.code);
}

static void prepare_answered(struct target *t, struct prepared *p, const struct frame_header *h, struct span body)
{
	struct dispatch *d = t->dispatch;
	struct prepared_result result;
	struct response_error error = {.code = CQL_SERVER_ERROR};

	if (h->opcode == OP_RESULT && result_prepared_parse(t->version, body, &result) == 0) {
		int e = prepared_map_learn_for(d->mirror->relay->prepared, d->side, t->version, p, &result);

		dispatch_prepared(d, p, e < 0 ? CQL_INVALID : 0);
	} else {
		if (h->opcode == OP_ERROR)
			response_error_parse(body, &error);
		/* 0 says "prepared": a server error is only another reason to try again later. */
		dispatch_prepared(d, p, error.code > 0 ? error.code : CQL_OVERLOADED);
	}
	prepared_put(p);
}

static int one_answer(struct target *t, const struct frame_header *h, struct span body)
{
	int64_t skip = response_prefix(h->flags, body);
	struct stream_slot slot;

	if (skip < 0)
		return -EPROTO;
	body = span_of(body.data + skip, body.size - (size_t)skip);
	if (t->state != TARGET_UP)
		return handshake(t, h, body);
	if (h->opcode == OP_EVENT)
		return 0;
	if (h->stream < 0 || h->stream >= (int)STREAMS || t->stream[h->stream].kind == STREAM_FREE)
		return -EPROTO;
	slot = t->stream[h->stream];
	give_stream(t, (unsigned)h->stream);
	switch (slot.kind) {
	case STREAM_RECORD:
		record_answered(t, slot.record, h, body);
		break;
	case STREAM_PREPARE:
		prepare_answered(t, slot.prepared, h, body);
		break;
	case STREAM_USE:
		t->binding = false;
		if (h->opcode != OP_RESULT)
			t->keyspace[0] = 0; /* records of that keyspace fail by themselves, with the cluster's reason */
		break;
	}
	return 0;
}

static ssize_t envelopes(struct target *t, const uint8_t *data, size_t size, size_t *ret_want)
{
	size_t at = 0;
	bool segments = t->segments;

	*ret_want = 0;
	while (at < size) {
		struct frame_header h;
		int r = frame_header_read(data + at, size - at, &h);

		*ret_want = FRAME_HEADER_SIZE;
		if (r == CQL_INCOMPLETE)
			break;
		if (r < 0)
			return -EPROTO;
		*ret_want = FRAME_HEADER_SIZE + (size_t)h.length;
		if (size - at < *ret_want)
			break;
		r = one_answer(t, &h, span_of(data + at + FRAME_HEADER_SIZE, h.length));
		if (r < 0)
			return r;
		if (t->freeing || t->state == TARGET_DOWN)
			return -ECANCELED; /* the last record of a worker that stops: the buffer is gone */
		at += FRAME_HEADER_SIZE + h.length;
		*ret_want = 0;
		if (segments != t->segments)
			break;
	}
	return (ssize_t)at;
}

/* Takes segments off into t->plain, and envelopes out of that. */
static ssize_t segments(struct target *t, const uint8_t *data, size_t size, size_t *ret_want)
{
	size_t at = 0;

	*ret_want = 0;
	while (at < size) {
		struct segment seg;
		int r = segment_header_read(data + at, size - at, false, &seg);
		const uint8_t *payload;
		size_t payload_size, want;
		ssize_t used;

		*ret_want = SEGMENT_HEADER_PLAIN;
		if (r == CQL_INCOMPLETE)
			break;
		if (r < 0)
			return -EPROTO;
		*ret_want = seg.wire_size;
		if (size - at < seg.wire_size)
			break;
		if (segment_payload_check(data + at, &seg) < 0)
			return -EPROTO;
		payload = data + at + seg.header_size;
		payload_size = seg.payload_size;
		if (t->plain.have) {
			if (t->plain.capacity - t->plain.have < payload_size) {
				uint8_t *bigger = realloc(t->plain.data, t->plain.have + payload_size);

				if (!bigger)
					return -ENOMEM;
				t->plain.data = bigger;
				t->plain.capacity = t->plain.have + payload_size;
			}
			memcpy(t->plain.data + t->plain.have, payload, payload_size);
			t->plain.have += payload_size;
			payload = t->plain.data;
			payload_size = t->plain.have;
		}
		used = envelopes(t, payload, payload_size, &want);
		if (used < 0)
			return used;
		if (input_keep(&t->plain, payload + used, payload_size - (size_t)used, want) < 0)
			return -ENOMEM;
		at += seg.wire_size;
		*ret_want = 0;
	}
	return (ssize_t)at;
}

static void on_readable(struct conn *c)
{
	struct target *t = c->owner;
	struct worker *w = t->dispatch->worker;
	uint8_t *data = t->in.data ? t->in.data : w->rx;
	size_t have = t->in.data ? t->in.have : 0, room = t->in.data ? t->in.capacity : WORKER_RX, want = 0, at = 0;
	ssize_t n, used;

	MAGIC_CHECK(t, TARGET_MAGIC);
	n = conn_recv(c, data + have, room - have);
	if (n == -EAGAIN)
		return;
	w->turn_ns = clock_now_ns();
	if (n <= 0) {
		lost(t, (int)n);
		return;
	}
	have += (size_t)n;
	if (t->in.data)
		t->in.have = have;
	t->last_answer_ns = w->turn_ns;
	if (!t->segments) {
		used = envelopes(t, data, have, &want);
		if (used < 0) {
			lost(t, (int)used);
			return;
		}
		at = (size_t)used;
	}
	if (t->segments && at < have) {
		used = segments(t, data + at, have - at, &want);
		if (used < 0) {
			lost(t, (int)used);
			return;
		}
		at += (size_t)used;
	}
	if (input_keep(&t->in, data + at, have - at, want) < 0) {
		lost(t, -ENOMEM);
		return;
	}
	dispatch_pump(t->dispatch);
	dispatch_flush(t->dispatch);
}

static void on_drained(struct conn *c)
{
	struct target *t = c->owner;

	dispatch_pump(t->dispatch);
	dispatch_flush(t->dispatch);
}

static void on_failed(struct conn *c, int error)
{
	struct target *t = c->owner;

	MAGIC_CHECK(t, TARGET_MAGIC);
	t->dispatch->worker->turn_ns = clock_now_ns();
	lost(t, error);
}

static void release(struct target *t)
{
	free(t->out);
	t->magic = 0;
	free(t);
}

static void on_closed(struct conn *c)
{
	struct target *t = c->owner;

	MAGIC_CHECK(t, TARGET_MAGIC);
	t->conn_live = false;
	if (t->freeing)
		release(t);
}

static const struct conn_ops ops = {
	.readable = on_readable, .drained = on_drained, .failed = on_failed, .closed = on_closed};

static void on_dialled(void *context, int fd)
{
	struct target *t = context;
	struct worker *w = t->dispatch->worker;

	t->dial = NULL;
	w->turn_ns = clock_now_ns();
	if (fd >= 0 && conn_init(&t->conn, &w->loop, stream_plain(fd), &ops, t) < 0) {
		close(fd);
		fd = -ENOMEM;
	}
	if (fd < 0) {
		lost(t, fd);
		return;
	}
	t->conn_live = true;
	t->last_answer_ns = w->turn_ns;
	conn_read(&t->conn, true);
	send_startup(t);
}

static void ping(struct target *t)
{
	int stream = take_stream(t, STREAM_PING, NULL);
	uint8_t *to;

	if (stream < 0)
		return;
	to = reserve(t, 64);
	commit(t, request_write_options(t->version, (int16_t)stream, to, 64));
	target_flush(t);
}

void target_tick(struct target *t, uint64_t now_ns)
{
	struct worker *w = t->dispatch->worker;

	if (t->state == TARGET_DOWN && !t->conn_live && now_ns >= t->next_dial_ns) {
		if (!t->out)
			t->out = malloc(OUT_SIZE);
		if (!t->out)
			return;
		t->state = TARGET_DIALING;
		t->dial = dial_start(&w->loop, address_of(t), w->relay->options.mark, w->relay->options.dial_timeout_ms,
				     on_dialled, t);
		if (!t->dial)
			lost(t, -ENOMEM);
	} else if (t->conn_live && t->state != TARGET_DOWN) {
		bool waits = t->state != TARGET_UP || t->free_count < STREAMS;

		if (waits && now_ns > t->last_answer_ns + ANSWER_TIMEOUT_NS)
			lost(t, -ETIMEDOUT);
		else if (t->state == TARGET_UP && !waits && now_ns > t->last_send_ns + PING_NS)
			ping(t);
		else if (!waits)
			t->last_answer_ns = now_ns; /* the clock runs from the next request on */
	}
}

void target_free(struct target *t)
{
	if (!t)
		return;
	t->freeing = true;
	if (t->state != TARGET_DOWN)
		lost(t, -ECANCELED);
	t->state = TARGET_CLOSED;
	if (!t->conn_live)
		release(t);
}
