// SPDX-License-Identifier: Apache-2.0
/*
 * Keyspaces that a target without v5 does not have, where the mirror's connections have to be bound to one: what has to be in there fails
 * with the cluster's reason, and everything else goes on. Real relay and mirror, clusters that functions here play (relaytest.h).
 */
#include <xxhash.h>

#include "cql/wire.h"
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true};

#define ID_SIZE 16
#define WRITES 20u
#define ATTEMPTS 3u

/* ---- the target: what the connections are bound to counts */

static _Atomic bool missing_there;         /* the keyspace "missing" is */
static _Atomic bool forgotten;             /* everything that was prepared, once */
static _Atomic int reason;                 /* why a keyspace cannot be used */
static _Atomic bool hangs_up;              /* at the next USE */
static _Atomic unsigned uses, refused, delivered, astray, schema, truncated, prepares;
static _Atomic unsigned delivered_before;  /* the last TRUNCATE */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	char text[256], keyspace[64];
} statements[2][16]; /* of the two clusters */
static unsigned count[2];

static void id_of(unsigned side, unsigned index, uint8_t id[ID_SIZE])
{
	XXH128_hash_t h = XXH3_128bits(statements[side][index].text, strlen(statements[side][index].text));

	memcpy(id, &h, ID_SIZE);
	id[0] = "OT"[side];
}

/* No bind variables; no columns. */
static ssize_t say_prepared(unsigned side, const struct frame_header *h, const char *text, const char *bound, uint8_t *to)
{
	uint8_t body[256], id[ID_SIZE];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};
	unsigned i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < count[side] && strcmp(statements[side][i].text, text) != 0; i++)
		;
	if (i == 16)
		abort();
	snprintf(statements[side][i].text, sizeof(statements[side][i].text), "%s", text);
	snprintf(statements[side][i].keyspace, sizeof(statements[side][i].keyspace), "%s", bound);
	count[side] = i == count[side] ? i + 1 : count[side];
	id_of(side, i, id);
	pthread_mutex_unlock(&lock);
	out_int(&o, RESULT_PREPARED);
	out_string(&o, span_of(id, ID_SIZE));
	if (h->version >= 5)
		out_string(&o, span_of(id, ID_SIZE)); /* the result's */
	out_int(&o, 0);
	out_int(&o, 0);
	if (h->version >= 4)
		out_int(&o, 0);
	out_int(&o, ROWS_NO_METADATA);
	out_int(&o, 0);
	return say(h, OP_RESULT, body, o.at, to);
}

static ssize_t did(unsigned side, const struct frame_header *h, const char *text, const char *bound, uint8_t *to)
{
	bool qualified = strstr(text, "other.") || strstr(text, "KEYSPACE");

	if (side == TARGET && !qualified && bound[0] == 0)
		return response_write_error(h->version, h->stream, CQL_INVALID, "no keyspace", to, ROOM);
	/* Each text says in a word where it belongs. */
	if (side == TARGET && !qualified && strstr(text, bound) == NULL)
		atomic_fetch_add(&astray, 1);
	if (side == TARGET && strstr(text, "TRUNCATE"))
		atomic_store(&delivered_before, atomic_load(&delivered));
	if (side == TARGET)
		atomic_fetch_add(strstr(text, "INSERT") ? &delivered : strstr(text, "TRUNCATE") ? &truncated : &schema, 1);
	return response_write_void(h->version, h->stream, to, ROOM);
}

static ssize_t use(unsigned side, const struct frame_header *h, const char *text, char bound[64], uint8_t *to)
{
	char name[64];

	snprintf(name, sizeof(name), "%s", text + (text[4] == '"' ? 5 : 4));
	name[strcspn(name, "\"")] = 0;
	if (side == TARGET) {
		atomic_fetch_add(&uses, 1);
		if (atomic_exchange(&hangs_up, false))
			return -1;
		if (!atomic_load(&missing_there) && strcmp(name, "missing") == 0) {
			atomic_fetch_add(&refused, 1);
			return response_write_error(h->version, h->stream, atomic_load(&reason), "Keyspace 'missing' does not exist", to, ROOM);
		}
	}
	memcpy(bound, name, sizeof(name));
	return response_write_set_keyspace(h->version, h->stream, span_text(name), to, ROOM);
}

