// SPDX-License-Identifier: Apache-2.0
/* One range after the other, page by page: see export.h. A scan lives on its worker's thread. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "copy/export_priv.h"
#include "cql/request.h"

#define FLUSH (256u << 10)
#define PAGE_FIT (192u << 10) /* what a page should be: rows differ in length, and FLUSH is not to be reached */
#define BACKOFF_NS 250000000ull /* before the second attempt; doubled for each further one */

enum scan_state { SCAN_IDLE, SCAN_ASKED, SCAN_WAITING /* for its time to try again */ };

struct scan {
	struct lane_request lane; /* first */
	struct export_worker *owner;
	enum scan_state state;
	struct range_state *range;
	unsigned attempts;
	uint64_t retry_ns;

	/* The page that is coming in. */
	bool in_rows;
	uint32_t rows_left;
	uint64_t skip;	     /* rows of it that are in the file */
	struct bytes paging; /* of the next page */
	bool more;
	struct bytes out; /* rows that are not in the file yet */
	uint64_t out_rows;
	uint64_t page_bytes, page_rows; /* that were formatted */
	uint32_t fit; /* rows of a page that would go into the file at once, by the last one; 0 = not known */
};

static struct scan *scan_of(struct channel_request *r)
{
	return (struct scan *)r;
}

/* ------------------------------------------------------------- asking */

static int scan_start(struct lane_request *lane, struct channel *c)
{
	struct scan *s = (struct scan *)lane;
	const struct plan *p = s->owner->worker.plan;
	struct span id = channel_prepared_id(c), paging = bytes_span(&s->range->paging);
	struct bytes b = {0};
	int rc;

	bytes_put(&b, "\0\0\0\0\0\0\0\0\0", FRAME_HEADER_SIZE);
	bytes_u16(&b, (uint16_t)id.size);
	bytes_put(&b, id.data, id.size);
	bytes_u16(&b, p->consistency);
	bytes_u8(&b, (uint8_t)(QUERY_SKIP_METADATA | QUERY_PAGE_SIZE |
			       (p->cluster.ring.hashed ? QUERY_VALUES : 0) |
			       (paging.size ? QUERY_PAGING_STATE : 0)));
	if (p->cluster.ring.hashed) {
		bytes_u16(&b, 2);
		bytes_u32(&b, 8);
		bytes_u64(&b, (uint64_t)s->range->range.begin);
		bytes_u32(&b, 8);
		bytes_u64(&b, (uint64_t)s->range->range.end);
	}
	bytes_u32(&b, s->fit && s->fit < p->options->pagesize ? s->fit : (uint32_t)p->options->pagesize);
	if (paging.size) {
		bytes_u32(&b, (uint32_t)paging.size);
		bytes_put(&b, paging.data, paging.size);
	}
	if (b.failed) {
		bytes_done(&b);
		return -ENOMEM;
	}
	frame_header_write(b.data, &(struct frame_header){.version = 4,
							  .opcode = OP_EXECUTE,
							  .length = (uint32_t)b.size - FRAME_HEADER_SIZE});
	s->in_rows = false;
	s->skip = s->range->written;
	s->out.size = 0;
	s->out_rows = s->page_bytes = s->page_rows = 0;
	s->lane.request.deadline_ns = clock_now_ns() + (uint64_t)p->options->pagetimeout * 1000000000u;
	rc = channel_send(c, &s->lane.request, b.data, b.size);
	bytes_done(&b);
	return rc;
}

static void scan_submit(struct scan *s)
{
	const struct ring *ring = &s->owner->worker.plan->cluster.ring;

	s->state = SCAN_ASKED;
	s->lane.replicas =
	    ring->token_count ? ring->replicas[s->range->range.place] : (struct ring_replicas){0};
	lanes_submit(s->owner->worker.lanes, &s->lane);
}

static void scan_idle(struct scan *s)
{
	s->state = SCAN_IDLE;
	s->range = NULL;
	s->owner->active--;
	mover_wake(&s->owner->worker);
}

/* The range's attempt failed. What is in the file stays, and is passed over by the next attempt. */
static void scan_retry(struct scan *s, bool permanent, const char *reason, int size)
{
	struct export *e = s->owner->export;
	struct token_range *r = &s->range->range;
	struct plan *p = e->plan;

	s->attempts++;
	if (!permanent && s->attempts < (unsigned)p->options->maxattempts && !atomic_load(&p->stop)) {
		fprintf(stderr, "Error for (%lld, %lld]: %.*s (will try again later attempt %u of %lld)\n",
			(long long)r->begin, (long long)r->end, size, reason, s->attempts,
			(long long)p->options->maxattempts);
		s->state = SCAN_WAITING;
		s->lane.turn++;
		s->retry_ns = clock_now_ns() + (BACKOFF_NS << (s->attempts < 6 ? s->attempts - 1 : 5));
		return;
	}
	if (!atomic_load(&p->stop))
		fprintf(stderr, "Error for (%lld, %lld]: %.*s (permanently given up after %u attempts)\n",
			(long long)r->begin, (long long)r->end, size, reason, s->attempts);
	atomic_fetch_add(&e->failed, 1);
	scan_idle(s);
}

