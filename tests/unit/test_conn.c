// SPDX-License-Identifier: Apache-2.0
/* A connection on a loop: partial writes, the marks of its queue, an orderly end, and a broken pipe that is told from the loop only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/conn.h"

static uv_loop_t loop;
static struct conn conn;
static int other, drained_calls, failed_calls, closed_calls, readable_calls, failed_with;
static bool close_when_failed;

static void on_readable(struct conn *c)
{
	char byte[100];

	readable_calls++;
	if (conn_recv(c, byte, sizeof(byte)) == 0)
		conn_read(c, false);
}

static void on_drained(struct conn *c)
{
	assert_false(conn_congested(c));
	assert_true(c->queued <= CONN_LOW);
	drained_calls++;
}

static void on_failed(struct conn *c, int error)
{
	failed_calls++;
	failed_with = error;
	if (close_when_failed)
		conn_close(c);
}

static void on_closed(struct conn *c)
{
	(void)c;
	closed_calls++;
}

static const struct conn_ops ops = {.readable = on_readable, .drained = on_drained, .failed = on_failed, .closed = on_closed};

static int setup(void **unused)
{
	int pair[2], small = 4096;

	(void)unused;
	drained_calls = failed_calls = closed_calls = readable_calls = failed_with = 0;
	close_when_failed = true;
	uv_loop_init(&loop);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	other = pair[1];
	return conn_init(&conn, &loop, stream_plain(pair[0]), &ops, NULL);
}

static int teardown(void **unused)
{
	(void)unused;
	conn_close(&conn);
	conn_close(&conn); /* harmless */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed_calls, 1);
	if (other >= 0)
		close(other);
	return uv_loop_close(&loop);
}

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 31 + at / 251);
}

static int send_pattern(size_t from, size_t size)
{
	uint8_t *data = malloc(size);
	struct iovec iov[3];
	int r;

	for (size_t i = 0; i < size; i++)
		data[i] = pattern(from + i);
	/* In pieces, an empty one among them: a partial write may end in each. */
	iov[0] = (struct iovec){data, size / 3};
	iov[1] = (struct iovec){data + size / 3, 0};
	iov[2] = (struct iovec){data + size / 3, size - size / 3};
	r = conn_send(&conn, iov, 3);
	free(data); /* borrowed only */
	return r;
}

