/* SPDX-License-Identifier: Apache-2.0 */
/* See started.h. Written beside and renamed, so that a crash leaves the old record or the new one. */
#include "migrate/started.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/durable.h"

#define STARTED_VERSION 1

int started_load(const char *directory, struct error *error)
{
	char path[PATH_MAX];
	json_error_t why;
	json_t *root;
	json_int_t version;

	if (!directory[0])
		return 0;
	snprintf(path, sizeof(path), "%s/migration.json", directory);
	if (access(path, F_OK) < 0)
		return errno == ENOENT
			   ? 0
			   : error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
	root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return error_set(error, -EINVAL,
				 "%s:%d: %s. Remove it to wait for another Start of the migration service",
				 path, why.line, why.text);
	version = json_integer_value(json_object_get(root, "version"));
	json_decref(root);
	if (version != STARTED_VERSION)
		return error_set(error, -EINVAL,
				 "%s was written by another version of cqlferry. Remove it to wait for "
				 "another Start of the migration "
				 "service",
				 path);
	return 1;
}

static int write_synced(const char *path, const char *text)
{
	size_t size = strlen(text);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, size);
	if (n < 0 || fsync(fd) < 0)
		r = -errno;
	else if ((size_t)n < size)
		r = -ENOSPC;
	close(fd);
	return r;
}

int started_save(const char *directory, const char *id, struct error *error)
{
	char path[PATH_MAX], temporary[PATH_MAX + 8], when[32];
	time_t now = time(NULL);
	struct tm tm;
	json_t *root;
	char *text;
	int r;

	if (!directory[0])
		return 0;
	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make the state directory %s: %s", directory,
				 strerror(errno));
	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	root = json_pack("{s:i, s:s, s:s}", "version", STARTED_VERSION, "started", when, "id", id);
	text = root ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
	json_decref(root);
	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	snprintf(path, sizeof(path), "%s/migration.json", directory);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	r = write_synced(temporary, text);
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r == 0)
		r = durable_directory(directory);
	free(text);
	return r < 0
		   ? error_set(error, r, "cannot write %s: %s. Free space or choose another state.directory",
			       path, strerror(-r))
		   : 0;
}

void started_remove(const char *directory)
{
	char path[PATH_MAX];

	if (!directory[0])
		return;
	snprintf(path, sizeof(path), "%s/migration.json", directory);
	unlink(path);
}
