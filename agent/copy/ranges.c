// SPDX-License-Identifier: Apache-2.0
/*
 * The ranges of a COPY TO, and its progress file (JSON):
 *
 *   {"copy": "to", "table": …, "columns": …, "options": …,        must be the same when it goes on
 *    "files": 1, "offset": 123, "fileRows": 17, "rows": 17,       where the output stood
 *    "ranges": [{"begin", "end", "paging": hex, "written": n}]}   those that are not done
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "copy/export_priv.h"

#define RANGES_MIN 64 /* enough for all threads to be busy to the end, also with one token */
#define RANGES_MAX (1u << 20)

static char *hex_of(struct span s)
{
	char *text = malloc(2 * s.size + 1);

	for (size_t i = 0; text && i < s.size; i++)
		snprintf(text + 2 * i, 3, "%02x", s.data[i]);
	if (text)
		text[2 * s.size] = 0;
	return text;
}

static bool hex_into(const char *hex, struct bytes *to)
{
	for (; *hex; hex += 2) {
		unsigned v;

		if (sscanf(hex, "%2x", &v) != 1 || !hex[1])
			return false;
		bytes_u8(to, (uint8_t)v);
	}
	return !to->failed;
}

/* What makes two runs the same: columns, and the options that decide what stands in the file. */
static json_t *identity(const struct plan *p)
{
	json_t *columns = json_array();
	const struct copy_options *o = p->options;

	for (unsigned i = 0; i < p->column_count; i++)
		json_array_append_new(columns, json_string(p->columns[i]));
	return json_pack("{s:s, s:s, s:s, s:o, s:[s,s,s,s,s,s,s,s,s,s], s:[b,I,I,I]}", "copy", "to",
			 "keyspace", p->keyspace, "table", p->table, "columns", columns, "texts",
			 o->delimiter, o->quote, o->escape, o->null, o->datetimeformat, o->boolstyle,
			 o->decimalsep, o->thousandssep, o->begintoken, o->endtoken, "numbers", o->header,
			 (json_int_t)o->floatprecision, (json_int_t)o->doubleprecision,
			 (json_int_t)o->maxoutputsize);
}

