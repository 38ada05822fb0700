/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client bytes → envelopes → the cluster that answers them.
 *
 *   bytes ─▶ [v5: segment, CRC, lz4] ─▶ envelope ─▶ what is it? (analyse.c) ─▶ where to? ─▶ tap: intent ─▶ emit
 *
 * An envelope that cannot go on now (upstream not ready, tap says wait) leaves everything as it was before it: the session is
 * stalled, the bytes stay, and session_resume() parses them again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/secret.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/segment.h"
#include "relay/analyse.h"
#include "relay/paging.h"
#include "relay/route.h"
#include "relay/session.h"
#include "relay/tap.h"
#include "relay/topology.h"

enum verdict { GONE_ON, STALLED, ENDED };

#define PROTOCOL_HIGHEST 5
#define PROTOCOL_LOWEST 3

static enum verdict refuse(struct session *s, int16_t stream, int32_t code, const char *text)
{
	uint8_t envelope[512];
	ssize_t n = response_write_error(s->version ? s->version : 4, stream, code, text, envelope, sizeof(envelope));

	if (n > 0)
		session_answer(s, envelope, (size_t)n);
	return GONE_ON;
}

/* What the client sent is no CQL, or not as the protocol has it: it is told, and that is the end. */
static enum verdict malformed(struct session *s, int16_t stream, const char *text)
{
	metric_add(s->worker->metrics, METRIC_BAD_FRAMES, 1);
	refuse(s, stream, CQL_PROTOCOL_ERROR, text);
	session_close(s, CLOSE_PROTOCOL);
	return ENDED;
}

static enum verdict refuse_unprepared(struct session *s, int16_t stream, struct span id)
{
	uint8_t envelope[PREPARED_ID_MAX + 512];
	ssize_t n = response_write_unprepared(s->version, stream, id, envelope, sizeof(envelope));

	metric_add(s->worker->metrics, METRIC_REFUSED_UNPREPARED, 1);
	if (n < 0)
		return malformed(s, stream, "Invalid prepared id");
	session_answer(s, envelope, (size_t)n);
	return GONE_ON;
}

static bool keep(struct span_owned *to, const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return false;
	memcpy(copy, data, size);
	if (to->data)
		explicit_bzero(to->data, to->size);
	free(to->data);
	to->data = copy;
	to->size = size;
	return true;
}

/* ---- what goes to an upstream */

static struct inflight *register_request(struct session *s, int16_t stream, enum request_kind kind, enum side side)
{
	bool duplicate;
	struct inflight *e = inflight_add(&s->inflight, stream, &duplicate);

	if (!e) {
		if (duplicate)
			malformed(s, stream, "Stream id is in use by another request of this connection");
		else
			session_close(s, CLOSE_MEMORY);
		return NULL;
	}
	e->kind = (uint8_t)kind;
	e->side = (uint8_t)side;
	s->up[side].inflight++;
	s->worker->inflight++;
	metric_add(s->worker->metrics, METRIC_REQUESTS_INFLIGHT, 1);
	if (kind == REQUEST_WRITE) {
		s->writes++;
		e->sent_ns = s->worker->turn_ns;
	}
	return e;
}

static void emit_plain(struct session *s, enum side side, const uint8_t *envelope, size_t size)
{
	struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);

	emit_envelope_begin(e, size, false);
	emit_bytes(e, envelope, size);
	emit_envelope_end(e);
}

/* Header and a body of the agent's own. */
static void emit_own(struct session *s, enum side side, const struct frame_header *h, const uint8_t *body, size_t size)
{
	struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);
	struct frame_header own = *h;
	uint8_t bytes[FRAME_HEADER_SIZE];

	own.flags &= (uint8_t)~FRAME_COMPRESSED;
	own.length = (uint32_t)size;
	frame_header_write(bytes, &own);
	emit_envelope_begin(e, size + sizeof(bytes), true);
	emit_copy(e, bytes, sizeof(bytes));
	emit_copy(e, body, size);
	emit_envelope_end(e);
}

/* ---- the handshake */

