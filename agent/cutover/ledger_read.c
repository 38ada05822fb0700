/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/ledger_read.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cutover/ledger.h"
#include "cutover/ledger_spans.h"

#define BLOCK (64u << 10)

int ledger_filter_table(struct ledger_filter *f, const char *text)
{
	const char *dot = strchr(text, '.'), *table = dot ? dot + 1 : text;
	size_t size = dot ? (size_t)(dot - text) : 0;

	if (dot && strcmp(table, "*") == 0)
		table = "";
	if (size >= sizeof(f->keyspace) || strlen(table) >= sizeof(f->table) || (!size && !table[0]))
		return -EINVAL;
	memcpy(f->keyspace, text, size);
	f->keyspace[size] = 0;
	memcpy(f->table, table, strlen(table) + 1);
	return 0;
}

bool ledger_matches(const struct ledger_filter *f, const struct ledger_record *r)
{
	if (f->since_us && r->to_us && r->to_us < f->since_us)
		return false;
	if (f->cause[0] && strcmp(f->cause, r->cause) != 0 && strcmp(f->cause, ledger_kind_name(r->kind)) != 0)
		return false;
	if (f->keyspace[0] && r->keyspace[0] && strcmp(f->keyspace, r->keyspace) != 0)
		return false;
	return !f->table[0] || !r->table[0] || strcmp(f->table, r->table) == 0;
}

int ledger_lines(int fd, uint64_t *offset, size_t bytes, int (*line)(void *context, struct span line), void *context)
{
	uint8_t *block = malloc(BLOCK);
	uint64_t begin = *offset;
	size_t have = 0, at = 0;
	int r = 0;

	if (!block)
		return -ENOMEM;
	for (;;) {
		uint8_t *end = memchr(block + at, '\n', have - at);
		size_t size = end ? (size_t)(end + 1 - (block + at)) : have - at;
		ssize_t n;

		if (end || size > LEDGER_LINE_MAX) {
			*offset += size;
			r = line(context, span_of(block + at, size)) != 0;
			at += size;
			if (r || *offset - begin >= bytes) {
				r = 1;
				break;
			}
			continue;
		}
		memmove(block, block + at, size);
		have = size;
		at = 0;
		n = pread(fd, block + have, BLOCK - have, (off_t)(*offset + have));
		if (n <= 0) {
			if (n < 0 && errno == EINTR)
				continue;
			r = n < 0 ? -errno : 0;
			break;
		}
		have += (size_t)n;
	}
	free(block);
	return r;
}

static int file_open(const char *directory, const char *name, uint64_t *ret_inode, struct error *e)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		*ret_inode = 0;
		return -ENOENT;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		int code = -errno;

		if (fd >= 0)
			close(fd);
		return error_set(e, code, "cannot read %s: %s", path, strerror(-code));
	}
	*ret_inode = st.st_ino;
	return fd;
}

/* ---- pages */

struct page {
	const struct ledger_filter *filter;
	enum ledger_stage stage;
	unsigned left;
	bool passed; /* summaries: the lines behind them have begun */
	ledger_found found;
	void *context;
};

static int page_line(void *context, struct span line)
{
	struct page *p = context;
	struct ledger_record r;

	if (ledger_decode(line, &r) < 0)
		return 0;
	if (p->stage == LEDGER_SUMMARIES && r.type != LEDGER_SUMMARY && r.type != LEDGER_HEAD) {
		p->passed = true;
		return 1;
	}
	/* Begins are told by their end, or as what is open. */
	if (r.type != (p->stage == LEDGER_SUMMARIES ? LEDGER_SUMMARY : LEDGER_GAP) || !ledger_matches(p->filter, &r))
		return 0;
	p->found(p->context, &r);
	return --p->left == 0;
}

