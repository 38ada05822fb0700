// SPDX-License-Identifier: Apache-2.0
/*
 * The migration service's protocol over real sockets: this thread plays the service, with one listener
 * (MIGRATION_PORT) and connections to the agent's port, while the loop turns. The phases are played as well:
 * a move is kept until the test ends it. Each wait has a deadline and waits for the event itself.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/service.h"
#include "migrate/update.h"

#define DEADLINE_NS (10ull * 1000000000)
#define FAILURE_MS 200
#define FRAME_MS 1000 /* the largest message takes 0.3 s under the thread sanitizer */

struct fixture {
	uv_loop_t loop;
	struct service *service;
	struct service_options options;
	int listener, back; /* MIGRATION_PORT, and the agent's connection to it */
	char directory[32];
	/* the agent that is played */
	enum phase phase;
	unsigned served, stopped, moves;
	int serve_result;
	int hold_result;
	char holds[512]; /* what was asked for, one after the other */
	struct phase_listener move, clear;
	unsigned cleared;
	enum phase asked;
	char who[80];
};

static int on_serve(void *context, struct error *error)
{
	struct fixture *f = context;

	if (f->serve_result < 0)
		return error_set(error, f->serve_result, "no such luck");
	f->served++;
	return 0;
}

static enum phase on_phase(void *context)
{
	return ((struct fixture *)context)->phase;
}

static void on_move(void *context, const struct phase_request *request, const struct phase_listener *listener)
{
	struct fixture *f = context;

	assert_null(f->move.done);
	assert_false(request->force || request->plan);
	assert_true(request->timeout_ms > 0);
	snprintf(f->who, sizeof(f->who), "%s", request->who);
	f->move = *listener;
	f->asked = request->to;
	f->moves++;
}

static void move_ends(struct fixture *f, const char *error, const char *hint)
{
	struct phase_listener l = f->move;

	assert_non_null(l.done);
	f->move = (struct phase_listener){0};
	if (!error)
		f->phase = f->asked;
	l.done(l.context, error, hint);
}

static void on_clear(void *context, const struct phase_listener *listener)
{
	struct fixture *f = context;

	assert_null(f->clear.done);
	f->clear = *listener;
	f->cleared++;
}

static void clear_ends(struct fixture *f, const char *error, const char *hint)
{
	struct phase_listener l = f->clear;

	assert_non_null(l.done);
	f->clear = (struct phase_listener){0};
	l.done(l.context, error, hint);
}

static int on_hold(void *context, const struct migration_table *tables, size_t count, struct error *error)
{
	struct fixture *f = context;
	size_t at = strlen(f->holds);

	if (f->hold_result < 0)
		return error_set(error, f->hold_result, "the disk is full");
	for (size_t i = 0; i < count; i++)
		at += (size_t)snprintf(f->holds + at, sizeof(f->holds) - at, "%s.%s %d;", tables[i].keyspace, tables[i].name,
				       tables[i].step);
	return 0;
}

static void on_stop(void *context)
{
	((struct fixture *)context)->stopped++;
}

static void fixture_start_with(struct fixture *f, void (*clear)(void *context, const struct phase_listener *listener))
{
	struct service_hooks hooks = {
	    .serve = on_serve, .phase = on_phase, .move = on_move, .clear = clear, .hold = on_hold, .stop = on_stop, .context = f};
	struct error error;

	if (service_start(&f->loop, &f->options, &hooks, &f->service, &error) < 0)
		fail_msg("%s", error.text);
}

static void fixture_start(struct fixture *f)
{
	fixture_start_with(f, NULL);
}

static void fixture_stop(struct fixture *f)
{
	service_stop(f->service);
	f->service = NULL;
	uv_run(&f->loop, UV_RUN_DEFAULT); /* ends when nothing of it is left */
}

static int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->back = -1;
	f->phase = PHASE_MIRROR;
	snprintf(f->directory, sizeof(f->directory), "/tmp/test-service-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	uv_loop_init(&f->loop);
	f->options = (struct service_options){.post = {.service_host = "127.0.0.1",
						       .proxy_host = "127.0.0.1",
						       .frame_ms = FRAME_MS,
						       .failure_ms = FAILURE_MS},
					      .state_directory = ""};
	f->listener = listen_somewhere(&f->options.post.service_port);
	fixture_start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[64];

	if (f->service)
		fixture_stop(f);
	assert_int_equal(uv_loop_close(&f->loop), 0); /* nothing of it is left */
	snprintf(path, sizeof(path), "%s/migration.json", f->directory);
	unlink(path);
	assert_int_equal(rmdir(f->directory), 0);
	if (f->back >= 0)
		close(f->back);
	if (f->listener >= 0)
		close(f->listener);
	free(f);
	return 0;
}

