// SPDX-License-Identifier: Apache-2.0
/*
 * Requests. The envelopes below were written by Apache Cassandra's Python driver (3.30), the same messages
 * for each version, so that encoding from one version to another has an independent answer to be compared
 * with.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cql/request.h"
#include "unit/guard.h"

#define ID "000102030405060708090a0b0c0d0e0f"
#define META "52525252525252525252525252525252"
#define INSERT "494e5345525420494e544f207420286b292056414c554553202831 29"
#define SELECT "53454c454354202a2046524f4d2074205748455245206b203d203f"
#define PREPARE "494e5345525420494e544f207420286b292056414c55455320283f29"
#define DELETE "44454c4554452046524f4d2074205748455245206b203d2031"
#define SOME "00000003616263 ffffffff 00000000"
#define TIME "00060a24181e4001"

static const struct {
	const char *name;
	uint8_t version;
	const char *hex;
} envelopes[] = {
    {"query", 3, "0300000507 00000023 0000001c" INSERT "0006 00"},
    {"query", 4, "0400000507 00000023 0000001c" INSERT "0006 00"},
    {"query", 5, "0500000507 00000026 0000001c" INSERT "0006 00000000"},
    {"query with values, paging, serial, timestamp", 3,
     "0300000507 00000048 0000001b" SELECT "0001 3d 0003" SOME "00001388 00000003010203 0009" TIME},
    {"query with values, paging, serial, timestamp", 4,
     "0400000507 0000004c 0000001b" SELECT "0001 3d 0004" SOME "fffffffe 00001388 00000003010203 0009" TIME},
    {"query with values, paging, serial, timestamp, keyspace", 5,
     "0500000507 00000053 0000001b" SELECT "0001 000000bd 0004" SOME
     "fffffffe 00001388 00000003010203 0009" TIME "00026b73"},
    {"prepare", 3, "0300000509 00000020 0000001c" PREPARE},
    {"prepare", 4, "0400000509 00000020 0000001c" PREPARE},
    {"prepare with keyspace", 5, "0500000509 00000028 0000001c" PREPARE "00000001 00026b73"},
    {"execute", 3, "030000050a 0000002b 0010" ID "0004 21 0002 0000000400000007 ffffffff 000000000000002a"},
    {"execute", 4, "040000050a 0000002b 0010" ID "0004 21 0002 0000000400000007 ffffffff 000000000000002a"},
    {"execute", 5,
     "050000050a 00000040 0010" ID "0010" META
     "0004 00000021 0002 0000000400000007 ffffffff 000000000000002a"},
    {"execute bare", 3, "030000050a 00000017 0010" ID "0001 01 0000"},
    {"execute bare", 4, "040000050a 00000017 0010" ID "0001 01 0000"},
    {"execute bare", 5, "050000050a 0000002c 0010" ID "0010" META "0001 00000001 0000"},
    {"batch", 3,
     "030000050d 00000051 01 0002 00 00000019" DELETE "0000 01 0010" ID
     "0002 0000000400000001 ffffffff 0002 30 0008 000000000000004d"},
    {"batch", 4,
     "040000050d 00000051 01 0002 00 00000019" DELETE "0000 01 0010" ID
     "0002 0000000400000001 ffffffff 0002 30 0008 000000000000004d"},
    {"batch with keyspace", 5,
     "050000050d 00000058 01 0002 00 00000019" DELETE "0000 01 0010" ID
     "0002 0000000400000001 ffffffff 0002 000000b0 0008 000000000000004d 00026b73"},
    {"batch bare", 3, "030000050d 00000020 00 0001 01 0010" ID "0001 0000000178 000a 00"},
    {"batch bare", 4, "040000050d 00000020 00 0001 01 0010" ID "0001 0000000178 000a 00"},
    {"batch bare", 5, "050000050d 00000023 00 0001 01 0010" ID "0001 0000000178 000a 00000000"},
    {"payload", 4, "0404000507 00000013 0001 000170 000000020102 00000001 78 0001 00"},
    {"payload", 5, "0504000507 00000016 0001 000170 000000020102 00000001 78 0001 00000000"},
    {"now in seconds and an empty keyspace", 5,
     "0500000507 00000011 00000001 78 0001 00000180 0000 00000e10"},
    {"empty batch with named values", 4, "040000050d 00000006 00 0000 0001 40"},
    {"startup", 4,
     "0400000501 00000028 0002 000b434f4d5052455353494f4e 00036c7a34 000b43514c5f56455253494f4e "
     "0005332e342e35"},
    {"register", 4,
     "040000050b 00000022 0002 000f544f504f4c4f47595f4348414e4745 000d5354415455535f4348414e4745"},
    {"options", 4, "0400000505 00000000"},
    {"auth", 4, "040000050f 0000000c 00000008 0075736572007077"},
};
#define ENVELOPES (sizeof(envelopes) / sizeof(envelopes[0]))

static const char *envelope(const char *name, uint8_t version)
{
	for (size_t i = 0; i < ENVELOPES; i++)
		if (!strcmp(envelopes[i].name, name) && envelopes[i].version == version)
			return envelopes[i].hex;
	fail_msg("no envelope %s v%u", name, version);
	return NULL;
}

/* Parses an envelope that lies in `slot`, its body flush against the guard page. */
static struct request parse(unsigned slot, const char *hex)
{
	struct span e = guard_hex(slot, hex);
	struct frame_header h = {0};
	struct request r;

