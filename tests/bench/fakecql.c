// SPDX-License-Identifier: Apache-2.0
/*
 * fakecql - a CQL server that costs next to nothing, so that a benchmark measures what stands before it.
 *
 *   fakecql --listen ADDR:PORT [--threads N] [--auth] [--cluster NAME] [--dc NAME] [--release V] [--counts] [--rows N]
 *
 * N threads, each with its own epoll set and its own SO_REUSEPORT listener. Protocol v3, v4 and v5 (segments
 * from the answer to STARTUP on), no compression. It takes any statement: a SELECT from a table whose name
 * ends in _<bytes> gives one row (k int, v blob of that size), one from system tables gives what faketables.h
 * knows, everything else is a write and gives VOID. Nothing is stored. With --auth any user and password will
 * do.
 * bench.rows has N rows of ten columns, for COPY (fakecopy.h).
 * --counts prints the number of requests of each kind as one JSON line on SIGUSR1 and at the end.
 *
 * One turn of the loop for a connection: one read (into a buffer of the thread, so that an idle connection
 * owns almost nothing) → all frames in it → one write of all answers. Blobs are sent from one shared pattern:
 * the queue of answers is a list of pieces, each a stretch of the connection's own bytes or of the pattern.
 */
#include "fakeanswers.h"

#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	READ_MAX = 256 << 10, /* one read */
	KEEP = 64 << 10,      /* of a longer request only so much is looked at */
};

static bool want_auth, want_counts;
static atomic_int stopping;

/* ------------------------------------------------------------------ requests */
static void request_startup(struct conn *c, const struct frame *f)
{
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, f->stream, want_auth ? OP_AUTHENTICATE : OP_READY);

	if (want_auth)
		put_string(b, "org.apache.cassandra.auth.PasswordAuthenticator");
	frame_end(b, mark);
	answers_close(c);
	c->in.segmented = c->version >= 5;
}

static void request_batch(struct conn *c, const struct frame *f, struct cursor *in)
{
	get8(in);
	for (uint32_t n = get16(in); n-- && !in->bad;) {
		bool by_id = get8(in);
		size_t id_n = by_id ? get16(in) : get32(in);
		const uint8_t *id = get(in, id_n);

		if (by_id && id && (id_n != 16 || !prepared_find(id))) {
			answer_error(c, c->version, f->stream, ERR_UNPREPARED, "Prepared query not found",
				     id_n == 16 ? id : NULL);
			return;
		}
		for (uint32_t values = get16(in); values-- && !in->bad;) {
			int32_t len = (int32_t)get32(in);

			get(in, len > 0 ? (size_t)len : 0);
		}
	}
	if (in->bad && f->held == f->length) {
		answer_error(c, c->version, f->stream, ERR_PROTOCOL, "truncated BATCH", NULL);
		return;
	}
	count_add(c->worker, COUNT_WRITE);
	answer_void(c, f->stream);
}

