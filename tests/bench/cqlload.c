// SPDX-License-Identifier: Apache-2.0
/*
 * cqlload - the benchmark's client: keeps a number of requests in flight and says how long each took.
 *
 *   cqlload --host ADDR:PORT [--protocol 3|4|5] [--op read|write|batch] [--bytes N] [--connections N]
 *           [--inflight N] [--seconds S | --requests N] [--warmup S] [--auth USER:PASS] [--keyspace KS]
 *           [--timestamps] [--batch-size N] [--keys N] [--threads N] [--setup] [--idle N]
 *
 * A closed loop: an answer is followed by the next request of that stream, so with --connections 1 and
 * --inflight 1 the latency is that of one request alone. It is taken from before the write to after the read
 * that brought the answer's last byte, and kept in a histogram with steps under 0.8%. One thread unless told
 * otherwise, no sleeping.
 *
 *   read   SELECT v FROM bench.kv_<bytes> WHERE k = ?       the value's length is checked
 *   write  INSERT INTO bench.kv_<bytes> (k, v) VALUES (?, ?)
 *   batch  a logged BATCH of --batch-size such inserts
 *
 * --setup makes keyspace and table and writes every row that reads ask for (a server that keeps no data takes
 * it as well). --idle opens N connections, shakes hands, prints "idle N", and holds them until SIGTERM or end
 * of standard input. Errors are counted and never hidden: the exit status is 1 if there was one.
 */
#include "loadconn.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static volatile sig_atomic_t interrupted;

static void turn(struct load *l, int timeout)
{
	struct epoll_event events[128];
	int n = epoll_wait(l->epoll, events, 128, timeout);

	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;

		if (c->state != CONN_CLOSED)
			conn_turn(l, c, events[i].events);
	}
}

/* Opens this thread's connections, a bounded number of handshakes at a time. */
static void load_open(struct load *l)
{
	uint64_t deadline = now_ns() + 120ull * 1000000000;

	for (int i = 0; i < l->count || l->opening;) {
		while (i < l->count && l->opening < HANDSHAKES_MAX)
			conn_open(l, &l->conns[l->first + i++]);
		turn(l, 100);
		if (now_ns() > deadline)
			die("%d of %d connections were ready within 120 s: %s", l->ready, l->count,
			    l->first_error);
	}
	if (!l->ready)
		die("no connection to %s could be opened: %s", cfg.host, l->first_error);
}

static void *load_run(void *arg)
{
	struct load *l = arg;
	uint64_t now = now_ns();

	l->begin = now + (uint64_t)(cfg.warmup * 1e9);
	l->end = cfg.requests ? UINT64_MAX : l->begin + (uint64_t)(cfg.seconds * 1e9);
	for (int i = 0; i < l->count; i++) {
		struct conn *c = &l->conns[l->first + i];

		for (int s = 0; c->state == CONN_RUNNING && s < cfg.inflight; s++) {
			c->started[s] = now_ns();
			put_request(c, requests(c), s);
			c->inflight++;
		}
		if (c->state == CONN_RUNNING)
			conn_flush(c);
	}
	while (l->lost < l->count && !interrupted) {
		bool busy = false;

		turn(l, 1000);
		now = now_ns();
		l->stop |= now > l->end;
		for (int i = 0; l->stop && i < l->count; i++)
			busy |=
			    l->conns[l->first + i].state == CONN_RUNNING && l->conns[l->first + i].inflight;
		if (l->stop && !busy)
			break;
		if (!cfg.requests && now > l->end + 10000000000ull) {
			l->errors++;
			snprintf(l->first_error, sizeof l->first_error,
				 "requests without an answer for 10 s");
			break;
		}
	}
	if (now < l->end)
		l->end = now;
	return NULL;
}

/* ------------------------------------------------------------------ --setup: one statement after the other
 */
