/* SPDX-License-Identifier: Apache-2.0 */
#include "net/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/magic.h"

#define CONN_MAGIC 0xC0111EC7u
#define CHUNK_MIN (16u << 10)

struct chunk {
	struct chunk *next;
	size_t at, end, capacity;
	uint8_t data[];
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void on_idle(uv_idle_t *idle);

/* Bytes that the stream holds are no event of the socket: the loop is asked to come back at once. */
static void update_events(struct conn *c)
{
	int events = 0;

	if (c->closing)
		return;
	if (c->reading)
		events |= c->stream.read_wants_write ? UV_WRITABLE : UV_READABLE;
	if (c->reading && c->stream.pending)
		uv_idle_start(&c->idle, on_idle);
	else
		uv_idle_stop(&c->idle);
	if (c->writing)
		events |= c->stream.write_wants_read ? UV_READABLE : UV_WRITABLE;
	if (events == c->events)
		return; /* libuv would take the socket out of its set and put it back */
	c->events = events;
	if (events)
		uv_poll_start(&c->poll, events, on_poll);
	else
		uv_poll_stop(&c->poll);
}

static void drop_queue(struct conn *c)
{
	while (c->head) {
		struct chunk *next = c->head->next;

		free(c->head);
		c->head = next;
	}
	c->tail = NULL;
	c->queued = 0;
}

static void fail(struct conn *c, int error)
{
	if (c->finishing)
		conn_close(c);
	else
		c->ops->failed(c, error);
}

/* Nothing is queued any more. */
static void end_stream(struct conn *c)
{
	c->writing = stream_end(&c->stream) == -EAGAIN;
	update_events(c);
}

static void flush(struct conn *c)
{
	while (c->head && !c->corked) {
		struct iovec iov[16];
		int count = 0;

		for (struct chunk *k = c->head; k && count < 16; k = k->next)
			iov[count++] = (struct iovec){k->data + k->at, k->end - k->at};
		ssize_t n = stream_write(&c->stream, iov, count);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			c->broken = true;
			c->error = (int)n;
			drop_queue(c);
			c->writing = false;
			update_events(c);
			fail(c, c->error);
			return;
		}
		c->queued -= (size_t)n;
		while (n > 0) {
			struct chunk *k = c->head;
			size_t part = k->end - k->at < (size_t)n ? k->end - k->at : (size_t)n;

			k->at += part;
			n -= (ssize_t)part;
			if (k->at == k->end) {
				c->head = k->next;
				if (!c->head)
					c->tail = NULL;
				free(k);
			}
		}
	}
	if (!c->head || c->corked)
		c->writing = false;
	update_events(c);
	if (c->finishing) {
		if (!c->head)
			end_stream(c);
		return;
	}
	if (c->congested && c->queued <= CONN_LOW) {
		c->congested = false;
		c->ops->drained(c);
	}
}

