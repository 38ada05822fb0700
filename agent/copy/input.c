// SPDX-License-Identifier: Apache-2.0
#include "copy/input.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK (256u << 10)

/* ------------------------------------------------------------- names */

static int add_path(struct input *in, const char *path)
{
	char **grown = realloc(in->paths, (in->path_count + 1) * sizeof(*grown));
	struct stat st;

	if (!grown)
		return -ENOMEM;
	in->paths = grown;
	grown[in->path_count] = path ? strdup(path) : NULL;
	if (path && !grown[in->path_count])
		return -ENOMEM;
	in->path_count++;
	if (path && stat(path, &st) == 0 && S_ISREG(st.st_mode))
		in->total += (uint64_t)st.st_size;
	return 0;
}

static int add_pattern(struct input *in, const char *pattern, struct error *error)
{
	struct stat st;
	glob_t found;
	int rc = 0;

	if (stat(pattern, &st) == 0 && !S_ISDIR(st.st_mode))
		return add_path(in, pattern);
	if (glob(pattern, GLOB_TILDE, NULL, &found) != 0)
		return error_set(error, -ENOENT, "Can't open '%s' for reading: no matching file found",
				 pattern);
	for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
		rc = add_path(in, found.gl_pathv[i]);
	globfree(&found);
	return rc;
}

int input_open(struct input *in, const char *files, const struct csv_dialect *dialect, bool header,
	       unsigned fields, struct error *error)
{
	char one[PATH_MAX];
	int rc = 0;

	*in = (struct input){.dialect = dialect, .header = header, .fields = fields, .fd = -1};
	if (!files)
		rc = add_path(in, NULL);
	while (files && rc == 0) {
		const char *comma = strchrnul(files, ','), *end = comma;

		while (files < end && *files == ' ')
			files++;
		while (end > files && end[-1] == ' ')
			end--;
		if (end - files >= PATH_MAX) {
			rc = error_set(error, -ENAMETOOLONG, "the name of a file is too long");
			break;
		}
		snprintf(one, sizeof(one), "%.*s", (int)(end - files), files);
		rc = add_pattern(in, one, error);
		files = *comma ? comma + 1 : NULL;
	}
	if (rc == -ENOMEM)
		error_set(error, rc, "out of memory");
	if (rc < 0)
		input_close(in);
	return rc;
}

void input_close(struct input *in)
{
	for (unsigned i = 0; i < in->path_count; i++)
		free(in->paths[i]);
	free(in->paths);
	bytes_done(&in->buffer);
	if (in->fd > STDIN_FILENO)
		close(in->fd);
	*in = (struct input){.fd = -1};
}

/* ------------------------------------------------------------- bytes */

static const char *path_of(const struct input *in, unsigned file)
{
	return in->paths[file] ? in->paths[file] : "standard input";
}

static int begin_file(struct input *in, struct error *error)
{
	const char *path = in->paths[in->mark.file];

	in->fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (in->fd < 0)
		return error_set(error, -errno, "Can't open '%s' for reading: %s", path, strerror(errno));
	in->opened++;
	in->end = false;
	in->at = in->buffer.size = 0;
	in->header_due = in->header;
	return 0;
}

int input_resume(struct input *in, const struct input_mark *mark, struct error *error)
{
	struct stat st;
	int rc;

	if (mark->file >= in->path_count)
		return error_set(
		    error, -EINVAL,
		    "there are fewer files than when the copy was begun; start without --resume");
	in->mark = *mark;
	rc = begin_file(in, error);
	if (rc < 0)
		return rc;
	if (fstat(in->fd, &st) < 0 || (uint64_t)st.st_size < mark->offset ||
	    lseek(in->fd, (off_t)mark->offset, SEEK_SET) < 0)
		return error_set(error, -EINVAL,
				 "'%s' is shorter than when the copy was begun; start without --resume",
				 path_of(in, mark->file));
	in->header_due &= mark->offset == 0;
	in->opened = mark->file + 1;
	return 0;
}

