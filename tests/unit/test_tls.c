// SPDX-License-Identifier: Apache-2.0
/* TLS streams: who is let in and who is not, and why; bytes through pieces and full buffers; resumption; an
 * orderly end. */
#include "unit/tlsplay.h"

#include "base/clock.h"
#include "mirror/client.h"
#include "net/conn.h"
#include "net/connect.h"
#include "net/dial.h"
#include "mirror/client.h"

static struct cert ca, other_ca, node, client;

static int setup(void **state)
{
	if (directory_setup(state) < 0)
		return -1;
	ca = cert_make(NULL, "test CA", NULL, -DAY, 10 * DAY, true);
	other_ca = cert_make(NULL, "other CA", NULL, -DAY, 10 * DAY, true);
	node = cert_make(&ca, "node", "DNS:node.example,DNS:*.wild.example,IP:127.0.0.1", -DAY, DAY, false);
	client = cert_make(&ca, "client", NULL, -DAY, DAY, false);
	cert_write(&ca, "ca.pem", "wb");
	cert_write(&other_ca, "other-ca.pem", "wb");
	pair_write(&node, "node");
	pair_write(&client, "client");
	return 0;
}

static int teardown(void **state)
{
	cert_free(&ca);
	cert_free(&other_ca);
	cert_free(&node);
	cert_free(&client);
	return directory_teardown(state);
}

static struct tls_context *context_of(const struct tls_settings *s)
{
	struct tls_context *c = NULL;
	struct error error = {""};

	if (tls_context_new(s, &c, &error) < 0)
		fail_msg("%s", error.text);
	return c;
}

static struct tls_context *server_context(const char *name, enum tls_version lowest)
{
	char cert[128], key[128];

	snprintf(cert, sizeof(cert), "%s/%s.pem", directory, name);
	snprintf(key, sizeof(key), "%s/%s.key", directory, name);
	/* Read now; only refresh would look at them again. */
	return context_of(
	    &(struct tls_settings){.server = true, .cert_file = cert, .key_file = key, .lowest = lowest});
}

static struct endpoint loopback(struct tls_context *tls, const char *name)
{
	struct endpoint e = {.tls = tls};

	e.addr.in.sin_family = AF_INET;
	e.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	snprintf(e.names[0], ENDPOINT_NAME, "%s", name);
	snprintf(e.sni, sizeof(e.sni), "%s", name);
	return e;
}

/* ---- two ends in one thread */

struct pair {
	struct stream client, server;
	int client_result, server_result;
};

static void pair_open(struct pair *p, const struct endpoint *to, struct tls_context *server)
{
	int fd[2], small = 4096;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	assert_int_equal(stream_tls_client(fd[0], to, &p->client), 0);
	assert_int_equal(stream_tls_server(fd[1], server, &p->server), 0);
	p->client_result = p->server_result = -EAGAIN;
	for (int i = 0; i < 1000 && (p->client_result == -EAGAIN || p->server_result == -EAGAIN); i++) {
		if (p->client_result == -EAGAIN)
			p->client_result = stream_handshake(&p->client);
		if (p->server_result == -EAGAIN)
			p->server_result = stream_handshake(&p->server);
		if (p->client_result < 0 && p->client_result != -EAGAIN) {
			stream_close(
			    &p->client); /* as its owner would; the reason is kept by the caller before */
			break;
		}
	}
}

static void pair_close(struct pair *p)
{
	if (p->client.fd >= 0)
		stream_close(&p->client);
	stream_close(&p->server);
}

/* ---- who is let in */

