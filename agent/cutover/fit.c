/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/fit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cql/frame.h"
#include "cql/response.h"
#include "net/connect.h"
#include "relay/options.h"
#include "relay/retire.h"

#define ASK_MS 3000

/* ---- what the target speaks */

static void understand(const struct frame_header *h, struct span body, struct fit *f)
{
	*f = (struct fit){.highest = h->version, .compression = {[COMPRESSION_NONE] = true}};
	if (h->opcode != OP_SUPPORTED)
		return; /* it refuses the version, and answers in the highest one that it knows */
	if (supported_has(body, "PROTOCOL_VERSIONS", "5/v5"))
		f->highest = 5;
	f->compression[COMPRESSION_LZ4] = supported_has(body, "COMPRESSION", "lz4");
	f->compression[COMPRESSION_SNAPPY] = supported_has(body, "COMPRESSION", "snappy");
}

static int ask_stream(struct stream *s, uint64_t until_ns, struct fit *ret)
{
	uint8_t answer[OPTIONS_ANSWER_MAX];
	ssize_t n = options_ask(s, until_ns, answer);
	struct frame_header h;

	if (n < 0)
		return (int)n;
	if (frame_header_read(answer, (size_t)n, &h) <= 0 || !h.response || (size_t)n < FRAME_HEADER_SIZE + (size_t)h.length)
		return -EPROTO;
	understand(&h, span_of(answer + FRAME_HEADER_SIZE, h.length), ret);
	return 0;
}

static int ask_node(const struct cluster *target, unsigned node, uint32_t mark, struct fit *ret, struct error *error)
{
	uint64_t until = clock_now_ns() + ASK_MS * 1000000ull;
	char text[ADDR_TEXT_MAX];
	struct endpoint to;
	struct stream s;
	struct error why;
	int r;

	cluster_endpoint(target, node, &to);
	r = stream_connect(&to, mark, until, &s, &why);
	if (r < 0)
		return error_set(error, r, "target: %s does not say what it speaks: %s", addr_format(&to.addr, text), why.text);
	r = ask_stream(&s, until, ret);
	stream_close(&s);
	return r < 0 ? error_set(error, r, "target: %s does not say what it speaks: %s", addr_format(&to.addr, text), strerror(-r)) : 0;
}

int fit_ask(const struct cluster *target, uint32_t mark, struct fit *ret, struct error *error)
{
	int r = error_set(error, -EDESTADDRREQ, "target.contactPoints names nothing");

	for (unsigned i = 0; i < target->node_count && r < 0; i++)
		r = ask_node(target, i, mark, ret, error);
	return r;
}

/* ---- what the sessions speak */

int fit_census_init(struct fit_census *c)
{
	*c = (struct fit_census){.session = calloc(FIT_SESSIONS_MAX, sizeof(*c->session))};
	pthread_mutex_init(&c->lock, NULL);
	return c->session ? 0 : -ENOMEM;
}

void fit_census_done(struct fit_census *c)
{
	pthread_mutex_destroy(&c->lock);
	free(c->session);
	c->session = NULL;
}

void fit_count(struct worker *w, struct fit_census *c)
{
	pthread_mutex_lock(&c->lock);
	for (const struct session *s = w->sessions; s; s = s->next) {
		if (s->state != SESSION_OPEN || s->version >= 8)
			continue;
		c->total++;
		c->of[s->version][s->compression]++;
		if (c->kept < FIT_SESSIONS_MAX)
			c->session[c->kept++] = (struct fit_session){s->peer, s->version, s->compression};
	}
	pthread_mutex_unlock(&c->lock);
}

static const char *compression_word(enum compression c)
{
	return c == COMPRESSION_LZ4 ? "lz4" : c == COMPRESSION_SNAPPY ? "snappy" : "none";
}

static void name_them(const struct fit *f, const struct fit_census *c, bool by_version,
		      void (*say)(void *context, const char *what, const char *remedy), void *context)
{
	char text[200], client[ADDR_TEXT_MAX];
	unsigned named = 0;

	for (unsigned i = 0; i < c->kept && named < FIT_NAMED; i++) {
		const struct fit_session *s = &c->session[i];
		bool misfit = by_version ? s->version > f->highest : !f->compression[s->compression];

		if (!misfit)
			continue;
		snprintf(text, sizeof(text), "client %s: protocol version %u, compression %s", addr_format(&s->client, client), s->version,
			 compression_word(s->compression));
		say(context, text, NULL);
		named++;
	}
}

void fit_report(const struct fit *f, const struct fit_census *c, void (*say)(void *context, const char *what, const char *remedy),
		void *context)
{
	unsigned above = 0, packed = 0;
	char text[200];

	for (unsigned version = 0; version < 8; version++)
		for (int i = 0; i < 3; i++) {
			above += version > f->highest ? c->of[version][i] : 0;
			packed += f->compression[i] ? 0 : c->of[version][i];
		}
	if (above) {
		snprintf(text, sizeof(text), "%u of %u sessions speak a protocol version above the target's (%u)", above, c->total, f->highest);
		say(context, text, "nothing to do: from mirror on they are closed, 20 a second, and their drivers come back with a lower version");
		name_them(f, c, true, say, context);
	}
	if (packed) {
		snprintf(text, sizeof(text), "%u of %u sessions use a compression that the target does not know", packed, c->total);
		say(context, text, "nothing to do: the agent decompresses what they send to it");
		name_them(f, c, false, say, context);
	}
}

/* ---- closing */

static bool above(const struct session *s, const void *context)
{
	return s->version > *(const uint8_t *)context;
}

static void close_some(struct worker *w, void *context)
{
	uint8_t cap = atomic_load(&w->relay->version_cap);
	unsigned share = (RETIRE_A_SECOND + w->relay->worker_count - 1) / w->relay->worker_count;

	(void)context;
	if (cap && !w->holding && !w->stopping)
		retire_idle(w, share, CLOSE_VERSION, above, &cap);
}

void fit_close_older(struct relay *r)
{
	if (atomic_load(&r->version_cap))
		relay_each_worker(r, close_some, NULL, NULL);
}
