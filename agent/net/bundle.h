/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A secure-connect bundle: a zip file with everything that a driver needs to find and enter a cluster that
 * stands behind an SNI proxy (Astra).
 *
 *   config.json   where the metadata service is      ca.crt, cert, key   PEM: whom to trust, and who we are
 *
 * What else is in it (Java key stores, cqlshrc) repeats this. Sizes are bounded, also those that the zip file
 * promises.
 */
#pragma once
#include "base/error.h"
#include "base/span.h"
#include "net/bundle_json.h"

#define BUNDLE_ENTRY_MAX (256u << 10) /* bytes of one file in it, unpacked */

struct tls_stamp;

struct bundle {
	struct bundle_config config;
	struct span ca, cert, key; /* malloc'ed, bundle_done() */
};

/*
 * Reads the file and unpacks it. `seen` (may be NULL) gets which file that was, also when it could not be
 * used. 0, or −errno with the part that is missing or broken. Blocks on the disk.
 */
int bundle_read(const char *path, struct bundle *ret, struct tls_stamp *seen, struct error *error);

/* Overwrites and frees. A zeroed one is fine. */
void bundle_done(struct bundle *b);

/*
 * Asks the bundle's metadata service over HTTPS, as whom the bundle says, and checks that the service is who
 * the bundle says
 * (`any_name`: only that it is trusted). `mark`: SO_MARK, 0 = none. Blocks for up to 10 s: never on a worker.
 * 0, or −errno.
 */
int bundle_ask(const struct bundle *b, bool any_name, uint32_t mark, struct bundle_contact *ret,
	       struct error *error);
