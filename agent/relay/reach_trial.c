// SPDX-License-Identifier: Apache-2.0
/*
 * A trial: does a node answer at that address? Dial, send OPTIONS, wait for a byte. Whatever comes is an answer, an ERROR or a TLS
 * alert as well: somebody is there.
 *
 *   dial ─▶ OPTIONS ─▶ a byte: reached
 *     │        └─ ended without one ─▶ dial ─▶ ClientHello ─▶ a byte: reached
 *     └────────────────────────────────┴─ refused, ended, the time is over: failed
 *             others wait, and first_ms are over: failed for now; if it does answer yet, reached
 *
 * A node that speaks TLS alone ends a plain connection without a word (seen with Cassandra 5.0.9), as a sidecar does that cannot reach
 * its node; and where clients' TLS is relayed untouched nothing tells us beforehand. So it is greeted once more, in TLS.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "cql/request.h"
#include "net/conn.h"
#include "net/stream_tls.h"
#include "relay/reach_priv.h"

#define TRIAL_MAGIC 0x7121A100u

/* A ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2) that nobody goes on from: ServerHello or alert, both are answers. */
static const uint8_t client_hello[] = {
	22, 3, 1, 0, 49,    /* record: handshake */
	1, 0, 0, 45, 3, 3,  /* ClientHello */
	'c', 'q', 'l', 'f', 'e', 'r', 'r', 'y', 'c', 'q', 'l', 'f', 'e', 'r', 'r', 'y', /* random: no key comes of it */
	'c', 'q', 'l', 'f', 'e', 'r', 'r', 'y', 'c', 'q', 'l', 'f', 'e', 'r', 'r', 'y',
	0,			 /* no session */
	0, 6, 0xc0, 0x2f, 0xc0, 0x2b, 0, 0x9c, /* ECDHE-RSA, ECDHE-ECDSA, RSA; AES-128-GCM */
	1, 0,			 /* no compression */
};

struct trial {
	uint32_t magic;
	struct reach_seat *seat;
	struct trial *next, **previous;
	struct reach_want want;
	bool told, over, conn_live, timer_live; /* told: failed for now */
	bool in_tls;				/* greeted in TLS: it ended the plain connection */
	uint64_t begun_ns;
	struct dial *dial;
	struct conn conn;
	uv_timer_t timer;
};

/* ---- the verdict */

static void report_reached(struct reach_seat *s, const struct reach_want *want)
{
	struct reach *r = s->reach;
	char text[ADDR_TEXT_MAX];
	bool returned;

	pthread_mutex_lock(&r->lock);
	returned = verdicts_reached(&r->verdicts[want->side], &want->replica);
	pthread_mutex_unlock(&r->lock);
	metric_add(s->metrics, METRIC_TRIAL_REACHED, 1);
	if (returned)
		log_info("relay", "replica %s of the %s answers: new connections go straight to it", addr_format(&want->replica, text),
			 side_name(want->side));
	reach_wake_all(r);
}

static void report_failed(struct reach_seat *s, const struct reach_want *want, int cause)
{
	struct reach *r = s->reach;
	struct endpoint control;
	struct mode_fallback say;
	char replica[ADDR_TEXT_MAX], host[ENDPOINT_NAME], line[512];

	pthread_mutex_lock(&r->lock);
	say = verdicts_failed(&r->verdicts[want->side], &want->replica, cause, clock_now_ns());
	pthread_mutex_unlock(&r->lock);
	metric_add(s->metrics, METRIC_TRIAL_FAILED, 1);
	if (say.warn)
		log_warn("relay", "%s", mode_line(mode_warning, line, sizeof(line)));
	if (say.audit) {
		addr_format(&want->replica, replica);
		mode_audit("CQL", replica, reach_stand_in(r, want, &control) ? reach_name(&control, host) : "(none)", line, sizeof(line));
		log_audit("%s (%s)", line, strerror(-cause));
	}
	reach_wake_all(r);
}

/* ---- its course */

static void maybe_free(struct trial *t)
{
	if (!t->over || t->conn_live || t->timer_live)
		return;
	*t->previous = t->next;
	if (t->next)
		t->next->previous = t->previous;
	t->magic = 0;
	free(t);
}

static void timer_closed(uv_handle_t *handle)
{
	struct trial *t = handle->data;

	MAGIC_CHECK(t, TRIAL_MAGIC);
	t->timer_live = false;
	maybe_free(t);
}

static void dial(struct trial *t);

static void conn_closed(struct conn *c)
{
	struct trial *t = c->owner;

	MAGIC_CHECK(t, TRIAL_MAGIC);
	t->conn_live = false;
	if (t->over)
		maybe_free(t);
	else
		dial(t); /* once more, in TLS */
}

static void end(struct trial *t)
{
	t->over = true;
	dial_cancel(t->dial);
	t->dial = NULL;
	if (t->conn_live)
		conn_close(&t->conn);
	uv_close((uv_handle_t *)&t->timer, timer_closed);
}

