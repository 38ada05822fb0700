// SPDX-License-Identifier: Apache-2.0
/* Our own certificates and keys, read as the agent reads them: whether they fit together, when they end, who
 * else may read them. */
#include <string.h>
#include <sys/stat.h>

#include "control/clusters.h"
#include "control/doctor.h"

#define SOON (30 * 24 * 3600) /* seconds: who renews by hand needs some weeks */

void doctor_tls_expiry(struct doctor *d, const char *where, const char *subject, time_t not_after,
		       const char *remedy)
{
	time_t now = time(NULL);
	char when[40];
	struct tm tm;

	if (not_after > now + SOON || !gmtime_r(&not_after, &tm) ||
	    !strftime(when, sizeof(when), "%Y-%m-%d %H:%M UTC", &tm))
		return;
	if (not_after <= now)
		doctor_find(d, DOCTOR_FAIL, remedy, "%s: the certificate of %s has expired on %s", where,
			    subject, when);
	else
		doctor_find(d, DOCTOR_WARN, remedy, "%s: the certificate of %s expires in %ld days, on %s",
			    where, subject, (long)((not_after - now) / (24 * 3600)), when);
}

struct listing {
	struct doctor *doctor;
	const char *where;
	unsigned own, trusted;
};

static void on_certificate(void *context, enum tls_what what, const char *subject, time_t not_after)
{
	static const char *const remedies[] = {
	    [TLS_OWN] = "renew it; the running agent takes the new file by itself",
	    [TLS_OWN_CHAIN] = "renew the chain; the running agent takes the new file by itself",
	    [TLS_TRUSTED] = "add its successor to the CA file, before nodes or clients show certificates "
			    "that it has signed",
	};
	struct listing *l = context;

	l->own += what == TLS_OWN;
	l->trusted += what == TLS_TRUSTED;
	doctor_tls_expiry(l->doctor, l->where, subject, not_after, remedies[what]);
}

static void check_readers(struct doctor *d, const char *where, const char *path)
{
	struct stat st;

	if (path && *path && stat(path, &st) == 0 && st.st_mode & S_IROTH)
		doctor_find(
		    d, DOCTOR_WARN, "chmod o-r it",
		    "%s: '%s' may be read by everyone on this node, and holds a private key or its password",
		    where, path);
}

static void check_context(struct doctor *d, const char *where, const struct tls_settings *s)
{
	struct listing l = {.doctor = d, .where = where};
	struct tls_context *c = NULL;
	struct error error;

	if (tls_context_new(s, &c, &error) < 0) {
		doctor_find(
		    d, DOCTOR_FAIL,
		    "correct the file, or the key that names it; the agent's user has to be able to read it",
		    "%s: %s", where, error.text);
		return;
	}
	tls_context_each(c, on_certificate, &l);
	if (s->bundle_file && *s->bundle_file)
		doctor_find(d, DOCTOR_OK, NULL, "%s: the bundle's certificate and key fit together", where);
	else if (l.trusted)
		doctor_find(d, DOCTOR_OK, NULL, "%s: %u trusted certificates%s", where, l.trusted,
			    l.own ? ", certificate and key of ours" : "");
	else
		doctor_find(d, DOCTOR_OK, NULL, "%s: %s", where,
			    s->server ? "certificate and key fit together" : "trusts what the system trusts");
	tls_context_free(c);
	check_readers(d, where, s->bundle_file);
	check_readers(d, where, s->key_password_file);
	check_readers(d, where, s->key_file && *s->key_file ? s->key_file : s->cert_file);
}

static void check_tls(struct doctor *d, const struct config *c, void *context)
{
	struct tls_settings s;
	bool any = false;

	(void)context;
	for (int side = 0; side < SIDES; side++) {
		const struct config_cluster *cluster = side == ORIGIN ? &c->origin : &c->target;

		if (!clusters_tls_settings(cluster, &s))
			continue;
		any = true;
		check_context(d, side_name((enum side)side), &s);
		if (s.any_name)
			doctor_find(d, DOCTOR_WARN,
				    "name what the certificates are for in tls.serverName, and leave "
				    "verifyHostname on",
				    "%s: any certificate of a trusted CA will do; verifyHostname is off",
				    side_name((enum side)side));
	}
	if (clusters_client_settings(c, &s)) {
		any = true;
		check_context(d, "listen", &s);
		if (!c->origin.tls.enabled && !*c->origin.bundle)
			doctor_find(
			    d, DOCTOR_WARN, "set origin.tls.enabled",
			    "listen: what clients encrypt travels from here to the origin in the clear");
	}
	if (!any)
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "no TLS is configured, neither to the clusters nor for clients");
}

void doctor_add_tls(struct doctor *d)
{
	doctor_add(d, "TLS", check_tls, NULL);
}
