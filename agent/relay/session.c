/* SPDX-License-Identifier: Apache-2.0 */
/* See session.h for the states. Here: birth, death, reading, and what the agent itself says to a client. */
#include "relay/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "cql/response.h"
#include "net/stream_tls.h"
#include "relay/batch_ids.h"
#include "relay/envelope.h"
#include "relay/held.h"
#include "relay/tap.h"
#include "relay/topology.h"

#define SESSION_MAGIC 0x5E55104Eu
/* A driver gives a request up after 10–12 s; the outcome of a write is worth waiting that long. */
#define ORPHAN_NS (12u * 1000000000ull)

static const char *const state_names[SESSION_STATES] = {"connecting", "handshake", "open", "opaque", "orphan", "closing"};

/* Rows: from; columns: to. Order of enum session_state. */
static const bool legal[SESSION_STATES][SESSION_STATES] = {
	/* CONNECTING */ {0, 1, 0, 0, 0, 1},
	/* HANDSHAKE  */ {0, 0, 1, 1, 0, 1},
	/* OPEN       */ {0, 0, 0, 0, 1, 1},
	/* OPAQUE     */ {0, 0, 0, 0, 0, 1},
	/* ORPHAN     */ {0, 0, 0, 0, 0, 1},
	/* CLOSING    */ {0, 0, 0, 0, 0, 0},
};

static const enum metric close_metric[] = {
	[CLOSE_CLIENT] = METRIC_SESSIONS_CLOSED_CLIENT,	    [CLOSE_UPSTREAM] = METRIC_SESSIONS_CLOSED_UPSTREAM,
	[CLOSE_PROTOCOL] = METRIC_SESSIONS_CLOSED_PROTOCOL, [CLOSE_DIAL] = METRIC_SESSIONS_CLOSED_DIAL,
	[CLOSE_STOP] = METRIC_SESSIONS_CLOSED_STOP,	    [CLOSE_SWITCH] = METRIC_SESSIONS_CLOSED_SWITCH,
	[CLOSE_LIMIT] = METRIC_SESSIONS_CLOSED_LIMIT,	    [CLOSE_MEMORY] = METRIC_SESSIONS_CLOSED_MEMORY,
	[CLOSE_VERSION] = METRIC_SESSIONS_CLOSED_VERSION,
};

struct deferred {
	struct deferred *next;
	size_t size;
	uint8_t envelope[];
};

/* For the ledger: from here on, or until now, this client's writes pass unseen. */
static void note_opaque(struct session *s, bool begin)
{
	struct gap_session g = {.begin = begin, .missing = side_other(s->primary), .key = (uintptr_t)s, .cookie = s->cookie,
				.at_us = clock_wall_us(), .client = s->peer, .destination = s->destination};

	gap_opaque(s->worker->gap, &g);
}

void session_set_state(struct session *s, enum session_state state)
{
	MAGIC_CHECK(s, SESSION_MAGIC);
	if (!legal[s->state][state])
		abort();
	log_debug("relay", "session %p: %s -> %s", (void *)s, state_names[s->state], state_names[state]);
	if (s->state == SESSION_OPAQUE) {
		metric_sub(s->worker->metrics, METRIC_SESSIONS_OPAQUE, 1);
		note_opaque(s, false);
	}
	if (state == SESSION_OPAQUE) {
		note_opaque(s, true);
		metric_add(s->worker->metrics, METRIC_SESSIONS_OPAQUE, 1);
		metric_add(s->worker->metrics, METRIC_SESSIONS_OPAQUE_TOTAL, 1);
	}
	s->state = state;
}

static void wipe(struct span_owned *o)
{
	if (o->data)
		explicit_bzero(o->data, o->size);
	free(o->data);
	*o = (struct span_owned){0};
}

