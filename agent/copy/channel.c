// SPDX-License-Identifier: Apache-2.0
#include "copy/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/magic.h"
#include "cql/request.h"
#include "cql/response.h"
#include "net/conn.h"
#include "net/dial.h"
#include "relay/session.h"

#define CHANNEL_MAGIC 0xC0B41111u
#define VERSION 4
#define TOKEN_MAX 512u
#define KEEP_MAX (256u << 10) /* a larger buffer is given back once it is empty */

enum channel_state {
	CHANNEL_DIALING,
	CHANNEL_STARTUP,
	CHANNEL_AUTH,
	CHANNEL_PREPARE,
	CHANNEL_UP,
	CHANNEL_GONE
};

struct slot {
	bool busy;
	struct channel_request *request; /* NULL while busy: given up, its answer is still to come */
	uint64_t sent_ns;
};

struct channel {
	uint32_t magic;
	enum channel_state state;
	struct conn conn;
	struct dial *dial;
	uv_loop_t *loop;
	const struct channel_settings *settings;
	const struct channel_ops *ops;
	void *owner;
	uint64_t deadline_ns; /* of the way up */
	uint64_t heard_ns;    /* when bytes came last */

	struct slot slots[CHANNEL_STREAMS];
	int16_t spare[CHANNEL_STREAMS]; /* free stream ids, a stack */
	unsigned spare_count;

	struct bytes left; /* bytes that were received and not taken */
	bool in_body;
	struct frame_header head;
	uint32_t body_left;

	struct bytes prepared; /* PREPARED body */
	struct span prepared_id;
	char reason[512];
};

static void channel_free(struct channel *l)
{
	l->magic = 0;
	bytes_done(&l->left);
	bytes_done(&l->prepared);
	free(l);
}

static void fail_requests(struct channel *l, int error)
{
	for (unsigned i = 0; i < CHANNEL_STREAMS; i++) {
		struct channel_request *r = l->slots[i].request;

		l->slots[i] = (struct slot){0};
		if (r)
			r->failed(r, error);
	}
}

/* Ends it for good; the owner is told unless it asked for it. */
static void go(struct channel *l, int error, bool tell)
{
	enum channel_state before = l->state;

	if (before == CHANNEL_GONE)
		return;
	l->state = CHANNEL_GONE;
	dial_cancel(l->dial);
	l->dial = NULL;
	fail_requests(l, error);
	if (tell)
		l->ops->changed(l->owner, l, error, l->reason);
	if (before == CHANNEL_DIALING)
		channel_free(l);
	else
		conn_close(&l->conn);
}

static int16_t spare_take(struct channel *l)
{
	return l->spare[--l->spare_count];
}

static void spare_give(struct channel *l, int16_t stream)
{
	l->slots[stream] = (struct slot){0};
	l->spare[l->spare_count++] = stream;
}

bool channel_ready(const struct channel *l)
{
	return l->state == CHANNEL_UP && l->spare_count > 0 && !conn_congested(&l->conn);
}

unsigned channel_inflight(const struct channel *l)
{
	return CHANNEL_STREAMS - l->spare_count;
}

struct span channel_prepared_id(const struct channel *l)
{
	return l->prepared_id;
}

struct span channel_prepared_body(const struct channel *l)
{
	return bytes_span(&l->prepared);
}

static int send_bytes(struct channel *l, const uint8_t *data, ssize_t size)
{
	struct iovec iov = {(void *)data, (size_t)size};

	return size < 0 ? (int)size : conn_send(&l->conn, &iov, 1);
}

int channel_send(struct channel *l, struct channel_request *r, uint8_t *envelope, size_t size)
{
	int rc;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	if (!channel_ready(l))
		return -EAGAIN;
	r->stream = spare_take(l);
	l->slots[r->stream] = (struct slot){.busy = true, .request = r, .sent_ns = clock_now_ns()};
	store_be16(envelope + 2, (uint16_t)r->stream);
	rc = send_bytes(l, envelope, (ssize_t)size);
	if (rc < 0)
		spare_give(l, r->stream); /* the loop will report the broken connection */
	else
		r->sent = true;
	return rc;
}

/* ------------------------------------------------------------- the way up */

static int give_up(struct channel *l, int error, const char *what, struct span detail)
{
	snprintf(l->reason, sizeof(l->reason), "%s%s%.*s", what, detail.size ? ": " : "",
		 (int)(detail.size < 300 ? detail.size : 300), (const char *)detail.data);
	return error;
}