static void answer(struct trial *t, int error)
{
	struct reach_seat *s = t->seat;
	struct reach_want want = t->want;
	bool told = t->told;

	end(t);
	if (error == 0)
		report_reached(s, &want);
	else if (!told)
		report_failed(s, &want, error);
}

/* The connection came to its end without a byte. */
static void silent(struct trial *t, int error)
{
	if (t->in_tls || stream_is_tls(&t->conn.stream)) {
		answer(t, error);
		return;
	}
	t->in_tls = true;
	conn_close(&t->conn);
}

static void conn_readable(struct conn *c)
{
	struct trial *t = c->owner;
	uint8_t bytes[512];
	ssize_t n;

	MAGIC_CHECK(t, TRIAL_MAGIC);
	n = conn_recv(c, bytes, sizeof(bytes));
	if (t->over || n == -EAGAIN)
		return;
	/* A node that refuses our certificate, with TLS 1.3 only now, is there. */
	if (n < 0 && stream_reason(&c->stream))
		n = 1;
	if (n > 0)
		answer(t, 0);
	else
		silent(t, n < 0 ? (int)n : -ECONNRESET);
}

static void conn_failed(struct conn *c, int error)
{
	struct trial *t = c->owner;

	MAGIC_CHECK(t, TRIAL_MAGIC);
	if (!t->over)
		silent(t, error);
}

static void conn_drained(struct conn *c)
{
	(void)c;
}

static const struct conn_ops ops = {.readable = conn_readable, .drained = conn_drained, .failed = conn_failed, .closed = conn_closed};

static void on_dialled(void *context, struct dial_result *result)
{
	struct trial *t = context;
	uint8_t envelope[64];
	struct iovec iov = {.iov_base = (void *)client_hello, .iov_len = sizeof(client_hello)};

	MAGIC_CHECK(t, TRIAL_MAGIC);
	t->dial = NULL;
	/* Whom we do not trust, or who does not trust us, is there; the session's own dial says what is wrong. */
	if (result->error == -EKEYREJECTED || result->error == -EPROTO) {
		answer(t, 0);
		return;
	}
	if (result->error < 0) {
		answer(t, result->error);
		return;
	}
	if (conn_init(&t->conn, t->seat->loop, result->stream, &ops, t) < 0) {
		stream_close(&result->stream);
		answer(t, -ENOMEM);
		return;
	}
	t->conn_live = true;
	if (!t->in_tls)
		iov = (struct iovec){envelope, (size_t)request_write_options(4, 0, envelope, sizeof(envelope))};
	if (conn_send(&t->conn, &iov, 1) < 0)
		answer(t, -ECONNRESET);
	else
		conn_read(&t->conn, true);
}

static void dial(struct trial *t)
{
	const struct relay_options *o = t->seat->reach->options;
	struct endpoint to;

	cluster_endpoint_at(&o->cluster[t->want.side], &t->want.replica, &to);
	t->dial = dial_start(t->seat->loop, &to, o->mark, o->dial_timeout_ms + 1000, on_dialled, t); /* the time limit is ours */
	if (!t->dial)
		answer(t, -EMFILE);
}

static void on_timer(uv_timer_t *timer)
{
	struct trial *t = timer->data;
	unsigned limit = t->seat->reach->options->dial_timeout_ms, passed = (unsigned)((clock_now_ns() - t->begun_ns) / 1000000u);

	MAGIC_CHECK(t, TRIAL_MAGIC);
	if (passed + 1 >= limit) {
		answer(t, -ETIMEDOUT);
		return;
	}
	t->told = true;
	uv_timer_start(&t->timer, on_timer, limit - passed, 0);
	report_failed(t->seat, &t->want, -ETIMEDOUT);
}

void trial_start(struct reach_seat *s, const struct reach_want *want, bool others_wait)
{
	const struct relay_options *o = s->reach->options;
	struct trial *t = s->closed ? NULL : calloc(1, sizeof(*t));
	unsigned first = reach_first_ms(&o->reach), limit = o->dial_timeout_ms;

	if (!t) {
		report_failed(s, want, -ENOMEM);
		return;
	}
	t->magic = TRIAL_MAGIC;
	t->seat = s;
	t->want = *want;
	t->begun_ns = clock_now_ns();
	t->next = s->trials;
	t->previous = &s->trials;
	if (t->next)
		t->next->previous = &t->next;
	s->trials = t;
	uv_timer_init(s->loop, &t->timer);
	t->timer.data = t;
	t->timer_live = true;
	uv_update_time(s->loop);
	uv_timer_start(&t->timer, on_timer, others_wait && first < limit ? first : limit, 0);
	dial(t);
}

void trials_stop(struct reach_seat *s)
{
	for (struct trial *t = s->trials; t; t = t->next)
		if (!t->over)
			end(t);
}
