/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel, the mounts or our privileges lack, in words that say what to do.
 *
 * The verifier's "Operation not permitted" has a dozen causes. The list below is walked only when something
 * failed, or by `cqlferry doctor`; each row is tested by asking the kernel, never by its version number.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "intercept/priv.h"

static uint64_t capabilities(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long caps = 0;
	char line[256];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &caps) == 1)
			break;
	fclose(file);
	return caps;
}

static bool capable(uint64_t caps, int capability)
{
	return (caps >> capability & 1) || (caps >> CAP_SYS_ADMIN & 1);
}

static const struct {
	int capability;
	const char *name, *why;
} privileges[] = {
    {CAP_BPF, "CAP_BPF", "loading programs and creating maps"},
    {CAP_NET_ADMIN, "CAP_NET_ADMIN", "cgroup socket programs, sockhash maps and SO_MARK"},
    {CAP_PERFMON, "CAP_PERFMON", "reading the state of a client's socket before a byte is redirected"},
};

static const struct {
	enum bpf_prog_type type;
	const char *what, *since;
} programs[] = {
    {BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "cgroup connect and getpeername hooks (CONFIG_CGROUP_BPF)", "5.8"},
    {BPF_PROG_TYPE_SOCK_OPS, "sockops programs (CONFIG_CGROUP_BPF)", "4.13"},
    {BPF_PROG_TYPE_SK_MSG, "sk_msg programs (CONFIG_BPF_STREAM_PARSER or CONFIG_NET_SOCK_MSG)", "4.18"},
};

static const struct {
	enum bpf_map_type type;
	const char *what, *since;
} maps[] = {
    {BPF_MAP_TYPE_SK_STORAGE, "storage on sockets (sk_storage)", "5.2"},
    {BPF_MAP_TYPE_SOCKHASH, "sockhash maps (CONFIG_BPF_STREAM_PARSER or CONFIG_NET_SOCK_MSG)", "4.18"},
    {BPF_MAP_TYPE_RINGBUF, "ring buffers", "5.8"},
    {BPF_MAP_TYPE_LPM_TRIE, "longest-prefix tries", "4.11"},
};

static const struct {
	enum bpf_prog_type type;
	enum bpf_func_id helper;
	const char *what, *since;
} helpers[] = {
    {BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_sk_storage_get, "socket storage in connect hooks", "5.8"},
    {BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_get_netns_cookie, "netns cookies in connect hooks", "5.7"},
    {BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, "netns cookies in sockops", "5.15"},
    {BPF_PROG_TYPE_SK_MSG, BPF_FUNC_sk_storage_get, "socket storage in sk_msg", "5.8"},
    {BPF_PROG_TYPE_SK_MSG, BPF_FUNC_skc_to_tcp_sock, "a socket's TCP state in sk_msg", "5.10"},
};

enum intercept_grade feature_report(feature_finding *finding, void *opaque)
{
	enum intercept_grade worst = INTERCEPT_FINE;
	uint64_t caps = capabilities();
	char what[256], remedy[256], path[PATH_MAX];

#define REPORT(ok, bad_grade)                                                     \
	do {                                                                      \
		enum intercept_grade grade = (ok) ? INTERCEPT_FINE : (bad_grade); \
		finding(opaque, grade, what, (ok) ? "" : remedy);                 \
		if (grade > worst)                                                \
			worst = grade;                                            \
	} while (0)

	for (size_t i = 0; i < sizeof(privileges) / sizeof(*privileges); i++) {
		bool ok = capable(caps, privileges[i].capability);

		snprintf(what, sizeof(what), "privilege %s%s: %s", privileges[i].name,
			 ok ? "" : " is missing", privileges[i].why);
		snprintf(remedy, sizeof(remedy),
			 "run as root, or give the process %s (container: securityContext.capabilities.add)",
			 privileges[i].name);
		REPORT(ok, INTERCEPT_BROKEN);
	}

