/* SPDX-License-Identifier: Apache-2.0 */
#include "net/stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t plain_read(struct stream *s, void *to, size_t size)
{
	ssize_t n;

	do
		n = recv(s->fd, to, size, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	s->taken += (uint64_t)n;
	return n;
}

static ssize_t plain_write(struct stream *s, const struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
	ssize_t n;

	do
		n = count == 1 ? send(s->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
			       : sendmsg(s->fd, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int plain_end(struct stream *s)
{
	shutdown(s->fd, SHUT_WR);
	return 0;
}

static void plain_close(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static const struct stream_ops plain_ops = {.read = plain_read, .write = plain_write, .end = plain_end, .close = plain_close};

struct stream stream_plain(int fd)
{
	return (struct stream){.ops = &plain_ops, .fd = fd};
}
