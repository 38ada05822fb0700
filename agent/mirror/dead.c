/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/dead.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "mirror/missing.h"
#include "mirror/tap.h"

#define DEAD_FILE (1u << 20) /* bytes of the usual file; one letter may need a larger one */
#define SLOTS_MAX 256u       /* different prepared statements in one batch: those with more are not journaled at all (tap.c) */
#define SEEN 1024u           /* statements whose text a file is known to have; a power of two */

/* What is being written for one cluster. */
struct tail {
	struct journal_file *file;
	uint64_t seen[SEEN]; /* hashes of ids; 0 = free */
	unsigned seen_count;
};

struct dead {
	pthread_mutex_t lock;
	int directory;
	size_t share, bytes; /* for files; of files */
	uint64_t letters, unkept, names, began_us;
	struct journal_file *files; /* by sequence, which is their number; f->open = letters */
	struct tail tail[SIDES];
	bool told_full;
};

/* ---- reading */

const struct journal_entry *dead_letter_next(struct journal_reader *r, size_t *ret_at, struct dead_reason *ret_reason, int64_t *ret_at_us)
{
	const struct journal_entry *e;
	bool refused = false;

	while ((e = journal_reader_next(r, ret_at))) {
		struct span body = journal_body(e);

		if (journal_kind(e) == ENTRY_PREPARED)
			continue;
		if (journal_kind(e) == ENTRY_REFUSED) {
			refused = body.size == sizeof(*ret_reason);
			if (refused)
				memcpy(ret_reason, body.data, sizeof(*ret_reason));
			*ret_at_us = e->timestamp;
			continue;
		}
		if (refused && journal_state(e) == ENTRY_QUEUED)
			return e;
		refused = false;
	}
	return NULL;
}

static struct span bytes_of(const struct journal_file *f)
{
	return span_of(f->base, f->size);
}

static uint32_t count_letters(const struct journal_file *f)
{
	struct journal_reader r;
	struct dead_reason reason;
	const char *why;
	int64_t at_us;
	size_t at;
	uint32_t n = 0;

	if (journal_reader_open(&r, bytes_of(f), &why) < 0)
		return 0;
	while (dead_letter_next(&r, &at, &reason, &at_us))
		n++;
	journal_reader_done(&r);
	return n;
}

static bool matches(const struct dead_filter *f, const struct journal_reader *r, const struct journal_entry *e)
{
	struct journal_view v;

	if (!f->by_table)
		return true;
	journal_view_of(r, e, &v);
	return journal_view_touches(&v, f->table.keyspace, f->table.table);
}

/* ---- files */

static void forget_file(struct dead *d, struct journal_file *f)
{
	for (int side = 0; side < SIDES; side++)
		if (d->tail[side].file == f)
			d->tail[side].file = NULL;
	d->bytes -= f->size;
	journal_file_free(f, d->directory);
}

/* Files whose letters are all gone go, those that are being written excepted. */
static void sweep(struct dead *d)
{
	for (struct journal_file **at = &d->files; *at;) {
		struct journal_file *f = *at;

		if (f->open || f == d->tail[ORIGIN].file || f == d->tail[TARGET].file) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		forget_file(d, f);
	}
}

/* Nothing is added to it any more. */
static void seal(struct dead *d, struct tail *t)
{
	size_t before;

	if (!t->file)
		return;
	before = t->file->size;
	journal_file_trim(t->file);
	d->bytes -= before - t->file->size;
	journal_file_unmap(t->file);
	t->file = NULL;
}

static void append_file(struct dead *d, struct journal_file *f)
{
	struct journal_file **at = &d->files;

	while (*at)
		at = &(*at)->next;
	f->next = NULL;
	*at = f;
	d->bytes += f->size;
}

