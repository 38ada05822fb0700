/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted CQL node in a thread, one connection at a time, protocol v4: what a test's function answers, or
 * rows out of tables that are written as text. The thread only records; the tests judge, after fake_stop() or
 * when an answer has come.
 */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "cql/request.h"
#include "cql/response.h"
#include "cql/wire.h"
#include "net/addr.h"

#define FAKE_ROOM (1u << 20)

/* ------------------------------------------------------------- the server */

struct fake;
/* Fills `o` with what is sent. false = the connection is closed then. */
typedef bool (*fake_answer)(struct fake *f, const struct frame_header *h, struct span body,
			    struct wire_out *o);

struct fake_table {
	const char *needle;  /* in the statement */
	const char *columns; /* "name type" with commas; types: t text, i int, b boolean, u uuid, a inet, l
				list<text>, p map<text, text>, m now + ms, e ms since 1970 */
	const char *rows[8]; /* cells with bars, "-" = null */
};

struct fake {
	int fd, stop[2];
	struct addr addr;
	pthread_t thread;
	fake_answer answer;
	const struct fake_table *tables; /* ends with needle = NULL */
	unsigned requests;
	_Atomic unsigned step;
	uint8_t auth[2][64]; /* tokens as they came */
	size_t auth_size[2], auths;
	char state[64]; /* last paging state */
	int32_t page_size;
	char driver[32];
};

static inline void fake_frame(struct wire_out *o, uint8_t version, uint8_t flags, int16_t stream,
			      uint8_t opcode, struct span body)
{
	struct frame_header h = {.version = version,
				 .response = true,
				 .flags = flags,
				 .stream = stream,
				 .opcode = opcode,
				 .length = (uint32_t)body.size};
	uint8_t *to = out_take(o, FRAME_HEADER_SIZE);

	if (to)
		frame_header_write(to, &h);
	out_raw(o, body);
}

static inline void fake_error(struct wire_out *o, uint8_t version, int16_t stream, int32_t code,
			      const char *text)
{
	uint8_t body[512];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_int(&b, (uint32_t)code);
	out_string(&b, span_text(text));
	fake_frame(o, version, 0, stream, OP_ERROR, span_of(body, b.at));
}

static inline bool fake_receive_all(struct fake *f, int fd, uint8_t *to, size_t size)
{
	while (size) {
		struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = f->stop[0], .events = POLLIN}};
		ssize_t n;

		poll(p, 2, -1);
		if (p[1].revents)
			return false;
		n = recv(fd, to, size, 0);
		if (n <= 0)
			return false;
		to += n;
		size -= (size_t)n;
	}
	return true;
}

static inline void fake_serve(struct fake *f, int fd)
{
	uint8_t head[FRAME_HEADER_SIZE], *in = malloc(FAKE_ROOM), *out = malloc(FAKE_ROOM);
	struct frame_header h;
	bool on = true;

	while (on && fake_receive_all(f, fd, head, sizeof(head)) &&
	       frame_header_read(head, sizeof(head), &h) > 0 && h.length <= FAKE_ROOM &&
	       fake_receive_all(f, fd, in, h.length)) {
		struct wire_out o = {.to = out, .capacity = FAKE_ROOM};

		f->requests++;
		if (h.opcode == OP_AUTH_RESPONSE && f->auths < 2 && h.length >= 4 && h.length <= 68) {
			f->auth_size[f->auths] = h.length - 4;
			memcpy(f->auth[f->auths++], in + 4, h.length - 4);
		}
		on = f->answer(f, &h, span_of(in, h.length), &o);
		for (size_t at = 0; at < o.at;) {
			ssize_t n = send(fd, out + at, o.at - at, MSG_NOSIGNAL);

			if (n <= 0)
				break;
			at += (size_t)n;
		}
	}
	free(in);
	free(out);
}

static inline void *fake_run(void *context)
{
	struct fake *f = context;

	for (;;) {
		struct pollfd p[2] = {{.fd = f->fd, .events = POLLIN}, {.fd = f->stop[0], .events = POLLIN}};

		poll(p, 2, -1);
		if (p[1].revents)
			return NULL;
		int fd = accept(f->fd, NULL, NULL);

		if (fd < 0)
			continue;
		fake_serve(f, fd);
		close(fd);
	}
}

static inline void fake_start(struct fake *f, const char *ip, fake_answer answer)
{
	socklen_t size = sizeof(f->addr.in);

	memset(f, 0, sizeof(*f));
	f->answer = answer;
	f->addr.in.sin_family = AF_INET;
	inet_pton(AF_INET, ip, &f->addr.in.sin_addr);
	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(f->fd, &f->addr.sa, size), errno);
	assert_return_code(listen(f->fd, 8), errno);
	assert_return_code(getsockname(f->fd, &f->addr.sa, &size), errno);
	assert_return_code(pipe(f->stop), errno);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

static inline void fake_stop(struct fake *f)
{
	assert_int_equal(write(f->stop[1], "", 1), 1);
	pthread_join(f->thread, NULL);
	close(f->fd);
	close(f->stop[0]);
	close(f->stop[1]);
}

/* ------------------------------------------------------------- rows out of tables */

