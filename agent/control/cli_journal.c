// SPDX-License-Identifier: Apache-2.0
/*
 * `cqlferry journal ls|show|verify`: what is in the journal's files. Needs no agent and disturbs none: journal_files.h.
 *
 * Values of statements are shown with --values only.
 */
#include "control/cli_command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/entry_text.h"
#include "control/journal_files.h"
#include "control/render.h"

#define TABLES_MAX 512 /* told apart; what is beyond counts as "others" */
#define TRIES 3        /* copies of a file that is being written, before what it says is believed */

enum { IN_DOUBT, QUEUED, SENT, CONFIRMED, DONE, COUNTS };
static const char *const count_names[COUNTS] = {"inDoubt", "queued", "sent", "confirmed", "done"};

struct table_sum {
	char name[2 * CQL_NAME_MAX + 4];
	uint64_t waiting, bytes;
	uint32_t oldest; /* s; of what waits */
};

struct sums {
	uint64_t count[COUNTS], bytes; /* bytes: bodies that wait */
	uint32_t oldest;
};

struct listing {
	const struct cli *cli;
	bool values;
	struct entry_filter filter;
	char life[64];
	struct sums all;
	struct table_sum table[TABLES_MAX];
	unsigned tables, files, damaged, torn;
	uint64_t size, entries;
	json_t *list; /* of files, with --json */
};

static int class_of(const struct journal_entry *e)
{
	static const int classes[] = {[ENTRY_INTENT] = IN_DOUBT, [ENTRY_QUEUED] = QUEUED, [ENTRY_SENT] = SENT, [ENTRY_DONE] = DONE};

	return e->state & ENTRY_APPLIED ? CONFIRMED : classes[journal_state(e)];
}

static void older(uint32_t *oldest, uint32_t now)
{
	if (!*oldest || now < *oldest)
		*oldest = now;
}

static void add_table(struct listing *l, const char *name, const struct journal_entry *e)
{
	struct table_sum *t = l->table;

	while (t < l->table + l->tables && strcmp(t->name, name) != 0)
		t++;
	if (t == l->table + l->tables) {
		if (l->tables == TABLES_MAX - 1)
			name = "others";
		if (l->tables == TABLES_MAX) {
			t = &l->table[TABLES_MAX - 1];
		} else {
			l->tables++;
			snprintf(t->name, sizeof(t->name), "%s", name);
		}
	}
	t->waiting++;
	t->bytes += e->body_size;
	older(&t->oldest, e->now);
}

static void add_entry(struct listing *l, struct sums *file, const struct journal_reader *r, const struct journal_entry *e)
{
	struct journal_view v;
	int class = class_of(e);
	char name[2 * CQL_NAME_MAX + 4];

	if (journal_kind(e) == ENTRY_PREPARED)
		return;
	file->count[class]++;
	if (class == CONFIRMED || class == DONE)
		return;
	file->bytes += e->body_size;
	older(&file->oldest, e->now);
	journal_view_of(r, e, &v);
	for (unsigned i = 0; i < v.statement.table_count; i++) {
		snprintf(name, sizeof(name), "%s.%s", v.statement.tables[i].keyspace[0] ? v.statement.tables[i].keyspace : "?",
			 v.statement.tables[i].table);
		add_table(l, name, e);
	}
	if (!v.statement.table_count)
		add_table(l, "-", e);
}

static void add_sums(struct sums *to, const struct sums *from)
{
	for (int i = 0; i < COUNTS; i++)
		to->count[i] += from->count[i];
	to->bytes += from->bytes;
	if (from->oldest)
		older(&to->oldest, from->oldest);
}

/* "2 h", "17 s"; "-" when nothing waits. */
static const char *age(uint32_t oldest, char *to, size_t size)
{
	int64_t s = oldest ? clock_wall_us() / 1000000 - oldest : 0;

	if (!oldest)
		snprintf(to, size, "-");
	else if (s < 120)
		snprintf(to, size, "%" PRId64 " s", s > 0 ? s : 0);
	else if (s < 7200)
		snprintf(to, size, "%" PRId64 " min", s / 60);
	else
		snprintf(to, size, "%" PRId64 " h", s / 3600);
	return to;
}