static void setup_query(struct load *l, struct conn *c, const char *text)
{
	uint64_t errors = l->errors;

	/* Borrows the state before PREPARE: its answer leads back here by way of conn_ready(). */
	c->state = CONN_PREPARE;
	l->opening++;
	put_query(requests(c), text);
	conn_flush(c);
	while (c->state == CONN_PREPARE)
		turn(l, 1000);
	if (l->errors != errors)
		die("--setup: '%s' failed: %s", text, l->first_error);
	l->ready--;
}

static void setup_rows(struct load *l, struct conn *c)
{
	uint64_t errors = l->errors;
	int op = cfg.op, inflight = cfg.inflight;
	size_t mark;

	snprintf(statement, sizeof statement, "INSERT INTO bench.kv_%u (k, v) VALUES (?, ?)", cfg.bytes);
	c->state = CONN_PREPARE;
	l->opening++;
	mark = frame_begin(requests(c), cfg.protocol, 0, OP_PREPARE);
	put_long_string(requests(c), statement);
	if (cfg.protocol >= 5)
		put32(requests(c), 0);
	frame_end(requests(c), mark);
	conn_flush(c);
	while (c->state == CONN_PREPARE)
		turn(l, 1000);
	cfg.op = LOAD_WRITE;
	cfg.inflight = 1;
	l->stop = true; /* so that an answer is not followed by a request */
	for (int key = 0; key < cfg.keys && c->state == CONN_RUNNING; key++) {
		struct buf *b = requests(c);
		size_t at;

		put_request(c, b, 0);
		at = b->n - cfg.bytes - 8; /* the key before <length><value> */
		be32_store(b->p + at, (uint32_t)key);
		c->started[0] = now_ns();
		c->inflight++;
		conn_flush(c);
		while (c->inflight && c->state == CONN_RUNNING)
			turn(l, 1000);
	}
	if (l->errors != errors)
		die("--setup: loading rows of %u bytes failed: %s", cfg.bytes, l->first_error);
	cfg.op = op;
	cfg.inflight = inflight;
}

static void setup(void)
{
	struct load l = {.count = 1,
			 .epoll = epoll_create1(EPOLL_CLOEXEC),
			 .random = 1,
			 .read = malloc(READ_MAX),
			 .end = UINT64_MAX};
	struct conn c = {0};
	int idle = cfg.idle;
	char text[200];

	l.conns = &c;
	l.histogram = calloc(BUCKETS, sizeof *l.histogram);
	cfg.timestamps = false;
	cfg.idle = 1; /* stop after the handshake */
	load_open(&l);
	cfg.idle = idle;
	setup_query(&l, &c,
		    "CREATE KEYSPACE IF NOT EXISTS bench WITH replication = {'class': 'SimpleStrategy', "
		    "'replication_factor': 1}");
	snprintf(text, sizeof text, "CREATE TABLE IF NOT EXISTS bench.kv_%u (k int PRIMARY KEY, v blob)",
		 cfg.bytes);
	setup_query(&l, &c, text);
	setup_rows(&l, &c);
	close(c.fd);
	close(l.epoll);
	deframer_done(&c.in);
	buf_free(&c.out);
	buf_free(&l.frames);
	free(c.started);
	free(l.read);
	free(l.histogram);
}

static void idle_hold(struct load *l)
{
	struct pollfd fds[2] = {{.fd = 0, .events = POLLIN}, {.fd = l->epoll, .events = POLLIN}};
	char byte[64];

	printf("idle %d\n", l->ready);
	fflush(stdout);
	while (!interrupted && poll(fds, 2, 1000) >= 0) {
		if (fds[0].revents && read(0, byte, sizeof byte) <= 0)
			break;
		if (fds[1].revents)
			turn(l, 0);
	}
	if (l->lost)
		fprintf(stderr, "cqlload: %d of %d idle connections were lost: %s\n", l->lost, l->count,
			l->first_error);
}