static void certificates_are_judged(void **unused)
{
	struct cert expired = cert_make(&ca, "old", "IP:127.0.0.1", -10 * DAY, -DAY, false);
	struct cert early = cert_make(&ca, "early", "IP:127.0.0.1", DAY, 2 * DAY, false);
	struct cert own = cert_make(NULL, "own", "IP:127.0.0.1", -DAY, DAY, false);
	struct cert stranger = cert_make(&other_ca, "stranger", "IP:127.0.0.1", -DAY, DAY, false);
	struct cert common = cert_make(&ca, "common.example", NULL, -DAY, DAY, false);
	const struct {
		const char *cert, *name, *reason; /* reason NULL = let in */
		enum { NAMED, ANY_NAME, ANYBODY } whom;
	} cases[] = {
	    {"node", "", NULL, NAMED},
	    {"node", "127.0.0.1", NULL, NAMED},
	    {"node", "node.example", NULL, NAMED},
	    {"node", "NODE.example", NULL, NAMED},
	    {"node", "a.wild.example", NULL, NAMED},
	    {"common", "common.example", NULL, NAMED},
	    {"node", "other.example", "is not for other.example", NAMED},
	    {"node", "a.b.wild.example", "is not for a.b.wild.example", NAMED},
	    {"node", "127.0.0.2", "is not for 127.0.0.2", NAMED},
	    {"node", "other.example", NULL, ANY_NAME},
	    {"common", "", "is not for 127.0.0.1", NAMED},
	    {"expired", "", "has expired on 20", NAMED},
	    {"expired", "", "has expired on 20", ANY_NAME},
	    {"early", "", "is valid only from 20", NAMED},
	    {"own", "", "is not trusted", NAMED},
	    {"own", "", "is not trusted", ANY_NAME},
	    {"stranger", "", "does tls.caFile hold the CA", NAMED},
	    {"expired", "other.example", NULL, ANYBODY},
	    {"own", "", NULL, ANYBODY},
	    {"stranger", "", NULL, ANYBODY},
	};

	(void)unused;
	pair_write(&expired, "expired");
	pair_write(&early, "early");
	pair_write(&own, "own");
	pair_write(&stranger, "stranger");
	pair_write(&common, "common");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (enum tls_version v = TLS_1_2; v <= TLS_1_3; v++) {
			struct tls_context *server = server_context(cases[i].cert, TLS_1_2);
			struct tls_context *tls = context_of(&(struct tls_settings){
			    .ca_file = in_directory("ca.pem"),
			    .any_name = cases[i].whom == ANY_NAME,
			    .anybody = cases[i].whom == ANYBODY,
			    .lowest = v});
			struct endpoint to = loopback(tls, cases[i].name);
			int fd[2], r = -EAGAIN, s = -EAGAIN;
			struct stream a, b;

			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
			assert_int_equal(stream_tls_client(fd[0], &to, &a), 0);
			assert_int_equal(stream_tls_server(fd[1], server, &b), 0);
			for (int turn = 0; turn < 20 && r == -EAGAIN; turn++) {
				r = stream_handshake(&a);
				if (s == -EAGAIN)
					s = stream_handshake(&b);
			}
			if (cases[i].reason) {
				assert_int_equal(r, -EKEYREJECTED);
				if (!stream_reason(&a) || !strstr(stream_reason(&a), cases[i].reason))
					fail_msg("%s for '%s': %s", cases[i].cert, cases[i].name,
						 stream_reason(&a));
			} else if (r != 0) {
				fail_msg("%s for '%s': %s", cases[i].cert, cases[i].name, stream_reason(&a));
			}
			stream_close(&a);
			stream_close(&b);
			tls_context_free(tls);
			tls_context_free(server);
		}
	}
	cert_free(&expired);
	cert_free(&early);
	cert_free(&own);
	cert_free(&stranger);
	cert_free(&common);
}

/* Waits for what the other end makes of us: with TLS 1.3 a client learns it from its first read. */
static ssize_t read_soon(struct pair *p, struct stream *s, char *to, size_t size)
{
	ssize_t n = -EAGAIN;

	for (int i = 0; i < 100 && n == -EAGAIN; i++) {
		if (p->server_result == -EAGAIN)
			p->server_result = stream_handshake(&p->server);
		n = stream_read(s, to, size);
	}
	return n;
}

