// SPDX-License-Identifier: Apache-2.0
/*
 * `cqlferry gaps`: what was written and not mirrored, page by page from the agent, or from the ledger's files when there is none.
 *
 * Nothing is gathered but the totals: a gap is printed as it comes. With --json the whole is one object,
 * {"gaps": [one a line], "totals": {…}}, that is complete only if the command ends with status 0.
 */
#include "control/cli_command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "control/gaps.h"
#include "control/render.h"

#define ANSWER_MILLIS 30000
#define TOTALS_MAX 64

struct total {
	char cause[64], missing[16];
	uint64_t count;
};

struct listing {
	const struct cli *cli;
	struct total total[TOTALS_MAX];
	unsigned totals;
	uint64_t gaps, open;
};

static struct total *find_total(struct listing *l, const char *cause, const char *missing)
{
	for (unsigned i = 0; i < l->totals; i++)
		if (!strcmp(l->total[i].cause, cause) && !strcmp(l->total[i].missing, missing))
			return &l->total[i];
	return NULL;
}

static void add_total(struct listing *l, const char *cause, const char *missing, uint64_t count)
{
	struct total *t = find_total(l, cause, missing);

	/* The last place is for all that found none. */
	if (!t && l->totals >= TOTALS_MAX - 1) {
		cause = "others";
		missing = "";
		t = find_total(l, cause, missing);
	}
	if (!t) {
		t = &l->total[l->totals++];
		snprintf(t->cause, sizeof(t->cause), "%s", cause);
		snprintf(t->missing, sizeof(t->missing), "%s", missing);
	}
	t->count += count;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

static void print_time(const json_t *at)
{
	char text[40];
	json_int_t us = json_integer_value(at);
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;

	if (!json_is_integer(at)) {
		printf("%-24s  ", "open");
		return;
	}
	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	printf("%s.%03dZ  ", text, (int)(us / 1000 % 1000));
}

static void print_member(const json_t *o, const char *name, const char *before)
{
	const char *text = text_of(o, name);

	if (*text) {
		fputs(before, stdout);
		render_text(stdout, text);
	}
}

static void print_row(const json_t *o)
{
	char table[120], cause[80];
	json_int_t pid = json_integer_value(json_object_get(o, "pid"));
	json_int_t backlog = json_integer_value(json_object_get(o, "backlog"));

	snprintf(table, sizeof(table), "%s%s%s", text_of(o, "keyspace"), *text_of(o, "keyspace") && *text_of(o, "table") ? "." : "",
		 *text_of(o, "table") ? text_of(o, "table") : *text_of(o, "keyspace") ? ".*" : "-");
	snprintf(cause, sizeof(cause), "%s%s%s", text_of(o, "kind"), *text_of(o, "cause") ? ": " : "", text_of(o, "cause"));
	print_time(json_object_get(o, "from"));
	print_time(json_object_get(o, "to"));
	printf("%-7s  %10" JSON_INTEGER_FORMAT "  ", text_of(o, "missing"), json_integer_value(json_object_get(o, "count")));
	printf("%-30s  ", table);
	render_text(stdout, cause);
	print_member(o, "destination", "  to ");
	print_member(o, "client", "  from ");
	if (pid)
		printf("  pid %" JSON_INTEGER_FORMAT, pid);
	print_member(o, "program", " ");
	print_member(o, "who", "  by ");
	print_member(o, "text", "  although ");
	if (backlog)
		printf("  %" JSON_INTEGER_FORMAT " writes waited before it", backlog);
	if (json_is_true(json_object_get(o, "summary")))
		fputs("  (summary of older gaps)", stdout);
	else if (json_is_true(json_object_get(o, "approximate")))
		fputs("  (at most)", stdout);
	fputc('\n', stdout);
}

static void show_one(struct listing *l, const json_t *o)
{
	const char *kind = text_of(o, "kind");

	/* Counted by cause; a forced move or a span by its kind, since their causes are many. */
	add_total(l, strcmp(kind, "unmirrored") ? kind : text_of(o, "cause"), text_of(o, "missing"),
		  (uint64_t)json_integer_value(json_object_get(o, "count")));
	l->open += json_is_null(json_object_get(o, "to"));
	if (l->cli->json) {
		fputs(l->gaps ? ",\n" : "\n", stdout);
		json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	} else {
		if (!l->gaps)
			printf("%-24s  %-24s  %-7s  %10s  %-30s  %s\n", "FROM", "TO", "MISSING", "COUNT", "TABLE", "CAUSE");
		print_row(o);
	}
	l->gaps++;
}

static void show_record(void *context, const struct ledger_record *r)
{
	json_t *o = gap_json(r);

	show_one(context, o);
	json_decref(o);
}

static void show_end(const struct listing *l, json_int_t lost)
{
	if (l->cli->json) {
		json_t *totals = json_array();

		for (unsigned i = 0; i < l->totals; i++)
			json_array_append_new(totals, json_pack("{s:s, s:s, s:I}", "cause", l->total[i].cause, "missing", l->total[i].missing,
								"count", (json_int_t)l->total[i].count));
		fputs("\n], \"totals\": ", stdout);
		json_dumpf(totals, stdout, JSON_COMPACT);
		printf(", \"count\": %" PRIu64 ", \"open\": %" PRIu64 ", \"lost\": %" JSON_INTEGER_FORMAT "}\n", l->gaps, l->open, lost);
		json_decref(totals);
		return;
	}
	if (!l->gaps) {
		puts("no gaps");
		return;
	}
	printf("\n%" PRIu64 " gaps, %" PRIu64 " of them open\n", l->gaps, l->open);
	for (unsigned i = 0; i < l->totals; i++) {
		printf("  %10" PRIu64 "  ", l->total[i].count);
		render_text(stdout, l->total[i].cause);
		printf("%s%s\n", *l->total[i].missing ? ", missing on the " : "", l->total[i].missing);
	}
	if (lost)
		printf("%" JSON_INTEGER_FORMAT " lines could not be written to the ledger\n", lost);
}

static int from_agent(struct listing *l, struct cli *cli, const struct ledger_filter *f, const char *table, int *ret_code)
{
	char next[128] = "";

	for (;;) {
		json_t *request = json_pack("{s:s}", "command", "gaps"), *final = NULL, *gaps;
		const char *more;
		int rc;

		if (f->since_us)
			json_object_set_new(request, "since", json_integer(f->since_us));
		if (f->cause[0])
			json_object_set_new(request, "cause", json_string(f->cause));
		if (table)
			json_object_set_new(request, "table", json_string(table));
		if (next[0])
			json_object_set_new(request, "next", json_string(next));
		/* In the middle of a listing there is no going on with the files: they begin from the first gap. */
		rc = cli_ask(cli, "gaps", request, ANSWER_MILLIS, &final, next[0] ? NULL : ret_code);
		if (rc != CLI_OK)
			return rc;
		if (json_is_false(json_object_get(final, "kept"))) {
			json_decref(final);
			return cli_failed("gaps", "this agent keeps no gap ledger: state.directory is empty. `cqlferry status` has counters "
						  "since its start");
		}
		gaps = json_object_get(final, "gaps");
		if (cli->json && !next[0])
			fputs("{\"gaps\": [", stdout);
		for (size_t i = 0; i < json_array_size(gaps); i++)
			show_one(l, json_array_get(gaps, i));
		more = json_string_value(json_object_get(final, "next"));
		if (!more) {
			show_end(l, json_integer_value(json_object_get(final, "lost")));
			json_decref(final);
			return CLI_OK;
		}
		snprintf(next, sizeof(next), "%s", more);
		json_decref(final);
	}
}

static int from_files(struct listing *l, const char *directory, const struct ledger_filter *f)
{
	struct ledger_cursor cursor = {0};
	struct error error = {""};
	int r;

	if (l->cli->json)
		fputs("{\"gaps\": [", stdout);
	do {
		r = ledger_read(directory, f, &cursor, UINT32_MAX, SIZE_MAX, show_record, l, &error);
	} while (r == 1);
	if (r == 0)
		r = ledger_read_spans(directory, f, show_record, l, &error);
	if (r < 0)
		return cli_failed("gaps", "%s", error.text);
	show_end(l, 0);
	return CLI_OK;
}

/* Nobody writes them now: they are all that there is to know. */
static int without_agent(struct listing *l, struct cli *cli, const struct ledger_filter *f)
{
	struct error error = {""};
	const char *directory;

	if (cli_directory(cli, &directory, &error) < 0)
		return cli_failed("gaps", "no agent answers, and there are no files to read: %s", error.text);
	fprintf(stderr, "cqlferry gaps: no agent answers; this is what the files in %s say\n", directory);
	return from_files(l, directory, f);
}

bool cli_since(const char *text, int64_t *ret_us)
{
	static const struct {
		char letter;
		int64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	struct tm tm = {0};
	char *end;
	const char *rest = strptime(text, "%Y-%m-%d", &tm);

	if (rest) {
		if (*rest == 'T' || *rest == ' ')
			rest = strptime(rest + 1, "%H:%M:%S", &tm);
		if (!rest || strcmp(*rest == 'Z' ? rest + 1 : rest, "") != 0)
			return false;
		*ret_us = (int64_t)timegm(&tm) * 1000000;
		return *ret_us > 0;
	}
	if (*text < '0' || *text > '9')
		return false;
	uint64_t n = strtoull(text, &end, 10);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (end == text || end[0] != units[i].letter || end[1] || n > 100000000)
			continue;
		*ret_us = clock_wall_us() - (int64_t)n * units[i].seconds * 1000000;
		if (*ret_us < 1)
			*ret_us = 1;
		return true;
	}
	return false;
}

int cli_gaps(struct cli *cli, int argc, char **argv)
{
	const char *since = NULL, *cause = NULL, *table = NULL;
	const struct cli_option options[] = {
		{.name = "since", .type = CLI_TEXT, .value = "SINCE", .place.text = &since, .help = "only what was not over by then"},
		{.name = "cause", .type = CLI_TEXT, .value = "CAUSE", .place.text = &cause, .help = "only that cause, or that kind"},
		{.name = "table", .type = CLI_TEXT, .value = "KS.TABLE", .place.text = &table,
		 .help = "only what may concern that table; KS.* = the whole keyspace"},
		CLI_OPTION_DIRECTORY(cli),
		CLI_OPTION_SOCKET(cli),
		CLI_OPTION_CONFIG(cli),
		CLI_OPTION_JSON(cli),
		{.name = NULL}};
	struct listing l = {.cli = cli};
	struct ledger_filter f = {0};
	int rest, code = 0, rc = cli_options(cli_find("gaps"), options, argc, argv, 0, &rest);

	if (rc >= 0)
		return rc;
	if (since && !cli_since(since, &f.since_us))
		return cli_usage_error("gaps", "--since: '%s' is neither a time (2026-01-02T03:04:05Z) nor 90s, 15m, 12h, 7d", since);
	if (cause && strlen(cause) >= sizeof(f.cause))
		return cli_usage_error("gaps", "--cause: '%s' is no cause", cause);
	if (cause)
		memcpy(f.cause, cause, strlen(cause) + 1);
	if (table && ledger_filter_table(&f, table) < 0)
		return cli_usage_error("gaps", "--table: '%s' is no keyspace.table", table);
	if (cli->directory)
		return from_files(&l, cli->directory, &f);
	rc = from_agent(&l, cli, &f, table, &code);
	return cli_no_agent(code) ? without_agent(&l, cli, &f) : rc;
}
