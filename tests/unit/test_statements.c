// SPDX-License-Identifier: Apache-2.0
/*
 * Prepared statements, functions and conditional writes on their way through a real relay, between clusters that give ids of their own: what
 * each side is sent, and by which name the client hears of it.
 */
#include <xxhash.h>

#include "cql/wire.h"
#include "relay/paging.h"
#include "unit/relaytest.h"

static const struct course observe = {.primary = ORIGIN}, mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

#define ID_SIZE 16
#define SEEN_MAX 4096

/* ---- clusters that prepare */

/* What one of the two was sent last, and what it knows. Written by its threads, read once the client has its answer. */
struct seen {
	pthread_mutex_t lock;
	char prepared[8][512]; /* texts, the latest first */
	uint8_t body[SEEN_MAX];
	size_t size;
	uint8_t opcode, flags;
	_Atomic unsigned executed; /* EXECUTE, BATCH, and QUERY of an INSERT */
	_Atomic bool forgotten;    /* everything that was prepared, once */
	char keyspace[64];         /* of the last SELECT */
};
static struct seen seen[SIDES];

static struct seen *seen_by(const struct peer *p)
{
	return &seen[p->cluster == &target ? TARGET : ORIGIN];
}

/* A letter for the cluster, and what follows from the text. */
static void id_of(enum side side, const char *text, uint8_t id[ID_SIZE])
{
	XXH128_hash_t h = XXH3_128bits(text, strlen(text));

	memcpy(id, &h, ID_SIZE);
	id[0] = side == ORIGIN ? 'O' : 'T';
}

static bool knows(struct seen *s, enum side side, struct span id)
{
	uint8_t other[ID_SIZE];

	for (int i = 0; i < 8; i++) {
		id_of(side, s->prepared[i], other);
		if (s->prepared[i][0] && span_equal(id, span_of(other, ID_SIZE)))
			return true;
	}
	return false;
}

/* "?" is a column c, ":name" one of that name; all of type int. */
static ssize_t say_prepared(const struct frame_header *h, enum side side, const char *text, uint8_t *to)
{
	uint8_t body[2048], columns[1024], id[ID_SIZE];
	struct wire_out o = {.to = body, .capacity = sizeof(body)}, c = {.to = columns, .capacity = sizeof(columns)};
	unsigned count = 0;

	for (const char *p = text; *p; p++) {
		size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_0123456789");

		if (*p != '?' && (*p != ':' || n == 0))
			continue;
		out_string(&c, *p == '?' ? span_text("c") : span_of(p + 1, n));
		out_short(&c, TYPE_INT);
		count++;
	}
	id_of(side, text, id);
	out_int(&o, RESULT_PREPARED);
	out_string(&o, span_of(id, ID_SIZE));
	out_int(&o, ROWS_GLOBAL_SPEC);
	out_int(&o, count);
	out_int(&o, 0);
	out_string(&o, span_text("ks"));
	out_string(&o, span_text("t"));
	out_raw(&o, span_of(columns, c.at));
	out_int(&o, ROWS_NO_METADATA);
	out_int(&o, 0);
	return say(h, OP_RESULT, body, o.at, to);
}

static ssize_t say_applied(const struct frame_header *h, bool applied, uint8_t *to)
{
	uint8_t body[128];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	out_int(&o, RESULT_ROWS);
	out_int(&o, ROWS_GLOBAL_SPEC);
	out_int(&o, 1);
	out_string(&o, span_text("ks"));
	out_string(&o, span_text("t"));
	out_string(&o, span_text("[applied]"));
	out_short(&o, TYPE_BOOLEAN);
	out_int(&o, 1);
	out_int(&o, 1);
	out_byte(&o, applied);
	return say(h, OP_RESULT, body, o.at, to);
}

static ssize_t say_keyspace(const struct frame_header *h, const char *name, uint8_t *to)
{
	return response_write_set_keyspace(h->version, h->stream, span_text(name), to, ROOM);
}

