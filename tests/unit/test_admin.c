// SPDX-License-Identifier: Apache-2.0
/*
 * The admin socket and the HTTP page against real sockets: partial lines, oversized lines, pipelined
 * requests, deferred replies, clients that go away or do not read, a second agent, stale sockets. The client
 * side runs in this thread with non-blocking sockets while the loop turns; each wait has a deadline and waits
 * for the event itself.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/admin.h"
#include "control/admin_client.h"
#include "control/http.h"
#include "control/render.h"

#define DEADLINE_NS (10ull * 1000000000)

struct fixture {
	char directory[32], path[64];
	uv_loop_t loop;
	struct admin *admin;
	struct admin_reply *deferred[64];
	unsigned deferred_count, echoed;
	struct http *http;
};

static void on_echo(struct admin_reply *reply, const json_t *request, void *context)
{
	struct fixture *f = context;

	f->echoed++;
	admin_done(reply, json_pack("{s:O, s:s}", "request", request, "peer", admin_peer(reply)));
}

static void on_defer(struct admin_reply *reply, const json_t *request, void *context)
{
	struct fixture *f = context;

	(void)request;
	assert_true(f->deferred_count < 64);
	f->deferred[f->deferred_count++] = reply;
}

static void on_fail(struct admin_reply *reply, const json_t *request, void *context)
{
	(void)context;
	(void)request;
	admin_progress(reply, "step %d", 1);
	admin_fail(reply, "it is refused", "try --force");
}

static void on_bad_text(struct admin_reply *reply, const json_t *request, void *context)
{
	(void)context;
	(void)request;
	admin_progress(reply, "\xff\xfe");
	admin_fail(reply, "\xff\xfe", "\xff");
}

static void on_flood(struct admin_reply *reply, const json_t *request, void *context)
{
	struct fixture *f = context;

	(void)request;
	for (int i = 0; i < 100000; i++)
		admin_progress(reply, "%0500d", i);
	f->deferred[f->deferred_count++] = reply;
}

static void on_much(struct admin_reply *reply, const json_t *request, void *context)
{
	char *text = calloc(1, ADMIN_OUTPUT_MAX + 1);

	(void)context;
	(void)request;
	memset(text, 'a', ADMIN_OUTPUT_MAX);
	admin_done(reply, json_pack("{s:s}", "text", text));
	free(text);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {""};

	strcpy(f->directory, "/tmp/cqlferry-admin-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/run/admin.sock", f->directory);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(admin_new(&f->loop, &f->admin), 0);
	assert_int_equal(admin_register(f->admin, "echo", on_echo, f), 0);
	assert_int_equal(admin_register(f->admin, "defer", on_defer, f), 0);
	assert_int_equal(admin_register(f->admin, "fail", on_fail, f), 0);
	assert_int_equal(admin_register(f->admin, "badtext", on_bad_text, f), 0);
	assert_int_equal(admin_register(f->admin, "flood", on_flood, f), 0);
	assert_int_equal(admin_register(f->admin, "much", on_much, f), 0);
	assert_int_equal(admin_register(f->admin, "echo", on_echo, f), -EEXIST);
	if (admin_listen(f->admin, f->path, &e) < 0)
		fail_msg("%s", e.text);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];

	admin_stop(f->admin);
	http_stop(f->http);
	assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0); /* nothing is left that keeps the loop alive */
	assert_int_equal(uv_loop_close(&f->loop), 0);
	assert_int_equal(access(f->path, F_OK), -1);
	snprintf(path, sizeof(path), "%s.lock", f->path);
	unlink(path);
	snprintf(path, sizeof(path), "%s/run", f->directory);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