static enum verdict startup(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct span body = span_of(envelope + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE), name;

	if (h->flags & FRAME_COMPRESSED)
		return malformed(s, h->stream, "STARTUP must not be compressed");
	s->compression = COMPRESSION_NONE; /* a second try, after a refusal, may leave it out */
	if (startup_option(body, "COMPRESSION", &name)) {
		s->compression = compression_from_name(name);
		if (s->compression == COMPRESSION_SNAPPY && s->version >= 5)
			s->compression = COMPRESSION_NONE; /* the cluster refuses it in its own words */
	}
	if (!keep(&s->startup, body.data, body.size)) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	if (!register_request(s, h->stream, REQUEST_STARTUP, s->primary))
		return ENDED;
	emit_plain(s, s->primary, envelope, size);
	/* What follows is framed as the answer decides. */
	s->stalled = true;
	return GONE_ON;
}

/* In the configured mode the client shows the configured credentials, and the agent its own to the cluster. */
static enum verdict configured_token(struct session *s, const struct frame_header *h, struct span token)
{
	const struct relay_options *o = &s->worker->relay->options;
	uint8_t expected[512], mine[600];
	ssize_t n = sasl_plain(o->cluster[ORIGIN].username, o->cluster[ORIGIN].password, expected, sizeof(expected));
	bool same = false;

	if (n > 0 && token.size > 0) {
		/* The authorization id in front of the first NUL does not matter to a cluster either. */
		const uint8_t *nul = memchr(token.data, 0, token.size);

		if (nul) {
			size_t skip = (size_t)(nul - token.data);

			same = token.size - skip == (size_t)n && secret_equal(nul, expected, (size_t)n);
		}
	}
	explicit_bzero(expected, sizeof(expected));
	if (!same && !o->any_client)
		return refuse(s, h->stream, CQL_BAD_CREDENTIALS, "Provided username and/or password are incorrect");
	n = sasl_plain(o->cluster[s->primary].username, o->cluster[s->primary].password, expected, sizeof(expected));
	if (n > 0)
		n = request_write_auth(s->version, h->stream, span_of(expected, (size_t)n), mine, sizeof(mine));
	explicit_bzero(expected, sizeof(expected));
	if (n < 0)
		return refuse(s, h->stream, CQL_SERVER_ERROR, "cqlferry: the configured credentials are too long");
	if (!register_request(s, h->stream, REQUEST_AUTH, s->primary))
		return ENDED;
	emit_own(s, s->primary, h, mine + FRAME_HEADER_SIZE, (size_t)n - FRAME_HEADER_SIZE);
	explicit_bzero(mine, sizeof(mine));
	return GONE_ON;
}

static enum verdict auth_response(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct span body;
	int32_t n;

	if (plain_body(s, h, envelope, size, &body) < 0 || body.size < 4)
		return malformed(s, h->stream, "AUTH_RESPONSE is truncated");
	n = (int32_t)((uint32_t)body.data[0] << 24 | (uint32_t)body.data[1] << 16 | (uint32_t)body.data[2] << 8 | body.data[3]);
	if (n >= 0 && (size_t)n != body.size - 4)
		return malformed(s, h->stream, "AUTH_RESPONSE has a wrong length");
	struct span token = span_of(body.data + 4, n > 0 ? (size_t)n : 0);

	if (s->worker->relay->options.configured_auth)
		return configured_token(s, h, token);
	if (!keep(&s->token, token.data, token.size)) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	if (!register_request(s, h->stream, REQUEST_AUTH, s->primary))
		return ENDED;
	emit_plain(s, s->primary, envelope, size);
	return GONE_ON;
}

/* ---- statements */

/* The frozen topology answers from what the origin once said. False: ask the origin. */
static bool answer_topology(struct session *s, int16_t stream, const struct topology_question *q)
{
	uint8_t *body, *envelope;
	size_t size;

	if (!topology_store_get(s->worker->relay->topology, q, &body, &size))
		return false;
	envelope = malloc(FRAME_HEADER_SIZE + size);
	if (envelope) {
		struct frame_header h = {.version = s->version, .response = true, .stream = stream, .opcode = OP_RESULT,
					 .length = (uint32_t)size};

		frame_header_write(envelope, &h);
		memcpy(envelope + FRAME_HEADER_SIZE, body, size);
		session_answer(s, envelope, FRAME_HEADER_SIZE + size);
		free(envelope);
	}
	free(body);
	return envelope != NULL;
}