static ssize_t execute(unsigned side, const struct frame_header *h, struct span id, uint8_t *to)
{
	char text[256] = "", keyspace[64];
	uint8_t own[ID_SIZE];

	pthread_mutex_lock(&lock);
	if (side == TARGET && atomic_exchange(&forgotten, false))
		count[side] = 0;
	for (unsigned i = 0; i < count[side] && !text[0]; i++) {
		id_of(side, i, own);
		if (!span_equal(id, span_of(own, ID_SIZE)))
			continue;
		memcpy(text, statements[side][i].text, sizeof(text));
		memcpy(keyspace, statements[side][i].keyspace, sizeof(keyspace));
	}
	pthread_mutex_unlock(&lock);
	return text[0] ? did(side, h, text, keyspace, to) : response_write_unprepared(h->version, h->stream, id, to, ROOM);
}

static ssize_t binding(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static _Thread_local char bound[64]; /* a thread is a connection */
	unsigned side = p->cluster == &target ? TARGET : ORIGIN;
	struct batch_child child;
	struct request q;
	char text[256];

	if (h->opcode != OP_PREPARE && h->opcode != OP_EXECUTE && h->opcode != OP_BATCH && h->opcode != OP_QUERY)
		return plain_answer(p, h, body, to);
	if (request_parse(h->version, h->flags, h->opcode, span_of(body, h->length), &q) < 0)
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "malformed", to, ROOM);
	/* A v5 request brings its own. */
	if (span_equal(h->opcode == OP_PREPARE ? q.prepare_keyspace : q.params.keyspace, span_text("missing"))) {
		atomic_fetch_add(&refused, 1);
		return response_write_error(h->version, h->stream, CQL_INVALID, "Keyspace 'missing' does not exist", to, ROOM);
	}
	if (h->opcode == OP_EXECUTE)
		return execute(side, h, q.id, to);
	if (h->opcode == OP_BATCH)
		return batch_next(q.version, &q.batch_children, &child) > 0 && child.prepared ? execute(side, h, child.text, to) : -1;
	snprintf(text, sizeof(text), "%.*s", (int)q.text.size, (const char *)q.text.data);
	if (h->opcode == OP_PREPARE) {
		if (side == TARGET)
			atomic_fetch_add(&prepares, 1);
		return say_prepared(side, h, text, bound, to);
	}
	if (strncmp(text, "USE ", 4) == 0)
		return use(side, h, text, bound, to);
	if (strstr(text, "system"))
		return plain_answer(p, h, body, to);
	return did(side, h, text, bound, to);
}

static uint64_t dead_before;

static void begin(unsigned workers)
{
	atomic_store(&missing_there, false);
	atomic_store(&forgotten, false);
	atomic_store(&hangs_up, false);
	atomic_store(&reason, CQL_INVALID);
	_Atomic unsigned *const counters[] = {&uses, &refused, &delivered, &astray, &schema, &truncated, &prepares};

	for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		atomic_store(counters[i], 0);
	count[ORIGIN] = count[TARGET] = 0;
	dead_before = metrics_total(METRIC_MIRROR_DEAD);
	cluster_start(&origin, binding);
	cluster_start(&target, binding);
	refused_attempts = ATTEMPTS;
	agent_start(workers, &mirroring);
}

static bool dies(unsigned letters)
{
	for (int i = 0; i < 5000 && metrics_total(METRIC_MIRROR_DEAD) < dead_before + letters; i++)
		usleep(1000);
	return metrics_total(METRIC_MIRROR_DEAD) == dead_before + letters;
}

static void end(void)
{
	assert_int_equal(atomic_load(&astray), 0);
	agent_stop();
}

/* ---- a client */

static void ask(int fd, const char *text)
{
	client_query(fd, 3, text);
	assert_int_equal(expect(fd, 3), OP_RESULT);
}

static int open_in(const char *keyspace)
{
	char text[64];
	int fd = client_open();

	snprintf(text, sizeof(text), "USE %s", keyspace);
	ask(fd, text);
	return fd;
}

static void run(int fd, const uint8_t id[ID_SIZE])
{
	uint8_t body[64];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	out_string(&o, span_of(id, ID_SIZE));
	out_short(&o, CL_ONE);
	out_byte(&o, 0);
	client_send(fd, OP_EXECUTE, 6, body, o.at);
	assert_int_equal(expect(fd, 6), OP_RESULT);
}

static void run_batch(int fd, const uint8_t id[ID_SIZE])
{
	uint8_t body[64];
	struct wire_out o = {.to = body, .capacity = sizeof(body)};

	out_byte(&o, 0);
	out_short(&o, 1);
	out_byte(&o, 1);
	out_string(&o, span_of(id, ID_SIZE));
	out_short(&o, 0);
	out_short(&o, CL_ONE);
	out_byte(&o, 0);
	client_send(fd, OP_BATCH, 6, body, o.at);
	assert_int_equal(expect(fd, 6), OP_RESULT);
}

/* ---- */

#define THERE "INSERT INTO t (present) VALUES (1)"
#define NOT_THERE "INSERT INTO t (missing) VALUES (1)"

