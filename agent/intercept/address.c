/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses as the agent has them, and endpoints as the maps have them. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "intercept/priv.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int endpoint_from_sockaddr(struct endpoint *ret_endpoint, const struct sockaddr *address)
{
	struct endpoint e;

	memset(&e, 0, sizeof(e));
	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)address;

		e.ip = 4;
		e.port = ntohs(in->sin_port);
		memcpy(e.address, &in->sin_addr, 4);
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)address;

		e.port = ntohs(in->sin6_port);
		if (!memcmp(in->sin6_addr.s6_addr, mapped_prefix, sizeof(mapped_prefix))) {
			e.ip = 4;
			memcpy(e.address, in->sin6_addr.s6_addr + 12, 4);
		} else {
			e.ip = 6;
			memcpy(e.address, &in->sin6_addr, 16);
		}
	} else {
		return -EAFNOSUPPORT;
	}
	*ret_endpoint = e;
	return 0;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint, struct sockaddr_storage *ret_address)
{
	memset(ret_address, 0, sizeof(*ret_address));
	if (endpoint->ip == 4) {
		struct sockaddr_in *in = (void *)ret_address;

		in->sin_family = AF_INET;
		in->sin_port = htons(endpoint->port);
		memcpy(&in->sin_addr, endpoint->address, 4);
		return sizeof(*in);
	}
	if (endpoint->ip == 6) {
		struct sockaddr_in6 *in = (void *)ret_address;

		in->sin6_family = AF_INET6;
		in->sin6_port = htons(endpoint->port);
		memcpy(&in->sin6_addr, endpoint->address, 16);
		return sizeof(*in);
	}
	ret_address->ss_family = AF_UNSPEC;
	return 0;
}

const char *endpoint_text(const struct endpoint *endpoint, char text[ENDPOINT_TEXT])
{
	char address[INET6_ADDRSTRLEN] = "?";

	inet_ntop(endpoint->ip == 6 ? AF_INET6 : AF_INET, endpoint->address, address, sizeof(address));
	snprintf(text, ENDPOINT_TEXT, endpoint->ip == 6 ? "[%s]:%u" : "%s:%u", address, endpoint->port);
	return text;
}
