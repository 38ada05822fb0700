// SPDX-License-Identifier: Apache-2.0
/* What all workers share: verdicts, the clients' contact points, and who may stand in for a replica. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "relay/reach_priv.h"

#define FIRST_MS 1500u	  /* Linux repeats a lost SYN after 1 s: one lost packet shall not decide */
#define SNI_CANDIDATES 3u /* nodes behind a proxy that one dial tries */

unsigned reach_first_ms(const struct reach_options *o)
{
	return o->first_ms ? o->first_ms : FIRST_MS;
}

static void say_modes(const struct relay_options *o)
{
	const struct reach_options *m = &o->reach;
	char line[512];

	for (int side = 0; side < SIDES; side++)
		if (o->cluster[side].sni && !m->mode_named)
			log_info("relay", "connection mode of the %s: proxy, as its nodes have no addresses of their own (secure-connect bundle)",
				 side_name(side));
	if (m->mode == MODE_PROXY)
		log_info("relay", "%s", mode_line(mode_note, line, sizeof(line)));
}

struct reach *reach_new(const struct relay_options *options)
{
	const struct reach_options *m = &options->reach;
	struct reach *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->options = options;
	pthread_mutex_init(&r->lock, NULL);
	for (int side = 0; side < SIDES; side++) {
		struct verdicts *v = &r->verdicts[side];

		verdicts_init(v, m->mode);
		v->rule_count = m->rule_count;
		memcpy(v->rules, m->rules, m->rule_count * sizeof(*m->rules));
		if (m->probe_ms) {
			v->retry_ns = (uint64_t)m->probe_ms * 1000000u;
			v->retry_max_ns = v->retry_ns * (VERDICT_RETRY_MAX_NS / VERDICT_RETRY_NS);
		}
	}
	say_modes(options);
	return r;
}

void reach_free(struct reach *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}

enum connection_mode reach_mode(const struct reach *r, enum side side)
{
	return r->options->cluster[side].sni && !r->options->reach.mode_named ? MODE_PROXY : r->options->reach.mode;
}

const char *reach_name(const struct endpoint *to, char text[ENDPOINT_NAME])
{
	if (!to->names[0][0])
		return addr_format(&to->addr, text);
	snprintf(text, ENDPOINT_NAME, "%s", to->names[0]);
	return text;
}

/* ---- the clients' contact points: one place for each, by its number; who comes later takes it */

static unsigned place_of(uint64_t client)
{
	return (unsigned)((client * 0x9E3779B97F4A7C15ull) >> 32) % REACH_CONTACTS;
}

void reach_learn(struct reach *r, const struct reach_want *want)
{
	unsigned i = place_of(want->client);

	if (!want->client || want->side != ORIGIN)
		return;
	pthread_mutex_lock(&r->lock);
	r->contacts[i].client = want->client;
	r->contacts[i].node = want->replica;
	pthread_mutex_unlock(&r->lock);
}

/* ---- who may stand in */

struct roster {
	const struct addr *list[EYEBALLS_MAX];
	unsigned count;
};

static void enlist(struct roster *all, const struct addr *a)
{
	for (unsigned i = 0; i < all->count; i++)
		if (addr_equal(all->list[i], a))
			return;
	if (all->count < EYEBALLS_MAX)
		all->list[all->count++] = a;
}

/* Of this very machine there are many. */
static bool same_host(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET6)
		return !IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) && !memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16);
	return ntohl(a->in.sin_addr.s_addr) >> 24 != 127 && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

/* Control hosts other than the replica, whose turn it is first; in a second pass those that are known not to answer. */
static void enlist_controls(struct reach *r, const struct reach_want *want, struct roster *all)
{
	const struct cluster *c = &r->options->cluster[want->side];
	const struct addr *contact = NULL;
	unsigned place = place_of(want->client), contacts = c->node_count - c->control_count;

	if (want->client && want->side == ORIGIN && r->contacts[place].client == want->client)
		contact = &r->contacts[place].node;
	for (int pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < c->node_count + 1; i++) {
			const struct addr *a = i < c->control_count    ? &c->nodes[contacts + i]
					       : i == c->control_count ? contact
								       : &c->nodes[(want->turn + i - c->control_count - 1) % contacts];
			const struct replica_verdict *known = a ? verdicts_find(&r->verdicts[want->side], a) : NULL;
			bool dead = known && known->state == VERDICT_UNREACHABLE;

			if (a && dead == (pass == 1) && !addr_equal(a, &want->replica) && !same_host(a, &want->from))
				enlist(all, a);
		}
}

static bool is_control(const struct cluster *c, const struct addr *a)
{
	for (unsigned i = c->control_count ? c->node_count - c->control_count : 0; i < c->node_count; i++)
		if (addr_equal(&c->nodes[i], a))
			return true;
	return false;
}

