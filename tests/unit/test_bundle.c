// SPDX-License-Identifier: Apache-2.0
/* Secure-connect bundles: each broken part is named; the metadata service's answer; what is kept for when it
 * is silent. */
#include "unit/tlsplay.h"

#include <zip.h>

#include "net/bundle.h"
#include "net/sni.h"

static struct cert ca, other_ca, service, client;

static int setup(void **state)
{
	if (directory_setup(state) < 0)
		return -1;
	ca = cert_make(NULL, "bundle CA", NULL, -DAY, 10 * DAY, true);
	other_ca = cert_make(NULL, "other CA", NULL, -DAY, 10 * DAY, true);
	service = cert_make(&ca, "service", "DNS:localhost,IP:127.0.0.1", -DAY, DAY, false);
	client = cert_make(&ca, "client", NULL, -DAY, DAY, false);
	cert_write(&ca, "ca.pem", "wb");
	cert_write(&other_ca, "other-ca.pem", "wb");
	pair_write(&service, "service");
	pair_write(&client, "client");
	return 0;
}

static int teardown(void **state)
{
	cert_free(&ca);
	cert_free(&other_ca);
	cert_free(&service);
	cert_free(&client);
	return directory_teardown(state);
}

static char *slurp(const char *name, size_t *size)
{
	FILE *f = fopen(in_directory(name), "rb");
	char *data = calloc(1, 1 << 20);

	assert_non_null(f);
	*size = fread(data, 1, (1 << 20) - 1, f);
	fclose(f);
	return data;
}

static void add(zip_t *zip, const char *name, const char *from, const char *text)
{
	size_t size = text ? strlen(text) : 0;
	char *data = text ? strdup(text) : slurp(from, &size);

	assert_true(zip_file_add(zip, name, zip_source_buffer(zip, data, size, 1), 0) >= 0);
}

struct parts {
	const char *config, *ca, *cert, *key; /* config: JSON text; the others: files; NULL = left out */
};

static void bundle_write(const char *name, const struct parts *p)
{
	int code;
	zip_t *zip = zip_open(in_directory(name), ZIP_CREATE | ZIP_TRUNCATE, &code);

	assert_non_null(zip);
	add(zip, "identity.jks", NULL, "whatever");
	if (p->config)
		add(zip, "config.json", NULL, p->config);
	if (p->ca)
		add(zip, "ca.crt", p->ca, NULL);
	if (p->cert)
		add(zip, "cert", p->cert, NULL);
	if (p->key)
		add(zip, "key", p->key, NULL);
	assert_int_equal(zip_close(zip), 0);
}

static void broken_parts_are_named(void **unused)
{
	static const char good[] =
	    "{\"host\":\"db.example\",\"port\":29080,\"keyspace\":\"ks\",\"more\":[1]}";
	char huge[BUNDLE_ENTRY_MAX + 10];
	const struct {
		struct parts parts;
		const char *error;
	} cases[] = {
	    {{good, "ca.pem", "client.pem", "client.key"}, NULL},
	    {{NULL, "ca.pem", "client.pem", "client.key"}, "has no config.json"},
	    {{good, NULL, "client.pem", "client.key"}, "has no ca.crt"},
	    {{good, "ca.pem", NULL, "client.key"}, "has no cert"},
	    {{good, "ca.pem", "client.pem", NULL}, "has no key"},
	    {{"{", "ca.pem", "client.pem", "client.key"}, "config.json is not JSON"},
	    {{huge, "ca.pem", "client.pem", "client.key"}, "config.json in the bundle"},
	};
	struct error error = {""};
	struct bundle b = {0};

	(void)unused;
	memset(huge, ' ', sizeof(huge));
	huge[sizeof(huge) - 1] = 0;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bundle_write("b.zip", &cases[i].parts);
		int rc = bundle_read(in_directory("b.zip"), &b, NULL, &error);

		if (cases[i].error) {
			assert_true(rc < 0);
			if (!strstr(error.text, cases[i].error))
				fail_msg("case %zu: %s", i, error.text);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_string_equal(b.config.host, "db.example");
		assert_int_equal(b.config.port, 29080);
		assert_string_equal(b.config.keyspace, "ks");
		assert_true(b.ca.size > 100 && b.cert.size > 100 && b.key.size > 100);
		bundle_done(&b);
	}
	file_write("b.zip", "PK\3\4 but nothing else", 22);
	assert_true(bundle_read(in_directory("b.zip"), &b, NULL, &error) < 0);
	assert_non_null(strstr(error.text, "is not a zip file"));
	assert_int_equal(bundle_read(in_directory("none.zip"), &b, NULL, &error), -ENOENT);

	/* A byte of a packed file is wrong: its checksum says so. */
	size_t size;
	bundle_write("b.zip", &cases[0].parts);
	char *data = slurp("b.zip", &size);
	char *inside = memmem(data, size, "config.json", 11);
	assert_non_null(inside);
	inside[20] ^= 0x55;
	file_write("b.zip", data, size);
	assert_int_equal(bundle_read(in_directory("b.zip"), &b, NULL, &error), -EINVAL);
	/* Each strict prefix is refused, and nothing breaks. */
	for (size_t n = 1; n < size; n += 37) {
		file_write("b.zip", data, n);
		assert_true(bundle_read(in_directory("b.zip"), &b, NULL, &error) < 0);
	}
	free(data);
}

