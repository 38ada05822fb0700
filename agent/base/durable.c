/* SPDX-License-Identifier: Apache-2.0 */
#include "base/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int durable_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}
