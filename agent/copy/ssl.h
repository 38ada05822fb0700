/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a copy from where cqlsh has it: [connection] ssl; certfile, validate, usercert and userkey of [ssl];
 * a host's own certfile in [certfiles]; SSL_CERTFILE and SSL_VALIDATE in the environment.
 *
 *   certfile given       its certificates are trusted, whatever host they were made for, as in cqlsh
 *   none                 the system's, and the certificate has to be for the host that is dialled: their
 *                        certificates can be had by everybody (cqlsh refuses)
 *   validate = false     nothing is checked, and that is said
 */
#pragma once
#include "copy/rc.h"
#include "net/tls_context.h"

struct copy_ssl {
	struct tls_context *context; /* NULL = plain */
	char ca[1024], cert[1024], key[1024];
};

/* `wanted`: by the command line; cqlshrc can want it, too. `host`: the control host. 0, or −errno with the
 * reason. Blocks on the disk. */
int copy_ssl_open(struct copy_ssl *s, const struct rc *rc, const char *host, bool wanted, struct error *error);

/* After the last stream is closed. A zeroed one is fine. */
void copy_ssl_done(struct copy_ssl *s);
