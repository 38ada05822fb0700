/* SPDX-License-Identifier: Apache-2.0 */
/* The agent that is followed by another one. See handover.h. */
#include "control/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/gaps.h"
#include "control/handover_gaps.h"
#include "cutover/ledger.h"
#include "relay/worker.h"

#define GAPS_MAX 65536   /* that wait for the successor; beyond: lost, said so */
#define GAPS_A_LINE 1000 /* 300 KiB, at the worst a line of HANDOVER_LINE_MAX */
#define TAKE_BACK_TRIES 50
#define TAKE_BACK_US 100000 /* a successor that was killed holds its locks for a moment longer */

/* KEPT ─asked─▶ ASKED ─▶ GIVEN ─serving─▶ RETIRING        ASKED, GIVEN ─successor gone─▶ KEPT */
enum stage { KEPT, ASKED, GIVEN, RETIRING };

struct handover {
	enum stage stage;
	struct node *node;
	struct admin_reply *reply; /* ASKED */
	int successor;             /* its process id */
	int fd;                    /* to it; −1 = none */
	bool gone;                 /* it has closed that */
	bool retired;              /* the workers have been told */
	enum phase phase;          /* as it was handed over */
	bool started;              /* likewise: the migration service has said Start */
	uv_poll_t *poll;
	uv_timer_t *grace;
	json_t *gaps; /* what is not sent yet */
	uint64_t gaps_lost;
	char *line; /* what is being sent */
	size_t size, sent;
	char in[256];
	size_t have;
};

static struct handover *handover_of(const struct node *n)
{
	return n->handover;
}

bool handover_given(const struct node *n)
{
	return n->handover && handover_of(n)->stage >= GIVEN;
}

int handover_phase(const struct node *n)
{
	return handover_given(n) ? (int)handover_of(n)->phase : -1;
}

bool handover_started(const struct node *n)
{
	return handover_given(n) && handover_of(n)->started;
}

