/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all threads of one COPY share: what is to be copied, how the cluster is reached, how far it has come,
 * and why it stops.
 *
 * The main thread owns it. Workers read what is const after the start, count in `progress`, and fail it by
 * plan_fail().
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "copy/channel.h"
#include "copy/cluster.h"
#include "copy/options.h"
#include "copy/progress.h"
#include "copy/routes.h"

struct plan {
	const struct copy_options *options;
	const char *keyspace, *table;
	const char **columns; /* of the file and the statement, in their order; borrowed names */
	unsigned column_count;
	struct copy_cluster cluster;
	struct routes routes;
	struct channel_settings settings; /* without scratch */
	char *statement;		  /* the SELECT, INSERT or UPDATE; owned */
	uint16_t consistency;
	struct type *types; /* of the columns, in their order; owned */
	bool counters;	    /* the columns that are no key are counters */
	bool signals;	    /* are blocked and have to be looked for */
	FILE *messages;	    /* where reports go; NULL when the data goes to standard output */

	struct progress progress;
	atomic_bool stop; /* workers wind up */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned live; /* workers that run; under the lock */
	int code;      /* why it stopped early: −errno, with `error`; under the lock */
	struct error error;
};

/* The first failure is kept; everybody winds up. */
void plan_fail(struct plan *p, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Whether somebody wants an end (SIGINT, SIGTERM, SIGHUP, which are blocked): then the plan fails with
 * −EINTR. */
void plan_check_signals(struct plan *p);
/* Waits until something changes or `millis` have passed, and checks signals. The lock is not held by the
 * caller. */
void plan_wait(struct plan *p, unsigned millis);
void plan_notify(struct plan *p);
unsigned plan_live(struct plan *p);

/* "name" with quotes doubled, for a statement. */
void plan_put_name(struct bytes *to, const char *name);

/* Asks a node for the types of the columns by preparing the statement, and keeps them. 0 or −errno with the
 * server's own words. */
int plan_prepare(struct plan *p, struct error *error);
