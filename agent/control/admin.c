// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's side of the admin socket: see admin.h for the protocol.
 *
 *   connection:  READING ──line──▶ BUSY (a reply is out with a handler)
 *                   ▲──────── final line ────────┘      … ──▶ closed
 *
 * Ownership: `admin` lives until it is stopped and no connection or handle is left (`users`). A connection
 * owns its buffers; a reply belongs to the handler that has it and points to its connection until that closes
 * (then the pointer is NULL and whatever the handler still says goes nowhere). Input is not read while BUSY:
 * a client cannot queue work up.
 */
#include "control/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/magic.h"
#include "control/admin_lock.h"
#include "control/nearest.h"

#define ADMIN_MAGIC 0xad310001u
#define CONNECTION_MAGIC 0xad310002u
#define REPLY_MAGIC 0xad310003u
#define WRITE_MAGIC 0xad310004u

struct connection {
	uint32_t magic;
	struct admin *admin;
	struct connection *next, **link;
	uv_pipe_t pipe;
	uv_timer_t timer;
	unsigned handles;	   /* of pipe and timer, those not closed yet */
	struct admin_reply *reply; /* BUSY */
	bool closing, ended;	   /* ended: the client will send no more */
	bool handling; /* inside a handler: what it answers must not start the next line below it */
	bool last;     /* close as soon as all output is written */
	size_t used;
	char peer[48];
	char line[ADMIN_LINE_MAX];
};

struct admin_reply {
	uint32_t magic;
	struct connection *connection; /* NULL: gone */
	char peer[48];
};

struct output {
	uint32_t magic;
	uv_write_t request;
	char text[];
};

struct admin {
	uint32_t magic;
	uv_loop_t *loop;
	uv_pipe_t listener;
	bool listening, stopped;
	unsigned users; /* connections, the listener's handle, and one for "not stopped" */
	unsigned connection_count;
	struct connection *connections;
	int lock;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	size_t command_count;
	struct {
		const char *name;
		admin_handler handler;
		void *context;
	} command[ADMIN_COMMANDS_MAX];
};

static void connection_take_line(struct connection *c);

int admin_new(uv_loop_t *loop, struct admin **ret_admin)
{
	struct admin *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->magic = ADMIN_MAGIC;
	a->loop = loop;
	a->lock = -1;
	a->users = 1;
	*ret_admin = a;
	return 0;
}

static void admin_put(struct admin *a)
{
	MAGIC_CHECK(a, ADMIN_MAGIC);
	if (--a->users > 0)
		return;
	a->magic = 0;
	free(a);
}

int admin_register(struct admin *a, const char *command, admin_handler handler, void *context)
{
	MAGIC_CHECK(a, ADMIN_MAGIC);
	for (size_t i = 0; i < a->command_count; i++)
		if (!strcmp(a->command[i].name, command))
			return -EEXIST;
	if (a->command_count == ADMIN_COMMANDS_MAX)
		return -ENOSPC;
	a->command[a->command_count].name = command;
	a->command[a->command_count].handler = handler;
	a->command[a->command_count++].context = context;
	return 0;
}

/* ---------------------------------------------------------------- connections */

static void on_connection_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data;
	struct admin *a;

	MAGIC_CHECK(c, CONNECTION_MAGIC);
	if (--c->handles > 0)
		return;
	a = c->admin;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	a->connection_count--;
	c->magic = 0;
	free(c);
	admin_put(a);
}

static void connection_close(struct connection *c)
{
	if (c->closing)
		return;
	c->closing = true;
	if (c->reply)
		c->reply->connection = NULL;
	c->reply = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_connection_closed);
	uv_close((uv_handle_t *)&c->timer, on_connection_closed);
}

static void on_idle(uv_timer_t *timer)
{
	struct connection *c = timer->data;

	MAGIC_CHECK(c, CONNECTION_MAGIC);
	/* A handler may take minutes; only a client that owes us something is cut off. */
	if (!c->reply || uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > 0)
		connection_close(c);
}

static void connection_rearm(struct connection *c)
{
	uv_timer_start(&c->timer, on_idle, ADMIN_IDLE_MILLIS, ADMIN_IDLE_MILLIS);
}

