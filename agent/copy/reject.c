// SPDX-License-Identifier: Apache-2.0
#include "copy/reject.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define TOLD_MAX 10 /* on standard error */

static void set_aside(const char *path)
{
	char name[OPTION_PATH + 64], stamp[32];
	time_t now = time(NULL);
	struct tm tm;

	if (access(path, F_OK) != 0)
		return;
	localtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y%m%d_%H%M%S", &tm);
	snprintf(name, sizeof(name), "%s.%s", path, stamp);
	rename(path, name);
}

void rejects_init(struct rejects *r, struct plan *plan, char *const *files, bool resumed)
{
	*r = (struct rejects){.plan = plan, .files = files};
	pthread_mutex_init(&r->lock, NULL);
	if (*plan->options->errfile)
		snprintf(r->path, sizeof(r->path), "%s", plan->options->errfile);
	else
		snprintf(r->path, sizeof(r->path), "import_%s_%s.err", plan->keyspace, plan->table);
	snprintf(r->reasons_path, sizeof(r->reasons_path), "%s.reasons", r->path);
	if (!resumed) {
		set_aside(r->path);
		set_aside(r->reasons_path);
	}
}

/* Rows are data: nobody else may read them. */
static FILE *open_private(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	return fd < 0 ? NULL : fdopen(fd, "a");
}

static bool write_row(struct rejects *r, const struct input_row *row, const char *where, const char *reason,
		      int reason_size)
{
	if (!r->rows)
		r->rows = open_private(r->path);
	if (!r->reasons)
		r->reasons = open_private(r->reasons_path);
	if (!r->rows || !r->reasons)
		return false;
	fwrite(row->data.data, 1, row->data.size, r->rows);
	if (!row->data.size || row->data.data[row->data.size - 1] != '\n')
		fputs("\r\n", r->rows);
	fprintf(r->reasons, "row %llu, line %llu of %s: %.*s\n", (unsigned long long)row->row,
		(unsigned long long)row->line, where, reason_size, reason);
	return !ferror(r->rows) && !ferror(r->reasons);
}

static void judge(struct rejects *r)
{
	const struct copy_options *o = r->plan->options;

	if (o->maxparseerrors >= 0 && r->parse_errors > (uint64_t)o->maxparseerrors)
		plan_fail(r->plan, -ECANCELED, "Exceeded maximum number of parse errors %lld",
			  (long long)o->maxparseerrors);
	if (o->maxinserterrors >= 0 && r->insert_errors > (uint64_t)o->maxinserterrors)
		plan_fail(r->plan, -ECANCELED, "Exceeded maximum number of insert errors %lld",
			  (long long)o->maxinserterrors);
}

void rejects_add(struct rejects *r, const struct input_row *row, bool insert, unsigned attempts,
		 const char *reason, int reason_size)
{
	const char *where = r->files[row->file] ? r->files[row->file] : "standard input";
	uint64_t count;
	bool written;

	pthread_mutex_lock(&r->lock);
	count = r->parse_errors + r->insert_errors;
	*(insert ? &r->insert_errors : &r->parse_errors) += 1;
	written = write_row(r, row, where, reason, reason_size);
	if (count < TOLD_MAX) {
		fprintf(stderr, "Failed to import 1 rows: row %llu, line %llu of %s: %.*s,  given up ",
			(unsigned long long)row->row, (unsigned long long)row->line, where, reason_size,
			reason);
		if (insert)
			fprintf(stderr, "after %u attempts\n", attempts);
		else
			fprintf(stderr, "without retries\n");
	} else if (count == TOLD_MAX) {
		fprintf(stderr, "More rows are rejected: see %s\n", r->reasons_path);
	}
	pthread_mutex_unlock(&r->lock);
	if (!written)
		plan_fail(r->plan, -EIO, "rejected rows cannot be kept in %s: %s", r->path, strerror(errno));
	judge(r);
}

uint64_t rejects_count(struct rejects *r)
{
	uint64_t count;

	pthread_mutex_lock(&r->lock);
	count = r->parse_errors + r->insert_errors;
	pthread_mutex_unlock(&r->lock);
	return count;
}

int rejects_close(struct rejects *r, struct error *error)
{
	bool failed = (r->rows && fclose(r->rows) != 0) | (r->reasons && fclose(r->reasons) != 0);

	r->rows = r->reasons = NULL;
	pthread_mutex_destroy(&r->lock);
	return failed ? error_set(error, -EIO, "rejected rows cannot be kept in %s: %s", r->path,
				  strerror(errno))
		      : 0;
}
