/* SPDX-License-Identifier: Apache-2.0 */
/* The agent that follows another one. See handover.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/admin_client.h"
#include "control/gaps.h"
#include "control/handover.h"
#include "control/handover_gaps.h"
#include "cutover/ledger.h"

#define PROBE_MS 5000
#define LISTENERS_LINE_MAX (64u << 10)
static const char stop_it[] = "stop it (SIGTERM), and start this one without takeover";

struct takeover {
	int pid;
	int fd; /* −1: not asked yet, or it has ended */
	uv_poll_t *poll;
	int64_t since_us;
	int phase; /* it was in */
	bool started; /* its migration service had said Start */
	uint64_t sessions, backlog; /* as it last said */
	bool ended;                 /* it has said so */
	char *line;
	size_t have;
};

int takeover_find(struct node *n, struct error *error)
{
	const char *socket = n->config->admin.socket, *text, *hint;
	json_t *request = json_pack("{s:s, s:b, s:i}", "command", "handover", "probe", 1, "protocol", HANDOVER_PROTOCOL), *answer = NULL;
	struct error why = {""};
	char state[HANDOVER_STATE_MAX];
	struct takeover *t;
	int r = request ? admin_call(socket, request, PROBE_MS, NULL, NULL, &answer, &why) : -ENOMEM;

	json_decref(request);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return 0;
	if (r < 0)
		return error_set(error, r, "the agent at '%s' does not hand over: %s; %s", socket, why.text, stop_it);
	if (!json_is_true(json_object_get(answer, "ok"))) {
		text = json_string_value(json_object_get(answer, "error"));
		hint = json_string_value(json_object_get(answer, "hint"));
		r = error_set(error, -EBUSY, "the agent at '%s' does not hand over: %s; %s", socket, text ? text : "it gives no reason",
			      hint ? hint : stop_it);
		json_decref(answer);
		return r;
	}
	/* Another directory knows neither phase nor gaps: after a crash it would be another cluster that is written to. */
	text = json_string_value(json_object_get(answer, "state"));
	if (!text || strcmp(text, handover_state(n->config->state.directory, state)) != 0) {
		r = error_set(error, -EINVAL, "the agent at '%s' keeps its phase elsewhere: state.directory ('%s') must be the same one for both",
			      socket, n->config->state.directory);
		json_decref(answer);
		return r;
	}
	t = calloc(1, sizeof(*t));
	if (t) {
		t->pid = (int)json_integer_value(json_object_get(answer, "pid"));
		t->fd = -1;
		n->takeover = t;
	}
	json_decref(answer);
	return t ? 1 : error_set(error, -ENOMEM, "out of memory");
}

/* ---- the sockets */

struct parcel {
	char text[LISTENERS_LINE_MAX];
	size_t have;
	int fds[RELAY_LISTENERS_MAX];
	unsigned count;
};

static void parcel_fds(struct parcel *p, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || count > RELAY_LISTENERS_MAX - p->count)
			continue;
		memcpy(p->fds + p->count, CMSG_DATA(c), count * sizeof(int));
		p->count += (unsigned)count;
	}
}

/* Until the end of the line. 0 or −errno. */
static int parcel_receive(struct parcel *p, int fd)
{
	while (!memchr(p->text, '\n', p->have)) {
		char control[CMSG_SPACE(RELAY_LISTENERS_MAX * sizeof(int))] __attribute__((aligned(8)));
		struct iovec iov = {p->text + p->have, sizeof(p->text) - p->have};
		struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		ssize_t n;

		if (iov.iov_len == 0)
			return -EMSGSIZE;
		n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return -ECONNRESET;
		parcel_fds(p, &message);
		p->have += (size_t)n;
	}
	return 0;
}

static int unpack(struct node *n, const struct parcel *p, struct error *error)
{
	json_t *answer = json_loadb(p->text, p->have, 0, NULL), *list = json_object_get(answer, "listeners"), *o;
	const char *text = json_string_value(json_object_get(answer, "error"));
	const char *phase = json_string_value(json_object_get(answer, "phase"));
	struct relay_options *options = &n->relay.options;
	size_t i;
	int r = 0;

	if (!json_is_true(json_object_get(answer, "ok")))
		r = error_set(error, -EBUSY, "the agent that runs here does not hand over: %s; %s", text ? text : "it gives no reason", stop_it);
	else if (json_array_size(list) != p->count)
		r = error_set(error, -EPROTO, "the agent that runs here names %zu sockets and gives %u; %s", json_array_size(list), p->count, stop_it);
	n->takeover->phase = phase ? phase_from_name(phase) : -1;
	n->takeover->started = json_is_true(json_object_get(answer, "started"));
	if (r == 0 && n->takeover->phase < 0)
		r = error_set(error, -EPROTO, "the agent that runs here is in a phase that this one does not know; %s", stop_it);
	json_array_foreach(list, i, o)
	{
		struct relay_listener *l = &options->inherited[i];
		const char *address = json_string_value(json_object_get(o, "address"));

		if (r == 0 && (!address || addr_resolve(address, 0, &l->address, error) < 0))
			r = error_set(error, -EPROTO, "the agent that runs here gives a socket without an address; %s", stop_it);
		if (r < 0)
			break;
		l->intercepted = json_is_true(json_object_get(o, "intercepted"));
		l->fd = p->fds[i];
		options->inherited_count++;
	}
	json_decref(answer);
	return r;
}

