// SPDX-License-Identifier: Apache-2.0
#include "copy/export.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "copy/export_priv.h"

#define SAVE_NS 1000000000ull

char *export_statement(const struct plan *p)
{
	struct bytes b = {0};
	bool first = true;

	bytes_text(&b, "SELECT ");
	for (unsigned i = 0; i < p->column_count; i++) {
		if (i)
			bytes_text(&b, ", ");
		plan_put_name(&b, p->columns[i]);
	}
	bytes_text(&b, " FROM ");
	plan_put_name(&b, p->keyspace);
	bytes_u8(&b, '.');
	plan_put_name(&b, p->table);
	for (unsigned bound = 0; p->cluster.ring.hashed && bound < 2; bound++) {
		bytes_text(&b, bound ? " AND token(" : " WHERE token(");
		first = true;
		for (unsigned i = 0; i < p->cluster.column_count; i++)
			if (p->cluster.columns[i].kind == COLUMN_PARTITION) {
				if (!first)
					bytes_text(&b, ", ");
				plan_put_name(&b, p->cluster.columns[i].name);
				first = false;
			}
		bytes_text(&b, bound ? ") <= ?" : ") > ?");
	}
	bytes_u8(&b, 0);
	if (b.failed)
		bytes_done(&b);
	return (char *)b.data;
}

/* The first line, when HEADER wants one. */
static struct bytes header_of(const struct plan *p)
{
	struct bytes b = {0};

	if (!p->options->header)
		return b;
	for (unsigned i = 0; i < p->column_count; i++) {
		size_t from;

		if (i)
			bytes_u8(&b, p->options->dialect.delimiter);
		from = b.size;
		bytes_text(&b, p->columns[i]);
		csv_write(&p->options->dialect, &b, from);
	}
	bytes_put(&b, "\r\n", 2);
	return b;
}

/* Whether neither digits nor what else numbers, dates and UUIDs are made of needs a quote; nor what stands for
 * null among them. */
bool export_numbers_are_plain(const struct copy_options *o)
{
	const uint8_t mine[] = {o->dialect.delimiter, o->dialect.quote, o->dialect.escape};
	const char *separators[] = {o->decimalsep, o->thousandssep};

	for (unsigned i = 0; i < sizeof(mine); i++)
		if (mine[i] >= 0x80 || strchr("0123456789abcdefABCDEFxXnstyurowhmdINity+-.: ", mine[i]))
			return false;
	for (unsigned i = 0; i < 2; i++)
		for (const char *c = separators[i]; *c; c++)
			if (o->dialect.special[(uint8_t)*c])
				return false;
	for (size_t i = 0; i < o->null_written.size; i++)
		if (o->dialect.special[o->null_written.data[i]])
			return false;
	return true;
}

/* Reports and saves until every worker has ended. */
static void watch(struct export *e, const struct export_request *request)
{
	struct plan *p = e->plan;
	uint64_t saved_ns = clock_now_ns(), now;
	struct error error;

	while (plan_live(p) > 0) {
		plan_wait(p, 50);
		now = clock_now_ns();
		progress_report(&p->progress, now, false);
		if (request->progress && now - saved_ns >= SAVE_NS) {
			saved_ns = now;
			if (ranges_save(e, request->progress, &error) < 0)
				plan_fail(p, -EIO, "%s", error.text);
		}
	}
}

static int run_workers(struct export *e, const struct export_request *request, struct error *error)
{
	unsigned count = (unsigned)e->plan->options->numprocesses, started = 0;
	struct export_worker *workers = calloc(count, sizeof(*workers));
	int rc = workers ? 0 : error_set(error, -ENOMEM, "out of memory");

	for (; started < count && rc == 0; started++) {
		rc = scans_make(&workers[started], e);
		if (rc == 0)
			rc = mover_start(&workers[started].worker, e->plan, started,
					 (unsigned)e->plan->options->maxrequests, scans_turn, error);
		if (rc < 0) {
			scans_free(&workers[started]);
			break;
		}
	}
	if (rc < 0)
		atomic_store(&e->plan->stop, true);
	watch(e, request);
	for (unsigned i = 0; i < started; i++) {
		mover_join(&workers[i].worker);
		scans_free(&workers[i]);
	}
	free(workers);
	return rc;
}

int export_run(struct plan *p, const struct export_request *request, struct export_result *ret,
	       struct error *error)
{
	struct export e = {.plan = p, .output = {.fd = -1}, .plain_numbers = export_numbers_are_plain(p->options)};
	int rc;

	pthread_mutex_init(&e.lock, NULL);
	rc = ranges_make(&e, request, error);
	if (rc == 0 && !request->resume)
		rc = output_open(&e.output, request->file, p->options->maxoutputsize, header_of(p), error);
	if (rc == 0) {
		p->progress.total = e.range_count;
		rc = run_workers(&e, request, error);
	}
	if (rc == 0 && p->code < 0)
		rc = error_set(error, p->code, "%s", p->error.text);
	*ret = (struct export_result){.rows = atomic_load(&p->progress.rows),
				      .ranges = e.range_count,
				      .failed = atomic_load(&e.failed),
				      .files = request->file ? e.output.files : 1};
	if (request->progress && e.output.fd >= 0) {
		struct error second;

		/* A range that was given up can be had by --resume, too. */
		if (rc < 0 || ret->failed) {
			if (ranges_save(&e, request->progress, &second) < 0)
				fprintf(stderr, "%s\n", second.text);
		} else {
			unlink(request->progress);
		}
	}
	if (output_close(&e.output, rc < 0 ? NULL : error) < 0 && rc == 0)
		rc = -EIO;
	ranges_done(&e);
	pthread_mutex_destroy(&e.lock);
	return rc;
}
