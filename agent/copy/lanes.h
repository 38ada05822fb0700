/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections of one thread: one to each replica that it uses, and some through the control host. A
 * request names the replicas that would serve it best; it goes to the first that can be reached, else through
 * the control host (auto), else it fails (direct).
 *
 *   submit ─▶ lane ─▶ waiting ─▶ start(channel) ─▶ answered
 *              │ dialling fails: submitted again, the verdict being known now
 *              └ lost while in flight: request.failed(); whoever made it decides whether to submit it again
 */
#pragma once
#include "copy/channel.h"
#include "copy/routes.h"

struct lane_request {
	struct channel_request request; /* first: a channel_request is cast back */
	/* Encodes and sends it by channel_send(). 0, −EAGAIN: later, another −errno: request.failed() is
	 * called with it. */
	int (*start)(struct lane_request *r, struct channel *c);
	struct ring_replicas replicas; /* where it belongs; none: anywhere */
	unsigned turn;		       /* which of them is asked first */
	struct lane_request *next;
};

struct lanes;

/*
 * `control`: how many connections through the control host at most; `turn`: of the first of them, see
 * copy_cluster_control(); `inflight`: requests on each. Settings
 * are borrowed. `fatal`: a node that can be reached refuses the login or the statement; nothing will get
 * better. NULL: out of memory.
 */
struct lanes *lanes_new(uv_loop_t *loop, struct routes *routes, const struct channel_settings *settings,
			unsigned control, unsigned turn, unsigned inflight,
			void (*fatal)(void *owner, const char *reason),
			void *owner);
void lanes_submit(struct lanes *l, struct lane_request *r);
void lanes_tick(struct lanes *l, uint64_t now_ns);
/* Closes the connections and fails what waits or is in flight with −ECANCELED. The loop has to run on until
 * nothing is left. */
void lanes_free(struct lanes *l);