/* Made, and not begun. */
static bool is_empty(const struct journal_found *f)
{
	return f->bytes.size == 0 || f->bytes.data[0] == 0;
}

/* ---- ls */

static json_t *sums_json(const struct sums *s)
{
	json_t *o = json_object();

	for (int i = 0; i < COUNTS; i++)
		json_object_set_new(o, count_names[i], json_integer((json_int_t)s->count[i]));
	json_object_set_new(o, "waitingBytes", json_integer((json_int_t)s->bytes));
	json_object_set_new(o, "oldest", s->oldest ? json_integer(s->oldest) : json_null());
	return o;
}

static void begin_life(struct listing *l, const struct journal_found *f)
{
	if (!strcmp(l->life, f->life) && l->files)
		return;
	snprintf(l->life, sizeof(l->life), "%s", f->life);
	if (l->cli->json)
		return;
	printf("%s%s  %s\n", l->files ? "\n" : "", f->aside ? "put aside" : f->life,
	       f->aside ? "could not be read at a start" : f->running ? "running" : "dead: the next start delivers what waits in it");
	printf("  %-22s %9s  %-6s %6s %6s  %9s %9s %9s %9s %9s  %s\n", "FILE", "SIZE", "TO", "WORKER", "EPOCH", "IN DOUBT", "QUEUED", "SENT",
	       "CONFIRMED", "DONE", "OLDEST");
}

static void print_file(struct listing *l, const struct journal_found *f, const struct journal_reader *r, const struct sums *s, const char *note)
{
	const struct journal_head *h = r ? r->head : NULL;
	char text[40];

	if (l->cli->json) {
		json_t *o = sums_json(s);

		json_object_set_new(o, "life", json_string(f->life));
		json_object_set_new(o, "running", json_boolean(f->running));
		json_object_set_new(o, "file", json_string(f->name));
		json_object_set_new(o, "sizeBytes", json_integer((json_int_t)f->size));
		if (h) {
			json_object_set_new(o, "worker", json_integer(h->worker));
			json_object_set_new(o, "to", json_string(h->side < SIDES ? side_name((enum side)h->side) : "?"));
			json_object_set_new(o, "sequence", json_integer((json_int_t)h->sequence));
			json_object_set_new(o, "epoch", json_integer((json_int_t)h->epoch));
			json_object_set_new(o, "created", json_integer(h->created_us));
		}
		if (note)
			json_object_set_new(o, "note", json_string(note));
		json_array_append_new(l->list, o);
		return;
	}
	printf("  %-22s ", f->name);
	printf("%6" PRIu64 " KiB  ", f->size >> 10);
	if (h)
		printf("%-6s %6u %6" PRIu64 "  %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 "  %s",
		       h->side < SIDES ? side_name((enum side)h->side) : "?", h->worker, h->epoch, s->count[IN_DOUBT], s->count[QUEUED],
		       s->count[SENT], s->count[CONFIRMED], s->count[DONE], age(s->oldest, text, sizeof(text)));
	if (note) {
		fputs(h ? "  " : "", stdout);
		render_text(stdout, note);
	}
	fputc('\n', stdout);
}

static bool list_file(void *context, struct journal_found *f)
{
	struct listing *l = context;
	struct journal_reader r;
	const struct journal_entry *e;
	struct sums s = {0};
	const char *why;
	size_t at;

	begin_life(l, f);
	l->files++;
	l->size += f->size;
	if (!f->bytes.data || is_empty(f) || journal_reader_open(&r, f->bytes, &why) < 0) {
		print_file(l, f, NULL, &s, !f->bytes.data ? f->error.text : is_empty(f) ? "empty, waits for its use" : why);
		return true;
	}
	while ((e = journal_reader_next(&r, &at)))
		add_entry(l, &s, &r, e);
	print_file(l, f, &r, &s, NULL);
	add_sums(&l->all, &s);
	journal_reader_done(&r);
	return true;
}

