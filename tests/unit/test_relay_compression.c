// SPDX-License-Identifier: Apache-2.0
/*
 * Sessions that compress, when the cluster changes under them: a cluster that knows the algorithm, and one that does not. Real relay, clusters
 * that functions here play (relaytest.h).
 */
#include "cql/compress.h"
#include "unit/relaytest.h"

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};

/* What each connection agreed on, by its place in cluster_play.peer. */
static enum compression agreed[2][PEERS];
static _Atomic unsigned compressed_writes[2], refused;

static enum compression *agreement(const struct peer *p)
{
	return &agreed[p->cluster == &target][p - p->cluster->peer];
}

static ssize_t void_result(const struct frame_header *h, enum compression c, uint8_t *to)
{
	struct frame_header own = {.version = h->version, .response = true, .stream = h->stream, .opcode = OP_RESULT};
	int64_t n = body_compress(c, span_of("\0\0\0\1", 4), to + FRAME_HEADER_SIZE, ROOM - FRAME_HEADER_SIZE);

	assert_true(n > 0);
	own.flags = c == COMPRESSION_NONE ? 0 : FRAME_COMPRESSED;
	own.length = (uint32_t)n;
	frame_header_write(to, &own);
	return (ssize_t)(FRAME_HEADER_SIZE + n);
}

/* Takes what it is sent compressed and not, and answers compressed where that was agreed on. */
static ssize_t compressing(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static _Thread_local uint8_t plain[ROOM];
	enum compression *c = agreement(p);
	struct frame_header own = *h;
	struct span name;

	if (h->opcode == OP_STARTUP) {
		*c = startup_option(span_of(body, h->length), "COMPRESSION", &name) ? compression_from_name(name) : COMPRESSION_NONE;
	} else if (h->opcode == OP_QUERY) {
		if (h->flags & FRAME_COMPRESSED) {
			int64_t n = body_decompress(*c, span_of(body, h->length), plain, sizeof(plain));

			if (n < 0 || *c == COMPRESSION_NONE)
				return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "not agreed upon", to, ROOM);
			body = plain;
			own.length = (uint32_t)n;
		}
		if (contains(&own, body, "INSERT")) {
			atomic_fetch_add(&p->cluster->writes, 1);
			if (*c != COMPRESSION_NONE)
				atomic_fetch_add(&compressed_writes[p->cluster == &target], 1);
		}
		return void_result(h, *c, to);
	}
	return plain_answer(p, h, body, to);
}

static ssize_t without_snappy(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct span name;

	if (h->opcode == OP_STARTUP && startup_option(span_of(body, h->length), "COMPRESSION", &name) &&
	    compression_from_name(name) == COMPRESSION_SNAPPY) {
		atomic_fetch_add(&refused, 1);
		return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "Unknown compression algorithm: snappy", to, ROOM);
	}
	return compressing(p, h, body, to);
}

static int open_with(const char *algorithm)
{
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", "COMPRESSION", algorithm, NULL};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(4, 1, pairs, envelope, sizeof(envelope));
	int fd = client_connect();

	assert_true(n > 0);
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	return fd;
}

/* One INSERT, compressed, and its answer; the answer's flags. −1 = the connection is gone. */
static int insert(int fd, int16_t stream, enum compression c)
{
	uint8_t plain[256], envelope[512], body[64];
	ssize_t n = request_write_query(4, stream, span_text("INSERT INTO ks.t (k) VALUES (1)"), CL_ONE, plain, sizeof(plain));
	int64_t packed = body_compress(c, span_of(plain + FRAME_HEADER_SIZE, (size_t)n - FRAME_HEADER_SIZE), envelope + FRAME_HEADER_SIZE,
				       sizeof(envelope) - FRAME_HEADER_SIZE);
	struct frame_header h = {.version = 4, .flags = FRAME_COMPRESSED, .stream = stream, .opcode = OP_QUERY, .length = (uint32_t)packed};

	assert_true(packed > 0);
	frame_header_write(envelope, &h);
	if (send(fd, envelope, FRAME_HEADER_SIZE + (size_t)packed, MSG_NOSIGNAL) < 0 || client_receive(fd, &h, answer_body) < 0)
		return -1;
	assert_int_equal(h.opcode, OP_RESULT);
	assert_int_equal(h.stream, stream);
	if (h.flags & FRAME_COMPRESSED) {
		assert_int_equal(body_decompress(c, span_of(answer_body, h.length), body, sizeof(body)), 4);
		assert_memory_equal(body, "\0\0\0\1", 4);
	}
	return h.flags;
}

