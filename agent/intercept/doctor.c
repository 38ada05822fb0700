/* SPDX-License-Identifier: Apache-2.0 */
/* What `cqlferry doctor` says about interception: each thing that it needs, found or not, and what to do.
 * Changes nothing that stays. */
#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "intercept/priv.h"

static enum intercept_grade worse(enum intercept_grade a, enum intercept_grade b)
{
	return a > b ? a : b;
}

static enum intercept_grade doctor_cgroup(const struct intercept *it, const char *path,
					  feature_finding *finding, void *opaque)
{
	enum intercept_grade worst = INTERCEPT_FINE;
	char resolved[PATH_MAX], what[512];
	struct error e;

	if (cgroup_resolve(it, path, resolved, &e)) {
		finding(opaque, INTERCEPT_BROKEN, e.text, "correct intercept.cgroups");
		return INTERCEPT_BROKEN;
	}
	for (int hook = 0; hook < HOOK_COUNT; hook++) {
		if (!feature_conflict(resolved, hook, &e))
			continue;
		finding(opaque, INTERCEPT_BROKEN, e.text, "see there");
		worst = INTERCEPT_BROKEN;
	}
	snprintf(what, sizeof(what), "cgroup %.400s can be steered", resolved);
	if (worst == INTERCEPT_FINE)
		finding(opaque, INTERCEPT_FINE, what, "");
	return worst;
}

enum intercept_grade intercept_doctor(const struct intercept_options *options, feature_finding *finding,
				      void *opaque)
{
	enum intercept_grade worst = feature_report(finding, opaque);
	char own[PATH_MAX], root[PATH_MAX - 16], path[PATH_MAX];
	static struct intercept it; /* only the mount is used; too large for a stack */
	struct settings settings = {0};
	struct power power = {0};
	uint32_t key = 0;
	uint64_t id;
	int fd;

	if (mount_find("cgroup2", it.cgroup_mount, sizeof(it.cgroup_mount)))
		return worst;
	for (size_t i = 0; i < options->cgroup_count; i++)
		worst = worse(worst, doctor_cgroup(&it, options->cgroups[i], finding, opaque));
	if (!options->agent_cgroup && !cgroup_own(it.cgroup_mount, own, NULL) && !cgroup_id(own, &id) &&
	    id == 1) {
		finding(opaque, INTERCEPT_NOTE,
			"the agent would run in the root cgroup: no acceleration, and its death is noticed "
			"only when its heartbeat runs out",
			"start it in a cgroup of its own (systemd unit, container, or mkdir and write to "
			"cgroup.procs)");
		worst = worse(worst, INTERCEPT_NOTE);
	}

	if (options->pin_root)
		snprintf(root, sizeof(root), "%s", options->pin_root);
	else if (mount_find("bpf", root, sizeof(root) - 16))
		return worst;
	else
		strncat(root, "/cqlferry", 16);
	snprintf(path, sizeof(path), "%.4000s/v%d/settings", root, ABI_LAYOUT);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return worst;
	bpf_map_lookup_elem(fd, &key, &settings);
	close(fd);
	snprintf(own, sizeof(own), "an agent (process %u) has pinned its programs below %.3000s",
		 settings.agent_pid, root);
	finding(opaque, INTERCEPT_FINE, own, "");
	snprintf(path, sizeof(path), "%.4000s/v%d/power", root, ABI_LAYOUT);
	fd = bpf_obj_get(path);
	if (fd >= 0) {
		bpf_map_lookup_elem(fd, &key, &power);
		close(fd);
		if (power.interception == INTERCEPTION_OFF) {
			finding(opaque, INTERCEPT_NOTE, "the kill switch is off: nothing is intercepted",
				"cqlferry on");
			worst = worse(worst, INTERCEPT_NOTE);
		}
	}
	return worst;
}
