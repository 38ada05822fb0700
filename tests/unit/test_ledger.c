// SPDX-License-Identifier: Apache-2.0
/*
 * The gap ledger: its lines (whole, damaged, every prefix), the workers' counting below it, spans over a restart, a crash and a reboot,
 * a torn tail, a full disk, rotation with summaries, reading page by page while it rotates. Time is a parameter: nothing waits.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cutover/ledger.h"
#include "cutover/ledger_read.h"
#include "cutover/ledger_sums.h"
#include "unit/guard.h"

#define S 1000000ll
#define T0 (1700000000ll * S)

struct fixture {
	char directory[40];
	struct ledger *l;
	int64_t now;
	uint64_t now_ns; /* CLOCK_MONOTONIC at `now` */
};

static struct fixture *begin(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memcpy(f->directory, "/tmp/cqlferry-ledger-XXXXXX", sizeof("/tmp/cqlferry-ledger-XXXXXX"));
	assert_non_null(mkdtemp(f->directory));
	f->now = T0;
	f->now_ns = 1000ull * 1000000000;
	*state = f;
	return f;
}

static int setup(void **state)
{
	begin(state);
	return 0;
}

static const char *path(const struct fixture *f, const char *name)
{
	static char text[2][80];
	static int turn;

	turn = !turn;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", f->directory, name);
	return text[turn];
}

