/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cluster's bytes → answers → the client.
 *
 *   header ─▶ whose answer is it? ─▶ how much of the body must be seen? ─▶ learn (outcome, prepared id, keyspace, topology)
 *                                    nothing: it streams                 ─▶ emit, changed where it must be
 *
 * Most answers are never looked into: their bytes go on as they come, however large they are. What must be seen is a few
 * bytes of a page's head, the code of an error to a write, and the whole of a PREPARED.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cql/compress.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/segment.h"
#include "relay/analyse.h"
#include "relay/paging.h"
#include "relay/session.h"
#include "relay/tap.h"
#include "relay/topology.h"

#define WHOLE_MAX (16u << 20)      /* larger answers stream, whatever they are; none that matters is so large */
#define PAGE_HEAD_MAX (64u << 10)  /* a page's head: flags, count, paging state */

/* What has to be done with one answer. */
struct answer {
	struct upstream *u;
	struct frame_header h;
	struct inflight *e;   /* NULL: an event, or nobody's */
	struct span body;     /* as far as it is there; plain */
	bool compressed;      /* body was decompressed: what goes on is the received bytes, unless changed */
	bool drop;            /* not for the client */
	bool changed;
	size_t change_at, change_remove;
	uint8_t insert[4 + PAGING_TAG_SIZE + 2 + PREPARED_ID_MAX];
	size_t insert_size;
};

/* Whether an answer has to be looked into at all. Its body may be empty (READY). */
static bool interesting(const struct upstream *u, const struct frame_header *h, const struct inflight *e)
{
	if (u->state == UP_REPLAY || h->opcode == OP_EVENT)
		return true;
	if (!e)
		return false;
	switch (e->kind) {
	case REQUEST_WRITE:
		return h->opcode == OP_ERROR;
	case REQUEST_PREPARE:
	case REQUEST_USE:
	case REQUEST_TOPOLOGY:
	case REQUEST_STARTUP:
	case REQUEST_AUTH:
		return true;
	default:
		return (h->opcode == OP_ERROR && e->slot) || (h->opcode == OP_RESULT && e->paged && u->side == TARGET);
	}
}

/* How many bytes of the body must be there before an interesting answer can be judged. */
static size_t needed(const struct frame_header *h, const struct inflight *e)
{
	/* Of a page only the head matters, and pages are large. */
	if (h->opcode == OP_RESULT && e && e->kind <= REQUEST_WRITE && !(h->flags & FRAME_COMPRESSED))
		return h->length < PAGE_HEAD_MAX ? h->length : PAGE_HEAD_MAX;
	return h->length <= WHOLE_MAX ? h->length : 0;
}

void session_unmirrored(struct session *s, struct inflight *e)
{
	static const enum metric metric[] = {
		[UNMIRRORED_LWT] = METRIC_UNMIRRORED_LWT,
		[UNMIRRORED_COUNTER] = METRIC_UNMIRRORED_COUNTER,
		[UNMIRRORED_LIST] = METRIC_UNMIRRORED_LIST,
		[UNMIRRORED_FUNCTION] = METRIC_UNMIRRORED_FUNCTION,
		[UNMIRRORED_UNCLASSIFIED] = METRIC_UNMIRRORED_UNCLASSIFIED,
		[UNMIRRORED_POLICY] = METRIC_UNMIRRORED_POLICY,
	};

	if (e->unmirrored == MIRRORABLE)
		return;
	metric_add(s->worker->metrics, metric[e->unmirrored], 1);
	gap_note(s->worker->gap, gap_cause_of(e->unmirrored), side_other(e->side), e->gap,
		 e->sent_ns ? (int64_t)(clock_now_ns() - e->sent_ns) / 1000 : 0);
	e->unmirrored = MIRRORABLE;
}

/* Applied, refused, or unknown. */
static void write_answered(struct session *s, struct answer *a, struct span body)
{
	struct inflight *e = a->e;
	struct worker *w = s->worker;
	enum write_outcome outcome = WRITE_APPLIED;

	if (a->h.opcode == OP_ERROR) {
		struct response_error error;

		outcome = response_error_parse(body, &error) == 0 ? error_write_outcome(error.code) : WRITE_UNKNOWN;
	} else if (a->h.opcode != OP_RESULT) {
		outcome = WRITE_UNKNOWN;
	}
	histogram_record(w->metrics, HISTOGRAM_ORIGIN_WRITE, (w->turn_ns - e->sent_ns) / 1000);
	if (e->record) {
		w->relay->tap->outcome(w->tap, e->record, outcome);
		e->record = NULL;
	} else if (outcome == WRITE_APPLIED || outcome == WRITE_UNKNOWN) {
		session_unmirrored(s, e);
	}
	e->unmirrored = MIRRORABLE;
}