#define UNTIL(f, condition)                                                             \
	for (uint64_t until_ = clock_now_ns() + DEADLINE_NS; !(condition);) {           \
		if (clock_now_ns() > until_)                                            \
			fail_msg("line %d: %s has not happened", __LINE__, #condition); \
		uv_run(&(f)->loop, UV_RUN_NOWAIT);                                      \
	}

static void turn(struct fixture *f, unsigned ms)
{
	uint64_t end = clock_now_ns() + ms * 1000000ull;

	do
		uv_run(&f->loop, UV_RUN_NOWAIT);
	while (clock_now_ns() < end);
}

/* With a receive buffer of `room` bytes; 0 = the system's. */
static int client_open_with(const struct fixture *f, int room)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				.sin_port = htons(service_port(f->service))};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (room)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static int client_open(const struct fixture *f)
{
	return client_open_with(f, 0);
}

/* The agent's connection to MIGRATION_PORT. */
static int back_accept(struct fixture *f)
{
	UNTIL(f, (f->back = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
	return f->back;
}

/* The IDs of a test are numbers. */
static const char *id_of(unsigned n)
{
	static char id[2][UPDATE_ID_SIZE];
	static unsigned next;
	char *to = id[next++ % 2];

	snprintf(to, UPDATE_ID_SIZE, "%08x-f698-11e6-8dd4-cb9ced3df976", n);
	return to;
}

static size_t update_make(uint8_t *to, size_t room, unsigned id, enum update_type type, const char *data)
{
	struct update u = {.type = type, .data = (uint8_t *)data, .data_size = data ? strlen(data) : 0};
	uint8_t *bytes;
	size_t size;

	memcpy(u.id, id_of(id), sizeof(u.id));
	assert_int_equal(update_write(&u, &bytes, &size), 0);
	assert_true(size <= room);
	memcpy(to, bytes, size);
	free(bytes);
	return size;
}

static void client_send(int fd, unsigned id, enum update_type type, const char *data)
{
	uint8_t bytes[4096];
	size_t size = update_make(bytes, sizeof(bytes), id, type, data);

	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

/* Loop turns until `fd` gave `size` bytes (true) or its end (false). */
static bool client_read(struct fixture *f, int fd, uint8_t *to, size_t size)
{
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;
	size_t used = 0;

	while (used < size) {
		ssize_t n = recv(fd, to + used, size - used, 0);

		if (n > 0)
			used += (size_t)n;
		else if (n == 0 || errno == ECONNRESET)
			return false;
		else
			assert_int_equal(errno, EAGAIN);
		if (clock_now_ns() > deadline)
			fail_msg("no answer within the deadline");
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	return true;
}

static void client_update(struct fixture *f, int fd, struct update *ret)
{
	uint8_t bytes[4096];
	char id[UPDATE_ID_SIZE];
	struct error error;
	struct span body;
	size_t size;

	assert_true(client_read(f, fd, bytes, UPDATE_HEADER_SIZE));
	size = (size_t)bytes[2] << 8 | bytes[3];
	assert_true(size < sizeof(bytes) - UPDATE_HEADER_SIZE && !bytes[0] && !bytes[1]);
	assert_true(client_read(f, fd, bytes + UPDATE_HEADER_SIZE, size));
	assert_int_equal(update_frame(bytes, UPDATE_HEADER_SIZE + size, &body), UPDATE_HEADER_SIZE + size);
	assert_int_equal(update_parse(body, ret, id, &error), 0);
}

/* `why` NULL: Success. */
static void expect(struct fixture *f, int fd, unsigned id, const char *why)
{
	struct update u;

	client_update(f, fd, &u);
	assert_null(u.data);
	assert_string_equal(u.id, id ? id_of(id) : UPDATE_ID_NONE);
	assert_int_equal(u.type, why ? UPDATE_FAILURE : UPDATE_SUCCESS);
	if (why ? !strstr(u.error, why) : u.error[0] != 0)
		fail_msg("'%s' instead of '%s'", u.error, why ? why : "");
}

static void expect_end(struct fixture *f, int fd)
{
	uint8_t byte;

	assert_false(client_read(f, fd, &byte, 1));
	close(fd);
}

static void expect_nothing(struct fixture *f, int fd, unsigned ms)
{
	uint8_t byte;

	turn(f, ms);
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static json_int_t described(const struct fixture *f, const char *name)
{
	json_t *o = service_describe(f->service), *v = json_object_get(o, name);
	json_int_t n = json_is_boolean(v) ? json_is_true(v) : json_integer_value(v);

	assert_non_null(v);
	json_decref(o);
	return n;
}

static const char schema[] = "{\"Tables\":{\"shop\":{\"orders\":{\"Step\":3},\"items\":{\"Step\":3}}}}";

/* ---------------------------------------------------------------- Start */

static void start_lets_clients_in(void **state)
{
	struct fixture *f = *state;
	int back = back_accept(f), fd;
	char text[300];

	UNTIL(f, described(f, "reachable"))
	assert_true(service_waiting(f->service));
	assert_non_null(strstr(service_reason(f->service, text, sizeof(text)), "waiting for the Start"));
	turn(f, 20);
	assert_int_equal(f->served, 0);
	fd = client_open(f);
	client_send(fd, 1, UPDATE_START, schema);
	expect(f, fd, 1, NULL);
	expect(f, back, 1, NULL); /* where the document has it */
	assert_int_equal(f->served, 1);
	assert_int_equal(described(f, "tables"), 2);
	assert_false(service_waiting(f->service));
	assert_int_equal(f->moves, 0);
	/* Once more, as after the service's own restart, and from elsewhere. */
	close(fd);
	fd = client_open(f);
	client_send(fd, 2, UPDATE_START, "{\"Tables\":{\"shop\":{\"orders\":{\"Step\":3}}}}");
	expect(f, fd, 2, NULL);
	assert_int_equal(f->served, 1);
	assert_int_equal(described(f, "tables"), 1);
	close(fd);
}

static void bad_start_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 1, UPDATE_START, "{\"Tables\":[]}");
	expect(f, fd, 1, "Tables of migration.Status is not a map");
	assert_int_equal(described(f, "malformed"), 1);
	f->serve_result = -EPERM;
	client_send(fd, 2, UPDATE_START, schema);
	expect(f, fd, 2, "no such luck");
	assert_true(service_waiting(f->service));
	assert_int_equal(described(f, "failures"), 2);
	f->serve_result = 0;
	client_send(fd, 3, UPDATE_START, NULL); /* lenient: a schema is of no use yet */
	expect(f, fd, 3, NULL);
	assert_int_equal(f->served, 1);
	close(fd);
}

/* Success lets the service unload: nothing may be unmirrored by then. */
static void start_in_observe_mirrors_first(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	f->phase = PHASE_OBSERVE;
	client_send(fd, 1, UPDATE_START, schema);
	UNTIL(f, f->moves == 1)
	assert_int_equal(f->asked, PHASE_MIRROR);
	assert_non_null(strstr(f->who, "migration service 127.0.0.1:"));
	client_send(fd, 2, UPDATE_START, schema); /* joins */
	client_send(fd, 3, UPDATE_COMPLETE, NULL);
	expect(f, fd, 3, "Start is not done yet");
	assert_int_equal(f->moves, 1);
	move_ends(f, "observe stays: no schema", "create it");
	expect(f, fd, 1, "observe stays: no schema. create it");
	expect(f, fd, 2, "observe stays: no schema. create it");
	client_send(fd, 4, UPDATE_START, schema);
	UNTIL(f, f->moves == 2)
	move_ends(f, NULL, NULL);
	expect(f, fd, 4, NULL);
	assert_int_equal(f->served, 1);
	close(fd);
}

/* What passes by the agent is missing on the target: Success comes when nothing does. */
static void start_waits_for_clients_that_pass_by(void **state)
{
	struct fixture *f = *state;
	int fd;

	fixture_stop(f);
	f->phase = PHASE_OBSERVE;
	fixture_start_with(f, on_clear);
	fd = client_open(f);
	client_send(fd, 1, UPDATE_START, schema);
	UNTIL(f, f->moves == 1)
	assert_int_equal(f->cleared, 0);
	move_ends(f, NULL, NULL);
	assert_int_equal(f->cleared, 1);
	expect_nothing(f, fd, 50);
	client_send(fd, 2, UPDATE_START, schema); /* joins */
	client_send(fd, 3, UPDATE_COMPLETE, NULL);
	expect(f, fd, 3, "clients still pass by it");
	clear_ends(f, "7 connections still pass by", "try again");
	expect(f, fd, 1, "7 connections still pass by. try again");
	expect(f, fd, 2, "7 connections still pass by. try again");
	/* In mirror, too, where nothing is to be moved. */
	client_send(fd, 4, UPDATE_START, schema);
	UNTIL(f, f->cleared == 2)
	assert_int_equal(f->moves, 1);
	clear_ends(f, NULL, NULL);
	expect(f, fd, 4, NULL);
	/* Nobody is there any more when it ends. */
	client_send(fd, 5, UPDATE_START, schema);
	UNTIL(f, f->cleared == 3)
	fixture_stop(f);
	expect_end(f, fd);
	clear_ends(f, "the agent is stopping", NULL);
	/* After the cutover the origin is not unloaded. */
	f->phase = PHASE_CUTOVER;
	fixture_start_with(f, on_clear);
	fd = client_open(f);
	client_send(fd, 6, UPDATE_START, schema);
	expect(f, fd, 6, NULL);
	assert_int_equal(f->cleared, 3);
	close(fd);
}

static void restart(struct fixture *f, enum phase phase)
{
	fixture_stop(f);
	f->phase = phase;
	fixture_start(f);
}

static void a_start_is_remembered(void **state)
{
	struct fixture *f = *state;
	char path[64];
	int fd;
	struct error error;
	struct service *other;
	struct service_hooks hooks = {.phase = on_phase, .context = f};

	f->options.state_directory = f->directory;
	restart(f, PHASE_MIRROR);
	assert_true(service_waiting(f->service));
	/* What cannot be served is not remembered. */
	fd = client_open(f);
	f->serve_result = -EPERM;
	client_send(fd, 1, UPDATE_START, schema);
	expect(f, fd, 1, "no such luck");
	close(fd);
	f->serve_result = 0;
	restart(f, PHASE_MIRROR);
	assert_true(service_waiting(f->service));
	fd = client_open(f);
	client_send(fd, 2, UPDATE_START, schema);
	expect(f, fd, 2, NULL);
	close(fd);
	restart(f, PHASE_OBSERVE);
	assert_false(service_waiting(f->service));
	fixture_stop(f);
	/* Nobody can say what a damaged record said. */
	snprintf(path, sizeof(path), "%s/migration.json", f->directory);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "{\"version\": 2}", 14), 14);
	close(fd);
	assert_int_equal(service_start(&f->loop, &f->options, &hooks, &other, &error), -EINVAL);
	assert_non_null(strstr(error.text, "another version"));
	unlink(path);
	fixture_start(f);
	assert_true(service_waiting(f->service));
}

static void a_start_that_cannot_be_recorded_fails(void **state)
{
	struct fixture *f = *state;
	int fd;

	f->options.state_directory = "/proc/nowhere";
	restart(f, PHASE_MIRROR);
	fd = client_open(f);
	client_send(fd, 1, UPDATE_START, schema);
	expect(f, fd, 1, "cannot make the state directory /proc/nowhere");
	assert_int_equal(f->served, 0);
	assert_true(service_waiting(f->service));
	close(fd);
}

static void no_wait_once_traffic_has_moved(void **state)
{
	static const struct {
		enum phase phase;
		bool waits;
	} table[] = {{PHASE_OBSERVE, true},  {PHASE_MIRROR, true},    {PHASE_DRAIN, true},
		     {PHASE_CUTOVER, false}, {PHASE_ROLLBACK, false}, {PHASE_FINISH, false}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		restart(f, table[i].phase);
		assert_int_equal(service_waiting(f->service), table[i].waits);
	}
	/* Nor where the agent itself knows better than the record. */
	f->options.started = true;
	restart(f, PHASE_MIRROR);
	assert_false(service_waiting(f->service));
}

/* ---------------------------------------------------------------- Complete, Shutdown, TableUpdate */

static int started(struct fixture *f)
{
	int fd = client_open(f);

	client_send(fd, 0xffff, UPDATE_START, schema);
	expect(f, fd, 0xffff, NULL);
	return fd;
}

static void complete_cuts_over_and_finishes(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 1, UPDATE_COMPLETE, schema);
	expect(f, fd, 1, "Complete before Start");
	close(fd);
	fd = started(f);
	client_send(fd, 2, UPDATE_COMPLETE, schema);
	UNTIL(f, f->moves == 1)
	assert_int_equal(f->asked, PHASE_CUTOVER);
	client_send(fd, 3, UPDATE_COMPLETE, NULL); /* joins */
	client_send(fd, 4, UPDATE_START, schema);  /* is no move: answered at once */
	expect(f, fd, 4, NULL);
	move_ends(f, NULL, NULL);
	assert_int_equal(f->moves, 2);
	assert_int_equal(f->asked, PHASE_FINISH);
	expect_nothing(f, fd, 20); /* Success is for what is done */
	move_ends(f, NULL, NULL);
	expect(f, fd, 2, NULL);
	expect(f, fd, 3, NULL);
	client_send(fd, 5, UPDATE_COMPLETE, NULL);
	expect(f, fd, 5, NULL);
	assert_int_equal(f->moves, 2);
	close(fd);
}

