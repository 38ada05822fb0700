/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes out on a connection of the mirror: envelopes are encoded into one buffer, gathered into segments on v5, and
 * leave in one system call for each batch. Each takes a stream id of the connection's own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cql/request.h"
#include "cql/segment.h"
#include "cql/statement.h"
#include "mirror/scoped.h"
#include "mirror/target_priv.h"
#include "relay/envelope.h"

/* ---- output */

static void close_segment(struct target *t)
{
	size_t begin = t->segment_at, payload;

	if (begin == SIZE_MAX)
		return;
	payload = t->out_size - begin - SEGMENT_HEADER_PLAIN;
	segment_header_write(t->out + begin, false, (uint32_t)payload, true);
	segment_trailer_write(t->out + t->out_size, segment_crc32(t->out + begin + SEGMENT_HEADER_PLAIN, payload));
	t->out_size += SEGMENT_TRAILER;
	t->segment_at = SIZE_MAX;
}

void target_flush(struct target *t)
{
	struct iovec iov;

	if (t->out_size == 0)
		return;
	close_segment(t);
	iov = (struct iovec){t->out, t->out_size};
	conn_send(&t->conn, &iov, 1);
	t->out_size = 0;
	t->last_send_ns = t->dispatch->worker->turn_ns;
	if (t->last_answer_ns == 0)
		t->last_answer_ns = t->last_send_ns;
}

uint8_t *target_reserve(struct target *t, size_t size)
{
	size_t frame = SEGMENT_HEADER_PLAIN + SEGMENT_TRAILER;

	if (size + frame > OUT_SIZE || (t->segments && size > SEGMENT_PAYLOAD_MAX))
		return NULL;
	if (t->segment_at != SIZE_MAX && t->out_size - t->segment_at > SEGMENT_FILL)
		close_segment(t);
	if (t->segment_at != SIZE_MAX && t->out_size - t->segment_at - SEGMENT_HEADER_PLAIN + size > SEGMENT_PAYLOAD_MAX)
		close_segment(t);
	if (t->out_size + size + 2 * frame > OUT_SIZE)
		target_flush(t);
	if (t->segments && t->segment_at == SIZE_MAX) {
		t->segment_at = t->out_size;
		t->out_size += SEGMENT_HEADER_PLAIN;
	}
	return t->out + t->out_size;
}

void target_commit(struct target *t, ssize_t size)
{
	if (size > 0)
		t->out_size += (size_t)size;
	else if (t->segment_at != SIZE_MAX && t->out_size == t->segment_at + SEGMENT_HEADER_PLAIN) {
		t->out_size = t->segment_at; /* nothing came into the new segment */
		t->segment_at = SIZE_MAX;
	}
}

/* An envelope that does not fit the buffer. */
static void send_large(struct target *t, const uint8_t *envelope, size_t size)
{
	target_flush(t);
	envelope_send(&t->conn, t->segments, /* lz4= */ false, envelope, size);
}

int target_take_stream(struct target *t, enum stream_kind kind, void *what)
{
	unsigned id;

	if (t->free_count == 0)
		return -EAGAIN;
	id = t->free_streams[--t->free_count];
	t->stream[id].kind = (uint8_t)kind;
	t->stream[id].record = what;
	if (kind == STREAM_RECORD)
		t->inflight++;
	return (int)id;
}

void target_give_stream(struct target *t, unsigned id)
{
	if (t->stream[id].kind == STREAM_RECORD)
		t->inflight--;
	if (t->stream[id].kind == STREAM_PREPARE)
		t->prepares--;
	t->stream[id].kind = STREAM_FREE;
	t->free_streams[t->free_count++] = (uint16_t)id;
}

/* ---- records */

static int consistency_for(const struct target *t, uint16_t asked)
{
	/* By how many replicas have to answer. */
	static const uint8_t rank[] = {[CL_ANY] = 0, [CL_ONE] = 1, [CL_LOCAL_ONE] = 1, [CL_TWO] = 2, [CL_THREE] = 3,
				       [CL_LOCAL_QUORUM] = 4, [CL_QUORUM] = 5, [CL_EACH_QUORUM] = 6, [CL_ALL] = 7};
	int override = t->dispatch->mirror->options.consistency[t->dispatch->side];

	if (override >= 0)
		return override;
	if (asked >= sizeof(rank) || rank[asked] < rank[CL_LOCAL_QUORUM])
		return CL_LOCAL_QUORUM;
	return asked;
}

struct child_context {
	struct target *t;
	struct prepared *missing;
};

static bool child_id(void *context, struct span id, struct span *ret)
{
	struct child_context *c = context;
	struct prepared_slot *slot = prepared_find(c->t->dispatch->worker->prepared, id);
	const struct prepared_remote *r = slot ? prepared_on(slot->prepared, c->t->dispatch->side) : NULL;

	if (!r) {
		c->missing = slot ? slot->prepared : NULL;
		return false;
	}
	*ret = span_of(r->id, r->id_size);
	return true;
}

/*
 * v3/v4: the connection has to be bound to the keyspace first, that of a record or of a statement `p` that is to be prepared. 0: it is;
 * −EAGAIN: not yet; > 0: the cluster has just refused it, for this reason.
 */
