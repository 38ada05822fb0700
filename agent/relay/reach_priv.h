/* SPDX-License-Identifier: Apache-2.0 */
/* Between reach.c (what is shared), reach_dial.c (a worker's dials) and reach_trial.c (who finds out). */
#pragma once
#include <pthread.h>

#include "base/metrics.h"
#include "relay/reach.h"

#define REACH_CONTACTS 1024u /* clients whose contact point is remembered; others push them out */

struct trial;

struct reach {
	const struct relay_options *options;
	pthread_mutex_t lock; /* guards all below */
	struct verdicts verdicts[SIDES];
	struct {
		uint64_t client;
		struct addr node;
	} contacts[REACH_CONTACTS];
	struct reach_seat *seats[RELAY_WORKERS_MAX];
	unsigned seat_count;
};

struct reach_seat {
	struct reach *reach;
	uv_loop_t *loop;
	struct metrics *metrics;
	uv_async_t wake;		   /* a verdict has come: from any thread */
	struct reach_dial *dials, *waking; /* whom that may concern; those that are being told */
	struct trial *trials;
	bool closed;
};

/* What is to be done about a wish. */
struct reach_plan {
	enum connection_mode mode;
	enum mode_way way;
	int cause;  /* why the replica could not be reached the last time; 0 = it could, or nobody knows */
	bool alone; /* auto, but there is no host that could stand in */
	struct endpoint replica;
	struct endpoint control[EYEBALLS_MAX];
	unsigned control_count;
};

/* `anew`: a dial that begins; else one that waits, and is only told how things stand. */
void reach_plan(struct reach *r, const struct reach_want *want, struct reach_plan *ret);
/* Who would be dialled instead, for texts. False: nobody. */
bool reach_stand_in(struct reach *r, const struct reach_want *want, struct endpoint *ret);
unsigned reach_first_ms(const struct reach_options *o);
/* The replica answered this client. */
void reach_learn(struct reach *r, const struct reach_want *want);
/* A verdict has changed: all seats look again. */
void reach_wake_all(struct reach *r);
/* Who an endpoint is, in words: its name, or else its address. */
const char *reach_name(const struct endpoint *to, char text[ENDPOINT_NAME]);

/*
 * Finds out whether the replica answers, and reports. `others_wait`: nothing is known yet, and connections wait for it. Never fails:
 * what cannot even be tried is reported as a failure.
 */
void trial_start(struct reach_seat *s, const struct reach_want *want, bool others_wait);
/* All of this seat, without a verdict. */
void trials_stop(struct reach_seat *s);
