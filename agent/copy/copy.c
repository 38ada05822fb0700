// SPDX-License-Identifier: Apache-2.0
#include "copy/copy.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "copy/export.h"
#include "copy/import.h"
#include "copy/settings.h"
#include "copy/type.h"

struct copy {
	struct copy_request *request;
	struct copy_settings settings;
	struct plan plan;
	const char **file_columns; /* of the file, those to be passed over included */
	unsigned file_column_count;
	char progress_path[PATH_MAX];
	bool has_progress, has_cluster;
};

static int complain(const struct error *error)
{
	fprintf(stderr, "%s\n", error->text);
	return COPY_FAILED;
}

/* ------------------------------------------------------------- columns */

static bool is_skipped(const char *list, const char *name)
{
	size_t size = strlen(name);

	while (*list) {
		const char *end = strchrnul(list, ',');

		list += strspn(list, " ");
		if ((size_t)(end - list) >= size && !memcmp(list, name, size) &&
		    strspn(list + size, " ") == (size_t)(end - list) - size)
			return true;
		list = *end ? end + 1 : end;
	}
	return false;
}

static bool has_column(const struct plan *p, const char *name)
{
	for (unsigned i = 0; i < p->column_count; i++)
		if (!strcmp(p->columns[i], name))
			return true;
	return false;
}

static int judge_columns(const struct plan *p, bool to, struct error *error)
{
	for (unsigned i = 0; i < p->cluster.column_count && !to; i++)
		if (p->cluster.columns[i].kind <= COLUMN_CLUSTERING &&
		    !has_column(p, p->cluster.columns[i].name))
			return error_set(error, -EINVAL, "Primary key column '%s' missing or skipped",
					 p->cluster.columns[i].name);
	return p->column_count ? 0 : error_set(error, -EINVAL, "No valid column specified");
}

/* Those that were named, or all, without SKIPCOLS. */
static int choose_columns(struct copy *c, struct error *error)
{
	const struct copy_command *command = &c->request->command;
	struct plan *p = &c->plan;
	unsigned count = command->column_count ? command->column_count : p->cluster.column_count;

	c->file_columns = calloc(count, sizeof(*c->file_columns));
	p->columns = calloc(count, sizeof(*p->columns));
	if (!c->file_columns || !p->columns)
		return error_set(error, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < count; i++) {
		const char *name = command->column_count ? command->columns[i] : p->cluster.columns[i].name;
		bool skipped = !command->to && is_skipped(p->options->skipcols, name);
		const struct copy_column *column = copy_cluster_column(&p->cluster, name);

		if (!column && !skipped)
			return error_set(error, -EINVAL, "Invalid column name %s", name);
		if (has_column(p, name))
			return error_set(error, -EINVAL, "column %s is named twice", name);
		c->file_columns[c->file_column_count++] = name;
		if (skipped)
			continue;
		p->columns[p->column_count++] = name;
		p->counters |= column->counter && !command->to;
	}
	return judge_columns(p, command->to, error);
}

/* ------------------------------------------------------------- beginning */

static void put_list(FILE *out, const char *const *names, unsigned count)
{
	fputc('[', out);
	for (unsigned i = 0; i < count; i++)
		fprintf(out, "%s%s", i ? ", " : "", names[i]);
	fputs("]", out);
}

/* A progress file stands beside the output, or beside the error file of the table. */
static void name_progress(struct copy *c)
{
	const struct copy_command *command = &c->request->command;

	c->has_progress = c->request->progress || command->file;
	if (c->request->progress)
		snprintf(c->progress_path, sizeof(c->progress_path), "%s", c->request->progress);
	else if (command->to && command->file)
		snprintf(c->progress_path, sizeof(c->progress_path), "%s.progress", command->file);
	else
		snprintf(c->progress_path, sizeof(c->progress_path), "import_%s_%s.progress",
			 command->keyspace, command->table);
}

static int begin(struct copy *c, struct error *error)
{
	struct copy_settings *s = &c->settings;
	const struct copy_command *command = &c->request->command;
	struct plan *p = &c->plan;
	int rc = settings_read(s, c->request, error);

	if (rc < 0)
		return rc;
	if (c->request->resume && !command->file)
		return error_set(error, -EINVAL, "only a copy from or to a file can be resumed");
	p->options = &s->options;
	p->keyspace = command->keyspace;
	p->table = command->table;
	p->consistency = s->consistency;
	p->messages = command->to && !command->file ? NULL : stdout;
	rc = copy_cluster_read(&p->cluster, &s->login, p->keyspace, p->table, error);
	if (rc < 0)
		return rc;
	c->has_cluster = true;
	routes_init(&p->routes, &p->cluster, s->options.mode);
	rc = choose_columns(c, error);
	if (rc == 0)
		rc = routes_explore(&p->routes, s->login.connect_ms, error);
	if (rc < 0)
		return rc;
	p->statement = command->to ? export_statement(p) : import_statement(p);
	if (!p->statement)
		return error_set(error, -ENOMEM, "out of memory");
	p->settings = (struct channel_settings){.username = s->login.username,
						.password = s->login.password,
						.prepare = p->statement,
						.connect_ms = s->login.connect_ms};
	return plan_prepare(p, error);
}

