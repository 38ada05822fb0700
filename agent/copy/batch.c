// SPDX-License-Identifier: Apache-2.0
/*
 * Batches: which rows go together, and what becomes of them. All rows of a batch lie with the same replicas,
 * so that the node that gets it is one of them for all.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "copy/import_priv.h"
#include "cql/request.h"

#define BATCH_BYTES                                                                              \
	(32u << 10)		/* servers refuse batches over several partitions from 50 KiB on \
				   (batch_size_fail_threshold) */
#define READY_MIN 64u		/* below so many batches that wait to be sent another chunk is taken */
#define BACKOFF_NS 250000000ull /* before the second attempt; doubled for each further one */

enum { BATCH_UNLOGGED = 1, BATCH_COUNTER = 2 };

static const struct chunk_row *row_of(const struct batch *b, uint32_t i)
{
	return &b->chunk->rows[b->chunk->order[b->first + i]];
}

static struct span values_of(const struct batch *b, uint32_t i)
{
	const struct chunk_row *row = row_of(b, i);

	return span_of(b->chunk->values.data + row->values_at, row->values_size);
}

/* ------------------------------------------------------------- sending */

static void put_child(struct bytes *e, const struct import *im, struct span id, struct span values, bool text)
{
	bytes_u8(e, !text);
	if (text) {
		bytes_u32(e, (uint32_t)values.size);
		bytes_put(e, values.data, values.size);
		bytes_u16(e, 0);
		return;
	}
	bytes_u16(e, (uint16_t)id.size);
	bytes_put(e, id.data, id.size);
	bytes_u16(e, (uint16_t)im->bind_count);
	bytes_put(e, values.data, values.size);
}

static uint8_t encode(struct batch *b, struct bytes *e, struct span id)
{
	const struct import *im = b->owner->import;
	const struct plan *p = im->plan;
	bool text = !p->options->preparedstatements && !p->counters;
	uint8_t opcode = OP_BATCH;

	if (b->count > 1) {
		bytes_u8(e, p->counters ? BATCH_COUNTER : BATCH_UNLOGGED);
		bytes_u16(e, (uint16_t)b->count);
		for (uint32_t i = 0; i < b->count; i++)
			put_child(e, im, id, values_of(b, i), text);
		bytes_u16(e, p->consistency);
		bytes_u8(e, p->counters ? 0 : QUERY_TIMESTAMP);
	} else if (text) {
		opcode = OP_QUERY;
		bytes_u32(e, (uint32_t)values_of(b, 0).size);
		bytes_put(e, values_of(b, 0).data, values_of(b, 0).size);
		bytes_u16(e, p->consistency);
		bytes_u8(e, QUERY_TIMESTAMP);
	} else {
		opcode = OP_EXECUTE;
		bytes_u16(e, (uint16_t)id.size);
		bytes_put(e, id.data, id.size);
		bytes_u16(e, p->consistency);
		bytes_u8(e, QUERY_VALUES | QUERY_SKIP_METADATA | (p->counters ? 0 : QUERY_TIMESTAMP));
		bytes_u16(e, (uint16_t)im->bind_count);
		bytes_put(e, values_of(b, 0).data, values_of(b, 0).size);
	}
	/* The client's clock: another attempt writes the same cells, not newer ones. */
	if (!p->counters)
		bytes_u64(e, (uint64_t)clock_wall_us());
	return opcode;
}

static int batch_start(struct lane_request *lane, struct channel *c)
{
	struct batch *b = (struct batch *)lane;
	struct bytes *e = &b->owner->envelope;
	uint8_t opcode;
	int rc;

	e->size = 0;
	bytes_put(e, "\0\0\0\0\0\0\0\0\0", FRAME_HEADER_SIZE);
	opcode = encode(b, e, channel_prepared_id(c));
	if (e->failed) {
		e->failed = false;
		return -ENOMEM;
	}
	frame_header_write(e->data, &(struct frame_header){.version = 4,
							   .opcode = opcode,
							   .length = (uint32_t)e->size - FRAME_HEADER_SIZE});
	b->lane.request.deadline_ns =
	    clock_now_ns() + (uint64_t)b->owner->import->plan->options->requesttimeout * 1000000000u;
	rc = channel_send(c, &b->lane.request, e->data, e->size);
	if (e->room > CHUNK_BYTES)
		bytes_done(e);
	return rc;
}

/* ------------------------------------------------------------- outcomes */

static struct batch *batch_new(struct import_worker *w);

static void batch_over(struct batch *b)
{
	struct import_worker *w = b->owner;

	b->next = w->spare;
	w->spare = b;
	if (--w->active == 0 || w->ready_count < READY_MIN)
		mover_wake(&w->worker);
}

static void batch_settled(struct batch *b)
{
	chunk_settle(b->owner->import, b->chunk, b->count);
	batch_over(b);
}