/* The id that is not known, or an empty span. */
static struct span unknown_id(struct seen *s, enum side side, const struct request *r)
{
	struct span cursor = r->batch_children;
	struct batch_child c;

	if (r->opcode == OP_EXECUTE)
		return knows(s, side, r->id) ? span_of(NULL, 0) : r->id;
	while (r->opcode == OP_BATCH && batch_next(r->version, &cursor, &c) > 0)
		if (c.prepared && !knows(s, side, c.text))
			return c.text;
	return span_of(NULL, 0);
}

static ssize_t answer_locked(struct seen *s, enum side side, const struct frame_header *h, const struct request *r, uint8_t *to)
{
	static _Thread_local char bound[64]; /* a thread is a connection */
	struct span unknown;
	char text[512];

	snprintf(text, sizeof(text), "%.*s", (int)r->text.size, (const char *)r->text.data);
	if (h->opcode == OP_PREPARE) {
		if (strstr(text, "{(uuid):"))
			return response_write_error(h->version, h->stream, CQL_INVALID, "bind variables in a literal", to, ROOM);
		memmove(s->prepared[1], s->prepared[0], sizeof(s->prepared) - sizeof(s->prepared[0]));
		memcpy(s->prepared[0], text, sizeof(text));
		return say_prepared(h, side, text, to);
	}
	if (atomic_exchange(&s->forgotten, false))
		memset(s->prepared, 0, sizeof(s->prepared));
	unknown = unknown_id(s, side, r);
	if (unknown.size)
		return response_write_unprepared(h->version, h->stream, unknown, to, ROOM);
	if (sscanf(text, "USE %60s", bound) == 1) {
		char name[64];

		snprintf(name, sizeof(name), "%s", bound + (bound[0] == '"'));
		name[strcspn(name, "\"")] = 0;
		memcpy(bound, name, sizeof(bound));
		return say_keyspace(h, name, to);
	}
	if (strstr(text, "SELECT")) {
		snprintf(s->keyspace, sizeof(s->keyspace), "%s", bound);
		return response_write_void(h->version, h->stream, to, ROOM);
	}
	s->opcode = h->opcode;
	s->flags = h->flags;
	s->size = r->body.size < SEEN_MAX ? r->body.size : SEEN_MAX;
	memcpy(s->body, r->body.data, s->size);
	atomic_fetch_add(&s->executed, 1);
	if (strstr(text, "IF v = 'yes'") || strstr(text, "IF v = 'no'"))
		return say_applied(h, strstr(text, "yes") != NULL, to);
	return response_write_void(h->version, h->stream, to, ROOM);
}

static ssize_t preparing(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct seen *s = seen_by(p);
	struct request r;
	ssize_t n;

	if (h->opcode != OP_PREPARE && h->opcode != OP_EXECUTE && h->opcode != OP_BATCH && h->opcode != OP_QUERY)
		return plain_answer(p, h, body, to);
	if (request_parse(h->version, h->flags, h->opcode, span_of(body, h->length), &r) < 0)
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "malformed", to, ROOM);
	while (h->opcode == OP_QUERY && contains(h, body, "SELECT") && atomic_load(&p->cluster->hold))
		usleep(1000);
	pthread_mutex_lock(&s->lock);
	n = answer_locked(s, s == &seen[TARGET] ? TARGET : ORIGIN, h, &r, to);
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void begin(const struct course *course)
{
	memset(seen, 0, sizeof(seen));
	pthread_mutex_init(&seen[ORIGIN].lock, NULL);
	pthread_mutex_init(&seen[TARGET].lock, NULL);
	cluster_start(&origin, preparing);
	cluster_start(&target, preparing);
	agent_start(1, course);
}

/* ---- a client */

