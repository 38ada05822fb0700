/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes writes apart, see rowkey.h. One pass from left to right, so that every bind marker is met in the
 * order in which the server counts them; what is not part of a key is walked over for that reason alone.
 */
#include "cql/rowkey.h"

#include <errno.h>

#include "cql/reader.h"
#include "cql/rowkey_priv.h"

/* ------------------------------------------------------------- relations */

static struct rowkey_term *add_term(struct walk *w, struct rowkey_relation *r, struct rowkey_term ***tail)
{
	struct rowkey_term *t = walk_memory(w, sizeof(*t));

	if (!t)
		return NULL;
	**tail = t;
	*tail = &t->next;
	r->term_count++;
	return t;
}

/* "?" for a whole IN list: a list<…> in the encoding of protocol v3 and later, each element a value of its
 * own. */
static void read_in_marker(struct walk *w, struct rowkey_relation *r, struct rowkey_term ***tail)
{
	struct span name = r->names->text, list;
	uint8_t *receiver = walk_memory(w, name.size + 4);
	size_t at = 8;

	if (!receiver)
		return;
	memcpy(receiver, "in(", 3);
	memcpy(receiver + 3, name.data, name.size);
	receiver[name.size + 3] = ')';
	list = walk_marker(w, span_of(receiver, name.size + 4));
	walk_advance(w);
	if (!list.data || walk_value_null(list) || list.size < 8) {
		walk_fail(w, -ENOKEY);
		return;
	}
	for (uint32_t n = walk_length(list.data + 4); n && !w->error; n--) {
		struct span value;

		if (!walk_value_at(list, at, &value)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		at += value.size;
		struct rowkey_term *t = add_term(w, r, tail);

		if (!t)
			return;
		t->usable = !walk_value_null(value) && value.size <= ROWKEY_VALUES_MAX;
		t->text = span_text("?");
		t->value_count = 1;
		if (t->usable && !(t->values = arena_copy(w->arena, value)).data)
			walk_fail(w, -E2BIG);
	}
}

static void read_in(struct walk *w, struct rowkey_relation *r)
{
	struct rowkey_term **tail = &r->terms;

	if (w->bind) {
		read_in_marker(w, r, &tail);
		return;
	}
	walk_expect(w, '(');
	while (!w->error && !token_punct(&w->token, ')')) {
		struct rowkey_term *t = add_term(w, r, &tail);

		if (!t)
			return;
		walk_term(w, r->names->text, t);
		if (!walk_take_punct(w, ','))
			break;
	}
	walk_expect(w, ')');
}

static bool read_op(struct walk *w, enum rowkey_op *ret)
{
	static const struct {
		const char *text;
		enum rowkey_op op;
	} ops[] = {
	    {"=", ROWKEY_EQ}, {"<", ROWKEY_LT}, {"<=", ROWKEY_LE}, {">", ROWKEY_GT}, {">=", ROWKEY_GE}};

	for (unsigned i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		if (w->token.kind == TOKEN_PUNCT && span_equal(w->token.text, span_text(ops[i].text))) {
			*ret = ops[i].op;
			walk_advance(w);
			return true;
		}
	}
	return false;
}

/* name | ( name, name ) */
static void read_names(struct walk *w, struct rowkey_relation *r)
{
	struct rowkey_name **tail = &r->names;

	r->tuple = walk_take_punct(w, '(');
	do {
		struct rowkey_name *n = walk_memory(w, sizeof(*n));

		if (!n)
			return;
		if (!token_named(&w->token)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		n->text = walk_name(w, &w->token);
		*tail = n;
		tail = &n->next;
		walk_advance(w);
	} while (r->tuple && !w->error && walk_take_punct(w, ','));
	if (r->tuple)
		walk_expect(w, ')');
}

/* Whether a tuple of names stands here, and not a relation in brackets. */
static bool at_tuple(const struct walk *w)
{
	struct lexer ahead = w->lexer;

	if (!token_punct(&w->token, '('))
		return false;
	struct token name = lexer_next(&ahead), after = lexer_next(&ahead);

	return token_named(&name) && (token_punct(&after, ',') || token_punct(&after, ')'));
}

static void read_relation(struct walk *w, struct rowkey_relation ***tail)
{
	unsigned brackets = 0;

	while (!at_tuple(w) && token_punct(&w->token, '(')) {
		brackets++;
		walk_advance(w);
	}
	struct rowkey_relation *r = walk_memory(w, sizeof(*r));

	if (!r)
		return;
	read_names(w, r);
	if (w->error)
		return;
	if (walk_take(w, "in")) {
		read_in(w, r);
	} else if (read_op(w, &r->op)) {
		r->terms = walk_memory(w, sizeof(*r->terms));
		if (!r->terms)
			return;
		r->term_count = 1;
		walk_term(w, r->names->text, r->terms);
	} else {
		walk_fail(w, -ENOKEY);
	}
	while (brackets-- && !w->error)
		walk_expect(w, ')');
	**tail = r;
	*tail = &r->next;
}

static void read_where(struct walk *w, struct rowkey_statement *s)
{
	struct rowkey_relation **tail = &s->relations;

	walk_expect_word(w, "where");
	do {
		if (!w->error)
			read_relation(w, &tail);
	} while (!w->error && walk_take(w, "and"));
}

/* ------------------------------------------------------------- statements */

static void copy_name(struct walk *w, const struct token *t, char to[CQL_NAME_MAX + 1])
{
	uint8_t folded[2 * CQL_NAME_MAX];

	/* Each quote inside a quoted name stands there twice. */
	size_t n = t->text.size <= sizeof(folded) ? walk_unquote(t, folded) : sizeof(folded);

	if (n > CQL_NAME_MAX || memchr(folded, 0, n)) {
		walk_fail(w, -ENOKEY);
		return;
	}
	memcpy(to, folded, n);
	to[n] = 0;
}

/* [keyspace.]table */
static void read_table(struct walk *w, struct table_name *ret)
{
	struct token first = w->token;

	if (!token_named(&first)) {
		walk_fail(w, -ENOKEY);
		return;
	}
	walk_advance(w);
	if (walk_take_punct(w, '.')) {
		copy_name(w, &first, ret->keyspace);
		first = w->token;
		if (!token_named(&first)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		walk_advance(w);
	}
	copy_name(w, &first, ret->table);
}

/* To the next of `words` (NULL at the end) outside brackets, or to the statement's end. */
static void skip_to(struct walk *w, const char *const *words)
{
	unsigned depth = 0;

	for (; !token_ended(&w->token); walk_advance(w)) {
		if (token_opens(&w->token))
			depth++;
		else if (token_closes(&w->token) && depth)
			depth--;
		if (depth)
			continue;
		if (token_punct(&w->token, ';'))
			return;
		for (const char *const *word = words; *word; word++)
			if (token_is(&w->token, *word))
				return;
	}
}

/* The document of INSERT … JSON; a literal's doubled quotes are taken out. */
static void read_json(struct walk *w, struct rowkey_statement *s)
{
	struct span document = w->token.text;

	if (w->bind) {
		struct span value = walk_marker(w, span_text("[json]"));

		if (!value.data || walk_value_null(value)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		document = span_of(value.data + 4, value.size - 4);
	} else if (w->token.kind != TOKEN_STRING) {
		walk_fail(w, -ENOKEY);
		return;
	} else if (w->lexer.text.data[w->token.at] == '\'') {
		uint8_t *copy = walk_memory(w, document.size + 1);
		size_t n = 0;

		if (!copy)
			return;
		for (size_t i = 0; i < document.size; i++) {
			copy[n++] = document.data[i];
			if (document.data[i] == '\'')
				i++;
		}
		document = span_of(copy, n);
	}
	int rc = rowkey_json(w->arena, document, &s->relations);

	if (rc)
		walk_fail(w, rc);
	walk_advance(w);
}

/* (a, b) VALUES (1, ?) */
static void read_values(struct walk *w, struct rowkey_statement *s)
{
	struct rowkey_relation **tail = &s->relations, *r;

	walk_expect(w, '(');
	do {
		r = walk_memory(w, sizeof(*r));
		if (!r || !(r->names = walk_memory(w, sizeof(*r->names))) ||
		    !(r->terms = walk_memory(w, sizeof(*r->terms))))
			return;
		if (!token_named(&w->token)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		r->names->text = walk_name(w, &w->token);
		r->term_count = 1;
		*tail = r;
		tail = &r->next;
		walk_advance(w);
	} while (!w->error && walk_take_punct(w, ','));
	walk_expect(w, ')');
	walk_expect_word(w, "values");
	walk_expect(w, '(');
	for (r = s->relations; r && !w->error; r = r->next) {
		walk_term(w, r->names->text, r->terms);
		if (r->next)
			walk_expect(w, ',');
	}
	walk_expect(w, ')');
}

/* INSERT, UPDATE or DELETE, up to its semicolon, the batch's next statement or the end. */
static void read_write(struct walk *w, struct rowkey_statement *s)
{
	static const char *const from[] = {"from", NULL}, *const where[] = {"where", NULL};
	static const char *const after[] = {"insert", "update", "delete", "apply", NULL};

	if (walk_take(w, "insert")) {
		s->kind = STATEMENT_INSERT;
		walk_expect_word(w, "into");
		if (!w->error)
			read_table(w, &s->name);
		if (w->error)
			return;
		if (walk_take(w, "json"))
			read_json(w, s);
		else
			read_values(w, s);
	} else if (walk_take(w, "update")) {
		s->kind = STATEMENT_UPDATE;
		read_table(w, &s->name);
		skip_to(w, where);
		read_where(w, s);
	} else if (walk_take(w, "delete")) {
		s->kind = STATEMENT_DELETE;
		s->whole = token_is(&w->token, "from");
		skip_to(w, from);
		walk_expect_word(w, "from");
		if (!w->error)
			read_table(w, &s->name);
		skip_to(w, where);
		read_where(w, s);
	} else {
		walk_fail(w, -ENOKEY);
	}
	if (!w->error)
		skip_to(w, after);
}

static void read_statements(struct walk *w, struct rowkey *k)
{
	static const char *const begins[] = {"insert", "update", "delete", "apply", NULL};
	struct rowkey_statement **tail = &k->statements;
	bool batch = walk_take(w, "begin");

	if (batch)
		skip_to(w, begins);
	do {
		struct rowkey_statement *s = walk_memory(w, sizeof(*s));

		if (!s)
			return;
		if (batch && token_is(&w->token, "apply"))
			break;
		read_write(w, s);
		*tail = s;
		tail = &s->next;
		k->count++;
		while (!w->error && walk_take_punct(w, ';'))
			;
	} while (batch && !w->error);
	if (batch) {
		walk_expect_word(w, "apply");
		walk_expect_word(w, "batch");
	}
	while (walk_take_punct(w, ';'))
		;
	if (w->token.kind != TOKEN_END || !k->count)
		walk_fail(w, -ENOKEY);
	/* The server, which took the statement, counted other markers: one of them may have its neighbour's value here. */
	if (!w->values.names && w->value_at != w->values.values.size)
		walk_fail(w, -ENOKEY);
}

int rowkey_read(struct span text, struct rowkey_values values, struct rowkey *ret)
{
	struct rowkey k = {.arena.max = ROWKEY_MEMORY_MAX};
	struct walk w = {.values = values, .arena = &k.arena};

	/* A blank for each token at most, besides the text itself. */
	w.text = malloc(2 * text.size + 1);
	w.bytes = malloc(ROWKEY_VALUES_MAX);
	if (!w.text || !w.bytes) {
		w.error = -ENOMEM;
	} else {
		lexer_init(&w.lexer, text);
		walk_advance(&w);
		read_statements(&w, &k);
	}
	free(w.text);
	free(w.bytes);
	if (w.error) {
		arena_done(&k.arena);
		return w.error;
	}
	*ret = k;
	return 0;
}

void rowkey_done(struct rowkey *k)
{
	arena_done(&k->arena);
	*k = (struct rowkey){0};
}

const char *rowkey_op_text(enum rowkey_op op)
{
	static const char *const texts[] = {"=", "<", "<=", ">", ">="};

	return texts[op];
}
