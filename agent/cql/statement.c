/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a statement once from left to right, see statement.h. It follows Cassandra's grammar only as far as
 * it has to: far enough to know every table, every clause that matters and every call. What it need not
 * understand it skips by brackets; what does not fit the grammar at a place that matters makes the statement
 * unknown.
 *
 * It leans on words that the grammar reserves (FROM, INTO, SET, WHERE, IF, USING, APPLY, ON, INSERT, UPDATE,
 * DELETE): unquoted, they can be nothing but keywords. All other words may also be names, and are keywords
 * only where the grammar demands one.
 */
#include "cql/statement.h"

#include "cql/functions.h"
#include "cql/reader.h"

/* What a child of a text batch may have and another not. */
#define CHILD_PROPERTIES (~(uint32_t)(STATEMENT_TABLES_MORE | STATEMENT_TEXT_BATCH_MIXED))

/* ------------------------------------------------------------------------------------------------- writes */

/* USING TIMESTAMP x AND TTL y, from behind USING */
static void read_using(struct reader *r)
{
	do {
		if (reader_take(r, "timestamp"))
			r->s->flags |= STATEMENT_TIMESTAMP;
		else if (reader_take(r, "ttl"))
			r->s->flags |= STATEMENT_TTL;
		else
			r->failed = true;
		if (token_punct(&r->token, '-'))
			reader_advance(r);
		if (r->token.kind != TOKEN_NUMBER && r->token.kind != TOKEN_BIND &&
		    r->token.kind != TOKEN_NAMED_BIND)
			r->failed = true;
		else
			reader_advance(r);
	} while (!r->failed && reader_take(r, "and"));
}

/* The rest of a write: relations, IF, USING, up to the end, the semicolon, or the next statement of a batch.
 */
static void read_tail(struct reader *r, bool batch)
{
	while (!r->failed && r->token.kind != TOKEN_END && !token_punct(&r->token, ';')) {
		if (r->token.kind == TOKEN_BAD || token_closes(&r->token)) {
			r->failed = true;
		} else if (token_opens(&r->token)) {
			reader_skip_group(r);
		} else if (token_is(&r->token, "if")) {
			r->s->flags |= STATEMENT_CONDITIONAL;
			reader_advance(r);
		} else if (reader_take(r, "in")) {
			r->s->piecemeal = true;
		} else if (reader_take(r, "using")) {
			read_using(r);
		} else if (token_is(&r->token, "insert") || token_is(&r->token, "update") ||
			   token_is(&r->token, "delete") || token_is(&r->token, "apply")) {
			if (!batch)
				r->failed = true;
			return;
		} else {
			reader_advance(r);
		}
	}
}

/* A term that becomes a column's value. A list in it may stand behind a type hint. */
static void read_value(struct reader *r)
{
	while (!token_ended(&r->token) && !token_closes(&r->token) && !token_punct(&r->token, ',') &&
	       !token_punct(&r->token, ';')) {
		if (token_punct(&r->token, '['))
			r->s->flags |= STATEMENT_LIST_VALUE;
		if (token_opens(&r->token))
			reader_skip_group(r);
		else
			reader_advance(r);
	}
	if (token_ended(&r->token))
		r->failed = true;
}

static void read_insert(struct reader *r, bool batch)
{
	reader_advance(r);
	reader_expect_word(r, "into");
	if (!r->failed)
		reader_name(r, true);
	if (r->failed)
		return;
	if (reader_take(r, "json")) {
		r->s->flags |= STATEMENT_JSON;
		if (r->token.kind != TOKEN_STRING && r->token.kind != TOKEN_BIND &&
		    r->token.kind != TOKEN_NAMED_BIND)
			r->failed = true;
		/* A list can be in there only where a bracket is. What a bound document holds nobody can see
		 * here. */
		if (r->token.kind == TOKEN_STRING && memchr(r->token.text.data, '[', r->token.text.size))
			r->s->flags |= STATEMENT_LIST_VALUE;
		if (r->token.kind == TOKEN_STRING && json_has_now(r->token.text))
			r->s->flags |= STATEMENT_FUNCTION;
	} else {
		if (!token_punct(&r->token, '(')) {
			r->failed = true;
			return;
		}
		reader_skip_group(r);
		reader_expect_word(r, "values");
		r->terms = true;
		reader_expect(r, '(');
		while (!r->failed) {
			read_value(r);
			if (!token_punct(&r->token, ','))
				break;
			reader_advance(r);
		}
		if (!r->failed)
			reader_expect(r, ')');
	}
	read_tail(r, batch);
}

