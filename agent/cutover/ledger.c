/* SPDX-License-Identifier: Apache-2.0 */
/* See ledger.h for the files. Here: what is put on record. ledger_file.c: how it gets to the disk and back. */
#include "cutover/ledger.h"

#include <stdio.h>
#include <string.h>

#include "cutover/ledger_priv.h"

static int64_t to_wall(uint64_t at_ns, int64_t now_us, uint64_t now_ns)
{
	return now_us - (int64_t)(now_ns - at_ns) / 1000;
}

/* ---- spans */

static void span_write_begin(struct ledger *l, struct ledger_span *s)
{
	struct ledger_record r = s->record;

	s->record.id = r.id = ++l->last_id;
	r.type = LEDGER_BEGIN;
	r.to_us = 0;
	s->begun = true;
	ledger_append(l, &r);
}

static void span_begin(struct ledger *l, const struct ledger_record *r)
{
	struct ledger_span *s = ledger_spans_add(&l->spans, r);

	if (s) {
		if (l->since_us)
			span_write_begin(l, s);
		return;
	}
	/* No place for one more: counted at least. Its end will not be known. */
	if (l->since_us) {
		struct ledger_record more = *r;

		more.count = 1;
		more.to_us = r->from_us;
		more.approximate = true;
		ledger_sums_add(&l->window, &more);
	}
}

/* Writes it with its end; it stays in the set. */
static void span_write_end(struct ledger *l, struct ledger_span *s, int64_t to_us, bool approximate)
{
	struct ledger_record r = s->record;

	if (!s->begun)
		return;
	r.type = LEDGER_GAP;
	r.to_us = to_us > r.from_us ? to_us : r.from_us;
	r.approximate |= approximate;
	s->begun = false;
	ledger_append(l, &r);
}

static void span_end(struct ledger *l, struct ledger_span *s, int64_t to_us, bool approximate)
{
	span_write_end(l, s, to_us, approximate);
	ledger_spans_remove(&l->spans, s);
}

void ledger_spans_orphaned(struct ledger *l, bool rebooted, bool clean, int64_t now_us)
{
	struct ledger_span *s, *next;

	for (s = l->spans.first; s; s = next) {
		next = s->next;
		/* What went through the agent ended with it, at the latest now. Connections past it live on, but not over a reboot. */
		if (s->record.kind == LEDGER_OPAQUE)
			span_end(l, s, clean ? l->alive_us : now_us, true);
		else if (s->record.kind == LEDGER_BYPASS && rebooted)
			span_end(l, s, now_us, true);
	}
}

/* ---- mirroring on and off */

static void mirroring_on(struct ledger *l, int64_t now_us)
{
	struct ledger_span *off = ledger_spans_find(&l->spans, LEDGER_OFF, 0);

	l->since_us = now_us;
	l->mirrored = true;
	if (off)
		span_end(l, off, now_us, false);
	for (struct ledger_span *s = l->spans.first; s; s = s->next) {
		if (s->begun)
			continue;
		s->record.from_us = now_us;
		s->record.missing_on_origin = s->record.kind == LEDGER_OPAQUE && l->missing_on_origin;
		span_write_begin(l, s);
	}
}

static void mirroring_off(struct ledger *l, bool finished, int64_t now_us)
{
	struct ledger_span *s, *next;

	for (s = l->spans.first; s; s = next) {
		next = s->next;
		if (s->record.kind == LEDGER_OPAQUE)
			span_write_end(l, s, now_us, false);
		else
			span_end(l, s, now_us, false);
	}
	l->since_us = 0;
	/* After finish nobody asks for the origin any more. */
	if (!finished) {
		struct ledger_record r = {.type = LEDGER_GAP, .kind = LEDGER_OFF, .from_us = now_us, .cause = "mirroring off"};

		s = ledger_spans_add(&l->spans, &r);
		if (s)
			span_write_begin(l, s);
	}
}

void ledger_course(struct ledger *l, const struct course *course, int64_t now_us)
{
	bool origin = course->primary == TARGET;

	if (!l || (course->mirroring == (l->since_us != 0) && origin == l->missing_on_origin))
		return;
	if (course->mirroring && l->since_us && origin != l->missing_on_origin) {
		/* A switch: from here on the other side is the one that lacks what an unreadable session writes. */
		l->missing_on_origin = origin;
		for (struct ledger_span *s = l->spans.first; s; s = s->next) {
			if (s->record.kind != LEDGER_OPAQUE)
				continue;
			span_write_end(l, s, now_us, false);
			s->record.from_us = now_us;
			s->record.missing_on_origin = origin;
			span_write_begin(l, s);
		}
	}
	l->missing_on_origin = origin;
	if (course->mirroring && !l->since_us)
		mirroring_on(l, now_us);
	else if (!course->mirroring && l->since_us)
		mirroring_off(l, course->finished || origin, now_us);
	ledger_alive_now(l, now_us);
}

/* ---- what happens */

void ledger_unmirrored(struct ledger *l, const struct gap_count *c)
{
	struct ledger_record r = {.kind = LEDGER_UNMIRRORED, .missing_on_origin = c->missing == ORIGIN, .count = c->count,
				  .from_us = c->first_us, .to_us = c->last_us};

	if (!l)
		return;
	snprintf(r.cause, sizeof(r.cause), "%s", gap_cause_name(c->cause));
	snprintf(r.keyspace, sizeof(r.keyspace), "%s", c->keyspace);
	snprintf(r.table, sizeof(r.table), "%s", c->table);
	ledger_sums_add(&l->window, &r);
}