static void on_written(uv_write_t *request, int status)
{
	struct output *o = request->data;
	struct connection *c = request->handle->data;

	MAGIC_CHECK(o, WRITE_MAGIC);
	MAGIC_CHECK(c, CONNECTION_MAGIC);
	o->magic = 0;
	free(o);
	if (status < 0)
		connection_close(c);
	if (c->closing || uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > 0)
		return;
	if (c->last || (c->ended && !c->reply))
		connection_close(c);
	else
		connection_rearm(c);
}

static json_t *failure(const char *error, const char *hint)
{
	/* Text that is no UTF-8 makes json_pack fail: an answer must arrive all the same. */
	json_t *o = json_pack("{s:b, s:s}", "ok", 0, "error", error);

	if (!o)
		o = json_pack("{s:b, s:s}", "ok", 0, "error",
			      "the error text is not valid UTF-8; see the agent's log");
	if (o && hint && *hint)
		json_object_set_new(o, "hint", json_string(hint));
	return o;
}

/* Takes `object`. NULL: out of memory. */
static char *text_of(json_t *object, size_t *ret_size)
{
	char *text = json_dumps(object, JSON_COMPACT);

	json_decref(object);
	*ret_size = text ? strlen(text) : 0;
	return text;
}

/* Takes `object`. A client that does not read is dropped rather than fed from ever more memory. */
static void connection_send(struct connection *c, json_t *object)
{
	char *text;
	size_t size;
	struct output *o;

	if (!object) /* a progress text that is no UTF-8, or no memory */
		return;
	text = text_of(object, &size);
	if (text && size >= ADMIN_OUTPUT_MAX) {
		/* No client could read so fast that it is not dropped: this one has done nothing wrong. */
		free(text);
		text = text_of(failure("the answer is too large", "ask for less, with --limit"), &size);
	}
	if (c->closing)
		goto out;
	if (!text) {
		connection_close(c);
		goto out;
	}
	if (uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) + size >= ADMIN_OUTPUT_MAX) {
		log_warn("control", "admin socket: a client (%s) does not read its answer; dropped", c->peer);
		connection_close(c);
		goto out;
	}
	o = malloc(sizeof(*o) + size + 1);
	if (!o) {
		connection_close(c);
		goto out;
	}
	o->magic = WRITE_MAGIC;
	o->request.data = o;
	memcpy(o->text, text, size);
	o->text[size] = '\n';
	uv_buf_t buffer = uv_buf_init(o->text, (unsigned)size + 1);

	if (uv_write(&o->request, (uv_stream_t *)&c->pipe, &buffer, 1, on_written) < 0) {
		free(o);
		connection_close(c);
	}
out:
	free(text);
}

static void connection_fail(struct connection *c, const char *error, const char *hint)
{
	connection_send(c, failure(error, hint));
}

static struct admin_reply *reply_new(struct connection *c)
{
	struct admin_reply *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->magic = REPLY_MAGIC;
	r->connection = c;
	memcpy(r->peer, c->peer, sizeof(r->peer));
	c->reply = r;
	return r;
}