/* Another file for `side` with room for `need` bytes. */
static int begin_file(struct dead *d, enum side side, unsigned worker, size_t need)
{
	size_t usual = (d->share / 4 < DEAD_FILE ? d->share / 4 : DEAD_FILE) & ~(size_t)4095;
	size_t whole = sizeof(struct journal_head) + need + sizeof(struct journal_entry);
	size_t size = whole <= usual ? usual : (whole + 4095) & ~(size_t)4095;
	struct tail *t = &d->tail[side];
	struct journal_file *f;
	struct error error;
	char name[40];
	uint64_t salt = 0;
	int r;

	seal(d, t);
	if (d->bytes + size > d->share)
		return -ENOSPC;
	snprintf(name, sizeof(name), "dead-%014llx-%06llu.journal", (unsigned long long)d->began_us, (unsigned long long)d->names);
	r = journal_file_make(d->directory, name, size, &f, &error);
	if (r < 0) {
		if (!d->told_full)
			log_error("mirror", "writes that were refused for good cannot be kept: %s", error.text);
		d->told_full = true;
		return r;
	}
	flock(f->fd, LOCK_EX | LOCK_NB); /* until it is closed: ours */
	if (getrandom(&salt, sizeof(salt), GRND_NONBLOCK) != sizeof(salt))
		salt = clock_now_ns() * 0x9E3779B97F4A7C15u;
	journal_file_begin(f, salt, d->names++, worker, side, 0, clock_wall_us());
	append_file(d, f);
	t->file = f;
	memset(t->seen, 0, sizeof(t->seen));
	t->seen_count = 0;
	return 0;
}

static int open_file(struct dead *d, const char *name)
{
	struct journal_file *f;
	const struct journal_head *head;
	struct error error;
	const char *why;

	if (journal_file_open(d->directory, name, &f, &error) < 0) {
		log_warn("mirror", "dead letters: %s", error.text);
		return 0;
	}
	/* An agent that hands over to us still writes it; the next start takes it. */
	if (flock(f->fd, LOCK_EX | LOCK_NB) < 0) {
		d->bytes += f->size;
		journal_file_free(f, -1);
		return 0;
	}
	if (journal_head_read(bytes_of(f), &head, &why) < 0 || head->side >= SIDES) {
		/* The space is taken all the same, and a person may want to look at it. */
		log_warn("mirror", "dead letters: %s cannot be read (%s); it stays where it is", name, why);
		d->bytes += f->size;
		journal_file_free(f, -1);
		return 0;
	}
	f->salt = head->salt;
	f->sequence = d->names++;
	f->open = count_letters(f);
	if (f->open == 0) {
		journal_file_free(f, d->directory);
		return 0;
	}
	d->letters += f->open;
	journal_file_unmap(f);
	append_file(d, f);
	return 0;
}