static enum verdict prepare(struct session *s, const struct frame_header *h, const struct analysis *a,
			    const uint8_t *envelope, size_t size, enum side side)
{
	const struct request *r = &a->request;
	struct pending_prepare *p = malloc(sizeof(*p) + r->text.size);
	struct inflight *e;

	if (!p) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	p->size = r->text.size;
	memcpy(p->text, r->text.data, r->text.size);
	snprintf(p->keyspace, sizeof(p->keyspace), "%.*s",
		 r->prepare_keyspace.size ? (int)r->prepare_keyspace.size : (int)strlen(s->keyspace),
		 r->prepare_keyspace.size ? (const char *)r->prepare_keyspace.data : s->keyspace);
	e = register_request(s, h->stream, REQUEST_PREPARE, side);
	if (!e) {
		free(p);
		return ENDED;
	}
	e->prepare = p;
	metric_add(s->worker->metrics, METRIC_REQUESTS_PREPARE, 1);
	emit_plain(s, side, envelope, size);
	return GONE_ON;
}

/* What the ledger will call the tables of a write that is not mirrored. */
static uint16_t tables_cell(struct session *s, const struct analysis *a)
{
	struct span named = a->request.params.keyspace;
	char keyspace[CQL_NAME_MAX + 1];

	if (a->slot)
		return gap_cell(s->worker->gap, a->statement, a->slot->prepared->keyspace);
	if (!named.size)
		return gap_cell(s->worker->gap, a->statement, s->keyspace);
	snprintf(keyspace, sizeof(keyspace), "%.*s", (int)(named.size < sizeof(keyspace) ? named.size : sizeof(keyspace) - 1),
		 (const char *)named.data);
	return gap_cell(s->worker->gap, a->statement, keyspace);
}

/* A write while mirroring: the mirror hears of it before the cluster does. */
static enum verdict write_request(struct session *s, const struct frame_header *h, struct analysis *a,
				  const uint8_t *envelope, size_t size, enum side side)
{
	struct worker *w = s->worker;
	struct record *record = NULL;
	struct edit edits[REQUEST_EDITS_MAX];
	unsigned edit_count = 0;
	bool mirrored = w->course.mirroring && w->tap && a->unmirrored == MIRRORABLE;
	struct inflight *e;

	if (w->course.mirroring && a->statement->kind == STATEMENT_SCHEMA) {
		if (w->relay->options.ddl == RELAY_DDL_REFUSE) {
			metric_add(w->metrics, METRIC_REFUSED_POLICY, 1);
			return refuse(s, h->stream, CQL_INVALID,
				      "cqlferry: schema changes are refused while a migration runs (setting ddl: refuse)");
		}
		if (w->relay->options.ddl == RELAY_DDL_IGNORE) {
			a->unmirrored = UNMIRRORED_POLICY;
			mirrored = false;
		}
	}
	if (mirrored) {
		struct tap_write write = {.request = &a->request, .statement = a->statement, .slot = a->slot,
					  .keyspace = s->keyspace, .primary = side};
		int r;

		if (!(a->request.params.flags & QUERY_TIMESTAMP) && a->statement->kind != STATEMENT_SCHEMA &&
		    a->statement->kind != STATEMENT_TRUNCATE) {
			write.pinned = true;
			write.timestamp = worker_timestamp(w);
			edit_count = request_pin_timestamp(&a->request, write.timestamp, edits);
		}
		r = w->relay->tap->intent(w->tap, &write, &record);
		if (r == -EAGAIN) {
			s->stalled = true;
			return STALLED;
		}
	}
	e = register_request(s, h->stream, REQUEST_WRITE, side);
	if (!e) {
		if (record) /* never sent: as if the cluster had refused it */
			w->relay->tap->outcome(w->tap, record, WRITE_REFUSED);
		return ENDED;
	}
	e->record = record;
	e->unmirrored = (uint8_t)(w->course.mirroring && !mirrored ? a->unmirrored : MIRRORABLE);
	if (e->unmirrored)
		e->gap = tables_cell(s, a);
	if (a->slot)
		e->slot = prepared_use(a->slot);
	metric_add(w->metrics, METRIC_REQUESTS_WRITE, 1);
	route_emit(s, side, h, a, envelope, size, edits, edit_count);
	return GONE_ON;
}