static void complete_fails_with_the_reason(void **state)
{
	struct fixture *f = *state;
	int fd = started(f);

	client_send(fd, 1, UPDATE_COMPLETE, NULL);
	UNTIL(f, f->moves == 1)
	move_ends(f, "mirror stays: 3 writers", NULL);
	expect(f, fd, 1, "mirror stays: 3 writers");
	client_send(fd, 2, UPDATE_COMPLETE, NULL);
	UNTIL(f, f->moves == 2)
	move_ends(f, NULL, NULL);
	move_ends(f, "not now", "wait"); /* the way to finish */
	expect(f, fd, 2, "not now. wait");
	/* From where it is. */
	client_send(fd, 3, UPDATE_COMPLETE, NULL);
	UNTIL(f, f->moves == 4)
	assert_int_equal(f->asked, PHASE_FINISH);
	f->asked = PHASE_CUTOVER; /* somebody rolled back meanwhile: no Success */
	move_ends(f, NULL, NULL);
	f->phase = PHASE_FINISH;
	expect(f, fd, 3, "did not reach phase finish");
	close(fd);
}

static void waiting_requests_are_bounded(void **state)
{
	struct fixture *f = *state;
	int fd = started(f);

	for (unsigned i = 1; i <= SERVICE_WAITERS_MAX + 1; i++)
		client_send(fd, i, UPDATE_COMPLETE, NULL);
	expect(f, fd, SERVICE_WAITERS_MAX + 1, "too many requests");
	assert_int_equal(f->moves, 1);
	move_ends(f, "no", NULL);
	for (unsigned i = 1; i <= SERVICE_WAITERS_MAX; i++)
		expect(f, fd, i, "no");
	close(fd);
}