static int teardown(void **state)
{
	static const char *const names[] = {"gaps.log", "gaps.log.1", "gaps.log.new", "gaps.alive"};
	struct fixture *f = *state;

	ledger_close(f->l, f->now);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(path(f, names[i]));
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

static bool journaled;
static int64_t journal_synced_us;

static struct ledger_opened open_as(struct fixture *f, const char *boot, size_t limit)
{
	struct ledger_options o = {.directory = f->directory, .boot = boot, .limit = limit, .now_us = f->now, .journaled = journaled,
				   .synced_us = journal_synced_us};
	struct ledger_opened opened = {0};
	struct error e = {""};

	if (ledger_open(&o, &f->l, &opened, &e) < 0)
		fail_msg("%s", e.text);
	return opened;
}

static void step(struct fixture *f, int64_t us)
{
	f->now += us;
	f->now_ns += (uint64_t)us * 1000;
}

/* One second of the agent's life. */
static void tick(struct fixture *f)
{
	struct ledger_sync s;

	step(f, S);
	assert_int_equal(ledger_tick(f->l, f->now), 0);
	if (ledger_sync_begin(f->l, &s, 7, f->now)) {
		ledger_sync_run(&s);
		assert_int_equal(ledger_sync_end(f->l, &s), 0);
	}
}

/* The agent is gone between two instructions: what was not written by write(2) is lost. Kept reachable for the leak checker. */
struct ledger *crashed[32];
unsigned crash_count;

static void crash(struct fixture *f)
{
	assert_true(crash_count < 32);
	crashed[crash_count++] = f->l;
	f->l = NULL;
}

static void course(struct fixture *f, bool mirroring, enum side primary)
{
	struct course c = {.primary = primary, .mirroring = mirroring};

	ledger_course(f->l, &c, f->now);
}

static void unmirrored(struct fixture *f, enum gap_cause cause, const char *table, uint64_t count)
{
	struct gap_count c = {.cause = cause, .missing = TARGET, .keyspace = "ks", .count = count, .first_us = f->now, .last_us = f->now};

	snprintf(c.table, sizeof(c.table), "%s", table);
	ledger_unmirrored(f->l, &c);
}

static struct intercept_event flow(const struct fixture *f, enum intercept_event_kind kind, uint64_t cookie)
{
	struct intercept_event e = {.kind = kind, .cause = "agent stale", .at_ns = f->now_ns, .client_cookie = cookie, .netns_cookie = 1,
				    .cgroup_id = 77, .pid = 4711, .program = "java"};
	struct sockaddr_in *to = (struct sockaddr_in *)&e.destination;

	to->sin_family = AF_INET;
	to->sin_port = htons(9042);
	to->sin_addr.s_addr = htonl(0x0a000307);
	return e;
}

static void event(struct fixture *f, enum intercept_event_kind kind, uint64_t cookie)
{
	struct intercept_event e = flow(f, kind, cookie);

	ledger_event(f->l, &e, f->now, f->now_ns);
}

/* ---- what is in it */

struct found {
	struct ledger_record r[3000];
	unsigned count;
};

static struct found found;

static void on_found(void *context, const struct ledger_record *r)
{
	(void)context;
	assert_true(found.count < 3000);
	found.r[found.count++] = *r;
}

/* All gaps of the files, and those open; by pages of `most`. */
static void read_all(struct fixture *f, const struct ledger_filter *filter, unsigned most)
{
	static const struct ledger_filter all;
	struct ledger_cursor c = {0};
	struct error e = {""};
	int r;

	found.count = 0;
	do {
		r = ledger_read(f->directory, filter ? filter : &all, &c, most, 1u << 20, on_found, NULL, &e);
		if (r < 0)
			fail_msg("%s", e.text);
	} while (r == 1);
}

static const struct ledger_record *only(enum ledger_kind kind)
{
	const struct ledger_record *one = NULL;

	for (unsigned i = 0; i < found.count; i++) {
		if (found.r[i].kind != kind)
			continue;
		assert_null(one);
		one = &found.r[i];
	}
	return one;
}

static unsigned open_spans(struct fixture *f)
{
	found.count = 0;
	return ledger_spans(f->l, on_found, NULL);
}

/* ---- lines */

static struct ledger_record full_record(void)
{
	struct ledger_record r = {.type = LEDGER_SUMMARY, .kind = LEDGER_UNMIRRORED, .missing_on_origin = true, .approximate = true,
				  .version = UINT32_MAX, .pid = UINT32_MAX, .from_us = INT64_MAX, .to_us = INT64_MAX, .count = UINT64_MAX,
				  .id = UINT64_MAX, .key = UINT64_MAX, .cgroup = UINT64_MAX, .netns = UINT64_MAX, .cookie = UINT64_MAX,
				  .backlog = UINT64_MAX};

	memset(r.cause, '"', sizeof(r.cause) - 1);
	memset(r.keyspace, '\\', sizeof(r.keyspace) - 1);
	memset(r.table, '"', sizeof(r.table) - 1);
	memset(r.program, '"', sizeof(r.program) - 1);
	memset(r.client, '\\', sizeof(r.client) - 1);
	memset(r.destination, '"', sizeof(r.destination) - 1);
	memset(r.who, '"', sizeof(r.who) - 1);
	memset(r.text, '\\', sizeof(r.text) - 1);
	return r;
}

static void test_line_round_trip(void **state)
{
	struct ledger_record in = full_record(), out;
	char line[LEDGER_LINE_MAX];
	int n = ledger_encode(&in, line);

	(void)state;
	assert_in_range(n, 1, LEDGER_LINE_MAX); /* the longest that there can be fits */
	assert_int_equal(line[n - 1], '\n');
	memset(&out, 0x55, sizeof(out));
	assert_int_equal(ledger_decode(span_of(line, (size_t)n), &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	/* The newline is not needed, every byte else is. */
	assert_int_equal(ledger_decode(span_of(line, (size_t)n - 1), &out), 0);
	for (int size = 0; size < n - 1; size++)
		assert_int_equal(ledger_decode(span_of(line, (size_t)size), &out), -EBADMSG);
	for (int i = 0; i < n - 1; i++)
		for (int bit = 0; bit < 8; bit++) {
			line[i] ^= (char)(1 << bit);
			assert_int_equal(ledger_decode(span_of(line, (size_t)n), &out), -EBADMSG);
			line[i] ^= (char)(1 << bit);
		}
}

static void test_line_is_plain(void **state)
{
	struct ledger_record in = {.type = LEDGER_GAP, .kind = LEDGER_BYPASS, .from_us = 1, .cause = "a\nb\x1b[31m\xff"}, out;
	char line[LEDGER_LINE_MAX];
	int n = ledger_encode(&in, line);

	(void)state;
	assert_true(n > 0);
	for (int i = 0; i < n - 1; i++)
		assert_in_range(line[i], 0x20, 0x7e);
	assert_int_equal(ledger_decode(span_of(line, (size_t)n), &out), 0);
	assert_string_equal(out.cause, "a?b?[31m?");
}

/* The checksum is the one that other programs have: zlib's CRC-32, so that a line can be checked without cqlferry. */
static void test_line_of_another_writer(void **state)
{
	static const char known[] = "{\"type\":\"gap\",\"kind\":\"down\",\"missing\":\"target\",\"from\":5,\"to\":9,\"new\":[1],\"crc\":\"4b0378e5\"}\n";
	static const char newer[] = "{\"type\":\"gap\",\"kind\":\"eclipse\",\"missing\":\"target\",\"crc\":\"25cec37c\"}\n";
	struct ledger_record r;

	(void)state;
	assert_int_equal(ledger_decode(span_text(known), &r), 0);
	assert_int_equal(r.kind, LEDGER_DOWN);
	assert_int_equal(r.to_us, 9);
	assert_int_equal(ledger_decode(span_text(newer), &r), -EPROTONOSUPPORT);
}

/* ---- the workers' side */

struct taken {
	struct gap_count counts[GAP_COUNTS];
	unsigned count, sessions;
	uint64_t sum;
};

static void take_count(void *context, const struct gap_count *c)
{
	struct taken *t = context;

	t->counts[t->count++] = *c;
	t->sum += c->count;
}

static void take_session(void *context, const struct gap_session *s)
{
	struct taken *t = context;

	(void)s;
	t->sessions++;
}

static uint64_t taken_of(const struct taken *t, enum gap_cause cause, const char *keyspace, const char *table)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->counts[i].cause == cause && !strcmp(t->counts[i].keyspace, keyspace) && !strcmp(t->counts[i].table, table))
			return t->counts[i].count;
	return 0;
}

static void test_gap_counts_by_cause_and_table(void **state)
{
	struct gap *g = gap_new();
	struct taken t = {.count = 0};
	struct statement s;
	uint16_t lwt, batch;

	(void)state;
	statement_read(span_text("UPDATE t SET v = 1 WHERE k = 1 IF v = 2"), &s);
	lwt = gap_cell(g, &s, "app");
	assert_int_equal(lwt, gap_cell(g, &s, "app"));
	assert_int_not_equal(lwt, gap_cell(g, &s, "other"));
	statement_read(span_text("BEGIN BATCH INSERT INTO app.t (k) VALUES (1); INSERT INTO u (k) VALUES (now()) APPLY BATCH"), &s);
	batch = gap_cell(g, &s, "app");
	for (int i = 0; i < 5; i++)
		gap_note(g, GAP_LWT, TARGET, lwt, i * 60 * S);
	gap_note(g, GAP_FUNCTION, TARGET, batch, 0);
	gap_note(g, GAP_LWT, ORIGIN, lwt, 0);
	gap_take(g, take_count, take_session, &t);
	assert_int_equal(t.count, 0); /* not handed over yet */
	gap_hand_over(g);
	gap_note(g, GAP_LWT, TARGET, lwt, 0);
	gap_hand_over(g);
	gap_take(g, take_count, take_session, &t);
	assert_int_equal(t.count, 4);
	assert_int_equal(taken_of(&t, GAP_LWT, "app", "t"), 6);
	for (unsigned i = 0; i < t.count; i++) /* when the writes were made, not when that was noted */
		if (t.counts[i].cause == GAP_LWT && t.counts[i].missing == TARGET)
			assert_in_range(t.counts[i].last_us - t.counts[i].first_us, 240 * S, 241 * S);
	assert_int_equal(taken_of(&t, GAP_FUNCTION, "app", "t"), 1);
	assert_int_equal(taken_of(&t, GAP_FUNCTION, "app", "u"), 1);
	t.count = 0;
	gap_take(g, take_count, take_session, &t);
	assert_int_equal(t.count, 0);
	gap_free(g);
}

static void test_gap_role_is_not_named(void **state)
{
	struct gap *g = gap_new();
	struct statement s = {.kind = STATEMENT_ROLE, .table_count = 1, .tables = {{"secret", "secret"}}};

	(void)state;
	assert_int_equal(gap_cell(g, &s, "ks"), GAP_CELL_ANY);
	gap_free(g);
}

/* More tables than there are cells, and more counters than there are places: nothing is lost but names. */
static void test_gap_is_bounded_and_complete(void **state)
{
	struct gap *g = gap_new();
	struct taken *t = calloc(1, sizeof(*t));
	char name[24];

	(void)state;
	for (unsigned i = 0; i < GAP_CELLS + 500; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		gap_note(g, GAP_SHED, TARGET, gap_cell_of(g, "ks", name), 0);
	}
	gap_hand_over(g);
	gap_take(g, take_count, take_session, t);
	assert_int_equal(t->sum, GAP_CELLS + 500);
	assert_in_range(t->count, GAP_COUNTS / 2, GAP_COUNTS);
	assert_in_range(taken_of(t, GAP_SHED, "", ""), 501, GAP_CELLS);
	for (unsigned i = 0; i < 2 * GAP_SESSIONS_MAX; i++) {
		struct gap_session s = {.begin = true, .key = i + 1, .at_us = T0};

		gap_opaque(g, &s);
	}
	gap_hand_over(g);
	memset(t, 0, sizeof(*t));
	gap_take(g, take_count, take_session, t);
	assert_int_equal(t->sessions, GAP_SESSIONS_MAX);
	assert_int_equal(taken_of(t, GAP_UNCLASSIFIED, "", ""), GAP_SESSIONS_MAX);
	gap_free(g);
	free(t);
}

static void *note_many(void *argument)
{
	struct gap *g = argument;
	uint16_t cell = gap_cell_of(g, "ks", "t");

	for (int i = 0; i < 200000; i++) {
		gap_note(g, GAP_LWT, TARGET, cell, 0);
		if (i % 100 == 0)
			gap_hand_over(g);
	}
	gap_hand_over(g);
	return NULL;
}

static void test_gap_taken_while_noting(void **state)
{
	struct gap *g = gap_new();
	struct taken *t = calloc(1, sizeof(*t));
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, note_many, g), 0);
	for (int i = 0; i < 300; i++) {
		t->count = 0;
		gap_take(g, take_count, take_session, t);
	}
	pthread_join(thread, NULL);
	t->count = 0;
	gap_take(g, take_count, take_session, t);
	assert_int_equal(t->sum, 200000);
	gap_free(g);
	free(t);
}

