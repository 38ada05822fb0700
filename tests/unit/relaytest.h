/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real relay with its threads between two clusters that functions of the test play (v3/v4, any number of connections, one thread
 * each) and clients on blocking sockets. One relay at a time; everything is static to the test that includes this.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/segment.h"
#include "mirror/mirror.h"
#include "mirror/recovery.h"
#include "relay/session.h"

#define ROOM (1u << 20)
#define PEERS 256

/* ---- a cluster */

struct peer {
	struct cluster_play *cluster;
	int fd;
	pthread_t thread;
	bool lz4; /* v5: of its segments */
};

struct cluster_play {
	int listener;
	struct addr addr;
	/* Answers one request: whole envelopes into `to`; their size, 0 = says nothing, −1 = closes the connection. */
	ssize_t (*answer)(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to);
	pthread_t thread;
	struct peer peer[PEERS];
	_Atomic unsigned count;
	_Atomic unsigned truncates, writes, options;
	_Atomic bool hold, hold_writes; /* TRUNCATE, INSERT are answered only when it is false */
};

static inline bool receive(int fd, uint8_t *to, size_t size)
{
	for (size_t have = 0; have < size;) {
		ssize_t n = recv(fd, to + have, size - have, 0);

		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return true;
}

static bool speak_v5; /* of the clusters that are started from here on */

static inline bool send_segment(int fd, bool lz4, const uint8_t *payload, size_t size)
{
	uint8_t segment[8192];
	size_t at = segment_header_write(segment, lz4, (uint32_t)size, true);

	if (size > sizeof(segment) - 16)
		abort();
	memcpy(segment + at, payload, size);
	segment_trailer_write(segment + at + size, segment_crc32(payload, size));
	return send(fd, segment, at + size + SEGMENT_TRAILER, MSG_NOSIGNAL) == (ssize_t)(at + size + SEGMENT_TRAILER);
}

/* The payload of one segment, decompressed, into `to`; its size, or −1. `room`: for the segment as it comes. */
static inline ssize_t receive_segment(int fd, bool lz4, uint8_t *to, uint8_t *room)
{
	size_t head = lz4 ? SEGMENT_HEADER_LZ4 : SEGMENT_HEADER_PLAIN;
	struct segment s;

	if (!receive(fd, room, head))
		return -1;
	if (segment_header_read(room, head, lz4, &s) != (int)head || !receive(fd, room + head, s.wire_size - head) ||
	    segment_payload_check(room, &s) < 0 || (s.plain_size && segment_decompress(room + head, &s, to) < 0))
		abort();
	if (!s.plain_size)
		memcpy(to, room + head, s.payload_size);
	return s.plain_size ? s.plain_size : s.payload_size;
}

/* The envelopes of one segment, each answered in one of its own. */
static inline bool peer_segment(struct peer *p, uint8_t *payload, uint8_t *to)
{
	ssize_t size = receive_segment(p->fd, p->lz4, payload, to);
	struct frame_header h;

	for (ssize_t at = 0; at < size; at += FRAME_HEADER_SIZE + h.length) {
		ssize_t n;

		if (frame_header_read(payload + at, (size_t)(size - at), &h) <= 0)
			abort();
		n = p->cluster->answer(p, &h, payload + at + FRAME_HEADER_SIZE, to);
		if (n < 0 || (n > 0 && !send_segment(p->fd, p->lz4, to, (size_t)n)))
			return false;
	}
	return size > 0;
}

static inline void *peer_run(void *argument)
{
	struct peer *p = argument;
	uint8_t *body = malloc(ROOM), *to = malloc(ROOM), header[FRAME_HEADER_SIZE];
	struct frame_header h;

	while (receive(p->fd, header, sizeof(header)) && frame_header_read(header, sizeof(header), &h) > 0 && h.length <= ROOM &&
	       receive(p->fd, body, h.length)) {
		ssize_t n;

		struct span name;

		if (h.version > 4 && !speak_v5) /* the mirror begins with v5 */
			n = response_write_error(4, h.stream, CQL_PROTOCOL_ERROR, "Invalid or unsupported protocol version", to, ROOM);
		else
			n = p->cluster->answer(p, &h, body, to);
		if (n < 0 || (n > 0 && send(p->fd, to, (size_t)n, MSG_NOSIGNAL) != n))
			break;
		if (speak_v5 && h.version > 4 && h.opcode == OP_STARTUP && to[4] == OP_READY) {
			p->lz4 = startup_option(span_of(body, h.length), "COMPRESSION", &name);
			while (peer_segment(p, body, to))
				;
			break;
		}
	}
	shutdown(p->fd, SHUT_RDWR);
	free(body);
	free(to);
	return NULL;
}

static inline void *cluster_run(void *argument)
{
	struct cluster_play *c = argument;
	int fd;

	while ((fd = accept(c->listener, NULL, NULL)) >= 0) {
		struct peer *p = &c->peer[atomic_load(&c->count)];

		if (p == &c->peer[PEERS])
			abort();
		*p = (struct peer){.cluster = c, .fd = fd};
		/* Counted before it can answer: who has had an answer finds it. */
		atomic_fetch_add(&c->count, 1);
		pthread_create(&p->thread, NULL, peer_run, p);
	}
	return NULL;
}

static inline void cluster_start(struct cluster_play *c, ssize_t (*answer)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *))
{
	socklen_t size = sizeof(c->addr.in);

	memset(c, 0, sizeof(*c));
	c->answer = answer;
	c->listener = socket(AF_INET, SOCK_STREAM, 0);
	c->addr.in.sin_family = AF_INET;
	c->addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(c->listener, &c->addr.sa, sizeof(c->addr.in)), 0);
	assert_int_equal(listen(c->listener, 64), 0);
	getsockname(c->listener, &c->addr.sa, &size);
	pthread_create(&c->thread, NULL, cluster_run, c);
}

