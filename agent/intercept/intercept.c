/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interception object: order of start, takeover and end.
 *
 *   open   find mounts ─▶ lock ─▶ load (maps made or reused) ─▶ links taken over, others made ─▶ probe
 *   start  publish address, phase and limits ─▶ boot id (from here on the maps are ours) ─▶ heartbeat
 *          ─▶ drop what an earlier agent left
 *   close  KEEP: heartbeat withdrawn, pins stay      REMOVE: links detached, pins gone
 *          before start: only what was made anew goes
 *
 * On a takeover nothing that the old agent needs is changed before start, and start changes the address in
 * one step, so a connect goes to the one or to the other and both serve. Two agents that do not mean to take
 * over exclude each other by a lock on the pin root, which ends with its holder, however that ends.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>

#include "base/clock.h"
#include "intercept/priv.h"

#include "cqlferry.skel.h"

_Static_assert((int)INTERCEPT_OBSERVE == (int)PHASE_IS_OBSERVE &&
		   (int)INTERCEPT_FINISH == (int)PHASE_IS_FINISH,
	       "same numbers");

#define MS 1000000ull

static unsigned or_default(unsigned value, unsigned otherwise)
{
	return value ? value : otherwise;
}

/* ---- open */

static int open_pins(struct intercept *it, const char *pin_root, struct error *e)
{
	char root[PATH_MAX - 16];
	struct statfs fs;

	if (pin_root) {
		snprintf(root, sizeof(root), "%s", pin_root);
	} else {
		if (mount_find("bpf", root, sizeof(root) - 16))
			return error_set(e, -ENOENT,
					 "no bpffs is mounted, so nothing could outlive the agent: mount -t "
					 "bpf bpf /sys/fs/bpf");
		strncat(root, "/cqlferry", 16);
	}
	snprintf(it->pin_dir, sizeof(it->pin_dir), "%s/v%d", root, ABI_LAYOUT);
	if (mkdir(root, 0700) && errno != EEXIST)
		return error_set(e, -errno, "making the pin directory %s: %s", root, strerror(errno));
	if (statfs(root, &fs) || fs.f_type != BPF_FS_MAGIC) {
		rmdir(root);
		return error_set(e, -EINVAL,
				 "the pin directory %s is not on a bpffs: mount -t bpf bpf <directory>, and "
				 "give a path below it",
				 root);
	}
	it->lock_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (it->lock_fd < 0)
		return error_set(e, -errno, "%s: %s", root, strerror(errno));
	if (!flock(it->lock_fd, LOCK_EX | LOCK_NB))
		atomic_store(&it->locked, true);
	return 0;
}

static int make_pin_dir(struct intercept *it, struct error *e)
{
	it->fresh = !mkdir(it->pin_dir, 0700);
	if (!it->fresh && errno != EEXIST)
		return error_set(e, -errno, "making the pin directory %s: %s", it->pin_dir, strerror(errno));
	return 0;
}

static int refuse_second(struct intercept *it, struct error *e)
{
	char path[PATH_MAX + 16];
	struct settings settings = {0};
	uint32_t key = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/settings", it->pin_dir);
	fd = bpf_obj_get(path);
	if (fd >= 0) {
		bpf_map_lookup_elem(fd, &key, &settings);
		close(fd);
	}
	return error_set(e, -EBUSY,
			 "another agent (process %u) holds %s: stop it first, or start this one as its "
			 "successor (takeover), or give each its "
			 "own pin directory",
			 settings.agent_pid, it->pin_dir);
}

static void *map_shared(int fd, size_t size, struct error *e)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory != MAP_FAILED)
		return memory;
	error_set(e, -errno, "mapping memory that is shared with the kernel side: %s", strerror(errno));
	return NULL;
}

static int open_memory(struct intercept *it, struct error *e)
{
	long page = sysconf(_SC_PAGESIZE);

	it->settings = map_shared(bpf_map__fd(it->skeleton->maps.settings), (size_t)page, e);
	if (it->settings)
		it->heartbeat = map_shared(bpf_map__fd(it->skeleton->maps.heartbeat), (size_t)page, e);
	if (it->heartbeat)
		it->credits = map_shared(bpf_map__fd(it->skeleton->maps.credits),
					 ABI_CREDITS * sizeof(struct credit), e);
	return it->credits ? 0 : -ENOMEM;
}

