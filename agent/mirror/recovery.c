/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/recovery.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "relay/prepared.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define LIFE_NAME 40

/* A statement of the files: the same one is in many. */
struct statement_found {
	uint64_t hash;
	struct span record; /* ours */
};

struct recovery {
	struct journals *all;
	int root, own, lock, mark;
	char name[LIFE_NAME], boot[40];
	struct journal *journal[SIDES];
	struct statement_found *statements;
	size_t count, capacity;
};

static void read_boot(char boot[40])
{
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, boot, 36) : 0;

	boot[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
}

int recovery_mark(struct recovery *r, int64_t now_us)
{
	char line[100];
	int n;

	if (!r || r->mark < 0)
		return 0;
	n = snprintf(line, sizeof(line), "%s %020lld\n", r->boot, (long long)now_us);
	if (pwrite(r->mark, line, (size_t)n, 0) != n || fdatasync(r->mark) < 0)
		return -errno;
	return 0;
}

/* The mark of a dead life. */
static void read_mark(int directory, const char *boot, struct recovery_found *found)
{
	char line[100], theirs[40];
	long long at;
	int fd = openat(directory, "synced", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : 0;

	if (fd >= 0)
		close(fd);
	line[n > 0 ? n : 0] = 0;
	if (sscanf(line, "%39s %lld", theirs, &at) != 2)
		return;
	if (strcmp(theirs, boot) != 0)
		found->node_restarted = true;
	if (at > found->synced_us)
		found->synced_us = at;
}

/* ---- one file */

static void remember(struct recovery *r, struct span record)
{
	uint64_t hash = XXH3_64bits(record.data, record.size);
	uint8_t *copy;

	for (size_t i = 0; i < r->count; i++)
		if (r->statements[i].hash == hash)
			return;
	if (r->count == r->capacity) {
		size_t capacity = r->capacity ? r->capacity * 2 : 64;
		struct statement_found *grown = realloc(r->statements, capacity * sizeof(*grown));

		if (!grown)
			return;
		r->statements = grown;
		r->capacity = capacity;
	}
	copy = malloc(record.size ? record.size : 1);
	if (!copy)
		return;
	memcpy(copy, record.data, record.size);
	r->statements[r->count++] = (struct statement_found){hash, span_of(copy, record.size)};
}

/* Counts what is open in the file. 0, or −EINVAL: it is no journal. */
static int count_entries(struct recovery *r, struct journal_file *f, enum side *ret_side, struct recovery_found *found)
{
	struct span bytes = span_of(f->base, f->size);
	const struct journal_head *head;
	const struct journal_entry *e;
	const char *why;
	size_t at = 0;
	bool torn;

	if (journal_head_read(bytes, &head, &why) < 0 || head->side >= SIDES) {
		/* A spare that was never begun has no head. */
		bool empty = f->base[0] == 0;

		if (!empty)
			log_error("mirror", "the journal file %s cannot be read: %s", f->name, why);
		return empty ? 0 : -EINVAL;
	}
	f->salt = head->salt;
	f->sequence = head->sequence;
	f->epoch = head->epoch;
	f->barrier_ticket = UINT64_MAX;
	*ret_side = (enum side)head->side;
	while ((e = journal_next(bytes, &at, &torn))) {
		enum journal_state state = journal_state(e);
		struct journal_entry *mine = (struct journal_entry *)e;

		/* That it was sent may not have reached the disk before the node went down; a counter is not sent twice. What is to be
		 * compared may turn out to be one. */
		if (found->node_restarted && state == ENTRY_QUEUED && (journal_kind(e) == ENTRY_COUNT || journal_kind(e) == ENTRY_ROWS))
			state = ENTRY_SENT;
		if (mine->state != state) /* a store makes the page dirty */
			mine->state = (uint8_t)state;
		if (journal_kind(e) == ENTRY_PREPARED)
			remember(r, journal_body(e));
		else if (state != ENTRY_DONE) {
			f->open++;
			if (journal_kind(e) == ENTRY_BARRIER) {
				f->barrier_ticket = (uint64_t)e->timestamp;
				found->barriers++;
			}
			if (state == ENTRY_QUEUED)
				found->queued++;
			else
				found->in_doubt++;
		}
	}
	f->spilled = f->open;
	f->used = at;
	f->scan = sizeof(*head);
	found->bytes += at;
	found->torn += torn;
	if (torn)
		log_warn("mirror", "the journal file %s ends at byte %zu in something that is not an entry; what may have stood there "
				   "had not been synced when the node went down",
			 f->name, at);
	return 0;
}

static int adopt(struct recovery *r, int from, const char *old, struct recovery_found *found, struct error *error)
{
	struct journal_file *f;
	enum side side = TARGET;
	uint64_t epoch;
	char name[LIFE_NAME], damaged[LIFE_NAME + 16];
	int e;

	snprintf(name, sizeof(name), "%06llu.journal", (unsigned long long)atomic_fetch_add(&r->all->names, 1));
	if (renameat(from, old, r->own, name) < 0)
		return error_set(error, -errno, "cannot move the journal file %s: %s", old, strerror(errno));
	e = journal_file_open(r->own, name, &f, error);
	if (e == -EINVAL) /* too short to be anything */
		return unlinkat(r->own, name, 0), 0;
	if (e < 0)
		return e;
	found->files++;
	if (count_entries(r, f, &side, found) < 0) {
		snprintf(damaged, sizeof(damaged), "%s.damaged", name);
		renameat(r->own, name, r->root, damaged);
		found->damaged++;
		journal_file_free(f, -1);
		return 0;
	}
	if (f->open == 0) {
		journal_file_free(f, r->own);
		return 0;
	}
	epoch = f->barrier_ticket != UINT64_MAX && f->barrier_ticket > f->epoch ? f->barrier_ticket : f->epoch;
	if (epoch >= atomic_load(r->all->epoch))
		atomic_store(r->all->epoch, epoch + 1);
	if (!r->journal[side])
		r->journal[side] = journal_new_adopted(r->all, side);
	if (!r->journal[side]) {
		journal_file_free(f, -1);
		return error_set(error, -ENOMEM, "out of memory");
	}
	journal_adopt(r->journal[side], f);
	return 0;
}

/* ---- lives */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static bool is_journal(const char *name)
{
	size_t n = strlen(name);

	return n > 8 && n < LIFE_NAME && strcmp(name + n - 8, ".journal") == 0;
}

/* Takes over a directory whose life has ended. */
static int adopt_life(struct recovery *r, const char *name, struct recovery_found *found, struct error *error)
{
	int directory = openat(r->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), lock = -1, count, e = 0;
	struct dirent **list = NULL;

	if (directory < 0)
		return 0; /* a file, or somebody else was faster */
	lock = openat(directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		goto out; /* alive */
	found->lives++;
	read_mark(directory, r->boot, found);
	count = scandirat(directory, ".", &list, NULL, by_name);
	for (int i = 0; i < count; i++) {
		if (e == 0 && is_journal(list[i]->d_name))
			e = adopt(r, directory, list[i]->d_name, found, error);
		free(list[i]);
	}
	free(list);
	if (e == 0) {
		unlinkat(directory, "synced", 0);
		unlinkat(directory, "lock", 0);
		unlinkat(r->root, name, AT_REMOVEDIR);
	}
out:
	if (lock >= 0)
		close(lock);
	close(directory);
	return e;
}

static int begin_life(struct recovery *r, struct error *error)
{
	snprintf(r->name, sizeof(r->name), "%016llx-%d", (unsigned long long)clock_wall_us(), (int)getpid());
	if (mkdirat(r->root, r->name, 0700) < 0)
		return error_set(error, -errno, "cannot make a directory for the journal: %s", strerror(errno));
	r->own = openat(r->root, r->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->own < 0)
		return error_set(error, -errno, "cannot open the journal's directory: %s", strerror(errno));
	r->lock = openat(r->own, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	r->mark = openat(r->own, "synced", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->lock < 0 || r->mark < 0 || flock(r->lock, LOCK_EX | LOCK_NB) < 0)
		return error_set(error, -errno, "cannot lock the journal's directory: %s", strerror(errno));
	r->all->directory = r->own;
	return 0;
}

static int adopt_all(struct recovery *r, struct recovery_found *found, struct error *error)
{
	struct dirent **list = NULL;
	int count = scandirat(r->root, ".", &list, NULL, by_name), e = 0;

	for (int i = 0; i < count; i++) {
		if (e == 0 && list[i]->d_name[0] != '.' && strcmp(list[i]->d_name, r->name) != 0)
			e = adopt_life(r, list[i]->d_name, found, error);
		free(list[i]);
	}
	free(list);
	return e;
}

int recovery_open(const char *state_directory, enum journal_sync sync, struct journals *all, struct recovery **ret,
		  struct recovery_found *found, struct error *error)
{
	struct recovery *r = calloc(1, sizeof(*r));
	uint64_t began = clock_now_ns();
	char path[4096];
	int e;

	*found = (struct recovery_found){0};
	if (!r)
		return error_set(error, -ENOMEM, "out of memory");
	r->all = all;
	r->root = r->own = r->lock = r->mark = -1;
	all->directory = -1;
	*ret = r;
	if (!state_directory[0] || sync == JOURNAL_MEMORY)
		return 0;
	read_boot(r->boot);
	snprintf(path, sizeof(path), "%s/journal", state_directory);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make %s: %s", path, strerror(errno));
	r->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->root < 0)
		return error_set(error, -errno, "cannot open %s: %s", path, strerror(errno));
	e = begin_life(r, error);
	if (e == 0)
		e = adopt_all(r, found, error);
	found->nanoseconds = clock_now_ns() - began;
	return e < 0 ? e : recovery_mark(r, clock_wall_us()) < 0 ? error_set(error, -EIO, "cannot write to %s", path) : 0;
}

int recovery_look(struct recovery *r, struct recovery_found *found, struct error *error)
{
	uint64_t began = clock_now_ns();
	int e = r->root >= 0 ? adopt_all(r, found, error) : 0;

	found->nanoseconds = clock_now_ns() - began;
	return e;
}

void recovery_statements(struct recovery *r, struct prepared_map *map)
{
	for (size_t i = 0; i < r->count; i++) {
		prepared_map_restore(map, r->statements[i].record);
		free((void *)r->statements[i].record.data);
	}
	free(r->statements);
	r->statements = NULL;
	r->count = r->capacity = 0;
}

struct journal *recovery_take(struct recovery *r, enum side side)
{
	struct journal *j = r->journal[side];

	r->journal[side] = NULL;
	return j;
}

void recovery_close(struct recovery *r)
{
	if (!r)
		return;
	for (int side = 0; side < SIDES; side++)
		journal_free(r->journal[side]);
	for (size_t i = 0; i < r->count; i++)
		free((void *)r->statements[i].record.data);
	free(r->statements);
	if (r->own >= 0) {
		struct dirent **list = NULL;
		int count = scandirat(r->own, ".", &list, NULL, NULL), files = 0;

		for (int i = 0; i < count; i++) {
			files += is_journal(list[i]->d_name);
			free(list[i]);
		}
		free(list);
		if (files == 0) {
			unlinkat(r->own, "synced", 0);
			unlinkat(r->own, "lock", 0);
			unlinkat(r->root, r->name, AT_REMOVEDIR);
		}
	}
	if (r->mark >= 0)
		close(r->mark);
	if (r->lock >= 0)
		close(r->lock);
	if (r->own >= 0)
		close(r->own);
	if (r->root >= 0)
		close(r->root);
	free(r);
}
