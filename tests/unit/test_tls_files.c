// SPDX-License-Identifier: Apache-2.0
/* Certificates and keys from files: every form that is read, what is said about the others, and what happens
 * when they are replaced. */
#include "unit/tlsplay.h"

#include <sys/stat.h>
#include <sys/un.h>

#include "net/tls_context.h"

static struct cert ca, node, later;

static int setup(void **state)
{
	if (directory_setup(state) < 0)
		return -1;
	ca = cert_make(NULL, "test CA", NULL, -DAY, 10 * DAY, true);
	node = cert_make(&ca, "node", "IP:127.0.0.1", -DAY, DAY, false);
	later = cert_make(&ca, "later", "IP:127.0.0.1", -DAY, 2 * DAY, false);
	cert_write(&ca, "ca.pem", "wb");
	pair_write(&node, "node");
	pair_write(&later, "later");
	return 0;
}

static int teardown(void **state)
{
	cert_free(&ca);
	cert_free(&node);
	cert_free(&later);
	return directory_teardown(state);
}

static void write_p12(const char *name, const char *password)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	FILE *f = fopen(in_directory(name), "wb");
	PKCS12 *p;

	sk_X509_push(chain, ca.x);
	p = PKCS12_create(password, "node", node.key, node.x, chain, 0, 0, 0, 0, 0);
	assert_non_null(p);
	assert_int_equal(i2d_PKCS12_fp(f, p), 1);
	PKCS12_free(p);
	fclose(f);
	sk_X509_free(chain);
}

/* The forms of before PKCS#8: SEC1 for elliptic curves, PKCS#1 for RSA. */
static void write_traditional(const char *name, const EVP_PKEY *key, const char *password)
{
	BIO *out = BIO_new_file(in_directory(name), "wb");

	assert_int_equal(PEM_write_bio_PrivateKey_traditional(
			     out, key, password ? EVP_aes_128_cbc() : NULL, (unsigned char *)password,
			     password ? (int)strlen(password) : 0, NULL, NULL),
			 1);
	BIO_free(out);
}

static void write_forms(void)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048);
	FILE *f;

	key_write(&node, "encrypted.key", "secret");
	write_traditional("sec1.key", node.key, NULL);
	write_traditional("traditional-encrypted.key", node.key, "secret");
	f = fopen(in_directory("key.der"), "wb");
	i2d_PrivateKey_fp(f, node.key);
	fclose(f);
	f = fopen(in_directory("cert.der"), "wb");
	i2d_X509_fp(f, node.x);
	fclose(f);
	write_traditional("rsa.key", rsa, NULL);
	EVP_PKEY_free(rsa);
	/* A chain in the wrong order, and the key in the same file. */
	cert_write(&ca, "all.pem", "wb");
	cert_write(&node, "all.pem", "ab");
	f = fopen(in_directory("all.pem"), "ab");
	PEM_write_PrivateKey(f, node.key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	write_p12("node.p12", "secret");
	file_write("password", "secret\nsecond line\n", 19);
	file_write("wrong-password", "wrong", 5);
	file_write("empty", "", 0);
	file_write("text", "this is no certificate\n", 23);
	file_write("keystore.jks", "\xfe\xed\xfe\xed\0\0\0\2\0\0\0\0", 12);
	char *large = calloc(1, TLS_FILE_MAX + 1);
	file_write("large", large, TLS_FILE_MAX + 1);
	free(large);
}

static void forms(void **unused)
{
	static const struct {
		const char *ca, *cert, *key, *password;
		const char *error; /* NULL = it is read */
	} cases[] = {
	    {"ca.pem", "node.pem", "node.key", NULL, NULL},
	    {"ca.pem", "node.pem", "sec1.key", NULL, NULL},
	    {"ca.pem", "node.pem", "key.der", NULL, NULL},
	    {"ca.pem", "cert.der", "key.der", NULL, NULL},
	    {"ca.pem", "node.pem", "encrypted.key", "password", NULL},
	    {"ca.pem", "node.pem", "traditional-encrypted.key", "password", NULL},
	    {"ca.pem", "all.pem", NULL, NULL, NULL},
	    {"ca.pem", "node.p12", NULL, "password", NULL},
	    {"node.p12", "node.p12", NULL, "password", NULL},
	    {NULL, "node.pem", "node.key", NULL, NULL},
	    {"ca.pem", NULL, NULL, NULL, NULL},
	    {"ca.pem", "node.pem", "encrypted.key", NULL,
	     "is protected by a password, and there is no keyPasswordFile"},
	    {"ca.pem", "node.pem", "encrypted.key", "wrong-password", "cannot be read with the password"},
	    {"ca.pem", "node.p12", NULL, NULL, "is protected by a password, and there is no keyPasswordFile"},
	    {"ca.pem", "node.p12", NULL, "wrong-password", "cannot be read with the password"},
	    {"ca.pem", "node.pem", "later.key", NULL, "does not belong to a certificate in"},
	    {"ca.pem", "node.pem", "rsa.key", NULL, "does not belong to a certificate in"},
	    {"ca.pem", "node.pem", NULL, NULL, "holds no private key; set keyFile"},
	    {"ca.pem", "node.pem", "ca.pem", NULL, "holds no private key"},
	    {"ca.pem", "node.key", "node.key", NULL, "there is no certificate"},
	    {"node.key", NULL, NULL, NULL, "holds no certificate"},
	    {"missing.pem", NULL, NULL, NULL, "missing.pem': No such file"},
	    {"empty", NULL, NULL, NULL, "is empty"},
	    {"text", NULL, NULL, NULL, "neither certificate nor key"},
	    {"large", NULL, NULL, NULL, "more than 1 MiB"},
	    {".", NULL, NULL, NULL, "is not a file"},
	    {"ca.pem", "keystore.jks", NULL, NULL, "is a Java KeyStore (JKS)"},
	};

	(void)unused;
	write_forms();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tls_settings s = {.ca_file = cases[i].ca ? in_directory(cases[i].ca) : NULL,
					 .cert_file = cases[i].cert ? in_directory(cases[i].cert) : NULL,
					 .key_file = cases[i].key ? in_directory(cases[i].key) : NULL,
					 .key_password_file =
					     cases[i].password ? in_directory(cases[i].password) : NULL};
		struct tls_context *c = NULL;
		struct error error = {""};
		int rc = tls_context_new(&s, &c, &error);

		if (cases[i].error) {
			if (rc >= 0 || !strstr(error.text, cases[i].error))
				fail_msg("case %zu: %d, '%s'; expected '%s'", i, rc, error.text,
					 cases[i].error);
			assert_null(strstr(error.text, "secret"));
		} else if (rc != 0) {
			fail_msg("case %zu: %s", i, error.text);
		}
		tls_context_free(c);
	}
}