static inline void fake_put_cell(struct wire_out *o, char type, struct span text)
{
	char copy[256];
	struct in_addr in;

	if (text.size == 1 && text.data[0] == '-') {
		out_int(o, 0xffffffff);
		return;
	}
	snprintf(copy, sizeof(copy), "%.*s", (int)text.size, (const char *)text.data);
	switch (type) {
	case 'i':
		out_int(o, 4);
		out_int(o, (uint32_t)strtol(copy, NULL, 10));
		break;
	case 'b':
		out_int(o, 1);
		out_byte(o, copy[0] == '1');
		break;
	case 'u':
		out_int(o, 16);
		for (int i = 0; i < 16; i++)
			out_byte(o, (uint8_t)copy[0]);
		break;
	case 'a':
		inet_pton(AF_INET, copy, &in);
		out_int(o, 4);
		out_raw(o, span_of(&in, 4));
		break;
	case 'm':
		out_int(o, 8);
		out_long(o, clock_wall_us() / 1000 + strtol(copy, NULL, 10));
		break;
	case 'e':
		out_int(o, 8);
		out_long(o, strtoll(copy, NULL, 10));
		break;
	case 'p':
	case 'l': {
		unsigned n = 1;

		for (char *p = copy; *p; p++)
			n += *p == ',';
		out_int(o, (uint32_t)(text.size + 4 + 4 * n - (n - 1)));
		out_int(o, type == 'p' ? n / 2 : n);
		for (char *save = NULL, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save))
			out_long_string(o, span_text(p));
		break;
	}
	default:
		out_long_string(o, text);
	}
}

static inline void fake_put_table(struct wire_out *o, const struct fake_table *t, int16_t stream)
{
	static const struct {
		char letter;
		uint16_t type;
	} types[] = {{'t', TYPE_VARCHAR}, {'i', TYPE_INT},  {'b', TYPE_BOOLEAN},
		     {'u', TYPE_UUID},	  {'a', TYPE_INET}, {'m', TYPE_TIMESTAMP}, {'e', TYPE_TIMESTAMP}};
	char letters[16], copy[512];
	unsigned columns = 0, rows = 0;
	uint8_t *body = malloc(FAKE_ROOM / 2);
	struct wire_out b = {.to = body, .capacity = FAKE_ROOM / 2};

	snprintf(copy, sizeof(copy), "%s", t->columns);
	for (char *p = copy; *p; p++)
		columns += *p == ',';
	columns++;
	while (t->rows[rows])
		rows++;
	out_int(&b, RESULT_ROWS);
	out_int(&b, ROWS_GLOBAL_SPEC);
	out_int(&b, columns);
	out_string(&b, span_text("k"));
	out_string(&b, span_text("t"));
	columns = 0;
	for (char *save = NULL, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		char *space = strchr(p, ' ');

		letters[columns] = space[1];
		out_string(&b, span_of(p, (size_t)(space - p)));
		if (space[1] == 'l') {
			out_short(&b, TYPE_LIST);
			out_short(&b, TYPE_VARCHAR);
		} else if (space[1] == 'p') {
			out_short(&b, TYPE_MAP);
			out_short(&b, TYPE_VARCHAR);
			out_short(&b, TYPE_VARCHAR);
		}
		for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
			if (types[i].letter == space[1])
				out_short(&b, types[i].type);
		columns++;
	}
	out_int(&b, rows);
	for (unsigned r = 0; r < rows; r++) {
		const char *at = t->rows[r];

		for (unsigned i = 0; i < columns; i++) {
			size_t n = strcspn(at, "|");

			fake_put_cell(&b, letters[i], span_of(at, n));
			at += n + (at[n] == '|');
		}
	}
	fake_frame(o, 4, 0, stream, OP_RESULT, span_of(body, b.at));
	free(body);
}

/* The table whose needle the statement holds; "unconfigured table" where there is none. */
static inline bool fake_tables(struct fake *f, const struct frame_header *h, struct span body,
			       struct wire_out *o)
{
	struct wire w = wire_of(body);
	struct span text = wire_long_string(&w);
	const struct fake_table *t = f->tables;

	while (t->needle && !memmem(text.data, text.size, t->needle, strlen(t->needle)))
		t++;
	if (!t->needle)
		fake_error(o, 4, h->stream, CQL_INVALID, "unconfigured table");
	else
		fake_put_table(o, t, h->stream);
	return true;
}

/* ------------------------------------------------------------- handshakes */

static inline bool fake_ready(struct fake *f, const struct frame_header *h, struct span body,
			      struct wire_out *o)
{
	struct span driver = {0};

	if (h->opcode != OP_STARTUP)
		return fake_tables(f, h, body, o);
	if (startup_option(body, "DRIVER_NAME", &driver))
		snprintf(f->driver, sizeof(f->driver), "%.*s", (int)driver.size, (const char *)driver.data);
	fake_frame(o, h->version, 0, h->stream, OP_READY, (struct span){0});
	return true;
}

static inline void fake_authenticate(struct wire_out *o, const struct frame_header *h, const char *class)
{
	uint8_t body[128];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_string(&b, span_text(class));
	fake_frame(o, 4, 0, h->stream, OP_AUTHENTICATE, span_of(body, b.at));
}

static inline bool fake_password(struct fake *f, const struct frame_header *h, struct span body,
				 struct wire_out *o)
{
	static const uint8_t good[] = "\0ann\0secret", null[4] = {0xff, 0xff, 0xff, 0xff};

	if (h->opcode == OP_STARTUP)
		fake_authenticate(o, h, "org.apache.cassandra.auth.PasswordAuthenticator");
	else if (h->opcode != OP_AUTH_RESPONSE)
		return fake_tables(f, h, body, o);
	else if (body.size == 4 + sizeof(good) - 1 && !memcmp(body.data + 4, good, sizeof(good) - 1))
		fake_frame(o, 4, 0, h->stream, OP_AUTH_SUCCESS, span_of(null, 4));
	else
		fake_error(o, 4, h->stream, CQL_BAD_CREDENTIALS,
			   "Provided username ann and/or password are incorrect");
	return true;
}
