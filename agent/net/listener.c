/* SPDX-License-Identifier: Apache-2.0 */
#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

int listener_open(struct addr *a, struct error *error)
{
	char text[ADDR_TEXT_MAX];
	socklen_t size = sizeof(a->storage);
	int on = 1, r;

	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	/* Inherited by accepted sockets. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, &a->sa, addr_size(a)) < 0 || listen(fd, 4096) < 0) {
		r = error_set(error, -errno,
			      "cannot listen on %s: %s. Choose another address in listen.*, or stop what uses it",
			      addr_format(a, text), strerror(errno));
		close(fd);
		return r;
	}
	getsockname(fd, &a->sa, &size);
	return fd;
}

int listener_accept(int listener, struct addr *ret_peer)
{
	socklen_t size = sizeof(ret_peer->storage);
	int fd;

	memset(ret_peer, 0, sizeof(*ret_peer));
	do
		fd = accept4(listener, &ret_peer->sa, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	return fd < 0 ? -errno : fd;
}
