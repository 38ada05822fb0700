// SPDX-License-Identifier: Apache-2.0
/* The reading side of COPY FROM, chunks, and the progress file: see import.h. */
#include "copy/import.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "copy/import_priv.h"
#include "copy/pace.h"

#define SAVE_NS 1000000000ull

static bool is_key(const struct plan *p, unsigned column)
{
	const struct copy_column *c = copy_cluster_column(&p->cluster, p->columns[column]);

	return c && c->kind <= COLUMN_CLUSTERING;
}

char *import_statement(const struct plan *p)
{
	struct bytes b = {0};
	bool first = true;

	bytes_text(&b, p->counters ? "UPDATE " : "INSERT INTO ");
	plan_put_name(&b, p->keyspace);
	bytes_u8(&b, '.');
	plan_put_name(&b, p->table);
	for (unsigned i = 0; i < p->column_count && !p->counters; i++) {
		bytes_text(&b, i ? ", " : " (");
		plan_put_name(&b, p->columns[i]);
	}
	for (unsigned i = 0; i < p->column_count && !p->counters; i++)
		bytes_text(&b, i ? ", ?" : ") VALUES (?");
	if (!p->counters)
		bytes_u8(&b, ')');
	for (unsigned key = 0; key < 2 && p->counters; key++, first = true)
		for (unsigned i = 0; i < p->column_count; i++) {
			if (is_key(p, i) != key)
				continue;
			bytes_text(&b, key ? (first ? " WHERE " : " AND ") : first ? " SET " : ", ");
			plan_put_name(&b, p->columns[i]);
			bytes_text(&b, " = ");
			if (!key) {
				plan_put_name(&b, p->columns[i]);
				bytes_text(&b, " + ");
			}
			bytes_u8(&b, '?');
			first = false;
		}
	if (p->options->ttl >= 0 && !p->counters) {
		char ttl[48];

		snprintf(ttl, sizeof(ttl), " USING TTL %lld", (long long)p->options->ttl);
		bytes_text(&b, ttl);
	}
	bytes_u8(&b, 0);
	if (b.failed)
		bytes_done(&b);
	return (char *)b.data;
}

/* ------------------------------------------------------------- chunks */

static void chunk_empty(struct chunk *c)
{
	bytes_done(&c->data);
	bytes_done(&c->values);
	free(c->rows);
	free(c->order);
	c->rows = NULL;
	c->order = NULL;
}

static void chunk_free(struct chunk *c)
{
	chunk_empty(c);
	free(c);
}

struct chunk *chunk_take(struct import *im)
{
	struct chunk *c;

	pthread_mutex_lock(&im->lock);
	c = im->queue;
	if (c) {
		im->queue = c->next;
		if (!im->queue)
			im->queue_end = &im->queue;
	}
	pthread_mutex_unlock(&im->lock);
	return c;
}

void chunk_settle(struct import *im, struct chunk *c, unsigned rows)
{
	c->left -= rows;
	if (c->left)
		return;
	atomic_fetch_add(&im->plan->progress.rows, c->count);
	/* An older one may take long, and the mark waits for it; only what the mark needs waits as well. */
	chunk_empty(c);
	pthread_mutex_lock(&im->lock);
	c->done = true;
	im->charged -= c->charged;
	while ((c = im->oldest) && c->done) {
		im->mark = c->after;
		im->mark_rows += c->count + c->wrong;
		im->mark_rejected += c->rejected;
		im->oldest = c->younger;
		if (!im->oldest)
			im->youngest = NULL;
		chunk_free(c);
	}
	pthread_mutex_unlock(&im->lock);
	plan_notify(im->plan);
}

static int chunk_add(struct chunk *c, const struct input_row *r)
{
	if (c->count == c->room) {
		unsigned room = c->room ? 2 * c->room : 256;
		struct chunk_row *rows = realloc(c->rows, room * sizeof(*rows));
		uint32_t *order;

		if (!rows)
			return -ENOMEM;
		c->rows = rows;
		order = realloc(c->order, room * sizeof(*order));
		if (!order)
			return -ENOMEM;
		c->order = order;
		c->room = room;
	}
	c->rows[c->count++] = (struct chunk_row){
	    .at = c->data.size, .size = r->data.size, .row = r->row, .line = r->line, .file = r->file};
	bytes_put(&c->data, r->data.data, r->data.size);
	c->left++;
	return c->data.failed ? -ENOMEM : 0;
}

