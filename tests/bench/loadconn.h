/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loadconn.h - one connection of the load generator: handshake, requests, and what is made of each answer.
 *
 *   CONNECTING → OPTIONS → STARTUP → (AUTH) → (USE) → PREPARE → RUNNING            any → CLOSED
 *                                      with --idle: └──────────▶ RUNNING
 *
 * In RUNNING each answer is checked, timed, and followed by the next request of its stream until the load
 * stops. What a turn of the loop gives rise to is sent by one send(): in v5 as one segment.
 */
#ifndef BENCH_LOADCONN_H
#define BENCH_LOADCONN_H

#include "histogram.h"
#include "loadoptions.h"
#include "wire.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { READ_MAX = 256 << 10, HANDSHAKES_MAX = 64 };

enum state {
	CONN_CONNECTING,
	CONN_OPTIONS,
	CONN_STARTUP,
	CONN_AUTH,
	CONN_USE,
	CONN_PREPARE,
	CONN_RUNNING,
	CONN_CLOSED
};

struct conn {
	int fd;
	enum state state;
	struct load *load;
	struct deframer in;
	struct buf out;
	size_t sent;
	bool want_write;
	uint64_t *started; /* ns by stream, 0: nothing in flight */
	int inflight;
	uint8_t id[64], metadata_id[64];
	size_t id_n, metadata_id_n;
};

/* What one thread does. */
struct load {
	int epoll, first, count; /* connections [first, first + count) */
	struct conn *conns;
	uint8_t *read;
	struct buf frames; /* requests of this turn, before they go into segments */
	uint64_t *histogram, measured, done, errors, min, max, sum, limit, random;
	uint64_t begin, end; /* of what is measured, ns */
	int opening, ready, lost;
	bool stop;
	char first_error[256];
};

static char statement[256];
static uint8_t *value; /* cfg.bytes */

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ requests */
static inline uint32_t random_key(struct load *l)
{
	l->random ^= l->random << 13;
	l->random ^= l->random >> 7;
	l->random ^= l->random << 17;
	return (uint32_t)(l->random % (uint64_t)cfg.keys);
}

/* <query_parameters> without values: consistency and flags. */
static inline void put_parameters(struct buf *b, uint32_t flags)
{
	put16(b, cfg.op == LOAD_READ ? 1 : 6); /* ONE, LOCAL_QUORUM */
	if (cfg.protocol >= 5)
		put32(b, flags);
	else
		put8(b, flags);
}

static inline void put_timestamp(struct buf *b)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	put64(b, (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000);
}

static inline void put_values(struct buf *b, uint32_t key, bool with_value)
{
	put16(b, with_value ? 2 : 1);
	put32(b, 4);
	put32(b, key);
	if (with_value)
		put_bytes(b, value, cfg.bytes);
}

static inline void put_request(struct conn *c, struct buf *b, int stream)
{
	uint32_t stamp = cfg.timestamps && cfg.op != LOAD_READ ? 0x20 : 0;
	size_t mark = frame_begin(b, cfg.protocol, stream, cfg.op == LOAD_BATCH ? OP_BATCH : OP_EXECUTE);

	if (cfg.op == LOAD_BATCH) {
		put8(b, 0); /* logged */
		put16(b, (uint32_t)cfg.batch_size);
		for (int i = 0; i < cfg.batch_size; i++) {
			put8(b, 1);
			put_short_bytes(b, c->id, c->id_n);
			put_values(b, random_key(c->load), true);
		}
		put_parameters(b, stamp);
	} else {
		put_short_bytes(b, c->id, c->id_n);
		if (cfg.protocol >= 5)
			put_short_bytes(b, c->metadata_id, c->metadata_id_n);
		put_parameters(b, 0x01 | 0x02 | stamp); /* values, skip metadata: what every driver sends */
		put_values(b, random_key(c->load), cfg.op == LOAD_WRITE);
	}
	if (stamp)
		put_timestamp(b);
	frame_end(b, mark);
}

static inline void put_query(struct buf *b, const char *text)
{
	size_t mark = frame_begin(b, cfg.protocol, 0, OP_QUERY);

	put_long_string(b, text);
	put_parameters(b, 0);
	frame_end(b, mark);
}

/* ------------------------------------------------------------------ connections */
static inline struct buf *requests(struct conn *c)
{
	return c->in.segmented ? &c->load->frames : &c->out;
}