static void client_execute(int fd, struct span id)
{
	uint8_t body[128];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	out_string(&o, id);
	out_short(&o, CL_ONE);
	out_byte(&o, QUERY_VALUES);
	out_short(&o, 1);
	out_long_string(&o, span_text("mine"));
	client_send(fd, OP_EXECUTE, 6, body, o.at);
}

/* The statement twice, and a text in between. */
static void put_batch(struct wire_out *o, struct span id, const char *text)
{
	out_byte(o, 1);
	out_short(o, 3);
	for (int i = 0; i < 3; i++) {
		out_byte(o, i != 1);
		if (i == 1)
			out_long_string(o, span_text(text));
		else
			out_string(o, id);
		out_short(o, i != 1);
		if (i != 1)
			out_long_string(o, span_text("mine"));
	}
	out_short(o, CL_ONE);
	out_byte(o, 0);
}

static void client_batch(int fd, struct span id, const char *text)
{
	uint8_t body[512];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	put_batch(&o, id, text);
	client_send(fd, OP_BATCH, 6, body, o.at);
}

static void expect_unprepared(int fd, struct span id)
{
	struct frame_header h = {0};
	struct response_error e;

	assert_int_equal(client_receive(fd, &h, answer_body), OP_ERROR);
	assert_int_equal(h.stream, 6);
	assert_int_equal(response_error_parse(span_of(answer_body, h.length), &e), 0);
	assert_int_equal(e.code, CQL_UNPREPARED);
	assert_true(span_equal(e.unprepared_id, id));
}

static struct span id_on(enum side side, const char *text)
{
	static uint8_t id[ID_SIZE];

	id_of(side, text, id);
	return span_of(id, ID_SIZE);
}

static struct request last_request(enum side side)
{
	struct request r;

	assert_int_equal(request_parse(4, seen[side].flags, seen[side].opcode, span_of(seen[side].body, seen[side].size), &r), 0);
	return r;
}

/* ---- symptoms */

static const char plain[] = "INSERT INTO ks.t (k) VALUES (?)";

static void a_statement_has_another_id_after_the_switch(void **unused)
{
	uint8_t first[ID_SIZE], second[ID_SIZE];
	struct span id;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	id = client_prepare(fd, plain, first, ID_SIZE);
	assert_true(span_equal(id, id_on(ORIGIN, plain)));
	change_course(&cut_over);
	client_execute(fd, id);
	expect_unprepared(fd, id);
	assert_true(span_equal(client_prepare(fd, plain, second, ID_SIZE), id));
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(span_equal(last_request(TARGET).id, id_on(TARGET, plain)));
	/* The cluster forgets it: an error that names the cluster's own id is one that no driver understands. */
	atomic_store(&seen[TARGET].forgotten, true);
	client_execute(fd, id);
	expect_unprepared(fd, id);
	assert_true(span_equal(client_prepare(fd, plain, second, ID_SIZE), id));
	client_batch(fd, id, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, 6), OP_RESULT);
	struct request r = last_request(TARGET);
	struct batch_child c;
	assert_int_equal(batch_next(4, &r.batch_children, &c), 1);
	assert_true(span_equal(c.text, id_on(TARGET, plain)));
	atomic_store(&seen[TARGET].forgotten, true);
	client_batch(fd, id, "INSERT INTO ks.t (k) VALUES (1)");
	expect_unprepared(fd, id);
	close(fd);
	agent_stop();
}

static bool both_executed(unsigned count)
{
	return wait_for(&seen[ORIGIN].executed, count) && wait_for(&seen[TARGET].executed, count);
}

