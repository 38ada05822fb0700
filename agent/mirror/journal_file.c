/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct journal_file *file_new(const char *name, size_t size)
{
	struct journal_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fd = -1;
	f->size = size;
	snprintf(f->name, sizeof(f->name), "%s", name);
	return f;
}

int journal_file_map(struct journal_file *f)
{
	int flags = f->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	void *base;

	if (f->base)
		return 0;
	base = mmap(NULL, f->size, PROT_READ | PROT_WRITE, flags, f->fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	f->base = base;
	return 0;
}

void journal_file_unmap(struct journal_file *f)
{
	if (!f->base || f->fd < 0)
		return;
	munmap(f->base, f->size);
	f->base = NULL;
}

int journal_file_make(int directory, const char *name, size_t size, struct journal_file **ret, struct error *error)
{
	struct journal_file *f = file_new(name, size);
	int r;

	if (!f)
		return error_set(error, -ENOMEM, "out of memory");
	if (directory >= 0) {
		f->fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (f->fd < 0) {
			r = error_set(error, -errno, "cannot make the journal file %s: %s", name, strerror(errno));
			goto out;
		}
		r = -posix_fallocate(f->fd, 0, (off_t)size);
		if (r < 0) {
			error_set(error, r, "cannot reserve %zu MiB for the journal: %s", size >> 20, strerror(-r));
			goto out;
		}
	}
	r = journal_file_map(f);
	if (r < 0) {
		error_set(error, r, "cannot map the journal file %s: %s", name, strerror(-r));
		goto out;
	}
	*ret = f;
	return 0;
out:
	journal_file_free(f, f->fd >= 0 ? directory : -1);
	return r;
}

int journal_file_open(int directory, const char *name, struct journal_file **ret, struct error *error)
{
	struct journal_file *f = file_new(name, 0);
	struct stat st;
	int r;

	if (!f)
		return error_set(error, -ENOMEM, "out of memory");
	f->fd = openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (f->fd < 0 || fstat(f->fd, &st) < 0) {
		r = error_set(error, -errno, "cannot open the journal file %s: %s", name, strerror(errno));
		goto out;
	}
	f->size = (size_t)st.st_size;
	if (!S_ISREG(st.st_mode) || f->size < sizeof(struct journal_head)) {
		r = error_set(error, -EINVAL, "%s is not a journal file", name);
		goto out;
	}
	r = journal_file_map(f);
	if (r < 0) {
		error_set(error, r, "cannot map the journal file %s: %s", name, strerror(-r));
		goto out;
	}
	f->recovered = true;
	madvise(f->base, f->size, MADV_POPULATE_READ);
	*ret = f;
	return 0;
out:
	journal_file_free(f, -1);
	return r;
}

void journal_file_begin(struct journal_file *f, uint64_t salt, uint64_t sequence, unsigned worker, unsigned side, uint64_t epoch,
			int64_t now_us)
{
	struct journal_head *h = (struct journal_head *)f->base;

	/* The old head goes first: a crash in between leaves a file without one, which is an empty file. */
	memset(h, 0, sizeof(*h));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	f->base[sizeof(*h)] = ENTRY_END;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	*h = (struct journal_head){.size = (uint32_t)f->size, .salt = salt, .sequence = sequence, .created_us = now_us,
				   .worker = (uint16_t)worker, .side = (uint8_t)side, .epoch = epoch};
	journal_head_seal(h);
	f->salt = salt;
	f->sequence = sequence;
	f->epoch = epoch;
	f->barrier_ticket = UINT64_MAX;
	f->used = f->scan = sizeof(*h);
	f->open = f->applied = f->spilled = f->left = f->held = 0;
	f->applied_ns = 0;
	f->dirty = f->ended = false;
}

void journal_file_trim(struct journal_file *f)
{
	size_t size = (f->used + 8 + 4095) & ~(size_t)4095;

	if (f->fd < 0 || size >= f->size || ftruncate(f->fd, (off_t)size) < 0)
		return;
	if (f->base)
		munmap(f->base + size, f->size - size);
	f->size = size;
}

void journal_file_free(struct journal_file *f, int directory)
{
	if (!f)
		return;
	if (f->base)
		munmap(f->base, f->size);
	if (f->fd >= 0)
		close(f->fd);
	if (directory >= 0)
		unlinkat(directory, f->name, 0);
	free(f);
}
