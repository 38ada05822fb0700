/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/acknowledge.h"

#include <stdlib.h>

#include "base/clock.h"
#include "mirror/tap.h"
#include "relay/tap.h"

static void release(struct acknowledge *a)
{
	struct held_answer *h;

	while ((h = a->due)) {
		a->due = h->next;
		relay_acknowledged(a->worker, h);
	}
}

static void on_posted(struct worker *w, void *context)
{
	struct acknowledge *a = context;

	(void)w;
	a->posted = false;
	release(a);
}

/* Off the waiting ones. */
static void take(struct acknowledge *a, struct held_answer *h, enum metric how)
{
	*h->previous = h->next;
	if (h->next)
		h->next->previous = h->previous;
	else
		a->waiting_end = h->previous;
	h->record->answer = NULL;
	h->next = a->due;
	a->due = h;
	metric_add(a->worker->metrics, how, 1);
}

static void on_time(uv_timer_t *timer);

static void wind(struct acknowledge *a)
{
	uint64_t now = clock_now_ns(), left;

	if (!a->waiting || uv_is_closing((uv_handle_t *)&a->timer))
		return;
	left = a->waiting->deadline_ns > now ? a->waiting->deadline_ns - now : 0;
	uv_timer_start(&a->timer, on_time, left / 1000000 + 1, 0);
}

static void on_time(uv_timer_t *timer)
{
	struct acknowledge *a = timer->data;
	uint64_t now = clock_now_ns();

	a->worker->turn_ns = now;
	while (a->waiting && a->waiting->deadline_ns <= now)
		take(a, a->waiting, METRIC_ACKNOWLEDGED_LATE);
	release(a);
	wind(a);
}

void acknowledge_init(struct acknowledge *a, struct worker *w, uint64_t wait_ns)
{
	*a = (struct acknowledge){.worker = w, .wait_ns = wait_ns, .waiting_end = &a->waiting};
	uv_timer_init(&w->loop, &a->timer);
	a->timer.data = a;
}

void acknowledge_wait(struct acknowledge *a, struct record *r, struct held_answer *h)
{
	bool first = !a->waiting;

	h->deadline_ns = clock_now_ns() + a->wait_ns;
	h->record = r;
	r->answer = h;
	h->next = NULL;
	h->previous = a->waiting_end;
	*a->waiting_end = h;
	a->waiting_end = &h->next;
	if (first)
		wind(a);
}

void acknowledge_end(struct acknowledge *a, struct record *r, bool confirmed)
{
	if (!r->answer)
		return;
	take(a, r->answer, confirmed ? METRIC_ACKNOWLEDGED_BOTH : METRIC_ACKNOWLEDGED_JOURNAL);
	/* Where no message can be sent the timer's next turn is soon enough. */
	if (!a->posted)
		a->posted = worker_post(a->worker, on_posted, a) == 0;
	if (!a->posted)
		uv_timer_start(&a->timer, on_time, 1, 0);
}

void acknowledge_close(struct acknowledge *a)
{
	while (a->waiting)
		take(a, a->waiting, METRIC_ACKNOWLEDGED_LATE);
	uv_close((uv_handle_t *)&a->timer, NULL);
}

void acknowledge_done(struct acknowledge *a)
{
	struct held_answer *h;

	/* Their sessions went before the loop. */
	while ((h = a->due)) {
		a->due = h->next;
		free(h);
	}
}
