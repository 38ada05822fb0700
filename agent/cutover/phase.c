/* SPDX-License-Identifier: Apache-2.0 */
/* See phase.h for the steps. */
#include "cutover/phase.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "cutover/checks.h"
#include "cutover/course.h"
#include "cutover/hold.h"
#include "cutover/ledger.h"
#include "cutover/review.h"
#include "cutover/state.h"
#include "mirror/tap.h"
#include "relay/worker.h"

#define TICK_MS 20
#define WARM_STUCK_MS 5000 /* without progress for so long: what is not ready yet becomes so when it is used */
#define RETRY_HOLD_MS 1000 /* between two holds, so that clients get something done */

enum step { STEP_NONE, STEP_CHECK, STEP_WARM, STEP_DRAIN, STEP_HOLD, STEP_PAUSE, STEP_SWITCH };

struct move {
	enum step step;
	enum phase from, to, base; /* base: where it goes back to when it fails */
	bool plan, force;
	char who[64];
	struct phase_listener listener;
	uint64_t deadline_ns, step_ns, hold_ns;
	unsigned holds;
	struct hold *hold;
	struct review *review;
	_Atomic int missing; /* statements that the other side does not know yet; −1 = not counted yet */
	uint64_t told_backlog;
	uint64_t warm_ready, warm_ns; /* progress of STEP_WARM */
	int warm_missing;
};

struct phases {
	uv_loop_t *loop;
	struct relay *relay;
	struct mirror *mirror;
	struct phase_options options;
	enum phase current;
	struct metrics metrics;
	uv_timer_t timer;
	uv_async_t wake;
	_Atomic bool switched; /* all workers follow the new course */
	int handles;           /* that are closing */
	const char *blocked;   /* why nothing moves; NULL = it does */
	bool told_left;        /* finish: said that no connection to the origin is left */
	struct move move;
};

static void tell(struct phases *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct phases *p, const char *format, ...)
{
	char text[1200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_info("cutover", "%s", text);
	if (p->move.listener.progress)
		p->move.listener.progress(p->move.listener.context, text);
}

/* The move is over. The listener may start another one at once. */
static void over(struct phases *p, const char *error, const char *hint)
{
	struct phase_listener listener = p->move.listener;

	review_free(p->move.review);
	p->move = (struct move){0};
	if (listener.done)
		listener.done(listener.context, error, hint);
}

/* ---- phases and what follows from them */

static int64_t high_water(const struct phases *p)
{
	int64_t highest = clock_wall_us();

	for (unsigned i = 0; i < p->relay->worker_count; i++)
		if (p->relay->workers[i]->last_timestamp > highest)
			highest = p->relay->workers[i]->last_timestamp;
	return highest;
}

static int enter(struct phases *p, enum phase to, const char *who, struct error *error)
{
	int e = state_save(p->options.state_directory, to, who, high_water(p), error);

	if (e < 0)
		return e;
	log_audit("phase %s -> %s by %s", phase_name(p->current), phase_name(to), who);
	p->current = to;
	p->told_left = false;
	metric_set(&p->metrics, METRIC_PHASE, to);
	return 0;
}

static void after_switch(void *context)
{
	struct phases *p = context;

	atomic_store(&p->switched, true);
	uv_async_send(&p->wake);
}

static void follow(struct phases *p, enum phase to)
{
	struct course course = phase_course(to, p->relay->options.freeze_topology);

	atomic_store(&p->switched, false);
	/* Not a moment after the workers: what passes unseen meanwhile belongs on record. */
	ledger_course(p->options.ledger, &course, clock_wall_us());
	relay_set_course(p->relay, &course, after_switch, p);
}

/* Goes back to where the move began, or to the safe phase behind it. */
static void fall_back(struct phases *p, const char *error, const char *hint)
{
	struct move *m = &p->move;
	struct error failed;

	if (m->hold) {
		hold_end(m->hold, NULL, NULL, NULL);
		m->hold = NULL;
	}
	if (p->current != m->base) {
		if (enter(p, m->base, m->who, &failed) < 0)
			log_error("cutover", "%s", failed.text);
		p->current = m->base;
		follow(p, m->base);
		phase_tell_kernel(p->relay, m->base);
	}
	over(p, error, hint);
}

/* ---- steps */

static void set_step(struct phases *p, enum step step)
{
	p->move.step = step;
	p->move.step_ns = clock_now_ns();
}

static uint64_t step_ms(const struct phases *p)
{
	return (clock_now_ns() - p->move.step_ns) / 1000000u;
}

static void count_missing(struct worker *w, void *context)
{
	struct phases *p = context;

	if (w->index == 0)
		atomic_store(&p->move.missing, tap_prepare_missing(w, side_other(w->course.primary)));
}

static void begin_warm(struct phases *p)
{
	struct move *m = &p->move;
	enum phase warm = m->to == PHASE_MIRROR ? PHASE_ROLLBACK : PHASE_DRAIN;
	struct error error;

	if (p->current != warm) {
		if (enter(p, warm, m->who, &error) < 0) {
			over(p, error.text, NULL);
			return;
		}
		phase_tell_kernel(p->relay, warm);
		follow(p, warm);
	}
	atomic_store(&m->missing, -1);
	m->warm_ns = clock_now_ns();
	set_step(p, STEP_WARM);
	tell(p, "sessions open their connections to the %s, statements are prepared there",
	     m->to == PHASE_MIRROR ? "origin" : "target");
}

static void keep_first(void *context, enum check_grade grade, const char *what, const char *remedy)
{
	struct review_finding *f = context;

	if (f->what[0])
		return;
	f->grade = grade;
	snprintf(f->what, sizeof(f->what), "%s", what);
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy ? remedy : "");
}

