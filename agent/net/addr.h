/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses: IPv4 and IPv6 in one value, written and read as people write them. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/error.h"

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_storage storage;
	};
};

#define ADDR_TEXT_MAX 64 /* "[v6]:65535" and its NUL */

static inline socklen_t addr_size(const struct addr *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}

static inline uint16_t addr_port(const struct addr *a)
{
	return ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in.sin_port);
}

void addr_set_port(struct addr *a, uint16_t port);

/* "10.0.3.7:9042" or "[fd00::7]:9042" into `text`, which has ADDR_TEXT_MAX bytes. Returns text. */
const char *addr_format(const struct addr *a, char *text);

/*
 * "10.0.3.7", "10.0.3.7:9042", "fd00::7", "[fd00::7]:9042", "db.example:9042" → address; names are looked up, which may
 * block for seconds: never call it with a name on a worker thread. 0, or −EINVAL / −EHOSTUNREACH with the reason in `error`.
 */
int addr_resolve(const char *text, uint16_t default_port, struct addr *ret, struct error *error);

/* All addresses that the name has, in the order in which to try them (RFC 6724). Their number, of which the first `max` are in `ret`; or
 * as above. */
int addr_resolve_all(const char *text, uint16_t default_port, struct addr *ret, unsigned max, struct error *error);

bool addr_equal(const struct addr *a, const struct addr *b);

/* An IPv4-mapped IPv6 address becomes the IPv4 address that it means. */
void addr_unmap(struct addr *a);