static int send_startup(struct channel *l)
{
	static const char *const options[] = {
	    "CQL_VERSION", "3.0.0", "DRIVER_NAME", "cqlferry copy", "DRIVER_VERSION", CQLFERRY_VERSION, NULL};
	uint8_t envelope[256];

	l->state = CHANNEL_STARTUP;
	return send_bytes(l, envelope,
			  request_write_startup(VERSION, 0, options, envelope, sizeof(envelope)));
}

static int send_prepare(struct channel *l)
{
	size_t room = strlen(l->settings->prepare) + 64;
	uint8_t *envelope = malloc(room);
	int rc;

	if (!envelope)
		return -ENOMEM;
	l->state = CHANNEL_PREPARE;
	rc = send_bytes(l, envelope,
			request_write_prepare(VERSION, 0, span_text(l->settings->prepare), (struct span){0},
					      envelope, room));
	free(envelope);
	return rc;
}

static int send_token(struct channel *l, struct span token)
{
	uint8_t envelope[TOKEN_MAX + 64];
	int rc;

	l->state = CHANNEL_AUTH;
	rc = send_bytes(l, envelope, request_write_auth(VERSION, 0, token, envelope, sizeof(envelope)));
	explicit_bzero(envelope, sizeof(envelope));
	return rc;
}

static int send_password(struct channel *l)
{
	uint8_t token[TOKEN_MAX];
	ssize_t n;
	int rc;

	if (!l->settings->username || !*l->settings->username)
		return give_up(l, -ENOKEY, "a login is wanted: --username and a password", (struct span){0});
	n = sasl_plain(l->settings->username, l->settings->password ? l->settings->password : "", token,
		       sizeof(token));
	if (n < 0)
		return give_up(l, -EACCES, "user name and password are too long", (struct span){0});
	rc = send_token(l, span_of(token, (size_t)n));
	explicit_bzero(token, sizeof(token));
	return rc;
}

static int now_up(struct channel *l)
{
	l->state = CHANNEL_UP;
	l->ops->changed(l->owner, l, 0, "");
	return 0;
}

static int logged_in(struct channel *l)
{
	return l->settings->prepare ? send_prepare(l) : now_up(l);
}

static int take_prepared(struct channel *l, struct span body)
{
	struct prepared_result p;

	bytes_put(&l->prepared, body.data, body.size);
	if (l->prepared.failed)
		return -ENOMEM;
	if (result_prepared_parse(VERSION, bytes_span(&l->prepared), &p) < 0)
		return give_up(l, -EPROTO, "malformed answer to PREPARE", (struct span){0});
	l->prepared_id = p.id;
	return now_up(l);
}

/* An answer on the way up, whole. */
static int step(struct channel *l, const struct frame_header *head, struct span body)
{
	int64_t skip = response_prefix(head->flags, body);
	struct response_error e;

	if (skip < 0)
		return give_up(l, -EPROTO, "malformed answer", (struct span){0});
	body = span_of(body.data + skip, body.size - (size_t)skip);
	if (head->opcode == OP_ERROR) {
		if (response_error_parse(body, &e) < 0)
			return give_up(l, -EPROTO, "malformed ERROR", (struct span){0});
		return give_up(l,
			       e.code == CQL_BAD_CREDENTIALS ? -EACCES
			       : l->state == CHANNEL_PREPARE ? -EINVAL
							     : -EREMOTEIO,
			       l->state == CHANNEL_PREPARE ? "the statement is refused"
							   : "the login is refused",
			       e.message);
	}
	if (l->state == CHANNEL_STARTUP && head->opcode == OP_READY)
		return logged_in(l);
	if (l->state == CHANNEL_STARTUP && head->opcode == OP_AUTHENTICATE)
		return authenticate_wants_mechanism(body) ? send_token(l, span_text("PLAIN")) : send_password(l);
	if (l->state == CHANNEL_AUTH && head->opcode == OP_AUTH_CHALLENGE)
		return send_password(l);
	if (l->state == CHANNEL_AUTH && head->opcode == OP_AUTH_SUCCESS)
		return logged_in(l);
	if (l->state == CHANNEL_PREPARE && head->opcode == OP_RESULT)
		return take_prepared(l, body);
	return give_up(l, -EPROTO, "unexpected answer", span_text(opcode_name(head->opcode)));
}

