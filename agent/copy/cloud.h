/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy to or from a cluster behind an SNI proxy that a secure-connect bundle describes (Astra): certificates
 * and key come from the bundle, the nodes from its metadata service.
 *
 *   bundle ─▶ TLS context ─▶ metadata service ─▶ proxy address, host ids ─▶ copy_cluster_control()
 *
 * Certificates are checked, for the database's name, whatever cqlshrc's [ssl] says.
 */
#pragma once
#include "net/sni.h"
#include "net/tls_context.h"

struct copy_cloud {
	struct tls_context *tls;
	struct sni *sni;
	char path[1024]; /* of the bundle */
};

/* `path` may begin with ~. 0, or −errno with the reason. Blocks on the disk and on the metadata service, 10 s
 * at most. */
int copy_cloud_open(struct copy_cloud *c, const char *path, struct error *error);

/* After the last stream is closed. A zeroed one is fine. */
void copy_cloud_done(struct copy_cloud *c);