static void batch_rejected(struct batch *b, const char *reason, int size)
{
	struct import *im = b->owner->import;

	for (uint32_t i = 0; i < b->count; i++) {
		const struct chunk_row *row = row_of(b, i);
		struct input_row r = {.data = span_of(b->chunk->data.data + row->at, row->size),
				      .row = row->row,
				      .line = row->line,
				      .file = row->file};

		rejects_add(&im->rejects, &r, true, b->attempts + 1, reason, size);
	}
	b->chunk->rejected += b->count;
	batch_settled(b);
}

static void batch_later(struct batch *b)
{
	b->retry_ns = clock_now_ns() + (BACKOFF_NS << (b->attempts < 6 ? b->attempts : 5));
	b->attempts++;
	b->lane.turn++;
	b->next = b->owner->waiting;
	b->owner->waiting = b;
}

static void ready_put(struct import_worker *w, struct batch *b)
{
	b->next = NULL;
	*w->ready_end = b;
	w->ready_end = &b->next;
	w->ready_count++;
}

/* Row by row, so that the good ones get in. */
static void batch_split(struct batch *b)
{
	struct import_worker *w = b->owner;

	for (uint32_t i = 1; i < b->count; i++) {
		struct batch *one = batch_new(w);

		if (!one) {
			plan_fail(w->import->plan, -ENOMEM, "out of memory");
			break;
		}
		one->chunk = b->chunk;
		one->first = b->first + i;
		one->count = 1;
		one->lane.replicas = b->lane.replicas;
		ready_put(w, one);
	}
	b->count = 1;
	b->attempts = 0;
	ready_put(w, b);
	mover_wake(&w->worker);
}

/* `certain`: nothing of it was written. A counter that may have been added to is not added to again. */
static void batch_failed(struct batch *b, bool permanent, bool certain, const char *reason, int size)
{
	const struct plan *p = b->owner->import->plan;
	char text[400];

	if (atomic_load(&p->stop)) {
		batch_over(b); /* without an outcome: the mark stays before it */
		return;
	}
	if (p->counters && !certain) {
		batch_rejected(
		    b, text, snprintf(text, sizeof(text), "may have been added or not: %.*s", size, reason));
		return;
	}
	if (permanent && b->count > 1)
		batch_split(b);
	else if (permanent || b->attempts + 1 >= (unsigned)p->options->maxattempts)
		batch_rejected(b, reason, size);
	else
		batch_later(b);
}

static void on_failed(struct channel_request *r, int error)
{
	const char *reason = error == -ETIMEDOUT    ? "no answer in time (REQUESTTIMEOUT)"
			     : error == -ECONNRESET ? "the connection was lost"
						    : strerror(-error);

	batch_failed((struct batch *)r, false, !r->sent, reason, (int)strlen(reason));
}

static ssize_t on_answer(struct channel_request *r, const struct frame_header *head, struct span body,
			 bool whole)
{
	struct batch *b = (struct batch *)r;
	struct response_error e;
	int64_t skip;

	if (!whole)
		return 0;
	if (head->opcode == OP_RESULT) {
		atomic_fetch_add(&b->owner->import->written, b->count);
		batch_settled(b);
		return 0;
	}
	skip = response_prefix(head->flags, body);
	if (skip < 0 || head->opcode != OP_ERROR ||
	    response_error_parse(span_of(body.data + skip, body.size - (size_t)skip), &e) < 0) {
		batch_failed(b, false, false, "malformed answer", 16);
		return -EPROTO;
	}
	/* Rows of a batch lie with one replica, not in one partition: some may be written. */
	enum write_outcome outcome = error_write_outcome(e.code, b->count > 1);
	bool again = outcome != WRITE_REFUSED || e.code == CQL_UNAVAILABLE || e.code == CQL_BOOTSTRAPPING;

	batch_failed(b, !again, outcome != WRITE_UNKNOWN || e.code == CQL_OVERLOADED,
		     (const char *)e.message.data, (int)(e.message.size < 300 ? e.message.size : 300));
	return e.code == CQL_UNPREPARED ? -ESTALE : 0; /* a new connection prepares again */
}

/* ------------------------------------------------------------- making */

static struct batch *batch_new(struct import_worker *w)
{
	struct batch *b = w->spare;

	if (b)
		w->spare = b->next;
	else
		b = malloc(sizeof(*b));
	if (!b)
		return NULL;
	*b = (struct batch){.lane = {.request = {.answer = on_answer, .failed = on_failed},
				     .start = batch_start,
				     .turn = w->turn++},
			    .owner = w};
	w->active++;
	return b;
}

/* Rows order[first …] in batches of the size that the options and the server allow. */
static bool make_batches(struct import_worker *w, struct chunk *c, uint32_t first, uint32_t count,
			 const struct ring_replicas *replicas)
{
	uint32_t most = (uint32_t)w->import->plan->options->maxbatchsize;

	while (count) {
		struct batch *b = batch_new(w);
		size_t bytes = 0;

		if (!b)
			return false;
		b->chunk = c;
		b->first = first;
		if (replicas)
			b->lane.replicas = *replicas;
		while (b->count < count && b->count < most) {
			bytes += c->rows[c->order[first + b->count]].values_size;
			if (b->count && bytes > BATCH_BYTES)
				break;
			b->count++;
		}
		first += b->count;
		count -= b->count;
		ready_put(w, b);
	}
	return true;
}