	assert_int_equal(frame_header_read(e.data, e.size, &h), FRAME_HEADER_SIZE);
	assert_int_equal(h.length, e.size - FRAME_HEADER_SIZE);
	assert_int_equal(request_parse(h.version, h.flags, h.opcode, span_of(e.data + 9, e.size - 9), &r), 0);
	return r;
}

static const struct request_target as_it_is = {.stream = 5, .consistency = -1};

static void assert_encodes(const struct request *r, const struct request_target *t, const char *hex)
{
	struct span want = guard_hex(2, hex);
	uint8_t *to = guard_room(3, want.size);

	assert_true(request_encode_bound(r) >= want.size);
	assert_int_equal(request_encode(r, t, to, want.size), want.size);
	assert_memory_equal(to, want.data, want.size);
	for (size_t room = 0; room < want.size; room++)
		assert_int_equal(request_encode(r, t, guard_room(3, room), room), -ENOSPC);
}

static void all_fields_are_found(void **state)
{
	(void)state;
	struct request r = parse(0, envelope("query with values, paging, serial, timestamp, keyspace", 5));
	assert_true(span_equal(r.text, span_text("SELECT * FROM t WHERE k = ?")));
	assert_int_equal(r.params.consistency, CL_ONE);
	assert_int_equal(r.params.flags, 0xbd);
	assert_int_equal(r.params.values_count, 4);
	assert_int_equal(r.params.values.size, 19);
	assert_int_equal(r.params.page_size, 5000);
	assert_true(span_equal(r.params.paging_state, span_of("\1\2\3", 3)));
	assert_int_equal(r.params.serial_consistency, CL_LOCAL_SERIAL);
	assert_int_equal(r.params.timestamp, 1700000000000001);
	assert_true(span_equal(r.params.keyspace, span_text("ks")));
	assert_int_equal(r.params.consistency_at, 31);
	assert_int_equal(r.params.flags_at, 33);
	assert_int_equal(r.params.paging_at, 33 + 4 + 2 + 19 + 4);
	assert_int_equal(r.params.timestamp_at, r.params.paging_at + 4 + 3 + 2);

	r = parse(0, envelope("prepare with keyspace", 5));
	assert_true(span_equal(r.prepare_keyspace, span_text("ks")));
	r = parse(0, envelope("execute", 5));
	assert_int_equal(r.id.size, 16);
	assert_int_equal(r.id_at, 0);
	assert_int_equal(r.id.data[15], 15);
	assert_true(span_equal(r.result_metadata_id, span_text("RRRRRRRRRRRRRRRR")));
	r = parse(0, envelope("payload", 4));
	assert_int_equal(r.payload.size, 11);
	assert_true(span_equal(r.text, span_text("x")));
	assert_int_equal(r.params.flags_at, 18);
	r = parse(0, envelope("now in seconds and an empty keyspace", 5));
	assert_int_equal(r.params.now_in_seconds, 3600);
	assert_non_null(r.params.keyspace.data);

	struct batch_child c;
	r = parse(0, envelope("batch", 4));
	struct span cursor = r.batch_children;
	assert_int_equal(r.batch_type, 1);
	assert_int_equal(r.batch_count, 2);
	assert_int_equal(batch_next(4, &cursor, &c), 1);
	assert_false(c.prepared);
	assert_true(span_equal(c.text, span_text("DELETE FROM t WHERE k = 1")));
	assert_int_equal(batch_next(4, &cursor, &c), 1);
	assert_true(c.prepared);
	assert_int_equal(c.text.size, 16);
	assert_int_equal(c.values_count, 2);
	assert_int_equal(c.values.size, 12);
	assert_int_equal(batch_next(4, &cursor, &c), 0);
	cursor = span_of(r.batch_children.data, 5);
	assert_int_equal(batch_next(4, &cursor, &c), CQL_MALFORMED);
}