static void answer_finds_a_service_that_hung_up(void **state)
{
	struct fixture *f = *state;
	int back = back_accept(f), fd = started(f);

	expect(f, back, 0xffff, NULL);
	client_send(fd, 1, UPDATE_COMPLETE, NULL);
	UNTIL(f, f->moves == 1)
	close(fd);
	UNTIL(f, described(f, "connections") == 0)
	move_ends(f, "no", NULL);
	expect(f, back, 1, "no");
}

static void answers_wait_for_the_service_to_listen(void **state)
{
	struct fixture *f = *state;
	int fd, spare = f->listener;

	/* Its port is bound and nobody listens: refused. */
	fixture_stop(f);
	f->listener = listen_somewhere(&f->options.post.service_port);
	close(spare);
	close(f->listener);
	fixture_start(f);
	fd = started(f);
	for (unsigned i = 1; i <= SERVICE_WAITERS_MAX; i++) {
		client_send(fd, i, UPDATE_TABLE, "{}");
		expect(f, fd, i, "Keyspace");
	}
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				.sin_port = htons(f->options.post.service_port)};
	int on = 1;
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(f->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(f->listener, 8), 0);
	back_accept(f);
	expect(f, f->back, 0xffff, NULL);
	for (unsigned i = 1; i <= SERVICE_WAITERS_MAX; i++)
		expect(f, f->back, i, "Keyspace");
	assert_int_equal(described(f, "dropped"), 0);
	close(fd);
}

