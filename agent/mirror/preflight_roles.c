/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the configured roles may do. The mirror writes with the target's role, row sync reads with both, and
 * after a cutover the origin's role writes back: a privilege that is missing shows here and not as a refused
 * write in the middle of the night.
 *
 * Cassandra 5 can mask columns: who lacks UNMASK reads '****', and row sync would write just that.
 *
 * LIST ALL PERMISSIONS OF a role includes what it inherits; a superuser has no entries and needs none. Names
 * of resources are those of DataResource.toString(): <all keyspaces>, <keyspace k>, <all tables in k>, <table
 * k.t>.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/preflight_priv.h"

#define GRANTS_MAX 20000u

enum privilege { MAY_SELECT = 1, MAY_MODIFY = 2, MAY_CREATE = 4, MAY_ALTER = 8, MAY_DROP = 16, MAY_UNMASK = 32 };
#define MAY_MIRROR (MAY_SELECT | MAY_MODIFY)
#define MAY_DDL (MAY_CREATE | MAY_ALTER | MAY_DROP)

struct grant {
	char keyspace[PREFLIGHT_NAME_MAX], table[PREFLIGHT_NAME_MAX]; /* "" = all */
	unsigned may;
};

struct grants {
	const struct scope *scope; /* of the origin's: its names become the target's, as in the facts; else NULL */
	struct grant *list;
	size_t count, room;
	bool super;
};

/* ------------------------------------------------------------- reading */

static unsigned privilege_of(const char *name)
{
	static const struct {
		const char *name;
		unsigned may;
	} names[] = {
	    {"SELECT", MAY_SELECT}, {"MODIFY", MAY_MODIFY}, {"CREATE", MAY_CREATE},
	    {"ALTER", MAY_ALTER},   {"DROP", MAY_DROP},     {"UNMASK", MAY_UNMASK},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(name, names[i].name))
			return names[i].may;
	return 0;
}

/* "<table k.t>" → k, t. false for resources that are no data: roles, functions, MBeans. Names are letters,
 * digits and _. */
static bool resource_parse(const char *text, struct grant *ret)
{
	static const char keyspace[] = "<keyspace ", tables[] = "<all tables in ", table[] = "<table ";
	const char *at, *dot, *end = strrchr(text, '>');

	ret->keyspace[0] = ret->table[0] = 0;
	if (!strcmp(text, "<all keyspaces>"))
		return true;
	if (!end)
		return false;
	if (!strncmp(text, keyspace, sizeof(keyspace) - 1))
		at = text + sizeof(keyspace) - 1;
	else if (!strncmp(text, tables, sizeof(tables) - 1))
		at = text + sizeof(tables) - 1;
	else if (!strncmp(text, table, sizeof(table) - 1))
		at = text + sizeof(table) - 1;
	else
		return false;
	dot = !strncmp(text, table, sizeof(table) - 1) ? strchr(at, '.') : NULL;
	preflight_text(span_of(at, (size_t)((dot ? dot : end) - at)), ret->keyspace, sizeof(ret->keyspace));
	if (dot)
		preflight_text(span_of(dot + 1, (size_t)(end - dot - 1)), ret->table, sizeof(ret->table));
	return ret->keyspace[0];
}

static void translate(const struct scope *s, struct grant *g)
{
	struct table_name name = {0};

	if (strlen(g->keyspace) > CQL_NAME_MAX || strlen(g->table) > CQL_NAME_MAX)
		return;
	memcpy(name.keyspace, g->keyspace, strlen(g->keyspace));
	memcpy(name.table, g->table, strlen(g->table));
	if (!scope_translate(s, &name))
		return;
	memcpy(g->keyspace, name.keyspace, sizeof(name.keyspace));
	memcpy(g->table, name.table, sizeof(name.table));
}