static int client_open(const struct fixture *f)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, f->path, strlen(f->path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void client_send(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Loop turns until `fd` gave a line (true, without newline) or its end (false). */
static bool client_line(struct fixture *f, int fd, char *line, size_t size)
{
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;
	size_t used = 0;

	for (;;) {
		ssize_t n = recv(fd, line + used, 1, 0);

		if (n == 1 && line[used] == '\n') {
			line[used] = 0;
			return true;
		}
		if (n == 1) {
			assert_true(++used < size);
			continue;
		}
		if (n == 0 || errno == ECONNRESET)
			return false;
		assert_int_equal(errno, EAGAIN);
		if (clock_now_ns() > deadline)
			fail_msg("no answer within the deadline");
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
}

static void expect_line(struct fixture *f, int fd, const char *expected)
{
	char line[8192];

	if (!client_line(f, fd, line, sizeof(line)))
		fail_msg("closed instead of %s", expected);
	assert_string_equal(line, expected);
}

static void expect_end(struct fixture *f, int fd)
{
	char line[8192];

	if (client_line(f, fd, line, sizeof(line)))
		fail_msg("got %s instead of the end", line);
	close(fd);
}

static void turn_until(struct fixture *f, const unsigned *value, unsigned wanted)
{
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;

	while (*value < wanted) {
		if (clock_now_ns() > deadline)
			fail_msg("still %u of %u", *value, wanted);
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
}

/* ---------------------------------------------------------------- requests */

static void test_answer(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);
	char expected[200];

	snprintf(expected, sizeof(expected),
		 "{\"ok\":true,\"request\":{\"command\":\"echo\",\"x\":[1]},\"peer\":\"uid %u pid %d\"}",
		 getuid(), getpid());
	client_send(fd, "{\"command\": \"echo\", \"x\": [1]}\n");
	expect_line(f, fd, expected);
	/* The same connection serves the next request. */
	client_send(fd, "{\"command\": \"fail\"}\n");
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	expect_line(f, fd, "{\"ok\":false,\"error\":\"it is refused\",\"hint\":\"try --force\"}");
	close(fd);
}

static void test_byte_by_byte(void **state)
{
	static const char text[] = "{\"command\": \"fail\"}\n";
	struct fixture *f = *state;
	int fd = client_open(f);

	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		char c[2] = {text[i], 0};

		client_send(fd, c);
		for (int turn = 0; turn < 3; turn++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	close(fd);
}

static void test_bad_requests(void **state)
{
	static const struct {
		const char *request, *answer;
	} table[] = {
	    {"{\"command\": \"ecoh\"}\n",
	     "{\"ok\":false,\"error\":\"unknown command 'ecoh'\",\"hint\":\"did you mean 'echo'?\"}"},
	    {"{\"command\": \"zzzzzzz\"}\n", "{\"ok\":false,\"error\":\"unknown command 'zzzzzzz'\"}"},
	    {"{\"command\": 5}\n", "{\"ok\":false,\"error\":\"the request has no "
				   "\\\"command\\\"\",\"hint\":\"send {\\\"command\\\": \\\"status\\\"}\"}"},
	    {"[]\n", "{\"ok\":false,\"error\":\"the request has no \\\"command\\\"\",\"hint\":\"send "
		     "{\\\"command\\\": \\\"status\\\"}\"}"},
	};
	struct fixture *f = *state;
	int fd = client_open(f);
	char line[1024];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		client_send(fd, table[i].request);
		expect_line(f, fd, table[i].answer);
	}
	client_send(fd, "GET / HTTP/1.0\n");
	assert_true(client_line(f, fd, line, sizeof(line)));
	assert_non_null(strstr(line, "not a JSON object on one line"));
	client_send(fd, "{\"command\": \"echo\", \"command\": \"fail\"}\n");
	assert_true(client_line(f, fd, line, sizeof(line)));
	assert_non_null(strstr(line, "duplicate"));
	/* An answer arrives even where the handler's text cannot be JSON. */
	client_send(fd, "{\"command\": \"badtext\"}\n");
	assert_true(client_line(f, fd, line, sizeof(line)));
	assert_non_null(strstr(line, "\"ok\":false"));
	assert_int_equal(f->echoed, 0);
	close(fd);
}

static void test_oversize(void **state)
{
	struct fixture *f = *state;
	char *text = malloc(ADMIN_LINE_MAX + 2);
	int fd = client_open(f);
	char line[256];

	/* Exactly the maximum with its newline is served. */
	memset(text, ' ', ADMIN_LINE_MAX);
	memcpy(text, "{\"command\":\"fail\"}", 18);
	text[ADMIN_LINE_MAX - 1] = '\n';
	text[ADMIN_LINE_MAX] = 0;
	client_send(fd, text);
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	assert_true(client_line(f, fd, line, sizeof(line)));
	/* One byte more without a newline in sight is refused, and the connection ends. */
	text[ADMIN_LINE_MAX - 1] = ' ';
	client_send(fd, text);
	expect_line(f, fd, "{\"ok\":false,\"error\":\"the request is longer than 65536 bytes\"}");
	expect_end(f, fd);
	free(text);
}

static void test_pipelined(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	/* The second request waits for the deferred first one; the third is only half there. */
	client_send(fd, "{\"command\":\"defer\"}\n{\"command\":\"fail\"}\n\n{\"comm");
	turn_until(f, &f->deferred_count, 1);
	for (int i = 0; i < 10; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(recv(fd, (char[1]){0}, 1, 0), -1);
	admin_progress(f->deferred[0], "backlog %d", 812);
	expect_line(f, fd, "{\"progress\":\"backlog 812\"}");
	assert_false(admin_is_gone(f->deferred[0]));
	admin_done(f->deferred[0],
		   json_pack("{s:s, s:b}", "phase", "cutover", "ok", 0)); /* "ok" is ours to say */
	expect_line(f, fd, "{\"ok\":true,\"phase\":\"cutover\"}");
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	expect_line(f, fd, "{\"ok\":false,\"error\":\"it is refused\",\"hint\":\"try --force\"}");
	client_send(fd, "and\":\"defer\"}\n");
	turn_until(f, &f->deferred_count, 2);
	admin_done(f->deferred[1], NULL);
	expect_line(f, fd, "{\"ok\":true}");
	close(fd);
}

static void test_half_close(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, "{\"command\":\"fail\"}\n{\"command\":\"defer\"}\n");
	shutdown(fd, SHUT_WR);
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	expect_line(f, fd, "{\"ok\":false,\"error\":\"it is refused\",\"hint\":\"try --force\"}");
	turn_until(f, &f->deferred_count, 1);
	admin_done(f->deferred[0], NULL);
	expect_line(f, fd, "{\"ok\":true}");
	expect_end(f, fd);
	/* Without a whole line there is nothing to answer. */
	fd = client_open(f);
	client_send(fd, "{\"command\":\"echo\"}");
	shutdown(fd, SHUT_WR);
	expect_end(f, fd);
	assert_int_equal(f->echoed, 0);
}

static void test_client_goes_away(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;

	client_send(fd, "{\"command\":\"defer\"}\n");
	turn_until(f, &f->deferred_count, 1);
	close(fd);
	/* The first line that cannot be delivered tells; the handler may go on talking and ends its reply as
	 * always. */
	while (!admin_is_gone(f->deferred[0])) {
		assert_true(clock_now_ns() < deadline);
		admin_progress(f->deferred[0], "still here");
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	admin_progress(f->deferred[0], "still here");
	admin_done(f->deferred[0], json_object());
	/* Others are served. */
	fd = client_open(f);
	client_send(fd, "{\"command\":\"fail\"}\n");
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	close(fd);
}

static void test_client_does_not_read(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f), other;

	client_send(fd, "{\"command\":\"flood\"}\n"); /* 50 MB of progress: cut off at ADMIN_OUTPUT_MAX */
	turn_until(f, &f->deferred_count, 1);
	assert_true(admin_is_gone(f->deferred[0]));
	admin_fail(f->deferred[0], "x", NULL);
	other = client_open(f);
	client_send(other, "{\"command\":\"fail\"}\n");
	expect_line(f, other, "{\"progress\":\"step 1\"}");
	close(other);
	close(fd);
}

static void test_answer_too_large(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, "{\"command\":\"much\"}\n");
	expect_line(f, fd, "{\"ok\":false,\"error\":\"the answer is too large\",\"hint\":\"ask for less, with --limit\"}");
	/* The connection serves the next request. */
	client_send(fd, "{\"command\":\"fail\"}\n");
	expect_line(f, fd, "{\"progress\":\"step 1\"}");
	close(fd);
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	int fd[ADMIN_CONNECTIONS_MAX + 1];
	char line[256];

	for (int i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
		fd[i] = client_open(f);
		client_send(fd[i], "{\"command\":\"defer\"}\n");
		turn_until(f, &f->deferred_count, (unsigned)i + 1);
	}
	fd[ADMIN_CONNECTIONS_MAX] = client_open(f);
	assert_true(client_line(f, fd[ADMIN_CONNECTIONS_MAX], line, sizeof(line)));
	assert_non_null(strstr(line, "too many connections"));
	expect_end(f, fd[ADMIN_CONNECTIONS_MAX]);
	for (int i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
		admin_done(f->deferred[i], NULL);
		expect_line(f, fd[i], "{\"ok\":true}");
		close(fd[i]);
	}
}

/* A reply that is out while the agent stops: ended later, it goes nowhere and frees what is left. */
static void test_stop_with_deferred(void **state)
{
	struct fixture *f = *state;
	struct fixture second = {.deferred_count = 0};
	struct error e;
	int fd;

	snprintf(second.path, sizeof(second.path), "%s/second", f->directory);
	assert_int_equal(uv_loop_init(&second.loop), 0);
	assert_int_equal(admin_new(&second.loop, &second.admin), 0);
	admin_register(second.admin, "defer", on_defer, &second);
	assert_int_equal(admin_listen(second.admin, second.path, &e), 0);
	fd = client_open(&second);
	client_send(fd, "{\"command\":\"defer\"}\n");
	turn_until(&second, &second.deferred_count, 1);
	admin_stop(second.admin);
	assert_true(admin_is_gone(second.deferred[0]));
	uv_run(&second.loop, UV_RUN_DEFAULT);
	admin_done(second.deferred[0], NULL);
	expect_end(&second, fd);
	assert_int_equal(uv_loop_close(&second.loop), 0);
	strcat(second.path, ".lock");
	unlink(second.path);
}

/* ---------------------------------------------------------------- the socket itself */

static void test_mode_and_second_agent(void **state)
{
	struct fixture *f = *state;
	struct admin *second;
	struct error e;
	struct stat st;
	char expected[32];

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(admin_new(&f->loop, &second), 0);
	assert_int_equal(admin_listen(second, f->path, &e), -EADDRINUSE);
	snprintf(expected, sizeof(expected), "(pid %d)", getpid());
	assert_non_null(strstr(e.text, "another agent is running"));
	assert_non_null(strstr(e.text, expected));
	admin_stop(second);
	/* The first one still listens. */
	assert_int_equal(access(f->path, F_OK), 0);
	close(client_open(f));
}

static void test_stale_socket(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char lock[128];
	struct admin *second;
	struct error e = {""};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	/* What a killed agent leaves: a socket file nobody listens on, and a lock file nobody holds. */
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/stale", f->directory);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	snprintf(lock, sizeof(lock), "%s.lock", a.sun_path);
	close(open(lock, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(admin_new(&f->loop, &second), 0);
	if (admin_listen(second, a.sun_path, &e) < 0)
		fail_msg("%s", e.text);
	admin_stop(second);
	assert_int_equal(access(a.sun_path, F_OK), -1);
	unlink(lock);
}

/* ---------------------------------------------------------------- the client side */

struct call {
	const char *path, *command;
	int timeout, rc;
	char progress[64];
	json_t *final;
	struct error error;
	_Atomic bool ended;
};

static void on_call_progress(const char *text, void *context)
{
	struct call *c = context;

	snprintf(c->progress, sizeof(c->progress), "%s", text);
}

static void *call_thread(void *context)
{
	struct call *c = context;
	json_t *request = json_pack("{s:s}", "command", c->command);

	c->rc = admin_call(c->path, request, c->timeout, on_call_progress, c, &c->final, &c->error);
	json_decref(request);
	c->ended = true;
	return NULL;
}

static void run_call(struct fixture *f, struct call *c)
{
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;
	pthread_t thread;

	c->path = c->path ? c->path : f->path;
	assert_int_equal(pthread_create(&thread, NULL, call_thread, c), 0);
	while (!c->ended && clock_now_ns() < deadline)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	pthread_join(thread, NULL);
}

static void test_call(void **state)
{
	struct fixture *f = *state;
	struct call good = {.command = "fail", .timeout = 5000}, late = {.command = "defer", .timeout = 50},
		    nobody = {.path = "/tmp/cqlferry-nobody-here", .command = "x", .timeout = 50},
		    flood = {.command = "flood", .timeout = 5000};

	run_call(f, &good);
	assert_int_equal(good.rc, 0);
	assert_string_equal(good.progress, "step 1");
	assert_string_equal(json_string_value(json_object_get(good.final, "hint")), "try --force");
	json_decref(good.final);

	run_call(f, &late);
	assert_int_equal(late.rc, -ETIMEDOUT);
	assert_string_equal(late.error.text, "no answer from the agent within 50 ms");
	admin_done(f->deferred[0], NULL);

	run_call(f, &nobody);
	assert_int_equal(nobody.rc, -ENOENT);
	assert_non_null(strstr(nobody.error.text, "no agent answers at '/tmp/cqlferry-nobody-here'"));

	/* An agent that drops us in the middle of an answer. */
	run_call(f, &flood);
	assert_int_equal(flood.rc, -ECONNRESET);
	admin_done(f->deferred[1], NULL);
}

/* ---------------------------------------------------------------- HTTP */

static bool on_health(json_t *body, void *context)
{
	bool *well = context;

	if (!*well)
		json_object_set_new(body, "reasons", json_pack("[s]", "worker 2 is stuck"));
	return *well;
}

static void http_ask(struct fixture *f, struct http *http, const char *request, char *answer, size_t size)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(http_port(http)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t used = 0;
	ssize_t n = -1;

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	client_send(fd, request);
	while (n != 0) {
		n = recv(fd, answer + used, size - 1 - used, 0);
		used += n > 0 ? (size_t)n : 0;
		if (n < 0 && errno != EAGAIN)
			break;
		assert_true(clock_now_ns() < deadline);
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	answer[used] = 0;
	close(fd);
}

static void test_http(void **state)
{
	struct fixture *f = *state;
	static char answer[1 << 20];
	bool well = true;
	struct http_options options = {
	    .address = "127.0.0.1", .health = on_health, .ready = on_health, .context = &well};
	struct http *http, *second;
	struct error e = {""};

	if (http_start(&f->loop, &options, &http, &e) < 0)
		fail_msg("%s", e.text);
	f->http = http;
	http_ask(f, http, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer,
		 sizeof(answer));
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
	assert_non_null(strstr(answer, "\r\n\r\n{\"ok\":true}"));
	well = false;
	http_ask(f, http, "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer,
		 sizeof(answer));
	assert_non_null(strstr(answer, "HTTP/1.1 503"));
	assert_non_null(strstr(answer, "{\"reasons\":[\"worker 2 is stuck\"],\"ok\":false}"));
	http_ask(f, http, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer,
		 sizeof(answer));
	assert_non_null(strstr(answer, "# TYPE cqlferry_sessions gauge"));
	assert_non_null(strstr(answer, "text/plain; version=0.0.4"));
	http_ask(f, http, "HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer,
		 sizeof(answer));
	assert_non_null(strstr(answer, "HTTP/1.1 200"));
	assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
	http_ask(f, http, "GET /metric HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answer,
		 sizeof(answer));
	assert_non_null(strstr(answer, "HTTP/1.1 404"));
	http_ask(f, http,
		 "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
		 answer, sizeof(answer));
	assert_non_null(strstr(answer, "HTTP/1.1 405"));
	assert_non_null(strstr(answer, "Allow: GET, HEAD"));
	http_ask(f, http, "nonsense\r\n\r\n", answer, sizeof(answer));
	assert_null(strstr(answer, " 200"));

	options.port = http_port(http);
	assert_int_equal(http_start(&f->loop, &options, &second, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, "set http.port to a free one"));
	options.address = "nowhere";
	assert_int_equal(http_start(&f->loop, &options, &second, &e), -EINVAL);
}

/* ---------------------------------------------------------------- how an answer is shown */

static void test_render(void **state)
{
	static const char json[] = "{\"phase\":\"mirror\",\"uptimeSeconds\":5400,\"mirror\":{"
				   "\"backlogRecords\":12,\"backlogBytes\":13000,\"lagMicros\":1500,"
				   "\"tables\":[{\"name\":\"ks.a\",\"queued\":1},{\"name\":\"ks.\\u001b["
				   "2Jlonger\",\"queued\":100}]},"
				   "\"blockers\":[],\"warnings\":[\"clock skew 90 ms\"],\"clean\":true}";
	static const char expected[] = "phase     mirror\n"
				       "uptime    90 min\n"
				       "blockers  none\n"
				       "clean     yes\n"
				       "\n"
				       "mirror\n"
				       "  backlog records  12\n"
				       "  backlog          12.7 KiB\n"
				       "  lag              1.5 ms\n"
				       "  tables\n"
				       "    name           queued\n"
				       "    ks.a           1\n"
				       "    ks.?[2Jlonger  100\n"
				       "\n"
				       "warnings\n"
				       "  clock skew 90 ms\n";
	json_t *object = json_loads(json, 0, NULL);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	render_object(out, object, false);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
	json_decref(object);
}

/* `fill` letters and `end`, printed as `fill` letters and `printed`. */
static void expect_printed(unsigned fill, const char *end, const char *printed)
{
	char given[1024], expected[1024], *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	memset(given, 'a', fill);
	memset(expected, 'a', fill);
	snprintf(given + fill, sizeof(given) - fill, "%s", end);
	snprintf(expected + fill, sizeof(expected) - fill, "%s", printed);
	render_text(out, given);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void test_long_text_is_printed_whole(void **state)
{
	(void)state;
	expect_printed(700, "", "");
	/* Wherever a piece ends: a character, what steers a terminal, and a line stay what they are. */
	for (unsigned fill = 500; fill < 520; fill++) {
		expect_printed(fill, "\xc3\xa9", "\xc3\xa9");
		expect_printed(fill, "\xf0\x9f\x9b\xb6 b", "\xf0\x9f\x9b\xb6 b");
		expect_printed(fill, "\xc2\x9b" "2J", "??2J");
		expect_printed(fill, "\nb", "\n  b");
		expect_printed(fill, "\x80\x80\x80\x80\x80\x80", "\x80\x80\x80\x80\x80\x80"); /* no UTF-8 */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_answer, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_oversize, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pipelined, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_half_close, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_client_goes_away, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_client_does_not_read, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_answer_too_large, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stop_with_deferred, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_mode_and_second_agent, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stale_socket, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_call, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_http, setup, teardown),
	    cmocka_unit_test(test_render),
	    cmocka_unit_test(test_long_text_is_printed_whole),
	};

	signal(SIGPIPE, SIG_IGN); /* as the agent does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