static enum verdict read_request(struct session *s, const struct frame_header *h, struct analysis *a,
				 const uint8_t *envelope, size_t size, enum side side)
{
	struct worker *w = s->worker;
	enum request_kind kind = REQUEST_READ;
	struct topology_question *question = NULL;
	struct inflight *e;

	if (a->topology != TOPOLOGY_NONE && !w->course.finished && w->relay->options.freeze_topology) {
		struct span text = a->slot ? span_of(a->slot->prepared->text, a->slot->prepared->text_size) : a->request.text;

		question = topology_question_new(&s->destination, &a->request, text);
		if (question && w->course.frozen && answer_topology(s, h->stream, question)) {
			topology_question_free(question);
			return GONE_ON;
		}
		if (question)
			kind = REQUEST_TOPOLOGY;
	} else if (a->statement->kind == STATEMENT_USE) {
		kind = REQUEST_USE;
	}
	e = register_request(s, h->stream, kind, side);
	if (!e) {
		topology_question_free(question);
		return ENDED;
	}
	if (question)
		e->topology = question;
	e->paged = (a->request.params.flags & QUERY_PAGE_SIZE) != 0;
	if (a->slot)
		e->slot = prepared_use(a->slot);
	metric_add(w->metrics, METRIC_REQUESTS_READ, 1);
	route_emit(s, side, h, a, envelope, size, NULL, 0);
	return GONE_ON;
}

/* Which cluster answers: the primary, but a page sequence ends where it began, and the frozen topology is the origin's. */
static enum side choose_side(const struct session *s, const struct analysis *a)
{
	if (a->request.params.flags & QUERY_PAGING_STATE)
		return paging_is_target(a->request.params.paging_state) ? TARGET : ORIGIN;
	if (a->topology != TOPOLOGY_NONE && s->worker->course.frozen)
		return ORIGIN;
	return s->primary;
}

static enum verdict statement_request(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct worker *w = s->worker;
	struct analysis a;
	enum side side;
	int r = analyse(s, h, envelope, size, &a);

	if (r == CQL_MALFORMED)
		return malformed(s, h->stream, "The request's body is malformed");
	if (r == -ENOMEM) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	if (a.unknown_id.size) {
		metric_add(w->metrics, METRIC_PREPARED_MISSES, 1);
		/* Before mirroring begins nobody needs to know the statement: the cluster does. */
		if (w->course.mirroring || s->primary == TARGET)
			return refuse_unprepared(s, h->stream, a.unknown_id);
	}
	side = choose_side(s, &a);
	if (s->up[side].state != UP_READY) {
		/* Tried for this request already: it is told, and the next one tries again. */
		bool failed = side != s->primary && s->up[side].failed;

		s->up[side].failed = false;
		if (!failed)
			upstream_open(s, side, /* replay= */ true);
		if (s->state == SESSION_CLOSING)
			return ENDED;
		if (failed || (s->up[side].state == UP_ABSENT && !s->up[side].conn_live))
			return refuse(s, h->stream, CQL_SERVER_ERROR, "cqlferry: the cluster that this page belongs to cannot be reached");
		s->stalled = true;
		return STALLED;
	}
	if (a.slot && !a.unknown_id.size && !route_known(&a, side))
		return refuse_unprepared(s, h->stream, a.request.id);
	if (h->opcode == OP_PREPARE)
		return prepare(s, h, &a, envelope, size, side);
	if (statement_writes(a.statement) && !a.unknown_id.size)
		return write_request(s, h, &a, envelope, size, side);
	return read_request(s, h, &a, envelope, size, side);
}