#define CONTACT(address, points)                                                                        \
	"{\"contact_info\":{\"type\":\"sni_proxy\",\"local_dc\":\"dc1\",\"sni_proxy_address\":" address \
	",\"contact_points\":" points "}}"
#define ID "\"2b1c9f9e-0a2f-4a58-9d3b-7d6ac1d2e3f4\""

static void the_services_answer(void **unused)
{
	static const struct {
		const char *text, *error, *host;
		unsigned port, count;
	} cases[] = {
	    {CONTACT("\"p.example:29042\"", "[" ID "]"), NULL, "p.example", 29042, 1},
	    {CONTACT("\"10.0.0.1:1\"", "[" ID "," ID "]"), NULL, "10.0.0.1", 1, 2},
	    {CONTACT("\"[fd00::7]:29042\"", "[" ID "]"), NULL, "fd00::7", 29042, 1},
	    {"", "is not JSON", NULL, 0, 0},
	    {"[]", "is not a JSON object", NULL, 0, 0},
	    {"{}", "has no \"contact_info\"", NULL, 0, 0},
	    {"{\"contact_info\":{\"type\":\"tunnel\"}}", "not known here", NULL, 0, 0},
	    {CONTACT("\"p.example\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\"p.example:0\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\"p.example:65536\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\"fd00::7:29042\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\":29042\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\"a b:1\"", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("7", "[" ID "]"), "is not host:port", NULL, 0, 0},
	    {CONTACT("\"p.example:29042\"", "[]"), "names no \"contact_points\"", NULL, 0, 0},
	    {CONTACT("\"p.example:29042\"", "7"), "names no \"contact_points\"", NULL, 0, 0},
	    {CONTACT("\"p.example:29042\"", "[7]"), "is not a host id", NULL, 0, 0},
	    {CONTACT("\"p.example:29042\"", "[\"a/b\"]"), "is not a host id", NULL, 0, 0},
	    {CONTACT("\"p.example:29042\"", "[\"\"]"), "is not a host id", NULL, 0, 0},
	};
	char many[BUNDLE_NODES_MAX * 12 + 400];
	struct bundle_contact c;
	struct error error = {""};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = bundle_contact_parse(span_text(cases[i].text), &c, &error);

		if (cases[i].error) {
			if (rc >= 0 || !strstr(error.text, cases[i].error))
				fail_msg("case %zu: %s", i, error.text);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_string_equal(c.proxy_host, cases[i].host);
		assert_int_equal(c.proxy_port, cases[i].port);
		assert_int_equal(c.count, cases[i].count);
		assert_string_equal(c.local_dc, "dc1");
	}
	/* More nodes than are taken: they are left out, and counted. */
	int at = snprintf(many, sizeof(many),
			  "{\"contact_info\":{\"sni_proxy_address\":\"p:1\",\"contact_points\":[");
	for (unsigned i = 0; i < BUNDLE_NODES_MAX + 3; i++)
		at += snprintf(many + at, sizeof(many) - (size_t)at, "%s\"id-%u\"", i ? "," : "", i);
	snprintf(many + at, sizeof(many) - (size_t)at, "]}}");
	assert_int_equal(bundle_contact_parse(span_text(many), &c, &error), 0);
	assert_int_equal(c.count, BUNDLE_NODES_MAX);
	assert_int_equal(c.left_out, 3);
}

static void config_json(void **unused)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
	    {"{\"host\":\"h\",\"port\":1}", NULL},
	    {"{\"port\":1}", "\"host\" in config.json is missing"},
	    {"{\"host\":7,\"port\":1}", "is not a host name"},
	    {"{\"host\":\"h/../x\",\"port\":1}", "is not a host name"},
	    {"{\"host\":\"h\"}", "is not a port"},
	    {"{\"host\":\"h\",\"port\":70000}", "is not a port"},
	    {"{\"host\":\"h\",\"port\":\"1\"}", "is not a port"},
	    {"{\"host\":\"h\",\"host\":\"i\",\"port\":1}", "is not JSON"},
	};
	struct bundle_config c;
	struct error error = {""};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = bundle_config_parse(span_text(cases[i].text), &c, &error);

		assert_int_equal(rc, cases[i].error ? -EINVAL : 0);
		if (cases[i].error && !strstr(error.text, cases[i].error))
			fail_msg("case %zu: %s", i, error.text);
	}
}

/* ---- the service itself */

static struct tls_context *context_of(const struct tls_settings *s)
{
	struct tls_context *c = NULL;
	struct error error = {""};

	if (tls_context_new(s, &c, &error) < 0)
		fail_msg("%s", error.text);
	return c;
}

static char answer[2048];

static const char *http(int status, const char *body)
{
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 %d x\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status, strlen(body),
		 body);
	return answer;
}

