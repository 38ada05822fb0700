// SPDX-License-Identifier: Apache-2.0
/*
 * The machine: kernel, privileges, mounts, limits. Where interception is enabled, agent/intercept probes by
 * doing what it needs (doctor_intercept.c), and only what it cannot probe is told here: version and build
 * options. Where it is not, this says from the outside whether it could be; then nothing of that is more than
 * a note.
 */
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "control/doctor.h"

#define KCONFIG_MAX (4u << 20) /* a distribution's kernel configuration is about 300 KiB unpacked */

/* Missing things matter only when interception is wanted. */
static enum doctor_grade grade_if_needed(const struct config *c, enum doctor_grade grade)
{
	return c->intercept.enabled ? grade : DOCTOR_NOTE;
}

static char *read_all(const char *path, size_t *ret_size)
{
	FILE *f = fopen(path, "re");
	char *text = f ? malloc(KCONFIG_MAX + 1) : NULL;

	if (text) {
		*ret_size = fread(text, 1, KCONFIG_MAX, f);
		text[*ret_size] = 0;
	}
	if (f)
		fclose(f);
	return text;
}

/* /proc/config.gz, else /boot/config-RELEASE; NULL when the kernel does not tell. */
static char *kernel_config(const char *release)
{
	struct libdeflate_decompressor *z;
	char path[256], *packed, *text;
	size_t size = 0, plain = 0;

	packed = read_all("/proc/config.gz", &size);
	if (packed) {
		z = libdeflate_alloc_decompressor();
		text = malloc(KCONFIG_MAX + 1);
		if (z && text &&
		    libdeflate_gzip_decompress(z, packed, size, text, KCONFIG_MAX, &plain) ==
			LIBDEFLATE_SUCCESS) {
			text[plain] = 0;
		} else {
			free(text);
			text = NULL;
		}
		if (z)
			libdeflate_free_decompressor(z);
		free(packed);
		if (text)
			return text;
	}
	snprintf(path, sizeof(path), "/boot/config-%.200s", release);
	return read_all(path, &size);
}

static bool config_has(const char *text, const char *option)
{
	size_t size = strlen(option);

	for (const char *p = text; (p = strstr(p, option)) != NULL; p += size)
		if ((p == text || p[-1] == '\n') && p[size] == '=' &&
		    (p[size + 1] == 'y' || p[size + 1] == 'm'))
			return true;
	return false;
}

static void check_kernel(struct doctor *d, const struct config *c, void *context)
{
	static const struct {
		const char *option, *what;
		enum doctor_grade grade;
	} options[] = {
	    {"CONFIG_BPF_SYSCALL", "loading programs", DOCTOR_FAIL},
	    {"CONFIG_CGROUP_BPF", "connect hooks of a cgroup", DOCTOR_FAIL},
	    {"CONFIG_INET", "IPv4", DOCTOR_FAIL},
	    {"CONFIG_BPF_JIT", "hooks at full speed", DOCTOR_WARN},
	    {"CONFIG_NET_SOCK_MSG", "acceleration between sockets", DOCTOR_WARN},
	    {"CONFIG_INET_DIAG_DESTROY", "closing connections that are older than the agent", DOCTOR_WARN},
	};
	struct utsname name;
	unsigned major = 0, minor = 0, missing = 0;
	char *text;

	(void)context;
	uname(&name);
	if (sscanf(name.release, "%u.%u", &major, &minor) != 2 || major < 5 || (major == 5 && minor < 15))
		doctor_find(d, grade_if_needed(c, DOCTOR_WARN),
			    "use Linux 5.15 or later, or run without interception",
			    "Linux %s is older than what cqlferry is written for", name.release);
	else
		doctor_find(d, DOCTOR_OK, NULL, "Linux %s on %s", name.release, name.machine);
	text = kernel_config(name.release);
	if (!text) {
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "the kernel's build options cannot be read (/proc/config.gz, /boot/config-%s)",
			    name.release);
		return;
	}
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (config_has(text, options[i].option))
			continue;
		missing++;
		doctor_find(d, grade_if_needed(c, options[i].grade), "use a kernel built with it",
			    "%s is off: it is needed for %s", options[i].option, options[i].what);
	}
	if (!missing)
		doctor_find(d, DOCTOR_OK, NULL,
			    "the kernel's build options have all that interception needs");
	free(text);
}

static void check_btf(struct doctor *d)
{
	if (access("/sys/kernel/btf/vmlinux", R_OK) == 0)
		doctor_find(d, DOCTOR_OK, NULL, "type information (BTF) is there");
	else
		doctor_find(d, DOCTOR_NOTE, "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
			    "no type information: /sys/kernel/btf/vmlinux: %s", strerror(errno));
}