static void the_outbox_is_bounded(void **state)
{
	struct fixture *f = *state;
	int fd;

	close(f->listener);
	f->listener = -1;
	fixture_stop(f);
	fixture_start(f);
	fd = started(f);
	for (unsigned i = 1; i < POST_OUTBOX_MAX + 5; i++) {
		client_send(fd, i, UPDATE_START, NULL);
		expect(f, fd, i, NULL);
	}
	assert_int_equal(described(f, "dropped"), 5);
	close(fd);
}

static void a_service_has_a_name(void **state)
{
	struct fixture *f = *state;

	close(back_accept(f));
	fixture_stop(f);
	f->options.post.service_host = "no-such-host.invalid";
	fixture_start(f);
	turn(f, 20);
	fixture_stop(f); /* with a look-up under way, or over */
	assert_int_equal(accept(f->listener, NULL, NULL), -1);
	f->options.post.service_host =
	    "localhost"; /* ::1 is refused: the next attempt takes the next address */
	fixture_start(f);
	back_accept(f);
}

/* Requests may come by the connection that the agent made: one answer, there. */
static void the_other_way_round(void **state)
{
	struct fixture *f = *state;
	int back = back_accept(f);

	client_send(back, 1, UPDATE_START, schema);
	expect(f, back, 1, NULL);
	assert_int_equal(f->served, 1);
	expect_nothing(f, back, 20);
}