/* Where the ids are others it is written anew. */
static void a_batch_loses_tracing_and_payload_after_the_switch(void **unused)
{
	static const struct span payload = {(const uint8_t *)"\0\1\0\1p\0\0\0\2\1\2", 11};
	uint8_t first[ID_SIZE], second[ID_SIZE], envelope[512];
	struct wire_out o = out_begin(envelope, sizeof(envelope));
	struct batch_child c;
	struct request r;
	struct span id;
	ssize_t n;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	id = client_prepare(fd, plain, first, ID_SIZE);
	change_course(&cut_over);
	assert_true(span_equal(client_prepare(fd, plain, second, ID_SIZE), id));
	out_raw(&o, payload);
	put_batch(&o, id, "INSERT INTO ks.t (k) VALUES (1)");
	n = out_end(&o, (struct frame_header){.version = 4, .flags = FRAME_TRACING | FRAME_PAYLOAD, .stream = 6, .opcode = OP_BATCH});
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(both_executed(1));
	assert_int_equal(seen[TARGET].flags, FRAME_TRACING | FRAME_PAYLOAD);
	r = last_request(TARGET);
	assert_true(span_equal(r.payload, payload));
	assert_int_equal(batch_next(4, &r.batch_children, &c), 1);
	assert_true(span_equal(c.text, id_on(TARGET, plain)));
	/* The mirror's is no request of the client's. */
	assert_int_equal(seen[ORIGIN].flags, 0);
	close(fd);
	agent_stop();
}

static void a_page_of_the_other_side(int fd, int16_t stream)
{
	uint8_t body[128];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	out_long_string(&o, span_text("SELECT k FROM t"));
	out_short(&o, CL_ONE);
	out_byte(&o, QUERY_PAGE_SIZE | QUERY_PAGING_STATE);
	out_int(&o, 100);
	out_long_string(&o, span_text(PAGING_TAG "state"));
	client_send(fd, OP_QUERY, stream, body, o.at);
}

/* USE while the other side has a request in flight: its connection stayed in the old keyspace. */
static void use_does_not_reach_a_busy_side(void **unused)
{
	int fd;

	(void)unused;
	begin(&observe);
	fd = client_open();
	client_query(fd, 2, "USE one");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	a_page_of_the_other_side(fd, 3);
	assert_int_equal(expect(fd, 3), OP_RESULT);
	assert_string_equal(seen[TARGET].keyspace, "one");
	atomic_store(&target.hold, true);
	a_page_of_the_other_side(fd, 3);
	usleep(20000); /* it is on its way: the next answer comes from the origin */
	client_query(fd, 2, "USE two");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	a_page_of_the_other_side(fd, 4);
	usleep(20000);
	atomic_store(&target.hold, false);
	assert_int_equal(expect(fd, 3), OP_RESULT);
	assert_int_equal(expect(fd, 4), OP_RESULT);
	assert_string_equal(seen[TARGET].keyspace, "two");
	client_query(fd, 2, "SELECT k FROM t");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	close(fd);
	agent_stop();
}

/* A deletion that came after it has to cover it on both clusters. */
static void a_counter_has_one_timestamp(void **unused)
{
	uint8_t room[ID_SIZE];
	struct span id;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	id = client_prepare(fd, "UPDATE ks.t SET n = n + 1 WHERE k = ?", room, ID_SIZE);
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(both_executed(1));
	struct request a = last_request(ORIGIN), b = last_request(TARGET);
	assert_true(a.params.flags & QUERY_TIMESTAMP);
	assert_true(b.params.flags & QUERY_TIMESTAMP);
	assert_int_equal(a.params.timestamp, b.params.timestamp);
	close(fd);
	agent_stop();
}

/* ---- functions */

static const char now[] = "INSERT INTO ks.t (k, v) VALUES (now(), ?)", now_changed[] = "INSERT INTO ks.t (k, v) VALUES ((timeuuid):cqlferry_0, ?)",
		  in_set[] = "INSERT INTO ks.t (k, v) VALUES (?, {uuid()})";