static inline void conn_close(struct conn *c, const char *why)
{
	struct load *l = c->load;

	if (!l->first_error[0])
		snprintf(l->first_error, sizeof l->first_error, "%s", why);
	l->errors++;
	l->lost++;
	l->opening -= c->state < CONN_RUNNING;
	l->frames.n = 0;
	c->state = CONN_CLOSED;
	close(c->fd);
	c->fd = -1;
}

/* Sends what the turn has gathered. */
static inline void conn_flush(struct conn *c)
{
	struct buf *frames = &c->load->frames;
	struct epoll_event ev = {.data.ptr = c};
	ssize_t n = 0;

	if (frames->n) {
		put_segments(&c->out, frames->p, frames->n);
		frames->n = 0;
	}
	while (c->sent < c->out.n) {
		n = send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);
		if (n < 0)
			break;
		c->sent += (size_t)n;
	}
	if (n < 0 && errno != EAGAIN) {
		conn_close(c, strerror(errno));
		return;
	}
	if (c->sent == c->out.n)
		c->sent = c->out.n = 0;
	if (c->want_write != (c->out.n > 0)) {
		c->want_write = c->out.n > 0;
		ev.events = EPOLLIN | (c->want_write ? EPOLLOUT : 0u);
		epoll_ctl(c->load->epoll, EPOLL_CTL_MOD, c->fd, &ev);
	}
}

static inline void conn_ready(struct conn *c)
{
	c->state = CONN_RUNNING;
	c->load->opening--;
	c->load->ready++;
}

static inline void handshake_next(struct conn *c)
{
	struct buf *b = requests(c);
	size_t mark;
	char use[128];

	if (c->state < CONN_USE && cfg.keyspace && !cfg.idle) {
		c->state = CONN_USE;
		snprintf(use, sizeof use, "USE %s", cfg.keyspace);
		put_query(b, use);
	} else if (cfg.idle) {
		conn_ready(c);
	} else {
		c->state = CONN_PREPARE;
		mark = frame_begin(b, cfg.protocol, 0, OP_PREPARE);
		put_long_string(b, statement);
		if (cfg.protocol >= 5)
			put32(b, 0);
		frame_end(b, mark);
	}
}

static inline void handshake_auth(struct conn *c)
{
	struct buf *b;
	size_t mark, at;

	c->state = CONN_AUTH;
	c->in.segmented = cfg.protocol >= 5;
	b = requests(c);
	mark = frame_begin(b, cfg.protocol, 0, OP_AUTH_RESPONSE);
	at = b->n;
	put32(b, 0);
	put8(b, 0);
	put(b, cfg.user, strlen(cfg.user));
	put8(b, 0);
	put(b, cfg.password, strlen(cfg.password));
	be32_store(b->p + at, (uint32_t)(b->n - at - 4));
	frame_end(b, mark);
}

static inline void result_prepared(struct conn *c, struct cursor *in)
{
	size_t n;
	const uint8_t *p;

	get32(in);
	p = get_short_bytes(in, &n);
	if (p && n <= sizeof c->id) {
		memcpy(c->id, p, n);
		c->id_n = n;
	}
	if (cfg.protocol >= 5) {
		p = get_short_bytes(in, &n);
		if (p && n <= sizeof c->metadata_id) {
			memcpy(c->metadata_id, p, n);
			c->metadata_id_n = n;
		}
	}
}

static inline void answer_failed(struct conn *c, const struct frame *f)
{
	struct load *l = c->load;

	l->errors++;
	if (!l->first_error[0])
		snprintf(l->first_error, sizeof l->first_error, "opcode 0x%02x%s%.*s", f->opcode,
			 f->held > 6 ? ": " : "", f->held > 6 ? (int)(f->held - 6) : 0,
			 f->held > 6 ? (const char *)f->body + 6 : "");
}

/* The one row that a read must give: <kind><flags><columns>…<1 row><length>. Metadata is skipped, as asked.
 */
static inline bool row_is_right(const struct frame *f)
{
	struct cursor in = {f->body, f->body + f->held, false};
	uint32_t flags, columns;

	if (get32(&in) != RESULT_ROWS)
		return false;
	flags = get32(&in);
	columns = get32(&in);
	if (flags & 0x08) /* v5: metadata changed */
		get(&in, get16(&in));
	if (!(flags & 0x04)) {
		if (flags & 0x01) {
			get(&in, get16(&in));
			get(&in, get16(&in));
		}
		while (columns-- && !in.bad) {
			get(&in, get16(&in));
			get16(&in); /* a blob's type has no parameters */
		}
	}
	return get32(&in) == 1 && get32(&in) == cfg.bytes && !in.bad;
}

