// SPDX-License-Identifier: Apache-2.0
/* `cqlferry dead`: ls and show from the files, replay and drop by the agent. */
#include "control/cli_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/entry_text.h"
#include "control/journal_files.h"
#include "control/render.h"
#include "mirror/dead.h"

#define ANSWER_MILLIS 600000 /* a replay waits for the disk */
#define LINES_MAX 1000       /* of ls: what is beyond counts as "others" */

struct line {
	char tables[2 * CQL_NAME_MAX + 20];
	int32_t code;
	enum side to;
	uint64_t count;
	int64_t first_us, last_us; /* when it was refused */
};

struct listing {
	const struct cli *cli;
	struct entry_filter filter;
	bool show, values;
	struct line line[LINES_MAX];
	unsigned lines;
	uint64_t letters;
	unsigned unread; /* files */
};

static const char *reason_text(int32_t code, char to[80])
{
	if (code == -EBADMSG)
		snprintf(to, 80, "its request cannot be read");
	else if (code == -ENOTSUP)
		snprintf(to, 80, "it cannot be said in that cluster's protocol version");
	else if (code == -ENOENT)
		snprintf(to, 80, "its prepared statement is not known");
	else
		snprintf(to, 80, "error 0x%04X", (unsigned)code);
	return to;
}

static void count_letter(struct listing *l, const struct journal_view *v, const struct dead_reason *reason, enum side to, int64_t at_us)
{
	char tables[2 * CQL_NAME_MAX + 20];
	struct line *n = l->line;

	entry_tables(v, tables, sizeof(tables));
	if (l->lines == LINES_MAX - 1)
		snprintf(tables, sizeof(tables), "others");
	while (n < l->line + l->lines && (strcmp(n->tables, tables) != 0 || n->code != reason->code || n->to != to))
		n++;
	if (n == l->line + LINES_MAX)
		n--;
	if (n == l->line + l->lines) {
		l->lines++;
		*n = (struct line){.code = reason->code, .to = to, .first_us = at_us};
		memcpy(n->tables, tables, sizeof(tables));
	}
	n->count++;
	n->first_us = at_us < n->first_us ? at_us : n->first_us;
	n->last_us = at_us > n->last_us ? at_us : n->last_us;
}

static void show_letter(struct listing *l, const char *file, size_t at, const struct journal_entry *e, struct journal_view *v,
			const struct dead_reason *reason, enum side to, int64_t at_us)
{
	char tables[400], when[32], refused[32], text[80];

	if (l->cli->json) {
		json_t *o = entry_json(file, at, e, v, l->values);

		json_object_set_new(o, "to", json_string(side_name(to)));
		json_object_set_new(o, "refused", json_integer(at_us));
		json_object_set_new(o, "code", json_integer(reason->code));
		json_object_set_new(o, "retries", json_integer(reason->retries));
		json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		fputc('\n', stdout);
		json_decref(o);
		return;
	}
	printf("%s  refused %s by the %s after %u retries: %s  %s  ", entry_time(entry_time_us(e), when), entry_time(at_us, refused),
	       side_name(to), reason->retries, reason_text(reason->code, text), statement_kind_name(v->statement.kind));
	render_text(stdout, entry_tables(v, tables, sizeof(tables)));
	printf("  %u bytes  ", e->body_size);
	entry_print_texts(stdout, v, l->values);
	fputc('\n', stdout);
}

static bool read_file(void *context, struct journal_found *f)
{
	struct listing *l = context;
	struct journal_reader r;
	struct dead_reason reason;
	const struct journal_entry *e;
	struct journal_view v;
	const char *why;
	int64_t at_us;
	size_t at;

	if (!f->bytes.data) {
		fprintf(stderr, "cqlferry dead: %s: %s\n", f->path, f->error.text);
		l->unread++;
		return true;
	}
	if (!f->bytes.size || f->bytes.data[0] == 0)
		return true; /* being made */
	if (journal_reader_open(&r, f->bytes, &why) < 0 || r.head->side >= SIDES) {
		fprintf(stderr, "cqlferry dead: %s cannot be read: %s\n", f->path, why);
		l->unread++;
		return true;
	}
	while ((e = dead_letter_next(&r, &at, &reason, &at_us)) && !ferror(stdout)) {
		journal_view_of(&r, e, &v);
		if (!entry_matches(&l->filter, &v, e))
			continue;
		l->letters++;
		if (l->show)
			show_letter(l, f->name, at, e, &v, &reason, (enum side)r.head->side, at_us);
		else
			count_letter(l, &v, &reason, (enum side)r.head->side, at_us);
	}
	journal_reader_done(&r);
	return !ferror(stdout);
}

