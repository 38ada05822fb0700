/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See post.h.
 *
 * The service of the document's ancestor sends what failed again at once, for ever, and never reads from the
 * connection that it sends on. So an ID that fails again is answered a second later, and an answer that is
 * not read on one way is dropped there, not waited for.
 */
#include "migrate/post.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/magic.h"
#include "migrate/link.h"
#include "net/addr.h"

#define POST_MAGIC 0x90570001u
#define FRAME_MS 30000
#define FAILURE_MS 1000
#define FAILURE_MEMORY_MS 60000 /* an ID that failed longer ago is new again */
#define RETRY_MIN_MS 100	/* back-off of the connection to the service */
#define RETRY_MAX_MS 10000
#define SILENT_MS 5000	    /* a connection that has said nothing for so long makes room for a new one */
#define WARN_MS 1000	    /* between two warnings */
#define BACK POST_LINKS_MAX /* the index of the connection that we keep to the service */

struct delayed {
	struct sender to;
	uint64_t due_ns;
	char text[UPDATE_ERROR_SIZE];
};

struct letter {
	uint8_t *bytes;
	size_t size;
	uint64_t written_ns;
};

struct failure {
	char id[UPDATE_ID_SIZE];
	uint64_t at_ns; /* 0: none */
};

struct place {
	struct link *link; /* NULL: free */
	uint64_t number;   /* never used twice */
	uint64_t updates;  /* messages that could be read */
};

struct post {
	uint32_t magic;
	uv_loop_t *loop;
	struct post_options options;
	struct post_hooks hooks;
	uv_tcp_t listener;
	uv_timer_t retry, pace;
	unsigned users; /* handles that are not closed */
	bool stopped, told_unreachable;
	uint16_t port;
	uint64_t numbers;
	struct place place[POST_LINKS_MAX + 1]; /* the last one: BACK */
	unsigned attempts, retry_ms;
	struct letter outbox[POST_OUTBOX_MAX];
	unsigned outbox_first, outbox_count;
	struct delayed delayed[POST_DELAYED_MAX];
	unsigned delayed_count;
	struct failure failed[POST_DELAYED_MAX]; /* a ring */
	unsigned failed_next;
	uint64_t warned_ns, unwarned;
	struct post_counts counts;
};

static void post_put(struct post *p)
{
	MAGIC_CHECK(p, POST_MAGIC);
	if (--p->users > 0)
		return;
	p->magic = 0;
	free(p);
}