static void prepare_answered(struct session *s, const struct answer *a, struct span body)
{
	struct prepared_result result;
	const struct pending_prepare *p = a->e->prepare;

	if (a->h.opcode != OP_RESULT || result_prepared_parse(s->version, body, &result) < 0)
		return;
	prepared_map_learn(s->worker->relay->prepared, a->u->side, s->version, span_of(p->text, p->size), p->keyspace,
			   &result);
}

/* The client must hear of the id that it sent, not of this side's. */
static void translate_unprepared(struct answer *a, struct span body)
{
	const struct prepared_remote *r = prepared_on(a->e->slot->prepared, a->u->side);
	struct span asked = prepared_slot_id(a->e->slot);
	struct response_error error;

	if (!r || response_error_parse(body, &error) < 0 || error.code != CQL_UNPREPARED)
		return;
	if (!span_equal(error.unprepared_id, span_of(r->id, r->id_size)) || span_equal(error.unprepared_id, asked))
		return;
	a->changed = true;
	a->change_at = (size_t)(error.unprepared_id.data - a->body.data) - 2;
	a->change_remove = 2 + error.unprepared_id.size;
	a->insert[0] = 0;
	a->insert[1] = (uint8_t)asked.size;
	memcpy(a->insert + 2, asked.data, asked.size);
	a->insert_size = 2u + asked.size;
}

/* Pages of the target carry the tag that brings the next request back to it. 1 = more bytes are needed. */
static int tag_page(struct session *s, struct answer *a, struct span body, size_t skipped)
{
	struct rows_head head;
	uint32_t size;
	int r;

	if (result_kind(body) != RESULT_ROWS)
		return 0;
	r = rows_head_parse(s->version, body, &head);
	if (r == CQL_INCOMPLETE)
		return a->body.size < a->h.length ? 1 : 0;
	if (r < 0 || !(head.flags & ROWS_MORE_PAGES) || head.paging_state.data == NULL)
		return 0;
	size = (uint32_t)head.paging_state.size + PAGING_TAG_SIZE;
	a->changed = true;
	a->change_at = skipped + head.paging_at;
	a->change_remove = 4;
	a->insert[0] = (uint8_t)(size >> 24);
	a->insert[1] = (uint8_t)(size >> 16);
	a->insert[2] = (uint8_t)(size >> 8);
	a->insert[3] = (uint8_t)size;
	memcpy(a->insert + 4, PAGING_TAG, PAGING_TAG_SIZE);
	a->insert_size = 4 + PAGING_TAG_SIZE;
	return 0;
}

/* Before cutover the origin's events, afterwards the target's: all, or schema changes only while the topology is frozen. */
static bool event_passes(const struct session *s, const struct upstream *u, struct span body)
{
	static const uint8_t schema[] = {0, 13, 'S', 'C', 'H', 'E', 'M', 'A', '_', 'C', 'H', 'A', 'N', 'G', 'E'};
	const struct course *course = &s->worker->course;

	if (u->side != s->primary)
		return false;
	if (u->side == ORIGIN || course->finished || !course->frozen)
		return true;
	return body.size >= sizeof(schema) && memcmp(body.data, schema, sizeof(schema)) == 0;
}

static void handshake_answered(struct session *s, const struct answer *a)
{
	if (s->state == SESSION_HANDSHAKE) /* STARTUP, or a statement right behind AUTH_RESPONSE */
		s->stalled = false;
	/* An answer to an AUTH_RESPONSE that came too late, or to an orphan's, changes nothing. */
	if (s->state == SESSION_HANDSHAKE && (a->h.opcode == OP_READY || a->h.opcode == OP_AUTH_SUCCESS))
		session_set_state(s, SESSION_OPEN);
}

static void keyspace_answered(struct session *s, const struct answer *a, struct span body)
{
	struct span name;
	enum side other = side_other(a->u->side);

	if (a->h.opcode != OP_RESULT || result_kind(body) != RESULT_SET_KEYSPACE || result_set_keyspace(body, &name) < 0)
		return;
	snprintf(s->keyspace, sizeof(s->keyspace), "%.*s", (int)name.size, (const char *)name.data);
	/* The other side follows when it is opened again. */
	if (s->up[other].state != UP_ABSENT && s->up[other].inflight == 0)
		upstream_close(&s->up[other]);
}

