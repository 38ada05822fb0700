// SPDX-License-Identifier: Apache-2.0
/* Paging states on their way through the agent, there and back: the tag of those that the target made. Real relay (relaytest.h). */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_write_that_names_a_page_stops_the_agent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