static void on_failed(struct channel_request *r, int error)
{
	const char *reason = error == -ETIMEDOUT    ? "no answer in time (PAGETIMEOUT)"
			     : error == -ECONNRESET ? "the connection was lost"
						    : strerror(-error);

	scan_retry(scan_of(r), error == -ECANCELED, reason, (int)strlen(reason));
}

/* ------------------------------------------------------------- rows */

/* What is in `out` goes into the file; the range's state says so under the same lock. */
static int scan_flush(struct scan *s, bool page_over)
{
	struct export *e = s->owner->export;
	struct error error;
	int rc = 0;

	pthread_mutex_lock(&e->lock);
	if (s->out.size)
		rc = output_write(&e->output, bytes_span(&s->out), s->out_rows, &error);
	if (rc == 0) {
		s->range->written += s->out_rows;
		atomic_fetch_add(&e->plan->progress.rows, s->out_rows);
	}
	if (page_over && rc == 0) {
		struct bytes old = s->range->paging;

		s->range->paging = s->paging;
		s->range->written = s->skip; /* an earlier run's page was longer than this one */
		s->range->done = !s->more;
		s->paging = old;
	}
	pthread_mutex_unlock(&e->lock);
	s->out.size = 0;
	s->out_rows = 0;
	if (rc < 0)
		plan_fail(e->plan, rc, "%s", error.text);
	return rc;
}

static bool is_plain(const struct export *e, const struct type *t)
{
	switch (t->kind) {
	case TYPE_TINYINT:
	case TYPE_SMALLINT:
	case TYPE_INT:
	case TYPE_BIGINT:
	case TYPE_COUNTER:
	case TYPE_VARINT:
	case TYPE_DECIMAL:
	case TYPE_FLOAT:
	case TYPE_DOUBLE:
	case TYPE_UUID:
	case TYPE_TIMEUUID:
	case TYPE_BLOB:
	case TYPE_DATE:
	case TYPE_TIME:
	case TYPE_DURATION:
		return e->plain_numbers;
	default:
		return false;
	}
}

/* Formats the row at the front of *body if it is whole. 1 = done, 0 = more bytes are needed, −EBADMSG: column
 * *ret_bad is malformed. */
static int take_row(struct scan *s, struct span *body, unsigned *ret_bad)
{
	const struct export *e = s->owner->export;
	const struct plan *p = e->plan;
	const struct csv_dialect *d = &p->options->dialect;
	struct span walk = *body, cell;
	size_t begin = s->out.size;

	for (unsigned i = 0; i < p->column_count; i++)
		if (!span_take_bytes(&walk, &cell))
			return 0;
	if (s->skip) {
		s->skip--;
		*body = walk;
		return 1;
	}
	for (unsigned i = 0; i < p->column_count; i++) {
		size_t from;

		span_take_bytes(body, &cell);
		if (i)
			bytes_u8(&s->out, d->delimiter);
		from = s->out.size;
		if (!value_format(&p->options->style, &p->types[i], cell, &s->out)) {
			s->out.size = begin;
			*ret_bad = i;
			return s->out.failed ? -ENOMEM : -EBADMSG;
		}
		if (!is_plain(e, &p->types[i]))
			csv_write(d, &s->out, from);
	}
	/* A row that is one empty field would be an empty line. */
	if (p->column_count == 1 && s->out.size == begin) {
		bytes_u8(&s->out, d->quote);
		bytes_u8(&s->out, d->quote);
	}
	bytes_put(&s->out, "\r\n", 2);
	s->out_rows++;
	s->page_rows++;
	s->page_bytes += s->out.size - begin;
	return s->out.failed ? -ENOMEM : 1;
}

/* The head of ROWS without metadata, and the number of rows. Bytes taken, 0 = more are needed, −EPROTO. */
static ssize_t take_head(struct scan *s, struct span body)
{
	struct rows_head head;
	int rc = rows_head_parse(4, body, &head);

	if (rc == CQL_INCOMPLETE || (rc == 0 && body.size < head.size + 4))
		return 0;
	if (rc < 0 || !(head.flags & ROWS_NO_METADATA) || head.columns != s->owner->worker.plan->column_count)
		return -EPROTO;
	s->more = head.flags & ROWS_MORE_PAGES;
	s->paging.size = 0;
	bytes_put(&s->paging, head.paging_state.data, head.paging_state.size);
	s->rows_left = load_be32(body.data + head.size);
	s->in_rows = true;
	return s->paging.failed ? -ENOMEM : (ssize_t)head.size + 4;
}

static void next_page(struct scan *s)
{
	if (scan_flush(s, true) < 0 || atomic_load(&s->owner->worker.plan->stop)) {
		scan_idle(s);
		return;
	}
	s->attempts = 0;
	/* A page that is in the file as a whole or not at all can be had from another replica, too, where a part
	 * of it would have to be told from the rest by counting. */
	if (s->page_rows) {
		uint64_t fit = PAGE_FIT / (s->page_bytes / s->page_rows);

		s->fit = fit ? (uint32_t)fit : 1;
	}
	if (s->more) {
		scan_submit(s);
		return;
	}
	atomic_fetch_add(&s->owner->export->plan->progress.done, 1);
	scan_idle(s);
}