static void step_warm(struct phases *p)
{
	struct move *m = &p->move;
	enum metric other = m->to == PHASE_MIRROR ? METRIC_UPSTREAMS_ORIGIN : METRIC_UPSTREAMS_TARGET;
	uint64_t ready = metrics_total(other), sessions = metrics_total(METRIC_SESSIONS);
	int missing = atomic_load(&m->missing);
	struct review_finding first = {0};
	bool late;

	if (ready != m->warm_ready || missing != m->warm_missing) {
		m->warm_ready = ready;
		m->warm_missing = missing;
		m->warm_ns = clock_now_ns();
	}
	late = clock_now_ns() - m->warm_ns > WARM_STUCK_MS * 1000000ull;

	if (!late && (missing != 0 || ready < sessions)) {
		if (step_ms(p) % 100 < TICK_MS)
			relay_each_worker(p->relay, count_missing, NULL, p);
		return;
	}
	check_statements(p->relay, keep_first, &first);
	if (first.what[0]) {
		fall_back(p, first.what, first.remedy);
		return;
	}
	if (late && missing != 0)
		tell(p, "%d prepared statements are not known there yet; clients will be asked to prepare them again", missing);
	if (m->to == PHASE_DRAIN) {
		tell(p, "ready: %" PRIu64 " sessions have both connections", ready);
		over(p, NULL, NULL);
		return;
	}
	m->told_backlog = UINT64_MAX;
	set_step(p, STEP_DRAIN);
}

static void step_drain(struct phases *p)
{
	struct move *m = &p->move;
	uint64_t backlog = metrics_total(METRIC_MIRROR_BACKLOG);

	if (backlog <= p->options.drain_backlog) {
		tell(p, "backlog %" PRIu64 ": requests are held", backlog);
		m->holds++;
		m->hold_ns = clock_now_ns();
		m->hold = hold_begin(p->relay, &p->wake);
		metric_add(&p->metrics, METRIC_HOLDS, 1);
		set_step(p, STEP_HOLD);
		return;
	}
	if (m->told_backlog == UINT64_MAX || backlog < m->told_backlog / 2) {
		tell(p, "backlog %" PRIu64 ", waiting until it is at most %u", backlog, p->options.drain_backlog);
		m->told_backlog = backlog;
	}
}