/* ------------------------------------------------------------- answers */

/* Bytes of the body in hand. Taken, or −errno. */
static ssize_t take_body(struct channel *l, struct span body, bool whole)
{
	struct channel_request *r;
	int16_t stream = l->head.stream;
	ssize_t n;

	if (l->state != CHANNEL_UP) {
		int rc = whole ? step(l, &l->head, body) : 0;

		return rc < 0 ? rc : whole ? (ssize_t)body.size : 0;
	}
	if (stream < 0) /* an event, though none was asked for */
		return (ssize_t)body.size;
	if (stream >= CHANNEL_STREAMS || !l->slots[stream].busy)
		return give_up(l, -EPROTO, "an answer that nobody asked for", (struct span){0});
	r = l->slots[stream].request;
	if (!whole)
		return r ? r->answer(r, &l->head, body, false) : (ssize_t)body.size;
	spare_give(l, stream);
	n = r ? r->answer(r, &l->head, body, true) : 0;
	if (n >= 0 && l->state == CHANNEL_UP)
		l->ops->room(l->owner, l);
	return n < 0 ? n : (ssize_t)body.size;
}

/* All that can be taken of these bytes. How many were, or −errno. */
static ssize_t take_bytes(struct channel *l, struct span in)
{
	size_t at = 0;

	while (l->state != CHANNEL_GONE) {
		size_t have = in.size - at;

		if (!l->in_body) {
			int n = frame_header_read(in.data + at, have, &l->head);

			if (n == CQL_INCOMPLETE)
				break;
			if (n < 0 || !l->head.response)
				return give_up(l, -EPROTO,
					       "this is not CQL (is it the CQL port?)",
					       (struct span){0});
			if (l->head.flags & FRAME_COMPRESSED)
				return give_up(l, -EPROTO, "compressed, although that was not agreed",
					       (struct span){0});
			at += (size_t)n;
			l->in_body = true;
			l->body_left = l->head.length;
			continue;
		}
		bool whole = have >= l->body_left;
		struct span body = span_of(in.data + at, whole ? l->body_left : have);
		ssize_t taken = take_body(l, body, whole);

		if (taken < 0)
			return taken;
		if (whole)
			taken = (ssize_t)body.size;
		at += (size_t)taken;
		l->body_left -= (uint32_t)taken;
		l->in_body = !whole;
		if (!whole)
			break; /* the rest needs bytes that are not there */
	}
	return (ssize_t)at;
}

/* Received bytes stand in the thread's scratch, behind those that were left; a long piece in a buffer of the
 * channel's own. */
static ssize_t receive(struct channel *l)
{
	uint8_t *room = l->settings->scratch;
	size_t old = l->left.size;
	bool own = old > CHANNEL_READ / 2;
	ssize_t n, taken;

	if (own) {
		if (old > CHANNEL_PIECE_MAX)
			return give_up(l, -EMSGSIZE, "a row of more than 32 MiB", (struct span){0});
		room = bytes_room(&l->left, CHANNEL_READ);
		if (!room)
			return -ENOMEM;
		n = conn_recv(&l->conn, room, CHANNEL_READ);
		room = l->left.data;
	} else {
		if (old)
			memcpy(room, l->left.data, old);
		n = conn_recv(&l->conn, room + old, CHANNEL_READ - old);
	}
	if (n <= 0)
		return n == 0 ? -ECONNRESET : n;
	l->heard_ns = clock_now_ns();
	taken = take_bytes(l, span_of(room, old + (size_t)n));
	if (taken < 0 || l->state == CHANNEL_GONE)
		return taken < 0 ? taken : n;
	size_t rest = old + (size_t)n - (size_t)taken;

	if (own) {
		memmove(l->left.data, l->left.data + taken, rest);
		l->left.size = rest;
	} else {
		l->left.size = 0;
		bytes_put(&l->left, room + taken, rest);
	}
	if (rest == 0 && l->left.room > KEEP_MAX)
		bytes_done(&l->left);
	return l->left.failed ? -ENOMEM : n;
}

/* TLS knows better than errno: that our certificate is not liked, for one, is said only behind the handshake. */
static void lose(struct channel *l, int error)
{
	const char *why = stream_reason(&l->conn.stream);

	if (why && !*l->reason)
		give_up(l, error, why, (struct span){0});
	go(l, error, true);
}