int dead_open(const char *state_directory, size_t share, struct dead **ret, struct error *error)
{
	struct dead *d;
	struct dirent **list = NULL;
	char path[4096];
	int count;

	*ret = NULL;
	if (!state_directory[0])
		return 0;
	snprintf(path, sizeof(path), "%s/dead", state_directory);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "cannot make %s: %s", path, strerror(errno));
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(error, -ENOMEM, "out of memory");
	pthread_mutex_init(&d->lock, NULL);
	d->share = share > JOURNAL_FILE_MIN ? share : JOURNAL_FILE_MIN;
	d->began_us = (uint64_t)clock_wall_us();
	d->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->directory < 0) {
		int e = error_set(error, -errno, "cannot open %s: %s", path, strerror(errno));

		dead_close(d);
		return e;
	}
	count = scandirat(d->directory, ".", &list, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (strncmp(list[i]->d_name, "dead-", 5) == 0 && strlen(list[i]->d_name) < sizeof(((struct journal_file *)0)->name))
			open_file(d, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	*ret = d;
	return 0;
}

void dead_close(struct dead *d)
{
	if (!d)
		return;
	for (int side = 0; side < SIDES; side++)
		seal(d, &d->tail[side]);
	sweep(d);
	while (d->files) {
		struct journal_file *f = d->files;

		d->files = f->next;
		journal_file_free(f, -1);
	}
	if (d->directory >= 0)
		close(d->directory);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

struct dead_counts dead_count(struct dead *d)
{
	struct dead_counts c = {0};

	if (!d)
		return c;
	pthread_mutex_lock(&d->lock);
	c = (struct dead_counts){d->letters, d->bytes, d->unkept};
	pthread_mutex_unlock(&d->lock);
	return c;
}

/* A descriptor of a file that has to be synced; −1: there is none. */
static int take_dirty(struct dead *d)
{
	int fd = -1;

	pthread_mutex_lock(&d->lock);
	for (struct journal_file *f = d->files; f && fd < 0; f = f->next) {
		if (f->dirty)
			fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
		f->dirty &= fd < 0;
	}
	pthread_mutex_unlock(&d->lock);
	return fd;
}

void dead_sync(struct dead *d)
{
	int fd;

	while (d && (fd = take_dirty(d)) >= 0) {
		if (fdatasync(fd) < 0)
			log_error("mirror", "dead letters cannot be synced: %s", strerror(errno));
		close(fd);
	}
}

/* ---- keeping */

/* Written as every entry is: the state comes last. */
static void append(struct journal_file *f, const struct journal_entry *like, unsigned state, const void *keyspace, const void *body)
{
	struct journal_entry *e = journal_file_entry(f, f->used);
	size_t size = journal_entry_size(like->keyspace_size, like->body_size);

	if (f->used + size < f->size)
		f->base[f->used + size] = ENTRY_END;
	*e = *like;
	e->state = ENTRY_END;
	memcpy(e->data, keyspace, like->keyspace_size);
	if (body)
		memcpy(e->data + like->keyspace_size, body, like->body_size);
	e->check = journal_check(e, f->salt);
	__atomic_store_n(&e->state, (uint8_t)state, __ATOMIC_RELEASE);
	f->used += size;
	f->dirty = true;
}

/* Whether the tail's file has the statement; notes it. */
static bool seen(struct tail *t, const struct prepared_slot *slot)
{
	struct span id = prepared_slot_id(slot);
	uint64_t hash = XXH3_64bits(id.data, id.size) | 1;
	size_t i = hash % SEEN;

	for (; t->seen[i]; i = (i + 1) % SEEN)
		if (t->seen[i] == hash)
			return true;
	/* Twice in a file does no harm. */
	if (++t->seen_count > SEEN / 2) {
		memset(t->seen, 0, sizeof(t->seen));
		t->seen_count = 1;
		i = hash % SEEN;
	}
	t->seen[i] = hash;
	return false;
}

/* The prepared statements that a request executes, each once. */
static unsigned slots_of(struct worker *w, uint8_t version, uint8_t opcode, uint8_t header_flags, struct span body,
			 struct prepared_slot *slots[SLOTS_MAX])
{
	struct request q;
	struct batch_child child;
	struct span id;
	unsigned n = 0;

	if (opcode == OP_EXECUTE) {
		if (request_execute_id(header_flags, body, &id) == 0 && (slots[0] = prepared_find(w->prepared, id)))
			n = 1;
		return n;
	}
	if (opcode != OP_BATCH || request_parse(version, header_flags, opcode, body, &q) != 0)
		return 0;
	while (n < SLOTS_MAX && batch_next(version, &q.batch_children, &child) > 0) {
		struct prepared_slot *slot = child.prepared ? prepared_find(w->prepared, child.text) : NULL;
		unsigned i = 0;

		while (i < n && slots[i] != slot)
			i++;
		if (slot && i == n)
			slots[n++] = slot;
	}
	return n;
}

/* An id may be published between the measuring and the writing. */
static size_t statement_room(const struct prepared_slot *slot)
{
	return journal_entry_size(0, prepared_record(slot->prepared, NULL, 0) + SIDES * 2u * PREPARED_ID_MAX);
}

static void append_statement(struct journal_file *f, const struct prepared_slot *slot)
{
	struct journal_entry like = {.kind = ENTRY_PREPARED};
	size_t room = statement_room(slot) - sizeof(like), size;

	/* Its text goes straight to its place; what does not fit after all is left out, and the letter cannot be sent again. */
	size = prepared_record(slot->prepared, journal_file_entry(f, f->used)->data, room);
	if (size > room)
		return;
	like.body_size = (uint32_t)size;
	append(f, &like, ENTRY_DONE, "", NULL);
}

bool dead_keep(struct dead *d, struct worker *w, const struct record *r, int32_t code)
{
	struct prepared_slot *slots[SLOTS_MAX];
	const struct journal_entry *e = journal_file_entry(r->file, r->at);
	struct dead_reason reason = {code, r->attempts};
	struct journal_entry why = {.kind = ENTRY_REFUSED, .body_size = sizeof(reason), .timestamp = clock_wall_us()};
	struct journal_entry like = *e;
	size_t need = journal_entry_size(0, sizeof(reason)) + journal_entry_size(e->keyspace_size, e->body_size);
	unsigned count;
	struct tail *t;
	bool kept = false;

	if (!d)
		return false;
	why.now = (uint32_t)(why.timestamp / 1000000);
	count = slots_of(w, r->version, r->opcode, r->header_flags, record_body(r), slots);
	for (unsigned i = 0; i < count; i++)
		need += statement_room(slots[i]);
	pthread_mutex_lock(&d->lock);
	t = &d->tail[r->to];
	if ((t->file && t->file->used + need <= t->file->size) || begin_file(d, (enum side)r->to, w->index, need) == 0) {
		for (unsigned i = 0; i < count; i++)
			if (!seen(t, slots[i]))
				append_statement(t->file, slots[i]);
		append(t->file, &why, ENTRY_DONE, "", &reason);
		/* What was in doubt is a matter of its rows for good; what was only not understood is wanted as it is. */
		like.kind = (uint8_t)((e->kind & 0xF0) | (r->refused ? ENTRY_WRITE : r->entry));
		append(t->file, &like, ENTRY_QUEUED, e->data, e->data + e->keyspace_size);
		t->file->open++;
		d->letters++;
		kept = true;
	} else {
		d->unkept++;
	}
	pthread_mutex_unlock(&d->lock);
	return kept;
}

/* ---- sending again, and forgetting */

void dead_round_begin(struct dead *d, const struct dead_filter *f, struct dead_round *ret)
{
	*ret = (struct dead_round){.filter = *f};
	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	for (int side = 0; side < SIDES; side++)
		seal(d, &d->tail[side]);
	ret->end = d->names;
	pthread_mutex_unlock(&d->lock);
}

static void end_letter(struct dead *d, struct journal_file *f, const struct journal_entry *e)
{
	__atomic_store_n(&((struct journal_entry *)e)->state, ENTRY_DONE, __ATOMIC_RELEASE);
	f->dirty = true; /* after a crash of the node it would be sent again */
	f->open--;
	d->letters--;
}

/* Into the worker's journal, and into its queue. False: there is no room. */
static bool send_again(struct worker *w, enum side side, const struct journal_entry *e)
{
	static const uint8_t opcodes[] = {OP_QUERY, OP_EXECUTE, OP_BATCH, OP_QUERY};
	struct dispatch *dispatch = &((struct tap *)w->tap)->dispatch[side];
	struct prepared_slot *slots[SLOTS_MAX];
	char keyspace[CQL_NAME_MAX + 1] = "";
	struct journal_write j = {.kind = journal_kind(e), .statement = e->kind >> 4, .version = (uint8_t)(3 + (e->flags & 3)),
				  .opcode = opcodes[e->flags >> 2 & 3], .header_flags = e->flags & ENTRY_PAYLOAD ? FRAME_PAYLOAD : 0,
				  .pinned = e->flags & ENTRY_PINNED, .needs_keyspace = e->flags & ENTRY_KEYSPACE,
				  .serial = e->flags & ENTRY_SERIAL, .timestamp = e->timestamp, .now = e->now, .keyspace = keyspace,
				  .body = journal_body(e), .slots = slots};
	struct record *r;
	int error = 0;

	if (e->keyspace_size <= CQL_NAME_MAX)
		memcpy(keyspace, e->data, e->keyspace_size);
	j.slot_count = slots_of(w, j.version, j.opcode, j.header_flags, j.body, slots);
	do {
		r = journal_intent(dispatch->journal, &j, &error);
	} while (!r && dispatch_shrink(dispatch));
	if (!r)
		return false;
	if (j.opcode == OP_EXECUTE && j.slot_count)
		r->slot = prepared_use(slots[0]);
	r->cell = missing_cell(w, r);
	r->acknowledged_ns = record_since(r, w->turn_ns);
	journal_queued(r);
	dispatch_push(dispatch, r);
	return true;
}

static void replay_file(struct dead *d, struct worker *w, struct journal_file *f, struct dead_round *round)
{
	struct journal_reader r;
	struct dead_reason reason;
	const struct journal_entry *e;
	const char *why;
	size_t at, known = 0;
	int64_t at_us;

	if (journal_file_map(f) < 0)
		return;
	if (journal_reader_open(&r, bytes_of(f), &why) < 0)
		goto out;
	while ((e = dead_letter_next(&r, &at, &reason, &at_us))) {
		for (; known < r.text_count; known++)
			prepared_map_restore(w->relay->prepared, r.texts[known].record);
		if (!matches(&round->filter, &r, e))
			continue;
		if (journal_kind(e) == ENTRY_BARRIER) {
			round->barriers++;
		} else if (send_again(w, (enum side)r.head->side, e)) {
			end_letter(d, f, e);
			round->sent++;
		} else {
			round->kept++;
		}
	}
	journal_reader_done(&r);
out:
	journal_file_unmap(f);
}

bool dead_replay(struct dead *d, struct worker *w, struct dead_round *round)
{
	struct journal_file *f;

	if (!d)
		return false;
	pthread_mutex_lock(&d->lock);
	for (f = d->files; f && f->sequence < round->next; f = f->next)
		;
	if (f && f->sequence < round->end) {
		round->next = f->sequence + 1;
		replay_file(d, w, f, round);
		sweep(d);
	} else {
		round->next = round->end;
	}
	pthread_mutex_unlock(&d->lock);
	for (int side = 0; side < SIDES; side++)
		dispatch_flush(&((struct tap *)w->tap)->dispatch[side]);
	return round->next < round->end;
}

uint64_t dead_drop(struct dead *d, const struct dead_filter *filter)
{
	struct dead_round round;
	uint64_t dropped = 0;

	if (!d)
		return 0;
	dead_round_begin(d, filter, &round);
	pthread_mutex_lock(&d->lock);
	for (struct journal_file *f = d->files; f && f->sequence < round.end; f = f->next) {
		struct journal_reader r;
		struct dead_reason reason;
		const struct journal_entry *e;
		const char *why;
		int64_t at_us;
		size_t at;

		if (journal_file_map(f) < 0)
			continue;
		if (journal_reader_open(&r, bytes_of(f), &why) == 0) {
			while ((e = dead_letter_next(&r, &at, &reason, &at_us))) {
				if (!matches(filter, &r, e))
					continue;
				end_letter(d, f, e);
				dropped++;
			}
			journal_reader_done(&r);
		}
		journal_file_unmap(f);
	}
	sweep(d);
	pthread_mutex_unlock(&d->lock);
	return dropped;
}