static inline void cluster_stop(struct cluster_play *c)
{
	shutdown(c->listener, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(c->listener);
	for (unsigned i = 0; i < atomic_load(&c->count); i++) {
		shutdown(c->peer[i].fd, SHUT_RDWR);
		pthread_join(c->peer[i].thread, NULL);
		close(c->peer[i].fd);
	}
}

static inline ssize_t say(const struct frame_header *h, uint8_t opcode, const void *body, size_t size, uint8_t *to)
{
	struct frame_header own = {.version = h->version, .response = true, .stream = h->stream, .opcode = opcode, .length = (uint32_t)size};

	frame_header_write(to, &own);
	if (size)
		memcpy(to + FRAME_HEADER_SIZE, body, size);
	return (ssize_t)(FRAME_HEADER_SIZE + size);
}

static inline bool contains(const struct frame_header *h, const uint8_t *body, const char *needle)
{
	return memmem(body, h->length, needle, strlen(needle)) != NULL;
}

static inline ssize_t plain_answer(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct cluster_play *c = p->cluster;

	switch (h->opcode) {
	case OP_STARTUP:
	case OP_REGISTER:
		return say(h, OP_READY, NULL, 0, to);
	case OP_OPTIONS:
		atomic_fetch_add(&c->options, 1);
		return say(h, OP_SUPPORTED, "\0\0", 2, to);
	case OP_QUERY:
		if (contains(h, body, "TRUNCATE")) {
			while (atomic_load(&c->hold))
				usleep(1000);
			atomic_fetch_add(&c->truncates, 1);
		} else if (contains(h, body, "INSERT")) {
			while (atomic_load(&c->hold_writes))
				usleep(1000);
			atomic_fetch_add(&c->writes, 1);
		}
		return response_write_void(h->version, h->stream, to, ROOM);
	case OP_AUTH_RESPONSE:
		return say(h, OP_AUTH_SUCCESS, "\xff\xff\xff\xff", 4, to);
	default:
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "?", to, ROOM);
	}
}

/* ---- the agent */

static struct cluster_play origin, target;
static struct cluster_play *second_node; /* of the target; NULL = it has one */

/* Says which cluster it is behind an empty result. */
static inline ssize_t names_itself(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode == OP_QUERY && contains(h, body, "system."))
		return say(h, OP_RESULT, p->cluster == &origin ? "\0\0\0\1o" : "\0\0\0\1t", 5, to);
	return plain_answer(p, h, body, to);
}

static struct relay relay;
static struct mirror mirror;

static size_t small_budget; /* 0 = enough */
static unsigned retain_ms;
static unsigned refused_attempts = 9;
static uint64_t late_ns;
static uint64_t acknowledge_ns; /* 0 = acknowledgement: journal */
static struct reach_options reach_options; /* of the agents that are started from here on */
static bool configured_auth;
static const char *username = "", *password = ""; /* for both clusters */
static const char *state_directory = ""; /* of the mirror: where its journal is */