static void writes_of_a_missing_keyspace_die_and_others_arrive(void **unused)
{
	int bad, good;

	(void)unused;
	begin(1);
	bad = open_in("missing");
	good = open_in("present");
	for (unsigned i = 0; i < WRITES; i++) {
		ask(bad, NOT_THERE);
		ask(good, THERE);
	}
	assert_true(wait_for(&delivered, WRITES));
	assert_true(dies(WRITES));
	/* Not one USE for each of them. */
	assert_true(atomic_load(&refused) > 0 && atomic_load(&refused) < WRITES);
	close(bad);
	close(good);
	end();
}

/* A code that is not looked into with row sync has its attempts, and nobody waits for them. */
static void a_refused_write_is_tried_again(void **unused)
{
	uint64_t retried = metrics_total(METRIC_MIRROR_RETRIED);
	int bad, good;

	(void)unused;
	begin(1);
	atomic_store(&reason, CQL_UNAUTHORIZED);
	bad = open_in("missing");
	good = open_in("present");
	ask(bad, NOT_THERE);
	ask(good, THERE);
	assert_true(wait_for(&delivered, 1));
	assert_true(dies(1));
	assert_int_equal(metrics_total(METRIC_MIRROR_RETRIED), retried + ATTEMPTS - 1);
	close(bad);
	close(good);
	end();
}

/* Nothing was sent: also a counter's update may be tried again, whatever the reason is. */
static void a_write_arrives_once_its_keyspace_is_there(void **unused)
{
	int fd;

	(void)unused;
	begin(1);
	atomic_store(&reason, CQL_SERVER_ERROR);
	fd = open_in("missing");
	ask(fd, "UPDATE t SET missing = missing + 1 WHERE k = 1");
	for (int i = 0; i < 5000 && !atomic_load(&refused); i++)
		usleep(1000);
	atomic_store(&missing_there, true);
	assert_true(wait_for(&schema, 1));
	assert_true(dies(0));
	close(fd);
	end();
}

static void a_qualified_prepared_write_is_delivered(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd;

	(void)unused;
	begin(1);
	fd = open_in("missing");
	client_prepare(fd, "INSERT INTO other.t (k) VALUES (1)", id, ID_SIZE);
	run(fd, id);
	assert_true(wait_for(&delivered, 1));
	run_batch(fd, id);
	assert_true(wait_for(&delivered, 2));
	assert_int_equal(atomic_load(&uses), 0);
	close(fd);
	end();
}

/* Its requests bring their keyspace along, those that need one. */
static void a_newer_target_hears_of_no_keyspace_that_is_not_needed(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd;

	(void)unused;
	speak_v5 = true;
	begin(1);
	fd = open_in("missing");
	client_prepare(fd, "INSERT INTO other.t (k) VALUES (1)", id, ID_SIZE);
	run(fd, id);
	assert_true(wait_for(&delivered, 1));
	ask(fd, "DROP KEYSPACE missing");
	assert_true(wait_for(&schema, 1));
	assert_int_equal(atomic_load(&refused), 0);
	ask(fd, NOT_THERE);
	assert_true(dies(1));
	assert_int_equal(atomic_load(&uses), 0);
	close(fd);
	end();
	speak_v5 = false;
}

static void a_batch_of_statements_prepared_elsewhere_is_delivered(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd;

	(void)unused;
	begin(1);
	fd = open_in("present");
	client_prepare(fd, THERE, id, ID_SIZE);
	ask(fd, "USE missing");
	run_batch(fd, id);
	assert_true(wait_for(&delivered, 1));
	assert_int_equal(atomic_load(&refused), 0);
	close(fd);
	end();
}

static void a_prepared_write_of_a_missing_keyspace_dies(void **unused)
{
	uint8_t bad_id[ID_SIZE], good_id[ID_SIZE];
	int bad, good;

	(void)unused;
	begin(1);
	bad = open_in("missing");
	good = open_in("present");
	client_prepare(bad, NOT_THERE, bad_id, ID_SIZE);
	client_prepare(good, THERE, good_id, ID_SIZE);
	for (unsigned i = 0; i < WRITES; i++) {
		run(bad, bad_id);
		run(good, good_id);
	}
	assert_true(wait_for(&delivered, WRITES));
	assert_true(dies(WRITES));
	assert_int_equal(atomic_load(&prepares), 1);
	close(bad);
	close(good);
	end();
}