/* ------------------------------------------------------------- the progress file */

static json_t *identity(const struct import *im)
{
	const struct plan *p = im->plan;
	const struct copy_options *o = p->options;
	json_t *columns = json_array(), *files = json_array();
	struct stat st;

	for (unsigned i = 0; i < p->column_count; i++)
		json_array_append_new(columns, json_string(p->columns[i]));
	for (unsigned i = 0; i < im->input.path_count; i++)
		json_array_append_new(
		    files,
		    json_pack("[s, I]", im->input.paths[i],
			      stat(im->input.paths[i], &st) == 0 ? (json_int_t)st.st_size : (json_int_t)-1));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:[s,s,s,s], s:[b,I,I]}", "copy", "from", "keyspace",
			 p->keyspace, "table", p->table, "columns", columns, "inputs", files, "texts",
			 o->delimiter, o->quote, o->escape, o->null, "numbers", o->header,
			 (json_int_t)o->skiprows, (json_int_t)o->maxrows);
}

static int save(struct import *im, const char *path, struct error *error)
{
	json_t *root = identity(im);
	char beside[PATH_MAX];
	int fd, rc = 0;

	pthread_mutex_lock(&im->lock);
	json_object_set_new(root, "mark",
			    json_pack("{s:I, s:I, s:I, s:I}", "file", (json_int_t)im->mark.file, "offset",
				      (json_int_t)im->mark.offset, "line", (json_int_t)im->mark.line, "row",
				      (json_int_t)im->mark.row));
	json_object_set_new(root, "rows", json_integer((json_int_t)im->mark_rows));
	json_object_set_new(root, "rejected", json_integer((json_int_t)im->mark_rejected));
	pthread_mutex_unlock(&im->lock);
	snprintf(beside, sizeof(beside), "%s.new", path);
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || json_dumpfd(root, fd, JSON_COMPACT) < 0 || fdatasync(fd) < 0 ||
	    rename(beside, path) < 0)
		rc = error_set(error, errno ? -errno : -EIO, "cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	json_decref(root);
	return rc;
}

static int resume(struct import *im, const char *path, struct error *error)
{
	json_int_t file, offset, line, row, rows, rejected;
	json_error_t where;
	json_t *root, *same, *value;
	const char *name;
	int rc = 0;

	if (im->plan->counters)
		return error_set(error, -ENOTSUP,
				 "a copy into counters cannot be resumed: rows would be counted twice");
	if (!path)
		return error_set(error, -EINVAL, "a copy from standard input cannot be resumed");
	root = json_load_file(path, 0, &where);
	if (!root)
		return error_set(error, -ENOENT, "there is nothing to resume: %s: %s", path, where.text);
	same = identity(im);
	json_object_foreach(same, name, value) if (rc == 0 && !json_equal(value, json_object_get(root, name)))
	    rc = error_set(error, -EINVAL, "%s belongs to another copy: its \"%s\" differ", path, name);
	if (rc == 0 && (json_unpack(root, "{s:{s:I, s:I, s:I, s:I}, s:I, s:I}", "mark", "file", &file,
				    "offset", &offset, "line", &line, "row", &row, "rows", &rows, "rejected",
				    &rejected) < 0 ||
			file < 0 || file > im->input.path_count || offset < 0 || line < 0 || row < 0 ||
			rejected < 0 || rows < rejected))
		rc = error_set(error, -EINVAL, "%s is damaged; start without --resume", path);
	if (rc == 0) {
		im->mark = (struct input_mark){.file = (uint32_t)file,
					       .offset = (uint64_t)offset,
					       .line = (uint64_t)line,
					       .row = (uint64_t)row};
		im->mark_rows = (uint64_t)rows;
		im->mark_rejected = im->earlier_rejected = (uint64_t)rejected;
		im->earlier = im->mark_rows - im->mark_rejected;
		atomic_store(&im->plan->progress.rows, im->mark_rows);
		rc = im->mark.file < im->input.path_count ? input_resume(&im->input, &im->mark, error) : 0;
		im->input.mark = im->mark;
	}
	json_decref(same);
	json_decref(root);
	return rc;
}

/* ------------------------------------------------------------- reading */

struct reading {
	struct import *im;
	const struct import_request *request;
	struct pace pace;
	uint64_t saved_ns, skipped;
};

