// SPDX-License-Identifier: Apache-2.0
/*
 * Row sync's queue against two scripted nodes with one table, ks.t (k int PRIMARY KEY, v int), of which every
 * row is there and the same on both: who is merged with whom, who waits, what trouble does, what a stop does.
 */
#include "mirror/rowsync.h"
#include "unit/fakenode.h"

#define DEADLINE_S 20

/* ------------------------------------------------------------- the nodes */

static struct {
	_Atomic bool hang;	     /* rows are not given */
	_Atomic unsigned overloaded; /* so many questions for rows are answered with that */
	_Atomic unsigned asked;	     /* for rows, on both sides */
	_Atomic bool no_table;	     /* on the target */
	_Atomic unsigned forgotten;  /* so many EXECUTE are answered with UNPREPARED */
} script;

static void put_rows(struct wire_out *o, int16_t stream, const char *const *names, const uint16_t *types,
		     unsigned columns, const struct span *cells, unsigned rows)
{
	uint8_t body[1024];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_int(&b, RESULT_ROWS);
	out_int(&b, ROWS_GLOBAL_SPEC);
	out_int(&b, columns);
	out_string(&b, span_text("ks"));
	out_string(&b, span_text("t"));
	for (unsigned i = 0; i < columns; i++) {
		out_string(&b, span_text(names[i]));
		out_short(&b, types[i]);
	}
	out_int(&b, rows);
	for (unsigned i = 0; i < rows * columns; i++) {
		if (cells[i].data)
			out_long_string(&b, cells[i]);
		else
			out_int(&b, 0xffffffff);
	}
	fake_frame(o, 4, 0, stream, OP_RESULT, span_of(body, b.at));
}

static void put_row(struct wire_out *o, int16_t stream, const uint8_t *key)
{
	static const char *const names[] = {"k", "v", "writetime(v)", "ttl(v)"};
	static const uint16_t types[] = {TYPE_INT, TYPE_INT, TYPE_BIGINT, TYPE_INT};
	struct span cells[] = {span_of(key, 4), span_of("\0\0\0\5", 4), span_of("\0\0\0\0\0\0\0\7", 8), {0}};

	put_rows(o, stream, names, types, 4, cells, 1);
}

static void put_columns(struct wire_out *o, int16_t stream, bool none)
{
	static const char *const names[] = {"column_name", "kind", "position", "type"};
	static const uint16_t types[] = {TYPE_VARCHAR, TYPE_VARCHAR, TYPE_INT, TYPE_VARCHAR};
	struct span cells[] = {
	    span_text("k"), span_text("partition_key"), span_of("\0\0\0\0", 4),		span_text("int"),
	    span_text("v"), span_text("regular"),	span_of("\xff\xff\xff\xff", 4), span_text("int")};

	put_rows(o, stream, names, types, 4, cells, none ? 0 : 2);
}

#define DEFAULT_TTL 3600

static void put_table(struct wire_out *o, int16_t stream)
{
	static const char *const names[] = {"default_time_to_live"};
	static const uint16_t types[] = {TYPE_INT};
	struct span cells[] = {span_of("\0\0\x0e\x10", 4)};

	put_rows(o, stream, names, types, 1, cells, 1);
}

static void put_release(struct wire_out *o, int16_t stream)
{
	static const char *const names[] = {"release_version"};
	static const uint16_t types[] = {TYPE_VARCHAR};
	struct span cells[] = {span_text("5.0.9")};

	put_rows(o, stream, names, types, 1, cells, 1);
}

static void put_prepared(struct wire_out *o, int16_t stream)
{
	uint8_t body[64];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_int(&b, RESULT_PREPARED);
	out_string(&b, span_text("id"));
	for (int i = 0; i < 3; i++)
		out_int(&b, 0);
	out_int(&b, ROWS_NO_METADATA);
	out_int(&b, 0);
	fake_frame(o, 4, 0, stream, OP_RESULT, span_of(body, b.at));
}