static void connection_handle(struct connection *c, const char *line, size_t size)
{
	struct admin *a = c->admin;
	json_error_t wrong;
	json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &wrong);
	const char *name = json_string_value(json_object_get(request, "command"));
	struct nearest near = {.word = name};
	char error[256], hint[128] = "";

	if (!request) {
		snprintf(error, sizeof(error), "not a JSON object on one line: %.120s", wrong.text);
		connection_fail(c, error, "send {\"command\": \"status\"}");
		return;
	}
	for (size_t i = 0; name && i < a->command_count; i++) {
		if (strcmp(a->command[i].name, name) != 0) {
			nearest_offer(&near, a->command[i].name);
			continue;
		}
		struct admin_reply *reply = reply_new(c);

		if (reply) {
			c->handling = true;
			a->command[i].handler(reply, request, a->command[i].context);
			c->handling = false;
		} else {
			connection_fail(c, "the agent is out of memory", NULL);
		}
		json_decref(request);
		return;
	}
	if (name) {
		snprintf(error, sizeof(error), "unknown command '%.60s'", name);
		if (near.best)
			snprintf(hint, sizeof(hint), "did you mean '%s'?", near.best);
		connection_fail(c, error, hint);
	} else {
		connection_fail(c, "the request has no \"command\"", "send {\"command\": \"status\"}");
	}
	json_decref(request);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct connection *c = handle->data;

	(void)suggested;
	MAGIC_CHECK(c, CONNECTION_MAGIC);
	*buffer = uv_buf_init(c->line + c->used, (unsigned)(sizeof(c->line) - c->used));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct connection *c = stream->data;

	(void)buffer;
	MAGIC_CHECK(c, CONNECTION_MAGIC);
	if (n > 0) {
		c->used += (size_t)n;
		connection_take_line(c);
	} else if (n == UV_EOF) {
		c->ended = true;
		uv_read_stop(stream);
		if (!c->reply && uv_stream_get_write_queue_size(stream) == 0)
			connection_close(c);
	} else if (n < 0) {
		connection_close(c);
	}
}

/* Handles the lines that are complete, one at a time; reads on when none is left. */
static void connection_take_line(struct connection *c)
{
	char *end;

	while (!c->closing && !c->last && !c->reply && (end = memchr(c->line, '\n', c->used)) != NULL) {
		size_t size = (size_t)(end - c->line) + 1;

		connection_rearm(c);
		if (size > 1)
			connection_handle(c, c->line, size - 1);
		memmove(c->line, c->line + size, c->used - size);
		c->used -= size;
	}
	if (c->closing || c->last)
		return;
	if (!c->reply && c->used == sizeof(c->line)) {
		uv_read_stop((uv_stream_t *)&c->pipe);
		c->last = true;
		connection_fail(c, "the request is longer than 65536 bytes", NULL);
	} else if (c->reply) {
		uv_read_stop((uv_stream_t *)&c->pipe);
	} else if (!c->ended) {
		int rc = uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);

		if (rc < 0 && rc != UV_EALREADY)
			connection_close(c);
	} else if (uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) == 0) {
		connection_close(c);
	}
}

static void connection_identify(struct connection *c)
{
	struct ucred who;
	socklen_t size = sizeof(who);
	uv_os_fd_t fd;

	snprintf(c->peer, sizeof(c->peer), "uid unknown");
	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) == 0 &&
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0)
		snprintf(c->peer, sizeof(c->peer), "uid %u pid %d", who.uid, who.pid);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct admin *a = listener->data;
	struct connection *c;

	MAGIC_CHECK(a, ADMIN_MAGIC);
	if (status < 0)
		return;
	c = calloc(1, sizeof(*c));
	if (!c)
		return; /* the client waits in the backlog; the next callback takes it */
	c->magic = CONNECTION_MAGIC;
	c->admin = a;
	c->handles = 2;
	c->link = &a->connections;
	c->next = a->connections;
	if (c->next)
		c->next->link = &c->next;
	a->connections = c;
	a->connection_count++;
	a->users++;
	uv_pipe_init(a->loop, &c->pipe, 0);
	uv_timer_init(a->loop, &c->timer);
	c->pipe.data = c->timer.data = c;
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) < 0) {
		connection_close(c);
		return;
	}
	connection_identify(c);
	connection_rearm(c);
	if (a->connection_count > ADMIN_CONNECTIONS_MAX) {
		c->last = true;
		connection_fail(c, "too many connections to the admin socket",
				"wait for other commands to end");
		return;
	}
	connection_take_line(c);
}

/* ---------------------------------------------------------------- replies */

static void reply_end(struct admin_reply *r, json_t *final)
{
	struct connection *c = r->connection;

	r->magic = 0;
	free(r);
	if (!c) {
		json_decref(final);
		return;
	}
	c->reply = NULL;
	connection_rearm(c);
	if (final)
		connection_send(c, final);
	else
		connection_close(c);
	/* A handler that answers at once runs inside connection_take_line, which goes on by itself. */
	if (!c->closing && !c->handling)
		connection_take_line(c);
}