static void clients_show_certificates(void **unused)
{
	struct cert stranger = cert_make(&other_ca, "stranger", NULL, -DAY, DAY, false);
	const struct {
		const char *cert;
		enum tls_client_auth auth;
		bool good;
		const char *reason, *client_reason;
	} cases[] = {
	    {NULL, TLS_CLIENT_AUTH_NONE, true, NULL, NULL},
	    {NULL, TLS_CLIENT_AUTH_OPTIONAL, true, NULL, NULL},
	    {NULL, TLS_CLIENT_AUTH_REQUIRED, false, "showed no certificate",
	     "does it want a certificate of ours"},
	    {"client", TLS_CLIENT_AUTH_REQUIRED, true, NULL, NULL},
	    {"client", TLS_CLIENT_AUTH_OPTIONAL, true, NULL, NULL},
	    {"foreign", TLS_CLIENT_AUTH_OPTIONAL, false, "listen.tls.clientCaFile",
	     "does it want a certificate of ours"},
	    {"foreign", TLS_CLIENT_AUTH_REQUIRED, false, "is not trusted",
	     "does it want a certificate of ours"},
	};

	(void)unused;
	pair_write(&stranger, "foreign");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (enum tls_version v = TLS_1_2; v <= TLS_1_3; v++) {
			char cert[128] = "", key[128] = "", byte;
			struct pair p;
			struct tls_context *tls,
			    *server = context_of(&(struct tls_settings){.server = true,
									.cert_file = in_directory("node.pem"),
									.key_file = in_directory("node.key"),
									.ca_file = in_directory("ca.pem"),
									.client_auth = cases[i].auth});
			struct endpoint to;
			int fd[2];

			if (cases[i].cert) {
				snprintf(cert, sizeof(cert), "%s/%s.pem", directory, cases[i].cert);
				snprintf(key, sizeof(key), "%s/%s.key", directory, cases[i].cert);
			}
			tls = context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem"),
								.cert_file = cert,
								.key_file = key,
								.lowest = v});
			to = loopback(tls, "");
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
			assert_int_equal(stream_tls_client(fd[0], &to, &p.client), 0);
			assert_int_equal(stream_tls_server(fd[1], server, &p.server), 0);
			p.client_result = p.server_result = -EAGAIN;
			for (int turn = 0;
			     turn < 20 && (p.client_result == -EAGAIN || p.server_result == -EAGAIN);
			     turn++) {
				if (p.client_result == -EAGAIN)
					p.client_result = stream_handshake(&p.client);
				if (p.server_result == -EAGAIN)
					p.server_result = stream_handshake(&p.server);
			}
			if (cases[i].good) {
				assert_int_equal(p.client_result, 0);
				assert_int_equal(p.server_result, 0);
			} else {
				assert_int_equal(p.server_result, cases[i].cert ? -EKEYREJECTED : -EPROTO);
				assert_non_null(strstr(stream_reason(&p.server), cases[i].reason));
				assert_true(read_soon(&p, &p.client, &byte, 1) < 0);
				assert_non_null(strstr(stream_reason(&p.client), cases[i].client_reason));
			}
			pair_close(&p);
			tls_context_free(tls);
			tls_context_free(server);
		}
	}
	cert_free(&stranger);
}

/* A server that goes with what we wrote unread resets the connection; its alert came before, and is told all
 * the same. */
static void the_alert_behind_a_reset_is_told(void **unused)
{
	struct tls_context *server =
	    context_of(&(struct tls_settings){.server = true,
					      .cert_file = in_directory("node.pem"),
					      .key_file = in_directory("node.key"),
					      .ca_file = in_directory("ca.pem"),
					      .client_auth = TLS_CLIENT_AUTH_REQUIRED});
	struct tls_context *tls =
	    context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem"), .lowest = TLS_1_3});
	struct play_server play;
	struct endpoint to = loopback(tls, "");
	uint8_t data[4096] = {0};
	struct iovec iov = {data, sizeof(data)};
	struct error error;
	struct stream s;
	ssize_t n = 0;

	(void)unused;
	play_start(&play, server, NULL);
	to.addr = play.addr;
	assert_int_equal(stream_connect(&to, 0, clock_now_ns() + 5000000000ull, &s, &error), 0);
	for (int i = 0; i < 5000 && n >= 0; i++) {
		n = stream_write(&s, &iov, 1);
		usleep(1000);
	}
	assert_true(n < 0);
	assert_non_null(stream_reason(&s));
	assert_non_null(strstr(stream_reason(&s), "does it want a certificate of ours"));
	stream_close(&s);
	play_stop(&play);
	tls_context_free(tls);
	tls_context_free(server);
}