static void note_hold(struct phases *p)
{
	metric_set(&p->metrics, METRIC_HOLD_LAST_US, (clock_now_ns() - p->move.hold_ns) / 1000u);
}

static void step_hold(struct phases *p)
{
	struct move *m = &p->move;
	struct course course = phase_course(m->to, p->relay->options.freeze_topology);
	struct error error;

	if (hold_quiet(m->hold)) {
		/* Every worker has answered: holding, nothing in flight, nothing left for the other side. */
		if (enter(p, m->to, m->who, &error) < 0) {
			fall_back(p, error.text, "make the state directory writable and try again");
			return;
		}
		phase_tell_kernel(p->relay, m->to);
		p->relay->course = course;
		atomic_store(&p->switched, false);
		hold_end(m->hold, &course, after_switch, p);
		m->hold = NULL;
		set_step(p, STEP_SWITCH);
		return;
	}
	if (step_ms(p) < p->options.hold_ms)
		return;
	/* The bound: clients come first. */
	hold_end(m->hold, NULL, NULL, NULL);
	m->hold = NULL;
	note_hold(p);
	tell(p, "not quiet within %u ms (%" PRIu64 " requests in flight, backlog %" PRIu64 "): requests go on, another try follows",
	     p->options.hold_ms, metrics_total(METRIC_REQUESTS_INFLIGHT), metrics_total(METRIC_MIRROR_BACKLOG));
	set_step(p, STEP_PAUSE);
}

static void step_switch(struct phases *p)
{
	struct move *m = &p->move;

	if (!atomic_load(&p->switched))
		return;
	if (m->holds) {
		note_hold(p);
		tell(p, "phase %s: held for %" PRIu64 " ms", phase_name(m->to),
		     metric_get(&p->metrics, METRIC_HOLD_LAST_US) / 1000u);
	}
	over(p, NULL, NULL);
}

