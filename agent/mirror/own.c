/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/own.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mirror/writers.h"

#define PORTS 65536

struct own_sockets {
	bool looked;
	uint64_t inode[PORTS]; /* of the established connection from that port; the last one seen when there are several */
	uint64_t *mine;        /* inodes of our sockets, sorted */
	size_t mine_count, mine_capacity;
};

struct own_sockets *own_sockets_new(void)
{
	return calloc(1, sizeof(struct own_sockets));
}

void own_sockets_free(struct own_sockets *o)
{
	if (!o)
		return;
	free(o->mine);
	free(o);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void add_mine(struct own_sockets *o, uint64_t inode)
{
	if (o->mine_count == o->mine_capacity) {
		size_t capacity = o->mine_capacity ? o->mine_capacity * 2 : 1024;
		uint64_t *bigger = realloc(o->mine, capacity * sizeof(*bigger));

		if (!bigger)
			return;
		o->mine = bigger;
		o->mine_capacity = capacity;
	}
	o->mine[o->mine_count++] = inode;
}

static void look_at_fds(struct own_sockets *o)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	o->mine_count = 0;
	while (dir && (entry = readdir(dir))) {
		char link[64];
		unsigned long long inode;
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = 0;
		if (sscanf(link, "socket:[%llu]", &inode) == 1)
			add_mine(o, inode);
	}
	if (dir)
		closedir(dir);
	qsort(o->mine, o->mine_count, sizeof(*o->mine), compare);
}

static bool is_mine(const struct own_sockets *o, uint64_t inode)
{
	return o->mine_count && bsearch(&inode, o->mine, o->mine_count, sizeof(inode), compare) != NULL;
}

/* A port may be used towards several nodes: one that is ours does not excuse another that is not. */
static void look_at_table(struct own_sockets *o, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned port, state;
		unsigned long long inode;

		if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*u %*u %llu", &port, &state, &inode) != 3)
			continue;
		if (state != 1 /* ESTABLISHED */ || port >= PORTS || inode == 0)
			continue;
		if (o->inode[port] == 0 || is_mine(o, o->inode[port]))
			o->inode[port] = inode;
	}
	if (f)
		fclose(f);
}

static void look(struct own_sockets *o)
{
	memset(o->inode, 0, sizeof(o->inode));
	look_at_fds(o);
	look_at_table(o, "/proc/self/net/tcp");
	look_at_table(o, "/proc/self/net/tcp6");
	o->looked = true;
}

bool own_sockets_has(void *context, const struct addr *local)
{
	struct own_sockets *o = context;
	uint16_t port = addr_port(local);

	if (!writers_is_local(NULL, local))
		return false;
	if (!o->looked || o->inode[port] == 0 || !is_mine(o, o->inode[port]))
		look(o); /* it may be younger than the last look */
	return o->inode[port] == 0 || is_mine(o, o->inode[port]);
}
