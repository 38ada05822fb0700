/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two JSON texts around a secure-connect bundle: config.json inside it, which names the metadata service,
 * and that service's answer, which names the nodes. Pure functions; members that are not needed are passed
 * over.
 *
 *   config.json   {"host": "<db>.db.example", "port": 29080, "keyspace": "ks", …}
 *   /metadata     {"version": 1, "region": "…", "contact_info": {"type": "sni_proxy", "local_dc": "dc1",
 *                  "sni_proxy_address": "<db>.db.example:29042", "contact_points": ["<host id>", …]}}
 */
#pragma once
#include <stdint.h>

#include "base/error.h"
#include "base/span.h"

#define BUNDLE_HOST_MAX 256	     /* a DNS name has at most 253 characters */
#define BUNDLE_NODES_MAX 64	     /* as many as the relay takes; more are left out */
#define BUNDLE_ID_MAX 64	     /* a host id is a UUID: 36 */
#define BUNDLE_JSON_MAX (256u << 10) /* bytes of either text; a node is some 40 */

struct bundle_config {
	char host[BUNDLE_HOST_MAX]; /* of the metadata service */
	uint16_t port;
	char keyspace[64], local_dc[128]; /* "" = not said */
};

struct bundle_contact {
	char proxy_host[BUNDLE_HOST_MAX]; /* every connection goes there … */
	uint16_t proxy_port;
	char local_dc[128], region[128];
	unsigned count, left_out;
	char host_id[BUNDLE_NODES_MAX][BUNDLE_ID_MAX]; /* … and asks for one of these by TLS server name */
};

/* 0, or −EINVAL with what is wrong in it. */
int bundle_config_parse(struct span json, struct bundle_config *ret, struct error *error);
int bundle_contact_parse(struct span json, struct bundle_contact *ret, struct error *error);
