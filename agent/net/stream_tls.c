/* SPDX-License-Identifier: Apache-2.0 */
#include "net/stream_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/magic.h"
#include "net/tls_priv.h"

#define TLS_MAGIC 0x715C0DE5u
#define PIECE (16u << 10) /* the largest record (RFC 8446, section 5.1) */
#define REASON_MAX 512
#define PEER_MAX (3 * ENDPOINT_NAME + ADDR_TEXT_MAX)

struct tls {
	uint32_t magic;
	SSL *ssl;
	struct stream *stream; /* that an operation runs on */
	struct tls_context *context;
	bool server, ready, ended;
	int failed; /* −errno, after which the SSL is not touched any more */
	int fd;
	char *peer;   /* under which its session is kept; NULL = a client of ours */
	char *wanted; /* whom the certificate has to be for, in words */
	char *reason; /* why it failed */
};

/* ---- the socket below OpenSSL: its own would raise SIGPIPE, and does not count */

static int socket_write(BIO *bio, const char *data, int size)
{
	struct tls *t = BIO_get_data(bio);
	ssize_t n;

	do
		n = send(t->fd, data, (size_t)size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	BIO_clear_retry_flags(bio);
	if (n < 0 && errno == EAGAIN)
		BIO_set_retry_write(bio);
	return (int)n;
}

static int socket_read(BIO *bio, char *to, int size)
{
	struct tls *t = BIO_get_data(bio);
	ssize_t n;

	do
		n = recv(t->fd, to, (size_t)size, 0);
	while (n < 0 && errno == EINTR);
	BIO_clear_retry_flags(bio);
	if (n < 0 && errno == EAGAIN)
		BIO_set_retry_read(bio);
	if (n == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	if (n > 0 && t->stream)
		t->stream->taken += (uint64_t)n;
	return (int)n;
}

static long socket_control(BIO *bio, int what, long number, void *pointer)
{
	(void)number;
	(void)pointer;
	if (what == BIO_CTRL_EOF)
		return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
	return what == BIO_CTRL_FLUSH;
}

/* What OpenSSL wants to be registered once for a process; read-only afterwards. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static BIO_METHOD *socket_method;
static int stream_index = -1;

static void register_all(void)
{
	stream_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	socket_method = BIO_meth_new(BIO_TYPE_SOCKET, "cqlferry socket");
	if (!socket_method)
		return;
	BIO_meth_set_write(socket_method, socket_write);
	BIO_meth_set_read(socket_method, socket_read);
	BIO_meth_set_ctrl(socket_method, socket_control);
}

/* ---- why it failed */

static void __attribute__((format(printf, 2, 3))) say(struct tls *t, const char *format, ...)
{
	va_list args;

	if (t->reason)
		return; /* the first reason is the one */
	va_start(args, format);
	if (vasprintf(&t->reason, format, args) < 0)
		t->reason = NULL;
	va_end(args);
}

static void day(const ASN1_TIME *at, char *text, size_t size)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(at, &tm) != 1 || !strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(text, size, "an unreadable date");
}

int tls_verify(int good, X509_STORE_CTX *store)
{
	struct tls *t = SSL_get_ex_data(
	    X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()), stream_index);
	const X509 *x = X509_STORE_CTX_get_current_cert(store);
	const char *whose =
	    X509_STORE_CTX_get_error_depth(store) ? "a certificate of its chain" : "its certificate";
	const struct tls_names *names = t ? tls_context_settings(t->context)->names : NULL;
	int code = X509_STORE_CTX_get_error(store);
	char subject[ENDPOINT_NAME] = "?", when[40] = "?";

	if (good || !t)
		return good;
	if (x)
		tls_subject(x, subject, sizeof(subject));
	switch (code) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		day(X509_get0_notAfter(x), when, sizeof(when));
		say(t, "%s (%s) has expired on %s", whose, subject, when);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		day(X509_get0_notBefore(x), when, sizeof(when));
		say(t, "%s (%s) is valid only from %s on; is a clock wrong?", whose, subject, when);
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		say(t, "%s (%s) is not for %s%s%s%s", whose, subject, t->wanted ? t->wanted : "this host",
		    names->server_name ? ": " : "", names->server_name ? names->server_name : "",
		    names->server_name ? " can say whom it has to be for" : "");
		break;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		say(t, "%s (%s) is not trusted: %s; does %s hold the CA that signed it?", whose, subject,
		    X509_verify_cert_error_string(code),
		    t->server ? "listen.tls.clientCaFile" : names->ca);
		break;
	default:
		say(t, "%s (%s) is refused: %s", whose, subject, X509_verify_cert_error_string(code));
	}
	return 0;
}

