/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/relay.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cql/scope.h"
#include "relay/prepared.h"
#include "relay/reach.h"
#include "relay/retire.h"
#include "relay/topology.h"
#include "relay/worker.h"

/* What was known before the restart; without it clients prepare again, and the origin is asked again. */
static void recall(struct relay *r)
{
	const char *directory = r->options.state_directory;
	bool damaged[2];
	int prepared, answers;

	if (!directory[0])
		return;
	prepared = prepared_map_load(r->prepared, directory, &damaged[0]);
	answers = topology_store_load(r->topology, directory, &damaged[1]);
	if (prepared > 0 || answers > 0)
		log_info("relay", "%d prepared statements and %d topology answers are known from before", prepared, answers);
	if (damaged[0] || damaged[1] || prepared < 0 || answers < 0)
		log_warn("relay", "%s/prepared.keep or topology.keep is damaged; what is missing is learned again", directory);
}

void relay_keep(struct relay *r)
{
	const char *directory = r->options.state_directory;
	struct error error;

	if (!directory[0])
		return;
	if (prepared_map_changed(r->prepared) && prepared_map_save(r->prepared, directory, &error) < 0)
		log_error("relay", "%s", error.text);
	if (topology_store_changed(r->topology) && topology_store_save(r->topology, directory, &error) < 0)
		log_error("relay", "%s", error.text);
}

/* Workers that never ran; relay_stop() sees to those that do. */
static void discard_from(struct relay *r, unsigned first)
{
	for (unsigned i = first; i < r->worker_count; i++)
		worker_discard(r->workers[i]);
	r->worker_count = first;
}

int relay_start(struct relay *r, const struct tap_ops *tap, void *mirror, struct error *error)
{
	r->tap = tap;
	r->mirror = mirror;
	r->prepared = prepared_map_new();
	r->topology = topology_store_new();
	r->reach = reach_new(&r->options);
	if (!r->prepared || !r->topology || !r->reach)
		return error_set(error, -ENOMEM, "out of memory");
	if (scope_renames(r->options.scope))
		prepared_map_apart(r->prepared);
	recall(r);
	for (unsigned i = 0; i < r->options.workers; i++) {
		struct worker *w = worker_new(r, i, error);

		if (!w) {
			discard_from(r, 0);
			return -EINVAL;
		}
		r->workers[r->worker_count++] = w;
	}
	/* An address that is not listened on any more: the agent before closes it when its own clients have been served. */
	for (unsigned i = 0; i < r->options.inherited_count; i++)
		if (r->options.inherited[i].fd >= 0)
			close(r->options.inherited[i].fd);
	r->options.inherited_count = 0;
	for (unsigned i = 0; i < r->worker_count; i++) {
		int failed = worker_start(r->workers[i]);

		if (failed < 0) {
			discard_from(r, i);
			return error_set(error, failed, "cannot start a thread: %s", strerror(-failed));
		}
	}
	return 0;
}

unsigned relay_listeners(const struct relay *r, struct relay_listener ret[RELAY_LISTENERS_MAX])
{
	unsigned count = 0;

	for (unsigned i = 0; i < r->worker_count; i++)
		for (unsigned k = 0; k < r->workers[i]->listener_count && count < RELAY_LISTENERS_MAX; k++) {
			struct relay_listener *l = &ret[count++];
			socklen_t size = sizeof(l->address.storage);

			*l = (struct relay_listener){.fd = r->workers[i]->listener[k].fd,
						     .intercepted = r->workers[i]->listener[k].intercepted};
			getsockname(l->fd, &l->address.sa, &size);
		}
	return count;
}

struct round {
	_Atomic unsigned left;
	void (*job)(struct worker *w, void *context);
	void (*after)(void *context);
	void *context;
};

static void run_one(struct worker *w, void *context)
{
	struct round *round = context;

	round->job(w, round->context);
	if (atomic_fetch_sub(&round->left, 1) == 1) {
		if (round->after)
			round->after(round->context);
		free(round);
	}
}

int relay_each_worker(struct relay *r, void (*job)(struct worker *w, void *context), void (*after)(void *context),
		      void *context)
{
	struct round *round;

	if (!r->worker_count) {
		if (after)
			after(context);
		return 0;
	}
	round = malloc(sizeof(*round));
	if (!round)
		return -ENOMEM;
	*round = (struct round){.left = r->worker_count, .job = job, .after = after, .context = context};
	for (unsigned i = 0; i < r->worker_count; i++)
		if (worker_post(r->workers[i], run_one, round) < 0)
			abort(); /* a worker that misses a message would serve clients on the wrong side */
	return 0;
}

static void serve_one(struct worker *w, void *context)
{
	(void)context;
	worker_serve(w);
}

void relay_serve(struct relay *r)
{
	relay_each_worker(r, serve_one, NULL, NULL);
}

static void stop_one(struct worker *w, void *context)
{
	(void)context;
	worker_stop(w);
}

void relay_stop(struct relay *r)
{
	/* Not as a round: a worker may have ended by itself, and takes its message no more. */
	for (unsigned i = 0; i < r->worker_count; i++)
		if (worker_post(r->workers[i], stop_one, NULL) < 0)
			abort();
	for (unsigned i = 0; i < r->worker_count; i++)
		pthread_join(r->workers[i]->thread, NULL);
}

void relay_done(struct relay *r)
{
	for (unsigned i = 0; i < r->worker_count; i++)
		worker_free(r->workers[i]);
	r->worker_count = 0;
	prepared_map_free(r->prepared);
	topology_store_free(r->topology);
	reach_free(r->reach);
	retirement_free(r->retirement);
	r->retirement = NULL;
}

struct new_course {
	struct course course;
	void (*after)(void *context);
	void *context;
};

static void course_one(struct worker *w, void *context)
{
	struct new_course *n = context;

	worker_set_course(w, &n->course);
}

static void course_after(void *context)
{
	struct new_course *n = context;

	if (n->after)
		n->after(n->context);
	free(n);
}

int relay_set_course(struct relay *r, const struct course *course, void (*after)(void *context), void *context)
{
	struct new_course *n = malloc(sizeof(*n));

	if (!n)
		return -ENOMEM;
	*n = (struct new_course){.course = *course, .after = after, .context = context};
	r->course = *course;
	return relay_each_worker(r, course_one, course_after, n);
}