static void maybe_free(struct session *s)
{
	struct worker *w = s->worker;

	if (s->state != SESSION_CLOSING || s->client_live || s->up[ORIGIN].conn_live || s->up[TARGET].conn_live)
		return;
	/* The credit slot goes back only now that the socket is closed. */
	if (w->relay->intercept)
		intercept_release(w->relay->intercept, s->slot);
	*s->previous = s->next;
	if (s->next)
		s->next->previous = s->previous;
	w->session_count--;
	atomic_fetch_sub(&w->relay->session_count, 1);
	metric_sub(w->metrics, METRIC_SESSIONS, 1);
	input_done(&s->in);
	input_done(&s->tail);
	input_done(&s->up[ORIGIN].in);
	input_done(&s->up[TARGET].in);
	free(s->assembly.data);
	inflight_done(&s->inflight);
	while (s->deferred) {
		struct deferred *next = s->deferred->next;

		free(s->deferred);
		s->deferred = next;
	}
	free(s->dial_error);
	free(s->startup.data);
	free(s->reg.data);
	wipe(&s->token);
	s->magic = 0;
	free(s);
	worker_settled(w);
}

static void client_closed(struct conn *c)
{
	struct session *s = c->owner;

	MAGIC_CHECK(s, SESSION_MAGIC);
	s->client_live = false;
	/* An orphan's answers are no longer held back by a client that did not read. */
	if (s->state == SESSION_ORPHAN)
		for (int side = 0; side < SIDES; side++)
			upstream_update_reading(&s->up[side]);
	maybe_free(s);
}

void session_upstream_closed(struct session *s)
{
	MAGIC_CHECK(s, SESSION_MAGIC);
	maybe_free(s);
}

bool session_idle(const struct session *s)
{
	return s->inflight.count == 0 && s->client.queued == 0 && s->state != SESSION_OPAQUE;
}

static void end_all_inflight(struct session *s)
{
	struct inflight *e;
	uint32_t at = 0;

	while ((e = inflight_each(&s->inflight, &at)))
		session_inflight_drop(s, e);
	s->worker->inflight -= s->inflight.count;
	metric_sub(s->worker->metrics, METRIC_REQUESTS_INFLIGHT, s->inflight.count);
	s->inflight.count = 0;
	s->up[ORIGIN].inflight = s->up[TARGET].inflight = 0;
	inflight_done(&s->inflight);
}

/* Gives back what an entry holds; a write that got no answer has an unknown outcome. */
void session_inflight_drop(struct session *s, struct inflight *e)
{
	struct worker *w = s->worker;

	switch (e->kind) {
	case REQUEST_WRITE:
		s->writes--;
		if (e->record)
			w->relay->tap->outcome(w->tap, e->record, WRITE_UNKNOWN, NULL);
		e->record = NULL;
		if (e->held)
			e->held->session = NULL;
		e->held = NULL;
		session_unmirrored(s, e); /* no answer: it may have been applied */
		break;
	case REQUEST_PREPARE:
		free(e->prepare);
		e->prepare = NULL;
		break;
	case REQUEST_TOPOLOGY:
		topology_question_free(e->topology);
		e->topology = NULL;
		break;
	case REQUEST_REGISTER:
		free(e->events);
		e->events = NULL;
		break;
	}
	prepared_release(e->slot);
	e->slot = NULL;
	batch_ids_free(e->ids);
	e->ids = NULL;
}

void session_close(struct session *s, enum close_reason reason)
{
	struct worker *w = s->worker;

	if (s->state == SESSION_CLOSING)
		return;
	session_set_state(s, SESSION_CLOSING);
	s->reason = reason;
	metric_add(w->metrics, close_metric[reason], 1);
	end_all_inflight(s);
	if (w->tap)
		w->relay->tap->flush(w->tap);
	if (s->client_live) {
		/* Unread bytes would turn our end into a reset, and the client would never read why, nor the answers before. */
		if (reason != CLOSE_CLIENT)
			conn_discard_input(&s->client);
		if (reason == CLOSE_UPSTREAM || reason == CLOSE_PROTOCOL || reason == CLOSE_DIAL || reason == CLOSE_SWITCH)
			conn_finish(&s->client); /* what the cluster said before its end still belongs to the client */
		else
			conn_close(&s->client);
		s->closing_since_ns = w->turn_ns;
	}
	upstream_close(&s->up[ORIGIN]);
	upstream_close(&s->up[TARGET]);
	worker_settled(w);
	/* Even when nothing is alive any more the caller may still look at the session: it goes from the loop. */
}