void admin_progress(struct admin_reply *r, const char *format, ...)
{
	char text[1024];
	va_list args;

	MAGIC_CHECK(r, REPLY_MAGIC);
	if (!r->connection)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	connection_send(r->connection, json_pack("{s:s}", "progress", text));
}

void admin_done(struct admin_reply *r, json_t *object)
{
	json_t *final;

	MAGIC_CHECK(r, REPLY_MAGIC);
	final = json_pack("{s:b}", "ok", 1);
	if (final && object && json_object_update(final, object) == 0)
		json_object_set_new(final, "ok", json_true());
	json_decref(object);
	reply_end(r, final);
}

void admin_fail(struct admin_reply *r, const char *error, const char *hint)
{
	MAGIC_CHECK(r, REPLY_MAGIC);
	reply_end(r, failure(error, hint));
}

bool admin_is_gone(const struct admin_reply *r)
{
	MAGIC_CHECK(r, REPLY_MAGIC);
	return !r->connection;
}

const char *admin_peer(const struct admin_reply *r)
{
	MAGIC_CHECK(r, REPLY_MAGIC);
	return r->peer;
}

int admin_detach(struct admin_reply *r)
{
	struct connection *c = r->connection;
	uv_os_fd_t fd = -1;

	MAGIC_CHECK(r, REPLY_MAGIC);
	if (c && uv_fileno((uv_handle_t *)&c->pipe, &fd) == 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	reply_end(r, NULL);
	return fd;
}

/* ---------------------------------------------------------------- listening */

static int make_directory(const char *path, struct error *error)
{
	char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(directory, sizeof(directory), "%s", path);
	slash = strrchr(directory, '/');
	if (!slash || slash == directory)
		return 0;
	*slash = 0;
	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make the directory '%s' of admin.socket: %s",
				 directory, strerror(errno));
	return 0;
}

int admin_listen(struct admin *a, const char *path, struct error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = -1, rc;

	MAGIC_CHECK(a, ADMIN_MAGIC);
	if (strlen(path) >= sizeof(a->path))
		return error_set(error, -ENAMETOOLONG, "admin.socket '%s' is longer than 107 bytes", path);
	snprintf(a->path, sizeof(a->path), "%s", path);
	memcpy(address.sun_path, a->path, sizeof(a->path));
	rc = make_directory(path, error);
	if (rc == 0)
		rc = admin_lock_take(path, &a->lock, error);
	if (rc < 0)
		goto out;
	if (unlink(path) < 0 && errno != ENOENT) {
		rc = error_set(error, -errno, "cannot remove the stale socket '%s': %s", path,
			       strerror(errno));
		goto out;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* fchmod before bind: the kernel makes the file with this mode, there is no moment in which it is
	 * open to others. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		rc = error_set(error, -errno, "cannot listen on '%s': %s", path, strerror(errno));
		goto out;
	}
	uv_pipe_init(a->loop, &a->listener, 0);
	a->listener.data = a;
	a->listening = true;
	a->users++;
	rc = uv_pipe_open(&a->listener, fd);
	if (rc == 0)
		fd = -1;
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&a->listener, 16, on_connection);
	if (rc < 0)
		error_set(error, rc, "cannot listen on '%s': %s", path, uv_strerror(rc));
out:
	if (fd >= 0)
		close(fd);
	if (rc < 0 && a->lock >= 0) {
		close(a->lock);
		a->lock = -1;
	}
	return rc;
}

static void on_listener_closed(uv_handle_t *handle)
{
	admin_put(handle->data);
}

void admin_stop(struct admin *a)
{
	if (!a)
		return;
	MAGIC_CHECK(a, ADMIN_MAGIC);
	if (a->stopped)
		abort();
	a->stopped = true;
	if (a->listening) {
		if (a->lock >= 0)
			unlink(a->path);
		uv_close((uv_handle_t *)&a->listener, on_listener_closed);
	}
	for (struct connection *c = a->connections; c; c = c->next)
		connection_close(c);
	if (a->lock >= 0)
		close(a->lock); /* the file stays: removing it would let two agents lock two files of one name
				 */
	a->lock = -1;
	admin_put(a);
}