static inline void agent_start(unsigned workers, const struct course *course)
{
	struct error error = {""};

	memset(&relay, 0, sizeof(relay));
	relay.options = (struct relay_options){.workers = workers, .sessions_max = 100, .requests_max = 1000, .session_requests_max = 100,
					       .frame_max = 1 << 20, .dial_timeout_ms = 300, .stop_ms = 300, .freeze_topology = true, .reach = reach_options,
					       .acknowledge_both = acknowledge_ns != 0, .configured_auth = configured_auth,
					       .state_directory = ""};
	relay.options.explicit_listen.in.sin_family = AF_INET;
	relay.options.explicit_listen.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	relay.options.cluster[ORIGIN] = (struct cluster){.nodes = {origin.addr}, .node_count = 1, .username = username, .password = password};
	relay.options.cluster[TARGET] = (struct cluster){.nodes = {target.addr}, .node_count = 1, .username = username, .password = password};
	if (second_node)
		relay.options.cluster[TARGET].nodes[relay.options.cluster[TARGET].node_count++] = second_node->addr;
	relay.course = *course;
	assert_int_equal(mirror_open(&mirror, &relay,
				     &(struct mirror_options){.budget = small_budget ? small_budget : 8u << 20, .retain_ms = retain_ms, .refused_attempts = refused_attempts,
							      .late_ns = late_ns, .acknowledge_ns = acknowledge_ns, .consistency = {-1, -1}, .sync = JOURNAL_SYNC_NONE,
							      .state_directory = state_directory},
				     &(struct recovery_found){0}, &error), 0);
	assert_int_equal(relay_start(&relay, &mirror_tap, &mirror, &error), 0);
	assert_int_equal(relay_set_course(&relay, course, NULL, NULL), 0);
	relay_serve(&relay);
}

static inline void agent_stop(void)
{
	mirror_stop(&mirror);
	relay_stop(&relay);
	relay_done(&relay);
	mirror_close(&mirror);
	cluster_stop(&origin);
	cluster_stop(&target);
}

static inline void set(void *context)
{
	atomic_store((_Atomic bool *)context, true);
}

static inline void change_course(const struct course *course)
{
	_Atomic bool done = false;

	assert_int_equal(relay_set_course(&relay, course, set, (void *)&done), 0);
	for (int i = 0; i < 5000 && !atomic_load(&done); i++)
		usleep(1000);
	assert_true(atomic_load(&done));
}

/* ---- a client */

static inline int client_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {.tv_sec = 5};

	assert_int_equal(connect(fd, &relay.options.explicit_listen.sa, sizeof(relay.options.explicit_listen.in)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static inline void client_send(int fd, uint8_t opcode, int16_t stream, const void *body, size_t size)
{
	struct frame_header h = {.version = 4, .stream = stream, .opcode = opcode, .length = (uint32_t)size};
	uint8_t envelope[2048];

	frame_header_write(envelope, &h);
	memcpy(envelope + FRAME_HEADER_SIZE, size ? body : "", size);
	assert_int_equal(send(fd, envelope, FRAME_HEADER_SIZE + size, MSG_NOSIGNAL), FRAME_HEADER_SIZE + size);
}

static inline void client_query(int fd, int16_t stream, const char *text)
{
	uint8_t envelope[2048];
	ssize_t n = request_write_query(4, stream, span_text(text), CL_ONE, envelope, sizeof(envelope));

	assert_true(n > 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
}

/* The next answer, within 5 s; its opcode. −1 = none. */
static inline int client_receive(int fd, struct frame_header *h, uint8_t body[ROOM])
{
	uint8_t header[FRAME_HEADER_SIZE];

	if (!receive(fd, header, sizeof(header)) || frame_header_read(header, sizeof(header), h) < 0 || h->length > ROOM ||
	    !receive(fd, body, h->length))
		return -1;
	return h->opcode;
}

static uint8_t answer_body[ROOM];

static inline int expect(int fd, int16_t stream)
{
	struct frame_header h;
	int opcode = client_receive(fd, &h, answer_body);

	if (opcode >= 0)
		assert_int_equal(h.stream, stream);
	return opcode;
}

static const uint8_t startup[] = "\0\1\0\13CQL_VERSION\0\0053.0.0";

static inline int client_open(void)
{
	int fd = client_connect();

	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_READY);
	return fd;
}

static inline int client_challenged(void)
{
	int fd = client_connect();

	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_AUTHENTICATE);
	return fd;
}

static inline int client_login(void)
{
	int fd = client_challenged();

	client_send(fd, OP_AUTH_RESPONSE, 2, "\0\0\0\4\0a\0b", 8);
	assert_int_equal(expect(fd, 2), OP_AUTH_SUCCESS);
	return fd;
}

/* Prepares; the id that it is told, of `id_size` bytes, in `id`. */
static inline struct span client_prepare(int fd, const char *text, uint8_t *id, size_t id_size)
{
	uint8_t envelope[1024];
	ssize_t n = request_write_prepare(4, 5, span_text(text), span_of(NULL, 0), envelope, sizeof(envelope));
	struct frame_header h = {0};
	struct prepared_result r;

	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(client_receive(fd, &h, answer_body), OP_RESULT);
	assert_int_equal(h.stream, 5);
	assert_int_equal(result_prepared_parse(4, span_of(answer_body, h.length), &r), 0);
	assert_int_equal(r.id.size, id_size);
	memcpy(id, r.id.data, id_size);
	return span_of(id, id_size);
}

static inline bool wait_for(_Atomic unsigned *what, unsigned value)
{
	for (int i = 0; i < 5000 && atomic_load(what) < value; i++)
		usleep(1000);
	return atomic_load(what) == value;
}