/* (type)term, from the parenthesis: of a type that no list's index has? */
static bool hints_key(const struct reader *r)
{
	static const char *const types[] = {"timeuuid", "uuid", "timestamp", "date", "time", "text"};
	struct lexer ahead = r->lexer;
	struct token type = lexer_next(&ahead), close = lexer_next(&ahead);

	if (!token_punct(&r->token, '(') || !token_punct(&close, ')'))
		return false;
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (token_is(&type, types[i]))
			return true;
	return false;
}

/* x[term], from behind the bracket: what the term says about x being a list or a map. */
static void read_element(struct reader *r)
{
	struct token t = r->token;
	bool key = hints_key(r);
	bool integer = t.kind == TOKEN_NUMBER;

	for (size_t i = 0; integer && i < t.text.size; i++)
		integer = t.text.data[i] >= '0' && t.text.data[i] <= '9';
	reader_skip_term(r);
	if (key || t.kind == TOKEN_STRING || t.kind == TOKEN_UUID || t.kind == TOKEN_HEX || token_punct(&t, '{') ||
	    token_punct(&t, '[') || (t.kind == TOKEN_NUMBER && !integer)) {
		/* No list has such an index. */
	} else {
		r->s->flags |= STATEMENT_ELEMENT;
		/* The name that the cluster gives to "?" tells a key from an index; of other terms it tells
		 * nothing. */
		if (t.kind != TOKEN_BIND)
			r->s->flags |= STATEMENT_UNTYPED;
	}
	reader_expect(r, ']');
}

/* x = x ± term, from behind the sign: what the term says about x. Adding and subtracting differ for none of
 * them. */
static void read_arithmetic(struct reader *r)
{
	if (token_punct(&r->token, '-') || token_punct(&r->token, '+'))
		reader_advance(r);
	struct token t = r->token;
	if (t.kind == TOKEN_NUMBER) {
		r->s->flags |= STATEMENT_COUNTER; /* only counters take arithmetic with a number */
	} else if (token_punct(&t, '[')) {
		r->s->flags |= STATEMENT_LIST;
	} else if (token_punct(&t, '{')) {
		/* Set or map: to add or to remove twice is as good as once. */
	} else {
		r->s->flags |= STATEMENT_ARITHMETIC;
		if (t.kind != TOKEN_BIND && t.kind != TOKEN_NAMED_BIND)
			r->s->flags |= STATEMENT_UNTYPED;
	}
	reader_skip_term(r);
}

/* What is assigned, from behind "x =". */
static void read_assigned(struct reader *r)
{
	bool list = token_punct(&r->token, '[');

	if (token_named(&r->token)) {
		reader_advance(r);
		if (token_punct(&r->token, '+') || token_punct(&r->token, '-')) {
			reader_advance(r);
			read_arithmetic(r);
			return;
		}
		/* The sign may be left out, or be the number's own (Parser.g, normalColumnOperation): n = n 3. */
		if (r->token.kind == TOKEN_NUMBER) {
			read_arithmetic(r);
			return;
		}
	}
	/* term + x: prepends to a list; nothing else can stand on the left. */
	bool plus = false;
	while (!token_ended(&r->token) && !token_punct(&r->token, ',') && !token_punct(&r->token, ';') &&
	       !token_closes(&r->token) && !token_is(&r->token, "where")) {
		plus = token_punct(&r->previous, '+') && token_named(&r->token);
		list |= token_punct(&r->token, '[');
		if (token_opens(&r->token)) {
			plus = false;
			reader_skip_group(r);
		} else {
			reader_advance(r);
		}
	}
	if (plus)
		r->s->flags |= STATEMENT_LIST;
	else if (list)
		r->s->flags |= STATEMENT_LIST_VALUE;
}