static bool authenticating(struct session *s)
{
	const struct inflight *e;
	uint32_t at = 0;

	while ((e = inflight_each(&s->inflight, &at)))
		if (e->kind == REQUEST_AUTH)
			return true;
	return false;
}

static enum verdict one_envelope(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct worker *w = s->worker;
	struct inflight *e;
	struct span body;

	/* Each worker may use its share of the node's: nobody has to ask the others. */
	if (s->inflight.count >= w->relay->options.session_requests_max ||
	    w->inflight >= w->relay->options.requests_max / w->relay->options.workers) {
		metric_add(w->metrics, METRIC_REFUSED_OVERLOADED, 1);
		return refuse(s, h->stream, CQL_OVERLOADED,
			      "cqlferry: too many requests in flight (settings limits.sessionRequests and limits.requestsInFlight)");
	}
	switch (h->opcode) {
	case OP_QUERY:
	case OP_PREPARE:
	case OP_EXECUTE:
	case OP_BATCH:
		if (s->state == SESSION_OPEN)
			return statement_request(s, h, envelope, size);
		/* Right behind the AUTH_RESPONSE: the cluster may take it, and then it must not pass by the mirror. */
		if (authenticating(s)) {
			s->stalled = true;
			return STALLED;
		}
		break; /* before the handshake is over: the cluster says what it thinks of that */
	case OP_STARTUP:
		if (s->state == SESSION_HANDSHAKE)
			return startup(s, h, envelope, size);
		break;
	case OP_AUTH_RESPONSE:
		return auth_response(s, h, envelope, size);
	case OP_REGISTER:
		if (plain_body(s, h, envelope, size, &body) < 0)
			return malformed(s, h->stream, "REGISTER cannot be decompressed");
		if (!keep(&s->reg, body.data, body.size)) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
		break;
	case OP_OPTIONS:
		break;
	default:
		return malformed(s, h->stream, "Unknown or unexpected opcode");
	}
	if (s->up[s->primary].state != UP_READY) { /* a heartbeat in the middle of a switch */
		s->stalled = true;
		return STALLED;
	}
	e = register_request(s, h->stream, h->opcode == OP_REGISTER ? REQUEST_REGISTER : REQUEST_OTHER, s->primary);
	if (!e)
		return ENDED;
	metric_add(w->metrics, METRIC_REQUESTS_OTHER, 1);
	emit_plain(s, s->primary, envelope, size);
	return GONE_ON;
}

/* ---- the first bytes of a connection */

static enum verdict first_frame(struct session *s, const struct frame_header *h)
{
	uint8_t cap = atomic_load_explicit(&s->worker->relay->version_cap, memory_order_relaxed);
	uint8_t highest = cap && cap < PROTOCOL_HIGHEST ? cap : PROTOCOL_HIGHEST;

	if (h->response || (h->opcode != OP_OPTIONS && h->opcode != OP_STARTUP))
		return malformed(s, h->stream, "A connection begins with OPTIONS or STARTUP");
	if (h->version < PROTOCOL_LOWEST || h->version > highest || (h->flags & FRAME_BETA)) {
		uint8_t envelope[256];
		ssize_t n = response_write_version_error(h->version, highest, envelope, sizeof(envelope));

		if (n > 0)
			session_answer(s, envelope, (size_t)n);
		/* As a cluster does: the driver opens a new connection with a lower version. */
		session_close(s, CLOSE_PROTOCOL);
		return ENDED;
	}
	s->version = h->version;
	return GONE_ON;
}

static enum verdict dial_failed(struct session *s, const struct frame_header *h)
{
	char text[200], node[ADDR_TEXT_MAX];

	s->version = h->version >= PROTOCOL_LOWEST && h->version <= PROTOCOL_HIGHEST ? h->version : 4;
	snprintf(text, sizeof(text), "cqlferry cannot reach %s: %s", addr_format(&s->up[s->primary].address, node),
		 strerror(-s->dial_error));
	refuse(s, h->stream, CQL_SERVER_ERROR, text);
	session_close(s, CLOSE_DIAL);
	return ENDED;
}