/* ---- bytes */

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 31 + at / 251);
}

/* As conn.c does it: what was not taken is offered again, together with more, in other pieces. */
static void every_byte_arrives_once_and_in_order(void **unused)
{
	enum { TOTAL = 3 << 20 };
	uint8_t *data = malloc(TOTAL), chunk[5000];

	(void)unused;
	for (size_t i = 0; i < TOTAL; i++)
		data[i] = pattern(i);
	for (enum tls_version v = TLS_1_2; v <= TLS_1_3; v++) {
		struct tls_context *server = server_context("node", TLS_1_2);
		struct tls_context *tls =
		    context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem"), .lowest = v});
		struct endpoint to = loopback(tls, "");
		size_t sent = 0, got = 0, offered = 0;
		struct pair p;

		pair_open(&p, &to, server);
		assert_int_equal(p.client_result, 0);
		for (unsigned turn = 0; got < TOTAL; turn++) {
			/* Small pieces and large ones, an empty one among them. */
			size_t first = turn % 7 * 11, second = turn % 3 ? 90 : 70000, size;
			struct iovec iov[4];
			ssize_t n;

			size = sent + first + second + 1000 < TOTAL ? first + second + 1000 : TOTAL - sent;
			if (size < offered)
				size = offered; /* never fewer than before */
			if (first > size)
				first = size;
			if (second > size - first)
				second = size - first;
			iov[0] = (struct iovec){data + sent, first};
			iov[1] = (struct iovec){data + sent + first, 0};
			iov[2] = (struct iovec){data + sent + first, second};
			iov[3] = (struct iovec){data + sent + first + second, size - first - second};
			n = size ? stream_write(&p.client, iov, 4) : 0;
			assert_true(n >= 0 || n == -EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
			offered = size - (n > 0 ? (size_t)n : 0);
			n = stream_read(&p.server, chunk, 1 + turn * 37 % sizeof(chunk));
			assert_true(n > 0 || n == -EAGAIN);
			for (ssize_t i = 0; i < n; i++)
				if (chunk[i] != pattern(got + (size_t)i))
					fail_msg("byte %zu is wrong", got + (size_t)i);
			got += n > 0 ? (size_t)n : 0;
		}
		assert_int_equal(got, sent);
		assert_true(p.server.taken > TOTAL); /* what left the socket, not what it meant */
		pair_close(&p);
		tls_context_free(tls);
		tls_context_free(server);
	}
	free(data);
}

/* ---- on a loop */

static size_t loop_got;
static bool loop_ended;

static void take_few(struct conn *c)
{
	uint8_t few[100];
	ssize_t n = conn_recv(c, few, sizeof(few));

	for (ssize_t i = 0; i < n; i++)
		if (few[i] != pattern(loop_got + (size_t)i))
			fail_msg("byte %zu is wrong", loop_got + (size_t)i);
	if (n > 0)
		loop_got += (size_t)n;
	loop_ended = n == 0;
	if (n == 0 || loop_got % 3000 == 0)
		conn_read(c, false); /* whoever stops has to be able to go on */
}

static void nothing(struct conn *c)
{
	(void)c;
}

static void on_failed(struct conn *c, int error)
{
	(void)error;
	conn_close(c);
}

static const struct conn_ops few_ops = {
    .readable = take_few, .drained = nothing, .failed = on_failed, .closed = nothing};

/* Bytes that the stream holds are not seen by poll(2): they must come all the same, also after a pause. */
static void what_the_stream_holds_is_delivered(void **unused)
{
	struct tls_context *server = server_context("node", TLS_1_2),
			   *tls = context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem")});
	struct endpoint to = loopback(tls, "");
	uint8_t data[30000];
	struct iovec iov = {data, sizeof(data)};
	size_t sent = 0;
	struct conn conn;
	struct pair p;
	uv_loop_t loop;
	char end;

	(void)unused;
	loop_got = 0;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = pattern(i);
	pair_open(&p, &to, server);
	uv_loop_init(&loop);
	assert_int_equal(conn_init(&conn, &loop, p.server, &few_ops, NULL), 0);
	for (int i = 0; i < 100000 && loop_got < sizeof(data); i++) {
		if (sent < sizeof(data)) {
			ssize_t n;

			iov = (struct iovec){data + sent, sizeof(data) - sent};
			n = stream_write(&p.client, &iov, 1);
			sent += n > 0 ? (size_t)n : 0;
		}
		conn_read(&conn, true);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(loop_got, sizeof(data));

	/* An orderly end of ours: the peer reads an end, and what it says then is thrown away until it ends,
	 * too. */
	conn_finish(&conn);
	uv_run(&loop, UV_RUN_NOWAIT);
	ssize_t n = -EAGAIN;
	for (int i = 0; i < 100 && n == -EAGAIN; i++)
		n = stream_read(&p.client, &end, 1);
	assert_int_equal(n, 0);
	stream_close(&p.client);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(conn.closing);
	assert_int_equal(uv_loop_close(&loop), 0);
	tls_context_free(tls);
	tls_context_free(server);
}

/* ---- dialling */

static struct dial_result dialled;
static char dialled_reason[512];
static int dial_calls;

static void on_dialled(void *context, struct dial_result *result)
{
	(void)context;
	dial_calls++;
	dialled = *result;
	snprintf(dialled_reason, sizeof(dialled_reason), "%s", result->reason ? result->reason : "");
}

static void dial(const struct endpoint *to, unsigned timeout_ms)
{
	uv_loop_t loop;

	dial_calls = 0;
	uv_loop_init(&loop);
	assert_non_null(dial_start(&loop, to, 0, timeout_ms, on_dialled, NULL));
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(dial_calls, 1);
}

/* What is resumed, and when not any more. */
static void sessions_are_resumed(void **unused)
{
	for (enum tls_version v = TLS_1_2; v <= TLS_1_3; v++) {
		struct tls_context *server = server_context("node", v);
		struct tls_context *tls =
		    context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem"), .lowest = v});
		struct play_server s;
		struct endpoint to = loopback(tls, "");
		bool resumed[4];

		(void)unused;
		play_start(&s, server, "hello");
		to.addr = s.addr;
		for (int i = 0; i < 4; i++) {
			struct stream_tls_peer peer;
			char text[16];

			if (i == 2) /* asked for another name: that session says nothing about it */
				snprintf(to.names[0], ENDPOINT_NAME, "node.example");
			if (i == 3) { /* other rules: they begin anew */
				struct error error;

				cert_write(&other_ca, "ca.pem", "ab");
				assert_int_equal(tls_context_refresh(tls, &error), 1);
			}
			dial(&to, 5000);
			assert_int_equal(dialled.error, 0);
			stream_tls_peer(&dialled.stream, &peer);
			resumed[i] = peer.resumed;
			assert_int_equal(
			    stream_send_all(&dialled.stream, "x", 1, clock_now_ns() + 5000000000ull), 0);
			/* The tickets of TLS 1.3 come with the first bytes. */
			assert_int_equal(stream_receive(&dialled.stream, text, sizeof(text),
							clock_now_ns() + 5000000000ull),
					 5);
			stream_close(&dialled.stream);
		}
		play_stop(&s);
		assert_false(resumed[0]);
		assert_true(resumed[1]);
		assert_false(resumed[2]);
		assert_false(resumed[3]);
		cert_write(&ca, "ca.pem", "wb");
		tls_context_free(tls);
		tls_context_free(server);
	}
}

static void a_dial_says_why_it_failed(void **unused)
{
	struct tls_context *server = server_context("node", TLS_1_3);
	struct tls_context *wrong =
	    context_of(&(struct tls_settings){.ca_file = in_directory("other-ca.pem")});
	struct play_server s;
	struct endpoint to = loopback(wrong, "");
	struct stream blocking;
	struct error error;
	struct addr silent = {0};
	socklen_t size = sizeof(silent.in);
	int fd;

	(void)unused;
	play_start(&s, server, NULL);
	to.addr = s.addr;
	dial(&to, 5000);
	assert_int_equal(dialled.error, -EKEYREJECTED);
	assert_non_null(strstr(dialled_reason, "CN=node"));
	assert_non_null(strstr(dialled_reason, "is not trusted"));
	assert_int_equal(dialled.stream.fd, -1);
	assert_int_equal(stream_connect(&to, 0, clock_now_ns() + 5000000000ull, &blocking, &error),
			 -EKEYREJECTED);
	assert_non_null(strstr(error.text, "is not trusted"));
	play_stop(&s);

	/* A listener that says nothing: the time limit is for both, TCP and TLS. */
	fd = socket(AF_INET, SOCK_STREAM, 0);
	silent.in.sin_family = AF_INET;
	silent.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, &silent.sa, sizeof(silent.in)), 0);
	assert_int_equal(listen(fd, 5), 0);
	getsockname(fd, &silent.sa, &size);
	to.addr = silent;
	dial(&to, 100);
	assert_int_equal(dialled.error, -ETIMEDOUT);
	assert_non_null(strstr(dialled_reason, "TLS"));
	assert_int_equal(stream_connect(&to, 0, clock_now_ns() + 100000000ull, &blocking, &error),
			 -ETIMEDOUT);
	close(fd);
	tls_context_free(wrong);
	tls_context_free(server);
}