/* ---- windows */

static void test_windows_of_ten_seconds(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	for (int i = 0; i < 25; i++) {
		unmirrored(f, GAP_LWT, "t", 10);
		unmirrored(f, GAP_COUNTER, "c", 1);
		tick(f);
	}
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 4); /* two whole windows of two tables */
	ledger_write_windows(f->l, f->now);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 6);
	uint64_t lwt = 0, counter = 0;
	for (unsigned i = 0; i < found.count; i++) {
		const struct ledger_record *r = &found.r[i];

		assert_int_equal(r->kind, LEDGER_UNMIRRORED);
		assert_string_equal(r->keyspace, "ks");
		assert_true(r->to_us - r->from_us <= 11 * S && r->from_us >= T0 && r->to_us <= f->now);
		if (!strcmp(r->cause, "lwt"))
			lwt += r->count;
		else
			counter += r->count;
	}
	assert_int_equal(lwt, 250);
	assert_int_equal(counter, 25);
	assert_int_equal(stat(path(f, "gaps.log"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(path(f, "gaps.alive"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_filters(void **state)
{
	struct fixture *f = *state;
	struct ledger_filter filter = {.since_us = 0};

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	unmirrored(f, GAP_LWT, "t", 1);
	unmirrored(f, GAP_SHED, "t", 2);
	unmirrored(f, GAP_SHED, "u", 4);
	event(f, INTERCEPT_EVENT_BYPASSED, 5);
	step(f, S);
	event(f, INTERCEPT_EVENT_BYPASS_ENDED, 5);
	step(f, 100 * S);
	unmirrored(f, GAP_LWT, "t", 8);
	tick(f);
	ledger_write_windows(f->l, f->now);
	assert_int_equal(ledger_filter_table(&filter, "ks.t"), 0);
	read_all(f, &filter, 1);
	assert_int_equal(found.count, 3); /* lwt (both in one window), shed, and the bypass, which may concern it */
	memcpy(filter.cause, "shed", 5);
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].count, 2);
	filter = (struct ledger_filter){.cause = "bypass"};
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].to_us - found.r[0].from_us, S);
	filter = (struct ledger_filter){.since_us = T0 + 50 * S};
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].count, 9);
	assert_int_equal(ledger_filter_table(&filter, "ks.*"), 0);
	assert_string_equal(filter.keyspace, "ks");
	assert_string_equal(filter.table, "");
	assert_int_equal(ledger_filter_table(&filter, "ks."), 0);
	assert_string_equal(filter.keyspace, "ks");
	assert_int_equal(ledger_filter_table(&filter, ""), -EINVAL);
	assert_int_equal(ledger_filter_table(&filter, "."), -EINVAL);
}