static void write_bundle_for(const char *name, const char *host, unsigned port, const char *trusted)
{
	char config[128];

	snprintf(config, sizeof(config), "{\"host\":\"%s\",\"port\":%u}", host, port);
	bundle_write(name, &(struct parts){config, trusted, "client.pem", "client.key"});
}

static void nodes_are_asked_for_and_kept(void **unused)
{
	struct tls_context *server =
	    context_of(&(struct tls_settings){.server = true,
					      .cert_file = in_directory("service.pem"),
					      .key_file = in_directory("service.key"),
					      .ca_file = in_directory("ca.pem"),
					      .client_auth = TLS_CLIENT_AUTH_REQUIRED});
	struct sni_settings settings = {.bundle_file = in_directory("good.zip"),
					.cache_file = in_directory("nodes.json")};
	struct error stale, error = {""};
	struct play_server s;
	struct endpoint e;
	struct sni *sni;
	unsigned port;

	(void)unused;
	play_start(&s, server, http(200, CONTACT("\"127.0.0.1:29042\"", "[\"one\",\"two\"]")));
	port = addr_port(&s.addr);
	write_bundle_for("good.zip", "127.0.0.1", port, "ca.pem");
	assert_int_equal(sni_new(&settings, &sni, &stale, &error), 0);
	assert_string_equal(stale.text, "");
	assert_int_equal(sni_count(sni), 2);
	sni_endpoint(sni, 3, &e); /* an index of more nodes than there are now */
	assert_string_equal(e.sni, "two");
	assert_string_equal(e.names[0], "127.0.0.1");
	assert_int_equal(addr_port(&e.addr), 29042);
	assert_int_equal(sni_refresh(sni, &error), 0);

	s.answer = http(200, CONTACT("\"127.0.0.1:29042\"", "[\"three\"]"));
	assert_int_equal(sni_refresh(sni, &error), 1);
	sni_endpoint(sni, 0, &e);
	assert_string_equal(e.sni, "three");

	/* What the service says wrongly changes nothing. */
	const struct {
		int status;
		const char *body, *error;
	} wrong[] = {{503, "", "HTTP status 503: a database that is hibernating"},
		     {404, "", "HTTP status 404"},
		     {200, "{}", "has no \"contact_info\""}};

	for (size_t i = 0; i < 3; i++) {
		s.answer = http(wrong[i].status, wrong[i].body);
		assert_true(sni_refresh(sni, &error) < 0);
		assert_non_null(strstr(error.text, wrong[i].error));
		sni_endpoint(sni, 0, &e);
		assert_string_equal(e.sni, "three");
	}
	/* A start in such a moment goes on with what is kept; without that it says why it cannot. */
	sni_free(sni);
	assert_int_equal(sni_new(&settings, &sni, &stale, &error), 0);
	assert_non_null(strstr(stale.text, "has no \"contact_info\""));
	sni_endpoint(sni, 0, &e);
	assert_string_equal(e.sni, "three");
	sni_free(sni);
	settings.cache_file = NULL;
	assert_true(sni_new(&settings, &sni, &stale, &error) < 0);
	assert_non_null(strstr(error.text, "has no \"contact_info\""));

	/* Somebody else's service; a service of another name; nobody there. */
	settings.bundle_file = in_directory("bad.zip");
	write_bundle_for("bad.zip", "127.0.0.1", port, "other-ca.pem");
	assert_int_equal(sni_new(&settings, &sni, &stale, &error), -EKEYREJECTED);
	write_bundle_for("bad.zip", "127.0.0.2", port, "ca.pem");
	assert_true(sni_new(&settings, &sni, &stale, &error) < 0);
	play_stop(&s);
	write_bundle_for("bad.zip", "127.0.0.1", port, "ca.pem");
	assert_int_equal(sni_new(&settings, &sni, &stale, &error), -EHOSTUNREACH);
	assert_non_null(strstr(error.text, "the metadata service https://127.0.0.1:"));
	tls_context_free(server);
}

/* The bundle's certificates are a context like any other, and are read again when the file is replaced. */
static void certificates_of_a_bundle(void **unused)
{
	struct tls_settings s = {.bundle_file = in_directory("c.zip")};
	struct tls_context *c;
	struct error error;

	(void)unused;
	write_bundle_for("c.zip", "h", 1, "ca.pem");
	c = context_of(&s);
	assert_int_equal(tls_context_refresh(c, &error), 0);
	write_bundle_for("c.zip", "h", 2, "other-ca.pem");
	assert_int_equal(tls_context_refresh(c, &error), 1);
	bundle_write("c.zip",
		     &(struct parts){"{\"host\":\"h\",\"port\":1}", "ca.pem", "client.pem", "service.key"});
	assert_int_equal(tls_context_refresh(c, &error), -EINVAL);
	assert_non_null(strstr(error.text, "key in the bundle"));
	tls_context_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(broken_parts_are_named),
	    cmocka_unit_test(the_services_answer),
	    cmocka_unit_test(config_json),
	    cmocka_unit_test(nodes_are_asked_for_and_kept),
	    cmocka_unit_test(certificates_of_a_bundle),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
