// SPDX-License-Identifier: Apache-2.0
/* The HTTP page: see http.h. Everything is answered from memory in one go; bodies of requests are read and
 * forgotten. */
#include "control/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/magic.h"
#include "base/metrics.h"

#define HTTP_MAGIC 0x88770001u

struct http {
	uint32_t magic;
	struct MHD_Daemon *daemon;
	struct http_options options;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
			      char *text, size_t size)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result rc;

	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", type);
	MHD_add_response_header(r, "Cache-Control", "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, "Allow", "GET, HEAD");
	rc = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return rc;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
	char *copy = strdup(text);

	return copy ? answer(connection, status, "text/plain; charset=utf-8", copy, strlen(copy)) : MHD_NO;
}

static enum MHD_Result answer_check(struct MHD_Connection *connection, http_check check, void *context)
{
	json_t *body = json_object();
	bool ok = check ? check(body, context) : true;
	char *text;

	json_object_set_new(body, "ok", json_boolean(ok));
	text = json_dumps(body, JSON_COMPACT);
	json_decref(body);
	if (!text)
		return MHD_NO;
	return answer(connection, ok ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "application/json", text,
		      strlen(text));
}

static int render_metrics(const struct http_options *o, char **ret_text, size_t *ret_size)
{
	char *text, *all = NULL;
	size_t size, all_size = 0;
	FILE *out;

	if (metrics_render(&text, &size) < 0)
		return -ENOMEM;
	*ret_text = text;
	*ret_size = size;
	if (!o->metrics)
		return 0;
	out = open_memstream(&all, &all_size);
	if (!out) {
		free(text);
		return -ENOMEM;
	}
	fwrite(text, 1, size, out);
	free(text);
	o->metrics(out, o->context);
	if (fclose(out) != 0) {
		free(all);
		return -ENOMEM;
	}
	*ret_text = all;
	*ret_size = all_size;
	return 0;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **state)
{
	static char seen;
	struct http *h = context;
	size_t size;
	char *text;

	(void)version;
	(void)upload;
	MAGIC_CHECK(h, HTTP_MAGIC);
	if (!*state) { /* headers only so far: an answer now would make MHD close a connection that could be
			  kept */
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_size) {
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (!strcmp(url, "/metrics")) {
		if (render_metrics(&h->options, &text, &size) < 0)
			return answer_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
		return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text,
			      size);
	}
	if (!strcmp(url, "/healthz"))
		return answer_check(connection, h->options.health, h->options.context);
	if (!strcmp(url, "/readyz"))
		return answer_check(connection, h->options.ready, h->options.context);
	return answer_text(connection, MHD_HTTP_NOT_FOUND, "here are /metrics, /healthz and /readyz\n");
}

static void on_timer(uv_timer_t *timer);

static void http_turn(struct http *h)
{
	MHD_UNSIGNED_LONG_LONG millis = 0;

	MHD_run(h->daemon);
	if (MHD_get_timeout(h->daemon, &millis) == MHD_YES)
		uv_timer_start(&h->timer, on_timer, millis ? millis : 1,
			       0); /* 0 would fire again within this turn, for ever */
	else
		uv_timer_stop(&h->timer);
}

static void on_timer(uv_timer_t *timer)
{
	MAGIC_CHECK((struct http *)timer->data, HTTP_MAGIC);
	http_turn(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	MAGIC_CHECK((struct http *)poll->data, HTTP_MAGIC);
	http_turn(poll->data);
}

/* Why the daemon did not start is lost in the library; binding once more by hand tells. */
static int explain(const struct http_options *o, const struct sockaddr *address, socklen_t size,
		   struct error *error)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), code, on = 1;

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	code = fd < 0 || bind(fd, address, size) < 0 || listen(fd, 1) < 0 ? errno : EIO;
	if (fd >= 0)
		close(fd);
	return error_set(error, -code, "cannot serve http.address %s port %u: %s%s", o->address, o->port,
			 strerror(code),
			 code == EADDRINUSE ? "; set http.port to a free one, or to 0 for none" : "");
}

int http_start(uv_loop_t *loop, const struct http_options *options, struct http **ret_http,
	       struct error *error)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(options->port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(options->port)};
	bool v6 = inet_pton(AF_INET6, options->address, &in6.sin6_addr) == 1;
	const struct sockaddr *address = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
	unsigned flags = MHD_USE_EPOLL | (v6 ? MHD_USE_IPv6 : 0);
	const union MHD_DaemonInfo *info;
	struct http *h;
	int rc;

	if (!v6 && inet_pton(AF_INET, options->address, &in.sin_addr) != 1)
		return error_set(error, -EINVAL, "http.address '%s' is not an IP address", options->address);
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_set(error, -ENOMEM, "out of memory");
	h->magic = HTTP_MAGIC;
	h->options = *options;
	/* Not MHD_OPTION_LISTENING_ADDRESS_REUSE: it means SO_REUSEPORT, and two agents would share the port
	 * unnoticed. */
	h->daemon =
	    MHD_start_daemon(flags, options->port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, address,
			     MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
			     MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_SECONDS,
			     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_REQUEST_MAX, MHD_OPTION_END);
	if (!h->daemon) {
		free(h);
		return explain(options, address, v6 ? sizeof(in6) : sizeof(in), error);
	}
	info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	rc = info ? uv_poll_init(loop, &h->poll, info->epoll_fd) : -EIO;
	if (rc < 0) {
		MHD_stop_daemon(h->daemon);
		free(h);
		return error_set(error, rc, "cannot serve http.address: %s", uv_strerror(rc));
	}
	uv_timer_init(loop, &h->timer);
	h->poll.data = h->timer.data = h;
	h->handles = 2;
	uv_poll_start(&h->poll, UV_READABLE, on_poll);
	*ret_http = h;
	return 0;
}

uint16_t http_port(const struct http *h)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);

	return info ? info->port : 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct http *h = handle->data;

	MAGIC_CHECK(h, HTTP_MAGIC);
	if (--h->handles > 0)
		return;
	h->magic = 0;
	free(h);
}

void http_stop(struct http *h)
{
	if (!h)
		return;
	MAGIC_CHECK(h, HTTP_MAGIC);
	/* The poll handle goes first: libuv must not watch a descriptor that the library has closed. */
	uv_poll_stop(&h->poll);
	uv_close((uv_handle_t *)&h->poll, on_closed);
	uv_close((uv_handle_t *)&h->timer, on_closed);
	MHD_stop_daemon(h->daemon);
	h->daemon = NULL;
}