static void shutdown_stops_after_the_answer(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 1, UPDATE_SHUTDOWN, NULL);
	UNTIL(f, f->stopped == 1)
	fixture_stop(f); /* as the agent does; the answer is out */
	expect(f, fd, 1, NULL);
	expect_end(f, fd);
}

static void table_updates_hold_and_release(void **state)
{
	static const struct {
		const char *data, *why, *holds;
	} table[] = {
	    {"{\"Keyspace\":\"shop\",\"Name\":\"orders\",\"Step\":4}", NULL, "shop.orders 4;"},
	    {"{\"Keyspace\":\"shop\",\"Name\":\"orders\",\"Step\":8}", NULL, "shop.orders 8;"},
	    {"{\"Keyspace\":\"shop\",\"Name\":\"none\",\"Step\":4}",
	     "table shop.none is not in the Start's list", ""},
	    {"{\"Keyspace\":\"shop\",\"Name\":\"orders\",\"Step\":12}", "Step of shop.orders is not one of", ""},
	    {NULL, "without a migration.Table", ""},
	};
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 99, UPDATE_TABLE, table[0].data);
	expect(f, fd, 99, "TableUpdate before Start");
	assert_string_equal(f->holds, "");
	close(fd);
	fd = started(f);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		f->holds[0] = 0;
		client_send(fd, (unsigned)i + 1, UPDATE_TABLE, table[i].data);
		expect(f, fd, (unsigned)i + 1, table[i].why);
		assert_string_equal(f->holds, table[i].holds);
	}
	assert_int_equal(described(f, "malformed"), 2);
	/* What could not be put on record is not confirmed: the service would unload. */
	f->hold_result = -ENOSPC;
	client_send(fd, 50, UPDATE_TABLE, table[0].data);
	expect(f, fd, 50, "the disk is full");
	close(fd);
}

static uint64_t waiting_writes(void *context, const char *keyspace, const char *table)
{
	return !strcmp(keyspace, "shop") && !strcmp(table, "orders") ? *(uint64_t *)context : 0;
}

/* So that the service can take the table first for which most waits. */
static void the_service_hears_of_backlogs(void **state)
{
	static const struct {
		uint64_t waiting;
		bool told;
	} steps[] = {{0, false}, {10, true}, {12, false}, {16, true}, {3, true}, {3, false}, {0, true}, {0, false}};
	struct fixture *f = *state;
	int back = back_accept(f), fd = started(f);

	expect(f, back, 0xffff, NULL);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		uint64_t waiting = steps[i].waiting;
		struct migration_table t;
		struct error error;
		struct update u;

		service_backlog(f->service, waiting_writes, &waiting);
		if (!steps[i].told)
			continue;
		client_update(f, back, &u);
		assert_int_equal(u.type, UPDATE_TABLE);
		assert_int_equal(strlen(u.id), UPDATE_ID_SIZE - 1);
		assert_int_equal(table_parse(span_of(u.data, u.data_size), &t, &error), 0);
		assert_string_equal(t.name, "orders");
		assert_int_equal(t.priority, waiting);
		update_done(&u);
	}
	expect_nothing(f, back, 50);
	close(fd);
}

/* The document's ancestor sends again at once what failed. */
static void what_fails_again_is_answered_later(void **state)
{
	static const char data[] = "{\"Keyspace\":\"shop\",\"Name\":\"orders\",\"Step\":4}";
	struct fixture *f = *state;
	int fd = started(f);
	uint64_t begun;

	f->hold_result = -ENOSPC;

	client_send(fd, 1, UPDATE_TABLE, data);
	expect(f, fd, 1, "the disk is full");
	begun = clock_now_ns();
	client_send(fd, 1, UPDATE_TABLE, data);
	client_send(fd, 2, UPDATE_TABLE, data);
	expect(f, fd, 2, "the disk is full"); /* others do not wait for it */
	expect(f, fd, 1, "the disk is full");
	assert_true(clock_now_ns() - begun >= FAILURE_MS * 1000000ull);
	/* No more than POST_DELAYED_MAX are kept. */
	for (unsigned i = 0; i <= POST_DELAYED_MAX; i++)
		client_send(fd, 1, UPDATE_TABLE, data);
	begun = clock_now_ns();
	expect(f, fd, 1, "the disk is full");
	assert_true(clock_now_ns() - begun < FAILURE_MS * 1000000ull / 2);
	for (unsigned i = 0; i < POST_DELAYED_MAX; i++)
		expect(f, fd, 1, "the disk is full");
	close(fd);
}