/* What the error queue says, in words that tell what to do. */
static void say_protocol(struct tls *t)
{
	const struct tls_names *names = tls_context_settings(t->context)->names;
	unsigned long code = ERR_peek_error();
	char why[160];

	switch (ERR_GET_REASON(code)) {
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
		say(t, "%s does not speak TLS", t->server ? "the client" : "that port");
		break;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		say(t, "the client showed no certificate, and listen.tls.clientAuth is required");
		break;
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
		if (t->server)
			say(t, "the client refuses our certificate: %s", tls_why(why, sizeof(why)));
		else
			say(t,
			    "the peer ends the handshake: %s; does it want a certificate of ours that it "
			    "trusts (%s)?",
			    tls_why(why, sizeof(why)), names->cert);
		break;
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
	case SSL_R_UNSUPPORTED_PROTOCOL:
		say(t, "no TLS version that both ends allow%s%s%s", names->lowest ? " (" : "",
		    names->lowest ? names->lowest : "", names->lowest ? ")" : "");
		break;
	case SSL_R_TLSV1_UNRECOGNIZED_NAME:
		say(t, "the peer does not know the server name that was asked for");
		break;
	default:
		say(t, "TLS: %s", tls_why(why, sizeof(why)));
	}
}

/* Who ends a connection with what we wrote still unread resets it; but its alert may have come before. */
static void say_alert(struct tls *t)
{
	char byte;

	if (SSL_read(t->ssl, &byte, 1) <= 0 && ERR_GET_REASON(ERR_peek_error()) > SSL_AD_REASON_OFFSET)
		say_protocol(t);
}

/* −EAGAIN with the flags set, 0 for the peer's orderly end, or the error for good. */
static int outcome(struct stream *s, int result, bool reading)
{
	struct tls *t = s->state;
	int code = SSL_get_error(t->ssl, result), e = errno;

	switch (code) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		if (reading)
			s->read_wants_write = code == SSL_ERROR_WANT_WRITE;
		else
			s->write_wants_read = code == SSL_ERROR_WANT_READ;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return t->ready ? 0 : -ECONNRESET;
	case SSL_ERROR_SYSCALL:
		t->failed = e ? -e : -ECONNRESET;
		if (!reading && t->ready)
			say_alert(t);
		if (!t->ready)
			say(t, "the connection ended in the TLS handshake (%s)",
			    e ? strerror(e) : "closed by the peer");
		break;
	default:
		if (t->ready && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
			t->ended = true; /* OpenSSL has given it up; there is nobody to take leave of */
			return 0;
		}
		t->failed = SSL_get_verify_mode(t->ssl) != SSL_VERIFY_NONE &&
				    SSL_get_verify_result(t->ssl) != X509_V_OK && !t->ready
				? -EKEYREJECTED
				: -EPROTO;
		if (!t->ready && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			say(t, "the peer ended the connection in the TLS handshake; does it speak TLS there, "
			       "and does it want a certificate of ours?");
		say_protocol(t);
		if (!t->server)
			tls_context_forget(t->context, t->peer);
	}
	ERR_clear_error();
	s->read_wants_write = s->write_wants_read = false;
	return t->failed;
}

/* ---- operations */

static struct tls *begin(struct stream *s)
{
	struct tls *t = s->state;

	MAGIC_CHECK(t, TLS_MAGIC);
	t->stream = s; /* it may have been moved since */
	ERR_clear_error();
	errno = 0;
	return t;
}

static int tls_handshake(struct stream *s)
{
	struct tls *t = begin(s);
	int r;

	if (t->failed || t->ready)
		return t->failed;
	r = SSL_do_handshake(t->ssl);
	if (r == 1) {
		t->ready = true;
		s->write_wants_read = false;
		s->pending = SSL_has_pending(t->ssl);
		return 0;
	}
	r = outcome(s, r, false);
	return r ? r : -ECONNRESET;
}

/*
 * Takes what OpenSSL has read already, and asks the socket again only while much comes: a poll is cheaper
 * than a read that finds nothing.
 */