static void a_session_keeps_its_compression_over_a_switch(void **unused)
{
	static const struct {
		const char *name;
		enum compression c;
	} rows[] = {{"lz4", COMPRESSION_LZ4}, {"snappy", COMPRESSION_SNAPPY}};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		int fd;

		atomic_store(&compressed_writes[ORIGIN], 0);
		atomic_store(&compressed_writes[TARGET], 0);
		cluster_start(&origin, compressing);
		cluster_start(&target, compressing);
		agent_start(1, &mirroring);
		fd = open_with(rows[i].name);
		assert_int_equal(expect(fd, 1), OP_READY);
		assert_int_equal(insert(fd, 2, rows[i].c), FRAME_COMPRESSED);
		assert_true(wait_for(&target.writes, 1));
		change_course(&cut_over);
		assert_int_equal(insert(fd, 3, rows[i].c), FRAME_COMPRESSED);
		assert_true(wait_for(&origin.writes, 2));
		change_course(&mirroring);
		assert_int_equal(insert(fd, 4, rows[i].c), FRAME_COMPRESSED);
		assert_true(wait_for(&target.writes, 3));
		/* The session's own; the mirror's connections are plain. */
		assert_int_equal(atomic_load(&compressed_writes[ORIGIN]), 2);
		assert_int_equal(atomic_load(&compressed_writes[TARGET]), 1);
		close(fd);
		agent_stop();
	}
}

/* The session is carried over all the same: the target gets plain frames, and so does the client from there. */
static void a_target_without_the_compression_gets_plain_requests(void **unused)
{
	uint64_t closed = metrics_total(METRIC_SESSIONS_CLOSED_SWITCH);
	int snappy, lz4, later;

	(void)unused;
	atomic_store(&refused, 0);
	cluster_start(&origin, compressing);
	cluster_start(&target, without_snappy);
	agent_start(1, &mirroring);
	snappy = open_with("snappy");
	assert_int_equal(expect(snappy, 1), OP_READY);
	lz4 = open_with("lz4");
	assert_int_equal(expect(lz4, 1), OP_READY);
	assert_int_equal(insert(snappy, 2, COMPRESSION_SNAPPY), FRAME_COMPRESSED);
	assert_int_equal(insert(lz4, 2, COMPRESSION_LZ4), FRAME_COMPRESSED);
	assert_true(wait_for(&target.writes, 2));
	change_course(&cut_over);
	assert_int_equal(insert(snappy, 3, COMPRESSION_SNAPPY), 0);
	assert_int_equal(insert(lz4, 3, COMPRESSION_LZ4), FRAME_COMPRESSED);
	assert_true(wait_for(&origin.writes, 4));
	later = open_with("snappy");
	assert_int_equal(expect(later, 1), OP_READY);
	assert_int_equal(insert(later, 3, COMPRESSION_SNAPPY), 0);
	assert_true(wait_for(&origin.writes, 5));
	assert_int_equal(atomic_load(&refused), 1); /* one was enough to know it */
	/* Back where it is known. */
	change_course(&mirroring);
	assert_int_equal(insert(snappy, 4, COMPRESSION_SNAPPY), FRAME_COMPRESSED);
	assert_int_equal(insert(later, 4, COMPRESSION_SNAPPY), FRAME_COMPRESSED);
	assert_int_equal(metrics_total(METRIC_SESSIONS_CLOSED_SWITCH), closed);
	close(later);
	close(snappy);
	close(lz4);
	agent_stop();
}

/* The first that anybody hears of it is the answer to a client's own STARTUP. */
static void a_client_that_begins_after_the_switch_is_not_refused(void **unused)
{
	int fd;

	(void)unused;
	atomic_store(&refused, 0);
	cluster_start(&origin, compressing);
	cluster_start(&target, without_snappy);
	agent_start(1, &cut_over);
	fd = open_with("snappy");
	assert_int_equal(expect(fd, 1), OP_READY);
	assert_int_equal(atomic_load(&refused), 1);
	assert_int_equal(insert(fd, 2, COMPRESSION_SNAPPY), 0);
	assert_true(wait_for(&target.writes, 1));
	close(fd);
	agent_stop();
}

static ssize_t without_v4(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	if (h->opcode != OP_STARTUP)
		return compressing(p, h, body, to);
	atomic_fetch_add(&refused, 1);
	return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "Invalid or unsupported protocol version (4)", to, ROOM);
}

/* The same code of error, for another reason: that is for the client. */
static void another_refusal_reaches_the_client(void **unused)
{
	int fd;

	(void)unused;
	atomic_store(&refused, 0);
	cluster_start(&origin, compressing);
	cluster_start(&target, without_v4);
	agent_start(1, &(struct course){.primary = TARGET, .frozen = true});
	fd = open_with("lz4");
	assert_int_equal(expect(fd, 1), OP_ERROR);
	assert_non_null(memmem(answer_body, 128, "protocol version (4)", 20));
	assert_int_equal(atomic_load(&refused), 1);
	close(fd);
	agent_stop();
}

/* SUPPORTED of a cluster that has lz4 alone. */
static ssize_t lz4_alone(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	static const uint8_t supported[] = "\0\2" "\0\13CQL_VERSION\0\1\0\5" "3.4.7" "\0\13COMPRESSION\0\1\0\3lz4";
	struct frame_header own = {.version = h->version, .response = true, .stream = h->stream, .opcode = OP_SUPPORTED,
				   .length = sizeof(supported) - 1};

	if (h->opcode != OP_OPTIONS)
		return without_snappy(p, h, body, to);
	frame_header_write(to, &own);
	memcpy(to + FRAME_HEADER_SIZE, supported, sizeof(supported) - 1);
	return (ssize_t)(FRAME_HEADER_SIZE + sizeof(supported) - 1);
}

