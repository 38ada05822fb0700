/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two schemas, each flattened into one sorted list of facts (system_schema.*), walked side by side. What
 * the origin has must be on the target in the same form, or writes that succeed on the origin are refused or
 * mean something else there. What only the target has is its own affair, unless it is a part of a key.
 *
 * A missing keyspace or table is told once, not again for all that it would hold. Findings are bounded:
 * FINDINGS_MAX one by one, the rest as a number.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cql/keyspace.h"
#include "mirror/preflight_priv.h"

#define FACTS_MAX 200000u
#define BYTES_MAX (64u << 20)
#define FINDINGS_MAX 64u

/* ------------------------------------------------------------- loading */

static int fact_compare(const void *left, const void *right)
{
	const struct fact *a = left, *b = right;
	int d = strcmp(a->keyspace, b->keyspace);

	if (!d)
		d = (a->kind > b->kind) - (a->kind < b->kind);
	if (!d)
		d = strcmp(a->name, b->name);
	return d ? d : strcmp(a->sub, b->sub);
}

static int schema_add(struct schema *s, enum fact_kind kind, const char *keyspace, const char *name,
		      const char *sub, const char *value)
{
	const char *from[] = {keyspace, name, sub, value}, *to[4];
	size_t size = 0;
	char *text, *p;

	for (int i = 0; i < 4; i++)
		size += strlen(from[i]) + 1;
	if (s->count == FACTS_MAX || s->bytes + size > BYTES_MAX)
		return -E2BIG;
	if (s->count == s->room) {
		size_t room = s->room ? s->room * 2 : 256;
		struct fact *grown = realloc(s->facts, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		s->facts = grown;
		s->room = room;
	}
	text = p = malloc(size);
	if (!text)
		return -ENOMEM;
	for (int i = 0; i < 4; i++) {
		to[i] = p;
		p = stpcpy(p, from[i]) + 1;
	}
	s->facts[s->count++] =
	    (struct fact){.kind = kind, .keyspace = to[0], .name = to[1], .sub = to[2], .value = to[3]};
	s->bytes += size;
	return 0;
}

void schema_done(struct schema *s)
{
	for (size_t i = 0; i < s->count; i++)
		free((void *)s->facts[i].keyspace); /* the allocation begins with it */
	free(s->facts);
	*s = (struct schema){0};
}

const struct fact *schema_find(const struct schema *s, enum fact_kind kind, const char *keyspace,
			       const char *name, const char *sub)
{
	struct fact key = {.kind = kind, .keyspace = keyspace, .name = name, .sub = sub};

	return s->count ? bsearch(&key, s->facts, s->count, sizeof(key), fact_compare) : NULL;
}

static int32_t int_cell(struct span cell)
{
	if (cell.size != 4)
		return 0;
	return (int32_t)((uint32_t)cell.data[0] << 24 | (uint32_t)cell.data[1] << 16 |
			 (uint32_t)cell.data[2] << 8 | cell.data[3]);
}

/* The next element of a list cell: [int n] was read, [bytes] follow. false at the end or where it is
 * malformed. */
static bool list_next(struct span *list, struct span *ret)
{
	if (list->size < 4)
		return false;
	int32_t n = int_cell(span_of(list->data, 4));

	if (n < 0 || (size_t)n > list->size - 4)
		return false;
	*ret = span_of(list->data + 4, (size_t)n);
	*list = span_of(list->data + 4 + n, list->size - 4 - (size_t)n);
	return true;
}

/* "street text, zips set<int>" out of the two lists of system_schema.types, or the one of functions. Caller
 * frees. */
static char *join_lists(struct span names, struct span types)
{
	char *text = malloc(names.size + types.size + 16), *p = text;
	struct span name, type;

	if (!text)
		return NULL;
	*p = 0;
	names = names.size >= 4 ? span_of(names.data + 4, names.size - 4) : (struct span){0};
	types = types.size >= 4 ? span_of(types.data + 4, types.size - 4) : (struct span){0};
	/* Each element's 4 bytes of length make room for the separators. */
	while (list_next(&types, &type)) {
		if (p != text)
			p = stpcpy(p, ", ");
		if (list_next(&names, &name)) {
			p = mempcpy(p, name.data, name.size);
			*p++ = ' ';
		}
		p = mempcpy(p, type.data, type.size);
	}
	*p = 0;
	return text;
}

/* The order of the columns is what on_fact() counts on. */
static const struct {
	const char *question;
	unsigned columns;
	bool optional; /* a cluster without it is not wrong */
} questions[FACT_KINDS] = {
    [FACT_KEYSPACE] = {"SELECT keyspace_name FROM system_schema.keyspaces", 1, false},
    [FACT_TYPE] = {"SELECT keyspace_name, type_name, field_names, field_types FROM system_schema.types", 4,
		   false},
    [FACT_TABLE] = {"SELECT keyspace_name, table_name, default_time_to_live FROM system_schema.tables", 3,
		    false},
    [FACT_COLUMN] = {"SELECT keyspace_name, table_name, column_name, kind, position, type, clustering_order "
		     "FROM system_schema.columns",
		     7, false},
    [FACT_VIEW] = {"SELECT keyspace_name, view_name FROM system_schema.views", 2, true},
    [FACT_INDEX] = {"SELECT keyspace_name, table_name, index_name FROM system_schema.indexes", 3, true},
    [FACT_TRIGGER] = {"SELECT keyspace_name, table_name, trigger_name FROM system_schema.triggers", 3, true},
    [FACT_FUNCTION] = {"SELECT keyspace_name, function_name, argument_types FROM system_schema.functions", 3,
		       true},
    [FACT_AGGREGATE] = {"SELECT keyspace_name, aggregate_name, argument_types FROM system_schema.aggregates",
			3, true},
};

struct loading {
	struct preflight *preflight;
	struct schema *schema;
	enum side side;
	enum fact_kind kind;
};

static int add_column(struct schema *s, const char *keyspace, const char *table, const char *sub,
		      const struct column *columns, const struct span *cells, unsigned count)
{
	struct span type = preflight_cell(columns, cells, count, "type");
	char kind[32], order[16], place[32] = "";
	char *value = malloc(type.size + 96);
	int rc;

	if (!value)
		return -ENOMEM;
	preflight_text(preflight_cell(columns, cells, count, "kind"), kind, sizeof(kind));
	preflight_text(preflight_cell(columns, cells, count, "clustering_order"), order, sizeof(order));
	if (!strcmp(kind, "partition_key") || !strcmp(kind, "clustering"))
		snprintf(place, sizeof(place), " %d",
			 int_cell(preflight_cell(columns, cells, count, "position")));
	snprintf(value, type.size + 96, "%s%s %.*s%s%s", kind, place, (int)type.size,
		 type.data ? (const char *)type.data : "", !strcmp(kind, "clustering") ? " " : "",
		 !strcmp(kind, "clustering") ? order : "");
	rc = schema_add(s, FACT_COLUMN, keyspace, table, sub, value);
	free(value);
	return rc;
}

static int on_fact(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct loading *l = context;
	char keyspace[PREFLIGHT_NAME_MAX], name[PREFLIGHT_NAME_MAX] = "", sub[PREFLIGHT_NAME_MAX] = "",
					   value[32] = "";
	char *joined;
	int rc;

	if (count != questions[l->kind].columns)
		return -EPROTO;
	preflight_text(cells[0], keyspace, sizeof(keyspace));
	if (keyspace_of_cluster(keyspace))
		return 0;
	if (count > 1)
		preflight_text(cells[1], name, sizeof(name));
	if (l->side == ORIGIN && !preflight_into_scope(l->preflight, l->kind, keyspace, name))
		return 0;
	switch (l->kind) {
	case FACT_TABLE:
		snprintf(value, sizeof(value), "%d",
			 int_cell(preflight_cell(columns, cells, count, "default_time_to_live")));
		break;
	case FACT_COLUMN:
		preflight_text(cells[2], sub, sizeof(sub));
		return add_column(l->schema, keyspace, name, sub, columns, cells, count);
	case FACT_INDEX:
	case FACT_TRIGGER:
		preflight_text(cells[2], sub, sizeof(sub));
		break;
	case FACT_TYPE:
		joined = join_lists(cells[2], cells[3]);
		rc = joined ? schema_add(l->schema, l->kind, keyspace, name, "", joined) : -ENOMEM;
		free(joined);
		return rc;
	case FACT_FUNCTION:
	case FACT_AGGREGATE:
		joined =
		    join_lists((struct span){0}, cells[2]); /* overloads are told apart by their arguments */
		rc = joined ? schema_add(l->schema, l->kind, keyspace, name, joined, "") : -ENOMEM;
		free(joined);
		return rc;
	default:
		break;
	}
	return schema_add(l->schema, l->kind, keyspace, name, sub, value);
}

void preflight_schema_load(struct preflight *p, enum side side)
{
	struct schema *s = &p->schema[side];

	for (enum fact_kind k = 0; k < FACT_KINDS; k++) {
		struct loading l = {.preflight = p, .schema = s, .side = side, .kind = k};
		struct error error = {0};
		int rc = client_query(p->client[side], questions[k].question, CL_ONE, on_fact, &l, &error);

		if (rc == 0)
			continue;
		if (rc == -ENOMEM)
			p->no_memory = true;
		if (rc == -E2BIG)
			error_set(&error, rc, "more than %u entries or %u MiB", FACTS_MAX, BYTES_MAX >> 20);
		if (questions[k].optional && rc == -EINVAL) {
			preflight_say(p, PREFLIGHT_NOTE, NULL, "%s: not compared (%s): %s", side_name(side),
				      strrchr(questions[k].question, '.') + 1, error.text);
			continue;
		}
		preflight_say(
		    p, PREFLIGHT_FAIL,
		    "the schema must be readable: Cassandra 3.0 or later, and a role that may log in",
		    "%s: the schema cannot be read (%s): %s", side_name(side),
		    strrchr(questions[k].question, '.') + 1, error.text[0] ? error.text : strerror(-rc));
		return;
	}
	if (s->count)
		qsort(s->facts, s->count, sizeof(*s->facts), fact_compare);
	s->loaded = true;
}

/* ------------------------------------------------------------- comparing */

struct comparison {
	struct preflight *p;
	const struct schema *origin, *target;
	unsigned findings, suppressed, fails;
	unsigned same[FACT_KINDS];
	struct roster extra; /* only on the target */
	struct roster
	    absent[FACT_KINDS];	       /* views, indexes, functions: needed by readers, not by the mirror */
	struct roster has[FACT_KINDS]; /* on the origin, worth knowing */
	struct roster counters;
};

static void fail(struct comparison *c, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct comparison *c, const char *remedy, const char *format, ...)
{
	char what[900];
	va_list args;

	c->fails++;
	if (c->findings++ >= FINDINGS_MAX) {
		c->suppressed++;
		return;
	}
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	preflight_say(c->p, PREFLIGHT_FAIL, remedy, "%s", what);
}

/* Whether what holds this fact is there, on that side. */
static bool has_parent(const struct schema *s, const struct fact *f)
{
	if (f->kind == FACT_KEYSPACE)
		return true;
	if (f->kind == FACT_COLUMN || f->kind == FACT_INDEX || f->kind == FACT_TRIGGER)
		return schema_find(s, FACT_TABLE, f->keyspace, f->name, "");
	return schema_find(s, FACT_KEYSPACE, f->keyspace, "", "");
}

static bool in_key(const struct fact *f)
{
	return !strncmp(f->value, "partition_key", 13) || !strncmp(f->value, "clustering", 10);
}

static void missing_column(struct comparison *c, const struct fact *f)
{
	char remedy[1000], ks[PREFLIGHT_NAME_MAX], table[PREFLIGHT_NAME_MAX], column[PREFLIGHT_NAME_MAX];
	const char *type = strchr(f->value, ' ');
	bool is_static = !strncmp(f->value, "static", 6);

	preflight_quote(f->keyspace, ks);
	preflight_quote(f->name, table);
	if (in_key(f) || !type)
		snprintf(remedy, sizeof(remedy),
			 "a key cannot be altered: on the target DROP TABLE %.100s.%.100s and create it as "
			 "the origin's DESCRIBE TABLE says",
			 ks, table);
	else
		snprintf(remedy, sizeof(remedy),
			 "on the target: ALTER TABLE %.100s.%.100s ADD %.100s%.400s%s;", ks, table,
			 preflight_quote(f->sub, column), type, is_static ? " STATIC" : "");
	fail(c, remedy, "column %s.%s.%s (%.300s) is missing on the target", f->keyspace, f->name, f->sub,
	     f->value);
}

static void missing(struct comparison *c, const struct fact *f)
{
	char remedy[800], ks[PREFLIGHT_NAME_MAX], name[PREFLIGHT_NAME_MAX];

	if (!has_parent(c->origin, f) || !has_parent(c->target, f))
		return; /* the column of a view; or told already with what should hold it */
	preflight_quote(f->keyspace, ks);
	preflight_quote(f->name, name);
	switch (f->kind) {
	case FACT_KEYSPACE:
		snprintf(remedy, sizeof(remedy),
			 "create it there with that cluster's replication, then all that DESCRIBE KEYSPACE "
			 "%.200s prints on the origin",
			 ks);
		fail(c, remedy, "keyspace %s is missing on the target", f->keyspace);
		break;
	case FACT_TYPE:
		snprintf(remedy, sizeof(remedy),
			 "create it there as DESCRIBE TYPE %.200s.%.200s prints it on the origin", ks, name);
		fail(c, remedy, "type %s.%s (%.400s) is missing on the target", f->keyspace, f->name,
		     f->value);
		break;
	case FACT_TABLE:
		snprintf(remedy, sizeof(remedy),
			 "create it there as DESCRIBE TABLE %.200s.%.200s prints it on the origin", ks, name);
		fail(c, remedy, "table %s.%s is missing on the target", f->keyspace, f->name);
		break;
	case FACT_COLUMN:
		missing_column(c, f);
		break;
	case FACT_INDEX:
	case FACT_TRIGGER:
		roster_add(&c->absent[f->kind], "%s.%s: %s", f->keyspace, f->name, f->sub);
		break;
	case FACT_FUNCTION:
	case FACT_AGGREGATE:
		roster_add(&c->absent[f->kind], "%s.%s(%.100s)", f->keyspace, f->name, f->sub);
		break;
	default:
		roster_add(&c->absent[f->kind], "%s.%s", f->keyspace, f->name);
	}
}

static void extra(struct comparison *c, const struct fact *f)
{
	if (!has_parent(c->target, f) || !has_parent(c->origin, f))
		return;
	if (f->kind == FACT_COLUMN && in_key(f)) {
		fail(c,
		     "a key cannot be altered: DROP that table on the target and create it as the origin's "
		     "DESCRIBE TABLE says",
		     "column %s.%s.%s (%.300s) is part of the key on the target, and does not exist on the "
		     "origin",
		     f->keyspace, f->name, f->sub, f->value);
		return;
	}
	if (f->kind == FACT_KEYSPACE)
		roster_add(&c->extra, "keyspace %s", f->keyspace);
	else if (f->kind == FACT_FUNCTION || f->kind == FACT_AGGREGATE)
		roster_add(&c->extra, "%s.%s(%.100s)", f->keyspace, f->name, f->sub);
	else
		roster_add(&c->extra, "%s.%s%s%.100s", f->keyspace, f->name, *f->sub ? "." : "", f->sub);
}

/* Equal but for blanks: versions do not agree on those inside of types. */
static bool same_value(const char *a, const char *b)
{
	for (;;) {
		a += strspn(a, " ");
		b += strspn(b, " ");
		if (*a != *b)
			return false;
		if (!*a)
			return true;
		a++;
		b++;
	}
}

static void both(struct comparison *c, const struct fact *o, const struct fact *t)
{
	char remedy[800], ks[PREFLIGHT_NAME_MAX], name[PREFLIGHT_NAME_MAX];

	if (same_value(o->value, t->value)) {
		c->same[o->kind]++;
		return;
	}
	preflight_quote(o->keyspace, ks);
	preflight_quote(o->name, name);
	switch (o->kind) {
	case FACT_TABLE:
		snprintf(remedy, sizeof(remedy),
			 "on the target: ALTER TABLE %.200s.%.200s WITH default_time_to_live = %s;", ks, name,
			 o->value);
		fail(c, remedy, "table %s.%s: default_time_to_live is %s on the origin and %s on the target",
		     o->keyspace, o->name, o->value, t->value);
		break;
	case FACT_TYPE:
		snprintf(remedy, sizeof(remedy),
			 "ALTER TYPE %.200s.%.200s where only fields at the end are missing; else drop it on "
			 "the target, with the tables that use it, "
			 "and create them as on the origin",
			 ks, name);
		fail(c, remedy, "type %s.%s is (%.300s) on the origin and (%.300s) on the target",
		     o->keyspace, o->name, o->value, t->value);
		break;
	default:
		snprintf(remedy, sizeof(remedy),
			 "type, key and order cannot be altered: on the target DROP TABLE %.200s.%.200s and "
			 "create it as the origin's DESCRIBE TABLE "
			 "says",
			 ks, name);
		fail(c, remedy, "column %s.%s.%s is \"%.250s\" on the origin and \"%.250s\" on the target",
		     o->keyspace, o->name, o->sub, o->value, t->value);
	}
}

/* What the origin has and this version treats in a way that one should know. */
static void take_note(struct comparison *c, const struct fact *f)
{
	if (f->kind == FACT_VIEW)
		roster_add(&c->has[f->kind], "%s.%s", f->keyspace, f->name);
	else if (f->kind == FACT_INDEX || f->kind == FACT_TRIGGER)
		roster_add(&c->has[f->kind], "%s.%s: %s", f->keyspace, f->name, f->sub);
	else if (f->kind == FACT_COLUMN && has_parent(c->origin, f) && !strcmp(f->value, "regular counter"))
		roster_add(&c->counters, "%s.%s.%s", f->keyspace, f->name, f->sub);
}

static void note(struct preflight *p, struct roster *r, const char *what, const char *consequence)
{
	if (r->count)
		preflight_say(p, PREFLIGHT_NOTE, NULL, "origin: %s (%s): %s", what, roster_text(r),
			      consequence);
}

static void warn(struct preflight *p, struct roster *r, const char *what, const char *consequence,
		 const char *remedy)
{
	if (r->count)
		preflight_say(p, PREFLIGHT_WARN, remedy, "%s missing on the target (%s): %s", what,
			      roster_text(r), consequence);
}

static void report(struct comparison *c)
{
	static const char create[] =
	    "create them there before the cutover, as DESCRIBE prints them on the origin";
	struct preflight *p = c->p;

	if (c->suppressed)
		preflight_say(p, PREFLIGHT_FAIL, "correct those above and check again",
			      "schema: %u more differences like these", c->suppressed);
	if (!c->fails)
		preflight_say(
		    p, PREFLIGHT_OK, NULL,
		    "schema: the same on both clusters (keyspaces: %u, types: %u, tables: %u, columns: %u)",
		    c->same[FACT_KEYSPACE], c->same[FACT_TYPE], c->same[FACT_TABLE], c->same[FACT_COLUMN]);
	if (c->extra.count)
		preflight_say(p, PREFLIGHT_NOTE, NULL, "only on the target: %s", roster_text(&c->extra));
	warn(p, &c->absent[FACT_VIEW], "materialized views", "reads of them fail after the cutover", create);
	warn(p, &c->absent[FACT_INDEX], "indexes", "reads that need them fail after the cutover", create);
	warn(p, &c->absent[FACT_FUNCTION], "functions", "statements that call them are refused there",
	     create);
	warn(p, &c->absent[FACT_AGGREGATE], "aggregates", "statements that call them are refused there",
	     create);
	warn(p, &c->absent[FACT_TRIGGER], "triggers",
	     "what they write on the origin passes no client, and so does not reach the target",
	     "install and create them on the target as well, or move their work into the application");
	note(p, &p->left_out, "tables that mirror.include or mirror.exclude leaves out", "they are neither mirrored nor compared");
	note(p, &p->renamed, "other names on the target", "findings name what is there");
	note(p, &c->counters, "counter columns",
	     "an increment whose outcome is unknown cannot be repeated; what is not mirrored is counted as "
	     "cqlferry_unmirrored_total{cause=\"counter\"}");
	note(p, &c->has[FACT_VIEW], "materialized views",
	     "each cluster keeps its own, they are not mirrored");
	note(p, &c->has[FACT_INDEX], "indexes", "each cluster keeps its own, they are not mirrored");
	note(p, &c->has[FACT_TRIGGER], "triggers", "each cluster runs its own");
}

void preflight_schema_compare(struct preflight *p)
{
	struct comparison c = {.p = p, .origin = &p->schema[ORIGIN], .target = &p->schema[TARGET]};
	size_t i = 0, j = 0;

	while (i < c.origin->count || j < c.target->count) {
		const struct fact *o = i < c.origin->count ? &c.origin->facts[i] : NULL;
		const struct fact *t = j < c.target->count ? &c.target->facts[j] : NULL;
		int d = !o ? 1 : !t ? -1 : fact_compare(o, t);

		if (d <= 0)
			take_note(&c, o);
		if (d < 0)
			missing(&c, o);
		else if (d > 0)
			extra(&c, t);
		else if (has_parent(c.origin, o))
			both(&c, o, t);
		i += d <= 0;
		j += d >= 0;
	}
	report(&c);
}
