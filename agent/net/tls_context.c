/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tls_context.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/magic.h"
#include "net/bundle.h"
#include "net/tls_priv.h"

#define CONTEXT_MAGIC 0x71C07E87u
/* One recv takes many small records; 17 KiB are the least that OpenSSL needs for one large one. */
#define READ_BUFFER (64u << 10)
#define FILES 4

enum { FILE_CA, FILE_CERT, FILE_KEY, FILE_PASSWORD };

struct kept {
	char *peer;
	SSL_SESSION *session;
	uint64_t since_ns;
};

struct tls_context {
	uint32_t magic;
	struct tls_settings settings;
	pthread_mutex_t refreshing;   /* one at a time; above `lock` */
	struct tls_stamp seen[FILES]; /* of the last attempt, good or not; under `refreshing` */
	pthread_mutex_t lock;
	SSL_CTX *ssl;
	struct kept kept[TLS_SESSIONS_MAX];
	unsigned kept_count;
};

static bool set(const char *text)
{
	return text && *text;
}

static const char *file_of(const struct tls_settings *s, int which)
{
	const char *files[FILES] = {s->ca_file, s->cert_file, s->key_file, s->key_password_file};

	if (set(s->bundle_file))
		return which == FILE_CA ? s->bundle_file : NULL;
	return set(files[which]) ? files[which] : NULL;
}

/* ---- putting an SSL_CTX together */

/* Trusted, and ours: where they come from no longer matters. */
struct material {
	struct tls_found ca, own, key;
	const char *cert_name, *key_name; /* for error texts */
};

static void material_done(struct material *m)
{
	tls_found_done(&m->ca);
	tls_found_done(&m->own);
	tls_found_done(&m->key);
}

static int use_trust(SSL_CTX *ssl, const struct tls_settings *s, const struct material *m,
		     struct error *error)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);

	if (!m->ca.certificates) {
		if (!s->server && SSL_CTX_set_default_verify_paths(ssl) != 1)
			return error_set(
			    error, -ENOENT,
			    "the system's trusted certificates cannot be read; name a CA in %s",
			    s->names->ca);
		return 0;
	}
	if (sk_X509_num(m->ca.certificates) == 0)
		return error_set(error, -EINVAL, "'%s' holds no certificate",
				 set(s->bundle_file) ? s->bundle_file : s->ca_file);
	for (int i = 0; i < sk_X509_num(m->ca.certificates); i++) {
		X509 *x = sk_X509_value(m->ca.certificates, i);

		if (X509_STORE_add_cert(store, x) != 1 || (s->server && SSL_CTX_add_client_CA(ssl, x) != 1))
			return error_set(error, -ENOMEM, "out of memory");
	}
	return 0;
}

/* Ours is the one that the key belongs to, wherever it stands in the file; the others are its chain. */
static int use_own(SSL_CTX *ssl, const struct tls_settings *s, const struct material *m,
		   struct error *error)
{
	EVP_PKEY *key = m->key.key ? m->key.key : m->own.key;
	X509 *own = NULL;
	char why[160];

	if (!m->own.certificates)
		return 0;
	if (!key)
		return error_set(error, -EINVAL, "'%s' holds no private key%s%s", m->key_name,
				 m->key.certificates ? "" : "; set ",
				 m->key.certificates ? "" : s->names->key);
	for (int i = 0; i < sk_X509_num(m->own.certificates) && !own; i++)
		if (X509_check_private_key(sk_X509_value(m->own.certificates, i), key) == 1)
			own = sk_X509_value(m->own.certificates, i);
	ERR_clear_error();
	if (!own)
		return error_set(error, -EINVAL, "the key in '%s' does not belong to %s in '%s'", m->key_name,
				 sk_X509_num(m->own.certificates) ? "a certificate"
								  : "anything: there is no certificate",
				 m->cert_name);
	if (SSL_CTX_use_certificate(ssl, own) != 1 || SSL_CTX_use_PrivateKey(ssl, key) != 1)
		return error_set(error, -EINVAL, "'%s' cannot be used: %s", m->cert_name,
				 tls_why(why, sizeof(why)));
	for (int i = 0; i < sk_X509_num(m->own.certificates); i++) {
		X509 *x = sk_X509_value(m->own.certificates, i);

		if (x != own && SSL_CTX_add1_chain_cert(ssl, x) != 1)
			return error_set(error, -EINVAL, "the chain in '%s' cannot be used: %s", m->cert_name,
					 tls_why(why, sizeof(why)));
	}
	return 0;
}

static void set_manners(SSL_CTX *ssl, const struct tls_settings *s)
{
	static const unsigned char id[] = "cqlferry";

	SSL_CTX_set_min_proto_version(ssl, s->lowest == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	/* Buffers only while something is in them: thousands of connections are idle at any time. */
	SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ssl, 1);
	SSL_CTX_set_default_read_buffer_len(ssl, READ_BUFFER);
	SSL_CTX_set_session_id_context(ssl, id, sizeof(id) - 1);
	if (s->server) {
		int verify = s->client_auth == TLS_CLIENT_AUTH_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;

		if (s->client_auth == TLS_CLIENT_AUTH_REQUIRED)
			verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
		SSL_CTX_set_verify(ssl, verify, tls_verify);
		SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF); /* tickets need no memory of ours */
		return;
	}
	if (!s->anybody)
		SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, tls_verify);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ssl, tls_new_session);
}