static void prepared_functions_differ_on_the_two_sides(void **unused)
{
	uint8_t room[ID_SIZE];
	struct span id;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	id = client_prepare(fd, now, room, ID_SIZE);
	/* First the agent's own, then the client's, by whose id it goes on to know it. */
	assert_true(span_equal(id, id_on(ORIGIN, now)));
	assert_string_equal(seen[ORIGIN].prepared[0], now);
	assert_string_equal(seen[ORIGIN].prepared[1], now_changed);
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(both_executed(1));
	struct request a = last_request(ORIGIN), b = last_request(TARGET);
	assert_true(span_equal(a.id, id_on(ORIGIN, now_changed)));
	assert_true(span_equal(b.id, id_on(TARGET, now_changed)));
	assert_int_equal(a.params.values_count, 2);
	assert_int_equal(a.params.values.size, 20 + 8);
	assert_true(span_equal(a.params.values, b.params.values));
	assert_int_equal(a.params.timestamp, b.params.timestamp);

	client_batch(fd, id, "INSERT INTO ks.t (k) VALUES (uuid())");
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(both_executed(2));
	a = last_request(ORIGIN), b = last_request(TARGET);
	for (int i = 0; i < 3; i++) {
		struct batch_child x, y;

		assert_int_equal(batch_next(4, &a.batch_children, &x), 1);
		assert_int_equal(batch_next(4, &b.batch_children, &y), 1);
		assert_true(span_equal(x.values, y.values));
		assert_int_equal(x.values_count, i == 1 ? 0 : 2);
		if (i == 1) {
			assert_true(span_equal(x.text, y.text));
			assert_memory_equal(x.text.data, "INSERT INTO ks.t (k) VALUES ((uuid)", 35);
		}
	}
	/* What the cluster forgot has the client's name. */
	atomic_store(&seen[ORIGIN].forgotten, true);
	client_execute(fd, id);
	expect_unprepared(fd, id);
	assert_true(span_equal(client_prepare(fd, now, room, ID_SIZE), id));
	atomic_store(&seen[ORIGIN].forgotten, true);
	client_batch(fd, id, "INSERT INTO ks.t (k) VALUES (1)");
	expect_unprepared(fd, id);
	close(fd);
	agent_stop();
}

/* Markers are not taken everywhere: then it is executed as text. */
static void functions_in_collections_differ_on_the_two_sides(void **unused)
{
	uint64_t before = metrics_total(METRIC_FUNCTIONS_REPLACED);
	uint8_t room[ID_SIZE];
	struct span id;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	id = client_prepare(fd, in_set, room, ID_SIZE);
	assert_true(span_equal(id, id_on(ORIGIN, in_set)));
	for (unsigned i = 1; i < 3; i++) {
		client_execute(fd, id);
		assert_int_equal(expect(fd, 6), OP_RESULT);
		assert_true(both_executed(i));
		struct request a = last_request(ORIGIN), b = last_request(TARGET);
		assert_int_equal(a.opcode, OP_QUERY);
		assert_memory_equal(a.text.data, "INSERT INTO ks.t (k, v) VALUES (?, {(uuid)", 42);
		assert_true(span_equal(a.text, b.text));
		assert_int_equal(a.params.values_count, 1);
		assert_true(span_equal(a.params.values, b.params.values));
	}
	assert_int_equal(metrics_total(METRIC_FUNCTIONS_REPLACED) - before, 2);
	close(fd);
	agent_stop();
}

static void a_statement_from_before_mirroring(void **unused)
{
	uint8_t room[ID_SIZE];
	struct span id;
	int fd;

	(void)unused;
	begin(&observe);
	fd = client_open();
	id = client_prepare(fd, now, room, ID_SIZE);
	assert_string_equal(seen[ORIGIN].prepared[0], now);
	assert_string_equal(seen[ORIGIN].prepared[1], "");
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(span_equal(last_request(ORIGIN).id, id));
	change_course(&mirroring);
	client_execute(fd, id);
	expect_unprepared(fd, id);
	assert_true(span_equal(client_prepare(fd, now, room, ID_SIZE), id));
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(span_equal(last_request(ORIGIN).id, id_on(ORIGIN, now_changed)));
	/* And when nothing is mirrored any more the client's own is executed again. */
	change_course(&observe);
	client_execute(fd, id);
	assert_int_equal(expect(fd, 6), OP_RESULT);
	assert_true(span_equal(last_request(ORIGIN).id, id));
	close(fd);
	agent_stop();
}