static int open_own_namespace(struct intercept *it, struct error *e)
{
	socklen_t size = sizeof(it->own_netns);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int code = 0;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &it->own_netns, &size))
		code = error_set(e, -errno,
				 "asking for the cookie of the own network namespace (needs Linux 5.14): %s",
				 strerror(errno));
	if (fd >= 0)
		close(fd);
	return code;
}

/* "/sys/fs/bpf/cqlferry/v1" → "/sys/fs/bpf/cqlferry" */
static void pin_root_of(const struct intercept *it, char ret_root[PATH_MAX])
{
	snprintf(ret_root, PATH_MAX, "%s", it->pin_dir);
	*strrchr(ret_root, '/') = 0;
}

static struct steered_cgroup *add_cgroup(struct intercept *it, const char *path, bool only_sockops,
					 struct error *e)
{
	struct steered_cgroup *cgroup = &it->cgroups[it->cgroup_count];
	int code;

	if (it->cgroup_count == INTERCEPT_MAX_CGROUPS) {
		error_set(e, -E2BIG, "at most %d cgroups can be selected: select one that holds them all",
			  INTERCEPT_MAX_CGROUPS);
		return NULL;
	}
	memset(cgroup, 0, sizeof(*cgroup));
	for (int hook = 0; hook < HOOK_COUNT; hook++)
		cgroup->link[hook] = -1;
	code = cgroup_id(path, &cgroup->id);
	cgroup->path = code ? NULL : strdup(path);
	if (!cgroup->path) {
		error_set(e, code ? code : -ENOMEM, "cgroup %s: %s", path, strerror(code ? -code : ENOMEM));
		return NULL;
	}
	cgroup->only_sockops = only_sockops;
	it->cgroup_count++;
	return cgroup;
}

static void drop_cgroup(struct intercept *it, size_t index)
{
	loader_detach(&it->cgroups[index], it->pin_dir, true);
	free(it->cgroups[index].path);
	it->cgroups[index] = it->cgroups[--it->cgroup_count];
}

static bool covered(const struct intercept *it, const char *path)
{
	for (size_t i = 0; i < it->cgroup_count; i++)
		if (!it->cgroups[i].only_sockops && cgroup_contains(it->cgroups[i].path, path))
			return true;
	return false;
}

/* Which cgroups; none attached yet. One inside another is covered by it: its program would run twice for each
 * connect. */
static int select_cgroups(struct intercept *it, const struct intercept_options *options, struct error *e)
{
	char path[PATH_MAX];
	int code;

	for (size_t i = 0; i < options->cgroup_count; i++) {
		code = cgroup_resolve(it, options->cgroups[i], path, e);
		if (code)
			return code;
		if (covered(it, path))
			continue;
		for (size_t k = it->cgroup_count; k-- > 0;)
			if (cgroup_contains(path, it->cgroups[k].path))
				drop_cgroup(it, k);
		if (!add_cgroup(it, path, false, e))
			return -EINVAL;
	}
	return 0;
}

static int select_own_cgroup(struct intercept *it, const struct intercept_options *options, struct error *e)
{
	struct excluded_key key;
	struct excluded value = {.is_agent = 1};
	char path[PATH_MAX], root[PATH_MAX];
	int code;

	code = options->agent_cgroup ? cgroup_resolve(it, options->agent_cgroup, path, e)
				     : cgroup_own(it->cgroup_mount, path, e);
	if (code)
		return code;
	if (!realpath(it->cgroup_mount, root))
		return error_set(e, -errno, "%s: %s", it->cgroup_mount, strerror(errno));
	code = cgroup_id(path, &it->own_cgroup);
	if (code)
		return error_set(e, code, "cgroup %s: %s", path, strerror(-code));
	if (it->own_cgroup == 1) {
		/* The root: excluding it would exclude whoever else is there, and sockops on it would see
		 * every socket of the node. */
		it->own_cgroup = 0;
		return 0;
	}
	key.cgroup = it->own_cgroup;
	if (bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.excluded), &key, &value, BPF_ANY))
		return error_set(e, -errno, "excluding the agent's own cgroup: %s", strerror(errno));
	if (!covered(it, path) && !add_cgroup(it, path, true, e))
		return -EINVAL;
	return 0;
}