static void the_target_s_options_name_what_the_agent_can_do(void **unused)
{
	static const uint8_t options[FRAME_HEADER_SIZE] = {4, 0, 0, 1, OP_OPTIONS};
	struct frame_header h = {0};
	int fd;

	(void)unused;
	for (int side = ORIGIN; side <= TARGET; side++) {
		atomic_store(&refused, 0);
		cluster_start(&origin, side == ORIGIN ? lz4_alone : compressing);
		cluster_start(&target, side == TARGET ? lz4_alone : compressing);
		agent_start(1, side == ORIGIN ? &mirroring : &cut_over);
		fd = client_connect();
		assert_int_equal(send(fd, options, sizeof(options), MSG_NOSIGNAL), sizeof(options));
		assert_int_equal(client_receive(fd, &h, answer_body), OP_SUPPORTED);
		assert_true(supported_has(span_of(answer_body, h.length), "COMPRESSION", "lz4"));
		assert_true(supported_has(span_of(answer_body, h.length), "CQL_VERSION", "3.4.7"));
		/* The origin's own word stands. */
		assert_int_equal(supported_has(span_of(answer_body, h.length), "COMPRESSION", "snappy"), side == TARGET);
		close(fd);
		if (side == TARGET) {
			fd = open_with("snappy");
			assert_int_equal(expect(fd, 1), OP_READY);
			assert_int_equal(insert(fd, 2, COMPRESSION_SNAPPY), 0);
			assert_int_equal(atomic_load(&refused), 0); /* it was not even asked */
			close(fd);
		}
		agent_stop();
	}
}

static ssize_t without_lz4(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	struct span name;

	if (h->opcode != OP_STARTUP || !startup_option(span_of(body, h->length), "COMPRESSION", &name))
		return plain_answer(p, h, body, to);
	atomic_fetch_add(&refused, 1);
	return response_write_error(h->version, h->stream, CQL_PROTOCOL_ERROR, "Unknown compression algorithm: lz4", to, ROOM);
}

/* `count` INSERTs in one segment of the client's framing, and their answers. */
static void insert_segment(int fd, unsigned count)
{
	static uint8_t payload[ROOM], room[ROOM];
	struct frame_header h = {0};
	unsigned answered = 0;
	size_t size = 0;

	for (unsigned i = 0; i < count; i++) {
		ssize_t n = request_write_query(5, (int16_t)i, span_text("INSERT INTO ks.t (k) VALUES (1)"), CL_ONE, payload + size, ROOM - size);

		assert_true(n > 0);
		size += (size_t)n;
	}
	assert_true(send_segment(fd, /* lz4= */ true, payload, size));
	while (answered < count) {
		ssize_t have = receive_segment(fd, /* lz4= */ true, payload, room);

		assert_true(have > 0);
		for (ssize_t at = 0; at < have; at += FRAME_HEADER_SIZE + h.length, answered++) {
			assert_true(frame_header_read(payload + at, (size_t)(have - at), &h) > 0);
			assert_int_equal(h.opcode, OP_RESULT);
		}
	}
	assert_int_equal(answered, count);
}

/* v5: the segments themselves have another form; requests and answers are wrapped anew. */
static void segments_are_wrapped_anew_for_a_target_without_lz4(void **unused)
{
	const char *const pairs[] = {"CQL_VERSION", "3.0.0", "COMPRESSION", "lz4", NULL};
	uint8_t envelope[256];
	ssize_t n = request_write_startup(5, 1, pairs, envelope, sizeof(envelope));
	int fd;

	(void)unused;
	speak_v5 = true;
	atomic_store(&refused, 0);
	cluster_start(&origin, plain_answer);
	cluster_start(&target, without_lz4);
	agent_start(1, &mirroring);
	fd = client_connect();
	assert_int_equal(send(fd, envelope, (size_t)n, MSG_NOSIGNAL), n);
	assert_int_equal(expect(fd, 1), OP_READY);
	insert_segment(fd, 3);
	assert_true(wait_for(&target.writes, 3));
	change_course(&cut_over);
	insert_segment(fd, 5);
	assert_int_equal(atomic_load(&refused), 1);
	assert_true(wait_for(&target.writes, 8));
	assert_true(wait_for(&origin.writes, 8));
	change_course(&mirroring);
	insert_segment(fd, 2);
	assert_true(wait_for(&target.writes, 10));
	close(fd);
	agent_stop();
	speak_v5 = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_keeps_its_compression_over_a_switch),
		cmocka_unit_test(a_target_without_the_compression_gets_plain_requests),
		cmocka_unit_test(a_client_that_begins_after_the_switch_is_not_refused),
		cmocka_unit_test(another_refusal_reaches_the_client),
		cmocka_unit_test(segments_are_wrapped_anew_for_a_target_without_lz4),
		cmocka_unit_test(the_target_s_options_name_what_the_agent_can_do),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