static void every_prefix_and_suffix_is_malformed(void **state)
{
	struct request r;

	(void)state;
	for (size_t i = 0; i < ENVELOPES; i++) {
		struct span e = guard_hex(1, envelopes[i].hex);
		struct span body = span_of(e.data + 9, e.size - 9);
		uint8_t opcode = e.data[4], flags = e.data[1];
		bool opaque =
		    opcode != OP_QUERY && opcode != OP_PREPARE && opcode != OP_EXECUTE && opcode != OP_BATCH;

		print_message("%s v%u\n", envelopes[i].name, envelopes[i].version);
		for (size_t n = 0; n < body.size; n++)
			assert_int_equal(
			    request_parse(envelopes[i].version, flags, opcode, guard_bytes(body.data, n), &r),
			    opaque ? 0 : CQL_MALFORMED);
		if (opaque)
			continue;
		uint8_t longer[256];
		memcpy(longer, body.data, body.size);
		longer[body.size] = 0;
		assert_int_equal(request_parse(envelopes[i].version, flags, opcode,
					       guard_bytes(longer, body.size + 1), &r),
				 CQL_MALFORMED);
	}
}

static void malformed_bodies(void **state)
{
	static const struct {
		const char *name;
		uint8_t version, flags, opcode;
		const char *hex;
	} cases[] = {
	    {"version 2", 2, 0, OP_QUERY, "00000001 78 0001 00"},
	    {"DSE", 0x42, 0, OP_QUERY, "00000001 78 0001 00"},
	    {"payload in v3", 3, FRAME_PAYLOAD, OP_QUERY, "0000 00000001 78 0001 00"},
	    {"payload longer than any frame", 4, FRAME_PAYLOAD, OP_QUERY, "0001 000170 7fffffff"},
	    {"negative text length", 4, 0, OP_QUERY, "ffffffff 0001 00"},
	    {"flag 0x80 in v4", 4, 0, OP_QUERY, "00000001 78 0001 80 00026b73"},
	    {"flag 0x200 in v5", 5, 0, OP_QUERY, "00000001 78 0001 00000200"},
	    {"value -3", 4, 0, OP_QUERY, "00000001 78 0001 01 0001 fffffffd"},
	    {"value not set in v3", 3, 0, OP_QUERY, "00000001 78 0001 01 0001 fffffffe"},
	    {"paging state longer than any frame", 4, 0, OP_QUERY, "00000001 78 0001 08 7fffffff"},
	    {"fewer values than counted", 4, 0, OP_QUERY, "00000001 78 0001 01 ffff 0000000161"},
	    {"prepare with a second flag", 5, 0, OP_PREPARE, "00000001 78 00000002"},
	    {"flags behind a v4 prepare", 4, 0, OP_PREPARE, "00000001 78 00000000"},
	    {"batch of type 3", 4, 0, OP_BATCH, "03 0000 0001 00"},
	    {"batch child of kind 2", 4, 0, OP_BATCH, "00 0001 02 00000001 78 0000 0001 00"},
	    {"batch with values flag", 4, 0, OP_BATCH, "00 0000 0001 01 0000"},
	    {"batch with names in front of values", 4, 0, OP_BATCH,
	     "00 0001 00 00000001 78 0001 000161 0000000162 0001 40"},
	};
	struct request r;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("%s\n", cases[i].name);
		assert_int_equal(request_parse(cases[i].version, cases[i].flags, cases[i].opcode,
					       guard_hex(0, cases[i].hex), &r),
				 CQL_MALFORMED);
	}
	/* Named values of a query, null paging state. */
	assert_int_equal(request_parse(4, 0, OP_QUERY,
				       guard_hex(0, "00000001 78 0001 49 0001 000161 0000000162 ffffffff"),
				       &r),
			 0);
	assert_int_equal(r.params.values.size, 8);
	assert_null(r.params.paging_state.data);
	/* No body at all is not a reason to read address 0. */
	assert_int_equal(request_parse(4, 0, OP_QUERY, (struct span){0}, &r), CQL_MALFORMED);
}