static int intercept_setup(struct intercept *it, const struct intercept_options *options, struct error *e)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	char root[PATH_MAX];
	uint32_t key = 0;
	struct power power;
	int code;

	if (mount_find("cgroup2", it->cgroup_mount, sizeof(it->cgroup_mount)))
		return error_set(e, -ENOENT,
				 "cgroup2 is not mounted: mount -t cgroup2 cgroup2 <directory>; in a "
				 "container, mount the host's");
	code = open_pins(it, options->pin_root, e);
	if (!code && !atomic_load(&it->locked) && !options->takeover)
		code = refuse_second(it, e);
	if (!code)
		code = make_pin_dir(it, e);
	if (code)
		return code;
	setrlimit(RLIMIT_MEMLOCK,
		  &unlimited); /* before 5.11 maps counted against it; a failure shows when they are made */

	code = select_cgroups(it, options, e);
	pin_root_of(it, root);
	for (size_t i = 0; !code && i < it->cgroup_count; i++)
		code = feature_other_agent(it->cgroups[i].path, root, e);
	if (!code)
		code = open_own_namespace(it, e);
	if (!code)
		code = loader_load(it, e);
	if (!code)
		code = open_memory(it, e);
	if (!code)
		code = select_own_cgroup(it, options, e);
	if (!code)
		code = event_open(it, e);
	if (!code)
		code = watch_open(it, e);
	if (code)
		return code;

	/* Fresh maps: switched on, and known by these to whoever reads them. Otherwise all stays as the
	 * earlier agent had it, until start. */
	if (!it->settings->layout) {
		power.interception = INTERCEPTION_ON;
		if (bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.power), &key, &power, BPF_ANY))
			return error_set(e, -errno, "switching interception on: %s", strerror(errno));
		it->settings->layout = ABI_LAYOUT;
		it->settings->agent_mark = it->mark;
	}
	if (!it->settings->credit_bytes)
		it->settings->credit_bytes = it->credit_bytes; /* the probe sends a few bytes */
	it->settings->agent_netns = it->own_netns; /* sockops counts listeners in this namespace */

	for (size_t i = 0; !code && i < it->cgroup_count; i++)
		code = loader_attach(it, &it->cgroups[i], e);
	if (code)
		return code;
	if (atomic_load(&it->locked))
		credit_sweep(it);
	probe_acceleration(it, options->acceleration);
	return 0;
}

int intercept_open(const struct intercept_options *options, struct intercept **ret_it, struct error *e)
{
	struct intercept *it;
	int code;

	if (options->workers > INTERCEPT_MAX_WORKERS)
		return error_set(e, -E2BIG, "at most %d workers can be watched over", INTERCEPT_MAX_WORKERS);
	it = aligned_alloc(64, (sizeof(*it) + 63) / 64 * 64);
	if (!it)
		return error_set(e, -ENOMEM, "no memory");
	memset(it, 0, sizeof(*it));
	it->magic = INTERCEPT_MAGIC;
	it->lock_fd = -1;
	it->mark = options->mark ? options->mark : INTERCEPT_DEFAULT_MARK;
	it->phase = (enum steer_phase)options->phase;
	it->observe_relays = options->observe_relays;
	it->credit_bytes = or_default(options->credit_bytes, 256u << 10);
	it->grace_ns = or_default(options->grace_ms, 10000) * MS;
	it->finish_grace_ns = or_default(options->finish_grace_ms, 10000) * MS;
	it->trip_ns = or_default(options->trip_ms, 180000) * MS;
	it->deadline_ns = or_default(options->heartbeat_ms, 2000) * MS;
	it->period_ns = it->deadline_ns / 8;
	it->stall_ns = or_default(options->stall_ms, 3000) * MS;
	it->workers = options->workers;
	do {
		if (getrandom(&it->boot, sizeof(it->boot), 0) != sizeof(it->boot))
			it->boot = clock_now_ns();
	} while (!it->boot);

	code = intercept_setup(it, options, e);
	if (code) {
		/* What another agent left is not ours to remove; what we made for the first time is. */
		intercept_close(it, it->fresh ? INTERCEPT_REMOVE : INTERCEPT_KEEP);
		return code;
	}
	*ret_it = it;
	return 0;
}

/* ---- settings */

