/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's files: opening and what an earlier agent left, appending, rotation, sync, the sign of life. Formats: ledger.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/durable.h"
#include "cutover/ledger_alive.h"
#include "cutover/ledger_priv.h"
#include "cutover/ledger_read.h"

#define MARGIN_US 2000000 /* a worker's count may be under way so long: its tick, and ours */

/* ---- appending */

static void count_in(struct ledger_sums *sums, const struct ledger_record *r)
{
	struct ledger_record one = *r;

	if (r->type != LEDGER_GAP)
		return;
	one.count = ledger_weight(r);
	ledger_sums_add(sums, &one);
}

static void lose(struct ledger *l, int64_t at_us)
{
	if (!l->lost++)
		l->lost_from_us = at_us;
	l->lost_total++;
}

static int write_out(struct ledger *l)
{
	size_t at = 0;
	int r = 0;

	while (at < l->out_used && r == 0) {
		ssize_t n = write(l->fd, l->out + at, l->out_used - at);

		if (n > 0)
			at += (size_t)n;
		else if (n == 0 || errno != EINTR)
			r = n == 0 ? -ENOSPC : -errno;
	}
	memmove(l->out, l->out + at, l->out_used - at);
	l->out_used -= at;
	l->size += at;
	l->dirty |= at > 0;
	return r;
}

void ledger_append(struct ledger *l, const struct ledger_record *r)
{
	int n;

	if (l->out_used + LEDGER_LINE_MAX > LEDGER_OUT_MAX && write_out(l) < 0) {
		lose(l, r->to_us ? r->to_us : r->from_us);
		return;
	}
	n = ledger_encode(r, l->out + l->out_used);
	if (n < 0) {
		lose(l, r->to_us ? r->to_us : r->from_us);
		return;
	}
	l->out_used += (size_t)n;
	count_in(&l->current, r);
}

void ledger_write_windows(struct ledger *l, int64_t now_us)
{
	/* A disk that is full: the window goes on, it is bounded by itself. */
	if (!l || write_out(l) < 0)
		return;
	for (unsigned i = 0; i < l->window.count; i++) {
		l->window.item[i].type = LEDGER_GAP;
		ledger_append(l, &l->window.item[i]);
	}
	ledger_sums_clear(&l->window);
	l->window_us = 0;
	if (write_out(l) == 0)
		l->written_us = now_us - MARGIN_US;
}

static int64_t latest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* ---- a new file */

static int head_write(int fd, int64_t now_us)
{
	struct ledger_record head = {.type = LEDGER_HEAD, .version = LEDGER_VERSION, .from_us = now_us};
	char line[LEDGER_LINE_MAX];
	int n = ledger_encode(&head, line);

	if (n < 0)
		return n;
	errno = 0;
	return write(fd, line, (size_t)n) == n ? n : errno ? -errno : -ENOSPC;
}

static int record_write(int fd, const struct ledger_record *r, size_t *size)
{
	char line[LEDGER_LINE_MAX];
	int n = ledger_encode(r, line);

	if (n < 0)
		return n;
	*size += (size_t)n;
	errno = 0;
	return write(fd, line, (size_t)n) == n ? 0 : errno ? -errno : -ENOSPC;
}

struct paths {
	char log[PATH_MAX + 16], older[PATH_MAX + 16], fresh[PATH_MAX + 16], alive[PATH_MAX + 16];
};

static void paths_of(const char *directory, struct paths *p)
{
	snprintf(p->log, sizeof(p->log), "%s/gaps.log", directory);
	snprintf(p->older, sizeof(p->older), "%s/gaps.log.1", directory);
	snprintf(p->fresh, sizeof(p->fresh), "%s/gaps.log.new", directory);
	snprintf(p->alive, sizeof(p->alive), "%s/gaps.alive", directory);
}

/* The file's beginning: summaries of what will be dropped with gaps.log.1, and the open spans. */
static int fresh_write(struct ledger *l, int fd, const struct ledger_sums *dropped, int64_t now_us, size_t *size)
{
	int r = head_write(fd, now_us);

	if (r > 0) {
		*size = (size_t)r;
		r = 0;
	}
	for (unsigned i = 0; i < dropped->count && r == 0; i++)
		r = record_write(fd, &dropped->item[i], size);
	for (struct ledger_span *s = l->spans.first; s && r == 0; s = s->next) {
		struct ledger_record begin = s->record;

		begin.type = LEDGER_BEGIN;
		begin.to_us = 0;
		if (s->begun)
			r = record_write(fd, &begin, size);
	}
	return r == 0 && fsync(fd) < 0 ? -errno : r;
}