static int by_waiting(const void *a, const void *b)
{
	const struct table_sum *x = a, *y = b;

	return x->waiting < y->waiting ? 1 : x->waiting > y->waiting ? -1 : strcmp(x->name, y->name);
}

static void list_tables(const struct listing *l)
{
	char text[40];

	for (unsigned i = 0; i < l->tables; i++) {
		const struct table_sum *t = &l->table[i];
		size_t width = strlen(t->name);

		if (!i)
			printf("\n%-40s %12s %12s  %s\n", "TABLE", "WAITING", "BYTES", "OLDEST");
		render_text(stdout, t->name); /* a client wrote it */
		printf("%*s %12" PRIu64 " %12" PRIu64 "  %s\n", (int)(width < 40 ? 40 - width : 0), "", t->waiting, t->bytes,
		       age(t->oldest, text, sizeof(text)));
	}
}

static int list(struct listing *l, const char *state)
{
	struct error error;
	char text[40];
	json_t *tables, *o;

	l->list = json_array();
	if (journal_files_each(state, list_file, l, &error) < 0) {
		json_decref(l->list);
		return cli_failed("journal", "%s", error.text);
	}
	qsort(l->table, l->tables, sizeof(l->table[0]), by_waiting);
	if (!l->cli->json) {
		list_tables(l);
		printf("%s%u files, %" PRIu64 " KiB; %" PRIu64 " writes wait (%" PRIu64 " in doubt), the oldest for %s\n", l->files ? "\n" : "",
		       l->files, l->size >> 10, l->all.count[IN_DOUBT] + l->all.count[QUEUED] + l->all.count[SENT], l->all.count[IN_DOUBT],
		       age(l->all.oldest, text, sizeof(text)));
		json_decref(l->list);
		return CLI_OK;
	}
	tables = json_array();
	for (unsigned i = 0; i < l->tables; i++)
		json_array_append_new(tables, json_pack("{s:s, s:I, s:I, s:I}", "table", l->table[i].name, "waiting",
							(json_int_t)l->table[i].waiting, "bytes", (json_int_t)l->table[i].bytes, "oldest",
							(json_int_t)l->table[i].oldest));
	o = json_pack("{s:o, s:o, s:o}", "files", l->list, "tables", tables, "totals", sums_json(&l->all));
	json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
	fputc('\n', stdout);
	json_decref(o);
	return CLI_OK;
}

/* ---- show */

static void show_entry(struct listing *l, const char *file, size_t at, const struct journal_entry *e, struct journal_view *v)
{
	char tables[400], when[32];

	if (l->cli->json) {
		json_t *o = entry_json(file, at, e, v, l->values);

		json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		fputc('\n', stdout);
		json_decref(o);
		return;
	}
	printf("%s:%zu  %s  %-9s %-8s %-8s ", file, at, entry_time(entry_time_us(e), when), entry_state(e),
	       journal_kind_name(journal_kind(e)), statement_kind_name(v->statement.kind));
	render_text(stdout, entry_tables(v, tables, sizeof(tables)));
	if (e->flags & ENTRY_PINNED && journal_kind(e) != ENTRY_BARRIER)
		printf("  timestamp %" PRId64, e->timestamp);
	printf("  %u bytes  ", e->body_size);
	entry_print_texts(stdout, v, l->values);
	fputc('\n', stdout);
}

static bool show_file(void *context, struct journal_found *f)
{
	struct listing *l = context;
	struct journal_reader r;
	const struct journal_entry *e;
	struct journal_view v;
	const char *why;
	char file[400];
	size_t at;

	if (!f->bytes.data || is_empty(f) || journal_reader_open(&r, f->bytes, &why) < 0)
		return true; /* verify's business */
	snprintf(file, sizeof(file), "%s%s%s", f->life, f->life[0] ? "/" : "", f->name);
	while ((e = journal_reader_next(&r, &at)) && !ferror(stdout)) {
		if (journal_kind(e) == ENTRY_PREPARED)
			continue;
		journal_view_of(&r, e, &v);
		if (!entry_matches(&l->filter, &v, e))
			continue;
		show_entry(l, file, at, e, &v);
		l->entries++;
	}
	journal_reader_done(&r);
	return !ferror(stdout);
}