static void check_privileges(struct doctor *d)
{
	static const struct {
		unsigned bit;
		const char *name, *what;
	} caps[] = {
	    {39, "CAP_BPF", "loading programs and maps"},
	    {12, "CAP_NET_ADMIN", "attaching connect hooks, marking sockets"},
	    {38, "CAP_PERFMON", "programs that read kernel structures"},
	};
	unsigned long long effective = 0;
	unsigned missing = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (f)
		fclose(f);
	bool admin = effective >> 21 & 1; /* CAP_SYS_ADMIN, which includes BPF and PERFMON */

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		if ((effective >> caps[i].bit & 1) || (admin && caps[i].bit >= 38))
			continue;
		missing++;
		doctor_find(d, DOCTOR_NOTE, "run as root, or add it to the container's securityContext",
			    "%s is missing: it is needed for %s", caps[i].name, caps[i].what);
	}
	if (!admin)
		doctor_find(d, DOCTOR_NOTE, "add it to find and close connections older than the agent",
			    "CAP_SYS_ADMIN is missing: network namespaces of pods cannot be entered");
	if (!missing)
		doctor_find(d, DOCTOR_OK, NULL, "privileges for interception are there");
}

/* First mount point of a file system type, by mountinfo (proc(5)): fields 5 and, behind the " - ", 1. */
static bool find_mount(const char *type, char *path, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], point[1024], kind[64];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *dash = strstr(line, " - ");

		if (dash && sscanf(line, "%*s %*s %*s %*s %1023s", point) == 1 &&
		    sscanf(dash, " - %63s", kind) == 1 && !strcmp(kind, type)) {
			snprintf(path, size, "%s", point);
			found = true;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static void check_mounts(struct doctor *d)
{
	static const struct {
		const char *type, *what, *remedy;
	} mounts[] = {
	    {"cgroup2", "cgroup v2",
	     "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified; in a pod: hostPath /sys/fs/cgroup"},
	    {"bpf", "the bpf file system",
	     "mount it: mount -t bpf bpf /sys/fs/bpf; in a pod: hostPath /sys/fs/bpf"},
	};
	char path[1024];

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		if (find_mount(mounts[i].type, path, sizeof(path)))
			doctor_find(d, DOCTOR_OK, NULL, "%s is mounted at %s", mounts[i].what, path);
		else
			doctor_find(d, DOCTOR_NOTE, mounts[i].remedy, "%s is not mounted here",
				    mounts[i].what);
	}
}

/* Could interception be enabled here? */
static void check_possible(struct doctor *d, const struct config *c, void *context)
{
	(void)context;
	if (c->intercept.enabled) {
		doctor_find(d, DOCTOR_OK, NULL, "probed below, under interception");
		return;
	}
	check_btf(d);
	check_privileges(d);
	check_mounts(d);
}

static void check_limits(struct doctor *d, const struct config *c, void *context)
{
	/* Each session has a client socket and up to two upstreams; the rest is listeners, maps, mirror
	 * connections. */
	uint64_t wanted = 3ull * c->limits.sessions + 512;
	struct rlimit limit;

	(void)context;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_max < wanted)
		doctor_find(d, DOCTOR_WARN, "raise it (LimitNOFILE=, ulimit -Hn), or lower limits.sessions",
			    "%llu open files are allowed; %u sessions may need %llu",
			    (unsigned long long)limit.rlim_max, c->limits.sessions,
			    (unsigned long long)wanted);
	else
		doctor_find(d, DOCTOR_OK, NULL, "open files: %llu allowed, %llu wanted",
			    (unsigned long long)limit.rlim_max, (unsigned long long)wanted);

	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	if ((c->journal.sync == CONFIG_SYNC_MEMORY || !*c->state.directory) && pages > 0 && page > 0 &&
	    c->limits.mirror_bytes > (uint64_t)pages * (uint64_t)page / 2)
		doctor_find(d, DOCTOR_WARN, "lower limits.mirrorBytes, or keep the journal on disk (journal.sync, state.directory)",
			    "the journal is in memory, and limits.mirrorBytes is more than half of the machine's");
}

void doctor_add_system(struct doctor *d)
{
	doctor_add(d, "kernel", check_kernel, NULL);
	doctor_add(d, "privileges and mounts", check_possible, NULL);
	doctor_add(d, "limits", check_limits, NULL);
}
