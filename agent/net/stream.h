/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte stream over a connected, non-blocking socket. Nothing above it knows whether the bytes are plain or encrypted:
 * TLS is another table of operations (stream_tls.h).
 *
 * An encrypted stream may want the socket to be readable before it can write, and the other way round; and it may hold bytes
 * that poll(2) knows nothing of. It says so in the flags, which are true as of the last operation.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct stream;

struct stream_ops {
	ssize_t (*read)(struct stream *s, void *to, size_t size); /* bytes, 0 = end, −EAGAIN, −errno */
	/* bytes, −EAGAIN, −errno. What was not taken has to be offered again, the same bytes first and no fewer of them. */
	ssize_t (*write)(struct stream *s, const struct iovec *iov, int count);
	int (*end)(struct stream *s);            /* nothing more will be written, and the peer is told: 0, −EAGAIN = call again */
	void (*close)(struct stream *s);         /* releases everything, the socket too */
	int (*handshake)(struct stream *s);      /* NULL = none. 0 = done, −EAGAIN, −errno; read and write do it as well */
	const char *(*reason)(const struct stream *s); /* why it failed, for a person; NULL = errno says all there is */
};

struct stream {
	const struct stream_ops *ops;
	int fd;
	bool pending;           /* a read would give bytes now, whatever poll(2) says */
	bool read_wants_write;  /* −EAGAIN of read: the socket has to be writable first */
	bool write_wants_read;  /* −EAGAIN of write, end or handshake: the socket has to be readable first */
	uint64_t taken;         /* bytes taken out of the socket so far */
	void *state;            /* of the operations */
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

static inline int stream_end(struct stream *s)
{
	return s->ops->end(s);
}

static inline void stream_close(struct stream *s)
{
	s->ops->close(s);
}

static inline int stream_handshake(struct stream *s)
{
	return s->ops->handshake ? s->ops->handshake(s) : 0;
}

/* Borrowed until the stream is closed. NULL: there is no more to say than errno does. */
static inline const char *stream_reason(const struct stream *s)
{
	return s->ops->reason ? s->ops->reason(s) : NULL;
}
