/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is learned from an answer on its way to the client: whether a write was applied, a prepared id, the keyspace, the topology; and what
 * has to be another one in it: the id that the client knows, the tag of a page. Looked at are a few bytes of a page's or of a conditional
 * write's head, the code of an error, and the whole of a PREPARED.
 */
#include "relay/answer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cql/instant.h"
#include "cql/request.h"
#include "cql/response.h"
#include "relay/analyse.h"
#include "relay/batch_ids.h"
#include "relay/envelope.h"
#include "relay/held.h"
#include "relay/tap.h"
#include "relay/topology.h"
#include "relay/unpack.h"

#define PAGE_HEAD_MAX (64u << 10) /* a page's head: flags, count, paging state; a conditional write's: its columns, too */

bool answer_interesting(const struct upstream *u, const struct frame_header *h, const struct inflight *e)
{
	if (u->state == UP_REPLAY || h->opcode == OP_EVENT)
		return true;
	if (!e)
		return false;
	switch (e->kind) {
	case REQUEST_WRITE:
		return h->opcode == OP_ERROR || e->conditional || (e->record && u->session->worker->relay->options.acknowledge_both);
	case REQUEST_PREPARE:
	case REQUEST_USE:
	case REQUEST_TOPOLOGY:
	case REQUEST_STARTUP:
	case REQUEST_AUTH:
		return true;
	default:
		return (h->opcode == OP_ERROR && (e->slot || e->ids)) || (h->opcode == OP_RESULT && e->paged && u->side == TARGET) ||
		       (h->opcode == OP_SUPPORTED && u->side == TARGET);
	}
}