static int from_ring(struct export *e, struct error *error)
{
	const struct plan *p = e->plan;
	const struct copy_options *o = p->options;
	struct token_range whole = {.begin = INT64_MIN, .end = INT64_MAX}, *ranges = &whole;
	unsigned count = 1;

	if (p->cluster.ring.hashed) {
		ranges = ring_ranges(&p->cluster.ring, RANGES_MIN, o->has_begin ? &o->begin : NULL,
				     o->has_end ? &o->end : NULL, &count);
		if (!ranges)
			return error_set(error, -ENOMEM, "out of memory");
	} else if (o->has_begin || o->has_end) {
		return error_set(error, -ENOTSUP,
				 "BEGINTOKEN and ENDTOKEN need a cluster with Murmur3Partitioner");
	}
	if (count == 0)
		return error_set(error, -EINVAL,
				 "Found no ranges to query, check begin and end tokens: %s - %s",
				 o->begintoken, o->endtoken);
	e->ranges = calloc(count, sizeof(*e->ranges));
	for (unsigned i = 0; e->ranges && i < count; i++)
		e->ranges[i].range = ranges[i];
	e->range_count = count;
	if (ranges != &whole)
		free(ranges);
	return e->ranges ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static int take_range(struct export *e, json_t *item, struct range_state *ret)
{
	json_int_t begin, end, written;
	const char *paging;

	if (json_unpack(item, "{s:I, s:I, s:s, s:I}", "begin", &begin, "end", &end, "paging", &paging,
			"written", &written) < 0 ||
	    written < 0)
		return -EINVAL;
	ret->range = (struct token_range){.begin = begin, .end = end};
	if (e->plan->cluster.ring.token_count)
		ret->range.place = ring_find(&e->plan->cluster.ring, end);
	ret->written = (uint64_t)written;
	return hex_into(paging, &ret->paging) ? 0 : -EINVAL;
}

static int from_file(struct export *e, const struct export_request *request, struct error *error)
{
	json_error_t where;
	json_t *root = json_load_file(request->progress, 0, &where), *same = identity(e->plan), *key,
	       *ranges = NULL;
	json_int_t files, offset, file_rows, rows;
	const char *name;
	int rc = 0;

	if (!root) {
		rc = error_set(error, -ENOENT, "there is nothing to resume: %s: %s", request->progress,
			       where.text);
		goto out;
	}
	json_object_foreach(same, name, key) if (!json_equal(key, json_object_get(root, name)))
	{
		rc = error_set(error, -EINVAL, "%s belongs to another copy: its \"%s\" differ",
			       request->progress, name);
		goto out;
	}
	if (json_unpack(root, "{s:I, s:I, s:I, s:I, s:o}", "files", &files, "offset", &offset, "fileRows",
			&file_rows, "rows", &rows, "ranges", &ranges) < 0 ||
	    files < 1 || offset < 0 || file_rows < 0 || rows < 0 || !json_is_array(ranges) ||
	    json_array_size(ranges) > RANGES_MAX) {
		rc = error_set(error, -EINVAL, "%s is damaged; start without --resume", request->progress);
		goto out;
	}
	e->range_count = (unsigned)json_array_size(ranges);
	e->ranges = calloc(e->range_count ? e->range_count : 1, sizeof(*e->ranges));
	if (!e->ranges) {
		rc = error_set(error, -ENOMEM, "out of memory");
		goto out;
	}
	for (unsigned i = 0; i < e->range_count && rc == 0; i++)
		if (take_range(e, json_array_get(ranges, i), &e->ranges[i]) < 0)
			rc = error_set(error, -EINVAL, "%s is damaged; start without --resume",
				       request->progress);
	if (rc == 0)
		rc = output_resume(&e->output, request->file, e->plan->options->maxoutputsize,
				   (unsigned)files, (uint64_t)offset, (uint64_t)file_rows, error);
	if (rc == 0)
		atomic_store(&e->plan->progress.rows, (uint64_t)rows);
out:
	json_decref(same);
	json_decref(root);
	return rc;
}

/* A step through all ranges that visits each once and neighbours far apart, so that threads meet on different
 * nodes. */
static unsigned stride_for(unsigned count)
{
	unsigned stride = (unsigned)((uint64_t)count * 618 / 1000) | 1, a, b, rest;

	for (;; stride += 2) {
		for (a = stride, b = count; b; a = b, b = rest)
			rest = a % b;
		if (a <= 1)
			return stride;
	}
}

int ranges_make(struct export *e, const struct export_request *request, struct error *error)
{
	int rc = request->resume ? from_file(e, request, error) : from_ring(e, error);

	if (rc == 0)
		e->stride = stride_for(e->range_count ? e->range_count : 1);
	return rc;
}

void ranges_done(struct export *e)
{
	for (unsigned i = 0; e->ranges && i < e->range_count; i++)
		bytes_done(&e->ranges[i].paging);
	free(e->ranges);
	e->ranges = NULL;
}

/* Under the lock, so that ranges and output belong together. *ret_fd: the output's file, a descriptor of the
 * caller's own, since a thread that begins the next file closes this one; −1 = there is none. */
static json_t *snapshot(struct export *e, int *ret_fd)
{
	json_t *root = identity(e->plan), *ranges = json_array();

	pthread_mutex_lock(&e->lock);
	*ret_fd = fcntl(e->output.fd, F_DUPFD_CLOEXEC, 0);
	for (unsigned i = 0; i < e->range_count; i++) {
		const struct range_state *r = &e->ranges[i];
		char *paging;

		if (r->done)
			continue;
		paging = hex_of(bytes_span(&r->paging));
		json_array_append_new(ranges,
				      json_pack("{s:I, s:I, s:s, s:I}", "begin", (json_int_t)r->range.begin,
						"end", (json_int_t)r->range.end, "paging",
						paging ? paging : "", "written", (json_int_t)r->written));
		free(paging);
	}
	json_object_set_new(root, "files", json_integer((json_int_t)e->output.files));
	json_object_set_new(root, "offset", json_integer((json_int_t)e->output.offset));
	json_object_set_new(root, "fileRows", json_integer((json_int_t)e->output.file_rows));
	json_object_set_new(root, "rows", json_integer((json_int_t)atomic_load(&e->plan->progress.rows)));
	pthread_mutex_unlock(&e->lock);
	json_object_set_new(root, "ranges", ranges);
	return root;
}

int ranges_save(struct export *e, const char *path, struct error *error)
{
	char beside[PATH_MAX];
	int fd, output, rc = 0;
	json_t *root = snapshot(e, &output);

	snprintf(beside, sizeof(beside), "%s.new", path);
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	/* What the file says about the output has to be true after a power failure as well. (A pipe cannot be
	 * synced.) */
	if (fd < 0 || json_dumpfd(root, fd, JSON_COMPACT) < 0 ||
	    (output >= 0 && fdatasync(output) < 0 && errno != EINVAL) || fdatasync(fd) < 0 ||
	    rename(beside, path) < 0)
		rc = error_set(error, errno ? -errno : -EIO, "cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (output >= 0)
		close(output);
	json_decref(root);
	return rc;
}