/* Looks at one answer. 0, 1 = more of the body is needed, CQL_MALFORMED. */
static int judge(struct answer *a)
{
	struct upstream *u = a->u;
	struct session *s = u->session;
	struct span body = a->body;
	int64_t skipped = 0;

	if (a->h.opcode == OP_EVENT) {
		a->drop = u->state == UP_REPLAY || !event_passes(s, u, body);
		return 0;
	}
	if (u->state == UP_REPLAY) {
		a->drop = true;
		return replay_answer(u, a->h.opcode, a->h.flags, body) < 0 ? -EACCES : 0;
	}
	/* READY that nobody of the client's waits for: the agent's own REGISTER. */
	if (a->h.opcode == OP_READY && (!a->e || (a->e->kind != REQUEST_STARTUP && a->e->kind != REQUEST_REGISTER))) {
		a->drop = true;
		a->e = NULL;
		return 0;
	}
	/* Nobody's answer: the client may wait for another one under that id. Errors before the handshake's end have stream 0. */
	if (!a->e && (a->h.opcode != OP_ERROR || u->side != s->primary)) {
		a->drop = true;
		return 0;
	}
	if (!interesting(u, &a->h, a->e)) {
		if (a->e && a->e->kind == REQUEST_WRITE)
			write_answered(s, a, span_of(NULL, 0));
		return 0;
	}
	/* Too large to be looked into: none that matters is. */
	if (a->h.length > 0 && a->body.size == 0)
		return 0;
	skipped = response_prefix(a->h.flags, body);
	if (skipped == CQL_INCOMPLETE)
		return body.size < a->h.length ? 1 : CQL_MALFORMED;
	if (skipped < 0)
		return CQL_MALFORMED;
	body = span_of(body.data + skipped, body.size - (size_t)skipped);
	switch (a->e->kind) {
	case REQUEST_WRITE:
		write_answered(s, a, body);
		break;
	case REQUEST_PREPARE:
		prepare_answered(s, a, body);
		break;
	case REQUEST_USE:
		keyspace_answered(s, a, body);
		break;
	case REQUEST_TOPOLOGY:
		if (a->h.opcode == OP_RESULT && u->side == ORIGIN && !(a->h.flags & ~FRAME_COMPRESSED) &&
		    (a->compressed || a->body.size == a->h.length))
			topology_store_put(s->worker->relay->topology, a->e->topology, a->body);
		break;
	case REQUEST_STARTUP:
	case REQUEST_AUTH:
		handshake_answered(s, a);
		break;
	default:
		if (a->h.opcode == OP_RESULT)
			return tag_page(s, a, body, (size_t)skipped);
		break;
	}
	if (a->h.opcode == OP_ERROR && a->e->slot)
		translate_unprepared(a, body);
	return 0;
}

/* The body's last byte has gone on: the request is over. */
static void body_over(struct upstream *u)
{
	struct session *s = u->session;

	s->streaming = -1;
	u->discard = false;
	if (u->ends_request) {
		u->ends_request = false;
		session_request_done(s, u->passing_stream);
	}
	if (s->deferred && !s->segments) { /* segments: at the segment's end */
		emit_flush(session_emit(s, EMIT_CLIENT));
		session_say_deferred(s);
	}
	upstream_update_reading(&s->up[side_other(u->side)]);
}

static void emit_answer_start(struct answer *a, const uint8_t *received, size_t there, size_t *ret_used)
{
	struct upstream *u = a->u;
	struct session *s = u->session;
	struct emit *e = session_emit(s, EMIT_CLIENT);
	struct frame_header h = a->h;
	uint8_t header[FRAME_HEADER_SIZE];

	emit_envelope_begin(e, FRAME_HEADER_SIZE + (a->h.length < SEGMENT_PAYLOAD_MAX ? a->h.length : SEGMENT_PAYLOAD_MAX) + a->insert_size,
			    a->changed);
	if (!a->changed) {
		emit_bytes(e, received, FRAME_HEADER_SIZE + there);
		*ret_used = FRAME_HEADER_SIZE + there;
		return;
	}
	if (a->compressed) {
		h.flags &= (uint8_t)~FRAME_COMPRESSED;
		h.length = (uint32_t)a->body.size;
	}
	h.length = (uint32_t)(h.length - a->change_remove + a->insert_size);
	frame_header_write(header, &h);
	emit_copy(e, header, sizeof(header));
	emit_bytes(e, a->body.data, a->change_at);
	emit_copy(e, a->insert, a->insert_size);
	if (a->compressed) {
		size_t rest = a->change_at + a->change_remove;

		emit_bytes(e, a->body.data + rest, a->body.size - rest);
		emit_flush(e);
		*ret_used = FRAME_HEADER_SIZE + a->h.length;
		return;
	}
	*ret_used = FRAME_HEADER_SIZE + a->change_at + a->change_remove;
}

