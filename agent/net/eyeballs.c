// SPDX-License-Identifier: Apache-2.0
#include "net/eyeballs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/magic.h"

#define EYEBALLS_MAGIC 0xE1EBA115u

struct one {
	struct eyeballs *all;
	struct dial *dial;
};

struct eyeballs {
	uint32_t magic;
	uv_loop_t *loop;
	uv_timer_t next; /* the time of the next one */
	uint32_t mark;
	unsigned timeout_ms, count, begun, failed;
	int error; /* of the first endpoint */
	char reason[256];
	eyeballs_done done;
	void *context;
	struct one one[EYEBALLS_MAX];
	struct endpoint to[]; /* count */
};

static void on_closed(uv_handle_t *handle)
{
	struct eyeballs *e = handle->data;

	MAGIC_CHECK(e, EYEBALLS_MAGIC);
	e->magic = 0;
	free(e);
}

/* Ends all that is under way. */
static void stop(struct eyeballs *e)
{
	e->done = NULL;
	for (unsigned i = 0; i < e->begun; i++) {
		dial_cancel(e->one[i].dial);
		e->one[i].dial = NULL;
	}
	uv_close((uv_handle_t *)&e->next, on_closed);
}

static void on_dialled(void *context, struct dial_result *result);
static void begin_next(struct eyeballs *e);

static void on_next(uv_timer_t *timer)
{
	struct eyeballs *e = timer->data;

	MAGIC_CHECK(e, EYEBALLS_MAGIC);
	begin_next(e);
}

static void note_failure(struct eyeballs *e, unsigned index, int error, const char *reason)
{
	e->failed++;
	if (index == 0) {
		e->error = error;
		snprintf(e->reason, sizeof(e->reason), "%s", reason);
	}
}

/* All have failed: the first one's reason, since that is whom everybody means. */
static void finish_failed(struct eyeballs *e)
{
	struct dial_result result = {.error = e->error, .reason = e->reason, .stream = stream_plain(-1)};
	eyeballs_done done = e->done;

	stop(e);
	done(e->context, &result, &e->to[0]);
}

/* Once nothing is left to wait for, the timer tells so: never from within eyeballs_start(). */
static void begin_next(struct eyeballs *e)
{
	while (e->begun < e->count) {
		unsigned i = e->begun++;

		e->one[i].all = e;
		e->one[i].dial = dial_start(e->loop, &e->to[i], e->mark, e->timeout_ms, on_dialled, &e->one[i]);
		if (e->one[i].dial) {
			if (e->begun < e->count)
				uv_timer_start(&e->next, on_next, EYEBALLS_DELAY_MS, 0);
			return;
		}
		note_failure(e, i, -EMFILE, strerror(EMFILE));
	}
	if (e->failed == e->count)
		finish_failed(e);
}

static void on_dialled(void *context, struct dial_result *result)
{
	struct one *one = context;
	struct eyeballs *e = one->all;
	unsigned index = (unsigned)(one - e->one);

	MAGIC_CHECK(e, EYEBALLS_MAGIC);
	one->dial = NULL;
	if (result->error == 0) {
		eyeballs_done done = e->done;

		stop(e);
		done(e->context, result, &e->to[index]); /* the memory goes from the loop, later */
		return;
	}
	note_failure(e, index, result->error, result->reason);
	if (e->begun < e->count) {
		uv_timer_stop(&e->next);
		begin_next(e);
	} else if (e->failed == e->count) {
		finish_failed(e);
	}
}

struct eyeballs *eyeballs_start(uv_loop_t *loop, const struct endpoint *to, unsigned count, uint32_t mark,
				unsigned timeout_ms, eyeballs_done done, void *context)
{
	struct eyeballs *e;

	if (count > EYEBALLS_MAX)
		count = EYEBALLS_MAX;
	e = calloc(1, sizeof(*e) + count * sizeof(*to));
	if (!e || !count) {
		free(e);
		return NULL;
	}
	e->magic = EYEBALLS_MAGIC;
	e->loop = loop;
	e->mark = mark;
	e->timeout_ms = timeout_ms;
	e->count = count;
	e->done = done;
	e->context = context;
	memcpy(e->to, to, count * sizeof(*to));
	uv_timer_init(loop, &e->next);
	e->next.data = e;
	/* The first one here and now; what fails before a packet has left is told from the loop, as dial.h promises. */
	e->begun = 1;
	e->one[0].all = e;
	e->one[0].dial = dial_start(loop, &e->to[0], mark, timeout_ms, on_dialled, &e->one[0]);
	if (!e->one[0].dial) {
		note_failure(e, 0, -EMFILE, strerror(EMFILE));
		uv_timer_start(&e->next, on_next, 0, 0);
	} else if (count > 1) {
		uv_timer_start(&e->next, on_next, EYEBALLS_DELAY_MS, 0);
	}
	return e;
}

void eyeballs_cancel(struct eyeballs *e)
{
	if (!e)
		return;
	MAGIC_CHECK(e, EYEBALLS_MAGIC);
	if (e->done)
		stop(e);
}