static bool count_down(_Atomic unsigned *n)
{
	if (!*n)
		return false;
	--*n;
	return true;
}

static bool answer(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	struct request r;

	if (h->opcode == OP_STARTUP)
		return fake_ready(f, h, body, o);
	if (request_parse(4, 0, h->opcode, body, &r) < 0)
		return false;
	if (h->opcode == OP_PREPARE) {
		put_prepared(o, h->stream);
	} else if (h->opcode == OP_EXECUTE) {
		script.asked++;
		for (unsigned i = 0; script.hang && i < DEADLINE_S * 1000; i++)
			usleep(1000);
		if (count_down(&script.forgotten)) {
			ssize_t n =
			    response_write_unprepared(4, h->stream, r.id, o->to + o->at, o->capacity - o->at);
			o->at += (size_t)n;
		} else if (count_down(&script.overloaded)) {
			fake_error(o, 4, h->stream, CQL_OVERLOADED, "too much");
		} else {
			put_row(o, h->stream, r.params.values.data + 4);
		}
	} else if (memmem(body.data, body.size, "system_schema.columns", 21)) {
		put_columns(o, h->stream, script.no_table && f->tables);
	} else if (memmem(body.data, body.size, "system_schema.tables", 20)) {
		put_table(o, h->stream);
	} else if (memmem(body.data, body.size, "system.local", 12)) {
		put_release(o, h->stream);
	} else {
		fake_error(o, 4, h->stream, CQL_INVALID, "not in the script");
	}
	return true;
}

/* ------------------------------------------------------------- a test's row sync */

static struct {
	struct fake node[SIDES];
	struct relay_options relay;
	struct rowsync *rs;
} lab;

static struct {
	_Atomic unsigned done;
	_Atomic int result[64];
} seen;

static void on_done(void *context, int result)
{
	seen.result[(size_t)context] = result;
	seen.done++;
}

static int submit(unsigned number, const char *text, const char *keyspace, uint32_t k, uint64_t not_before_ns)
{
	uint8_t value[] = {0, 0, 0, 4, (uint8_t)(k >> 24), (uint8_t)(k >> 16), (uint8_t)(k >> 8), (uint8_t)k};
	struct rowsync_child child = {.text = span_text(text),
				      .keyspace = keyspace,
				      .values = span_of(value, sizeof(value)),
				      .values_count = 1,
				      .version = 4};
	struct rowsync_job job = {.from = ORIGIN,
				  .not_before_ns = not_before_ns,
				  .child_count = 1,
				  .children = &child,
				  .done = on_done,
				  .context = (void *)(size_t)number};

	return rowsync_submit(lab.rs, &job);
}

static int submit_row(unsigned number, uint32_t k)
{
	return submit(number, "UPDATE t SET v = 1 WHERE k = ?", "ks", k, 0);
}

static void wait_for(_Atomic unsigned *what, unsigned least)
{
	for (unsigned i = 0; *what < least; i++) {
		if (i == DEADLINE_S * 1000)
			fail_msg("%u instead of %u after %d s", *what, least, DEADLINE_S);
		usleep(1000);
	}
}

static void begin(unsigned queue_max)
{
	struct rowsync_options o = {.relay = &lab.relay, .threads = 1, .queue_max = queue_max};
	static const struct fake_table marks_the_target;
	struct error e = {0};

	memset(&script, 0, sizeof(script));
	memset(&seen, 0, sizeof(seen));
	for (enum side side = ORIGIN; side < SIDES; side++) {
		fake_start(&lab.node[side], "127.0.0.1", answer);
		lab.relay.cluster[side].nodes[0] = lab.node[side].addr;
		lab.relay.cluster[side].node_count = 1;
		lab.relay.cluster[side].username = lab.relay.cluster[side].password = "";
	}
	lab.node[TARGET].tables = &marks_the_target;
	lab.rs = rowsync_new(&o, &e);
	if (!lab.rs)
		fail_msg("%s", e.text);
}