/* ---- spans */

static void test_bypass_span(void **state)
{
	struct fixture *f = *state;
	const struct ledger_record *r;

	open_as(f, "boot-1", 0);
	event(f, INTERCEPT_EVENT_BYPASSED, 1); /* while observing: nothing is missing */
	course(f, true, ORIGIN);
	step(f, 3 * S);
	event(f, INTERCEPT_EVENT_BYPASSED, 2);
	event(f, INTERCEPT_EVENT_BYPASSED, 2);
	assert_int_equal(open_spans(f), 1);
	assert_int_equal(found.r[0].pid, 4711);
	assert_string_equal(found.r[0].destination, "10.0.3.7:9042");
	step(f, 2 * S);
	event(f, INTERCEPT_EVENT_BYPASS_ENDED, 2);
	tick(f);
	read_all(f, NULL, 1000);
	r = only(LEDGER_BYPASS);
	assert_non_null(r);
	assert_int_equal(r->from_us, T0 + 3 * S);
	assert_int_equal(r->to_us, T0 + 5 * S);
	assert_false(r->approximate);
	assert_string_equal(r->cause, "agent stale");
	assert_string_equal(r->program, "java");
	assert_int_equal(r->cgroup, 77);
	assert_int_equal(open_spans(f), 0);
}

/* Its begin was lost: the end alone says all. One that ended before mirroring began is nothing. */
static void test_bypass_end_alone(void **state)
{
	struct fixture *f = *state;
	struct intercept_event e;

	step(f, 100 * S);
	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	step(f, 4 * S);
	e = flow(f, INTERCEPT_EVENT_BYPASS_ENDED, 3);
	e.duration_ns = 60ull * 1000000000;
	ledger_event(f->l, &e, f->now, f->now_ns);
	e.client_cookie = 4;
	e.at_ns -= 10ull * 1000000000;
	ledger_event(f->l, &e, f->now, f->now_ns);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].from_us, T0 + 100 * S); /* since mirroring is on */
	assert_int_equal(found.r[0].to_us, T0 + 104 * S);
}

/* The kernel's table against ours: what events did not tell. */
static void test_table_is_compared(void **state)
{
	struct fixture *f = *state;
	struct intercept_event old = flow(f, INTERCEPT_EVENT_OBSERVED, 9);

	step(f, 5 * S);
	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 8);
	for (int i = 0; i < 2; i++) {
		ledger_seen(f->l, &old, f->now, f->now_ns);
		ledger_seen_end(f->l, f->now);
	}
	assert_int_equal(open_spans(f), 2); /* 8 was missed, which may be chance */
	ledger_seen(f->l, &old, f->now, f->now_ns);
	ledger_seen_end(f->l, f->now);
	assert_int_equal(open_spans(f), 1);
	assert_int_equal(found.r[0].key, 9);
	assert_int_equal(found.r[0].from_us, T0 + 5 * S); /* open since before, a gap since mirroring */
	tick(f);
	read_all(f, NULL, 1000);
	assert_true(only(LEDGER_BYPASS)->approximate);
}

static void opaque(struct fixture *f, bool start, uint64_t key, enum side missing)
{
	struct gap_session s = {.begin = start, .missing = missing, .key = key, .at_us = f->now};

	addr_resolve("10.1.1.1:5000", 0, &s.client, NULL);
	addr_resolve("10.0.0.1:9042", 0, &s.destination, NULL);
	ledger_opaque(f->l, &s);
}

/* Begins before mirroring, lives through a cutover, ends: one gap on each side. */
static void test_opaque_session_over_a_cutover(void **state)
{
	struct fixture *f = *state;

	open_as(f, "boot-1", 0);
	opaque(f, true, 1, TARGET);
	opaque(f, true, 2, TARGET);
	opaque(f, false, 2, TARGET);
	assert_int_equal(open_spans(f), 0);
	step(f, S);
	course(f, true, ORIGIN);
	assert_int_equal(open_spans(f), 1);
	step(f, S);
	course(f, true, TARGET);
	step(f, S);
	opaque(f, false, 1, ORIGIN);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 2);
	assert_int_equal(found.r[0].kind, LEDGER_OPAQUE);
	assert_false(found.r[0].missing_on_origin);
	assert_true(found.r[1].missing_on_origin);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(found.r[i].from_us, T0 + (1 + i) * S);
		assert_int_equal(found.r[i].to_us, T0 + (2 + i) * S);
		assert_string_equal(found.r[i].client, "10.1.1.1:5000");
	}
}