/* Checks a header before its body is there. */
static enum verdict check_header(struct session *s, const struct frame_header *h, int parsed)
{
	char text[160];

	if (s->dial_error)
		return dial_failed(s, h);
	if (s->version == 0) {
		enum verdict v = first_frame(s, h);

		if (v != GONE_ON)
			return v;
	}
	if (h->response || h->version != s->version)
		return malformed(s, h->stream, "Frame of another protocol version or direction on this connection");
	if (parsed == CQL_MALFORMED || h->length > s->worker->relay->options.frame_max) {
		metric_add(s->worker->metrics, METRIC_REFUSED_TOO_LARGE, 1);
		snprintf(text, sizeof(text), "cqlferry: a request of %u bytes is over the limit of %u (setting limits.frameBytes)",
			 h->length, s->worker->relay->options.frame_max);
		refuse(s, h->stream, CQL_INVALID, text);
		session_close(s, CLOSE_PROTOCOL);
		return ENDED;
	}
	return GONE_ON;
}

/*
 * Whole envelopes out of plain bytes. Stops at an incomplete one, or when the session stalls or ends.
 * `wrapped`: they come from a v5 segment, where an incomplete envelope is an error.
 */
static enum verdict envelopes(struct session *s, const uint8_t *data, size_t size, bool wrapped, size_t *ret_used,
			      size_t *ret_want)
{
	size_t at = 0;

	*ret_used = 0;
	while (at < size) {
		struct frame_header h;
		int parsed = frame_header_read(data + at, size - at, &h);
		enum verdict v;

		*ret_want = FRAME_HEADER_SIZE;
		if (parsed == CQL_INCOMPLETE)
			return wrapped ? malformed(s, 0, "A segment ends inside an envelope") : GONE_ON;
		v = check_header(s, &h, parsed);
		if (v != GONE_ON)
			return v;
		*ret_want = FRAME_HEADER_SIZE + (size_t)h.length;
		if (size - at < *ret_want)
			return wrapped ? malformed(s, h.stream, "A segment ends inside an envelope") : GONE_ON;
		v = one_envelope(s, &h, data + at, FRAME_HEADER_SIZE + h.length);
		if (v != GONE_ON || s->state == SESSION_CLOSING)
			return v == GONE_ON ? ENDED : v;
		at += FRAME_HEADER_SIZE + h.length;
		*ret_used = at;
		*ret_want = 0;
		if (s->stalled)
			return STALLED;
	}
	return GONE_ON;
}

static void end_segment(struct session *s, struct span received, size_t payload)
{
	for (int side = 0; side < SIDES; side++) {
		struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);

		if (e->conn)
			emit_segment(e, received, payload, true);
	}
}

static void flush_upstreams(struct session *s)
{
	struct worker *w = s->worker;

	if (w->tap)
		w->relay->tap->flush(w->tap, TAP_INTENTS);
	for (int side = 0; side < SIDES; side++)
		emit_flush(session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET));
}

/* A part of an envelope that is larger than one segment. */
static enum verdict assemble(struct session *s, const uint8_t *payload, size_t size)
{
	struct assembly *a = &s->assembly;
	size_t used, want;
	enum verdict v;

	if (!a->data) {
		struct frame_header h;
		int parsed = frame_header_read(payload, size, &h);

		if (parsed == CQL_INCOMPLETE)
			return malformed(s, 0, "The first segment of a large envelope is shorter than a header");
		v = check_header(s, &h, parsed);
		if (v != GONE_ON)
			return v;
		a->need = FRAME_HEADER_SIZE + (size_t)h.length;
		a->have = 0;
		a->data = malloc(a->need);
		if (!a->data) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
	}
	if (size > a->need - a->have)
		return malformed(s, 0, "A large envelope's segments are longer than the envelope");
	memcpy(a->data + a->have, payload, size);
	a->have += size;
	if (a->have < a->need)
		return GONE_ON;
	v = envelopes(s, a->data, a->need, /* wrapped= */ true, &used, &want);
	if (v == ENDED)
		return v;
	if (used == 0) { /* stalled: it is parsed again from the tail */
		if (input_keep(&s->tail, a->data, a->need, a->need) < 0) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
	} else {
		end_segment(s, span_of(NULL, 0), 0);
		flush_upstreams(s);
	}
	free(a->data);
	*a = (struct assembly){0};
	return v;
}

