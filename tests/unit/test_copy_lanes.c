// SPDX-License-Identifier: Apache-2.0
/* COPY's connections through the control host: what becomes of requests when one is lost, refused or goes silent, and
 * of the first one of all, which prepares. */
#include "copy/lanes.h"
#include "copy/plan.h"
#include "unit/fakenode.h"

#define TIMEOUT_MS 10000
#define HOUR_NS 3600000000000ull

/* The first query's connection is closed; later ones are answered. */
static bool closes(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	if (h->opcode != OP_QUERY)
		return fake_ready(f, h, body, o);
	if (atomic_fetch_add(&f->step, 1) == 0)
		return false;
	fake_frame(o, 4, 0, h->stream, OP_RESULT, span_of("\0\0\0\1", 4));
	return true;
}

/* A part of the first query's answer comes, and then nothing by that connection. */
static bool stops(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	struct frame_header head = {.version = 4, .response = true, .stream = h->stream, .opcode = OP_RESULT, .length = 100};

	if (h->opcode != OP_QUERY || atomic_fetch_add(&f->step, 1) > 0)
		return h->opcode == OP_QUERY ? closes(f, h, body, o) : fake_ready(f, h, body, o);
	frame_header_write(out_take(o, FRAME_HEADER_SIZE), &head);
	out_raw(o, span_of("\0\0\0\1", 4));
	return true;
}

static void fatal(void *owner, const char *reason)
{
	(void)owner;
	(void)reason;
}

struct asked {
	struct lane_request lane; /* first */
	unsigned answers, pieces;
	bool failed;
	int error;
};

static ssize_t on_answer(struct channel_request *r, const struct frame_header *head, struct span body, bool whole)
{
	struct asked *a = (struct asked *)r;

	(void)head;
	a->answers += whole;
	a->pieces += !whole && body.size;
	return (ssize_t)body.size;
}

static void on_failed(struct channel_request *r, int error)
{
	struct asked *a = (struct asked *)r;

	a->failed = true;
	a->error = error;
}

static int start(struct lane_request *lane, struct channel *c)
{
	static const char query[] = "\0\0\0\10SELECT 1\0\1\0";
	uint8_t envelope[FRAME_HEADER_SIZE + sizeof(query) - 1];

	frame_header_write(envelope,
			   &(struct frame_header){.version = 4, .opcode = OP_QUERY, .length = sizeof(query) - 1});
	memcpy(envelope + FRAME_HEADER_SIZE, query, sizeof(query) - 1);
	lane->request.deadline_ns = clock_now_ns() + HOUR_NS;
	return channel_send(c, &lane->request, envelope, sizeof(envelope));
}

/* One connection to the control host, one request at once. */
struct play {
	struct ring_node node;
	struct copy_cluster cluster;
	struct routes routes;
	struct channel_settings settings;
	uv_loop_t loop;
	struct lanes *lanes;
	struct asked asked[3];
};

static void play_begin(struct play *p, const struct addr *control)
{
	*p = (struct play){.settings = {.connect_ms = TIMEOUT_MS, .scratch = malloc(CHANNEL_READ)}};
	p->cluster.contact.nodes[0] = *control;
	p->cluster.contact.node_count = 1;
	p->cluster.ring.nodes = &p->node;
	p->cluster.ring.node_count = 1;
	routes_init(&p->routes, &p->cluster, MODE_PROXY);
	assert_int_equal(uv_loop_init(&p->loop), 0);
	p->lanes = lanes_new(&p->loop, &p->routes, &p->settings, 1, 0, 1, fatal, p);
	assert_non_null(p->lanes);
	for (unsigned i = 0; i < 3; i++)
		p->asked[i].lane =
		    (struct lane_request){.request = {.answer = on_answer, .failed = on_failed}, .start = start};
}