static int assemble(const struct tls_settings *s, const struct material *m, SSL_CTX **ret,
		    struct error *error)
{
	SSL_CTX *ssl = SSL_CTX_new(s->server ? TLS_server_method() : TLS_client_method());
	int rc;

	if (!ssl)
		return error_set(error, -ENOMEM, "out of memory");
	set_manners(ssl, s);
	rc = use_trust(ssl, s, m, error);
	if (rc == 0)
		rc = use_own(ssl, s, m, error);
	if (rc < 0)
		SSL_CTX_free(ssl);
	else
		*ret = ssl;
	return rc;
}

/* ---- reading the files */

static int read_file(const struct tls_settings *s, int which, struct tls_stamp *seen, struct tls_bytes *ret,
		     struct error *error)
{
	const char *path = file_of(s, which);
	int rc;

	*ret = (struct tls_bytes){0};
	if (!path)
		return 0;
	rc = tls_bytes_read(path, ret, error);
	seen[which] = ret->stamp;
	return rc;
}

static int find_in(const char *name, const struct tls_bytes *b, const char *password, struct tls_found *ret,
		   struct error *error)
{
	return b->data ? tls_find(name, span_of(b->data, b->size), password, ret, error) : 0;
}

static int load_files(const struct tls_settings *s, struct tls_stamp *seen, struct material *m,
		      struct error *error)
{
	struct tls_bytes b[FILES] = {{0}};
	char *password = NULL;
	int rc = 0;

	/* All are looked at, so that the next look compares with what was here now. */
	for (int i = 0; i < FILES; i++) {
		struct error why;
		int r = read_file(s, i, seen, &b[i], &why);

		if (r < 0 && rc == 0) {
			rc = r;
			if (error)
				*error = why;
		}
	}
	if (b[FILE_PASSWORD].data) {
		password = (char *)b[FILE_PASSWORD].data; /* has room for the end */
		password[b[FILE_PASSWORD].size] = 0;
		password[strcspn(password, "\r\n")] = 0;
	}
	m->cert_name = s->cert_file;
	m->key_name = set(s->key_file) ? s->key_file : s->cert_file;
	if (rc == 0)
		rc = find_in(s->ca_file, &b[FILE_CA], password, &m->ca, error);
	if (rc == 0)
		rc = find_in(s->cert_file, &b[FILE_CERT], password, &m->own, error);
	if (rc == 0)
		rc = find_in(s->key_file, &b[FILE_KEY], password, &m->key, error);
	for (int i = 0; i < FILES; i++)
		tls_bytes_done(&b[i]);
	return rc;
}

static int load_bundle(const struct tls_settings *s, struct tls_stamp *seen, struct material *m,
		       struct error *error)
{
	struct bundle b = {0};
	int rc = bundle_read(s->bundle_file, &b, &seen[FILE_CA], error);

	m->cert_name = "cert in the bundle";
	m->key_name = "key in the bundle";
	if (rc == 0)
		rc = tls_find("ca.crt in the bundle", b.ca, NULL, &m->ca, error);
	if (rc == 0)
		rc = tls_find(m->cert_name, b.cert, NULL, &m->own, error);
	if (rc == 0)
		rc = tls_find(m->key_name, b.key, NULL, &m->key, error);
	bundle_done(&b);
	return rc;
}

static int load(const struct tls_settings *s, struct tls_stamp *seen, SSL_CTX **ret, struct error *error)
{
	struct material m = {0};
	int rc;

	memset(seen, 0, FILES * sizeof(*seen));
	rc = set(s->bundle_file) ? load_bundle(s, seen, &m, error) : load_files(s, seen, &m, error);
	if (rc == 0)
		rc = assemble(s, &m, ret, error);
	material_done(&m);
	return rc;
}

/* ---- life */

int tls_context_new(const struct tls_settings *settings, struct tls_context **ret, struct error *error)
{
	static const struct tls_names configured = {.ca = "tls.caFile",
						    .cert = "tls.certFile",
						    .key = "keyFile",
						    .server_name = "tls.serverName",
						    .lowest = "tls.minVersion"};
	struct tls_context *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return error_set(error, -ENOMEM, "out of memory");
	c->magic = CONTEXT_MAGIC;
	c->settings = *settings;
	if (!c->settings.names)
		c->settings.names = &configured;
	rc = load(&c->settings, c->seen, &c->ssl, error);
	if (rc < 0) {
		free(c);
		return rc;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->refreshing, NULL);
	*ret = c;
	return 0;
}

static void drop_kept(struct tls_context *c)
{
	for (unsigned i = 0; i < c->kept_count; i++) {
		SSL_SESSION_free(c->kept[i].session);
		free(c->kept[i].peer);
	}
	c->kept_count = 0;
}

