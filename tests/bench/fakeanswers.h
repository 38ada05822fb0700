/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakeanswers.h - what the fake server makes of a statement, and the frames it answers with.
 *
 * A text is looked at by its first word and its table, no more: SELECT from ..._<bytes> gives one row (k int
 * and a blob of that size), from system tables what faketables.h knows, everything else is a write. Prepared
 * statements live in one table of the process, keyed by the MD5 of their text; readers take no lock.
 */
#ifndef BENCH_FAKEANSWERS_H
#define BENCH_FAKEANSWERS_H

#include "fakequeue.h"
#include "faketables.h"
#include "fakecopy.h"

/* Slots of the table of prepared statements, a power of two. */
enum { PREPARED_MAX = 1 << 14 };

enum kind { KIND_READ, KIND_COPY, KIND_SYSTEM, KIND_WRITE, KIND_USE, KIND_SCHEMA, KIND_LIST };

struct statement {
	uint8_t id[16];
	enum kind kind;
	uint32_t bytes; /* of the blob, KIND_READ */
	char *text;
};

static _Atomic(struct statement *) prepared[PREPARED_MAX];

/* ------------------------------------------------------------------ answers */
static inline void answer_void(struct conn *c, int stream)
{
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT);

	put32(b, RESULT_VOID);
	frame_end(b, mark);
}

static inline void answer_error(struct conn *c, int version, int stream, uint32_t code, const char *text,
				const uint8_t *id)
{
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, version | 0x80, stream, OP_ERROR);

	put32(b, code);
	put_string(b, text);
	if (id)
		put_short_bytes(b, id, 16);
	frame_end(b, mark);
	count_add(c->worker, COUNT_ERROR);
}

/* `bytes` of the pattern behind a head that is already built: without copying, in segments where they are
 * spoken. */
static inline void answer_large(struct conn *c, const struct buf *head, size_t bytes)
{
	size_t left = head->n + bytes, at = 0;

	answers_close(c);
	if (!c->in.segmented) {
		put(&c->own, head->p, head->n);
		own_note(c);
		for (; bytes; bytes -= at) {
			at = bytes < PATTERN ? bytes : PATTERN;
			piece_add(c, pattern, 0, at);
		}
		return;
	}
	while (left) {
		size_t n = left < SEGMENT_MAX ? left : SEGMENT_MAX, from_head = at ? 0 : head->n,
		       blob = n - from_head;
		uint32_t crc = crc32_begin();
		uint8_t *p = buf_room(&c->own, SEGMENT_HEAD);

		segment_head(p, n, head->n + bytes <= SEGMENT_MAX);
		c->own.n += SEGMENT_HEAD;
		if (from_head) {
			crc = libdeflate_crc32(crc, head->p, head->n);
			put(&c->own, head->p, head->n);
			at = PATTERN; /* so that zero only means "nothing sent" */
		}
		own_note(c);
		crc = libdeflate_crc32(crc, pattern + at % PATTERN, blob);
		piece_add(c, pattern + at % PATTERN, 0, blob);
		le_store(buf_room(&c->own, 4), crc, 4);
		c->own.n += 4;
		own_note(c);
		at += blob;
		left -= n;
	}
}

static inline void word_copy(char *ret, size_t size, const char *p, size_t n)
{
	n = n < size - 1 ? n : size - 1;
	memcpy(ret, p, n);
	ret[n] = 0;
}

