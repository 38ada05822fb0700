/* SPDX-License-Identifier: Apache-2.0 */
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
#include "cql/scope.h"
#include "cql/segment.h"
#include "mirror/target_priv.h"
#include "relay/envelope.h"
#include "relay/session.h"

static const struct cluster *cluster_of(const struct target *t)
{
	return &t->dispatch->mirror->relay->options.cluster[t->dispatch->side];
}

struct target *target_new(struct dispatch *d, unsigned node)
{
	struct target *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->magic = TARGET_MAGIC;
	t->dispatch = d;
	t->node = node;
	t->version = d->mirror->options.highest[d->side] ? d->mirror->options.highest[d->side] : 5;
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

bool target_among(const struct target *t, uint64_t nodes)
{
	return t->itself && (nodes >> t->node & 1);
}

/* ---- losing and finding the node */

static void lost_because(struct target *t, const char *reason)
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
			 addr_format(&t->address, text), reason);
		t->warned = true;
	}
	t->state = t->freeing ? TARGET_CLOSED : TARGET_DOWN;
	t->next_dial_ns = clock_now_ns() + (uint64_t)t->backoff_ms * 1000000u;
	t->backoff_ms = t->backoff_ms * 2 < BACKOFF_MAX_MS ? t->backoff_ms * 2 : BACKOFF_MAX_MS;
	reach_cancel(t->dial);
	t->dial = NULL;
	if (t->conn_live)
		conn_close(&t->conn);
	input_done(&t->in);
	input_done(&t->plain);
	t->out_size = 0;
	t->segment_at = SIZE_MAX;
	t->segments = t->binding = false;
	t->keyspace[0] = t->refused[0] = 0;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream_slot slot = t->stream[i];

		if (slot.kind == STREAM_FREE)
			continue;
		target_give_stream(t, i);
		if (slot.kind == STREAM_RECORD) {
			dispatch_failed(d, slot.record, -ECONNRESET);
		} else if (slot.kind == STREAM_PREPARE || (slot.kind == STREAM_USE && slot.prepared)) {
			dispatch_prepared(d, slot.prepared, -ECONNRESET);
			prepared_put(slot.prepared);
		}
	}
}

static void lost(struct target *t, int error)
{
	const char *reason = t->conn_live && !t->conn.closing ? stream_reason(&t->conn.stream) : NULL;

	lost_because(t, reason ? reason : error ? strerror(-error) : "connection closed");
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
		log_info("mirror", "%s %s is back", side_name(d->side), addr_format(&t->address, text));
	t->warned = false;
	if (t->repeat)
		dispatch_repeat(d);
	t->repeat = false;
	dispatch_pump(d);
}

/* `state`: TARGET_MECHANISM (DSE's authenticator wants that first) or TARGET_AUTH. */
static int send_credentials(struct target *t, enum target_state state)
{
	uint8_t token[512], envelope[700];
	const struct cluster *c = cluster_of(t);
	ssize_t n = sasl_plain(c->username, c->password, token, sizeof(token));

	if (n < 0 || !c->username[0]) {
		log_error("mirror", "%s wants a user name and password; set %s.username and %s.password", side_name(t->dispatch->side),
			  side_name(t->dispatch->side), side_name(t->dispatch->side));
		return -EACCES;
	}
	n = request_write_auth(t->version, 0, state == TARGET_MECHANISM ? span_text("PLAIN") : span_of(token, (size_t)n), envelope,
			       sizeof(envelope));
	explicit_bzero(token, sizeof(token));
	if (n < 0)
		return -EACCES;
	envelope_send(&t->conn, t->segments, /* lz4= */ false, envelope, (size_t)n);
	explicit_bzero(envelope, sizeof(envelope));
	t->state = state;
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
			  side_name(t->dispatch->side), addr_format(&t->address, text),
			  (int)(error.message.size < 160 ? error.message.size : 160), (const char *)error.message.data,
			  side_name(t->dispatch->side), side_name(t->dispatch->side));
		t->warned = true;
		return -EACCES;
	}
	if (t->state == TARGET_STARTUP) {
		t->segments = t->version >= 5;
		if (h->opcode == OP_AUTHENTICATE)
			return send_credentials(t, authenticate_wants_mechanism(body) ? TARGET_MECHANISM : TARGET_AUTH);
		if (h->opcode != OP_READY)
			return -EPROTO;
	} else if (t->state == TARGET_MECHANISM && h->opcode == OP_AUTH_CHALLENGE) {
		return send_credentials(t, TARGET_AUTH);
	} else if (h->opcode != OP_AUTH_SUCCESS) {
		return -EPROTO;
	}
	up(t);
	return 0;
}

/* The statement that the other cluster means by an id of its own. */
static struct prepared_slot *slot_of(struct target *t, const struct record *r, struct span id)
{
	const struct dispatch *d = t->dispatch;
	struct request q;
	struct batch_child child;

