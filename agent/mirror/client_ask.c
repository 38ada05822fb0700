/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to a cluster: with values, prepared where they come again, page by page. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/magic.h"
#include "mirror/client_priv.h"
#include "xxhash.h"

static uint8_t *put_int(uint8_t *p, uint32_t v)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*p++ = (uint8_t)(v >> shift);
	return p;
}

static uint8_t *put_short(uint8_t *p, size_t v)
{
	*p++ = (uint8_t)(v >> 8);
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put_bytes(uint8_t *p, const void *bytes, size_t size)
{
	if (size)
		memcpy(p, bytes, size);
	return p + size;
}

/*
 * QUERY, or EXECUTE of what was prepared, with values, a page size and, from the second page on, the state
 * (native_protocol_v4.spec, sections 4.1.4 and 4.1.6).
 */
static int send_question(struct client *c, const struct client_question *q,
			 const struct client_prepared *known, struct span state)
{
	size_t capacity = FRAME_HEADER_SIZE + 4 + q->text.size + PREPARED_ID_SIZE + 2 + 1 + 2 +
			  q->values.size + 4 + 4 + state.size;
	uint8_t *to = malloc(capacity), *p;
	int rc;

	if (!to)
		return -ENOMEM;
	p = to + FRAME_HEADER_SIZE;
	if (known)
		p = put_bytes(put_short(p, known->id_size), known->id, known->id_size);
	else
		p = put_bytes(put_int(p, (uint32_t)q->text.size), q->text.data, q->text.size);
	p = put_short(p, q->consistency);
	*p++ = QUERY_PAGE_SIZE | (state.size ? QUERY_PAGING_STATE : 0) | (q->value_count ? QUERY_VALUES : 0);
	if (q->value_count)
		p = put_bytes(put_short(p, q->value_count), q->values.data, q->values.size);
	p = put_int(p, CLIENT_PAGE_ROWS);
	if (state.size)
		p = put_bytes(put_int(p, (uint32_t)state.size), state.data, state.size);
	struct frame_header h = {
	    .version = VERSION, .stream = STREAM, .opcode = known ? OP_EXECUTE : OP_QUERY};

	h.length = (uint32_t)((size_t)(p - to) - FRAME_HEADER_SIZE);
	frame_header_write(to, &h);
	rc = h.length > FRAME_BODY_MAX ? -EMSGSIZE : client_send_all(c, to, (size_t)(p - to));
	free(to);
	return rc;
}

void client_prepared_drop(struct client_prepared *p)
{
	free(p->text);
	*p = (struct client_prepared){0};
}

/* What the server calls the question's text; asks it when that is not known. */
static int prepare(struct client *c, const struct client_question *q, struct client_prepared **ret,
		   struct error *error)
{
	struct client_prepared *p = &c->prepared[XXH64(q->text.data, q->text.size, 0) % PREPARED_MAX];
	size_t capacity = FRAME_HEADER_SIZE + 4 + q->text.size;
	struct prepared_result result;
	struct answer a;
	uint8_t *to;
	int rc;

	*ret = p;
	if (p->id_size && span_equal(span_of(p->text, p->size), q->text))
		return 0;
	client_prepared_drop(p);
	to = malloc(capacity);
	p->text = malloc(q->text.size + 1);
	if (!to || !p->text) {
		free(to);
		return error_set(error, -ENOMEM, "out of memory");
	}
	p->size = q->text.size;
	put_bytes(p->text, q->text.data, q->text.size);
	rc = client_exchange(c, to,
			     request_write_prepare(VERSION, STREAM, q->text, (struct span){0}, to, capacity),
			     &a, error);
	free(to);
	if (rc < 0)
		return rc;
	if (a.head.opcode == OP_ERROR)
		return client_server_error(c, &a, error);
	if (a.head.opcode != OP_RESULT || result_prepared_parse(VERSION, a.body, &result) < 0 ||
	    !result.id.size || result.id.size > PREPARED_ID_SIZE)
		return client_unexpected(c, &a, error);
	put_bytes(p->id, result.id.data, result.id.size);
	p->id_size = (uint8_t)result.id.size;
	return 0;
}

static bool is_unprepared(const struct answer *a)
{
	struct response_error e;

	return a->head.opcode == OP_ERROR && response_error_parse(a->body, &e) == 0 &&
	       e.code == CQL_UNPREPARED;
}

/* Sends the question and reads the answer; a statement that the server has forgotten is prepared again, once.
 */
static int ask_once(struct client *c, const struct client_question *q, struct span state, struct answer *ret,
		    struct error *error)
{
	struct client_prepared *known = NULL;
	int rc;

	for (unsigned again = 0;; again++) {
		rc = q->prepare ? prepare(c, q, &known, error) : 0;
		if (rc < 0)
			return rc;
		rc = send_question(c, q, known, state);
		if (rc < 0)
			return client_broken_by(c, error, rc, "request cannot be sent");
		rc = client_read_answer(c, ret, error);
		if (rc < 0 || !known || again || !is_unprepared(ret))
			return rc;
		client_prepared_drop(known);
	}
}

/* Hands the rows of one page over. */
static int give_rows(struct client *c, struct rows *rows, client_row row, void *context, struct error *error)
{
	struct columns walk = rows->columns;
	int more;

	if (rows->columns.count > CLIENT_COLUMNS_MAX)
		return client_broken_by(c, error, -EMSGSIZE, "answers with more columns than are read");
	for (unsigned i = 0; i < rows->columns.count; i++)
		if (column_next(&walk, &c->columns[i]) != 1)
			return client_broken_by(c, error, -EPROTO, "sent malformed rows");
	while ((more = rows_next(rows, c->cells)) == 1) {
		int rc = row ? row(context, c->columns, c->cells, rows->columns.count) : 0;

		if (rc)
			return rc;
	}
	return more < 0 ? client_broken_by(c, error, -EPROTO, "sent malformed rows") : 0;
}

/* One page. The state of the next one goes to *state (malloc'ed; data = NULL at the end). */
static int ask_page(struct client *c, const struct client_question *q, struct span *state, client_row row,
		    void *context, struct error *error)
{
	struct answer a;
	struct rows rows;
	uint8_t *copy = NULL;
	int rc;

	client_step_begin(c);
	rc = ask_once(c, q, *state, &a, error);
	free((void *)state->data);
	*state = (struct span){0};
	if (rc < 0)
		return rc;
	if (a.head.opcode == OP_ERROR)
		return client_server_error(c, &a, error);
	if (a.head.opcode != OP_RESULT)
		return client_unexpected(c, &a, error);
	int kind = result_kind(a.body);

	if (kind < 0)
		return client_broken_by(c, error, -EPROTO, "sent a malformed RESULT");
	if (kind != RESULT_ROWS)
		return 0;
	if (rows_parse(VERSION, a.body, &rows) < 0)
		return client_broken_by(c, error, -EPROTO, "sent malformed rows");
	if (rows.head.flags & ROWS_MORE_PAGES) {
		if (!rows.head.paging_state.size)
			return client_broken_by(c, error, -EPROTO,
						"promises a next page, but gives no paging state");
		if (rows.head.paging_state.size > STATE_MAX)
			return client_broken_by(c, error, -EMSGSIZE,
						"sent a paging state of more than 64 KiB");
		copy = malloc(rows.head.paging_state.size);
		if (!copy)
			return error_set(error, -ENOMEM, "out of memory");
		memcpy(copy, rows.head.paging_state.data, rows.head.paging_state.size);
	}
	rc = give_rows(c, &rows, row, context, error);
	if (rc) {
		free(copy);
		return rc;
	}
	*state = copy ? span_of(copy, rows.head.paging_state.size) : (struct span){0};
	return 0;
}

int client_ask(struct client *c, const struct client_question *q, client_row row, void *context,
	       struct error *error)
{
	struct span state = {0};
	int rc = 0;

	MAGIC_CHECK(c, CLIENT_MAGIC);
	for (unsigned page = 0; page == 0 || state.data; page++) {
		if (c->broken) {
			rc = error_set(error, -ENOTCONN, "%s: the connection was lost before", c->node);
			break;
		}
		if (page == CLIENT_PAGES_MAX) {
			rc = client_broken_by(c, error, -EMSGSIZE, "sends pages without end");
			break;
		}
		rc = ask_page(c, q, &state, row, context, error);
		if (rc)
			break;
	}
	free((void *)state.data);
	return rc;
}

int client_query(struct client *c, const char *text, uint16_t consistency, client_row row, void *context,
		 struct error *error)
{
	struct client_question q = {.text = span_text(text), .consistency = consistency};

	return client_ask(c, &q, row, context, error);
}