static struct rowsync_counters end(void)
{
	struct rowsync_counters c;

	script.hang = false;
	rowsync_stop(lab.rs);
	rowsync_count(lab.rs, &c);
	rowsync_free(lab.rs);
	for (enum side side = ORIGIN; side < SIDES; side++)
		fake_stop(&lab.node[side]);
	assert_int_equal(c.queued, 0);
	assert_int_equal(c.running, 0);
	return c;
}

/* The first job reads the schema; after it what a text touches is known at once. */
static void warm_up(void)
{
	assert_int_equal(submit_row(0, 0), 0);
	wait_for(&seen.done, 1);
	assert_int_equal(seen.result[0], 0);
}

/* ------------------------------------------------------------- tests */

static void equal_rows_need_no_write(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	struct rowsync_counters c = end();

	assert_int_equal(c.done, 1);
	assert_int_equal(c.rows, 1);
	assert_int_equal(c.repaired + c.deleted + c.failed + c.retries, 0);
	assert_int_equal(script.asked, 2);
}

static void a_default_ttl_is_known_when_the_table_is(void **state)
{
	static const struct table_name t = {"ks", "t"};

	(void)state;
	begin(0);
	assert_int_equal(rowsync_default_ttl(lab.rs, TARGET, &t), -EAGAIN);
	warm_up();
	assert_int_equal(rowsync_default_ttl(lab.rs, TARGET, &t), DEFAULT_TTL);
	assert_int_equal(rowsync_default_ttl(lab.rs, ORIGIN, &t), DEFAULT_TTL);
	rowsync_schema_changed(lab.rs, "ks");
	assert_int_equal(rowsync_default_ttl(lab.rs, TARGET, &t), -EAGAIN);
	end();
}

static void jobs_for_one_row_become_one(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	script.hang = true;
	assert_int_equal(submit_row(1, 7), 0);
	wait_for(&script.asked, 3); /* it runs */
	for (unsigned i = 2; i < 12; i++)
		assert_int_equal(submit_row(i, 7), 0);
	assert_int_equal(submit_row(12, 8), 0);
	script.hang = false;
	wait_for(&seen.done, 13);
	struct rowsync_counters c = end();

	assert_int_equal(c.merged, 9); /* with the first of them; the one that runs may have read already */
	assert_int_equal(c.done, 13);
	assert_int_equal(script.asked, 2 * 4);
	for (unsigned i = 0; i < 13; i++)
		assert_int_equal(seen.result[i], 0);
}

