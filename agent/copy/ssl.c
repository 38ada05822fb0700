// SPDX-License-Identifier: Apache-2.0
#include "copy/ssl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static bool is_true(const char *text)
{
	static const char *const words[] = {"true", "1", "yes", "on"}; /* Python's */

	for (size_t i = 0; text && i < sizeof(words) / sizeof(*words); i++)
		if (!strcasecmp(text, words[i]))
			return true;
	return false;
}

static int take_path(const char *given, const char *name, char *to, size_t size, struct error *error)
{
	*to = 0;
	if (!given || !*given || rc_expand(given, to, size))
		return 0;
	return error_set(error, -ENAMETOOLONG, "%s in [ssl]: the path is too long", name);
}

int copy_ssl_open(struct copy_ssl *s, const struct rc *rc, const char *host, bool wanted, struct error *error)
{
	static const struct tls_names names = {
	    .ca = "certfile in [ssl]", .cert = "usercert in [ssl]", .key = "userkey in [ssl]"};
	const char *trusted = getenv("SSL_CERTFILE"), *validate = getenv("SSL_VALIDATE");
	struct error why;
	int code;

	*s = (struct copy_ssl){0};
	if (!wanted && !is_true(rc_get(rc, "connection", "ssl")))
		return 0;
	if (!trusted)
		trusted = rc_get(rc, "certfiles", host);
	if (!trusted)
		trusted = rc_get(rc, "ssl", "certfile");
	if (!validate)
		validate = rc_get(rc, "ssl", "validate");
	code = take_path(trusted, "certfile", s->ca, sizeof(s->ca), error);
	if (code == 0)
		code = take_path(rc_get(rc, "ssl", "usercert"), "usercert", s->cert, sizeof(s->cert), error);
	if (code == 0)
		code = take_path(rc_get(rc, "ssl", "userkey"), "userkey", s->key, sizeof(s->key), error);
	if (code == 0 && *s->key && !*s->cert)
		code = error_set(error, -EINVAL, "userkey in [ssl] needs a usercert beside it");
	if (code < 0)
		return code;
	struct tls_settings settings = {.ca_file = s->ca,
					.cert_file = s->cert,
					.key_file = s->key,
					.any_name = *s->ca != 0,
					.anybody = validate && !strcasecmp(validate, "false"),
					.names = &names};

	if (settings.anybody) {
		settings.ca_file = "";
		fputs("Warning: validate = false: whoever answers is taken for the cluster\n", stderr);
	}
	code = tls_context_new(&settings, &s->context, &why);
	return code < 0 ? error_set(error, code, "TLS: %s", why.text) : 0;
}

void copy_ssl_done(struct copy_ssl *s)
{
	tls_context_free(s->context);
	s->context = NULL;
}
