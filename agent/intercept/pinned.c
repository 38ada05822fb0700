/* SPDX-License-Identifier: Apache-2.0 */
/* What works on the pins alone, without an agent: the kill switch, and taking everything away. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "intercept/priv.h"

static int pinned_root(const char *pin_root, char ret_root[PATH_MAX], struct error *e)
{
	char mount[PATH_MAX];
	int code;

	if (pin_root) {
		snprintf(ret_root, PATH_MAX, "%s", pin_root);
		return 0;
	}
	code = mount_find("bpf", mount, sizeof(mount));
	if (code)
		return error_set(e, code, "no bpffs is mounted: mount -t bpf bpf /sys/fs/bpf");
	snprintf(ret_root, PATH_MAX, "%.4000s/cqlferry", mount);
	return 0;
}

int intercept_switch_pinned(const char *pin_root, bool on, struct error *e)
{
	struct power power = {.interception = on ? INTERCEPTION_ON : INTERCEPTION_OFF};
	char root[PATH_MAX], path[2 * PATH_MAX];
	uint32_t key = 0;
	int fd, code;

	code = pinned_root(pin_root, root, e);
	if (code)
		return code;
	snprintf(path, sizeof(path), "%s/v%d/power", root, ABI_LAYOUT);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return error_set(e, -errno,
				 errno == ENOENT ? "%s: nothing is pinned there, so nothing is intercepted"
						 : "%s: %s",
				 path, strerror(errno));
	code = bpf_map_update_elem(fd, &key, &power, BPF_ANY)
		   ? error_set(e, -errno, "%s: %s", path, strerror(errno))
		   : 0;
	close(fd);
	return code;
}

int intercept_remove_pinned(const char *pin_root, struct error *e)
{
	char root[PATH_MAX], dir[2 * PATH_MAX];
	struct dirent **names = NULL;
	int count, removed = 0, code;

	code = pinned_root(pin_root, root, e);
	if (code)
		return code;
	count = scandir(root, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		snprintf(dir, sizeof(dir), "%s/%s", root, names[i]->d_name);
		if (names[i]->d_name[0] == 'v') {
			loader_remove_dir(dir);
			removed++;
		}
		free(names[i]);
	}
	free(names);
	rmdir(root);
	return removed ? 0 : error_set(e, -ENOENT, "%s: nothing is pinned there", root);
}
