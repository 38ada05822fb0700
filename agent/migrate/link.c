/* SPDX-License-Identifier: Apache-2.0 */
/* See link.h for the states and the bounds. */
#include "migrate/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/magic.h"
#include "migrate/update.h"
#include "net/addr.h"

#define LINK_MAGIC 0x316b0001u
#define OUTPUT_MAGIC 0x316b0002u
#define READ_MIN 4096u /* room that a read is given at least */
#define ROOM_MAX (UPDATE_HEADER_SIZE + UPDATE_MAX + 2u * READ_MIN)
#define BUFFER_KEPT (64u << 10) /* a larger buffer is given back when it is empty */
#define KEEPALIVE_SECONDS 30	/* a service whose node died must not hold its place for ever */

enum link_state { LINK_DIALLING, LINK_OPEN, LINK_DRAINING, LINK_CLOSED };

struct link {
	uint32_t magic;
	enum link_state state;
	struct link_hooks hooks;
	uv_loop_t *loop;
	uv_tcp_t tcp;
	uv_timer_t timer; /* DIALLING: none. OPEN: a message has begun. DRAINING: the end */
	uv_getaddrinfo_t lookup;
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	unsigned users; /* handles that are not closed yet, and a lookup */
	unsigned attempt, frame_ms;
	bool ended, sent; /* the peer will send no more; we have sent all */
	uint64_t born_ns;
	uint8_t *buffer;
	size_t used, room;
	char peer[ADDR_TEXT_MAX];
};

struct output {
	uint32_t magic;
	uv_write_t request;
	uint8_t bytes[];
};

static void link_put(struct link *l)
{
	MAGIC_CHECK(l, LINK_MAGIC);
	if (--l->users > 0)
		return;
	l->magic = 0;
	free(l->buffer);
	free(l);
}

static void on_closed(uv_handle_t *handle)
{
	link_put(handle->data);
}

void link_close(struct link *l, const char *why)
{
	MAGIC_CHECK(l, LINK_MAGIC);
	if (l->state == LINK_CLOSED)
		return;
	l->state = LINK_CLOSED;
	uv_close((uv_handle_t *)&l->tcp, on_closed);
	uv_close((uv_handle_t *)&l->timer, on_closed);
	/* On the thread pool already: then its callback finds the link closed. */
	if (l->lookup.data)
		uv_cancel((uv_req_t *)&l->lookup);
	l->hooks.closed(l->hooks.context, l, why);
}

/* ---- reading */

static void on_late(uv_timer_t *timer)
{
	struct link *l = timer->data;

	MAGIC_CHECK(l, LINK_MAGIC);
	link_close(l, l->state == LINK_DRAINING ? "the answer was not taken"
						: "a message was begun and not completed in time");
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct link *l = handle->data;
	size_t room = l->room ? l->room : READ_MIN;
	uint8_t *larger;

	(void)suggested;
	MAGIC_CHECK(l, LINK_MAGIC);
	/* Ends: what is complete has been taken, so that `used` is below the largest message. */
	while (room - l->used < READ_MIN)
		room = room * 2 < ROOM_MAX ? room * 2 : ROOM_MAX;
	if (room != l->room) {
		larger = realloc(l->buffer, room);
		if (!larger) {
			*buffer = uv_buf_init(NULL, 0);
			return;
		}
		l->buffer = larger;
		l->room = room;
	}
	*buffer = uv_buf_init((char *)l->buffer + l->used, (unsigned)(l->room - l->used));
}

