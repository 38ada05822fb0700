// SPDX-License-Identifier: Apache-2.0
/* Dialling: success, refusal, a host that never answers (a listener whose queue is full), giving up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/dial.h"

static uv_loop_t loop;
static int calls, result; /* result: the descriptor, or −errno */

static void done(void *context, struct dial_result *r)
{
	assert_ptr_equal(context, &result);
	assert_true((r->error < 0) == (r->reason != NULL));
	calls++;
	result = r->error < 0 ? r->error : r->stream.fd;
}

static struct dial *dial_plain(const struct addr *to, unsigned timeout_ms)
{
	return dial_start(&loop, &(struct endpoint){.addr = *to}, 0, timeout_ms, done, &result);
}

static int setup(void **unused)
{
	(void)unused;
	calls = 0;
	result = 0;
	return uv_loop_init(&loop);
}

/* A handle that is left would make this fail; sanitizers would see memory that is left. */
static int teardown(void **unused)
{
	(void)unused;
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

static int listener(struct addr *ret, int backlog)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t size = sizeof(ret->in);

	memset(ret, 0, sizeof(*ret));
	ret->in.sin_family = AF_INET;
	ret->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, &ret->sa, sizeof(ret->in)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, &ret->sa, &size), 0);
	return fd;
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void a_listener_is_reached(void **unused)
{
	struct addr to;
	int fd = listener(&to, 5), peer, on = 0;
	socklen_t size = sizeof(on);
	char byte;

	(void)unused;
	assert_non_null(dial_plain(&to, 5000));
	assert_int_equal(calls, 0); /* never before it returns */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(calls, 1);
	assert_true(result >= 0);
	assert_true(fcntl(result, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(result, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(getsockopt(result, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
	assert_true(on);
	peer = accept(fd, NULL, NULL);
	assert_int_equal(send(peer, "x", 1, 0), 1);
	fcntl(result, F_SETFL, 0);
	assert_int_equal(recv(result, &byte, 1, 0), 1);
	close(peer);
	close(result);
	close(fd);
}

static void a_refusal_is_told(void **unused)
{
	unsigned before;
	struct addr to;

	(void)unused;
	close(listener(&to, 1)); /* nobody listens there now */
	before = open_descriptors();
	assert_non_null(dial_plain(&to, 5000));
	assert_int_equal(calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(calls, 1);
	assert_int_equal(result, -ECONNREFUSED);
	assert_int_equal(open_descriptors(), before);
}

/* Connections that nobody accepts fill the queue; further SYNs are dropped. */
static int black_hole(struct addr *to, int fill[4])
{
	int fd = listener(to, 0);

	for (int i = 0; i < 4; i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(fill[i], &to->sa, sizeof(to->in));
	}
	return fd;
}

static void silence_ends_at_the_time_limit(void **unused)
{
	unsigned before;
	struct addr to;
	int fill[4], fd = black_hole(&to, fill);
	uint64_t begin = clock_now_ns(), ms;

	(void)unused;
	before = open_descriptors();
	assert_non_null(dial_plain(&to, 150));
	uv_run(&loop, UV_RUN_DEFAULT);
	ms = (clock_now_ns() - begin) / 1000000;
	assert_int_equal(calls, 1);
	assert_int_equal(result, -ETIMEDOUT);
	assert_true(ms >= 140 && ms < 5000);
	assert_int_equal(open_descriptors(), before);
	for (int i = 0; i < 4; i++)
		close(fill[i]);
	close(fd);
}

static void giving_up_is_silent(void **unused)
{
	unsigned before;
	struct addr to;
	int fill[4], fd = black_hole(&to, fill);
	struct dial *d;

	(void)unused;
	before = open_descriptors();
	d = dial_plain(&to, 60000);
	assert_non_null(d);
	uv_run(&loop, UV_RUN_NOWAIT);
	dial_cancel(d);
	dial_cancel(NULL);
	uv_run(&loop, UV_RUN_DEFAULT); /* ends at once, not after a minute */
	assert_int_equal(calls, 0);
	assert_int_equal(open_descriptors(), before);
	for (int i = 0; i < 4; i++)
		close(fill[i]);
	close(fd);
}

/* Given up in the same turn in which it would have been told. */
static void giving_up_what_has_just_come_up(void **unused)
{
	unsigned before;
	struct addr to;
	int fd = listener(&to, 5);
	struct dial *d;

	(void)unused;
	before = open_descriptors();
	d = dial_plain(&to, 5000);
	assert_non_null(d);
	dial_cancel(d);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(calls, 0);
	assert_int_equal(open_descriptors(), before);
	close(fd);
}

static void what_cannot_be_dialled_is_told_from_the_loop(void **unused)
{
	struct addr to = {0};

	(void)unused;
	to.in.sin_family = AF_INET;
	to.in.sin_addr.s_addr = htonl(INADDR_BROADCAST); /* connect() itself refuses that */
	to.in.sin_port = htons(9042);
	assert_non_null(dial_plain(&to, 5000));
	assert_int_equal(calls, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(calls, 1);
	assert_true(result < 0 && result != -ETIMEDOUT);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_listener_is_reached),
		TEST(a_refusal_is_told),
		TEST(silence_ends_at_the_time_limit),
		TEST(giving_up_is_silent),
		TEST(giving_up_what_has_just_come_up),
		TEST(what_cannot_be_dialled_is_told_from_the_loop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
