/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/client.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/magic.h"
#include "relay/session.h"

#define CLIENT_MAGIC 0xC11E47C1u
#define VERSION 4
#define STREAM 1
#define STATE_MAX (64u << 10) /* a paging state; Cassandra's are below 1 KiB */
#define MESSAGE_MAX 300	      /* of a server's message that goes into an error text */
#define BUFFER_FIRST 4096u
#define TOKEN_MAX 512u /* as in the mirror: user name + password + 2 */

struct client {
	uint32_t magic;
	int fd;
	bool broken, authenticated;
	unsigned timeout_ms;
	uint64_t deadline_ns; /* of the step that runs */
	char node[ADDR_TEXT_MAX];
	uint8_t *buffer; /* header and body of the answer that was read last */
	size_t room, used;
	struct column columns[CLIENT_COLUMNS_MAX];
	struct span cells[CLIENT_COLUMNS_MAX];
};

struct answer {
	struct frame_header head;
	struct span body; /* behind tracing id, warnings and payload; lives until the next read */
};

/* The stream's state is unknown from here on: no further question on this connection. */
static int broken(struct client *c, struct error *error, int code, const char *what)
{
	c->broken = true;
	if (code == -EPROTO || code == -EMSGSIZE)
		return error_set(error, code, "%s: %s", c->node, what);
	return error_set(error, code, "%s: %s: %s", c->node, what, strerror(-code));
}

/* ------------------------------------------------------------- bytes */

