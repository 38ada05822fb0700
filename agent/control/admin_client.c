// SPDX-License-Identifier: Apache-2.0
/* Connects, writes the request, reads lines until the final one. Plain blocking sockets with poll(2) for the
 * time-out. */
#include "control/admin_client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int admin_connect(const char *path, struct error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, code;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(error, -ENAMETOOLONG, "the socket path '%s' is longer than 107 bytes", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	code = errno;
	close(fd);
	if (code == ENOENT || code == ECONNREFUSED)
		return error_set(error, -code,
				 "no agent answers at '%s': is it running, and is this its admin.socket?",
				 path);
	if (code == EACCES || code == EPERM)
		return error_set(error, -code,
				 "no permission for '%s': only the agent's own user and root may steer it",
				 path);
	return error_set(error, -code, "cannot connect to '%s': %s", path, strerror(code));
}

static int call_send(int fd, const json_t *request, struct error *error)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t size, at = 0;
	int rc = 0;

	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	size = strlen(text);
	text[size++] = '\n'; /* json_dumps gives a terminated string: the NUL's place is ours */
	while (at < size && rc == 0) {
		ssize_t n = send(fd, text + at, size - at, MSG_NOSIGNAL);

		if (n >= 0)
			at += (size_t)n;
		else if (errno != EINTR)
			rc = error_set(error, -errno, "the agent does not take the request: %s",
				       strerror(errno));
	}
	free(text);
	return rc;
}

struct reader {
	int fd, timeout;
	char *data;
	size_t used, capacity, taken;
};

/* The next line without its newline; valid until the next call. */
static int reader_line(struct reader *r, char **ret_line, size_t *ret_size, struct error *error)
{
	size_t scanned;

	memmove(r->data, r->data + r->taken, r->used - r->taken);
	r->used -= r->taken;
	r->taken = 0;
	for (scanned = 0;;) {
		char *end = r->used > scanned ? memchr(r->data + scanned, '\n', r->used - scanned) : NULL;
		struct pollfd p = {.fd = r->fd, .events = POLLIN};
		ssize_t n;
		int ready;

		if (end) {
			*ret_line = r->data;
			*ret_size = (size_t)(end - r->data);
			r->taken = *ret_size + 1;
			return 0;
		}
		scanned = r->used;
		if (r->used == r->capacity) {
			size_t larger = r->capacity ? 2 * r->capacity : 16384;
			char *data = larger <= ADMIN_ANSWER_MAX ? realloc(r->data, larger) : NULL;

			if (!data)
				return error_set(error, -EPROTO, "the agent's answer is too large");
			r->data = data;
			r->capacity = larger;
		}
		ready = poll(&p, 1, r->timeout);
		if (ready == 0)
			return error_set(error, -ETIMEDOUT, "no answer from the agent within %d ms",
					 r->timeout);
		if (ready < 0 && errno != EINTR)
			return error_set(error, -errno, "poll: %s", strerror(errno));
		if (ready < 0)
			continue;
		n = recv(r->fd, r->data + r->used, r->capacity - r->used, 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return error_set(error, -ECONNRESET,
					 "the agent went away before it answered; see its log");
		if (n < 0 && errno != EINTR)
			return error_set(error, -errno, "reading the agent's answer: %s", strerror(errno));
		r->used += n > 0 ? (size_t)n : 0;
	}
}

int admin_call(const char *path, const json_t *request, int timeout_millis,
	       void (*on_progress)(const char *text, void *context), void *context, json_t **ret_final,
	       struct error *error)
{
	struct reader r = {.timeout = timeout_millis};
	char *line = NULL;
	size_t size = 0;
	int rc;

	r.fd = admin_connect(path, error);
	if (r.fd < 0)
		return r.fd;
	r.data = malloc(16384);
	r.capacity = 16384;
	rc = r.data ? call_send(r.fd, request, error) : error_set(error, -ENOMEM, "out of memory");
	while (rc == 0) {
		rc = reader_line(&r, &line, &size, error);
		if (rc < 0)
			break;
		json_t *object = json_loadb(line, size, 0, NULL);
		const char *progress = json_string_value(json_object_get(object, "progress"));

		if (json_is_boolean(json_object_get(object, "ok"))) {
			*ret_final = object;
			break;
		}
		if (progress && on_progress)
			on_progress(progress, context);
		else if (!progress)
			rc = error_set(error, -EPROTO,
				       "the agent's answer is not understood; is it of the same version?");
		json_decref(object);
	}
	free(r.data);
	close(r.fd);
	return rc;
}