static void read_operation(struct reader *r)
{
	if (!token_named(&r->token)) {
		r->failed = true;
		return;
	}
	reader_advance(r);
	if (token_punct(&r->token, '[')) {
		reader_advance(r);
		read_element(r);
		reader_expect(r, '=');
		reader_skip_term(r);
	} else if (token_punct(&r->token, '.')) {
		reader_advance(r);
		reader_advance(r);
		reader_expect(r, '=');
		reader_skip_term(r);
	} else if (token_sign(&r->token, "+=") || token_sign(&r->token, "-=")) {
		reader_advance(r);
		read_arithmetic(r);
	} else {
		reader_expect(r, '=');
		if (!r->failed)
			read_assigned(r);
	}
}

static void read_update(struct reader *r, bool batch)
{
	reader_advance(r);
	reader_name(r, true);
	if (!r->failed && reader_take(r, "using"))
		read_using(r);
	reader_expect_word(r, "set");
	r->terms = true;
	while (!r->failed) {
		read_operation(r);
		if (!token_punct(&r->token, ','))
			break;
		reader_advance(r);
	}
	reader_expect_word(r, "where");
	read_tail(r, batch);
}

static void read_delete(struct reader *r, bool batch)
{
	r->terms = true;
	reader_advance(r);
	while (!r->failed && !token_is(&r->token, "from")) {
		bool element = token_named(&r->previous) && token_punct(&r->token, '[');
		if (token_ended(&r->token) || token_punct(&r->token, ';')) {
			r->failed = true;
			return;
		}
		reader_advance(r);
		if (element)
			read_element(r);
	}
	reader_expect_word(r, "from");
	if (!r->failed)
		reader_name(r, true);
	if (!r->failed && reader_take(r, "using"))
		read_using(r);
	reader_expect_word(r, "where");
	read_tail(r, batch);
}

/* INSERT, UPDATE or DELETE; UNKNOWN when it is none of them. */
static enum statement_kind read_write(struct reader *r, bool batch)
{
	r->terms = false;
	if (token_is(&r->token, "insert")) {
		read_insert(r, batch);
		return STATEMENT_INSERT;
	}
	if (token_is(&r->token, "update")) {
		read_update(r, batch);
		return STATEMENT_UPDATE;
	}
	if (token_is(&r->token, "delete")) {
		read_delete(r, batch);
		return STATEMENT_DELETE;
	}
	return STATEMENT_UNKNOWN;
}

/* BEGIN [UNLOGGED | COUNTER] BATCH [USING …] (child ;?)* APPLY BATCH */
static void read_batch(struct reader *r)
{
	struct statement *s = r->s;
	uint32_t batch = 0, all = 0, first = 0;
	bool any = false, mixed = false, logged = true;

	reader_advance(r);
	if (reader_take(r, "unlogged")) {
		logged = false;
	} else if (reader_take(r, "counter")) {
		logged = false;
		batch = STATEMENT_COUNTER;
	}
	reader_expect_word(r, "batch");
	if (!r->failed && reader_take(r, "using"))
		read_using(r);
	batch |= s->flags;
	while (!r->failed && !token_is(&r->token, "apply")) {
		s->flags = 0;
		if (read_write(r, true) == STATEMENT_UNKNOWN)
			r->failed = true;
		uint32_t properties = s->flags & CHILD_PROPERTIES;
		mixed |= any && properties != first;
		first = any ? first : properties;
		any = true;
		all |= s->flags;
		if (token_punct(&r->token, ';'))
			reader_advance(r);
	}
	s->piecemeal = !logged;
	s->flags = batch | all | (mixed ? STATEMENT_TEXT_BATCH_MIXED : 0);
	reader_expect_word(r, "apply");
	reader_expect_word(r, "batch");
}

/* ------------------------------------------------------------------------------------------------- the rest
 */

static void read_select(struct reader *r)
{
	reader_advance(r);
	if (reader_take(r, "json") && !token_punct(&r->token, ',') && !token_punct(&r->token, '.') &&
	    !token_is(&r->token, "from"))
		r->s->flags |= STATEMENT_JSON;
	/* A SELECT that cannot be read further can still change nothing. */
	if (reader_find(r, "from"))
		reader_name(r, true);
}

/* [IF [NOT] EXISTS] */
static void skip_if(struct reader *r)
{
	if (reader_take(r, "if")) {
		reader_take(r, "not");
		reader_take(r, "exists");
	}
}