struct by_node {
	const struct chunk_row *rows;
	const struct ring_replicas *replicas;
};

static unsigned first_replica(const struct by_node *n, uint32_t row)
{
	const struct ring_replicas *r = &n->replicas[n->rows[row].place];

	return r->count ? r->nodes[0] : 0;
}

static int compare_nodes(const void *a, const void *b, void *context)
{
	const struct by_node *n = context;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	unsigned node_x = first_replica(n, x), node_y = first_replica(n, y);

	if (node_x != node_y)
		return node_x < node_y ? -1 : 1;
	return (n->rows[x].row > n->rows[y].row) - (n->rows[x].row < n->rows[y].row);
}

/* As cqlsh does: ranges with enough rows by themselves, with all their replicas; the others by their first
 * replica. */
static bool chunk_batches(struct import_worker *w, struct chunk *c, unsigned good)
{
	const struct ring *ring = &w->import->plan->cluster.ring;
	unsigned least = (unsigned)w->import->plan->options->minbatchsize, kept = 0;
	struct by_node nodes = {.rows = c->rows, .replicas = ring->replicas};
	uint32_t *few;
	bool ok = true;

	if (ring->token_count == 0)
		return make_batches(w, c, 0, good, NULL);
	few = malloc((good ? good : 1) * sizeof(*few));
	if (!few)
		return false;
	/* Rows of large ranges move to the front, where batches find them; the few are put behind them
	 * afterwards. */
	unsigned large = 0;

	for (unsigned i = 0, end; i < good; i = end) {
		uint32_t place = c->rows[c->order[i]].place;

		for (end = i; end < good && c->rows[c->order[end]].place == place; end++)
			;
		if (end - i > least) {
			memmove(c->order + large, c->order + i, (end - i) * sizeof(*c->order));
			ok = ok && make_batches(w, c, large, end - i, &ring->replicas[place]);
			large += end - i;
		} else {
			memcpy(few + kept, c->order + i, (end - i) * sizeof(*few));
			kept += end - i;
		}
	}
	memcpy(c->order + large, few, kept * sizeof(*few));
	free(few);
	qsort_r(c->order + large, kept, sizeof(*c->order), compare_nodes, &nodes);
	for (unsigned i = large, end; i < good && ok; i = end) {
		unsigned node = first_replica(&nodes, c->order[i]);
		struct ring_replicas one = {.nodes = {(uint16_t)node}, .count = 1};

		for (end = i; end < good && first_replica(&nodes, c->order[end]) == node; end++)
			;
		ok = make_batches(w, c, i, end - i, &one);
	}
	return ok;
}

static void take_chunk(struct import_worker *w, struct chunk *c)
{
	unsigned good = rows_parse_chunk(w, c), bad = c->count - good;

	/* One row is held back, so that the chunk lives until its batches are made. */
	c->left++;
	c->rejected += bad;
	if (!chunk_batches(w, c, good))
		plan_fail(w->import->plan, -ENOMEM, "out of memory");
	chunk_settle(w->import, c, bad + 1);
}

bool import_turn(struct mover *worker, uint64_t now_ns)
{
	struct import_worker *w = (struct import_worker *)worker;
	bool stop = atomic_load(&worker->plan->stop), finished;
	struct batch **at = &w->waiting, *b;
	struct chunk *c;

	if (stop)
		return true;
	while ((b = *at)) {
		if (now_ns < b->retry_ns) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		ready_put(w, b);
	}
	while (w->active < 4 * READY_MIN && (c = chunk_take(w->import)))
		take_chunk(w, c);
	while ((b = w->ready)) {
		w->ready = b->next;
		if (!w->ready)
			w->ready_end = &w->ready;
		w->ready_count--;
		lanes_submit(worker->lanes, &b->lane);
	}
	pthread_mutex_lock(&w->import->lock);
	finished = w->import->finished && !w->import->queue;
	pthread_mutex_unlock(&w->import->lock);
	return finished && w->active == 0;
}

int import_worker_make(struct import_worker *w, struct import *im)
{
	w->import = im;
	w->ready_end = &w->ready;
	w->fields = calloc(im->field_count, sizeof(*w->fields));
	return w->fields ? 0 : -ENOMEM;
}

static void batches_free(struct batch *b)
{
	struct batch *next;

	for (; b; b = next) {
		next = b->next;
		free(b);
	}
}

void import_worker_free(struct import_worker *w)
{
	batches_free(w->spare);
	batches_free(w->ready);
	batches_free(w->waiting);
	bytes_done(&w->scratch);
	bytes_done(&w->envelope);
	free(w->fields);
}
