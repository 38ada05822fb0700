/* SPDX-License-Identifier: Apache-2.0 */
#include "net/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/magic.h"
#include "net/stream_tls.h"

#define DIAL_MAGIC 0xD1A1D1A1u

/* TCP ─▶ [TLS handshake] ─▶ done; or a time limit for both together. */
struct dial {
	uint32_t magic;
	uv_poll_t poll;
	uv_timer_t timer;
	int result, handles;
	bool connected;
	struct stream stream;
	struct endpoint to;
	dial_done done;
	void *context;
};

static void on_closed(uv_handle_t *handle)
{
	struct dial *d = handle->data;

	MAGIC_CHECK(d, DIAL_MAGIC);
	if (--d->handles == 0) {
		d->magic = 0;
		free(d);
	}
}

/* Ends the attempt; the stream goes to the caller or is closed. */
static void finish(struct dial *d, int error)
{
	struct dial_result result = {.error = error, .stream = d->stream};
	dial_done done = d->done;

	d->done = NULL;
	uv_close((uv_handle_t *)&d->poll, on_closed);
	uv_close((uv_handle_t *)&d->timer, on_closed);
	if (error == -ETIMEDOUT && d->connected)
		result.reason = "the TLS handshake did not end in time; does it speak TLS there?";
	else if (error < 0)
		result.reason = stream_reason(&d->stream) ? stream_reason(&d->stream) : strerror(-error);
	if (error == 0)
		d->stream = stream_plain(-1); /* it is the caller's now */
	else
		result.stream = stream_plain(-1);
	if (done)
		done(d->context, &result);
	stream_close(&d->stream);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void shake(struct dial *d)
{
	int r = stream_handshake(&d->stream);

	if (r == -EAGAIN)
		uv_poll_start(&d->poll, d->stream.write_wants_read ? UV_READABLE : UV_WRITABLE, on_ready);
	else
		finish(d, r);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct dial *d = poll->data;
	socklen_t size = sizeof(int);
	int error = 0;

	(void)events;
	MAGIC_CHECK(d, DIAL_MAGIC);
	/* libuv folds every error event into EBADF; the socket knows better. */
	if (getsockopt(d->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (!error && status < 0)
		error = -status;
	if (error) {
		finish(d, -error);
		return;
	}
	if (!d->connected && d->to.tls) {
		struct stream tls;

		if (stream_tls_client(d->stream.fd, &d->to, &tls) < 0) {
			finish(d, -ENOMEM);
			return;
		}
		d->stream = tls;
	}
	d->connected = true;
	shake(d);
}

static void on_timeout(uv_timer_t *timer)
{
	struct dial *d = timer->data;

	MAGIC_CHECK(d, DIAL_MAGIC);
	finish(d, d->result < 0 ? d->result : -ETIMEDOUT);
}

struct dial *dial_start(uv_loop_t *loop, const struct endpoint *to, uint32_t mark, unsigned timeout_ms, dial_done done,
			void *context)
{
	struct dial *d = calloc(1, sizeof(*d));
	int on = 1, fd;

	if (!d)
		return NULL;
	fd = socket(to->addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		free(d);
		return NULL;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (mark)
		setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	if (connect(fd, &to->addr.sa, addr_size(&to->addr)) < 0 && errno != EINPROGRESS)
		d->result = -errno;
	if (uv_poll_init(loop, &d->poll, fd) < 0) {
		close(fd);
		free(d);
		return NULL;
	}
	uv_timer_init(loop, &d->timer);
	d->magic = DIAL_MAGIC;
	d->handles = 2;
	d->stream = stream_plain(fd);
	d->to = *to;
	d->poll.data = d->timer.data = d;
	d->done = done;
	d->context = context;
	if (d->result < 0) /* refused at once: still told from the loop */
		uv_timer_start(&d->timer, on_timeout, 0, 0);
	else {
		uv_poll_start(&d->poll, UV_WRITABLE, on_ready);
		uv_timer_start(&d->timer, on_timeout, timeout_ms, 0);
	}
	return d;
}

void dial_cancel(struct dial *d)
{
	if (!d)
		return;
	MAGIC_CHECK(d, DIAL_MAGIC);
	if (!d->done)
		return;
	d->done = NULL; /* nobody is told */
	finish(d, -ECANCELED);
}
