// SPDX-License-Identifier: Apache-2.0
/* Paging states on their way through the agent, there and back: the tag of those that the target made. Real relay (relaytest.h). */
#include "cql/compress.h"
#include "relay/paging.h"
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

/* ---- a write that names a page */

/* What each cluster got with a timestamp, and with the state as the target knows it. */
static _Atomic unsigned good[2];

static ssize_t looks_at_writes(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct request r;

	if (h->opcode == OP_QUERY && contains(h, body, "INSERT")) {
		if (request_parse(h->version, h->flags, h->opcode, span_of(body, h->length), &r) == 0 && r.params.flags & QUERY_TIMESTAMP &&
		    r.params.timestamp > 0 && r.params.page_size == 100 && span_equal(r.params.paging_state, span_text("state")))
			atomic_fetch_add(&good[p->cluster == &target], 1);
	}
	return plain_answer(p, h, body, to);
}

static size_t paged_insert(uint8_t version, int16_t stream, uint8_t *to)
{
	static const char text[] = "INSERT INTO ks.t (k) VALUES (1)";
	struct frame_header h = {.version = version, .stream = stream, .opcode = OP_QUERY};
	uint8_t *at = to + FRAME_HEADER_SIZE;

	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = sizeof(text) - 1;
	memcpy(at, text, sizeof(text) - 1);
	at += sizeof(text) - 1;
	*at++ = 0, *at++ = CL_ONE;
	if (version >= 5)
		*at++ = 0, *at++ = 0, *at++ = 0;
	*at++ = QUERY_PAGE_SIZE | QUERY_PAGING_STATE;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = 100;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = PAGING_TAG_SIZE + 5;
	memcpy(at, PAGING_TAG "state", PAGING_TAG_SIZE + 5);
	at += PAGING_TAG_SIZE + 5;
	h.length = (uint32_t)(at - to - FRAME_HEADER_SIZE);
	frame_header_write(to, &h);
	return (size_t)(at - to);
}

/* Both changes of its body, and the page's stands before the timestamp's. */
static void a_pinned_write_with_a_page_of_the_target(uint8_t version, const struct course *course)
{
	static uint8_t room[ROOM];
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", NULL};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(version, 1, pairs, envelope, sizeof(envelope));
	struct frame_header h = {0};
	int fd;

	speak_v5 = version >= 5;
	atomic_store(&good[course->primary], 0);
	cluster_start(&origin, looks_at_writes);
	cluster_start(&target, looks_at_writes);
	agent_start(1, course);
	fd = client_connect();
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 1), OP_READY);
	for (int16_t i = 2; i < 5; i++) {
		size_t size = paged_insert(version, i, envelope);

		if (version >= 5) {
			assert_true(send_segment(fd, /* lz4= */ false, envelope, size));
			assert_true(receive_segment(fd, /* lz4= */ false, answer_body, room) > 0);
			assert_true(frame_header_read(answer_body, FRAME_HEADER_SIZE, &h) > 0);
			assert_int_equal(h.opcode, OP_RESULT);
			assert_int_equal(h.stream, i);
		} else {
			assert_int_equal(send(fd, envelope, size, MSG_NOSIGNAL), size);
			assert_int_equal(expect(fd, i), OP_RESULT);
		}
		assert_int_equal(atomic_load(&good[course->primary]), i - 1);
	}
	close(fd);
	agent_stop();
	speak_v5 = false;
}

static void a_write_that_names_a_page_stops_the_agent(void **unused)
{
	(void)unused;
	for (uint8_t version = 4; version <= 5; version++) {
		a_pinned_write_with_a_page_of_the_target(version, &mirroring);
		a_pinned_write_with_a_page_of_the_target(version, &cut_over);
	}
}

/* ---- the cluster that has the next page */