static void test_mirroring_off_is_a_gap(void **state)
{
	struct fixture *f = *state;
	struct course finish = {.primary = TARGET, .finished = true};

	open_as(f, "boot-1", 0);
	course(f, false, ORIGIN);
	assert_int_equal(open_spans(f), 0); /* it was never on */
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	step(f, S);
	course(f, false, ORIGIN);
	assert_int_equal(open_spans(f), 1);
	assert_int_equal(found.r[0].kind, LEDGER_OFF);
	ledger_close(f->l, f->now);
	step(f, S);
	open_as(f, "boot-1", 0);
	course(f, false, ORIGIN);
	assert_int_equal(open_spans(f), 1);
	step(f, S);
	course(f, true, ORIGIN);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(only(LEDGER_OFF)->from_us, T0 + S);
	assert_int_equal(only(LEDGER_OFF)->to_us, T0 + 3 * S);
	assert_int_equal(only(LEDGER_BYPASS)->to_us, T0 + S);
	ledger_course(f->l, &finish, f->now);
	assert_int_equal(open_spans(f), 0);
}

static void test_forced(void **state)
{
	struct fixture *f = *state;

	open_as(f, "boot-1", 0);
	ledger_forced(f->l, "uid 0 pid 12", "mirror -> cutover", "3 counter updates were not mirrored", f->now);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 1);
	assert_string_equal(only(LEDGER_FORCED)->who, "uid 0 pid 12");
	assert_string_equal(found.r[0].cause, "mirror -> cutover");
	assert_string_equal(found.r[0].text, "3 counter updates were not mirrored");
}

static void test_many_spans(void **state)
{
	struct fixture *f = *state;
	struct ledger_filter filter = {.cause = "bypass"};

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	for (unsigned i = 0; i < LEDGER_SPANS_MAX + 10; i++)
		event(f, INTERCEPT_EVENT_BYPASSED, 1000 + i);
	ledger_write_windows(f->l, f->now);
	tick(f);
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1); /* those without a place: counted */
	assert_int_equal(found.r[0].count, 10);
	assert_true(found.r[0].approximate);
}

/* ---- restarts */

static void test_clean_restart(void **state)
{
	struct fixture *f = *state;
	struct ledger_opened o;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	unmirrored(f, GAP_LWT, "t", 3);
	tick(f);
	ledger_close(f->l, f->now);
	step(f, 60 * S);
	o = open_as(f, "boot-1", 0);
	assert_int_equal(o.down_from_us, 0);
	assert_int_equal(o.torn, 0);
	assert_int_equal(open_spans(f), 1); /* the connection lives on without us */
	assert_int_equal(found.r[0].from_us, T0);
	event(f, INTERCEPT_EVENT_BYPASS_ENDED, 1);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(only(LEDGER_UNMIRRORED)->count, 3);
	assert_int_equal(only(LEDGER_BYPASS)->to_us, T0 + 61 * S);
	assert_null(only(LEDGER_DOWN));
}

/* What the journal holds outlives the process, and what it had synced the node. */
static void test_crash_with_a_journal_is_none(void **state)
{
	struct fixture *f = *state;

	journaled = true;
	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	for (int i = 0; i < 30; i++)
		tick(f);
	crash(f);
	step(f, 60 * S);
	assert_int_equal(open_as(f, "boot-1", 0).down_from_us, 0);
	tick(f);
	read_all(f, NULL, 1000);
	/* On record all the same: what was counted in its last seconds is not known. */
	assert_string_equal(only(LEDGER_DOWN)->cause, LEDGER_CAUSE_KEPT);
	for (int i = 0; i < 30; i++)
		tick(f);
	crash(f);
	step(f, 60 * S);
	journal_synced_us = T0 + 92 * S;
	assert_int_equal(open_as(f, "boot-2", 0).down_from_us, T0 + 92 * S);
	journaled = false;
	journal_synced_us = 0;
}

static void test_crash_is_a_gap(void **state)
{
	struct fixture *f = *state;
	struct ledger_opened o;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	opaque(f, true, 2, TARGET);
	for (int i = 0; i < 30; i++)
		tick(f);
	crash(f);
	step(f, 60 * S);
	o = open_as(f, "boot-1", 0);
	/* Nothing waited: everything up to two seconds before the last sign of life, which is at most two seconds old, was in the file. */
	assert_in_range(o.down_from_us, T0 + 25 * S, T0 + 28 * S);
	assert_int_equal(open_spans(f), 1);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(only(LEDGER_DOWN)->from_us, o.down_from_us);
	assert_int_equal(only(LEDGER_DOWN)->to_us, T0 + 90 * S);
	assert_int_equal(only(LEDGER_DOWN)->backlog, 7);
	assert_string_equal(only(LEDGER_DOWN)->cause, "agent ended without notice");
	assert_int_equal(only(LEDGER_OPAQUE)->to_us, T0 + 90 * S);
	assert_true(only(LEDGER_OPAQUE)->approximate);
	/* Said once. */
	ledger_close(f->l, f->now);
	step(f, S);
	assert_int_equal(open_as(f, "boot-1", 0).down_from_us, 0);
}

