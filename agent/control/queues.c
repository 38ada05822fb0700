/* SPDX-License-Identifier: Apache-2.0 */
#include "control/queues.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "mirror/dead.h"
#include "mirror/tables.h"
#include "relay/worker.h"

#define STATUS_TABLES 1000
#define SERVICE_SECONDS 5 /* between two looks at what the migration service should know */

/* ---- sizes by table */

struct sizes {
	struct table_size *list;
	size_t count, capacity;
	uint32_t oldest; /* s since 1970; 0 = nothing waits */
};

/* As they come, one for each worker and table. */
static void gather(void *context, const struct table_size *s)
{
	struct sizes *all = context;

	if (all->count == all->capacity) {
		size_t capacity = all->capacity ? all->capacity * 2 : 64;
		struct table_size *grown = realloc(all->list, capacity * sizeof(*grown));

		if (!grown)
			return;
		all->list = grown;
		all->capacity = capacity;
	}
	all->list[all->count++] = *s;
}

static int by_name(const void *a, const void *b)
{
	const struct table_size *x = a, *y = b;
	int r = strcmp(x->name.keyspace, y->name.keyspace);

	return r ? r : strcmp(x->name.table, y->name.table);
}

static int by_size(const void *a, const void *b)
{
	const struct table_size *x = a, *y = b;

	return x->records < y->records ? 1 : x->records > y->records ? -1 : by_name(a, b);
}

/* One line for each table, the largest first. sizes->list is the caller's. */
static void sizes_of(struct node *n, struct sizes *ret)
{
	size_t to = 0;

	*ret = (struct sizes){0};
	if (!n->relay.worker_count)
		return;
	ret->oldest = mirror_tables(&n->mirror, gather, ret);
	if (!ret->count)
		return;
	qsort(ret->list, ret->count, sizeof(*ret->list), by_name);
	for (size_t i = 1; i < ret->count; i++) {
		if (by_name(&ret->list[to], &ret->list[i]) == 0) {
			ret->list[to].records += ret->list[i].records;
			ret->list[to].bytes += ret->list[i].bytes;
		} else {
			ret->list[++to] = ret->list[i];
		}
	}
	ret->count = to + 1;
	qsort(ret->list, ret->count, sizeof(*ret->list), by_size);
}

static json_int_t age_of(uint32_t oldest)
{
	int64_t age = oldest ? clock_wall_us() / 1000000 - (int64_t)oldest : 0;

	return age > 0 ? age : 0;
}

/* ---- tables on hold */

struct hold_listing {
	json_t *list;
	const struct sizes *sizes;
};

static void list_hold(void *context, const struct hold *t)
{
	struct hold_listing *l = context;
	uint64_t records = 0, bytes = 0;

	for (size_t i = 0; i < l->sizes->count; i++) {
		const struct table_size *s = &l->sizes->list[i];

		if (strcmp(s->name.keyspace, t->name.keyspace) != 0 || (t->name.table[0] && strcmp(s->name.table, t->name.table) != 0))
			continue;
		records += s->records;
		bytes += s->bytes;
	}
	json_array_append_new(l->list, json_pack("{s:s, s:s, s:s, s:I, s:I}", "keyspace", t->name.keyspace, "table",
						 t->name.table[0] ? t->name.table : "*", "by",
						 t->by == HOLD_PERSON ? "person" : t->by == HOLD_SERVICE ? "migration service" : "both", "waiting",
						 (json_int_t)records, "waitingBytes", (json_int_t)bytes));
}

static json_t *holds_json(struct node *n, const struct sizes *sizes)
{
	struct hold_listing l = {json_array(), sizes};

	holds_each(&n->mirror.holds, list_hold, &l);
	return l.list;
}

void queues_describe(struct node *n, json_t *status)
{
	json_t *mirror = json_object_get(status, "mirror"), *tables = json_array(), *holds;
	struct dead_counts dead = dead_count(n->mirror.dead);
	struct sizes sizes;

	sizes_of(n, &sizes);
	for (size_t i = 0; i < sizes.count && i < STATUS_TABLES; i++)
		json_array_append_new(tables, json_pack("{s:s, s:s, s:I, s:I}", "keyspace", sizes.list[i].name.keyspace, "table",
							sizes.list[i].name.table, "records", (json_int_t)sizes.list[i].records, "waitingBytes",
							(json_int_t)sizes.list[i].bytes));
	json_object_set_new(mirror, "oldestSeconds", json_integer(age_of(sizes.oldest)));
	json_object_set_new(mirror, "deadKept", json_integer((json_int_t)dead.letters));
	json_object_set_new(mirror, "deadNotKept", json_integer((json_int_t)dead.unkept));
	json_object_set_new(mirror, "tables", tables);
	holds = holds_json(n, &sizes);
	json_object_set_new(status, "tablesOnHold", holds);
	free(sizes.list);
}