const char *handover_state(const char *directory, char id[HANDOVER_STATE_MAX])
{
	struct stat st;

	id[0] = 0;
	if (directory[0] && stat(directory, &st) < 0)
		snprintf(id, HANDOVER_STATE_MAX, "none");
	else if (directory[0])
		snprintf(id, HANDOVER_STATE_MAX, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return id;
}

/* ---- the request */

static void on_request(struct admin_reply *reply, const json_t *request, void *context)
{
	struct handover *h = context;
	struct node *n = h->node;
	json_int_t protocol = json_integer_value(json_object_get(request, "protocol"));
	char state[HANDOVER_STATE_MAX];

	if (protocol != HANDOVER_PROTOCOL) {
		admin_fail(reply, "this agent hands over by another protocol", "stop it (SIGTERM), and start the new one without takeover");
	} else if (h->stage != KEPT) {
		admin_fail(reply, "this agent is handing over already", NULL);
	} else if (n->takeover) {
		admin_fail(reply, "the agent before this one still serves clients", "wait until it has ended: cqlferry status");
	} else if (!phases_settled(n->phases)) {
		admin_fail(reply, "a phase change is under way", "wait for it: cqlferry status");
	} else if (mirror_barriers_waiting(&n->mirror)) {
		/* What clients of the new one write meanwhile would be on the other cluster before it. */
		admin_fail(reply, "a TRUNCATE or a schema change waits for its turn on the other cluster",
			   "wait until it is through (cqlferry status: the backlog, tables on hold), or stop this agent (SIGTERM) and start the new one "
			   "without takeover");
	} else if (json_is_true(json_object_get(request, "probe"))) {
		admin_done(reply, json_pack("{s:i, s:s, s:s}", "pid", (int)getpid(), "version", CQLFERRY_VERSION, "state",
					    handover_state(n->config->state.directory, state)));
	} else {
		h->reply = reply;
		h->successor = (int)json_integer_value(json_object_get(request, "pid"));
		h->stage = ASKED;
		uv_stop(&n->loop); /* what follows waits for thread pools, and so cannot be done from a callback */
	}
}

int handover_register(struct node *n, struct error *error)
{
	if (!n->handover) {
		n->handover = calloc(1, sizeof(*n->handover));
		if (!n->handover)
			return error_set(error, -ENOMEM, "out of memory");
		n->handover->node = n;
		n->handover->fd = -1;
	}
	if (admin_register(n->admin, "handover", on_request, n->handover) < 0)
		return error_set(error, -ENOSPC, "too many admin commands");
	return 0;
}

/* ---- giving and taking back */

static void keep_span(void *context, const struct ledger_record *r)
{
	if (r->kind == LEDGER_OPAQUE)
		json_array_append_new(context, handover_gap_span(r));
}

/* From here on this process writes no file and listens on no port but the clients'. */
static void release_all(struct node *n)
{
	admin_stop(n->admin);
	n->admin = NULL;
	http_stop(n->http);
	n->http = NULL;
	phases_stop(n->phases);
	n->phases = NULL;
	service_stop(n->service);
	n->service = NULL;
	if (n->intercept)
		steer_pause(n);
	gaps_stop(n);
	while (n->keep_running)
		uv_run(&n->loop, UV_RUN_ONCE);
	relay_keep(&n->relay);
}

static void handle_closed(uv_handle_t *handle)
{
	free(handle);
}

static void hang_up(struct handover *h)
{
	if (h->poll) {
		uv_poll_stop(h->poll);
		uv_close((uv_handle_t *)h->poll, handle_closed);
	}
	if (h->grace)
		uv_close((uv_handle_t *)h->grace, handle_closed);
	h->poll = NULL;
	h->grace = NULL;
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

static void successor_gone(struct handover *h)
{
	h->gone = true;
	uv_poll_stop(h->poll);
	if (h->stage == GIVEN)
		uv_stop(&h->node->loop); /* handover_due() takes all back */
	else
		log_warn("agent", "the agent that took over (pid %d) has ended; this one ends its sessions all the same", h->successor);
}

static void on_grace(uv_timer_t *timer)
{
	struct handover *h = timer->data;

	if (relay_retire(&h->node->relay, h->node->config->takeover.drain_millis) < 0) {
		log_warn("agent", "out of memory: sessions are ended at once");
		uv_stop(&h->node->loop);
	}
	h->retired = true;
}

static void on_serving(struct handover *h)
{
	h->stage = RETIRING;
	log_audit("handed over to pid %d, which serves new connections now; this agent ends when its %u sessions have", h->successor,
		  atomic_load(&h->node->relay.session_count));
	uv_timer_start(h->grace, on_grace, HANDOVER_ACCEPT_MS, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct handover *h = poll->data;
	ssize_t n = recv(h->fd, h->in + h->have, sizeof(h->in) - h->have, MSG_DONTWAIT);
	json_t *line;

	(void)status;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		successor_gone(h);
		return;
	}
	h->have += (size_t)n;
	if (h->stage == GIVEN && memchr(h->in, '\n', h->have)) {
		line = json_loadb(h->in, h->have, JSON_DISABLE_EOF_CHECK, NULL);
		if (json_is_true(json_object_get(line, "serving")))
			on_serving(h);
		json_decref(line);
		h->have = 0;
	} else if (h->have == sizeof(h->in)) {
		successor_gone(h); /* it does not speak as agreed */
	}
}

/* The answer, and with its first byte the sockets. */
static int send_listeners(struct handover *h)
{
	struct relay_listener *l = calloc(RELAY_LISTENERS_MAX, sizeof(*l));
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(RELAY_LISTENERS_MAX * sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_control = control.bytes};
	json_t *list = json_array(), *answer;
	int fds[RELAY_LISTENERS_MAX], r = -ENOMEM;
	char address[ADDR_TEXT_MAX], *text;
	unsigned count = l ? relay_listeners(&h->node->relay, l) : 0;
	struct cmsghdr *c = &control.align;
	struct iovec iov;

	for (unsigned i = 0; i < count; i++) {
		fds[i] = l[i].fd;
		json_array_append_new(list, json_pack("{s:s, s:b}", "address", addr_format(&l[i].address, address), "intercepted",
						      l[i].intercepted));
	}
	free(l);
	answer = json_pack("{s:b, s:i, s:s, s:b, s:o}", "ok", 1, "pid", (int)getpid(), "phase", phase_name(h->phase), "started", h->started,
			   "listeners", list);
	text = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	if (!text)
		return r;
	iov = (struct iovec){text, strlen(text)};
	text[iov.iov_len++] = '\n'; /* the NUL's place is ours */
	message.msg_iov = &iov;
	message.msg_iovlen = 1;
	if (count) {
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	} else {
		message.msg_control = NULL;
	}
	r = sendmsg(h->fd, &message, MSG_NOSIGNAL) == (ssize_t)iov.iov_len ? 0 : -EPIPE;
	free(text);
	return r;
}

static bool take_back(struct handover *h)
{
	struct node *n = h->node;
	struct error error = {""};
	int r = -EADDRINUSE;

	hang_up(h);
	h->have = 0;
	h->gone = false;
	if (n->intercept && intercept_superseded(n->intercept)) {
		log_error("agent", "the agent that was to take over (pid %d) has ended after it took the kernel side; this one ends, too",
			  h->successor);
		return false;
	}
	for (int i = 0; i < TAKE_BACK_TRIES && r == -EADDRINUSE; i++) {
		if (i)
			usleep(TAKE_BACK_US);
		r = node_claim(n, &error);
		if (r == 0)
			r = node_lead(n, &error);
		if (r < 0)
			release_all(n);
	}
	if (r < 0) {
		log_error("agent", "pid %d did not take over, and what it was given cannot be taken back: %s", h->successor, error.text);
		return false;
	}
	h->stage = KEPT;
	gaps_feed(n, h->gaps); /* the ledger thought these sessions ended */
	json_decref(h->gaps);
	h->gaps = NULL;
	if (n->intercept && n->serving)
		steer_resume(n);
	log_warn("agent", "pid %d did not take over: it has ended before it served. This agent goes on; see the other one's log", h->successor);
	return true;
}

static bool give(struct handover *h)
{
	struct node *n = h->node;

	h->stage = GIVEN;
	h->phase = phases_current(n->phases);
	h->started = n->service && !service_waiting(n->service);
	h->gaps = json_array();
	h->poll = calloc(1, sizeof(*h->poll));
	h->grace = calloc(1, sizeof(*h->grace));
	h->fd = admin_detach(h->reply);
	h->reply = NULL;
	if (!h->gaps || !h->poll || !h->grace || h->fd < 0 || uv_poll_init(&n->loop, h->poll, h->fd) < 0) {
		free(h->poll);
		free(h->grace);
		h->poll = NULL;
		h->grace = NULL;
		hang_up(h);
		json_decref(h->gaps);
		h->gaps = NULL;
		h->stage = KEPT;
		return true;
	}
	uv_timer_init(&n->loop, h->grace);
	h->poll->data = h->grace->data = h;
	log_info("agent", "pid %d takes over: phase, ledger and ports are released to it; clients are served all the while", h->successor);
	ledger_spans(gaps_ledger(n), keep_span, h->gaps);
	release_all(n);
	if (send_listeners(h) < 0)
		return take_back(h);
	uv_poll_start(h->poll, UV_READABLE, on_readable);
	return true;
}

bool handover_due(struct node *n)
{
	struct handover *h = n->handover;

	if (!h)
		return false;
	if (h->stage == ASKED && n->signalled) {
		h->stage = KEPT;
		admin_fail(h->reply, "this agent is stopping", "start the new one without takeover once it has ended");
		h->reply = NULL;
		return false;
	}
	if (n->signalled)
		return false;
	if (h->stage == ASKED)
		return give(h);
	return h->stage == GIVEN && h->gone && take_back(h);
}

/* ---- until the end */

static bool room(struct handover *h)
{
	if (json_array_size(h->gaps) < GAPS_MAX)
		return true;
	h->gaps_lost++;
	return false;
}

static void on_count(void *context, const struct gap_count *c)
{
	struct handover *h = context;

	if (room(h))
		json_array_append_new(h->gaps, handover_gap_count(c));
}

static void on_session(void *context, const struct gap_session *s)
{
	struct handover *h = context;

	if (room(h))
		json_array_append_new(h->gaps, handover_gap_session(s));
}

static void gather(struct handover *h)
{
	const struct relay *r = &h->node->relay;

	for (unsigned i = 0; i < r->worker_count; i++)
		gap_take(r->workers[i]->gap, on_count, on_session, h);
}

/* The next line, with as many gaps as go on it. Takes `o`. */
static void compose(struct handover *h, json_t *o)
{
	size_t count = json_array_size(h->gaps) < GAPS_A_LINE ? json_array_size(h->gaps) : GAPS_A_LINE;
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append(list, json_array_get(h->gaps, i));
	json_object_set_new(o, "gaps", list);
	h->line = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (!h->line)
		return;
	h->size = strlen(h->line);
	h->line[h->size++] = '\n';
	h->sent = 0;
	for (size_t i = 0; i < count; i++)
		json_array_remove(h->gaps, 0);
}

/* True: nothing of the line is left. */
static bool send_line(struct handover *h, int flags)
{
	while (h->line && h->sent < h->size) {
		ssize_t n = send(h->fd, h->line + h->sent, h->size - h->sent, MSG_NOSIGNAL | flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		h->sent += (size_t)n;
	}
	free(h->line);
	h->line = NULL;
	return true;
}

void handover_tick(struct node *n)
{
	struct handover *h = n->handover;

	if (!h || h->stage != RETIRING)
		return;
	gather(h);
	if (!h->gone && send_line(h, MSG_DONTWAIT)) {
		compose(h, json_pack("{s:I, s:I}", "sessions", (json_int_t)atomic_load(&n->relay.session_count), "backlog",
				     (json_int_t)(metrics_total(METRIC_MIRROR_BACKLOG) + metrics_total(METRIC_MIRROR_INDOUBT))));
		send_line(h, MSG_DONTWAIT);
	}
	if (h->retired && atomic_load(&n->relay.session_count) == 0)
		uv_stop(&n->loop);
}

static bool say_end(struct handover *h)
{
	struct timeval patience = {.tv_sec = 2};
	bool last;

	setsockopt(h->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	fcntl(h->fd, F_SETFL, 0);
	do {
		if (!send_line(h, 0))
			return false;
		last = json_array_size(h->gaps) <= GAPS_A_LINE;
		compose(h, json_pack("{s:b}", "ended", last));
	} while (!last);
	return send_line(h, 0);
}

void handover_end(struct node *n)
{
	struct handover *h = n->handover;

	if (!h)
		return;
	if (h->stage == RETIRING) {
		gather(h);
		if (h->gone || !say_end(h))
			log_error("agent", "the agent that took over (pid %d) does not listen: %zu kinds of writes that were not mirrored since then are "
					   "not on its ledger. Compare the tables before a cutover", h->successor, json_array_size(h->gaps));
		if (h->gaps_lost)
			log_error("agent", "%llu gaps did not fit into what waits for the agent that took over: compare the tables before a cutover",
				  (unsigned long long)h->gaps_lost);
	}
	hang_up(h);
	json_decref(h->gaps);
	free(h->line);
	free(h);
	n->handover = NULL;
}