static int request(void *arg, const struct frame *f)
{
	struct conn *c = arg;
	struct cursor in = {f->body, f->body + f->held, false};
	struct statement s = {0}, *known;
	struct buf *b;
	size_t mark, n;
	const uint8_t *p;
	char why[128];

	if (f->version < 3 || f->version > 5) {
		snprintf(
		    why, sizeof why,
		    "Invalid or unsupported protocol version (%d); supported versions are (3/v3, 4/v4, 5/v5)",
		    f->version);
		answer_error(c, 5, 0, ERR_PROTOCOL, why, NULL);
		answers_close(c);
		queue_flush(c);
		return -EPROTO;
	}
	c->version = f->version;
	switch (f->opcode) {
	case OP_OPTIONS:
		b = answers(c);
		mark = frame_begin(b, c->version | 0x80, f->stream, OP_SUPPORTED);
		put16(b, 3);
		put_string(b, "CQL_VERSION");
		put16(b, 1);
		put_string(b, "3.4.7");
		put_string(b, "COMPRESSION");
		put16(b, 0);
		put_string(b, "PROTOCOL_VERSIONS");
		put16(b, 3);
		put_string(b, "3/v3");
		put_string(b, "4/v4");
		put_string(b, "5/v5");
		frame_end(b, mark);
		break;
	case OP_STARTUP:
		request_startup(c, f);
		break;
	case OP_AUTH_RESPONSE:
		b = answers(c);
		mark = frame_begin(b, c->version | 0x80, f->stream, OP_AUTH_SUCCESS);
		put32(b, 0xFFFFFFFF);
		frame_end(b, mark);
		break;
	case OP_REGISTER:
		b = answers(c);
		mark = frame_begin(b, c->version | 0x80, f->stream, OP_READY);
		frame_end(b, mark);
		break;
	case OP_QUERY:
		count_add(c->worker, COUNT_QUERY);
		n = get32(&in);
		n = n < (size_t)(in.end - in.p) ? n : (size_t)(in.end - in.p);
		statement_read(&s, in.p, n);
		statement_run(c, f->stream, &s, false);
		free(s.text);
		break;
	case OP_PREPARE:
		count_add(c->worker, COUNT_PREPARE);
		n = get32(&in);
		p = get(&in, n);
		known = p ? prepared_add(p, n) : NULL;
		if (known && copy_mentions(known->text))
			copy_prepared(c, f->stream, known->id, known->kind == KIND_COPY);
		else if (known)
			answer_prepared(c, f->stream, known);
		else
			answer_error(c, c->version, f->stream, ERR_INVALID,
				     "statement too long, or too many prepared", NULL);
		break;
	case OP_EXECUTE:
		count_add(c->worker, COUNT_EXECUTE);
		p = get_short_bytes(&in, &n);
		known = p && n == 16 ? prepared_find(p) : NULL;
		if (!known) {
			answer_error(c, c->version, f->stream, ERR_UNPREPARED, "Prepared query not found",
				     n == 16 ? p : NULL);
			break;
		}
		if (c->version >= 5)
			get_short_bytes(&in, &n);
		if (known->kind == KIND_COPY) {
			count_add(c->worker, COUNT_READ);
			copy_page(c, f->stream, &in);
			break;
		}
		get16(&in); /* consistency */
		statement_run(c, f->stream, known, (c->version >= 5 ? get32(&in) : get8(&in)) & 2);
		break;
	case OP_BATCH:
		count_add(c->worker, COUNT_BATCH);
		request_batch(c, f, &in);
		break;
	default:
		answer_error(c, c->version, f->stream, ERR_PROTOCOL, "unknown opcode", NULL);
	}
	return 0;
}

/* ------------------------------------------------------------------ connections and the loop */
static void conn_close(struct conn *c)
{
	close(c->fd);
	deframer_done(&c->in);
	buf_free(&c->own);
	free(c->pieces);
	free(c->keyspace);
	free(c);
}

static void conn_interest(struct conn *c, bool paused, bool want_write)
{
	struct epoll_event ev = {.events = (paused ? 0u : EPOLLIN) | (want_write ? EPOLLOUT : 0u),
				 .data.ptr = c};

	if (c->paused == paused && c->want_write == want_write)
		return;
	c->paused = paused;
	c->want_write = want_write;
	if (epoll_ctl(c->worker->epoll, EPOLL_CTL_MOD, c->fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
}

/* false: the connection is over. */
static bool conn_turn(struct conn *c, uint32_t events)
{
	int err;

	if (events & EPOLLIN) {
		ssize_t n = recv(c->fd, c->worker->read, READ_MAX, 0);

		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0) {
			err = deframer_feed(&c->in, c->worker->read, (size_t)n);
			c->worker->frames.n *= !err;
			if (err)
				return false;
			answers_close(c);
		}
	} else if (events & (EPOLLERR | EPOLLHUP)) {
		return false;
	}
	err = queue_flush(c);
	if (err && err != -EAGAIN)
		return false;
	conn_interest(c, c->queued > QUEUE_MAX, c->queued);
	return true;
}

static void accept_all(struct worker *w)
{
	int fd, one = 1;

	while ((fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = calloc(1, sizeof *c);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

		if (!c)
			die("out of memory");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		c->fd = fd;
		c->worker = w;
		c->version = 4;
		c->in.keep = KEEP;
		c->in.on_frame = request;
		c->in.arg = c;
		if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev))
			die("epoll_ctl: %s", strerror(errno));
	}
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct epoll_event events[64];

	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		int n = epoll_wait(w->epoll, events, 64, 500);

		for (int i = 0; i < n; i++)
			if (!events[i].data.ptr)
				accept_all(w);
			else if (!conn_turn(events[i].data.ptr, events[i].events))
				conn_close(events[i].data.ptr);
	}
	return NULL;
}