	bool btf = !access("/sys/kernel/btf/vmlinux", R_OK);
	snprintf(what, sizeof(what), "kernel type information (/sys/kernel/btf/vmlinux)%s",
		 btf ? "" : " is missing");
	snprintf(remedy, sizeof(remedy), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount /sys");
	REPORT(btf, INTERCEPT_BROKEN);

	bool cgroup2 = !mount_find("cgroup2", path, sizeof(path));
	snprintf(what, sizeof(what), "cgroup2 %s%.200s", cgroup2 ? "mounted at " : "is not mounted",
		 cgroup2 ? path : "");
	snprintf(
	    remedy, sizeof(remedy),
	    "mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; in a container, mount the host's");
	REPORT(cgroup2, INTERCEPT_BROKEN);

	bool bpffs = !mount_find("bpf", path, sizeof(path));
	snprintf(what, sizeof(what), "bpffs %s%.200s", bpffs ? "mounted at " : "is not mounted",
		 bpffs ? path : "");
	snprintf(
	    remedy, sizeof(remedy),
	    "mount it: mount -t bpf bpf /sys/fs/bpf; in a container, mount the host's with mountPropagation");
	REPORT(bpffs, INTERCEPT_BROKEN);

	if (!capable(caps, CAP_BPF))
		return worst; /* every probe below would fail for that reason alone */
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++) {
		bool ok = libbpf_probe_bpf_prog_type(programs[i].type, NULL) == 1;

		snprintf(what, sizeof(what), "kernel feature%s: %s", ok ? "" : " missing", programs[i].what);
		snprintf(remedy, sizeof(remedy), "needs Linux %s or later with that option",
			 programs[i].since);
		REPORT(ok, INTERCEPT_BROKEN);
	}
	for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++) {
		bool ok = libbpf_probe_bpf_map_type(maps[i].type, NULL) == 1;

		snprintf(what, sizeof(what), "kernel feature%s: %s", ok ? "" : " missing", maps[i].what);
		snprintf(remedy, sizeof(remedy), "needs Linux %s or later with that option", maps[i].since);
		REPORT(ok, INTERCEPT_BROKEN);
	}
	for (size_t i = 0; i < sizeof(helpers) / sizeof(*helpers); i++) {
		/* −EOPNOTSUPP: this libbpf cannot ask; the load itself will tell. */
		int answer = libbpf_probe_bpf_helper(helpers[i].type, helpers[i].helper, NULL);

		snprintf(what, sizeof(what), "kernel feature%s: %s", answer ? "" : " missing",
			 helpers[i].what);
		snprintf(remedy, sizeof(remedy), "needs Linux %s or later", helpers[i].since);
		REPORT(answer != 0, INTERCEPT_BROKEN);
	}
#undef REPORT
	return worst;
}

struct missing {
	char text[400];
	int count;
};

static void missing_add(void *opaque, enum intercept_grade grade, const char *what, const char *remedy)
{
	struct missing *m = opaque;
	size_t used = strlen(m->text);

	if (grade != INTERCEPT_BROKEN || m->count++ >= 2 || used >= sizeof(m->text))
		return;
	snprintf(m->text + used, sizeof(m->text) - used, "%s%s; %s", used ? ". " : "", what, remedy);
}

static bool line_says_nothing(const char *line)
{
	static const char *const frames[] = {"failed to load BPF skeleton", "failed to load object",
					     ": failed to load: ", "PROG LOAD LOG", "processed "};

	for (size_t i = 0; i < sizeof(frames) / sizeof(*frames); i++)
		if (strstr(line, frames[i]))
			return true;
	return !*line;
}

/* The last line that is not only the frame around another: it names the fault, be it libbpf's or the
 * verifier's. */
static void telling_line(const char *text, char *line, size_t size)
{
	const char *end = text + strlen(text), *start;

	line[0] = 0;
	for (; end > text; end = start - 1) {
		for (start = end; start > text && start[-1] != '\n'; start--)
			;
		snprintf(line, size, "%.*s", (int)(end - start), start);
		if (!line_says_nothing(line) || start == text)
			return;
	}
}

int feature_explain(int code, const char *what, struct error *e)
{
	struct missing m = {0};
	const char *messages = loader_messages();
	bool foreign = strstr(messages, "reuse pinned map");
	char said[200];

	telling_line(messages, said, sizeof(said)); /* before the probes below add theirs */
	feature_report(missing_add, &m);
	if (m.count)
		return error_set(e, code == -EPERM ? -EPERM : -EOPNOTSUPP, "%s failed: %s", what, m.text);
	if (foreign)
		return error_set(e, code,
				 "%s failed: the pinned maps are of another build (%s); remove them with "
				 "`cqlferry off --remove`",
				 what, said);
	if (code == -E2BIG)
		return error_set(e, code,
				 "%s failed: 64 programs are attached to this hook already; `bpftool cgroup "
				 "show` names them",
				 what);
	return error_set(e, code, "%s failed: %s%s%s", what, strerror(-code),
			 said[0] ? "; the kernel said: " : "", said);
}