static void report(struct load *loads)
{
	static const char *const ops[] = {"read", "write", "batch"};
	struct load *t = &loads[0];
	const char *why = t->first_error;
	double seconds = (double)(t->end - t->begin) / 1e9;

	for (int k = 1; k < cfg.threads; k++) {
		struct load *l = &loads[k];

		for (int i = 0; i < BUCKETS; i++)
			t->histogram[i] += l->histogram[i];
		t->measured += l->measured;
		t->done += l->done;
		t->errors += l->errors;
		t->sum += l->sum;
		t->min = l->min < t->min ? l->min : t->min;
		t->max = l->max > t->max ? l->max : t->max;
		why = *why ? why : l->first_error;
	}
	printf("{\"protocol\":%d,\"operation\":\"%s\",\"bytes\":%u,\"connections\":%d,\"inflight\":%d,"
	       "\"seconds\":%.3f,"
	       "\"requests\":%llu,\"requests_total\":%llu,\"errors\":%llu,\"ops_per_s\":%.1f,\"p50_us\":%.2f,"
	       "\"p99_us\":%.2f,"
	       "\"p999_us\":%.2f,\"mean_us\":%.2f,\"min_us\":%.2f,\"max_us\":%.2f}\n",
	       cfg.protocol, ops[cfg.op], cfg.bytes, cfg.connections, cfg.inflight, seconds,
	       (unsigned long long)t->measured, (unsigned long long)t->done, (unsigned long long)t->errors,
	       seconds > 0 ? (double)t->measured / seconds : 0, percentile(t->histogram, t->measured, 0.5),
	       percentile(t->histogram, t->measured, 0.99), percentile(t->histogram, t->measured, 0.999),
	       t->measured ? (double)t->sum / (double)t->measured / 1000 : 0,
	       t->measured ? (double)t->min / 1000 : 0, (double)t->max / 1000);
	if (t->errors)
		fprintf(stderr, "cqlload: %llu errors, the first: %s\n", (unsigned long long)t->errors, why);
}

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	struct load *loads;
	struct conn *conns;
	pthread_t *threads;

	options_parse(argc, argv);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	wire_init();
	value = malloc(cfg.bytes + 1);
	conns = calloc((size_t)cfg.connections, sizeof *conns);
	loads = calloc((size_t)cfg.threads, sizeof *loads);
	threads = calloc((size_t)cfg.threads, sizeof *threads);
	if (!value || !conns || !loads || !threads)
		die("out of memory");
	for (uint32_t i = 0; i < cfg.bytes; i++)
		value[i] = (uint8_t)(i * 2654435761u >> 24);
	if (cfg.setup)
		setup();
	if (cfg.op == LOAD_READ)
		snprintf(statement, sizeof statement, "SELECT v FROM bench.kv_%u WHERE k = ?", cfg.bytes);
	else
		snprintf(statement, sizeof statement, "INSERT INTO bench.kv_%u (k, v) VALUES (?, ?)",
			 cfg.bytes);
	if (cfg.setup && !cfg.seconds)
		return 0;

	for (int k = 0; k < cfg.threads; k++) {
		struct load *l = &loads[k];

		l->conns = conns;
		l->first = cfg.connections * k / cfg.threads;
		l->count = cfg.connections * (k + 1) / cfg.threads - l->first;
		l->epoll = epoll_create1(EPOLL_CLOEXEC);
		l->read = malloc(READ_MAX);
		l->histogram = calloc(BUCKETS, sizeof *l->histogram);
		l->min = UINT64_MAX;
		l->random = 88172645463325252ull + (uint64_t)k * 7919;
		l->limit =
		    cfg.requests ? (cfg.requests + (uint64_t)cfg.threads - 1) / (uint64_t)cfg.threads : 0;
		if (l->epoll < 0 || !l->read || !l->histogram)
			die("out of memory or files");
		load_open(l);
	}
	if (cfg.idle) {
		idle_hold(&loads[0]);
		return loads[0].lost > 0;
	}
	for (int k = 1; k < cfg.threads; k++)
		if (pthread_create(&threads[k], NULL, load_run, &loads[k]))
			die("cannot start a thread");
	load_run(&loads[0]);
	for (int k = 1; k < cfg.threads; k++)
		pthread_join(threads[k], NULL);
	report(loads);
	return loads[0].errors > 0;
}
