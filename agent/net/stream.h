/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte stream over a connected socket. Nothing above it knows whether the bytes are plain or encrypted: TLS is
 * another table of operations.
 */
#pragma once
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct stream;

struct stream_ops {
	ssize_t (*read)(struct stream *s, void *to, size_t size);             /* bytes, 0 = end, −EAGAIN, −errno */
	ssize_t (*write)(struct stream *s, const struct iovec *iov, int count); /* bytes, −EAGAIN, −errno */
	void (*close)(struct stream *s);                                      /* releases everything, the socket too */
};

struct stream {
	const struct stream_ops *ops;
	int fd;
	void *state; /* of the operations */
};

/* A plain stream on `fd` (takes). */
struct stream stream_plain(int fd);

static inline ssize_t stream_read(struct stream *s, void *to, size_t size)
{
	return s->ops->read(s, to, size);
}

static inline ssize_t stream_write(struct stream *s, const struct iovec *iov, int count)
{
	return s->ops->write(s, iov, count);
}