size_t answer_needed(const struct frame_header *h, const struct inflight *e)
{
	/* Of a page only the head matters, and pages are large. (So is no write's answer that would have to be held.) */
	if (h->opcode == OP_RESULT && e && e->kind <= REQUEST_WRITE && !(h->flags & FRAME_COMPRESSED))
		return h->length < PAGE_HEAD_MAX ? h->length : PAGE_HEAD_MAX;
	if (h->opcode == OP_RESULT && e && e->kind == REQUEST_READ)
		return h->length; /* up to the protocol's limit */
	return h->length <= ANSWER_WHOLE_MAX ? h->length : 0;
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

/* Whether the condition held stands in the first row. A head in which it is not to be found tells nothing: it is not waited for. */
static enum write_outcome conditional_outcome(struct session *s, struct span body)
{
	switch (result_applied(s->version, body)) {
	case 1:
		return WRITE_APPLIED;
	case 0:
		return WRITE_REFUSED;
	default:
		return WRITE_UNKNOWN;
	}
}

/* Where the mirror says so it waits, and the request with it. */
static void tell_outcome(struct session *s, struct answer *a, enum write_outcome outcome)
{
	struct worker *w = s->worker;
	struct inflight *e = a->e;
	struct held_answer *h = NULL;

	if (outcome == WRITE_APPLIED && w->relay->options.acknowledge_both && s->state == SESSION_OPEN && a->there == a->h.length)
		h = held_new(s, e->stream, a->received, FRAME_HEADER_SIZE + a->there);
	if (w->relay->tap->outcome(w->tap, e->record, outcome, h)) {
		e->held = h;
		a->drop = a->continues = true;
	} else {
		free(h);
	}
	e->record = NULL;
}

/* Applied, refused, or unknown. */
static void write_answered(struct session *s, struct answer *a, struct span body)
{
	struct inflight *e = a->e;
	struct worker *w = s->worker;
	enum write_outcome outcome = WRITE_APPLIED;

	if (a->h.opcode == OP_ERROR) {
		struct response_error error;

		outcome = response_error_parse(body, &error) == 0 ? error_write_outcome(error.code, e->piecemeal) : WRITE_UNKNOWN;
	} else if (a->h.opcode != OP_RESULT) {
		outcome = WRITE_UNKNOWN;
	} else if (e->conditional) {
		outcome = conditional_outcome(s, body);
	}
	histogram_record(w->metrics, HISTOGRAM_ORIGIN_WRITE, (w->turn_ns - e->sent_ns) / 1000);
	if (e->record) {
		tell_outcome(s, a, outcome);
	} else if (outcome == WRITE_APPLIED || outcome == WRITE_UNKNOWN) {
		session_unmirrored(s, e);
	}
	e->unmirrored = MIRRORABLE;
}

static void replace_id(struct answer *a, struct span was, struct span by)
{
	a->changed = true;
	a->change_at = (size_t)(was.data - a->body.data) - 2;
	a->change_remove = 2 + was.size;
	a->insert[0] = 0;
	a->insert[1] = (uint8_t)by.size;
	memcpy(a->insert + 2, by.data, by.size);
	a->insert_size = 2u + by.size;
}

/* The changed text (instants.h) is prepared, or was refused: now for what the client asked. */
static void changed_prepared(struct session *s, struct answer *a, const struct prepared_result *result)
{
	struct pending_prepare *p = a->e->prepare;
	struct span text = span_of(p->text + p->size, p->changed_size);
	struct instant_bind binds[INSTANT_BINDS_MAX];
	int n = instant_binds(span_of(p->text, p->size), binds);

	p->first = false;
	p->refused = !result || n <= 0 || !instant_binds_match(result->binds, binds, (unsigned)n) ||
		     prepared_map_learn(s->worker->relay->prepared, a->u->side, s->version, text, p->keyspace, result) < 0;
	a->drop = true;
	if (s->state != SESSION_OPEN)
		return; /* nobody waits for it any more */
	a->continues = true;
	envelope_send(&a->u->conn, a->u->segments, a->u->compression == COMPRESSION_LZ4, p->text + p->size + p->changed_size,
		      p->envelope_size);
}

static void prepare_answered(struct session *s, struct answer *a, struct span body)
{
	const struct pending_prepare *p = a->e->prepare;
	struct prepared_result result;
	struct prepared_slot *slot;
	bool prepared = a->h.opcode == OP_RESULT && result_prepared_parse(s->version, body, &result) == 0;
	struct span told;

	if (p->first) {
		changed_prepared(s, a, prepared ? &result : NULL);
		return;
	}
	if (!prepared || prepared_map_learn(s->worker->relay->prepared, a->u->side, s->version, span_of(p->text, p->size), p->keyspace,
					    &result) < 0)
		return;
	slot = prepared_find(s->worker->prepared, result.id);
	if (!slot)
		return;
	if (p->changed_size)
		atomic_store_explicit(&slot->prepared->refused, p->refused, memory_order_relaxed);
	told = prepared_told(slot->prepared, a->u->side);
	if (!span_equal(told, result.id))
		replace_id(a, result.id, told);
}

/* The client must hear of the id that it sent, not of this side's. */
static void translate_unprepared(struct answer *a, struct span body)
{
	struct response_error error;
	struct span asked = {0};

	if (response_error_parse(body, &error) < 0 || error.code != CQL_UNPREPARED)
		return;
	if (a->e->slot)
		asked = prepared_slot_id(a->e->slot);
	else
		asked = batch_ids_asked(a->e->ids, error.unprepared_id);
	if (asked.size && !span_equal(error.unprepared_id, asked))
		replace_id(a, error.unprepared_id, asked);
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

	if (u->side != s->primary)
		return false;
	if (u->side == ORIGIN || !session_frozen(s))
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
	/* The other side follows when it is opened again: at once, or when what it still has to answer is through. */
	if (s->up[other].state == UP_ABSENT)
		return;
	if (s->up[other].inflight == 0)
		upstream_close(&s->up[other]);
	else
		s->up[other].rebind = true;
}

int answer_judge(struct answer *a)
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
	if (!answer_interesting(u, &a->h, a->e)) {
		if (a->e && a->e->kind == REQUEST_WRITE)
			write_answered(s, a, span_of(NULL, 0));
		else if (a->e && a->e->kind == REQUEST_REGISTER && a->e->events && a->h.opcode == OP_READY)
			replay_registered(s, a->e->events);
		return 0;
	}
	/* Too large to be looked into, or compressed and so: none that matters is. */
	if (a->h.length > 0 && (a->body.size == 0 || (a->h.flags & FRAME_COMPRESSED && !a->compressed && s->version < 5))) {
		if (a->e->kind == REQUEST_WRITE)
			write_answered(s, a, span_of(NULL, 0));
		return 0;
	}
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
		if (a->h.opcode == OP_ERROR && u->side == TARGET && unpack_refused(u, a->h.stream, body)) {
			a->drop = a->continues = true;
			break;
		}
		handshake_answered(s, a);
		break;
	case REQUEST_AUTH:
		handshake_answered(s, a);
		break;
	default:
		if (a->h.opcode == OP_SUPPORTED)
			unpack_supported(a, body, (size_t)skipped);
		if (a->h.opcode == OP_RESULT)
			return tag_page(s, a, body, (size_t)skipped);
		break;
	}
	if (a->h.opcode == OP_ERROR && (a->e->slot || a->e->ids))
		translate_unprepared(a, body);
	return 0;
}
