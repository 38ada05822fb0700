// SPDX-License-Identifier: Apache-2.0
#include "copy/routes.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

#include "base/clock.h"
#include "net/dial.h"

void routes_init(struct routes *r, const struct copy_cluster *cluster, enum connection_mode mode)
{
	pthread_mutex_init(&r->lock, NULL);
	verdicts_init(&r->verdicts, mode);
	r->cluster = cluster;
}

void routes_done(struct routes *r)
{
	pthread_mutex_destroy(&r->lock);
}

enum mode_way routes_choose(struct routes *r, unsigned node)
{
	enum mode_way way;

	pthread_mutex_lock(&r->lock);
	way = verdicts_choose(&r->verdicts, &r->cluster->ring.nodes[node].addr, clock_now_ns());
	pthread_mutex_unlock(&r->lock);
	return way;
}

void routes_reached(struct routes *r, unsigned node)
{
	const struct ring_node *n = &r->cluster->ring.nodes[node];
	bool returned;

	pthread_mutex_lock(&r->lock);
	returned = verdicts_reached(&r->verdicts, &n->addr);
	pthread_mutex_unlock(&r->lock);
	if (returned)
		fprintf(stderr, "[INFO] COPY connection: replica %s is reachable again\n", n->text);
}

void routes_failed(struct routes *r, unsigned node, int cause)
{
	const struct ring_node *n = &r->cluster->ring.nodes[node];
	struct mode_fallback say;
	char text[256];

	pthread_mutex_lock(&r->lock);
	say = verdicts_failed(&r->verdicts, &n->addr, cause, clock_now_ns());
	pthread_mutex_unlock(&r->lock);
	if (say.warn)
		fprintf(stderr, "%s\n", mode_warning);
	if (say.audit)
		fprintf(stderr, "[INFO] %s\n",
			mode_audit("COPY", n->text, r->cluster->control_text, text, sizeof(text)));
}

/* ------------------------------------------------------------- before work begins */

struct attempt {
	struct routes *routes;
	unsigned node;
	int result; /* 0 or −errno */
};

static void on_dialled(void *context, struct dial_result *result)
{
	struct attempt *a = context;

	a->result = result->error;
	if (a->result == 0) {
		stream_close(&result->stream);
		routes_reached(a->routes, a->node);
		return;
	}
	/* What TLS has against it no errno can say. */
	if (a->result == -EKEYREJECTED || a->result == -EPROTO)
		fprintf(stderr, "[INFO] COPY connection: replica %s: %s\n",
			a->routes->cluster->ring.nodes[a->node].text, result->reason);
	routes_failed(a->routes, a->node, a->result);
}

/* direct: each range needs a replica; the first that cannot be reached of a range without any is named. */
static int judge_direct(const struct routes *r, const struct attempt *attempts, struct error *error)
{
	const struct ring *ring = &r->cluster->ring;

	for (unsigned i = 0; i < ring->token_count; i++) {
		const struct ring_replicas *list = &ring->replicas[i];
		bool reached = list->count == 0;

		for (unsigned k = 0; k < list->count; k++)
			reached |= attempts[list->nodes[k]].result == 0;
		if (!reached)
			return mode_error(error, ring->nodes[list->nodes[0]].text,
					  attempts[list->nodes[0]].result);
	}
	return 0;
}

int routes_explore(struct routes *r, unsigned timeout_ms, struct error *error)
{
	const struct ring *ring = &r->cluster->ring;
	struct attempt *attempts;
	struct endpoint to;
	uv_loop_t loop;
	int rc = 0;

	if (r->verdicts.mode == MODE_PROXY) {
		fprintf(stderr, "%s\n", mode_note);
		return 0;
	}
	attempts = calloc(ring->node_count, sizeof(*attempts));
	if (!attempts)
		return error_set(error, -ENOMEM, "out of memory");
	rc = uv_loop_init(&loop);
	if (rc < 0) {
		free(attempts);
		return error_set(error, rc, "no event loop: %s", uv_strerror(rc));
	}
	/* Node 0 answers at the control host, which has been spoken to. */
	for (unsigned i = 1; i < ring->node_count; i++) {
		attempts[i] = (struct attempt){.routes = r, .node = i};
		if (!ring->nodes[i].local)
			continue;
		routes_choose(r, i);
		copy_cluster_node(r->cluster, i, &to);
		if (!dial_start(&loop, &to, 0, timeout_ms, on_dialled, &attempts[i]))
			on_dialled(&attempts[i], &(struct dial_result){.error = -EMFILE});
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	if (r->verdicts.mode == MODE_DIRECT)
		rc = judge_direct(r, attempts, error);
	free(attempts);
	return rc;
}