static void ask_page(int fd, int16_t stream, const void *state, size_t size)
{
	static const char text[] = "SELECT v FROM ks.t";
	uint8_t body[256] = {0}, *at = body + 3;

	*at++ = sizeof(text) - 1;
	memcpy(at, text, sizeof(text) - 1);
	at += sizeof(text) - 1;
	*at++ = 0, *at++ = CL_ONE;
	*at++ = size ? QUERY_PAGE_SIZE | QUERY_PAGING_STATE : QUERY_PAGE_SIZE;
	*at++ = 0, *at++ = 0, *at++ = 0, *at++ = 100;
	if (size) {
		*at++ = 0, *at++ = 0, *at++ = 0, *at++ = (uint8_t)size;
		memcpy(at, state, size);
		at += size;
	}
	client_send(fd, OP_QUERY, stream, body, (size_t)(at - body));
}

static ssize_t one_more_page(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static const uint8_t page[] = "\0\0\0\2" "\0\0\0\6" "\0\0\0\1" "\0\0\0\4next" "\0\0\0\1" "\0\0\0\1" "1";

	if (p->cluster == &origin && h->opcode == OP_QUERY && contains(h, body, "SELECT v"))
		return say(h, OP_RESULT, page, sizeof(page) - 1, to);
	return plain_answer(p, h, body, to);
}

static _Atomic bool has_lost_it;

static void look_for_origin(struct worker *w, void *context)
{
	(void)context;
	for (const struct session *s = w->sessions; s; s = s->next)
		if (s->state == SESSION_OPEN && s->up[ORIGIN].state == UP_ABSENT)
			atomic_store(&has_lost_it, true);
}

/* Its connection was lost while nothing waited for it, and it takes new ones. */
static void a_page_fails_because_an_idle_connection_was_lost(void **unused)
{
	int fd;

	(void)unused;
	cluster_start(&origin, one_more_page);
	cluster_start(&target, plain_answer);
	agent_start(1, &mirroring);
	fd = client_open();
	ask_page(fd, 2, NULL, 0);
	assert_int_equal(expect(fd, 2), OP_RESULT);
	change_course(&cut_over);
	client_query(fd, 3, "SELECT k FROM ks.t"); /* the session has followed */
	assert_int_equal(expect(fd, 3), OP_RESULT);
	for (int16_t i = 4; i < 7; i++) {
		atomic_store(&has_lost_it, false);
		for (unsigned k = 0; k < atomic_load(&origin.count); k++)
			shutdown(origin.peer[k].fd, SHUT_RDWR);
		for (int tries = 0; tries < 5000 && !atomic_load(&has_lost_it); tries++) {
			assert_int_equal(relay_each_worker(&relay, look_for_origin, NULL, NULL), 0);
			usleep(1000);
		}
		assert_true(atomic_load(&has_lost_it));
		ask_page(fd, i, "next", 4);
		assert_int_equal(expect(fd, i), OP_RESULT);
	}
	close(fd);
	agent_stop();
}

/* ---- pages that are compressed, and large */

static struct {
	enum compression c;
	size_t size;   /* of the plain body */
	bool noise;    /* which does not become smaller */
	uint32_t lies; /* its size, as the body says; 0 = as it is */
} page;

/* One row of one column, with more to come: flags, columns, the paging state "next", rows, a cell. */
static uint8_t *page_make(size_t *ret_size)
{
	static const uint8_t head[] = "\0\0\0\2" "\0\0\0\6" "\0\0\0\1" "\0\0\0\4next" "\0\0\0\1";
	uint8_t *plain = calloc(1, page.size), *body;
	size_t at = sizeof(head) - 1, bound = body_compress_bound(page.c, page.size), cell = page.size - at - 4;
	uint64_t x = 88172645463325252ull;
	int64_t n;

	assert_non_null(plain);
	memcpy(plain, head, at);
	for (int i = 0; i < 4; i++)
		plain[at++] = (uint8_t)(cell >> (24 - 8 * i));
	for (; page.noise && at + 8 <= page.size; at += 8) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		memcpy(plain + at, &x, 8);
	}
	body = malloc(bound);
	assert_non_null(body);
	n = body_compress(page.c, span_of(plain, page.size), body, bound);
	assert_true(n > 0);
	for (int i = 0; i < 4 && page.lies; i++)
		body[i] = (uint8_t)(page.lies >> (24 - 8 * i));
	free(plain);
	*ret_size = (size_t)n;
	return body;
}

static _Atomic unsigned next_pages;

