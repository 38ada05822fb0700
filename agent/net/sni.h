/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes of a cluster behind an SNI proxy: one address for all of them, and for each a host id that TLS
 * asks for.
 *
 *   bundle ─▶ metadata service ─▶ proxy address, host ids ─▶ endpoint(i)
 *                └─ kept in a file: when the service does not answer at a start, what it said last will do
 *
 * Nodes come and go: sni_refresh() asks again. Node i is host id i modulo their number, so that whoever holds
 * an index may keep it.
 */
#pragma once
#include "net/bundle.h"
#include "net/endpoint.h"

struct sni;

/* Strings are borrowed for the life of the sni. */
struct sni_settings {
	const char *bundle_file;
	const char *cache_file; /* "" or NULL = nothing is kept */
	bool any_name;
	const uint32_t *mark;	 /* borrowed: it is known only after the start; NULL = none */
	struct tls_context *tls; /* of the same bundle; shares */
};

/*
 * Asks the metadata service; when that fails, takes what was kept, with the reason in `stale` (text ""
 * otherwise). Blocks for some 10 s at most. 0, or −errno with the reason.
 */
int sni_new(const struct sni_settings *settings, struct sni **ret, struct error *stale, struct error *error);
void sni_free(struct sni *s);

/* Reads bundle, service and DNS again. 0, 1 = something is different now, −errno = nothing was changed. One
 * thread at a time; blocks. */
int sni_refresh(struct sni *s, struct error *error);

unsigned sni_count(struct sni *s);
/* Any thread; takes a short lock. Proxies with several addresses are used in turn. */
void sni_endpoint(struct sni *s, unsigned node, struct endpoint *ret);