/* The select list of a read: k is an int, the first other column carries the blob, further ones are empty. */
static inline void answer_read(struct conn *c, int stream, const struct statement *s, bool skip_metadata)
{
	static _Thread_local struct buf head;
	const char *list = s->text + 7, *from = strcasestr(list, " from "), *table;
	char names[8][32] = {""}, keyspace[48];
	int columns = 0, blob = -1;

	table = from + 6 + strspn(from + 6, " ");
	for (const char *p = list; p < from && columns < 8; p += strcspn(p, ",") + 1) {
		p += strspn(p, " ");
		word_copy(names[columns++], sizeof *names, p, strcspn(p, ", "));
	}
	if (names[0][0] == '*') {
		snprintf(names[0], sizeof *names, "k");
		snprintf(names[1], sizeof *names, "v");
		columns = 2;
	}
	head.n = 0;
	frame_begin(&head, c->version | 0x80, stream, OP_RESULT);
	put32(&head, RESULT_ROWS);
	put32(&head, skip_metadata ? 4 : 1);
	put32(&head, (uint32_t)columns);
	if (!skip_metadata) {
		size_t n = strcspn(table, ". ;");

		snprintf(keyspace, sizeof keyspace, "%.*s", (int)n, table);
		put_string(&head, table[n] == '.' ? keyspace : (c->keyspace ? c->keyspace : "bench"));
		if (table[n] == '.')
			table += n + 1;
		snprintf(keyspace, sizeof keyspace, "%.*s", (int)strcspn(table, " ;"), table);
		put_string(&head, keyspace);
		for (int i = 0; i < columns; i++) {
			put_string(&head, names[i]);
			type_put(&head, !strcmp(names[i], "k") ? 'i' : 'x');
		}
	}
	put32(&head, 1);
	for (int i = 0; i < columns; i++)
		if (!strcmp(names[i], "k")) {
			put32(&head, 4);
			put32(&head, 1);
		} else if (blob < 0 && i == columns - 1) {
			blob = i; /* last, so that it can follow the head from the pattern */
			put32(&head, s->bytes);
		} else {
			put32(&head, 0);
		}
	be32_store(head.p + 5, (uint32_t)(head.n - FRAME_HEAD + (blob < 0 ? 0 : s->bytes)));
	if (blob >= 0 && s->bytes >= REF_MIN) {
		answer_large(c, &head, s->bytes);
		return;
	}
	put(answers(c), head.p, head.n);
	if (blob >= 0)
		put(answers(c), pattern, s->bytes);
}

static inline void answer_system(struct conn *c, int stream, const char *text)
{
	const char *list = text + strcspn(text, " ") + 1, *from = strcasestr(list, " from "),
		   *list_end = from, *where;
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT), n;
	char table[96], why[160];

	list += strspn(list, " ");
	while (list_end > list && list_end[-1] == ' ')
		list_end--;
	where = strcasestr(from, " where ");
	from += 6 + strspn(from + 6, " ");
	n = strcspn(from, " ;\n");
	snprintf(table, sizeof table, "%s%.*s", memchr(from, '.', n) ? "" : "system.", (int)n, from);
	if (system_select(b, table, list, (size_t)(list_end - list), where, why, sizeof why)) {
		b->n = mark;
		answer_error(c, c->version, stream, ERR_INVALID, why, NULL);
		return;
	}
	frame_end(b, mark);
}

static inline void answer_schema(struct conn *c, int stream, const char *text)
{
	const char *what = text + strcspn(text, " "), *name;
	bool table, qualified;
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT);
	char word[48];

	what += strspn(what, " ");
	table = strncasecmp(what, "keyspace", 8);
	name = what + strcspn(what, " ");
	while (*name == ' ' || !strncasecmp(name, "if ", 3) || !strncasecmp(name, "not ", 4) ||
	       !strncasecmp(name, "exists ", 7))
		name += *name == ' ' ? 1 : strcspn(name, " ");
	put32(b, RESULT_SCHEMA_CHANGE);
	put_string(b, !strncasecmp(text, "create", 6) ? "CREATED"
		      : !strncasecmp(text, "drop", 4) ? "DROPPED"
						      : "UPDATED");
	put_string(b, table ? "TABLE" : "KEYSPACE");
	qualified = table && name[strcspn(name, ". (;")] == '.';
	if (table && !qualified)
		put_string(b, c->keyspace ? c->keyspace : "bench");
	for (int parts = qualified ? 2 : 1; parts; parts--) {
		snprintf(word, sizeof word, "%.*s", (int)strcspn(name, ". (;"), name);
		put_string(b, word);
		name += strlen(word) + 1;
	}
	frame_end(b, mark);
}