static void report(struct reading *r)
{
	uint64_t now = clock_now_ns();
	struct error error;

	plan_check_signals(r->im->plan);
	progress_report(&r->im->plan->progress, now, false);
	if (!r->request->progress || now - r->saved_ns < SAVE_NS)
		return;
	r->saved_ns = now;
	if (save(r->im, r->request->progress, &error) < 0)
		plan_fail(r->im->plan, -EIO, "%s", error.text);
}

/* Waits until the chunk fits into the bytes that may be on their way, and until its rows are due. */
static void wait_turn(struct reading *r, const struct chunk *c)
{
	struct import *im = r->im;
	bool wait = true;

	while (wait && !atomic_load(&im->plan->stop)) {
		pthread_mutex_lock(&im->lock);
		wait = im->charged && im->charged + c->charged > CHUNKS_BYTES;
		pthread_mutex_unlock(&im->lock);
		wait = wait || !pace_due(&r->pace, clock_now_ns());
		if (wait)
			plan_wait(im->plan, 20);
		report(r);
	}
}

static void hand_over(struct reading *r, struct chunk *c)
{
	struct import *im = r->im;

	/* Values take about as much as the rows. */
	c->charged = 2 * c->data.room + c->room * (sizeof(*c->rows) + sizeof(*c->order));
	c->after = im->input.mark;
	wait_turn(r, c);
	pace_count(&r->pace, c->count, clock_now_ns());
	pthread_mutex_lock(&im->lock);
	im->charged += c->charged;
	*im->queue_end = c;
	im->queue_end = &c->next;
	if (im->youngest)
		im->youngest->younger = c;
	else
		im->oldest = c;
	im->youngest = c;
	pthread_mutex_unlock(&im->lock);
	for (unsigned i = 0; i < im->workers; i++)
		mover_wake(&im->list[i].worker);
}

static uint64_t bytes_before(const struct import *im)
{
	uint64_t sum = im->input.mark.offset;
	struct stat st;

	for (unsigned i = 0; i < im->input.mark.file && i < im->input.path_count; i++)
		if (im->input.paths[i] && stat(im->input.paths[i], &st) == 0)
			sum += (uint64_t)st.st_size;
	return sum;
}

/* All rows to the workers, chunk by chunk. 0, the end; −errno. */
static int read_rows(struct reading *r, struct error *error)
{
	struct import *im = r->im;
	const struct copy_options *o = im->plan->options;
	unsigned most = pace_rows(&r->pace, (unsigned)o->chunksize);
	struct chunk *c = NULL;
	struct input_row row;
	int rc = 1;

	while (rc > 0 && !atomic_load(&im->plan->stop)) {
		if (!c && !(c = calloc(1, sizeof(*c)))) {
			rc = error_set(error, -ENOMEM, "out of memory");
			break;
		}
		rc = input_next(&im->input, &row, error);
		if (rc <= 0)
			break;
		if (o->maxrows >= 0 && row.row > (uint64_t)o->maxrows)
			break;
		if (row.row <= (uint64_t)o->skiprows) {
			r->skipped++;
			continue;
		}
		if (row.wrong) {
			rejects_add(&im->rejects, &row, false, 1, row.wrong, (int)strlen(row.wrong));
			atomic_fetch_add(&im->plan->progress.rows, 1);
			c->wrong++;
			c->rejected++;
			continue;
		}
		if (chunk_add(c, &row) < 0) {
			rc = error_set(error, -ENOMEM, "out of memory");
			break;
		}
		if (c->count == most || c->data.size >= CHUNK_BYTES) {
			atomic_store(&im->plan->progress.done, bytes_before(im));
			hand_over(r, c);
			c = NULL;
		}
	}
	if (c && c->count && rc >= 0)
		hand_over(r, c);
	else if (c)
		chunk_free(c);
	return rc < 0 ? rc : 0;
}

/* ------------------------------------------------------------- the whole */

static int find_index(const char *const *names, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -1;
}