static void print_lines(const struct listing *l)
{
	char first[32], last[32], text[80];
	json_t *list = json_array();

	for (unsigned i = 0; i < l->lines; i++) {
		const struct line *n = &l->line[i];

		if (l->cli->json) {
			json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:I, s:I, s:I}", "tables", n->tables, "to", side_name(n->to), "code",
							      n->code, "count", (json_int_t)n->count, "first", (json_int_t)n->first_us, "last",
							      (json_int_t)n->last_us));
			continue;
		}
		if (!i)
			printf("%10s  %-7s  %-24s  %-24s  %s\n", "COUNT", "TO", "FIRST REFUSED", "LAST", "TABLE, REASON");
		printf("%10" PRIu64 "  %-7s  %s  %s  ", n->count, side_name(n->to), entry_time(n->first_us, first), entry_time(n->last_us, last));
		render_text(stdout, n->tables);
		printf(", %s\n", reason_text(n->code, text));
	}
	if (l->cli->json) {
		json_t *o = json_pack("{s:O, s:I}", "dead", list, "letters", (json_int_t)l->letters);

		json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
		fputc('\n', stdout);
		json_decref(o);
	} else {
		printf("%" PRIu64 " dead letters\n", l->letters);
	}
	json_decref(list);
}

static int from_files(struct cli *cli, const struct entry_filter *filter, bool show, bool values)
{
	struct listing *l = calloc(1, sizeof(*l));
	const char *state;
	struct error error;
	bool failed;
	int r;

	if (!l)
		return cli_failed("dead", "out of memory");
	l->cli = cli;
	l->filter = *filter;
	l->show = show;
	l->values = values;
	r = cli_directory(cli, &state, &error);
	if (r == 0)
		r = dead_files_each(state, read_file, l, &error);
	if (r == 0 && !show)
		print_lines(l);
	else if (r == 0 && !cli->json && !l->letters)
		puts("no dead letter");
	/* Said above; who goes on after "0 dead letters" must not do so because of it. */
	failed = l->unread > 0;
	free(l);
	if (r < 0)
		return cli_failed("dead", "%s", error.text);
	return failed ? CLI_FAILED : CLI_OK;
}

static int by_agent(struct cli *cli, const char *action, const struct entry_filter *filter)
{
	json_t *request = json_pack("{s:s, s:s}", "command", "dead", "action", action), *final = NULL;
	int rc;

	if (filter->by_table) {
		json_object_set_new(request, "keyspace", json_string(filter->table.keyspace));
		json_object_set_new(request, "table", json_string(filter->table.table));
	}
	rc = cli_ask(cli, "dead", request, ANSWER_MILLIS, &final, NULL);
	if (rc == CLI_OK)
		cli_show(cli, final);
	return rc;
}

int cli_dead(struct cli *cli, int argc, char **argv)
{
	const char *table = NULL, *action;
	bool values = false;
	const struct cli_option options[] = {
		{.name = "table", .type = CLI_TEXT, .value = "KS.TABLE", .place.text = &table, .help = "only those that may touch that table, or KS.*"},
		{.name = "values", .type = CLI_FLAG, .place.flag = &values, .help = "show: the statements' values as well"},
		{.name = "state", .type = CLI_TEXT, .value = "DIR", .place.text = &cli->directory, .help = "ls, show: the agent's state.directory"},
		{.name = "socket", .type = CLI_TEXT, .value = "PATH", .place.text = &cli->socket, .help = "replay, drop: the agent's admin.socket"},
		{.name = "config", .type = CLI_TEXT, .value = "FILE", .place.text = &cli->config_file, .help = "configuration that names them"},
		{.name = "json", .type = CLI_FLAG, .place.flag = &cli->json, .help = "answer in JSON"},
		{.name = NULL}};
	struct entry_filter filter = {0};
	int rest, rc = cli_options(cli_find("dead"), options, argc, argv, 1, &rest);

	if (rc >= 0)
		return rc;
	if (rest == 0)
		return cli_usage_error("dead", "ls, show, replay or drop?");
	filter.by_table = table != NULL;
	if (table && !cli_table(table, &filter.table))
		return cli_usage_error("dead", "--table: '%s' is no keyspace.table", table);
	action = argv[1];
	if (!strcmp(action, "ls") || !strcmp(action, "show"))
		return from_files(cli, &filter, !strcmp(action, "show"), values);
	if (!strcmp(action, "replay") || !strcmp(action, "drop"))
		return by_agent(cli, action, &filter);
	return cli_usage_error("dead", "'%s' is none of ls, show, replay, drop", action);
}