static ssize_t answers_with_pages(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct frame_header own = {.version = h->version, .response = true, .flags = FRAME_COMPRESSED, .stream = h->stream, .opcode = OP_RESULT};
	uint8_t *large;
	size_t size, at = 0;

	if (h->opcode != OP_QUERY || !contains(h, body, "SELECT"))
		return plain_answer(p, h, body, to);
	if (contains(h, body, "next")) {
		if (p->cluster == &target && !contains(h, body, "target1"))
			atomic_fetch_add(&next_pages, 1);
		return response_write_void(h->version, h->stream, to, ROOM);
	}
	large = page_make(&size);
	own.length = (uint32_t)size;
	frame_header_write(to, &own);
	(void)!send(p->fd, to, FRAME_HEADER_SIZE, MSG_NOSIGNAL | MSG_MORE);
	while (at < size) {
		ssize_t n = send(p->fd, large + at, size - at, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	free(large);
	return 0;
}

static int open_compressed(enum compression c)
{
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", "COMPRESSION", c == COMPRESSION_LZ4 ? "lz4" : "snappy", NULL};
	struct timeval limit = {.tv_sec = 30};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(4, 1, pairs, envelope, sizeof(envelope));
	int fd = client_connect();

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 1), OP_READY);
	return fd;
}

/* Whatever its size: the tag is there, nothing else has changed, and the next page is asked of the cluster that has it. */
static void a_large_compressed_page_ends_the_session(void **unused)
{
	static const struct {
		enum compression c;
		size_t size;
		bool noise;
	} rows[] = {
		{COMPRESSION_LZ4, 65u << 20, false},    /* small as it comes, and large then */
		{COMPRESSION_SNAPPY, 65u << 20, false},
		{COMPRESSION_LZ4, 17u << 20, true},     /* large as it comes */
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		uint8_t header[FRAME_HEADER_SIZE], *body;
		struct frame_header h = {0};
		struct rows_head head;
		int fd;

		page.c = rows[i].c;
		page.size = rows[i].size;
		page.noise = rows[i].noise;
		atomic_store(&next_pages, 0);
		cluster_start(&origin, answers_with_pages);
		cluster_start(&target, answers_with_pages);
		agent_start(1, &cut_over);
		fd = open_compressed(page.c);
		ask_page(fd, 2, NULL, 0);
		assert_true(receive(fd, header, sizeof(header)));
		assert_true(frame_header_read(header, sizeof(header), &h) > 0);
		assert_int_equal(h.opcode, OP_RESULT);
		assert_int_equal(h.flags & FRAME_COMPRESSED, 0);
		assert_int_equal(h.length, page.size + PAGING_TAG_SIZE);
		body = malloc(h.length);
		assert_non_null(body);
		assert_true(receive(fd, body, h.length));
		assert_int_equal(rows_head_parse(4, span_of(body, h.length), &head), 0);
		assert_true(span_equal(head.paging_state, span_text(PAGING_TAG "next")));
		ask_page(fd, 3, head.paging_state.data, head.paging_state.size);
		assert_int_equal(expect(fd, 3), OP_RESULT);
		assert_int_equal(atomic_load(&next_pages), 1);
		free(body);
		close(fd);
		agent_stop();
	}
}

/* A size beyond the protocol's is a lie, and so is one that the bytes do not keep. */
static void a_page_that_lies_about_its_size(void **unused)
{
	static const uint32_t sizes[] = {(256u << 20) + 1, 2u << 20, UINT32_MAX};

	(void)unused;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct frame_header h;
		int fd;

		page.c = COMPRESSION_LZ4;
		page.size = 4u << 20;
		page.noise = true;
		page.lies = sizes[i];
		cluster_start(&origin, answers_with_pages);
		cluster_start(&target, answers_with_pages);
		agent_start(1, &cut_over);
		fd = open_compressed(page.c);
		ask_page(fd, 2, NULL, 0);
		assert_int_equal(client_receive(fd, &h, answer_body), -1);
		close(fd);
		page.lies = 0;
		agent_stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_write_that_names_a_page_stops_the_agent),
		cmocka_unit_test(a_page_fails_because_an_idle_connection_was_lost),
		cmocka_unit_test(a_large_compressed_page_ends_the_session),
		cmocka_unit_test(a_page_that_lies_about_its_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