/* Rows that are malformed end the range: another attempt would find the same. */
static void give_up(struct scan *s, unsigned column)
{
	const struct plan *p = s->owner->worker.plan;
	char text[400];

	snprintf(text, sizeof(text), "column %s holds bytes that are no %s", p->columns[column],
		 type_name(&p->types[column]));
	scan_retry(s, true, text, (int)strlen(text));
}

static ssize_t take_rows(struct scan *s, struct span body, bool whole)
{
	struct span rest = body;
	unsigned bad = 0;
	int rc = 1;

	if (!s->in_rows) {
		ssize_t n = take_head(s, body);

		if (n <= 0)
			return n == 0 && whole ? -EPROTO : n;
		rest = span_of(body.data + n, body.size - (size_t)n);
	}
	while (s->rows_left && (rc = take_row(s, &rest, &bad)) == 1) {
		s->rows_left--;
		if (s->out.size > FLUSH && scan_flush(s, false) < 0)
			return -EIO;
	}
	if (rc < 0 && whole) {
		give_up(s, bad);
		return 0;
	}
	if (rc < 0) /* the rest of the page has to come in before the range can end */
		return rest.data - body.data;
	if (whole && (s->rows_left || rest.size))
		return -EPROTO;
	if (whole)
		next_page(s);
	return rest.data - body.data;
}

static void take_error(struct scan *s, struct span body)
{
	struct response_error e;
	bool permanent;

	if (response_error_parse(body, &e) < 0) {
		scan_retry(s, true, "malformed ERROR", 15);
		return;
	}
	permanent = e.code >= 0x2000 && e.code != CQL_UNPREPARED;
	scan_retry(s, permanent, (const char *)e.message.data,
		   (int)(e.message.size < 300 ? e.message.size : 300));
}

static ssize_t on_answer(struct channel_request *r, const struct frame_header *head, struct span body,
			 bool whole)
{
	struct scan *s = scan_of(r);
	int64_t skip = 0;
	ssize_t n;

	if (!whole && head->opcode != OP_RESULT)
		return 0; /* small: as a whole */
	/* Warnings (of tombstones, say) stand in front of the first row; what follows streams like any page. */
	if (!s->in_rows)
		skip = response_prefix(head->flags, body);
	if (skip < 0 && !whole)
		return 0;
	if (skip < 0) {
		scan_retry(s, false, "malformed answer", 16);
		return -EPROTO;
	}
	body = span_of(body.data + skip, body.size - (size_t)skip);
	if (head->opcode == OP_ERROR) {
		bool unprepared = body.size >= 4 && load_be32(body.data) == CQL_UNPREPARED;

		take_error(s, body);
		return unprepared ? -ESTALE : 0; /* a new connection prepares again */
	}
	n = head->opcode == OP_RESULT ? take_rows(s, body, whole) : -EPROTO;
	if (n < 0 && whole)
		scan_retry(s, false, "malformed answer", 16);
	return n > 0 ? n + skip : n;
}

/* ------------------------------------------------------------- a worker's scans */

int scans_make(struct export_worker *w, struct export *e)
{
	unsigned count = (unsigned)e->plan->options->maxrequests;

	w->export = e;
	w->scans = calloc(count, sizeof(*w->scans));
	if (!w->scans)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++)
		w->scans[i] = (struct scan){.lane = {.request = {.answer = on_answer, .failed = on_failed},
						     .start = scan_start,
						     .turn = i},
					    .owner = w};
	return 0;
}

void scans_free(struct export_worker *w)
{
	for (unsigned i = 0; w->scans && i < (unsigned)w->export->plan->options->maxrequests; i++) {
		bytes_done(&w->scans[i].paging);
		bytes_done(&w->scans[i].out);
	}
	free(w->scans);
	w->scans = NULL;
}

/* The next range that nobody has begun and that is not done (of an earlier run); NULL: none. */
static struct range_state *next_range(struct export *e)
{
	for (;;) {
		unsigned n = atomic_fetch_add(&e->next, 1);

		if (n >= e->range_count)
			return NULL;
		struct range_state *r = &e->ranges[(uint64_t)n * e->stride % e->range_count];

		if (!r->done)
			return r;
	}
}

bool scans_turn(struct mover *worker, uint64_t now_ns)
{
	struct export_worker *w = (struct export_worker *)worker;
	struct export *e = w->export;
	bool stop = atomic_load(&e->plan->stop);

	for (unsigned i = 0; i < (unsigned)e->plan->options->maxrequests; i++) {
		struct scan *s = &w->scans[i];

		if (s->state == SCAN_WAITING && (stop || now_ns >= s->retry_ns)) {
			if (stop)
				scan_idle(s);
			else
				scan_submit(s);
		} else if (s->state == SCAN_IDLE && !stop && (s->range = next_range(e))) {
			s->attempts = 0;
			w->active++;
			scan_submit(s);
		}
	}
	return stop || (w->active == 0 && atomic_load(&e->next) >= e->range_count);
}