static void take_messages(struct link *l)
{
	size_t at = 0;

	while (l->state == LINK_OPEN) {
		struct span body;
		int n = update_frame(l->buffer + at, l->used - at, &body);

		if (n == UPDATE_INCOMPLETE)
			break;
		if (n == UPDATE_MALFORMED) {
			l->hooks.broken(l->hooks.context, l, "the length of a message is 0 or above 16 MiB");
			break;
		}
		at += (size_t)n;
		l->hooks.message(l->hooks.context, l, body);
	}
	if (l->state != LINK_OPEN) {
		l->used = 0;
		return;
	}
	l->used -= at;
	if (l->used) {
		memmove(l->buffer, l->buffer + at, l->used);
		if (at || !uv_is_active((uv_handle_t *)&l->timer))
			uv_timer_start(&l->timer, on_late, l->frame_ms, 0);
	} else {
		uv_timer_stop(&l->timer);
		if (l->room > BUFFER_KEPT) {
			free(l->buffer);
			l->buffer = NULL;
			l->room = 0;
		}
	}
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct link *l = stream->data;

	(void)buffer;
	MAGIC_CHECK(l, LINK_MAGIC);
	if (n > 0 && l->state == LINK_OPEN) {
		l->used += (size_t)n;
		take_messages(l);
	} else if (n == UV_EOF) {
		l->ended = true;
		uv_read_stop(stream);
		/* It may have closed its sending side only, and still want what is on its way. */
		if (l->sent)
			link_close(l, "ended");
		else
			link_finish(l);
	} else if (n < 0) {
		link_close(l, uv_strerror((int)n));
	}
}

static int link_open(struct link *l)
{
	struct addr peer = {0};
	int size = sizeof(peer.storage);

	uv_tcp_nodelay(&l->tcp, 1);
	uv_tcp_keepalive(&l->tcp, 1, KEEPALIVE_SECONDS);
	if (uv_tcp_getpeername(&l->tcp, &peer.sa, &size) == 0) {
		addr_unmap(&peer);
		addr_format(&peer, l->peer);
	}
	l->state = LINK_OPEN;
	return uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read);
}

/* ---- making */

static struct link *link_new(uv_loop_t *loop, unsigned frame_ms, const struct link_hooks *hooks)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->magic = LINK_MAGIC;
	l->hooks = *hooks;
	l->loop = loop;
	l->frame_ms = frame_ms;
	l->born_ns = clock_now_ns();
	l->users = 2;
	snprintf(l->peer, sizeof(l->peer), "unknown");
	uv_tcp_init(loop, &l->tcp);
	uv_timer_init(loop, &l->timer);
	l->tcp.data = l->timer.data = l;
	return l;
}

/* Its owner has never seen it. */
static int link_discard(struct link *l, int code)
{
	l->state = LINK_CLOSED;
	uv_close((uv_handle_t *)&l->tcp, on_closed);
	uv_close((uv_handle_t *)&l->timer, on_closed);
	return code;
}

int link_accept(uv_stream_t *listener, unsigned frame_ms, const struct link_hooks *hooks, struct link **ret)
{
	struct link *l = link_new(listener->loop, frame_ms, hooks);
	int r;

	if (!l)
		return -ENOMEM;
	r = uv_accept(listener, (uv_stream_t *)&l->tcp);
	if (r == 0)
		r = link_open(l);
	if (r < 0)
		return link_discard(l, r);
	*ret = l;
	return 0;
}

static void on_connected(uv_connect_t *connect, int status)
{
	struct link *l = connect->data;

	MAGIC_CHECK(l, LINK_MAGIC);
	if (l->state == LINK_CLOSED)
		return;
	if (status == 0)
		status = link_open(l);
	if (status < 0)
		link_close(l, uv_strerror(status));
	else if (l->hooks.opened)
		l->hooks.opened(l->hooks.context, l);
}

static int connect_to(struct link *l, const struct sockaddr *to)
{
	l->connect.data = l;
	return uv_tcp_connect(&l->connect, &l->tcp, to, on_connected);
}

static void on_found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *list)
{
	struct link *l = lookup->data;
	unsigned count = 0, pick;
	struct addrinfo *a;

	MAGIC_CHECK(l, LINK_MAGIC);
	lookup->data = NULL;
	if (l->state == LINK_CLOSED)
		goto out;
	for (a = list; a; a = a->ai_next)
		count++;
	if (status < 0 || count == 0) {
		link_close(l, status < 0 ? uv_strerror(status) : "the name has no address");
		goto out;
	}
	pick = l->attempt % count;
	for (a = list; pick; pick--)
		a = a->ai_next;
	status = connect_to(l, a->ai_addr);
	if (status < 0)
		link_close(l, uv_strerror(status));
out:
	uv_freeaddrinfo(list);
	link_put(l);
}