static void execute_ids_are_found_in_a_beginning(void **state)
{
	struct span id = {0}, body = guard_hex(1, "0001 000170 000000020102 0010" ID "0001 00");

	(void)state;
	for (size_t n = 0; n < 11 + 2 + 16; n++)
		assert_int_equal(request_execute_id(FRAME_PAYLOAD, guard_bytes(body.data, n), &id),
				 CQL_INCOMPLETE);
	assert_null(id.data);
	assert_int_equal(request_execute_id(FRAME_PAYLOAD, guard_bytes(body.data, 29), &id), 0);
	assert_int_equal(id.size, 16);
	assert_int_equal(id.data[1], 1);
	assert_int_equal(request_execute_id(0, guard_hex(0, "0001ff"), &id), 0);
	assert_int_equal(id.data[0], 0xff);
	assert_int_equal(request_execute_id(FRAME_PAYLOAD, guard_hex(0, "0001 000170 20000000"), &id),
			 CQL_MALFORMED);
}

static struct span apply(struct span body, const struct edit *edits, unsigned count)
{
	uint8_t *to = guard_room(2, body.size + (size_t)edits_growth(edits, count));
	size_t from = 0, at = 0;

	for (unsigned i = 0; i < count; i++) {
		memcpy(to + at, body.data + from, edits[i].at - from);
		at += edits[i].at - from;
		memcpy(to + at, edits[i].insert, edits[i].size);
		at += edits[i].size;
		from = edits[i].at + edits[i].remove;
	}
	memcpy(to + at, body.data + from, body.size - from);
	return span_of(to, at + body.size - from);
}

static void timestamps_are_pinned(void **state)
{
	struct edit edits[REQUEST_EDITS_MAX];
	unsigned pinned = 0;

	(void)state;
	for (size_t i = 0; i < ENVELOPES; i++) {
		struct request r = parse(0, envelopes[i].hex), again;
		bool takes = r.opcode == OP_QUERY || r.opcode == OP_EXECUTE || r.opcode == OP_BATCH;
		unsigned n = request_pin_timestamp(&r, 0x0102030405060708, edits);

		print_message("%s v%u\n", envelopes[i].name, envelopes[i].version);
		assert_int_equal(n, takes && !(r.params.flags & QUERY_TIMESTAMP) ? 2 : 0);
		if (!n)
			continue;
		pinned++;
		assert_int_equal(edits_growth(edits, n), 8);
		struct span body = apply(r.body, edits, n);
		assert_int_equal(request_parse(r.version, r.header_flags, r.opcode, body, &again), 0);
		assert_int_equal(again.params.timestamp, 0x0102030405060708);
		assert_int_equal(again.params.flags, r.params.flags | QUERY_TIMESTAMP);
		assert_true(span_equal(again.text, r.text) && span_equal(again.id, r.id));
		assert_true(span_equal(again.params.values, r.params.values));
		assert_true(span_equal(again.batch_children, r.batch_children));
		assert_int_equal(again.params.consistency, r.params.consistency);
		assert_int_equal(again.params.now_in_seconds, r.params.now_in_seconds);
		assert_int_equal(request_pin_timestamp(&again, 1, edits), 0);
	}
	assert_int_equal(pinned, 13);
}

static void encoding_gives_back_what_was_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ENVELOPES; i++) {
		/* These lose something on purpose; other tests look at that. */
		if (strstr(envelopes[i].name, "paging") || strstr(envelopes[i].name, "payload") ||
		    strstr(envelopes[i].name, "named"))
			continue;
		print_message("%s v%u\n", envelopes[i].name, envelopes[i].version);
		struct request r = parse(0, envelopes[i].hex);
		assert_encodes(&r, &as_it_is, envelopes[i].hex);
	}
}

