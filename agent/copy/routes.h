/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way to each replica, shared by all threads: the connection mode's verdicts behind a lock, and what is
 * said about them on standard error, once.
 */
#pragma once
#include <pthread.h>

#include "copy/cluster.h"
#include "net/mode.h"

struct routes {
	pthread_mutex_t lock;
	struct verdicts verdicts;
	const struct copy_cluster *cluster; /* borrowed */
};

void routes_init(struct routes *r, const struct copy_cluster *cluster, enum connection_mode mode);
void routes_done(struct routes *r);

/*
 * Dials each node of the local data center once, all at the same time, so that what is unreachable costs one
 * time-out and is known before work begins. In proxy mode nothing is dialled, and the note is given. direct:
 * −errno with the document's error when a range of the ring has no replica that can be reached.
 */
int routes_explore(struct routes *r, unsigned timeout_ms, struct error *error);

enum mode_way routes_choose(struct routes *r, unsigned node);
void routes_reached(struct routes *r, unsigned node);
void routes_failed(struct routes *r, unsigned node, int cause);
