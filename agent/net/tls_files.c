/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys out of files: what changed, how to read them, and what to say when that fails. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/tls_priv.h"

static void stamp_set(struct tls_stamp *stamp, const struct stat *st)
{
	*stamp = (struct tls_stamp){st->st_dev, st->st_ino, st->st_size, st->st_ctim};
}

bool tls_stamp_differs(const char *path, const struct tls_stamp *stamp)
{
	struct tls_stamp now = {0};
	struct stat st;

	if (stat(path, &st) == 0)
		stamp_set(&now, &st);
	return now.device != stamp->device || now.inode != stamp->inode || now.size != stamp->size ||
	       now.changed.tv_sec != stamp->changed.tv_sec || now.changed.tv_nsec != stamp->changed.tv_nsec;
}

void tls_bytes_done(struct tls_bytes *b)
{
	if (b->data)
		explicit_bzero(b->data, b->size);
	free(b->data);
	b->data = NULL;
	b->size = 0;
}

int tls_bytes_read(const char *path, struct tls_bytes *ret, struct error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0; /* a FIFO must not hang us */
	struct tls_bytes b = {0};
	struct stat st;

	*ret = b;
	if (fd < 0) {
		rc = error_set(error, -errno, "cannot read '%s': %s", path, strerror(errno));
		/* As tls_stamp_differs() will see it: what cannot be opened is tried, and said, once. */
		if (stat(path, &st) == 0)
			stamp_set(&ret->stamp, &st);
		return rc;
	}
	if (fstat(fd, &st) < 0) {
		rc = error_set(error, -errno, "cannot read '%s': %s", path, strerror(errno));
		goto out;
	}
	stamp_set(&ret->stamp, &st);
	if (!S_ISREG(st.st_mode)) {
		rc = error_set(error, -EINVAL, "'%s' is not a file", path);
		goto out;
	}
	if (st.st_size > (off_t)TLS_FILE_MAX) {
		rc = error_set(error, -EFBIG,
			       "'%s' has more than 1 MiB: that is no certificate, key or bundle", path);
		goto out;
	}
	b.stamp = ret->stamp;
	b.data = malloc((size_t)st.st_size + 1);
	if (!b.data) {
		rc = error_set(error, -ENOMEM, "out of memory");
		goto out;
	}
	while (b.size < (size_t)st.st_size) {
		ssize_t n = read(fd, b.data + b.size, (size_t)st.st_size - b.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = error_set(error, -errno, "cannot read '%s': %s", path, strerror(errno));
		if (n <= 0)
			break;
		b.size += (size_t)n;
	}
	if (rc == 0 && b.size == 0)
		rc = error_set(error, -ENODATA, "'%s' is empty", path);
	if (rc == 0) {
		*ret = b;
		b.data = NULL;
	}
out:
	tls_bytes_done(&b);
	close(fd);
	return rc;
}

const char *tls_why(char *text, size_t size)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	snprintf(text, size, "%s", reason ? reason : "no reason given");
	ERR_clear_error();
	return text;
}