/* A port that speaks CQL in the clear answers a ClientHello with its version error, or with an end. */
/* It was closed twice, which ended the agent. */
static void a_question_to_a_node_that_is_not_trusted_ends_with_the_reason(void **unused)
{
	struct tls_context *server = server_context("node", TLS_1_3);
	struct tls_context *wrong =
	    context_of(&(struct tls_settings){.ca_file = in_directory("other-ca.pem")});
	struct endpoint to = loopback(wrong, "");
	struct cluster cluster = {.tls = wrong};
	struct client *question = NULL;
	struct play_server s;
	struct error error;

	(void)unused;
	play_start(&s, server, NULL);
	to.addr = s.addr;
	assert_int_equal(client_open(&question, &cluster, &to, 0, 5000, &error), -EKEYREJECTED);
	assert_null(question);
	assert_non_null(strstr(error.text, "is not trusted"));
	play_stop(&s);
	tls_context_free(wrong);
	tls_context_free(server);
}

static void a_plain_port_is_named(void **unused)
{
	struct tls_context *tls = context_of(&(struct tls_settings){.ca_file = in_directory("ca.pem")});
	struct endpoint to = loopback(tls, "");
	const char *answers[] = {"\x85\0\0\0\0\0\0\0\x09garbage..", ""};

	(void)unused;
	for (size_t i = 0; i < 2; i++) {
		struct stream s;
		int fd[2], r = -EAGAIN;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
		assert_int_equal(stream_tls_client(fd[0], &to, &s), 0);
		assert_int_equal(stream_handshake(&s), -EAGAIN);
		if (i == 0)
			assert_int_equal(send(fd[1], answers[0], 18, 0), 18);
		else
			shutdown(fd[1], SHUT_WR);
		r = stream_handshake(&s);
		assert_true(r < 0 && r != -EAGAIN);
		assert_non_null(stream_reason(&s));
		assert_non_null(
		    strstr(stream_reason(&s), i == 0 ? "does not speak TLS" : "does it speak TLS there"));
		/* It stays failed, and nothing of it is touched again. */
		assert_int_equal(stream_handshake(&s), r);
		assert_int_equal(stream_read(&s, fd, sizeof(fd)), r);
		stream_close(&s);
		close(fd[1]);
	}
	tls_context_free(tls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(certificates_are_judged),
	    cmocka_unit_test(clients_show_certificates),
	    cmocka_unit_test(the_alert_behind_a_reset_is_told),
	    cmocka_unit_test(every_byte_arrives_once_and_in_order),
	    cmocka_unit_test(what_the_stream_holds_is_delivered),
	    cmocka_unit_test(sessions_are_resumed),
	    cmocka_unit_test(a_dial_says_why_it_failed),
	    cmocka_unit_test(a_question_to_a_node_that_is_not_trusted_ends_with_the_reason),
	    cmocka_unit_test(a_plain_port_is_named),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