static int on_permission(void *context, const struct column *columns, const struct span *cells,
			 unsigned count)
{
	struct grants *g = context;
	struct grant grant = {0};
	char resource[2 * PREFLIGHT_NAME_MAX + 32], permission[64];

	preflight_text(preflight_cell(columns, cells, count, "resource"), resource, sizeof(resource));
	preflight_text(preflight_cell(columns, cells, count, "permission"), permission, sizeof(permission));
	grant.may = privilege_of(permission);
	if (!grant.may || !resource_parse(resource, &grant))
		return 0;
	translate(g->scope, &grant);
	if (g->count == GRANTS_MAX)
		return -E2BIG;
	if (g->count == g->room) {
		size_t room = g->room ? g->room * 2 : 32;
		struct grant *grown = realloc(g->list, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		g->list = grown;
		g->room = room;
	}
	g->list[g->count++] = grant;
	return 0;
}

/* LIST ROLES OF gives the role and all that it was granted: one superuser among them makes it one. */
static int on_role(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct grants *g = context;
	struct span super = preflight_cell(columns, cells, count, "super");

	if (super.size == 1 && super.data[0])
		g->super = true;
	return 0;
}

/* ------------------------------------------------------------- judging */

static unsigned may_keyspace(const struct grants *g, const char *keyspace)
{
	unsigned may = 0;

	for (size_t i = 0; i < g->count; i++)
		if (!g->list[i].keyspace[0] ||
		    (!g->list[i].table[0] && !strcmp(g->list[i].keyspace, keyspace)))
			may |= g->list[i].may;
	return may;
}

static unsigned may_table(const struct grants *g, const char *keyspace, const char *table)
{
	unsigned may = 0;

	for (size_t i = 0; i < g->count; i++)
		if (!strcmp(g->list[i].keyspace, keyspace) && !strcmp(g->list[i].table, table))
			may |= g->list[i].may;
	return may;
}

/* What is missing on some table of the keyspace, of SELECT and MODIFY. A grant on every single table will do.
 */
static unsigned missing_in(const struct schema *s, const struct grants *g, const char *keyspace)
{
	unsigned missing = MAY_MIRROR & ~may_keyspace(g, keyspace), on_tables = 0;
	bool any = false;

	if (!missing)
		return 0;
	for (size_t i = 0; i < s->count; i++) {
		if (s->facts[i].kind != FACT_TABLE || strcmp(s->facts[i].keyspace, keyspace) != 0)
			continue;
		any = true;
		on_tables |= missing & ~may_table(g, keyspace, s->facts[i].name);
	}
	return any ? on_tables : missing;
}

static void judge(struct preflight *p, enum side side, const struct grants *g)
{
	const struct schema *s = &p->schema[side];
	const char *role = p->cluster[side].username;
	struct roster ddl = {0};
	unsigned good = 0, bad = 0;
	char remedy[1000], ks[PREFLIGHT_NAME_MAX], quoted[PREFLIGHT_NAME_MAX];

	for (size_t i = 0; i < s->count; i++) {
		const char *keyspace = s->facts[i].keyspace;
		unsigned missing;
		size_t at = 0;

		/* Keyspaces that only the target has are no business of ours. */
		if (s->facts[i].kind != FACT_KEYSPACE ||
		    (p->schema[side_other(side)].loaded &&
		     !schema_find(&p->schema[side_other(side)], FACT_KEYSPACE, keyspace, "", "")))
			continue;
		if (MAY_DDL & ~may_keyspace(g, keyspace))
			roster_add(&ddl, "%s", keyspace);
		missing = missing_in(s, g, keyspace);
		if (!missing) {
			good++;
			continue;
		}
		bad++;
		if (side == ORIGIN)
			keyspace = scope_origin_keyspace(p->scope, keyspace);
		preflight_quote(keyspace, ks);
		preflight_quote(role, quoted);
		at += (size_t)snprintf(remedy, sizeof(remedy), "on the %s:", side_name(side));
		if (missing & MAY_SELECT)
			at += (size_t)snprintf(remedy + at, sizeof(remedy) - at,
					       " GRANT SELECT ON KEYSPACE %.200s TO %.200s;", ks, quoted);
		if (missing & MAY_MODIFY)
			snprintf(remedy + at, sizeof(remedy) - at,
				 " GRANT MODIFY ON KEYSPACE %.200s TO %.200s;", ks, quoted);
		preflight_say(p, PREFLIGHT_FAIL, remedy, "%s: role %s lacks %s on keyspace %s%s",
			      side_name(side), role,
			      missing == MAY_MIRROR   ? "SELECT and MODIFY"
			      : missing == MAY_SELECT ? "SELECT"
						      : "MODIFY",
			      keyspace,
			      side == TARGET ? ""
					     : ": after a cutover nothing could be mirrored back, and a "
					       "rollback would lose writes");
	}
	if (good && !bad)
		preflight_say(p, PREFLIGHT_OK, NULL, "%s: role %s may SELECT and MODIFY in all %u keyspaces",
			      side_name(side), role, good);
	if (ddl.count && side == TARGET)
		preflight_say(p, PREFLIGHT_NOTE, NULL,
			      "%s: role %s may not CREATE, ALTER and DROP in %s: schema changes of clients "
			      "cannot be mirrored there",
			      side_name(side), role, roster_text(&ddl));
}

struct masks {
	struct preflight *p;
	enum side side;
	const struct grants *grants;
	struct roster hidden;
	char keyspace[PREFLIGHT_NAME_MAX], table[PREFLIGHT_NAME_MAX]; /* of the row before: they come table by table */
};

static int on_mask(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct masks *m = context;
	char keyspace[PREFLIGHT_NAME_MAX], table[PREFLIGHT_NAME_MAX];
	const struct schema *own = &m->p->schema[m->side], *other = &m->p->schema[side_other(m->side)];

	preflight_text(preflight_cell(columns, cells, count, "keyspace_name"), keyspace, sizeof(keyspace));
	preflight_text(preflight_cell(columns, cells, count, "table_name"), table, sizeof(table));
	if (!strcmp(keyspace, m->keyspace) && !strcmp(table, m->table))
		return 0;
	memcpy(m->keyspace, keyspace, sizeof(keyspace));
	memcpy(m->table, table, sizeof(table));
	/* In the target's names, as grants and facts are. */
	if (m->side == ORIGIN && !preflight_into_scope(m->p, FACT_COLUMN, keyspace, table))
		return 0;
	if (!schema_find(own, FACT_TABLE, keyspace, table, "") || (other->loaded && !schema_find(other, FACT_TABLE, keyspace, table, "")) ||
	    (may_keyspace(m->grants, keyspace) | may_table(m->grants, keyspace, table)) & MAY_UNMASK)
		return 0;
	roster_add(&m->hidden, "%s.%s", m->keyspace, m->table);
	return 0;
}

static void judge_masks(struct preflight *p, enum side side, const struct grants *g)
{
	struct masks m = {.p = p, .side = side, .grants = g};
	const char *role = p->cluster[side].username;
	char remedy[PREFLIGHT_NAME_MAX + 160], quoted[PREFLIGHT_NAME_MAX];
	struct error error = {0};
	int rc = client_query(p->client[side], "SELECT keyspace_name, table_name FROM system_schema.column_masks", CL_ONE, on_mask, &m, &error);

	if (rc == -EINVAL) /* before Cassandra 5 there is no such table, and no masks */
		return;
	if (rc < 0) {
		preflight_say(p, PREFLIGHT_WARN, "make sure that the role has UNMASK on all tables with masked columns",
			      "%s: its masked columns cannot be read: %s", side_name(side), error.text[0] ? error.text : strerror(-rc));
		return;
	}
	if (!m.hidden.count)
		return;
	snprintf(remedy, sizeof(remedy), "on the %s: GRANT UNMASK ON ALL KEYSPACES TO %s; or on each of these tables", side_name(side),
		 preflight_quote(role, quoted));
	preflight_say(p, PREFLIGHT_FAIL, remedy,
		      "%s: role %s lacks UNMASK on tables with masked columns (%s): row sync would take the masks for values", side_name(side), role,
		      roster_text(&m.hidden));
}

/* AllowAllAuthorizer refuses to list: there is nothing to list. The wording differs by version, the name
 * stays. */
static bool authorization_is_off(int code, const struct error *error)
{
	return (code == -EINVAL || code == -EREMOTEIO) &&
	       (strstr(error->text, "AllowAllAuthorizer") || strstr(error->text, "not supported by"));
}

void preflight_roles(struct preflight *p, enum side side)
{
	const char *role = p->cluster[side].username;
	char quoted[PREFLIGHT_NAME_MAX], question[PREFLIGHT_NAME_MAX + 64];
	struct grants g = {.scope = side == ORIGIN ? p->scope : NULL};
	struct error error = {0};
	int rc;

	if (!client_authenticated(p->client[side])) {
		preflight_say(p, PREFLIGHT_NOTE, NULL,
			      "%s: asks for no login, so there are no privileges to check%s", side_name(side),
			      role && *role ? "; the configured role is not used" : "");
		return;
	}
	preflight_quote(role, quoted);
	snprintf(question, sizeof(question), "LIST ROLES OF %s", quoted);
	rc = client_query(p->client[side], question, CL_ONE, on_role, &g, &error);
	if (rc == 0 && g.super) {
		preflight_say(p, PREFLIGHT_OK, NULL, "%s: role %s is a superuser", side_name(side), role);
		return;
	}
	/* A role manager that lists no roles may still list permissions. */
	snprintf(question, sizeof(question), "LIST ALL PERMISSIONS OF %s", quoted);
	rc = client_query(p->client[side], question, CL_ONE, on_permission, &g, &error);
	if (rc == 0) {
		judge(p, side, &g);
		judge_masks(p, side, &g);
	} else if (authorization_is_off(rc, &error)) {
		preflight_say(p, PREFLIGHT_NOTE, NULL,
			      "%s: authorization is off (AllowAllAuthorizer): every role may do everything",
			      side_name(side));
	} else {
		preflight_say(
		    p, PREFLIGHT_WARN,
		    "make sure that the role has SELECT and MODIFY on all keyspaces of the application",
		    "%s: the privileges of role %s cannot be read: %s", side_name(side), role,
		    error.text[0] ? error.text : strerror(-rc));
	}
	if (rc == -ENOMEM)
		p->no_memory = true;
	free(g.list);
}

void preflight_clients_readable(struct preflight *p)
{
	char remedy[PREFLIGHT_NAME_MAX + 96], quoted[PREFLIGHT_NAME_MAX];
	const char *role = p->cluster[ORIGIN].username;
	struct error error = {0};
	int rc = client_query(p->client[ORIGIN], "SELECT address FROM system_views.clients LIMIT 1", CL_ONE,
			      NULL, NULL, &error);

	if (rc == 0)
		return;
	if (rc == -EINVAL) {
		preflight_say(p, PREFLIGHT_NOTE, NULL,
			      "origin: has no system_views.clients (Cassandra 4.0 and later): before a "
			      "cutover it is unknown who else writes");
		return;
	}
	snprintf(remedy, sizeof(remedy), "on the origin: GRANT SELECT ON system_views.clients TO %s;",
		 preflight_quote(role ? role : "", quoted));
	preflight_say(p, PREFLIGHT_WARN, rc == -EPERM ? remedy : "see the server's message",
		      "origin: its list of clients cannot be read, so before a cutover it is unknown who "
		      "else writes: %s",
		      error.text);
}
