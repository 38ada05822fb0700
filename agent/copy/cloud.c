// SPDX-License-Identifier: Apache-2.0
#include "copy/cloud.h"

#include <errno.h>

#include "copy/rc.h"

int copy_cloud_open(struct copy_cloud *c, const char *path, struct error *error)
{
	struct tls_settings tls = {.bundle_file = c->path};
	struct sni_settings sni = {.bundle_file = c->path};
	struct error stale, why;
	int rc;

	*c = (struct copy_cloud){0};
	if (!rc_expand(path, c->path, sizeof(c->path)))
		return error_set(error, -ENAMETOOLONG, "secure-connect bundle: the path is too long");
	rc = tls_context_new(&tls, &c->tls, &why);
	if (rc == 0) {
		sni.tls = c->tls;
		rc = sni_new(&sni, &c->sni, &stale, &why);
	}
	return rc < 0 ? error_set(error, rc, "secure-connect bundle: %s", why.text) : 0;
}

void copy_cloud_done(struct copy_cloud *c)
{
	sni_free(c->sni);
	tls_context_free(c->tls);
	*c = (struct copy_cloud){0};
}