/* ---- replaced on disk */

struct seen {
	char own[64];
	unsigned trusted;
};

static void on_certificate(void *context, enum tls_what what, const char *subject, time_t not_after)
{
	struct seen *s = context;

	assert_true(not_after > 0);
	if (what == TLS_OWN)
		snprintf(s->own, sizeof(s->own), "%s", subject);
	s->trusted += what == TLS_TRUSTED;
}

static const char *own_of(struct tls_context *c)
{
	static struct seen s;

	s = (struct seen){0};
	tls_context_each(c, on_certificate, &s);
	assert_int_equal(s.trusted, 1);
	return s.own;
}

/* As the kubelet does it: the files are links into ..data, which is a link that is moved. */
static void point_at(const char *version)
{
	char fresh[128];

	snprintf(fresh, sizeof(fresh), "%s", in_directory("..data_tmp"));
	assert_int_equal(symlink(version, fresh), 0);
	assert_int_equal(rename(fresh, in_directory("..data")), 0);
}

static void make_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
}

static void mounted_secrets_are_replaced(void **unused)
{
	char ca_file[128], cert_file[128], key_file[128];
	struct tls_settings s = {.ca_file = ca_file, .cert_file = cert_file, .key_file = key_file};
	struct tls_context *c = NULL;
	struct error error = {""};

	(void)unused;
	for (int i = 1; i <= 4; i++) {
		char name[32];

		snprintf(name, sizeof(name), "v%d", i);
		assert_int_equal(mkdir(in_directory(name), 0700), 0);
		snprintf(name, sizeof(name), "v%d/ca", i);
		cert_write(&ca, name, "wb");
		snprintf(name, sizeof(name), "v%d/cert", i);
		cert_write(i == 1 ? &node : &later, name, "wb");
		snprintf(name, sizeof(name), "v%d/key", i);
		key_write(i == 1 || i == 3 ? &node : &later, name, NULL); /* the third does not fit */
	}
	point_at("v1");
	snprintf(ca_file, sizeof(ca_file), "%s", in_directory("..data/ca"));
	snprintf(cert_file, sizeof(cert_file), "%s", in_directory("..data/cert"));
	snprintf(key_file, sizeof(key_file), "%s", in_directory("..data/key"));
	assert_int_equal(tls_context_new(&s, &c, &error), 0);
	assert_string_equal(own_of(c), "CN=node");
	assert_int_equal(tls_context_refresh(c, &error), 0);

	point_at("v2");
	assert_int_equal(tls_context_refresh(c, &error), 1);
	assert_string_equal(own_of(c), "CN=later");
	assert_int_equal(tls_context_refresh(c, &error), 0);

	/* Broken: said once, and the old ones stay. */
	point_at("v3");
	assert_int_equal(tls_context_refresh(c, &error), -EINVAL);
	assert_non_null(strstr(error.text, "does not belong"));
	assert_int_equal(tls_context_refresh(c, &error), 0);
	assert_string_equal(own_of(c), "CN=later");

	point_at("nowhere");
	assert_int_equal(tls_context_refresh(c, &error), -ENOENT);
	assert_int_equal(tls_context_refresh(c, &error), 0);
	assert_string_equal(own_of(c), "CN=later");

	point_at("v4");
	assert_int_equal(tls_context_refresh(c, &error), 1);
	assert_string_equal(own_of(c), "CN=later");

	/* What is no file, and what cannot even be opened. */
	assert_int_equal(unlink(in_directory("v4/key")), 0);
	assert_int_equal(mkdir(in_directory("v4/key"), 0700), 0);
	assert_int_equal(tls_context_refresh(c, &error), -EINVAL);
	assert_non_null(strstr(error.text, "is not a file"));
	assert_int_equal(tls_context_refresh(c, &error), 0);
	assert_int_equal(rmdir(in_directory("v4/key")), 0);
	make_socket(in_directory("v4/key"));
	assert_int_equal(tls_context_refresh(c, &error), -ENXIO);
	assert_int_equal(tls_context_refresh(c, &error), 0);
	assert_string_equal(own_of(c), "CN=later");
	assert_int_equal(unlink(in_directory("v4/key")), 0);
	key_write(&later, "v4/key", NULL);
	assert_int_equal(tls_context_refresh(c, &error), 1);

	/* Written in place, same size perhaps. */
	cert_write(&node, "v4/cert", "wb");
	assert_int_equal(tls_context_refresh(c, &error), -EINVAL);
	key_write(&node, "v4/key", NULL);
	assert_int_equal(tls_context_refresh(c, &error), 1);
	assert_string_equal(own_of(c), "CN=node");
	tls_context_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(forms),
	    cmocka_unit_test(mounted_secrets_are_replaced),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