/* ---- metrics */

static void put_label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', out);
		fputc(*text == '\n' ? ' ' : *text, out);
	}
}

static void put_series(FILE *out, const char *name, const struct table_size *s, uint64_t value)
{
	fprintf(out, "%s{keyspace=\"", name);
	put_label(out, s->name.keyspace);
	fputs("\",table=\"", out);
	put_label(out, s->name.table);
	fprintf(out, "\"} %" PRIu64 "\n", value);
}

void queues_metrics(FILE *out, void *context)
{
	static const char *const names[] = {"cqlferry_mirror_table_backlog_records", "cqlferry_mirror_table_backlog_bytes"};
	static const char *const help[] = {"Writes that wait for the other cluster, by table", "Bytes of their requests"};
	struct sizes sizes;
	size_t shown;

	sizes_of(context, &sizes);
	shown = sizes.count;
	if (shown > QUEUES_SERIES / 2) {
		shown = QUEUES_SERIES / 2;
		for (size_t i = shown; i < sizes.count; i++) {
			sizes.list[shown - 1].records += sizes.list[i].records;
			sizes.list[shown - 1].bytes += sizes.list[i].bytes;
		}
		sizes.list[shown - 1].name = (struct table_name){.table = "others"};
	}
	for (int which = 0; which < 2; which++) {
		fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n", names[which], help[which], names[which]);
		for (size_t i = 0; i < shown; i++)
			put_series(out, names[which], &sizes.list[i], which ? sizes.list[i].bytes : sizes.list[i].records);
	}
	free(sizes.list);
}

static uint64_t waiting_for(void *context, const char *keyspace, const char *table)
{
	const struct sizes *sizes = context;
	struct table_size key = {0}, *found;

	if (strlen(keyspace) > CQL_NAME_MAX || strlen(table) > CQL_NAME_MAX || !sizes->count)
		return 0;
	memcpy(key.name.keyspace, keyspace, strlen(keyspace) + 1);
	memcpy(key.name.table, table, strlen(table) + 1);
	found = bsearch(&key, sizes->list, sizes->count, sizeof(key), by_name);
	return found ? found->records : 0;
}

void queues_tick(struct node *n)
{
	struct sizes sizes;

	sizes_of(n, &sizes);
	metric_set(n->metrics, METRIC_MIRROR_OLDEST_SECONDS, (uint64_t)age_of(sizes.oldest));
	metric_set(n->metrics, METRIC_MIRROR_DEAD_KEPT, dead_count(n->mirror.dead).letters);
	if (n->service && n->seconds % SERVICE_SECONDS == 0) {
		if (sizes.count)
			qsort(sizes.list, sizes.count, sizeof(*sizes.list), by_name);
		service_backlog(n->service, waiting_for, &sizes);
	}
	free(sizes.list);
}

/* ---- commands */

/* The names in a request. 1, 0 = none are given, −1 = it was answered: they are wrong. */
static int read_name(struct admin_reply *reply, const json_t *request, struct table_name *ret)
{
	const char *keyspace = json_string_value(json_object_get(request, "keyspace"));
	const char *table = json_string_value(json_object_get(request, "table"));

	*ret = (struct table_name){0};
	if (!keyspace && !table)
		return 0;
	if (!keyspace || !*keyspace || !table || strlen(keyspace) > CQL_NAME_MAX || strlen(table) > CQL_NAME_MAX) {
		admin_fail(reply, "\"keyspace\" and \"table\" name no table", "names have 1 to 48 characters; an empty table is all of the keyspace");
		return -1;
	}
	memcpy(ret->keyspace, keyspace, strlen(keyspace) + 1);
	memcpy(ret->table, table, strlen(table) + 1);
	return 1;
}

static void answer_list(struct admin_reply *reply, struct node *n)
{
	struct sizes sizes;
	json_t *list;

	sizes_of(n, &sizes);
	list = holds_json(n, &sizes);
	free(sizes.list);
	admin_done(reply, json_pack("{s:o, s:b}", "tablesOnHold", list, "strict", n->mirror.holds.strict));
}

