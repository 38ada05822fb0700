/* SPDX-License-Identifier: Apache-2.0 */
#include "control/gaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/handover_gaps.h"
#include "cutover/ledger.h"
#include "relay/worker.h"

#define PAGE_GAPS 500
#define PAGE_BYTES (1u << 20) /* of the files; some 10 ms of a pool thread */
#define TABLE_SECONDS 10      /* between two looks at the kernel's table */

struct gaps {
	struct node *node;
	struct ledger *ledger;
	struct ledger_sync sync;
	uv_work_t work;
	bool syncing, failed;
	unsigned pages; /* being read */
	unsigned seconds;
	bool mirroring; /* at the last tick */
};

/* ---- feeding it */

static void on_count(void *context, const struct gap_count *c)
{
	struct gaps *g = context;

	ledger_unmirrored(g->ledger, c);
}

static void on_session(void *context, const struct gap_session *s)
{
	struct gaps *g = context;

	ledger_opaque(g->ledger, s);
}

static const struct {
	enum gap_cause cause;
	enum metric metric;
} counters[] = {
	{GAP_LWT, METRIC_UNMIRRORED_LWT},
	{GAP_COUNTER, METRIC_UNMIRRORED_COUNTER},
	{GAP_LIST, METRIC_UNMIRRORED_LIST},
	{GAP_FUNCTION, METRIC_UNMIRRORED_FUNCTION},
	{GAP_UNCLASSIFIED, METRIC_UNMIRRORED_UNCLASSIFIED},
	{GAP_UNKNOWN_OUTCOME, METRIC_UNMIRRORED_UNKNOWN_OUTCOME},
	{GAP_SHED, METRIC_UNMIRRORED_SHED},
	{GAP_DEAD, METRIC_UNMIRRORED_DEAD},
	{GAP_POLICY, METRIC_UNMIRRORED_POLICY},
};

static void add_metric(struct gaps *g, const char *cause, uint64_t count)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		if (strcmp(gap_cause_name(counters[i].cause), cause) == 0)
			metric_add(g->node->metrics, counters[i].metric, count);
}

static void on_foreign_count(void *context, const struct gap_count *c)
{
	struct gaps *g = context;

	add_metric(g, gap_cause_name(c->cause), c->count);
	ledger_unmirrored(g->ledger, c);
}

static void on_foreign_session(void *context, const struct gap_session *s)
{
	struct gap_session theirs = *s;
	struct gaps *g = context;

	theirs.key ^= 1ull << 63; /* keys are addresses of user space: no session of ours has this one */
	ledger_opaque(g->ledger, &theirs);
}

void gaps_feed(struct node *n, const json_t *array)
{
	unsigned unknown = n->gaps ? handover_gaps_read(array, on_foreign_count, on_foreign_session, n->gaps) : 0;

	if (unknown)
		log_error("cutover", "%u gaps of the agent before this one are not understood; compare the tables before a cutover", unknown);
}

static void take_all(struct gaps *g)
{
	const struct relay *r = &g->node->relay;

	for (unsigned i = 0; i < r->worker_count; i++)
		gap_take(r->workers[i]->gap, on_count, on_session, g);
}

void gaps_settle(void *context)
{
	struct gaps *g = ((struct node *)context)->gaps;

	if (!g)
		return;
	take_all(g);
	ledger_write_windows(g->ledger, clock_wall_us());
}

static void on_bypassed(void *context, const struct intercept_event *e)
{
	struct gaps *g = context;

	ledger_seen(g->ledger, e, clock_wall_us(), clock_now_ns());
}

/* Events can be lost: what the kernel's table has and has not, decides. */
static void compare_table(struct gaps *g)
{
	struct node *n = g->node;

	if (!n->intercept || !n->events_on)
		return;
	steer_poll(n);
	if (intercept_bypassed(n->intercept, on_bypassed, g) >= 0)
		ledger_seen_end(g->ledger, clock_wall_us());
}

void gaps_follow(struct node *n)
{
	struct gaps *g = n->gaps;

	if (!g)
		return;
	ledger_course(g->ledger, &n->relay.course, clock_wall_us());
	/* What passed by before it mattered does matter from now on. */
	if (n->relay.course.mirroring && !g->mirroring)
		compare_table(g);
	g->mirroring = n->relay.course.mirroring;
}

static void sync_work(uv_work_t *work)
{
	struct gaps *g = work->data;

	ledger_sync_run(&g->sync);
}

/* Said once, not once a second. */
static void tell(struct gaps *g, int result)
{
	if (result < 0 && !g->failed)
		log_error("cutover", "the gap ledger cannot be written: %s. Free space in %s; gaps are kept in memory and counted until then",
			  strerror(-result), g->node->config->state.directory);
	else if (result == 0 && g->failed)
		log_info("cutover", "the gap ledger is written again; %" PRIu64 " of its lines were lost", ledger_lost(g->ledger));
	g->failed = result < 0;
}

