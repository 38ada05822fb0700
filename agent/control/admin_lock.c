/* SPDX-License-Identifier: Apache-2.0 */
#include "control/admin_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PATH_SIZE 120 /* of a Unix socket, and ".lock" */

/* What the holder wrote; 0 = nothing of use. */
static int read_pid(int fd)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return (int)strtol(text, NULL, 10);
}

int admin_lock_take(const char *socket, int *ret_fd, struct error *error)
{
	char path[PATH_SIZE], text[24] = "";
	int fd, r, n;

	snprintf(path, sizeof(path), "%s.lock", socket);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(error, -errno, "cannot open '%s': %s; set admin.socket to a place that can be written", path,
				 strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
		if (r == -EADDRINUSE)
			error_set(error, r, "another agent is running (pid %d): it holds '%s'; stop it first, let it hand over (cqlferry "
					    "agent --takeover), or give this one another admin.socket", read_pid(fd), path);
		else
			error_set(error, r, "cannot lock '%s': %s", path, strerror(-r));
		close(fd);
		return r;
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
		close(fd);
		return error_set(error, -EIO, "cannot write '%s': %s", path, strerror(errno));
	}
	*ret_fd = fd;
	return 0;
}