/* Takes up to `most` bytes at the other end; checks that they follow *at. */
static size_t take(size_t *at, size_t most)
{
	uint8_t chunk[8192];
	size_t taken = 0;
	ssize_t n;

	while (taken < most && (n = recv(other, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (chunk[i] != pattern(*at + (size_t)i))
				fail_msg("byte %zu is wrong", *at + (size_t)i);
		*at += (size_t)n;
		taken += (size_t)n;
	}
	return taken;
}

static void every_byte_arrives_once_and_in_order(void **unused)
{
	size_t sent = 0, got = 0;

	(void)unused;
	for (unsigned i = 0; i < 2000; i++) {
		size_t size = 1 + i * 37 % 5000;

		assert_int_equal(send_pattern(sent, size), 0);
		sent += size;
		if (i % 3 == 0)
			take(&got, 3000);
		if (i % 5 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	while (got < sent) {
		uv_run(&loop, UV_RUN_NOWAIT);
		take(&got, SIZE_MAX);
	}
	assert_int_equal(got, sent);
	assert_int_equal(conn.queued, 0);
	assert_false(conn.writing);
	assert_int_equal(failed_calls, 0);
}

static void congestion_has_two_marks(void **unused)
{
	size_t sent = 0, got = 0;

	(void)unused;
	while (!conn_congested(&conn)) {
		assert_true(conn.queued <= CONN_HIGH);
		assert_int_equal(send_pattern(sent, 10000), 0);
		sent += 10000;
		assert_true(sent < 4 * CONN_HIGH);
	}
	assert_true(conn.queued > CONN_HIGH);
	/* Nothing is told while the other end does not read, nor before the lower mark. */
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(drained_calls, 0);
	while (!drained_calls) {
		size_t queued = conn.queued;

		assert_true(conn_congested(&conn));
		assert_true(queued > CONN_LOW);
		take(&got, 4096);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_false(conn_congested(&conn));
	while (got < sent) {
		take(&got, SIZE_MAX);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(drained_calls, 1);
}

/* The caller of conn_send() is in the middle of its work: it must not lose its session there. */
static void a_broken_pipe_is_told_from_the_loop(void **unused)
{
	(void)unused;
	close(other);
	other = -1;
	assert_int_equal(send_pattern(0, 100), -EPIPE);
	assert_int_equal(failed_calls, 0);
	assert_int_equal(send_pattern(0, 100), -EPIPE);
	assert_int_equal(failed_calls, 0);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(failed_calls, 1);
	assert_true(failed_with < 0);
	uv_run(&loop, UV_RUN_DEFAULT); /* closed by then: the loop has nothing left */
	assert_int_equal(failed_calls, 1);
}

static void a_pipe_that_breaks_under_a_queue_is_told_once(void **unused)
{
	size_t got = 0;

	(void)unused;
	assert_int_equal(send_pattern(0, 500000), 0);
	assert_true(conn.queued > 0);
	take(&got, 1000);
	close(other);
	other = -1;
	for (int i = 0; i < 10 && !failed_calls; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(failed_calls, 1);
	assert_int_equal(conn.queued, 0);
}

static void reading_can_be_stopped(void **unused)
{
	(void)unused;
	assert_int_equal(send(other, "abc", 3, 0), 3);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(readable_calls, 0);
	conn_read(&conn, true);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(readable_calls, 1);
	conn_read(&conn, false);
	assert_int_equal(send(other, "abc", 3, 0), 3);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(readable_calls, 1);
	conn_discard_input(&conn);
	conn_read(&conn, true);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(readable_calls, 1);
}

/* What a cluster said before it closed still belongs to a client that reads slowly. */
static void finishing_sends_what_is_queued(void **unused)
{
	size_t got = 0;
	char byte;

	(void)unused;
	assert_int_equal(send_pattern(0, 900000), 0);
	conn_finish(&conn);
	assert_true(send_pattern(0, 10) < 0);
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(closed_calls, 0);
	while (got < 900000) {
		uv_run(&loop, UV_RUN_NOWAIT);
		take(&got, 50000);
	}
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(recv(other, &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(closed_calls, 0); /* the peer may still be talking */
	close(other);
	other = -1;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed_calls, 1);
	assert_int_equal(drained_calls, 0);
}

static void finishing_with_an_empty_queue_waits_for_the_peer(void **unused)
{
	char byte;

	(void)unused;
	conn_finish(&conn);
	assert_int_equal(recv(other, &byte, 1, MSG_DONTWAIT), 0);
	/* What still comes is thrown away, and never answered by a reset. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(send(other, "late", 4, MSG_NOSIGNAL), 4);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(closed_calls, 0);
	close(other);
	other = -1;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed_calls, 1);
}

static void finishing_ends_when_the_other_end_goes(void **unused)
{
	(void)unused;
	assert_int_equal(send_pattern(0, 900000), 0);
	conn_finish(&conn);
	close(other);
	other = -1;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed_calls, 1);
	assert_int_equal(failed_calls, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_byte_arrives_once_and_in_order),
		TEST(congestion_has_two_marks),
		TEST(a_broken_pipe_is_told_from_the_loop),
		TEST(a_pipe_that_breaks_under_a_queue_is_told_once),
		TEST(reading_can_be_stopped),
		TEST(finishing_sends_what_is_queued),
		TEST(finishing_with_an_empty_queue_waits_for_the_peer),
		TEST(finishing_ends_when_the_other_end_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