static void on_late(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

static void run_until(struct play *p, bool (*over)(const struct play *p))
{
	bool late = false;
	uv_timer_t timer;

	uv_timer_init(&p->loop, &timer);
	timer.data = &late;
	uv_timer_start(&timer, on_late, TIMEOUT_MS, 0);
	while (!over(p) && !late)
		uv_run(&p->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&p->loop, UV_RUN_NOWAIT);
	assert_true(over(p));
}

static void play_end(struct play *p)
{
	lanes_free(p->lanes);
	uv_run(&p->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&p->loop), 0);
	routes_done(&p->routes);
	free(p->settings.scratch);
}

static bool all_over(const struct play *p)
{
	for (unsigned i = 0; i < 3; i++)
		if (!p->asked[i].answers && !p->asked[i].failed)
			return false;
	return true;
}

static void test_what_was_not_sent_goes_by_a_new_connection(void **state)
{
	struct fake f;
	struct play p;

	(void)state;
	fake_start(&f, "127.0.0.1", closes);
	play_begin(&p, &f.addr);
	for (unsigned i = 0; i < 3; i++)
		lanes_submit(p.lanes, &p.asked[i].lane);
	run_until(&p, all_over);
	assert_true(p.asked[0].failed);
	assert_true(p.asked[0].lane.request.sent);
	for (unsigned i = 1; i < 3; i++)
		assert_int_equal(p.asked[i].answers, 1);
	play_end(&p);
	fake_stop(&f);
}

/* Whoever counts has to know that nothing can have been added. */
static void test_what_cannot_be_sent_is_known_not_to_be(void **state)
{
	struct fake f;
	struct play p;

	(void)state;
	fake_start(&f, "127.0.0.1", closes);
	fake_stop(&f); /* nobody listens there any more */
	play_begin(&p, &f.addr);
	for (unsigned i = 0; i < 3; i++) {
		p.asked[i].lane.request.sent = true; /* an earlier attempt was */
		lanes_submit(p.lanes, &p.asked[i].lane);
	}
	run_until(&p, all_over);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(p.asked[i].error, -ECONNREFUSED);
		assert_false(p.asked[i].lane.request.sent);
	}
	play_end(&p);
}

static bool first_has_begun(const struct play *p)
{
	return p->asked[0].pieces > 0;
}

/* MAXREQUESTS=1: what was given up takes the only place, and its node says nothing more. */
static void test_an_answer_that_stops_half_way_does_not_stop_the_others(void **state)
{
	struct fake f;
	struct play p;

	(void)state;
	fake_start(&f, "127.0.0.1", stops);
	play_begin(&p, &f.addr);
	for (unsigned i = 0; i < 3; i++)
		lanes_submit(p.lanes, &p.asked[i].lane);
	run_until(&p, first_has_begun);
	lanes_tick(p.lanes, clock_now_ns() + 2 * HOUR_NS);
	assert_int_equal(p.asked[0].error, -ETIMEDOUT);
	run_until(&p, all_over);
	for (unsigned i = 1; i < 3; i++)
		assert_int_equal(p.asked[i].answers, 1);
	play_end(&p);
	fake_stop(&f);
}

/* The statement is never prepared: by a balancer this connection came to another node than those before it. */
static bool listens(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	return h->opcode == OP_STARTUP ? fake_ready(f, h, body, o) : true;
}

static void test_a_host_that_does_not_prepare_ends_the_command(void **state)
{
	struct plan plan = {.settings = {.prepare = "SELECT 1", .connect_ms = 300}};
	struct error error = {""};
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", listens);
	plan.cluster.contact.nodes[0] = f.addr;
	plan.cluster.contact.node_count = 1;
	assert_int_equal(plan_prepare(&plan, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.text, "no answer to the login"));
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_what_was_not_sent_goes_by_a_new_connection),
	    cmocka_unit_test(test_what_cannot_be_sent_is_known_not_to_be),
	    cmocka_unit_test(test_a_host_that_does_not_prepare_ends_the_command),
	    cmocka_unit_test(test_an_answer_that_stops_half_way_does_not_stop_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