static void a_connection_that_is_lost_at_use_costs_nothing(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd;

	(void)unused;
	begin(1);
	fd = open_in("present");
	client_prepare(fd, THERE, id, ID_SIZE);
	atomic_store(&hangs_up, true);
	run(fd, id);
	assert_true(wait_for(&delivered, 1));
	close(fd);
	fd = open_in("present2");
	atomic_store(&hangs_up, true);
	ask(fd, "INSERT INTO t (present2) VALUES (1)");
	assert_true(wait_for(&delivered, 2));
	assert_int_equal(atomic_load(&uses), 4);
	close(fd);
	end();
}

/* It was there when the statement was prepared. */
static void a_write_whose_statement_is_forgotten_dies(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd, good;

	(void)unused;
	begin(1);
	atomic_store(&missing_there, true);
	fd = open_in("missing");
	good = open_in("present");
	client_prepare(fd, NOT_THERE, id, ID_SIZE);
	run(fd, id);
	assert_true(wait_for(&delivered, 1));
	ask(good, THERE);
	assert_true(wait_for(&delivered, 2));
	atomic_store(&missing_there, false);
	atomic_store(&forgotten, true);
	run(fd, id);
	assert_true(dies(1));
	ask(good, "TRUNCATE present_t"); /* it waits for everything before it */
	assert_true(wait_for(&truncated, 1));
	close(fd);
	close(good);
	end();
}

static void a_schema_change_is_not_in_need_of_the_sessions_keyspace(void **unused)
{
	int bad, good;

	(void)unused;
	begin(2);
	bad = open_in("missing");
	good = open_in("present");
	ask(bad, "DROP KEYSPACE missing");
	ask(bad, "CREATE TABLE other.t (k int PRIMARY KEY)");
	ask(good, THERE);
	assert_true(wait_for(&schema, 2));
	assert_true(wait_for(&delivered, 1));
	assert_int_equal(atomic_load(&refused), 0);
	/* The source of a copy is looked for there. */
	ask(good, "CREATE TABLE other.t2 LIKE present");
	assert_true(wait_for(&schema, 3));
	close(bad);
	close(good);
	end();
}

static void a_barrier_in_a_missing_keyspace_lets_the_others_go_on(void **unused)
{
	int bad, good[2];

	(void)unused;
	begin(2);
	bad = open_in("missing");
	good[0] = open_in("present");
	good[1] = open_in("present");
	ask(bad, "CREATE TABLE missing_t (k int PRIMARY KEY)");
	ask(bad, "TRUNCATE missing_t");
	for (int i = 0; i < 2; i++)
		ask(good[i], THERE);
	/* What was written behind it does not overtake it. */
	for (int i = 0; i < 5000 && !atomic_load(&delivered); i++)
		usleep(1000);
	assert_int_equal(metrics_total(METRIC_MIRROR_DEAD), dead_before + 2);
	assert_true(wait_for(&delivered, 2));
	assert_int_equal(atomic_load(&schema) + atomic_load(&truncated), 0);
	close(bad);
	close(good[0]);
	close(good[1]);
	end();
}

static void a_prepared_truncate_keeps_its_place(void **unused)
{
	uint8_t id[ID_SIZE];
	int fd, other;

	(void)unused;
	begin(1);
	fd = open_in("present");
	other = open_in("present");
	ask(other, THERE);
	client_prepare(fd, "TRUNCATE present", id, ID_SIZE);
	run(fd, id);
	ask(other, THERE);
	assert_true(wait_for(&delivered, 2));
	assert_int_equal(atomic_load(&truncated), 1);
	assert_int_equal(atomic_load(&delivered_before), 1);
	/* And it is prepared once more. */
	atomic_store(&forgotten, true);
	run(fd, id);
	ask(other, THERE);
	assert_true(wait_for(&delivered, 3));
	assert_int_equal(atomic_load(&truncated), 2);
	assert_int_equal(atomic_load(&delivered_before), 2);
	close(fd);
	close(other);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_of_a_missing_keyspace_die_and_others_arrive),
		cmocka_unit_test(a_refused_write_is_tried_again),
		cmocka_unit_test(a_write_arrives_once_its_keyspace_is_there),
		cmocka_unit_test(a_qualified_prepared_write_is_delivered),
		cmocka_unit_test(a_newer_target_hears_of_no_keyspace_that_is_not_needed),
		cmocka_unit_test(a_batch_of_statements_prepared_elsewhere_is_delivered),
		cmocka_unit_test(a_prepared_write_of_a_missing_keyspace_dies),
		cmocka_unit_test(a_connection_that_is_lost_at_use_costs_nothing),
		cmocka_unit_test(a_write_whose_statement_is_forgotten_dies),
		cmocka_unit_test(a_schema_change_is_not_in_need_of_the_sessions_keyspace),
		cmocka_unit_test(a_barrier_in_a_missing_keyspace_lets_the_others_go_on),
		cmocka_unit_test(a_prepared_truncate_keeps_its_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
