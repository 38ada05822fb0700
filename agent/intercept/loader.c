/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded BPF object: load it, pin its maps, attach its programs to cgroups by pinned links.
 *
 *   <pin_root>/v<layout>/<map>                 every map by its name
 *   <pin_root>/v<layout>/link-<hook>-<cgroup>  every attachment, by hook and cgroup id
 *
 * A map that is pinned already is reused (libbpf compares its layout with ours), a link that is pinned
 * already is updated to our program in place: between the old agent's program and the new one there is no
 * moment without any. Links that are pinned and not wanted stay until we steer (loader_drop_rest), so that a
 * start that fails takes nothing from the agent before; what it made itself goes with it (loader_unmake). sk_msg is attached to the map `client_socks`; sockets that are in there keep the
 * program that they came in with, and both agents' programs read the same maps.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "intercept/priv.h"

#include "cqlferry.skel.h"

static const struct {
	const char *name;
	int attach_type;
} hooks[HOOK_COUNT] = {
    [HOOK_CONNECT4] = {"connect4", BPF_CGROUP_INET4_CONNECT},
    [HOOK_CONNECT6] = {"connect6", BPF_CGROUP_INET6_CONNECT},
    [HOOK_PEERNAME4] = {"getpeername4", BPF_CGROUP_INET4_GETPEERNAME},
    [HOOK_PEERNAME6] = {"getpeername6", BPF_CGROUP_INET6_GETPEERNAME},
    [HOOK_SOCKOPS] = {"sockops", BPF_CGROUP_SOCK_OPS},
};

const char *hook_name(enum hook hook)
{
	return hooks[hook].name;
}

int hook_attach_type(enum hook hook)
{
	return hooks[hook].attach_type;
}

/* ---- libbpf's own words, kept for the error text instead of standing alone on stderr */

static __thread char messages[16384];
static __thread size_t messages_size;

/* A verifier log may be long, and its end is what matters: the older half makes room. */
static int loader_print(enum libbpf_print_level level, const char *format, va_list args)
{
	const size_t half = sizeof(messages) / 2;
	int n;

	if (level == LIBBPF_DEBUG)
		return 0;
	if (messages_size >= half) {
		memmove(messages, messages + messages_size - half / 2, half / 2);
		messages_size = half / 2;
	}
	n = vsnprintf(messages + messages_size, sizeof(messages) - messages_size, format, args);
	if (n > 0)
		messages_size += (size_t)n < sizeof(messages) - messages_size
				     ? (size_t)n
				     : sizeof(messages) - messages_size - 1;
	return n;
}

const char *loader_messages(void)
{
	messages_size = 0;
	return messages;
}

/* ---- load */

int loader_program_fd(const struct intercept *it, enum hook hook)
{
	struct bpf_program *program[HOOK_COUNT] = {
	    [HOOK_CONNECT4] = it->skeleton->progs.steer_connect4,
	    [HOOK_CONNECT6] = it->skeleton->progs.steer_connect6,
	    [HOOK_PEERNAME4] = it->skeleton->progs.steer_peername4,
	    [HOOK_PEERNAME6] = it->skeleton->progs.steer_peername6,
	    [HOOK_SOCKOPS] = it->skeleton->progs.steer_sockops,
	};

	return bpf_program__fd(program[hook]);
}

int loader_map_fd(const struct intercept *it, const char *name)
{
	return bpf_object__find_map_fd_by_name(it->skeleton->obj, name);
}

int loader_lookup(const struct intercept *it, const char *map, const void *key, void *ret_value)
{
	return bpf_map_lookup_elem(loader_map_fd(it, map), key, ret_value) ? -errno : 0;
}

int loader_load(struct intercept *it, struct error *e)
{
	struct bpf_map *map;
	int code;

	libbpf_set_print(loader_print);
	messages[messages_size = 0] = 0;
	it->skeleton = cqlferry_bpf__open();
	if (!it->skeleton)
		return feature_explain(-errno, "opening the embedded BPF object", e);
	bpf_object__for_each_map(map, it->skeleton->obj)
	{
		char path[PATH_MAX + 64];

		snprintf(path, sizeof(path), "%s/%s", it->pin_dir, bpf_map__name(map));
		code = bpf_map__set_pin_path(map, path);
		if (code)
			return error_set(e, code, "pin path %s: %s", path, strerror(-code));
	}
	code = cqlferry_bpf__load(it->skeleton);
	if (code)
		return feature_explain(code, "loading the BPF programs", e);
	code = bpf_prog_attach(bpf_program__fd(it->skeleton->progs.steer_msg),
			       bpf_map__fd(it->skeleton->maps.client_socks), BPF_SK_MSG_VERDICT, 0);
	if (code < 0)
		return feature_explain(-errno, "attaching the sk_msg program", e);
	return 0;
}

