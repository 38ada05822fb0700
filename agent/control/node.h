/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a running agent is made of. The main thread's. */
#pragma once
#include <uv.h>

#include "base/metrics.h"
#include "control/admin.h"
#include "control/clusters.h"
#include "control/config.h"
#include "control/http.h"
#include "cql/scope.h"
#include "cutover/phase.h"
#include "intercept/intercept.h"
#include "migrate/service.h"
#include "mirror/mirror.h"
#include "mirror/recovery.h"
#include "relay/relay.h"

/* One look for connections that pass by the agent. */
struct strays {
	unsigned found, closed, spared;
	const char *spared_for; /* the last one; static */
	int result;             /* < 0: it could not see everything, `error` says why */
	struct error error;
};

struct node {
	const struct config *config;
	uv_loop_t loop;
	uv_signal_t term, interrupt;
	uv_poll_t events;       /* of the kernel side */
	uv_timer_t second;      /* counters, strays */
	uv_work_t strays, watch, keep;
	unsigned seconds;
	bool keep_running;
	bool strays_running, watch_running, watch_learned, serving, events_made, events_on;
	bool counted;           /* what earlier agents put on the ledger is in the counters */
	bool signalled;         /* told to stop */
	struct strays looking, looked; /* the thread pool's while it runs; the main loop's */
	unsigned strays_closed;
	struct phase_listener clear;   /* waits until none is left; done NULL = nobody does */
	uint64_t clear_until_ns;
	bool clear_counts;             /* the look that runs began after somebody waited */
	uint64_t started_ns;
	struct metrics *metrics; /* of the main thread */
	struct scope scope;      /* what is mirrored */
	struct clusters clusters; /* certificates and nodes, kept fresh */
	struct relay relay;
	struct mirror mirror;
	struct recovery_found recovered;
	struct phases *phases;
	struct intercept *intercept;
	struct admin *admin;
	struct http *http;
	struct gaps *gaps;       /* the gap ledger; gaps.h */
	struct service *service; /* NULL = no migration service is configured */
	struct handover *handover; /* to the next agent; handover.h */
	struct takeover *takeover; /* from the one before, NULL = there is none (any more) */
	struct vigil *vigil;     /* vigil.h */
	struct addr *learned;   /* nodes of the origin found by the last look, for the main loop to watch */
	unsigned learned_count;
};

/* run.c: what belongs to one process only. claim: admin socket, HTTP, ledger. lead: phase, migration service. 0 or −errno with the reason. */
int node_claim(struct node *n, struct error *error);
int node_lead(struct node *n, struct error *error);

/* answers.c: the admin socket's commands and the health questions. */
int answers_register(struct node *n, struct error *error);
bool answer_health(json_t *body, void *context);
bool answer_ready(json_t *body, void *context);

/* steer.c: the kernel side. */
int steer_open(struct node *n, struct error *error);   /* before the relay: programs, mark */
int steer_start(struct node *n, struct error *error);  /* after it: agent address, watch list, events */
void steer_tick(struct node *n);                       /* once a second */
void steer_stop(struct node *n);
void steer_pause(struct node *n);                      /* another agent looks after it; not from a callback */
void steer_resume(struct node *n);
void steer_poll(struct node *n);                       /* takes the events that are there now */
/*
 * While mirroring: `listener` is told once no connection passes by the agent any more, or that some still do after
 * STEER_CLEAR_SECONDS, or why nobody can tell. One at a time.
 */
void steer_clear(struct node *n, const struct phase_listener *listener);
void steer_describe(const struct node *n, json_t *status); /* adds to `problems` */
#define STEER_CLEAR_SECONDS 30

/* gaps.c: the gap ledger, NULL when none is kept. */
struct ledger *gaps_ledger(struct node *n);