static ssize_t tls_read(struct stream *s, void *to, size_t size)
{
	struct tls *t = begin(s);
	size_t have = 0;
	int r;

	s->pending = s->read_wants_write = false;
	if (t->failed)
		return t->failed;
	while (have < size) {
		size_t room = size - have;

		r = SSL_read(t->ssl, (uint8_t *)to + have, room > INT_MAX ? INT_MAX : (int)room);
		if (r <= 0) {
			r = outcome(s, r, true);
			if (have == 0)
				return r;
			s->pending = r != -EAGAIN; /* the end, or the error, is told by the next read */
			return (ssize_t)have;
		}
		t->ready = true;
		have += (size_t)r;
		if (!SSL_has_pending(t->ssl) && have < PIECE)
			break;
		errno = 0;
	}
	s->pending = SSL_has_pending(t->ssl);
	return (ssize_t)have;
}

/* The next up to PIECE bytes of an iovec: where they are, or gathered in `scratch`. Leaves the position as it
 * is. */
static const uint8_t *piece(const struct iovec *iov, int count, int at, size_t skip, uint8_t *scratch,
			    size_t *ret_size)
{
	size_t have = 0;

	if (iov[at].iov_len - skip >= PIECE || at + 1 == count) {
		*ret_size = iov[at].iov_len - skip < PIECE ? iov[at].iov_len - skip : PIECE;
		return (const uint8_t *)iov[at].iov_base + skip;
	}
	for (; at < count && have < PIECE; at++, skip = 0) {
		size_t n = iov[at].iov_len - skip < PIECE - have ? iov[at].iov_len - skip : PIECE - have;

		if (n)
			memcpy(scratch + have, (const uint8_t *)iov[at].iov_base + skip, n);
		have += n;
	}
	*ret_size = have;
	return scratch;
}

static ssize_t tls_write(struct stream *s, const struct iovec *iov, int count)
{
	struct tls *t = begin(s);
	uint8_t scratch[PIECE];
	size_t done = 0, skip = 0;
	int at = 0;

	if (t->failed || t->ended)
		return t->failed ? t->failed : -EPIPE;
	s->write_wants_read = false;
	for (;;) {
		const uint8_t *data;
		size_t size;
		int r;

		for (; at < count && skip == iov[at].iov_len; at++)
			skip = 0;
		if (at == count)
			return (ssize_t)done;
		data = piece(iov, count, at, skip, scratch, &size);
		r = SSL_write(t->ssl, data, (int)size);
		if (r <= 0) {
			r = outcome(s, r, false);
			return done ? (ssize_t)done : r ? r : -EPIPE;
		}
		t->ready = true;
		done += (size_t)r;
		for (size_t n = (size_t)r; n > 0;) {
			size_t part = iov[at].iov_len - skip < n ? iov[at].iov_len - skip : n;

			n -= part;
			skip += part;
			if (n > 0) {
				at++;
				skip = 0;
			}
		}
		errno = 0;
	}
}

static int tls_end(struct stream *s)
{
	struct tls *t = begin(s);
	int r = 0;

	s->write_wants_read = false;
	if (!t->failed && t->ready && !t->ended) {
		r = SSL_shutdown(t->ssl);
		if (r < 0 && outcome(s, r, false) == -EAGAIN)
			return -EAGAIN;
	}
	t->ended = true;
	shutdown(s->fd, SHUT_WR);
	return 0;
}

static void tls_close(struct stream *s)
{
	struct tls *t = begin(s);

	if (!t->failed && t->ready && !t->ended)
		SSL_shutdown(t->ssl); /* one try: the peer learns of the end anyway */
	ERR_clear_error();
	SSL_free(t->ssl);
	close(t->fd);
	free(t->peer);
	free(t->wanted);
	free(t->reason);
	t->magic = 0;
	free(t);
	s->state = NULL;
	s->fd = -1;
}

static const char *tls_reason(const struct stream *s)
{
	const struct tls *t = s->state;

	return t ? t->reason : NULL; /* closed already */
}

static const struct stream_ops tls_ops = {.read = tls_read,
					  .write = tls_write,
					  .end = tls_end,
					  .close = tls_close,
					  .handshake = tls_handshake,
					  .reason = tls_reason};

/* ---- making one */

static struct tls *tls_new(int fd, struct tls_context *context, const char *peer)
{
	struct tls *t = calloc(1, sizeof(*t));
	BIO *bio = NULL;