/* Texts that are larger than what is copied leave at once; others behind them in the same read keep their order. */
static void large_texts_with_functions(void **unused)
{
	static uint8_t envelopes[1 << 20];
	static char text[200000];
	uint64_t before = metrics_total(METRIC_FUNCTIONS_REPLACED);
	size_t size = 0;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	for (int16_t i = 0; i < 6; i++) {
		int n = snprintf(text, sizeof(text), "INSERT INTO ks.t (k, v) VALUES (now(), '%0*d')", i % 2 ? 60000 : 5, i);

		size += (size_t)request_write_query(4, i, span_of(text, (size_t)n), CL_ONE, envelopes + size, sizeof(envelopes) - size);
	}
	for (size_t at = 0; at < size;) {
		ssize_t n = send(fd, envelopes + at, size - at, MSG_NOSIGNAL);

		assert_true(n > 0);
		at += (size_t)n;
	}
	for (int16_t i = 0; i < 6; i++)
		assert_int_equal(expect(fd, i), OP_RESULT);
	assert_true(both_executed(6));
	assert_int_equal(metrics_total(METRIC_FUNCTIONS_REPLACED) - before, 6);
	close(fd);
	agent_stop();
}

/* ---- conditional writes */

static void a_write_that_did_not_apply_is_mirrored(void **unused)
{
	uint64_t queued, refused, backlog;
	int fd;

	(void)unused;
	begin(&mirroring);
	fd = client_open();
	queued = metrics_total(METRIC_MIRROR_QUEUED);
	refused = metrics_total(METRIC_MIRROR_REFUSED_BY_PRIMARY);
	backlog = metrics_total(METRIC_MIRROR_BACKLOG);
	client_query(fd, 2, "UPDATE ks.t SET v = 'x' WHERE k = 1 IF v = 'no'");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	assert_int_equal(metrics_total(METRIC_MIRROR_REFUSED_BY_PRIMARY), refused + 1);
	assert_int_equal(metrics_total(METRIC_MIRROR_QUEUED), queued);
	/* Applied: its rows are compared, for which these clusters lack a schema. */
	client_query(fd, 2, "UPDATE ks.t SET v = 'x' WHERE k = 1 IF v = 'yes'");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	assert_int_equal(metrics_total(METRIC_MIRROR_QUEUED), queued + 1);
	/* An answer that does not tell: it may have been applied, and waits for its rows to be compared. */
	client_query(fd, 2, "UPDATE ks.t SET v = 'x' WHERE k = 1 IF EXISTS");
	assert_int_equal(expect(fd, 2), OP_RESULT);
	assert_int_equal(metrics_total(METRIC_MIRROR_QUEUED), queued + 1);
	assert_int_equal(metrics_total(METRIC_MIRROR_REFUSED_BY_PRIMARY), refused + 1);
	assert_true(metrics_total(METRIC_MIRROR_BACKLOG) > backlog);
	assert_false(last_request(ORIGIN).params.flags & QUERY_TIMESTAMP);
	close(fd);
	agent_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_statement_has_another_id_after_the_switch),
		cmocka_unit_test(a_batch_loses_tracing_and_payload_after_the_switch),
		cmocka_unit_test(use_does_not_reach_a_busy_side),
		cmocka_unit_test(a_counter_has_one_timestamp),
		cmocka_unit_test(prepared_functions_differ_on_the_two_sides),
		cmocka_unit_test(functions_in_collections_differ_on_the_two_sides),
		cmocka_unit_test(a_statement_from_before_mirroring),
		cmocka_unit_test(large_texts_with_functions),
		cmocka_unit_test(a_write_that_did_not_apply_is_mirrored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
