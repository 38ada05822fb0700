/* SPDX-License-Identifier: Apache-2.0 */
#include "net/connect.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/stream_tls.h"

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now;

	while ((now = clock_now_ns()) < deadline_ns) {
		int n = poll(&p, 1, (int)((deadline_ns - now) / 1000000u) + 1);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ETIMEDOUT;
}

static int dial(const struct addr *to, uint32_t mark, uint64_t deadline_ns)
{
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, code = 0,
	    rc = 0;
	socklen_t size = sizeof(code);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (mark)
		setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	if (connect(fd, &to->sa, addr_size(to)) < 0)
		rc = errno == EINPROGRESS ? wait_for(fd, POLLOUT, deadline_ns) : -errno;
	if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
		rc = -errno;
	if (rc == 0 && code)
		rc = -code;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int stream_connect(const struct endpoint *to, uint32_t mark, uint64_t deadline_ns, struct stream *ret,
		   struct error *error)
{
	int fd = dial(&to->addr, mark, deadline_ns), rc = 0;
	struct stream tls;

	if (fd < 0)
		return error_set(error, fd, "%s", strerror(-fd));
	if (!to->tls) {
		*ret = stream_plain(fd);
		return 0;
	}
	if (stream_tls_client(fd, to, &tls) < 0) {
		close(fd);
		return error_set(error, -ENOMEM, "out of memory");
	}
	while ((rc = stream_handshake(&tls)) == -EAGAIN)
		if ((rc = wait_for(fd, tls.write_wants_read ? POLLIN : POLLOUT, deadline_ns)) < 0)
			break;
	if (rc == 0) {
		*ret = tls;
		return 0;
	}
	if (rc == -ETIMEDOUT)
		error_set(error, rc, "the TLS handshake did not end in time; does it speak TLS there?");
	else
		error_set(error, rc, "%s", stream_reason(&tls) ? stream_reason(&tls) : strerror(-rc));
	stream_close(&tls);
	return rc;
}

int stream_send_all(struct stream *s, const void *data, size_t size, uint64_t deadline_ns)
{
	const uint8_t *at = data;
	int rc;

	while (size > 0) {
		struct iovec iov = {(void *)at, size};
		ssize_t n = stream_write(s, &iov, 1);

		if (n >= 0) {
			at += n;
			size -= (size_t)n;
			continue;
		}
		rc = n == -EAGAIN ? wait_for(s->fd, s->write_wants_read ? POLLIN : POLLOUT, deadline_ns)
				  : (int)n;
		if (rc < 0)
			return rc;
	}
	return 0;
}

ssize_t stream_receive(struct stream *s, void *to, size_t size, uint64_t deadline_ns)
{
	ssize_t n;
	int rc;

	while ((n = stream_read(s, to, size)) == -EAGAIN)
		if ((rc = wait_for(s->fd, s->read_wants_write ? POLLOUT : POLLIN, deadline_ns)) < 0)
			return rc;
	return n;
}