int intercept_set_agent(struct intercept *it, const struct sockaddr *address, struct error *e)
{
	struct endpoint endpoint;
	uint32_t next;
	int code = endpoint_from_sockaddr(&endpoint, address);
	bool wildcard = true;

	if (code)
		return error_set(e, code, "the agent's address must be IPv4 or IPv6");
	for (size_t i = 0; i < sizeof(endpoint.address); i++)
		wildcard = wildcard && !endpoint.address[i];
	if (wildcard && endpoint.port)
		return error_set(e, -EINVAL,
				 "the agent's address must be one that clients can reach, not the wildcard");
	if (endpoint.ip == 4)
		it->address.ip4 = endpoint;
	else
		it->address.ip6 = endpoint;
	if (!it->started)
		return 0;
	/* Beside the valid one, and then one word: no connect ever sees half an address. */
	next = !(it->settings->address_index & 1);
	it->settings->agent[next] = it->address;
	__atomic_store_n(&it->settings->address_index, next, __ATOMIC_RELEASE);
	return 0;
}

/* Ports on which agents listened once: without this, each start would leave one more until the table is full.
 */
static void listener_reconcile(struct intercept *it)
{
	int fd = bpf_map__fd(it->skeleton->maps.listeners);
	struct listener_key key, next;
	struct listener value;
	int more;

	for (more = !bpf_map_get_next_key(fd, NULL, &next); more;) {
		key = next;
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (key.port != it->address.ip4.port && key.port != it->address.ip6.port &&
		    !bpf_map_lookup_elem(fd, &key, &value) && value.open <= 0)
			bpf_map_delete_elem(fd, &key);
	}
}

/* The grace first: no connect in finish finds that of the phase before. */
static void publish_phase(struct intercept *it)
{
	uint64_t grace = it->phase == PHASE_IS_FINISH ? it->finish_grace_ns : it->grace_ns;

	__atomic_store_n(&it->settings->grace_ns, grace, __ATOMIC_RELAXED);
	__atomic_store_n((uint32_t *)&it->settings->phase, (uint32_t)it->phase, __ATOMIC_RELEASE);
}

int intercept_start(struct intercept *it, struct error *e)
{
	struct settings *s = it->settings;
	int code;

	it->started = true;
	s->agent_pid = (uint32_t)getpid();
	__atomic_store_n(&s->agent_mark, it->mark, __ATOMIC_RELAXED);
	__atomic_store_n(&s->credit_bytes, it->credit_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&s->trip_ns, it->trip_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&s->observe_relays, it->observe_relays, __ATOMIC_RELAXED);
	publish_phase(it);
	__atomic_store_n(&s->acceleration, it->accelerated, __ATOMIC_RELEASE);
	uint32_t next = !(s->address_index & 1);
	s->agent[next] = it->address;
	__atomic_store_n(&s->address_index, next, __ATOMIC_RELEASE);
	code = heartbeat_start(it, e);
	if (code)
		return code;
	watch_reconcile(it);
	exclusion_reconcile(it, atomic_load(&it->locked));
	listener_reconcile(it);
	loader_drop_rest(it);
	loader_retire_layouts(it);
	return 0;
}

int intercept_set_phase(struct intercept *it, enum intercept_phase phase)
{
	if ((unsigned)phase > INTERCEPT_FINISH)
		return -EINVAL;
	it->phase = (enum steer_phase)phase;
	if (it->started)
		publish_phase(it);
	return 0;
}

uint32_t intercept_mark(const struct intercept *it)
{
	return it->mark;
}

int intercept_switch(struct intercept *it, bool on)
{
	struct power power = {.interception = on ? INTERCEPTION_ON : INTERCEPTION_OFF};
	uint32_t key = 0;

	return bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.power), &key, &power, BPF_ANY) ? -errno : 0;
}

/* ---- sources */

int intercept_cgroup_add(struct intercept *it, const char *path, struct error *e)
{
	char resolved[PATH_MAX], root[PATH_MAX];
	struct steered_cgroup *cgroup;
	int code;

	code = cgroup_resolve(it, path, resolved, e);
	if (code || covered(it, resolved))
		return code;
	pin_root_of(it, root);
	code = feature_other_agent(resolved, root, e);
	if (code)
		return code;
	cgroup = add_cgroup(it, resolved, false, e);
	if (!cgroup)
		return -EINVAL;
	code = loader_attach(it, cgroup, e);
	if (code) {
		drop_cgroup(it, it->cgroup_count - 1);
		return code;
	}
	/* What it covers goes after it is attached; for a moment both run (bpf/connect.bpf.c knows). The last
	 * entry is the new one. */
	for (size_t i = it->cgroup_count - 1; i-- > 0;)
		if (cgroup_contains(resolved, it->cgroups[i].path))
			drop_cgroup(it, i);
	return 0;
}