static void worker_init(struct worker *w, const struct sockaddr *sa, socklen_t len)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int one = 1;

	w->read = malloc(READ_MAX);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->listener = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (!w->read || w->epoll < 0 || w->listener < 0)
		die("cannot set a worker up: %s", strerror(errno));
	setsockopt(w->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(w->listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(w->listener, sa, len) || listen(w->listener, 4096))
		die("cannot listen on %s port %d: %s", node.address, node.port, strerror(errno));
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->listener, &ev))
		die("epoll_ctl: %s", strerror(errno));
}

static void counts_print(const struct worker *workers, int threads)
{
	printf("{");
	for (int k = 0; k < COUNTS; k++) {
		uint64_t sum = 0;

		for (int i = 0; i < threads; i++)
			sum += atomic_load_explicit(&workers[i].counts[k], memory_order_relaxed);
		printf("%s\"%s\":%llu", k ? "," : "", count_names[k], (unsigned long long)sum);
	}
	printf("}\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"listen", 1, 0, 'l'}, {"threads", 1, 0, 't'}, {"auth", 0, 0, 'a'},	  {"cluster", 1, 0, 'c'},
	    {"dc", 1, 0, 'd'},	   {"release", 1, 0, 'r'}, {"counts", 0, 0, 'n'}, {"rows", 1, 0, 'R'}, {0}};
	struct sockaddr_in6 sa6 = {.sin6_family = AF_INET6};
	struct sockaddr_in sa4 = {.sin_family = AF_INET};
	struct rlimit files;
	struct worker *workers;
	pthread_t *threads;
	int n = 1, opt, sig;
	char *colon;
	sigset_t set;
	bool v4;

	node = (struct fake_node){
	    .address = "127.0.0.1", .port = 9042, .cluster = "fake", .datacenter = "dc1", .release = "5.0.9"};
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 'l':
			colon = strrchr(optarg, ':');
			if (!colon)
				die("--listen wants ADDR:PORT, not '%s'", optarg);
			*colon = 0;
			node.address = optarg;
			node.port = (int)strtol(colon + 1, NULL, 10);
			break;
		case 't':
			n = (int)strtol(optarg, NULL, 10);
			break;
		case 'a':
			want_auth = true;
			break;
		case 'c':
			node.cluster = optarg;
			break;
		case 'd':
			node.datacenter = optarg;
			break;
		case 'r':
			node.release = optarg;
			break;
		case 'n':
			want_counts = true;
			break;
		case 'R':
			copy_rows = strtoull(optarg, NULL, 10);
			break;
		default:
			die("usage: fakecql --listen ADDR:PORT [--threads N] [--auth] [--cluster NAME] [--dc "
			    "NAME] [--release V] "
			    "[--counts] [--rows N]");
		}
	v4 = inet_pton(AF_INET, node.address, &sa4.sin_addr) == 1;
	if ((!v4 && inet_pton(AF_INET6, node.address, &sa6.sin6_addr) != 1) || n < 1 || n > 64)
		die("--listen wants a numeric address, --threads 1 to 64");
	sa4.sin_port = sa6.sin6_port = htons((uint16_t)node.port);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	wire_init();
	node_init();
	copy_init();
	pattern = malloc(PATTERN + SEGMENT_MAX);
	workers = calloc((size_t)n, sizeof *workers);
	threads = calloc((size_t)n, sizeof *threads);
	if (!pattern || !workers || !threads)
		die("out of memory");
	for (uint32_t i = 0, x = 1; i < PATTERN; i++) {
		x = x * 1664525 + 1013904223;
		pattern[i] = (uint8_t)(x >> 24);
	}
	memcpy(pattern + PATTERN, pattern, SEGMENT_MAX);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < n; i++)
		worker_init(&workers[i], v4 ? (struct sockaddr *)&sa4 : (struct sockaddr *)&sa6,
			    v4 ? sizeof sa4 : sizeof sa6);
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, worker_run, &workers[i]))
			die("cannot start a thread");
	while (!sigwait(&set, &sig) && sig == SIGUSR1)
		if (want_counts)
			counts_print(workers, n);
	atomic_store(&stopping, 1);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (want_counts)
		counts_print(workers, n);
	return 0;
}
