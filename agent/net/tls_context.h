/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a TLS handshake needs: certificates, key, whom to trust, and the sessions that can be resumed. Shared
 * by all threads of one side (a cluster, or the clients).
 *
 *   files or bundle ──tls_context_new──▶ context ──stream_tls_client / stream_tls_server──▶ streams
 *        │ replaced on disk                 ▲
 *        └──── tls_context_refresh ─────────┘  broken: the old one stays, and that is said
 *
 * Files may be PEM or DER, keys in every form that OpenSSL reads (PKCS#1, SEC1, PKCS#8, encrypted or not),
 * and one PKCS#12 file may hold key, certificate and chain. Kubernetes replaces a mounted secret by moving a
 * symbolic link: what is compared is the file behind it (device, inode, size, time of change).
 *
 * Handshakes take a short lock; streams that are open have nothing to do with this any more.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

#define TLS_FILE_MAX (1u << 20)	  /* bytes of one certificate, key or bundle file; a chain is some KiB */
#define TLS_CERTIFICATES_MAX 512u /* in one file: a system's trust store has about 150 */
#define TLS_SESSIONS_MAX 256u	  /* peers whose last session is kept for resumption */
#define TLS_SESSION_SECONDS 3600  /* after that the certificate is looked at again */

enum tls_version { TLS_1_2, TLS_1_3 };
enum tls_client_auth { TLS_CLIENT_AUTH_NONE, TLS_CLIENT_AUTH_OPTIONAL, TLS_CLIENT_AUTH_REQUIRED };

/* What error texts call the settings. */
struct tls_names {
	const char *ca, *cert, *key;
	const char *server_name, *lowest; /* NULL = there is no such setting */
};

/* All strings are borrowed for the life of the context; "" or NULL = not set. */
struct tls_settings {
	bool server;	       /* we are the server: certificate and key are needed */
	const char *ca_file;   /* whom to trust; a client without one trusts what the system does */
	const char *cert_file; /* ours, with its chain; may be PKCS#12 and hold the key as well */
	const char *key_file;
	const char *key_password_file; /* first line: password of the key or of the PKCS#12 file */
	const char *bundle_file;       /* a secure-connect bundle, instead of the files above */
	bool any_name;		       /* client: a certificate of anybody will do, if it is trusted */
	bool anybody;		       /* client: no certificate is judged at all */
	enum tls_version lowest;
	enum tls_client_auth client_auth; /* server: trust is ca_file's */
	const struct tls_names *names;	  /* NULL = as the agent's configuration has them */
};

struct tls_context;

/* Reads everything. 0, or −errno with what is wrong, where, and what to do. Blocks on the disk. */
int tls_context_new(const struct tls_settings *settings, struct tls_context **ret, struct error *error);

/* All streams made with it have to be closed before. NULL is fine. */
void tls_context_free(struct tls_context *c);

/*
 * Looks whether a file has changed, and reads all of them again if so. 0 = nothing new; 1 = new ones are in
 * force from the next handshake on; −errno with the reason = what is there now cannot be used, and the old
 * ones stay (told once for each state of the files, 0 afterwards). Any thread; blocks on the disk.
 */
int tls_context_refresh(struct tls_context *c, struct error *error);

enum tls_what { TLS_OWN, TLS_OWN_CHAIN, TLS_TRUSTED };

/* The certificates of the context in force: ours first. `subject` is borrowed for the call. */
typedef void (*tls_certificate)(void *context, enum tls_what what, const char *subject, time_t not_after);
void tls_context_each(struct tls_context *c, tls_certificate found, void *context);
