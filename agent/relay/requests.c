/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of an envelope: to which cluster it goes, what the mirror hears of it, or what the agent answers itself.
 *
 *   envelope (receive.c) ─▶ what is it? (analyse.c) ─▶ where to? ─▶ tap: intent ─▶ emit, changed where it must be (route.c)
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
#include "cql/keyspace.h"
#include "cql/request.h"
#include "cql/response.h"
#include "relay/analyse.h"
#include "relay/instants.h"
#include "relay/paging.h"
#include "relay/requests_priv.h"
#include "relay/route.h"
#include "relay/session.h"
#include "relay/tap.h"
#include "relay/topology.h"
#include "relay/unpack.h"


enum verdict request_refuse(struct session *s, int16_t stream, int32_t code, const char *text)
{
	uint8_t envelope[512];
	ssize_t n = response_write_error(s->version ? s->version : 4, stream, code, text, envelope, sizeof(envelope));

	if (n > 0)
		session_answer(s, envelope, (size_t)n);
	return GONE_ON;
}

enum verdict request_malformed(struct session *s, int16_t stream, const char *text)
{
	metric_add(s->worker->metrics, METRIC_BAD_FRAMES, 1);
	request_refuse(s, stream, CQL_PROTOCOL_ERROR, text);
	session_close(s, CLOSE_PROTOCOL);
	return ENDED;
}

static enum verdict refuse_unprepared(struct session *s, int16_t stream, struct span id)
{
	uint8_t envelope[PREPARED_ID_MAX + 512];
	ssize_t n = response_write_unprepared(s->version, stream, id, envelope, sizeof(envelope));