void ledger_opaque(struct ledger *l, const struct gap_session *g)
{
	struct ledger_record r = {.type = LEDGER_GAP, .kind = LEDGER_OPAQUE, .missing_on_origin = g->missing == ORIGIN, .key = g->key,
				  .cookie = g->cookie, .from_us = g->at_us, .cause = "opaque session"};
	struct ledger_span *s;

	if (!l)
		return;
	s = ledger_spans_find(&l->spans, LEDGER_OPAQUE, g->key);
	if (s)
		span_end(l, s, g->at_us, false);
	if (!g->begin)
		return;
	addr_format(&g->client, r.client);
	addr_format(&g->destination, r.destination);
	if (r.from_us < l->since_us)
		r.from_us = l->since_us;
	span_begin(l, &r);
}

static struct ledger_record from_event(const struct intercept_event *e)
{
	struct ledger_record r = {.type = LEDGER_GAP, .kind = LEDGER_BYPASS, .key = e->client_cookie, .cookie = e->client_cookie,
				  .netns = e->netns_cookie, .cgroup = e->cgroup_id, .pid = e->pid};
	struct addr a = {0};

	memcpy(&a.storage, &e->destination, sizeof(e->destination));
	if (a.sa.sa_family == AF_INET || a.sa.sa_family == AF_INET6)
		addr_format(&a, r.destination);
	snprintf(r.cause, sizeof(r.cause), "%s", e->cause ? e->cause : "unknown");
	memcpy(r.program, e->program, sizeof(r.program));
	r.program[sizeof(r.program) - 1] = 0;
	return r;
}

void ledger_event(struct ledger *l, const struct intercept_event *e, int64_t now_us, uint64_t now_ns)
{
	struct ledger_record r;
	struct ledger_span *s;
	int64_t at_us;

	if (!l || !l->since_us)
		return;
	at_us = to_wall(e->at_ns, now_us, now_ns);
	s = ledger_spans_find(&l->spans, LEDGER_BYPASS, e->client_cookie);
	switch (e->kind) {
	case INTERCEPT_EVENT_BYPASSED:
	case INTERCEPT_EVENT_OBSERVED:
		if (s)
			return;
		r = from_event(e);
		r.from_us = at_us > l->since_us ? at_us : l->since_us;
		span_begin(l, &r);
		break;
	case INTERCEPT_EVENT_BYPASS_ENDED:
		if (s) {
			span_end(l, s, at_us, false);
			return;
		}
		/* Its beginning was lost, or happened before we looked. */
		if (at_us <= l->since_us)
			return;
		r = from_event(e);
		r.from_us = at_us - (int64_t)(e->duration_ns / 1000);
		if (r.from_us < l->since_us)
			r.from_us = l->since_us;
		r.to_us = at_us;
		ledger_append(l, &r);
		break;
	default:
		break;
	}
}

void ledger_forced(struct ledger *l, const char *who, const char *what, const char *text, int64_t now_us)
{
	struct ledger_record r = {.type = LEDGER_GAP, .kind = LEDGER_FORCED, .from_us = now_us, .to_us = now_us};

	if (!l)
		return;
	r.missing_on_origin = l->missing_on_origin;
	snprintf(r.cause, sizeof(r.cause), "%s", what);
	snprintf(r.who, sizeof(r.who), "%s", who);
	snprintf(r.text, sizeof(r.text), "%s", text);
	ledger_append(l, &r);
}

void ledger_down(struct ledger *l, const char *cause, uint64_t backlog, int64_t from_us, int64_t now_us)
{
	struct ledger_record r = {.type = LEDGER_GAP, .kind = LEDGER_DOWN, .from_us = from_us, .to_us = now_us, .approximate = true,
				  .backlog = backlog};

	if (!l || !l->since_us)
		return;
	r.missing_on_origin = l->missing_on_origin;
	snprintf(r.cause, sizeof(r.cause), "%s", cause);
	ledger_append(l, &r);
}

/* ---- the kernel's table against ours */

void ledger_seen(struct ledger *l, const struct intercept_event *e, int64_t now_us, uint64_t now_ns)
{
	struct ledger_span *s;
	struct ledger_record r;

	if (!l || !l->since_us)
		return;
	s = ledger_spans_find(&l->spans, LEDGER_BYPASS, e->client_cookie);
	if (s) {
		s->missed = 0;
		return;
	}
	r = from_event(e);
	r.from_us = to_wall(e->at_ns, now_us, now_ns);
	if (r.from_us < l->since_us)
		r.from_us = l->since_us;
	if (l->spans.count < LEDGER_SPANS_MAX) {
		span_begin(l, &r);
		return;
	}
	/* Counted when it began; it is still there. */
	r.to_us = now_us;
	r.approximate = true;
	ledger_sums_add(&l->window, &r);
}

void ledger_seen_end(struct ledger *l, int64_t now_us)
{
	struct ledger_span *s, *next;

	if (!l || !l->since_us)
		return;
	for (s = l->spans.first; s; s = next) {
		next = s->next;
		/* A walk through a table that changes may miss an entry; hardly twice. */
		if (s->record.kind == LEDGER_BYPASS && s->missed++ >= 2)
			span_end(l, s, now_us, true);
	}
}

unsigned ledger_spans(struct ledger *l, void (*callback)(void *context, const struct ledger_record *r), void *context)
{
	unsigned count = 0;

	if (!l)
		return 0;
	for (struct ledger_span *s = l->spans.first; s; s = s->next) {
		if (!s->begun)
			continue;
		callback(context, &s->record);
		count++;
	}
	return count;
}

uint64_t ledger_lost(const struct ledger *l)
{
	return l ? l->lost_total : 0;
}