/* The client went away: its writes in flight keep the upstream open until their outcome is known. */
static void client_gone(struct session *s)
{
	if (s->state == SESSION_OPEN && s->writes > 0) {
		session_set_state(s, SESSION_ORPHAN);
		s->orphan_deadline_ns = s->worker->turn_ns + ORPHAN_NS;
		conn_close(&s->client);
		return;
	}
	session_close(s, CLOSE_CLIENT);
}

void session_update_reading(struct session *s)
{
	struct worker *w = s->worker;
	bool want = false;

	if (!s->client_live || s->client.closing)
		return;
	switch (s->state) {
	case SESSION_CONNECTING:
		want = s->dial_error || s->undecided;
		break;
	case SESSION_HANDSHAKE:
	case SESSION_OPEN:
		want = !s->stalled && !session_full(s) && !w->holding && !(w->stopping && s->state == SESSION_OPEN);
		break;
	case SESSION_OPAQUE:
		want = true;
		break;
	default:
		break;
	}
	for (int side = 0; side < SIDES; side++)
		if (s->up[side].conn_live && conn_congested(&s->up[side].conn))
			want = false;
	conn_read(&s->client, want);
}

/* Sends what the agent itself has to say while nothing else is half way through. */
static void say(struct session *s, const uint8_t *envelope, size_t size)
{
	envelope_send(&s->client, s->segments, s->compression == COMPRESSION_LZ4, envelope, size);
}

void session_answer(struct session *s, const uint8_t *envelope, size_t size)
{
	struct emit *e = session_emit(s, EMIT_CLIENT);
	struct deferred *d;

	if (!s->client_live || s->client.closing)
		return;
	/* What was gathered before goes first. */
	if (e->conn == &s->client)
		emit_flush(e);
	if (s->streaming < 0 && !(e->conn == &s->client && e->open > e->count)) {
		say(s, envelope, size);
		return;
	}
	d = malloc(sizeof(*d) + size);
	if (!d) {
		session_close(s, CLOSE_MEMORY);
		return;
	}
	d->next = NULL;
	d->size = size;
	memcpy(d->envelope, envelope, size);
	if (s->deferred_tail)
		s->deferred_tail->next = d;
	else
		s->deferred = d;
	s->deferred_tail = d;
	s->deferred_bytes += size;
}

void session_say_deferred(struct session *s)
{
	while (s->deferred && s->streaming < 0) {
		struct deferred *d = s->deferred;

		s->deferred = d->next;
		if (!s->deferred)
			s->deferred_tail = NULL;
		s->deferred_bytes -= d->size;
		say(s, d->envelope, d->size);
		free(d);
	}
}

void session_request_done(struct session *s, int16_t stream)
{
	struct inflight *e = inflight_find(&s->inflight, stream);
	struct worker *w = s->worker;

	if (!e)
		return;
	s->up[e->side].inflight--;
	session_inflight_drop(s, e);
	inflight_remove(&s->inflight, stream);
	w->inflight--;
	metric_sub(w->metrics, METRIC_REQUESTS_INFLIGHT, 1);
}

/* Parses `size` bytes at `data` and keeps the rest. */
static void parse(struct session *s, const uint8_t *data, size_t size)
{
	struct worker *w = s->worker;
	size_t want = 0, used;

	for (int side = 0; side < SIDES; side++)
		emit_begin(&w->emit[side], s->up[side].conn_live ? &s->up[side].conn : NULL, s->up[side].segments,
			   s->up[side].compression == COMPRESSION_LZ4);
	emit_begin(&w->emit[EMIT_CLIENT], &s->client, s->segments, s->compression == COMPRESSION_LZ4);
	used = requests_consume(s, data, size, &want);
	emit_flush(&w->emit[EMIT_ORIGIN]);
	emit_flush(&w->emit[EMIT_TARGET]);
	emit_flush(&w->emit[EMIT_CLIENT]);
	w->emit[EMIT_CLIENT].conn = NULL;
	worker_sample(w, HISTOGRAM_AGENT_REQUEST);
	if (s->state == SESSION_CLOSING)
		return;
	if (input_keep(&s->in, data + used, size - used, want) < 0) {
		session_close(s, CLOSE_MEMORY);
		return;
	}
	session_update_reading(s);
}