	metric_add(s->worker->metrics, METRIC_REFUSED_UNPREPARED, 1);
	if (n < 0)
		return request_malformed(s, stream, "Invalid prepared id");
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
			request_malformed(s, stream, "Stream id is in use by another request of this connection");
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

/* As it came; decompressed for a cluster that does not know the client's compression. */
static void emit_received(struct session *s, enum side side, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct emit *e = session_emit(s, side == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET);
	struct span body;

	if (h->flags & FRAME_COMPRESSED && unpack_needed(s, side)) {
		int r = plain_body(s, h, envelope, size, &body);

		if (r < 0)
			session_close(s, r == -ENOMEM ? CLOSE_MEMORY : CLOSE_PROTOCOL);
		else
			route_emit_body(s, side, h, body);
		return;
	}
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
		return request_malformed(s, h->stream, "STARTUP must not be compressed");
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
	if (unpack_agree(&s->up[s->primary])) {
		emit_received(s, s->primary, h, envelope, size);
	} else {
		emit_flush(session_emit(s, s->primary == ORIGIN ? EMIT_ORIGIN : EMIT_TARGET));
		unpack_startup(&s->up[s->primary], h->stream);
	}
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
		return request_refuse(s, h->stream, CQL_BAD_CREDENTIALS, "Provided username and/or password are incorrect");
	n = sasl_plain(o->cluster[s->primary].username, o->cluster[s->primary].password, expected, sizeof(expected));
	if (n > 0)
		n = request_write_auth(s->version, h->stream, span_of(expected, (size_t)n), mine, sizeof(mine));
	explicit_bzero(expected, sizeof(expected));
	if (n < 0)
		return request_refuse(s, h->stream, CQL_SERVER_ERROR, "cqlferry: the configured credentials are too long");
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
		return request_malformed(s, h->stream, "AUTH_RESPONSE is truncated");
	n = (int32_t)((uint32_t)body.data[0] << 24 | (uint32_t)body.data[1] << 16 | (uint32_t)body.data[2] << 8 | body.data[3]);
	if (n >= 0 && (size_t)n != body.size - 4)
		return request_malformed(s, h->stream, "AUTH_RESPONSE has a wrong length");
	struct span token = span_of(body.data + 4, n > 0 ? (size_t)n : 0);

	/* Before its token a driver names the mechanism to DSE's authenticator. */
	if (s->worker->relay->options.configured_auth && !span_equal(token, span_text("PLAIN")))
		return configured_token(s, h, token);
	if (!keep(&s->token, token.data, token.size)) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	if (!register_request(s, h->stream, REQUEST_AUTH, s->primary))
		return ENDED;
	emit_received(s, s->primary, h, envelope, size);
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

/* What a read asks the frozen topology, or tells it; NULL = nothing. A later page is no answer to the question. */
static struct topology_question *topology_question(const struct session *s, const struct analysis *a)
{
	const struct worker *w = s->worker;

	if (a->topology == TOPOLOGY_NONE || (w->course.finished && !session_frozen(s)) || !w->relay->options.freeze_topology ||
	    a->request.params.flags & QUERY_PAGING_STATE)
		return NULL;
	return topology_question_new(&s->destination, &a->request,
				     a->slot ? span_of(a->slot->prepared->text, a->slot->prepared->text_size) : a->request.text);
}

/* What was asked before needs no cluster: the origin may be gone. */
static bool answer_frozen(struct session *s, const struct frame_header *h, const struct analysis *a)
{
	struct topology_question *q = session_frozen(s) && h->opcode != OP_PREPARE ? topology_question(s, a) : NULL;
	bool answered = q && answer_topology(s, h->stream, q);

	topology_question_free(q);
	return answered;
}

/* What has to be known when the answer comes. `changed`: the changed text; the client's envelope has to wait until that is prepared. */
static struct pending_prepare *pend_prepare(struct session *s, const struct frame_header *h, const struct request *r, struct span changed)
{
	size_t envelope = changed.size ? FRAME_HEADER_SIZE + r->body.size : 0;
	struct pending_prepare *p = malloc(sizeof(*p) + r->text.size + changed.size + envelope);
	char own[CQL_NAME_MAX + 1];

	if (!p)
		return NULL;
	*p = (struct pending_prepare){.first = changed.size != 0, .size = r->text.size, .changed_size = changed.size, .envelope_size = envelope};
	memcpy(p->text, r->text.data, r->text.size);
	if (changed.size) {
		struct frame_header header = *h;
		uint8_t *to = p->text + p->size + p->changed_size;

		header.flags &= (uint8_t)~FRAME_COMPRESSED;
		header.length = (uint32_t)r->body.size;
		memcpy(p->text + p->size, changed.data, changed.size);
		frame_header_write(to, &header);
		memcpy(to + FRAME_HEADER_SIZE, r->body.data, r->body.size);
	}
	snprintf(p->keyspace, sizeof(p->keyspace), "%s", request_keyspace(r, s->keyspace, own));
	return p;
}

static enum verdict prepare(struct session *s, const struct frame_header *h, const struct analysis *a,
			    const uint8_t *envelope, size_t size, enum side side)
{
	struct span changed = {0};
	const uint8_t *body = NULL;
	ssize_t n = s->worker->course.mirroring ? instants_prepare(s, a, &body, &changed) : 0;
	struct pending_prepare *p = n < 0 ? NULL : pend_prepare(s, h, &a->request, changed);
	struct inflight *e;

	if (!p) {
		session_close(s, CLOSE_MEMORY);
		return ENDED;
	}
	e = register_request(s, h->stream, REQUEST_PREPARE, side);
	if (!e) {
		free(p);
		return ENDED;
	}
	e->prepare = p;
	metric_add(s->worker->metrics, METRIC_REQUESTS_PREPARE, 1);
	if (n > 0) {
		struct frame_header own = *h;

		own.flags &= (uint8_t)~FRAME_TRACING; /* the client's own is traced */
		route_emit_body(s, side, &own, span_of(body, (size_t)n));
	} else {
		emit_received(s, side, h, envelope, size);
	}
	return GONE_ON;
}

/* Timestamps that the client left to the coordinator are the same on both sides. What decides by Paxos has none to share; a counter's decides
 * whether a deletion covers the increment. */
static bool wants_timestamp(const struct analysis *a)
{
	return !(a->request.params.flags & QUERY_TIMESTAMP) && a->statement->kind != STATEMENT_SCHEMA &&
	       a->statement->kind != STATEMENT_TRUNCATE && a->unmirrored != UNMIRRORED_LWT;
}

/* Each cluster keeps its own: nodes, schema, roles, what it traced. */
static bool writes_system(const struct session *s, const struct analysis *a)
{
	const char *keyspace = a->slot ? a->slot->prepared->keyspace : s->keyspace;

	for (unsigned i = 0; i < a->statement->table_count; i++) {
		const char *named = a->statement->tables[i].keyspace;

		if (keyspace_of_cluster(named[0] ? named : keyspace))
			return true;
	}
	return false;
}

/* The mirror hears of a write before the cluster does. 0 with the edits that it needs, −EAGAIN: it has to wait. */
static int tell_mirror(struct session *s, struct analysis *a, enum side side, struct edit *edits, unsigned *edit_count,
		       struct record **record, bool *mirrored)
{
	struct worker *w = s->worker;
	struct tap_write write = {.way = a->unmirrored, .request = &a->request, .statement = a->statement, .slot = a->slot,
				  .keyspace = s->keyspace, .primary = side};
	int r;

	if (w->course.mirroring && writes_system(s, a))
		a->unmirrored = UNMIRRORED_POLICY;
	*mirrored = w->course.mirroring && w->tap && a->unmirrored != UNMIRRORED_POLICY;
	if (!*mirrored)
		return 0;
	if (wants_timestamp(a)) {
		write.pinned = true;
		write.timestamp = worker_timestamp(w);
		*edit_count = request_pin_timestamp(&a->request, write.timestamp, edits);
	}
	r = w->relay->tap->intent(w->tap, &write, record);
	if (r == -ENOTSUP || r == -ENOENT) {
		*mirrored = false;
		*edit_count = 0;
		if (r == -ENOENT)
			a->unmirrored = MIRRORABLE; /* nothing to count, and no gap */
	}
	return r == -EAGAIN ? r : 0;
}

static enum verdict write_request(struct session *s, const struct frame_header *h, struct analysis *a,
				  const uint8_t *envelope, size_t size, enum side side)
{
	struct worker *w = s->worker;
	struct record *record = NULL;
	struct edit edits[REQUEST_EDITS_MAX];
	unsigned edit_count = 0;
	bool mirrored;
	struct inflight *e;

	if (w->course.mirroring && a->statement->kind == STATEMENT_SCHEMA) {
		if (w->relay->options.ddl == RELAY_DDL_REFUSE) {
			metric_add(w->metrics, METRIC_REFUSED_POLICY, 1);
			return request_refuse(s, h->stream, CQL_INVALID,
				      "cqlferry: schema changes are refused while a migration runs (setting ddl: refuse)");
		}
		if (w->relay->options.ddl == RELAY_DDL_IGNORE)
			a->unmirrored = UNMIRRORED_POLICY;
	}
	if (w->course.mirroring && a->statement->flags & STATEMENT_CONDITIONAL && !worker_moment_passed(w, &s->moment_us)) {
		s->stalled = true;
		return STALLED;
	}
	if (tell_mirror(s, a, side, edits, &edit_count, &record, &mirrored) < 0) {
		s->stalled = true;
		return STALLED;
	}
	e = register_request(s, h->stream, REQUEST_WRITE, side);
	if (!e) {
		if (record) /* never sent: as if the cluster had refused it */
			w->relay->tap->outcome(w->tap, record, WRITE_REFUSED, NULL);
		return ENDED;
	}
	e->record = record;
	e->conditional = statement_changes_rows(a->statement) && a->statement->flags & STATEMENT_CONDITIONAL;
	e->piecemeal = a->statement->piecemeal || e->conditional;
	e->unmirrored = (uint8_t)(w->course.mirroring && !mirrored ? a->unmirrored : MIRRORABLE);
	if (e->unmirrored)
		e->gap = gap_cell_write(s->worker->gap, a->statement, a->slot, &a->request, s->keyspace);
	if (a->asked)
		e->slot = prepared_use(a->asked);
	metric_add(w->metrics, METRIC_REQUESTS_WRITE, 1);
	if (record) {
		uint64_t pending = w->relay->tap->pending(w->tap);

		if (pending)
			upstream_cork(&s->up[side], pending);
	}
	if (a->changed)
		metric_add(w->metrics, METRIC_FUNCTIONS_REPLACED, 1);
	route_emit(s, side, h, a, envelope, size, edits, edit_count, &e->ids);
	return GONE_ON;
}

static enum verdict read_request(struct session *s, const struct frame_header *h, struct analysis *a,
				 const uint8_t *envelope, size_t size, enum side side)
{
	struct worker *w = s->worker;
	enum request_kind kind = REQUEST_READ;
	struct topology_question *question = side == ORIGIN ? topology_question(s, a) : NULL; /* the target's answer is one like others */
	struct inflight *e;

	if (question)
		kind = REQUEST_TOPOLOGY;
	else if (a->statement->kind == STATEMENT_USE)
		kind = REQUEST_USE;
	e = register_request(s, h->stream, kind, side);
	if (!e) {
		topology_question_free(question);
		return ENDED;
	}
	if (question)
		e->topology = question;
	e->paged = (a->request.params.flags & QUERY_PAGE_SIZE) != 0;
	if (a->asked)
		e->slot = prepared_use(a->asked);
	metric_add(w->metrics, METRIC_REQUESTS_READ, 1);
	route_emit(s, side, h, a, envelope, size, NULL, 0, &e->ids);
	return GONE_ON;
}

/* Which cluster answers: the primary, but a page sequence ends where it began, and the frozen topology is the origin's. */
static enum side choose_side(const struct session *s, const struct analysis *a)
{
	/* A write has no pages, whatever its flags say. */
	if (statement_writes(a->statement) && !a->unknown_id.size)
		return s->primary;
	if (a->request.params.flags & QUERY_PAGING_STATE)
		return paging_is_target(a->request.params.paging_state) ? TARGET : ORIGIN;
	if (a->topology != TOPOLOGY_NONE && session_frozen(s) && !s->worker->course.finished)
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
		return request_malformed(s, h->stream, "The request's body is malformed");
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
	if (answer_frozen(s, h, &a))
		return GONE_ON;
	side = choose_side(s, &a);
	/* The session's keyspace has changed: that connection is bound to it anew as soon as it is quiet. */
	if (s->up[side].rebind) {
		if (s->up[side].inflight == 0)
			upstream_close(&s->up[side]);
		s->stalled = true;
		return STALLED;
	}
	if (s->up[side].state != UP_READY) {
		/* Tried for this request already: it is told, and the next one tries again. */
		bool failed = side != s->primary && s->up[side].failed && s->up[side].awaited;

		s->up[side].failed = s->up[side].awaited = false;
		if (!failed)
			upstream_open(s, side, /* replay= */ true);
		if (s->state == SESSION_CLOSING)
			return ENDED;
		if (failed || (s->up[side].state == UP_ABSENT && !s->up[side].conn_live))
			return request_refuse(s, h->stream, CQL_SERVER_ERROR,
					      a.topology == TOPOLOGY_NONE
						      ? "cqlferry: the cluster that this page belongs to cannot be reached"
						      : "cqlferry: the origin cannot be reached, and was not asked this about its nodes before");
		s->up[side].awaited = true;
		s->stalled = true;
		return STALLED;
	}
	if (a.slot && !route_known(&a, side))
		return refuse_unprepared(s, h->stream, prepared_slot_id(a.asked));
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

enum verdict request_handle(struct session *s, const struct frame_header *h, const uint8_t *envelope, size_t size)
{
	struct worker *w = s->worker;
	struct inflight *e;
	struct span body = {0};

	/* Each worker may use its share of the node's: nobody has to ask the others. */
	if (s->inflight.count >= w->relay->options.session_requests_max ||
	    w->inflight >= w->relay->options.requests_max / w->relay->options.workers) {
		metric_add(w->metrics, METRIC_REFUSED_OVERLOADED, 1);
		return request_refuse(s, h->stream, CQL_OVERLOADED,
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
			return request_malformed(s, h->stream, "REGISTER cannot be decompressed");
		break;
	case OP_OPTIONS:
		break;
	default:
		return request_malformed(s, h->stream, "Unknown or unexpected opcode");
	}
	if (s->up[s->primary].state != UP_READY) { /* a heartbeat in the middle of a switch */
		s->stalled = true;
		return STALLED;
	}
	e = register_request(s, h->stream, h->opcode == OP_REGISTER ? REQUEST_REGISTER : REQUEST_OTHER, s->primary);
	if (!e)
		return ENDED;
	if (e->kind == REQUEST_REGISTER)
		e->events = replay_register(body);
	metric_add(w->metrics, METRIC_REQUESTS_OTHER, 1);
	emit_received(s, s->primary, h, envelope, size);
	return GONE_ON;
}
