/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a session to one cluster: dialling, reading, losing it.
 *
 * Losing the primary ends the session, as losing the replica would have without us. Losing the other side costs only
 * what is in flight there; it is dialled again when it is needed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "cql/request.h"
#include "cql/response.h"
#include "net/stream_tls.h"
#include "relay/session.h"
#include "relay/tap.h"

static const enum metric upstream_metric[SIDES] = {METRIC_UPSTREAMS_ORIGIN, METRIC_UPSTREAMS_TARGET};

/* At a switch many log in at once, and a cluster takes 100 ms of CPU for each: as long as a driver waits for a request (10–12 s). */
#define REPLAY_PRIMARY_NS (12u * 1000000000ull)
#define REASON_MAX 380 /* of a dial's failure, as the client gets it: its ERROR has to fit */

static void lost(struct upstream *u, int error);

/* Reading stops while the client does not take what is there, or another side's answer is half way through. */
void upstream_update_reading(struct upstream *u)
{
	struct session *s = u->session;
	bool want = u->state == UP_READY || u->state == UP_REPLAY;

	if (!u->conn_live || u->conn.closing)
		return;
	if (s->client_live && conn_congested(&s->client))
		want = false;
	if (s->streaming >= 0 && s->streaming != (int)u->side)
		want = false;
	conn_read(&u->conn, want);
}

static void on_closed(struct conn *c)
{
	struct upstream *u = c->owner;
	struct session *s = u->session;

	u->conn_live = false;
	if (u->state == UP_CLOSED)
		u->state = UP_ABSENT;
	metric_sub(s->worker->metrics, upstream_metric[u->side], 1);
	if (s->state == SESSION_OPEN) {
		/* It may be wanted again already: it was not opened while the old connection was closing. */
		session_follow_course(s);
		if (s->stalled)
			session_resume(s);
		else
			session_go_on(s); /* it may have been what did not take the client's bytes */
	}
	session_upstream_closed(s);
}

static void on_drained(struct conn *c)
{
	struct upstream *u = c->owner;

	session_go_on(u->session);
}

static void on_failed(struct conn *c, int error)
{
	struct upstream *u = c->owner;

	u->session->worker->turn_ns = clock_now_ns();
	lost(u, error);
}

static bool unlink_corked(struct upstream **list, struct upstream *u)
{
	while (*list && *list != u)
		list = &(*list)->corked_next;
	if (!*list)
		return false;
	*list = u->corked_next;
	return true;
}

static void forget_corked(struct upstream *u)
{
	struct worker *w = u->session->worker;

	if (u->corked_until && !unlink_corked(&w->corked, u))
		unlink_corked(&w->uncorking, u);
	u->corked_until = 0;
}

void upstream_cork(struct upstream *u, uint64_t until)
{
	struct worker *w = u->session->worker;

	if (!u->corked_until) {
		u->corked_next = w->corked;
		w->corked = u;
		conn_cork(&u->conn);
	}
	u->corked_until = until;
}

void relay_durable(struct worker *w, uint64_t number)
{
	struct upstream **at = &w->corked, *u;

	while ((u = *at)) {
		if (u->corked_until > number) {
			at = &u->corked_next;
			continue;
		}
		*at = u->corked_next;
		u->corked_next = w->uncorking;
		w->uncorking = u;
	}
	/* Uncorking one may close others, which takes them off the list. */
	w->turn_ns = clock_now_ns();
	while ((u = w->uncorking)) {
		w->uncorking = u->corked_next;
		u->corked_until = 0;
		conn_uncork(&u->conn);
	}
}

void upstream_close(struct upstream *u)
{
	forget_corked(u);
	reach_cancel(u->dial);
	u->dial = NULL;
	u->state = u->conn_live ? UP_CLOSED : UP_ABSENT;
	if (u->conn_live)
		conn_close(&u->conn);
	input_done(&u->in);
	free(u->in_large.data);
	u->in_large = (struct assembly){0};
	u->passing = 0;
	u->segments = false;
	u->blocked = false;
	u->rebind = false;
}

/* Everything that waits for an answer from this side gets an error; used for the side that is not primary. */
static void fail_inflight(struct upstream *u, const char *why)
{
	struct session *s = u->session;
	uint8_t envelope[512];
	struct inflight *e;
	uint32_t at = 0;

	while (u->inflight > 0 && s->state != SESSION_CLOSING && (e = inflight_each(&s->inflight, &at))) {
		if (e->side != u->side)
			continue;
		ssize_t n = response_write_error(s->version, e->stream, CQL_SERVER_ERROR, why, envelope, sizeof(envelope));
		int16_t stream = e->stream;

		session_request_done(s, stream);
		if (n > 0)
			session_answer(s, envelope, (size_t)n);
		at = 0; /* removal moved entries */
	}
}