static void sync_done(uv_work_t *work, int status)
{
	struct gaps *g = work->data;
	int r = ledger_sync_end(g->ledger, &g->sync);

	(void)status;
	g->syncing = false;
	if (r < 0)
		tell(g, r);
}

void gaps_tick(struct node *n)
{
	struct gaps *g = n->gaps;
	int64_t now;
	int r;

	if (!g || !g->ledger)
		return;
	gaps_follow(n);
	take_all(g);
	if (++g->seconds % TABLE_SECONDS == 0 && n->relay.course.mirroring)
		compare_table(g);
	now = clock_wall_us();
	r = ledger_tick(g->ledger, now);
	if (!g->syncing) {
		tell(g, r);
		g->syncing = ledger_sync_begin(g->ledger, &g->sync,
					       metrics_total(METRIC_MIRROR_BACKLOG) + metrics_total(METRIC_MIRROR_INDOUBT), now);
		if (g->syncing)
			uv_queue_work(&n->loop, &g->work, sync_work, sync_done);
	}
}

struct ledger *gaps_ledger(struct node *n)
{
	return n->gaps ? n->gaps->ledger : NULL;
}

/* ---- the admin command */

static void set_text(json_t *o, const char *name, const char *text)
{
	if (text[0])
		json_object_set_new(o, name, json_string(text));
}

static void set_number(json_t *o, const char *name, uint64_t value)
{
	if (value)
		json_object_set_new(o, name, json_integer((json_int_t)value));
}

json_t *gap_json(const struct ledger_record *r)
{
	json_t *o = json_object();

	json_object_set_new(o, "kind", json_string(ledger_kind_name(r->kind)));
	json_object_set_new(o, "cause", json_string(r->cause));
	json_object_set_new(o, "missing", json_string(r->missing_on_origin ? "origin" : "target"));
	json_object_set_new(o, "keyspace", r->keyspace[0] ? json_string(r->keyspace) : json_null());
	json_object_set_new(o, "table", r->table[0] ? json_string(r->table) : json_null());
	json_object_set_new(o, "tokens", json_null());
	json_object_set_new(o, "from", json_integer(r->from_us));
	json_object_set_new(o, "to", r->to_us ? json_integer(r->to_us) : json_null());
	json_object_set_new(o, "count", json_integer((json_int_t)ledger_weight(r)));
	if (r->approximate)
		json_object_set_new(o, "approximate", json_true());
	if (r->type == LEDGER_SUMMARY)
		json_object_set_new(o, "summary", json_true());
	set_number(o, "pid", r->pid);
	set_text(o, "program", r->program);
	set_number(o, "cgroup", r->cgroup);
	set_number(o, "netns", r->netns);
	set_number(o, "cookie", r->cookie);
	set_text(o, "client", r->client);
	set_text(o, "destination", r->destination);
	set_number(o, "backlog", r->backlog);
	set_text(o, "who", r->who);
	set_text(o, "text", r->text);
	return o;
}

struct page {
	uv_work_t work;
	struct gaps *gaps;
	struct admin_reply *reply;
	struct ledger_filter filter;
	struct ledger_cursor cursor;
	json_t *list;
	int result;
	struct error error;
};

static void page_found(void *context, const struct ledger_record *r)
{
	json_array_append_new(((struct page *)context)->list, gap_json(r));
}

static void page_open_span(void *context, const struct ledger_record *r)
{
	struct page *p = context;

	if (ledger_matches(&p->filter, r))
		page_found(p, r);
}

static void page_work(uv_work_t *work)
{
	struct page *p = work->data;

	p->result = ledger_read(p->gaps->node->config->state.directory, &p->filter, &p->cursor, PAGE_GAPS, PAGE_BYTES, page_found, p,
				&p->error);
}

static void page_done(uv_work_t *work, int status)
{
	struct page *p = work->data;
	const struct ledger_cursor *c = &p->cursor;
	char next[100];
	json_t *o;

	(void)status;
	p->gaps->pages--;
	if (p->result < 0) {
		json_decref(p->list);
		admin_fail(p->reply, p->error.text, p->result == -ESTALE ? "run the command again" : NULL);
		free(p);
		return;
	}
	if (p->result == 0)
		ledger_spans(p->gaps->ledger, page_open_span, p);
	o = json_pack("{s:b, s:o}", "kept", 1, "gaps", p->list);
	if (p->result == 1) {
		snprintf(next, sizeof(next), "%d:%" PRIu64 ":%" PRIu64 ":%" PRIu64, c->stage, c->older, c->current, c->offset);
		json_object_set_new(o, "next", json_string(next));
	} else {
		json_object_set_new(o, "lost", json_integer((json_int_t)ledger_lost(p->gaps->ledger)));
	}
	admin_done(p->reply, o);
	free(p);
}