/* ------------------------------------------------------------------ statements */
/* What a text is; it need not end in NUL. Gives s->text (malloc) with white space made plain and trimmed. */
static inline void statement_read(struct statement *s, const uint8_t *text, size_t n)
{
	const char *from;

	s->text = malloc(n + 1);
	if (!s->text)
		die("out of memory");
	while (n && isspace(*text))
		text++, n--;
	for (size_t i = 0; i < n; i++)
		s->text[i] = isspace(text[i]) || !text[i] ? ' ' : (char)text[i];
	s->text[n] = 0;
	s->bytes = 100;
	s->kind = !strncasecmp(s->text, "use ", 4) ? KIND_USE : KIND_WRITE;
	if (!strncasecmp(s->text, "create ", 7) || !strncasecmp(s->text, "alter ", 6) ||
	    !strncasecmp(s->text, "drop ", 5))
		s->kind = KIND_SCHEMA;
	if (!strncasecmp(s->text, "list ", 5))
		s->kind = KIND_LIST;
	from = strncasecmp(s->text, "select ", 7) ? NULL : strcasestr(s->text, " from ");
	if (from) {
		const char *digits = from += 6 + strspn(from + 6, " ");

		while (*digits && *digits != ' ' && (*digits != '_' || !isdigit((unsigned char)digits[1])))
			digits++;
		if (*digits == '_')
			s->bytes = (uint32_t)strtoul(digits + 1, NULL, 10);
		s->bytes = s->bytes < FRAME_MAX / 2 ? s->bytes : FRAME_MAX / 2;
		s->kind = strncasecmp(from, "system", 6) && strncasecmp(from, "peers", 5) &&
				  strncasecmp(from, "local", 5)
			      ? (copy_mentions(s->text) ? KIND_COPY : KIND_READ)
			      : KIND_SYSTEM;
	}
}

static inline struct statement *prepared_find(const uint8_t *id)
{
	for (uint32_t i = be32_load(id), n = 0; n < PREPARED_MAX; i++, n++) {
		struct statement *s = atomic_load_explicit(&prepared[i % PREPARED_MAX], memory_order_acquire);

		if (!s || !memcmp(s->id, id, 16))
			return s;
	}
	return NULL;
}

/* Entries are never removed, so that readers need no lock; a full table is an answer, not a crash. */
static inline struct statement *prepared_add(const uint8_t *text, size_t n)
{
	struct statement *s = calloc(1, sizeof *s), *found;

	if (!s)
		die("out of memory");
	md5(text, n, s->id);
	found = prepared_find(s->id);
	if (!found) {
		statement_read(s, text, n);
		for (uint32_t i = be32_load(s->id), k = 0; k < PREPARED_MAX; i++, k++) {
			struct statement *none = NULL;

			if (atomic_compare_exchange_strong(&prepared[i % PREPARED_MAX], &none, s))
				return s;
			if (!memcmp(none->id, s->id, 16)) {
				found = none;
				break;
			}
		}
	}
	free(s->text);
	free(s);
	return found;
}

static inline void statement_run(struct conn *c, int stream, const struct statement *s, bool skip_metadata)
{
	struct buf *b;
	size_t mark;

	count_add(c->worker, s->kind == KIND_READ    ? COUNT_READ
			     : s->kind == KIND_WRITE ? COUNT_WRITE
						     : COUNT_OTHER);
	switch (s->kind) {
	case KIND_READ:
		answer_read(c, stream, s, skip_metadata);
		break;
	case KIND_SYSTEM:
		answer_system(c, stream, s->text);
		break;
	case KIND_SCHEMA:
		answer_schema(c, stream, s->text);
		break;
	case KIND_USE:
		free(c->keyspace);
		c->keyspace = strndup(s->text + 4, strcspn(s->text + 4, " ;"));
		b = answers(c);
		mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT);
		put32(b, RESULT_SET_KEYSPACE);
		put_string(b, c->keyspace);
		frame_end(b, mark);
		break;
	case KIND_LIST: /* what a server without authentication says */
		answer_error(c, c->version, stream, ERR_UNAUTHORIZED,
			     "You have to be logged in and not anonymous to perform this request", NULL);
		break;
	case KIND_COPY: /* only by EXECUTE, see copy_page() */
		answer_error(c, c->version, stream, ERR_INVALID, "this table is read by prepared statements", NULL);
		break;
	case KIND_WRITE:
		answer_void(c, stream);
	}
}