int feature_conflict(const char *cgroup_path, enum hook hook, struct error *e)
{
	char path[PATH_MAX], mount[PATH_MAX];
	__u32 ids[64], count, flags;

	if (mount_find("cgroup2", mount, sizeof(mount)))
		return 0;
	snprintf(path, sizeof(path), "%s", cgroup_path);
	/* An exclusive attachment excludes its whole subtree: look upwards as well. */
	while (cgroup_contains(mount, path)) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info);
		int program, queried;

		count = sizeof(ids) / sizeof(*ids);
		queried = fd < 0 ? -1 : bpf_prog_query(fd, hook_attach_type(hook), 0, &flags, ids, &count);
		if (fd >= 0)
			close(fd);
		if (!queried && count && !(flags & BPF_F_ALLOW_MULTI)) {
			program = bpf_prog_get_fd_by_id(ids[0]);
			if (program >= 0) {
				bpf_obj_get_info_by_fd(program, &info, &size);
				close(program);
			}
			return error_set(e, -EEXIST,
					 "%s on cgroup %s is held exclusively by another program (id %u, "
					 "name \"%s\") on %s: it was attached "
					 "without \"multi\". Attach it with multi (bpftool cgroup attach … "
					 "multi), or select cgroups that it does "
					 "not cover",
					 hook_name(hook), cgroup_path, ids[0], info.name, path);
		}
		if (!strcmp(path, mount) || !strrchr(path, '/'))
			break;
		*strrchr(path, '/') = 0;
	}
	return 0;
}

/* Is this connect4 program one of those that are pinned below `root`, whatever their layout? */
static bool program_is_pinned(const char *root, __u32 program)
{
	struct dirent **layouts = NULL, **links;
	int layout_count = scandir(root, &layouts, NULL, alphasort);
	char path[3 * PATH_MAX];
	bool found = false;

	for (int i = 0; i < layout_count; i++) {
		int link_count = 0;

		links = NULL;
		snprintf(path, sizeof(path), "%s/%s", root, layouts[i]->d_name);
		if (layouts[i]->d_name[0] == 'v')
			link_count = scandir(path, &links, NULL, alphasort);
		for (int k = 0; k < link_count; k++) {
			struct bpf_link_info info = {0};
			__u32 size = sizeof(info);
			int fd = -1;

			snprintf(path, sizeof(path), "%s/%s/%s", root, layouts[i]->d_name, links[k]->d_name);
			if (!strncmp(links[k]->d_name, "link-connect4-", 14))
				fd = bpf_obj_get(path);
			if (fd >= 0) {
				found = found || (!bpf_obj_get_info_by_fd(fd, &info, &size) &&
						  info.prog_id == program);
				close(fd);
			}
			free(links[k]);
		}
		free(links);
		free(layouts[i]);
	}
	free(layouts);
	return found;
}

int feature_other_agent(const char *cgroup_path, const char *root, struct error *e)
{
	int fd = open(cgroup_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__u32 ids[64], count = 64;

	if (fd < 0)
		return 0;
	if (bpf_prog_query(fd, hook_attach_type(HOOK_CONNECT4), BPF_F_QUERY_EFFECTIVE, NULL, ids, &count))
		count = 0;
	close(fd);
	for (__u32 i = 0; i < count; i++) {
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info);

		fd = bpf_prog_get_fd_by_id(ids[i]);
		if (fd < 0)
			continue;
		bpf_obj_get_info_by_fd(fd, &info, &size);
		close(fd);
		if (!strcmp(info.name, "steer_connect4") && !program_is_pinned(root, ids[i]))
			return error_set(e, -EEXIST,
					 "connections of cgroup %s are steered by another cqlferry agent "
					 "already (program id %u), whose pins "
					 "are not below %s: stop that one, or select other cgroups",
					 cgroup_path, ids[i], root);
	}
	return 0;
}