static void versions_are_translated(void **state)
{
	static const char *const names[] = {"query",	    "prepare", "execute",
					    "execute bare", "batch",   "batch bare"};
	static const uint8_t versions[] = {3, 4, 5};
	struct span keyspace = span_text("ks");

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (unsigned from = 0; from < 3; from++)
			for (unsigned to = 0; to < 3; to++) {
				bool ks = !strcmp(names[i], "batch") || !strcmp(names[i], "prepare");
				const char *five = !strcmp(names[i], "batch") ? "batch with keyspace"
						   : ks			      ? "prepare with keyspace"
									      : names[i];
				struct request r =
				    parse(0, envelope(versions[from] == 5 ? five : names[i], versions[from]));
				struct request_target t = as_it_is;
				t.version = versions[to];
				/* To v5 it is sent along, to the others it says that the connection is bound
				 * to it. */
				t.keyspace = ks ? keyspace : (struct span){0};
				t.result_metadata_id = span_text("RRRRRRRRRRRRRRRR");
				print_message("%s v%u to v%u\n", names[i], versions[from], versions[to]);
				assert_encodes(&r, &t,
					       envelope(versions[to] == 5 ? five : names[i], versions[to]));
			}
}

static void paging_tracing_and_payload_are_left_out(void **state)
{
	(void)state;
	struct request r = parse(0, envelope("query with values, paging, serial, timestamp", 4));
	r.header_flags = FRAME_TRACING | FRAME_COMPRESSED | FRAME_BETA;
	assert_encodes(&r, &as_it_is,
		       "0410000507 00000041 0000001b" SELECT "0001 31 0004" SOME "fffffffe 0009" TIME);
	r = parse(0, envelope("payload", 4));
	assert_encodes(&r, &as_it_is, "0400000507 00000008 00000001 78 0001 00");
	/* Unless it is to be kept. */
	struct request_target keeping = as_it_is;
	uint8_t to[64];
	keeping.keep_payload = true;
	assert_encodes(&r, &keeping, envelope("payload", 4));
	keeping.version = 5;
	assert_encodes(&r, &keeping, envelope("payload", 5));
	keeping.version = 3;
	assert_int_equal(request_encode(&r, &keeping, to, sizeof(to)), -ENOTSUP);
	r = parse(0, envelope("query", 4));
	assert_encodes(&r, &keeping, envelope("query", 3));
	r = parse(0, envelope("empty batch with named values", 4));
	assert_encodes(&r, &as_it_is, "040000050d 00000006 00 0000 0001 00");
	/* The beta flag was meant for that version only. */
	r = parse(0, envelope("query", 4));
	r.header_flags = FRAME_BETA;
	struct request_target t = as_it_is;
	t.version = 5;
	assert_encodes(&r, &t, envelope("query", 5));
}

static void the_target_changes_what_it_names(void **state)
{
	(void)state;
	struct request r = parse(0, envelope("query", 4));
	struct request_target t = {
	    .version = 5,
	    .stream = -2,
	    .consistency = CL_LOCAL_ONE,
	    .set_timestamp = true,
	    .timestamp = 42,
	    .keyspace = span_text("ks"),
	    .set_now = true,
	    .now_in_seconds = 7,
	    .skip_metadata = true,
	};
	assert_encodes(
	    &r, &t, "0500fffe07 00000036 0000001c" INSERT "000a 000001a2 000000000000002a 00026b73 00000007");
	/* Keyspace and now cannot be said in v4 and are the connection's business there. */
	t.version = 4;
	assert_encodes(&r, &t, "0400fffe07 0000002b 0000001c" INSERT "000a 22 000000000000002a");
	/* The client's own idea of now stays: the origin went by it. */
	r = parse(0, envelope("now in seconds and an empty keyspace", 5));
	t = as_it_is;
	t.set_now = true;
	t.now_in_seconds = 9;
	assert_encodes(&r, &t, envelope("now in seconds and an empty keyspace", 5));
	/* A keyspace of the client's own stays; its timestamp gives way. */
	r = parse(0, envelope("batch with keyspace", 5));
	t = as_it_is;
	t.keyspace = span_text("other");
	t.skip_metadata = true;
	assert_encodes(&r, &t, envelope("batch with keyspace", 5));
	t.set_timestamp = true;
	t.timestamp = 78;
	assert_encodes(&r, &t,
		       "050000050d 00000058 01 0002 00 00000019" DELETE "0000 01 0010" ID
		       "0002 0000000400000001 ffffffff 0002 000000b0 0008 000000000000004e 00026b73");
	r = parse(0, envelope("execute bare", 5));
	t = as_it_is;
	t.id = span_text("abc");
	t.result_metadata_id = span_text("de");
	assert_encodes(&r, &t, "050000050a 00000011 0003616263 00026465 0001 00000001 0000");
}