/* v3/v4: a compressed body that must be seen. */
static int decompress(struct answer *a)
{
	struct session *s = a->u->session;
	int64_t plain = body_plain_size(s->compression, a->body, WHOLE_MAX * 4);
	uint8_t *to = plain >= 0 ? worker_plain(s->worker, (size_t)plain) : NULL;

	if (!to || body_decompress(s->compression, a->body, to, (size_t)plain) < 0)
		return CQL_MALFORMED;
	a->body = span_of(to, (size_t)plain);
	a->compressed = true;
	return 0;
}

static void switch_framing(struct session *s, struct upstream *u)
{
	if (s->version < 5)
		return;
	emit_flush(session_emit(s, EMIT_CLIENT));
	s->segments = true;
	u->segments = true;
	emit_begin(session_emit(s, EMIT_CLIENT), s->client_live ? &s->client : NULL, true, s->compression == COMPRESSION_LZ4);
}

/*
 * One answer's beginning at data[0 … size−1]. Returns bytes used; 0 = not enough yet (*ret_want says how much is);
 * negative = malformed.
 */
static ssize_t answer_start(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	struct answer a = {.u = u};
	size_t need, used, there;
	bool startup;
	int r;

	*ret_want = FRAME_HEADER_SIZE;
	r = frame_header_read(data, size, &a.h);
	if (r == CQL_INCOMPLETE)
		return 0;
	if (r < 0 || !a.h.response)
		return CQL_MALFORMED;
	a.e = a.h.opcode == OP_EVENT ? NULL : inflight_find(&s->inflight, a.h.stream);
	if (a.e && a.e->side != (uint8_t)u->side)
		a.e = NULL;
	if (s->streaming < 0 || s->streaming == (int)u->side) {
		/* ours */
	} else {
		*ret_want = 0; /* wait until the other side's answer is through */
		u->blocked = true;
		return 0;
	}
	need = interesting(u, &a.h, a.e) ? needed(&a.h, a.e) : 0;
	*ret_want = FRAME_HEADER_SIZE + need;
	if (size < *ret_want)
		return 0;
	there = size - FRAME_HEADER_SIZE < a.h.length ? size - FRAME_HEADER_SIZE : a.h.length;
	a.body = span_of(data + FRAME_HEADER_SIZE, there);
	if (need && (a.h.flags & FRAME_COMPRESSED) && s->version < 5 && a.h.length && decompress(&a) < 0)
		return CQL_MALFORMED;
	startup = a.e && a.e->kind == REQUEST_STARTUP && (a.h.opcode == OP_READY || a.h.opcode == OP_AUTHENTICATE);
	r = judge(&a);
	if (r == 1) {
		*ret_want = FRAME_HEADER_SIZE + a.h.length;
		return 0;
	}
	if (r == -EACCES) {
		/* The other side does not take this client: it goes, or, if it is the primary already, the session does. */
		if (u->side == s->primary) {
			session_close(s, CLOSE_SWITCH);
		} else {
			u->failed = true;
			upstream_close(u); /* whoever waits for it goes on when it is closed */
		}
		return (ssize_t)size;
	}
	if (r < 0)
		return CQL_MALFORMED;
	if (s->state == SESSION_CLOSING)
		return (ssize_t)size;
	u->passing_stream = a.h.stream;
	u->ends_request = a.e != NULL;
	u->discard = a.drop || !s->client_live || s->state == SESSION_ORPHAN;
	if (u->discard) {
		session_emit(s, EMIT_CLIENT)->touched = true;
		used = FRAME_HEADER_SIZE + there;
	} else {
		emit_answer_start(&a, data, there, &used);
	}
	u->passing = a.h.length - (used - FRAME_HEADER_SIZE);
	if (u->passing == 0) {
		emit_envelope_end(session_emit(s, EMIT_CLIENT));
		body_over(u);
	} else if (!u->discard) {
		s->streaming = (int)u->side;
	}
	if (startup)
		switch_framing(s, u);
	return (ssize_t)used;
}

/* Envelopes, whole or in parts. Returns bytes used; negative = malformed. */
static ssize_t answers(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	size_t at = 0;
	bool segments = u->segments;

	*ret_want = 0;
	while (at < size && s->state != SESSION_CLOSING && u->conn_live && !u->conn.closing) {
		if (u->passing) {
			size_t part = size - at < u->passing ? size - at : (size_t)u->passing;

			if (!u->discard)
				emit_bytes(session_emit(s, EMIT_CLIENT), data + at, part);
			at += part;
			u->passing -= part;
			if (u->passing == 0) {
				if (!u->discard)
					emit_envelope_end(session_emit(s, EMIT_CLIENT));
				body_over(u);
			}
			continue;
		}
		ssize_t used = answer_start(u, data + at, size - at, ret_want);

		if (used < 0)
			return used;
		if (used == 0)
			break;
		at += (size_t)used;
		*ret_want = 0;
		if (u->segments != segments)
			break; /* the handshake's end: what follows is framed */
	}
	return (ssize_t)at;
}

