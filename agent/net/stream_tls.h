/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS as a stream.
 *
 *   write: iov ─▶ pieces of up to 16 KiB ─▶ record ─▶ socket
 *   read:  socket ─▶ OpenSSL's buffer (many records at once) ─▶ where the caller wants it
 *
 * Small pieces are gathered before they are encrypted, large ones are encrypted where they are.
 *
 * Renegotiation is off, so that writing never depends on the peer's bytes once the handshake is over; with
 * TLS 1.3 a key update may make a read wait for the socket to take an answer. An end without close_notify
 * counts as an end: CQL says itself where its frames end.
 */
#pragma once
#include <stdbool.h>
#include <time.h>

#include "net/endpoint.h"
#include "net/stream.h"
#include "net/tls_context.h"

/* As a client on a connected socket (takes fd on success; endpoint borrowed). Nothing is sent yet. 0 or
 * −ENOMEM. */
int stream_tls_client(int fd, const struct endpoint *to, struct stream *ret);

/* As a server on an accepted socket (takes fd on success). 0 or −ENOMEM. */
int stream_tls_server(int fd, struct tls_context *context, struct stream *ret);

bool stream_is_tls(const struct stream *s);

/* After the handshake. */
struct stream_tls_peer {
	const char *version; /* "TLSv1.3"; static */
	bool resumed;
	time_t not_after; /* of the peer's certificate; 0 = it showed none */
	char subject[ENDPOINT_NAME];
};
void stream_tls_peer(const struct stream *s, struct stream_tls_peer *ret);

/* A connection's first byte says whether it is TLS: a handshake record. CQL begins with a version, which is
 * never 22. */
static inline bool stream_looks_like_tls(unsigned char first)
{
	return first == 0x16;
}