	pthread_once(&once, register_all);
	if (!t)
		return NULL;
	t->magic = TLS_MAGIC;
	t->fd = fd;
	t->context = context;
	t->ssl = tls_context_ssl(context, peer);
	bio = socket_method ? BIO_new(socket_method) : NULL;
	if (!t->ssl || !bio || SSL_set_ex_data(t->ssl, stream_index, t) != 1) {
		BIO_free(bio);
		SSL_free(t->ssl);
		free(t);
		return NULL;
	}
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	return t;
}

static bool is_address(const char *text)
{
	unsigned char raw[16];

	return inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1;
}

static void address_text(const struct addr *a, char text[INET6_ADDRSTRLEN])
{
	const void *raw =
	    a->sa.sa_family == AF_INET6 ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr;

	text[0] = 0;
	inet_ntop(a->sa.sa_family, raw, text, INET6_ADDRSTRLEN);
}

/* Whom the certificate has to be for. OpenSSL takes several names, or one address. */
static int expect(struct tls *t, const struct endpoint *to)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
	char address[INET6_ADDRSTRLEN];
	const char *first = to->names[0];

	if (!*first) {
		address_text(&to->addr, address);
		first = address;
	}
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (is_address(first) ? X509_VERIFY_PARAM_set1_ip_asc(param, first) != 1
			      : X509_VERIFY_PARAM_set1_host(param, first, 0) != 1)
		return -ENOMEM;
	if (*to->names[1] && X509_VERIFY_PARAM_add1_host(param, to->names[1], 0) != 1)
		return -ENOMEM;
	return asprintf(&t->wanted, "%s%s%s", first, *to->names[1] ? " or " : "", to->names[1]) < 0 ? -ENOMEM
												    : 0;
}

int stream_tls_client(int fd, const struct endpoint *to, struct stream *ret)
{
	char peer[PEER_MAX], address[ADDR_TEXT_MAX];
	struct tls *t;
	int rc = 0;

	/* A session is good for those who would accept the same certificate only. */
	snprintf(peer, sizeof(peer), "%s %s %s %s", addr_format(&to->addr, address), to->sni, to->names[0],
		 to->names[1]);
	t = tls_new(fd, to->tls, peer);
	if (!t)
		return -ENOMEM;
	t->peer = strdup(peer);
	if (!t->peer)
		rc = -ENOMEM;
	if (rc == 0 && !tls_context_settings(to->tls)->any_name && !tls_context_settings(to->tls)->anybody)
		rc = expect(t, to);
	if (rc == 0 && *to->sni && !is_address(to->sni) && SSL_set_tlsext_host_name(t->ssl, to->sni) != 1)
		rc = -ENOMEM;
	if (rc < 0) {
		SSL_free(t->ssl);
		free(t->peer);
		free(t->wanted);
		free(t);
		return rc;
	}
	SSL_set_connect_state(t->ssl);
	*ret = (struct stream){.ops = &tls_ops, .fd = fd, .state = t};
	return 0;
}

int stream_tls_server(int fd, struct tls_context *context, struct stream *ret)
{
	struct tls *t = tls_new(fd, context, NULL);

	if (!t)
		return -ENOMEM;
	t->server = true;
	SSL_set_accept_state(t->ssl);
	*ret = (struct stream){.ops = &tls_ops, .fd = fd, .state = t};
	return 0;
}

int tls_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls *t = SSL_get_ex_data(ssl, stream_index);

	if (!t || !t->peer)
		return 0;
	tls_context_keep(t->context, t->peer, SSL_get_SSL_CTX(ssl), session, SSL_session_reused(ssl) == 1);
	return 1;
}

bool stream_is_tls(const struct stream *s)
{
	return s->ops == &tls_ops;
}

void stream_tls_peer(const struct stream *s, struct stream_tls_peer *ret)
{
	const struct tls *t = s->state;
	X509 *x = SSL_get1_peer_certificate(t->ssl);
	struct tm tm;

	*ret = (struct stream_tls_peer){.version = SSL_get_version(t->ssl),
					.resumed = SSL_session_reused(t->ssl) == 1};
	if (x && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1)
		ret->not_after = timegm(&tm);
	if (x)
		tls_subject(x, ret->subject, sizeof(ret->subject));
	X509_free(x);
}
