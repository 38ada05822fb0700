/* SPDX-License-Identifier: Apache-2.0 */
#include "net/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/magic.h"

#define DIAL_MAGIC 0xD1A1D1A1u

struct dial {
	uint32_t magic;
	uv_poll_t poll;
	uv_timer_t timer;
	int fd, result, handles;
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

/* Ends the attempt; the descriptor goes to the caller or is closed. */
static void finish(struct dial *d, int result)
{
	dial_done done = d->done;

	d->done = NULL;
	uv_close((uv_handle_t *)&d->poll, on_closed);
	uv_close((uv_handle_t *)&d->timer, on_closed);
	if (result < 0 && d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	if (done)
		done(d->context, result);
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
	struct dial *d = poll->data;
	socklen_t size = sizeof(int);
	int error = 0;

	(void)events;
	MAGIC_CHECK(d, DIAL_MAGIC);
	/* libuv folds every error event into EBADF; the socket knows better. */
	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (!error && status < 0)
		error = -status;
	finish(d, error ? -error : d->fd);
}

static void on_timeout(uv_timer_t *timer)
{
	struct dial *d = timer->data;

	MAGIC_CHECK(d, DIAL_MAGIC);
	finish(d, d->result < 0 ? d->result : -ETIMEDOUT);
}

struct dial *dial_start(uv_loop_t *loop, const struct addr *to, uint32_t mark, unsigned timeout_ms, dial_done done,
			void *context)
{
	struct dial *d = calloc(1, sizeof(*d));
	int on = 1;

	if (!d)
		return NULL;
	d->fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd < 0) {
		free(d);
		return NULL;
	}
	setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(d->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (mark)
		setsockopt(d->fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	if (connect(d->fd, &to->sa, addr_size(to)) < 0 && errno != EINPROGRESS)
		d->result = -errno;
	if (uv_poll_init(loop, &d->poll, d->fd) < 0) {
		close(d->fd);
		free(d);
		return NULL;
	}
	uv_timer_init(loop, &d->timer);
	d->magic = DIAL_MAGIC;
	d->handles = 2;
	d->poll.data = d->timer.data = d;
	d->done = done;
	d->context = context;
	if (d->result < 0) /* refused at once: still told from the loop */
		uv_timer_start(&d->timer, on_timeout, 0, 0);
	else {
		uv_poll_start(&d->poll, UV_WRITABLE, on_writable);
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
	d->done = NULL;
	finish(d, -ECANCELED);
}
