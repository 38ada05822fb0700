/* SPDX-License-Identifier: Apache-2.0 */
/* Where a connection goes, and as whom the other end has to identify itself. */
#pragma once
#include "net/addr.h"

#define ENDPOINT_NAME 256 /* a DNS name has at most 253 characters (RFC 1035) */

struct tls_context;

struct endpoint {
	struct addr addr;
	struct tls_context *tls; /* NULL = plain; shares */
	char sni[ENDPOINT_NAME]; /* the name that TLS asks for; "" = none */
	/* The certificate has to be for one of these; both "" = for the address. Two are two names, never an
	 * address. */
	char names[2][ENDPOINT_NAME];
};