static void give(struct conn *c)
{
	c->ops->readable(c);
	update_events(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct conn *c = poll->data;

	MAGIC_CHECK(c, CONN_MAGIC);
	if (c->closing)
		return;
	if (status < 0) {
		int error = 0;
		socklen_t size = sizeof(error);

		/* libuv folds every error event into EBADF; the socket knows better. */
		if (getsockopt(c->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error)
			status = -error;
		c->broken = true;
		fail(c, status);
		return;
	}
	if (c->broken) {
		/* A send failed while the owner was busy; tell it now. */
		fail(c, c->error);
		return;
	}
	if (c->writing && (events & (c->stream.write_wants_read ? UV_READABLE : UV_WRITABLE)))
		flush(c);
	if (c->finishing && !c->closing) {
		if (!conn_discard_input(c))
			conn_close(c);
		update_events(c);
		return;
	}
	if (c->reading && !c->closing && (events & (c->stream.read_wants_write ? UV_WRITABLE : UV_READABLE)))
		give(c);
}

static void on_idle(uv_idle_t *idle)
{
	struct conn *c = idle->data;

	MAGIC_CHECK(c, CONN_MAGIC);
	if (c->closing)
		return;
	if (!c->finishing)
		give(c);
	else if (!conn_discard_input(c))
		conn_close(c);
	else
		update_events(c);
}

int conn_init(struct conn *c, uv_loop_t *loop, struct stream stream, const struct conn_ops *ops, void *owner)
{
	memset(c, 0, sizeof(*c));
	c->stream = stream;
	c->ops = ops;
	c->owner = owner;
	int r = uv_poll_init(loop, &c->poll, stream.fd);
	if (r < 0)
		return r;
	c->magic = CONN_MAGIC;
	uv_idle_init(loop, &c->idle);
	c->poll.data = c->idle.data = c;
	c->handles = 2;
	return 0;
}

void conn_read(struct conn *c, bool on)
{
	if (c->reading == on || c->finishing)
		return;
	c->reading = on;
	update_events(c);
}

static int queue_bytes(struct conn *c, const uint8_t *data, size_t size)
{
	while (size > 0) {
		struct chunk *k = c->tail;

		if (!k || k->end == k->capacity) {
			size_t capacity = size > CHUNK_MIN ? size : CHUNK_MIN;

			k = malloc(sizeof(*k) + capacity);
			if (!k)
				return -ENOMEM;
			*k = (struct chunk){.capacity = capacity};
			if (c->tail)
				c->tail->next = k;
			else
				c->head = k;
			c->tail = k;
		}
		size_t part = k->capacity - k->end < size ? k->capacity - k->end : size;
		memcpy(k->data + k->end, data, part);
		k->end += part;
		c->queued += part;
		data += part;
		size -= part;
	}
	return 0;
}

int conn_send(struct conn *c, const struct iovec *iov, int count)
{
	size_t skip = 0;

	if (c->broken || c->finishing || c->closing)
		return c->error ? c->error : -EPIPE;
	if (!c->head && !c->corked) {
		ssize_t n = stream_write(&c->stream, iov, count);

		if (n < 0 && n != -EAGAIN) {
			c->broken = true;
			c->error = (int)n;
			/* The loop reports it: a caller in the middle of its work must not lose its session. */
			c->writing = true;
			update_events(c);
			return c->error;
		}
		skip = n > 0 ? (size_t)n : 0;
	}
	for (int i = 0; i < count; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		if (queue_bytes(c, (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip) < 0) {
			c->broken = true;
			c->error = -ENOMEM;
			c->writing = true;
			update_events(c);
			return -ENOMEM;
		}
		skip = 0;
	}
	if (c->head && !c->corked)
		c->writing = true;
	update_events(c);
	if (c->queued > CONN_HIGH)
		c->congested = true;
	return 0;
}

void conn_cork(struct conn *c)
{
	c->corked = true;
}

void conn_uncork(struct conn *c)
{
	c->corked = false;
	if (!c->head || c->broken || c->closing)
		return;
	c->writing = true;
	flush(c);
}

void conn_replace(struct conn *c, struct stream stream)
{
	c->stream = stream;
	update_events(c);
}

bool conn_discard_input(struct conn *c)
{
	uint8_t sink[16 << 10];
	ssize_t n = -EAGAIN;

	for (int i = 0; i < 64 && !c->closing && (n = conn_recv(c, sink, sizeof(sink))) > 0; i++)
		;
	return n > 0 || n == -EAGAIN;
}

static void on_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;

	MAGIC_CHECK(c, CONN_MAGIC);
	if (--c->handles)
		return;
	c->magic = 0;
	c->ops->closed(c);
}

void conn_finish(struct conn *c)
{
	if (c->closing || c->finishing)
		return;
	if (c->broken || !conn_discard_input(c)) {
		conn_close(c);
		return;
	}
	c->finishing = c->reading = true;
	if (!c->head)
		end_stream(c);
	update_events(c);
}

void conn_close(struct conn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	c->reading = c->writing = false;
	uv_close((uv_handle_t *)&c->poll, on_closed);
	uv_close((uv_handle_t *)&c->idle, on_closed);
	/* libuv has taken the descriptor out of its set by now. */
	stream_close(&c->stream);
	drop_queue(c);
}
