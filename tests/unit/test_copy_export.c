// SPDX-License-Identifier: Apache-2.0
/* A COPY TO of one range from a scripted node: pages as servers send them. */
#include "copy/export.h"
#include "copy/type.h"
#include "unit/fakenode.h"
#include <sys/stat.h>

#define ROWS 400u
#define CELL 1000u

static void answer_prepared(struct wire_out *o, int16_t stream)
{
	uint8_t body[64];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_int(&b, RESULT_PREPARED);
	out_string(&b, span_text("id"));
	out_int(&b, 0); /* binds: no flags, no columns, no partition key */
	out_int(&b, 0);
	out_int(&b, 0);
	out_int(&b, ROWS_NO_METADATA);
	out_int(&b, 0);
	fake_frame(o, 4, 0, stream, OP_RESULT, span_of(body, b.at));
}

/* A page that comes in several reads, with warnings in front; `missing` bytes of it never come. */
static void answer_page(struct wire_out *o, int16_t stream, uint32_t missing)
{
	static const char warning[] = "Read 1 live rows and 5000 tombstone cells";
	uint8_t *page = malloc(FAKE_ROOM / 2), cell[CELL];
	struct wire_out b = {.to = page, .capacity = FAKE_ROOM / 2};
	struct frame_header head = {.version = 4, .response = true, .flags = FRAME_WARNING, .stream = stream, .opcode = OP_RESULT};

	out_short(&b, 2);
	out_string(&b, span_text(warning));
	out_string(&b, span_text(warning));
	out_int(&b, RESULT_ROWS);
	out_int(&b, ROWS_NO_METADATA);
	out_int(&b, 1);
	out_int(&b, ROWS + (missing > 0));
	for (unsigned i = 0; i < ROWS; i++) {
		memset(cell, (int)(i % 251), sizeof(cell));
		out_long_string(&b, span_of(cell, sizeof(cell)));
	}
	head.length = (uint32_t)b.at + missing;
	frame_header_write(out_take(o, FRAME_HEADER_SIZE), &head);
	out_raw(o, span_of(page, b.at));
	free(page);
}

static bool whole_page(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	if (h->opcode == OP_PREPARE)
		answer_prepared(o, h->stream);
	else if (h->opcode == OP_EXECUTE)
		answer_page(o, h->stream, 0);
	else
		return fake_ready(f, h, body, o);
	return true;
}

static bool torn_page(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	if (h->opcode != OP_EXECUTE)
		return whole_page(f, h, body, o);
	answer_page(o, h->stream, CELL + 4);
	return true;
}

static void check_file(const char *path)
{
	char *line = NULL, byte[3];
	FILE *file = fopen(path, "re");
	size_t room = 0;

	assert_non_null(file);
	for (unsigned i = 0; i < ROWS; i++) {
		assert_int_equal(getline(&line, &room, file), 2 + 2 * CELL + 2);
		snprintf(byte, sizeof(byte), "%02x", i % 251);
		assert_memory_equal(line, "0x", 2);
		for (unsigned k = 0; k < CELL; k++)
			assert_memory_equal(line + 2 + 2 * k, byte, 2);
	}
	assert_int_equal(getline(&line, &room, file), -1);
	free(line);
	fclose(file);
}

struct copying {
	struct ring_node node;
	struct type type;
	struct copy_options options;
	struct plan plan;
	char path[64];
	struct export_result result;
	int rc;
	struct error error;
};

static const char *columns[] = {"v"};

static void copying_begin(struct copying *c, const struct addr *control)
{
	static const char *const set[][2] = {{"NUMPROCESSES", "1"}, {"MAXREQUESTS", "1"}, {"MAXATTEMPTS", "1"}};
	int fd;

	*c = (struct copying){.type = {.kind = TYPE_BLOB}, .path = "/tmp/cqlferry-export-XXXXXX"};
	fd = mkstemp(c->path);
	assert_return_code(fd, errno);
	close(fd);
	options_init(&c->options);
	for (unsigned i = 0; i < sizeof(set) / sizeof(*set); i++)
		assert_int_equal(options_set(&c->options, set[i][0], set[i][1], &c->error), 0);
	assert_int_equal(options_finish(&c->options, &c->error), 0);
	c->plan = (struct plan){.options = &c->options,
				.keyspace = "ks",
				.table = "t",
				.columns = columns,
				.column_count = 1,
				.types = &c->type,
				.consistency = CL_ONE,
				.settings = {.prepare = "SELECT v FROM ks.t", .connect_ms = 10000}};
	c->plan.cluster.contact.nodes[0] = *control;
	c->plan.cluster.contact.node_count = 1;
	c->plan.cluster.ring.nodes = &c->node;
	c->plan.cluster.ring.node_count = 1;
	pthread_mutex_init(&c->plan.lock, NULL);
	pthread_cond_init(&c->plan.changed, NULL);
	routes_init(&c->plan.routes, &c->plan.cluster, MODE_PROXY);
	progress_init(&c->plan.progress, NULL, 60, "", clock_now_ns());
}

static void *copying_run(void *context)
{
	struct copying *c = context;
	const struct export_request request = {.file = c->path};

	c->rc = export_run(&c->plan, &request, &c->result, &c->error);
	return NULL;
}

static void copying_end(struct copying *c)
{
	routes_done(&c->plan.routes);
	pthread_cond_destroy(&c->plan.changed);
	pthread_mutex_destroy(&c->plan.lock);
	options_done(&c->options);
	unlink(c->path);
}

static void test_a_page_with_warnings(void **state)
{
	struct copying c;
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", whole_page);
	copying_begin(&c, &f.addr);
	copying_run(&c);
	assert_int_equal(c.rc, 0);
	assert_int_equal(c.result.failed, 0);
	assert_int_equal(c.result.rows, ROWS);
	check_file(c.path);
	copying_end(&c);
	fake_stop(&f);
}

/* Held in one piece it would need its own size in memory, and be refused above 34 MiB. */
static void test_a_page_with_warnings_streams_like_any_other(void **state)
{
	uint64_t until = clock_now_ns() + 10000000000ull;
	struct copying c;
	struct stat st = {0};
	pthread_t thread;
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", torn_page);
	copying_begin(&c, &f.addr);
	assert_int_equal(pthread_create(&thread, NULL, copying_run, &c), 0);
	while (stat(c.path, &st) == 0 && !st.st_size && clock_now_ns() < until)
		poll(NULL, 0, 5);
	fake_stop(&f);
	pthread_join(thread, NULL);
	assert_true(st.st_size > 0);
	assert_int_equal(c.rc, 0);
	assert_int_equal(c.result.failed, 1);
	assert_in_range(c.result.rows, 1, ROWS);
	copying_end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_page_with_warnings),
	    cmocka_unit_test(test_a_page_with_warnings_streams_like_any_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