/* The column that a `?` stands for: the i-th of INSERT's list, else the word before the `=`. */
static inline void marker_name(const char *text, const char *mark, int index, char ret_name[32])
{
	const char *p = strncasecmp(text, "insert", 6) ? NULL : strchr(text, '('), *end;

	if (p && index >= 0) {
		for (p++; index--; p++)
			p += strcspn(p, ",)");
		p += strspn(p, " ");
		snprintf(ret_name, 32, "%.*s", (int)strcspn(p, " ,)"), p);
		return;
	}
	for (end = mark; end > text && strchr(" =<>(", end[-1]);)
		end--;
	for (p = end; p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '_');)
		p--;
	snprintf(ret_name, 32, "%.*s", (int)(end - p), p);
}

static inline void answer_prepared(struct conn *c, int stream, const struct statement *s)
{
	struct buf *b = answers(c);
	size_t mark = frame_begin(b, c->version | 0x80, stream, OP_RESULT), count_at;
	const char *table = strcasestr(s->text, " from "), *dot;
	char keyspace[48], name[48];
	int markers = 0, key = -1;

	put32(b, RESULT_PREPARED);
	put_short_bytes(b, s->id, 16);
	if (c->version >= 5)
		put_short_bytes(b, s->id, 16); /* of the result's metadata: that of its text never changes */
	put32(b, 1);
	count_at = b->n;
	put32(b, 0);
	for (const char *p = s->text; (p = strchr(p, '?')); p++, markers++) {
		marker_name(s->text, p, markers, name);
		if (!strcmp(name, "k") && key < 0)
			key = markers;
	}
	be32_store(b->p + count_at, (uint32_t)markers);
	if (c->version >= 4) {
		put32(b, key >= 0);
		if (key >= 0)
			put16(b, (uint32_t)key);
	}
	table = table					  ? table + 6
		: (table = strcasestr(s->text, " into ")) ? table + 6
							  : s->text + strcspn(s->text, " ");
	table += strspn(table, " ");
	dot = table + strcspn(table, ". (;");
	snprintf(keyspace, sizeof keyspace, "%.*s", (int)(dot - table), table);
	table = *dot == '.' ? dot + 1 : table;
	if (*dot != '.')
		snprintf(keyspace, sizeof keyspace, "%s", c->keyspace ? c->keyspace : "bench");
	snprintf(name, sizeof name, "%.*s", (int)strcspn(table, " (;"), table);
	put_string(b, keyspace);
	put_string(b, name);
	markers = 0;
	for (const char *p = s->text; (p = strchr(p, '?')); p++, markers++) {
		marker_name(s->text, p, markers, name);
		put_string(b, name);
		type_put(b, !strcmp(name, "k")		     ? 'i'
			    : !strcasecmp(name, "timestamp") ? 'l'
			    : s->kind == KIND_SYSTEM	     ? 't'
							     : 'x');
	}
	if (s->kind == KIND_READ || s->kind == KIND_SYSTEM) {
		/* The same select is run into a scratch place for its metadata: kind and rows are cut off. */
		struct conn scratch = {.worker = c->worker, .version = c->version, .keyspace = c->keyspace};
		struct statement small = *s;
		struct cursor in;
		uint32_t n;

		small.bytes = 0;
		if (s->kind == KIND_READ)
			answer_read(&scratch, 0, &small, false);
		else
			answer_system(&scratch, 0, s->text);
		in = (struct cursor){scratch.own.p + FRAME_HEAD, scratch.own.p + scratch.own.n, false};
		if (get32(&in) == RESULT_ROWS) {
			const uint8_t *from = in.p;

			get32(&in);
			n = get32(&in);
			get(&in, get16(&in));
			get(&in, get16(&in));
			while (n--) {
				uint32_t type;

				get(&in, get16(&in));
				type = get16(&in);
				get(&in, type == 0x21 ? 4 : type == 0x20 || type == 0x22 ? 2 : 0);
			}
			put(b, from, (size_t)(in.p - from));
		} else {
			put32(b, 4);
			put32(b, 0);
		}
		buf_free(&scratch.own);
		free(scratch.pieces);
	} else {
		put32(b, 4); /* no metadata */
		put32(b, 0);
	}
	frame_end(b, mark);
}

#endif