/* What a peer does may be worth a line, but not a thousand lines. */
static void warn(struct post *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(struct post *p, const char *format, ...)
{
	uint64_t now = clock_now_ns();
	char text[600];
	va_list args;

	if (p->warned_ns && now - p->warned_ns < WARN_MS * 1000000ull) {
		p->unwarned++;
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (p->unwarned)
		log_warn("migrate", "%s (and %" PRIu64 " more since the last line)", text, p->unwarned);
	else
		log_warn("migrate", "%s", text);
	p->warned_ns = now;
	p->unwarned = 0;
}

const char *post_peer(const struct post *p, const struct sender *from)
{
	for (unsigned i = 0; i <= BACK; i++)
		if (p->place[i].link && p->place[i].number == from->link)
			return link_peer(p->place[i].link);
	return "gone";
}

/* ---- answers */

/* Takes `bytes`. What has waited longest goes when there is no room. */
static void outbox_put(struct post *p, uint8_t *bytes, size_t size)
{
	unsigned at;

	if (p->outbox_count == POST_OUTBOX_MAX) {
		free(p->outbox[p->outbox_first].bytes);
		p->outbox_first = (p->outbox_first + 1) % POST_OUTBOX_MAX;
		p->outbox_count--;
		p->counts.dropped++;
	}
	at = (p->outbox_first + p->outbox_count++) % POST_OUTBOX_MAX;
	p->outbox[at] = (struct letter){.bytes = bytes, .size = size, .written_ns = clock_now_ns()};
}

static void outbox_flush(struct post *p, struct link *to)
{
	uint64_t now = clock_now_ns();

	while (p->outbox_count) {
		struct letter *l = &p->outbox[p->outbox_first];

		if (!to || now - l->written_ns > POST_OUTBOX_MS * 1000000ull ||
		    link_send(to, l->bytes, l->size) < 0)
			p->counts.dropped++;
		free(l->bytes);
		p->outbox_first = (p->outbox_first + 1) % POST_OUTBOX_MAX;
		p->outbox_count--;
	}
}

/* On the connection that the request came by, and to the service's port, where the document has answers written. */
static void answer(struct post *p, const struct sender *to, enum update_type type, const char *text)
{
	struct place *back = &p->place[BACK];
	struct update u = {.type = type};
	uint8_t *bytes;
	size_t size;

	memcpy(u.id, to->id, sizeof(u.id));
	snprintf(u.error, sizeof(u.error), "%s", text ? text : "");
	if (update_write(&u, &bytes, &size) < 0) {
		log_error("migrate", "out of memory: update %s stays without an answer", to->id);
		return;
	}
	for (unsigned i = 0; i < BACK; i++)
		if (p->place[i].link && p->place[i].number == to->link &&
		    link_send(p->place[i].link, bytes, size) < 0)
			p->counts.dropped++;
	if (!back->link || !link_is_open(back->link)) {
		outbox_put(p, bytes, size);
		return;
	}
	if (link_send(back->link, bytes, size) < 0)
		p->counts.dropped++;
	free(bytes);
}

void post_succeed(struct post *p, const struct sender *to)
{
	answer(p, to, UPDATE_SUCCESS, NULL);
}

bool post_tell(struct post *p, const struct update *u)
{
	struct link *back = p->place[BACK].link;
	uint8_t *bytes;
	size_t size;
	bool sent;

	if (!back || !link_is_open(back) || update_write(u, &bytes, &size) < 0)
		return false;
	sent = link_send(back, bytes, size) == 0;
	free(bytes);
	return sent;
}

static bool failed_before(struct post *p, const char *id)
{
	uint64_t now = clock_now_ns();
	bool before;

	for (unsigned i = 0; i < POST_DELAYED_MAX; i++)
		if (p->failed[i].at_ns && strcmp(p->failed[i].id, id) == 0) {
			before = now - p->failed[i].at_ns < FAILURE_MEMORY_MS * 1000000ull;
			p->failed[i].at_ns = now;
			return before;
		}
	memcpy(p->failed[p->failed_next].id, id, UPDATE_ID_SIZE);
	p->failed[p->failed_next].at_ns = now;
	p->failed_next = (p->failed_next + 1) % POST_DELAYED_MAX;
	return false;
}

static void on_pace(uv_timer_t *timer)
{
	struct post *p = timer->data;
	uint64_t now = clock_now_ns();
	unsigned kept = 0;

	MAGIC_CHECK(p, POST_MAGIC);
	for (unsigned i = 0; i < p->delayed_count; i++) {
		if (p->delayed[i].due_ns <= now)
			answer(p, &p->delayed[i].to, UPDATE_FAILURE, p->delayed[i].text);
		else
			p->delayed[kept++] = p->delayed[i];
	}
	p->delayed_count = kept;
	if (!kept)
		uv_timer_stop(timer);
}

void post_fail(struct post *p, const struct sender *to, const char *text)
{
	unsigned ms = p->options.failure_ms;
	struct delayed *d;

	p->counts.failures++;
	warn(p, "update %s from %s fails: %s", to->id, post_peer(p, to), text);
	if (strcmp(to->id, UPDATE_ID_NONE) == 0 || !failed_before(p, to->id) ||
	    p->delayed_count == POST_DELAYED_MAX) {
		answer(p, to, UPDATE_FAILURE, text);
		return;
	}
	d = &p->delayed[p->delayed_count++];
	d->to = *to;
	d->due_ns = clock_now_ns() + ms * 1000000ull;
	snprintf(d->text, sizeof(d->text), "%s", text);
	if (!uv_is_active((uv_handle_t *)&p->pace))
		uv_timer_start(&p->pace, on_pace, ms, ms / 4 + 1);
}

void post_malformed(struct post *p, const struct sender *to, const char *text)
{
	p->counts.malformed++;
	post_fail(p, to, text);
}

/* ---- connections */

static struct place *place_of(struct post *p, const struct link *l)
{
	for (unsigned i = 0; i <= BACK; i++)
		if (p->place[i].link == l)
			return &p->place[i];
	abort(); /* a link that calls us is one that we hold */
}

static void on_message(void *context, struct link *l, struct span body)
{
	struct post *p = context;
	struct place *place;
	struct update u;
	struct error error;
	struct sender w;

	MAGIC_CHECK(p, POST_MAGIC);
	place = place_of(p, l);
	w.link = place->number;
	p->counts.updates++;
	if (update_parse(body, &u, w.id, &error) < 0) {
		post_malformed(p, &w, error.text);
		return;
	}
	place->updates++;
	p->hooks.update(p->hooks.context, &u, &w);
	update_done(&u);
}

static void on_broken(void *context, struct link *l, const char *why)
{
	struct post *p = context;
	struct sender w = {.id = UPDATE_ID_NONE};

	MAGIC_CHECK(p, POST_MAGIC);
	w.link = place_of(p, l)->number;
	post_malformed(p, &w, why);
	link_finish(l);
}

static void on_link_closed(void *context, struct link *l, const char *why)
{
	struct post *p = context;

	MAGIC_CHECK(p, POST_MAGIC);
	log_debug("migrate", "connection from %s closed: %s", link_peer(l), why);
	*place_of(p, l) = (struct place){0};
}

static void place_take(struct post *p, unsigned i, struct link *l)
{
	p->place[i] = (struct place){.link = l, .number = ++p->numbers};
}

/* A free place, or that of the connection which has been silent longest; −1. */
static int place_find(struct post *p)
{
	uint64_t now = clock_now_ns();
	int oldest = -1;

	for (int i = 0; i < BACK; i++) {
		struct place *place = &p->place[i];

		if (!place->link)
			return i;
		if (!place->updates && now - link_born_ns(place->link) > SILENT_MS * 1000000ull &&
		    (oldest < 0 || link_born_ns(place->link) < link_born_ns(p->place[oldest].link)))
			oldest = i;
	}
	if (oldest >= 0)
		link_close(p->place[oldest].link, "silent, and others wait");
	return oldest;
}

static void refused_closed(void *context, struct link *l, const char *why)
{
	(void)context;
	(void)l;
	(void)why;
}

/* Accepted all the same, because the peer would wait for ever in the queue. */
static void refuse(struct post *p, uv_stream_t *listener)
{
	struct link_hooks hooks = {.closed = refused_closed};
	struct update u = {.id = UPDATE_ID_NONE, .type = UPDATE_FAILURE};
	struct link *l;
	uint8_t *bytes;
	size_t size;

	if (link_accept(listener, p->options.frame_ms, &hooks, &l) < 0)
		return;
	p->counts.refused++;
	warn(p, "connection from %s refused: there are %u already", link_peer(l), POST_LINKS_MAX);
	snprintf(u.error, sizeof(u.error), "too many connections: %u are allowed", POST_LINKS_MAX);
	if (update_write(&u, &bytes, &size) == 0) {
		link_send(l, bytes, size);
		free(bytes);
	}
	link_close(l, "too many connections");
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct post *p = listener->data;
	struct link_hooks hooks = {
	    .message = on_message, .broken = on_broken, .closed = on_link_closed, .context = p};
	struct link *l;
	int at, r;

	MAGIC_CHECK(p, POST_MAGIC);
	if (status < 0)
		return;
	at = place_find(p);
	if (at < 0) {
		refuse(p, listener);
		return;
	}
	r = link_accept(listener, p->options.frame_ms, &hooks, &l);
	if (r < 0) {
		warn(p, "cannot accept a connection of the migration service: %s", uv_strerror(r));
		return;
	}
	place_take(p, (unsigned)at, l);
	log_debug("migrate", "connection from %s", link_peer(l));
}

/* ---- the connection to the service */

static void dial(struct post *p);

static void on_retry(uv_timer_t *timer)
{
	MAGIC_CHECK((struct post *)timer->data, POST_MAGIC);
	dial(timer->data);
}

static void dial_later(struct post *p)
{
	if (p->stopped)
		return;
	uv_timer_start(&p->retry, on_retry, p->retry_ms, 0);
	p->retry_ms = p->retry_ms * 2 < RETRY_MAX_MS ? p->retry_ms * 2 : RETRY_MAX_MS;
}

static void on_back_opened(void *context, struct link *l)
{
	struct post *p = context;

	MAGIC_CHECK(p, POST_MAGIC);
	log_info("migrate", "connected to the migration service at %s", link_peer(l));
	p->told_unreachable = false;
	outbox_flush(p, l);
}

static void on_back_closed(void *context, struct link *l, const char *why)
{
	struct post *p = context;

	MAGIC_CHECK(p, POST_MAGIC);
	p->place[BACK] = (struct place){0};
	/* Something that accepts and closes at once is not worth ten attempts a second. */
	if (clock_now_ns() - link_born_ns(l) > SILENT_MS * 1000000ull)
		p->retry_ms = RETRY_MIN_MS;
	if (!p->told_unreachable && !p->stopped)
		log_info("migrate",
			 "no connection to the migration service at %s port %u: %s. It is tried again; until "
			 "then answers go back on the "
			 "connection of their request only",
			 p->options.service_host, p->options.service_port, why);
	p->told_unreachable = true;
	dial_later(p);
}

static void dial(struct post *p)
{
	struct link_hooks hooks = {.opened = on_back_opened,
				   .message = on_message,
				   .broken = on_broken,
				   .closed = on_back_closed,
				   .context = p};
	struct link *l;
	int r = link_dial(p->loop, p->options.service_host, p->options.service_port, p->attempts++,
			  p->options.frame_ms, &hooks, &l);

	if (r < 0) {
		warn(p, "cannot connect to the migration service: %s", uv_strerror(r));
		dial_later(p);
		return;
	}
	place_take(p, BACK, l);
}

/* ---- life */

static int listen_on(struct post *p, struct addr *a)
{
	int r = uv_tcp_bind(&p->listener, &a->sa, 0);

	return r < 0 ? r : uv_listen((uv_stream_t *)&p->listener, 16, on_connection);
}

/* PROXY_SERVICE_HOSTNAME is the name by which the service knows this agent: in a cluster often that of a
 * Service, not of a node. */
static int listen_address(const struct post_options *o, struct addr *ret, struct error *error)
{
	struct addr any = {.in = {.sin_family = AF_INET}}, a = {0};
	struct in6_addr literal;
	struct error why;
	int fd, r;

	addr_set_port(&any, o->proxy_port);
	*ret = any;
	if (!o->proxy_host[0])
		return 0;
	r = addr_resolve(o->proxy_host, o->proxy_port, &a, &why);
	if (r == 0) {
		addr_set_port(&a, 0);
		fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		r = fd < 0 || bind(fd, &a.sa, addr_size(&a)) < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
		if (r < 0)
			error_set(&why, r, "%s", strerror(-r));
	}
	if (r == 0) {
		addr_set_port(&a, o->proxy_port);
		*ret = a;
		return 0;
	}
	if (inet_pton(AF_INET, o->proxy_host, &literal) == 1 ||
	    inet_pton(AF_INET6, o->proxy_host, &literal) == 1)
		return error_set(error, r,
				 "migration.proxyHost (PROXY_SERVICE_HOSTNAME) %s: %s. Name an address of "
				 "this node, or leave it empty "
				 "for all of them",
				 o->proxy_host, why.text);
	log_warn("migrate",
		 "migration.proxyHost %s is not an address of this node (%s): listening on all addresses",
		 o->proxy_host, why.text);
	return 0;
}

static int post_listen(struct post *p, struct error *error)
{
	struct addr a;
	char text[ADDR_TEXT_MAX];
	int size = sizeof(a.storage);
	int r = listen_address(&p->options, &a, error);

	if (r < 0)
		return r;
	r = listen_on(p, &a);
	if (r < 0)
		return error_set(error, r,
				 "cannot listen for the migration service on %s: %s. Choose another "
				 "migration.proxyPort (PROXY_PORT), or stop "
				 "what uses it",
				 addr_format(&a, text), uv_strerror(r));
	if (uv_tcp_getsockname(&p->listener, &a.sa, &size) == 0)
		p->port = addr_port(&a);
	log_info("migrate", "listening for the migration service on %s", addr_format(&a, text));
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	post_put(handle->data);
}

static void close_handles(struct post *p)
{
	p->stopped = true;
	uv_close((uv_handle_t *)&p->listener, on_handle_closed);
	uv_close((uv_handle_t *)&p->retry, on_handle_closed);
	uv_close((uv_handle_t *)&p->pace, on_handle_closed);
}

int post_start(uv_loop_t *loop, const struct post_options *options, const struct post_hooks *hooks,
	       struct post **ret, struct error *error)
{
	struct post *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_set(error, -ENOMEM, "out of memory");
	p->magic = POST_MAGIC;
	p->loop = loop;
	p->options = *options;
	p->hooks = *hooks;
	p->options.frame_ms = options->frame_ms ? options->frame_ms : FRAME_MS;
	p->options.failure_ms = options->failure_ms ? options->failure_ms : FAILURE_MS;
	p->retry_ms = RETRY_MIN_MS;
	p->users = 3;
	uv_tcp_init(loop, &p->listener);
	uv_timer_init(loop, &p->retry);
	uv_timer_init(loop, &p->pace);
	p->listener.data = p->retry.data = p->pace.data = p;
	r = post_listen(p, error);
	if (r < 0) {
		close_handles(p);
		return r;
	}
	dial(p);
	*ret = p;
	return 0;
}

uint16_t post_port(const struct post *p)
{
	return p->port;
}

struct post_counts post_counts(const struct post *p)
{
	struct post_counts c = p->counts;

	for (unsigned i = 0; i < BACK; i++)
		c.connections += p->place[i].link != NULL;
	c.reachable = p->place[BACK].link && link_is_open(p->place[BACK].link);
	return c;
}

void post_stop(struct post *p)
{
	if (!p)
		return;
	MAGIC_CHECK(p, POST_MAGIC);
	if (p->stopped)
		abort();
	close_handles(p);
	for (unsigned i = 0; i <= BACK; i++)
		if (p->place[i].link)
			link_close(p->place[i].link, "the agent is stopping");
	outbox_flush(p, NULL);
}
