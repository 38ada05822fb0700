/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates that a test makes for itself, and a TLS server in a thread that answers with what it is given.
 * The server is the agent's own stream: what a stranger's does is for the end-to-end tests.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream_tls.h"
#include "unit/directory.h"

#define DAY (24 * 3600L)

/* ---- files */

static inline void file_write(const char *name, const void *data, size_t size)
{
	FILE *f = fopen(in_directory(name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
	fclose(f);
}

/* ---- certificates */

struct cert {
	EVP_PKEY *key;
	X509 *x;
};

/* Valid from now + `from` to now + `to` seconds; `san` as openssl.cnf writes it, NULL = none; issuer NULL =
 * itself. */
static inline struct cert cert_make(const struct cert *issuer, const char *cn, const char *san, long from,
				    long to, bool ca)
{
	static long serial = 1;
	struct cert c = {EVP_EC_gen("P-256"), X509_new()};
	X509_NAME *name = X509_get_subject_name(c.x);
	X509V3_CTX v3;

	assert_non_null(c.key);
	X509_set_version(c.x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(c.x), serial++);
	X509_gmtime_adj(X509_getm_notBefore(c.x), from);
	X509_gmtime_adj(X509_getm_notAfter(c.x), to);
	X509_set_pubkey(c.x, c.key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
	X509_set_issuer_name(c.x, issuer ? X509_get_subject_name(issuer->x) : name);
	X509V3_set_ctx(&v3, issuer ? issuer->x : c.x, c.x, NULL, NULL, 0);
	X509_EXTENSION *e =
	    X509V3_EXT_conf_nid(NULL, &v3, NID_basic_constraints, ca ? "critical,CA:TRUE" : "CA:FALSE");
	X509_add_ext(c.x, e, -1);
	X509_EXTENSION_free(e);
	if (san) {
		e = X509V3_EXT_conf_nid(NULL, &v3, NID_subject_alt_name, san);
		assert_non_null(e);
		X509_add_ext(c.x, e, -1);
		X509_EXTENSION_free(e);
	}
	assert_true(X509_sign(c.x, issuer ? issuer->key : c.key, EVP_sha256()) > 0);
	return c;
}

static inline void cert_free(struct cert *c)
{
	EVP_PKEY_free(c->key);
	X509_free(c->x);
}

static inline void cert_write(const struct cert *c, const char *name, const char *mode)
{
	FILE *f = fopen(in_directory(name), mode);

	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, c->x), 1);
	fclose(f);
}

static inline void key_write(const struct cert *c, const char *name, const char *password)
{
	FILE *f = fopen(in_directory(name), "wb");

	assert_non_null(f);
	assert_int_equal(PEM_write_PKCS8PrivateKey(f, c->key, password ? EVP_aes_256_cbc() : NULL, password,
						   password ? (int)strlen(password) : 0, NULL, NULL),
			 1);
	fclose(f);
}

/* NAME.pem and NAME.key */
static inline void pair_write(const struct cert *c, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "%s.pem", name);
	cert_write(c, file, "wb");
	snprintf(file, sizeof(file), "%s.key", name);
	key_write(c, file, NULL);
}

/* ---- a server */

struct play_server {
	int listener;
	struct addr addr;
	struct tls_context *context;
	const char *answer; /* sent after the first bytes have come; then the connection ends */
	pthread_t thread;
	_Atomic unsigned connections, handshakes;
};

static inline bool play_wait(int fd, bool write)
{
	struct pollfd p = {.fd = fd, .events = write ? POLLOUT : POLLIN};

	return poll(&p, 1, 5000) > 0;
}

static inline void play_serve(struct play_server *s, int fd)
{
	struct stream stream;
	char got[4096];
	ssize_t n;
	int r;

	assert_int_equal(stream_tls_server(fd, s->context, &stream), 0);
	while ((r = stream_handshake(&stream)) == -EAGAIN)
		if (!play_wait(fd, !stream.write_wants_read))
			break;
	atomic_fetch_add(&s->handshakes, r == 0);
	while (r == 0 && (n = stream_read(&stream, got, sizeof(got))) == -EAGAIN)
		if (!play_wait(fd, false))
			break;
	if (r == 0 && s->answer) {
		struct iovec iov = {(void *)s->answer, strlen(s->answer)};

		if (stream_write(&stream, &iov, 1) < 0)
			r = -1;
	}
	stream_end(&stream);
	stream_close(&stream);
}

static inline void *play_run(void *argument)
{
	struct play_server *s = argument;
	int fd;

	while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		atomic_fetch_add(&s->connections, 1);
		play_serve(s, fd);
	}
	return NULL;
}

static inline void play_start(struct play_server *s, struct tls_context *context, const char *answer)
{
	socklen_t size = sizeof(s->addr.in);

	memset(s, 0, sizeof(*s));
	s->context = context;
	s->answer = answer;
	s->listener = socket(AF_INET, SOCK_STREAM, 0);
	s->addr.in.sin_family = AF_INET;
	s->addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(s->listener, &s->addr.sa, sizeof(s->addr.in)), 0);
	assert_int_equal(listen(s->listener, 16), 0);
	getsockname(s->listener, &s->addr.sa, &size);
	pthread_create(&s->thread, NULL, play_run, s);
}

static inline void play_stop(struct play_server *s)
{
	shutdown(s->listener, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->listener);
}