/* ---- links */

/* A cgroup that is only the agent's gets the agent's half of sockops: its dials are no clients. */
int loader_program_for(const struct intercept *it, const struct steered_cgroup *cgroup, enum hook hook)
{
	return cgroup->only_sockops ? bpf_program__fd(it->skeleton->progs.steer_agent)
				    : loader_program_fd(it, hook);
}

static void link_path(char *path, size_t size, const char *pin_dir, enum hook hook, uint64_t cgroup)
{
	snprintf(path, size, "%s/link-%s-%llu", pin_dir, hooks[hook].name, (unsigned long long)cgroup);
}

/* The link that is pinned as `path`, with our program in it. −ENOENT: there is none, or its cgroup died and the id was given again. */
static int loader_take_over(const struct intercept *it, const struct steered_cgroup *cgroup, enum hook hook, const char *path,
			    struct error *e)
{
	struct bpf_link_info info = {0};
	__u32 size = sizeof(info);
	int fd = bpf_obj_get(path), code;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT
				       : error_set(e, -errno, "opening the pinned link %s: %s", path, strerror(errno));
	if (bpf_obj_get_info_by_fd(fd, &info, &size) || info.type != BPF_LINK_TYPE_CGROUP) {
		close(fd);
		return error_set(e, -EINVAL, "%s is not one of our links: remove it", path);
	}
	code = info.cgroup.cgroup_id != cgroup->id ? -ENOLINK
	       : bpf_link_update(fd, loader_program_for(it, cgroup, hook), NULL) ? -errno
										  : 0;
	if (!code)
		return fd;
	close(fd);
	if (code != -ENOLINK)
		return error_set(e, code, "taking over %s: %s", path, strerror(-code));
	unlink(path);
	return -ENOENT;
}

static int loader_make(struct intercept *it, struct steered_cgroup *cgroup, enum hook hook, int dir, const char *path, struct error *e)
{
	int code;

	cgroup->link[hook] = bpf_link_create(loader_program_for(it, cgroup, hook), dir, hooks[hook].attach_type, NULL);
	if (cgroup->link[hook] < 0) {
		code = -errno;
		cgroup->link[hook] = -1;
		return feature_conflict(cgroup->path, hook, e) ? code : feature_explain(code, hooks[hook].name, e);
	}
	cgroup->made[hook] = true;
	return bpf_obj_pin(cgroup->link[hook], path) ? error_set(e, -errno, "pinning %s: %s", path, strerror(errno)) : 0;
}

int loader_attach(struct intercept *it, struct steered_cgroup *cgroup, struct error *e)
{
	int dir = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[PATH_MAX + 64];
	int code = 0;

	if (dir < 0)
		return error_set(e, -errno, "cgroup %s: %s", cgroup->path, strerror(errno));
	for (int hook = 0; !code && hook < HOOK_COUNT; hook++) {
		int fd;

		if (cgroup->link[hook] >= 0 || (cgroup->only_sockops && hook != HOOK_SOCKOPS))
			continue;
		link_path(path, sizeof(path), it->pin_dir, hook, cgroup->id);
		fd = loader_take_over(it, cgroup, hook, path, e);
		if (fd >= 0)
			cgroup->link[hook] = fd;
		else
			code = fd == -ENOENT ? loader_make(it, cgroup, hook, dir, path, e) : fd;
	}
	close(dir);
	return code;
}

void loader_unmake(struct steered_cgroup *cgroup, const char *pin_dir)
{
	char path[PATH_MAX + 64];

	for (int hook = 0; hook < HOOK_COUNT; hook++) {
		if (cgroup->link[hook] < 0 || !cgroup->made[hook])
			continue;
		link_path(path, sizeof(path), pin_dir, hook, cgroup->id);
		unlink(path);
		bpf_link_detach(cgroup->link[hook]);
	}
}