/* Both files as they belong together: a rotation between the two looks would hide one. */
static int begin(const char *directory, struct ledger_cursor *c, struct error *e)
{
	for (int i = 0; i < 5; i++) {
		uint64_t again;
		int current = file_open(directory, "gaps.log", &c->current, e), older, check;

		if (current < 0 && current != -ENOENT)
			return current;
		older = file_open(directory, "gaps.log.1", &c->older, e);
		check = file_open(directory, "gaps.log", &again, e);
		if (current >= 0)
			close(current);
		if (older >= 0)
			close(older);
		if (check >= 0)
			close(check);
		if (older < 0 && older != -ENOENT)
			return older;
		if (check >= 0 && again == c->current)
			return 0;
	}
	return error_set(e, -ENOENT, "there is no gap ledger in %s", directory);
}

/* The file that the cursor is in; −ENOENT: nothing is left in this stage. */
static int stage_open(const char *directory, const struct ledger_cursor *c, struct error *e)
{
	uint64_t wanted = c->stage == LEDGER_OLDER ? c->older : c->current, inode;
	static const char *const names[] = {"gaps.log", "gaps.log.1"};

	if (!wanted)
		return -ENOENT;
	for (int i = 0; i < 2; i++) {
		int fd = file_open(directory, names[i], &inode, e);

		if (fd < 0 && fd != -ENOENT)
			return fd;
		if (fd >= 0 && inode == wanted)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return error_set(e, -ESTALE, "the gap ledger was rotated while it was read; ask again");
}

int ledger_read(const char *directory, const struct ledger_filter *f, struct ledger_cursor *c, unsigned most, size_t bytes,
		ledger_found found, void *context, struct error *e)
{
	struct page p = {.filter = f, .left = most, .found = found, .context = context};

	if (c->stage == LEDGER_SUMMARIES && !c->current) {
		int r = begin(directory, c, e);

		if (r < 0)
			return r;
	}
	while (c->stage != LEDGER_READ) {
		uint64_t from = c->offset;
		int fd = stage_open(directory, c, e), r = 0;

		if (fd < 0 && fd != -ENOENT)
			return fd;
		if (fd >= 0) {
			p.stage = c->stage;
			r = ledger_lines(fd, &c->offset, bytes, page_line, &p);
			close(fd);
			if (r < 0)
				return error_set(e, r, "cannot read the gap ledger in %s: %s", directory, strerror(-r));
		}
		if (r == 1 && !p.passed)
			return 1;
		p.passed = false;
		bytes -= c->offset - from < bytes ? (size_t)(c->offset - from) : bytes;
		c->stage++;
		c->offset = 0;
		if (!bytes && c->stage != LEDGER_READ)
			return 1;
	}
	return 0;
}

/* ---- spans without the agent */

static int span_line(void *context, struct span line)
{
	struct ledger_record r;

	if (ledger_decode(line, &r) == 0)
		ledger_spans_follow(context, &r);
	return 0;
}

int ledger_read_spans(const char *directory, const struct ledger_filter *f, ledger_found found, void *context, struct error *e)
{
	static const char *const names[] = {"gaps.log.1", "gaps.log"};
	struct ledger_spans spans = {0};
	int r = 0, count = 0;

	for (int i = 0; i < 2 && r == 0; i++) {
		uint64_t inode, offset = 0;
		int fd = file_open(directory, names[i], &inode, e);

		if (fd == -ENOENT)
			continue;
		if (fd < 0) {
			r = fd;
			break;
		}
		r = ledger_lines(fd, &offset, SIZE_MAX, span_line, &spans);
		close(fd);
		if (r < 0)
			error_set(e, r, "cannot read %s/%s: %s", directory, names[i], strerror(-r));
	}
	for (struct ledger_span *s = spans.first; s && r == 0; s = s->next) {
		if (!ledger_matches(f, &s->record))
			continue;
		found(context, &s->record);
		count++;
	}
	ledger_spans_clear(&spans);
	return r < 0 ? r : count;
}
