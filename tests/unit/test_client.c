// SPDX-License-Identifier: Apache-2.0
/*
 * The blocking client against a scripted node: handshakes, paging, errors, and every way of answering wrongly
 * that it must survive.
 */
#include "mirror/client.h"
#include "unit/fakenode.h"

#define TIMEOUT_MS 10000
#define SHORT_MS 500 /* waited for in full; long enough for a handshake on a busy machine */

/* ------------------------------------------------------------- answers of single tests */

static bool password_dse(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	uint8_t challenge[32];
	struct wire_out b = {.to = challenge, .capacity = sizeof(challenge)};

	if (h->opcode == OP_STARTUP) {
		fake_authenticate(o, h, "com.datastax.bdp.cassandra.auth.DseAuthenticator");
		return true;
	}
	if (h->opcode == OP_AUTH_RESPONSE && f->auths == 1) {
		out_long_string(&b, span_text("PLAIN-START"));
		fake_frame(o, 4, 0, h->stream, OP_AUTH_CHALLENGE, span_of(challenge, b.at));
		return true;
	}
	return fake_password(f, h, body, o);
}

static bool auth_unavailable(struct fake *f, const struct frame_header *h, struct span body,
			     struct wire_out *o)
{
	(void)f;
	(void)body;
	if (h->opcode == OP_STARTUP)
		fake_authenticate(o, h, "org.apache.cassandra.auth.PasswordAuthenticator");
	else
		fake_error(o, 4, h->stream, CQL_BAD_CREDENTIALS,
			   "Unable to perform authentication: Cannot achieve consistency level QUORUM");
	return true;
}

static bool only_v3(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	(void)f;
	(void)h;
	(void)body;
	fake_error(o, 3, 0, CQL_PROTOCOL_ERROR,
		   "Invalid or unsupported protocol version (4); the lowest supported version is 3");
	return true;
}

static bool http(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	(void)f;
	(void)h;
	(void)body;
	out_raw(o, span_text("HTTP/1.1 400 Bad Request\r\n\r\n"));
	return false;
}

static bool tls_alert(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	(void)f;
	(void)h;
	(void)body;
	out_raw(o, span_of("\x15\x03\x01\x00\x02\x02\x16", 7));
	return false;
}

static bool silent(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	(void)f;
	(void)h;
	(void)body;
	(void)o;
	return true;
}

/* ------------------------------------------------------------- opening */

static int open_as(struct client **ret, const struct addr *node, const char *user, const char *password, unsigned timeout_ms,
		   struct error *error)
{
	struct cluster cluster = {.nodes = {*node}, .node_count = 1, .username = user, .password = password};
	struct endpoint to;

	cluster_endpoint(&cluster, 0, &to);
	return client_open(ret, &cluster, &to, 0, timeout_ms, error);
}

static struct client *open_to(struct fake *f, unsigned timeout_ms)
{
	struct client *c = NULL;
	struct error e = {0};