static int show(struct listing *l, const char *state)
{
	struct error error;

	if (journal_files_each(state, show_file, l, &error) < 0)
		return cli_failed("journal", "%s", error.text);
	if (!l->entries && !l->cli->json)
		puts("no entry matches");
	return CLI_OK;
}

/* ---- verify */

struct verdict {
	bool damaged, torn;
	const char *why;
	size_t at;
	uint64_t entries;
};

static void judge(const struct journal_found *f, struct verdict *ret)
{
	struct journal_reader r;
	size_t at;

	*ret = (struct verdict){0};
	if (!f->bytes.data) {
		ret->damaged = true;
		ret->why = f->error.text;
		return;
	}
	if (is_empty(f))
		return;
	if (journal_reader_open(&r, f->bytes, &ret->why) < 0) {
		ret->damaged = true;
		return;
	}
	while (journal_reader_next(&r, &at))
		ret->entries++;
	ret->torn = r.torn;
	ret->at = r.at;
	journal_reader_done(&r);
}

/* What is not zero behind the last entry that can be read. */
static size_t lost_bytes(const struct journal_found *f, size_t at)
{
	size_t end = f->bytes.size;

	while (end > at && f->bytes.data[end - 1] == 0)
		end--;
	return end - at;
}

static void print_verdict(struct listing *l, const struct journal_found *f, const struct verdict *v)
{
	const char *slash = f->life[0] ? "/" : "";
	char text[600] = "";

	if (f->aside)
		snprintf(text, sizeof(text), "put aside by an agent: %s", v->damaged ? v->why : "but it can be read; rename it to *.journal");
	else if (v->damaged)
		snprintf(text, sizeof(text), "damaged: %s", v->why);
	else if (v->torn)
		snprintf(text, sizeof(text), "torn at byte %zu, behind %" PRIu64 " entries: %zu bytes there are no entry", v->at, v->entries,
			 lost_bytes(f, v->at));
	if (l->cli->json) {
		json_t *o = json_pack("{s:s, s:s, s:b, s:I, s:I, s:b, s:b}", "life", f->life, "file", f->name, "running", f->running,
				      "sizeBytes", (json_int_t)f->size, "entries", (json_int_t)v->entries, "torn", v->torn, "damaged",
				      v->damaged || f->aside);

		if (v->torn) {
			json_object_set_new(o, "tornAt", json_integer((json_int_t)v->at));
			json_object_set_new(o, "tornBytes", json_integer((json_int_t)lost_bytes(f, v->at)));
		}
		if (text[0])
			json_object_set_new(o, "problem", json_string(text));
		json_array_append_new(l->list, o);
	} else if (text[0]) {
		printf("%s%s%s: ", f->life, slash, f->name);
		render_text(stdout, text);
		fputc('\n', stdout);
	}
}

static bool verify_file(void *context, struct journal_found *f)
{
	struct listing *l = context;
	struct verdict v;

	judge(f, &v);
	/* What a running agent begins anew while we copy it looks like damage: only what stays is damage. */
	for (int i = 1; i < TRIES && f->running && (v.damaged || v.torn); i++) {
		struct timespec wait = {.tv_nsec = 50000000};

		nanosleep(&wait, NULL);
		journal_found_again(f);
		if (!f->bytes.data && access(f->path, F_OK) < 0)
			return true;
		judge(f, &v);
	}
	l->files++;
	l->size += f->size;
	l->entries += v.entries;
	l->damaged += v.damaged || f->aside;
	l->torn += v.torn && !f->aside;
	print_verdict(l, f, &v);
	return true;
}

