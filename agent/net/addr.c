/* SPDX-License-Identifier: Apache-2.0 */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

void addr_set_port(struct addr *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET6)
		a->in6.sin6_port = htons(port);
	else
		a->in.sin_port = htons(port);
}

const char *addr_format(const struct addr *a, char *text)
{
	char ip[INET6_ADDRSTRLEN] = "?";

	if (a->sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof(ip));
		snprintf(text, ADDR_TEXT_MAX, "[%s]:%u", ip, addr_port(a));
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, ip, sizeof(ip));
		snprintf(text, ADDR_TEXT_MAX, "%s:%u", ip, addr_port(a));
	}
	return text;
}

/* Splits host and port; a bare IPv6 address has several colons and no port. */
static int split(const char *text, uint16_t default_port, char *host, size_t size, uint16_t *port)
{
	const char *end = text + strlen(text), *colon = strrchr(text, ':'), *close = NULL;
	const char *begin = text;

	*port = default_port;
	if (*text == '[') {
		begin++;
		close = strchr(text, ']');
		if (!close)
			return -EINVAL;
		colon = close[1] == ':' ? close + 1 : NULL;
		if (close[1] && !colon)
			return -EINVAL;
		end = close;
	} else if (colon && strchr(text, ':') == colon) {
		end = colon;
	} else {
		colon = NULL;
	}
	if (colon) {
		char *rest;
		unsigned long n = strtoul(colon + 1, &rest, 10);

		if (!colon[1] || *rest || n == 0 || n > 65535)
			return -EINVAL;
		*port = (uint16_t)n;
	}
	if (end == begin || (size_t)(end - begin) >= size)
		return -EINVAL;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = 0;
	return 0;
}

int addr_resolve(const char *text, uint16_t default_port, struct addr *ret, struct error *error)
{
	int r = addr_resolve_all(text, default_port, ret, 1, error);

	return r < 0 ? r : 0;
}

int addr_resolve_all(const char *text, uint16_t default_port, struct addr *ret, unsigned max, struct error *error)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
	char host[256];
	uint16_t port;
	int count = 0;

	if (split(text, default_port, host, sizeof(host), &port) < 0)
		return error_set(error, -EINVAL, "\"%s\" is not an address; write host, host:port or [ipv6]:port", text);
	int r = getaddrinfo(host, NULL, &hints, &list);
	if (r != 0)
		return error_set(error, -EHOSTUNREACH, "cannot look up \"%s\": %s", host, gai_strerror(r));
	for (const struct addrinfo *one = list; one; one = one->ai_next, count++) {
		struct addr *to;

		if ((unsigned)count >= max)
			continue;
		to = &ret[count];
		memset(to, 0, sizeof(*to));
		memcpy(&to->storage, one->ai_addr, one->ai_addrlen);
		addr_set_port(to, port);
	}
	freeaddrinfo(list);
	return count;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family || addr_port(a) != addr_port(b))
		return false;
	if (a->sa.sa_family == AF_INET6)
		return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
	return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

void addr_unmap(struct addr *a)
{
	struct in_addr ip;
	uint16_t port;

	if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return;
	memcpy(&ip, &a->in6.sin6_addr.s6_addr[12], 4);
	port = a->in6.sin6_port;
	memset(a, 0, sizeof(*a));
	a->in.sin_family = AF_INET;
	a->in.sin_addr = ip;
	a->in.sin_port = port;
}