static int rotate(struct ledger *l, int64_t now_us)
{
	struct ledger_sums *dropped = malloc(sizeof(*dropped));
	struct paths p;
	size_t size = 0;
	int fd = -1, r = dropped ? 0 : -ENOMEM;

	paths_of(l->directory, &p);
	if (r == 0) {
		*dropped = l->dropped;
		ledger_sums_merge(dropped, &l->older);
		fd = open(p.fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
		r = fd < 0 ? -errno : fresh_write(l, fd, dropped, now_us, &size);
	}
	/* The old one must be whole before it is only kept, not written. */
	if (r == 0 && (fsync(l->fd) < 0 || rename(p.log, p.older) < 0))
		r = -errno;
	else if (r == 0 && rename(p.fresh, p.log) < 0) {
		r = -errno;
		if (rename(p.older, p.log) < 0) /* the next start finds .new */
			r = -errno;
	}
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		free(dropped);
		return r;
	}
	durable_directory(l->directory);
	close(l->fd);
	l->fd = fd;
	l->size = size;
	l->dropped = *dropped;
	l->older = l->current;
	ledger_sums_clear(&l->current);
	free(dropped);
	return 0;
}

int ledger_tick(struct ledger *l, int64_t now_us)
{
	int r;

	if (!l)
		return 0;
	if (!l->window_us && l->window.count)
		l->window_us = now_us;
	if (l->lost && l->out_used + 2 * LEDGER_LINE_MAX <= LEDGER_OUT_MAX) {
		struct ledger_record r_lost = {.type = LEDGER_GAP, .kind = LEDGER_LOST, .count = l->lost, .from_us = l->lost_from_us,
					       .to_us = now_us, .cause = "disk full", .missing_on_origin = l->missing_on_origin};

		l->lost = 0;
		ledger_append(l, &r_lost);
	}
	if (!l->window.count || now_us - l->window_us >= LEDGER_WINDOW_US || now_us < l->window_us)
		ledger_write_windows(l, now_us);
	r = write_out(l);
	if (r == 0 && l->size >= l->limit && !l->syncing)
		r = rotate(l, now_us);
	return r;
}

/* ---- the sign of life */

static void alive_fill(struct ledger *l, struct ledger_sync *s, bool clean, int64_t settled_us, int64_t now_us)
{
	struct ledger_alive a = {.sequence = ++l->sequence, .backlog = l->backlog, .alive_us = now_us, .since_us = l->since_us,
			  .mirrored = l->mirrored, .clean = clean, .missing_on_origin = l->missing_on_origin};

	a.settled_us = s->settled_us = settled_us;
	memcpy(a.boot, l->boot, sizeof(a.boot));
	ledger_alive_encode(&a, s->slot);
	s->at = (off_t)(a.sequence % 2) * LEDGER_SLOT;
	s->alive = true;
	l->alive_us = now_us;
}

bool ledger_sync_begin(struct ledger *l, struct ledger_sync *s, uint64_t backlog, int64_t now_us)
{
	if (!l || l->syncing)
		return false;
	*s = (struct ledger_sync){.fd = l->fd, .alive_fd = l->alive_fd, .log = l->dirty};
	l->backlog = backlog;
	if (now_us - l->alive_us >= LEDGER_ALIVE_US || now_us < l->alive_us)
		alive_fill(l, s, false, latest(l->settled_us, l->written_us), now_us);
	l->syncing = s->log || s->alive;
	l->dirty = false;
	return l->syncing;
}

void ledger_sync_run(struct ledger_sync *s)
{
	/* First the lines, then the sign that they are there. */
	if (s->log && fdatasync(s->fd) < 0)
		s->result = -errno;
	if (s->alive && s->result == 0) {
		errno = 0;
		if (pwrite(s->alive_fd, s->slot, LEDGER_SLOT, s->at) != LEDGER_SLOT)
			s->result = errno ? -errno : -ENOSPC;
		else if (fdatasync(s->alive_fd) < 0)
			s->result = -errno;
	}
}

int ledger_sync_end(struct ledger *l, struct ledger_sync *s)
{
	l->syncing = false;
	if (s->result < 0)
		l->dirty = true;
	else if (s->alive)
		l->settled_us = s->settled_us;
	return s->result;
}

