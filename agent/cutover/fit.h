/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the clients' sessions the target could carry: protocol version and compression.
 *
 * From mirroring on new sessions are limited to the version that the target speaks (relay.version_cap). Sessions that are older and above
 * that are closed, a few a second; their drivers come back below it. A compression that the target does not know does not matter
 * (relay/unpack.h); such sessions are named, and stay.
 */
#pragma once
#include "relay/relay.h"
#include "relay/session.h"

struct fit {
	uint8_t highest; /* protocol version */
	bool compression[3]; /* by enum compression */
};

#define FIT_NAMED 10 /* sessions named in a report */

/* What the sessions speak. Filled by fit_count from several workers at once. */
struct fit_census {
	pthread_mutex_t lock;
	unsigned of[8][3]; /* by version and compression */
	unsigned total;
	struct fit_session {
		struct addr client;
		uint8_t version;
		enum compression compression;
	} *session; /* at most FIT_SESSIONS_MAX of them */
	unsigned kept;
};
#define FIT_SESSIONS_MAX 1024

/* Asks the target's nodes (OPTIONS, no login), at most 3 s each. Blocks. 0 or −errno with the reason. */
int fit_ask(const struct cluster *target, uint32_t mark, struct fit *ret, struct error *error);

/* 0 or −ENOMEM. */
int fit_census_init(struct fit_census *c);
void fit_census_done(struct fit_census *c);
/* Adds the worker's sessions that have told their version. Worker's thread. */
void fit_count(struct worker *w, struct fit_census *c);

/* Tells of the sessions that do not fit: one text for each kind, and the first FIT_NAMED of each by name. */
void fit_report(const struct fit *f, const struct fit_census *c, void (*say)(void *context, const char *what, const char *remedy),
		void *context);

/* Closes idle sessions above relay.version_cap, RETIRE_A_SECOND on the node. Call it once a second while mirroring. Main thread. */
void fit_close_older(struct relay *r);
