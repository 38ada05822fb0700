/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent repeats the client's handshake on a connection of its own, so that it can stand in for the primary:
 *
 *   STARTUP (the client's body) ─▶ READY ────────────────┐
 *                               └▶ AUTHENTICATE ─▶ token ─▶ AUTH_SUCCESS ─▶ REGISTER ─▶ USE keyspace ─▶ UP_READY
 *                                        └▶ "PLAIN" ─▶ AUTH_CHALLENGE ─▶ token (DSE)
 *
 * Nothing of it reaches the client. The token is the client's own (pass-through) or the configured role's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cql/request.h"
#include "cql/response.h"
#include "relay/envelope.h"
#include "relay/session.h"
#include "relay/unpack.h"

#define REPLAY_STREAM 0
#define REGISTER_MAX 512u /* the three events of protocols v3 to v5 take 49 bytes; of more the other side is not told */

static void send_envelope(struct upstream *u, const uint8_t *envelope, size_t size)
{
	envelope_send(&u->conn, u->segments, u->compression == COMPRESSION_LZ4, envelope, size);
}

static void send_body(struct upstream *u, uint8_t opcode, const struct span_owned *body)
{
	uint8_t small[2048], *envelope = small;
	struct frame_header h = {.version = u->session->version, .stream = REPLAY_STREAM, .opcode = opcode,
				 .length = (uint32_t)body->size};

	if (body->size + FRAME_HEADER_SIZE > sizeof(small))
		envelope = malloc(body->size + FRAME_HEADER_SIZE);
	if (!envelope)
		return;
	frame_header_write(envelope, &h);
	if (body->size)
		memcpy(envelope + FRAME_HEADER_SIZE, body->data, body->size);
	send_envelope(u, envelope, FRAME_HEADER_SIZE + body->size);
	if (envelope != small)
		free(envelope);
	explicit_bzero(small, sizeof(small));
}

static int send_token(struct upstream *u)
{
	struct session *s = u->session;
	const struct relay_options *o = &s->worker->relay->options;
	const struct cluster *cluster = &o->cluster[u->side];
	uint8_t token[512], envelope[600];
	ssize_t n;

	if (!o->configured_auth) {
		struct span_owned body = {envelope, 0};
		uint32_t size = (uint32_t)s->token.size;

		if (!s->token.data || s->token.size + 4 > sizeof(envelope))
			return -EACCES;
		envelope[0] = (uint8_t)(size >> 24);
		envelope[1] = (uint8_t)(size >> 16);
		envelope[2] = (uint8_t)(size >> 8);
		envelope[3] = (uint8_t)size;
		memcpy(envelope + 4, s->token.data, s->token.size);
		body.size = size + 4;
		send_body(u, OP_AUTH_RESPONSE, &body);
		explicit_bzero(envelope, sizeof(envelope));
		return 0;
	}
	n = sasl_plain(cluster->username, cluster->password, token, sizeof(token));
	if (n < 0)
		return -EACCES;
	n = request_write_auth(s->version, REPLAY_STREAM, span_of(token, (size_t)n), envelope, sizeof(envelope));
	if (n > 0)
		send_envelope(u, envelope, (size_t)n);
	explicit_bzero(token, sizeof(token));
	explicit_bzero(envelope, sizeof(envelope));
	return n > 0 ? 0 : -EACCES;
}

static int send_mechanism(struct upstream *u)
{
	uint8_t envelope[64];
	ssize_t n = request_write_auth(u->session->version, REPLAY_STREAM, span_text("PLAIN"), envelope, sizeof(envelope));

	send_envelope(u, envelope, (size_t)n);
	return 0;
}

ssize_t sasl_plain(const char *username, const char *password, uint8_t *to, size_t capacity)
{
	size_t user = strlen(username), pass = strlen(password);

	if (2 + user + pass > capacity)
		return -ENOSPC;
	to[0] = 0;
	memcpy(to + 1, username, user);
	to[1 + user] = 0;
	memcpy(to + 2 + user, password, pass);
	return (ssize_t)(2 + user + pass);
}

void replay_begin(struct upstream *u)
{
	u->state = UP_REPLAY;
	u->step = REPLAY_STARTUP;
	u->replay_ns = u->session->worker->turn_ns;
	unpack_startup(u, REPLAY_STREAM);
}

struct pending_register *replay_register(struct span body)
{
	struct pending_register *p = body.size <= REGISTER_MAX ? malloc(sizeof(*p) + body.size) : NULL;

	if (p) {
		p->size = body.size;
		memcpy(p->body, body.data, body.size);
	}
	return p;
}

/* A cluster adds a REGISTER to those before it. */
void replay_registered(struct session *s, const struct pending_register *p)
{
	uint8_t joined[REGISTER_MAX];
	size_t size = register_join(span_of(s->reg.data, s->reg.size), span_of(p->body, p->size), joined, sizeof(joined));
	uint8_t *copy = size > 2 ? malloc(size) : NULL; /* 2: no event */

	if (!copy)
		return;
	memcpy(copy, joined, size);
	free(s->reg.data);
	s->reg.data = copy;
	s->reg.size = size;
}

/* While the topology is frozen, only schema changes of the target are for the client's ears, and only if it has asked for them. */
static bool send_register(struct upstream *u)
{
	struct session *s = u->session;
	static const char *const schema_only[] = {"SCHEMA_CHANGE", NULL};
	uint8_t envelope[64];

	if (!s->reg.data)
		return false;
	if (u->side == TARGET && session_frozen(s)) {
		ssize_t n;

		if (!register_names(span_of(s->reg.data, s->reg.size), span_text(schema_only[0])))
			return false;
		n = request_write_register(s->version, REPLAY_STREAM, schema_only, envelope, sizeof(envelope));
		if (n > 0)
			send_envelope(u, envelope, (size_t)n);
	} else {
		send_body(u, OP_REGISTER, &s->reg);
	}
	return true;
}

static bool send_use(struct upstream *u)
{
	struct session *s = u->session;
	char text[CQL_NAME_MAX + 16];
	uint8_t envelope[256];
	ssize_t n;

	if (!s->keyspace[0])
		return false;
	snprintf(text, sizeof(text), "USE \"%s\"", s->keyspace);
	n = request_write_query(s->version, REPLAY_STREAM, span_text(text), CL_ONE, envelope, sizeof(envelope));
	if (n > 0)
		send_envelope(u, envelope, (size_t)n);
	return n > 0;
}

static void ready(struct upstream *u)
{
	struct session *s = u->session;

	u->state = UP_READY;
	u->failed = u->awaited = false;
	worker_warm(s->worker);
	/* The client's bytes are parsed once this batch of answers is through (after_answers): both use the worker's scratch. */
	if (s->state == SESSION_OPEN && s->up[s->primary].state == UP_READY)
		s->stalled = false;
}

int replay_answer(struct upstream *u, uint8_t opcode, uint8_t flags, struct span body)
{
	struct session *s = u->session;
	struct response_error error;
	char node[ADDR_TEXT_MAX];

	u->replay_ns = s->worker->turn_ns;
	if (opcode == OP_ERROR) {
		int64_t skip = response_prefix(flags, body);
		const char *step = u->step == REPLAY_USE ? "the keyspace" : u->step == REPLAY_AUTH ? "the client's credentials" : "the handshake";

		if (skip >= 0 && u->step == REPLAY_STARTUP &&
		    unpack_refused(u, REPLAY_STREAM, span_of(body.data + skip, body.size - (size_t)skip)))
			return 0;
		if (skip >= 0 && response_error_parse(span_of(body.data + skip, body.size - (size_t)skip), &error) == 0)
			log_warn("relay", "%s %s refuses %s: %.*s (0x%04X)", side_name(u->side),
				 addr_format(&u->address, node), step, (int)(error.message.size < 200 ? error.message.size : 200),
				 (const char *)error.message.data, (unsigned)error.code);
		return -EACCES;
	}
	if (opcode == OP_EVENT)
		return 0;
	switch (u->step) {
	case REPLAY_STARTUP:
		if (s->version >= 5)
			u->segments = true;
		if (opcode == OP_AUTHENTICATE) {
			bool first = authenticate_wants_mechanism(body);

			u->step = first ? REPLAY_MECHANISM : REPLAY_AUTH;
			return first ? send_mechanism(u) : send_token(u);
		}
		if (opcode != OP_READY)
			return -EPROTO;
		break;
	case REPLAY_MECHANISM:
		if (opcode != OP_AUTH_CHALLENGE)
			return -EACCES;
		u->step = REPLAY_AUTH;
		return send_token(u);
	case REPLAY_AUTH:
		if (opcode != OP_AUTH_SUCCESS)
			return -EACCES;
		break;
	case REPLAY_REGISTER:
	case REPLAY_USE:
		break;
	}
	if (u->step < REPLAY_REGISTER) {
		u->step = REPLAY_REGISTER;
		if (send_register(u))
			return 0;
	}
	if (u->step < REPLAY_USE) {
		u->step = REPLAY_USE;
		if (send_use(u))
			return 0;
	}
	ready(u);
	return 0;
}

void upstream_follow_course(struct upstream *u)
{
	/* A primary that knows only of schema changes gets the client's own REGISTER once the topology thaws. */
	if (u->state == UP_READY && u->side == TARGET && u->session->worker->course.finished && u->session->reg.data)
		send_body(u, OP_REGISTER, &u->session->reg);
}
