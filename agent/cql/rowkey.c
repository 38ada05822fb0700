/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes writes apart, see rowkey.h. One pass from left to right, so that every bind marker is met in the order
 * in which the server counts them; what is not part of a key is walked over for that reason alone.
 */
#include "cql/rowkey.h"

#include <errno.h>

#include "cql/functions.h"
#include "cql/lexer.h"
#include "cql/reader.h"
#include "cql/rowkey_priv.h"

struct walk {
	struct lexer lexer;
	struct token token, previous;
	size_t end;	 /* behind `token`, in the text */
	size_t gap;	 /* behind `previous`: less than token.at where blanks are between */
	unsigned braces; /* open ones */
	bool bind;	 /* `token` is a bind marker */
	struct rowkey_values values;
	size_t value_at;	   /* of the next value by position */
	struct span value;	   /* of `token`, by position: its [value]; data = NULL where there is none */
	uint8_t *text, *bytes;	   /* scratch for a term */
	struct arena *arena;
	int error;
};

static void walk_fail(struct walk *w, int error)
{
	if (!w->error)
		w->error = error;
}

/* ------------------------------------------------------------------------------------------------- values */

static uint32_t load_length(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The [value] at `at`, its length included; false when it is cut off. Null and unset have a length below 0. */
static bool value_at(struct span values, size_t at, struct span *ret)
{
	if (values.size - at < 4)
		return false;
	int32_t n = (int32_t)load_length(values.data + at);
	size_t size = n > 0 ? (size_t)n : 0;

	if (values.size - at - 4 < size)
		return false;
	*ret = span_of(values.data + at, size + 4);
	return true;
}

static bool value_null(struct span value)
{
	return (int32_t)load_length(value.data) < 0;
}

/* The value that the request gives to `name`; data = NULL where it gives none. */
static struct span value_named(const struct rowkey_values *v, struct span name)
{
	size_t at = 0;

	for (unsigned i = 0; i < v->count; i++) {
		struct span value;

		if (v->values.size - at < 2)
			break;
		size_t n = (size_t)(v->values.data[at] << 8 | v->values.data[at + 1]);

		if (v->values.size - at - 2 < n)
			break;
		struct span own = span_of(v->values.data + at + 2, n);

		at += 2 + n;
		if (!value_at(v->values, at, &value))
			break;
		at += value.size;
		if (span_equal(own, name))
			return value;
	}
	return (struct span){0};
}

/* ------------------------------------------------------------------------------------------------- tokens */

/* Whether a term may end with it: then a colon behind it separates, as in {a:now()}, and begins no marker. */
static bool ends_term(const struct token *t)
{
	switch (t->kind) {
	case TOKEN_NAME:
	case TOKEN_QUOTED:
	case TOKEN_STRING:
	case TOKEN_NUMBER:
	case TOKEN_HEX:
	case TOKEN_UUID:
	case TOKEN_BIND:
	case TOKEN_NAMED_BIND:
		return true;
	default:
		return token_closes(t);
	}
}

static void advance(struct walk *w)
{
	if (token_punct(&w->token, '{'))
		w->braces++;
	else if (token_punct(&w->token, '}') && w->braces)
		w->braces--;
	w->previous = w->token;
	w->gap = w->end;
	w->token = lexer_next(&w->lexer);
	w->end = w->lexer.at;
	w->bind = w->token.kind == TOKEN_BIND ||
		  (w->token.kind == TOKEN_NAMED_BIND && !(w->braces && ends_term(&w->previous)));
	w->value = (struct span){0};
	if (w->bind && !w->values.names && value_at(w->values.values, w->value_at, &w->value))
		w->value_at += w->value.size;
	if (w->token.kind == TOKEN_BAD)
		walk_fail(w, -ENOKEY);
}

static bool take(struct walk *w, const char *word)
{
	if (!token_is(&w->token, word))
		return false;
	advance(w);
	return true;
}

static void expect_word(struct walk *w, const char *word)
{
	if (!take(w, word))
		walk_fail(w, -ENOKEY);
}

static bool take_punct(struct walk *w, char c)
{
	if (!token_punct(&w->token, c))
		return false;
	advance(w);
	return true;
}

static void expect(struct walk *w, char c)
{
	if (!take_punct(w, c))
		walk_fail(w, -ENOKEY);
}

static void *take_memory(struct walk *w, size_t size)
{
	void *p = arena_zero(w->arena, size);

	if (!p)
		walk_fail(w, w->arena->used + size + 64 > w->arena->max ? -E2BIG : -ENOMEM);
	return p;
}

/* Folds a name or takes the quotes out of it. `to` has room for the text's size. */
static size_t unquote(const struct token *t, uint8_t *to)
{
	/* A named marker's text looks the same quoted or not; the colon's neighbour tells. */
	bool quoted = t->kind == TOKEN_QUOTED ||
		      (t->kind == TOKEN_NAMED_BIND && t->text.data[-1] == '"');
	size_t n = 0;

	for (size_t i = 0; i < t->text.size; i++) {
		uint8_t c = t->text.data[i];

		if (!quoted && c >= 'A' && c <= 'Z')
			c |= 0x20;
		else if (quoted && c == '"')
			i++;
		to[n++] = c;
	}
	return n;
}

static struct span name_of(struct walk *w, const struct token *t)
{
	uint8_t *to = arena_take(w->arena, t->text.size + 1);

	if (!to) {
		walk_fail(w, -ENOMEM);
		return (struct span){0};
	}
	return span_of(to, unquote(t, to));
}

/* ------------------------------------------------------------------------------------------------- terms */

static bool term_ends(const struct walk *w)
{
	static const char *const words[] = {"and",    "if",	"using",  "where",
					    "insert", "update", "delete", "apply"};

	if (token_ended(&w->token) || token_punct(&w->token, ',') || token_punct(&w->token, ';') ||
	    token_closes(&w->token))
		return true;
	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (token_is(&w->token, words[i]))
			return true;
	return false;
}

/* The value of the marker that stands here. `receiver`: the name that the server gives to an anonymous one. */
static struct span marker_value(struct walk *w, struct span receiver)
{
	if (!w->values.names)
		return w->value;
	if (w->token.kind == TOKEN_BIND)
		return value_named(&w->values, receiver);
	return value_named(&w->values, name_of(w, &w->token));
}

/* One term, as a copy that stands for itself. */
static void read_term(struct walk *w, struct span receiver, struct rowkey_term *ret)
{
	size_t text = 0, bytes = 0;
	unsigned depth = 0, count = 0;
	bool usable = !term_ends(w);

	while (!token_ended(&w->token) && (depth || !term_ends(w))) {
		/* A name of this term's own before a bracket is a call. */
		if (text && token_punct(&w->token, '(') &&
		    (token_named(&w->previous) || w->previous.kind == TOKEN_NAMED_BIND) &&
		    !function_is_fixed(w->previous.text, w->previous.kind != TOKEN_QUOTED))
			usable = false;
		/* A function of a keyspace's own; no number and no name of a key has a dot. */
		if (token_punct(&w->token, '.'))
			usable = false;
		if (token_is(&w->token, "null"))
			usable = false;
		if (token_opens(&w->token))
			depth++;
		else if (token_closes(&w->token))
			depth--;
		if (text && w->gap != w->token.at)
			w->text[text++] = ' ';
		if (w->bind) {
			struct span value = marker_value(w, receiver);

			if (!value.data || value_null(value) || value.size > ROWKEY_VALUES_MAX - bytes) {
				usable = false;
			} else {
				memcpy(w->bytes + bytes, value.data, value.size);
				bytes += value.size;
				count++;
			}
			w->text[text++] = '?';
		} else {
			memcpy(w->text + text, w->lexer.text.data + w->token.at, w->end - w->token.at);
			text += w->end - w->token.at;
		}
		advance(w);
	}
	*ret = (struct rowkey_term){.usable = usable && text && !depth && text <= 2 * ROWKEY_VALUES_MAX};
	if (!ret->usable)
		return;
	ret->text = arena_copy(w->arena, span_of(w->text, text));
	ret->values = arena_copy(w->arena, span_of(w->bytes, bytes));
	ret->value_count = (uint16_t)count;
	if (!ret->text.data || !ret->values.data)
		walk_fail(w, -E2BIG);
}

/* ------------------------------------------------------------------------------------------------- relations */

static struct rowkey_term *add_term(struct walk *w, struct rowkey_relation *r, struct rowkey_term ***tail)
{
	struct rowkey_term *t = take_memory(w, sizeof(*t));

	if (!t)
		return NULL;
	**tail = t;
	*tail = &t->next;
	r->term_count++;
	return t;
}

/* "?" for a whole IN list: a list<…> in the encoding of protocol v3 and later, each element a value of its own. */
static void read_in_marker(struct walk *w, struct rowkey_relation *r, struct rowkey_term ***tail)
{
	struct span name = r->names->text, list;
	uint8_t *receiver = take_memory(w, name.size + 4);
	size_t at = 8;

	if (!receiver)
		return;
	memcpy(receiver, "in(", 3);
	memcpy(receiver + 3, name.data, name.size);
	receiver[name.size + 3] = ')';
	list = marker_value(w, span_of(receiver, name.size + 4));
	advance(w);
	if (!list.data || value_null(list) || list.size < 8) {
		walk_fail(w, -ENOKEY);
		return;
	}
	for (uint32_t n = load_length(list.data + 4); n && !w->error; n--) {
		struct span value;

		if (!value_at(list, at, &value)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		at += value.size;
		struct rowkey_term *t = add_term(w, r, tail);

		if (!t)
			return;
		t->usable = !value_null(value) && value.size <= ROWKEY_VALUES_MAX;
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
	expect(w, '(');
	while (!w->error && !token_punct(&w->token, ')')) {
		struct rowkey_term *t = add_term(w, r, &tail);

		if (!t)
			return;
		read_term(w, r->names->text, t);
		if (!take_punct(w, ','))
			break;
	}
	expect(w, ')');
}

static bool read_op(struct walk *w, enum rowkey_op *ret)
{
	static const struct {
		const char *text;
		enum rowkey_op op;
	} ops[] = {{"=", ROWKEY_EQ}, {"<", ROWKEY_LT}, {"<=", ROWKEY_LE}, {">", ROWKEY_GT}, {">=", ROWKEY_GE}};

	for (unsigned i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		if (w->token.kind == TOKEN_PUNCT && span_equal(w->token.text, span_text(ops[i].text))) {
			*ret = ops[i].op;
			advance(w);
			return true;
		}
	}
	return false;
}

/* name | ( name, name ) */
static void read_names(struct walk *w, struct rowkey_relation *r)
{
	struct rowkey_name **tail = &r->names;

	r->tuple = take_punct(w, '(');
	do {
		struct rowkey_name *n = take_memory(w, sizeof(*n));

		if (!n)
			return;
		if (!token_named(&w->token)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		n->text = name_of(w, &w->token);
		*tail = n;
		tail = &n->next;
		advance(w);
	} while (r->tuple && !w->error && take_punct(w, ','));
	if (r->tuple)
		expect(w, ')');
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
		advance(w);
	}
	struct rowkey_relation *r = take_memory(w, sizeof(*r));

	if (!r)
		return;
	read_names(w, r);
	if (w->error)
		return;
	if (take(w, "in")) {
		read_in(w, r);
	} else if (read_op(w, &r->op)) {
		r->terms = take_memory(w, sizeof(*r->terms));
		if (!r->terms)
			return;
		r->term_count = 1;
		read_term(w, r->names->text, r->terms);
	} else {
		walk_fail(w, -ENOKEY);
	}
	while (brackets-- && !w->error)
		expect(w, ')');
	**tail = r;
	*tail = &r->next;
}

static void read_where(struct walk *w, struct rowkey_statement *s)
{
	struct rowkey_relation **tail = &s->relations;

	expect_word(w, "where");
	do {
		if (!w->error)
			read_relation(w, &tail);
	} while (!w->error && take(w, "and"));
}

/* ------------------------------------------------------------------------------------------------- statements */

static void copy_name(struct walk *w, const struct token *t, char to[CQL_NAME_MAX + 1])
{
	uint8_t folded[2 * CQL_NAME_MAX];

	/* Each quote inside a quoted name stands there twice. */
	size_t n = t->text.size <= sizeof(folded) ? unquote(t, folded) : sizeof(folded);

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
	advance(w);
	if (take_punct(w, '.')) {
		copy_name(w, &first, ret->keyspace);
		first = w->token;
		if (!token_named(&first)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		advance(w);
	}
	copy_name(w, &first, ret->table);
}

/* To the next of `words` (NULL at the end) outside brackets, or to the statement's end. */
static void skip_to(struct walk *w, const char *const *words)
{
	unsigned depth = 0;

	for (; !token_ended(&w->token); advance(w)) {
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
		struct span value = marker_value(w, span_text("[json]"));

		if (!value.data || value_null(value)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		document = span_of(value.data + 4, value.size - 4);
	} else if (w->token.kind != TOKEN_STRING) {
		walk_fail(w, -ENOKEY);
		return;
	} else if (w->lexer.text.data[w->token.at] == '\'') {
		uint8_t *copy = take_memory(w, document.size + 1);
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
	advance(w);
}

/* (a, b) VALUES (1, ?) */
static void read_values(struct walk *w, struct rowkey_statement *s)
{
	struct rowkey_relation **tail = &s->relations, *r;

	expect(w, '(');
	do {
		r = take_memory(w, sizeof(*r));
		if (!r || !(r->names = take_memory(w, sizeof(*r->names))) ||
		    !(r->terms = take_memory(w, sizeof(*r->terms))))
			return;
		if (!token_named(&w->token)) {
			walk_fail(w, -ENOKEY);
			return;
		}
		r->names->text = name_of(w, &w->token);
		r->term_count = 1;
		*tail = r;
		tail = &r->next;
		advance(w);
	} while (!w->error && take_punct(w, ','));
	expect(w, ')');
	expect_word(w, "values");
	expect(w, '(');
	for (r = s->relations; r && !w->error; r = r->next) {
		read_term(w, r->names->text, r->terms);
		if (r->next)
			expect(w, ',');
	}
	expect(w, ')');
}

/* INSERT, UPDATE or DELETE, up to its semicolon, the batch's next statement or the end. */
static void read_write(struct walk *w, struct rowkey_statement *s)
{
	static const char *const from[] = {"from", NULL}, *const where[] = {"where", NULL};
	static const char *const after[] = {"insert", "update", "delete", "apply", NULL};

	if (take(w, "insert")) {
		s->kind = STATEMENT_INSERT;
		expect_word(w, "into");
		if (!w->error)
			read_table(w, &s->name);
		if (w->error)
			return;
		if (take(w, "json"))
			read_json(w, s);
		else
			read_values(w, s);
	} else if (take(w, "update")) {
		s->kind = STATEMENT_UPDATE;
		read_table(w, &s->name);
		skip_to(w, where);
		read_where(w, s);
	} else if (take(w, "delete")) {
		s->kind = STATEMENT_DELETE;
		s->whole = token_is(&w->token, "from");
		skip_to(w, from);
		expect_word(w, "from");
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
	bool batch = take(w, "begin");

	if (batch)
		skip_to(w, begins);
	do {
		struct rowkey_statement *s = take_memory(w, sizeof(*s));

		if (!s)
			return;
		if (batch && token_is(&w->token, "apply"))
			break;
		read_write(w, s);
		*tail = s;
		tail = &s->next;
		k->count++;
		while (!w->error && take_punct(w, ';'))
			;
	} while (batch && !w->error);
	if (batch) {
		expect_word(w, "apply");
		expect_word(w, "batch");
	}
	while (take_punct(w, ';'))
		;
	if (w->token.kind != TOKEN_END || !k->count)
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
		advance(&w);
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