static int bind_keyspace(struct target *t, const char *keyspace, struct prepared *p)
{
	char text[CQL_NAME_MAX + 16];
	int stream;
	uint8_t *to;

	if (t->version >= 5 || !keyspace[0] || strcmp(t->keyspace, keyspace) == 0)
		return 0;
	if (strcmp(t->refused, keyspace) == 0 && t->dispatch->worker->turn_ns - t->refused_ns < REFUSED_NS)
		return t->refused_code;
	if (t->inflight > 0 || t->prepares > 0)
		return -EAGAIN;
	stream = target_take_stream(t, STREAM_USE, p);
	if (stream < 0)
		return -EAGAIN;
	if (p)
		prepared_get(p);
	snprintf(text, sizeof(text), "USE \"%s\"", keyspace);
	to = target_reserve(t, 256);
	target_commit(t, request_write_query(t->version, (int16_t)stream, span_text(text), CL_ONE, to, 256));
	snprintf(t->keyspace, sizeof(t->keyspace), "%s", keyspace);
	t->binding = true;
	target_flush(t);
	return -EAGAIN;
}

/* How the target calls things; NULL: as the origin does. */
static const struct scope *names_of(const struct target *t)
{
	const struct scope *s = t->dispatch->mirror->relay->options.scope;

	return t->dispatch->side == TARGET && scope_renames(s) ? s : NULL;
}

int target_send(struct target *t, struct record *r, struct prepared **ret_missing)
{
	const struct scope *names = names_of(t);
	const char *keyspace;
	char other[CQL_NAME_MAX + 1];
	struct child_context child = {.t = t};
	struct request q;
	struct request_target how = {.version = t->version, .child_id = child_id, .context = &child, .skip_metadata = true};
	size_t bound;
	uint8_t *to, *large = NULL;
	ssize_t n;
	int stream, e;

	*ret_missing = NULL;
	if (request_parse(r->version, r->header_flags, r->opcode, record_body(r), &q) < 0)
		return -EBADMSG;
	if (names) {
		e = scoped_request(names, r, &q, other, &t->dispatch->room);
		if (e < 0)
			return e;
		keyspace = other;
	} else {
		keyspace = request_keyspace(&q, r->keyspace, other);
	}
	if (r->opcode == OP_EXECUTE) {
		const struct prepared_remote *remote = prepared_on(r->slot->prepared, t->dispatch->side);

		if (!remote || (t->version >= 5 && remote->result_id_size == 0)) {
			*ret_missing = r->slot->prepared;
			return -EINPROGRESS;
		}
		how.id = span_of(remote->id, remote->id_size);
		how.result_metadata_id = span_of(remote->result_id, remote->result_id_size);
	} else if (r->needs_keyspace) {
		e = bind_keyspace(t, keyspace, NULL);
		if (e != 0)
			return e;
		how.keyspace = span_text(keyspace);
	}
	/* There it says that nothing in the request depends on another keyspace than the connection's. */
	if (t->version < 5)
		how.keyspace = span_text(keyspace);
	how.consistency = consistency_for(t, q.params.consistency);
	if (r->pinned) {
		how.set_timestamp = true;
		how.timestamp = r->timestamp;
	}
	if (r->statement != STATEMENT_SCHEMA && r->statement != STATEMENT_TRUNCATE) {
		how.set_now = true;
		how.now_in_seconds = (int32_t)r->now;
	}
	bound = request_encode_bound(&q) + (names ? q.text.size + q.batch_children.size : 0);
	stream = target_take_stream(t, STREAM_RECORD, r);
	if (stream < 0)
		return stream;
	how.stream = (int16_t)stream;
	to = target_reserve(t, bound);
	if (!to) {
		to = large = malloc(bound);
		if (!large) {
			target_give_stream(t, (unsigned)stream);
			return -EAGAIN;
		}
	}
	n = request_encode(&q, &how, to, bound);
	if (n < 0)
		target_give_stream(t, (unsigned)stream);
	if (large) {
		if (n > 0)
			send_large(t, large, (size_t)n);
		free(large);
	} else {
		target_commit(t, n);
	}
	if (n == -ENOENT && child.missing) {
		*ret_missing = child.missing;
		return -EINPROGRESS;
	}
	return n < 0 ? (int)n : 0;
}

int target_prepare(struct target *t, struct prepared *p)
{
	const struct scope *names = names_of(t);
	struct span text = span_of(p->text, p->text_size);
	const char *keyspace = p->keyspace;
	char renamed[CQL_NAME_MAX + 1];
	int stream, e;
	size_t size;
	uint8_t *to, *large = NULL;
	ssize_t n;

	for (unsigned i = 0; t->prepares && i < STREAMS; i++)
		if (t->stream[i].kind == STREAM_PREPARE && t->stream[i].prepared == p)
			return 0;
	if (names) {
		e = scoped_text(names, p, &text, renamed, &t->dispatch->room);
		if (e < 0)
			return e;
		keyspace = renamed;
	}
	/* Where all names are qualified, the session's keyspace need not even exist there. */
	if (!p->statement.unqualified)
		keyspace = "";
	size = text.size + 256u;
	e = bind_keyspace(t, keyspace, p);
	if (e == -EAGAIN && t->binding)
		return 0; /* PREPARE follows behind it */
	if (e != 0)
		return e;
	stream = target_take_stream(t, STREAM_PREPARE, p);
	if (stream < 0)
		return stream;
	t->prepares++;
	prepared_get(p);
	to = target_reserve(t, size);
	if (!to)
		to = large = malloc(size);
	n = to ? request_write_prepare(t->version, (int16_t)stream, text,
				       t->version >= 5 ? span_text(keyspace) : span_of(NULL, 0), to, size)
	       : -EAGAIN;
	if (large) {
		if (n > 0)
			send_large(t, large, (size_t)n);
		free(large);
	} else {
		target_commit(t, n);
	}
	if (n < 0) {
		target_give_stream(t, (unsigned)stream);
		prepared_put(p);
		return (int)n;
	}
	return 0;
}