static void change(struct admin_reply *reply, const json_t *request, struct node *n, bool hold)
{
	struct table_name name;
	struct error error;
	char text[120];
	int r = read_name(reply, request, &name);

	if (r < 0)
		return;
	if (!n->relay.worker_count) {
		admin_fail(reply, "the agent is still starting", "try again");
		return;
	}
	if (r == 0) {
		if (hold)
			answer_list(reply, n);
		else
			admin_fail(reply, "no table is named", "cqlferry release KEYSPACE.TABLE");
		return;
	}
	snprintf(text, sizeof(text), "%s.%s", name.keyspace, name.table[0] ? name.table : "*");
	r = mirror_hold(&n->mirror, name.keyspace, name.table, HOLD_PERSON, hold, &error);
	if (r > 0 && !hold)
		mirror_rescan(&n->mirror);
	if (r > 0 && mirror_holds_kept(&n->mirror, &error) < 0) {
		/* A hold that a restart would forget is none; a release that it would forget holds for now. */
		if (hold)
			mirror_hold(&n->mirror, name.keyspace, name.table, HOLD_PERSON, false, NULL);
		r = -EIO;
	}
	if (r < 0) {
		admin_fail(reply, error.text, NULL);
		return;
	}
	if (r > 0)
		log_audit("%s %s by %s", text, hold ? "is on hold" : "is released", admin_peer(reply));
	admin_done(reply, json_pack("{s:s, s:b, s:b}", "table", text, "onHold", hold, "changed", r > 0));
}

static void answer_hold(struct admin_reply *reply, const json_t *request, void *context)
{
	change(reply, request, context, true);
}

static void answer_release(struct admin_reply *reply, const json_t *request, void *context)
{
	change(reply, request, context, false);
}

/* A replay: file by file on a worker's thread, so that its sessions go on in between. */
struct replay {
	struct node *node;
	struct admin_reply *reply;
	struct dead_round round;
	uv_async_t done;
};

static void replay_some(struct worker *w, void *context)
{
	struct replay *p = context;

	if (w->stopping || !dead_replay(p->node->mirror.dead, w, &p->round) || worker_post(w, replay_some, p) < 0)
		uv_async_send(&p->done);
}

static void replay_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void on_replayed(uv_async_t *async)
{
	struct replay *p = async->data;
	json_t *o = json_pack("{s:I, s:I, s:I}", "sentAgain", (json_int_t)p->round.sent, "notSent", (json_int_t)p->round.barriers, "noRoom",
			      (json_int_t)p->round.kept);

	if (p->round.barriers)
		json_object_set_new(o, "note", json_string("TRUNCATE and DDL are not sent again: they would undo what came later. Run them on that "
							   "cluster by hand, then `cqlferry dead drop`"));
	admin_done(p->reply, o);
	uv_close((uv_handle_t *)async, replay_closed);
}

static void answer_dead(struct admin_reply *reply, const json_t *request, void *context)
{
	struct node *n = context;
	const char *action = json_string_value(json_object_get(request, "action"));
	struct dead_filter filter = {0};
	struct replay *p;
	int named = read_name(reply, request, &filter.table);

	if (named < 0)
		return;
	if (!n->relay.worker_count) {
		admin_fail(reply, "the agent is still starting", "try again");
		return;
	}
	filter.by_table = named > 0;
	if (action && !strcmp(action, "drop")) {
		uint64_t dropped = dead_drop(n->mirror.dead, &filter);

		log_audit("%" PRIu64 " dead letters dropped by %s", dropped, admin_peer(reply));
		admin_done(reply, json_pack("{s:I}", "dropped", (json_int_t)dropped));
		return;
	}
	if (!action || strcmp(action, "replay") != 0) {
		admin_fail(reply, "\"action\" is neither replay nor drop", NULL);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		admin_fail(reply, "out of memory", NULL);
		return;
	}
	p->node = n;
	p->reply = reply;
	dead_round_begin(n->mirror.dead, &filter, &p->round);
	uv_async_init(&n->loop, &p->done, on_replayed);
	p->done.data = p;
	if (worker_post(n->relay.workers[0], replay_some, p) < 0)
		uv_async_send(&p->done);
}

int queues_register(struct node *n, struct error *error)
{
	if (admin_register(n->admin, "hold", answer_hold, n) < 0 || admin_register(n->admin, "release", answer_release, n) < 0 ||
	    admin_register(n->admin, "dead", answer_dead, n) < 0)
		return error_set(error, -ENOSPC, "too many admin commands");
	return 0;
}