	if (r->slot)
		return r->slot;
	if (r->opcode != OP_BATCH || request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return NULL;
	while (batch_next(q.version, &q.batch_children, &child) > 0) {
		struct prepared_slot *slot = child.prepared ? prepared_find(d->worker->prepared, child.text) : NULL;
		const struct prepared_remote *there = slot ? prepared_on(slot->prepared, d->side) : NULL;

		if (there && span_equal(span_of(there->id, there->id_size), id))
			return slot;
	}
	return scope_renames(d->mirror->relay->options.scope) ? NULL : prepared_find(d->worker->prepared, id);
}

/* The schema is another one: the keyspace that was missing may be there. */
static void forget_refused(struct dispatch *d)
{
	for (unsigned i = 0; i < d->target_count; i++)
		d->targets[i]->refused[0] = 0;
}

static void record_answered(struct target *t, struct record *r, const struct frame_header *h, struct span body)
{
	struct response_error error = {.code = CQL_SERVER_ERROR};
	struct prepared_slot *slot;
	int e;

	if (h->opcode == OP_RESULT) {
		if (r->statement == STATEMENT_SCHEMA)
			forget_refused(t->dispatch);
		dispatch_applied(t->dispatch, r);
		return;
	}
	if (h->opcode != OP_ERROR || response_error_parse(body, &error) < 0) {
		dispatch_failed(t->dispatch, r, CQL_SERVER_ERROR);
		return;
	}
	if (error.code == CQL_UNPREPARED) {
		/* This node has forgotten it (restart, eviction), or never heard of it. */
		slot = slot_of(t, r, error.unprepared_id);
		e = slot ? target_prepare(t, slot->prepared) : -ENOENT;
		if (e == 0) {
			dispatch_park(t->dispatch, r);
			return;
		}
		if (e > 0 && error_write_outcome(e, false) == WRITE_REFUSED)
			error.code = e;
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

/* The connection is bound to the keyspace now, or cannot be. `p`: what was to be prepared in it, NULL = a record waits in the queue. */
static void use_answered(struct target *t, struct prepared *p, const struct frame_header *h, struct span body)
{
	struct response_error error = {.code = CQL_SERVER_ERROR};

	t->binding = false;
	if (h->opcode == OP_RESULT) {
		if (p && target_prepare(t, p) != 0)
			dispatch_prepared(t->dispatch, p, 0);
		prepared_put(p);
		return;
	}
	if (h->opcode == OP_ERROR)
		response_error_parse(body, &error);
	memcpy(t->refused, t->keyspace, sizeof(t->refused));
	t->refused_ns = t->dispatch->worker->turn_ns;
	/* 0 would say that it is bound: a server error is only another reason to try again later. */
	t->refused_code = error.code > 0 ? error.code : CQL_OVERLOADED;
	/* Whether it is still bound to the former one is the server's business: it is asked for anew. */
	t->keyspace[0] = 0;
	if (p)
		dispatch_prepared(t->dispatch, p, t->refused_code);
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
	target_give_stream(t, (unsigned)h->stream);
	switch (slot.kind) {
	case STREAM_RECORD:
		record_answered(t, slot.record, h, body);
		break;
	case STREAM_PREPARE:
		prepare_answered(t, slot.prepared, h, body);
		break;
	case STREAM_USE:
		use_answered(t, slot.prepared, h, body);
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

static void on_dialled(void *context, struct dial_result *result, const struct addr *address)
{
	struct target *t = context;
	struct worker *w = t->dispatch->worker;

	t->dial = NULL;
	t->address = *address;
	t->itself = addr_equal(address, &cluster_of(t)->nodes[t->node]);
	w->turn_ns = clock_now_ns();
	if (result->error == 0 && conn_init(&t->conn, &w->loop, result->stream, &ops, t) < 0) {
		stream_close(&result->stream);
		*result = (struct dial_result){.error = -ENOMEM, .reason = "out of memory"};
	}
	if (result->error < 0) {
		lost_because(t, result->reason);
		return;
	}
	t->conn_live = true;
	t->last_answer_ns = w->turn_ns;
	conn_read(&t->conn, true);
	send_startup(t);
}

static void ping(struct target *t)
{
	int stream = target_take_stream(t, STREAM_PING, NULL);
	uint8_t *to;

	if (stream < 0)
		return;
	to = target_reserve(t, 64);
	target_commit(t, request_write_options(t->version, (int16_t)stream, to, 64));
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
		const struct cluster *c = cluster_of(t);
		struct reach_want want = {.side = t->dispatch->side, .turn = t->node};

		if (!c->sni)
			want.replica = c->nodes[t->node];
		t->address = want.replica;
		t->state = TARGET_DIALING;
		t->dial = reach_dial(w->reach, &want, on_dialled, t);
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