/* With TLS 1.3 a cluster that does not like our certificate says so only after the handshake. */
static void refused(struct upstream *u, const char *reason)
{
	struct session *s = u->session;
	char text[400], node[ADDR_TEXT_MAX];

	snprintf(text, sizeof(text), "cqlferry cannot reach %s: %s", addr_format(&u->address, node), reason);
	log_warn("relay", "%s %s ends the connection: %s", side_name(u->side), node, reason);
	metric_add(s->worker->metrics, METRIC_TLS_FAILED_CLUSTER, 1);
	if (s->state == SESSION_HANDSHAKE)
		fail_inflight(u, text);
}

static void lost(struct upstream *u, int error)
{
	struct session *s = u->session;
	char text[ADDR_TEXT_MAX];

	if (s->state == SESSION_CLOSING)
		return;
	if (u->conn_live && stream_reason(&u->conn.stream))
		refused(u, stream_reason(&u->conn.stream));
	/* Whoever stands between us and a node takes connections that it cannot pass on. */
	if (u->conn_live && !u->heard && (u->state == UP_READY || u->state == UP_REPLAY) && s->state == SESSION_HANDSHAKE)
		reach_doubt(s->worker->reach, u->side, &u->address);
	if (u->side == s->primary || s->streaming == (int)u->side || s->state == SESSION_ORPHAN) {
		session_close(s, CLOSE_UPSTREAM);
		return;
	}
	log_debug("relay", "connection to %s %s lost: %s", side_name(u->side), addr_format(&u->address, text),
		  error ? strerror(-error) : "closed");
	u->failed = true;
	upstream_close(u);
	fail_inflight(u, "cqlferry: the connection to the other cluster was lost");
	worker_settled(s->worker);
	if (s->state == SESSION_OPEN && s->stalled)
		session_resume(s);
}

void upstream_sweep(struct upstream *u)
{
	struct session *s = u->session;
	uint64_t limit = (uint64_t)s->worker->relay->options.dial_timeout_ms * 1000000u;
	char text[ADDR_TEXT_MAX];

	if (u->side == s->primary && limit < REPLAY_PRIMARY_NS)
		limit = REPLAY_PRIMARY_NS;
	if (s->state != SESSION_OPEN || u->state != UP_REPLAY || !u->conn_live || s->worker->turn_ns <= u->replay_ns + limit)
		return;
	log_warn("relay", "%s %s takes connections, and does not answer the handshake", side_name(u->side), addr_format(&u->address, text));
	lost(u, -ETIMEDOUT);
}

static void flush_answers(struct session *s)
{
	struct worker *w = s->worker;

	emit_flush(&w->emit[EMIT_CLIENT]);
	w->emit[EMIT_CLIENT].conn = NULL;
	worker_sample(w, HISTOGRAM_AGENT_ANSWER);
	/* Behind the client's answer: the other cluster can wait, and the journal has it. */
	if (w->tap)
		w->relay->tap->flush(w->tap);
}

static void work(struct upstream *u, const uint8_t *data, size_t size);

/* The session's fate may have been decided while answers were read. */
static void after_answers(struct upstream *u)
{
	struct session *s = u->session;
	struct upstream *other = &s->up[side_other(u->side)];
	bool reading = s->client.reading; /* before the course is followed: what was kept has to be parsed when it begins anew */

	if (s->state == SESSION_CLOSING)
		return;
	if (u->rebind && u->inflight == 0)
		upstream_close(u);
	if (s->client_live && conn_congested(&s->client)) {
		upstream_update_reading(&s->up[ORIGIN]);
		upstream_update_reading(&s->up[TARGET]);
	}
	if (s->state == SESSION_OPEN && !s->followed) {
		s->followed = true;
		session_follow_course(s);
	}
	/* Whoever has to wait must not go on gathering bytes meanwhile. */
	upstream_update_reading(u);
	/* The end of a streamed answer, or of the handshake, lets others go on. */
	if (s->streaming < 0 && other->blocked && other->conn_live && s->state != SESSION_CLOSING)
		work(other, other->in.data, other->in.have);
	if (s->state == SESSION_CLOSING)
		return;
	if (!s->stalled && !reading && s->client_live)
		session_resume(s);
	if (s->state == SESSION_ORPHAN && s->writes == 0)
		session_close(s, CLOSE_CLIENT);
	else if (s->worker->stopping && session_idle(s))
		session_close(s, CLOSE_STOP);
}

/* Works through what has come: data[0 … size−1], in the worker's buffer or in u->in. */
static void work(struct upstream *u, const uint8_t *data, size_t size)
{
	struct session *s = u->session;
	struct worker *w = s->worker;
	size_t want = 0;
	ssize_t used;

	emit_begin(&w->emit[EMIT_CLIENT], s->client_live ? &s->client : NULL, s->segments,
		   s->compression == COMPRESSION_LZ4);
	u->blocked = false;
	used = responses_consume(u, data, size, &want);
	flush_answers(s);
	if (s->state != SESSION_CLOSING && used < 0) {
		char text[ADDR_TEXT_MAX];

		metric_add(w->metrics, METRIC_BAD_UPSTREAM, 1);
		log_warn("relay", "%s %s sent a malformed frame; the session is closed", side_name(u->side),
			 addr_format(&u->address, text));
		session_close(s, CLOSE_UPSTREAM);
	}
	if (s->state != SESSION_CLOSING && u->conn_live && !u->conn.closing) {
		if (input_keep(&u->in, data + used, size - (size_t)used, want) < 0)
			session_close(s, CLOSE_MEMORY);
	}
	after_answers(u);
}