static ssize_t one_segment(struct upstream *u, const uint8_t *data, const struct segment *seg)
{
	struct session *s = u->session;
	struct emit *e = session_emit(s, EMIT_CLIENT);
	struct span payload = span_of(data + seg->header_size, seg->payload_size);
	size_t want;
	ssize_t used;
	uint8_t *plain = NULL;
	bool raw = true;

	if (segment_payload_check(data, seg) < 0)
		return CQL_MALFORMED;
	if (seg->plain_size) {
		plain = malloc(seg->plain_size);
		if (!plain || segment_decompress(payload.data, seg, plain) < 0) {
			free(plain);
			return CQL_MALFORMED;
		}
		payload = span_of(plain, seg->plain_size);
	}
	/* A large envelope whose head must be seen and does not fit: gathered whole first. */
	if (u->in_large.data) {
		if (payload.size > u->in_large.need - u->in_large.have) {
			/* Only a head was wanted, and more than that has come. */
			uint8_t *bigger = realloc(u->in_large.data, u->in_large.have + payload.size);

			if (!bigger) {
				free(plain);
				session_close(s, CLOSE_MEMORY);
				return seg->wire_size;
			}
			u->in_large.data = bigger;
			u->in_large.need = u->in_large.have + payload.size;
		}
		memcpy(u->in_large.data + u->in_large.have, payload.data, payload.size);
		u->in_large.have += payload.size;
		free(plain);
		if (u->in_large.have < u->in_large.need)
			return seg->wire_size;
		plain = u->in_large.data;
		payload = span_of(plain, u->in_large.need);
		u->in_large = (struct assembly){0};
		raw = false;
	}
	used = answers(u, payload.data, payload.size, &want);
	if (used >= 0 && s->state != SESSION_CLOSING && (size_t)used < payload.size) {
		if (seg->self_contained || used != 0 || want <= payload.size) {
			used = CQL_MALFORMED;
		} else {
			u->in_large.data = malloc(want);
			u->in_large.need = want;
			u->in_large.have = payload.size;
			if (u->in_large.data)
				memcpy(u->in_large.data, payload.data, payload.size);
			else
				session_close(s, CLOSE_MEMORY);
		}
	}
	if (used >= 0 && s->segments && e->conn)
		emit_segment(e, raw ? span_of(data, seg->wire_size) : span_of(NULL, 0), payload.size,
			     raw ? seg->self_contained : u->passing == 0 && payload.size <= SEGMENT_PAYLOAD_MAX);
	if (plain) {
		emit_flush(e);
		free(plain);
	}
	if (used >= 0 && s->deferred && s->streaming < 0 && s->state != SESSION_CLOSING) {
		emit_flush(e);
		session_say_deferred(s);
	}
	return used < 0 ? used : (ssize_t)seg->wire_size;
}

ssize_t responses_consume(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want)
{
	struct session *s = u->session;
	size_t at = 0;

	if (s->state == SESSION_OPAQUE) {
		emit_bytes(session_emit(s, EMIT_CLIENT), data, size);
		return (ssize_t)size;
	}
	if (!u->segments) {
		ssize_t used = answers(u, data, size, ret_want);

		if (used < 0 || !u->segments || s->state == SESSION_CLOSING)
			return used;
		at = (size_t)used;
	}
	bool lz4 = s->compression == COMPRESSION_LZ4;
	while (at < size && s->state != SESSION_CLOSING && u->conn_live && !u->conn.closing) {
		struct segment seg;
		int r;
		ssize_t used;

		if (s->streaming >= 0 && s->streaming != (int)u->side) {
			*ret_want = 0;
			u->blocked = true;
			break;
		}
		r = segment_header_read(data + at, size - at, lz4, &seg);
		if (r == CQL_MALFORMED)
			return r;
		if (r == CQL_INCOMPLETE) {
			*ret_want = lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
			break;
		}
		*ret_want = seg.wire_size;
		if (size - at < seg.wire_size)
			break;
		used = one_segment(u, data + at, &seg);
		if (used < 0)
			return used;
		at += seg.wire_size;
		*ret_want = 0;
	}
	return (ssize_t)at;
}
