// SPDX-License-Identifier: Apache-2.0
#include "copy/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The name of the file with that number: FILE, FILE.1, … */
static const char *file_name(const struct output *o, unsigned number, char name[PATH_MAX])
{
	if (number == 0)
		snprintf(name, PATH_MAX, "%s", o->path);
	else
		snprintf(name, PATH_MAX, "%s.%u", o->path, number);
	return name;
}

static int write_all(struct output *o, struct span data, struct error *error)
{
	while (data.size) {
		ssize_t n = write(o->fd, data.data, data.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(error, -errno, "cannot write %s: %s",
					 o->path ? o->path : "to standard output", strerror(errno));
		data = span_of(data.data + n, data.size - (size_t)n);
		o->offset += (uint64_t)n;
	}
	return 0;
}

static int begin_file(struct output *o, struct error *error)
{
	char name[PATH_MAX];

	if (!o->path) {
		o->fd = STDOUT_FILENO;
	} else {
		o->fd = open(file_name(o, o->files, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (o->fd < 0)
			return error_set(error, -errno, "Can't open '%s' for writing: %s", name,
					 strerror(errno));
	}
	o->files++;
	o->offset = o->file_rows = 0;
	return 0;
}

int output_open(struct output *o, const char *path, int64_t max_rows, struct bytes header,
		struct error *error)
{
	int rc;

	*o = (struct output){.path = path, .fd = -1, .max_rows = path ? max_rows : -1, .header = header};
	rc = begin_file(o, error);
	if (rc == 0)
		rc = write_all(o, bytes_span(&o->header), error);
	if (rc < 0)
		output_close(o, NULL); /* without its header it is nothing to go on with */
	return rc;
}

int output_resume(struct output *o, const char *path, int64_t max_rows, unsigned files, uint64_t offset,
		  uint64_t file_rows, struct error *error)
{
	char name[PATH_MAX];
	struct stat st;

	*o = (struct output){.path = path,
			     .fd = -1,
			     .max_rows = max_rows,
			     .files = files,
			     .offset = offset,
			     .file_rows = file_rows};
	if (files == 0)
		return error_set(error, -EINVAL,
				 "the progress file names no output file; start without --resume");
	file_name(o, files - 1, name);
	o->fd = open(name, O_WRONLY | O_CLOEXEC);
	if (o->fd < 0)
		return error_set(error, -errno, "Can't open '%s' to go on with it: %s", name,
				 strerror(errno));
	if (fstat(o->fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < offset)
		return error_set(error, -EINVAL,
				 "'%s' is shorter than the progress file says; start without --resume", name);
	if (ftruncate(o->fd, (off_t)offset) < 0 || lseek(o->fd, (off_t)offset, SEEK_SET) < 0)
		return error_set(error, -errno, "cannot cut '%s': %s", name, strerror(errno));
	return 0;
}

/* The size of so many rows at the beginning of the data; *rows is lowered when there are fewer. */
static size_t rows_size(struct span data, uint64_t *rows)
{
	size_t at = 0;
	uint64_t n = 0;

	while (n < *rows && at < data.size) {
		const uint8_t *end = memmem(data.data + at, data.size - at, "\r\n", 2);

		at = end ? (size_t)(end + 2 - data.data) : data.size;
		n++;
	}
	*rows = n;
	return at;
}

int output_write(struct output *o, struct span data, uint64_t rows, struct error *error)
{
	const struct output before = *o;
	int rc = 0;

	if (o->broken)
		return error_set(error, o->broken, "cannot write behind a write that failed");
	while (rc == 0 && o->max_rows > 0 && o->file_rows + rows > (uint64_t)o->max_rows) {
		uint64_t part = (uint64_t)o->max_rows - o->file_rows;
		size_t size = rows_size(data, &part);

		rc = write_all(o, span_of(data.data, size), error);
		data = span_of(data.data + size, data.size - size);
		rows -= part;
		if (rc == 0 && (rc = output_close(o, error)) == 0)
			rc = begin_file(o, error);
	}
	if (rc == 0)
		rc = write_all(o, data, error);
	o->file_rows += rows;
	if (rc < 0) {
		o->files = before.files;
		o->offset = before.offset;
		o->file_rows = before.file_rows;
		o->broken = rc;
	}
	return rc;
}

int output_close(struct output *o, struct error *error)
{
	int fd = o->fd;

	bytes_done(&o->header);
	o->fd = -1;
	if (fd < 0 || !o->path)
		return 0;
	if (close(fd) < 0 && errno != EINTR)
		return error_set(error, -errno, "cannot write %s: %s", o->path, strerror(errno));
	return 0;
}