static inline void answer_measured(struct conn *c, const struct frame *f)
{
	struct load *l = c->load;
	uint64_t now = now_ns(), took;

	if (f->stream < 0 || f->stream >= cfg.inflight || !c->started[f->stream]) {
		answer_failed(c, f);
		return;
	}
	took = now - c->started[f->stream];
	c->started[f->stream] = 0;
	c->inflight--;
	l->done++;
	if (f->opcode != OP_RESULT || (cfg.op == LOAD_READ && !row_is_right(f)))
		answer_failed(c, f);
	else if (now >= l->begin && now < l->end) {
		l->histogram[bucket_of(took)]++;
		l->measured++;
		l->sum += took;
		l->min = took < l->min ? took : l->min;
		l->max = took > l->max ? took : l->max;
	}
	if (now >= l->end || (l->limit && l->done >= l->limit))
		l->stop = true;
	if (!l->stop) {
		put_request(c, requests(c), f->stream);
		c->started[f->stream] = now_ns();
		c->inflight++;
	}
}

static inline int answer(void *arg, const struct frame *f)
{
	struct conn *c = arg;
	struct cursor in = {f->body, f->body + f->held, false};
	bool result = f->opcode == OP_RESULT;

	if (f->opcode == OP_EVENT)
		return 0;
	if (c->state == CONN_RUNNING) {
		answer_measured(c, f);
		return 0;
	}
	if (c->state == CONN_OPTIONS && f->opcode == OP_SUPPORTED) {
		size_t mark = frame_begin(&c->out, cfg.protocol, 0, OP_STARTUP);

		c->state = CONN_STARTUP;
		put16(&c->out, 3);
		put_string(&c->out, "CQL_VERSION");
		put_string(&c->out, "3.0.0");
		put_string(&c->out, "DRIVER_NAME");
		put_string(&c->out, "cqlload");
		put_string(&c->out, "DRIVER_VERSION");
		put_string(&c->out, "1");
		frame_end(&c->out, mark);
		return 0;
	}
	if (c->state == CONN_STARTUP && f->opcode == OP_AUTHENTICATE && cfg.user) {
		handshake_auth(c);
		return 0;
	}
	if ((c->state == CONN_STARTUP && f->opcode == OP_READY) ||
	    (c->state == CONN_AUTH && f->opcode == OP_AUTH_SUCCESS) || (c->state == CONN_USE && result)) {
		c->in.segmented = cfg.protocol >= 5;
		handshake_next(c);
		return 0;
	}
	if (c->state == CONN_PREPARE && result) {
		result_prepared(c, &in);
		conn_ready(c);
		return 0;
	}
	answer_failed(c, f);
	return -EPROTO;
}

static inline void conn_open(struct load *l, struct conn *c)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
	size_t mark;
	int one = 1;

	c->load = l;
	c->in = (struct deframer){.keep = 8192, .on_frame = answer, .arg = c};
	c->started = calloc((size_t)cfg.inflight, sizeof *c->started);
	c->fd = socket(cfg.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || !c->started)
		die("cannot make a socket: %s", strerror(errno));
	l->opening++;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(c->fd, (struct sockaddr *)&cfg.address, cfg.address_len) && errno != EINPROGRESS) {
		conn_close(c, strerror(errno));
		return;
	}
	c->want_write = true;
	epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev);
	c->state = CONN_OPTIONS;
	mark = frame_begin(&c->out, cfg.protocol, 0, OP_OPTIONS);
	frame_end(&c->out, mark);
}

static inline void conn_turn(struct load *l, struct conn *c, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
		ssize_t n = recv(c->fd, l->read, READ_MAX, 0);
		int err = 0;

		if (!n || (n < 0 && errno != EAGAIN)) {
			conn_close(c, n ? strerror(errno) : "the server closed the connection");
			return;
		}
		if (n > 0)
			err = deframer_feed(&c->in, l->read, (size_t)n);
		if (err) {
			conn_close(c, err == -EBADMSG ? "a checksum of the server is wrong"
						      : "the server broke the protocol");
			return;
		}
	}
	conn_flush(c);
}

#endif
