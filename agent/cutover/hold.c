/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/hold.h"

#include <stdlib.h>

#include "relay/worker.h"

struct hold {
	struct relay *relay;
	uv_async_t *wake;
	_Atomic unsigned loud; /* workers that are not quiet yet */
	bool switching;
	struct course course;
	void (*after)(void *context);
	void *context;
};

static void worker_quiet(struct worker *w, void *context)
{
	struct hold *h = context;

	(void)w;
	if (atomic_fetch_sub(&h->loud, 1) == 1)
		uv_async_send(h->wake);
}

static void hold_one(struct worker *w, void *context)
{
	worker_hold(w, worker_quiet, context);
}

struct hold *hold_begin(struct relay *r, uv_async_t *wake)
{
	struct hold *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->relay = r;
	h->wake = wake;
	atomic_store(&h->loud, r->worker_count);
	relay_each_worker(r, hold_one, NULL, h);
	return h;
}

bool hold_quiet(const struct hold *h)
{
	return h && atomic_load(&((struct hold *)h)->loud) == 0;
}

static void go_on(struct worker *w, void *context)
{
	struct hold *h = context;

	if (h->switching)
		worker_set_course(w, &h->course);
	worker_release(w);
}

static void all_go_on(void *context)
{
	struct hold *h = context;

	if (h->after)
		h->after(h->context);
	free(h);
}

void hold_end(struct hold *h, const struct course *course, void (*after)(void *context), void *context)
{
	if (!h)
		return;
	h->switching = course != NULL;
	if (course)
		h->course = *course;
	h->after = after;
	h->context = context;
	relay_each_worker(h->relay, go_on, all_go_on, h);
}