void tls_context_free(struct tls_context *c)
{
	if (!c)
		return;
	MAGIC_CHECK(c, CONTEXT_MAGIC);
	drop_kept(c);
	SSL_CTX_free(c->ssl);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->refreshing);
	c->magic = 0;
	free(c);
}

int tls_context_refresh(struct tls_context *c, struct error *error)
{
	SSL_CTX *fresh = NULL, *old;
	bool differs = false;
	int rc = 0;

	MAGIC_CHECK(c, CONTEXT_MAGIC);
	pthread_mutex_lock(&c->refreshing);
	for (int i = 0; i < FILES; i++)
		if (file_of(&c->settings, i) && tls_stamp_differs(file_of(&c->settings, i), &c->seen[i]))
			differs = true;
	if (differs)
		rc = load(&c->settings, c->seen, &fresh, error);
	if (fresh) {
		pthread_mutex_lock(&c->lock);
		old = c->ssl;
		c->ssl = fresh;
		drop_kept(c); /* they stand for a certificate that was judged by the old rules */
		pthread_mutex_unlock(&c->lock);
		SSL_CTX_free(old); /* its streams hold it as long as they live */
		rc = 1;
	}
	pthread_mutex_unlock(&c->refreshing);
	return rc;
}

const struct tls_settings *tls_context_settings(const struct tls_context *c)
{
	return &c->settings;
}

static void tell(const X509 *x, enum tls_what what, tls_certificate found, void *context)
{
	char subject[256];
	struct tm tm;

	if (x && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1)
		found(context, what, tls_subject(x, subject, sizeof(subject)), timegm(&tm));
}

void tls_context_each(struct tls_context *c, tls_certificate found, void *context)
{
	STACK_OF(X509) *chain = NULL;
	STACK_OF(X509) * trusted;
	SSL_CTX *ssl;

	pthread_mutex_lock(&c->lock);
	ssl = c->ssl;
	SSL_CTX_up_ref(ssl);
	pthread_mutex_unlock(&c->lock);
	tell(SSL_CTX_get0_certificate(ssl), TLS_OWN, found, context);
	SSL_CTX_get0_chain_certs(ssl, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		tell(sk_X509_value(chain, i), TLS_OWN_CHAIN, found, context);
	trusted = X509_STORE_get1_all_certs(SSL_CTX_get_cert_store(ssl));
	for (int i = 0; file_of(&c->settings, FILE_CA) && i < sk_X509_num(trusted); i++)
		tell(sk_X509_value(trusted, i), TLS_TRUSTED, found, context);
	sk_X509_pop_free(trusted, X509_free);
	SSL_CTX_free(ssl);
}

/* ---- sessions; under the lock */

static struct kept *kept_find(struct tls_context *c, const char *peer)
{
	for (unsigned i = 0; i < c->kept_count; i++)
		if (!strcmp(c->kept[i].peer, peer))
			return &c->kept[i];
	return NULL;
}

SSL *tls_context_ssl(struct tls_context *c, const char *peer)
{
	struct kept *k;
	SSL *ssl;

	pthread_mutex_lock(&c->lock);
	ssl = SSL_new(c->ssl);
	k = ssl && peer ? kept_find(c, peer) : NULL;
	if (k && clock_now_ns() - k->since_ns < TLS_SESSION_SECONDS * 1000000000ull &&
	    SSL_SESSION_is_resumable(k->session))
		SSL_set_session(ssl, k->session);
	pthread_mutex_unlock(&c->lock);
	return ssl;
}

/* A place for one more peer: a free one, or that of the session that was kept first. */
static struct kept *kept_make(struct tls_context *c, const char *peer)
{
	char *copy = strdup(peer);
	struct kept *k = &c->kept[0];

	if (!copy)
		return NULL;
	if (c->kept_count < TLS_SESSIONS_MAX) {
		k = &c->kept[c->kept_count++];
	} else {
		for (unsigned i = 1; i < c->kept_count; i++)
			if (c->kept[i].since_ns < k->since_ns)
				k = &c->kept[i];
		SSL_SESSION_free(k->session);
		free(k->peer);
	}
	*k = (struct kept){.peer = copy};
	return k;
}

void tls_context_keep(struct tls_context *c, const char *peer, SSL_CTX *of, SSL_SESSION *session,
		      bool resumed)
{
	struct kept *k = NULL;

	pthread_mutex_lock(&c->lock);
	if (of == c->ssl) {
		k = kept_find(c, peer);
		if (!k)
			k = kept_make(c, peer);
	}
	if (k) {
		SSL_SESSION_free(k->session);
		k->session = session;
		/* In a resumed one no certificate was shown: the first look at it counts. */
		if (!k->since_ns || !resumed)
			k->since_ns = clock_now_ns();
	}
	pthread_mutex_unlock(&c->lock);
	if (!k)
		SSL_SESSION_free(session);
}

void tls_context_forget(struct tls_context *c, const char *peer)
{
	struct kept *k;

	pthread_mutex_lock(&c->lock);
	k = peer ? kept_find(c, peer) : NULL;
	if (k) {
		SSL_SESSION_free(k->session);
		free(k->peer);
		*k = c->kept[--c->kept_count];
	}
	pthread_mutex_unlock(&c->lock);
}
