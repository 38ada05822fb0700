/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/checks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/metrics.h"
#include "cql/scope.h"
#include "cutover/ledger.h"
#include "cutover/ledger_read.h"
#include "mirror/own.h"
#include "mirror/preflight.h"
#include "mirror/writers.h"
#include "relay/prepared.h"

struct bridge {
	check_found found;
	void *context;
	unsigned foreign;
	struct own_sockets *own;
};

static bool ours(void *context, const struct addr *client)
{
	struct bridge *b = context;

	return own_sockets_has(b->own, client);
}

static void from_preflight(void *context, enum preflight_grade grade, const char *what, const char *remedy)
{
	static const enum check_grade grades[] = {
		[PREFLIGHT_OK] = CHECK_FINE, [PREFLIGHT_NOTE] = CHECK_NOTE, [PREFLIGHT_WARN] = CHECK_NOTE, [PREFLIGHT_FAIL] = CHECK_OBSTACLE};
	struct bridge *b = context;

	b->found(b->context, grades[grade], what, remedy);
}

void check_mirror(const struct relay *r, unsigned max_clock_skew_ms, check_found found, void *context)
{
	struct bridge b = {.found = found, .context = context};
	int worst = preflight_run(r->options.cluster, r->options.scope, r->options.mark, max_clock_skew_ms, from_preflight, &b);

	if (worst < 0)
		found(context, CHECK_BLOCKER, "the preflight could not be carried out", "see the log; the clusters must be reachable");
}

static void foreign_writer(void *context, const char *node, const struct addr *client, const char *driver, const char *user)
{
	struct bridge *b = context;
	char text[400], address[ADDR_TEXT_MAX];

	if (b->foreign++ >= 10) /* the first ten make the point */
		return;
	snprintf(text, sizeof(text), "%s is connected to %s directly (%s, user %s): its writes are not mirrored",
		 addr_format(client, address), node, driver && *driver ? driver : "unknown driver", user && *user ? user : "-");
	b->found(b->context, CHECK_OBSTACLE, text, "restart that client so that it reconnects through the agent, or stop it");
}

void check_writers(const struct relay *r, enum side primary, check_found found, void *context)
{
	struct bridge b = {.found = found, .context = context, .own = own_sockets_new()};
	struct error error = {"out of memory"};
	int e = b.own ? writers_list(&r->options.cluster[primary], r->options.mark, ours, foreign_writer, &b, &error) : -ENOMEM;

	own_sockets_free(b.own);
	/* Older clusters cannot say who is connected; all other failures mean that somebody may write unseen. */
	if (e < 0)
		found(context, e == -ENOTSUP ? CHECK_NOTE : CHECK_OBSTACLE, error.text,
		      e == -ENOTSUP ? NULL : "make the node reachable and readable for origin.username, then try again");
}

static bool differing(void *context, struct prepared *p)
{
	struct bridge *b = context;
	char text[300];

	if (!atomic_load(&p->bind_differs))
		return true;
	snprintf(text, sizeof(text), "the clusters bind different variables for a prepared statement on %s.%s",
		 p->statement.table_count && p->statement.tables[0].keyspace[0] ? p->statement.tables[0].keyspace : p->keyspace,
		 p->statement.table_count ? p->statement.tables[0].table : "?");
	b->found(b->context, CHECK_BLOCKER, text, "make the table's columns and types equal on both clusters");
	return true;
}

#define OBSERVING "observing" /* a bypass's cause: intercept/event.c */

/* What a line of the ledger is a debt of; NULL cause = any. A row's metric is what counts where no ledger is kept. */
static const struct debt {
	enum ledger_kind kind;
	const char *cause;
	enum metric metric; /* METRIC_COUNT = none */
	const char *what;
} debts[] = {
	{LEDGER_UNMIRRORED, "lwt", METRIC_UNMIRRORED_LWT, "conditional writes (LWT) were not mirrored"},
	{LEDGER_UNMIRRORED, "counter", METRIC_UNMIRRORED_COUNTER, "counter updates were not mirrored"},
	{LEDGER_UNMIRRORED, "list_operation", METRIC_UNMIRRORED_LIST, "list operations were not mirrored"},
	{LEDGER_UNMIRRORED, "server_function", METRIC_UNMIRRORED_FUNCTION, "writes with now(), uuid() or the like were not mirrored"},
	{LEDGER_UNMIRRORED, "unclassified", METRIC_UNMIRRORED_UNCLASSIFIED, "writes that could not be classified were not mirrored"},
	{LEDGER_UNMIRRORED, "unknown_outcome", METRIC_UNMIRRORED_UNKNOWN_OUTCOME, "writes whose outcome is unknown were not mirrored"},
	{LEDGER_UNMIRRORED, "shed", METRIC_UNMIRRORED_SHED, "writes shed because the backlog's budget was spent were not mirrored"},
	{LEDGER_UNMIRRORED, "dead_letter", METRIC_UNMIRRORED_DEAD, "writes that the other cluster refused for good were not mirrored"},
	{LEDGER_UNMIRRORED, "undelivered", METRIC_COUNT, "writes that waited when an agent ended were not mirrored"},
	{LEDGER_BYPASS, NULL, METRIC_UNMIRRORED_BYPASS, "connections that passed by the agent were not mirrored"},
	{LEDGER_OPAQUE, NULL, METRIC_COUNT, "connections that could not be read (TLS) were not mirrored"},
	{LEDGER_DOWN, NULL, METRIC_COUNT, "times an agent ended without notice while it mirrored"},
	{LEDGER_OFF, NULL, METRIC_COUNT, "times mirroring was switched off, and writes went on without it"},
	{LEDGER_LOST, NULL, METRIC_COUNT, "lines of the gap ledger were lost"},
};
#define DEBTS (sizeof(debts) / sizeof(debts[0]))