int intercept_cgroup_remove(struct intercept *it, const char *path, struct error *e)
{
	char resolved[PATH_MAX];

	/* It may be gone already: then only the name is left to compare. */
	if (cgroup_resolve(it, path, resolved, NULL))
		snprintf(resolved, sizeof(resolved), "%s", path);
	for (size_t i = 0; i < it->cgroup_count; i++) {
		if (it->cgroups[i].only_sockops || strcmp(it->cgroups[i].path, resolved))
			continue;
		drop_cgroup(it, i);
		return 0;
	}
	return error_set(e, -ENOENT, "cgroup %s is not selected", resolved);
}

int intercept_exclude_cgroup(struct intercept *it, const char *path, struct error *e)
{
	struct excluded value = {0};
	struct excluded_key key;
	char resolved[PATH_MAX];
	uint64_t id;
	int code;

	code = cgroup_resolve(it, path, resolved, e);
	if (!code)
		code = cgroup_id(resolved, &id);
	if (code)
		return code;
	key.cgroup = id;
	if (id == it->own_cgroup)
		return 0;
	if (it->exempt_count == ABI_EXCLUDED ||
	    bpf_map_update_elem(bpf_map__fd(it->skeleton->maps.excluded), &key, &value, BPF_ANY)) {
		code = it->exempt_count == ABI_EXCLUDED || errno == E2BIG ? -E2BIG : -errno;
		return error_set(e, code, "excluding cgroup %s: %s", resolved,
				 code == -E2BIG ? "the list is full (64)" : strerror(-code));
	}
	it->exempt[it->exempt_count++] = id;
	return 0;
}

static bool is_exempt(const struct intercept *it, uint64_t id)
{
	for (size_t i = 0; i < it->exempt_count; i++)
		if (it->exempt[i] == id)
			return true;
	return false;
}

void exclusion_reconcile(struct intercept *it, bool alone)
{
	int fd = bpf_map__fd(it->skeleton->maps.excluded);
	struct excluded_key key, next;
	struct excluded value;
	int more;

	for (more = !bpf_map_get_next_key(fd, NULL, &next); more;) {
		key = next; /* the next one first: a deleted key has none */
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (key.cgroup == it->own_cgroup || is_exempt(it, key.cgroup) ||
		    bpf_map_lookup_elem(fd, &key, &value))
			continue;
		if (!value.is_agent || alone)
			bpf_map_delete_elem(fd, &key);
	}
}

/* ---- end */

void intercept_close(struct intercept *it, enum intercept_end end)
{
	bool successor;

	if (!it)
		return;
	MAGIC_CHECK(it, INTERCEPT_MAGIC);
	heartbeat_stop(it);
	/* Another agent beats on these maps: nothing of them is ours to end. */
	successor = it->started && intercept_superseded(it);
	if (it->started && !successor)
		__atomic_store_n(&it->heartbeat->deadline_ns, clock_now_ns(), __ATOMIC_RELEASE);
	if (end == INTERCEPT_REMOVE && !successor && it->settings && it->started)
		intercept_drain(it, 200);
	event_close(it);
	for (size_t i = 0; i < it->cgroup_count; i++) {
		if (!it->started)
			loader_unmake(&it->cgroups[i], it->pin_dir);
		loader_detach(&it->cgroups[i], it->pin_dir, end == INTERCEPT_REMOVE && !successor);
		free(it->cgroups[i].path);
	}
	if (end == INTERCEPT_REMOVE && !successor)
		loader_unpin_maps(it);
	if (it->settings)
		munmap(it->settings, (size_t)sysconf(_SC_PAGESIZE));
	if (it->heartbeat)
		munmap(it->heartbeat, (size_t)sysconf(_SC_PAGESIZE));
	if (it->credits)
		munmap(it->credits, ABI_CREDITS * sizeof(struct credit));
	if (it->skeleton)
		cqlferry_bpf__destroy(it->skeleton);
	if (it->lock_fd >= 0)
		close(it->lock_fd);
	free(it->watched);
	it->magic = 0;
	free(it);
}
