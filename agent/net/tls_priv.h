/* SPDX-License-Identifier: Apache-2.0 */
/* Between tls_context.c, tls_files.c and stream_tls.c: the only places that see OpenSSL. */
#pragma once
#include <openssl/ssl.h>
#include <sys/stat.h>

#include "base/span.h"
#include "net/tls_context.h"

/* Which file it was: all of this stays the same as long as nobody replaces or writes it. */
struct tls_stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
};

/* A file's contents. */
struct tls_bytes {
	uint8_t *data;
	size_t size;
	struct tls_stamp stamp;
};

/* What was found in a file. */
struct tls_found {
	STACK_OF(X509) * certificates;
	EVP_PKEY *key;
};

/* Reads a file of at most TLS_FILE_MAX bytes. The stamp is set even when it fails, as far as there is a file.
 */
int tls_bytes_read(const char *path, struct tls_bytes *ret, struct error *error);
/* Overwrites and frees. */
void tls_bytes_done(struct tls_bytes *b);

/* Whether the file at `path` is another one than `stamp` saw; a file that is gone is. */
bool tls_stamp_differs(const char *path, const struct tls_stamp *stamp);

/*
 * Certificates and the first private key out of `data`, whatever its form; `name` stands for it in error
 * texts. `password` may be NULL. Gives a `ret` for tls_found_done(). 0 or −errno.
 */
int tls_find(const char *name, struct span data, const char *password, struct tls_found *ret,
	     struct error *error);
void tls_found_done(struct tls_found *f);

/* A new SSL of the context in force, with the session that `peer` may resume (client; NULL = none). NULL: out
 * of memory. */
SSL *tls_context_ssl(struct tls_context *c, const char *peer);
/* Keeps a session for the next handshake with `peer`; takes it. Of a context that is no longer in force it is
 * dropped. */
void tls_context_keep(struct tls_context *c, const char *peer, SSL_CTX *of, SSL_SESSION *session,
		      bool resumed);
/* A session that the server did not take, or that led to trouble. */
void tls_context_forget(struct tls_context *c, const char *peer);
const struct tls_settings *tls_context_settings(const struct tls_context *c);

/* Called by OpenSSL when the server gives a session; stream_tls.c. */
int tls_new_session(SSL *ssl, SSL_SESSION *session);
/* Called for each certificate of the peer's chain; stream_tls.c notes what is wrong with it. */
int tls_verify(int good, X509_STORE_CTX *store);

/* "CN=node1,O=x" into `text`. Returns text. */
const char *tls_subject(const X509 *certificate, char *text, size_t size);
/* OpenSSL's own words for the first error in this thread's queue, which is emptied. Returns text. */
const char *tls_why(char *text, size_t size);