static enum verdict one_segment(struct session *s, const uint8_t *data, const struct segment *seg)
{
	const uint8_t *payload = data + seg->header_size;
	size_t size = seg->payload_size, used, want;
	uint8_t *plain = NULL;
	enum verdict v;

	if (segment_payload_check(data, seg) < 0)
		return malformed(s, 0, "A segment's checksum (CRC32) does not match");
	if (seg->plain_size) {
		/* Not the worker's scratch: an envelope inside may need that for itself. */
		plain = malloc(seg->plain_size);
		if (!plain) {
			session_close(s, CLOSE_MEMORY);
			return ENDED;
		}
		if (segment_decompress(payload, seg, plain) < 0) {
			free(plain);
			return malformed(s, 0, "A segment cannot be decompressed");
		}
		payload = plain;
		size = seg->plain_size;
	}
	if (!seg->self_contained) {
		v = assemble(s, payload, size);
	} else {
		v = envelopes(s, payload, size, /* wrapped= */ true, &used, &want);
		if (v == STALLED && used < size && input_keep(&s->tail, payload + used, size - used, 0) < 0) {
			session_close(s, CLOSE_MEMORY);
			v = ENDED;
		}
		end_segment(s, used == size ? span_of(data, seg->wire_size) : span_of(NULL, 0), size);
	}
	if (plain) {
		flush_upstreams(s);
		free(plain);
	}
	return v;
}

/* Envelopes that were left over when parsing stopped inside a segment. False: it stopped again. */
static bool consume_tail(struct session *s)
{
	struct input tail = s->tail;
	size_t used = 0, want;
	enum verdict v;

	s->tail = (struct input){0};
	v = envelopes(s, tail.data, tail.have, /* wrapped= */ true, &used, &want);
	end_segment(s, span_of(NULL, 0), 0);
	flush_upstreams(s);
	if (v == STALLED && used < tail.have && input_keep(&s->tail, tail.data + used, tail.have - used, 0) < 0)
		session_close(s, CLOSE_MEMORY);
	free(tail.data);
	return v == GONE_ON;
}

/* TLS: a handshake record. Nobody can look into it; it is relayed untouched. */
static bool looks_like_tls(const uint8_t *data, size_t size)
{
	return size >= 2 && data[0] == 0x16 && data[1] == 0x03;
}

size_t requests_consume(struct session *s, const uint8_t *data, size_t size, size_t *ret_want)
{
	size_t at = 0, used;

	if (s->version == 0 && s->state == SESSION_HANDSHAKE && looks_like_tls(data, size))
		session_set_state(s, SESSION_OPAQUE);
	if (s->state == SESSION_OPAQUE) {
		emit_bytes(session_emit(s, s->primary == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET), data, size);
		return size;
	}
	if (s->tail.have && !consume_tail(s))
		return 0;
	if (!s->segments) {
		envelopes(s, data, size, /* wrapped= */ false, &used, ret_want);
		/* The handshake of v5 is not framed; what is parsed here never follows it. */
		return used;
	}
	while (at < size && !s->stalled && s->state != SESSION_CLOSING) {
		struct segment seg;
		int r = segment_header_read(data + at, size - at, s->compression == COMPRESSION_LZ4, &seg);

		if (r == CQL_INCOMPLETE) {
			*ret_want = s->compression == COMPRESSION_LZ4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
			break;
		}
		if (r == CQL_MALFORMED) {
			malformed(s, 0, "A segment's header checksum (CRC24) does not match");
			break;
		}
		*ret_want = seg.wire_size;
		if (size - at < seg.wire_size)
			break;
		at += seg.wire_size;
		*ret_want = 0;
		if (one_segment(s, data + at - seg.wire_size, &seg) != GONE_ON)
			break;
	}
	return at;
}
