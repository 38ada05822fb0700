/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where cgroup2 and bpffs are mounted, and which cgroup is which.
 *
 * Never a fixed path: on a hybrid host cgroup2 lies beside the old hierarchies (/sys/fs/cgroup/unified), in a
 * container the host's one may be mounted anywhere, and a program attached through a version-1 path is
 * silently inert. A cgroup's id is the inode of its directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "intercept/priv.h"

/* mountinfo writes blanks and backslashes in paths as \ooo. */
static void mount_unescape(char *text)
{
	char *out = text;

	for (; *text; text++, out++) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*out = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*out = *text;
		}
	}
	*out = 0;
}

int mount_find(const char *type, char *ret_path, size_t size)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!file)
		return -errno;
	while (getline(&line, &room, file) > 0) {
		/* id parent major:minor root mountpoint options … - type source super-options */
		char *dash = strstr(line, " - ");
		char root[PATH_MAX], path[PATH_MAX], kind[64];

		if (!dash || sscanf(dash, " - %63s", kind) != 1 || strcmp(kind, type))
			continue;
		if (sscanf(line, "%*s %*s %*s %4095s %4095s", root, path) != 2)
			continue;
		mount_unescape(path);
		if (strlen(path) >= size)
			continue;
		/* The whole tree is better than a part of it; otherwise the first. */
		if (found && strcmp(root, "/"))
			continue;
		memcpy(ret_path, path, strlen(path) + 1);
		found = true;
		if (!strcmp(root, "/"))
			break;
	}
	free(line);
	fclose(file);
	return found ? 0 : -ENOENT;
}

int cgroup_id(const char *path, uint64_t *ret_id)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	*ret_id = st.st_ino;
	return 0;
}

int cgroup_resolve(const struct intercept *it, const char *path, char ret_path[PATH_MAX], struct error *e)
{
	char joined[2 * PATH_MAX];
	struct statfs fs;

	if (path[0] == '/' && !strncmp(path, it->cgroup_mount, strlen(it->cgroup_mount)))
		snprintf(joined, sizeof(joined), "%s", path);
	else if (path[0] == '/' && !access(path, F_OK))
		snprintf(joined, sizeof(joined), "%s", path);
	else
		snprintf(joined, sizeof(joined), "%s/%s", it->cgroup_mount, path);
	if (!realpath(joined, ret_path)) {
		int code = -errno;

		return error_set(e, code, "cgroup %s: %s; cgroup2 is mounted at %s (see `systemd-cgls`)",
				 joined, strerror(-code), it->cgroup_mount);
	}
	if (statfs(ret_path, &fs))
		return error_set(e, -errno, "cgroup %s: %s", ret_path, strerror(errno));
	if (fs.f_type != CGROUP2_SUPER_MAGIC)
		return error_set(
		    e, -EINVAL,
		    "%s is not on cgroup2 (programs attached there would do nothing): give a path below %s",
		    ret_path, it->cgroup_mount);
	return 0;
}

int cgroup_own(const char *mount, char ret_path[PATH_MAX], struct error *e)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX + 16], joined[2 * PATH_MAX];
	int code = -ENOENT;

	if (!file)
		return error_set(e, -errno, "/proc/self/cgroup: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "0::", 3))
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(joined, sizeof(joined), "%s%s", mount, line + 3);
		code = realpath(joined, ret_path) ? 0 : -errno;
		break;
	}
	fclose(file);
	return code ? error_set(e, code, "the agent's own cgroup is not visible below %s: %s", mount,
				strerror(-code))
		    : 0;
}

bool cgroup_contains(const char *outer, const char *inner)
{
	size_t length = strlen(outer);

	return !strncmp(outer, inner, length) && (inner[length] == '/' || !inner[length]);
}