/* What the request asks for. NULL, or what is wrong with it. */
static const char *page_read_request(struct page *p, const json_t *request)
{
	const char *cause = json_string_value(json_object_get(request, "cause"));
	const char *table = json_string_value(json_object_get(request, "table"));
	const char *next = json_string_value(json_object_get(request, "next"));
	const json_t *since = json_object_get(request, "since");
	int stage;

	if (since && !json_is_null(since) && !json_is_integer(since))
		return "\"since\" is no number of microseconds";
	p->filter.since_us = json_integer_value(since);
	if (cause && strlen(cause) >= sizeof(p->filter.cause))
		return "\"cause\" is too long";
	if (cause)
		memcpy(p->filter.cause, cause, strlen(cause) + 1);
	if (table && ledger_filter_table(&p->filter, table) < 0)
		return "\"table\" is no keyspace.table";
	if (next) {
		if (sscanf(next, "%d:%" SCNu64 ":%" SCNu64 ":%" SCNu64, &stage, &p->cursor.older, &p->cursor.current, &p->cursor.offset) != 4 ||
		    stage < LEDGER_SUMMARIES || stage > LEDGER_READ || p->cursor.offset > INT64_MAX)
			return "\"next\" is not what the page before it said";
		p->cursor.stage = (enum ledger_stage)stage;
	}
	return NULL;
}

static void answer_gaps(struct admin_reply *reply, const json_t *request, void *context)
{
	struct gaps *g = context;
	struct page *p;
	const char *wrong;

	if (!g->ledger) {
		admin_done(reply, json_pack("{s:b, s:[]}", "kept", 0, "gaps"));
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p)
		p->list = json_array();
	if (!p || !p->list) {
		free(p);
		admin_fail(reply, "out of memory", NULL);
		return;
	}
	wrong = page_read_request(p, request);
	if (wrong) {
		json_decref(p->list);
		free(p);
		admin_fail(reply, wrong, "see `cqlferry gaps --help`");
		return;
	}
	if (p->cursor.stage == LEDGER_SUMMARIES && !p->cursor.current) /* the first page: all that there is */
		gaps_settle(g->node);
	p->gaps = g;
	p->reply = reply;
	p->work.data = p;
	g->pages++;
	uv_queue_work(&g->node->loop, &p->work, page_work, page_done);
}

/* ---- life */

/* The counters go on where the last agent's stopped: what is missing on the other cluster is not less for a restart. */
static void on_earlier(void *context, const struct ledger_record *r)
{
	struct gaps *g = context;

	if (r->kind == LEDGER_UNMIRRORED)
		add_metric(g, r->cause, r->count);
	else if (r->kind == LEDGER_BYPASS)
		metric_add(g->node->metrics, METRIC_UNMIRRORED_BYPASS, ledger_weight(r));
}

static int count_earlier(struct gaps *g, struct error *error)
{
	const char *directory = g->node->config->state.directory;
	struct ledger_cursor cursor = {0};
	struct ledger_filter all = {0};
	int r = 1;

	if (g->node->counted || !g->ledger)
		return 0;
	g->node->counted = true;
	while (r == 1)
		r = ledger_read(directory, &all, &cursor, UINT32_MAX, SIZE_MAX, on_earlier, g, error);
	if (r == 0)
		r = ledger_read_spans(directory, &all, on_earlier, g, error);
	return r < 0 ? r : 0;
}

int gaps_start(struct node *n, struct error *error)
{
	struct ledger_options o = {.directory = n->config->state.directory, .now_us = clock_wall_us(),
				   .journaled = n->mirror.journals.directory >= 0,
				   .synced_us = n->recovered.node_restarted ? n->recovered.synced_us : 0};
	struct ledger_opened opened = {0};
	struct gaps *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return error_set(error, -ENOMEM, "out of memory");
	g->node = n;
	g->work.data = g;
	r = ledger_open(&o, &g->ledger, &opened, error);
	if (r == 0)
		r = count_earlier(g, error);
	if (r == 0 && admin_register(n->admin, "gaps", answer_gaps, g) < 0)
		r = error_set(error, -ENOSPC, "too many admin commands");
	if (r < 0) {
		ledger_close(g->ledger, clock_wall_us());
		free(g);
		return r;
	}
	n->gaps = g;
	if (!g->ledger)
		log_warn("cutover", "state.directory is \"\": no gap ledger is kept; what is not mirrored is only counted");
	if (opened.torn)
		log_info("cutover", "%zu bytes of an unfinished line were cut off the gap ledger", opened.torn);
	if (opened.damaged)
		log_error("cutover", "%u lines of the gap ledger are damaged and were skipped; what they said is not known. Compare all tables "
				     "before a cutover", opened.damaged);
	if (opened.down_from_us)
		log_warn("cutover", "the agent before this one ended without notice while mirroring; the time until now is on the gap ledger "
				    "(cqlferry gaps --cause down)");
	return 0;
}

void gaps_stop(struct node *n)
{
	struct gaps *g = n->gaps;

	if (!g)
		return;
	while (g->syncing || g->pages)
		uv_run(&n->loop, UV_RUN_ONCE);
	take_all(g);
	ledger_close(g->ledger, clock_wall_us());
	n->gaps = NULL;
	free(g);
}
