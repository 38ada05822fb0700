/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/review.h"

#include <stdio.h>
#include <stdlib.h>

#include "cutover/fit.h"
#include "relay/worker.h"

struct review {
	uv_loop_t *loop;
	struct relay *relay;
	struct phase_options options;
	char directory[4096]; /* of the options, whose owner may go away */
	enum phase from, to;
	void (*done)(void *context);
	void *context;
	bool abandoned;
	uv_async_t wake; /* all workers have been looked at */
	uv_work_t work;
	struct fit_census census;
	struct review_finding finding[REVIEW_FINDINGS_MAX];
	unsigned count;
};

static void collect(void *context, enum check_grade grade, const char *what, const char *remedy)
{
	struct review *r = context;
	struct review_finding *f;

	if (r->count == REVIEW_FINDINGS_MAX)
		return;
	f = &r->finding[r->count++];
	f->grade = grade;
	snprintf(f->what, sizeof(f->what), "%s", what);
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy ? remedy : "");
}

static void note(void *context, const char *what, const char *remedy)
{
	collect(context, CHECK_NOTE, what, remedy);
}

static void check_sessions(struct review *r)
{
	const struct relay_options *o = &r->relay->options;
	struct error error = {""};
	struct fit fit;

	if (fit_ask(&o->cluster[TARGET], o->mark, &fit, &error) < 0)
		note(r, error.text, "which sessions the target could carry is not known");
	else
		fit_report(&fit, &r->census, note, r);
}

static void work(uv_work_t *w)
{
	struct review *r = w->data;
	bool back = r->to == PHASE_MIRROR && r->from != PHASE_OBSERVE && r->from != PHASE_DRAIN;

	if (r->to == PHASE_MIRROR && r->from == PHASE_OBSERVE)
		check_mirror(r->relay, r->options.max_clock_skew_ms, collect, r);
	if (r->to == PHASE_CUTOVER || r->to == PHASE_DRAIN || r->to == PHASE_FINISH)
		check_debts(r->directory, TARGET, collect, r);
	if (back)
		check_debts(r->directory, ORIGIN, collect, r);
	if (r->to == PHASE_CUTOVER || r->to == PHASE_DRAIN || back)
		check_scope(r->relay, back, collect, r);
	if (r->to == PHASE_CUTOVER || r->to == PHASE_DRAIN)
		check_writers(r->relay, ORIGIN, collect, r);
	if ((r->to == PHASE_MIRROR && !back) || r->to == PHASE_CUTOVER || r->to == PHASE_DRAIN)
		check_sessions(r);
}

void review_free(struct review *r)
{
	if (!r)
		return;
	fit_census_done(&r->census);
	free(r);
}

static void worked(uv_work_t *w, int status)
{
	struct review *r = w->data;

	(void)status;
	if (r->abandoned)
		review_free(r);
	else
		r->done(r->context);
}

/* The handle is gone by now: what is left to wait for is the thread pool alone. */
static void ask(uv_handle_t *handle)
{
	struct review *r = handle->data;

	if (r->abandoned) {
		review_free(r);
		return;
	}
	if (r->options.settle)
		r->options.settle(r->options.settle_context);
	r->work.data = r;
	uv_queue_work(r->loop, &r->work, work, worked);
}

static void on_looked(uv_async_t *wake)
{
	uv_close((uv_handle_t *)wake, ask);
}

static void look_at_worker(struct worker *w, void *context)
{
	struct review *r = context;

	gap_hand_over(w->gap);
	fit_count(w, &r->census);
}

static void looked(void *context)
{
	uv_async_send(&((struct review *)context)->wake);
}

struct review *review_begin(uv_loop_t *loop, struct relay *relay, const struct phase_options *options, enum phase from, enum phase to,
			    void (*done)(void *context), void *context)
{
	struct review *r = calloc(1, sizeof(*r));

	if (!r || fit_census_init(&r->census) < 0 || uv_async_init(loop, &r->wake, on_looked) < 0) {
		if (r)
			fit_census_done(&r->census);
		free(r);
		return NULL;
	}
	r->wake.data = r;
	r->loop = loop;
	r->relay = relay;
	r->options = *options;
	snprintf(r->directory, sizeof(r->directory), "%s", options->state_directory);
	r->from = from;
	r->to = to;
	r->done = done;
	r->context = context;
	relay_each_worker(relay, look_at_worker, looked, r);
	return r;
}

void review_abandon(struct review *r)
{
	/* Either the workers' answer or the thread pool's is still to come. */
	r->abandoned = true;
}

unsigned review_count(const struct review *r)
{
	return r->count;
}

const struct review_finding *review_finding(const struct review *r, unsigned i)
{
	return &r->finding[i];
}

const struct review_finding *review_reason(const struct review_finding *findings, unsigned count)
{
	const struct review_finding *reason = NULL;

	for (unsigned i = 0; i < count; i++)
		if (findings[i].grade >= CHECK_OBSTACLE && (!reason || findings[i].grade > reason->grade))
			reason = &findings[i];
	return reason;
}