int link_dial(uv_loop_t *loop, const char *host, uint16_t port, unsigned attempt, unsigned frame_ms,
	      const struct link_hooks *hooks, struct link **ret)
{
	struct link *l = link_new(loop, frame_ms, hooks);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	struct addr literal = {0};
	char service[8];
	int r;

	if (!l)
		return -ENOMEM;
	l->attempt = attempt;
	if (uv_ip4_addr(host, port, &literal.in) == 0 || uv_ip6_addr(host, port, &literal.in6) == 0) {
		r = connect_to(l, &literal.sa);
		if (r < 0)
			return link_discard(l, r);
		*ret = l;
		return 0;
	}
	snprintf(service, sizeof(service), "%u", port);
	r = uv_getaddrinfo(loop, &l->lookup, on_found, host, service, &hints);
	if (r < 0)
		return link_discard(l, r);
	l->lookup.data = l;
	l->users++;
	*ret = l;
	return 0;
}

/* ---- writing */

static void on_written(uv_write_t *request, int status)
{
	struct output *o = request->data;
	struct link *l = request->handle->data;

	MAGIC_CHECK(o, OUTPUT_MAGIC);
	MAGIC_CHECK(l, LINK_MAGIC);
	o->magic = 0;
	free(o);
	if (status < 0 && l->state != LINK_CLOSED)
		link_close(l, uv_strerror(status));
}

int link_send(struct link *l, const uint8_t *bytes, size_t size)
{
	struct output *o;
	uv_buf_t buffer;

	MAGIC_CHECK(l, LINK_MAGIC);
	if (l->state != LINK_OPEN)
		return -ENOTCONN;
	if (uv_stream_get_write_queue_size((uv_stream_t *)&l->tcp) + size > LINK_OUTPUT_MAX)
		return -ENOBUFS;
	o = malloc(sizeof(*o) + size);
	if (!o)
		return -ENOMEM;
	o->magic = OUTPUT_MAGIC;
	o->request.data = o;
	memcpy(o->bytes, bytes, size);
	/* Length and JSON in one write: the document's reader takes what one read brings. */
	buffer = uv_buf_init((char *)o->bytes, (unsigned)size);
	if (uv_write(&o->request, (uv_stream_t *)&l->tcp, &buffer, 1, on_written) < 0) {
		free(o);
		return -ENOTCONN;
	}
	return 0;
}

static void on_shutdown(uv_shutdown_t *shutdown, int status)
{
	struct link *l = shutdown->data;

	MAGIC_CHECK(l, LINK_MAGIC);
	if (l->state == LINK_CLOSED)
		return;
	l->sent = true;
	/* Closing while the peer still sends would reset the connection, and the answer with it: wait for its
	 * end. */
	if (status < 0 || l->ended)
		link_close(l, status < 0 ? uv_strerror(status) : "ended");
}

void link_finish(struct link *l)
{
	MAGIC_CHECK(l, LINK_MAGIC);
	if (l->state != LINK_OPEN)
		return;
	l->state = LINK_DRAINING;
	l->used = 0;
	l->shutdown.data = l;
	uv_timer_start(&l->timer, on_late, LINK_DRAIN_MS, 0);
	if (uv_shutdown(&l->shutdown, (uv_stream_t *)&l->tcp, on_shutdown) < 0)
		link_close(l, "ended");
}

bool link_is_open(const struct link *l)
{
	return l->state == LINK_OPEN;
}

const char *link_peer(const struct link *l)
{
	return l->peer;
}

uint64_t link_born_ns(const struct link *l)
{
	return l->born_ns;
}