void upstream_readable(struct conn *c)
{
	struct upstream *u = c->owner;
	struct session *s = u->session;
	struct worker *w = s->worker;
	uint8_t *data = w->rx, *to = w->rx;
	size_t room = WORKER_RX;
	ssize_t n;

	if (u->in.data) {
		data = u->in.data;
		to = data + u->in.have;
		room = u->in.capacity - u->in.have;
	}
	n = conn_recv(c, to, room);
	if (n == -EAGAIN)
		return;
	w->turn_ns = clock_now_ns();
	if (n <= 0) {
		lost(u, (int)n);
		return;
	}
	u->heard = true;
	metric_add(w->metrics, METRIC_CLIENT_BYTES_OUT, (uint64_t)n);
	if (u->in.data)
		n = (ssize_t)(u->in.have += (size_t)n);
	work(u, data, (size_t)n);
	worker_settled(w);
}

static const struct conn_ops ops = {
	.readable = upstream_readable, .drained = on_drained, .failed = on_failed, .closed = on_closed};

static void note_tls(struct upstream *u)
{
	struct metrics *m = u->session->worker->metrics;
	struct stream_tls_peer peer;

	if (!stream_is_tls(&u->conn.stream))
		return;
	stream_tls_peer(&u->conn.stream, &peer);
	metric_add(m, peer.resumed ? METRIC_TLS_RESUMED_CLUSTER : METRIC_TLS_OK_CLUSTER, 1);
}

/* The other side is ready: whoever waited for it goes on. */
static void on_dialled(void *context, struct dial_result *result, const struct addr *address)
{
	struct upstream *u = context;
	struct session *s = u->session;
	struct worker *w = s->worker;
	char text[ADDR_TEXT_MAX], line[512];
	bool replay = u->state == UP_REPLAY;

	u->dial = NULL;
	u->address = *address;
	w->turn_ns = clock_now_ns();
	if (result->error == 0 && conn_init(&u->conn, &w->loop, result->stream, &ops, u) < 0) {
		stream_close(&result->stream);
		*result = (struct dial_result){.error = -ENOMEM, .reason = "out of memory"};
	}
	if (result->error < 0) {
		metric_add(w->metrics, METRIC_DIAL_FAILED, 1);
		if (result->error == -EKEYREJECTED || result->error == -EPROTO)
			metric_add(w->metrics, METRIC_TLS_FAILED_CLUSTER, 1);
		log_warn("relay", "cannot reach %s %s: %s", side_name(u->side), addr_format(&u->address, text),
			 mode_line(result->reason, line, sizeof(line)));
		u->state = UP_ABSENT;
		u->failed = true;
		if (s->state == SESSION_CONNECTING) {
			/* The client learns why, with its own stream id, from the answer to its first request. */
			s->dial_error = strndup(result->reason, REASON_MAX);
			if (!s->dial_error)
				session_close(s, CLOSE_MEMORY);
			session_update_reading(s);
		} else if (u->side == s->primary) {
			session_close(s, CLOSE_DIAL);
		} else if (s->stalled) {
			session_resume(s);
		}
		return;
	}
	metric_add(w->metrics, METRIC_DIAL_OK, 1);
	metric_add(w->metrics, upstream_metric[u->side], 1);
	u->conn_live = true;
	u->heard = false;
	u->segments = false;
	note_tls(u);
	if (replay) {
		replay_begin(u);
	} else {
		u->state = UP_READY;
		if (s->state == SESSION_CONNECTING)
			session_set_state(s, SESSION_HANDSHAKE);
	}
	upstream_update_reading(u);
	session_update_reading(s);
}

void upstream_open(struct session *s, enum side side, bool replay)
{
	struct worker *w = s->worker;
	struct upstream *u = &s->up[side];
	const struct cluster *cluster = &w->relay->options.cluster[side];
	struct reach_want want = {.side = side, .client = s->client_group, .from = s->peer, .passes_tls = s->tls_passes};

	if (u->state != UP_ABSENT || u->conn_live)
		return;
	if (side == ORIGIN && !cluster->sni)
		want.replica = s->destination;
	else if (cluster->node_count && !cluster->sni)
		want.replica = cluster->nodes[w->next_node[side] % cluster->node_count];
	want.turn = w->next_node[side]; /* behind a proxy there may be more nodes by now */
	if (side != ORIGIN || s->intercepted || cluster->sni)
		w->next_node[side]++; /* else it has had its turn as the destination */
	u->address = want.replica;
	u->state = replay ? UP_REPLAY : UP_DIALING;
	u->failed = false;
	u->passing = 0;
	u->dial = cluster->node_count || want.replica.sa.sa_family != AF_UNSPEC ? reach_dial(w->reach, &want, on_dialled, u) : NULL;
	if (!u->dial) {
		u->state = UP_ABSENT;
		if (side == s->primary)
			session_close(s, CLOSE_DIAL);
	}
}