/* CREATE, ALTER or DROP, from behind that word. */
static enum statement_kind read_definition(struct reader *r)
{
	static const char *const roles[] = {"role", "user", "identity", "generated"};

	if (reader_take(r, "or"))
		reader_take(r, "replace");
	reader_take(r, "custom");
	for (unsigned i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (token_is(&r->token, roles[i]))
			return STATEMENT_ROLE;
	if (reader_take(r, "keyspace")) {
		skip_if(r);
		if (token_named(&r->token))
			reader_add_table(r, &r->token, NULL);
	} else if (reader_take(r, "table") || reader_take(r, "columnfamily")) {
		skip_if(r);
		reader_name(r, true);
		/* CREATE TABLE a.t LIKE t: the source is in no list of tables. */
		r->s->unqualified |= !r->failed && reader_find(r, "like");
	} else if (reader_take(r, "materialized")) {
		reader_take(r, "view");
		skip_if(r);
		reader_name(r, true);
		/* CREATE names its base table, too. */
		if (!r->failed && reader_take(r, "as") && reader_find(r, "from"))
			reader_name(r, true);
	} else if (reader_take(r, "type") || reader_take(r, "function") || reader_take(r, "aggregate")) {
		skip_if(r);
		reader_name(r, false);
	} else if (reader_take(r, "index")) {
		skip_if(r);
		/* Created ON a table; dropped by its own name. */
		if (!token_is(&r->token, "on"))
			reader_name(r, false);
		if (!r->failed && reader_take(r, "on"))
			reader_name(r, true);
	} else if (reader_take(r, "trigger")) {
		skip_if(r);
		if (reader_find(r, "on"))
			reader_name(r, true);
	} else {
		return STATEMENT_UNKNOWN;
	}
	return STATEMENT_SCHEMA;
}

static enum statement_kind read_other(struct reader *r)
{
	if (token_is(&r->token, "use")) {
		reader_advance(r);
		if (!token_named(&r->token))
			return STATEMENT_UNKNOWN;
		reader_add_table(r, &r->token, NULL);
		return STATEMENT_USE;
	}
	if (reader_take(r, "create") || reader_take(r, "alter") || reader_take(r, "drop"))
		return read_definition(r);
	if (token_is(&r->token, "grant") || token_is(&r->token, "revoke"))
		return STATEMENT_ROLE;
	if (reader_take(r, "add"))
		return token_is(&r->token, "identity") ? STATEMENT_ROLE : STATEMENT_UNKNOWN;
	if (token_is(&r->token, "list") || token_is(&r->token, "describe") || token_is(&r->token, "desc"))
		return STATEMENT_SELECT;
	return STATEMENT_UNKNOWN;
}

static enum statement_kind read_kind(struct reader *r)
{
	enum statement_kind kind;

	if (token_is(&r->token, "select")) {
		read_select(r);
		r->failed = false;
		return STATEMENT_SELECT;
	}
	kind = read_write(r, false);
	if (kind == STATEMENT_UNKNOWN) {
		if (token_is(&r->token, "begin")) {
			kind = STATEMENT_BATCH;
			read_batch(r);
		} else if (reader_take(r, "truncate")) {
			kind = STATEMENT_TRUNCATE;
			if (!reader_take(r, "table"))
				reader_take(r, "columnfamily");
			reader_name(r, true);
		} else {
			return read_other(r);
		}
	}
	/* Nothing but semicolons may follow a write. */
	while (token_punct(&r->token, ';'))
		reader_advance(r);
	if (r->token.kind != TOKEN_END)
		r->failed = true;
	return kind;
}

void statement_read(struct span text, struct statement *ret)
{
	statement_read_names(text, ret, NULL);
}

void statement_read_names(struct span text, struct statement *ret, const struct name_sink *sink)
{
	struct reader r;

	*ret = (struct statement){0};
	reader_init(&r, text, ret);
	r.sink = sink;
	ret->kind = read_kind(&r);
	if (r.failed)
		ret->kind = STATEMENT_UNKNOWN;
	ret->unqualified |= ret->kind == STATEMENT_UNKNOWN || ret->table_count == 0 || ret->flags & STATEMENT_TABLES_MORE;
	for (unsigned i = 0; i < ret->table_count; i++)
		ret->unqualified |= !ret->tables[i].keyspace[0];
}