void ledger_alive_now(struct ledger *l, int64_t now_us)
{
	struct ledger_sync s;

	/* Not synced, hence with what was settled before: good against a crash at once, against a power failure a second later. */
	alive_fill(l, &s, false, l->settled_us, now_us);
	l->alive_us -= LEDGER_ALIVE_US; /* the next sync writes it again, whether or not this works */
	if (pwrite(l->alive_fd, s.slot, LEDGER_SLOT, s.at) == LEDGER_SLOT)
		l->dirty = true;
}

/* ---- opening */

struct scan {
	struct ledger *l;
	struct ledger_sums *sums;
	bool summaries;  /* those of this file count */
	unsigned damaged, bad; /* lines; bad ones behind the last good one are no damage but a torn end */
	uint32_t version;
	uint64_t at, good; /* bytes; behind the last good line */
};

static int scan_line(void *context, struct span line)
{
	struct scan *s = context;
	struct ledger_record r;
	int e = ledger_decode(line, &r);

	s->at += line.size;
	if (e == -EBADMSG) {
		s->bad++;
		return 0;
	}
	s->damaged += s->bad;
	s->bad = 0;
	s->good = s->at;
	if (e < 0)
		return 0;
	if (r.type == LEDGER_HEAD && r.version > s->version)
		s->version = r.version;
	if (r.type == LEDGER_SUMMARY && s->summaries)
		ledger_sums_add(&s->l->dropped, &r);
	count_in(s->sums, &r);
	ledger_spans_follow(&s->l->spans, &r);
	if (r.id > s->l->last_id)
		s->l->last_id = r.id;
	return 0;
}

static int scan_file(struct ledger *l, int fd, struct ledger_sums *sums, bool summaries, struct scan *ret)
{
	uint64_t offset = 0;

	*ret = (struct scan){.l = l, .sums = sums, .summaries = summaries};
	return ledger_lines(fd, &offset, SIZE_MAX, scan_line, ret);
}

static int open_log(struct ledger *l, const struct paths *p, struct ledger_opened *o, int64_t now_us, struct error *e)
{
	struct scan scan = {0};
	struct stat st;
	int fd, r;

	/* A rotation that was interrupted between its two renames. */
	if (access(p->log, F_OK) < 0 && errno == ENOENT && rename(p->fresh, p->log) < 0 && errno != ENOENT)
		return error_set(e, -errno, "cannot rename %s: %s", p->fresh, strerror(errno));
	unlink(p->fresh);
	fd = open(p->older, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno != ENOENT)
		return error_set(e, -errno, "cannot read %s: %s", p->older, strerror(errno));
	if (fd >= 0) {
		r = scan_file(l, fd, &l->older, access(p->log, F_OK) < 0, &scan);
		close(fd);
		if (r < 0)
			return error_set(e, r, "cannot read %s: %s", p->older, strerror(-r));
		o->damaged += scan.damaged;
	}
	l->fd = open(p->log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->fd < 0 || fstat(l->fd, &st) < 0)
		return error_set(e, -errno, "cannot open %s: %s. Make state.directory writable, or choose another", p->log,
				 strerror(errno));
	r = scan_file(l, l->fd, &l->current, true, &scan);
	if (r < 0)
		return error_set(e, r, "cannot read %s: %s", p->log, strerror(-r));
	if (scan.version > LEDGER_VERSION)
		return error_set(e, -EPROTONOSUPPORT, "%s was written by a newer cqlferry (format %u, this one knows %u). Use that one, or move "
						      "the file away and keep it", p->log, scan.version, LEDGER_VERSION);
	/* Behind the last good line is what a crash left half-way. */
	o->torn = (size_t)((uint64_t)st.st_size - scan.good);
	if (o->torn && ftruncate(l->fd, (off_t)scan.good) < 0)
		return error_set(e, -errno, "cannot cut the torn end off %s: %s", p->log, strerror(errno));
	o->damaged += scan.damaged; /* they stay where they are */
	l->size = scan.good;
	l->dirty = true;
	if (!l->size) {
		r = head_write(l->fd, now_us);
		if (r < 0)
			return error_set(e, r, "cannot write %s: %s. Free space or choose another state.directory", p->log, strerror(-r));
		l->size = (uint64_t)r;
		durable_directory(l->directory);
	}
	return 0;
}

static void boot_read(char *boot, size_t size)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, boot, size - 1) : 0;

	if (fd >= 0)
		close(fd);
	boot[n > 0 ? n : 0] = 0;
	boot[strcspn(boot, " \n")] = 0;
}

