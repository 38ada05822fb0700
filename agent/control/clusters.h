/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters out of the configuration: addresses, certificates, secure-connect bundles, and the certificate for
 * clients; looked at again while the agent runs, because mounted secrets are replaced and nodes behind a
 * proxy come and go.
 *
 *   clusters_open ─▶ relay options
 *   clusters_tick, once a second ─▶ thread pool: have files changed? once a minute: the metadata service
 */
#pragma once
#include <limits.h>
#include <uv.h>

#include "base/metrics.h"
#include "control/config.h"
#include "net/sni.h"
#include "net/tls_context.h"
#include "relay/relay.h"

#define CLUSTERS_SNI_SECONDS 60

struct clusters {
	struct tls_context *tls[SIDES], *client;
	struct sni *sni[SIDES];
	char cache_file[SIDES][PATH_MAX]; /* what the metadata service said last */
	/* The look that runs in the thread pool; the main thread reads it afterwards. */
	uv_work_t work;
	bool running, ask;
	unsigned seconds;
	struct {
		int result;
		struct error error;
	} look[SIDES + 1], nodes[SIDES]; /* the last one of look: clients */
	bool sni_failed[SIDES];
	struct metrics *metrics;
};

/* Settings of one of the contexts, as borrowed strings of the configuration; false = no TLS there. */
bool clusters_tls_settings(const struct config_cluster *from, struct tls_settings *ret);
bool clusters_client_settings(const struct config *c, struct tls_settings *ret);

/*
 * One cluster's nodes and TLS, into a zeroed `to`. Blocks: names are looked up, files are read, a metadata
 * service is asked. `mark`: for connections of later looks (borrowed for life); NULL = nobody will look
 * again, and nothing is written. 0, or −errno with the key's name in the reason.
 */
int clusters_open_one(struct clusters *all, const struct config *c, enum side side, const uint32_t *mark,
		      struct cluster *to, struct error *error);

/* Both of them and the clients' certificate, into relay options. */
int clusters_open(struct clusters *all, const struct config *c, struct relay_options *o, struct error *error);

/* Main thread, once a second. */
void clusters_tick(struct clusters *all, uv_loop_t *loop, struct metrics *metrics);

/* After the last stream is closed and no look runs. A zeroed one is fine. */
void clusters_close(struct clusters *all);
