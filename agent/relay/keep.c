/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/durable.h"

#define MAGIC "CQLFKEEP"
#define VERSION 1u
#define HEADER_SIZE 16u
#define FILE_MAX (256u << 20)

static void put32(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static void add(struct keep_writer *w, const void *data, size_t size)
{
	if (!w->failed && size && fwrite(data, 1, size, w->file) != size)
		w->failed = errno ? -errno : -EIO;
}

int keep_begin(struct keep_writer *w, const char *directory, const char *name, enum keep_kind kind, struct error *error)
{
	uint8_t header[HEADER_SIZE] = MAGIC;
	int fd;

	memset(w, 0, sizeof(*w));
	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make %s: %s", directory, strerror(errno));
	snprintf(w->path, sizeof(w->path), "%s/%s", directory, name);
	snprintf(w->temporary, sizeof(w->temporary), "%s.new", w->path);
	fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	w->file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!w->file) {
		int e = -errno;

		if (fd >= 0)
			close(fd);
		return error_set(error, e, "cannot write %s: %s", w->temporary, strerror(-e));
	}
	put32(header + 8, VERSION);
	put32(header + 12, kind);
	add(w, header, sizeof(header));
	return 0;
}

void keep_record(struct keep_writer *w, const struct span *pieces, unsigned count)
{
	XXH3_state_t *state = XXH3_createState();
	uint8_t size[4], sum[8];
	size_t total = 0;
	uint64_t hash;

	if (!state) {
		w->failed = -ENOMEM;
		return;
	}
	XXH3_64bits_reset(state);
	for (unsigned i = 0; i < count; i++) {
		total += pieces[i].size;
		XXH3_64bits_update(state, pieces[i].data, pieces[i].size);
	}
	hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	if (total > KEEP_RECORD_MAX)
		return; /* it is learned again */
	put32(size, (uint32_t)total);
	put32(sum, (uint32_t)hash);
	put32(sum + 4, (uint32_t)(hash >> 32));
	add(w, size, sizeof(size));
	for (unsigned i = 0; i < count; i++)
		add(w, pieces[i].data, pieces[i].size);
	add(w, sum, sizeof(sum));
}

int keep_end(struct keep_writer *w, struct error *error)
{
	if (!w->failed && (fflush(w->file) != 0 || fsync(fileno(w->file)) < 0))
		w->failed = -errno;
	if (fclose(w->file) != 0 && !w->failed)
		w->failed = -errno;
	if (!w->failed && rename(w->temporary, w->path) < 0)
		w->failed = -errno;
	if (w->failed) {
		unlink(w->temporary);
	} else {
		char *slash = strrchr(w->temporary, '/');

		/* "hold" has promised when we return: also the name must be on disk. */
		*slash = 0;
		w->failed = durable_directory(w->temporary);
	}
	return w->failed ? error_set(error, w->failed, "cannot write %s: %s", w->path, strerror(-w->failed)) : 0;
}

int keep_parse(struct span file, enum keep_kind kind, void (*record)(void *context, struct span payload), void *context,
	       bool *ret_damaged)
{
	size_t at = HEADER_SIZE;
	int count = 0;

	*ret_damaged = false;
	if (file.size < HEADER_SIZE || memcmp(file.data, MAGIC, 8) != 0 || get32(file.data + 8) != VERSION ||
	    get32(file.data + 12) != (uint32_t)kind)
		return -EINVAL;
	while (at < file.size) {
		uint32_t size;
		uint64_t sum;

		*ret_damaged = true;
		if (file.size - at < 4)
			break;
		size = get32(file.data + at);
		if (size > KEEP_RECORD_MAX || file.size - at - 4 < (size_t)size + 8)
			break;
		sum = get32(file.data + at + 4 + size) | (uint64_t)get32(file.data + at + 8 + size) << 32;
		if (XXH3_64bits(file.data + at + 4, size) != sum)
			break;
		record(context, span_of(file.data + at + 4, size));
		count++;
		at += 4 + (size_t)size + 8;
		*ret_damaged = false;
	}
	return count;
}

int keep_read(const char *directory, const char *name, enum keep_kind kind, void (*record)(void *context, struct span payload),
	      void *context, bool *ret_damaged)
{
	char path[4096];
	struct stat st;
	uint8_t *data;
	ssize_t have = 0, n = 0;
	int fd, r;

	*ret_damaged = false;
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0 || st.st_size > FILE_MAX) {
		close(fd);
		return -EFBIG;
	}
	data = malloc((size_t)st.st_size + 1);
	while (data && have < st.st_size && (n = read(fd, data + have, (size_t)(st.st_size - have))) > 0)
		have += n;
	close(fd);
	if (!data)
		return -ENOMEM;
	r = n < 0 ? -EIO : keep_parse(span_of(data, (size_t)have), kind, record, context, ret_damaged);
	free(data);
	return r;
}