void loader_detach(struct steered_cgroup *cgroup, const char *pin_dir, bool remove)
{
	char path[PATH_MAX + 64];

	for (int hook = 0; hook < HOOK_COUNT; hook++) {
		if (cgroup->link[hook] < 0)
			continue;
		if (remove) {
			link_path(path, sizeof(path), pin_dir, hook, cgroup->id);
			unlink(path);
			bpf_link_detach(cgroup->link[hook]);
		}
		close(cgroup->link[hook]);
		cgroup->link[hook] = -1;
	}
}

static struct steered_cgroup *loader_cgroup(struct intercept *it, uint64_t id)
{
	for (size_t i = 0; i < it->cgroup_count; i++)
		if (it->cgroups[i].id == id)
			return &it->cgroups[i];
	return NULL;
}

/* 0: not one of our links. */
static uint32_t link_info(int fd, uint64_t *ret_cgroup, enum hook *ret_hook)
{
	struct bpf_link_info info = {0};
	__u32 size = sizeof(info);
	int hook;

	if (bpf_obj_get_info_by_fd(fd, &info, &size) || info.type != BPF_LINK_TYPE_CGROUP)
		return 0;
	for (hook = 0; hook < HOOK_COUNT; hook++)
		if ((int)info.cgroup.attach_type == hooks[hook].attach_type)
			break;
	*ret_cgroup = info.cgroup.cgroup_id;
	*ret_hook = (enum hook)hook;
	return info.id;
}

static bool loader_holds(struct intercept *it, uint32_t id, uint64_t cgroup_id, enum hook hook)
{
	struct steered_cgroup *cgroup = loader_cgroup(it, cgroup_id);
	uint64_t other;
	enum hook same;

	return hook != HOOK_COUNT && cgroup && cgroup->link[hook] >= 0 &&
	       link_info(cgroup->link[hook], &other, &same) == id;
}

/* Names first, then work: unlinking while reading a directory may skip entries. */
void loader_drop_rest(struct intercept *it)
{
	struct dirent **names = NULL;
	int count = scandir(it->pin_dir, &names, NULL, alphasort);
	char path[2 * PATH_MAX];

	for (int i = 0; i < count; i++) {
		uint64_t cgroup = 0;
		enum hook hook = HOOK_COUNT;
		uint32_t id;
		int fd;

		snprintf(path, sizeof(path), "%s/%s", it->pin_dir, names[i]->d_name);
		fd = strncmp(names[i]->d_name, "link-", 5) ? -1 : bpf_obj_get(path);
		free(names[i]);
		if (fd < 0)
			continue;
		id = link_info(fd, &cgroup, &hook);
		if (id && !loader_holds(it, id, cgroup, hook)) {
			unlink(path);
			bpf_link_detach(fd);
		}
		close(fd);
	}
	free(names);
}

/* A directory of pins goes: links first detached, because another process may still hold them. */
void loader_remove_dir(const char *dir)
{
	struct dirent **names = NULL;
	int count = scandir(dir, &names, NULL, alphasort);
	char path[2 * PATH_MAX];

	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		if (!strncmp(names[i]->d_name, "link-", 5)) {
			int fd = bpf_obj_get(path);

			if (fd >= 0) {
				bpf_link_detach(fd);
				close(fd);
			}
		}
		if (names[i]->d_name[0] != '.')
			unlink(path);
		free(names[i]);
	}
	free(names);
	rmdir(dir);
}

/*
 * An agent with another layout cannot share maps with us. Its programs go only after ours steer: while both
 * are attached, the older ones run first and serve, and ours recognise what they rewrote.
 */
void loader_retire_layouts(struct intercept *it)
{
	char root[PATH_MAX], dir[2 * PATH_MAX];
	struct dirent **names = NULL;
	int count;

	snprintf(root, sizeof(root), "%s", it->pin_dir);
	*strrchr(root, '/') = 0;
	count = scandir(root, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		snprintf(dir, sizeof(dir), "%s/%s", root, names[i]->d_name);
		if (names[i]->d_name[0] == 'v' && strcmp(dir, it->pin_dir))
			loader_remove_dir(dir);
		free(names[i]);
	}
	free(names);
}

void loader_unpin_maps(struct intercept *it)
{
	struct bpf_map *map;

	if (it->skeleton) {
		bpf_object__for_each_map(map, it->skeleton->obj)
		{
			const char *path = bpf_map__pin_path(map);

			if (path)
				unlink(path);
		}
	}
	rmdir(it->pin_dir);
	*strrchr(it->pin_dir, '/') = 0;
	rmdir(it->pin_dir);
}