/* Counts that were in an unfinished window when it crashed are covered by the gap. */
static void test_crash_covers_the_open_window(void **state)
{
	struct fixture *f = *state;
	int64_t first;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	for (int i = 0; i < 20; i++)
		tick(f);
	first = f->now;
	for (int i = 0; i < 8; i++) {
		unmirrored(f, GAP_LWT, "t", 1);
		tick(f);
	}
	crash(f);
	step(f, S);
	assert_true(open_as(f, "boot-1", 0).down_from_us <= first);
}

static void test_reboot_ends_connections(void **state)
{
	struct fixture *f = *state;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	tick(f);
	crash(f);
	step(f, 60 * S);
	open_as(f, "boot-2", 0);
	assert_int_equal(open_spans(f), 0);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(only(LEDGER_BYPASS)->to_us, T0 + 61 * S);
	assert_true(only(LEDGER_BYPASS)->approximate);
	assert_string_equal(only(LEDGER_DOWN)->cause, "node restarted");
}

static void test_crash_while_observing_is_none(void **state)
{
	struct fixture *f = *state;

	open_as(f, "boot-1", 0);
	course(f, false, ORIGIN);
	tick(f);
	crash(f);
	step(f, S);
	assert_int_equal(open_as(f, "boot-1", 0).down_from_us, 0);
}

/* A sign of life that was half written: the other slot counts. */
static void test_torn_sign_of_life(void **state)
{
	struct fixture *f = *state;
	char slots[2 * LEDGER_SLOT];
	int fd, newer;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	for (int i = 0; i < 9; i++)
		tick(f);
	crash(f);
	fd = open(path(f, "gaps.alive"), O_RDWR);
	assert_int_equal(pread(fd, slots, sizeof(slots), 0), sizeof(slots));
	newer = strtol(slots + 2, NULL, 10) > strtol(slots + LEDGER_SLOT + 2, NULL, 10) ? 0 : 1;
	slots[newer * LEDGER_SLOT + 12] ^= 1;
	assert_int_equal(pwrite(fd, slots, sizeof(slots), 0), sizeof(slots));
	close(fd);
	assert_in_range(open_as(f, "boot-1", 0).down_from_us, T0, T0 + 7 * S);
	/* Both: as if there had never been an agent; but the ledger itself still says what it says. */
	crash(f);
	fd = open(path(f, "gaps.alive"), O_RDWR | O_TRUNC);
	assert_int_equal(write(fd, slots, 7), 7);
	close(fd);
	assert_int_equal(open_as(f, "boot-1", 0).down_from_us, 0);
}

/* ---- damage */

static off_t size_of(const char *name)
{
	struct stat st;

	return stat(name, &st) == 0 ? st.st_size : -1;
}

static void put(const struct fixture *f, off_t at, const void *bytes, size_t size)
{
	int fd = open(path(f, "gaps.log"), O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, size, at), size);
	close(fd);
}

static void fill(struct fixture *f, unsigned lines)
{
	for (unsigned i = 0; i < lines; i++) {
		char name[24];

		snprintf(name, sizeof(name), "t%u", i);
		unmirrored(f, GAP_LWT, name, i + 1);
		ledger_write_windows(f->l, f->now);
	}
}

/* Cut at each byte of the last line: the lines before it stay, and what is written next is whole. */
static void test_torn_tail(void **state)
{
	struct fixture *f = *state;
	off_t before, whole;

	open_as(f, "boot-1", 0);
	fill(f, 3);
	before = size_of(path(f, "gaps.log"));
	unmirrored(f, GAP_SHED, "last", 1);
	ledger_close(f->l, f->now);
	whole = size_of(path(f, "gaps.log"));
	assert_true(whole > before);
	for (off_t cut = whole - 1; cut > before; cut--) {
		assert_int_equal(truncate(path(f, "gaps.log"), cut), 0);
		struct ledger_opened o = open_as(f, "boot-1", 0);

		assert_int_equal(o.torn, cut - before);
		assert_int_equal(o.damaged, 0);
		unmirrored(f, GAP_SHED, "next", 1);
		ledger_close(f->l, f->now);
		f->l = NULL;
		read_all(f, NULL, 1000);
		assert_int_equal(found.count, 4);
		assert_string_equal(found.r[3].table, "next");
		cut = cut < size_of(path(f, "gaps.log")) ? cut : size_of(path(f, "gaps.log")) - 1;
	}
}

/* Whole pages of zeros and a line of noise behind the last good one, as a power failure leaves them. */
static void test_torn_tail_of_zeros(void **state)
{
	static const char zeros[10000];
	struct fixture *f = *state;
	off_t before;

	open_as(f, "boot-1", 0);
	fill(f, 3);
	ledger_close(f->l, f->now);
	before = size_of(path(f, "gaps.log"));
	put(f, before, zeros, sizeof(zeros));
	put(f, before + 10000, "noise\n{\"type\":\"gap\"\n", 20);
	assert_int_equal(open_as(f, "boot-1", 0).torn, 10020);
	assert_int_equal(size_of(path(f, "gaps.log")), before);
}

static void test_damaged_line_in_the_middle(void **state)
{
	struct fixture *f = *state;
	struct ledger_opened o;

	open_as(f, "boot-1", 0);
	fill(f, 20);
	ledger_close(f->l, f->now);
	put(f, size_of(path(f, "gaps.log")) / 2, "####", 4);
	o = open_as(f, "boot-1", 0);
	assert_in_range(o.damaged, 1, 2);
	assert_int_equal(o.torn, 0);
	read_all(f, NULL, 3);
	assert_in_range(found.count, 18, 19);
	assert_string_equal(found.r[found.count - 1].table, "t19");
}