static int verify(struct listing *l, const char *state)
{
	struct error error;
	bool sound;

	l->list = json_array();
	if (journal_files_each(state, verify_file, l, &error) < 0) {
		json_decref(l->list);
		return cli_failed("journal", "%s", error.text);
	}
	sound = l->damaged == 0 && l->torn == 0;
	if (l->cli->json) {
		json_t *o = json_pack("{s:o, s:I, s:I, s:i, s:i}", "files", l->list, "sizeBytes", (json_int_t)l->size, "entries",
				      (json_int_t)l->entries, "torn", l->torn, "damaged", l->damaged);

		json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
		fputc('\n', stdout);
		json_decref(o);
	} else {
		json_decref(l->list);
		printf("%u files, %" PRIu64 " KiB, %" PRIu64 " entries: ", l->files, l->size >> 10, l->entries);
		if (sound)
			puts("sound");
		else
			printf("%u damaged, %u torn\n", l->damaged, l->torn);
	}
	return sound ? CLI_OK : CLI_FAILED;
}

/* ---- the command */

static bool known_word(const char *word, const char *(*name)(unsigned), unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		if (!strcmp(word, name(i)))
			return true;
	return false;
}

int cli_journal(struct cli *cli, int argc, char **argv)
{
	const char *state, *table = NULL, *since = NULL;
	struct listing *l = calloc(1, sizeof(*l));
	struct error error;
	int rest, rc;

	if (!l)
		return cli_failed("journal", "out of memory");
	const struct cli_option options[] = {
		{.name = "state", .type = CLI_TEXT, .value = "DIR", .place.text = &cli->directory, .help = "the agent's state.directory"},
		{.name = "table", .type = CLI_TEXT, .value = "KS.TABLE", .place.text = &table, .help = "show: what may touch that table, or KS.*"},
		{.name = "entry", .type = CLI_TEXT, .value = "STATE", .place.text = &l->filter.state,
		 .help = "show: 'in doubt', queued, sent, confirmed or done"},
		{.name = "kind", .type = CLI_TEXT, .value = "KIND", .place.text = &l->filter.kind, .help = "show: write, barrier, counter or rows"},
		{.name = "since", .type = CLI_TEXT, .value = "SINCE", .place.text = &since, .help = "show: made since then; 15m = so long ago"},
		{.name = "values", .type = CLI_FLAG, .place.flag = &l->values, .help = "show: the statements' values as well"},
		{.name = "config", .type = CLI_TEXT, .value = "FILE", .place.text = &cli->config_file, .help = "configuration that names the directory"},
		{.name = "json", .type = CLI_FLAG, .place.flag = &cli->json, .help = "answer in JSON"},
		{.name = NULL}};

	l->cli = cli;
	rc = cli_options(cli_find("journal"), options, argc, argv, 1, &rest);
	if (rc >= 0)
		goto out;
	rc = CLI_USAGE;
	if (rest == 0) {
		cli_usage_error("journal", "ls, show or verify?");
		goto out;
	}
	l->filter.by_table = table != NULL;
	if (table && !cli_table(table, &l->filter.table)) {
		cli_usage_error("journal", "--table: '%s' is no keyspace.table", table);
		goto out;
	}
	if (since && !cli_since(since, &l->filter.since_us)) {
		cli_usage_error("journal", "--since: '%s' is neither a time (2026-01-02T03:04:05Z) nor 90s, 15m, 12h, 7d", since);
		goto out;
	}
	if (l->filter.state && strcmp(l->filter.state, "confirmed") != 0 &&
	    !known_word(l->filter.state, journal_state_name, ENTRY_INTENT, ENTRY_STATES)) {
		cli_usage_error("journal", "--entry: '%s' is none of 'in doubt', queued, sent, confirmed, done", l->filter.state);
		goto out;
	}
	if (l->filter.kind && !known_word(l->filter.kind, journal_kind_name, ENTRY_WRITE, ENTRY_PREPARED)) {
		cli_usage_error("journal", "--kind: '%s' is none of write, barrier, counter, rows", l->filter.kind);
		goto out;
	}
	if (cli_directory(cli, &state, &error) < 0)
		rc = cli_failed("journal", "%s", error.text);
	else if (!strcmp(argv[1], "ls"))
		rc = list(l, state);
	else if (!strcmp(argv[1], "show"))
		rc = show(l, state);
	else if (!strcmp(argv[1], "verify"))
		rc = verify(l, state);
	else
		cli_usage_error("journal", "'%s' is none of ls, show, verify", argv[1]);
out:
	free(l);
	return rc;
}