static void what_a_version_cannot_say_is_refused(void **state)
{
	uint8_t to[256];
	struct request_target t = as_it_is;

	(void)state;
	struct request r = parse(0, envelope("query with values, paging, serial, timestamp", 4));
	t.version = 3;
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP); /* a value that is not set */
	r = parse(0, "0400000507 00000018 00000001 78 0001 41 0002 000161 00000000 000162 fffffffe");
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP); /* and among named ones */
	r = parse(0, "040000050d 00000017 00 0002 00 00000001 78 0001 fffffffe 01 0000 0000 0001 00");
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP); /* and in a batch */
	t.version = 4;
	r = parse(0, envelope("batch with keyspace", 5));
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP);
	r = parse(0, envelope("prepare with keyspace", 5));
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP);
	r = parse(0, envelope("now in seconds and an empty keyspace", 5));
	t.keyspace = span_text("ks");
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP);
	r = parse(0, envelope("execute", 4));
	t.version = 5;
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP); /* no result metadata id */
	r = parse(0, envelope("query", 4));
	t.version = 6;
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOTSUP);
	r.opcode = OP_RESULT;
	assert_int_equal(request_encode(&r, &as_it_is, to, sizeof(to)), -ENOTSUP);
	/* A view that was cut afterwards. */
	r = parse(0, envelope("batch", 4));
	r.batch_children.size -= 3;
	assert_int_equal(request_encode(&r, &as_it_is, to, sizeof(to)), -EINVAL);
	/* An id that a [short bytes] cannot hold. */
	r = parse(0, envelope("execute", 4));
	t = as_it_is;
	t.id = span_of(guard_room(1, 70000), 70000);
	assert_int_equal(request_encode(&r, &t, guard_room(2, 80000), 80000), -ENOSPC);
}

static bool map_child(void *context, struct span id, struct span *ret)
{
	const char *known = context;

	assert_int_equal(id.size, 16);
	*ret = span_text("abcd");
	return known != NULL;
}

static void batch_ids_are_mapped(void **state)
{
	uint8_t to[256];
	struct request_target t = as_it_is;

	(void)state;
	struct request r = parse(0, envelope("batch bare", 4));
	t.child_id = map_child;
	assert_int_equal(request_encode(&r, &t, to, sizeof(to)), -ENOENT);
	t.context = (char[]){"known"};
	assert_encodes(&r, &t, "040000050d 00000014 00 0001 01 0004 61626364 0001 0000000178 000a 00");
}