static void test_newer_format_is_left_alone(void **state)
{
	static const char line[] = "{\"type\":\"head\",\"version\":2,\"from\":5,\"crc\":\"00000000\"}\n";
	struct fixture *f = *state;
	struct ledger_options options = {.directory = f->directory, .boot = "b", .now_us = T0};
	struct ledger_record head = {.type = LEDGER_HEAD, .version = 2, .from_us = 5};
	char real[LEDGER_LINE_MAX];
	struct error e = {""};
	int n = ledger_encode(&head, real), fd = open(path(f, "gaps.log"), O_WRONLY | O_CREAT, 0600);

	assert_int_equal(n, sizeof(line) - 1);
	assert_memory_equal(real, line, sizeof(line) - 12);
	assert_int_equal(write(fd, real, (size_t)n), n);
	close(fd);
	assert_int_equal(ledger_open(&options, &f->l, NULL, &e), -EPROTONOSUPPORT);
	assert_non_null(strstr(e.text, "newer"));
	assert_int_equal(size_of(path(f, "gaps.log")), n);
}

static void test_no_directory_no_ledger(void **state)
{
	struct fixture *f = *state;
	struct ledger_options options = {.directory = "", .now_us = T0};
	struct ledger_sync s;

	assert_int_equal(ledger_open(&options, &f->l, NULL, NULL), 0);
	assert_null(f->l);
	course(f, true, ORIGIN);
	unmirrored(f, GAP_LWT, "t", 1);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	opaque(f, true, 1, TARGET);
	ledger_forced(f->l, "", "", "", T0);
	assert_int_equal(ledger_tick(f->l, T0), 0);
	assert_false(ledger_sync_begin(f->l, &s, 0, T0));
	assert_int_equal(ledger_spans(f->l, on_found, NULL), 0);
}

/* The disk takes nothing for a while: the ledger keeps it, goes on afterwards, and what did not fit is on record as lost. */
static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, small;
	unsigned i;

	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	tick(f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = (rlim_t)size_of(path(f, "gaps.log")) + 100;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	unmirrored(f, GAP_LWT, "t", 5);
	for (i = 0; i < 12; i++) {
		step(f, S);
		ledger_tick(f->l, f->now);
	}
	ledger_forced(f->l, "who", "kept", "", f->now);
	assert_int_equal(ledger_tick(f->l, f->now), -EFBIG);
	assert_int_equal(ledger_lost(f->l), 0);
	for (i = 0; i < 20000; i++)
		ledger_forced(f->l, "who", "much", "", f->now);
	assert_true(ledger_lost(f->l) > 10000 && ledger_lost(f->l) < 20000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	tick(f);
	tick(f);
	ledger_write_windows(f->l, f->now);
	struct ledger_filter filter = {.cause = "lost"};
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].count, ledger_lost(f->l));
	filter = (struct ledger_filter){.cause = "kept"};
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	filter = (struct ledger_filter){.cause = "lwt"};
	read_all(f, &filter, 1000);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.r[0].count, 5);
}

/* ---- rotation */

static uint64_t lwt_total(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < found.count; i++)
		if (!strcmp(found.r[i].cause, "lwt"))
			sum += found.r[i].count;
	return sum;
}

static void test_rotation_forgets_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t wanted = 0;
	unsigned summaries = 0;

	open_as(f, "boot-1", 20000);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	for (unsigned i = 0; i < 1000; i++) {
		unmirrored(f, GAP_LWT, i % 2 ? "t" : "u", i + 1);
		wanted += i + 1;
		ledger_write_windows(f->l, f->now);
		tick(f);
		if (i % 300 == 299) { /* and over restarts, clean or not */
			if (i % 600 == 299)
				ledger_close(f->l, f->now);
			else
				crash(f);
			open_as(f, "boot-1", 20000);
			course(f, true, ORIGIN);
		}
		assert_true(size_of(path(f, "gaps.log")) < 25000);
		assert_true(size_of(path(f, "gaps.log.1")) < 25000);
	}
	read_all(f, NULL, 7);
	assert_int_equal(lwt_total(), wanted);
	for (unsigned i = 0; i < found.count; i++)
		summaries += found.r[i].type == LEDGER_SUMMARY;
	assert_in_range(summaries, 2, 3); /* two tables, and one crash that has been dropped meanwhile, or not */
	assert_int_equal(found.r[0].from_us, T0);
	/* The span that began in a file that is long gone. */
	assert_int_equal(open_spans(f), 1);
	assert_int_equal(found.r[0].from_us, T0);
	event(f, INTERCEPT_EVENT_BYPASS_ENDED, 1);
	tick(f);
	read_all(f, NULL, 1000);
	assert_int_equal(only(LEDGER_BYPASS)->from_us, T0);
}