static void the_queue_is_bounded(void **state)
{
	uint64_t later = clock_now_ns() + 3600000000000ull;

	(void)state;
	begin(4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(submit(i, "UPDATE t SET v = 1 WHERE k = ?", "ks", i, later), 0);
	assert_int_equal(submit(4, "UPDATE t SET v = 1 WHERE k = ?", "ks", 4, later), -EAGAIN);
	assert_int_equal(seen.done, 0);
	struct rowsync_counters c = end();

	/* What waits is told, once. */
	assert_int_equal(seen.done, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(seen.result[i], -ECANCELED);
	assert_int_equal(c.refused, 1);
	assert_int_equal(c.failed, 4);
	assert_int_equal(script.asked, 0);
}

static void what_has_no_key_is_refused_at_once(void **state)
{
	(void)state;
	begin(0);
	assert_int_equal(submit(0, "UPDATE t SET v = 1 WHERE token(k) = ?", "ks", 0, 0), -ENOKEY);
	assert_int_equal(submit(0, "TRUNCATE t", "ks", 0, 0), -ENOKEY);
	assert_int_equal(submit(0, "UPDATE t SET v = 1 WHERE k = ?", "", 0, 0), -ENOKEY);
	assert_int_equal(submit(0, "UPDATE t SET v = 1 WHERE k = ?", NULL, 0, 0), -ENOKEY);
	/* That v is no key takes the schema: told afterwards, and from then on at once. */
	assert_int_equal(submit(0, "INSERT INTO t (v) VALUES (?)", "ks", 0, 0), 0);
	wait_for(&seen.done, 1);
	assert_int_equal(seen.result[0], -ENOKEY);
	assert_int_equal(submit(0, "INSERT INTO t (v) VALUES (?)", "ks", 0, 0), -ENOKEY);
	assert_int_equal(submit(0, "UPDATE t SET v = 1 WHERE v = ?", "ks", 0, 0), -ENOKEY);
	end();
	assert_int_equal(seen.done, 1);
}

static void trouble_is_retried_and_holds_the_table(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	script.overloaded = 2;
	for (unsigned i = 1; i < 9; i++)
		assert_int_equal(submit_row(i, i), 0);
	wait_for(&seen.done, 9);
	struct rowsync_counters c = end();

	assert_int_equal(c.retries, 2);
	assert_int_equal(c.done, 9);
	/* One job met it, twice; the others waited. */
	assert_int_equal(script.asked, 2 * 9 + 2);
}

static void forgotten_statements_are_prepared_again(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	script.forgotten = 1;
	assert_int_equal(submit_row(1, 1), 0);
	wait_for(&seen.done, 2);
	struct rowsync_counters c = end();

	assert_int_equal(c.retries, 0);
	assert_int_equal(script.asked, 2 * 2 + 1);
}

static void a_table_that_is_only_on_one_side(void **state)
{
	(void)state;
	begin(0);
	script.no_table = true;
	assert_int_equal(submit_row(0, 0), 0);
	wait_for(&seen.done, 1);
	assert_int_equal(seen.result[0], -ENOENT);
	assert_int_equal(end().failed, 1);
}

/* After a cutover the target has what the origin does not know. */
static void the_primary_is_never_written(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	rowsync_primary(lab.rs, TARGET);
	assert_int_equal(submit_row(1, 1), 0);
	wait_for(&seen.done, 2);
	assert_int_equal(seen.result[1], -ESHUTDOWN);
	assert_int_equal(script.asked, 2);
	rowsync_primary(lab.rs, ORIGIN);
	assert_int_equal(submit_row(2, 1), 0);
	wait_for(&seen.done, 3);
	assert_int_equal(seen.result[2], 0);
	end();
}

static void a_node_that_is_away(void **state)
{
	(void)state;
	begin(0);
	warm_up();
	fake_stop(&lab.node[TARGET]);
	/* The connection is there still, and then is not; nothing listens. */
	assert_int_equal(submit_row(1, 1), 0);
	assert_int_equal(submit_row(2, 2), 0);
	struct rowsync_counters c = {0};

	for (unsigned i = 0; c.retries < 2 && i < DEADLINE_S * 1000; i++) {
		usleep(1000);
		rowsync_count(lab.rs, &c);
	}
	assert_true(c.retries >= 2);
	assert_int_equal(seen.done, 1);
	rowsync_stop(lab.rs);
	assert_int_equal(seen.done, 3);
	assert_int_equal(seen.result[1], -ECANCELED);
	assert_int_equal(seen.result[2], -ECANCELED);
	rowsync_free(lab.rs);
	fake_stop(&lab.node[ORIGIN]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(equal_rows_need_no_write),
	    cmocka_unit_test(a_default_ttl_is_known_when_the_table_is),
	    cmocka_unit_test(jobs_for_one_row_become_one),
	    cmocka_unit_test(the_queue_is_bounded),
	    cmocka_unit_test(what_has_no_key_is_refused_at_once),
	    cmocka_unit_test(trouble_is_retried_and_holds_the_table),
	    cmocka_unit_test(forgotten_statements_are_prepared_again),
	    cmocka_unit_test(a_table_that_is_only_on_one_side),
	    cmocka_unit_test(the_primary_is_never_written),
	    cmocka_unit_test(a_node_that_is_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