/* What the agent before us left: was it away without a word, and which of its spans are over? */
static void inherit(struct ledger *l, const struct ledger_alive *a, struct ledger_opened *o, const struct ledger_options *options)
{
	int64_t now_us = options->now_us;
	bool kept, rebooted = strcmp(a->boot, l->boot[0] ? l->boot : "-") != 0;

	l->sequence = a->sequence;
	l->since_us = a->since_us;
	l->mirrored = a->mirrored;
	l->missing_on_origin = a->missing_on_origin;
	l->alive_us = a->alive_us;
	l->settled_us = a->settled_us;
	ledger_spans_orphaned(l, rebooted, a->clean, now_us);
	if (a->clean || !a->since_us)
		return;
	kept = options->journaled && !rebooted;
	struct ledger_record down = {.type = LEDGER_GAP, .kind = LEDGER_DOWN, .from_us = latest(a->settled_us, a->since_us), .to_us = now_us,
				     .approximate = true, .backlog = a->backlog, .missing_on_origin = a->missing_on_origin};

	if (rebooted && options->synced_us && options->synced_us < down.from_us)
		down.from_us = options->synced_us;
	if (down.from_us > now_us) /* the clock was set back */
		down.from_us = a->since_us < now_us ? a->since_us : now_us;
	snprintf(down.cause, sizeof(down.cause), "%s", kept ? LEDGER_CAUSE_KEPT : rebooted ? "node restarted" : "agent ended without notice");
	if (!kept)
		o->down_from_us = down.from_us;
	ledger_append(l, &down);
}

static void discard(struct ledger *l)
{
	if (l->fd >= 0)
		close(l->fd);
	if (l->alive_fd >= 0)
		close(l->alive_fd);
	ledger_spans_clear(&l->spans);
	free(l->out);
	free(l);
}

int ledger_open(const struct ledger_options *options, struct ledger **ret, struct ledger_opened *ret_opened, struct error *e)
{
	struct ledger_opened opened = {0};
	struct ledger_sync first = {0};
	struct ledger_alive alive = {0};
	struct ledger *l;
	struct paths p;
	int r;

	if (!options->directory[0]) {
		*ret = NULL;
		return 0;
	}
	if (strlen(options->directory) >= sizeof(l->directory))
		return error_set(e, -ENAMETOOLONG, "state.directory is too long");
	if (mkdir(options->directory, 0700) < 0 && errno != EEXIST)
		return error_set(e, -errno, "cannot make the state directory %s: %s", options->directory, strerror(errno));
	l = calloc(1, sizeof(*l));
	if (!l || !(l->out = malloc(LEDGER_OUT_MAX))) {
		free(l);
		return error_set(e, -ENOMEM, "out of memory");
	}
	memcpy(l->directory, options->directory, strlen(options->directory) + 1);
	l->fd = l->alive_fd = -1;
	l->limit = options->limit ? options->limit : LEDGER_LIMIT;
	if (options->boot)
		snprintf(l->boot, sizeof(l->boot), "%s", options->boot);
	else
		boot_read(l->boot, sizeof(l->boot));
	paths_of(l->directory, &p);
	r = open_log(l, &p, &opened, options->now_us, e);
	if (r < 0)
		goto fail;
	l->alive_fd = open(p.alive, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->alive_fd < 0) {
		r = error_set(e, -errno, "cannot open %s: %s", p.alive, strerror(errno));
		goto fail;
	}
	if (ledger_alive_read(l->alive_fd, &alive))
		inherit(l, &alive, &opened, options);
	r = write_out(l);
	if (r < 0) {
		error_set(e, r, "cannot write %s: %s. Free space or choose another state.directory", p.log, strerror(-r));
		goto fail;
	}
	/* From here on it counts as running; the gap found above is on disk first. */
	l->written_us = options->now_us;
	l->alive_us = 0;
	ledger_sync_begin(l, &first, 0, options->now_us);
	ledger_sync_run(&first);
	r = ledger_sync_end(l, &first);
	if (r < 0) {
		error_set(e, r, "cannot write %s: %s. Free space or choose another state.directory", p.alive, strerror(-r));
		goto fail;
	}
	*ret = l;
	if (ret_opened)
		*ret_opened = opened;
	return 0;
fail:
	discard(l);
	return r;
}

void ledger_close(struct ledger *l, int64_t now_us)
{
	struct ledger_sync last;

	if (!l)
		return;
	ledger_write_windows(l, now_us);
	last = (struct ledger_sync){.fd = l->fd, .alive_fd = l->alive_fd, .log = true};
	/* What the disk did not take makes it no clean end: the next agent puts it on record. */
	if (!l->out_used && !l->lost) {
		l->written_us = now_us;
		alive_fill(l, &last, true, now_us, now_us);
	}
	ledger_sync_run(&last);
	discard(l);
}