int takeover_take(struct node *n, struct error *error)
{
	struct takeover *t = n->takeover;
	struct timeval patience = {.tv_sec = HANDOVER_ANSWER_MS / 1000};
	struct parcel *p = calloc(1, sizeof(*p));
	char request[120];
	int r, size;

	if (!p)
		return error_set(error, -ENOMEM, "out of memory");
	t->since_us = clock_wall_us();
	t->fd = r = admin_connect(n->config->admin.socket, error);
	if (r >= 0) {
		setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		size = snprintf(request, sizeof(request), "{\"command\":\"handover\",\"protocol\":%d,\"pid\":%d}\n", HANDOVER_PROTOCOL, (int)getpid());
		r = send(t->fd, request, (size_t)size, MSG_NOSIGNAL) == size ? parcel_receive(p, t->fd) : -EPIPE;
		if (r < 0)
			error_set(error, r, "the agent that runs here (pid %d) does not hand over: %s; %s", t->pid,
				  r == -ETIMEDOUT ? "no answer" : strerror(-r), stop_it);
	}
	if (r == 0)
		r = unpack(n, p, error);
	for (unsigned i = n->relay.options.inherited_count; i < p->count; i++)
		close(p->fds[i]);
	free(p);
	if (r == 0)
		log_info("agent", "the agent before this one (pid %d) has handed over, with %u listening sockets", t->pid,
			 n->relay.options.inherited_count);
	return r;
}

int takeover_phase(const struct node *n)
{
	return n->takeover ? n->takeover->phase : -1;
}

bool takeover_started(const struct node *n)
{
	return n->takeover && n->takeover->started;
}

/* ---- while it drains */

static void poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void hang_up(struct takeover *t)
{
	if (t->poll) {
		uv_poll_stop(t->poll);
		uv_close((uv_handle_t *)t->poll, poll_closed);
	}
	t->poll = NULL;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

void takeover_end(struct node *n)
{
	struct takeover *t = n->takeover;

	if (!t)
		return;
	hang_up(t);
	free(t->line);
	free(t);
	n->takeover = NULL;
}

static void predecessor_gone(struct node *n)
{
	struct takeover *t = n->takeover;
	struct error error;

	if (mirror_look(&n->mirror, &error) < 0)
		log_error("agent", "the journal of the agent before this one cannot be taken over: %s", error.text);
	if (t->ended) {
		log_info("agent", "the agent before this one (pid %d) has ended", t->pid);
	} else if (n->mirror.journals.directory >= 0) {
		log_warn("agent", "the agent before this one (pid %d) ended without notice; what it had to deliver is in the journal", t->pid);
		ledger_down(gaps_ledger(n), LEDGER_CAUSE_KEPT, t->backlog, t->since_us, clock_wall_us());
	} else {
		log_error("agent", "the agent before this one (pid %d) ended without notice, with %llu sessions and %llu writes that were not on the "
				   "other cluster: it is on the gap ledger. Compare before a cutover", t->pid, (unsigned long long)t->sessions,
			  (unsigned long long)t->backlog);
		ledger_down(gaps_ledger(n), "agent before this one ended without notice", t->backlog, t->since_us, clock_wall_us());
	}
	phases_block(n->phases, NULL);
	takeover_end(n);
}

static void take_line(struct node *n, const char *line, size_t size)
{
	struct takeover *t = n->takeover;
	json_t *o = json_loadb(line, size, 0, NULL), *value;

	value = json_object_get(o, "sessions");
	if (json_is_integer(value))
		t->sessions = (uint64_t)json_integer_value(value);
	value = json_object_get(o, "backlog");
	if (json_is_integer(value))
		t->backlog = (uint64_t)json_integer_value(value);
	if (json_is_true(json_object_get(o, "ended")))
		t->ended = true;
	gaps_feed(n, json_object_get(o, "gaps"));
	json_decref(o);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct node *n = poll->data;
	struct takeover *t = n->takeover;
	ssize_t size = recv(t->fd, t->line + t->have, HANDOVER_LINE_MAX - t->have, MSG_DONTWAIT);
	char *end;

	(void)status;
	(void)events;
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		predecessor_gone(n);
		return;
	}
	t->have += (size_t)size;
	while ((end = memchr(t->line, '\n', t->have)) != NULL) {
		size_t used = (size_t)(end - t->line) + 1;

		take_line(n, t->line, used);
		memmove(t->line, t->line + used, t->have - used);
		t->have -= used;
	}
	if (t->have == HANDOVER_LINE_MAX) /* not as agreed: what it still says cannot be understood */
		predecessor_gone(n);
}

void takeover_serving(struct node *n)
{
	static const char serving[] = "{\"serving\":true}\n";
	struct takeover *t = n->takeover;

	if (!t)
		return;
	phases_block(n->phases, "the agent before this one still serves clients, on the side that it knows");
	t->poll = calloc(1, sizeof(*t->poll));
	t->line = malloc(HANDOVER_LINE_MAX);
	if (!t->poll || !t->line || send(t->fd, serving, sizeof(serving) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(serving) - 1 ||
	    uv_poll_init(&n->loop, t->poll, t->fd) < 0) {
		free(t->poll);
		t->poll = NULL;
		predecessor_gone(n);
		return;
	}
	t->poll->data = n;
	uv_poll_start(t->poll, UV_READABLE, on_readable);
}

json_t *takeover_describe(const struct node *n)
{
	const struct takeover *t = n->takeover;

	return t ? json_pack("{s:i, s:I, s:I}", "pid", t->pid, "sessions", (json_int_t)t->sessions, "backlog", (json_int_t)t->backlog) : NULL;
}