const char *tls_subject(const X509 *certificate, char *text, size_t size)
{
	BIO *out = BIO_new(BIO_s_mem());
	char *data = NULL;
	long n = 0;

	text[0] = 0;
	if (out && X509_NAME_print_ex(out, X509_get_subject_name(certificate), 0,
				      XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0)
		n = BIO_get_mem_data(out, &data);
	if (n > 0)
		snprintf(text, size, "%.*s", (int)n, data);
	else
		snprintf(text, size, "without a subject");
	BIO_free(out);
	return text;
}

struct password {
	const char *text;
	bool asked;
};

static int give_password(char *to, int size, int rwflag, void *context)
{
	struct password *p = context;
	size_t n = p->text ? strlen(p->text) : 0;

	(void)rwflag;
	p->asked = true;
	if (!p->text || n > (size_t)size)
		return -1;
	memcpy(to, p->text, n);
	return (int)n;
}

static bool is_jks(struct span data)
{
	return data.size >= 4 && !memcmp(data.data, "\xfe\xed\xfe\xed", 4);
}

static int cannot(const char *name, struct span data, const struct password *p, struct error *error)
{
	unsigned long code = ERR_peek_last_error();
	char why[160];

	if (is_jks(data)) {
		ERR_clear_error();
		return error_set(error, -EINVAL,
				 "'%s' is a Java KeyStore (JKS); turn it into PKCS#12: keytool "
				 "-importkeystore -srckeystore FILE "
				 "-destkeystore FILE.p12 -deststoretype PKCS12",
				 name);
	}
	if (p->asked && !p->text) {
		ERR_clear_error();
		return error_set(error, -EACCES,
				 "'%s' is protected by a password, and there is no keyPasswordFile", name);
	}
	/* RC2 and the like of old PKCS#12 files are not in OpenSSL's default provider. */
	if (ERR_GET_REASON(code) == ERR_R_UNSUPPORTED || ERR_GET_LIB(code) == ERR_LIB_EVP)
		return error_set(error, -EINVAL,
				 "'%s' cannot be read: %s. Is its cipher of the last century? Write it anew "
				 "with openssl pkcs12 -export",
				 name, tls_why(why, sizeof(why)));
	if (p->asked)
		return error_set(error, -EACCES,
				 "'%s' cannot be read with the password of keyPasswordFile: %s", name,
				 tls_why(why, sizeof(why)));
	return error_set(
	    error, -EINVAL,
	    "'%s' holds neither certificate nor key in a form that OpenSSL reads (PEM, DER, PKCS#12): %s",
	    name, tls_why(why, sizeof(why)));
}

static int take(OSSL_STORE_INFO *info, struct tls_found *f)
{
	if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_CERT) {
		X509 *x = OSSL_STORE_INFO_get1_CERT(info);

		if (x && sk_X509_num(f->certificates) < (int)TLS_CERTIFICATES_MAX &&
		    sk_X509_push(f->certificates, x) > 0)
			return 0;
		X509_free(x);
		return -E2BIG;
	}
	if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY && !f->key)
		f->key = OSSL_STORE_INFO_get1_PKEY(info);
	return 0;
}

int tls_find(const char *name, struct span data, const char *password, struct tls_found *ret,
	     struct error *error)
{
	struct password p = {.text = password};
	struct tls_found f = {.certificates = sk_X509_new_null()};
	BIO *in = BIO_new_mem_buf(data.data, (int)data.size);
	UI_METHOD *ui = UI_UTIL_wrap_read_pem_callback(give_password, 0);
	OSSL_STORE_CTX *store = NULL;
	int rc = 0;

	ERR_clear_error();
	if (!f.certificates || !in || !ui) {
		rc = error_set(error, -ENOMEM, "out of memory");
		goto out;
	}
	store = OSSL_STORE_attach(in, "file", NULL, NULL, ui, &p, NULL, NULL, NULL);
	while (store && rc == 0 && !OSSL_STORE_eof(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);

		if (!info)
			break; /* an error, or the end */
		rc = take(info, &f);
		if (rc < 0)
			error_set(error, rc, "'%s' holds more than %u certificates", name,
				  TLS_CERTIFICATES_MAX);
		OSSL_STORE_INFO_free(info);
	}
	if (rc == 0 && (!store || OSSL_STORE_error(store) || (!f.key && sk_X509_num(f.certificates) == 0)))
		rc = cannot(name, data, &p, error);
	ERR_clear_error();
	if (rc == 0) {
		*ret = f;
		f = (struct tls_found){0};
	}
out:
	OSSL_STORE_close(store);
	BIO_free(in);
	UI_destroy_method(ui);
	tls_found_done(&f);
	return rc;
}

void tls_found_done(struct tls_found *f)
{
	sk_X509_pop_free(f->certificates, X509_free);
	EVP_PKEY_free(f->key);
	*f = (struct tls_found){0};
}