static void answers_are_not_answered(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 1, UPDATE_SUCCESS, NULL);
	client_send(fd, 2, UPDATE_FAILURE, NULL);
	UNTIL(f, described(f, "updates") == 2)
	expect_nothing(f, fd, 20);
	client_send(fd, 3, UPDATE_START, NULL);
	expect(f, fd, 3, NULL);
	close(fd);
}

/* ---------------------------------------------------------------- connections */

static void byte_by_byte_and_all_at_once(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[4096];
	int fd = client_open(f);
	size_t size = update_make(bytes, sizeof(bytes), 1, UPDATE_START, schema);

	for (size_t i = 0; i < size; i++) {
		assert_int_equal(send(fd, bytes + i, 1, MSG_NOSIGNAL), 1);
		for (int k = 0; k < 3; k++)
			uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	expect(f, fd, 1, NULL);
	size = 0;
	for (unsigned i = 2; i < 12; i++)
		size += update_make(bytes + size, sizeof(bytes) - size, i, UPDATE_START, NULL);
	assert_int_equal(send(fd, bytes, size - 3, MSG_NOSIGNAL), size - 3);
	for (unsigned i = 2; i < 11; i++)
		expect(f, fd, i, NULL);
	assert_int_equal(send(fd, bytes + size - 3, 3, MSG_NOSIGNAL), 3);
	expect(f, fd, 11, NULL);
	close(fd);
}

static void malformed_messages(void **state)
{
	static const char text[] = "\0\0\0\x0fhello, service!";
	struct fixture *f = *state;
	int fd = client_open(f);

	assert_int_equal(send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL), sizeof(text) - 1);
	expect(f, fd, 0, "not JSON");
	client_send(fd, 1, UPDATE_START, NULL); /* the stream is sound */
	expect(f, fd, 1, NULL);
	/* A length that cannot be: no way on, but the answer arrives although there is more behind it. */
	assert_int_equal(send(fd,
			      "\xff\xff\xff\xff"
			      "GET / HTTP/1.1\r\n\r\n",
			      22, MSG_NOSIGNAL),
			 22);
	expect(f, fd, 0, "length");
	expect_end(f, fd);
	fd = client_open(f);
	assert_int_equal(send(fd, "\0\0\0\0", 4, MSG_NOSIGNAL), 4);
	expect(f, fd, 0, "length");
	expect_end(f, fd);
	assert_int_equal(described(f, "malformed"), 3);
	UNTIL(f, described(f, "connections") == 0)
}

static void a_large_message(void **state)
{
	struct fixture *f = *state;
	size_t size = UPDATE_MAX, sent = 0;
	uint8_t *bytes = malloc(UPDATE_HEADER_SIZE + size);
	int n, fd = client_open(f);

	memset(bytes, ' ', UPDATE_HEADER_SIZE + size);
	memcpy(bytes, "\x01\0\0\0", 4);
	n = snprintf((char *)bytes + 4, 200, "{\"ID\":\"%s\",\"Type\":1}", id_of(7));
	bytes[4 + n] = ' ';
	while (sent < UPDATE_HEADER_SIZE + size) {
		ssize_t k = send(fd, bytes + sent, UPDATE_HEADER_SIZE + size - sent, MSG_NOSIGNAL);

		if (k > 0)
			sent += (size_t)k;
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	expect(f, fd, 7, NULL);
	close(fd);
	free(bytes);
}

static void a_message_must_end_in_time(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);
	uint64_t begun = clock_now_ns();

	assert_int_equal(send(fd, "\0\0\x01\0{", 5, MSG_NOSIGNAL), 5);
	expect_end(f, fd);
	assert_true(clock_now_ns() - begun >= FRAME_MS * 1000000ull / 2);
	/* Between messages there is no hurry. */
	fd = client_open(f);
	expect_nothing(f, fd, 2 * FRAME_MS);
	client_send(fd, 1, UPDATE_START, NULL);
	expect(f, fd, 1, NULL);
	expect_nothing(f, fd, 2 * FRAME_MS);
	close(fd);
}

static void half_close(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f);

	client_send(fd, 1, UPDATE_START, NULL);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect(f, fd, 1, NULL);
	expect_end(f, fd);
	UNTIL(f, described(f, "connections") == 0)
}

static void too_many_connections(void **state)
{
	struct fixture *f = *state;
	int fd[POST_LINKS_MAX], more;

	for (unsigned i = 0; i < POST_LINKS_MAX; i++) {
		fd[i] = client_open(f);
		UNTIL(f, described(f, "connections") == i + 1)
	}
	more = client_open(f);
	expect(f, more, 0, "too many connections: 4 are allowed");
	expect_end(f, more);
	assert_int_equal(described(f, "refused"), 1);
	close(fd[2]);
	UNTIL(f, described(f, "connections") == POST_LINKS_MAX - 1)
	fd[2] = client_open(f);
	for (unsigned i = 0; i < POST_LINKS_MAX; i++) {
		client_send(fd[i], i + 1, UPDATE_START, NULL);
		expect(f, fd[i], i + 1, NULL);
		close(fd[i]);
	}
}