static void on_readable(struct conn *conn)
{
	struct channel *l = conn->owner;
	ssize_t n = 1;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	/* A few reads, then the others' turn. */
	for (int i = 0; i < 4 && l->state != CHANNEL_GONE; i++) {
		n = receive(l);
		if (n <= 0)
			break;
	}
	if (n < 0 && n != -EAGAIN)
		lose(l, (int)n);
}

static void on_drained(struct conn *conn)
{
	struct channel *l = conn->owner;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	if (l->state == CHANNEL_UP)
		l->ops->room(l->owner, l);
}

static void on_failed(struct conn *conn, int error)
{
	struct channel *l = conn->owner;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	lose(l, error);
}

static void on_closed(struct conn *conn)
{
	struct channel *l = conn->owner;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	channel_free(l);
}

static const struct conn_ops conn_callbacks = {
    .readable = on_readable, .drained = on_drained, .failed = on_failed, .closed = on_closed};

static void on_dialled(void *context, struct dial_result *result)
{
	struct channel *l = context;
	int rc;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	l->dial = NULL;
	if (result->error < 0) {
		give_up(l, 0, result->reason, (struct span){0});
		/* Whoever does not speak TLS there need not be the node: there is no way to it, that is all. */
		go(l, result->error == -EPROTO ? -EHOSTUNREACH : result->error, true);
		return;
	}
	rc = conn_init(&l->conn, l->loop, result->stream, &conn_callbacks, l);
	if (rc < 0) {
		stream_close(&result->stream);
		go(l, rc, true);
		return;
	}
	conn_read(&l->conn, true);
	l->deadline_ns = clock_now_ns() + l->settings->connect_ms * 1000000ull;
	rc = send_startup(l);
	if (rc < 0)
		go(l, rc, true);
}

struct channel *channel_new(uv_loop_t *loop, const struct endpoint *to,
			    const struct channel_settings *settings, const struct channel_ops *ops,
			    void *owner)
{
	struct channel *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct channel){
	    .magic = CHANNEL_MAGIC, .loop = loop, .settings = settings, .ops = ops, .owner = owner};
	for (unsigned i = 0; i < CHANNEL_STREAMS; i++)
		l->spare[l->spare_count++] = (int16_t)(CHANNEL_STREAMS - 1 - i);
	l->deadline_ns = UINT64_MAX;
	l->dial = dial_start(loop, to, 0, settings->connect_ms, on_dialled, l);
	if (!l->dial) {
		channel_free(l);
		return NULL;
	}
	return l;
}

void channel_tick(struct channel *l, uint64_t now_ns)
{
	unsigned orphans = 0;

	MAGIC_CHECK(l, CHANNEL_MAGIC);
	if (l->state != CHANNEL_UP) {
		if (l->state != CHANNEL_GONE && now_ns > l->deadline_ns)
			go(l, give_up(l, -ETIMEDOUT, "no answer to the login", (struct span){0}), true);
		return;
	}
	for (unsigned i = 0; i < CHANNEL_STREAMS; i++) {
		struct channel_request *r = l->slots[i].request;

		if (r && now_ns > r->deadline_ns) {
			/* Not a byte since it was asked: the node is gone without a word, and the others that
			 * wait here need not find that out one by one. */
			bool silent = l->heard_ns < l->slots[i].sent_ns;

			l->slots[i].request = NULL;
			r->failed(r, -ETIMEDOUT);
			if (silent && l->state == CHANNEL_UP)
				go(l, give_up(l, -ETIMEDOUT, "no answers", (struct span){0}), true);
			if (l->state != CHANNEL_UP)
				return;
		}
		orphans += l->slots[i].busy && !l->slots[i].request;
	}
	/* Nothing that is still waited for would find out whether it answers at all, and given up ones take the
	 * places of others: with few requests at once (MAXREQUESTS) all of them, and nothing would be asked again. */
	if (orphans && orphans == channel_inflight(l))
		go(l, give_up(l, -ETIMEDOUT, "no answers", (struct span){0}), true);
}

void channel_close(struct channel *l)
{
	if (!l)
		return;
	MAGIC_CHECK(l, CHANNEL_MAGIC);
	go(l, -ECANCELED, false);
}