	if (open_as(&c, &f->addr, "ann", "secret", timeout_ms, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void no_login(void **state)
{
	struct fake f;
	struct client *c;
	char node[ADDR_TEXT_MAX];

	(void)state;
	fake_start(&f, "127.0.0.1", fake_ready);
	c = open_to(&f, TIMEOUT_MS);
	assert_false(client_authenticated(c));
	assert_string_equal(client_node(c), addr_format(&f.addr, node));
	client_close(c);
	client_close(NULL);
	fake_stop(&f);
	assert_string_equal(f.driver, CLIENT_DRIVER_NAME);
	assert_int_equal(f.auths, 0);
}

static void login(void **state)
{
	struct fake f;
	struct client *c = NULL;
	struct error e = {0};

	(void)state;
	fake_start(&f, "127.0.0.1", fake_password);
	c = open_to(&f, TIMEOUT_MS);
	assert_true(client_authenticated(c));
	client_close(c);

	c = NULL;
	assert_int_equal(open_as(&c, &f.addr, "ann", "wrong", TIMEOUT_MS, &e), -EACCES);
	assert_null(c);
	assert_non_null(strstr(e.text, "Provided username ann"));
	assert_non_null(strstr(e.text, "127.0.0.1:"));
	assert_null(strstr(e.text, "wrong"));
	assert_int_equal(open_as(&c, &f.addr, "", "", TIMEOUT_MS, &e), -ENOKEY);
	assert_int_equal(open_as(&c, &f.addr, NULL, NULL, TIMEOUT_MS, &e), -ENOKEY);
	fake_stop(&f);
}

static void login_to_dse(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", password_dse);
	client_close(open_to(&f, TIMEOUT_MS));
	fake_stop(&f);
	assert_int_equal(f.auths, 2);
	assert_int_equal(f.auth_size[0], 5);
	assert_memory_equal(f.auth[0], "PLAIN", 5);
	assert_memory_equal(f.auth[1], "\0ann\0secret", 11);
}

static void refusals_at_opening(void **state)
{
	static const struct {
		fake_answer answer;
		int code;
		const char *text;
	} cases[] = {
	    {auth_unavailable, -EAGAIN, "Cannot achieve consistency level"},
	    {only_v3, -EPROTONOSUPPORT, "does not speak protocol v4"},
	    {http, -EPROTO, "does not speak CQL"},
	    {tls_alert, -EPROTO, "speaks TLS"},
	    {silent, -ETIMEDOUT, "no answer"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake f;
		struct client *c = NULL;
		struct error e = {0};
		uint64_t begin = clock_now_ns();

		fake_start(&f, "127.0.0.1", cases[i].answer);
		assert_int_equal(open_as(&c, &f.addr, "ann", "secret", cases[i].code == -ETIMEDOUT ? SHORT_MS : TIMEOUT_MS, &e),
				 cases[i].code);
		assert_null(c);
		if (!strstr(e.text, cases[i].text))
			fail_msg("\"%s\" is not in \"%s\"", cases[i].text, e.text);
		if (cases[i].code == -ETIMEDOUT)
			assert_true(clock_now_ns() - begin >= SHORT_MS * 1000000ull);
		fake_stop(&f);
	}
}

static void nobody_listens(void **state)
{
	struct fake f;
	struct client *c = NULL;
	struct error e = {0};

	(void)state;
	fake_start(&f, "127.0.0.1", fake_ready);
	fake_stop(&f);
	assert_int_equal(open_as(&c, &f.addr, "", "", TIMEOUT_MS, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.text, "cannot be reached"));
}

/* ------------------------------------------------------------- asking */

struct collected {
	unsigned rows, stop_at;
	char text[256];
};

static int collect(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct collected *c = context;
	size_t at = strlen(c->text);

	for (unsigned i = 0; i < count && at < sizeof(c->text) - 64; i++) {
		if (cells[i].data)
			at += (size_t)snprintf(c->text + at, sizeof(c->text) - at, "%.*s=%.*s ",
					       (int)columns[i].name.size, (const char *)columns[i].name.data,
					       (int)cells[i].size, (const char *)cells[i].data);
		else
			at += (size_t)snprintf(c->text + at, sizeof(c->text) - at, "%.*s=null ",
					       (int)columns[i].name.size, (const char *)columns[i].name.data);
	}
	c->rows++;
	return c->stop_at && c->rows == c->stop_at ? -ECANCELED : 0;
}

/* A page of one row (text "p<step>", null) with the state "s<step>" until `last`. */
static void page(struct wire_out *o, const struct frame_header *h, unsigned step, bool more, uint8_t flags,
		 struct span prefix)
{
	uint8_t body[256];
	char text[16];
	struct wire_out b = {.to = body, .capacity = sizeof(body)};

	out_raw(&b, prefix);
	out_int(&b, RESULT_ROWS);
	out_int(&b, ROWS_GLOBAL_SPEC | (more ? ROWS_MORE_PAGES : 0));
	out_int(&b, 2);
	snprintf(text, sizeof(text), "s%u", step);
	if (more)
		out_long_string(&b, span_text(text));
	out_string(&b, span_text("k"));
	out_string(&b, span_text("t"));
	out_string(&b, span_text("a"));
	out_short(&b, TYPE_VARCHAR);
	out_string(&b, span_text("b"));
	out_short(&b, TYPE_INT);
	out_int(&b, 1);
	snprintf(text, sizeof(text), "p%u", step);
	out_long_string(&b, span_text(text));
	out_int(&b, 0xffffffff);
	fake_frame(o, 4, flags, h->stream, OP_RESULT, span_of(body, b.at));
}

static void see_question(struct fake *f, struct span body)
{
	struct request r;

	f->state[0] = 0;
	f->page_size = -1;
	if (request_parse(4, 0, OP_QUERY, body, &r) < 0)
		return;
	if (r.params.flags & QUERY_PAGE_SIZE)
		f->page_size = r.params.page_size;
	if (r.params.flags & QUERY_PAGING_STATE)
		snprintf(f->state, sizeof(f->state), "%.*s", (int)r.params.paging_state.size,
			 (const char *)r.params.paging_state.data);
}

/* Three pages; before the second an event, the third with warnings. A wrong state or page size gets an error.
 */
static bool three_pages(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	char expected[16] = "";
	static const uint8_t warnings[] = "\0\1\0\4hmmm";

	if (h->opcode == OP_STARTUP)
		return fake_ready(f, h, body, o);
	see_question(f, body);
	if (f->step % 3)
		snprintf(expected, sizeof(expected), "s%u", f->step % 3);
	if (strcmp(f->state, expected) != 0 || f->page_size != CLIENT_PAGE_ROWS) {
		fake_error(o, 4, h->stream, CQL_PROTOCOL_ERROR, "wrong state or page size");
		return true;
	}
	if (++f->step % 3 == 2)
		fake_frame(o, 4, 0, -1, OP_EVENT, span_text("\0\0"));
	page(o, h, (f->step - 1) % 3 + 1, f->step % 3, f->step % 3 ? 0 : FRAME_WARNING,
	     f->step % 3 ? (struct span){0} : span_of(warnings, sizeof(warnings) - 1));
	return true;
}

static void pages(void **state)
{
	struct fake f;
	struct error e = {0};
	struct collected all = {0}, some = {.stop_at = 3};

	(void)state;
	fake_start(&f, "127.0.0.1", three_pages);
	struct client *c = open_to(&f, TIMEOUT_MS);

	if (client_query(c, "SELECT a, b FROM k.t", CL_ONE, collect, &all, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(all.text, "a=p1 b=null a=p2 b=null a=p3 b=null ");
	/* Without a callback; and again, from the start. */
	assert_int_equal(client_query(c, "SELECT a, b FROM k.t", CL_ONE, NULL, NULL, &e), 0);
	assert_int_equal(f.step, 6);
	assert_int_equal(client_query(c, "SELECT a, b FROM k.t", CL_ONE, collect, &some, &e), -ECANCELED);
	assert_int_equal(some.rows, 3);
	client_close(c);
	fake_stop(&f);
}

static bool endless(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	if (h->opcode == OP_STARTUP)
		return fake_ready(f, h, body, o);
	page(o, h, f->step++, true, 0, (struct span){0});
	return true;
}

static void pages_without_end(void **state)
{
	struct fake f;
	struct error e = {0};

	(void)state;
	fake_start(&f, "127.0.0.1", endless);
	struct client *c = open_to(&f, TIMEOUT_MS);

	assert_int_equal(client_query(c, "SELECT a FROM k.t", CL_ONE, NULL, NULL, &e), -EMSGSIZE);
	assert_non_null(strstr(e.text, "without end"));
	client_close(c);
	fake_stop(&f);
	assert_int_equal(f.step, CLIENT_PAGES_MAX);
}

static const struct {
	int32_t cql;
	int code;
} refusals[] = {
    {CQL_UNAUTHORIZED, -EPERM},	    {CQL_SYNTAX_ERROR, -EINVAL}, {CQL_INVALID, -EINVAL},
    {CQL_CONFIG_ERROR, -EINVAL},    {CQL_OVERLOADED, -EAGAIN},	 {CQL_BOOTSTRAPPING, -EAGAIN},
    {CQL_SERVER_ERROR, -EREMOTEIO}, {0x7777, -EREMOTEIO},
};

static bool refuse(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	if (h->opcode == OP_STARTUP)
		return fake_ready(f, h, body, o);
	fake_error(o, 4, h->stream, refusals[f->step++].cql, "no\x1b[31m\nway");
	return true;
}

static void errors_of_the_server(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", refuse);
	struct client *c = open_to(&f, TIMEOUT_MS);

	for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
		struct error e = {0};
		char code[16];

		assert_int_equal(client_query(c, "SELECT 1", CL_ONE, NULL, NULL, &e), refusals[i].code);
		snprintf(code, sizeof(code), "(0x%04X)", (unsigned)refusals[i].cql);
		assert_non_null(strstr(e.text, "no [31m way")); /* what a terminal would act on is gone */
		assert_non_null(strstr(e.text, code));
		assert_non_null(strstr(e.text, client_node(c)));
	}
	client_close(c);
	fake_stop(&f);
}

/* ------------------------------------------------------------- answers that are wrong */

static bool wrong(struct fake *f, const struct frame_header *h, struct span body, struct wire_out *o)
{
	static const uint8_t huge_paging[] = {0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 1, 0, 1};
	uint8_t *big;
	struct wire_out b;

	if (h->opcode == OP_STARTUP)
		return fake_ready(f, h, body, o);
	unsigned step = f->step; /* clang 14 switches on no atomic */

	switch (step) {
	case 0: { /* announces more than may be */
		struct frame_header lie = {.version = 4,
					   .response = true,
					   .stream = h->stream,
					   .opcode = OP_RESULT,
					   .length = CLIENT_ANSWER_MAX + 1};

		frame_header_write(out_take(o, FRAME_HEADER_SIZE), &lie);
		return true;
	}
	case 1: /* cut off in the middle */
		page(o, h, 1, false, 0, (struct span){0});
		o->at -= 3;
		return false;
	case 2: /* a page of one row that says it has two */
		page(o, h, 1, false, 0, (struct span){0});
		o->to[o->at - 4 - 2 - 4 - 1] = 2;
		return true;
	case 3: /* kind of result that does not exist */
		fake_frame(o, 4, 0, h->stream, OP_RESULT, span_of("\0\0\0\x09", 4));
		return true;
	case 4: /* an answer to something else */
		fake_frame(o, 4, 0, h->stream, OP_SUPPORTED, span_of("\0\0", 2));
		return true;
	case 5: /* compressed, which was not agreed */
		page(o, h, 1, false, FRAME_COMPRESSED, (struct span){0});
		return true;
	case 6: /* a request */
		page(o, h, 1, false, 0, (struct span){0});
		o->to[0] &= 0x7f;
		return true;
	case 7: /* never ends */
		page(o, h, 1, false, 0, (struct span){0});
		o->at -= 3;
		return true;
	case 8: /* only ever on another stream */
		page(o, h, 1, false, 0, (struct span){0});
		o->to[3] = 77;
		return true;
	case 9: /* warnings that reach beyond the body */
		fake_frame(o, 4, FRAME_WARNING, h->stream, OP_RESULT, span_of("\0\xff\0\4hmmm", 8));
		return true;
	case 10: /* a paging state beyond the limit */
		big = calloc(1, 80u << 10);
		b = (struct wire_out){.to = big, .capacity = 80u << 10};
		out_raw(&b, span_of(huge_paging, 12));
		out_int(&b, 70u << 10);
		b.at += 70u << 10;
		out_string(&b, span_text("k"));
		out_string(&b, span_text("t"));
		out_string(&b, span_text("a"));
		out_short(&b, TYPE_INT);
		out_int(&b, 0);
		fake_frame(o, 4, 0, h->stream, OP_RESULT, span_of(big, b.at));
		free(big);
		return true;
	case 11: /* more columns than are read */
		big = calloc(1, 64u << 10);
		b = (struct wire_out){.to = big, .capacity = 64u << 10};
		out_int(&b, RESULT_ROWS);
		out_int(&b, ROWS_GLOBAL_SPEC);
		out_int(&b, CLIENT_COLUMNS_MAX + 1);
		out_string(&b, span_text("k"));
		out_string(&b, span_text("t"));
		for (unsigned i = 0; i <= CLIENT_COLUMNS_MAX; i++) {
			out_string(&b, span_text("a"));
			out_short(&b, TYPE_INT);
		}
		out_int(&b, 0);
		fake_frame(o, 4, 0, h->stream, OP_RESULT, span_of(big, b.at));
		free(big);
		return true;
	case 12: /* an ERROR without a message */
		fake_frame(o, 4, 0, h->stream, OP_ERROR, span_of("\0\0\x22\0", 4));
		return true;
	default:
		return false;
	}
}

static void answers_that_are_wrong(void **state)
{
	static const int codes[] = {-EMSGSIZE, -ECONNRESET, -EPROTO,	-EPROTO,    -EPROTO,
				    -EPROTO,   -EPROTO,	    -ETIMEDOUT, -ETIMEDOUT, -EPROTO,
				    -EMSGSIZE, -EMSGSIZE,   -EPROTO,	-ECONNRESET};
	struct fake f;

	(void)state;
	fake_start(&f, "127.0.0.1", wrong);
	for (unsigned i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
		struct error e = {0};
		struct client *c;

		f.step = i;
		c = open_to(&f, codes[i] == -ETIMEDOUT ? SHORT_MS : TIMEOUT_MS);
		int rc = client_query(c, "SELECT a, b FROM k.t", CL_ONE, NULL, NULL, &e);

		if (rc != codes[i])
			fail_msg("case %u gives %d, not %d: %s", i, rc, codes[i], e.text);
		assert_non_null(strstr(e.text, client_node(c)));
		/* What comes next on that connection cannot be trusted. */
		assert_int_equal(client_query(c, "SELECT 1", CL_ONE, NULL, NULL, &e), -ENOTCONN);
		client_close(c);
	}
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(no_login),
	    cmocka_unit_test(login),
	    cmocka_unit_test(login_to_dse),
	    cmocka_unit_test(refusals_at_opening),
	    cmocka_unit_test(nobody_listens),
	    cmocka_unit_test(pages),
	    cmocka_unit_test(pages_without_end),
	    cmocka_unit_test(errors_of_the_server),
	    cmocka_unit_test(answers_that_are_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