static void own_requests(void **state)
{
	static const char *const pairs[] = {"COMPRESSION", "lz4", "CQL_VERSION", "3.4.5", NULL};
	static const char *const events[] = {"TOPOLOGY_CHANGE", "STATUS_CHANGE", NULL};
	uint8_t to[256];

	(void)state;
#define SAME(call, name, version)                                         \
	do {                                                              \
		struct span want = guard_hex(0, envelope(name, version)); \
		size_t room = want.size;                                  \
		uint8_t *at = guard_room(1, room);                        \
		(void)to;                                                 \
		assert_int_equal(call, want.size);                        \
		assert_memory_equal(at, want.data, want.size);            \
		at = guard_room(1, --room);                               \
		assert_int_equal(call, -ENOSPC);                          \
	} while (0)
	SAME(request_write_options(4, 5, at, room), "options", 4);
	SAME(request_write_startup(4, 5, pairs, at, room), "startup", 4);
	SAME(request_write_auth(4, 5, span_of("\0user\0pw", 8), at, room), "auth", 4);
	SAME(request_write_register(4, 5, events, at, room), "register", 4);
	for (uint8_t v = 3; v <= 5; v++)
		SAME(request_write_query(v, 5, span_text("INSERT INTO t (k) VALUES (1)"), CL_LOCAL_QUORUM, at,
					 room),
		     "query", v);
	SAME(request_write_prepare(3, 5, span_text("INSERT INTO t (k) VALUES (?)"), (struct span){0}, at,
				   room),
	     "prepare", 3);
	SAME(
	    request_write_prepare(4, 5, span_text("INSERT INTO t (k) VALUES (?)"), span_text("ks"), at, room),
	    "prepare", 4);
	SAME(
	    request_write_prepare(5, 5, span_text("INSERT INTO t (k) VALUES (?)"), span_text("ks"), at, room),
	    "prepare with keyspace", 5);
	assert_int_equal(request_write_prepare(5, 5, span_text("x"), (struct span){0}, to, sizeof(to)),
			 9 + 4 + 1 + 4);
	assert_memory_equal(to + 9, "\0\0\0\1x\0\0\0\0", 9);
	/* An empty token is not a null one. */
	assert_int_equal(request_write_auth(4, 5, (struct span){0}, to, sizeof(to)), 13);
	assert_memory_equal(to + 9, "\0\0\0\0", 4);
	/* More than any frame holds. */
	assert_int_equal(request_write_query(4, 5, span_of(to, FRAME_BODY_MAX + 1u), 1, to, sizeof(to)),
			 -ENOSPC);
}

static void startup_options(void **state)
{
	struct span body = guard_hex(
	    1, "0002 000b434f4d5052455353494f4e 00036c7a34 000b43514c5f56455253494f4e 0005332e342e35");
	struct span value = {0};

	(void)state;
	assert_true(startup_option(body, "COMPRESSION", &value));
	assert_true(span_equal(value, span_text("lz4")));
	assert_true(startup_option(body, "CQL_VERSION", &value));
	assert_true(span_equal(value, span_text("3.4.5")));
	assert_false(startup_option(body, "compression", &value));
	assert_false(startup_option(body, "COMPRESSIO", &value));
	for (size_t n = 0; n < body.size; n++)
		assert_false(startup_option(guard_bytes(body.data, n), "COMPRESSION", &value));
	assert_false(startup_option((struct span){0}, "COMPRESSION", &value));
}

static void startup_loses_an_option(void **state)
{
	struct span body = guard_hex(
	    1, "0002 000b434f4d5052455353494f4e 00036c7a34 000b43514c5f56455253494f4e 0005332e342e35");
	struct span value = {0};
	uint8_t to[64];
	size_t n = startup_without(body, "COMPRESSION", to);

	(void)state;
	assert_int_equal(n, body.size - 18);
	assert_false(startup_option(span_of(to, n), "COMPRESSION", &value));
	assert_true(startup_option(span_of(to, n), "CQL_VERSION", &value));
	assert_true(span_equal(value, span_text("3.4.5")));
	assert_int_equal(startup_without(body, "NO_COMPACT", to), body.size);
	assert_memory_equal(to, body.data, body.size);
	/* Malformed, or with more behind it: as it came. */
	for (n = 0; n < body.size; n++) {
		assert_int_equal(startup_without(guard_bytes(body.data, n), "COMPRESSION", to), n);
		assert_memory_equal(to, body.data, n);
	}
}