/* More bytes behind those that are there. 1, 0 = the end, −errno. */
static int fill(struct input *in, struct error *error)
{
	uint8_t *room;
	ssize_t n;

	if (in->at) {
		memmove(in->buffer.data, in->buffer.data + in->at, in->buffer.size - in->at);
		in->buffer.size -= in->at;
		in->at = 0;
	}
	room = bytes_room(&in->buffer, BLOCK);
	if (!room)
		return error_set(error, -ENOMEM, "out of memory");
	do
		n = read(in->fd, room, BLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(error, -errno, "cannot read '%s': %s", path_of(in, in->mark.file),
				 strerror(errno));
	in->buffer.size += (size_t)n;
	in->end = n == 0;
	return n > 0;
}

static void take(struct input *in, size_t size, unsigned lines)
{
	in->at += size;
	in->mark.offset += size;
	in->mark.line += lines;
}

/* ------------------------------------------------------------- rows */

static const uint8_t *find_line_end(const uint8_t *data, size_t size)
{
	return memchr(data, '\n', size);
}

/* A line without end within INPUT_ROW_MAX: its beginning is given out, the rest passed over. */
static int cut_line(struct input *in, struct input_row *row, struct bytes *kept, struct error *error)
{
	size_t first = in->buffer.size - in->at < INPUT_CUT ? in->buffer.size - in->at : INPUT_CUT;
	const uint8_t *end;
	int rc = 1;

	bytes_put(kept, in->buffer.data + in->at, first);
	row->wrong = "longer than 8 MiB; its beginning was kept";
	while (rc > 0 && !(end = find_line_end(in->buffer.data + in->at, in->buffer.size - in->at))) {
		take(in, in->buffer.size - in->at, 0);
		rc = fill(in, error);
	}
	if (rc < 0)
		return rc;
	if (rc > 0)
		take(in, (size_t)(end + 1 - in->buffer.data) - in->at, 1);
	/* Back in the buffer, in front of what comes next: a row's bytes always lie there. */
	if (in->at < kept->size) {
		size_t rest = in->buffer.size - in->at;

		if (!bytes_room(&in->buffer, kept->size))
			return error_set(error, -ENOMEM, "out of memory");
		memmove(in->buffer.data + kept->size, in->buffer.data + in->at, rest);
		in->buffer.size = kept->size + rest;
		in->at = kept->size;
	}
	memcpy(in->buffer.data + in->at - kept->size, kept->data, kept->size);
	row->data = span_of(in->buffer.data + in->at - kept->size, kept->size);
	return 1;
}

static const char *judge(const struct input *in, const struct csv_record *r)
{
	if (r->open)
		return "a quote is opened and never closed";
	if (r->lines > 1 && r->loose)
		return "a quote is opened, and closed within another line";
	if (r->lines > 1 && r->fields != in->fields)
		return "a quote is opened and closed in another line, with another number of fields";
	return NULL;
}

/* The next record of this file. 1, 0 = the end of the file, −errno. */
static int next_record(struct input *in, struct input_row *row, struct error *error)
{
	struct csv_record r;
	size_t size;

	for (;;) {
		const uint8_t *data = in->buffer.data + in->at;
		int rc;

		size = in->buffer.size - in->at;
		if (size && csv_scan(in->dialect, data, size, in->end, &r) == CSV_RECORD)
			break;
		if (in->end)
			return 0;
		if (size > INPUT_ROW_MAX) {
			const uint8_t *end = find_line_end(data, size);
			struct bytes kept = {0};

			if (end) {
				r = (struct csv_record){
				    .open = true, .lines = 2, .first_line = (size_t)(end + 1 - data)};
				break;
			}
			rc = cut_line(in, row, &kept, error);
			bytes_done(&kept);
			return rc;
		}
		rc = fill(in, error);
		if (rc < 0)
			return rc;
	}
	row->data = span_of(in->buffer.data + in->at, r.size);
	row->wrong = judge(in, &r);
	if (row->wrong) {
		row->data.size = r.first_line;
		r.lines = 1;
	} else if (r.size > INPUT_ROW_MAX) {
		row->wrong = "longer than 8 MiB";
	}
	take(in, row->data.size, r.lines);
	return 1;
}

static bool is_blank(struct span data)
{
	return data.size == 0 || data.data[0] == '\n' || data.data[0] == '\r';
}

static bool skip_mark(struct input *in, struct error *error, int *ret_rc)
{
	static const uint8_t mark[] = {0xef, 0xbb, 0xbf}; /* byte order mark */

	*ret_rc = 0;
	if (in->mark.offset == 0 && in->buffer.size == 0)
		*ret_rc = fill(in, error);
	if (in->mark.offset == 0 && in->buffer.size - in->at >= 3 &&
	    !memcmp(in->buffer.data + in->at, mark, 3))
		take(in, 3, 0);
	return *ret_rc >= 0;
}

int input_next(struct input *in, struct input_row *ret, struct error *error)
{
	int rc = 0;

	while (in->mark.file < in->path_count) {
		uint64_t line;

		if (in->fd < 0 && (rc = begin_file(in, error)) < 0)
			return rc;
		if (!skip_mark(in, error, &rc))
			return rc;
		line = in->mark.line;
		*ret = (struct input_row){.file = in->mark.file, .line = line + 1};
		rc = next_record(in, ret, error);
		if (rc < 0)
			return rc;
		if (rc == 0 || (!in->paths[in->mark.file] && ret->data.size >= 2 &&
				!memcmp(ret->data.data, "\\.", 2) && ret->data.size <= 4)) {
			if (in->fd > STDIN_FILENO)
				close(in->fd);
			in->fd = -1;
			in->mark = (struct input_mark){.file = in->mark.file + 1, .row = in->mark.row};
			in->at = in->buffer.size = 0;
			continue;
		}
		if (is_blank(ret->data) && !ret->wrong)
			continue;
		if (in->header_due) {
			in->header_due = false;
			continue;
		}
		ret->row = ++in->mark.row;
		return 1;
	}
	return 0;
}