static void run(struct phases *p)
{
	struct move *m = &p->move;

	if (m->step == STEP_NONE || m->step == STEP_CHECK)
		return;
	if (clock_now_ns() > m->deadline_ns && m->step != STEP_SWITCH) {
		char text[160];

		snprintf(text, sizeof(text), "not done in time: %" PRIu64 " records wait, %" PRIu64 " requests are in flight",
			 metrics_total(METRIC_MIRROR_BACKLOG), metrics_total(METRIC_REQUESTS_INFLIGHT));
		fall_back(p, text, "see whether the other cluster keeps up (cqlferry status), or allow more time (--timeout)");
		return;
	}
	switch (m->step) {
	case STEP_WARM:
		step_warm(p);
		break;
	case STEP_DRAIN:
		step_drain(p);
		break;
	case STEP_HOLD:
		step_hold(p);
		break;
	case STEP_PAUSE:
		if (step_ms(p) >= RETRY_HOLD_MS)
			set_step(p, STEP_DRAIN);
		break;
	case STEP_SWITCH:
		step_switch(p);
		break;
	default:
		break;
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct phases *p = timer->data;

	run(p);
	if (p->current == PHASE_FINISH && p->move.step == STEP_NONE && !p->told_left &&
	    metrics_total(METRIC_UPSTREAMS_ORIGIN) == 0) {
		p->told_left = true;
		log_audit("no connection to the origin is left on this node");
	}
}

static void on_wake(uv_async_t *wake)
{
	run(wake->data);
}

/* ---- checks, and what a move begins with */

static bool is_switch(const struct move *m)
{
	return m->to == PHASE_CUTOVER || (m->to == PHASE_MIRROR && (m->from == PHASE_CUTOVER || m->from == PHASE_ROLLBACK));
}

static void begin(struct phases *p)
{
	struct move *m = &p->move;
	struct error error;

	if (is_switch(m) || m->to == PHASE_DRAIN) {
		begin_warm(p);
		return;
	}
	if (enter(p, m->to, m->who, &error) < 0) {
		over(p, error.text, "make the state directory writable and try again");
		return;
	}
	/* To mirror: first the workers, then the kernel leads clients to them. Away from it: the other way round. */
	if (m->to == PHASE_OBSERVE)
		phase_tell_kernel(p->relay, m->to);
	follow(p, m->to);
	if (m->to != PHASE_OBSERVE)
		phase_tell_kernel(p->relay, m->to);
	set_step(p, STEP_SWITCH);
}

static void checked(void *context)
{
	struct phases *p = context;
	struct move *m = &p->move;
	unsigned obstacles = 0, blockers = 0, count = review_count(m->review);
	const struct review_finding *reason = count ? review_reason(review_finding(m->review, 0), count) : NULL;
	char text[1200], hint[sizeof(reason->remedy) + 64];

	for (unsigned i = 0; i < count; i++) {
		const struct review_finding *f = review_finding(m->review, i);

		if (f->grade == CHECK_FINE && !m->plan)
			continue;
		tell(p, "%s: %s%s%s", f->grade == CHECK_FINE ? "ok" : f->grade == CHECK_NOTE ? "note" : f->grade == CHECK_BLOCKER ? "blocked" : "obstacle",
		     f->what, f->remedy[0] ? ". " : "", f->remedy);
		obstacles += f->grade == CHECK_OBSTACLE;
		blockers += f->grade == CHECK_BLOCKER;
	}
	if (m->plan) {
		tell(p, "plan: %s -> %s, %u obstacles, %u blockers", phase_name(m->from), phase_name(m->to), obstacles, blockers);
		over(p, NULL, NULL);
		return;
	}
	if (blockers || (obstacles && !m->force)) {
		snprintf(text, sizeof(text), "%s stays: %s", phase_name(m->from), reason->what);
		snprintf(hint, sizeof(hint), "%s%s", reason->remedy,
			 blockers ? "" : reason->remedy[0] ? "; or --force, which puts it on record" : "--force puts it on record");
		log_audit("phase %s -> %s refused: %s", phase_name(m->from), phase_name(m->to), reason->what);
		over(p, text, hint);
		return;
	}
	snprintf(text, sizeof(text), "%s -> %s", phase_name(m->from), phase_name(m->to));
	for (unsigned i = 0; obstacles && i < count; i++) {
		const struct review_finding *f = review_finding(m->review, i);

		if (f->grade != CHECK_OBSTACLE)
			continue;
		log_audit("forced by %s although: %s", m->who, f->what);
		ledger_forced(p->options.ledger, m->who, text, f->what, clock_wall_us());
	}
	begin(p);
}

void phases_request(struct phases *p, const struct phase_request *request, const struct phase_listener *listener)
{
	struct move *m = &p->move;
	char text[160], hint[120];

	if (m->step != STEP_NONE) {
		listener->done(listener->context, "another phase change is under way", "wait for it (cqlferry status)");
		return;
	}
	if (request->to == p->current) {
		listener->done(listener->context, NULL, NULL);
		return;
	}
	if (p->blocked) {
		listener->done(listener->context, p->blocked, "wait until it has ended (cqlferry status)");
		return;
	}
	if (!phase_move_legal(p->current, request->to)) {
		snprintf(text, sizeof(text), "there is no way from %s to %s", phase_name(p->current), phase_name(request->to));
		snprintf(hint, sizeof(hint), "possible from here: %s", phase_moves_from(p->current));
		listener->done(listener->context, text, hint);
		return;
	}
	*m = (struct move){.from = p->current, .to = request->to, .plan = request->plan, .force = request->force,
			   .listener = *listener};
	snprintf(m->who, sizeof(m->who), "%s", request->who);
	if (m->to == PHASE_ROLLBACK)
		m->to = PHASE_MIRROR;
	m->base = m->from == PHASE_DRAIN ? PHASE_MIRROR : m->from == PHASE_ROLLBACK ? PHASE_CUTOVER : m->from;
	m->deadline_ns = clock_now_ns() + (uint64_t)request->timeout_ms * 1000000u;
	set_step(p, STEP_CHECK);
	m->review = review_begin(p->loop, p->relay, &p->options, m->from, m->to, checked, p);
	if (!m->review)
		over(p, "out of memory", NULL);
}

enum phase phases_current(const struct phases *p)
{
	return p->current;
}

bool phases_moving(const struct phases *p)
{
	return p->move.step != STEP_NONE;
}

bool phases_settled(const struct phases *p)
{
	return p->move.step == STEP_NONE && atomic_load(&((struct phases *)p)->switched);
}

void phases_block(struct phases *p, const char *why)
{
	if (p)
		p->blocked = why;
}

static void set_clock(struct worker *w, void *context)
{
	int64_t mark = *(int64_t *)context;

	if (w->last_timestamp < mark)
		w->last_timestamp = mark;
}

int phases_start(uv_loop_t *loop, struct relay *relay, struct mirror *mirror, const struct phase_options *options,
		 enum phase initial, struct phases **ret, struct error *error)
{
	struct phases *p = aligned_alloc(64, (sizeof(*p) + 63) & ~(size_t)63);
	static int64_t mark; /* read by the workers' first message */
	int r;

	if (!p)
		return error_set(error, -ENOMEM, "out of memory");
	memset(p, 0, sizeof(*p));
	p->loop = loop;
	p->relay = relay;
	p->mirror = mirror;
	p->options = *options;
	p->current = initial;
	r = state_load(options->state_directory, &p->current, &mark, error);
	if (r < 0) {
		free(p);
		return r;
	}
	if (r > 0)
		log_info("cutover", "phase %s, from the state file", phase_name(p->current));
	/* A switch that was interrupted has not happened: nobody sent to the other side as primary. */
	if (p->current == PHASE_DRAIN)
		p->current = PHASE_MIRROR;
	if (p->current == PHASE_ROLLBACK)
		p->current = PHASE_CUTOVER;
	metrics_register(&p->metrics);
	metric_set(&p->metrics, METRIC_PHASE, p->current);
	uv_timer_init(loop, &p->timer);
	uv_async_init(loop, &p->wake, on_wake);
	p->timer.data = p->wake.data = p;
	uv_timer_start(&p->timer, on_tick, TICK_MS, TICK_MS);
	if (mark)
		relay_each_worker(relay, set_clock, NULL, &mark);
	follow(p, p->current);
	phase_tell_kernel(relay, p->current);
	*ret = p;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct phases *p = handle->data;

	if (--p->handles == 0)
		free(p);
}

void phases_stop(struct phases *p)
{
	struct error error;

	if (!p)
		return;
	if (p->move.step == STEP_SWITCH) {
		/* Workers may serve clients in the new phase already: there is no way back, and the state file says so. */
		over(p, NULL, NULL);
	} else if (p->move.step == STEP_CHECK) {
		review_abandon(p->move.review);
		p->move.review = NULL;
		over(p, "the agent is stopping", NULL);
	} else if (p->move.step != STEP_NONE) {
		fall_back(p, "the agent is stopping", NULL);
	}
	/* Timestamps never go back over a restart. */
	if (state_save(p->options.state_directory, p->current, "shutdown", high_water(p), &error) < 0)
		log_error("cutover", "%s", error.text);
	/* What was counted stays counted; what is measured goes with us. */
	metric_set(&p->metrics, METRIC_PHASE, 0);
	metric_set(&p->metrics, METRIC_HOLD_LAST_US, 0);
	metrics_unregister(&p->metrics);
	/* Workers may use it until they have ended; the loop runs again, and lets it go, only after that. */
	p->handles = 2;
	uv_close((uv_handle_t *)&p->timer, on_closed);
	uv_close((uv_handle_t *)&p->wake, on_closed);
}
