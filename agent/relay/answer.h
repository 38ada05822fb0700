/* SPDX-License-Identifier: Apache-2.0 */
/* Between responses.c (bytes to answers) and answer.c (what is learned from an answer, and what has to change in it). */
#pragma once
#include "cql/frame.h"
#include "relay/paging.h"
#include "relay/session.h"

/*
 * Larger answers stream, whatever they are, and none that matters is so large. But for a compressed page: its paging state is found only in
 * the plain bytes, and without its tag the next page would be asked of the other cluster.
 */
#define ANSWER_WHOLE_MAX (16u << 20)

/* What has to be done with one answer. */
struct answer {
	struct upstream *u;
	struct frame_header h;
	struct inflight *e;   /* NULL: an event, or nobody's */
	const uint8_t *received; /* its header, and `there` bytes of its body */
	size_t there;
	struct span body;     /* as far as it is there; plain */
	bool compressed;      /* body was decompressed: what goes on is the received bytes, unless changed */
	bool drop;            /* not for the client */
	bool continues;       /* the request goes on with another one of the agent's under the same stream id */
	bool changed;
	size_t change_at, change_remove;
	uint8_t insert[4 + PAGING_TAG_SIZE + 2 + PREPARED_ID_MAX];
	size_t insert_size;
};

/* Whether an answer has to be looked into at all. Its body may be empty (READY). */
bool answer_interesting(const struct upstream *u, const struct frame_header *h, const struct inflight *e);

/* How many bytes of the body must be there before an interesting answer can be judged. */
size_t answer_needed(const struct frame_header *h, const struct inflight *e);

/* Looks at one answer. 0, 1 = more of the body is needed, CQL_MALFORMED, −EACCES = refused while the handshake was repeated. */
int answer_judge(struct answer *a);