/* Answers that nobody reads are dropped; the agent neither grows nor stops listening to that connection. */
static void a_service_that_does_not_read(void **state)
{
	struct fixture *f = *state;
	int fd;
	uint8_t bytes[128];
	size_t size = update_make(bytes, sizeof(bytes), 1, UPDATE_START, NULL);
	uint64_t deadline = clock_now_ns() + DEADLINE_NS;

	/* Nor does anybody read at MIGRATION_PORT: either way fills some time. */
	fd = client_open_with(f, 4096);
	UNTIL(f, described(f, "connections") == 1)
	while (described(f, "dropped") <= 2 * POST_OUTBOX_MAX) {
		size_t at = 0;

		while (at < size && clock_now_ns() < deadline) {
			ssize_t n = send(fd, bytes + at, size - at, MSG_NOSIGNAL);

			if (n > 0)
				at += (size_t)n;
			if (n < 0 || at == size)
				uv_run(&f->loop, UV_RUN_NOWAIT);
		}
		if (clock_now_ns() > deadline)
			fail_msg("after %lld updates %lld answers were dropped",
				 (long long)described(f, "updates"), (long long)described(f, "dropped"));
	}
	assert_int_equal(described(f, "connections"), 1);
	assert_int_equal(f->served, 1);
	close(fd);
}

static void a_port_in_use_is_named(void **state)
{
	struct fixture *f = *state;
	struct service_hooks hooks = {.phase = on_phase, .context = f};
	struct service_options o = f->options;
	struct service *other = NULL;
	struct error error;

	o.post.proxy_port = service_port(f->service);
	assert_int_equal(service_start(&f->loop, &o, &hooks, &other, &error), -EADDRINUSE);
	assert_non_null(strstr(error.text, "migration.proxyPort (PROXY_PORT)"));
	o.post.proxy_host = "192.0.2.1";
	o.post.proxy_port = 0;
	assert_int_equal(service_start(&f->loop, &o, &hooks, &other, &error), -EADDRNOTAVAIL);
	assert_non_null(strstr(error.text, "192.0.2.1"));
	assert_null(other);
	/* A name that is not ours is that of a Service in front of us. */
	o.post.proxy_host = "no-such-host.invalid";
	assert_int_equal(service_start(&f->loop, &o, &hooks, &other, &error), 0);
	service_stop(other);
}

static void stopping_with_a_move_under_way(void **state)
{
	struct fixture *f = *state;
	int fd = started(f);

	client_send(fd, 1, UPDATE_COMPLETE, NULL);
	UNTIL(f, f->moves == 1)
	fixture_stop(f);
	expect_end(f, fd);
	move_ends(f, NULL, NULL); /* nobody is there any more */
	assert_int_equal(f->moves, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(start_lets_clients_in),
	    TEST(bad_start_is_refused),
	    TEST(start_in_observe_mirrors_first),
	    TEST(start_waits_for_clients_that_pass_by),
	    TEST(a_start_is_remembered),
	    TEST(a_start_that_cannot_be_recorded_fails),
	    TEST(no_wait_once_traffic_has_moved),
	    TEST(complete_cuts_over_and_finishes),
	    TEST(complete_fails_with_the_reason),
	    TEST(waiting_requests_are_bounded),
	    TEST(answer_finds_a_service_that_hung_up),
	    TEST(answers_wait_for_the_service_to_listen),
	    TEST(the_outbox_is_bounded),
	    TEST(a_service_has_a_name),
	    TEST(the_other_way_round),
	    TEST(shutdown_stops_after_the_answer),
	    TEST(table_updates_hold_and_release),
	    TEST(the_service_hears_of_backlogs),
	    TEST(what_fails_again_is_answered_later),
	    TEST(answers_are_not_answered),
	    TEST(byte_by_byte_and_all_at_once),
	    TEST(malformed_messages),
	    TEST(a_large_message),
	    TEST(a_message_must_end_in_time),
	    TEST(half_close),
	    TEST(too_many_connections),
	    TEST(a_service_that_does_not_read),
	    TEST(a_port_in_use_is_named),
	    TEST(stopping_with_a_move_under_way),
	};

	signal(SIGPIPE, SIG_IGN); /* as the agent does */
	log_threshold = LOG_ERROR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