struct tally {
	bool missing_on_origin;
	uint64_t count[DEBTS];
};

static void tally_record(void *context, const struct ledger_record *r)
{
	struct tally *t = context;

	if (r->missing_on_origin != t->missing_on_origin)
		return;
	/* Connections from before mirroring are closed as it begins. What they wrote until then the load of old data brings, which comes later. */
	if (r->kind == LEDGER_BYPASS && strcmp(r->cause, OBSERVING) == 0)
		return;
	if (r->kind == LEDGER_DOWN && strcmp(r->cause, LEDGER_CAUSE_KEPT) == 0)
		return;
	for (size_t i = 0; i < DEBTS; i++)
		if (debts[i].kind == r->kind && (!debts[i].cause || strcmp(debts[i].cause, r->cause) == 0))
			t->count[i] += ledger_weight(r);
}

/* 0 or −errno with the reason. */
static int tally_ledger(struct tally *t, const char *directory, struct error *error)
{
	struct ledger_cursor cursor = {0};
	struct ledger_filter all = {0};
	int r;

	do {
		r = ledger_read(directory, &all, &cursor, UINT32_MAX, SIZE_MAX, tally_record, t, error);
	} while (r == 1);
	if (r == 0)
		r = ledger_read_spans(directory, &all, tally_record, t, error);
	return r < 0 ? r : 0;
}

void check_debts(const char *directory, enum side missing, check_found found, void *context)
{
	struct tally t = {.missing_on_origin = missing == ORIGIN};
	struct error error = {""};
	char text[200];

	if (directory[0] && tally_ledger(&t, directory, &error) < 0)
		found(context, CHECK_OBSTACLE, error.text, "what is missing on the other cluster cannot be told without the gap ledger");
	for (size_t i = 0; i < DEBTS; i++) {
		uint64_t n = directory[0] ? t.count[i] : debts[i].metric < METRIC_COUNT ? metrics_total(debts[i].metric) : 0;

		if (!n)
			continue;
		snprintf(text, sizeof(text), "missing on the %s: %" PRIu64 " %s", side_name(missing), n, debts[i].what);
		found(context, CHECK_OBSTACLE, text, directory[0] ? "compare and repair those tables (cqlferry gaps), then go on with --force"
								  : "compare and repair those tables, then go on with --force");
	}
	uint64_t opaque = metrics_total(METRIC_SESSIONS_OPAQUE);

	if (opaque) {
		snprintf(text, sizeof(text), "%" PRIu64 " connections cannot be read (TLS); their writes are not mirrored", opaque);
		found(context, CHECK_OBSTACLE, text, "give the agent a certificate that those clients trust (listen.tls.certFile), or let them connect without TLS on this node");
	}
}

void check_scope(const struct relay *r, bool through, check_found found, void *context)
{
	if (!through && scope_renames(r->options.scope))
		found(context, CHECK_BLOCKER,
		      "mirror.rename is set: clients name the origin's keyspaces and tables, which the target calls otherwise",
		      "stop the applications, wait until the backlog is 0 (cqlferry status), and start them against the target with its names");
	if (scope_filters(r->options.scope))
		found(context, CHECK_OBSTACLE, "mirror.include or mirror.exclude leaves tables out: what is written to them stays on one cluster",
		      "move those tables by other means, then go on with --force; or mirror them as well and load what they hold");
}

void check_statements(const struct relay *r, check_found found, void *context)
{
	struct bridge b = {.found = found, .context = context};

	prepared_map_each(r->prepared, differing, &b);
}