/*
 * The client's first byte is there, and stays where it is. TLS ends here if there is a certificate for it; else it goes on to the
 * cluster as it is.
 */
static void decide(struct session *s)
{
	struct tls_context *tls = s->worker->relay->options.client_tls;
	struct stream stream;
	uint8_t first;
	ssize_t n = recv(s->client.stream.fd, &first, 1, MSG_PEEK);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_gone(s);
		return;
	}
	s->undecided = false;
	s->primary = s->worker->course.primary; /* it may have changed while the client said nothing */
	if (stream_looks_like_tls(first) && tls) {
		if (stream_tls_server(s->client.stream.fd, tls, &stream) < 0) {
			session_close(s, CLOSE_MEMORY);
			return;
		}
		conn_replace(&s->client, stream);
	} else {
		s->tls_passes = stream_looks_like_tls(first);
	}
	session_update_reading(s);
	upstream_open(s, s->primary, /* replay= */ false);
}

/* Once, when a client's handshake came to an end. */
static void note_client_tls(struct session *s, ssize_t n)
{
	struct metrics *m = s->worker->metrics;
	struct stream_tls_peer peer;
	char text[ADDR_TEXT_MAX];

	if (s->version || s->in.have || !stream_is_tls(&s->client.stream))
		return;
	if (n <= 0) {
		metric_add(m, METRIC_TLS_FAILED_CLIENT, 1);
		log_info("relay", "TLS from %s: %s", addr_format(&s->peer, text),
			 stream_reason(&s->client.stream) ? stream_reason(&s->client.stream) : "the client ended the connection");
		return;
	}
	stream_tls_peer(&s->client.stream, &peer);
	metric_add(m, peer.resumed ? METRIC_TLS_RESUMED_CLIENT : METRIC_TLS_OK_CLIENT, 1);
}

static void client_readable(struct conn *c)
{
	struct session *s = c->owner;
	struct worker *w = s->worker;
	uint8_t *to = s->in.data ? s->in.data + s->in.have : w->rx;
	size_t room = s->in.data ? s->in.capacity - s->in.have : WORKER_RX;
	ssize_t n;

	MAGIC_CHECK(s, SESSION_MAGIC);
	if (s->undecided) {
		w->turn_ns = clock_now_ns();
		decide(s);
		return;
	}
	n = conn_recv(c, to, room);
	intercept_consumed(s->slot, conn_taken(c));
	if (n == -EAGAIN)
		return;
	w->turn_ns = clock_now_ns();
	note_client_tls(s, n);
	if (n <= 0) {
		client_gone(s);
		return;
	}
	metric_add(w->metrics, METRIC_CLIENT_BYTES_IN, (uint64_t)n);
	if (s->in.data) {
		s->in.have += (size_t)n;
		parse(s, s->in.data, s->in.have);
	} else {
		parse(s, w->rx, (size_t)n);
	}
}

void session_go_on(struct session *s)
{
	session_update_reading(s);
	if ((s->state == SESSION_HANDSHAKE || s->state == SESSION_OPEN) && s->client.reading && (s->in.have || s->tail.have))
		parse(s, s->in.data, s->in.have);
}

void session_resume(struct session *s)
{
	/* In the handshake only STARTUP's answer ends a stall: it decides how the bytes behind it are framed. */
	if (s->state != SESSION_OPEN && (s->state != SESSION_HANDSHAKE || s->stalled))
		return;
	/* Nothing can go on without the primary; when that comes up or fails, this is called again. */
	s->stalled = s->state == SESSION_OPEN && s->up[s->primary].state != UP_READY;
	session_go_on(s);
}

