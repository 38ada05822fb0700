/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/client_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/magic.h"
#include "net/connect.h"
#include "relay/session.h"

#define MESSAGE_MAX 300 /* of a server's message that goes into an error text */
#define BUFFER_FIRST 4096u
#define TOKEN_MAX 512u /* as in the mirror: user name + password + 2 */

/* The stream's state is unknown from here on: no further question on this connection. */
int client_broken_by(struct client *c, struct error *error, int code, const char *what)
{
	c->broken = true;
	/* With TLS 1.3 a server that does not like our certificate says so only now. */
	if (stream_reason(&c->stream))
		return error_set(error, code, "%s: %s", c->node, stream_reason(&c->stream));
	if (code == -EPROTO || code == -EMSGSIZE)
		return error_set(error, code, "%s: %s", c->node, what);
	return error_set(error, code, "%s: %s: %s", c->node, what, strerror(-code));
}

/* ------------------------------------------------------------- bytes */

int client_send_all(struct client *c, const uint8_t *data, size_t size)
{
	return stream_send_all(&c->stream, data, size, c->deadline_ns);
}

/* Reads until `wanted` bytes are in the buffer. It grows with what arrives, not with what the peer announces.
 */
static int receive(struct client *c, size_t wanted)
{
	while (c->used < wanted) {
		if (c->used == c->room) {
			size_t room = c->room ? c->room * 2 : BUFFER_FIRST;
			uint8_t *grown = realloc(c->buffer, room);

			if (!grown)
				return -ENOMEM;
			c->buffer = grown;
			c->room = room;
		}
		size_t ask = wanted < c->room ? wanted - c->used : c->room - c->used;
		ssize_t n = stream_receive(&c->stream, c->buffer + c->used, ask, c->deadline_ns);

		if (n <= 0)
			return n < 0 ? (int)n : -ECONNRESET;
		c->used += (size_t)n;
	}
	return 0;
}

/* The next answer to our request; what comes on other streams (events, a late answer) is passed over. */
int client_read_answer(struct client *c, struct answer *ret, struct error *error)
{
	int rc;

	do {
		c->used = 0;
		rc = receive(c, FRAME_HEADER_SIZE);
		if (c->used >= 2 && c->buffer[0] == 0x15 &&
		    c->buffer[1] == 0x03) /* a TLS alert: 7 bytes, then the end */
			return client_broken_by(c, error, -EPROTO, "speaks TLS; set tls.enabled for that cluster, or --ssl for copy");
		if (rc < 0)
			return client_broken_by(
			    c, error, rc,
			    rc == -ETIMEDOUT ? "no answer" : "connection lost while waiting for an answer");
		if (frame_header_read(c->buffer, c->used, &ret->head) < 0 || !ret->head.response)
			return client_broken_by(c, error, -EPROTO,
						"does not speak CQL (is this the CQL port?)");
		if (ret->head.length > CLIENT_ANSWER_MAX)
			return client_broken_by(c, error, -EMSGSIZE, "answers with more than 16 MiB at once");
		rc = receive(c, FRAME_HEADER_SIZE + (size_t)ret->head.length);
		if (rc < 0)
			return client_broken_by(c, error, rc, "connection lost within an answer");
		/* Of an unknown version a server complains on stream 0, with a version of its own. */
	} while (ret->head.stream != STREAM && !(ret->head.opcode == OP_ERROR && ret->head.stream == 0));

	if (ret->head.flags & FRAME_COMPRESSED)
		return client_broken_by(c, error, -EPROTO, "compresses, although that was not agreed");
	ret->body = span_of(c->buffer + FRAME_HEADER_SIZE, ret->head.length);
	int64_t skip = response_prefix(ret->head.flags, ret->body);

	if (skip < 0)
		return client_broken_by(c, error, -EPROTO, "sent a malformed answer");
	ret->body = span_of(ret->body.data + skip, ret->body.size - (size_t)skip);
	return 0;
}

/* ------------------------------------------------------------- errors of the server */

static int errno_of(int32_t code)
{
	switch (code) {
	case CQL_BAD_CREDENTIALS:
		return -EACCES;
	case CQL_UNAUTHORIZED:
		return -EPERM;
	case CQL_SYNTAX_ERROR:
	case CQL_INVALID:
	case CQL_CONFIG_ERROR:
	case CQL_FUNCTION_FAILURE:
		return -EINVAL;
	case CQL_ALREADY_EXISTS:
		return -EEXIST;
	case CQL_UNAVAILABLE:
	case CQL_OVERLOADED:
	case CQL_BOOTSTRAPPING:
		return -EAGAIN;
	case CQL_READ_TIMEOUT:
	case CQL_WRITE_TIMEOUT:
		return -ETIME;
	default:
		return -EREMOTEIO;
	}
}

/* The text ends up in logs and on terminals: one line, no control characters, of a length that leaves room
 * for ours. */
static void message_copy(struct span message, char text[MESSAGE_MAX])
{
	size_t n = message.size < MESSAGE_MAX - 1 ? message.size : MESSAGE_MAX - 1;

	for (size_t i = 0; i < n; i++)
		text[i] = message.data[i] < 0x20 || message.data[i] == 0x7f ? ' ' : (char)message.data[i];
	text[n] = 0;
}