/* Addresses of one name are one host: also who insists on the replica may be led to any of them. */
static void enlist_siblings(const struct cluster *c, const struct addr *replica, struct roster *all)
{
	const char *name = "";

	for (unsigned i = 0; i < c->node_count && !*name; i++)
		if (addr_equal(&c->nodes[i], replica))
			name = c->names[i];
	for (unsigned i = 0; i < c->node_count && *name; i++)
		if (!strcmp(c->names[i], name))
			enlist(all, &c->nodes[i]);
}

static void take_roster(const struct cluster *c, const struct roster *all, const struct reach_want *want, struct reach_plan *plan)
{
	for (unsigned i = 0; i < all->count; i++) {
		struct endpoint *to = &plan->control[plan->control_count++];

		cluster_endpoint_at(c, all->list[i], to);
		if (want->passes_tls)
			to->tls = NULL;
	}
}

/* Each node is a name at one proxy: the one whose turn it is, and those after it. */
static void plan_sni(const struct cluster *c, const struct reach_want *want, struct reach_plan *plan)
{
	unsigned n = plan->mode == MODE_DIRECT ? 1 : SNI_CANDIDATES;

	plan->way = WAY_CONTROL;
	for (unsigned i = 0; i < n && i < c->node_count; i++) {
		cluster_endpoint(c, want->turn + i, &plan->control[plan->control_count]);
		if (want->passes_tls)
			plan->control[plan->control_count].tls = NULL;
		plan->control_count++;
	}
}

void reach_plan(struct reach *r, const struct reach_want *want, struct reach_plan *ret)
{
	const struct cluster *c = &r->options->cluster[want->side];
	struct verdicts *v = &r->verdicts[want->side];
	struct roster all = {0};

	ret->control_count = 0;
	ret->cause = 0;
	ret->alone = false;
	if (want->replica.sa.sa_family == AF_UNSPEC) {
		ret->mode = reach_mode(r, want->side);
		plan_sni(c, want, ret);
		return;
	}
	cluster_endpoint_at(c, &want->replica, &ret->replica);
	if (want->passes_tls)
		ret->replica.tls = NULL;
	pthread_mutex_lock(&r->lock);
	ret->mode = verdicts_mode(v, &want->replica);
	/* Who is a control host itself is dialled itself. */
	if (ret->mode == MODE_DIRECT || (ret->mode == MODE_PROXY && is_control(c, &want->replica)))
		enlist(&all, &want->replica);
	if (ret->mode == MODE_DIRECT)
		enlist_siblings(c, &want->replica, &all);
	else
		enlist_controls(r, want, &all);
	if (ret->mode == MODE_PROXY && all.count == 0)
		enlist(&all, &want->replica);
	take_roster(c, &all, want, ret);
	ret->alone = ret->mode == MODE_AUTO && all.count == 0;
	ret->way = ret->mode != MODE_AUTO ? WAY_CONTROL : ret->alone ? WAY_REPLICA : verdicts_choose(v, &want->replica, clock_now_ns());
	if (ret->mode == MODE_AUTO && verdicts_find(v, &want->replica))
		ret->cause = verdicts_find(v, &want->replica)->cause;
	pthread_mutex_unlock(&r->lock);
}

bool reach_stand_in(struct reach *r, const struct reach_want *want, struct endpoint *ret)
{
	struct roster all = {0};
	struct addr first;

	pthread_mutex_lock(&r->lock);
	enlist_controls(r, want, &all);
	if (all.count)
		first = *all.list[0];
	pthread_mutex_unlock(&r->lock);
	if (all.count)
		cluster_endpoint_at(&r->options->cluster[want->side], &first, ret);
	return all.count > 0;
}

/* ---- news */

void reach_wake_all(struct reach *r)
{
	/* Under the lock, because a seat that closes takes itself off the list first. */
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->seat_count; i++)
		if (r->seats[i])
			uv_async_send(&r->seats[i]->wake);
	pthread_mutex_unlock(&r->lock);
}

unsigned reach_list(struct reach *r, struct reach_view *list, unsigned max)
{
	unsigned n = 0;

	pthread_mutex_lock(&r->lock);
	for (int pass = 0; pass < 2; pass++)
		for (int side = 0; side < SIDES; side++)
			for (unsigned i = 0; i < r->verdicts[side].count && n < max; i++) {
				const struct replica_verdict *v = &r->verdicts[side].list[i];

				if ((v->failures > 0) == (pass == 0))
					list[n++] = (struct reach_view){(enum side)side, *v};
			}
	pthread_mutex_unlock(&r->lock);
	return n;
}