static int wait_for(struct client *c, short events)
{
	struct pollfd p = {.fd = c->fd, .events = events};
	uint64_t now;

	while ((now = clock_now_ns()) < c->deadline_ns) {
		int n = poll(&p, 1, (int)((c->deadline_ns - now) / 1000000u) + 1);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ETIMEDOUT;
}

static int dial(struct client *c, const struct addr *node, uint32_t mark)
{
	socklen_t size = sizeof(int);
	int on = 1, code = 0, rc;

	c->fd = socket(node->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (mark)
		setsockopt(c->fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	if (connect(c->fd, &node->sa, addr_size(node)) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	rc = wait_for(c, POLLOUT);
	if (rc < 0)
		return rc;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
		return -errno;
	return -code;
}

static int send_all(struct client *c, const uint8_t *data, size_t size)
{
	while (size > 0) {
		ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);

		if (n >= 0) {
			data += n;
			size -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		int rc = wait_for(c, POLLOUT);

		if (rc < 0)
			return rc;
	}
	return 0;
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
		ssize_t n = recv(c->fd, c->buffer + c->used, ask, 0);

		if (n > 0) {
			c->used += (size_t)n;
		} else if (n == 0) {
			return -ECONNRESET;
		} else if (errno == EAGAIN) {
			int rc = wait_for(c, POLLIN);

			if (rc < 0)
				return rc;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* The next answer to our request; what comes on other streams (events, a late answer) is passed over. */
static int read_answer(struct client *c, struct answer *ret, struct error *error)
{
	int rc;

	do {
		c->used = 0;
		rc = receive(c, FRAME_HEADER_SIZE);
		if (c->used >= 2 && c->buffer[0] == 0x15 &&
		    c->buffer[1] == 0x03) /* a TLS alert: 7 bytes, then the end */
			return broken(c, error, -EPROTO, "speaks TLS, not plain CQL");
		if (rc < 0)
			return broken(c, error, rc,
				      rc == -ETIMEDOUT ? "no answer"
						       : "connection lost while waiting for an answer");
		if (frame_header_read(c->buffer, c->used, &ret->head) < 0 || !ret->head.response)
			return broken(c, error, -EPROTO, "does not speak CQL (is this the CQL port?)");
		if (ret->head.length > CLIENT_ANSWER_MAX)
			return broken(c, error, -EMSGSIZE, "answers with more than 16 MiB at once");
		rc = receive(c, FRAME_HEADER_SIZE + (size_t)ret->head.length);
		if (rc < 0)
			return broken(c, error, rc, "connection lost within an answer");
		/* Of an unknown version a server complains on stream 0, with a version of its own. */
	} while (ret->head.stream != STREAM && !(ret->head.opcode == OP_ERROR && ret->head.stream == 0));

	if (ret->head.flags & FRAME_COMPRESSED)
		return broken(c, error, -EPROTO, "compresses, although that was not agreed");
	ret->body = span_of(c->buffer + FRAME_HEADER_SIZE, ret->head.length);
	int64_t skip = response_prefix(ret->head.flags, ret->body);

	if (skip < 0)
		return broken(c, error, -EPROTO, "sent a malformed answer");
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

static int server_error(struct client *c, const struct answer *a, struct error *error)
{
	struct response_error e;
	char text[MESSAGE_MAX];

	if (response_error_parse(a->body, &e) < 0)
		return broken(c, error, -EPROTO, "sent a malformed ERROR");
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

static int unexpected(struct client *c, const struct answer *a, struct error *error)
{
	c->broken = true;
	return error_set(error, -EPROTO, "%s: unexpected %s", c->node, opcode_name(a->head.opcode));
}

/* ------------------------------------------------------------- handshake */

static int exchange(struct client *c, const uint8_t *data, ssize_t size, struct answer *ret,
		    struct error *error)
{
	int rc = size < 0 ? (int)size : send_all(c, data, (size_t)size);

	if (rc < 0)
		return broken(c, error, rc, "request cannot be sent");
	return read_answer(c, ret, error);
}

/* Whether the authenticator is DSE's, which wants the mechanism's name first (as DataStax's drivers answer
 * it). */
static bool wants_mechanism(struct span body)
{
	static const char name[] = "DseAuthenticator";
	size_t n = sizeof(name) - 1;

	return body.size >= 2 + n && !memcmp(body.data + body.size - n, name, n);
}

static int login(struct client *c, const char *username, const char *password, struct answer *a,
		 struct error *error)
{
	uint8_t token[TOKEN_MAX], envelope[TOKEN_MAX + 64];
	ssize_t n;
	int rc = 0;

	if (!username || !*username)
		return error_set(error, -ENOKEY, "%s wants a login, and no user name is configured", c->node);
	if (wants_mechanism(a->body)) {
		n = request_write_auth(VERSION, STREAM, span_text("PLAIN"), envelope, sizeof(envelope));
		rc = exchange(c, envelope, n, a, error);
		if (rc == 0 && a->head.opcode != OP_AUTH_CHALLENGE)
			rc = a->head.opcode == OP_ERROR ? server_error(c, a, error) : unexpected(c, a, error);
		if (rc < 0)
			return rc;
	}
	n = sasl_plain(username, password ? password : "", token, sizeof(token));
	if (n < 0)
		return error_set(error, -EACCES,
				 "%s: user name and password together are longer than %u bytes", c->node,
				 TOKEN_MAX - 2);
	n = request_write_auth(VERSION, STREAM, span_of(token, (size_t)n), envelope, sizeof(envelope));
	rc = exchange(c, envelope, n, a, error);
	explicit_bzero(token, sizeof(token));
	explicit_bzero(envelope, sizeof(envelope));
	if (rc < 0)
		return rc;
	if (a->head.opcode == OP_ERROR)
		return server_error(c, a, error);
	if (a->head.opcode == OP_AUTH_CHALLENGE)
		return error_set(error, -EACCES, "%s wants more than a user name and password (SASL PLAIN)",
				 c->node);
	if (a->head.opcode != OP_AUTH_SUCCESS)
		return unexpected(c, a, error);
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
	int rc =
	    exchange(c, envelope, request_write_startup(VERSION, STREAM, options, envelope, sizeof(envelope)),
		     &a, error);

	if (rc < 0)
		return rc;
	switch (a.head.opcode) {
	case OP_READY:
		return 0;
	case OP_AUTHENTICATE:
		return login(c, username, password, &a, error);
	case OP_ERROR:
		return server_error(c, &a, error);
	default:
		return unexpected(c, &a, error);
	}
}

static void step_begin(struct client *c)
{
	c->deadline_ns = clock_now_ns() + (uint64_t)c->timeout_ms * 1000000u;
}

int client_open(struct client **ret, const struct addr *node, const char *username, const char *password,
		uint32_t mark, unsigned timeout_ms, struct error *error)
{
	struct client *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return error_set(error, -ENOMEM, "out of memory");
	c->magic = CLIENT_MAGIC;
	c->timeout_ms = timeout_ms;
	addr_format(node, c->node);
	step_begin(c);
	rc = dial(c, node, mark);
	if (rc < 0)
		error_set(error, rc, "%s cannot be reached: %s", c->node, strerror(-rc));
	else
		rc = handshake(c, username, password, error);
	if (rc < 0) {
		client_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

/* ------------------------------------------------------------- questions */

static uint8_t *put_int(uint8_t *p, uint32_t v)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*p++ = (uint8_t)(v >> shift);
	return p;
}

/*
 * QUERY with values, a page size and, from the second page on, the state: the plain one ends with its flags, to
 * which they are appended in the order of native_protocol_v4.spec, section 4.1.4.
 */
static int send_question(struct client *c, const struct client_question *q, struct span state)
{
	size_t capacity =
	    FRAME_HEADER_SIZE + 4 + q->text.size + 2 + 1 + 2 + q->values.size + 4 + 4 + state.size;
	uint8_t *to = malloc(capacity), *p;
	ssize_t n;
	int rc;

	if (!to)
		return -ENOMEM;
	n = request_write_query(VERSION, STREAM, q->text, q->consistency, to, capacity);
	if (n < 0) {
		free(to);
		return (int)n;
	}
	to[n - 1] = QUERY_PAGE_SIZE | (state.size ? QUERY_PAGING_STATE : 0);
	p = to + n;
	if (q->value_count) {
		to[n - 1] |= QUERY_VALUES;
		*p++ = (uint8_t)(q->value_count >> 8);
		*p++ = (uint8_t)q->value_count;
		memcpy(p, q->values.data, q->values.size);
		p += q->values.size;
	}
	p = put_int(p, CLIENT_PAGE_ROWS);
	if (state.size) {
		p = put_int(p, (uint32_t)state.size);
		memcpy(p, state.data, state.size);
		p += state.size;
	}
	struct frame_header h = {.version = VERSION, .stream = STREAM, .opcode = OP_QUERY};

	h.length = (uint32_t)((size_t)(p - to) - FRAME_HEADER_SIZE);
	frame_header_write(to, &h);
	rc = send_all(c, to, (size_t)(p - to));
	free(to);
	return rc;
}

/* Hands the rows of one page over. */
static int give_rows(struct client *c, struct rows *rows, client_row row, void *context, struct error *error)
{
	struct columns walk = rows->columns;
	int more;

	if (rows->columns.count > CLIENT_COLUMNS_MAX)
		return broken(c, error, -EMSGSIZE, "answers with more columns than are read");
	for (unsigned i = 0; i < rows->columns.count; i++)
		if (column_next(&walk, &c->columns[i]) != 1)
			return broken(c, error, -EPROTO, "sent malformed rows");
	while ((more = rows_next(rows, c->cells)) == 1) {
		int rc = row ? row(context, c->columns, c->cells, rows->columns.count) : 0;

		if (rc)
			return rc;
	}
	return more < 0 ? broken(c, error, -EPROTO, "sent malformed rows") : 0;
}

/* One page. The state of the next one goes to *state (malloc'ed; data = NULL at the end). */
static int ask_page(struct client *c, const struct client_question *q, struct span *state, client_row row,
		    void *context, struct error *error)
{
	struct answer a;
	struct rows rows;
	uint8_t *copy = NULL;
	int rc;

	step_begin(c);
	rc = send_question(c, q, *state);
	if (rc < 0)
		return broken(c, error, rc, "request cannot be sent");
	free((void *)state->data);
	*state = (struct span){0};
	rc = read_answer(c, &a, error);
	if (rc < 0)
		return rc;
	if (a.head.opcode == OP_ERROR)
		return server_error(c, &a, error);
	if (a.head.opcode != OP_RESULT)
		return unexpected(c, &a, error);
	int kind = result_kind(a.body);

	if (kind < 0)
		return broken(c, error, -EPROTO, "sent a malformed RESULT");
	if (kind != RESULT_ROWS)
		return 0;
	if (rows_parse(VERSION, a.body, &rows) < 0)
		return broken(c, error, -EPROTO, "sent malformed rows");
	if (rows.head.flags & ROWS_MORE_PAGES) {
		if (!rows.head.paging_state.size)
			return broken(c, error, -EPROTO, "promises a next page, but gives no paging state");
		if (rows.head.paging_state.size > STATE_MAX)
			return broken(c, error, -EMSGSIZE, "sent a paging state of more than 64 KiB");
		copy = malloc(rows.head.paging_state.size);
		if (!copy)
			return error_set(error, -ENOMEM, "out of memory");
		memcpy(copy, rows.head.paging_state.data, rows.head.paging_state.size);
	}
	rc = give_rows(c, &rows, row, context, error);
	if (rc) {
		free(copy);
		return rc;
	}
	*state = copy ? span_of(copy, rows.head.paging_state.size) : (struct span){0};
	return 0;
}

int client_ask(struct client *c, const struct client_question *q, client_row row, void *context,
	       struct error *error)
{
	struct span state = {0};
	int rc = 0;

	MAGIC_CHECK(c, CLIENT_MAGIC);
	for (unsigned page = 0; page == 0 || state.data; page++) {
		if (c->broken) {
			rc = error_set(error, -ENOTCONN, "%s: the connection was lost before", c->node);
			break;
		}
		if (page == CLIENT_PAGES_MAX) {
			rc = broken(c, error, -EMSGSIZE, "sends pages without end");
			break;
		}
		rc = ask_page(c, q, &state, row, context, error);
		if (rc)
			break;
	}
	free((void *)state.data);
	return rc;
}

int client_query(struct client *c, const char *text, uint16_t consistency, client_row row, void *context,
		 struct error *error)
{
	struct client_question q = {.text = span_text(text), .consistency = consistency};

	return client_ask(c, &q, row, context, error);
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
	if (c->fd >= 0)
		close(c->fd);
	free(c->buffer);
	free(c);
}