/* ------------------------------------------------------------- the end */

static const char *passed(const struct plan *p, char *text, size_t size)
{
	return progress_span((double)(clock_now_ns() - p->progress.begin_ns) / 1e9, text, size);
}

static int run_export(struct copy *c, struct error *error)
{
	struct plan *p = &c->plan;
	const struct export_request request = {.file = c->request->command.file,
					       .progress = c->has_progress ? c->progress_path : NULL,
					       .resume = c->request->resume};
	struct export_result result = {0};
	char span[64];
	int rc = export_run(p, &request, &result, error);

	progress_report(&p->progress, clock_now_ns(), true);
	if (result.failed)
		fprintf(stderr, "Exported %u ranges out of %u total ranges, some records might be missing\n",
			result.ranges - result.failed, result.ranges);
	if (p->messages)
		fprintf(p->messages, "\n%llu rows exported to %u files in %s.\n",
			(unsigned long long)result.rows, result.files, passed(p, span, sizeof(span)));
	return rc < 0 ? rc : result.failed ? COPY_PARTLY : 0;
}

static int run_import(struct copy *c, struct error *error)
{
	struct plan *p = &c->plan;
	const struct import_request request = {.files = c->request->command.file,
					       .progress = c->has_progress ? c->progress_path : NULL,
					       .resume = c->request->resume,
					       .file_columns = (char *const *)c->file_columns,
					       .file_column_count = c->file_column_count};
	struct import_result result = {0};
	char span[64];
	int rc = import_run(p, &request, &result, error);

	progress_report(&p->progress, clock_now_ns(), true);
	if (result.rejected)
		fprintf(stderr, "Failed to process %llu rows; failed rows written to %s\n",
			(unsigned long long)result.rejected, result.errfile);
	fprintf(p->messages, "\n%llu rows imported from %u files in %s (%llu skipped).\n",
		(unsigned long long)result.rows, result.files, passed(p, span, sizeof(span)),
		(unsigned long long)result.skipped);
	return rc < 0 ? rc : result.rejected ? COPY_PARTLY : 0;
}

static void finish(struct copy *c)
{
	struct plan *p = &c->plan;

	for (unsigned i = 0; p->types && i < p->column_count; i++)
		type_done(&p->types[i]);
	free(p->types);
	free(p->statement);
	free(p->columns);
	free(c->file_columns);
	if (c->has_cluster) {
		routes_done(&p->routes);
		copy_cluster_done(&p->cluster);
	}
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
	settings_done(&c->settings);
}

/* So that a person's Ctrl-C leaves a progress file behind; reading a terminal has to end with it, though. */
static void hold_signals(struct plan *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	p->signals = true;
}

int copy_run(struct copy_request *request)
{
	struct copy *c = calloc(1, sizeof(*c));
	const struct copy_command *command = &request->command;
	struct error error = {""};
	int rc;

	if (!c)
		return complain(&(struct error){"out of memory"});
	c->request = request;
	/* Rows of all sizes come and go: large blocks go back to the system at once, instead of leaving
	 * holes. */
	mallopt(M_MMAP_THRESHOLD, 512 << 10);
	signal(SIGPIPE, SIG_IGN); /* whoever reads standard output and goes is an error with a reason */
	pthread_mutex_init(&c->plan.lock, NULL);
	pthread_cond_init(&c->plan.changed, NULL);
	rc = begin(c, &error);
	if (rc == 0) {
		struct plan *p = &c->plan;

		if (command->file)
			hold_signals(p);
		name_progress(c);
		progress_init(&p->progress, p->messages, p->options->reportfrequency, p->options->ratefile,
			      clock_now_ns());
		if (p->messages) {
			fprintf(p->messages, "Using %lld threads\n\nStarting copy of %s.%s with columns ",
				(long long)p->options->numprocesses, p->keyspace, p->table);
			put_list(p->messages, p->columns, p->column_count);
			fputs(".\n", p->messages);
			fflush(p->messages);
		}
		rc = command->to ? run_export(c, &error) : run_import(c, &error);
		if (rc < 0 && c->has_progress && access(c->progress_path, F_OK) == 0 &&
		    strlen(error.text) < sizeof(error.text) - 80)
			snprintf(error.text + strlen(error.text), 64, "%s",
				 "; --resume goes on where it stood");
	}
	finish(c);
	free(c);
	return rc < 0 ? complain(&error) : rc;
}