/* Binds stand in the order of the columns; in an UPDATE the counters come before the key. */
static int map_binds(struct import *im, const struct import_request *request)
{
	const struct plan *p = im->plan;
	unsigned n = 0;

	im->field_count = request->file_column_count;
	im->bind_count = p->column_count;
	im->bind_field = calloc(p->column_count, sizeof(unsigned));
	im->bind_column = calloc(p->column_count, sizeof(unsigned));
	im->bind_key = calloc(p->column_count, sizeof(bool));
	im->pk_bind = calloc(p->column_count, sizeof(unsigned));
	if (!im->bind_field || !im->bind_column || !im->bind_key || !im->pk_bind)
		return -ENOMEM;
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < p->column_count; i++) {
			if (p->counters ? is_key(p, i) != pass : pass)
				continue;
			im->bind_column[n] = i;
			im->bind_key[n] = is_key(p, i);
			im->bind_field[n] = (unsigned)find_index((const char *const *)request->file_columns,
								 request->file_column_count, p->columns[i]);
			n++;
		}
	for (unsigned i = 0; i < p->cluster.column_count; i++)
		for (unsigned k = 0; k < n && p->cluster.columns[i].kind == COLUMN_PARTITION; k++)
			if (!strcmp(p->columns[im->bind_column[k]], p->cluster.columns[i].name))
				im->pk_bind[im->pk_count++] = k;
	return 0;
}

static int run_workers(struct import *im, struct reading *r, struct error *error)
{
	struct plan *p = im->plan;
	unsigned count = (unsigned)p->options->numprocesses;
	struct import_worker *workers = calloc(count, sizeof(*workers));
	int rc = workers ? 0 : error_set(error, -ENOMEM, "out of memory");

	im->list = workers;
	for (; rc == 0 && im->workers < count; im->workers++) {
		struct import_worker *w = &workers[im->workers];

		rc = import_worker_make(w, im);
		if (rc == 0)
			rc = mover_start(&w->worker, p, im->workers,
					 (unsigned)p->options->maxinflightmessages, import_turn, error);
		if (rc < 0) {
			import_worker_free(w);
			break;
		}
	}
	if (rc == 0)
		rc = read_rows(r, error);
	if (rc < 0)
		atomic_store(&p->stop, true);
	pthread_mutex_lock(&im->lock);
	im->finished = true;
	pthread_mutex_unlock(&im->lock);
	for (unsigned i = 0; i < im->workers; i++)
		mover_wake(&workers[i].worker);
	while (plan_live(p) > 0) {
		plan_wait(p, 50);
		report(r);
	}
	for (unsigned i = 0; i < im->workers; i++) {
		mover_join(&workers[i].worker);
		import_worker_free(&workers[i]);
	}
	free(workers);
	return rc;
}

static void chunks_free(struct import *im)
{
	while (im->oldest) {
		struct chunk *next = im->oldest->younger;

		chunk_free(im->oldest);
		im->oldest = next;
	}
}

int import_run(struct plan *p, const struct import_request *request, struct import_result *ret,
	       struct error *error)
{
	struct import im = {.plan = p};
	struct reading reading = {.im = &im, .request = request, .saved_ns = clock_now_ns()};
	struct error second;
	int rc;

	*ret = (struct import_result){0};
	im.queue_end = &im.queue;
	pthread_mutex_init(&im.lock, NULL);
	pace_init(&reading.pace, p->options->ingestrate, clock_now_ns());
	rc = input_open(&im.input, request->files, &p->options->dialect, p->options->header,
			request->file_column_count, error);
	if (rc < 0) {
		pthread_mutex_destroy(&im.lock);
		return rc;
	}
	p->progress.total = im.input.total;
	rejects_init(&im.rejects, p, im.input.paths, request->resume);
	if (map_binds(&im, request) < 0)
		rc = error_set(error, -ENOMEM, "out of memory");
	if (rc == 0 && request->resume)
		rc = resume(&im, request->progress, error);
	if (rc == 0) {
		rc = run_workers(&im, &reading, error);
		if (rc == 0 && p->code < 0)
			rc = error_set(error, p->code, "%s", p->error.text);
		if (request->progress && rc < 0 && save(&im, request->progress, &second) < 0)
			fprintf(stderr, "%s\n", second.text);
		if (request->progress && rc == 0)
			unlink(request->progress);
	}
	ret->rejected = im.earlier_rejected + rejects_count(&im.rejects);
	ret->rows = im.earlier + atomic_load(&im.written);
	ret->skipped = reading.skipped;
	ret->files = im.input.opened;
	snprintf(ret->errfile, sizeof(ret->errfile), "%s", im.rejects.path);
	if (rejects_close(&im.rejects, rc < 0 ? NULL : error) < 0 && rc == 0)
		rc = -EIO;
	chunks_free(&im);
	input_close(&im.input);
	free(im.bind_field);
	free(im.bind_column);
	free(im.bind_key);
	free(im.pk_bind);
	pthread_mutex_destroy(&im.lock);
	return rc;
}