int client_server_error(struct client *c, const struct answer *a, struct error *error)
{
	struct response_error e;
	char text[MESSAGE_MAX];

	if (response_error_parse(a->body, &e) < 0)
		return client_broken_by(c, error, -EPROTO, "sent a malformed ERROR");
	message_copy(e.message, text);
	if (a->head.version != VERSION || (e.code == CQL_PROTOCOL_ERROR && a->head.stream != STREAM)) {
		c->broken = true;
		return error_set(error, -EPROTONOSUPPORT, "%s does not speak protocol v4: %s", c->node, text);
	}
	int rc = errno_of(e.code);

	/* Cassandra says "bad credentials" also when it could not read system_auth: no password is wrong
	 * then. */
	if (rc == -EACCES && !strncmp(text, "Unable to perform authentication", 32))
		rc = -EAGAIN;
	if (rc == -EINVAL && !strncmp(text, "Batch too large", 15))
		rc = -E2BIG;
	return error_set(error, rc, "%s: %s (0x%04X)", c->node, text, (unsigned)e.code);
}

int client_unexpected(struct client *c, const struct answer *a, struct error *error)
{
	c->broken = true;
	return error_set(error, -EPROTO, "%s: unexpected %s", c->node, opcode_name(a->head.opcode));
}

/* ------------------------------------------------------------- handshake */

int client_exchange(struct client *c, const uint8_t *data, ssize_t size, struct answer *ret,
		    struct error *error)
{
	int rc = size < 0 ? (int)size : client_send_all(c, data, (size_t)size);

	if (rc < 0)
		return client_broken_by(c, error, rc, "request cannot be sent");
	return client_read_answer(c, ret, error);
}

static int login(struct client *c, const char *username, const char *password, struct answer *a,
		 struct error *error)
{
	uint8_t token[TOKEN_MAX], envelope[TOKEN_MAX + 64];
	ssize_t n;
	int rc = 0;

	if (!username || !*username)
		return error_set(error, -ENOKEY, "%s wants a login, and no user name is configured", c->node);
	if (authenticate_wants_mechanism(a->body)) {
		n = request_write_auth(VERSION, STREAM, span_text("PLAIN"), envelope, sizeof(envelope));
		rc = client_exchange(c, envelope, n, a, error);
		if (rc == 0 && a->head.opcode != OP_AUTH_CHALLENGE)
			rc = a->head.opcode == OP_ERROR ? client_server_error(c, a, error)
							: client_unexpected(c, a, error);
		if (rc < 0)
			return rc;
	}
	n = sasl_plain(username, password ? password : "", token, sizeof(token));
	if (n < 0)
		return error_set(error, -EACCES,
				 "%s: user name and password together are longer than %u bytes", c->node,
				 TOKEN_MAX - 2);
	n = request_write_auth(VERSION, STREAM, span_of(token, (size_t)n), envelope, sizeof(envelope));
	rc = client_exchange(c, envelope, n, a, error);
	explicit_bzero(token, sizeof(token));
	explicit_bzero(envelope, sizeof(envelope));
	if (rc < 0)
		return rc;
	if (a->head.opcode == OP_ERROR)
		return client_server_error(c, a, error);
	if (a->head.opcode == OP_AUTH_CHALLENGE)
		return error_set(error, -EACCES, "%s wants more than a user name and password (SASL PLAIN)",
				 c->node);
	if (a->head.opcode != OP_AUTH_SUCCESS)
		return client_unexpected(c, a, error);
	c->authenticated = true;
	return 0;
}

static int handshake(struct client *c, const char *username, const char *password, struct error *error)
{
	static const char *const options[] = {
	    "CQL_VERSION",    "3.0.0",		"DRIVER_NAME", CLIENT_DRIVER_NAME,
	    "DRIVER_VERSION", CQLFERRY_VERSION, NULL};
	uint8_t envelope[256];
	struct answer a;
	int rc = client_exchange(c, envelope,
				 request_write_startup(VERSION, STREAM, options, envelope, sizeof(envelope)),
				 &a, error);

	if (rc < 0)
		return rc;
	switch (a.head.opcode) {
	case OP_READY:
		return 0;
	case OP_AUTHENTICATE:
		return login(c, username, password, &a, error);
	case OP_ERROR:
		return client_server_error(c, &a, error);
	default:
		return client_unexpected(c, &a, error);
	}
}

void client_step_begin(struct client *c)
{
	c->deadline_ns = clock_now_ns() + (uint64_t)c->timeout_ms * 1000000u;
}

int client_open(struct client **ret, const struct cluster *cluster, const struct endpoint *to, uint32_t mark,
		unsigned timeout_ms, struct error *error)
{
	struct client *c = calloc(1, sizeof(*c));
	struct error why;
	int rc;

	if (!c)
		return error_set(error, -ENOMEM, "out of memory");
	c->magic = CLIENT_MAGIC;
	c->stream = stream_plain(-1);
	c->timeout_ms = timeout_ms;
	addr_format(&to->addr, c->node);
	client_step_begin(c);
	rc = stream_connect(to, mark, c->deadline_ns, &c->stream, &why);
	if (rc < 0)
		error_set(error, rc, "%s cannot be reached: %s", c->node, why.text);
	else
		rc = handshake(c, cluster->username, cluster->password, error);
	if (rc < 0) {
		client_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

bool client_authenticated(const struct client *c)
{
	return c->authenticated;
}

bool client_broken(const struct client *c)
{
	return c->broken;
}

const char *client_node(const struct client *c)
{
	return c->node;
}

void client_close(struct client *c)
{
	if (!c)
		return;
	MAGIC_CHECK(c, CLIENT_MAGIC);
	c->magic = 0;
	stream_close(&c->stream);
	for (unsigned i = 0; i < PREPARED_MAX; i++)
		client_prepared_drop(&c->prepared[i]);
	free(c->buffer);
	free(c);
}