static void registers_add_up(void **state)
{
	static const struct {
		const char *name, *had, *more, *want;
		size_t room;
	} rows[] = {
	    {"the first", "", "0001 000141", "0001 000141", 64},
	    {"another one", "0001 000141", "0001 00024242", "0002 000141 00024242", 64},
	    {"the same again", "0001 000141", "0001 000141", "0001 000141", 64},
	    {"one of two is new", "0001 000141", "0002 000141 000142", "0002 000141 000142", 64},
	    {"twice in one", "", "0003 000141 000142 000141", "0002 000141 000142", 64},
	    {"a beginning is another name", "0001 00024142", "0001 000141", "0002 00024142 000141", 64},
	    {"none", "", "0000", "0000", 64},
	    {"just fits", "0001 000141", "0001 000142", "0002 000141 000142", 8},
	    {"no room", "0001 000141", "0001 000142", "0001 000141", 7},
	    {"room for a shorter one", "0001 000141", "0002 00024242 000143", "0002 000141 000143", 8},
	    {"nothing", "0001 000141", "", "0001 000141", 64},
	    {"truncated", "0001 000141", "0002 000142 0002", "0001 000141", 64},
	    {"more than it says", "0001 000141", "0001 000142 00", "0002 000141 000142", 64}, /* servers overlook it */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct span had = guard_hex(0, rows[i].had), more = guard_hex(1, rows[i].more), want = guard_hex(2, rows[i].want);
		uint8_t *to = guard_room(3, rows[i].room);

		print_message("%s\n", rows[i].name);
		assert_int_equal(register_join(had, more, to, rows[i].room), want.size);
		assert_memory_equal(to, want.data, want.size);
	}
	assert_true(register_names(guard_hex(0, "0002 00024142 000143"), span_text("C")));
	assert_false(register_names(guard_hex(0, "0002 00024142 000143"), span_text("A")));
	assert_false(register_names(guard_hex(0, "0001 00024142 000143"), span_text("C")));
	assert_false(register_names(guard_hex(0, "0001 000243"), span_text("C")));
	assert_false(register_names((struct span){0}, span_text("C")));
}

/* A simple statement's values have no types: what could be a list must not be repeated. */
static void bound_lists_are_suspected(void **state)
{
	static const struct {
		const char *value;
		bool list;
	} values[] = {
	    {"ffffffff", false},
	    {"00000000", false},
	    {"00000004 00000000", false}, /* an empty list, or the number 0 */
	    {"00000008 00000001 00000000", true}, /* [''], or a number that is hardly ever bound */
	    {"0000000c 00000001 00000004 00000007", true},
	    {"00000014 00000002 00000004 00000007 00000004 00000008", true},
	    {"00000008 00000001 ffffffff", true},			       /* [null] */
	    {"0000000e 00000001 00000001 61 00000001 62", false},	       /* {'a': 'b'} */
	    {"0000000d 00000001 00000004 00000007 aa", false},
	    {"00000008 7fffffff 00000004", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		char hex[256];
		struct span body;
		struct request r;

		snprintf(hex, sizeof(hex), "00000001 78 0001 01 0002 00000001aa %s", values[i].value);
		body = guard_hex(0, hex);
		assert_int_equal(request_parse(4, 0, OP_QUERY, body, &r), 0);
		assert_int_equal(request_may_bind_list(&r), values[i].list);
		snprintf(hex, sizeof(hex), "00000001 78 0001 41 0001 000161 %s", values[i].value);
		assert_int_equal(request_parse(4, 0, OP_QUERY, guard_hex(0, hex), &r), 0);
		assert_int_equal(request_may_bind_list(&r), values[i].list);
		snprintf(hex, sizeof(hex), "00 0002 01 000161 0001 0000000c000000010000000400000007 00 00000001 78 0001 %s 0001 00", values[i].value);
		assert_int_equal(request_parse(4, 0, OP_BATCH, guard_hex(0, hex), &r), 0);
		assert_int_equal(request_may_bind_list(&r), values[i].list);
		/* Of a prepared statement the types are known. */
		snprintf(hex, sizeof(hex), "000161 0001 01 0001 %s", values[i].value);
		assert_int_equal(request_parse(4, 0, OP_EXECUTE, guard_hex(0, hex), &r), 0);
		assert_false(request_may_bind_list(&r));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(all_fields_are_found),
	    cmocka_unit_test(every_prefix_and_suffix_is_malformed),
	    cmocka_unit_test(malformed_bodies),
	    cmocka_unit_test(execute_ids_are_found_in_a_beginning),
	    cmocka_unit_test(timestamps_are_pinned),
	    cmocka_unit_test(encoding_gives_back_what_was_parsed),
	    cmocka_unit_test(versions_are_translated),
	    cmocka_unit_test(paging_tracing_and_payload_are_left_out),
	    cmocka_unit_test(the_target_changes_what_it_names),
	    cmocka_unit_test(what_a_version_cannot_say_is_refused),
	    cmocka_unit_test(batch_ids_are_mapped),
	    cmocka_unit_test(own_requests),
	    cmocka_unit_test(bound_lists_are_suspected),
	    cmocka_unit_test(startup_options),
	    cmocka_unit_test(startup_loses_an_option),
	    cmocka_unit_test(registers_add_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