static void client_drained(struct conn *c)
{
	struct session *s = c->owner;

	MAGIC_CHECK(s, SESSION_MAGIC);
	s->worker->turn_ns = clock_now_ns();
	for (int side = 0; side < SIDES; side++)
		upstream_update_reading(&s->up[side]);
	session_go_on(s);
}

static void client_failed(struct conn *c, int error)
{
	struct session *s = c->owner;

	(void)error;
	MAGIC_CHECK(s, SESSION_MAGIC);
	s->worker->turn_ns = clock_now_ns();
	client_gone(s);
}

static const struct conn_ops client_ops = {
	.readable = client_readable, .drained = client_drained, .failed = client_failed, .closed = client_closed};

static bool admitted(struct worker *w)
{
	struct relay *r = w->relay;

	if (atomic_fetch_add(&r->session_count, 1) < r->options.sessions_max)
		return true;
	atomic_fetch_sub(&r->session_count, 1);
	metric_add(w->metrics, METRIC_SESSIONS_CLOSED_LIMIT, 1);
	return false;
}

void session_accept(struct worker *w, int fd, const struct addr *local, const struct addr *peer, bool intercepted)
{
	struct relay *r = w->relay;
	struct intercept_origin origin = {0};
	struct session *s = NULL;

	if (intercepted && intercept_accept(r->intercept, &local->sa, &peer->sa, &origin) < 0) {
		char text[ADDR_TEXT_MAX];

		metric_add(w->metrics, METRIC_SESSIONS_UNATTRIBUTED, 1);
		log_warn("relay", "connection from %s has no known destination, refused", addr_format(peer, text));
		close(fd);
		return;
	}
	if (!admitted(w)) {
		close(fd);
		intercept_release(r->intercept, origin.slot);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s || conn_init(&s->client, &w->loop, stream_plain(fd), &client_ops, s) < 0) {
		atomic_fetch_sub(&r->session_count, 1);
		metric_add(w->metrics, METRIC_SESSIONS_CLOSED_MEMORY, 1);
		free(s);
		close(fd);
		if (r->intercept)
			intercept_release(r->intercept, origin.slot);
		return;
	}
	s->magic = SESSION_MAGIC;
	s->worker = w;
	s->client_live = true;
	s->intercepted = intercepted;
	s->streaming = -1;
	s->primary = w->course.primary;
	s->peer = *peer;
	s->opened_ns = w->turn_ns;
	s->slot = origin.slot;
	s->cookie = origin.client_cookie;
	s->client_group = origin.cgroup_id;
	if (intercepted)
		memcpy(&s->destination.storage, &origin.destination, sizeof(origin.destination));
	else if (r->options.cluster[ORIGIN].node_count)
		s->destination = r->options.cluster[ORIGIN].nodes[w->next_node[ORIGIN]++ % r->options.cluster[ORIGIN].node_count];
	for (int side = 0; side < SIDES; side++) {
		s->up[side].session = s;
		s->up[side].side = side;
	}
	s->next = w->sessions;
	s->previous = &w->sessions;
	if (s->next)
		s->next->previous = &s->next;
	w->sessions = s;
	w->session_count++;
	metric_add(w->metrics, METRIC_SESSIONS, 1);
	metric_add(w->metrics, METRIC_SESSIONS_OPENED, 1);
	if (r->options.client_tls || r->options.cluster[s->primary].tls) {
		s->undecided = true;
		session_update_reading(s);
	} else {
		upstream_open(s, s->primary, /* replay= */ false);
	}
}

bool session_frozen(const struct session *s)
{
	const struct course *c = &s->worker->course;

	return c->frozen && (!c->finished || s->intercepted);
}

void session_follow_course(struct session *s)
{
	struct worker *w = s->worker;

	if (s->state != SESSION_OPEN)
		return;
	if (s->primary != w->course.primary) {
		s->primary = w->course.primary;
		if (s->up[s->primary].state != UP_READY)
			s->stalled = true;
	}
	if (s->up[s->primary].state == UP_ABSENT && !s->up[s->primary].conn_live) {
		s->stalled = true;
		upstream_open(s, s->primary, /* replay= */ true);
	}
	upstream_follow_course(&s->up[s->primary]);
	session_update_reading(s);
}
