/* SPDX-License-Identifier: Apache-2.0 */
#include "control/journal_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void copy_file(struct journal_found *f, int fd)
{
	struct stat st;
	uint8_t *bytes;
	size_t have = 0;
	ssize_t n = 0;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		error_set(&f->error, 0, "it is not a regular file");
		return;
	}
	f->size = (uint64_t)st.st_size;
	if (f->size > JOURNAL_FILE_READ_MAX) {
		error_set(&f->error, 0, "it has %llu bytes, more than any journal file", (unsigned long long)f->size);
		return;
	}
	bytes = malloc(f->size ? f->size : 1);
	if (!bytes) {
		error_set(&f->error, 0, "out of memory for its %llu bytes", (unsigned long long)f->size);
		return;
	}
	while (have < f->size && (n = pread(fd, bytes + have, f->size - have, (off_t)have)) > 0)
		have += (size_t)n;
	if (n < 0) {
		error_set(&f->error, 0, "it cannot be read: %s", strerror(errno));
		free(bytes);
		return;
	}
	f->bytes = span_of(bytes, have);
}

/* False: it is not there any more. */
static bool load(struct journal_found *f)
{
	/* O_NONBLOCK: a pipe by that name must not keep us waiting. */
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	f->bytes = span_of(NULL, 0);
	f->size = 0;
	f->error.text[0] = 0;
	if (fd < 0) {
		error_set(&f->error, 0, "it cannot be opened: %s", strerror(errno));
		return errno != ENOENT;
	}
	copy_file(f, fd);
	close(fd);
	return true;
}

void journal_found_again(struct journal_found *f)
{
	free((void *)f->bytes.data);
	load(f);
}

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n > m && strcmp(name + n - m, end) == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* The files of one directory whose names end so. 1; 0: the callback has had enough; −errno: the directory cannot be read. */
static int walk(const char *directory, const char *end, struct journal_found *f, bool (*each)(void *context, struct journal_found *f),
		void *context, struct error *error)
{
	struct dirent **list = NULL;
	int count = scandir(directory, &list, NULL, by_name);
	bool more = true;

	if (count < 0 && errno != ENOENT)
		return error_set(error, -errno, "cannot read %s: %s", directory, strerror(errno));
	for (int i = 0; i < count; i++) {
		if (more && ends_with(list[i]->d_name, end)) {
			snprintf(f->name, sizeof(f->name), "%s", list[i]->d_name);
			if (snprintf(f->path, sizeof(f->path), "%s/%s", directory, f->name) < (int)sizeof(f->path) && load(f)) {
				more = each(context, f);
				free((void *)f->bytes.data);
			}
		}
		free(list[i]);
	}
	free(list);
	return more;
}

/*
 * Whether somebody holds the file's lock, from the kernel's table: trying to take it could make an agent that starts just now believe that
 * the life is still alive, and leave its writes where they are.
 */
static bool is_locked(const char *path)
{
	FILE *table = fopen("/proc/locks", "re");
	char line[256];
	struct stat st;
	bool locked = false;

	if (table && stat(path, &st) == 0) {
		while (!locked && fgets(line, sizeof(line), table)) {
			unsigned long long inode;
			unsigned major, minor;

			/* The device's numbers are not what stat() says on every file system. */
			locked = strstr(line, "FLOCK") && sscanf(line, "%*s %*s %*s %*s %*s %x:%x:%llu", &major, &minor, &inode) == 3 &&
				 inode == st.st_ino;
		}
	}
	if (table)
		fclose(table);
	return locked;
}

int journal_files_each(const char *state, bool (*each)(void *context, struct journal_found *f), void *context, struct error *error)
{
	struct journal_found *f = calloc(1, sizeof(*f));
	struct dirent **list = NULL;
	char root[3000], life[3400], lock[3500];
	int count, r = 1;

	if (!f)
		return error_set(error, -ENOMEM, "out of memory");
	snprintf(root, sizeof(root), "%s/journal", state);
	count = scandir(root, &list, NULL, by_name);
	if (count < 0) {
		free(f);
		return error_set(error, -errno, "there is no journal in %s: %s. Name the agent's state.directory with --state", state,
				 strerror(errno));
	}
	for (int i = 0; i < count; i++) {
		const char *name = list[i]->d_name;

		if (r > 0 && name[0] != '.' && strlen(name) < sizeof(f->life) && !ends_with(name, ".damaged")) {
			snprintf(life, sizeof(life), "%s/%s", root, name);
			snprintf(lock, sizeof(lock), "%s/lock", life);
			snprintf(f->life, sizeof(f->life), "%s", name);
			f->running = is_locked(lock);
			r = walk(life, ".journal", f, each, context, error);
			r = r == -ENOTDIR ? 1 : r; /* not an agent's life */
		}
		free(list[i]);
	}
	free(list);
	f->life[0] = 0;
	f->running = false;
	f->aside = true;
	if (r > 0)
		r = walk(root, ".damaged", f, each, context, error);
	free(f);
	return r < 0 ? r : 0;
}

int dead_files_each(const char *state, bool (*each)(void *context, struct journal_found *f), void *context, struct error *error)
{
	struct journal_found *f = calloc(1, sizeof(*f));
	char directory[3000];
	int r;

	if (!f)
		return error_set(error, -ENOMEM, "out of memory");
	if (access(state, R_OK) < 0) {
		free(f);
		return error_set(error, -errno, "cannot read %s: %s. Name the agent's state.directory with --state", state, strerror(errno));
	}
	snprintf(directory, sizeof(directory), "%s/dead", state);
	r = walk(directory, ".journal", f, each, context, error);
	free(f);
	return r < 0 ? r : 0;
}
