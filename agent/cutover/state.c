/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/state.h"

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

#define STATE_VERSION 1

int state_load(const char *directory, enum phase *ret, int64_t *ret_high_water, struct error *error)
{
	char path[PATH_MAX];
	json_error_t why;
	json_t *root;
	const char *name;
	int version = 0, phase;

	if (!directory[0])
		return 0;
	snprintf(path, sizeof(path), "%s/phase.json", directory);
	if (access(path, F_OK) < 0)
		return errno == ENOENT ? 0 : error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
	root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return error_set(error, -EINVAL, "%s:%d: %s. Correct it, or remove it only if you are sure of phase.initial",
				 path, why.line, why.text);
	if (json_unpack(root, "{s:i, s:s}", "version", &version, "phase", &name) < 0 || version != STATE_VERSION ||
	    (phase = phase_from_name(name)) < 0) {
		json_decref(root);
		return error_set(error, -EINVAL, "%s: no state of version %d with a known phase. It was written by another "
						 "version of cqlferry, or edited: correct \"version\" and \"phase\"",
				 path, STATE_VERSION);
	}
	*ret = (enum phase)phase;
	*ret_high_water = json_integer_value(json_object_get(root, "timestampHighWater"));
	json_decref(root);
	return 1;
}

int state_save(const char *directory, enum phase phase, const char *by, int64_t high_water, struct error *error)
{
	char path[PATH_MAX], temporary[PATH_MAX + 8], when[32];
	time_t now = time(NULL);
	struct tm tm;
	json_t *root;
	char *text;
	int fd, r = 0;

	if (!directory[0])
		return 0;
	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make the state directory %s: %s", directory, strerror(errno));
	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	root = json_pack("{s:i, s:s, s:s, s:s, s:I}", "version", STATE_VERSION, "phase", phase_name(phase), "changed", when, "by",
			 by, "timestampHighWater", (json_int_t)high_water);
	text = root ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
	json_decref(root);
	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	snprintf(path, sizeof(path), "%s/phase.json", directory);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0)
		r = errno ? -errno : -EIO;
	if (fd >= 0)
		close(fd);
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	/* The rename must be on disk before anybody acts on the new phase. */
	if (r == 0)
		r = durable_directory(directory);
	free(text);
	return r < 0 ? error_set(error, r, "cannot write %s: %s. Free space or choose another state.directory", path, strerror(-r)) : 0;
}