/* A reader that began before a rotation sees each gap once. */
static void test_reading_over_a_rotation(void **state)
{
	struct fixture *f = *state;
	struct ledger_filter all = {.since_us = 0};
	struct ledger_cursor c = {0};
	struct error e = {""};
	uint64_t wanted = 0;
	unsigned i = 0;
	int r;

	open_as(f, "boot-1", 20000);
	course(f, true, ORIGIN);
	for (i = 0; i < 250; i++, wanted += 1) {
		unmirrored(f, GAP_LWT, "t", 1);
		ledger_write_windows(f->l, f->now);
		tick(f);
	}
	/* In the older file's last line or in the newer file: then the rotation comes. */
	found.count = 0;
	do {
		r = ledger_read(f->directory, &all, &c, 10, 1u << 20, on_found, NULL, &e);
		assert_int_equal(r, 1);
	} while (c.stage != LEDGER_CURRENT);
	ino_t inode;
	struct stat st;
	assert_int_equal(stat(path(f, "gaps.log"), &st), 0);
	inode = st.st_ino;
	for (i = 0; i < 250 && st.st_ino == inode; i++) {
		unmirrored(f, GAP_SHED, "t", 1);
		ledger_write_windows(f->l, f->now);
		tick(f);
		assert_int_equal(stat(path(f, "gaps.log"), &st), 0);
	}
	assert_int_not_equal(st.st_ino, inode);
	while ((r = ledger_read(f->directory, &all, &c, 10, 1u << 20, on_found, NULL, &e)) == 1)
		;
	assert_int_equal(r, 0);
	assert_int_equal(lwt_total(), wanted);
	/* One that stands in what is gone is told so. */
	c = (struct ledger_cursor){.stage = LEDGER_OLDER, .older = 1, .current = 2};
	assert_int_equal(ledger_read(f->directory, &all, &c, 10, 1u << 20, on_found, NULL, &e), -ESTALE);
}

/* Crashes between the steps of a rotation: the files as each would leave them. */
static void test_interrupted_rotation(void **state)
{
	struct fixture *f = *state;

	open_as(f, "boot-1", 0);
	fill(f, 5);
	ledger_close(f->l, f->now);
	/* .new was begun, nothing renamed. */
	int fd = open(path(f, "gaps.log.new"), O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "half", 4), 4);
	close(fd);
	open_as(f, "boot-1", 0);
	ledger_close(f->l, f->now);
	assert_int_equal(access(path(f, "gaps.log.new"), F_OK), -1);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 5);
	/* gaps.log was renamed, .new was not. */
	assert_int_equal(rename(path(f, "gaps.log"), path(f, "gaps.log.new")), 0);
	open_as(f, "boot-1", 0);
	read_all(f, NULL, 1000);
	assert_int_equal(found.count, 5);
}

static void test_reading_without_the_agent(void **state)
{
	struct fixture *f = *state;
	struct ledger_filter all = {.since_us = 0};
	struct ledger_cursor c = {0};
	struct error e = {""};

	assert_int_equal(ledger_read(f->directory, &all, &c, 10, 1000, on_found, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.text, f->directory));
	open_as(f, "boot-1", 0);
	course(f, true, ORIGIN);
	event(f, INTERCEPT_EVENT_BYPASSED, 1);
	event(f, INTERCEPT_EVENT_BYPASSED, 2);
	event(f, INTERCEPT_EVENT_BYPASS_ENDED, 1);
	tick(f);
	found.count = 0;
	assert_int_equal(ledger_read_spans(f->directory, &all, on_found, NULL, &e), 1);
	assert_int_equal(found.r[0].key, 2);
	assert_int_equal(found.r[0].to_us, 0);
}

static void test_sums_are_bounded(void **state)
{
	struct ledger_sums *s = calloc(1, sizeof(*s));
	struct ledger_record r = {.kind = LEDGER_UNMIRRORED, .count = 1, .from_us = 1, .to_us = 2};
	uint64_t sum = 0;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(r.table, sizeof(r.table), "t%u", i);
		snprintf(r.cause, sizeof(r.cause), "c%u", i % 400);
		ledger_sums_add(s, &r);
	}
	assert_in_range(s->count, 1, LEDGER_SUMS_MAX);
	for (unsigned i = 0; i < s->count; i++)
		sum += s->item[i].count;
	assert_int_equal(sum, 3000);
	free(s);
}

int main(void)
{
#define WITH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_round_trip),
		cmocka_unit_test(test_line_is_plain),
		cmocka_unit_test(test_line_of_another_writer),
		cmocka_unit_test(test_gap_counts_by_cause_and_table),
		cmocka_unit_test(test_gap_role_is_not_named),
		cmocka_unit_test(test_gap_is_bounded_and_complete),
		cmocka_unit_test(test_gap_taken_while_noting),
		cmocka_unit_test(test_sums_are_bounded),
		WITH(test_windows_of_ten_seconds),
		WITH(test_filters),
		WITH(test_bypass_span),
		WITH(test_bypass_end_alone),
		WITH(test_table_is_compared),
		WITH(test_opaque_session_over_a_cutover),
		WITH(test_mirroring_off_is_a_gap),
		WITH(test_forced),
		WITH(test_many_spans),
		WITH(test_clean_restart),
		WITH(test_crash_with_a_journal_is_none),
		WITH(test_crash_is_a_gap),
		WITH(test_crash_covers_the_open_window),
		WITH(test_reboot_ends_connections),
		WITH(test_crash_while_observing_is_none),
		WITH(test_torn_sign_of_life),
		WITH(test_torn_tail),
		WITH(test_torn_tail_of_zeros),
		WITH(test_damaged_line_in_the_middle),
		WITH(test_newer_format_is_left_alone),
		WITH(test_no_directory_no_ledger),
		WITH(test_full_disk),
		WITH(test_rotation_forgets_nothing),
		WITH(test_reading_over_a_rotation),
		WITH(test_interrupted_rotation),
		WITH(test_reading_without_the_agent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
